"""`push-pools demo`: the service at work in a temporary home, with checks of what it promises.

Local jobs are real processes. The cloud is a double of Amazon ECS in this process, which counts every task.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from push_pools.cli.base import silence, verb
from push_pools.cli.doubles import ecs_double
from push_pools.cli.live import RunsView
from push_pools.cli.output import Styled, print_table, say, state_cell
from push_pools.cli.watch import flush

if TYPE_CHECKING:
    from uuid import UUID

    from push_pools.domain.runs import FlowRun
    from push_pools.ports import App
    from push_pools.testing.ecs_double import EcsDouble, TaskPlan

app = verb()

LONGEST_SECONDS: Final = 18.0
"""A demo that takes longer has broken a promise."""
SWEEP_SECONDS: Final = 0.25
MORE: Final = """
deployments:
  - {name: unlucky, command: sleep 1, work_pool: {name: fargate}, retries: {attempts: 2, backoff: 1s}}
  - {name: endless, command: sleep 600, work_pool: {name: fargate, job_variables: {grace_seconds: 1}}}
"""
"""What the demo deploys beside `examples/quickstart.yaml`, into its pool of ECS tasks."""
RUNS: Final = {
    "hello/hello": ("Completed", 1),
    "fails/fails": ("Failed", 1),
    "flaky/flaky": ("Completed", 2),
    "slow/slow": ("Cancelled", 1),
    "report/report": ("Completed", 1),
    "report/month-end": ("Completed", 1),
    "unlucky/unlucky": ("Completed", 2),
    "endless/endless": ("Cancelled", 1),
}
"""What is run, and the state and number of attempts that it has to end with."""
MANY: Final = {"hello/hello": 3, "report/report": 3}
"""What is run more than once."""


@app.command()
def demo() -> None:
    """Show the service at work, and check its promises, in less than 20 seconds.

    In a temporary home, runs go to local processes and to a double of Amazon ECS: most complete, one fails, two lose
    their machine and are tried again, two are cancelled, and one is asked for twice. Exits 1 if a promise breaks.
    """
    silence()
    with tempfile.TemporaryDirectory(prefix="push-pools-demo-") as home, ecs_double(seconds=0.5, plan=_plan) as ecs:
        broken = _run(Path(home), ecs)
    if broken:
        from push_pools.domain.errors import NotAllowed

        raise NotAllowed(f"the demo broke {len(broken)} of its promises: {'; '.join(broken)}")


def _run(home: Path, ecs: EcsDouble) -> list[str]:
    from push_pools.bootstrap import embedded
    from push_pools.server.embedded import EmbeddedServer
    from push_pools.settings import Settings

    begun = time.monotonic()
    with embedded(Settings(home=home, sweep_seconds=SWEEP_SECONDS)) as opened:
        scene = Scene(opened.app, ecs)
        server = EmbeddedServer(opened)
        server.start()
        try:
            scene.deploy()
            scene.ask_for_runs()
            with RunsView(opened.app, title="push-pools demo") as view:

                def every() -> None:
                    view.update()
                    scene.go_on()

                is_idle = server.run_until_idle(LONGEST_SECONDS, every=every)
        finally:
            server.stop()
        broken = scene.summary(time.monotonic() - begun)
    return broken if is_idle else [*broken, f"it was not done after {LONGEST_SECONDS:g} s"]


# -- what happens


@dataclass
class Scene:
    """What the demo does, and how each run has to end."""

    app: App
    ecs: EcsDouble
    expected: dict[UUID, tuple[str, int]] = field(default_factory=dict)
    """State and number of attempts of each run."""
    to_cancel: set[UUID] = field(default_factory=set)
    """The runs that are cancelled once their jobs run."""

    def deploy(self) -> None:
        """Deploy the quickstart example and what the demo has beside it."""
        from push_pools.services.config_file import parse_config
        from push_pools.services.deploy import apply, plan_deploy

        for text, path in ((quickstart_file().read_text(encoding="utf-8"), "quickstart.yaml"), (MORE, "demo")):
            apply(self.app, plan_deploy(self.app, parse_config(text, path)))

    def ask_for_runs(self) -> None:
        """Put runs into the local pool and the cloud, and deliver one event twice."""
        from push_pools.services.runs import run_deployment

        for deployment, ending in RUNS.items():
            for _ in range(MANY.get(deployment, 1)):
                id_ = run_deployment(self.app, deployment).run.id
                self.expected[id_] = ending
                if ending[0] == "Cancelled":
                    self.to_cancel.add(id_)
        self._send_twice("report/report")

    def _send_twice(self, deployment: str) -> None:
        """Deliver one event of a cloud's scheduler twice, as such schedulers do."""
        from push_pools.domain.runs import run_id
        from push_pools.services.catalogue import find_deployment

        event = {"version": 1, "type": "scheduled-run", "deployment": deployment, "name": "asked-for-twice"}
        envelope = {"id": "demo-event", "detail-type": "Scheduled Event", "source": "demo", "detail": event}
        for _ in range(2):
            self.app.queue.send(json.dumps(envelope))
        self.expected[run_id(find_deployment(self.app, deployment).id, "msg:demo-event")] = ("Completed", 1)

    def go_on(self) -> None:
        """Cancel the runs that would never end, once their jobs run."""
        from push_pools.services.stop import cancel_run

        for id_ in list(self.to_cancel):
            if self.app.store.get_run(id_).state.name == "Running":
                cancel_run(id_, self.app, by="demo", reason="it takes too long")
                self.to_cancel.discard(id_)

    # -- how it went

    def summary(self, seconds: float) -> list[str]:
        """Print how it went, and return the promises that were broken."""
        from push_pools.ports import RunFilter

        runs = sorted(self.app.store.runs(RunFilter()).runs, key=lambda run: run.created_at)
        tasks = self._tasks()
        columns = ("run", "pool", "state", "attempts", "jobs", "due to submitted", "message")
        print_table(columns, [self._row(run, tasks) for run in runs])
        broken = []
        for promise, problem in self._promises(runs, tasks):
            say(f"{'ok    ' if not problem else 'BROKEN'}  {promise}{': ' + problem if problem else ''}")
            if problem:
                broken.append(promise)
        say(f"{len(runs)} runs, {sum(map(_jobs, runs))} jobs, {seconds:.1f} s.")
        flush()
        return broken

    def _row(self, run: FlowRun, tasks: dict[str, int]) -> tuple[object, ...]:
        latency = _latency(run)
        shown = f"{latency * 1000:.0f} ms" if latency is not None else ""
        state = state_cell(run.state.type, run.state.name)
        jobs = sum(tasks.get(_started_by(run, attempt), 0) for attempt in range(1, run.attempt + 1))
        return (
            run.name,
            run.work_pool,
            state,
            run.attempt,
            jobs if run.platform == "ecs:push" else _jobs(run),
            Styled(shown, "dim"),
            run.state.message,
        )

    def _tasks(self) -> dict[str, int]:
        """Return how many tasks the double has really started, by the run and attempt they are for."""
        found: dict[str, int] = {}
        for task in self.ecs.started:
            found[task.started_by or ""] = found.get(task.started_by or "", 0) + 1
        return found

    def _promises(self, runs: list[FlowRun], tasks: dict[str, int]) -> Iterator[tuple[str, str]]:
        """Yield each promise, and what is wrong with it."""
        yield (
            "every run is in a final state",
            _listed(f"{run.name} is {run.state.name}" for run in runs if not run.is_final),
        )
        yield "every run ended as it should", _listed(self._wrong_endings(runs))
        yield (
            "one job per attempt, by the ledger",
            _listed(f"{run.name}: {_jobs(run)} jobs" for run in runs if _jobs(run) != run.attempt),
        )
        attempts = [
            _started_by(run, n) for run in runs if run.platform == "ecs:push" for n in range(1, run.attempt + 1)
        ]
        yield (
            "one task per attempt, by the cloud's own count",
            "" if tasks == dict.fromkeys(attempts, 1) else f"{sum(tasks.values())} tasks for {len(attempts)} attempts",
        )
        yield "an event that came twice is one run", "" if len(runs) == len(self.expected) else f"{len(runs)} runs"
        yield "nothing is left running in the cloud", _listed(self.ecs.running())

    def _wrong_endings(self, runs: list[FlowRun]) -> Iterator[str]:
        found = {run.id: run for run in runs}
        for id_, (state, attempts) in self.expected.items():
            run = found.get(id_)
            if run is None:
                yield f"{id_} is not there"
            elif (run.state.name, run.attempt) != (state, attempts):
                yield f"{run.name} is {run.state.name} after {run.attempt} attempts, not {state} after {attempts}"


