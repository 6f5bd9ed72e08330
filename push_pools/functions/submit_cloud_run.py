"""Everything that acts on Cloud Run: starts, stops and cleans up jobs, one queue message at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from push_pools.functions.messages import Batch
from push_pools.functions.runtime import Host, function
from push_pools.platforms.cloud_run import CloudRunPlatform, preload

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.batch.types import PartialItemFailureResponse
    from aws_lambda_powertools.utilities.typing import LambdaContext

preload()
host: Final = Host(acting=(CloudRunPlatform.type,), platforms={CloudRunPlatform.type: CloudRunPlatform})


@function
def handler(event: dict[str, Any], context: LambdaContext) -> PartialItemFailureResponse:
    """Handle a batch of SQS messages and answer which of them are to come again."""
    return Batch(host.app(context), host.queue, context).handle(event)
