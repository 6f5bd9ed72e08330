"""Slots, priorities, pauses, limit changes, overlap, crashes, lost messages, cancels and passing time.

After every step: no run was admitted while a scope was at its limit, slot items are what the runs' records say, no run
was admitted by a decision that began after a better one that fits was parked, and every unfinished run has somebody
who looks. Whenever all messages are handled, nobody waits who fits. At the end every run is final and every slot free.
"""

from __future__ import annotations

import contextlib
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from push_pools.domain import lanes
from push_pools.domain.deployments import Deployment
from push_pools.domain.errors import NotAllowed, PlatformUnavailable
from push_pools.domain.events import hint
from push_pools.domain.pools import WorkQueue
from push_pools.domain.runs import FlowRun, Phase, RetryPolicy
from push_pools.domain.states import FailureClass
from push_pools.domain.values import MOST_PRIORITY
from push_pools.services import admit as admission
from push_pools.services import catalogue, limits
from push_pools.services.admit import lane_of
from push_pools.services.records import change_record
from push_pools.services.stop import cancel_run
from push_pools.sqlite_file import SqliteFile
from push_pools.stores.memory import MemoryStore
from push_pools.stores.sqlite import SqliteStore
from tests.world import World

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from push_pools.domain.lanes import Lane
    from push_pools.ports import Store

BUSY = (Phase.CLAIMED, Phase.CALLING, Phase.STARTED, Phase.STOPPING)
DEPLOYMENTS = ["report/plain", "report/urgent", "report/narrow", "report/patient"]
POLICIES = ["skip", "buffer_one", "cancel_other"]
MEANWHILE = ["deliver", "limit", "cancel", "end", "pause"]
LIMITS = st.sampled_from([None, 0, 1, 1, 2, 3])
Where = Literal["pool", "default", "urgent", "narrow", "plain"]
WHERE = st.sampled_from(["pool", "default", "urgent", "narrow", "plain"])


