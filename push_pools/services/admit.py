"""Park runs that need slots, and give free slots to those that wait, in order.

A newcomer parks first and takes nothing itself. Whoever changed something (arrival, finish, retry, resume, another
limit, the tick) admits: it reads who waits and gives what is free. So a freed slot never waits for somebody who was
told that there is none, and nobody is overtaken by a run that came later and is served later.
"""

from __future__ import annotations

import contextlib
import heapq
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from push_pools.domain import lanes
from push_pools.domain.deployments import Deployment
from push_pools.domain.errors import NotAllowed, ScopeFull, StoreUnavailable
from push_pools.domain.lanes import Lane, Overlapping
from push_pools.domain.pools import WorkPool, WorkQueue
from push_pools.domain.runs import FlowRun, Phase
from push_pools.domain.values import MOST_PRIORITY
from push_pools.services.chores import chores_of, follow_up
from push_pools.services.ledger import change, log, send_hint, send_hint_at
from push_pools.services.limits import ask_to_admit, count_active, current_limit
from push_pools.services.stop import cancel_run

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from push_pools.ports import App, Limit

MOST_GIVEN: Final = 25
"""Most runs admitted in one go; a message to itself goes on."""
FIRST_PAGE, PAGE = 10, 100
"""How many waiting runs are read at first, and then: mostly one slot is free, and the first in line fits."""
MAX_TRIES: Final = 5
"""How often a run is parked anew because another of its deployment came or went meanwhile."""


def lane_of(run: FlowRun, app: App) -> Lane:
    """Return what the catalogue says now of the way a run takes."""
    store = app.store
    return Lane(
        pool=store.get(WorkPool, run.work_pool),
        queue=store.get(WorkQueue, f"{run.work_pool}/{run.work_queue}"),
        deployment=store.find(Deployment, run.deployment_id) if run.deployment_id else None,
    )


def is_limited(run: FlowRun, app: App) -> bool:
    """Whether a run has to park before it is claimed. Unlimited runs touch nothing that others touch."""
    return lanes.is_limited(run, lane_of(run, app))


# -- parking -------------------------------------------------------------------


def park_run(run: FlowRun, app: App, *, fence: int | None = None) -> FlowRun:
    """Park a run that is due and limited, decide its overlap, and admit whoever fits, itself perhaps among them.

    With a fence, the run was claimed before it was known to be limited, and nothing was called under the claim.
    Return the run as it was parked; it is still claimed if it is not limited any more.

    Raises:
        ClaimLost: The claim is not mine any more.
        StoreUnavailable: The ledger cannot be read or written.
    """
    run = _parked(run, app, fence)
    if run.phase is Phase.WAITING:
        run, _ = _look_at(run, app)
    if run.phase is Phase.WAITING and run.wake_at is not None:
        send_hint_at(app, run, run.wake_at)
    elif run.phase in (Phase.PLANNED, Phase.READY):
        send_hint(app, run)  # Not limited any more.
    admit(run.work_pool, app)
    return run


def _parked(run: FlowRun, app: App, fence: int | None) -> FlowRun:
    """Return the run as parked; as skipped, if another of its deployment waits already and its policy says so."""
    if lanes.overlap_of(run) is not None and run.deployment_id is not None:
        current_limit(app, lanes.next_scope(run.deployment_id))
    for _ in range(MAX_TRIES):
        try:
            return change(app, run, partial(_park, app=app, fence=fence))
        except ScopeFull as full:
            run = app.store.get_run(run.id)
            other = _holder(full.scope, run, app)
            if other is None:
                continue  # It is gone.
            if lanes.on_overlap(run, other) is not Overlapping.CANCEL_OTHER:
                return _skip(run, lanes.why_skipped(run, other), app, fence)
            _cancel(other, run, app)
    raise StoreUnavailable(f"flow run {run.id} cannot be parked: others of its deployment come and go")


