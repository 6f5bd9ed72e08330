"""The credentials of a block, and calls with the identity that they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from push_pools.credentials.endpoints import read_endpoint
from push_pools.credentials.gcp import GcpCredentials
from push_pools.domain.errors import (
    JobRejected,
    PlatformError,
    PlatformUnavailable,
    PushPoolsError,
    StoreUnavailable,
)
from push_pools.platforms.cloud_run_errors import is_status
from push_pools.platforms.cloud_run_request import TYPE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from push_pools.credentials.endpoints import Endpoint
    from push_pools.ports import OpenCredentials

READ_SECONDS: Final = 8.0
WRITE_SECONDS: Final = 10.0
READS: Final = 3
"""How often a question is asked whose connection turns out to be gone, as after a function was frozen.

gRPC may notice that a connection is gone only with the second call that is lost on it."""


class Connection:
    """Cloud Run and Cloud Logging, with one identity."""

    def __init__(self, opened: Any) -> None:
        self._opened = opened

    def metadata(self) -> list[tuple[str, str]]:
        """Return what a call carries to show who makes it; it may ask for a token first."""
        found: list[tuple[str, str]] = self._opened.metadata()
        return found

    def write(self, client: str, method: str, request: Any, *, seconds: float = WRITE_SECONDS) -> Any:
        """Make one call that changes something: exactly one request, with a time-out of its own."""
        call = getattr(self._opened.client(client), method)
        return call(request=request, retry=None, timeout=seconds, metadata=self.metadata())

    def read(self, client: str, method: str, request: Any) -> Any:
        """Ask something."""
        call, metadata = getattr(self._opened.client(client), method), self.metadata()
        for _ in range(READS - 1):
            try:
                return call(request=request, retry=None, timeout=READ_SECONDS, metadata=metadata)
            except Exception as error:
                if not is_status(error, "UNAVAILABLE"):
                    raise
        return call(request=request, retry=None, timeout=READ_SECONDS, metadata=metadata)

    def found(self, client: str, method: str, name: str) -> Any | None:
        """Return the resource of that name, or `None` if there is none."""
        try:
            return self.read(client, method, {"name": name})
        except Exception as error:
            if is_status(error, "NOT_FOUND"):
                return None
            raise

    def log_entries(self, body: dict[str, Any]) -> Any:
        """Return the response of Cloud Logging."""
        return self._opened.list_log_entries(body)


class Clients:
    """Opens connections for a credentials block, or for the machine's own identity."""

    def __init__(self, open_credentials: OpenCredentials, settings: Mapping[str, str]) -> None:
        self._open = open_credentials
        text = settings.get("cloud_run_endpoint")
        self._endpoint: Endpoint | None = read_endpoint(text) if text else None

    def credentials(self, block_id: str | None) -> GcpCredentials:
        """Return the block's credentials.

        Raises:
            PlatformUnavailable: The block is gone, or cannot be decrypted now.
            JobRejected: It is a block of another type.
        """
        try:
            opened = self._open(block_id)
        except PlatformError:
            raise
        except StoreUnavailable as error:
            raise PlatformUnavailable(TYPE, str(error), codes=["LedgerUnavailable"]) from error
        except PushPoolsError as error:
            raise PlatformUnavailable(TYPE, str(error), codes=["NoCredentials"]) from error
        if opened is None:
            return GcpCredentials()
        if not isinstance(opened, GcpCredentials):
            reason = f"the credentials block is of another type ({type(opened).__name__})"
            raise JobRejected(TYPE, reason, codes=["CredentialsMalformed"], variable="credentials")
        return opened

    def __call__(self, block_id: str | None) -> Connection:
        """Return the connection with the identity of a block."""
        return Connection(self.credentials(block_id).opened(self._endpoint))
