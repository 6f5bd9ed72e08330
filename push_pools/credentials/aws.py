"""AWS credentials, and the boto3 clients that they open.

boto3 is imported when the first client is opened, so that templates and command lines do without it.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import threading
import time
from collections import OrderedDict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal, Self, overload

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from push_pools.credentials.aws_errors import credentials_error, role_unreachable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import boto3
    from botocore.config import Config
    from mypy_boto3_ecs import ECSClient
    from mypy_boto3_logs import CloudWatchLogsClient
    from mypy_boto3_sts import STSClient

CONNECT_SECONDS: Final = 3.0
SUBMIT_READ_SECONDS: Final = 20.0
"""With the time to connect, one request without retries stays well within `Timing.call_seconds`."""
READ_SECONDS: Final = 10.0
READ_ATTEMPTS: Final = 3
STS_READ_SECONDS: Final = 5.0
REFRESH_SECONDS: Final = 300
"""How long before its end an assumed role is assumed anew, while others go on with the old session."""
REFRESH_NOW_SECONDS: Final = 60
"""How long before its end everybody waits for the new session."""
KEPT_SECONDS: Final = 300.0
"""How long clients that hold keys of a block are kept: decrypted secrets stay in memory no longer."""
MAX_OPEN: Final = 64
"""How many identities keep their clients open; the least recently used one is closed first."""


class AwsClientParameters(BaseModel):
    """Options for every client that is opened with the credentials."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    api_version: str | None = None
    """The version of the API."""
    use_ssl: bool = True
    """Whether to use TLS."""
    verify: bool | str = True
    """Whether to verify certificates, or the file of the certificates to trust."""
    endpoint_url: str | None = None
    """Where the API is, if not at AWS's own address."""
    config: dict[str, Any] | None = None
    """Further options of `botocore.config.Config`; time-outs and retries are the service's own."""


