"""Planning: the runs of schedules are put ahead of time, once however often this is done.

A tick plans what has come into the look-ahead since the mark that the last tick left, so that time without ticks is
caught up. Ids derive from schedule and instant: a tick that is doubled, late or cut short, or overlaps another, puts
nothing twice. A deployment that was written just now is planned by whoever wrote it; if that is cut short, the next
tick finds from `planned_from` that the deployment is newer than the mark.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

from push_pools.domain.deployments import Deployment
from push_pools.domain.errors import NotFound, StoreUnavailable, VersionConflict
from push_pools.domain.events import ScheduledRun, instant_text
from push_pools.domain.planning import NOT_MISSED, PlanMark, due_fires, fire_times, why_skip
from push_pools.domain.pools import WorkPool, WorkQueue
from push_pools.domain.runs import FlowRun, Phase, ScheduleRef, run_id
from push_pools.services.ledger import change, log, send_hint, send_hints
from push_pools.services.records import MAX_TRIES
from push_pools.services.schedule import new_run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from push_pools.domain.instants import FireTime
    from push_pools.domain.planning import DueFires
    from push_pools.domain.schedules import Schedule
    from push_pools.ports import App, Store

LEDGER: Final = "ledger"
NEVER: Final = datetime(1970, 1, 1, tzinfo=UTC)
RECENT: Final = timedelta(minutes=5)
"""A deployment written this long before a tick read the catalogue may have been written after: clocks differ, and
writers are slow. It is planned once more."""
BATCH: Final = 500
"""How many runs are put and told of at once."""
MOST_HINTS: Final = 100_000
"""Most runs put earlier that one tick sends the hints of; the next one sends those of more as overdue."""
_SEARCH: Final = timedelta(days=35)
"""How far a next instant is looked for, to be kept."""
_CHANGED: Final = ("parameters", "job_variables", "tags", "work_queue", "schedule")
"""What a planned run that nobody has looked at yet takes over when its deployment is planned anew."""


@dataclass
class PlanReport:
    """What a round of planning came to."""

    put: int = 0
    """Runs that were not there before."""
    failed: dict[str, str] = field(default_factory=dict)
    """Deployments that could not be planned, with the reason; they are tried again."""
    capped: list[str] = field(default_factory=list)
    """Schedules of which more was missed than is made good, each as `flow/name: schedule`."""


def plan_all(app: App) -> PlanReport:
    """Plan every deployment up to the look-ahead, and make good what was missed. Repeatable.

    What was paused by its pool or queue and is not any more is caught up by the schedules' own policies. A deployment
    that fails is logged and stays behind alone.

    Raises:
        StoreUnavailable: The ledger cannot be read or written; another tick begins where the last one ended.
    """
    round_ = _Round(app)
    _send_hints(app, round_)
    deployments = app.store.list(Deployment)
    for deployment in deployments:
        round_.plan(deployment)
        round_.put(at_least=BATCH)
    round_.put()
    round_.end(deployments)
    return round_.report


def plan_deployment(app: App, deployment: Deployment) -> PlanReport:
    """Plan one deployment that was written just now, up to the look-ahead.

    Runs that are planned already, and that nobody has looked at, take over what was changed. A failure is logged: the
    next tick tries again.
    """
    if deployment.is_paused or not any(schedule.active for schedule in deployment.schedules):
        return PlanReport()
    try:
        round_ = _Round(app)
        round_.plan(deployment, anew=True)
        round_.put(anew=True)
    except StoreUnavailable as error:
        log.warning("plan_failed", extra={"deployment": deployment.key, "reason": str(error)})
        return PlanReport(failed={deployment.key: str(error)})
    return round_.report


def skip_reason(app: App, run: FlowRun) -> str | None:
    """Return why a run that was just claimed is not wanted any more, or `None` if it is."""
    if run.schedule is None or run.deployment_id is None:
        return None
    deployment = app.store.find(Deployment, run.deployment_id)
    return why_skip(run, deployment, app.clock.now(), grace=_stretched(app, NOT_MISSED))


def _stretched(app: App, time: timedelta) -> timedelta:
    """Return a host's time on the movable clock: ticks are not more frequent because that clock runs fast."""
    return time * max(app.clock.speed, 1.0)


