"""AWS credentials: how clients are opened, that roles are assumed, and what is said when it fails."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import SecretStr, ValidationError

from push_pools import credentials
from push_pools.credentials import aws_sessions, block_class, block_type, block_types, is_long_lived, secret_fields
from push_pools.credentials.aws import AwsCredentials
from push_pools.credentials.registry_auth import DockerRegistryCredentials
from push_pools.domain.errors import JobRejected, NotFound, PlatformUnavailable
from tests.credentials.aws_world import sts_double

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.credentials.aws_world import StsDouble

ROLE = "arn:aws:iam::123456789012:role/runner"
EMPTY = {
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": "/nonexistent",
    "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
    "AWS_DEFAULT_REGION": "us-east-1",
}


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in EMPTY.items():
        monkeypatch.setenv(name, value)


def static(**fields: Any) -> AwsCredentials:
    return AwsCredentials.model_validate({"aws_access_key_id": "AKIAX", "aws_secret_access_key": "canary", **fields})


@pytest.fixture
def sts(monkeypatch: pytest.MonkeyPatch) -> Iterator[StsDouble]:
    with sts_double(monkeypatch) as double:
        yield double


def key_of(block: AwsCredentials) -> str:
    """Return the access key that a call would be signed with."""
    found = block.session().get_credentials()
    assert found is not None
    return str(found.get_frozen_credentials().access_key)


# -- the block


def test_an_empty_block_is_the_services_own_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAENV")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")

    assert key_of(AwsCredentials()) == "AKIAENV"
    assert key_of(AwsCredentials.model_validate({"aws_access_key_id": "", "profile_name": ""})) == "AKIAENV"


def test_a_document_of_prefect_is_taken() -> None:
    block = AwsCredentials.model_validate(
        {
            "aws_access_key_id": "AKIAX",
            "aws_secret_access_key": "s",
            "aws_session_token": None,
            "profile_name": None,
            "region_name": "eu-west-1",
            "aws_client_parameters": {
                "api_version": None,
                "use_ssl": True,
                "verify": True,
                "verify_cert_path": None,
                "endpoint_url": None,
                "config": None,
            },
            "assume_role_arn": None,
            "assume_role_kwargs": None,
        }
    )

    assert block.region() == "eu-west-1"
    assert block.assume_role_kwargs == {}


def test_half_a_key_is_refused_without_showing_it() -> None:
    with pytest.raises(ValidationError, match="belong together") as caught:
        AwsCredentials.model_validate({"aws_secret_access_key": "canary"})

    assert "canary" not in "; ".join(each["msg"] for each in caught.value.errors())


def test_secrets_do_not_show() -> None:
    block = static(aws_session_token="canary")

    assert "canary" not in repr(block) + block.model_dump_json() + block.fingerprint() + block.identity()


def test_the_region_is_the_blocks_then_the_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    assert static(region_name="eu-west-1").region() == "eu-west-1"
    assert static().region() == "us-east-1"
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    assert static().region() is None
    monkeypatch.setenv("AWS_REGION", "eu-north-1")
    assert static().region() == "eu-north-1"


def test_a_profile_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "config"
    config.write_text("[profile p]\nregion = ca-west-1\naws_access_key_id = AKIAP\naws_secret_access_key = s\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    block = AwsCredentials(profile_name="p")

    assert (key_of(block), block.region()) == ("AKIAP", "ca-west-1")
    assert block.identity() != AwsCredentials().identity()


def test_the_identity_lasts_where_keys_change_by_the_hour() -> None:
    one = static(aws_access_key_id="ASIA1", aws_session_token="t")
    other = static(aws_access_key_id="ASIA2", aws_session_token="t")

    assert one.identity() == other.identity()
    assert static().identity() != static(aws_access_key_id="AKIAY").identity()
    assert static().identity() != static(assume_role_arn=ROLE).identity()


# -- clients


def test_a_submitting_client_makes_one_request_of_at_most_thirty_seconds() -> None:
    config: Any = static().client("ecs", retries=False).meta.config

    assert config.retries["total_max_attempts"] == 1
    assert config.connect_timeout + config.read_timeout < 30


def test_a_reading_client_tries_three_times_in_standard_mode() -> None:
    config: Any = static().client("ecs", retries=True).meta.config

    assert (config.retries["mode"], config.retries["total_max_attempts"]) == ("standard", 3)


def test_the_users_own_options_stand_beside_ours() -> None:
    block = static(aws_client_parameters={"config": {"proxies": {"https": "http://p"}, "read_timeout": 900}})
    config: Any = block.client("ecs", retries=False).meta.config

    assert config.proxies == {"https": "http://p"}
    assert config.read_timeout == aws_sessions.SUBMIT_READ_SECONDS


def test_clients_are_shared_by_threads_and_by_equal_blocks() -> None:
    gate = threading.Barrier(16)

    def ask(_: int) -> Any:
        gate.wait()
        return static(region_name="sa-east-1").client("ecs", retries=True)

    with ThreadPoolExecutor(16) as pool:
        clients = list(pool.map(ask, range(16)))

    assert len({id(each) for each in clients}) == 1
    assert static(region_name="sa-east-1").client("ecs", retries=False) is not clients[0]
    assert static(region_name="sa-east-1").client("logs", retries=True) is not clients[0]
    assert static(aws_secret_access_key="other").client("ecs", retries=True) is not clients[0]


def test_the_blocks_endpoint_wins_over_the_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_ECS", "http://127.0.0.1:2")
    own = static(aws_client_parameters={"endpoint_url": "http://127.0.0.1:3"})

    assert static().client("ecs", retries=True).meta.endpoint_url == "http://127.0.0.1:2"
    assert static().client("logs", retries=True).meta.endpoint_url == "http://127.0.0.1:1"
    assert own.client("ecs", retries=True).meta.endpoint_url == "http://127.0.0.1:3"
    monkeypatch.setenv("AWS_ENDPOINT_URL_ECS", "http://127.0.0.1:4")
    assert static().client("ecs", retries=True).meta.endpoint_url == "http://127.0.0.1:4"


def test_a_region_can_be_asked_for() -> None:
    assert static().client("ecs", retries=True, region="eu-west-3").meta.region_name == "eu-west-3"


def test_clients_with_keys_are_let_go_after_five_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    first = static().client("ecs", retries=True)
    assert static().client("ecs", retries=True) is first
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + aws_sessions.KEPT_SECONDS + 1)

    assert static().client("ecs", retries=True) is not first


def test_only_so_many_identities_stay_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aws_sessions, "MAX_OPEN", 2)
    for number in range(5):
        static(aws_access_key_id=f"AKIA{number}").region()

    assert len(aws_sessions._OPEN) == 2


def test_a_client_without_credentials_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    with pytest.raises(PlatformUnavailable, match="locate credentials") as caught:
        AwsCredentials().check("ecs:push")
    assert caught.value.codes[0] == "NoCredentials"
    without = AwsCredentials().client("ecs", retries=True)
    file.write_text("[default]\naws_access_key_id = AKIALATE\naws_secret_access_key = s\n")

    assert AwsCredentials().client("ecs", retries=True) is not without
    AwsCredentials().check("ecs:push")


def test_boto3_is_imported_only_when_a_client_is_opened() -> None:
    code = (
        "import sys\n"
        "import push_pools.domain.jobs, push_pools.domain.failures, push_pools.credentials\n"
        "assert 'push_pools.credentials.aws' not in sys.modules\n"
        "import push_pools.platforms.ecs\n"
        "assert 'boto3' not in sys.modules, 'boto3'\n"
        "assert 'botocore' not in sys.modules, 'botocore'\n"
    )

    subprocess.run([sys.executable, "-c", code], check=True)


# -- roles


def test_a_role_is_assumed_with_its_options_and_only_once(sts: StsDouble) -> None:
    block = static(assume_role_arn=ROLE, assume_role_kwargs={"ExternalId": "ext", "DurationSeconds": 900})

    assert not sts.asked
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(lambda _: key_of(block), range(32)))

    assert keys == {"ASIA1"}
    (asked,) = sts.asked
    assert (asked["RoleArn"], asked["ExternalId"], asked["DurationSeconds"]) == (ROLE, "ext", "900")
    assert asked["RoleSessionName"] == "push-pools"


def test_a_session_policy_narrows_the_role(sts: StsDouble) -> None:
    """It may be written as an object; STS gets text."""
    policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "ecs:*", "Resource": "*"}]}
    key_of(static(assume_role_arn=ROLE, assume_role_kwargs={"Policy": policy}))
    assert json.loads(sts.asked[0]["Policy"]) == policy


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"ExternalId": "x"}, "ExternalId has 1 characters, and STS takes 2 to 1224; take the one that"),
        ({"Policy": "x" * 2049}, "Policy has 2049 characters, and STS takes 1 to 2048; name managed policies"),
        ({"Policy": {"x": "y" * 2048}}, "Policy has 2056 characters"),
        ({"RoleSessionName": "x" * 65}, "RoleSessionName has 65 characters, and STS takes 2 to 64"),
        ({"DurationSeconds": 60}, "DurationSeconds is 60, and STS takes 900 to 43200"),
    ],
)
def test_options_that_sts_would_refuse_are_refused_when_the_block_is_made(
    options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        static(assume_role_arn=ROLE, assume_role_kwargs=options)


def test_the_name_of_the_session_can_be_chosen(sts: StsDouble) -> None:
    key_of(static(assume_role_arn=ROLE, assume_role_kwargs={"RoleSessionName": "nightly"}))

    assert sts.asked[0]["RoleSessionName"] == "nightly"


def test_a_role_is_assumed_anew_before_its_end(sts: StsDouble) -> None:
    block = static(assume_role_arn=ROLE, assume_role_kwargs={"ExternalId": "refresh"})
    sts.lasts = timedelta(minutes=6)
    assert [key_of(block), key_of(block)] == ["ASIA1", "ASIA1"]
    found: Any = block.session().get_credentials()

    found._time_fetcher = lambda: datetime.now(UTC) + timedelta(minutes=2)

    assert key_of(block) == "ASIA2"


def test_a_session_that_still_lasts_survives_a_failing_refresh(sts: StsDouble) -> None:
    block = static(assume_role_arn=ROLE, assume_role_kwargs={"ExternalId": "survive"})
    sts.lasts = timedelta(minutes=4)
    assert key_of(block) == "ASIA1"
    sts.error = (500, "InternalFailure")

    assert key_of(block) == "ASIA1"
    block.check("ecs:push")


@pytest.mark.parametrize(
    ("status", "code", "kind", "first"),
    [
        (403, "AccessDenied", JobRejected, "AssumeRoleDenied"),
        (403, "InvalidClientTokenId", JobRejected, "InvalidClientTokenId"),
        (403, "SignatureDoesNotMatch", JobRejected, "SignatureDoesNotMatch"),
        (403, "ExpiredToken", PlatformUnavailable, "CredentialsExpired"),
        (400, "Throttling", PlatformUnavailable, "NoCredentials"),
        (500, "InternalFailure", PlatformUnavailable, "NoCredentials"),
    ],
)
def test_a_role_that_cannot_be_assumed(
    sts: StsDouble, status: int, code: str, kind: type[Exception], first: str
) -> None:
    sts.error = (status, code)
    block = static(assume_role_arn=ROLE, assume_role_kwargs={"ExternalId": f"denied-{code}"})

    with pytest.raises((JobRejected, PlatformUnavailable)) as caught:
        block.check("ecs:push")

    assert type(caught.value) is kind
    assert caught.value.codes[0] == first
    assert "canary" not in str(caught.value)
    assert len(sts.asked) == 1


def test_an_sts_that_cannot_be_reached_is_unavailable(sts: StsDouble) -> None:
    sts.server.close()

    with pytest.raises(PlatformUnavailable, match="could not be assumed"):
        static(assume_role_arn=ROLE, assume_role_kwargs={"ExternalId": "closed"}).check("ecs:push")


def test_an_option_of_the_role_that_does_not_fit_is_a_mistake(sts: StsDouble) -> None:
    with pytest.raises(JobRejected, match="DurationSeconds"):
        static(assume_role_arn=ROLE, assume_role_kwargs={"DurationSeconds": "long"}).check("ecs:push")

    assert not sts.asked


def test_a_profile_that_is_not_there_is_a_mistake() -> None:
    with pytest.raises(JobRejected, match="absent") as caught:
        AwsCredentials(profile_name="absent").check("ecs:push")

    assert caught.value.variable == "aws_credentials"


def test_whatever_else_fails_before_a_call_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: object) -> None:
        raise RuntimeError("odd")

    monkeypatch.setattr(aws_sessions.Opened, "check", fails)

    with pytest.raises(PlatformUnavailable, match="odd"):
        static().check("ecs:push")


# -- the types of blocks


TYPES = {
    "aws-credentials": ("aws_secret_access_key", "aws_session_token"),
    "azure-container-instance-credentials": ("client_secret", "token"),
    "docker-registry-credentials": ("password",),
    "gcp-credentials": ("service_account_info", "access_token"),
    "secret": ("value",),
}


def test_the_types_are_listed_without_loading_them() -> None:
    code = (
        "import sys\n"
        "from push_pools.credentials import block_types\n"
        "print(*block_types())\n"
        "assert 'push_pools.credentials.aws' not in sys.modules\n"
    )

    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)

    assert done.stdout.split() == sorted(TYPES)


def test_every_type_can_be_loaded_and_has_a_secret() -> None:
    found = {slug: secret_fields(each.load()) for slug, each in block_types().items()}

    assert found == TYPES
    schema: Any = AwsCredentials.model_config["json_schema_extra"]
    assert tuple(schema["secret_fields"]) == found["aws-credentials"]


def test_secrets_are_found_at_any_depth() -> None:
    from pydantic import BaseModel

    class Inner(BaseModel):
        token: SecretStr | None = None
        name: str = ""

    class Outer(BaseModel):
        inner: Inner
        maybe: Inner | None = None
        headers: dict[str, SecretStr]
        plain: dict[str, str]
        many: list[SecretStr]

    assert secret_fields(Outer) == ("inner.token", "maybe.token", "headers.*", "many")


def test_an_unknown_type_is_named_with_those_there_are() -> None:
    with pytest.raises(NotFound, match="aws-credentials") as caught:
        block_class("aws-credential")

    assert caught.value.known[0] == "aws-credentials"
    assert block_type("secret").name == "Secret"
    assert set(credentials.__all__) <= set(dir(credentials))


@pytest.mark.parametrize(
    ("slug", "data", "expected"),
    [
        ("aws-credentials", {}, False),
        ("aws-credentials", {"assume_role_arn": ROLE}, False),
        ("aws-credentials", {"aws_secret_access_key": {"$encrypted": "x"}}, True),
        ("aws-credentials", {"aws_secret_access_key": "s", "aws_session_token": "t"}, False),
        ("docker-registry-credentials", {"username": "u", "password": "p"}, True),
        ("secret", {"value": "s"}, False),
    ],
)
def test_keys_that_do_not_expire_are_recognised(slug: str, data: dict[str, Any], expected: bool) -> None:
    assert is_long_lived(slug, data) is expected


def test_a_registry_login_does_not_show_its_password() -> None:
    block = DockerRegistryCredentials(username="u", password=SecretStr("canary"), registry_url="index.docker.io")

    assert "canary" not in repr(block) + block.model_dump_json()