class AwsCredentials(BaseModel):
    """An identity at AWS. Empty, it is the service's own role or profile; `assume_role_arn` is preferred to keys."""

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        use_attribute_docstrings=True,
        json_schema_extra={
            "block_type_slug": "aws-credentials",
            "secret_fields": ["aws_secret_access_key", "aws_session_token"],
            "block_schema_references": {},
        },
    )

    aws_access_key_id: str | None = Field(default=None, title="AWS Access Key ID")
    """A key's id. Roles are preferred to keys, which do not expire."""
    aws_secret_access_key: SecretStr | None = Field(default=None, title="AWS Access Key Secret")
    """The key itself."""
    aws_session_token: SecretStr | None = Field(default=None, title="AWS Session Token")
    """The session token that belongs to temporary keys."""
    profile_name: str | None = None
    """A profile of the machine's AWS configuration; only where there is one."""
    region_name: str | None = None
    """The region of the clients; by default the service's own."""
    assume_role_arn: str | None = Field(default=None, title="Assume Role ARN")
    """A role to assume with the identity that the other fields, or the service, give."""
    assume_role_kwargs: dict[str, Any] = Field(default_factory=dict, title="Assume Role Options")
    """Options of AssumeRole, such as RoleSessionName, DurationSeconds, ExternalId and Policy."""
    aws_client_parameters: AwsClientParameters = Field(
        default_factory=AwsClientParameters, title="AWS Client Parameters"
    )
    """Options for the clients."""

    @field_validator("*", mode="before")
    @classmethod
    def _empty_is_none(cls, value: object) -> object:
        return None if value == "" else value

    @field_validator("assume_role_kwargs", "aws_client_parameters", mode="before")
    @classmethod
    def _none_is_empty(cls, value: object) -> object:
        return {} if value is None else value

    @model_validator(mode="after")
    def _keys_are_whole(self) -> Self:
        if (self.aws_access_key_id is None) != (self.aws_secret_access_key is None):
            raise ValueError("aws_access_key_id and aws_secret_access_key belong together; give both or neither")
        return self

    @classmethod
    def is_long_lived(cls, data: Mapping[str, Any]) -> bool:
        """Whether the block holds keys that do not expire by themselves."""
        return bool(data.get("aws_secret_access_key")) and not data.get("aws_session_token")

    def region(self) -> str | None:
        """Return the region of the clients: the block's, else the environment's, else the profile's."""
        return self.region_name or _open(self).region

    def check(self, platform: str) -> None:
        """Get valid credentials now, which may ask AWS for them, so that the next call does not have to.

        Raises:
            JobRejected: AWS denies them, or they are not whole.
            PlatformUnavailable: There are none now, or they have expired.
        """
        try:
            _open(self).check()
        except Exception as error:  # Whatever it is, no request was made with the credentials.
            raise (credentials_error(error, platform) or role_unreachable(error, platform)) from error

    @overload
    def client(self, service: Literal["ecs"], *, retries: bool, region: str | None = None) -> ECSClient: ...

    @overload
    def client(self, service: Literal["logs"], *, retries: bool, region: str | None = None) -> CloudWatchLogsClient: ...

    @overload
    def client(self, service: Literal["sts"], *, retries: bool, region: str | None = None) -> STSClient: ...

    @overload
    def client(self, service: Literal["ec2"], *, retries: bool, region: str | None = None) -> Any: ...

    def client(self, service: str, *, retries: bool, region: str | None = None) -> Any:
        """Return the client of a service, the same for every caller; clients are safe to share between threads.

        Without `retries` one call is one request of at most 23 s, as a submission has to be; with them boto3's
        standard mode tries up to three times.
        """
        return _open(self).client(service, retries=retries, region=region or self.region())

    def session(self) -> boto3.Session:
        """Return the boto3 session. Opening clients from it is not safe in several threads; `client` is."""
        return _open(self).session

    def identity(self) -> str:
        """Return a short text that differs where the account may differ; nobody is asked, and it is no secret."""
        # Keys of a role change by the hour, so only what lasts counts.
        key = None if self.aws_session_token else self.aws_access_key_id
        lasting = [self.assume_role_arn, key, self.profile_name or _open(self).session.profile_name]
        return hashlib.sha256(json.dumps(lasting).encode()).hexdigest()[:8]

    def fingerprint(self) -> str:
        """Return a hash of the identity and of the environment variables that boto3 reads."""
        fields = self.model_dump(mode="json")
        for name in ("aws_secret_access_key", "aws_session_token"):
            secret: SecretStr | None = getattr(self, name)
            fields[name] = secret.get_secret_value() if secret else None
        environment = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        return hashlib.sha256(json.dumps([fields, environment], sort_keys=True, default=str).encode()).hexdigest()


# -- sessions and clients --------------------------------------------------------


class _Opened:
    """The session of one identity and its clients."""

    def __init__(self, block: AwsCredentials) -> None:
        self._parameters = block.aws_client_parameters
        self._until = time.monotonic() + KEPT_SECONDS if block.aws_secret_access_key else math.inf
        self._lock = threading.RLock()
        self._clients: dict[tuple[str, bool, str | None], Any] = {}
        self.session = _session(block)
        # boto3 itself reads only AWS_DEFAULT_REGION; containers of AWS set AWS_REGION.
        self.region: str | None = self.session.region_name or os.environ.get("AWS_REGION")

    def is_spent(self) -> bool:
        """Whether it held a secret for as long as it may."""
        return time.monotonic() > self._until

    def check(self) -> None:
        from botocore.exceptions import NoCredentialsError

        with self._lock:
            credentials = self.session.get_credentials()
        if credentials is None:
            raise NoCredentialsError
        credentials.get_frozen_credentials()

    def client(self, service: str, *, retries: bool, region: str | None) -> Any:
        key = (service, retries, region)
        found = self._clients.get(key)
        if found is not None:
            return found
        # Neither a session's credentials nor its clients may be made by two threads at once (boto3 guide, "Session").
        with self._lock:
            if key not in self._clients:
                made = self._make(service, retries=retries, region=region)
                if self.session.get_credentials() is None:
                    return made  # It would go on without credentials when there are some at last.
                self._clients[key] = made
            return self._clients[key]

    def _make(self, service: str, *, retries: bool, region: str | None) -> Any:
        options = self._parameters
        make: Callable[..., Any] = self.session.client
        return make(
            service,
            region_name=region,
            api_version=options.api_version,
            use_ssl=options.use_ssl,
            verify=None if options.verify is True else options.verify,
            endpoint_url=options.endpoint_url,
            config=_config(options.config, retries=retries),
        )


