"""The tokens and channels of Google Cloud identities: shared by threads, and let go in time."""

from __future__ import annotations

import json
import math
import os
import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

from push_pools.credentials.aws import AwsCredentials

if TYPE_CHECKING:
    from push_pools.credentials.endpoints import Endpoint
    from push_pools.credentials.gcp import GcpCredentials

SCOPE: Final = "https://www.googleapis.com/auth/cloud-platform"
RUN_HOST: Final = "run.googleapis.com:443"
LOGGING_URL: Final = "https://logging.googleapis.com"
TOKEN_SECONDS: Final = 4.0
"""How long one request for a token may take. Google's library repeats some by itself."""
LOGS_SECONDS: Final = (3.0, 10.0)
"""How long Cloud Logging may take to be connected to, and to answer."""
KEPT_SECONDS: Final = 300.0
"""How long what holds secrets of a block is kept: decrypted secrets stay in memory no longer."""
MAX_OPEN: Final = 64
"""How many identities keep their channels open; the least recently used one is let go first."""
OPTIONS: Final = (
    ("grpc.enable_retries", 0),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.max_receive_message_length", 32 * 1024 * 1024),
)
"""The protocol repeats a call, and has to know of each; so gRPC does not."""

_NOT_YET: Final = object()


class Opened:
    """The token of one identity, and the clients that use it."""

    def __init__(self, block: GcpCredentials, endpoint: Endpoint | None) -> None:
        held = block.service_account_info or block.access_token
        self._until = time.monotonic() + KEPT_SECONDS if held else math.inf
        self._endpoint = endpoint
        self._lock = threading.RLock()
        self._clients: dict[str, Any] = {}
        self._channel: Any = None
        self._session: Any = None
        self._request: Any = None
        self._block = block
        self._credentials: Any = _NOT_YET

    def is_spent(self) -> bool:
        """Whether it held a secret for as long as it may."""
        return time.monotonic() > self._until

    def token(self) -> str | None:
        """Return a token that is good for a while, and get one first if need be; `None` where none is needed.

        Raises:
            google.auth.exceptions.GoogleAuthError: There is none.
        """
        from google.auth.credentials import TokenState

        with self._lock:
            if self._credentials is _NOT_YET:
                # Not before: to look for the machine's own identity can take seconds, in which others wait here only.
                self._request = _request()
                self._credentials = _credentials(self._block, self._endpoint, self._request)
            credentials = self._credentials
            if credentials is None:
                return None
            state = credentials.token_state
            if state is not TokenState.FRESH:
                try:
                    credentials.refresh(self._request)
                except Exception:
                    if state is TokenState.INVALID:
                        raise  # A stale one is still good.
            return str(credentials.token)

    def metadata(self) -> list[tuple[str, str]]:
        """Return what a call carries to show who makes it."""
        token = self.token()
        return [("authorization", f"Bearer {token}")] if token else []

    def client(self, name: str) -> Any:
        """Return the client of `jobs`, `executions` or `tasks`; clients are safe to share between threads."""
        with self._lock:
            if name not in self._clients:
                self._clients[name] = _client(name, self._open_channel())
            return self._clients[name]

    def _open_channel(self) -> Any:
        if self._channel is None:
            import grpc

            if self._endpoint is not None and self._endpoint.is_plain:
                self._channel = grpc.insecure_channel(self._endpoint.target, options=OPTIONS)
            else:
                target = self._endpoint.target if self._endpoint else RUN_HOST
                self._channel = grpc.secure_channel(target, grpc.ssl_channel_credentials(), options=OPTIONS)
        return self._channel

    def list_log_entries(self, body: dict[str, Any]) -> Any:
        """Ask Cloud Logging for entries (`entries.list`) and return the response.

        Raises:
            google.auth.exceptions.GoogleAuthError: There is no token.
            OSError: It could not be reached, or did not answer in time.
        """
        import requests

        base = self._endpoint.url if self._endpoint is not None and self._endpoint.is_plain else LOGGING_URL
        headers = dict(self.metadata())
        with self._lock:
            if self._session is None:
                self._session = requests.Session()
                self._session.trust_env = not (self._endpoint and self._endpoint.is_plain)
            session = self._session
        return session.post(f"{base}/v2/entries:list", json=body, headers=headers, timeout=LOGS_SECONDS)

    def close(self) -> None:
        """Let go of connections. Calls under way are cancelled, so this is for the end of a process or a test."""
        with self._lock:
            if self._channel is not None:
                self._channel.close()
            if self._session is not None:
                self._session.close()
            self._channel, self._session, self._clients = None, None, {}
            if self._request is not None:
                self._request.session.close()


_OPEN: OrderedDict[str, Opened] = OrderedDict()
_OPEN_LOCK = threading.Lock()


def open_identity(block: GcpCredentials, endpoint: Endpoint | None) -> Opened:
    """Return the token and clients of a block at an endpoint, the same for equal ones in an equal environment."""
    key = f"{block.fingerprint()}@{endpoint.url if endpoint else ''}"
    with _OPEN_LOCK:
        for spent in [other for other, opened in _OPEN.items() if opened.is_spent()]:
            del _OPEN[spent]  # Its channel ends with the last call that uses it.
        if key not in _OPEN:
            _OPEN[key] = Opened(block, endpoint)
            while len(_OPEN) > MAX_OPEN:
                _OPEN.popitem(last=False)
        _OPEN.move_to_end(key)
        return _OPEN[key]


