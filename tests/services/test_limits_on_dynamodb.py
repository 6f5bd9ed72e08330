"""A limit that appears on a ledger whose lists lag: whoever was active before it is counted, listed yet or not."""

from __future__ import annotations

import pytest

from push_pools.domain.runs import Phase
from push_pools.services.admit import admit, why_waiting
from push_pools.services.catalogue import update_work_pool
from push_pools.stores.dynamodb import DynamoStore
from push_pools.stores.dynamodb_calls import Calls
from push_pools.stores.dynamodb_table import create_table
from push_pools.testing.dynamodb_model import DynamoModel
from tests.world import World

POOL = "POOL#local"


@pytest.fixture
def model() -> DynamoModel:
    model = DynamoModel()
    create_table(model, "ledger")
    return model


@pytest.fixture
def world(model: DynamoModel) -> World:
    return World(store=DynamoStore(Calls(model, "ledger")))


def test_a_run_that_no_list_shows_yet_is_counted(world: World, model: DynamoModel) -> None:
    """It became active a moment before the limit: nobody is admitted until the lists show what was there then."""
    listed = world.trigger()
    world.drain()
    model.index_lag = lambda: 1000  # The indexes show nothing of what is written from here on.
    fresh = world.trigger()
    world.drain()
    update_work_pool(world.app, "local", concurrency_limit=2)
    late = world.trigger()
    world.drain()
    assert world.store.limit_of(POOL).is_counting
    assert why_waiting(world.get(late), world.app) == (
        "work pool 'local' has a new limit, and the runs that were active before are counted first"
    )
    assert [world.get(run).phase for run in (listed, fresh, late)] == [Phase.STARTED, Phase.STARTED, Phase.WAITING]
    model.index_lag = lambda: 0
    world.clock.advance(world.app.timing.list_lag_seconds)
    world.drain()
    assert not world.store.limit_of(POOL).is_counting
    assert world.store.slots(POOL) == (2, frozenset({listed.id, fresh.id}))
    assert world.get(late).phase is Phase.WAITING


def test_whoever_looks_meanwhile_sends_nothing_more(world: World) -> None:
    """One delayed message is enough, whoever asks meanwhile; what was written down for it is gone afterwards."""
    update_work_pool(world.app, "local", concurrency_limit=1)
    run = world.trigger()
    world.drain()
    waiting = world.queue.depth()
    for _ in range(3):
        world.clock.advance(1.0)
        assert admit("local", world.app) == 0
    assert world.queue.depth() == waiting
    world.clock.advance(world.app.timing.list_lag_seconds)
    world.drain()
    assert world.get(run).phase is Phase.STARTED
    assert world.store.recall(f"counting/{POOL}/{world.store.limit_of(POOL).source}") is None


def test_a_lost_message_is_made_good_by_the_tick(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever was to send for the count died first."""
    send = world.queue.send
    lost: list[str] = []

    def lose(body: str, *, delay_seconds: float = 0.0) -> None:
        if delay_seconds:
            lost.append(body)
        else:
            send(body)

    monkeypatch.setattr(world.queue, "send", lose)
    update_work_pool(world.app, "local", concurrency_limit=1)
    run = world.trigger()
    world.drain()
    assert lost
    world.clock.advance(world.app.timing.list_lag_seconds)
    world.tick()
    world.drain()
    assert world.get(run).phase is Phase.STARTED


def test_a_later_limit_waits_anew(world: World, model: DynamoModel) -> None:
    """A limit that was removed and set again has another beginning."""
    update_work_pool(world.app, "local", concurrency_limit=1)
    world.drain()
    world.clock.advance(world.app.timing.list_lag_seconds)
    world.drain()
    update_work_pool(world.app, "local", concurrency_limit=None)
    world.drain()
    model.index_lag = lambda: 1000
    bare = world.trigger()
    world.drain()
    update_work_pool(world.app, "local", concurrency_limit=1)
    late = world.trigger()
    world.drain()
    assert [world.get(run).phase for run in (bare, late)] == [Phase.STARTED, Phase.WAITING]
    model.index_lag = lambda: 0
    world.clock.advance(world.app.timing.list_lag_seconds)
    world.drain()
    assert world.store.slots(POOL) == (1, frozenset({bare.id}))
    assert world.get(late).phase is Phase.WAITING
