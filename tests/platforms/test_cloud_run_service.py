"""The whole service on Cloud Run, over real sockets: whatever goes wrong, each attempt runs once and each run ends."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

import pytest

from push_pools.credentials import gcp_sessions
from push_pools.credentials.gcp import GcpCredentials
from push_pools.domain.pools import WorkPool
from push_pools.domain.runs import Phase
from push_pools.domain.states import StateType
from push_pools.platforms.cloud_run import CloudRunPlatform
from push_pools.ports import PlatformContext
from push_pools.services.stop import cancel_run
from push_pools.services.sweep import sweep
from push_pools.testing.cloud_run_double import CloudRunDouble, Fault, LifecycleTimes, PerMinute
from tests.world import OnePlatform, World

from .cloud_run_world import TEMPLATE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from push_pools.domain.runs import FlowRun

VARIABLES: dict[str, Any] = {"image": "acme/report:7", "region": "europe-west1"}
FAULTS = [
    Fault.accept_then_drop(),
    Fault.drop_before(),
    Fault.malformed(),
    Fault.server_error(),
    Fault.server_error(effect=True),
    Fault.server_error("UNAVAILABLE"),
    Fault.server_error("UNAVAILABLE", effect=True),
    Fault.server_error("ABORTED", effect=True),
    Fault.throttle(),
    Fault.capacity(),
    Fault.expired_credentials(),
]
ASKED = ("GetJob", "GetExecution", "ListExecutions", "ListTasks", "CancelExecution", "DeleteJob")


class CloudRunServiceWorld(World):
    """The service, with Cloud Run in place of the fake platform."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.double = CloudRunDouble(clock=self.clock, times=LifecycleTimes(3, 1), **options).start()
        self.settings = {"cloud_run_endpoint": self.double.endpoint, "cloud_run_writes_per_minute": "6000"}
        self.use()
        now = self.clock.now()
        self.store.delete(self.pool)
        self.pool = self.store.put(
            WorkPool(
                id=uuid4(),
                name="local",
                type="cloud-run-v2:push",
                base_job_template=TEMPLATE,
                created_at=now,
                updated_at=now,
            )
        )

    def use(self, settings: dict[str, str] | None = None, block: GcpCredentials | None = None) -> None:
        """Build the platform anew, with these settings and credentials."""
        opened = block or GcpCredentials(project="acme")
        context = PlatformContext(lambda _: opened, settings or self.settings, self.clock, self.clock)
        self.app = replace(self.app, platforms=OnePlatform(cast(Any, CloudRunPlatform(context))))

    def sweep(self) -> None:
        self._guarded(lambda: sweep("cloud-run-v2:push", self.app))

    def per_attempt(self) -> Counter[tuple[str, str]]:
        """Return how often the user's container was really started for each attempt."""
        found: Counter[tuple[str, str]] = Counter()
        for started in self.double.started:
            labels = started.labels
            attempt = (labels["push-pools-run-id"], labels["push-pools-attempt"])
            found[attempt] = max(found[attempt], self.double.runs(started.job_id))
        return found

    def executions(self) -> Counter[str]:
        """Return how many executions there ever were under each name of a job."""
        return Counter(started.job_id for started in self.double.started)

    def close(self) -> None:
        """Let go of sockets."""
        gcp_sessions.close_all()
        self.double.close()


@pytest.fixture
def world() -> Iterator[CloudRunServiceWorld]:
    world = CloudRunServiceWorld(default_seconds=20.0, visibility_delay_seconds=2.0)
    yield world
    world.close()


def trigger(world: CloudRunServiceWorld, **variables: Any) -> FlowRun:
    return world.trigger(job_variables={**VARIABLES, **variables})


def test_a_run_is_one_job_that_is_deleted_when_it_is_over(world: CloudRunServiceWorld) -> None:
    run = trigger(world)

    world.settle()

    assert world.get(run).state.type is StateType.COMPLETED
    assert world.per_attempt() == {(str(run.id), "1"): 1}
    assert world.double.calls["CreateJob"] == world.double.calls["DeleteJob"] == 1
    assert world.double.calls["RunJob"] == 0
    assert not world.double.model.jobs


def test_a_job_that_is_to_be_kept_is_kept(world: CloudRunServiceWorld) -> None:
    run = trigger(world, keep_job=True)

    world.settle()

    assert world.get(run).state.type is StateType.COMPLETED
    assert len(world.double.model.jobs) == 1
    assert world.double.calls["DeleteJob"] == 0


def test_a_failure_is_explained(world: CloudRunServiceWorld) -> None:
    run = trigger(world, command="exit 3")

    world.settle()

    state = world.get(run).state
    assert (state.type, state.exit_code, state.failure_class) == (StateType.FAILED, 3, "exit")


@pytest.mark.parametrize("seconds", [1, 30])
def test_a_cancelled_run_stops_its_execution(world: CloudRunServiceWorld, seconds: float) -> None:
    """Before it has begun to run, and while it runs."""
    run = trigger(world, command="sleep 900")
    world.pass_time(seconds)

    cancel_run(run.id, world.app, by="a test")
    world.settle()

    assert world.get(run).state.type is StateType.CANCELLED
    assert not world.double.running()
    assert not world.double.model.jobs


def test_a_job_that_runs_too_long_is_stopped_with_that_verdict(world: CloudRunServiceWorld) -> None:
    run = trigger(world, command="sleep 900", timeout=60)

    world.settle()

    assert world.get(run).state.name == "TimedOut"
    assert not world.double.running()


