"""Google Cloud credentials: federation first, keys second; what is wrong with them is said before a job is lost."""

from __future__ import annotations

import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth import exceptions as auth
from pydantic import ValidationError

from push_pools.credentials import block_type, gcp_sessions, is_long_lived, secret_fields
from push_pools.credentials.endpoints import read_endpoint
from push_pools.credentials.gcp import GcpCredentials
from push_pools.credentials.gcp_errors import credentials_error
from push_pools.domain.errors import JobRejected, PlatformUnavailable
from push_pools.testing.cloud_run_double import CloudRunDouble, Project
from push_pools.testing.doubles_http import LoopbackServer, Reply

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

AUDIENCE = "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/aws/providers/push-pools"
ROBOT = "robot@acme.iam.gserviceaccount.com"
PRIVATE = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
)


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch) -> Iterator[CloudRunDouble]:
    for name in ("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_CLOUD_PROJECT", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIADOUBLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "double")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    with CloudRunDouble() as double:
        yield double
        gcp_sessions.close_all()


def federation(double: CloudRunDouble | None = None, **changes: Any) -> dict[str, Any]:
    """Return the file that `gcloud iam workload-identity-pools create-cred-config … --aws` makes."""
    base = double.endpoint if double else ""
    return {
        "type": "external_account",
        "audience": AUDIENCE,
        "subject_token_type": "urn:ietf:params:aws:token-type:aws4_request",
        "token_url": f"{base or 'https://sts.googleapis.com'}/v1/token",
        "service_account_impersonation_url": (
            f"{base or 'https://iamcredentials.googleapis.com'}/v1/projects/-/serviceAccounts/{ROBOT}:generateAccessToken"
        ),
        "credential_source": {
            "environment_id": "aws1",
            "regional_cred_verification_url": "https://sts.{region}.amazonaws.com?Action=GetCallerIdentity",
        },
        **changes,
    }


def a_key(double: CloudRunDouble | None = None, **changes: Any) -> dict[str, Any]:
    """Return the file of a service account's key."""
    return {
        "type": "service_account",
        "project_id": "acme",
        "private_key_id": "1",
        "private_key": PRIVATE.decode(),
        "client_email": ROBOT,
        "token_uri": f"{double.endpoint if double else 'https://oauth2.googleapis.com'}/token",
        **changes,
    }


def of(**fields: Any) -> GcpCredentials:
    return GcpCredentials.model_validate(fields)


# -- what a block is


def test_it_is_a_type_of_block_with_prefects_names() -> None:
    assert block_type("gcp-credentials").load() is GcpCredentials
    assert secret_fields(GcpCredentials) == ("service_account_info", "access_token")
    assert {"service_account_info", "service_account_file", "project"} <= set(GcpCredentials.model_fields)


@pytest.mark.parametrize("text", [False, True], ids=["object", "text"])
@pytest.mark.parametrize("name", ["external_account", "service_account_info"])
def test_federation_is_kept_in_clear_under_whichever_name_it_is_given(name: str, text: bool) -> None:
    """It holds no secret, so `doctor` need not ask for another one."""
    document = federation()
    block = of(**{name: json.dumps(document) if text else document})
    assert block.external_account == document
    assert block.service_account_info is None
    assert not is_long_lived("gcp-credentials", block.model_dump(exclude_unset=True))


@pytest.mark.parametrize("text", [False, True], ids=["object", "text"])
def test_a_key_is_a_secret_and_is_flagged(text: bool) -> None:
    block = of(service_account_info=json.dumps(a_key()) if text else a_key())
    assert "PRIVATE KEY" not in repr(block)
    assert block.service_account_info is not None
    assert json.loads(block.service_account_info.get_secret_value())["client_email"] == ROBOT
    assert is_long_lived("gcp-credentials", block.model_dump())


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"service_account_info": "not json"}, "not the JSON of an object"),
        ({"service_account_info": "[]"}, "not the JSON of an object"),
        ({"service_account_info": {"type": "service_account"}}, "it has no client_email"),
        ({"service_account_info": a_key(private_key="")}, "it has no private_key"),
        ({"service_account_info": a_key(token_uri="https://evil.example/token")}, "token_uri is not an address of"),
        ({"external_account": {"type": "authorized_user"}}, "its type is not external_account"),
        ({"external_account": federation(client_secret="x")}, "it holds a client_secret"),
        ({"external_account": federation(audience="//iam.googleapis.com/other")}, "names no provider"),
        ({"external_account": federation(credential_source={"file": "/etc/passwd"})}, "credential_source is not AWS"),
        ({"external_account": federation(credential_source={"executable": {"command": "x"}})}, "is not AWS"),
        ({"external_account": federation(token_url="https://evil.example/v1/token")}, "token_url is not an address of"),
        ({"external_account": federation(token_url="http://sts.googleapis.com/v1/token")}, "token_url is not"),
        (
            {"external_account": federation(service_account_impersonation_url="https://evil.example/")},
            "service_account_impersonation_url is not",
        ),
        ({"external_account": federation(), "service_account_info": a_key()}, "are different identities"),
        ({"service_account_file": "/x", "access_token": "y"}, "are different identities"),
    ],
)
def test_what_is_malformed_is_refused_with_the_fix(fields: dict[str, Any], words: str) -> None:
    """When the block is made, and no value of it is repeated."""
    with pytest.raises(ValidationError, match=words) as error:
        of(**fields)
    assert "PRIVATE KEY" not in "".join(each["msg"] for each in error.value.errors())