_OPEN: OrderedDict[str, _Opened] = OrderedDict()
_OPEN_LOCK = threading.Lock()


def _open(block: AwsCredentials) -> _Opened:
    key = block.fingerprint()
    with _OPEN_LOCK:
        for spent in [other for other, opened in _OPEN.items() if opened.is_spent()]:
            del _OPEN[spent]
        if key not in _OPEN:
            _OPEN[key] = _Opened(block)
            while len(_OPEN) > MAX_OPEN:
                _OPEN.popitem(last=False)
        _OPEN.move_to_end(key)
        return _OPEN[key]


def _session(block: AwsCredentials) -> boto3.Session:
    import boto3

    source = boto3.Session(
        aws_access_key_id=block.aws_access_key_id,
        aws_secret_access_key=_reveal(block.aws_secret_access_key),
        aws_session_token=_reveal(block.aws_session_token),
        profile_name=block.profile_name,
        region_name=block.region_name,
    )
    return _assuming(source, block) if block.assume_role_arn else source


def _reveal(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() if secret is not None else None


def _config(asked: dict[str, Any] | None, *, retries: bool, read_seconds: float | None = None) -> Config:
    from botocore.config import Config

    ours = Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=read_seconds or (READ_SECONDS if retries else SUBMIT_READ_SECONDS),
        retries={"mode": "standard", "total_max_attempts": READ_ATTEMPTS if retries else 1},
        max_pool_connections=64,
        tcp_keepalive=True,
        user_agent_extra="push-pools",
    )
    return Config(**(asked or {})).merge(ours)


# -- roles -------------------------------------------------------------------------


def _assuming(source: boto3.Session, block: AwsCredentials) -> boto3.Session:
    """Return a session that assumes the block's role when it is first used, and again before the role's end."""
    import boto3
    import botocore.session
    from botocore.credentials import CredentialProvider, CredentialResolver, RefreshableCredentials

    role = RefreshableCredentials(
        access_key="",
        secret_key="",
        token="",
        expiry_time=datetime(1970, 1, 1, tzinfo=UTC),  # Nothing is asked of STS before the first use.
        refresh_using=_Assume(source, block),
        method="assume-role",
        advisory_timeout=REFRESH_SECONDS,
        mandatory_timeout=REFRESH_NOW_SECONDS,
    )

    class Role(CredentialProvider):
        METHOD = "assume-role"

        def load(self) -> RefreshableCredentials:
            return role

    session = botocore.session.Session()
    session.register_component("credential_provider", CredentialResolver(providers=[Role()]))
    return boto3.Session(botocore_session=session, region_name=block.region_name or source.region_name)


class _Assume:
    """Asks STS for a session of the block's role."""

    def __init__(self, source: boto3.Session, block: AwsCredentials) -> None:
        self._source, self._block = source, block
        self._sts: STSClient | None = None

    def __call__(self) -> dict[str, str]:
        # botocore calls this under the lock of the credentials, so never twice at once.
        if self._sts is None:
            config = _config(None, retries=False, read_seconds=STS_READ_SECONDS)
            region = self._source.region_name or os.environ.get("AWS_REGION")
            self._sts = self._source.client("sts", region_name=region, config=config)
        asked: dict[str, Any] = {"RoleSessionName": "push-pools", **self._block.assume_role_kwargs}
        answer = self._sts.assume_role(RoleArn=str(self._block.assume_role_arn), **asked)["Credentials"]
        return {
            "access_key": answer["AccessKeyId"],
            "secret_key": answer["SecretAccessKey"],
            "token": answer["SessionToken"],
            "expiry_time": answer["Expiration"].isoformat(),
        }
