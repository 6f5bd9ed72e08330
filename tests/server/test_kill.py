"""`kill -9` of the server at random moments: after a restart nothing is lost, and nothing runs twice."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from push_pools.bootstrap import Embedded, embedded
from push_pools.domain.config import DeploymentSpec
from push_pools.ports import RunFilter
from push_pools.services.catalogue import create_work_pool
from push_pools.services.deploy import put_deployment
from push_pools.services.runs import run_deployment
from push_pools.settings import Settings
from tests.waiting import until

if TYPE_CHECKING:
    from pathlib import Path

    from push_pools.domain.runs import FlowRun

MAIN = [sys.executable, "-m", "push_pools.cli.main"]


class Home:
    """A home with a pool of local processes, whose jobs append their run and attempt to a file."""

    def __init__(self, path: Path) -> None:
        self.path, self.witness = path / "home", path / "witness"
        self.witness.touch()
        self.environ = {**os.environ, "PUSH_POOLS_HOME": str(self.path), "PUSH_POOLS_SWEEP_SECONDS": "0.5"}

    def settings(self) -> Settings:
        return Settings(home=self.path)

    def deploy(self, opened: Embedded) -> None:
        create_work_pool(opened.app, "local", "process")
        command = ["sh", "-c", f'echo "$PUSH_POOLS_RUN_ID/$PUSH_POOLS_ATTEMPT" >> {self.witness}; sleep 0.1']
        spec = {"name": "job", "command": command, "work_pool": {"name": "local"}}
        put_deployment(opened.app, DeploymentSpec.model_validate(spec))

    def serve(self, *options: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*MAIN, "serve", *options], env=self.environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def executions(self) -> Counter[str]:
        return Counter(self.witness.read_text().split())


def runs_of(opened: Embedded) -> list[FlowRun]:
    return list(opened.app.store.runs(RunFilter(), limit=1000).runs)


def kill_again_and_again(tmp_path: Path, kills: int, seed: int) -> None:
    chance, home = random.Random(seed), Home(tmp_path)
    with embedded(home.settings()) as opened:
        home.deploy(opened)
        for _ in range(kills):
            server = home.serve()
            try:
                for _ in range(chance.randint(3, 8)):
                    run_deployment(opened.app, "job")
                    time.sleep(chance.random() * 0.05)
                before = sum(run.is_final for run in runs_of(opened))
                if chance.random() < 0.7:  # Kill it while it works, not while it starts.
                    until(lambda before=before: sum(run.is_final for run in runs_of(opened)) > before)  # type: ignore[misc]
                time.sleep(chance.random() * 0.2)
            finally:
                server.send_signal(signal.SIGKILL)
                server.wait()
        assert home.serve("--until-idle", "--for", "60s").wait(90) == 0
        runs = runs_of(opened)
    assert {run.state.name for run in runs} == {"Completed"}
    assert home.executions() == Counter(f"{run.id}/1" for run in runs)


def test_a_killed_server_loses_nothing_and_doubles_nothing(tmp_path: Path) -> None:
    """Eight kills, at moments of a fixed seed."""
    kill_again_and_again(tmp_path, 8, seed=20261121)


@pytest.mark.prove
@pytest.mark.timeout(3300)
def test_fifty_kills(tmp_path: Path) -> None:
    """Fifty kills, at moments that are new each time; the seed is printed."""
    seed = int(os.environ.get("SEED", str(time.time_ns() % 10**9)))
    print(f"seed {seed}")
    kill_again_and_again(tmp_path, 50, seed)
