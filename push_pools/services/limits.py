"""The limits that slots are counted by: derived from the catalogue, and made good by whoever reads them next.

The catalogue's record is the truth. Its limit is kept beside the slots, where a run's own write can be refused for it.
The two are not one write, so a process may die in between: `current_limit` is asked before any slot is given, and
brings them in line. It reads the limit first and the record after it, and writes over the revision that it read:
whoever wrote the record later comes later to the limit too, so an older limit never stays over a newer one.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final
from uuid import UUID

from push_pools.domain import lanes
from push_pools.domain.deployments import Deployment
from push_pools.domain.errors import StoreUnavailable, VersionConflict
from push_pools.domain.events import Admit
from push_pools.domain.pools import WorkPool, WorkQueue
from push_pools.ports import RunFilter
from push_pools.services.ledger import change, log

if TYPE_CHECKING:
    from push_pools.domain.lanes import Limited
    from push_pools.domain.runs import FlowRun
    from push_pools.ports import App, Limit

MAX_TRIES: Final = 20
"""How often a limit is looked at anew because somebody else wrote it first."""
COUNTED_AT_ONCE: Final = 200
"""Most active runs that are counted in one go."""
ACTIVE: Final = frozenset({"PENDING", "RUNNING", "CANCELLING"})
_OVERLAP_SOURCE: Final = "overlap"


def scope_of(record: Limited) -> str:
    """Return the scope in which the record's concurrency limit counts slots."""
    match record:
        case WorkPool():
            return lanes.pool_scope(record.name)
        case WorkQueue():
            return lanes.queue_scope(record.work_pool, record.name)
        case Deployment():
            return lanes.deployment_scope(record.id)


def sync_limit(app: App, record: Limited) -> None:
    """Make the ledger count slots by a record that was written or deleted, and let waiting runs in.

    Repeatable, and not the only one: `current_limit` makes good what a crash leaves undone.
    """
    before = app.store.limit_of(scope_of(record))
    after = current_limit(app, before.scope)
    if (before.slots, before.source) != (after.slots, after.source):
        ask_to_admit(app, record.name if isinstance(record, WorkPool) else record.work_pool)


def ask_to_admit(app: App, work_pool: str, *, delay_seconds: float = 0.0) -> None:
    """Have the free slots of a pool given to those that wait; the tick asks too."""
    app.queue.send(Admit(work_pool=work_pool).to_json(), delay_seconds=delay_seconds)


def current_limit(app: App, scope: str) -> Limit:
    """Return the limit of a scope as the catalogue says now.

    Raises:
        StoreUnavailable: Others always wrote first.
    """
    for _ in range(MAX_TRIES):
        stored = app.store.limit_of(scope)
        wanted = _wanted(app, stored)  # Read after the limit: see above.
        if wanted == stored:
            return stored
        try:
            return app.store.put_limit(wanted)
        except VersionConflict:
            continue
    raise StoreUnavailable(f"the limit of {scope} is written by too many at once")


def _wanted(app: App, stored: Limit) -> Limit:
    if lanes.is_overlap(stored.scope):
        return replace(stored, slots=1, source=_OVERLAP_SOURCE)
    record = _record(app, stored.scope)
    source = lanes.limit_source(record)
    slots = record.concurrency_limit if record is not None else None
    # What became active while there was no limit holds no slot, and has to be counted first.
    is_new = source != stored.source
    return replace(stored, slots=slots, source=source, is_counting=bool(source) and (is_new or stored.is_counting))


def _record(app: App, scope: str) -> Limited | None:
    kind, _, name = scope.partition("#")
    match kind:
        case "POOL":
            return app.store.get(WorkPool, name)
        case "QUEUE":
            return app.store.get(WorkQueue, name)
        case _:
            return app.store.find(Deployment, UUID(name))


def count_active(app: App, limit: Limit, work_pool: str) -> Limit:
    """Give slots of a new limit to the runs that are active already, and return the limit that follows.

    They may be more than the limit. It is counting still when there are more than are counted at once, when the list
    may lag behind the limit, or when it was changed meanwhile: then the pool is asked to admit again.

    Whoever is not on the list when it is read is claimed after the limit was written, and sees it: a run looks at
    its limits once more after its claim (`services.submit`).
    """
    if app.store.lists_lag and not _is_listed(app, limit, work_pool):
        return limit
    counted, cursor = 0, None
    while True:
        page = app.store.runs(_in_scope(app, limit.scope), cursor=cursor)
        for run in page.runs:
            if _belongs(run, limit.scope) and limit.scope not in run.slots:
                counted += count_run(run, limit.scope, app) is not run
            if counted >= COUNTED_AT_ONCE:
                ask_to_admit(app, work_pool)
                return limit
        cursor = page.cursor
        if cursor is None:
            break
    log.info("limit_counted", extra={"scope": limit.scope, "runs": counted})
    try:
        limit = app.store.put_limit(replace(limit, is_counting=False))
    except VersionConflict:
        limit = app.store.limit_of(limit.scope)  # It changed meanwhile, or another counted too.
        if limit.is_counting:
            ask_to_admit(app, work_pool)
        return limit
    if app.store.lists_lag:
        app.store.forget(_first_look(limit))
    return limit


def _is_listed(app: App, limit: Limit, work_pool: str) -> bool:
    """Whether a list that lags shows by now every run that was active before the limit was written.

    The first who looks writes down when, and sends for somebody to count later. Nobody gets a slot until then: a run
    that the list does not show yet would be one too many.
    """
    now = app.real_clock.now()
    mine = now.isoformat()
    first = app.store.remember(_first_look(limit), mine)
    lag = timedelta(seconds=app.timing.list_lag_seconds)
    if first == mine and lag:
        ask_to_admit(app, work_pool, delay_seconds=lag.total_seconds())
    return now >= datetime.fromisoformat(first) + lag


def _first_look(limit: Limit) -> str:
    return f"counting/{limit.scope}/{limit.source}"  # The source is another one for every limit that ever appears.


def _in_scope(app: App, scope: str) -> RunFilter:
    kind, _, name = scope.partition("#")
    if kind == "DEP":
        return RunFilter(states=ACTIVE, deployment_id=UUID(name))
    return RunFilter(states=ACTIVE, work_pool=name.partition("/")[0])


def _belongs(run: FlowRun, scope: str) -> bool:
    kind = scope.partition("#")[0]
    return kind != "QUEUE" or lanes.queue_scope(run.work_pool, run.work_queue) == scope


def count_run(run: FlowRun, scope: str, app: App) -> FlowRun:
    """Give a run that is active already a slot of a newer limit, full or not, and return the run that follows."""
    return change(app, run, lambda r: lanes.count_in(r, scope, app.moment()), counting=True)
