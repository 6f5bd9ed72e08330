"""The tick: it sends again what was due to be looked at and was not, and lets go of old history."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from push_pools.domain import transitions
from push_pools.domain.errors import StoreUnavailable
from push_pools.domain.runs import HISTORY
from push_pools.domain.status import Part
from push_pools.services.ledger import change, log, send_hint, send_hint_at
from push_pools.services.status import beat

if TYPE_CHECKING:
    from push_pools.domain.runs import FlowRun
    from push_pools.ports import App

BATCH = 1000
PURGE_BATCH = 500
"""Most runs of old history that one tick removes."""


def tick(app: App) -> int:
    """Send the hints of runs that are overdue, and of those due soon that nobody was told of; return how many.

    It also shows late runs as Late, and forgets old ones. Doubled, late and lost ticks are harmless: a hint only
    makes somebody look.
    """
    now = app.clock.now()
    sent = 0
    for run in app.store.due(now + timedelta(seconds=app.timing.look_ahead_seconds), limit=BATCH):
        try:
            sent += _look(run, app)
        except StoreUnavailable as error:
            log.warning("hint_failed", extra={"flow_run_id": str(run.id), "reason": str(error)})
    app.store.purge(now - HISTORY, limit=PURGE_BATCH)
    beat(app, Part.TICK)
    return sent


def _look(run: FlowRun, app: App) -> bool:
    """Do what is due of one run, and return whether its hint was sent."""
    moment, wake_at = app.moment(), run.wake_at
    is_overdue = wake_at is not None and moment.now - wake_at >= timedelta(seconds=app.timing.overdue_seconds)

    def decide(stored: FlowRun) -> FlowRun:
        if stored.wake_at != wake_at:
            return stored  # Somebody was here.
        if is_overdue:
            return transitions.hinted(transitions.late(stored, moment), moment.now)
        return transitions.late(transitions.told_ahead(stored, moment, app.timing), moment)

    after = change(app, run, decide)
    if is_overdue:
        send_hint_at(app, after, moment.now)
    elif after.hints > run.hints:
        send_hint(app, after)
    return is_overdue or after.hints > run.hints
