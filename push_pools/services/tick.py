"""The tick: it plans, sends again what nobody has looked at, has waiting runs admitted, and lets go of old history."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from push_pools.domain import transitions
from push_pools.domain.errors import StoreUnavailable
from push_pools.domain.runs import HISTORY
from push_pools.domain.status import Part
from push_pools.services.ledger import change, log, send_hint_at
from push_pools.services.limits import ask_to_admit
from push_pools.services.plan import plan_all
from push_pools.services.status import beat

if TYPE_CHECKING:
    from datetime import datetime

    from push_pools.domain.runs import FlowRun
    from push_pools.domain.transitions import Moment
    from push_pools.ports import App

BATCH = 1000
PURGE_BATCH = 500
"""Most runs of old history that one tick removes."""


def tick(app: App) -> int:
    """Send the hints of runs that are overdue, and plan up to the look-ahead; return how many were overdue.

    It also shows late runs as Late, and forgets old ones. Doubled, late and lost ticks are harmless: a hint only makes
    somebody look, and what is planned twice is there once.
    """
    now = app.clock.now()
    again = now - timedelta(seconds=app.timing.overdue_seconds)
    overdue = 0
    for run in app.store.due(now - timedelta(seconds=transitions.LATE_SECONDS), limit=BATCH):
        is_overdue = run.wake_at is not None and run.wake_at <= again
        try:
            change(app, run, partial(_looked_at, wake_at=run.wake_at, moment=app.moment(), hint=is_overdue))
            if is_overdue:
                send_hint_at(app, run, now)
                overdue += 1
        except StoreUnavailable as error:
            log.warning("hint_failed", extra={"flow_run_id": str(run.id), "reason": str(error)})
    plan_all(app)
    _admit(app)
    app.store.purge(now - HISTORY, limit=PURGE_BATCH)
    beat(app, Part.TICK)
    return overdue


def _looked_at(run: FlowRun, *, wake_at: datetime | None, moment: Moment, hint: bool) -> FlowRun:
    if run.wake_at != wake_at:
        return run  # Somebody was here.
    run = transitions.late(run, moment)
    return transitions.hinted(run, moment.now) if hint else run


def _admit(app: App) -> None:
    """Have every pool looked at in which somebody waits: the message that should have done so may be lost."""
    for pool in sorted(app.store.waiting_pools()):
        try:
            ask_to_admit(app, pool)
        except StoreUnavailable as error:
            log.warning("admit_not_asked", extra={"work_pool": pool, "reason": str(error)})