def _listed(items: Any) -> str:
    return ", ".join(items)


def _started_by(run: FlowRun, attempt: int) -> str:
    return f"pp/{run.id}/{attempt}"


def _jobs(run: FlowRun) -> int:
    """Return how many jobs the ledger says were started for a run."""
    return len({entry.facts.get("pid") for entry in run.journal if entry.what == "submitted"})


def _latency(run: FlowRun) -> float | None:
    """Return the seconds from the moment the run was due to its first job, or `None` without one."""
    for entry in run.journal:
        if entry.what == "submitted":
            return (entry.at - run.scheduled_time).total_seconds()
    return None


def quickstart_file() -> Path:
    """Return the packaged example; in a source tree, the one that is packaged from there."""
    import push_pools

    package = Path(push_pools.__file__).parent
    packaged = package / "examples" / "quickstart.yaml"
    return packaged if packaged.exists() else package.parent / "examples" / "quickstart.yaml"


def _plan(request: dict[str, Any]) -> TaskPlan | None:
    """Let the machine under the first attempt of `unlucky` fail; all else does what its command says."""
    from push_pools.testing.ecs_double import TaskPlan

    is_unlucky = "unlucky" in request.get("taskDefinition", "") and request.get("startedBy", "").endswith("/1")
    return TaskPlan("host", seconds=0.5) if is_unlucky else None