def test_an_attempt_that_is_killed_is_followed_by_another_job(world: CloudRunServiceWorld) -> None:
    run = trigger(world, command="sleep 100")
    world.pass_time(10)
    (first,) = world.double.running()
    world.double.kill(first)

    world.settle()

    assert world.get(run).state.type is StateType.COMPLETED
    assert world.per_attempt() == {(str(run.id), "1"): 1, (str(run.id), "2"): 1}
    assert not world.double.model.jobs


def test_the_platforms_own_retry_runs_the_code_again_and_is_not_used_by_default(world: CloudRunServiceWorld) -> None:
    """Which is a double: the double counts it."""
    plain = trigger(world, command="exit 1")
    asked = trigger(world, command="exit 1", max_retries=2)

    world.settle()

    counted = world.per_attempt()
    assert (counted[str(plain.id), "1"], counted[str(asked.id), "1"]) == (1, 3)


def test_a_job_without_an_image_fails_with_the_sentence(world: CloudRunServiceWorld) -> None:
    run = world.trigger(job_variables={"region": "europe-west1"})

    world.settle()

    state = world.get(run).state
    assert (state.failure_class, "image" in state.message) == ("configuration", True)
    assert not world.double.started


def test_the_quota_of_writes_is_kept_and_shows_as_waiting(world: CloudRunServiceWorld) -> None:
    """Each run is also deleted, which the pace leaves room for; who waits is neither refused nor failed."""
    world.double.model.rules.writes = PerMinute(60)
    world.use({"cloud_run_endpoint": world.double.endpoint})
    runs = [trigger(world) for _ in range(40)]

    world.pass_time(30)
    waiting = [world.get(run) for run in runs if world.get(run).phase is Phase.READY]
    assert waiting
    for run in waiting:
        assert run.state.type is StateType.SCHEDULED
        assert run.state.failure_class is None
    assert any("cloud-run/CreateJob/acme/europe-west1 allows" in run.state.message for run in waiting)
    world.settle()

    assert [world.get(run).state.name for run in runs] == ["Completed"] * 40
    assert {call.outcome for call in world.double.log if call.method == "CreateJob"} == {"ok"}
    assert not world.double.model.jobs


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_each_fault_ends_in_one_run_of_the_code(world: CloudRunServiceWorld, fault: Fault) -> None:
    world.double.faults.add("CreateJob", fault)
    run = trigger(world)

    world.settle()

    assert world.get(run).state.type is StateType.COMPLETED
    assert world.per_attempt() == {(str(run.id), "1"): 1}


@pytest.mark.parametrize("method", ASKED)
@pytest.mark.parametrize("fault", [Fault.drop_before(), Fault.access_denied(), Fault.accept_then_drop()])
def test_a_question_that_fails_is_asked_again(world: CloudRunServiceWorld, method: str, fault: Fault) -> None:
    world.double.faults.add(method, fault)
    world.double.faults.add("CreateJob", Fault.accept_then_drop())
    runs = [trigger(world, command="exit 1") for _ in range(2)] + [trigger(world, command="sleep 900")]
    world.pass_time(10)
    cancel_run(runs[-1].id, world.app, by="a test")

    world.settle()

    assert [world.get(run).state.name for run in runs] == ["Failed", "Failed", "Cancelled"]
    assert set(world.per_attempt().values()) <= {1}
    assert not world.double.model.jobs


def many_runs(seed: int, count: int) -> None:
    """Let many runs meet faults of all kinds, cancels and crashes, and check that each attempt ran once at most."""
    luck = random.Random(seed)
    # Jobs show so late that a repeat comes before anybody can see what the first call created.
    world = CloudRunServiceWorld(default_seconds=20.0, visibility_delay_seconds=45.0, seed=seed)
    try:
        for fault in FAULTS:
            world.double.faults.chance("CreateJob", fault, 0.06)
        for method in ASKED:
            world.double.faults.chance(method, luck.choice([Fault.access_denied(), Fault.accept_then_drop()]), 0.05)
        commands = ["true", "exit 1", "sleep 3600"]
        runs = [trigger(world, command=luck.choice(commands)) for _ in range(count)]
        for _ in range(12):
            world.crash_at = luck.randrange(60)
            world.pass_time(luck.choice([1, 5, 30]), step=1)
            for cancelled in luck.sample(runs, max(count // 16, 1)):
                if not world.get(cancelled).is_final:
                    cancel_run(cancelled.id, world.app, by="chance")
            for execution in world.double.running():
                if luck.random() < 0.02:
                    getattr(world.double, luck.choice(["kill", "oom"]))(execution)
        world.crash_at = None

        world.settle(8 * 3600)

        assert len({call.outcome for call in world.double.log}) > 3, "faults were met"
        assert set(world.per_attempt().values()) <= {0, 1}
        assert set(world.executions().values()) <= {1}
        assert all(world.get(run).is_final for run in runs)
        known = {key for run in runs for key in keys(world.get(run))}
        assert world.executions().keys() <= known, "no job is an orphan"
        assert not world.double.running()
        assert not world.double.model.jobs, "no job is left"
    finally:
        world.close()


@pytest.mark.parametrize("seed", range(5))
def test_fifty_runs_with_faults_and_cancels_run_once_per_attempt_and_all_end(seed: int) -> None:
    many_runs(seed, 10)


@pytest.mark.prove
@pytest.mark.parametrize("seed", range(100, 120))
def test_a_thousand_runs_with_faults_and_cancels_run_once_per_attempt_and_all_end(seed: int) -> None:
    many_runs(seed, 50)


def keys(run: FlowRun) -> Iterator[str]:
    """Yield the key of every job that the ledger has known for a run."""
    from push_pools.domain.runs import job_key

    for attempt in range(1, run.attempt + 1):
        yield job_key(run.id, attempt, 1)
