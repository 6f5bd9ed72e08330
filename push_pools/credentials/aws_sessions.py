"""The boto3 sessions and clients of AWS identities: shared by threads, and let go in time."""

from __future__ import annotations

import math
import os
import threading
import time
from collections import OrderedDict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    import boto3
    from botocore.config import Config
    from mypy_boto3_sts import STSClient
    from pydantic import SecretStr

    from push_pools.credentials.aws import AwsCredentials

CONNECT_SECONDS: Final = 3.0
SUBMIT_READ_SECONDS: Final = 20.0
"""With the time to connect, one request without retries stays well within `Timing.call_seconds`."""
READ_SECONDS: Final = 10.0
READ_ATTEMPTS: Final = 3
STS_READ_SECONDS: Final = 5.0
STORE_READ_SECONDS: Final = 5.0
"""The ledger answers in milliseconds. What it does not answer is asked again while the invocation has time left."""
_READ_SECONDS: Final = {"dynamodb": STORE_READ_SECONDS}
"""Service → how long its answer is waited for, where that is not the same for all."""
REFRESH_SECONDS: Final = 300
"""How long before its end an assumed role is assumed anew, while others go on with the old session."""
REFRESH_NOW_SECONDS: Final = 60
"""How long before its end everybody waits for the new session."""
KEPT_SECONDS: Final = 300.0
"""How long clients that hold keys of a block are kept: decrypted secrets stay in memory no longer."""
MAX_OPEN: Final = 64
"""How many identities keep their clients open; the least recently used one is closed first."""


class Opened:
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
            config=_config(options.config, retries=retries, read_seconds=_READ_SECONDS.get(service)),
        )


_OPEN: OrderedDict[str, Opened] = OrderedDict()
_OPEN_LOCK = threading.Lock()


def open_identity(block: AwsCredentials) -> Opened:
    """Return the session and clients of a block, the same for equal blocks in an equal environment."""
    key = block.fingerprint()
    with _OPEN_LOCK:
        for spent in [other for other, opened in _OPEN.items() if opened.is_spent()]:
            del _OPEN[spent]
        if key not in _OPEN:
            _OPEN[key] = Opened(block)
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