def _park(run: FlowRun, *, app: App, fence: int | None) -> FlowRun:
    lane, moment = lane_of(run, app), app.moment()
    if run.due_at > moment.now and run.phase is Phase.PLANNED and fence is None:
        early = (run.due_at - moment.now).total_seconds()
        if early > app.timing.early_seconds:
            return run  # It moved on meanwhile, to its next attempt.
    if run.phase is Phase.WAITING:
        return lanes.patient(run, lane) if lanes.patient(run, lane) != run else run
    if not lanes.is_limited(run, lane):
        return run
    return lanes.park(_given_back(run, fence), lane, _why(run, lane, app), moment)


def _given_back(run: FlowRun, fence: int | None) -> FlowRun:
    return run if fence is None else lanes.give_back(run, fence)


def _skip(run: FlowRun, why: str, app: App, fence: int | None = None) -> FlowRun:
    chores = chores_of(app)

    def decide(stored: FlowRun) -> FlowRun:
        moment = app.moment()
        if stored.is_final:
            return stored
        return lanes.skip(_given_back(stored, fence), why, moment, chores(stored, moment.now))

    run = change(app, run, decide)
    if run.is_final:
        follow_up(run, app)
    return run


def _look_at(run: FlowRun, app: App) -> tuple[FlowRun, bool]:
    """Return a waiting run as it is after its patience and its overlap policy were asked, and whether it may go on."""
    lane = lane_of(run, app)
    if lanes.waited_too_long(run, lane, app.clock.now()):
        assert lane.deployment is not None
        why = f"it waited for a slot for longer than max_wait_seconds ({lane.deployment.max_wait_seconds:g} s)"
        return _skip(run, why, app), False
    scope = lanes.overlap_of(run)
    if scope is None or scope in run.slots:
        return run, True
    current_limit(app, scope)
    other = _holder(scope, run, app)
    if other is None:
        return run, True
    match lanes.on_overlap(run, other):
        case Overlapping.SKIP:
            return _skip(run, lanes.why_skipped(run, other), app), False
        case Overlapping.CANCEL_OTHER if other.cancel is None:
            _cancel(other, run, app)
            return run, False  # It waits until the other is over, which then wakes it.
    return run, False


def _holder(scope: str, run: FlowRun, app: App) -> FlowRun | None:
    """Return the other run that holds a scope of one slot."""
    for id_ in app.store.slots(scope)[1] - {run.id}:
        other = app.store.get_run(id_)
        if not other.is_final and scope in other.slots:
            return other
    return None


def _cancel(other: FlowRun, run: FlowRun, app: App) -> None:
    with contextlib.suppress(NotAllowed):  # It is over.
        cancel_run(other.id, app, by="overlap cancel_other", reason=f"{run.name!r} is due")


# -- admitting -----------------------------------------------------------------


def admit(work_pool: str, app: App) -> int:
    """Give the free slots of a pool to the runs that wait for them, in order; return how many were admitted.

    Repeatable, and harmless when nothing is free. No run is admitted by a decision that began after a better one
    that fits was parked.

    Raises:
        StoreUnavailable: The ledger cannot be read or written; whoever admits next goes on.
    """
    return _Admission(work_pool, app).give()


