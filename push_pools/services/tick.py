"""The tick: it sends again what was due to be looked at and was not, and has waiting runs admitted."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from push_pools.domain import transitions
from push_pools.domain.errors import StoreUnavailable
from push_pools.services.ledger import change, log, send_hint_at
from push_pools.services.limits import ask_to_admit

if TYPE_CHECKING:
    from datetime import datetime

    from push_pools.domain.runs import FlowRun
    from push_pools.ports import App

BATCH = 1000


def tick(app: App) -> int:
    """Send the hints of runs that are overdue, and of those due soon that nobody was told of; return how many.

    Doubled, late and lost ticks are harmless: a hint only makes somebody look.
    """
    now = app.clock.now()
    overdue = app.store.due(now - timedelta(seconds=app.timing.overdue_seconds), limit=BATCH)
    for run in overdue:
        try:
            change(app, run, partial(_hinted, wake_at=run.wake_at, now=now))
            send_hint_at(app, run, now)
        except StoreUnavailable as error:
            log.warning("hint_failed", extra={"flow_run_id": str(run.id), "reason": str(error)})
    _admit(app)
    return len(overdue)


def _admit(app: App) -> None:
    """Have every pool looked at in which somebody waits: the message that should have done so may be lost."""
    for pool in sorted(app.store.waiting_pools()):
        try:
            ask_to_admit(app, pool)
        except StoreUnavailable as error:
            log.warning("admit_not_asked", extra={"work_pool": pool, "reason": str(error)})


def _hinted(run: FlowRun, *, wake_at: datetime | None, now: datetime) -> FlowRun:
    return transitions.hinted(run, now) if run.wake_at == wake_at else run
