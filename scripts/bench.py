"""The figures of the project, as ratios and counts of one run. `make bench` prints them; nothing here is a test.

python scripts/bench.py [NAME …]
"""

from __future__ import annotations

import math
import multiprocessing
import os
import queue
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from bench_functions import cold_start, submit_rate

from push_pools.bootstrap import Embedded, embedded
from push_pools.domain import transitions
from push_pools.domain.config import DeploymentSpec
from push_pools.domain.deployments import Deployment
from push_pools.domain.planning import fire_times
from push_pools.domain.records import Timing
from push_pools.domain.runs import FlowRun, JobHandle, Phase, Policy
from push_pools.domain.schedules import Schedule, parse_schedule
from push_pools.domain.states import Failure, FailureClass, JobStatus, Observation, State
from push_pools.domain.transitions import Moment
from push_pools.ports import Invocation, RunFilter
from push_pools.server.embedded import EmbeddedServer
from push_pools.services.catalogue import create_work_pool, pause_work_pool, resume_work_pool, update_work_pool
from push_pools.services.deploy import put_deployment
from push_pools.services.plan import plan_all
from push_pools.services.runs import run_deployment
from push_pools.services.submit import submit_run
from push_pools.services.sweep import sweep
from push_pools.settings import Settings
from push_pools.sqlite_file import SqliteFile
from push_pools.stores.sqlite import SqliteStore
from push_pools.testing.clocks import ManualClock
from push_pools.testing.ecs_double import EcsDouble

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ECS_VARIABLES = {
    "image": "acme/report:1",
    "execution_role_arn": "arn:aws:iam::123456789012:role/run",
    "network_configuration": {"awsvpcConfiguration": {"subnets": ["subnet-1"]}},
}
BARE = ["sh", "-c", "true"]
KEPT = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
"""All homes, until the end: ext4 makes files slowly for some seconds after many were deleted."""
TIMING, POLICY = Timing(), Policy(start_timeout_seconds=30, timeout_seconds=0)

Row = tuple[str, str, str, bool]
"""What was measured, the figure, what is wanted, and whether it is met."""


def main(names: list[str]) -> int:
    """Run the benchmarks of these names, or all, and print a table."""
    print(f"{'figure':<66} {'measured':>16}  {'wanted':<12}")
    for name, bench in BENCHES.items():
        if not names or name in names:
            for what, value, wanted, met in bench():
                print(f"{what:<66} {value:>16}  {wanted:<12} {'met' if met else 'NOT MET'}", flush=True)
    return 0


# -- homes


@contextmanager
def home(**settings: Any) -> Iterator[Embedded]:
    """A fresh home with a pool of local processes and a deployment `true` in it."""
    path = tempfile.mkdtemp(dir=KEPT.name)
    with embedded(Settings(home=Path(path), **settings)) as opened:
        create_work_pool(opened.app, "local", "process")
        spec = {"name": "true", "command": "true", "work_pool": {"name": "local"}}
        put_deployment(opened.app, DeploymentSpec.model_validate(spec))
        yield opened


@contextmanager
def served(opened: Embedded) -> Iterator[EmbeddedServer]:
    """A server on the home."""
    server = EmbeddedServer(opened)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def ecs_home(double: EcsDouble) -> Iterator[Embedded]:
    """A fresh home with a pool on the double and a deployment `task` in it."""
    os.environ |= {
        "AWS_ENDPOINT_URL_ECS": double.endpoint,
        "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "not-a-secret",
        "AWS_REGION": double.region,
    }
    # The quota of an account that was raised: what is measured is the service, not its pace.
    with home(workers=64, sweep_seconds=3600.0, ecs_run_task_per_second=10_000.0) as opened:
        create_work_pool(opened.app, "ecs", "ecs:push", variables=ECS_VARIABLES)
        spec = {"name": "task", "command": "true", "work_pool": {"name": "ecs"}}
        put_deployment(opened.app, DeploymentSpec.model_validate(spec))
        yield opened


