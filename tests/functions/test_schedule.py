"""The tick of the AWS hosting: what it sends, and what becomes of it when it is cut short."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, cast

import pytest

from push_pools.domain.errors import StoreUnavailable
from push_pools.domain.events import hint
from push_pools.domain.runs import Phase
from push_pools.functions import schedule
from push_pools.queues.sqs import SqsQueue
from push_pools.services.ledger import change
from push_pools.services.runs import run_deployment
from tests.functions.context import Context
from tests.functions.hosts import use
from tests.world import World

if TYPE_CHECKING:
    from collections.abc import Sequence


class Queue(SqsQueue):
    """Keeps the batches that were sent, or fails."""

    def __init__(self) -> None:
        super().__init__(cast("Any", None), "x-")
        self.batches: list[list[str]] = []
        self.is_away = False

    def send_all(self, messages: Sequence[tuple[str, float]]) -> None:
        if self.is_away:
            raise StoreUnavailable("SQS is away")
        self.batches.append([body for body, _ in messages])


@pytest.fixture
def queue() -> Queue:
    return Queue()


@pytest.fixture
def world(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> World:
    world = World()
    use(monkeypatch, schedule, dataclasses.replace(world.app, queue=queue, acting=frozenset()))
    return world


def tick() -> Any:
    return schedule.handler({}, cast("Any", Context(function_name="schedule")))


def test_overdue_runs_get_hints_and_active_platforms_a_sweep(world: World, queue: Queue) -> None:
    active = run_deployment(world.app, "hourly").run
    world.drain()
    assert world.get(active).phase is Phase.STARTED
    late = [run_deployment(world.app, "hourly").run for _ in range(3)]
    world.advance(120)
    assert tick() == {"overdue": 3, "sweeps": 1}
    (batch,) = queue.batches
    assert sorted(batch[:-1]) == sorted(hint("submit", run.id, "fake") for run in late)
    assert batch[-1] == '{"version":1,"type":"sweep","platform":"fake"}'


def test_without_active_jobs_nobody_is_asked_to_look(world: World, queue: Queue) -> None:
    assert tick() == {"overdue": 0, "sweeps": 0}
    assert not queue.batches


def test_a_tick_that_is_cut_short_sends_what_it_has_decided(
    world: World, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ledger says by then that the hints were sent."""
    run = run_deployment(world.app, "hourly").run
    world.advance(120)

    def away() -> None:
        raise StoreUnavailable("the ledger is away")

    monkeypatch.setattr(world.store, "active_platforms", away)
    with pytest.raises(StoreUnavailable):
        tick()
    assert queue.batches == [[hint("submit", run.id, "fake")]]


def test_a_queue_that_is_away_is_an_error_and_the_next_ticks_make_good(world: World, queue: Queue) -> None:
    run = run_deployment(world.app, "hourly").run
    change(world.app, world.get(run), lambda r: r.noted(world.clock.now(), "x"))
    world.advance(120)
    queue.is_away = True
    with pytest.raises(StoreUnavailable):
        tick()
    queue.is_away = False
    world.advance(200)
    assert tick()["overdue"] == 1
    assert queue.batches == [[hint("submit", run.id, "fake")]]