class LanesWorld(World):
    """A world in which something else may happen at a port call of a handler, and every admission is judged."""

    def __init__(self, store: Store) -> None:
        self.meanwhile: tuple[int, Callable[[], None]] | None = None
        self.disturbed = False
        """Whether something else happened during the handler that runs: then only the store's own rules are sure."""
        self.wrong: list[str] = []
        self.decisions: list[set[UUID]] = []
        """For each decision under way: who waited, and fitted, when it began."""
        self._busy: dict[str, set[UUID]] | None = None
        """Who is active, by scope, while something is judged."""
        super().__init__(store=store)
        self._save, self._put_run = store.save, store.put_run
        store.save, store.put_run = self._judged_save, self._noticed_put  # type: ignore[method-assign]
        self._read: list[FlowRun] | None = None

    def runs(self) -> list[FlowRun]:
        """Return every run, read again only when one was written: every judgement asks."""
        if self._read is None:
            self._read = super().runs()
        return self._read

    def _noticed_put(self, run: FlowRun) -> FlowRun:
        self._read = None
        return self._put_run(run)

    def _at(self, place: str) -> None:
        super()._at(place)
        if self._in_handler and self.meanwhile is not None:
            left, act = self.meanwhile
            self.meanwhile = (left - 1, act)
            if left == 0:
                self.meanwhile, self.disturbed = None, True
                act()
                self._in_handler = True

    # -- judging

    def fits(self, run: FlowRun) -> bool:
        """Whether a waiting run could be admitted now."""
        lane = lane_of(run, self.app_quiet)
        if lanes.pause_of(lane) is not None:
            return False
        missing = [scope for scope in lanes.scopes(run, lane) if scope not in run.slots]
        return not any(self._is_full(scope, lane) for scope in missing)

    def _is_full(self, scope: str, lane: Lane) -> bool:
        if self.store.lists_lag and self.store.limit_of(scope).is_counting:
            return True  # Those who were active before are counted later, when the lists are sure to show them.
        limit = 1 if lanes.is_overlap(scope) else _limit(scope, lane)
        return limit is not None and len(self.busy_in(scope)) >= limit

    def busy_in(self, scope: str) -> set[UUID]:
        """Return who is active in a scope, with a slot or without."""
        if self._busy is not None and scope in self._busy:
            return self._busy[scope]
        busy = set(self.store.slots(scope)[1])
        if not lanes.is_overlap(scope):
            busy |= {run.id for run in self.runs() if run.phase in BUSY and scope in _all_scopes(run)}
        if self._busy is not None:
            self._busy[scope] = busy
        return busy

    @property
    def app_quiet(self) -> Any:
        """The app without its hooks."""
        return _Quiet(self.store)

    def began(self) -> None:
        self._busy = {}  # Nothing changes meanwhile, and each scope is asked about for every run that waits.
        try:
            self.decisions.append({run.id for run in self.runs() if run.phase is Phase.WAITING and self.fits(run)})
        finally:
            self._busy = None

    def _judged_save(self, before: FlowRun, after: FlowRun, *, counting: bool = False) -> FlowRun:
        stored = self.store.get_run(before.id)
        taken = [scope for scope in after.slots if scope not in stored.slots]
        if stored.version == before.version:
            if taken and not counting:
                self._judge_slots(before, taken)
            if before.phase is Phase.WAITING and after.phase is Phase.READY:
                self._judge_admission(before, after)
            if before.phase is Phase.CLAIMED and after.phase is Phase.CALLING:
                self._judge_call(before)
        try:
            return self._save(before, after, counting=counting)
        finally:
            self._read = None

    def _judge_slots(self, run: FlowRun, taken: list[str]) -> None:
        lane = lane_of(run, self.app_quiet)
        for scope in taken:
            limit = self.store.limit_of(scope)
            if limit.is_full:
                continue  # The store will refuse it.
            others = self.busy_in(scope) - {run.id}
            if limit.slots is not None and len(others) >= limit.slots:
                self.wrong.append(f"{run.name} takes {scope}, {len(others)} are active, the limit is {limit.slots}")
            if not self.disturbed and not lanes.is_overlap(scope):
                wanted = _limit(scope, lane)
                if wanted is not None and len(others) >= wanted:
                    self.wrong.append(
                        f"{run.name} takes {scope}, {len(others)} are active, the limit was made {wanted}"
                    )

    def _judge_admission(self, run: FlowRun, after: FlowRun) -> None:
        lane = lane_of(run, self.app_quiet)
        if self.disturbed:
            return
        if lanes.pause_of(lane) is not None:
            self.wrong.append(f"{run.name} is admitted while {lanes.pause_of(lane)}")
        if not set(lanes.scopes(run, lane)) <= set(after.slots):
            self.wrong.append(f"{run.name} is admitted without {lanes.scopes(run, lane)}")
        fitted = self.decisions[-1] if self.decisions else set()
        for other in self.runs():
            waits = other.id in fitted and other.phase is Phase.WAITING and self.fits(other)
            if waits and self._rank(other) < self._rank(run):
                self.wrong.append(f"{run.name} is admitted before {other.name}, which fits and is served first")

    def _rank(self, run: FlowRun) -> Any:
        queue = self.store.get(WorkQueue, f"{run.work_pool}/{run.work_queue}")
        return (queue.priority if queue else MOST_PRIORITY, lanes.order(run))

    def _judge_call(self, run: FlowRun) -> None:
        """A call is made with a slot in every scope, or the run will be counted there."""
        lane = lane_of(run, self.app_quiet)
        for scope in lanes.scopes(run, lane):
            limit = self.store.limit_of(scope)
            record = {"POOL": lane.pool, "QUEUE": lane.queue}.get(scope.partition("#")[0], lane.deployment)
            counted = not limit.is_counting and limit.source == lanes.limit_source(record)
            if scope not in run.slots and (counted or lanes.is_overlap(scope)):
                self.wrong.append(f"{run.name} makes its call without a slot in {scope}")


class _Quiet:
    def __init__(self, store: Store) -> None:
        self.store = store


def _limit(scope: str, lane: Lane) -> int | None:
    record = {"POOL": lane.pool, "QUEUE": lane.queue}.get(scope.partition("#")[0], lane.deployment)
    return record.concurrency_limit if record is not None else None


