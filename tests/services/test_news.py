"""State changes are told: endings at least once, what happens on the way once, in the order of their sequence."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from push_pools.domain import transitions
from push_pools.domain.errors import NotPublished
from push_pools.domain.runs import Phase, RetryPolicy
from push_pools.services.chores import do_chores
from push_pools.services.ledger import change
from push_pools.services.runs import retry_run, run_deployment
from push_pools.services.stop import cancel_run
from tests.world import World

if TYPE_CHECKING:
    from uuid import UUID

    from push_pools.domain.events import RunStateChanged
    from push_pools.domain.runs import FlowRun


class Bus:
    """Keeps what is published; while it is away it takes nothing."""

    def __init__(self) -> None:
        self.events: list[RunStateChanged] = []
        self.is_away = False

    def publish(self, event: RunStateChanged) -> None:
        if self.is_away:
            raise NotPublished("the bus is away")
        self.events.append(event)

    def names(self, run_id: UUID) -> list[str]:
        return [event.to.name for event in self.events if event.run_id == run_id]


@pytest.fixture
def bus() -> Bus:
    return Bus()


@pytest.fixture
def world(bus: Bus) -> World:
    world = World()
    world.app = dataclasses.replace(world.app, bus=bus)
    return world


def trigger(world: World) -> FlowRun:
    return run_deployment(world.app, "hourly").run


def test_a_run_is_told_of_from_first_to_last(world: World, bus: Bus) -> None:
    run = trigger(world)
    world.pass_time(60)
    assert bus.names(run.id) == ["Scheduled", "Submitting", "Submitted", "Running", "Completed"]
    sequences = [event.sequence for event in bus.events]
    assert sequences == sorted(set(sequences))
    first, last = bus.events[0], bus.events[-1]
    assert (first.from_, first.deployment, first.work_pool, first.work_queue) == (
        None,
        "report/hourly",
        "local",
        "default",
    )
    assert last.from_ is not None
    assert last.from_.name == "Running"
    assert last.to.type == "COMPLETED"
    assert last.start_time is not None
    assert last.end_time is not None
    assert last.attempt == 1
    assert world.get(run).phase is Phase.SETTLED


def test_without_a_bus_nothing_is_owed() -> None:
    world = World()
    run = trigger(world)
    world.pass_time(60)
    assert not [entry for entry in world.get(run).journal if "chore" in entry.what]


def test_an_ending_that_cannot_be_told_is_told_later(world: World, bus: Bus) -> None:
    """Its chore stays, is put off, and is done once the bus is back."""
    run = trigger(world)
    bus.is_away = True
    world.pass_time(60)
    owing = world.get(run)
    assert owing.state.name == "Completed"
    assert (owing.phase, len(owing.chores)) == (Phase.ENDED, 1)
    assert "the bus is away" in str([entry.facts for entry in owing.journal if entry.what == "chore failed"])
    bus.is_away = False
    world.pass_time(200)
    assert bus.names(run.id) == ["Scheduled", "Completed"]
    assert world.get(run).phase is Phase.SETTLED


def test_what_happens_on_the_way_is_lost_with_the_bus_and_nothing_else_is(world: World, bus: Bus) -> None:
    bus.is_away = True
    run = trigger(world)
    world.pass_time(5)
    assert world.get(run).phase is Phase.STARTED
    assert not world.get(run).chores


def test_a_crash_between_the_end_and_its_news_loses_nothing(world: World, bus: Bus) -> None:
    """The write that ends the run is all that happened; whoever comes next tells."""
    run = trigger(world)
    world.pass_time(5)
    now = world.app.moment()
    state = world.get(run).state.model_copy(update={"name": "Crashed"})
    change(world.app, world.get(run), lambda r: transitions.finish(r, state, now))
    assert "Crashed" not in bus.names(run.id)
    do_chores(run.id, world.app)
    do_chores(run.id, world.app)
    assert bus.names(run.id).count("Crashed") == 1


def test_the_end_of_an_attempt_is_told_as_surely_as_that_of_a_run(world: World, bus: Bus) -> None:
    world.deploy(
        "odd", job_variables={"exit_code": 3}, retries=RetryPolicy(attempts=2, on=("exit",), backoff_seconds=5)
    )
    run = run_deployment(world.app, "odd").run
    world.pass_time(200)
    awaiting, *_ = (event for event in bus.events if event.to.name == "AwaitingRetry")
    assert (awaiting.attempt, awaiting.failure_class) == (1, "exit")
    final = bus.events[-1]
    assert (final.to.name, final.attempt, final.failure_class) == ("Failed", 2, "exit")
    assert bus.names(run.id).count("AwaitingRetry") == 1
    assert world.get(run).phase is Phase.SETTLED


def test_a_cancelled_run_and_one_that_is_run_again(world: World, bus: Bus) -> None:
    run = trigger(world)
    cancel_run(run.id, world.app, by="test")
    again = retry_run(world.app, str(run.id))
    assert bus.names(run.id) == ["Scheduled", "Cancelled"]
    assert bus.names(again.id) == ["Scheduled"]


def test_a_record_that_changes_within_a_state_tells_nothing(world: World, bus: Bus) -> None:
    run = trigger(world)
    count = len(bus.events)
    change(world.app, world.get(run), lambda r: r.noted(world.clock.now(), "looked at"))
    assert len(bus.events) == count


def test_a_lost_answer_tells_the_same_event_with_the_same_sequence(world: World, bus: Bus) -> None:
    """Publishing twice is allowed; the sequence shows that it is one event."""
    run = trigger(world)
    world.pass_time(5)
    publish = bus.publish

    def lose(event: RunStateChanged) -> None:
        publish(event)
        if event.to.type == "COMPLETED" and sum(each == event for each in bus.events) == 1:
            raise NotPublished("the answer was lost")

    bus.publish = lose  # type: ignore[method-assign]
    world.pass_time(200)
    told = [event for event in bus.events if event.run_id == run.id and event.to.name == "Completed"]
    assert len(told) == 2
    assert len({event.sequence for event in told}) == 1
