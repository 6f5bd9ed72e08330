"""Everything that learns from Cloud Run: sweeps over the active jobs.

It starts and stops nothing: what has to be done about what it learns, it asks `submit_cloud_run` for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from push_pools.functions.messages import Batch
from push_pools.functions.runtime import Host, function
from push_pools.platforms.cloud_run import CloudRunPlatform, preload

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.batch.types import PartialItemFailureResponse
    from aws_lambda_powertools.utilities.typing import LambdaContext

preload()
host: Final = Host(platforms={CloudRunPlatform.type: CloudRunPlatform})


@function
def handler(event: dict[str, Any], context: LambdaContext) -> PartialItemFailureResponse:
    """Handle a batch of SQS messages and answer which of them are to come again."""
    return Batch(host.app(context), host.queue, context).handle(event)
