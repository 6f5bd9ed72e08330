"""Park and admit: limits, priorities, pauses, overlap, limits that change, and who is woken."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from push_pools.domain import lanes
from push_pools.domain.errors import PlatformUnavailable, StoreUnavailable, VersionConflict
from push_pools.domain.events import Admit, Tick, hint
from push_pools.domain.pools import WorkPool, WorkQueue
from push_pools.domain.runs import FlowRun, Phase, RetryPolicy
from push_pools.domain.states import FailureClass
from push_pools.services import admit as admission
from push_pools.services import limits
from push_pools.services.admit import admit, why_waiting
from push_pools.services.catalogue import (
    pause_work_pool,
    pause_work_queue,
    resume_work_pool,
    resume_work_queue,
    update_work_pool,
    update_work_queue,
)
from push_pools.services.explain import explain_run
from push_pools.services.limits import current_limit, sync_limit
from push_pools.services.stop import cancel_run
from push_pools.sqlite_file import SqliteFile
from push_pools.stores.memory import MemoryStore
from push_pools.stores.sqlite import SqliteStore
from push_pools.testing.fake_platform import SimulatedCrash
from tests.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator

    from push_pools.ports import Limit, Store

POOL = "POOL#local"


@pytest.fixture(params=["memory", "sqlite"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    file = SqliteFile(":memory:") if request.param == "sqlite" else None
    yield World(store=SqliteStore(file) if file else None)
    if file is not None:
        file.close()


def limit(world: World, slots: int | None) -> None:
    update_work_pool(world.app, "local", concurrency_limit=slots)
    world.drain()


def add_queue(world: World, name: str, **fields: Any) -> WorkQueue:
    now = world.clock.now()
    queue = WorkQueue(id=uuid4(), work_pool="local", name=name, created_at=now, updated_at=now, **fields)
    return world.store.put(queue)


def phases(world: World, *runs: FlowRun) -> list[Phase]:
    return [world.get(run).phase for run in runs]


def end(world: World, run: FlowRun, exit_code: int = 0) -> None:
    """End a run's job, and let whoever that concerns do their work; no time passes, so no tick comes."""
    job = world.get(run).job
    assert job is not None
    world.cloud.finish(job.key, exit_code)
    world.sweep()
    world.drain()


# -- limits and order ----------------------------------------------------------


def test_an_unlimited_run_touches_nothing_shared(world: World) -> None:
    """It is claimed as if there were no lanes."""
    run = world.trigger()
    world.drain()
    assert not any(name in call for call in world.calls for name in ("limit", "slots", "waiting"))
    assert [entry.what for entry in world.get(run).journal][:2] == ["put", "claimed"]


def test_a_newcomer_parks_first_and_is_then_admitted(world: World) -> None:
    """With room too: nobody but `admit` gives slots."""
    limit(world, 1)
    run = world.trigger()
    world.drain()
    stored = world.get(run)
    assert [entry.what for entry in stored.journal][:4] == ["put", "parked", "admitted", "claimed"]
    assert (stored.phase, stored.slots) == (Phase.STARTED, (POOL,))
    assert world.store.slots(POOL) == (1, frozenset({run.id}))


def test_a_freed_slot_starts_the_next_at_once(world: World) -> None:
    """Without a tick, and with the slot never taken twice."""
    limit(world, 1)
    first, second = world.trigger(), world.trigger()
    world.drain()
    first, second = sorted((first, second), key=lambda run: world.get(run).phase is not Phase.STARTED)
    assert phases(world, first, second) == [Phase.STARTED, Phase.WAITING]
    assert world.get(second).state.name == "AwaitingConcurrencySlot"
    end(world, first)
    assert phases(world, first, second) == [Phase.SETTLED, Phase.STARTED]
    assert world.store.slots(POOL)[1] == {second.id}
    end(world, second)
    assert world.store.slots(POOL)[1] == frozenset()


