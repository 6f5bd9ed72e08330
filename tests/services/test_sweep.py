"""Sweeps that take longer than their invocation, and that meet with trouble on the way."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from push_pools.domain.errors import StoreUnavailable
from push_pools.domain.events import Sweep, parse_event
from push_pools.domain.runs import FlowRun, Phase
from push_pools.ports import Invocation
from push_pools.services import poll
from push_pools.services import sweep as sweeps
from push_pools.services.handle import handle_message
from push_pools.services.sweep import sweep
from tests.world import World

if TYPE_CHECKING:
    from collections.abc import Sequence

    from push_pools.domain.runs import JobHandle

JOBS = 250


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def looked(world: World, monkeypatch: pytest.MonkeyPatch) -> list[FlowRun]:
    """Start many jobs, and return the list of those that are looked at from then on."""
    for _ in range(JOBS):
        world.trigger(job_variables={"seconds": 10**6})
    world.drain()
    world.sweep()
    looked: list[FlowRun] = []
    apply = poll.apply_observation

    def noted(run: FlowRun, *rest: Any) -> FlowRun:
        looked.append(run)
        return apply(run, *rest)

    monkeypatch.setattr(sweeps, "apply_observation", noted)
    return looked


def slow(world: World, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let every question take its time."""
    observe = world.platform.observe

    def observe_slowly(handles: Sequence[JobHandle]) -> Any:
        world.advance(seconds)
        return observe(handles)

    monkeypatch.setattr(world.platform, "observe", observe_slowly)


def test_a_sweep_whose_time_is_over_is_gone_on_with_by_a_message(
    world: World, looked: list[FlowRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind the last job that was looked at: each has its turn, once."""
    slow(world, monkeypatch, 1.0)
    until = world.real_clock.now() + timedelta(seconds=1.5)
    assert sweep("fake", world.app, until=until) == 101  # What was asked for before it was over is made use of.
    (delivery,) = world.queue.receive(10, 90.0)
    event = parse_event(delivery.body).event
    assert isinstance(event, Sweep)
    assert event.after is not None
    assert sweep("fake", world.app, after=event.after) == JOBS - 101
    assert len({run.id for run in looked}) == len(looked) == JOBS
    assert world.queue.depth() == 1  # Nothing more to go on with.


def test_no_batch_is_asked_about_when_the_time_is_over(
    world: World, looked: list[FlowRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer would come after the deadline, and be of use to nobody."""
    asked: list[int] = []
    observe, apply = world.platform.observe, poll.apply_observation

    def observe_counted(handles: Sequence[JobHandle]) -> Any:
        asked.append(len(handles))
        return observe(handles)

    def look_slowly(run: FlowRun, *rest: Any) -> Any:
        world.advance(0.01)
        return apply(run, *rest)

    monkeypatch.setattr(world.platform, "observe", observe_counted)
    monkeypatch.setattr(sweeps, "apply_observation", look_slowly)
    assert sweep("fake", world.app, until=world.real_clock.now() + timedelta(seconds=0.995)) == 100
    assert asked == [100]


def test_a_handler_ends_its_sweep_before_its_deadline(
    world: World, looked: list[FlowRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With time left for what was begun, invocation after invocation, until all were looked at."""
    seconds = world.app.timing.spare_seconds + 5.0
    slow(world, monkeypatch, 8.0)
    world.queue.send(Sweep(platform="fake").to_json())
    invocations = 0
    while deliveries := world.queue.receive(1, 900.0):
        began = world.real_clock.now()
        invocation = Invocation(f"poll-{invocations}", began + timedelta(seconds=seconds))
        handle_message(deliveries[0].body, deliveries[0].id, world.app, invocation)
        world.queue.ack(deliveries[0])
        assert world.real_clock.now() - began < timedelta(seconds=seconds)
        invocations += 1
    assert invocations > 1
    assert {run.id for run in looked} == {run.id for run in world.runs()}


def test_a_sweep_that_comes_late_gets_on_all_the_same(world: World, looked: list[FlowRun]) -> None:
    """Even an invocation whose time is over when it has listed the jobs looks at one: else none would ever end."""
    assert sweep("fake", world.app, until=world.real_clock.now()) == 1
    for _ in range(3):
        (delivery,) = world.queue.receive(1, 90.0)
        event = parse_event(delivery.body).event
        assert isinstance(event, Sweep)
        assert sweep("fake", world.app, after=event.after, until=world.real_clock.now()) == 1
    assert len({run.id for run in looked}) == 4


def test_a_run_that_cannot_be_written_keeps_nobody_waiting(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next sweep looks at it again; those behind it have their turn in this one."""
    runs = [world.trigger() for _ in range(5)]
    world.drain()
    world.advance(11)
    save = world.store.save
    first = min(runs, key=lambda run: str(run.id))

    def refuse_one(before: FlowRun, after: FlowRun, **options: Any) -> FlowRun:
        if before.id == first.id:
            raise StoreUnavailable("throttled")
        return save(before, after, **options)

    with monkeypatch.context() as patched:
        patched.setattr(world.store, "save", refuse_one)
        assert sweep("fake", world.app) == 5
    assert [run.id for run in runs if not world.get(run).is_final] == [first.id]
    world.sweep()
    assert world.get(first).is_final


def test_credentials_that_cannot_be_read_now_leave_deadlines_alone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are kept in the ledger. A run whose time is over is stopped all the same."""
    world.deploy("short", timeout_seconds=60)
    run = world.trigger("report/short", job_variables={"seconds": 10**6})
    world.drain()
    world.sweep()
    observe = world.platform.observe
    asked: list[int] = []

    def fail_once(handles: Sequence[JobHandle]) -> Any:
        asked.append(len(handles))
        if len(asked) == 1:
            raise StoreUnavailable("the ledger cannot be read")
        return observe(handles)

    monkeypatch.setattr(world.platform, "observe", fail_once)
    world.advance(100)
    world.sweep()
    assert asked[0] == 1
    assert world.get(run).phase is Phase.STOPPING
