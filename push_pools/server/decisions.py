"""What the embedded server decides: what becomes of a message, and what is taken over from a dead server.

The server's threads call these functions, and so does the simulation that tries to break them.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Final

from push_pools.domain.errors import PushPoolsError
from push_pools.ports import Invocation
from push_pools.services.handle import Fate, deliver
from push_pools.services.ledger import change, send_hint_at
from push_pools.services.poll import job_over
from push_pools.services.sweep import sweep

if TYPE_CHECKING:
    from push_pools.domain.runs import FlowRun, JobHandle
    from push_pools.domain.states import Observation
    from push_pools.ports import App, Delivery, LocalQueue

log = logging.getLogger("push_pools")
BACK_SECONDS: Final = 1.0
"""After how long a message comes back that could not be handled now."""
VISIBILITY_MARGIN_SECONDS: Final = 30.0
"""How much longer than a handler's time a message stays hidden."""


def visibility_seconds(app: App) -> float:
    """Return for how long a message that is handed out stays hidden from others."""
    return app.timing.function_seconds + VISIBILITY_MARGIN_SECONDS


def handle_delivery(delivery: Delivery, owner: str, app: App, queue: LocalQueue) -> None:
    """Handle a message and do with it what the outcome asks for: acknowledge it, give it back, or bury it."""
    deadline = app.real_clock.now() + timedelta(seconds=app.timing.function_seconds)
    outcome = deliver(delivery.body, f"local:{delivery.id}", delivery.receives, app, Invocation(owner, deadline))
    match outcome.fate:
        case Fate.DONE:
            queue.ack(delivery)
        case Fate.BACK:
            queue.release(delivery, delay_seconds=BACK_SECONDS)
        case Fate.DEAD:
            queue.bury(delivery, outcome.reason)


def take_over(owner: str, app: App, queue: LocalQueue) -> None:
    """Make visible what a dead server had in hand, and end its claims. Only the holder of the home's lock may."""
    shown = queue.show_all()
    claimed = 0
    for run in app.store.due(app.clock.now() + timedelta(days=3650), limit=1_000_000):
        if run.claim is not None and run.claim.owner != owner:
            change(app, run, partial(_expired, app=app))
            send_hint_at(app, run, app.clock.now())
            claimed += 1
    log.info("took_over", extra={"messages": shown, "claims": claimed})


def _expired(run: FlowRun, *, app: App) -> FlowRun:
    if run.claim is None or run.claim.until <= app.real_clock.now():
        return run
    now = app.clock.now()
    claim = run.claim.model_copy(update={"until": app.real_clock.now()})
    return run.evolve(claim=claim, wake_at=now).noted(now, "claim of a dead server is over")


def told_over(handle: JobHandle, seen: Observation, app: App) -> None:
    """Record that a platform told of the end of a job; what is missed here, a sweep finds."""
    try:
        job_over(handle, seen, app)
    except PushPoolsError as error:
        log.warning("told_in_vain", extra={"job_key": handle.key, "reason": str(error)})


def sweep_all(app: App, every_seconds: float) -> None:
    """Look at the active jobs of all platforms, in a sweep that comes every so often on the real clock."""
    for platform in app.store.active_platforms():
        sweep(platform, app, every_seconds=every_seconds * app.clock.speed)
