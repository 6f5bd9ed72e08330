"""The credentials of a block, and the clients that they open."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from push_pools.credentials.aws import AwsCredentials
from push_pools.domain.errors import (
    JobRejected,
    PlatformError,
    PlatformUnavailable,
    PushPoolsError,
    StoreUnavailable,
)
from push_pools.platforms.ecs_errors import TYPE

if TYPE_CHECKING:
    from push_pools.platforms.ecs_config import EcsJobConfiguration
    from push_pools.ports import OpenCredentials


class Clients:
    """Opens clients for a credentials block, or for the service's own identity."""

    def __init__(self, open_credentials: OpenCredentials) -> None:
        self._open = open_credentials

    def credentials(self, block_id: str | None) -> AwsCredentials:
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
            return AwsCredentials()
        if not isinstance(opened, AwsCredentials):
            reason = f"the credentials block is of another type ({type(opened).__name__})"
            raise JobRejected(TYPE, reason, codes=["ProfileNotFound"], variable="aws_credentials")
        return opened

    def __call__(self, block_id: str | None, region: str | None, service: Any, *, retries: bool) -> Any:
        """Return the client of a service in a region."""
        return self.credentials(block_id).client(service, retries=retries, region=region)

    def scope(self, job: EcsJobConfiguration, region: str) -> str:
        """Return a text that differs wherever the account or region may differ."""
        identity = self.credentials(job.credential_block_id).identity()
        return f"{job.credential_block_id or 'service'}-{identity}/{region}"
