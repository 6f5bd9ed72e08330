"""Limits, order, pauses, overlap and schedules: what users change of them in a story, and what has to hold."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from push_pools.domain.deployments import Deployment
from push_pools.domain.pools import WorkPool, WorkQueue
from push_pools.domain.runs import FlowRun, Phase
from push_pools.domain.schedules import ScheduleSpec
from push_pools.services.catalogue import (
    pause_work_pool,
    pause_work_queue,
    resume_work_pool,
    resume_work_queue,
    update_work_pool,
    update_work_queue,
)
from push_pools.services.edit_schedules import create_schedule, pause_schedule, resume_schedule

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from uuid import UUID

    from push_pools.ports import App, Store
    from tests.simulation.chance import Chance
    from tests.simulation.checks import Checks
    from tests.simulation.engine import Task

POOL: Final = "pool"
QUEUES: Final = ("default", "urgent")
OVERLAPS: Final = ("skip", "buffer_one", "cancel_other", "allow")
INTERVALS: Final = (60.0, 120.0, 300.0)
SKIPPED: Final = "Skipped"
CATALOGUE: Final = frozenset({"put", "delete", "put_limit"})
"""Writes of the ledger that change what fits."""


def changes(chance: Chance) -> tuple[str, Callable[[App], object]]:
    """Return something that a user may do to lanes, and its name."""
    limit = chance.pick((1, None, 2, 4))
    queue = chance.pick(QUEUES)
    priority = 1 + chance.below(3)
    options: tuple[tuple[str, Callable[[App], object]], ...] = (
        ("pool limit changed", lambda app: update_work_pool(app, POOL, concurrency_limit=limit)),
        ("queue limit changed", lambda app: update_work_queue(app, POOL, queue, concurrency_limit=limit)),
        ("queue priority changed", lambda app: update_work_queue(app, POOL, queue, priority=priority)),
        ("pool paused", lambda app: pause_work_pool(app, POOL)),
        ("queue paused", lambda app: pause_work_queue(app, POOL, queue)),
        ("pool resumed", lambda app: resume_work_pool(app, POOL)),
        ("queue resumed", lambda app: resume_work_queue(app, POOL, queue)),
    )
    return chance.pick(options)


def schedule_of(chance: Chance, app: App, deployment: str, name: str) -> None:
    """Give a deployment a schedule."""
    spec = {"interval": chance.pick(INTERVALS), "overlap": chance.pick(OVERLAPS), "slug": name, "catchup": "latest"}
    create_schedule(app, deployment, ScheduleSpec.model_validate(spec))


def schedule_changes(chance: Chance, deployment: str, name: str) -> tuple[str, Callable[[App], object]]:
    """Return something that a user may do to a schedule."""
    options: tuple[tuple[str, Callable[[App], object]], ...] = (
        ("schedule paused", lambda app: pause_schedule(app, deployment, name)),
        ("schedule resumed", lambda app: resume_schedule(app, deployment, name)),
    )
    return chance.pick(options)


class LaneChecks:
    """What has to hold of slots, order, pauses and overlap."""

    def __init__(self, checks: Checks, store: Store) -> None:
        self.checks, self.store = checks, store
        self.engine = checks.engine
        self.began: dict[Task, float] = {}
        """When the decision that a handler is making now began."""
        self._read_pool: dict[Task, float] = {}
        self._read_for_limit: dict[Task, float] = {}
        self._reads_limit: set[Task] = set()
        self.reads_once = False
        """Whether a handler keeps what it reads of the catalogue until it asks for something else."""
        self.changed_at = 0.0
        """When a slot was last given back, or a record of the catalogue written."""
        self._fits_since: dict[UUID, float] = {}
        self._parked_at: dict[UUID, float] = {}
        self._known: dict[Any, Any] = {}
        """What was read of the ledger at this moment."""

    def asked(self, method: str, args: Sequence[Any], options: Mapping[str, Any]) -> None:
        """A handler asks the ledger something.

        A decision begins with the look at its pool, but not with one that brings a limit in line; the look at who waits
        says that there is a decision.
        """
        if (task := self.engine.current) is None:
            return
        now = self.engine.now
        if method == "limit_of":
            self._reads_limit.add(task)
        elif method == "get":
            if args[0] is WorkPool:
                (self._read_for_limit if task in self._reads_limit else self._read_pool)[task] = now
            self._reads_limit.discard(task)
        elif method == "waiting" and not options.get("after") and "queue" not in options:
            self.began[task] = self._read_pool.get(task, now)
            if self.reads_once:  # It may have been given what was read for the limit.
                self.began[task] = min(self.began[task], self._read_for_limit.get(task, now))

    def answered(self, method: str) -> None:
        """What a handler asked is done."""
        if method in CATALOGUE:
            self.changed_at = self.engine.now

    # -- writes

    def written(self, before: FlowRun | None, after: FlowRun, *, counting: bool) -> None:
        """See to the slots that a write takes, and whom it overtakes."""
        old, new = set(before.slots if before else ()), set(after.slots)
        for scope in sorted(new - old):
            limit = self.store.limit_of(scope)
            if not counting and limit.slots is not None and limit.taken > limit.slots:
                why = f"{limit.taken} hold slots of {scope}, which has {limit.slots}"
                self.checks._violate("no admission at the limit", why, after.id)
        if after.phase is Phase.WAITING and (before is None or before.phase is not Phase.WAITING):
            self._parked_at[after.id] = self.engine.now
        if before is not None and before.phase is Phase.WAITING and after.phase is Phase.READY:
            self._in_order(after)
        if old - new:
            self.changed_at = self.engine.now

    def _in_order(self, run: FlowRun) -> None:
        task = self.engine.current
        began = self.began.get(task) if task is not None else None
        if began is None or self.changed_at >= began:
            return  # What fits has changed since it began.
        self._known.clear()
        mine = self._place(run)
        pool = self._pool()
        if pool is not None and pool.is_paused:
            self.checks._violate("no admission while paused", "it was admitted in a paused pool", run.id)
        for other in self.checks.runs.values():
            if other.phase is not Phase.WAITING or other.work_pool != run.work_pool or self._place(other) >= mine:
                continue
            if self._parked_at[other.id] < began and self._fits(other):
                name = other.deployment
                self.checks._violate("in order", f"a later run than {other.id} of {name} was admitted", run.id)

    def _read(self, method: str, *args: Any) -> Any:
        """Ask the ledger, at most once between two moments at which it is looked at."""
        where = (method, *args)
        if where not in self._known:
            self._known[where] = getattr(self.store, method)(*args)
        return self._known[where]

    def _pool(self) -> WorkPool | None:
        pool: WorkPool | None = self._read("get", WorkPool, POOL)
        return pool

    def _queue(self, run: FlowRun) -> WorkQueue | None:
        queue: WorkQueue | None = self._read("get", WorkQueue, f"{run.work_pool}/{run.work_queue}")
        return queue

    def _place(self, run: FlowRun) -> Any:
        queue = self._queue(run)
        return (queue.priority if queue else 1 << 20, run.scheduled_time, str(run.id))

    def _fits(self, run: FlowRun) -> bool:
        """Whether a waiting run could be admitted now: its lane is open, and all it needs is free."""
        pool, queue = self._pool(), self._queue(run)
        deployment = self._read("find", Deployment, run.deployment_id) if run.deployment_id else None
        if pool is None or queue is None or pool.is_paused or queue.is_paused:
            return False
        needed = [
            (f"POOL#{pool.name}", pool.concurrency_limit),
            (f"QUEUE#{pool.name}/{queue.name}", queue.concurrency_limit),
        ]
        if deployment is not None:
            needed.append((f"DEP#{deployment.id}", deployment.concurrency_limit))
            if run.schedule is not None and run.schedule.overlap != "allow":
                needed.append((f"DEP#{deployment.id}#OVERLAP", 1))
        return all(
            limit is None or scope in run.slots or len(self._read("slots", scope)[1]) < limit for scope, limit in needed
        )

    # -- jobs

    def job_started(self, run: FlowRun | None) -> None:
        """Runs of a schedule that may not overlap do not."""
        if run is None or run.schedule is None or run.schedule.overlap == "allow":
            return
        for other in self.checks.runs.values():
            is_like = other.schedule is not None and other.schedule.overlap != "allow"
            if other.id != run.id and other.deployment_id == run.deployment_id and is_like:
                running = self.checks.cloud.running_of(other.id)
                if running and not other.is_final:
                    self.checks._violate("no overlap", f"{other.id} of its deployment still runs", run.id)

    # -- from time to time

    def look_around(self) -> None:
        """Slots are those that runs hold, and who waits has a reason."""
        self._known.clear()
        held: dict[str, set[UUID]] = {}
        unsettled = self.checks.unsettled()
        for run in unsettled:
            for scope in run.slots:
                held.setdefault(scope, set()).add(run.id)
        for scope, runs in held.items():
            items = self._read("slots", scope)[1]
            if items != runs or self._read("limit_of", scope).taken != len(items):
                self.checks._violate("slots are what runs hold", f"{scope} has {len(items)}, runs {len(runs)}", None)
        now = self.engine.now
        for run in unsettled:
            if run.phase is not Phase.WAITING or not self._fits(run) or self._is_behind(run):
                self._fits_since.pop(run.id, None)
                continue
            since = self._fits_since.setdefault(run.id, now)
            watch = self.checks.watches[run.id]
            late = now - max(since, self.checks.down_until)
            if late > 120.0 + watch.allowed + 5.0:
                self.checks._violate("no limbo", f"waits for {late:.0f} s though all it needs is free", run.id)

    def _is_behind(self, run: FlowRun) -> bool:
        """Whether somebody better waits for a slot that this one needs too."""
        mine = self._place(run)
        return any(
            other.phase is Phase.WAITING and self._place(other) < mine and self._fits(other)
            for other in self.checks.unsettled()
        )


def cool_down(app: App) -> None:
    """Open every lane, and end every schedule, so that the story can end."""
    now = app.clock.now()
    for deployment in app.store.list(Deployment):
        if deployment.schedules:
            ended = tuple(each.model_copy(update={"active": False}) for each in deployment.schedules)
            app.store.put(deployment.model_copy(update={"schedules": ended, "planned_from": now + timedelta()}))
    resume_work_pool(app, POOL)
    for queue in QUEUES:
        resume_work_queue(app, POOL, queue)
