"""Runs go through SQS, `submit_ecs`, ECS and `poll_ecs` on the real runtime client, while a good part of it fails."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter, defaultdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import pytest

from push_pools.domain.config import DeploymentSpec
from push_pools.domain.runs import Phase, job_key
from push_pools.ports import RunFilter
from push_pools.services.catalogue import create_work_pool
from push_pools.services.deploy import put_deployment
from push_pools.testing.ecs_double import EcsDouble
from push_pools.testing.ecs_double import Fault as CloudFault
from tests.aws.event_source import Mapping
from tests.aws.installation import ECS_VARIABLES, install
from tests.aws.runtime_api import Environment, Fault

if TYPE_CHECKING:
    from collections.abc import Sequence

    from push_pools.domain.runs import FlowRun
    from push_pools.ports import App, Store
    from tests.aws.installation import Installation
    from tests.aws.ministack import Ministack

FAULTY: Final = 0.4
"""In how many invocations something fails."""
DUPLICATES: Final = 0.1
LIMIT: Final = 4
LIMITED: Final = 0.2
"""How many of the runs go through the pool with a limit."""
UNLISTED_SECONDS: Final = 2.0
"""How long a task is there before ECS lists it. It is longer than a call is given to settle here, so that whoever takes
over looks, sees nothing, and asks again: only the token keeps a second task away."""


class Chaos:
    """Decides what fails in an invocation; draws are repeatable, though not what they meet."""

    def __init__(self, seed: int, kinds: Sequence[str]) -> None:
        self._random, self._kinds = random.Random(seed), kinds
        self._lock = threading.Lock()
        self.drawn: Counter[str] = Counter()
        self.ecs_faults = 0
        self.killed_in_between = 0
        """How often a task was started and its function killed before it could record it."""
        self.environments: Sequence[Environment] = ()
        self.is_on = True

    def __call__(self) -> Fault:
        with self._lock:
            if not self.is_on or self._random.random() >= FAULTY:
                self.drawn["none"] += 1
                return Fault()
            kind = self._random.choice(self._kinds)
            self.drawn[kind] += 1
            seconds = self._random.uniform(0.0, 0.6)
        match kind:
            case "killed":
                return Fault(kill_after_seconds=seconds)
            case "killed at a line":
                return Fault(kill_at_line='"job_submitted"')
            case "killed as ECS answers":
                return Fault(kill_when_told=True)
            case _:
                return Fault(lose_answer=True)

    def cloud(self, operation: str, body: dict[str, Any]) -> CloudFault | None:
        """Lose some of ECS's answers, some after the task was started."""
        if operation != "RunTask" or not self.is_on:
            return None
        if any(environment.told() for environment in self.environments):
            self.killed_in_between += 1
            return CloudFault.accept_then_drop()
        with self._lock:
            if self._random.random() >= 0.15:
                return None
            self.ecs_faults += 1
            return self._random.choice((CloudFault.accept_then_drop(), CloudFault.throttle(), CloudFault.drop_before()))


class Ticker:
    """EventBridge Scheduler, a little faster: invokes `schedule` once a second."""

    def __init__(self, environment: Environment, fault: Any) -> None:
        self._environment, self._fault = environment, fault
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.errors: list[str] = []

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(1.0):
            result = self._environment.invoke({}, self._fault())
            if result.error not in (None, "killed", "lost", "timeout"):
                self.errors.append(f"{result.error}: {result.message}")


def runs_of(store: Store) -> list[FlowRun]:
    runs: list[FlowRun] = []
    cursor: str | None = None
    while True:
        page = store.runs(RunFilter(), limit=1000, cursor=cursor)
        runs += page.runs
        cursor = page.cursor
        if cursor is None:
            return runs


def peak(ecs: EcsDouble, cluster: str) -> int:
    """Return how many tasks of a cluster were there at once, from the moments of their starts and ends."""
    changes: list[tuple[datetime, int]] = []
    for task in ecs.started:
        if task.cluster.rpartition("/")[2] != cluster:
            continue
        seen = ecs.describe(task.task_arn)
        ended = seen.get("stoppedAt")
        changes.append((task.created_at, 1))
        if ended is not None:
            changes.append((datetime.fromtimestamp(ended, UTC) if isinstance(ended, int | float) else ended, -1))
    most = now = 0
    for _, change in sorted(changes):
        now += change
        most = max(most, now)
    return most


def set_up(app: App, ecs: EcsDouble) -> None:
    """Make a pool without a limit and one with, and a deployment in each."""
    for name, limit in (("wide", None), ("narrow", LIMIT)):
        ecs.model.call("CreateCluster", {"clusterName": name})
        create_work_pool(app, name, "ecs:push", variables={**ECS_VARIABLES, "cluster": name}, concurrency_limit=limit)
        spec = {"name": name, "command": "true", "work_pool": {"name": name}, "retries": {"attempts": 1}}
        put_deployment(app, DeploymentSpec.model_validate(spec))


def events(count: int) -> list[str]:
    narrow = int(count * LIMITED)
    names = ["narrow"] * narrow + ["wide"] * (count - narrow)
    random.Random(1).shuffle(names)
    return [
        f'{{"version":1,"type":"scheduled-run","deployment":"{name}","idempotency_key":"k{number}"}}'
        for number, name in enumerate(names)
    ]