def test_the_project_is_the_blocks_else_the_keys_else_the_machines(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("GOOGLE_CLOUD_PROJECT", raising=False)
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    assert of().project_id() is None
    assert of(project="mine", service_account_info=a_key()).project_id() == "mine"
    assert of(service_account_info=a_key()).project_id() == "acme"
    file = tmp_path / "key.json"
    file.write_text(json.dumps(a_key(project_id="filed")))
    assert of(service_account_file=str(file)).project_id() == "filed"
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    assert of().project_id() == "filed"
    file.write_text("{")
    assert of().project_id() is None
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "environment")
    assert of().project_id() == "environment"


# -- tokens


def test_aws_is_exchanged_for_a_service_account_without_a_key(double: CloudRunDouble) -> None:
    """Whatever identity boto3 finds: here that of the environment."""
    opened = of(external_account=federation(double)).opened()
    assert opened.metadata() == [("authorization", f"Bearer token-of-{ROBOT}")]
    assert opened.token() == f"token-of-{ROBOT}"
    assert (double.calls["token exchange"], double.calls["impersonation"]) == (1, 1)


def test_without_impersonation_the_federated_identity_itself_calls(double: CloudRunDouble) -> None:
    opened = of(external_account=federation(double, service_account_impersonation_url=None)).opened()
    assert opened.token() == "federated-token"


def test_a_key_is_exchanged_by_an_assertion_once(double: CloudRunDouble) -> None:
    """By however many threads at once."""
    opened = of(service_account_info=a_key(double)).opened()
    barrier = threading.Barrier(8)

    def ask(_: int) -> str | None:
        barrier.wait()
        return opened.token()

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(ask, range(8))) == {f"token-of-{ROBOT}"}
    assert double.calls["assertion"] == 1


def test_a_file_is_read_where_there_is_one(double: CloudRunDouble, tmp_path: Path) -> None:
    file = tmp_path / "key.json"
    file.write_text(json.dumps(a_key(double)))
    assert of(service_account_file=str(file)).opened().token() == f"token-of-{ROBOT}"


def test_a_static_token_and_none_are_enough_on_loopback(double: CloudRunDouble) -> None:
    endpoint = read_endpoint(double.endpoint)
    assert of(access_token="static").opened(endpoint).metadata() == [("authorization", "Bearer static")]
    assert of().opened(endpoint).metadata() == []


