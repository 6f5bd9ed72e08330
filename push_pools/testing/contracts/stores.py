"""What every ledger and every queue promises, as tests: subclass, give the fixture, and run them with pytest."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import pytest

from push_pools.domain.errors import NotFound, ScopeFull, VersionConflict
from push_pools.domain.pace import Rate
from push_pools.domain.pools import Variable, WorkPool
from push_pools.domain.runs import Chore, ChoreKind, Claim, FlowRun, Job, JobHandle, Phase
from push_pools.domain.states import State
from push_pools.ports import Limit, RunFilter
from push_pools.testing.clocks import START, ManualClock

if TYPE_CHECKING:
    from collections.abc import Callable

    from push_pools.ports import LocalQueue, Store


def a_run(**changes: object) -> FlowRun:
    """Return a planned run; `changes` are its fields."""
    values: dict[str, object] = {
        "id": uuid4(),
        "name": "run",
        "created_at": START,
        "work_pool": "local",
        "platform": "fake",
        "scheduled_time": START,
        "state": State.of("Scheduled", START),
        "due_at": START,
        "wake_at": START,
    }
    return FlowRun.model_validate({**values, **changes})


def a_job(key: str = "pp-a", pid: str | None = None) -> Job:
    """Return a job with an intent."""
    handle = JobHandle(key=key, platform="fake", pid=pid, place={"region": "eu"})
    return Job(handle=handle, request={"command": ["true"]}, intent_at=START, call_until=START)


def set_limit(store: Store, scope: str, slots: int | None, **changes: object) -> Limit:
    """Write a limit over the one that is there."""
    return store.put_limit(replace(store.limit_of(scope), slots=slots, **changes))  # type: ignore[arg-type] # Fields by name.


class StoreContract:
    """The promises of `ports.Store`."""

    @pytest.fixture
    def store(self) -> Store:
        """Return an empty ledger."""
        raise NotImplementedError

    # -- runs

    def test_the_first_put_wins(self, store: Store) -> None:
        """A run is put once; a second put returns the first run, unchanged."""
        run = a_run(parameters={"n": 1})
        first = store.put_run(run)
        again = store.put_run(run.evolve(parameters={"n": 2}))
        assert first.version == 1
        assert again == first

    def test_many_runs_are_put_at_once_and_the_known_ones_returned(self, store: Store) -> None:
        """New ones are as after `put_run`; what was there stays, and is returned as it is stored."""
        known = store.put_run(a_run(parameters={"n": 1}))
        fresh = [a_run() for _ in range(3)]
        found = store.put_runs([fresh[0], known.evolve(parameters={"n": 2}), *fresh[1:]])
        assert found == {known.id: known}
        assert [store.get_run(run.id).version for run in fresh] == [1, 1, 1]
        assert set(store.put_runs(fresh)) == {run.id for run in fresh}
        assert store.put_runs([]) == {}

    def test_of_many_puts_at_once_one_wins(self, store: Store) -> None:
        """Eight writers of one id all get the same run."""
        id_ = uuid4()
        with ThreadPoolExecutor(8) as pool:
            got = list(pool.map(lambda n: store.put_run(a_run(id=id_, parameters={"n": n})), range(8)))
        assert len({run.parameters["n"] for run in got}) == 1

    def test_an_unknown_run_is_not_found(self, store: Store) -> None:
        """Reading what was never put says so."""
        with pytest.raises(NotFound):
            store.get_run(UUID(int=7))

    def test_a_run_comes_back_as_it_was_written(self, store: Store) -> None:
        """Every field survives, with the next version."""
        run = store.put_run(a_run(parameters={"a": [1, {"b": None}]}, tags=("x",), job_variables={"env": {"A": "ä"}}))
        handle = JobHandle(key="pp-a", platform="fake", pid="1", run_id=run.id)
        after = run.evolve(
            phase=Phase.STARTED,
            claim=Claim(owner="me", fence=1, until=START),
            job=a_job().model_copy(update={"handle": handle}),
            chores=(Chore(kind=ChoreKind.CLEANUP, not_before=START, since=START, handle=handle),),
        ).noted(START, "submitted", pid="1", codes=["a"])
        saved = store.save(run, after)
        assert saved.version == 2
        assert store.get_run(run.id).model_dump_json() == saved.model_dump_json()

    def test_fields_of_a_newer_release_are_kept(self, store: Store) -> None:
        """An older binary writes back what it does not know."""
        run = store.put_run(FlowRun.model_validate({**a_run().model_dump(), "invented_later": {"x": 1}}))
        store.save(run, run.evolve(name="other"))
        assert store.get_run(run.id).model_dump()["invented_later"] == {"x": 1}

    def test_a_write_over_an_older_version_is_refused(self, store: Store) -> None:
        """Somebody else wrote first; nothing is changed."""
        run = store.put_run(a_run())
        store.save(run, run.evolve(name="mine"))
        with pytest.raises(VersionConflict):
            store.save(run, run.evolve(name="too late"))
        assert store.get_run(run.id).name == "mine"

    def test_a_write_whose_effect_is_there_has_succeeded(self, store: Store) -> None:
        """A repeated write after a lost answer finds itself."""
        run = store.put_run(a_run())
        first = store.save(run, run.evolve(name="mine"))
        assert store.save(run, run.evolve(name="mine")) == first

    def test_of_many_writers_one_wins(self, store: Store) -> None:
        """Eight writes over one version: one is kept, seven are refused."""
        run, won = store.put_run(a_run()), []

        def write(n: int) -> None:
            with contextlib.suppress(VersionConflict):
                won.append(store.save(run, run.evolve(name=f"writer {n}")).name)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(write, range(8)))
        assert won == [store.get_run(run.id).name]

    # -- hints

    def test_due_runs_come_earliest_first(self, store: Store) -> None:
        """Only runs whose wake-up is reached, in order; a run without one never."""
        late = store.put_run(a_run(wake_at=START + timedelta(seconds=5)))
        early = store.put_run(a_run(wake_at=START))
        store.put_run(a_run(wake_at=START + timedelta(seconds=99)))
        store.put_run(a_run(wake_at=None))
        due = store.due(START + timedelta(seconds=10))
        assert [run.id for run in due] == [early.id, late.id]
        assert [run.id for run in store.due(START + timedelta(seconds=10), limit=1)] == [early.id]
        assert [run.id for run in store.due(START + timedelta(seconds=10), after=START)] == [late.id]

    def test_active_runs_are_those_with_a_job(self, store: Store) -> None:
        """Started and stopping runs of that platform; nothing else."""
        started = store.put_run(a_run(phase=Phase.STARTED))
        stopping = store.put_run(a_run(phase=Phase.STOPPING))
        for phase in (Phase.PLANNED, Phase.CALLING, Phase.ENDED, Phase.SETTLED):
            store.put_run(a_run(phase=phase))
        store.put_run(a_run(phase=Phase.STARTED, platform="other"))
        assert {run.id for run in store.active("fake")} == {started.id, stopping.id}
        assert store.active_platforms() == {"fake", "other"}

    def test_a_run_leaves_the_indexes_with_its_write(self, store: Store) -> None:
        """Hints follow the record."""
        run = store.put_run(a_run(phase=Phase.STARTED))
        store.save(run, run.evolve(phase=Phase.SETTLED, wake_at=None))
        assert not store.active("fake")
        assert not store.due(START + timedelta(days=1))
        assert store.count_by_phase() == {Phase.SETTLED: 1}

    def test_waiters_come_in_their_order(self, store: Store) -> None:
        """Parked runs of one pool in the order of their places, and gone when they are not parked any more."""
        second = store.put_run(a_run(phase=Phase.WAITING, waits_at="default#2#a"))
        first = store.put_run(a_run(phase=Phase.WAITING, waits_at="default#1#b"))
        store.put_run(a_run(phase=Phase.WAITING, waits_at="default#0#c", work_pool="other"))
        assert [run.id for run in store.waiting("local")] == [first.id, second.id]
        assert store.waiting_pools() == {"local", "other"}
        store.save(first, first.evolve(phase=Phase.READY, waits_at=None))
        assert [run.id for run in store.waiting("local")] == [second.id]
        store.save(second, second.evolve(phase=Phase.READY, waits_at=None))
        assert store.waiting_pools() == {"other"}

    def test_waiters_are_read_by_queue_and_in_pages(self, store: Store) -> None:
        """A queue whose name begins like another's is another queue; a page continues after a place."""
        places = ["a#1#x", "a#2#y", "a#3#z", "a-b#0#x", "a.b#0#x", "aa#1#x"]
        runs = {
            at: store.put_run(a_run(phase=Phase.WAITING, waits_at=at, work_queue=at.partition("#")[0]))
            for at in reversed(places)
        }
        assert [run.waits_at for run in store.waiting("local")] == sorted(places)
        assert [run.id for run in store.waiting("local", queue="a")] == [runs[at].id for at in places[:3]]
        assert [run.waits_at for run in store.waiting("local", queue="a", after="a#1#x", limit=1)] == ["a#2#y"]
        assert [run.waits_at for run in store.waiting("local", after="a$", limit=2)] == ["a-b#0#x", "a.b#0#x"]
        assert not store.waiting("local", queue="b")
        assert not store.waiting("local", queue="a", after="a#3#z")

    # -- slots

    def test_a_slot_is_taken_and_freed_with_the_run(self, store: Store) -> None:
        """Slot items change only in the write of their run."""
        set_limit(store, "POOL#local", 1)
        run = store.put_run(a_run())
        held = store.save(run, run.evolve(slots=("POOL#local",)))
        assert store.slots("POOL#local") == (1, frozenset({run.id}))
        store.save(held, held.evolve(slots=()))
        assert store.slots("POOL#local") == (1, frozenset())

    def test_a_full_scope_refuses_and_changes_nothing(self, store: Store) -> None:
        """With one of two scopes full, neither slot is taken and the run is as before."""
        set_limit(store, "POOL#local", 5)
        set_limit(store, "QUEUE#local/q", 0)
        run = store.put_run(a_run())
        with pytest.raises(ScopeFull) as refused:
            store.save(run, run.evolve(slots=("POOL#local", "QUEUE#local/q"), phase=Phase.READY))
        assert refused.value.scope == "QUEUE#local/q"
        assert store.slots("POOL#local") == (5, frozenset())
        assert store.get_run(run.id) == run

    def test_a_limit_is_never_exceeded_at_once(self, store: Store) -> None:
        """Sixteen takers of three slots: three get one."""
        set_limit(store, "POOL#local", 3)
        runs = [store.put_run(a_run()) for _ in range(16)]

        def take(run: FlowRun) -> bool:
            try:
                store.save(run, run.evolve(slots=("POOL#local",)))
            except ScopeFull:
                return False
            return True

        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(take, runs)) == 3
        assert len(store.slots("POOL#local")[1]) == 3

    def test_a_lowered_limit_leaves_holders_alone(self, store: Store) -> None:
        """It drains: nobody is admitted while as many or more hold a slot. Without a limit everybody is."""
        set_limit(store, "POOL#local", 2)
        for _ in range(2):
            run = store.put_run(a_run())
            store.save(run, run.evolve(slots=("POOL#local",)))
        set_limit(store, "POOL#local", 1)
        late = store.put_run(a_run())
        with pytest.raises(ScopeFull):
            store.save(late, late.evolve(slots=("POOL#local",)))
        set_limit(store, "POOL#local", None)
        store.save(late, late.evolve(slots=("POOL#local",)))
        assert len(store.slots("POOL#local")[1]) == 3

    def test_a_scope_that_is_counted_gives_nothing_but_counts(self, store: Store) -> None:
        """Runs that were active before the limit get their slot, beyond it too; nobody else does until it is done."""
        set_limit(store, "POOL#local", 1, is_counting=True)
        active = [store.put_run(a_run(phase=Phase.STARTED)) for _ in range(2)]
        late = store.put_run(a_run())
        with pytest.raises(ScopeFull):
            store.save(late, late.evolve(slots=("POOL#local",)))
        held = [store.save(run, run.evolve(slots=("POOL#local",)), counting=True) for run in active]
        limit = set_limit(store, "POOL#local", 1, is_counting=False)
        assert (limit.taken, limit.is_full) == (2, True)
        with pytest.raises(ScopeFull):
            store.save(late, late.evolve(slots=("POOL#local",)))
        for run in held:
            store.save(run, run.evolve(slots=()))
        store.save(late, late.evolve(slots=("POOL#local",)))
        assert store.slots("POOL#local") == (1, frozenset({late.id}))

    def test_counting_needs_the_version_too(self, store: Store) -> None:
        """A run that ended meanwhile is not counted."""
        set_limit(store, "POOL#local", 1, is_counting=True)
        run = store.put_run(a_run(phase=Phase.STARTED))
        store.save(run, run.evolve(phase=Phase.SETTLED))
        with pytest.raises(VersionConflict):
            store.save(run, run.evolve(slots=("POOL#local",)), counting=True)
        assert store.limit_of("POOL#local").taken == 0

    def test_a_limit_is_written_over_the_revision_that_was_read(self, store: Store) -> None:
        """An older limit never comes over a newer one; a removed one keeps its revision."""
        none = store.limit_of("POOL#local")
        assert none == Limit("POOL#local")
        first = store.put_limit(replace(none, slots=5, source="a"))
        assert store.limit_of("POOL#local") == first == Limit("POOL#local", 5, "a", revision=1)
        assert store.put_limit(replace(none, slots=5, source="a")) == first  # Its answer was lost.
        with pytest.raises(VersionConflict):
            store.put_limit(replace(none, slots=9))
        second = store.put_limit(replace(first, slots=None, source=""))
        assert second.revision == 2
        with pytest.raises(VersionConflict):
            store.put_limit(replace(first, slots=9))
        with pytest.raises(VersionConflict):
            store.put_limit(replace(none, slots=9))
        assert store.limit_of("POOL#local") == second
        assert store.limit_of("POOL#other") == Limit("POOL#other")

    def test_of_many_limits_at_once_one_is_written(self, store: Store) -> None:
        """Eight writers over one revision."""
        read, won = store.limit_of("POOL#local"), []

        def write(n: int) -> None:
            with contextlib.suppress(VersionConflict):
                won.append(store.put_limit(replace(read, slots=n)).slots)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(write, range(8)))
        assert won == [store.limit_of("POOL#local").slots]

    # -- lists

    def test_runs_are_listed_newest_first_in_pages(self, store: Store) -> None:
        """Pages join without a gap or a repeat."""
        runs = [store.put_run(a_run(scheduled_time=START + timedelta(minutes=n % 5))) for n in range(12)]
        want = [r.id for r in sorted(runs, key=lambda r: (r.scheduled_time, str(r.id)), reverse=True)]
        got: list[UUID] = []
        cursor: str | None = None
        while True:
            page = store.runs(RunFilter(), limit=5, cursor=cursor)
            got += [run.id for run in page.runs]
            cursor = page.cursor
            if cursor is None:
                break
        assert got == want

    def test_runs_are_filtered(self, store: Store) -> None:
        """By state type or name, deployment, pool, time and id prefix."""
        deployment = uuid4()
        one = store.put_run(a_run(deployment_id=deployment, work_pool="a"))
        two = store.put_run(a_run(state=State.of("Late", START), scheduled_time=START + timedelta(hours=1)))
        three = store.put_run(a_run(state=State.of("Completed", START)))

        def ids(where: RunFilter) -> set[UUID]:
            return {run.id for run in store.runs(where).runs}

        assert ids(RunFilter(states=frozenset({"Late"}))) == {two.id}
        assert ids(RunFilter(states=frozenset({"COMPLETED", "Late"}))) == {two.id, three.id}
        assert ids(RunFilter(deployment_id=deployment)) == {one.id}
        assert ids(RunFilter(work_pool="a")) == {one.id}
        assert ids(RunFilter(since=START + timedelta(minutes=1))) == {two.id}
        assert ids(RunFilter(id_prefix=str(three.id)[:13])) == {three.id}

    # -- history

    def test_old_settled_runs_are_purged_in_batches(self, store: Store) -> None:
        """Those scheduled first go first; what is not settled, ended lately, or is scheduled later stays."""
        day = timedelta(days=1)

        def ended(scheduled: timedelta, end: timedelta, phase: Phase = Phase.SETTLED) -> FlowRun:
            return store.put_run(
                a_run(scheduled_time=START + scheduled, end_time=START + end, phase=phase, wake_at=None)
            )

        old = [ended(n * day, n * day) for n in range(3)]
        kept = [
            ended(1 * day, 20 * day),
            ended(30 * day, 1 * day),
            ended(1 * day, 1 * day, Phase.ENDED),
            store.put_run(a_run()),
        ]
        before = START + 10 * day
        assert store.purge(START, limit=10) == 0
        assert store.purge(before, limit=2) == 2
        with pytest.raises(NotFound):
            store.get_run(old[0].id)
        assert store.get_run(old[2].id) == old[2]
        assert store.purge(before, limit=2) == 1
        assert store.purge(before, limit=2) == 0
        assert {run.id for run in store.runs(RunFilter()).runs} == {run.id for run in kept}

    def test_a_write_to_a_run_that_is_gone_is_a_conflict(self, store: Store) -> None:
        """It was purged since it was read."""
        run = store.put_run(a_run(phase=Phase.SETTLED, end_time=START, wake_at=None))
        assert store.purge(START + timedelta(days=1), limit=1) == 1
        with pytest.raises(VersionConflict):
            store.save(run, run.evolve(name="again"))

    # -- memo and catalogue

    def test_the_first_memo_wins(self, store: Store) -> None:
        """What is remembered stays, until it is forgotten."""
        assert store.recall("k") is None
        assert store.remember("k", "one") == "one"
        assert store.remember("k", "two") == "one"
        store.forget("k")
        store.forget("k")
        assert store.recall("k") is None

    def test_places_are_given_at_the_rate(self, store: Store) -> None:
        """After a rest a burst is free at once; then places come one interval apart, and each is given once."""
        rate = Rate(per_second=4, burst=3)
        places = [(store.pace("s", rate, START, ahead_seconds=60) - START).total_seconds() for _ in range(6)]
        assert places == [-0.5, -0.25, 0.0, 0.25, 0.5, 0.75]
        later = START + timedelta(seconds=10)
        assert [store.pace("s", rate, later, ahead_seconds=60) <= later for _ in range(4)] == [True] * 3 + [False]

    def test_a_place_too_far_ahead_is_told_and_not_taken(self, store: Store) -> None:
        """Asking is no way to be late: the next to ask is told the same moment."""
        rate = Rate(per_second=1)
        assert store.pace("s", rate, START) == START
        second = START + timedelta(seconds=1)
        assert store.pace("s", rate, START, ahead_seconds=0.5) == second
        assert store.pace("s", rate, START, ahead_seconds=1) == second
        assert store.pace("s", rate, START, ahead_seconds=1) == START + timedelta(seconds=2)

    def test_places_of_scopes_do_not_mix(self, store: Store) -> None:
        """Each account and region has its own row."""
        rate = Rate(per_second=1)
        assert store.pace("a", rate, START) == store.pace("b", rate, START) == START

    def test_no_place_is_given_to_two(self, store: Store) -> None:
        """Eight callers at once get eight places."""
        rate = Rate(per_second=1000)
        with ThreadPoolExecutor(8) as pool:
            places = list(pool.map(lambda _: store.pace("s", rate, START, ahead_seconds=60), range(64)))
        assert len(set(places)) == 64
        assert max(places) - min(places) == timedelta(seconds=0.063)

    def test_a_rate_may_change(self, store: Store) -> None:
        """A place that was taken stays taken; from there on the new rate counts."""
        store.pace("s", Rate(per_second=0.1), START)
        later = START + timedelta(seconds=10)
        assert store.pace("s", Rate(per_second=10), later) == later
        assert store.pace("s", Rate(per_second=10), later, ahead_seconds=1) == later + timedelta(seconds=0.1)

    def test_a_record_is_written_over_the_version_that_was_read(self, store: Store) -> None:
        """Creating twice, and writing over something changed meanwhile, are refused."""
        variable = Variable(name="a", value={"x": [1]}, created_at=START, updated_at=START)
        first = store.put(variable)
        assert first.version == 1
        assert store.get(Variable, "a") == first
        with pytest.raises(VersionConflict):
            store.put(variable.model_copy(update={"value": 2}))
        second = store.put(first.model_copy(update={"value": 3}))
        with pytest.raises(VersionConflict):
            store.put(first.model_copy(update={"value": 4}))
        with pytest.raises(VersionConflict):
            store.delete(first)
        store.delete(second)
        store.delete(second)
        assert store.get(Variable, "a") is None

    def test_records_are_listed_and_found_by_id(self, store: Store) -> None:
        """Kinds do not mix; lists are ordered by key."""
        pools = [
            store.put(
                WorkPool(id=uuid4(), name=name, type="fake", base_job_template={}, created_at=START, updated_at=START)
            )
            for name in ("b", "a")
        ]
        store.put(Variable(name="a", created_at=START, updated_at=START))
        assert [pool.name for pool in store.list(WorkPool)] == ["a", "b"]
        assert store.find(WorkPool, pools[0].id) == pools[0]
        assert store.find(WorkPool, uuid4()) is None

    def test_the_ledger_keeps_its_id(self, store: Store) -> None:
        """It is what keeps two installations apart."""
        assert store.ledger_id == store.ledger_id


