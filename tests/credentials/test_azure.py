"""Tokens for Azure: by federation from AWS, by a secret, by a managed identity; over real TLS, by the real library."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any

import pytest

from push_pools.credentials import azure, is_long_lived
from push_pools.credentials.azure import AzureContainerInstanceCredentials
from push_pools.domain.errors import JobRejected, PlatformError, PlatformUnavailable
from push_pools.domain.failures import explain_error
from push_pools.platforms.aci import AciPlatform
from push_pools.platforms.aci_errors import TYPE
from push_pools.ports import PlatformContext
from push_pools.testing.aci_double import AciDouble, ManualClock
from push_pools.testing.doubles_http import LoopbackServer, Reply
from tests.platforms.aci_world import Clock, job_of

from .azure_world import TENANT, Entra, Sts, certificate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SCOPE = "https://management.azure.com/.default"
NUMBER = itertools.count()


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def entra(tls: tuple[Any, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Entra]:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tls[1]))
    entra = Entra(tls[0])
    yield entra
    entra.server.close()


@pytest.fixture
def sts(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sts]:
    sts = Sts()
    for name, value in {
        "AWS_ACCESS_KEY_ID": "AKIADOUBLE",
        "AWS_SECRET_ACCESS_KEY": "double",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_CONFIG_FILE": "/nonexistent",
        "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
        "AWS_ENDPOINT_URL_STS": sts.server.endpoint,
    }.items():
        monkeypatch.setenv(name, value)
    yield sts
    sts.server.close()


def block(entra: Entra | None = None, **fields: Any) -> AzureContainerInstanceCredentials:
    """Return a block that nobody has asked with before: tokens are kept."""
    host = {"authority_host": entra.server.endpoint} if entra else {}
    return AzureContainerInstanceCredentials.model_validate({"client_id": f"app-{next(NUMBER)}", **host, **fields})


def refused(credentials: AzureContainerInstanceCredentials) -> PlatformError:
    with pytest.raises(PlatformError) as caught:
        credentials.check(TYPE, SCOPE)
    return caught.value


# -- the three ways


def test_a_token_by_federation_needs_no_secret(entra: Entra, sts: Sts) -> None:
    """AWS says who the service is, and Entra ID trusts it."""
    credentials = block(entra, tenant_id=TENANT, federated=True)
    assert credentials.mode == block(tenant_id=TENANT).mode == "aws_federated"

    credentials.check(TYPE, SCOPE)

    assert sts.asked[0]["Action"] == "GetWebIdentityToken"
    assert sts.asked[0]["Audience.member.1"] == "api://AzureADTokenExchange"
    assert (sts.asked[0]["SigningAlgorithm"], sts.asked[0]["DurationSeconds"]) == ("RS256", "300")
    (asked,) = entra.asked
    assert asked["path"] == f"/{TENANT}/oauth2/v2.0/token"
    assert asked["client_assertion"] == "token-of-aws"
    assert asked["client_id"] == credentials.client_id
    assert "client_secret" not in asked


def test_a_token_by_a_secret(entra: Entra) -> None:
    credentials = block(entra, tenant_id=TENANT, client_secret="hidden")
    assert credentials.mode == "client_secret"

    credentials.check(TYPE, SCOPE)

    assert entra.asked[-1]["client_secret"] == "hidden"


def test_a_token_of_a_managed_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a container of Azure has it: an endpoint of the machine, and a header that proves where one is."""
    granted = {"access_token": "t", "expires_on": "4102444800", "resource": "x", "token_type": "Bearer"}
    asked: list[Any] = []

    def answer(request: Any) -> Reply:
        asked.append(request)
        return Reply(200, json.dumps(granted).encode())

    with LoopbackServer(answer) as server:
        monkeypatch.setenv("IDENTITY_ENDPOINT", server.endpoint)
        monkeypatch.setenv("IDENTITY_HEADER", "proof")
        credentials = block(client_id=None, managed_identity_client_id="assigned")
        assert credentials.mode == "managed_identity"
        credentials.check(TYPE, SCOPE)
    assert asked[0].headers["x-identity-header"] == "proof"
    assert "client_id=assigned" in asked[0].path


def test_tokens_are_kept_until_they_expire(entra: Entra) -> None:
    credentials = block(entra, tenant_id=TENANT, client_secret="hidden")
    for _ in range(3):
        credentials.check(TYPE, SCOPE)
    credentials.model_copy().check(TYPE, SCOPE)
    assert len(entra.asked) == 1


def test_a_credential_with_a_secret_is_let_go_in_time(entra: Entra, monkeypatch: pytest.MonkeyPatch) -> None:
    credentials = block(entra, tenant_id=TENANT, client_secret="hidden")
    first = credentials.credential()
    assert credentials.credential() is first
    monkeypatch.setattr(azure, "KEPT_SECONDS", -1.0)
    spent = block(entra, tenant_id=TENANT, client_secret="hidden")
    assert spent.credential() is not spent.credential()


def test_only_so_many_credentials_stay_open() -> None:
    for _ in range(azure.MAX_OPEN + 5):
        block().credential()
    assert len(azure._OPEN) <= azure.MAX_OPEN


def test_the_services_own_identity_is_that_of_the_environment() -> None:
    of = AzureContainerInstanceCredentials.of_service
    assert of({"AZURE_CLIENT_ID": "c", "AZURE_TENANT_ID": "t"}).mode == "aws_federated"
    assert of({"AZURE_TENANT_ID": "t"}).mode == of({}).mode == "managed_identity"


# -- what is refused