def all_runs(opened: Embedded) -> list[FlowRun]:
    """Return every run of a home."""
    runs: list[FlowRun] = []
    cursor: str | None = None
    while True:
        page = opened.app.store.runs(RunFilter(), limit=1000, cursor=cursor)
        runs += page.runs
        cursor = page.cursor
        if cursor is None:
            return runs


def wait_until(what: Callable[[], bool], seconds: float = 120.0) -> None:
    """Wait until something is true.

    Raises:
        TimeoutError: It was not in that time.
    """
    end = time.monotonic() + seconds
    while not what():
        if time.monotonic() > end:
            raise TimeoutError("a benchmark does not end")
        time.sleep(0.05)


def wait_for(opened: Embedded, count: int) -> None:
    """Wait until that many runs are settled."""
    wait_until(lambda: opened.app.store.count_by_phase().get(Phase.SETTLED, 0) >= count)


def called_at(run: FlowRun) -> datetime:
    """When the run's call was made: its intent is written directly before."""
    return next(entry.at for entry in run.journal if entry.what == "intent")


def percentile(values: list[float], share: float) -> float:
    """Return the value below which that share of the values lies."""
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]


def bare_spawns(count: int) -> float:
    """Return the seconds that it takes to spawn and wait for that many `sh -c true`, one after the other."""
    started = time.perf_counter()
    for _ in range(count):
        subprocess.Popen(BARE).wait()
    return time.perf_counter() - started


# -- local processes


def due_to_call() -> Iterator[Row]:
    """Runs due 50 ms apart."""
    with home() as opened, served(opened):
        first = datetime.now(UTC) + timedelta(seconds=1.5)
        for n in range(200):
            run_deployment(opened.app, "true", scheduled_time=first + timedelta(milliseconds=50 * n))
        wait_for(opened, 200)
        waits = [(called_at(run) - run.scheduled_time).total_seconds() * 1000 for run in all_runs(opened)]
    p50, p99 = percentile(waits, 0.5), percentile(waits, 0.99)
    yield "due → call, 200 runs due 50 ms apart, p50", f"{p50:.1f} ms", "≤ 50 ms", p50 <= 50
    yield "due → call, p99", f"{p99:.1f} ms", "≤ 250 ms", p99 <= 250


def burst() -> Iterator[Row]:
    """Two hundred runs at once, against two hundred bare spawns."""
    with home() as opened, served(opened):
        bare_spawns(20)
        bare = bare_spawns(200)
        due = datetime.now(UTC) + timedelta(seconds=2)
        for _ in range(200):
            run_deployment(opened.app, "true", scheduled_time=due)
        wait_for(opened, 200)
        last = max((called_at(run) - due).total_seconds() for run in all_runs(opened))
    ratio = last / bare
    yield "burst of 200: last call ÷ 200 bare spawns", f"{ratio:.2f}", "≤ 2", ratio <= 2


def event_to_exit() -> Iterator[Row]:
    """One event after the other: from the event on the queue until the write that records the exit has returned."""
    recorded: queue.SimpleQueue[float] = queue.SimpleQueue()
    with home() as opened, served(opened):
        save = opened.app.store.save

        def save_and_tell(before: FlowRun, after: FlowRun, *, counting: bool = False) -> FlowRun:
            saved = save(before, after, counting=counting)
            if saved.phase is Phase.SETTLED:
                recorded.put(time.perf_counter())
            return saved

        opened.app.store.save = save_and_tell  # type: ignore[method-assign] # To notice a write.
        bare, took = [], []
        event = '{"version":1,"type":"scheduled-run","deployment":"true/true","idempotency_key":"%s"}'
        for n in range(320):
            bare.append(bare_spawns(1))
            time.sleep(0.02)  # What follows a run, such as the next wrapper, is not part of it.
            started = time.perf_counter()
            opened.queue.send(event % n)
            took.append(recorded.get(timeout=30) - started)
            time.sleep(0.02)
    ratio = statistics.median(took[20:]) / statistics.median(bare[20:])
    yield "event → exit recorded, `true` ÷ bare spawn-and-wait, medians", f"{ratio:.2f}", "≤ 2", ratio <= 2


