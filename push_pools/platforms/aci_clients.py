"""The credentials of a block, and the clients of Azure that they open."""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

from push_pools.credentials.azure import AzureContainerInstanceCredentials
from push_pools.credentials.endpoints import Endpoint, read_endpoint
from push_pools.domain.errors import (
    JobRejected,
    PlatformError,
    PlatformUnavailable,
    PushPoolsError,
    StoreUnavailable,
)
from push_pools.platforms.aci_errors import TYPE

if TYPE_CHECKING:
    from azure.mgmt.containerinstance import ContainerInstanceManagementClient

    from push_pools.ports import PlatformContext

PUBLIC: Final = "https://management.azure.com"
"""Where Azure Resource Manager is asked, unless a setting names a sovereign cloud or a double."""
CONNECT_SECONDS: Final = 3.0
READ_SECONDS: Final = 5.0
SUBMIT_READ_SECONDS: Final = 15.0
"""With the GET before it, and the times to connect, a submission stays within `Timing.call_seconds`."""
KEPT_SECONDS: Final = 300.0
"""How long a client is kept: it holds the credentials of a block, which stay in memory no longer."""
MAX_OPEN: Final = 64


class Clients:
    """Opens clients for a credentials block, or for the service's own identity."""

    def __init__(self, context: PlatformContext) -> None:
        self._open_block = context.credentials
        self._endpoint = context.settings.get("azure_endpoint") or PUBLIC
        self._open: OrderedDict[tuple[str, str], tuple[float, ContainerInstanceManagementClient]] = OrderedDict()
        self._lock = threading.Lock()

    def block(self, block_id: str | None) -> Any:
        """Return a block, its secrets decrypted; `None` for the service's own identity.

        Raises:
            PlatformUnavailable: It is gone, or cannot be decrypted now.
        """
        try:
            return self._open_block(block_id)
        except PlatformError:
            raise
        except StoreUnavailable as error:
            raise PlatformUnavailable(TYPE, str(error), codes=["LedgerUnavailable"]) from error
        except PushPoolsError as error:
            raise PlatformUnavailable(TYPE, str(error), codes=["NoCredentials"]) from error

    def credentials(self, block_id: str | None) -> AzureContainerInstanceCredentials:
        """Return the block's credentials.

        Raises:
            PlatformUnavailable: As `block`.
            JobRejected: It is a block of another type.
        """
        opened = self.block(block_id)
        if opened is None:
            return AzureContainerInstanceCredentials.of_service(os.environ)
        if not isinstance(opened, AzureContainerInstanceCredentials):
            reason = f"the credentials block is of another type ({type(opened).__name__})"
            raise JobRejected(TYPE, reason, codes=["BadCredentials"], variable="aci_credentials")
        return opened

    def __call__(self, block_id: str | None, subscription: str) -> ContainerInstanceManagementClient:
        """Return the client of a subscription, with a token that is valid now.

        It repeats nothing by itself: a PUT that is sent twice can run a job twice, and whatever else fails is asked
        again by the next sweep.

        Raises:
            JobRejected: The credentials are denied or malformed, or the endpoint may not be used.
            PlatformUnavailable: There is no token now.
        """
        credentials = self.credentials(block_id)
        endpoint = self._checked()
        if not endpoint.is_plain:
            credentials.check(TYPE, _scope(endpoint))
        key, now = (credentials.fingerprint(), subscription), time.monotonic()
        with self._lock:
            for spent in [other for other, (until, _) in self._open.items() if until < now]:
                del self._open[spent]
            if key not in self._open:
                self._open[key] = (now + KEPT_SECONDS, _made(credentials, subscription, endpoint))
                while len(self._open) > MAX_OPEN:
                    self._open.popitem(last=False)
            self._open.move_to_end(key)
            return self._open[key][1]

    def _checked(self) -> Endpoint:
        try:
            return read_endpoint(self._endpoint)
        except ValueError as error:
            reason = f"PUSH_POOLS_AZURE_ENDPOINT={self._endpoint!r}: {error}"
            raise JobRejected(TYPE, reason, codes=["BadEndpoint"]) from error


def _scope(endpoint: Endpoint) -> str:
    return f"{endpoint.url}/.default"


def _made(
    credentials: AzureContainerInstanceCredentials, subscription: str, endpoint: Endpoint
) -> ContainerInstanceManagementClient:
    from azure.core.pipeline import policies
    from azure.mgmt.containerinstance import ContainerInstanceManagementClient
    from azure.mgmt.core.policies import ARMChallengeAuthenticationPolicy

    credential: Any
    authentication: Any
    if endpoint.is_plain:
        # Tokens of Azure never go to a double: it gets the static one of the block, or none.
        token = credentials.token.get_secret_value() if credentials.token else None
        credential = _Never()
        authentication = policies.HeadersPolicy({"Authorization": f"Bearer {token}"} if token else {})
    else:
        credential = credentials.credential()
        authentication = ARMChallengeAuthenticationPolicy(credential, _scope(endpoint))
    # Without the policies that follow redirects, write requests to logs, and register resource providers by themselves.
    chain: list[Any] = [
        policies.RequestIdPolicy(),
        policies.UserAgentPolicy("push-pools"),
        policies.ProxyPolicy(),
        policies.ContentDecodePolicy(),
        policies.RetryPolicy.no_retries(),
        authentication,
    ]
    return ContainerInstanceManagementClient(
        credential,
        subscription,
        base_url=endpoint.url,
        policies=chain,
        connection_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
    )


class _Never:
    """Stands where the client wants a credential, and is never asked: the policy of a double sends none."""

    def get_token(self, *scopes: str, **options: Any) -> Any:
        raise AssertionError("no token of Azure is sent in clear text")
