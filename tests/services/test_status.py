"""A pool's status, and the notes of the service's parts that it follows from."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from push_pools.domain.errors import PlatformMissing, StoreUnavailable
from push_pools.domain.pools import WorkPool
from push_pools.domain.status import Beat, Part, PoolState
from push_pools.services.catalogue import delete_work_pool
from push_pools.services.status import age_text, beat, last_beat, pool_status
from tests.world import World


@pytest.fixture
def world() -> World:
    world = World()
    world.tick()
    return world


def change(world: World, **fields: Any) -> WorkPool:
    pool = world.store.get(WorkPool, "local")
    assert pool is not None
    return world.store.put(pool.model_copy(update=fields))


def template(world: World, **configuration: Any) -> WorkPool:
    job = {**world.pool.base_job_template["job_configuration"], **configuration}
    return change(world, base_job_template={**world.pool.base_job_template, "job_configuration": job})


def test_a_pool_that_is_served_is_ready(world: World) -> None:
    """And tells when it was ticked for, swept, submitted to and polled."""
    began = world.clock.now()
    world.trigger()
    world.pass_time(30)
    status = pool_status(world.app, world.pool)
    assert (status.state, status.reason) == (PoolState.READY, "")
    assert status.last_tick == began
    assert status.last_submit is not None
    assert status.last_sweep is not None
    assert status.last_poll is not None
    assert status.as_listed() == {"status": "READY", "status_reason": ""}
    assert status.as_inspected()["last_submit"] == status.last_submit.isoformat()


def test_a_pool_whose_variables_need_a_value_is_ready(world: World) -> None:
    """Deployments give it."""
    variables = {**world.pool.base_job_template["variables"], "required": ["command"]}
    pool = change(world, base_job_template={**world.pool.base_job_template, "variables": variables})
    assert pool_status(world.app, pool).state is PoolState.READY


def test_a_pool_that_nobody_ticks_for_is_not_ready() -> None:
    """After three minutes, or if nobody ever did; the reason says what to do."""
    world = World()
    status = pool_status(world.app, world.pool)
    assert status.state is PoolState.NOT_READY
    assert "never ticked; start `push-pools serve`" in status.reason
    world.tick()
    world.advance(180)
    assert pool_status(world.app, world.pool).state is PoolState.READY
    world.advance(1)
    assert "not ticked for 3 min" in pool_status(world.app, world.pool).reason


@pytest.mark.parametrize(
    ("configuration", "say"),
    [
        ({"env": {"A": "{{ blocks.secret.gone }}"}}, "secret"),
        ({"seconds": "soon"}, "seconds"),
        ({"exit_code": {"$ref": "#/definitions/none"}}, "ref"),
    ],
)
def test_a_template_that_does_not_render_with_its_defaults_is_named(
    world: World, configuration: dict[str, Any], say: str
) -> None:
    status = pool_status(world.app, template(world, **configuration))
    assert status.state is PoolState.NOT_READY
    assert say in status.reason


def test_a_platform_that_cannot_be_loaded_is_named(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(type_: str) -> Any:
        raise PlatformMissing(type_, "the module 'x' is not installed", fix="pip install x")

    monkeypatch.setattr(type(world.app.platforms), "__call__", lambda self, type_: missing(type_))
    assert "pip install x" in pool_status(world.app, world.pool).reason


def test_a_paused_pool_says_so_first(world: World) -> None:
    """With its note."""
    world.advance(10**6)
    status = pool_status(world.app, change(world, is_paused=True, pause_note="freeze"))
    assert (status.state, status.reason) == (PoolState.PAUSED, "freeze")


def test_a_beat_is_written_every_few_seconds_at_most(world: World) -> None:
    world.calls.clear()
    began = world.clock.now()
    for _ in range(100):
        world.advance(0.25)
        beat(world.app, Part.POLL, "local")
    found = world.store.get(Beat, "poll/local")
    assert found is not None
    assert found.version == 3
    assert found.updated_at == began + timedelta(seconds=20.25)


def test_a_beat_that_cannot_be_written_stops_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tick goes on, and the next one notes itself."""

    def full(record: object) -> None:
        raise StoreUnavailable("the disk is full")

    run = world.trigger()
    before = last_beat(world.app, Part.TICK)
    with monkeypatch.context() as patch:
        patch.setattr(world.store, "put", full)
        world.advance(60)
        world.tick()
    assert last_beat(world.app, Part.TICK) == before
    world.pass_time(90)
    assert world.get(run).state.name == "Completed"
    assert last_beat(world.app, Part.TICK) != before


def test_a_deleted_pool_leaves_no_beats(world: World) -> None:
    world.trigger()
    world.pass_time(30)
    world.store.delete(world.deployment)
    delete_work_pool(world.app, "local")
    assert {record.key for record in world.store.list(Beat)} == {"tick", "sweep/fake"}


@pytest.mark.parametrize(
    ("seconds", "text"), [(3, "3 s"), (119, "119 s"), (185, "3 min"), (7300, "2 h"), (3 * 86400, "3 d")]
)
def test_ages_are_short(seconds: float, text: str) -> None:
    assert age_text(seconds) == text