# -- lanes


def slot_to_next() -> Iterator[Row]:
    """A pool of one slot, and a queue in front of it: from the write that frees the slot to the next submitted."""
    count = 120
    with home() as opened:
        pause_work_pool(opened.app, "local")
        with served(opened):
            for _ in range(count):
                run_deployment(opened.app, "true")
            wait_until(lambda: opened.app.store.count_by_phase().get(Phase.WAITING, 0) == count)
            update_work_pool(opened.app, "local", concurrency_limit=1)
            resume_work_pool(opened.app, "local")
            wait_for(opened, count)
        runs = sorted(all_runs(opened), key=lambda run: entry_at(run, "submitted"))
    freed = [entry_at(run, "finished") for run in runs[:-1]]
    submitted = [entry_at(run, "submitted") for run in runs[1:]]
    waits = [(after - before).total_seconds() * 1000 for before, after in zip(freed, submitted, strict=True)]
    p50, p99 = percentile(waits, 0.5), percentile(waits, 0.99)
    yield f"slot freed → next submitted, {count} runs through one slot, p50", f"{p50:.1f} ms", "≤ 50 ms", p50 <= 50
    yield "slot freed → next submitted, p99", f"{p99:.1f} ms", "≤ 250 ms", p99 <= 250


def entry_at(run: FlowRun, what: str) -> datetime:
    """When that happened to a run, by its journal."""
    return next(entry.at for entry in run.journal if entry.what == what)


def waiting_is_flat() -> Iterator[Row]:
    """From a run's message to its answer, in a pool that is full, with 1,000 runs in front and with none."""
    medians = {}
    for waiting in (0, 1_000):
        with home() as opened:
            create_work_pool(opened.app, "full", "process", concurrency_limit=0)
            spec = {"name": "held", "command": "true", "work_pool": {"name": "full"}}
            put_deployment(opened.app, DeploymentSpec.model_validate(spec))
            for _ in range(waiting):
                submit_now(opened, run_deployment(opened.app, "held").run)
            took = []
            for _ in range(60):  # Few, so that "none in front" stays true enough.
                run = run_deployment(opened.app, "held").run
                started = time.perf_counter()
                submit_now(opened, run)
                took.append(time.perf_counter() - started)
            medians[waiting] = statistics.median(took)
    ratio = medians[1_000] / medians[0]
    yield (
        "the 1,001st run with 1,000 waiting in its pool ÷ without, medians",
        f"{ratio:.2f}",
        "flat (≤ 1.5)",
        ratio <= 1.5,
    )


def submit_now(opened: Embedded, run: FlowRun) -> None:
    """Handle a run's message as the server does."""
    deadline = datetime.now(UTC) + timedelta(seconds=TIMING.function_seconds)
    submit_run(run.id, opened.app, Invocation(f"bench:{run.id}", deadline))


# -- ECS