def _send_hints(app: App, round_: _Round) -> None:
    """Send the hints of runs that were put before they came into the look-ahead, and come into it now."""
    after = max(round_.until, round_.now)
    for run in app.store.due(round_.now + round_.look_ahead, after=after, limit=MOST_HINTS):
        if run.phase is Phase.PLANNED and run.due_at > run.created_at + round_.look_ahead:
            send_hint(app, run)


class _Round:
    """One round of planning: what it read at its beginning, and how far each part has come."""

    def __init__(self, app: App) -> None:
        self.app, self.now = app, app.clock.now()
        self.look_ahead = _stretched(app, timedelta(seconds=app.timing.look_ahead_seconds))
        self.grace = _stretched(app, NOT_MISSED)
        self.report = PlanReport()
        self._marks = {mark.name: mark for mark in app.store.list(PlanMark)}
        self._ledger = self._marks.get(LEDGER)
        self._pools = {pool.name: pool for pool in app.store.list(WorkPool)}
        self._queues = {queue.key: queue for queue in app.store.list(WorkQueue)}
        self._kept = _kept_of(app.store)
        self._todo: list[FlowRun] = []
        self._planned: list[tuple[_Known, datetime]] = []
        self._failed: list[tuple[Deployment, datetime, str]] = []
        self._healed: list[PlanMark] = []

    @property
    def until(self) -> datetime:
        """How far the ledger was planned."""
        return self._ledger.until if self._ledger else NEVER

    # -- one deployment

    def plan(self, deployment: Deployment, *, anew: bool = False) -> None:
        """Put the runs that a deployment's schedules name and that are not planned yet; `anew` goes through all."""
        lanes = (f"pool/{deployment.work_pool}", f"queue/{deployment.work_pool}/{deployment.work_queue}")
        if deployment.is_paused or any(map(self._is_paused, lanes)):
            return
        own = self._marks.get(f"deployment/{deployment.id}")
        behind = [mark for name in lanes if (mark := self._marks.get(name)) is not None]
        begin = min([self.until, *(mark.until for mark in behind), *([own.until] if own else [])])
        held_until = max((self._resumed_at(mark.name) for mark in behind), default=None)
        try:
            for schedule in deployment.schedules:
                if schedule.active:
                    self._plan_schedule(deployment, schedule, begin, held_until, anew=anew)
        except Exception as error:  # One deployment never stops the others.
            log.warning("plan_failed", extra={"deployment": deployment.key, "reason": str(error)}, exc_info=True)
            self.report.failed[deployment.key] = f"{type(error).__name__}: {error}"
            self._failed.append((deployment, begin, str(error)))
        else:
            if own is not None:
                self._healed.append(own)

    def _plan_schedule(
        self, deployment: Deployment, schedule: Schedule, begin: datetime, held_until: datetime | None, *, anew: bool
    ) -> None:
        known = (schedule.id, schedule.version, schedule.planned_from)
        begin = self._begin(deployment, schedule, begin, anew=anew)
        end = self.now + self.look_ahead
        if not anew and (begin >= end or self._kept.is_empty(known, schedule, begin, end)):
            return
        due = due_fires(
            schedule,
            begin,
            self.now,
            self.look_ahead,
            grace=self.grace,
            held_until=held_until,
            deployment_id=deployment.id,
        )
        if due.capped:
            self._capped(deployment, schedule, due)
        runs = [self._run_of(deployment, schedule, fire) for fire in due.fires]
        if due.capped:
            note = "more was missed before; it is not made good"
            runs[0] = runs[0].noted(self.now, "catch-up capped", note=note)
        self._todo += runs
        self._planned.append((known, end))

    def _begin(self, deployment: Deployment, schedule: Schedule, begin: datetime, *, anew: bool) -> datetime:
        """Return the moment after which a schedule is planned."""
        since = max(filter(None, (schedule.planned_from, deployment.planned_from)), default=None)
        if since is None:
            return self.now if begin == NEVER else min(begin, self.now) if anew else begin
        if anew:
            return max(since, min(begin, self.now))
        if self._ledger is not None and since <= self._ledger.planned_at - _stretched(self.app, RECENT):
            return max(since, begin)
        # The mark may not have seen it. What this process has planned of it is not planned again.
        known = (schedule.id, schedule.version, schedule.planned_from)
        return max(since, self._kept.planned_until(known)) if begin == self.until else max(since, begin)

    def _capped(self, deployment: Deployment, schedule: Schedule, due: DueFires) -> None:
        self.report.capped.append(f"{deployment.key}: {schedule.describe()}")
        oldest = due.fires[0].utc.isoformat()
        log.warning("catch_up_capped", extra={"deployment": deployment.key, "schedule": schedule.id, "oldest": oldest})

    def put(self, *, at_least: int = 1, anew: bool = False) -> None:
        """Put the runs that were planned so far, if they are that many, and send their hints."""
        if len(self._todo) >= at_least:
            known = self.app.store.put_runs(self._todo)
            self.report.put += len(self._todo) - len(known)
            stored = [known.get(run.id, run) for run in self._todo]
            if anew:
                stored = [
                    change(self.app, old, partial(_taken_over, run=run, now=self.now)) if run.id in known else old
                    for old, run in zip(stored, self._todo, strict=True)
                ]
            soon = self.now + self.look_ahead
            send_hints(self.app, (run for run in stored if _waits(run) and run.due_at <= soon))
            self._todo = []
        if not self._todo:
            for planned in self._planned:
                self._kept.keep(*planned)
            self._planned = []

    def _run_of(self, deployment: Deployment, schedule: Schedule, fire: FireTime) -> FlowRun:
        event = ScheduledRun(
            deployment=deployment.key,
            parameters=schedule.parameters,
            job_variables=schedule.job_variables,
        )
        pool = self._pools.get(deployment.work_pool)
        if pool is None:
            raise NotFound("work pool", deployment.work_pool, self._pools)
        id_ = run_id(deployment.id, f"at:{schedule.id}:{instant_text(fire.utc)}")
        ref = ScheduleRef(id=schedule.id, version=schedule.version, overlap=schedule.overlap)
        run = new_run(event, self.app, id_, deployment, pool, deployment.work_queue, fire.utc, schedule=ref)
        return run if fire.due == fire.utc else run.evolve(due_at=fire.due, wake_at=fire.due)

    # -- paused pools and queues

    def _lane(self, name: str) -> WorkPool | WorkQueue | None:
        kind, _, key = name.partition("/")
        return self._pools.get(key) if kind == "pool" else self._queues.get(key) if kind == "queue" else None

    def _is_paused(self, name: str) -> bool:
        lane = self._lane(name)
        return lane is not None and lane.is_paused

    def _resumed_at(self, name: str) -> datetime:
        lane = self._lane(name)
        return lane.updated_at if lane else NEVER  # Resuming was a write, and if it was not the last, it was before.

    # -- the end of a round

    def end(self, deployments: Sequence[Deployment]) -> None:
        """Write how far planning has come: first what stays behind, then the ledger's mark, then what has caught up."""
        for deployment, begin, reason in self._failed:
            self._hold_back(f"deployment/{deployment.id}", begin, reason)
        lanes = [*(f"pool/{name}" for name in self._pools), *(f"queue/{key}" for key in self._queues)]
        for name in filter(self._is_paused, lanes):
            self._hold_back(name, self._behind(name), "paused")
        self._advance()
        ids = {str(deployment.id) for deployment in deployments}
        for mark in self._marks.values():
            kind, _, key = mark.name.partition("/")
            over = key not in ids if kind == "deployment" else kind != LEDGER and not self._is_paused(mark.name)
            if over or mark in self._healed:
                self._drop(mark)

    def _behind(self, name: str) -> datetime:
        """Return how far a paused lane was planned: a queue stays behind with its pool, if that was paused before."""
        pool = self._marks.get("pool/" + name.split("/")[1])
        return min(self.until, pool.until) if pool is not None else self.until

    def _hold_back(self, name: str, until: datetime, reason: str) -> None:
        for _ in range(MAX_TRIES):
            mark = self.app.store.get(PlanMark, name)
            if mark is not None and mark.until <= until:
                return
            try:
                self.app.store.put(self._mark(name, until, reason, mark))
            except VersionConflict:
                continue
            return
        raise StoreUnavailable(f"the plan mark {name!r} is written to by too many at once; try again")

    def _advance(self) -> None:
        until = self.now + self.look_ahead
        if self._ledger is not None and self._ledger.until >= until:
            return
        try:
            self.app.store.put(self._mark(LEDGER, until, "", self._ledger))
        except VersionConflict:
            return  # Another tick was faster; what this one has planned is planned.

    def _mark(self, name: str, until: datetime, reason: str, before: PlanMark | None) -> PlanMark:
        changes = {"until": until, "planned_at": self.now, "updated_at": self.now, "reason": reason}
        if before is not None:
            return before.model_copy(update=changes)
        return PlanMark(name=name, created_at=self.now, **changes)

    def _drop(self, mark: PlanMark) -> None:
        try:
            self.app.store.delete(mark)
        except VersionConflict:
            return  # It was held back anew meanwhile.