class _Admission:
    """One decision: what is full, or closed, in it stays so until its end."""

    def __init__(self, work_pool: str, app: App) -> None:
        self.app, self.name, self.given = app, work_pool, 0
        self.pool = app.store.get(WorkPool, work_pool)
        self.limits: dict[str, Limit] = {}
        self.full: set[str] = set()
        """Scopes that were found full only when a slot was to be taken."""
        self.queues: dict[str, WorkQueue | None] = {}

    def give(self) -> int:
        if not self._is_pool_open():
            return 0
        for run in self._waiters():
            self._consider(run)
            if not self._is_pool_open():
                break
            if self.given >= MOST_GIVEN:
                ask_to_admit(self.app, self.name)
                break
        if self.given:
            log.info("admitted", extra={"work_pool": self.name, "runs": self.given})
        return self.given

    # -- who waits

    def _waiters(self) -> Iterator[FlowRun]:
        """Yield who waits in an open queue, by the queue's priority, due time and id."""
        by_priority: dict[int, list[str]] = {}
        for name in self._queues_with_waiters():
            queue = self.queues[name] = self.app.store.get(WorkQueue, f"{self.name}/{name}")
            by_priority.setdefault(queue.priority if queue else MOST_PRIORITY + 1, []).append(name)
        for priority in sorted(by_priority):
            yield from heapq.merge(*map(self._in_queue, by_priority[priority]), key=lanes.order)

    def _queues_with_waiters(self) -> Iterator[str]:
        after = ""
        while first := self.app.store.waiting(self.name, after=after, limit=1):
            yield first[0].work_queue
            after = lanes.after_queue(first[0].work_queue)

    def _in_queue(self, name: str) -> Iterator[FlowRun]:
        after, size = "", FIRST_PAGE
        while self._is_queue_open(name):
            page = self.app.store.waiting(self.name, queue=name, after=after, limit=size)
            for run in page:
                if not self._is_queue_open(name):
                    return
                yield run
            if len(page) < size:
                return
            after, size = page[-1].waits_at or "", PAGE

    # -- what is open

    def _is_pool_open(self) -> bool:
        pool = self.pool
        if pool is None:
            return True  # It was deleted: its runs go on, and end with that reason.
        if pool.is_paused:
            return False
        return pool.concurrency_limit is None or not self._is_full(lanes.pool_scope(pool.name))

    def _is_queue_open(self, name: str) -> bool:
        queue = self.queues[name]
        if queue is None:
            return True
        if queue.is_paused:
            return False
        return queue.concurrency_limit is None or not self._is_full(lanes.queue_scope(self.name, name))

    def _is_full(self, scope: str) -> bool:
        if scope not in self.limits:
            limit = current_limit(self.app, scope)
            self.limits[scope] = count_active(self.app, limit, self.name) if limit.is_counting else limit
        return scope in self.full or self.limits[scope].is_full

    # -- one run

    def _consider(self, run: FlowRun) -> None:
        deployment = self.app.store.find(Deployment, run.deployment_id) if run.deployment_id else None
        needed = lanes.scopes(run, Lane(self.pool, self.queues[run.work_queue], deployment))
        run, may_go_on = _look_at(run, self.app)
        if not may_go_on:
            return
        missing = [scope for scope in needed if scope not in run.slots]
        if any(self._is_full(scope) for scope in missing if not lanes.is_overlap(scope)):
            return
        try:
            admitted = change(self.app, run, partial(self._take, needed=needed))
        except ScopeFull as full:
            self.full.add(full.scope)  # Others were faster, here or in another pool.
            return
        if admitted is run or admitted.phase is not Phase.READY:
            return  # It was cancelled, or somebody else admitted it.
        for scope in missing:
            if scope in self.limits:
                self.limits[scope] = replace(self.limits[scope], taken=self.limits[scope].taken + 1)
        self.given += 1
        send_hint(self.app, admitted)

    def _take(self, run: FlowRun, *, needed: Sequence[str]) -> FlowRun:
        return lanes.take_slots(run, needed, self.app.moment())


# -- telling -------------------------------------------------------------------


def why_waiting(run: FlowRun, app: App) -> str | None:
    """Return what a parked run waits for now; nothing for other runs."""
    if run.phase is not Phase.WAITING:
        return None
    return _why(run, lane_of(run, app), app) or "its turn: slots are given in order"


def _why(run: FlowRun, lane: Lane, app: App) -> str:
    if (pause := lanes.pause_of(lane)) is not None:
        return pause
    for scope in lanes.scopes(run, lane):
        if scope in run.slots:
            continue
        if lanes.is_overlap(scope):
            if (other := _holder(scope, run, app)) is not None:
                return f"{other.name!r} of the same deployment is not finished"
            continue
        limit = app.store.limit_of(scope)
        if limit.is_counting:
            return f"{_named(scope, lane)} has a new limit, and the runs that were active before are counted first"
        if limit.is_full:
            return f"{_named(scope, lane)} is at its limit {limit.slots}"
    return ""


def _named(scope: str, lane: Lane) -> str:
    kind = scope.partition("#")[0]
    word, record = {"POOL": ("work pool", lane.pool), "QUEUE": ("work queue", lane.queue)}.get(
        kind, ("deployment", lane.deployment)
    )
    return f"{word} {record.key!r}" if record is not None else scope