def ecs_burst() -> Iterator[Row]:
    """Two hundred runs at once on the double, with 50 ms latency; and what it was asked."""
    with EcsDouble(latency_seconds=0.05) as double, ecs_home(double) as opened, served(opened):
        run_deployment(opened.app, "task")  # Warm: the first run opens clients and registers the definition.
        wait_until(lambda: len(double.started) == 1)
        started = time.perf_counter()
        for _ in range(200):
            run_deployment(opened.app, "task")
        wait_until(lambda: len(double.started) == 201)
        rate = 200 / (time.perf_counter() - started)
        wait_until(lambda: all(run.phase is not Phase.CALLING for run in all_runs(opened)))
        run_tasks, registers = double.calls["RunTask"], double.calls["RegisterTaskDefinition"]
        before = double.calls["DescribeTasks"]
        looked_at = sweep("ecs:push", opened.app)
        describes = double.calls["DescribeTasks"] - before
    yield "200 runs at once on the ECS double, 50 ms latency", f"{rate:.0f} runs/s", "≥ 100", rate >= 100
    yield "RunTask per run", f"{run_tasks / 201:g}", "1", run_tasks == 201
    yield "RegisterTaskDefinition per definition", f"{registers}", "1", registers == 1
    wanted = math.ceil(looked_at / 100)
    yield f"DescribeTasks in a sweep of {looked_at} tasks", f"{describes}", f"{wanted}", describes == wanted


# -- the ledger


def _now() -> Moment:
    now = datetime.now(UTC)
    return Moment(now, now)


def _planned() -> FlowRun:
    now = datetime.now(UTC)
    return FlowRun(
        id=uuid4(),
        name="bench",
        created_at=now,
        work_pool="local",
        platform="process",
        scheduled_time=now,
        state=State.of("Scheduled", now),
        due_at=now,
        wake_at=now,
    )


def _explain(seen: Observation) -> Failure:
    return Failure(failure_class=FailureClass.EXIT, cause=f"exit code {seen.exit_code}")


def lifecycle(store: SqliteStore) -> None:
    """One run from put to settled, each step read and written as a handler does."""
    run = store.get_run(store.put_run(_planned()).id)
    run = store.save(run, transitions.claim(run, "bench", _now(), TIMING))
    handle = JobHandle(key=run.job_key, platform="process", run_id=run.id, place={"home": "/home"})
    request: dict[str, Any] = {"command": ["true"], "env": {"A": "b"}}
    run = store.save(run, transitions.intend(run, run.fence, handle, request, POLICY, _now(), TIMING))
    handle = handle.model_copy(update={"pid": "1"})
    run = store.save(run, transitions.record_pid(run, handle, _now(), TIMING))
    run = store.get_run(run.id)
    seen = Observation(key=run.job_key, status=JobStatus.SUCCEEDED, observed_at=datetime.now(UTC), exit_code=0)
    run = store.save(run, transitions.observe(run, seen, _now(), TIMING, _explain, lambda _run, _now: ()))
    assert run.phase is Phase.SETTLED


def live(path: str, count: int, start: Any, spans: Any) -> None:
    """What each of the eight processes does."""
    store = SqliteStore(SqliteFile(path))
    start.wait()
    begun = time.time()
    for _ in range(count):
        lifecycle(store)
    spans.put((begun, time.time()))
    store.close()