def prove(installation: Installation, ecs: EcsDouble, app: App, count: int, seconds: float) -> Chaos:
    """Send that many runs through everything, and check what has to be true at the end."""
    chaos = Chaos(7, ("killed", "killed at a line", "killed as ECS answers", "lost answer"))
    ecs.faults.when(chaos.cloud)
    set_up(app, ecs)
    queue: Any = app.queue
    sent = events(count)
    queue.send_all([(body, 0.0) for body in sent])
    again = random.Random(2).sample(sent, int(count * DUPLICATES))
    queue.send_all([(body, 0.0) for body in again])
    submits = [_environment("submit_ecs", installation) for _ in range(2)]
    chaos.environments = submits
    poll, schedule = _environment("poll_ecs", installation), _environment("schedule", installation)
    mappings = [
        Mapping(
            installation.sqs,
            installation.urls[name],
            installation.arns[name],
            environments,
            fault=chaos,
            duplicate=DUPLICATES,
            seed=3,
            throttled=_sometimes(seed),
        )
        for seed, (name, environments) in enumerate((("submit-ecs", submits), ("poll-ecs", [poll])))
    ]
    ticker = Ticker(schedule, chaos)
    parts: tuple[Mapping | Ticker, ...] = (ticker, *mappings)
    began = time.monotonic()
    for part in parts:
        part.start()
    try:
        while time.monotonic() < began + seconds and not _doubled(ecs) and not _is_over(app, count):
            time.sleep(0.25)  # Asking less often leaves more of the machine to what is asked about.
    finally:
        chaos.is_on = False
        for part in parts:
            part.stop()
        for environment in (*submits, poll, schedule):
            environment.close()
    report = {
        "invocations": dict(chaos.drawn),
        "ecs faults": chaos.ecs_faults,
        "in between": chaos.killed_in_between,
        "mappings": [dict(each.results) for each in mappings],
        "duplicates": [each.duplicates for each in mappings],
        "asked again": ecs.calls["RunTask"] - len(ecs.started),
        "seconds": round(time.monotonic() - began),
    }
    print(report)
    assert not _doubled(ecs), report
    assert not [failure for each in mappings for failure in each.failures], report
    assert not ticker.errors, ticker.errors
    assert chaos.killed_in_between, report
    _check(installation, ecs, app, count, report)
    return chaos


def _check(installation: Installation, ecs: EcsDouble, app: App, count: int, report: Any) -> None:
    runs = runs_of(app.store)
    assert len(runs) == count, report
    assert Counter(run.state.name for run in runs) == {"Completed": count}, report
    assert len(ecs.started) == count, "a double was started"
    started = {task.task_arn: task.client_token for task in ecs.started}
    assert started == {
        str(run.infrastructure_pid).partition("::")[2]: job_key(run.id, run.attempt, run.launch) for run in runs
    }
    tokens: dict[str, set[str]] = defaultdict(set)
    for call in ecs.log:
        if call.operation == "RunTask":
            tokens[call.body["startedBy"]].add(call.body["clientToken"])
    assert all(len(each) == 1 for each in tokens.values()), "an attempt was asked for under two tokens"
    assert peak(ecs, "narrow") <= LIMIT
    assert app.store.slots("POOL#narrow") == (LIMIT, frozenset())
    assert not (left := _bodies(installation, "dead-letters")), left


def _bodies(installation: Installation, name: str) -> list[str]:
    found: list[str] = []
    while messages := installation.sqs.receive_message(
        QueueUrl=installation.urls[name], MaxNumberOfMessages=10, VisibilityTimeout=600
    ).get("Messages", []):
        found += [message["Body"] for message in messages]
    return found


def _doubled(ecs: EcsDouble) -> list[str]:
    """Return the attempts of which more than one task was started so far."""
    counted = Counter(str(task.started_by) for task in ecs.started)
    return [attempt for attempt, times in counted.items() if times > 1]


def _is_over(app: App, count: int) -> bool:
    phases = app.store.count_by_phase()
    return sum(phases.get(phase, 0) for phase in (Phase.ENDED, Phase.SETTLED)) >= count


def _environment(name: str, installation: Installation) -> Environment:
    return Environment(f"tests.aws.shrunk_{name}.handler", installation.environ, timeout_seconds=4.0, name=name)


def _sometimes(seed: int) -> Any:
    draws = random.Random(seed)
    return lambda: draws.random() < 0.05


@pytest.mark.parametrize(
    ("count", "seconds"),
    [
        pytest.param(200, 400.0, marks=pytest.mark.timeout(480)),
        pytest.param(2000, 3000.0, marks=[pytest.mark.prove, pytest.mark.timeout(3300)]),
    ],
)
def test_every_run_gets_one_task_while_much_of_it_fails(
    ministack: Ministack, monkeypatch: pytest.MonkeyPatch, count: int, seconds: float
) -> None:
    """10 % duplicates, and a fault in 40 % of invocations: nothing is doubled, lost, or above its limit."""
    with EcsDouble(default_seconds=0.5, visibility_delay_seconds=UNLISTED_SECONDS) as ecs:
        installation = install(ministack, ecs)
        app = installation.open(monkeypatch, acting=())
        prove(installation, ecs, app, count, seconds)
