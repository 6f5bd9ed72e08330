"""The whole service on ECS: whatever goes wrong with calls, each attempt has one task and each run an end."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

import pytest

from push_pools.domain.pools import WorkPool
from push_pools.domain.states import StateType
from push_pools.platforms.ecs import EcsPlatform
from push_pools.ports import PlatformContext
from push_pools.services.stop import cancel_run
from push_pools.services.sweep import sweep
from push_pools.testing.ecs_double import CAPACITY, EcsDouble, Fault, LifecycleTimes
from tests.world import OnePlatform, World

from .ecs_world import SUBNETS, TEMPLATE, environment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from push_pools.domain.runs import FlowRun

VARIABLES: dict[str, Any] = {"image": "acme/report:7", "network_configuration": SUBNETS}
FAULTS = [
    Fault.accept_then_drop(),
    Fault.drop_before(),
    Fault.cut_answer(),
    Fault.malformed(),
    Fault.server_error(),
    Fault.server_error(effect=True),
    Fault.throttle(),
    Fault.wrapped_throttle(),
    Fault.expired_credentials(),
    Fault.failures(),
    Fault.failures(CAPACITY),
    Fault.lying_failures(),
]


class EcsServiceWorld(World):
    """The service, with ECS in place of the fake platform."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, store: Any = None, **options: Any) -> None:
        super().__init__(store=store)
        self.double = EcsDouble(clock=self.clock, times=LifecycleTimes(2, 3, 1, 2), **options).start()
        for name, value in environment(self.double.endpoint).items():
            monkeypatch.setenv(name, value)
        self.ecs = EcsPlatform(PlatformContext(lambda _: None, {}, self.clock, self.clock))
        self.app = replace(self.app, platforms=OnePlatform(cast(Any, self.ecs)))
        now = self.clock.now()
        self.store.delete(self.pool)
        self.pool = self.store.put(
            WorkPool(
                id=uuid4(), name="local", type="ecs:push", base_job_template=TEMPLATE, created_at=now, updated_at=now
            )
        )

    def sweep(self) -> None:
        self._guarded(lambda: sweep("ecs:push", self.app))

    def tasks(self, run: FlowRun, attempt: int | None = None) -> int:
        """Return how many tasks were really started for a run, or for one attempt of it."""
        mark = f"pp/{run.id}/" + (str(attempt) if attempt else "")
        return sum((task.started_by or "").startswith(mark) for task in self.double.started)

    def per_attempt(self) -> Counter[str]:
        """Return how many tasks were really started for each attempt."""
        return Counter(task.started_by or "" for task in self.double.started)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[EcsServiceWorld]:
    world = EcsServiceWorld(monkeypatch, default_seconds=20.0, visibility_delay_seconds=2.0)
    yield world
    world.double.close()


def trigger(world: EcsServiceWorld, **variables: Any) -> FlowRun:
    return world.trigger(job_variables={**VARIABLES, **variables})


def test_a_run_is_one_task(world: EcsServiceWorld) -> None:
    run = trigger(world)

    world.settle()

    assert world.get(run).state.type is StateType.COMPLETED
    assert world.tasks(run) == 1
    assert world.double.calls["RunTask"] == world.double.calls["RegisterTaskDefinition"] == 1


def test_a_failure_is_explained(world: EcsServiceWorld) -> None:
    run = trigger(world, command="exit 3")

    world.settle()

    state = world.get(run).state
    assert (state.type, state.exit_code, state.failure_class) == (StateType.FAILED, 3, "exit")


def test_a_cancelled_run_stops_its_task(world: EcsServiceWorld) -> None:
    run = trigger(world, command="sleep 900")
    world.pass_time(30)

    cancel_run(run.id, world.app, by="a test")
    world.settle()

    assert world.get(run).state.type is StateType.CANCELLED
    assert not world.double.running()


def test_a_job_that_runs_too_long_is_stopped_with_that_verdict(world: EcsServiceWorld) -> None:
    run = trigger(world, command="sleep 900", timeout=60)

    world.settle()

    assert world.get(run).state.name == "TimedOut"
    assert not world.double.running()


def test_a_job_without_an_image_fails_with_the_sentence(world: EcsServiceWorld) -> None:
    run = world.trigger(job_variables={"network_configuration": SUBNETS})

    world.settle()

    state = world.get(run).state
    assert (state.failure_class, "image" in state.message) == ("configuration", True)
    assert not world.double.started


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_each_fault_ends_in_one_task(world: EcsServiceWorld, fault: Fault) -> None:
    world.double.faults.add("RunTask", fault)
    run = trigger(world)

    world.settle()

    assert world.get(run).state.type is StateType.COMPLETED
    assert world.per_attempt() == {f"pp/{run.id}/1": 1}


@pytest.mark.parametrize("seed", range(8))
def test_many_runs_with_faults_and_cancels_have_one_task_per_attempt_and_all_end(
    monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    luck = random.Random(seed)
    # Tasks show so late that a repeat comes before anybody can see what the first call started.
    world = EcsServiceWorld(monkeypatch, default_seconds=20.0, visibility_delay_seconds=45.0, seed=seed)
    for fault in FAULTS:
        world.double.faults.chance("RunTask", fault, 0.06)
    for operation in ("ListTasks", "DescribeTasks", "StopTask", "RegisterTaskDefinition"):
        world.double.faults.chance(operation, luck.choice([Fault.access_denied(), Fault.drop_before()]), 0.05)
    runs = [trigger(world, command=luck.choice(["true", "exit 1", "sleep 3600"])) for _ in range(16)]
    for _ in range(12):
        world.crash_at = luck.randrange(60)
        world.pass_time(luck.choice([1, 5, 30]), step=1)
        cancelled = luck.choice(runs)
        if not world.get(cancelled).is_final:
            cancel_run(cancelled.id, world.app, by="chance")
    world.crash_at = None

    world.settle(6 * 3600)

    assert len({call.outcome for call in world.double.log}) > 3, "faults were met"
    assert set(world.per_attempt().values()) <= {1}
    assert all(world.get(run).is_final for run in runs)
    known = {pid for run in runs for pid in pids(world.get(run))}
    assert {f"default::{task.task_arn}" for task in world.double.started} <= known, "no task is an orphan"
    assert not world.double.running()
    world.double.close()


def pids(run: FlowRun) -> Iterator[object]:
    """Yield every job that the ledger has known for a run."""
    yield run.infrastructure_pid
    for entry in run.journal:
        yield entry.facts.get("pid")