def _waits(run: FlowRun) -> bool:
    return run.phase is Phase.PLANNED and run.attempt == 1


def _taken_over(stored: FlowRun, *, run: FlowRun, now: datetime) -> FlowRun:
    """Return a planned run as its deployment says now, as long as nobody has looked at it."""
    differs = [name for name in _CHANGED if getattr(stored, name) != getattr(run, name)]
    if not differs or not _waits(stored) or stored.fence:
        return stored
    if stored.work_pool != run.work_pool:
        return stored
    changed = stored.evolve(due_at=run.due_at, wake_at=run.wake_at, **{name: getattr(run, name) for name in differs})
    return changed.noted(now, "planned anew", fields=differs)


# -- what a process remembers --------------------------------------------------

_Known = tuple[str, int, "datetime | None"]


class _Kept:
    """What a process knows of schedules, so that a tick in which nothing is due costs little. All of it may be lost."""

    MOST: Final = 200_000

    def __init__(self) -> None:
        self._next: dict[_Known, tuple[datetime, datetime | None]] = {}

    def keep(self, known: _Known, planned_until: datetime) -> None:
        """Keep that a schedule is planned up to a moment."""
        if len(self._next) >= self.MOST:
            self._next = {}
        self._next[known] = (planned_until, None)

    def is_empty(self, known: _Known, schedule: Schedule, begin: datetime, end: datetime) -> bool:
        """Whether a schedule surely names no instant after `begin` up to `end`."""
        since, following = self._next.get(known, (None, None))
        if since is None or since > begin:
            return False
        if following is None:
            horizon = since + _SEARCH
            fire = next(fire_times(schedule, since, until=horizon), None)
            following = fire.utc if fire else horizon
            self._next[known] = (since, following)
        return end < following

    def planned_until(self, known: _Known) -> datetime:
        """Return up to when this process has planned a schedule."""
        return self._next.get(known, (NEVER, None))[0]


_OF_STORES: WeakKeyDictionary[Store, _Kept] = WeakKeyDictionary()
_LOCK: Final = threading.Lock()


def _kept_of(store: Store) -> _Kept:
    with _LOCK:
        return _OF_STORES.setdefault(store, _Kept())