class QueueContract:
    """The promises of `ports.LocalQueue`; `clock` is the queue's."""

    @pytest.fixture
    def clock(self) -> ManualClock:
        return ManualClock()

    @pytest.fixture
    def queue(self, clock: ManualClock) -> LocalQueue:
        """Return an empty queue on the clock."""
        raise NotImplementedError

    def test_a_message_is_delivered_and_acknowledged(self, queue: LocalQueue) -> None:
        """Once it is acknowledged it is gone."""
        queue.send("a")
        (delivery,) = queue.receive(10, 30)
        assert (delivery.body, delivery.receives) == ("a", 1)
        assert not queue.receive(10, 30)
        queue.ack(delivery)
        assert queue.depth() == 0

    def test_many_messages_are_sent_at_once(self, queue: LocalQueue, clock: ManualClock) -> None:
        """Each with its own delay."""
        queue.send_all([("a", 0.0), ("b", 5.0), ("c", 0.0)])
        assert sorted(delivery.body for delivery in queue.receive(10, 30)) == ["a", "c"]
        clock.advance(5)
        assert [delivery.body for delivery in queue.receive(10, 20)] == ["b"]
        queue.send_all([])
        assert queue.depth() == 3

    def test_a_delayed_message_waits(self, queue: LocalQueue, clock: ManualClock) -> None:
        """It becomes visible after its delay, and the queue says when."""
        queue.send("a", delay_seconds=5)
        assert not queue.receive(10, 30)
        assert queue.next_visible_in() == pytest.approx(5)
        clock.advance(5)
        assert len(queue.receive(10, 30)) == 1

    def test_an_unacknowledged_message_comes_back(self, queue: LocalQueue, clock: ManualClock) -> None:
        """After its visibility it is handed out again, and the first receipt removes nothing any more."""
        queue.send("a")
        (first,) = queue.receive(10, 30)
        clock.advance(31)
        (second,) = queue.receive(10, 30)
        assert second.receives == 2
        queue.ack(first)
        queue.release(first)
        queue.bury(first, "late")
        assert queue.depth() == 1
        assert not queue.dead_letters()
        queue.ack(second)
        assert queue.depth() == 0

    def test_a_released_message_is_visible_at_once(self, queue: LocalQueue) -> None:
        """Or after the delay that was asked for."""
        queue.send("a")
        (first,) = queue.receive(10, 30)
        queue.release(first)
        (second,) = queue.receive(10, 30)
        queue.release(second, delay_seconds=9)
        assert not queue.receive(10, 30)
        assert queue.next_visible_in() == pytest.approx(9)

    def test_a_message_that_never_succeeds_becomes_a_dead_letter(self, queue: LocalQueue, clock: ManualClock) -> None:
        """After five deliveries it is given up; its neighbours go on, and a replay starts it afresh."""
        queue.send("poison")
        for _ in range(5):
            assert queue.receive(10, 30)
            clock.advance(31)
        queue.send("fine")
        assert [delivery.body for delivery in queue.receive(10, 30)] == ["fine"]
        (letter,) = queue.dead_letters()
        assert (letter.body, letter.receives) == ("poison", 6)
        assert "5 times" in letter.reason
        queue.replay(letter.id)
        assert not queue.dead_letters()
        assert [delivery.receives for delivery in queue.receive(10, 30)] == [1]

    def test_a_buried_message_keeps_its_reason(self, queue: LocalQueue) -> None:
        """And an unknown dead letter is not found."""
        queue.send("bad")
        (delivery,) = queue.receive(10, 30)
        queue.bury(delivery, "not JSON")
        assert [(letter.body, letter.reason) for letter in queue.dead_letters()] == [("bad", "not JSON")]
        with pytest.raises(NotFound):
            queue.replay("999")

    def test_a_restart_shows_all_messages(self, queue: LocalQueue) -> None:
        """What a dead server had in its hands is handed out again; what is delayed stays delayed."""
        queue.send("in flight")
        queue.receive(10, 3000)
        queue.send("later", delay_seconds=50)
        assert queue.show_all() == 1
        assert [delivery.body for delivery in queue.receive(10, 30)] == ["in flight"]

    def test_no_message_is_handed_out_twice_at_once(self, queue: LocalQueue) -> None:
        """Eight receivers of a hundred messages get each of them once."""
        for n in range(100):
            queue.send(str(n))
        got: list[str] = []
        lock = threading.Lock()

        def drain() -> None:
            while found := queue.receive(3, 30):
                with lock:
                    got.extend(delivery.body for delivery in found)

        _all_at_once(drain)
        assert sorted(got, key=int) == [str(n) for n in range(100)]

    def test_an_empty_queue_has_nothing_to_wait_for(self, queue: LocalQueue) -> None:
        """There is no next message."""
        assert queue.next_visible_in() is None
        assert not queue.receive(1, 30)


def _all_at_once(work: Callable[[], None]) -> None:
    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
