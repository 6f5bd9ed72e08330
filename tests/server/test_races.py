"""Eight real processes on one database, racing for the same runs."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from push_pools.bootstrap import Embedded, embedded
from push_pools.domain.config import DeploymentSpec
from push_pools.domain.events import hint
from push_pools.ports import Invocation, RunFilter
from push_pools.services.catalogue import create_work_pool
from push_pools.services.deploy import put_deployment
from push_pools.services.handle import handle_message
from push_pools.services.runs import run_deployment
from push_pools.services.sweep import sweep
from push_pools.settings import Settings
from push_pools.testing.ecs_double import EcsDouble

if TYPE_CHECKING:
    from push_pools.domain.runs import FlowRun

PROCESSES, RUNS, COPIES = 8, 60, 3
SECONDS = 60.0


def work(home: str, name: str) -> None:
    """What each process does: take messages and handle them, until every run is final."""
    with embedded(Settings(home=Path(home))) as opened:
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            for delivery in opened.queue.receive(3, 90.0):
                deadline = opened.app.real_clock.now() + timedelta(seconds=60)
                handle_message(delivery.body, delivery.id, opened.app, Invocation(f"{name}/{delivery.id}", deadline))
                opened.queue.ack(delivery)
            if all(run.is_final for run in runs_of(opened)):
                return
            sweep("ecs:push", opened.app)
    raise AssertionError("not all runs are final")


def runs_of(opened: Embedded) -> list[FlowRun]:
    return list(opened.app.store.runs(RunFilter(), limit=1000).runs)


def test_eight_processes_start_one_task_per_run(tmp_path: Path, aws_environ: dict[str, str]) -> None:
    """Every run's hint is there three times; each run gets one RunTask, one task, and one outcome."""
    with EcsDouble(latency_seconds=0.005) as ecs, embedded(Settings(home=tmp_path)) as opened:
        variables = {
            "image": "acme/report:1",
            "execution_role_arn": "arn:aws:iam::123456789012:role/run",
            "network_configuration": {"awsvpcConfiguration": {"subnets": ["subnet-1"]}},
        }
        create_work_pool(opened.app, "ecs", "ecs:push", variables=variables)
        spec = {"name": "report", "command": "true", "work_pool": {"name": "ecs"}}
        put_deployment(opened.app, DeploymentSpec.model_validate(spec))
        runs = [run_deployment(opened.app, "report").run for _ in range(RUNS)]
        for run in runs * (COPIES - 1):
            opened.queue.send(hint("submit", run.id))
        code = f"from {__name__} import work; import sys; work(*sys.argv[1:])"
        environ = {**aws_environ, "AWS_ENDPOINT_URL_ECS": ecs.endpoint}
        workers = [
            subprocess.Popen([sys.executable, "-c", code, str(tmp_path), f"worker-{n}"], env=environ)
            for n in range(PROCESSES)
        ]
        assert [worker.wait(SECONDS + 30) for worker in workers] == [0] * PROCESSES
        final = runs_of(opened)
        assert Counter(run.state.name for run in final) == {"Completed": RUNS}
        assert ecs.calls["RunTask"] == len(ecs.started) == RUNS
        assert ecs.calls["RegisterTaskDefinition"] <= PROCESSES  # Each process may ask once; one definition is used.
        assert len({task.task_definition_arn for task in ecs.started}) == 1