def _all_scopes(run: FlowRun) -> set[str]:
    scopes = {lanes.pool_scope(run.work_pool), lanes.queue_scope(run.work_pool, run.work_queue)}
    return scopes | ({lanes.deployment_scope(run.deployment_id)} if run.deployment_id else set())


class Lanes(RuleBasedStateMachine):
    """Runs of four deployments, and of schedules with every policy, in two queues of one pool."""

    runs: Bundle[FlowRun] = Bundle("runs")
    on_sqlite: ClassVar[bool] = False

    def __init__(self) -> None:
        super().__init__()
        self.file = SqliteFile(":memory:") if self.on_sqlite else None
        self.world = LanesWorld(SqliteStore(self.file) if self.file else self.ledger())
        self.app = self.world.app
        stamps = {"created_at": self.world.clock.now(), "updated_at": self.world.clock.now()}
        self.world.store.put(WorkQueue(id=self.world.new_id(), work_pool="local", name="urgent", priority=2, **stamps))
        stubborn = RetryPolicy(attempts=3, on=tuple(FailureClass), backoff_seconds=5)
        self.world.deploy("plain", retries=stubborn)
        self.world.deploy("urgent", work_queue="urgent", retries=stubborn)
        self.world.deploy("narrow", concurrency_limit=1, retries=stubborn)
        self.world.deploy("patient", max_wait_seconds=120, work_queue="urgent")
        self.scheduled = self.world.deploy("scheduled", retries=stubborn)
        self.lossless = True
        self.faults = True
        self.give = admission._Admission.give
        admission._Admission.give = self._give()  # type: ignore[method-assign]

    def _give(self) -> Any:
        world, give = self.world, self.give

        def began_and_given(decision: Any) -> int:
            world.began()
            try:
                return give(decision)
            finally:
                world.decisions.pop()

        return began_and_given

    # -- what happens

    def ledger(self) -> Store:
        """Return the ledger, where it is no file."""
        return MemoryStore()

    @initialize(slots=LIMITS, faults=st.booleans())
    def begin(self, slots: int | None, faults: bool) -> None:
        """In half of the stories nothing is lost and nobody dies: there, no tick is needed."""
        self.faults = faults
        self._set_limit("pool", slots)

    @rule(target=runs, name=st.sampled_from(DEPLOYMENTS), delay=st.sampled_from([0, 0, 0, 20]), count=st.integers(1, 4))
    def trigger(self, name: str, delay: int, count: int) -> Any:
        due = self.world.clock.now() + timedelta(seconds=delay)
        return multiple(*[self.world.trigger(name, scheduled_time=due) for _ in range(count)])

    @rule(
        target=runs, policy=st.sampled_from(["skip", "buffer_one", "cancel_other"]), delay=st.sampled_from([0, 5, 20])
    )
    def fire(self, policy: str, delay: int) -> FlowRun:
        """A schedule with an overlap policy fires, all of one deployment."""
        return self.world.fire(policy, after=delay, deployment=self.scheduled)

    def _guarded(self, act: Callable[[], object]) -> None:
        self.world.disturbed = False
        self.world._guarded(act)

    @rule()
    def deliver(self) -> None:
        self.world.disturbed = False
        self.world.deliver()

    @rule(after=st.integers(0, 30))
    def deliver_and_die(self, after: int) -> None:
        if not self.faults:
            return
        self.world.crash_at, self.lossless, self.world.disturbed = after, False, False
        self.world.deliver()
        self.world.crash_at = None

    @rule(
        after=st.integers(0, 25), data=st.data(), what=st.sampled_from(["deliver", "limit", "cancel", "end", "pause"])
    )
    def deliver_and_meanwhile(self, after: int, what: str, data: st.DataObject) -> None:
        """While a handler is between two of its port calls, somebody else acts."""
        where, slots = data.draw(WHERE), data.draw(LIMITS)
        everybody = self.world.runs()
        run = everybody[data.draw(st.integers(0, 40)) % len(everybody)] if everybody else None

        def act() -> None:
            match what:
                case "deliver":
                    self.world.deliver()
                case "limit":
                    self._set_limit(where, slots)
                    admission.admit("local", self.app)  # Which counts it, too.
                case "cancel" if run is not None:
                    with contextlib.suppress(NotAllowed):
                        cancel_run(run.id, self.app, by="ann")
                case "end":
                    for job in self.world.cloud.running()[:1]:
                        self.world.cloud.finish(job.key)
                    self.world.sweep()
                case _:
                    self._pause(where, paused=slots == 1)

        self.world.meanwhile, self.world.disturbed = (after, act), False
        self.world.deliver()
        self.world.meanwhile = None

    @rule()
    def lose(self) -> None:
        """A message is lost."""
        if not self.faults:
            return
        self.lossless = False
        for delivery in self.world.queue.receive(1, 90.0):
            self.world.queue.ack(delivery)

    @rule(run=runs)
    def duplicate(self, run: FlowRun) -> None:
        self.world.queue.send(hint("submit", run.id))
        self.deliver()

    @rule(run=runs)
    def cancel(self, run: FlowRun) -> None:
        with contextlib.suppress(NotAllowed):
            cancel_run(run.id, self.app, by="ann")

    @rule(number=st.integers(0, 20), fails=st.booleans())
    def job_ends(self, number: int, fails: bool) -> None:
        if jobs := self.world.cloud.running():
            self.world.cloud.finish(jobs[number % len(jobs)].key, 3 if fails else 0)
            self.world.disturbed = False
            self.world.sweep()

    @rule(number=st.integers(0, 20), fails=st.booleans())
    def job_ends_and_drain(self, number: int, fails: bool) -> None:
        self.job_ends(number, fails)
        self.drain()

    @rule()
    def throttled(self) -> None:
        self.world.cloud.fail("submit", PlatformUnavailable("fake", "throttled"))

    # -- what users change

    @rule(where=WHERE, slots=LIMITS)
    def set_limit(self, where: Where, slots: int | None) -> None:
        self._guarded(lambda: self._set_limit(where, slots))

    @rule(where=WHERE, slots=LIMITS, after=st.integers(0, 8))
    def set_limit_and_die(self, where: Where, slots: int | None, after: int) -> None:
        if not self.faults:
            return
        self.world.crash_at, self.lossless = after, False
        self._guarded(lambda: self._set_limit(where, slots))
        self.world.crash_at = None

    def _set_limit(self, where: str, slots: int | None) -> None:
        match where:
            case "pool":
                catalogue.update_work_pool(self.app, "local", concurrency_limit=slots)
            case "default" | "urgent":
                catalogue.update_work_queue(self.app, "local", where, concurrency_limit=slots)
            case _:
                record = change_record(
                    self.app,
                    "deployment",
                    lambda: catalogue.find_deployment(self.app, where),
                    lambda d: lanes.with_epoch(d, d.model_copy(update={"concurrency_limit": slots})),
                    managed_by=None,
                )
                limits.sync_limit(self.app, record)

    @rule(where=st.sampled_from(["pool", "default", "urgent"]), paused=st.booleans())
    def pause(self, where: str, paused: bool) -> None:
        self._guarded(lambda: self._pause(where, paused=paused))

    def _pause(self, where: str, *, paused: bool) -> None:
        if where == "pool":
            if paused:
                catalogue.pause_work_pool(self.app, "local")
            else:
                catalogue.resume_work_pool(self.app, "local")
        elif where in ("default", "urgent"):
            if paused:
                catalogue.pause_work_queue(self.app, "local", where)
            else:
                catalogue.resume_work_queue(self.app, "local", where)

    @rule(priority=st.integers(1, 3))
    def set_priority(self, priority: int) -> None:
        self._guarded(lambda: catalogue.update_work_queue(self.app, "local", "urgent", priority=priority))

    # -- time

    @rule(seconds=st.sampled_from([1, 5, 20, 40, 100]))
    def wait(self, seconds: int) -> None:
        self.world.advance(seconds)

    @rule()
    def pass_time(self) -> None:
        self.world.disturbed = False
        self.world.pass_time(20)
        self.drain()

    @rule()
    def tick_and_drain(self) -> None:
        """A tick makes every lost message good: afterwards nobody waits who fits."""
        self.world.disturbed = False
        self.world.tick()
        self.world.drain()
        self._nobody_waits_who_fits()

    @rule()
    def drain(self) -> None:
        """As long as nothing was lost and nobody died, that needs no tick."""
        self.world.disturbed = False
        self.world.drain()
        if self.lossless:
            self._nobody_waits_who_fits()

    def _nobody_waits_who_fits(self) -> None:
        assert not [run.name for run in self.world.runs() if run.phase is Phase.WAITING and self.world.fits(run)]

    # -- what always holds

    @invariant()
    def nothing_was_judged_wrong(self) -> None:
        assert not self.world.wrong

    @invariant()
    def slot_items_are_what_the_records_say(self) -> None:
        everybody = self.world.runs()
        for scope in self._scopes():
            held = {run.id for run in everybody if scope in run.slots}
            assert self.world.store.slots(scope)[1] == held, scope
            assert self.world.store.limit_of(scope).taken == len(held), scope

    def _scopes(self) -> set[str]:
        deployments = self.world.store.list(Deployment)
        scopes = {lanes.pool_scope("local"), *(lanes.queue_scope("local", q) for q in ("default", "urgent"))}
        for make in (lanes.deployment_scope, lanes.overlap_scope, lanes.next_scope):
            scopes |= {make(each.id) for each in deployments}
        return scopes | {scope for run in self.world.runs() for scope in run.slots}

    @invariant()
    def every_unfinished_run_has_somebody_who_looks(self) -> None:
        for run in self.world.runs():
            assert run.wake_at is not None or run.waits_at is not None or run.phase is Phase.SETTLED
            assert (run.waits_at is not None) == (run.phase is Phase.WAITING)

    @invariant()
    def final_runs_hold_nothing(self) -> None:
        assert not [run for run in self.world.runs() if run.is_final and run.slots]

    @invariant()
    def slots_end_with_the_attempt(self) -> None:
        """A run that waits, for its time or for a slot, holds nothing but its place among its deployment's runs."""
        for run in self.world.runs():
            if run.phase in (Phase.PLANNED, Phase.WAITING):
                assert all(map(lanes.is_overlap, run.slots))

    @invariant()
    def overlap_holds_until_the_run_is_final(self) -> None:
        for run in self.world.runs():
            if run.attempt > 1 and not run.is_final and (scope := lanes.overlap_of(run)) is not None:
                assert scope in run.slots

    @invariant()
    def of_scheduled_runs_one_is_active(self) -> None:
        assert sum(run.schedule is not None and run.phase in BUSY for run in self.world.runs()) <= 1

    @invariant()
    def a_newer_run_is_not_cancelled_by_an_older(self) -> None:
        scheduled = [run for run in self.world.runs() if run.schedule is not None]
        for run in scheduled:
            if run.cancel is not None and run.cancel.by != "ann":
                assert lanes.order(run) < max(map(lanes.order, scheduled))

    def teardown(self) -> None:
        """Trouble stops, lanes open, time goes on: every run ends, and every slot is free."""
        try:
            self._end()
        finally:
            admission._Admission.give = self.give  # type: ignore[method-assign]
            if self.file is not None:
                self.file.close()

    def _end(self) -> None:
        self.world.cloud.faults.clear()
        for where in ("pool", "default", "urgent"):
            self._pause(where, paused=False)
        for where in ("pool", "default", "urgent", "narrow", "plain"):
            self._set_limit(where, 1)
        self.world.disturbed = False
        self.world.settle()
        self.nothing_was_judged_wrong()
        assert not [scope for scope in self._scopes() if self.world.store.slots(scope)[1]]


def tell_stories(*, on_sqlite: bool, stories: int) -> None:
    machine = type("LanesHere", (Lanes,), {"on_sqlite": on_sqlite})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=stories, stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


def test_lanes() -> None:
    """Random stories over the ledger in memory."""
    tell_stories(on_sqlite=False, stories=150)


def test_lanes_on_sqlite() -> None:
    """And over the ledger in a file's format."""
    tell_stories(on_sqlite=True, stories=30)


@pytest.mark.prove
@pytest.mark.timeout(3300)
def test_lanes_at_length() -> None:
    """Thousands of stories."""
    tell_stories(on_sqlite=False, stories=4000)
