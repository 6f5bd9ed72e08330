"""Writing decisions into the ledger: read, decide, write, and once more when somebody was faster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from push_pools.domain.errors import StoreUnavailable, VersionConflict
from push_pools.domain.events import hint
from push_pools.services.log import log
from push_pools.services.news import owed, tell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from datetime import datetime

    from push_pools.domain.runs import FlowRun
    from push_pools.ports import App

__all__ = ["RunKnown", "change", "hint_type", "log", "put_first", "send_hint", "send_hint_at"]

MAX_TRIES: Final = 20
"""How often a decision is made anew because somebody else wrote first."""
MAX_DELAY_SECONDS: Final = 900.0
"""The longest delay a queue keeps (SQS); the tick takes over what is further away."""


class RunKnown(Exception):
    """The run that was to be put is in the ledger already."""

    def __init__(self, run: FlowRun) -> None:
        self.run = run
        super().__init__(str(run.id))


def put_first(run: FlowRun, app: App) -> FlowRun:
    """Put a run that nobody else may have put before, and return it.

    Raises:
        RunKnown: Somebody has.
        StoreUnavailable: The ledger cannot be written.
    """
    run = owed(None, run, app)
    stored = app.store.put_run(run)
    if stored != run.evolve(version=1):
        raise RunKnown(stored)
    tell(None, stored, app)
    return stored


def change(app: App, run: FlowRun, decide: Callable[[FlowRun], FlowRun], *, counting: bool = False) -> FlowRun:
    """Write what `decide` makes of the run; a decision that changes nothing writes nothing.

    Raises:
        ScopeFull: The decision takes a slot that is not free; `counting` takes it all the same.
        StoreUnavailable: The ledger cannot be written, or others always wrote first.
    """
    for _ in range(MAX_TRIES):
        after = decide(run)
        if after is run:
            return run
        try:
            owing = owed(run, after, app)
            written = app.store.save(run, owing, counting=counting) if counting else app.store.save(run, owing)
        except VersionConflict:
            run = app.store.get_run(run.id)
        else:
            tell(run, written, app)
            return written
    raise StoreUnavailable(f"flow run {run.id} is written to by too many at once")


def send_hint(app: App, run: FlowRun) -> None:
    """Send the message that makes somebody look at the run when it is next due."""
    at = run.due_at if run.phase.is_submitting and run.claim is None else run.wake_at
    if at is not None:
        send_hint_at(app, run, at)


def send_hint_at(app: App, run: FlowRun, at: datetime) -> None:
    """Send the run's hint with a delay; what is beyond a queue's longest delay is left to the tick."""
    for body, delay in _hints(app, [(run, at)]):
        app.queue.send(body, delay_seconds=delay)


def send_hints(app: App, runs: Iterable[FlowRun]) -> None:
    """Send the hints of many runs, each for when it is due; what is too far away is left to the tick."""
    if messages := list(_hints(app, ((run, run.due_at) for run in runs))):
        app.queue.send_all(messages)


def _hints(app: App, runs: Iterable[tuple[FlowRun, datetime]]) -> Iterator[tuple[str, float]]:
    now, speed = app.clock.now(), app.clock.speed
    for run, at in runs:
        delay = (at - now).total_seconds() / speed
        if delay <= MAX_DELAY_SECONDS:
            yield hint(hint_type(run), run.id, run.platform), max(delay, 0.0)


def hint_type(run: FlowRun) -> str:
    """Return which message moves the run on. Whoever gets any of them does the chores that are due first."""
    if run.phase.is_active:
        return "stop"
    return "chores" if run.is_final else "submit"
