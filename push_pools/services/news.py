"""Tell the outside of state changes: endings surely, what happens on the way as it happens.

The end of a run, or of an attempt, leaves a `publish` chore in the same write, so it is told at least once. Other
changes are published right after their write: once, and not again if the process dies in between. The `sequence` of
an event is the version of the run's record: it orders events, and the same event always has the same one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from push_pools.domain import transitions
from push_pools.domain.errors import NotPublished
from push_pools.domain.events import RunStateChanged
from push_pools.domain.news import is_ending, state_changed
from push_pools.domain.runs import Chore, ChoreKind
from push_pools.services.log import log

if TYPE_CHECKING:
    from push_pools.domain.runs import FlowRun
    from push_pools.ports import App


def owed(before: FlowRun | None, after: FlowRun, app: App) -> FlowRun:
    """Return the run that is about to be written, with the chore to tell of its end if it has one now."""
    if app.bus is None or not is_ending(after):
        return after
    now = app.clock.now()
    event = state_changed(before, after, now, _sequence(before))
    if event is None:
        return after
    chore = Chore(kind=ChoreKind.PUBLISH, not_before=now, since=now, event=event.to_json(), sequence=event.sequence)
    return transitions.owing(after, chore, now)


def tell(before: FlowRun | None, after: FlowRun, app: App) -> None:
    """Publish a change that was written, unless a chore does; what cannot be published now is logged."""
    if app.bus is None or is_ending(after):
        return
    event = state_changed(before, after, app.clock.now(), after.version)
    if event is None:
        return
    try:
        app.bus.publish(event)
    except NotPublished as error:
        log.warning("not_published", extra={"flow_run_id": str(after.id), "reason": str(error)})


def publish_chore(chore: Chore, app: App) -> None:
    """Publish what a chore holds.

    Raises:
        NotPublished: The bus cannot be reached now.
    """
    if app.bus is not None and chore.event is not None:
        app.bus.publish(RunStateChanged.model_validate_json(chore.event))


def _sequence(before: FlowRun | None) -> int:
    return before.version + 1 if before is not None else 1