def test_equal_blocks_share_and_others_do_not(double: CloudRunDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = read_endpoint(double.endpoint)
    first = of(access_token="a").opened(endpoint)
    assert of(access_token="a").opened(endpoint) is first
    assert of(access_token="b").opened(endpoint) is not first
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    assert of(access_token="a").opened(endpoint) is not first


def test_secrets_are_let_go_in_time(double: CloudRunDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = read_endpoint(double.endpoint)
    monkeypatch.setattr(gcp_sessions, "KEPT_SECONDS", -1.0)
    first = of(access_token="a").opened(endpoint)
    assert first.is_spent()
    assert of(access_token="a").opened(endpoint) is not first
    assert not of().opened(endpoint).is_spent()


def test_few_identities_are_kept_open(double: CloudRunDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gcp_sessions, "MAX_OPEN", 2)
    endpoint = read_endpoint(double.endpoint)
    first = of(access_token="0").opened(endpoint)
    for number in (1, 2):
        of(access_token=str(number)).opened(endpoint)
    assert of(access_token="0").opened(endpoint) is not first


# -- what goes wrong


def failed(block: GcpCredentials) -> Any:
    """Return our error for the one that asking for a token raises."""
    with pytest.raises(auth.GoogleAuthError) as error:
        block.opened().token()
    ours = credentials_error(error.value, "cloud-run-v2:push")
    assert ours is not None
    return ours


def test_a_refused_exchange_is_a_refusal(double: CloudRunDouble) -> None:
    double.model.rules = Project(denied={"sts.exchange"})
    ours = failed(of(external_account=federation(double)))
    assert isinstance(ours, JobRejected)
    assert ours.codes[0] == "CredentialsRefused"
    assert "attribute condition" in ours.reason


def test_a_denied_impersonation_is_named(double: CloudRunDouble) -> None:
    double.model.rules = Project(denied={"iam.serviceAccounts.getAccessToken"})
    ours = failed(of(external_account=federation(double)))
    assert isinstance(ours, JobRejected)
    assert ours.codes[0] == "ImpersonationDenied"


def test_an_account_that_is_gone_is_a_refusal(double: CloudRunDouble) -> None:
    double.model.rules = Project(service_accounts=set())
    ours = failed(of(service_account_info=a_key(double)))
    assert isinstance(ours, JobRejected)
    assert (ours.codes[0], ours.variable) == ("CredentialsRefused", "credentials")


def test_no_aws_identity_may_be_there_later(double: CloudRunDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    ours = failed(of(external_account=federation(double)))
    assert isinstance(ours, PlatformUnavailable)
    assert ours.codes[0] == "NoCredentials"


def test_an_endpoint_that_is_not_there_may_be_later(double: CloudRunDouble) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    ours = failed(of(external_account=federation(token_url=f"http://127.0.0.1:{port}/v1/token")))
    assert isinstance(ours, PlatformUnavailable)
    assert ours.codes[0] == "ConnectFailed"


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
@pytest.mark.parametrize("where", ["exchange", "impersonation", "key"])
def test_an_outage_of_whoever_gives_tokens_is_no_refusal(double: CloudRunDouble, where: str, status: int) -> None:
    """Google's library keeps no status of an exchange: what it raises for an outage is what it raises for a refusal."""
    with closing(LoopbackServer(lambda _: Reply(status, b"<html>try later</html>", "text/html"))) as broken:
        blocks = {
            "exchange": of(external_account=federation(double, token_url=f"{broken.endpoint}/v1/token")),
            "impersonation": of(
                external_account=federation(
                    double, service_account_impersonation_url=f"{broken.endpoint}/v1/x:generateAccessToken"
                )
            ),
            "key": of(service_account_info=a_key(double, token_uri=f"{broken.endpoint}/token")),
        }
        ours = failed(blocks[where])
    assert type(ours) is PlatformUnavailable
    assert str(status) in ours.reason


def test_a_key_that_cannot_be_read_is_malformed(double: CloudRunDouble) -> None:
    block = of(
        service_account_info=a_key(double, private_key="-----BEGIN PRIVATE KEY-----\nno\n-----END PRIVATE KEY-----")
    )
    with pytest.raises(auth.MalformedError) as error:
        block.opened().token()
    ours = credentials_error(error.value, "cloud-run-v2:push")
    assert isinstance(ours, JobRejected)
    assert ours.codes[0] == "CredentialsMalformed"
    assert "PRIVATE" not in ours.reason


def test_a_file_is_held_to_what_a_block_is_held_to(double: CloudRunDouble, tmp_path: Path) -> None:
    file = tmp_path / "cred.json"
    file.write_text(json.dumps(federation(double)))
    assert of(service_account_file=str(file)).opened().token() == f"token-of-{ROBOT}"
    file.write_text(json.dumps(federation(token_url="https://evil.example/")))
    with pytest.raises(auth.MalformedError, match=r"cred\.json is not a key") as error:
        of(service_account_file=str(file), project="another").opened().token()
    assert isinstance(credentials_error(error.value, "x"), JobRejected)


def test_a_file_that_is_not_there_may_be_later(double: CloudRunDouble) -> None:
    with pytest.raises(auth.DefaultCredentialsError) as error:
        of(service_account_file="/nonexistent.json").opened().token()
    assert isinstance(credentials_error(error.value, "x"), PlatformUnavailable)


def test_other_errors_are_none_of_its(double: CloudRunDouble) -> None:
    assert credentials_error(ValueError("x"), "x") is None
    other = credentials_error(auth.InvalidOperation("x"), "x")
    assert isinstance(other, PlatformUnavailable)


# -- where an API is


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://localhost:1/", "http://localhost:1"),
        ("http://[::1]:1", "http://[::1]:1"),
        ("https://run-x.p.googleapis.com", "https://run-x.p.googleapis.com"),
        (" https://management.usgovcloudapi.net/ ", "https://management.usgovcloudapi.net"),
        ("https://run.example:443", "https://run.example"),
        ("https://run.example:8443", "https://run.example:8443"),
        ("http://127.0.0.1:80", "http://127.0.0.1"),
    ],
)
def test_an_endpoint(text: str, url: str) -> None:
    assert read_endpoint(text).url == url
    assert read_endpoint(url) == read_endpoint(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("http://run.example", "for this machine"),
        ("http://127.0.0.1.example:80", "for this machine"),
        ("http://10.0.0.1:80", "for this machine"),
        ("127.0.0.1:80", "write a URL"),
        ("https://host/path", "without a path"),
        ("ftp://127.0.0.1", "write a URL"),
        ("https://user@host", "write a URL"),
    ],
)
def test_tokens_do_not_leave_the_machine_in_clear(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_endpoint(text)