def close_all() -> None:
    """Let go of every identity; for the end of a test."""
    with _OPEN_LOCK:
        opened = list(_OPEN.values())
        _OPEN.clear()
    for each in opened:
        each.close()


def _client(name: str, channel: Any) -> Any:
    from google.cloud import run_v2

    if name == "jobs":
        from google.cloud.run_v2.services.jobs.transports.grpc import JobsGrpcTransport

        return run_v2.JobsClient(transport=JobsGrpcTransport(channel=channel))
    if name == "executions":
        from google.cloud.run_v2.services.executions.transports.grpc import ExecutionsGrpcTransport

        return run_v2.ExecutionsClient(transport=ExecutionsGrpcTransport(channel=channel))
    from google.cloud.run_v2.services.tasks.transports.grpc import TasksGrpcTransport

    return run_v2.TasksClient(transport=TasksGrpcTransport(channel=channel))


def _request() -> Any:
    """Return what Google's library asks for tokens with, each time for no longer than `TOKEN_SECONDS`.

    An outage is raised here as one: of an exchange or an impersonation the library keeps no status, so that it could
    not be told from a refusal later.
    """
    from google.auth.exceptions import TransportError
    from google.auth.transport.requests import Request

    class Timely(Request):
        def __call__(self, *args: Any, **options: Any) -> Any:
            ask: Any = super().__call__
            answer = ask(*args, **{**options, "timeout": TOKEN_SECONDS})
            if answer.status == 429 or answer.status >= 500:
                raise TransportError(f"whoever gives tokens answered with status {answer.status}")
            return answer

    return Timely()


def _credentials(block: GcpCredentials, endpoint: Endpoint | None, request: Any) -> Any:
    if block.access_token is not None:
        return _Static(block.access_token.get_secret_value())
    if block.external_account is not None:
        return _federated(block.external_account)
    if block.service_account_info is not None:
        return _of_key(json.loads(block.service_account_info.get_secret_value()))
    if block.service_account_file is not None:
        return _of_file(block.service_account_file)
    if endpoint is not None and endpoint.is_plain:
        return None
    import google.auth

    return google.auth.default(scopes=[SCOPE], request=request)[0]


def _of_key(info: dict[str, Any]) -> Any:
    from google.auth.exceptions import MalformedError
    from google.oauth2.service_account import Credentials

    try:
        return Credentials.from_service_account_info(info, scopes=[SCOPE])
    except ValueError:  # Its text may quote the key.
        raise MalformedError("the private key of the service account cannot be read") from None


def _of_file(path: str) -> Any:
    """Return the credentials of a file, which is held to what a block is held to."""
    from google.auth.exceptions import DefaultCredentialsError, MalformedError

    from push_pools.credentials.gcp import GcpCredentials

    try:
        with open(os.path.expanduser(path)) as file:  # noqa: PTH111, PTH123 - a user's text, not our path.
            text = file.read()
    except OSError as error:
        raise DefaultCredentialsError(f"service_account_file {path}: {error.strerror}") from None
    try:
        read = GcpCredentials.model_validate({"service_account_info": text})
    except ValueError:
        raise MalformedError(f"service_account_file {path} is not a key or a federation's file of Google's") from None
    if read.external_account is not None:
        return _federated(read.external_account)
    return _of_key(json.loads(text))


class _Static:
    """A token that nobody here can renew."""

    def __init__(self, token: str) -> None:
        from google.auth.credentials import TokenState

        self.token, self.token_state = token, TokenState.FRESH


def _federated(document: dict[str, Any]) -> Any:
    """Return the credentials that AWS's own identity of this process is exchanged for.

    boto3 says what that identity is, as it does for AWS; Google's library knows only environment and metadata.
    """
    from google.auth import aws

    class Ours(aws.AwsSecurityCredentialsSupplier):
        def get_aws_security_credentials(self, context: Any, request: Any) -> Any:
            from google.auth.exceptions import RefreshError

            found = AwsCredentials().session().get_credentials()
            if found is None:
                raise RefreshError("there are no AWS credentials to exchange", retryable=True)
            frozen = found.get_frozen_credentials()
            return aws.AwsSecurityCredentials(str(frozen.access_key), str(frozen.secret_key), frozen.token)

        def get_aws_region(self, context: Any, request: Any) -> str:
            return AwsCredentials().region() or "us-east-1"

    options = {
        name: document[name]
        for name in ("service_account_impersonation_url", "service_account_impersonation_options", "universe_domain")
        if document.get(name)
    }
    return aws.Credentials(
        audience=document["audience"],
        subject_token_type="urn:ietf:params:aws:token-type:aws4_request",  # noqa: S106 - a kind of token, not one.
        token_url=document.get("token_url") or "https://sts.googleapis.com/v1/token",
        aws_security_credentials_supplier=Ours(),
        scopes=[SCOPE],
        **options,
    )