def test_runs_are_admitted_by_priority_then_due_time(world: World) -> None:
    """A better queue first, whatever the due times; within a priority whoever is due first, over all its queues."""
    add_queue(world, "urgent", priority=1)
    add_queue(world, "aside", priority=2)
    default = world.store.get(WorkQueue, "local/default")
    assert default is not None
    world.store.put(default.model_copy(update={"priority": 2}))
    limit(world, 0)
    runs = []
    for queue in ("default", "aside", "default", "urgent", "urgent"):
        runs.append(world.trigger(work_queue=queue))
        world.advance(1)
    world.drain()
    limit(world, 1)
    order = []
    for _ in runs:
        (now,) = [run for run in runs if world.get(run).phase is Phase.STARTED]
        order.append(runs.index(now))
        end(world, now)
    assert order == [3, 4, 0, 1, 2]


def test_a_changed_priority_counts_for_those_who_wait(world: World) -> None:
    add_queue(world, "slow", priority=9)
    limit(world, 0)
    first, late = world.trigger(), world.trigger(work_queue="slow")
    update_work_queue(world.app, "local", "slow", priority=1)
    update_work_queue(world.app, "local", "default", priority=5)
    world.drain()
    limit(world, 1)
    assert phases(world, first, late) == [Phase.WAITING, Phase.STARTED]


def test_who_does_not_fit_holds_up_nobody(world: World) -> None:
    """The first in line waits for its own queue or deployment, and the next gets the slot of the pool."""
    add_queue(world, "full", priority=1, concurrency_limit=0)
    narrow = world.deploy("narrow", concurrency_limit=0)
    limit(world, 0)
    one, two, three = world.trigger(work_queue="full"), world.trigger(narrow.key), world.trigger()
    world.drain()
    limit(world, 1)
    assert phases(world, one, two, three) == [Phase.WAITING, Phase.WAITING, Phase.STARTED]
    assert why_waiting(world.get(one), world.app) == "work pool 'local' is at its limit 1"
    end(world, three)
    assert why_waiting(world.get(one), world.app) == "work queue 'local/full' is at its limit 0"
    assert why_waiting(world.get(two), world.app) == "deployment 'report/narrow' is at its limit 0"
    assert why_waiting(world.get(three), world.app) is None