@pytest.mark.parametrize(
    ("sentence", "code", "class_"),
    [
        ("AADSTS7000215: Invalid client secret provided.", "BadClientSecret", "permission"),
        ("AADSTS7000222: The provided client secret keys are expired.", "ClientSecretExpired", "permission"),
        ("AADSTS700016: Application was not found in the directory.", "ClientNotFound", "configuration"),
        ("AADSTS90002: Tenant not found.", "TenantNotFound", "configuration"),
        ("AADSTS700213: No matching federated identity record found.", "FederationNotTrusted", "permission"),
        ("AADSTS53003: Access has been blocked.", "BadCredentials", "permission"),
    ],
)
def test_a_refusal_of_entra_id_is_explained(entra: Entra, sentence: str, code: str, class_: str) -> None:
    entra.refusals.append(sentence)

    error = refused(block(entra, tenant_id=TENANT, client_secret="hidden"))

    assert isinstance(error, JobRejected)
    assert (error.codes[0], error.variable) == (code, "aci_credentials")
    failure = explain_error(error)
    assert (str(failure.failure_class), failure.retry) == (class_, False)
    assert "hidden" not in str(error)
    assert "Trace ID" not in str(error)


@pytest.mark.parametrize(
    ("refusal", "code", "class_"),
    [
        (("OutboundWebIdentityFederationDisabledException", "not enabled"), "FederationDisabled", JobRejected),
        (("OutboundWebIdentityFederationDisabled", "not enabled"), "FederationDisabled", JobRejected),
        (("AccessDenied", "not authorized to perform: sts:GetWebIdentityToken"), "AssertionDenied", JobRejected),
        (("ExpiredToken", "expired"), "NoCredentials", PlatformUnavailable),
    ],
)
def test_a_refusal_of_aws_is_explained(entra: Entra, sts: Sts, refusal: Any, code: str, class_: Any) -> None:
    sts.refusals.append(refusal)

    error = refused(block(entra, tenant_id=TENANT))

    assert type(error) is class_
    assert error.codes[0] == code
    assert not entra.asked
    assert explain_error(error).suggestion


@pytest.mark.parametrize(
    "sentence",
    [
        "AADSTS90033: temporarily unavailable",
        "AADSTS90024: A transient error has occurred. Try again.",
        "AADSTS90055: There are too many incoming requests.",
        "something without a code",
    ],
)
def test_what_may_pass_is_tried_again(entra: Entra, sentence: str) -> None:
    entra.refusals.append(sentence)
    error = refused(block(entra, tenant_id=TENANT, client_secret="hidden"))
    assert type(error) is PlatformUnavailable
    assert error.codes[0] == "NoCredentials"


@pytest.mark.parametrize("status", [429, 503])
def test_an_outage_of_entra_id_is_no_refusal(entra: Entra, sts: Sts, status: int) -> None:
    """Whatever code it comes with."""
    entra.refusals.append("AADSTS399999: Not now.")
    entra.refusal_status = status
    error = refused(block(entra, tenant_id=TENANT))
    assert type(error) is PlatformUnavailable
    assert error.codes == ("NoCredentials", "AADSTS399999")


def test_an_authority_that_cannot_be_reached_is_tried_again(entra: Entra) -> None:
    credentials = block(entra, tenant_id=TENANT, client_secret="hidden")
    entra.server.close()
    assert type(refused(credentials)) is PlatformUnavailable


def test_malformed_fields_are_refused() -> None:
    error = refused(block(tenant_id="a/b", client_secret="hidden"))
    assert isinstance(error, JobRejected)
    assert error.codes == ("BadCredentials",)
    odd = block(tenant_id=TENANT, credential_kwargs={"authority": "http://example.com"})
    assert isinstance(refused(odd), JobRejected)


def test_without_a_managed_identity_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    from azure.identity import CredentialUnavailableError

    class Nowhere:
        def get_token(self, *scopes: str) -> Any:
            raise CredentialUnavailableError(message="no managed identity endpoint found.")

    monkeypatch.setattr(AzureContainerInstanceCredentials, "credential", lambda self: Nowhere())
    error = refused(AzureContainerInstanceCredentials())
    assert type(error) is PlatformUnavailable
    assert "no managed identity is here" in str(error)


def test_only_a_secret_is_long_lived() -> None:
    slug = "azure-container-instance-credentials"
    assert is_long_lived(slug, {"client_secret": "x"})
    assert not is_long_lived(slug, {"client_id": "x", "tenant_id": "y"})


def test_identities_differ_and_show_nothing() -> None:
    one, other = block(client_id="a"), block(client_id="b")
    assert one.identity() != other.identity()
    assert one.fingerprint() != one.model_copy(update={"audience": "x"}).fingerprint()
    assert "hidden" not in repr(block(tenant_id=TENANT, client_secret="hidden"))
    assert AzureContainerInstanceCredentials.model_validate({"audience": "", "credential_kwargs": None}).mode


# -- the whole way


def test_a_container_group_is_made_with_a_token_of_federation(entra: Entra, sts: Sts, tls: tuple[Any, Path]) -> None:
    """Over https, as at Azure: the token that Entra ID gave is the one that the management endpoint gets."""
    clock = ManualClock()
    double = AciDouble(clock=clock, default_seconds=10)
    double.rules.token = "token-1"
    server = LoopbackServer(double._answer, tls=tls[0])
    credentials = block(entra, tenant_id=TENANT)
    platform = AciPlatform(
        PlatformContext(lambda _: credentials, {"azure_endpoint": server.endpoint}, Clock(clock), Clock(clock))
    )

    class Book:
        def recall(self, key: str) -> None:
            return None

        def remember(self, key: str, value: str) -> str:
            return value

    handle = platform.submit(platform.prepare(job_of(), Book()), "pp-x")  # type: ignore[arg-type]

    assert platform.find(handle) == handle
    assert double.starts() == {"pp-x": 1}
    assert [each["scope"] for each in entra.asked] == [f"{server.endpoint}/.default"]
    server.close()
