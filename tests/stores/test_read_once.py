"""Reads of the catalogue are kept until something is written, and no longer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

import pytest

from push_pools.domain.deployments import Deployment
from push_pools.domain.pools import WorkPool
from push_pools.services.catalogue import update_work_pool
from push_pools.services.runs import run_deployment
from push_pools.stores.read_once import ReadOnce
from tests.world import World

if TYPE_CHECKING:
    from collections.abc import Callable


class Counting:
    """Counts what is read of a store."""

    def __init__(self, store: Any) -> None:
        self._store, self.reads = store, 0

    def get(self, kind: Any, key: str) -> Any:
        self.reads += 1
        return self._store.get(kind, key)

    def find(self, kind: Any, id_: Any) -> Any:
        self.reads += 1
        return self._store.find(kind, id_)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def counting(world: World) -> Counting:
    return Counting(world.store)


@pytest.fixture
def store(counting: Counting) -> Any:
    return ReadOnce(cast("Any", counting))


def test_a_record_is_read_once(world: World, store: Any, counting: Counting) -> None:
    for _ in range(3):
        assert store.get(WorkPool, "local").name == "local"
        assert store.find(Deployment, world.deployment.id).name == "hourly"
        assert store.get(WorkPool, "nope") is None
        assert store.recall("x") is None
    assert counting.reads == 3


WRITES: dict[str, Callable[[World, Any], Any]] = {
    "save": lambda world, store: store.save(
        run := run_deployment(world.app, "hourly").run, run.noted(world.clock.now(), "x")
    ),
    "put_run": lambda world, store: store.put_run(
        run_deployment(world.app, "hourly").run.evolve(id=uuid4(), version=0)
    ),
    "get_run": lambda world, store: store.get_run(run_deployment(world.app, "hourly").run.id),
    "put": lambda world, store: store.put(store.get(WorkPool, "local")),
    "remember": lambda world, store: store.remember("a", "b"),
    "limit_of": lambda world, store: store.limit_of("POOL#local"),
    "list": lambda world, store: store.list(WorkPool),
}


@pytest.mark.parametrize("name", WRITES)
def test_after_anything_else_it_is_read_anew(world: World, store: Any, name: str) -> None:
    assert store.get(WorkPool, "local").description == ""
    update_work_pool(world.app, "local", description="new")
    assert store.get(WorkPool, "local").description == ""
    if name == "put":
        from push_pools.domain.errors import VersionConflict

        with pytest.raises(VersionConflict):
            WRITES[name](world, store)
    else:
        WRITES[name](world, store)
    assert store.get(WorkPool, "local").description == "new"


def test_the_rest_is_the_store_s_own(world: World, store: Any) -> None:
    assert store.ledger_id == world.store.ledger_id
    assert store.due(world.clock.now()) == world.store.due(world.clock.now())