def test_many_free_slots_are_given_in_bites(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """At most so many in one go; a message to itself goes on, so that all start without a tick."""
    monkeypatch.setattr(admission, "MOST_GIVEN", 3)
    monkeypatch.setattr(admission, "PAGE", 2)
    monkeypatch.setattr(admission, "FIRST_PAGE", 2)
    pause_work_pool(world.app, "local")
    runs = [world.trigger() for _ in range(10)]
    world.drain()
    resume_work_pool(world.app, "local")
    deliveries = world.queue.receive(10, 90)
    for delivery in deliveries:
        world.queue.ack(delivery)
    asked = [delivery.body for delivery in deliveries]
    assert asked == [Admit(work_pool="local").to_json(), Tick(reason="local resumed").to_json()]
    assert admit("local", world.app) == 3
    assert phases(world, *runs).count(Phase.READY) == 3
    world.drain()
    assert phases(world, *runs) == [Phase.STARTED] * 10


def test_a_limit_of_zero_holds_every_run(world: World) -> None:
    limit(world, 0)
    run = world.trigger()
    world.pass_time(600)
    assert phases(world, run) == [Phase.WAITING]
    assert world.get(run).state.message == "work pool 'local' is at its limit 0"


def test_a_lowered_limit_drains_and_a_raised_one_admits_at_once(world: World) -> None:
    limit(world, 3)
    runs = [world.trigger() for _ in range(4)]
    world.drain()
    limit(world, 1)
    active = [run for run in runs if world.get(run).phase is Phase.STARTED]
    (waits,) = [run for run in runs if run not in active]
    assert len(active) == 3
    end(world, active[0])
    end(world, active[1])
    assert phases(world, waits) == [Phase.WAITING]
    limit(world, 2)
    assert phases(world, waits) == [Phase.STARTED]


def test_a_removed_limit_admits_all_at_once(world: World) -> None:
    limit(world, 0)
    runs = [world.trigger() for _ in range(3)]
    world.drain()
    limit(world, None)
    assert phases(world, *runs) == [Phase.STARTED] * 3


# -- limits that are new -------------------------------------------------------


@pytest.mark.parametrize("where", ["pool", "queue", "deployment"])
def test_a_new_limit_counts_the_active_runs_first(world: World, where: str) -> None:
    """They may be more; nobody else is admitted until they are fewer."""
    runs = [world.trigger() for _ in range(3)]
    world.drain()
    assert phases(world, *runs) == [Phase.STARTED] * 3
    match where:
        case "pool":
            limit(world, 2)
        case "queue":
            update_work_queue(world.app, "local", "default", concurrency_limit=2)
        case _:
            now = world.store.put(
                lanes.with_epoch(world.deployment, world.deployment.model_copy(update={"concurrency_limit": 2}))
            )
            sync_limit(world.app, now)
    late = world.trigger()
    world.drain()
    assert phases(world, late) == [Phase.WAITING]
    end(world, runs[0])
    assert phases(world, late) == [Phase.WAITING]
    end(world, runs[1])
    assert phases(world, late) == [Phase.STARTED]
    assert "counted" in [entry.what for entry in world.get(runs[2]).journal]


def test_a_limit_that_was_away_is_counted_anew(world: World) -> None:
    """Removed and set again before anybody looked: who became active in between holds no slot, and counts."""
    limit(world, 1)
    first = world.trigger()
    world.drain()
    pool = world.store.get(WorkPool, "local")
    assert pool is not None
    bare = world.store.put(lanes.with_epoch(pool, pool.model_copy(update={"concurrency_limit": None})))
    second = world.trigger()
    world.drain()
    world.store.put(lanes.with_epoch(bare, bare.model_copy(update={"concurrency_limit": 2})))
    third = world.trigger()
    world.drain()
    assert phases(world, first, second, third) == [Phase.STARTED, Phase.STARTED, Phase.WAITING]
    assert world.store.slots(POOL) == (2, frozenset({first.id, second.id}))


def test_many_active_runs_are_counted_in_bites(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until all are counted nobody is admitted; then without a tick."""
    monkeypatch.setattr(limits, "COUNTED_AT_ONCE", 2)
    runs = [world.trigger() for _ in range(5)]
    world.drain()
    update_work_pool(world.app, "local", concurrency_limit=6)
    late = world.trigger()
    assert admit("local", world.app) == 0
    assert world.store.limit_of(POOL).is_counting
    assert world.store.limit_of(POOL).taken == 2
    world.drain()
    assert not world.store.limit_of(POOL).is_counting
    assert world.store.slots(POOL)[1] == {run.id for run in (*runs, late)}
    assert phases(world, late) == [Phase.STARTED]


def test_a_run_claimed_as_a_limit_comes_is_counted_or_parks(world: World) -> None:
    """The limit is set between a run's look and its claim: the second look, after the claim, sees it."""
    run = world.trigger()
    run = world.store.save(run, run.evolve(hints=1))  # So that its claim is written by itself.
    save = world.store.save
    done: list[int] = []

    def set_limit_before_the_claim(before: FlowRun, after: FlowRun, **options: Any) -> FlowRun:
        if after.phase is Phase.CLAIMED and not done:
            done.append(1)
            update_work_pool(world.app, "local", concurrency_limit=0)
        return save(before, after, **options)

    world.store.save = set_limit_before_the_claim  # type: ignore[method-assign]
    world.drain()
    assert [entry.what for entry in world.get(run).journal] == ["put", "claimed", "parked"]
    assert phases(world, run) == [Phase.WAITING]
    assert not world.cloud.started


def test_a_run_claimed_before_the_count_goes_on(world: World) -> None:
    """The limit is set, and its runs counted, between a claim and the second look: the run has its slot."""
    run = world.trigger()
    run = world.store.save(run, run.evolve(hints=1))  # So that its claim is written by itself.
    save = world.store.save
    done: list[int] = []

    def count_after_the_claim(before: FlowRun, after: FlowRun, **options: Any) -> FlowRun:
        saved = save(before, after, **options)
        if after.phase is Phase.CLAIMED and not done:
            done.append(1)
            update_work_pool(world.app, "local", concurrency_limit=0)
            admit("local", world.app)
        return saved

    world.store.save = count_after_the_claim  # type: ignore[method-assign]
    world.drain()
    assert (world.get(run).phase, world.get(run).slots) == (Phase.STARTED, (POOL,))


# -- the record and its limit --------------------------------------------------


def test_a_limit_whose_write_was_cut_short_is_made_good_by_the_next_admit(world: World) -> None:
    """The catalogue says 0, and the ledger still counts by 5."""
    limit(world, 5)
    pool = world.store.get(WorkPool, "local")
    assert pool is not None
    world.store.put(pool.model_copy(update={"concurrency_limit": 0}))
    run = world.trigger()
    world.drain()
    assert phases(world, run) == [Phase.WAITING]
    assert world.store.limit_of(POOL).slots == 0


@pytest.mark.parametrize("slow", ["limit_of", "put_limit"])
def test_an_older_limit_never_stays_over_a_newer(slow: str) -> None:
    """A writer that is slow, before its first look or its write, does not undo what another wrote meanwhile."""

    class Slow(MemoryStore):
        meanwhile: Any = None

        def limit_of(self, scope: str) -> Limit:
            self._while_slow("limit_of")
            return super().limit_of(scope)

        def put_limit(self, limit: Limit) -> Limit:
            self._while_slow("put_limit")
            return super().put_limit(limit)

        def _while_slow(self, method: str) -> None:
            if method == slow:
                act, self.meanwhile = self.meanwhile, None
                if act is not None:
                    act()

    store = Slow()
    world = World(store=store)
    limit(world, 5)
    pool = store.get(WorkPool, "local")
    assert pool is not None
    store.put(pool.model_copy(update={"concurrency_limit": 9}))
    store.meanwhile = lambda: update_work_pool(world.app, "local", concurrency_limit=1)
    assert current_limit(world.app, POOL).slots == 1
    assert store.limit_of(POOL).slots == 1


def test_a_limit_that_is_always_written_by_others_is_said() -> None:
    class Contested(MemoryStore):
        def put_limit(self, limit: Limit) -> Limit:
            raise VersionConflict(limit.scope)

    world = World(store=Contested())
    pool = world.store.get(WorkPool, "local")
    assert pool is not None
    world.store.put(pool.model_copy(update={"concurrency_limit": 9}))
    with pytest.raises(StoreUnavailable, match="too many at once"):
        current_limit(world.app, POOL)


def test_the_limit_of_a_deleted_record_is_removed(world: World) -> None:
    limit(world, 5)
    pool = world.store.get(WorkPool, "local")
    assert pool is not None
    world.store.delete(pool)
    assert current_limit(world.app, POOL).slots is None


def test_runs_of_a_deleted_pool_go_on_and_end_with_the_reason(world: World) -> None:
    """Deleting a pool in use is refused; if it is lost all the same, nobody waits for ever."""
    limit(world, 0)
    run = world.trigger()
    world.drain()
    pool = world.store.get(WorkPool, "local")
    queue = world.store.get(WorkQueue, "local/default")
    assert pool is not None
    assert queue is not None
    world.store.delete(pool)
    world.store.delete(queue)
    world.settle()
    assert world.get(run).state.name == "Crashed"
    assert "it was deleted after the run was put" in world.get(run).state.message


# -- who wakes whom ------------------------------------------------------------


def test_a_cancelled_waiter_is_gone(world: World) -> None:
    """It is final at once, and its place is free."""
    limit(world, 0)
    run = world.trigger()
    world.drain()
    cancel_run(run.id, world.app, by="ann")
    assert (world.get(run).state.name, world.get(run).waits_at) == ("Cancelled", None)
    assert not world.store.waiting("local")
    assert not world.store.waiting_pools()


@pytest.mark.parametrize("how", ["cancel", "retry", "give up"])
def test_whoever_frees_a_slot_wakes_the_next(world: World, how: str) -> None:
    world.deploy("stubborn", retries=RetryPolicy(attempts=2, on=tuple(FailureClass), backoff_seconds=60))
    limit(world, 1)
    if how == "give up":
        world.cloud.fail("submit", PlatformUnavailable("fake", "throttled"))
    first = world.trigger("report/stubborn")
    world.drain()
    second = world.trigger()
    world.drain()
    assert phases(world, second) == [Phase.WAITING]
    if how == "retry":
        end(world, first, 3)
        assert (world.get(first).state.name, world.get(first).slots) == ("AwaitingRetry", ())
    else:
        assert world.get(first).phase is (Phase.READY if how == "give up" else Phase.STARTED)
        cancel_run(first.id, world.app, by="ann")
        world.drain()
        if how == "cancel":
            end(world, first, 0)
    assert phases(world, second) == [Phase.STARTED]


def test_a_run_that_is_tried_again_waits_at_its_first_place(world: World) -> None:
    """Its due time counts, not that of its attempt; so it goes before those who came after it."""
    world.deploy("stubborn", retries=RetryPolicy(attempts=2, on=tuple(FailureClass), backoff_seconds=5))
    limit(world, 1)
    first = world.trigger("report/stubborn")
    world.drain()
    world.advance(1)
    second = world.trigger()
    world.advance(1)
    third = world.trigger()
    world.drain()
    end(world, first, 3)
    assert phases(world, second) == [Phase.STARTED]
    world.advance(6)
    world.drain()
    assert phases(world, first, third) == [Phase.WAITING, Phase.WAITING]
    assert world.get(first).attempt == 2
    end(world, second)
    assert phases(world, first, third) == [Phase.STARTED, Phase.WAITING]


def test_a_ready_run_holds_its_slots_through_its_back_off(world: World) -> None:
    limit(world, 1)
    world.cloud.fail("submit", PlatformUnavailable("fake", "throttled", retry_after_seconds=100))
    first = world.trigger()
    world.drain()
    second = world.trigger()
    world.drain()
    assert phases(world, first, second) == [Phase.READY, Phase.WAITING]
    assert world.store.slots(POOL)[1] == {first.id}
    world.advance(101)
    world.drain()
    assert phases(world, first, second) == [Phase.STARTED, Phase.WAITING]


def test_a_finisher_that_dies_leaves_the_wake_to_whoever_finds_it(world: World) -> None:
    """It is a chore, in the same write as the end."""
    limit(world, 1)
    first = world.trigger()
    world.drain()
    second = world.trigger()
    world.drain()
    job = world.get(first).job
    assert job is not None
    world.cloud.finish(job.key)
    for after in range(40):
        world.crash_at = after
        world.sweep()
        if world.get(first).is_final:
            break
    world.crash_at = None
    assert world.get(first).phase is Phase.ENDED
    assert [chore.kind for chore in world.get(first).chores] == ["wake"]
    assert world.store.slots(POOL)[1] == frozenset()
    world.queue.send(hint("chores", first.id))
    world.drain()
    assert phases(world, first, second) == [Phase.SETTLED, Phase.STARTED]


def test_a_lost_wake_is_made_good_by_the_tick(world: World) -> None:
    limit(world, 0)
    run = world.trigger()
    world.drain()
    update_work_pool(world.app, "local", concurrency_limit=1)
    for delivery in world.queue.receive(10, 90):
        world.queue.ack(delivery)
    world.drain()
    assert phases(world, run) == [Phase.WAITING]
    world.tick()
    world.drain()
    assert phases(world, run) == [Phase.STARTED]


def test_a_tick_that_cannot_ask_for_one_pool_asks_for_the_others(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    limit(world, 0)
    world.trigger()
    world.drain()

    def refuse(body: str, *, delay_seconds: float = 0.0) -> None:
        raise StoreUnavailable("the disk is full")

    monkeypatch.setattr(world.queue, "send", refuse)
    world.tick()
    assert "admit_not_asked" in caplog.messages


def test_losing_the_race_for_a_waiter_is_not_a_full_scope(world: World) -> None:
    """Somebody cancels the first in line while it is given its slot: the next gets it."""
    limit(world, 0)
    first = world.trigger()
    world.advance(1)
    second = world.trigger()
    world.drain()
    save = world.store.save
    done: list[int] = []

    def cancel_first(before: FlowRun, after: FlowRun, **options: Any) -> FlowRun:
        if after.phase is Phase.READY and before.id == first.id and not done:
            done.append(1)
            cancel_run(first.id, world.app, by="ann")
        return save(before, after, **options)

    world.store.save = cancel_first  # type: ignore[method-assign]
    update_work_pool(world.app, "local", concurrency_limit=1)
    assert admit("local", world.app) == 1
    assert phases(world, first, second) == [Phase.SETTLED, Phase.READY]


def test_a_scope_that_others_fill_meanwhile_ends_nothing_but_itself(world: World) -> None:
    """The deployment's last slot is taken between the look and the write: the next of another one is admitted."""
    narrow = world.deploy("narrow", concurrency_limit=1)
    pause_work_pool(world.app, "local")
    one = world.trigger(narrow.key)
    world.advance(1)
    two, other = world.trigger(narrow.key), world.trigger()
    world.drain()
    save = world.store.save
    done: list[int] = []

    def others_first(before: FlowRun, after: FlowRun, **options: Any) -> FlowRun:
        if after.phase is Phase.READY and before.id == one.id and not done:
            done.append(1)
            waiting = world.store.get_run(two.id)
            save(waiting, lanes.take_slots(waiting, after.slots, world.app.moment()))
        return save(before, after, **options)

    world.store.save = others_first  # type: ignore[method-assign]
    resume_work_pool(world.app, "local")
    assert admit("local", world.app) == 1
    assert phases(world, one, two, other) == [Phase.WAITING, Phase.READY, Phase.READY]


def test_slots_are_given_back_from_the_record(world: World) -> None:
    """The deployment has no limit any more, and has moved: what was taken is freed all the same."""
    narrow = world.deploy("narrow", concurrency_limit=1)
    limit(world, 3)
    run = world.trigger(narrow.key)
    world.drain()
    scope = lanes.deployment_scope(narrow.id)
    assert set(world.get(run).slots) == {POOL, scope}
    world.store.put(narrow.model_copy(update={"concurrency_limit": None, "work_pool": "elsewhere"}))
    end(world, run)
    assert not world.store.slots(scope)[1]
    assert not world.store.slots(POOL)[1]


def test_a_moved_deployment_wakes_its_new_pool(world: World) -> None:
    limit(world, 1)
    run = world.trigger()
    world.drain()
    world.store.put(world.deployment.model_copy(update={"work_pool": "elsewhere"}))
    job = world.get(run).job
    assert job is not None
    world.cloud.finish(job.key)
    world.sweep()
    bodies = {delivery.body for delivery in world.queue.receive(10, 90)}
    assert {Admit(work_pool=name).to_json() for name in ("local", "elsewhere")} <= bodies


# -- pauses --------------------------------------------------------------------


def test_a_paused_pool_holds_its_runs_and_shows_the_note(world: World) -> None:
    started = world.trigger()
    world.drain()
    pause_work_pool(world.app, "local", note="month end")
    run = world.trigger()
    world.drain()
    stored = world.get(run)
    assert (stored.phase, stored.state.name) == (Phase.WAITING, "Scheduled")
    assert stored.state.message == "work pool 'local' is paused: month end"
    assert why_waiting(stored, world.app) == stored.state.message
    end(world, started)
    world.pass_time(120)
    assert phases(world, started, run) == [Phase.SETTLED, Phase.WAITING]
    resume_work_pool(world.app, "local")
    world.drain()
    assert phases(world, run) == [Phase.STARTED]
    texts = [line.text for line in explain_run(world.get(run), world.clock.now()).lines]
    assert texts[1] == "parked: work pool 'local' is paused: month end"
    assert texts[2].startswith("admitted after 120 s")


def test_a_paused_queue_holds_only_its_own(world: World) -> None:
    add_queue(world, "urgent", priority=1)
    pause_work_queue(world.app, "local", "urgent")
    held, free = world.trigger(work_queue="urgent"), world.trigger()
    world.drain()
    assert phases(world, held, free) == [Phase.WAITING, Phase.STARTED]
    assert world.get(held).state.message == "work queue 'local/urgent' is paused"
    resume_work_queue(world.app, "local", "urgent")
    world.drain()
    assert phases(world, held) == [Phase.STARTED]


def test_a_run_that_is_put_off_parks_when_its_pool_was_paused_meanwhile(world: World) -> None:
    """It gives its slots back, so that a pause holds nothing that others could use."""
    limit(world, 1)
    world.cloud.fail("submit", PlatformUnavailable("fake", "throttled"))
    run = world.trigger()
    world.drain()
    assert phases(world, run) == [Phase.READY]
    pause_work_pool(world.app, "local")
    world.pass_time(30)
    assert (world.get(run).phase, world.get(run).slots) == (Phase.WAITING, ())
    assert world.get(run).fence == 1  # It was not claimed for that.


def test_a_run_that_waits_too_long_is_skipped(world: World) -> None:
    """To the second, though no tick comes; its deployment says how long."""
    patient = world.deploy("patient", max_wait_seconds=100)
    pause_work_pool(world.app, "local")
    run, other = world.trigger(patient.key), world.trigger()
    world.drain()
    world.advance(99)
    world.drain()
    assert phases(world, run) == [Phase.WAITING]
    world.advance(2)
    world.drain()
    assert world.get(run).state.name == "Skipped"
    assert "longer than max_wait_seconds (100 s)" in world.get(run).state.message
    assert phases(world, other) == [Phase.WAITING]


def test_a_longer_patience_counts_for_those_who_wait(world: World) -> None:
    patient = world.deploy("patient", max_wait_seconds=100)
    pause_work_pool(world.app, "local")
    run = world.trigger(patient.key)
    world.drain()
    world.store.put(patient.model_copy(update={"max_wait_seconds": 500}))
    world.advance(101)
    world.drain()
    assert phases(world, run) == [Phase.WAITING]
    world.advance(400)
    world.drain()
    assert world.get(run).state.name == "Skipped"


def test_a_waiting_run_does_its_chores() -> None:
    """What its last attempt left is cleaned up while it waits, and its patience is not forgotten over it."""
    world = World({"needs_cleanup": True})
    world.deploy(
        "stubborn",
        retries=RetryPolicy(attempts=2, on=tuple(FailureClass), backoff_seconds=5),
        max_wait_seconds=1000,
    )
    run = world.trigger("report/stubborn")
    world.drain()
    end(world, run, 3)
    pause_work_pool(world.app, "local")
    world.pass_time(300)
    stored = world.get(run)
    assert (stored.phase, stored.chores) == (Phase.WAITING, ())
    assert stored.wake_at == stored.wait_until
    assert stored.wait_until is not None


# -- overlap -------------------------------------------------------------------


def test_skip_skips_what_comes_due_meanwhile(world: World) -> None:
    first = world.fire("skip")
    world.drain()
    world.advance(60)
    second = world.fire("skip")
    world.drain()
    assert phases(world, first) == [Phase.STARTED]
    assert world.get(second).state.name == "Skipped"
    assert f"'{first.name}'" in world.get(second).state.message
    assert "is not finished" in world.get(second).state.message
    end(world, first)
    third = world.fire("skip")
    world.drain()
    assert phases(world, third) == [Phase.STARTED]


@pytest.mark.parametrize("policy", ["skip", "buffer_one", "cancel_other"])
def test_of_runs_due_in_one_second_one_starts(world: World, policy: str) -> None:
    """However they are delivered: overlap is a slot, not a look."""
    runs = [world.fire(policy) for _ in range(3)]
    world.drain()
    assert phases(world, *runs).count(Phase.STARTED) <= 1
    world.settle()
    assert len(world.cloud.started) <= 2
    assert sum(world.get(run).state.name == "Completed" for run in runs) in (1, 2)


def test_overlap_holds_through_retries(world: World) -> None:
    """A run that waits for its next attempt is unfinished: the next is skipped."""
    stubborn = world.deploy("stubborn", retries=RetryPolicy(attempts=2, on=tuple(FailureClass), backoff_seconds=60))
    first = world.fire("skip", deployment=stubborn)
    world.drain()
    end(world, first, 3)
    assert world.get(first).slots == (lanes.overlap_scope(stubborn.id),)
    second = world.fire("skip", deployment=stubborn)
    world.drain()
    assert world.get(second).state.name == "Skipped"
    world.advance(61)
    world.drain()
    assert phases(world, first) == [Phase.STARTED]


def test_manual_runs_and_allow_neither_take_nor_see_it(world: World) -> None:
    first, manual, allowed = world.fire("skip"), world.trigger(), world.fire("allow")
    world.drain()
    assert phases(world, first, manual, allowed) == [Phase.STARTED] * 3
    assert [world.get(run).slots for run in (manual, allowed)] == [(), ()]


def test_buffer_one_lets_one_wait(world: World) -> None:
    first = world.fire("buffer_one")
    world.drain()
    second = world.fire("buffer_one", after=1)
    third = world.fire("buffer_one", after=2)
    world.advance(1)
    world.drain()
    world.advance(1)
    world.drain()
    assert phases(world, first, second) == [Phase.STARTED, Phase.WAITING]
    assert world.get(third).state.name == "Skipped"
    assert "waits already" in world.get(third).state.message
    assert why_waiting(world.get(second), world.app) == f"'{first.name}' of the same deployment is not finished"
    end(world, first)
    assert phases(world, second) == [Phase.STARTED]


def test_cancel_other_stops_the_earlier_and_then_starts(world: World) -> None:
    first = world.fire("cancel_other")
    world.drain()
    second = world.fire("cancel_other", after=5)
    world.advance(5)
    world.drain()
    assert world.get(second).phase is not Phase.SETTLED
    world.settle()
    assert world.get(first).state.name == "Cancelled"
    assert "overlap cancel_other" in world.get(first).state.message
    assert world.get(second).state.name == "Completed"


def test_cancel_other_of_one_that_only_waits(world: World) -> None:
    pause_work_pool(world.app, "local")
    first = world.fire("cancel_other")
    world.drain()
    second = world.fire("cancel_other", after=5)
    world.advance(5)
    world.drain()
    assert world.get(first).state.name == "Cancelled"
    assert phases(world, second) == [Phase.WAITING]


def test_an_older_run_delivered_late_does_not_cancel_a_newer(world: World) -> None:
    """It is skipped itself."""
    older = world.fire("cancel_other")
    for delivery in world.queue.receive(10, 90):  # Its message comes late.
        world.queue.ack(delivery)
    newer = world.fire("cancel_other", after=5)
    world.advance(5)
    world.drain()
    world.queue.send(hint("submit", older.id))
    world.drain()
    assert phases(world, newer) == [Phase.STARTED]
    assert world.get(older).state.name == "Skipped"
    assert "the later run" in world.get(older).state.message


def test_a_cancel_that_was_not_asked_is_asked_by_the_tick(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newcomer parked, and its handler died before it cancelled the other."""
    first = world.fire("cancel_other")
    world.drain()
    second = world.fire("cancel_other", after=5)
    world.advance(5)
    with monkeypatch.context() as patched:
        patched.setattr(admission, "cancel_run", _dies)
        world.deliver()
    assert phases(world, first, second) == [Phase.STARTED, Phase.WAITING]
    for delivery in world.queue.receive(10, 90):
        world.queue.ack(delivery)
    world.tick()
    world.drain()
    assert world.get(first).cancel is not None


def _dies(*_: object, **__: object) -> None:
    raise SimulatedCrash("before the cancel")


def test_a_paused_pool_grows_no_pile_of_scheduled_runs(world: World) -> None:
    """One waits; the rest of a weekend is skipped as it comes."""
    pause_work_pool(world.app, "local")
    runs = []
    for _ in range(20):
        runs.append(world.fire("skip"))
        world.advance(60)
        world.drain()
    assert phases(world, *runs).count(Phase.WAITING) == 1
    assert phases(world, runs[0]) == [Phase.WAITING]


def test_others_that_come_and_go_for_ever_are_said(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The place is always taken, and nobody is found in it: the message comes back."""
    pause_work_pool(world.app, "local")
    world.fire("buffer_one")
    world.drain()
    second = world.fire("buffer_one")
    monkeypatch.setattr(admission, "_holder", lambda *_: None)
    with pytest.raises(StoreUnavailable, match="come and go"):
        admission.park_run(second, world.app)


def test_the_next_deployment_wide_limits_are_read_from_the_catalogue(world: World) -> None:
    """Overlap scopes are always of one slot, whatever was written."""
    scope = lanes.overlap_scope(world.deployment.id)
    store: Store = world.store
    store.put_limit(replace(store.limit_of(scope), slots=7))
    assert current_limit(world.app, scope).slots == 1
