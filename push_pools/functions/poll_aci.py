"""Everything that learns from Azure Container Instances: sweeps over the active groups. Azure sends no events of jobs.

It starts and stops nothing: what has to be done about what it learns, it asks `submit_aci` for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from push_pools.functions.messages import Batch
from push_pools.functions.runtime import Host, function
from push_pools.platforms.aci import AciPlatform

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.batch.types import PartialItemFailureResponse
    from aws_lambda_powertools.utilities.typing import LambdaContext

host: Final = Host(platforms={AciPlatform.type: AciPlatform})


@function
def handler(event: dict[str, Any], context: LambdaContext) -> PartialItemFailureResponse:
    """Handle a batch of SQS messages and answer which of them are to come again."""
    return Batch(host.app(context), host.queue, context).handle(event)