def lifecycles() -> Iterator[Row]:
    """Full lifecycles of eight processes on one file."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as directory:
        path = f"{directory}/ledger.db"
        SqliteFile(path).close()
        start, spans = context.Barrier(8), context.Queue()
        workers = [context.Process(target=live, args=(path, 500, start, spans)) for _ in range(8)]
        for worker in workers:
            worker.start()
        times = [spans.get() for _ in workers]
        for worker in workers:
            worker.join()
    rate = 8 * 500 / (max(end for _, end in times) - min(begin for begin, _ in times))
    yield "full ledger lifecycles, 8 processes on one file", f"{rate:.0f} /s", "≥ 1000", rate >= 1000


def claim_is_flat() -> Iterator[Row]:
    """The median claim with 1,000 and with 100,000 runs stored."""
    with tempfile.TemporaryDirectory() as directory:
        store = SqliteStore(SqliteFile(f"{directory}/ledger.db"))
        medians = []
        stored = 0
        for size in (1_000, 100_000):
            while stored < size:
                store.put_run(_planned())
                stored += 1
            fresh = [store.put_run(_planned()) for _ in range(500)]
            stored += len(fresh)
            took = []
            for run in fresh:
                started = time.perf_counter()
                read = store.get_run(run.id)
                store.save(read, transitions.claim(read, "bench", _now(), TIMING))
                took.append(time.perf_counter() - started)
            medians.append(statistics.median(took))
        store.close()
    ratio = medians[1] / medians[0]
    yield "claim with 100,000 runs stored ÷ with 1,000, medians", f"{ratio:.2f}", "flat (≤ 1.5)", ratio <= 1.5


# -- planning


def plan_rate() -> Iterator[Row]:
    """Fire times per second of one core: a cron rule in a time zone, with and without jitter."""
    for what, more in (("", {}), (", with jitter", {"jitter": 30})):
        spec = parse_schedule({"cron": "*/5 * * * *", "timezone": "Europe/Vienna", **more})
        schedule = Schedule(id="bench", **spec.fields(active=True))
        started = time.perf_counter()
        for _ in islice(fire_times(schedule, datetime(2026, 1, 1, tzinfo=UTC)), 200_000):
            pass
        rate = 200_000 / (time.perf_counter() - started)
        yield f"fire times of a cron rule in a time zone{what}", f"{rate:,.0f} /s", "≥ 50,000", rate >= 50_000


def big_tick() -> Iterator[Row]:
    """A tick over 10,000 deployments: the first of a process, one in which nothing is due, one in which all are."""
    with home() as opened:
        app, now = opened.app, opened.app.clock.now()
        due = now + timedelta(minutes=30)
        with opened.file.transaction():
            for number in range(10_000):
                spec = parse_schedule({"cron": f"{due.minute} * * * *", "timezone": "Europe/Vienna"})
                schedule = Schedule(id=uuid4().hex, planned_from=now, **spec.fields(active=True))
                app.store.put(
                    Deployment(
                        id=uuid4(),
                        name=f"d{number}",
                        flow_name="flow",
                        work_pool="local",
                        schedules=(schedule,),
                        created_at=now,
                        updated_at=now,
                    )
                )
        clock = ManualClock(now)
        moved = replace(app, clock=clock)
        for what, ahead in (("the first of a process", 0), ("nothing due", 20), ("a run of each put", 27)):
            clock.advance((now + timedelta(minutes=ahead) - clock.now()).total_seconds())
            started, spent = time.perf_counter(), time.process_time()
            report = plan_all(moved)
            took, spent = time.perf_counter() - started, time.process_time() - spent
            assert report.put == (10_000 if what == "a run of each put" else 0), report.put
            value = f"{spent:.2f} ({took:.2f}) s"
            yield f"tick over 10,000 deployments, {what}, CPU (wall)", value, "≤ 2 s CPU", spent <= 2


# -- the command line


def help_is_quick() -> Iterator[Row]:
    """`push-pools --help` against importing what it is made of."""
    bare = [sys.executable, "-c", "import typer, rich"]
    ours = [str(Path(sys.executable).parent / "push-pools"), "--help"]
    took: dict[str, list[float]] = {"bare": [], "ours": []}
    for _ in range(15):
        for name, command in (("bare", bare), ("ours", ours)):
            started = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            took[name].append(time.perf_counter() - started)
    ratio = statistics.median(took["ours"]) / statistics.median(took["bare"])
    yield "`push-pools --help` ÷ importing typer and rich, medians", f"{ratio:.2f}", "≤ 1.5", ratio <= 1.5


BENCHES: dict[str, Callable[[], Iterator[Row]]] = {
    "due": due_to_call,
    "burst": burst,
    "event": event_to_exit,
    "slot": slot_to_next,
    "waiting": waiting_is_flat,
    "ecs": ecs_burst,
    "lifecycles": lifecycles,
    "claim": claim_is_flat,
    "plan": plan_rate,
    "tick": big_tick,
    "help": help_is_quick,
    "cold": cold_start,
    "submit": submit_rate,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
