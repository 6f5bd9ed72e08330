"""What has a limit on Cloud Run: writes, jobs that are left behind, and the guarantee itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from push_pools.domain.findings import Level
from push_pools.domain.runs import Phase
from push_pools.services.doctor import CHECKS, Patient, examine
from push_pools.services.explain import explain_run
from push_pools.testing.cloud_run_double import Fault, PerMinute

from .test_cloud_run_service import VARIABLES, CloudRunServiceWorld, trigger

if TYPE_CHECKING:
    from collections.abc import Iterator

    from push_pools.domain.findings import Finding


@pytest.fixture
def world() -> Iterator[CloudRunServiceWorld]:
    world = CloudRunServiceWorld(default_seconds=20.0)
    yield world
    world.close()


def test_why_tells_that_a_run_waits_for_the_quota_of_writes(world: CloudRunServiceWorld) -> None:
    world.double.model.rules.writes = PerMinute(60)
    world.use({"cloud_run_endpoint": world.double.endpoint})
    runs = [trigger(world) for _ in range(10)]
    world.drain()
    held = next(run for each in runs if (run := world.get(each)).phase is Phase.READY)

    story = explain_run(held, world.clock.now())

    allows = "pacing: cloud-run/CreateJob/acme/europe-west1 allows 25 calls a minute"
    assert story.waits_for == f"its time, {held.due_at.isoformat()} ({allows})"
    assert story.lines[-1].text.startswith("waits for its turn, until ")
    assert story.lines[-1].text.endswith("allows 25 calls a minute")
    assert story.advice == "", "nothing has to be done"
    world.settle()


def test_jobs_that_cannot_be_deleted_for_hours_never_fill_the_region_for_good(world: CloudRunServiceWorld) -> None:
    """Each run goes on trying to delete its job: once it can, all are gone, and runs that found no room have run."""
    world.double.model.rules.max_jobs = 30
    world.double.faults.when(lambda method, _: Fault.access_denied() if method == "DeleteJob" else None)
    runs = []
    for _ in range(6):
        runs += [trigger(world) for _ in range(5)]
        world.pass_time(600, step=60)
    late = trigger(world)
    world.pass_time(60)
    assert len(world.double.model.jobs) == 30, "the region is full of jobs that are over"
    assert "total allowed count of jobs" in world.get(late).state.message

    world.double.faults.clear()
    world.settle(3 * 3600)

    assert [world.get(run).state.name for run in [*runs, late]] == ["Completed"] * 31
    assert set(world.per_attempt().values()) == {1}
    assert not world.double.model.jobs
    assert all(world.get(run).phase is Phase.SETTLED for run in runs)


def look(world: CloudRunServiceWorld) -> list[Finding]:
    return examine(Patient(world.app, world.clock.now()), {"guarantee": CHECKS["guarantee"]})


def test_doctor_flags_what_lets_an_attempt_run_twice(world: CloudRunServiceWorld) -> None:
    (fine,) = look(world)
    assert (fine.level, fine.found) == (Level.OK, "an attempt runs its code once, in 1 deployment")
    world.deploy("safe", job_variables=VARIABLES)
    world.deploy("risky", job_variables={**VARIABLES, "max_retries": 2})

    (found,) = look(world)

    assert found.level is Level.WARN
    assert found.found.startswith("deployment 'report/risky': max_retries is 2: Cloud Run may run your code more than")
    assert "safe" not in found.found
    assert "take the variable back" in found.fix


def test_doctor_flags_the_default_of_a_pool_for_all_that_use_it(world: CloudRunServiceWorld) -> None:
    template = world.pool.base_job_template
    properties = template["variables"]["properties"]
    changed = {**properties, "max_retries": {**properties["max_retries"], "default": 1}}
    world.pool = world.store.put(
        world.pool.model_copy(
            update={
                "base_job_template": {**template, "variables": {**template["variables"], "properties": changed}},
            }
        )
    )

    (found,) = look(world)

    assert found.found.startswith("work pool 'local', deployment 'report/")
    assert "max_retries is 1" in found.found


def test_a_pool_that_cannot_be_rendered_does_not_stop_the_check(world: CloudRunServiceWorld) -> None:
    world.deploy("risky", job_variables={**VARIABLES, "max_retries": 2})
    world.deploy("broken", job_variables={"max_retries": "many"})

    (found,) = look(world)

    assert found.level is Level.WARN
    assert "broken" not in found.found
