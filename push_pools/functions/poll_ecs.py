"""Everything that learns from Amazon ECS: sweeps over the active tasks, and the events that ECS sends.

It starts and stops nothing: what has to be done about what it learns, it asks `submit_ecs` for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from push_pools.functions.messages import Batch
from push_pools.functions.runtime import Host, function
from push_pools.platforms.ecs import EcsPlatform

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.batch.types import PartialItemFailureResponse
    from aws_lambda_powertools.utilities.typing import LambdaContext

host: Final = Host(platforms={EcsPlatform.type: EcsPlatform})


@function
def handler(event: dict[str, Any], context: LambdaContext) -> PartialItemFailureResponse:
    """Handle a batch of SQS messages and answer which of them are to come again."""
    return Batch(host.app(context), host.queue, context).handle(event)
