"""Eight real processes on one file, killed and stopped at random moments, and ECS over a socket: the same claims."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from push_pools.bootstrap import Embedded, embedded
from push_pools.clocks import MovableClock
from push_pools.domain.config import DeploymentSpec
from push_pools.domain.errors import PushPoolsError
from push_pools.domain.records import Timing
from push_pools.ports import RunFilter
from push_pools.server.decisions import handle_delivery, sweep_all
from push_pools.services.catalogue import create_work_pool
from push_pools.services.deploy import put_deployment
from push_pools.services.runs import run_deployment
from push_pools.services.stop import cancel_run
from push_pools.services.tick import tick
from push_pools.settings import Settings
from push_pools.testing.ecs_double import EcsDouble, Fault, LifecycleTimes

if TYPE_CHECKING:
    from uuid import UUID

    from push_pools.domain.runs import FlowRun

PROCESSES = 8
SPEED = 30.0
"""How fast the movable clock runs, so that back-off and deadlines pass in seconds."""
TIMING = Timing(
    function_seconds=8,
    call_seconds=4,
    spare_seconds=1,
    claim_margin_seconds=2,
    settle_seconds=6,
    call_backoff_seconds=0.2,
    tick_seconds=30,
    stop_again_seconds=30,
)
"""Claims, calls and settling are on the real clock, and shrunk; all else is on the movable one."""
BEGIN = datetime(2027, 1, 1, tzinfo=UTC)
COMMANDS = {"good": "sleep 20", "bad": "exit 3", "long": "sleep 100000"}
STOPPED_SECONDS = (0.05, 0.5, 2.0, 12.0)


def clock(origin: float) -> MovableClock:
    """Return the movable clock that all processes share: `origin` is when it showed `BEGIN`."""
    return MovableClock(BEGIN + timedelta(seconds=time.time() - origin) * SPEED, speed=SPEED)


def work(home: str, name: str, origin: str) -> None:
    """What each process does until it is killed: take messages, sweep and tick."""
    with embedded(Settings(home=Path(home)), clock=clock(float(origin)), timing=TIMING) as opened:
        app, queue = opened.app, opened.queue
        for number in itertools.count():
            with contextlib.suppress(PushPoolsError):
                for delivery in queue.receive(1, TIMING.function_seconds + 2):
                    handle_delivery(delivery, f"{name}/{delivery.id}.{number}", app, queue)
                if number % 10 == 0:
                    sweep_all(app, 1.0)
                if number % 40 == 0:
                    tick(app)
            queue.wait(0.03, 1 << 60)


class Handlers:
    """The processes, and what is done to them."""

    def __init__(self, home: Path, origin: float, environ: dict[str, str], seed: int) -> None:
        self._home, self._origin, self._environ = home, origin, environ
        self._chance, self._serial = random.Random(seed), itertools.count(1)
        self._running = [self._start() for _ in range(PROCESSES)]
        self._stopped: list[tuple[float, subprocess.Popen[bytes]]] = []
        self.done: Counter[str] = Counter()

    def _start(self) -> subprocess.Popen[bytes]:
        code = f"from {__name__} import work; import sys; work(*sys.argv[1:])"
        name = f"handler-{next(self._serial)}"
        command = [sys.executable, "-c", code, str(self._home), name, str(self._origin)]
        return subprocess.Popen(command, env=self._environ, stderr=subprocess.DEVNULL)

    def trouble(self) -> None:
        """Kill one, or let one stand still for a while."""
        now = time.monotonic()
        for until, process in [each for each in self._stopped if each[0] <= now]:
            self._stopped.remove((until, process))
            process.send_signal(signal.SIGCONT)
        place = self._chance.randrange(PROCESSES)
        process = self._running[place]
        if any(process is each for _, each in self._stopped):
            return
        if self._chance.random() < 0.4:
            process.kill()
            process.wait()
            self._running[place] = self._start()
            self.done["SIGKILL"] += 1
        else:
            process.send_signal(signal.SIGSTOP)
            self._stopped.append((now + self._chance.choice(STOPPED_SECONDS), process))
            self.done["SIGSTOP"] += 1

    def go_on(self) -> None:
        """Let all go on that stand still."""
        for _, process in self._stopped:
            process.send_signal(signal.SIGCONT)
        self._stopped.clear()

    def end(self) -> None:
        self.go_on()
        for process in self._running:
            process.kill()
            process.wait()


def runs_of(opened: Embedded) -> list[FlowRun]:
    return list(opened.app.store.runs(RunFilter(), limit=10_000).runs)


def deploy(opened: Embedded) -> None:
    variables = {
        "image": "acme/report:1",
        "execution_role_arn": "arn:aws:iam::123456789012:role/run",
        "network_configuration": {"awsvpcConfiguration": {"subnets": ["subnet-1"]}},
    }
    create_work_pool(opened.app, "ecs", "ecs:push", variables=variables)
    for name, command in COMMANDS.items():
        spec = {"name": name, "flow_name": "report", "command": command, "work_pool": {"name": "ecs"}}
        put_deployment(opened.app, DeploymentSpec.model_validate({**spec, "timeout_seconds": 400}))


def tell(tmp_path: Path, environ: dict[str, str], runs: int, seed: int, seconds: float) -> None:
    """Trigger runs while processes are killed and stopped; see that each attempt has one task and each run its end."""
    chance, origin = random.Random(seed), time.time()
    shared = clock(origin)
    with (
        EcsDouble(clock=shared, latency_seconds=0.005, times=LifecycleTimes(2, 2, 2, 2), seed=seed) as ecs,
        embedded(Settings(home=tmp_path), clock=shared, timing=TIMING) as opened,
    ):
        for fault in (Fault.accept_then_drop(), Fault.drop_before(), Fault.server_error(), Fault.throttle()):
            ecs.faults.chance("RunTask", fault, 0.03)
        ecs.faults.chance("RunTask", Fault.delay(1.0), 0.02)
        ecs.faults.chance("RunTask", Fault.failures(), 0.03)
        ecs.faults.chance("DescribeTasks", Fault.server_error(), 0.02)
        deploy(opened)
        handlers = Handlers(tmp_path, origin, {**environ, "AWS_ENDPOINT_URL_ECS": ecs.endpoint}, seed)
        cancelled = set()
        end = time.monotonic() + seconds
        try:
            for number in range(runs):
                name = chance.choice(["good", "good", "good", "bad", "long"])
                run = run_deployment(opened.app, f"report/{name}").run
                if chance.random() < 0.1:
                    with contextlib.suppress(PushPoolsError):
                        cancel_run(run.id, opened.app, by="ann")
                        cancelled.add(run.id)
                if number % 3 == 0:
                    handlers.trouble()
                time.sleep(chance.random() * 0.2)
            while time.monotonic() < end and not all(run.is_final for run in runs_of(opened)):
                if chance.random() < 0.2:
                    handlers.trouble()
                time.sleep(0.2)
            handlers.go_on()
            final = runs_of(opened)
            stuck = [(run.phase, run.state.name, run.wake_at) for run in final if not run.is_final]
            assert not stuck, f"seed {seed}: {stuck}"
        finally:
            handlers.end()
        check(final, ecs, cancelled, seed)
        print(f"{runs} runs, {len(ecs.started)} tasks, {dict(handlers.done)}, seed {seed}")
        assert handlers.done["SIGKILL"]
        assert handlers.done["SIGSTOP"]


def check(final: list[FlowRun], ecs: EcsDouble, cancelled: set[UUID], seed: int) -> None:
    """One task per attempt, none left running, and every run shows what became of its task."""
    tasks = Counter(task.started_by for task in ecs.started)
    assert all(count == 1 for count in tasks.values()), f"seed {seed}: {tasks.most_common(3)}"
    assert not ecs.running(), f"seed {seed}"
    wanted = {"good": {"Completed"}, "bad": {"Failed"}, "long": {"TimedOut"}}
    for run in final:
        name = str(run.deployment).partition("/")[2]
        allowed = wanted[name] | ({"Cancelled"} if run.id in cancelled else set())
        why = json.dumps([(str(entry.at), entry.what, entry.facts) for entry in run.journal], default=str, indent=1)
        assert run.state.name in allowed, f"seed {seed}: {name} is {run.state.name} ({run.state.message})\n{why}"
        if run.state.name == "Failed":
            assert run.state.exit_code == 3


@pytest.mark.timeout(300)
def test_eight_handlers_are_killed_and_stopped(tmp_path: Path, aws_environ: dict[str, str]) -> None:
    """Fifty runs, at moments of a fixed seed."""
    tell(tmp_path, aws_environ, 50, seed=20261126, seconds=200)


@pytest.mark.prove
@pytest.mark.timeout(1800)
def test_eight_handlers_at_length(tmp_path: Path, aws_environ: dict[str, str]) -> None:
    """Five hundred runs, at moments that are new each time; the seed is printed."""
    seed = int(os.environ.get("SEED", str(time.time_ns() % 10**9)))
    print(f"seed {seed}")
    tell(tmp_path, aws_environ, 500, seed, seconds=1200)
