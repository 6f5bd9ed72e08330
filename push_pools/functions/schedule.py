"""The clock of the AWS hosting: once a minute it plans, sends what is overdue, and asks for looks at active jobs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from push_pools.domain.events import Sweep
from push_pools.functions.runtime import Host, count, function
from push_pools.queues.sqs import CollectedSends
from push_pools.services.tick import tick

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

host: Final = Host()


@function
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, int]:
    """Tick, whatever the event says, and answer what was done. Doubled, late and lost ticks are harmless."""
    sends = CollectedSends(host.queue)
    app = replace(host.app(context), queue=sends)
    try:
        overdue = tick(app)
        platforms = sorted(app.store.active_platforms())
        for platform in platforms:
            sends.send(Sweep(platform=platform).to_json())
    finally:
        sends.flush()
    count("HintsSentAgain", overdue)
    return {"overdue": overdue, "sweeps": len(platforms)}
