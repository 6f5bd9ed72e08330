"""The tick: it plans what schedules name, and sends again what was due to be looked at and was not."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from push_pools.domain import transitions
from push_pools.domain.errors import StoreUnavailable
from push_pools.services.ledger import change, log, send_hint_at
from push_pools.services.plan import plan_all

if TYPE_CHECKING:
    from datetime import datetime

    from push_pools.domain.runs import FlowRun
    from push_pools.ports import App

BATCH = 1000


def tick(app: App) -> int:
    """Send the hints of runs that are overdue, and plan up to the look-ahead; return how many were overdue.

    Doubled, late and lost ticks are harmless: a hint only makes somebody look, and what is planned twice is there once.
    """
    now = app.clock.now()
    overdue = app.store.due(now - timedelta(seconds=app.timing.overdue_seconds), limit=BATCH)
    for run in overdue:
        try:
            change(app, run, partial(_hinted, wake_at=run.wake_at, now=now))
            send_hint_at(app, run, now)
        except StoreUnavailable as error:
            log.warning("hint_failed", extra={"flow_run_id": str(run.id), "reason": str(error)})
    plan_all(app)
    return len(overdue)


def _hinted(run: FlowRun, *, wake_at: datetime | None, now: datetime) -> FlowRun:
    return transitions.hinted(run, now) if run.wake_at == wake_at else run
