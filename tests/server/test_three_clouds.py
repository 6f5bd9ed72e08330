"""The embedded server on three clouds at once: the example of it, on doubles that each have their own socket."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from push_pools.bootstrap import Embedded, embedded
from push_pools.cli.doubles import Doubles, doubles
from push_pools.ports import RunFilter
from push_pools.server.embedded import EmbeddedServer
from push_pools.services.config_file import parse_config
from push_pools.services.deploy import apply, plan_deploy
from push_pools.services.runs import run_deployment
from push_pools.services.stop import cancel_run
from push_pools.settings import Settings
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

    from push_pools.domain.runs import FlowRun

EXAMPLE = Path(__file__).parents[2] / "examples" / "three-clouds.yaml"
CLOUDS = ("aws", "google", "azure")


class World(NamedTuple):
    """A served home, and the clouds it sends jobs to."""

    home: Embedded
    clouds: Doubles

    def deploy(self, text: str) -> None:
        apply(self.home.app, plan_deploy(self.home.app, parse_config(text, "three-clouds.yaml")))

    def run(self, cloud: str) -> UUID:
        return run_deployment(self.home.app, f"report/on-{cloud}").run.id

    def get(self, run_id: UUID) -> FlowRun:
        return self.home.app.store.get_run(run_id)

    def started(self) -> dict[str, list[str]]:
        """Return the jobs that each cloud has really started."""
        assert self.clouds.cloud_run is not None
        assert self.clouds.aci is not None
        return {
            "aws": [str(task.client_token) for task in self.clouds.ecs.started],
            "google": [each.job_id for each in self.clouds.cloud_run.started],
            "azure": [each.name for each in self.clouds.aci.started],
        }

    def costing(self) -> list[str]:
        """Return the jobs that still cost something, in whichever cloud."""
        assert self.clouds.cloud_run is not None
        assert self.clouds.aci is not None
        return [*self.clouds.ecs.running(), *self.clouds.cloud_run.running(), *self.clouds.aci.alive()]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with doubles(seconds=0.2) as clouds, embedded(Settings.from_environ(_environment(tmp_path))) as home:
        server = EmbeddedServer(home)
        server.start()
        try:
            yield World(home, clouds)
        finally:
            server.stop()


def _environment(home: Path) -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if name.endswith("_ENDPOINT")}
    return {**ours, "PUSH_POOLS_HOME": str(home), "PUSH_POOLS_SWEEP_SECONDS": "0.2", "PUSH_POOLS_TICK_SECONDS": "1"}


def test_one_schedule_on_each_cloud_runs_to_its_end(world: World) -> None:
    """Each run is one job in its own cloud, and is observed to its end."""
    text = EXAMPLE.read_text(encoding="utf-8")
    world.deploy(text.replace("interval: 1m", "interval: 2s").replace("sleep 2", "sleep 0.2"))

    def over() -> list[FlowRun]:
        return [*world.home.app.store.runs(RunFilter(states=frozenset({"Completed"}))).runs]

    until(lambda: {run.work_pool for run in over()} == set(CLOUDS), seconds=60)

    started = world.started()
    for run in over():
        assert started[run.work_pool].count(run.job_key) == 1
        assert run.state.exit_code == 0


@pytest.mark.parametrize("cloud", CLOUDS)
@pytest.mark.parametrize("phase", ["Scheduled", "Submitted", "Running"])
def test_a_cancelled_run_leaves_no_job_at_its_cloud(world: World, cloud: str, phase: str) -> None:
    """Whatever phase the cancel comes in."""
    text = EXAMPLE.read_text(encoding="utf-8").replace("sleep 2", "sleep 600").replace("overlap: skip", "active: false")
    world.deploy(text)
    if phase == "Scheduled":
        due = world.home.app.clock.now() + timedelta(hours=1)
        run_id = run_deployment(world.home.app, f"report/on-{cloud}", scheduled_time=due).run.id
    else:
        run_id = world.run(cloud)
    reached = {"Scheduled": {"Scheduled"}, "Submitted": {"Submitted", "Running"}, "Running": {"Running"}}[phase]
    until(lambda: world.get(run_id).state.name in reached, seconds=60)

    cancel_run(run_id, world.home.app, by="test")
    until(lambda: world.get(run_id).is_final, seconds=60)

    run = world.get(run_id)
    assert run.state.name == "Cancelled"
    assert len(world.started()[cloud]) == (0 if phase == "Scheduled" else 1)
    until(lambda: not world.costing(), seconds=60)
