"""The whole service on Azure: whatever goes wrong with calls, each attempt runs once and each run has an end."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

import pytest

from push_pools.domain.pools import WorkPool
from push_pools.domain.states import StateType
from push_pools.platforms.aci import AciPlatform
from push_pools.platforms.aci_errors import TYPE
from push_pools.ports import PlatformContext
from push_pools.services.explain import entry_text, explain_run
from push_pools.services.runs import read_logs
from push_pools.services.stop import cancel_run
from push_pools.services.sweep import sweep
from push_pools.testing import aci_faults
from push_pools.testing.aci_double import AciDouble, Fault, GroupPlan, GroupTimes, Subscription
from push_pools.testing.aci_rules import REGION
from tests.world import OnePlatform, World

from .aci_world import SUBSCRIPTION, TEMPLATE, USUAL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from push_pools.domain.runs import FlowRun

FAULTS = [
    Fault.accept_then_drop(),
    Fault.drop_before(),
    Fault.cut_answer(),
    Fault.malformed(),
    aci_faults.server_error(),
    aci_faults.server_error(effect=True),
    aci_faults.unavailable(),
    aci_faults.unavailable(effect=True),
    aci_faults.throttle(),
    aci_faults.capacity(),
    aci_faults.quota(),
    aci_faults.registry_error(),
    aci_faults.transitioning(),
    aci_faults.expired_token(),
]
PROVEN = 1000


class AciServiceWorld(World):
    """The service, with Azure in place of the fake platform."""

    def __init__(self, settings: dict[str, str] | None = None, **options: Any) -> None:
        super().__init__()
        self.double = AciDouble(clock=self.clock, times=GroupTimes(2, 3, 1, 2), **options).start()
        told = {"azure_endpoint": self.double.endpoint, "aci_creates_per_hour": "100000", **(settings or {})}
        self.aci = AciPlatform(PlatformContext(lambda _: None, told, self.clock, self.clock))
        self.app = replace(self.app, platforms=OnePlatform(cast(Any, self.aci)))
        now = self.clock.now()
        self.store.delete(self.pool)
        self.pool = self.store.put(
            WorkPool(id=uuid4(), name="local", type=TYPE, base_job_template=TEMPLATE, created_at=now, updated_at=now)
        )

    def sweep(self) -> None:
        self._guarded(lambda: sweep(TYPE, self.app))

    def key_of(self, run: FlowRun) -> str:
        """Return the job key of the current attempt."""
        job = self.get(run).job
        assert job is not None
        return job.key

    def per_attempt(self) -> Counter[str]:
        """Return how often containers were really started for each attempt of each run."""
        return Counter(
            f"{each.body['tags']['push-pools-run-id']}/{each.body['tags']['push-pools-attempt']}"
            for each in self.double.started
        )


@pytest.fixture
def world() -> Iterator[AciServiceWorld]:
    world = AciServiceWorld(default_seconds=20.0, rules=roomy())
    yield world
    world.double.close()


def roomy() -> Subscription:
    return Subscription(creates_per_hour=100_000, creates_per_five_minutes=100_000)


def trigger(world: AciServiceWorld, **variables: Any) -> FlowRun:
    return world.trigger(job_variables={**USUAL, **variables})


def test_a_run_is_one_group_which_is_deleted_once_it_is_over(world: AciServiceWorld) -> None:
    run = trigger(world)

    world.settle()

    assert world.get(run).state.type is StateType.COMPLETED
    assert world.per_attempt() == {f"{run.id}/1": 1}
    assert len(world.double.sent("put")) == 1
    assert not world.double.left(), "nothing counts to the quota any more"


def test_a_failure_is_explained_and_its_output_is_kept(world: AciServiceWorld) -> None:
    run = trigger(world, command="sh -c 'echo going wrong; exit 3'")

    world.settle()

    stored = world.get(run)
    assert (stored.state.type, stored.state.exit_code, stored.state.failure_class) == (StateType.FAILED, 3, "exit")
    assert not world.double.left()
    page = read_logs(world.app, stored)
    assert (page.lines, page.is_last) == (("going wrong",), True)
    (told,) = (entry_text(entry) for entry in stored.journal if entry.what == "kept")
    assert "the last 1 lines of its output" in told
    assert "Started" in told


def test_a_kept_group_stays(world: AciServiceWorld) -> None:
    trigger(world, keep_container_group=True)

    world.settle()

    assert len(world.double.left()) == 1


@pytest.mark.parametrize("seconds", [1, 4, 30], ids=["pending", "pulling", "running"])
def test_a_cancelled_run_stops_its_group_in_each_phase(world: AciServiceWorld, seconds: float) -> None:
    run = trigger(world, command="sleep 900")
    world.pass_time(seconds)
    assert world.double.alive()

    cancel_run(run.id, world.app, by="a test")
    world.settle()

    assert world.get(run).state.type is StateType.CANCELLED
    assert not world.double.left()


def test_a_job_that_runs_too_long_is_stopped_with_that_verdict(world: AciServiceWorld) -> None:
    run = trigger(world, command="sleep 9000", timeout=60)

    world.settle()

    assert world.get(run).state.name == "TimedOut"
    assert not world.double.left()


@pytest.mark.parametrize("outcome", ["waiting", "image", "provision_failed", "unhealthy"])
def test_a_group_that_is_stuck_before_its_start_is_deleted_at_the_deadline(
    world: AciServiceWorld, outcome: Any
) -> None:
    """It would go on trying; the next attempt begins only when it is gone, and what was wrong is in the journal."""
    world.double.model.plan = lambda body: GroupPlan(outcome) if body["tags"]["push-pools-attempt"] == "1" else None
    run = trigger(world, task_start_timeout_seconds=120)

    world.settle()

    stored = world.get(run)
    assert (stored.state.type, stored.attempt) == (StateType.COMPLETED, 2)
    assert world.per_attempt() == {f"{run.id}/1": 1, f"{run.id}/2": 1}
    reasons = [str(entry.facts.get("reason")) for entry in stored.journal if entry.what == "observed"]
    words = {"waiting": "CrashLoopBackOff", "image": "i/o timeout", "provision_failed": "Failed"}
    assert any(words.get(outcome, "Unhealthy") in reason for reason in reasons), reasons


def test_a_group_that_somebody_stops_at_azure_is_tried_again(world: AciServiceWorld) -> None:
    run = trigger(world, command="sleep 100")
    world.pass_time(30)
    world.double.model.call("POST", f"{world.get(run).infrastructure_pid}/stop?api-version=1")

    world.settle()

    stored = world.get(run)
    assert (stored.state.type, stored.attempt) == (StateType.COMPLETED, 2)
    assert any("stopped the container group" in str(entry.facts.get("why")) for entry in stored.journal)


def test_a_group_that_somebody_deletes_is_lost(world: AciServiceWorld) -> None:
    run = trigger(world, command="sleep 1000")
    world.pass_time(60)
    world.double.model.call("DELETE", f"{world.get(run).infrastructure_pid}?api-version=1")

    world.settle()

    assert world.get(run).state.failure_class == "lost"
    assert world.per_attempt() == {f"{run.id}/1": 1}


def test_runs_wait_for_their_turn_with_a_reason() -> None:
    """Azure never has to refuse: creates are kept below its limits, and a run that waits says for what."""
    paced = AciServiceWorld({"aci_creates_per_hour": "20"}, rules=Subscription(creates_per_hour=20))
    runs = [trigger(paced) for _ in range(7)]

    paced.pass_time(30)
    waiting = [paced.get(run) for run in runs if not paced.get(run).is_final and paced.get(run).job is None]
    assert len(waiting) == 3
    for run in waiting:
        story = explain_run(run, paced.clock.now())
        assert f"pacing: aci/create/{SUBSCRIPTION}/{REGION} allows 16 calls an hour" in story.waits_for
    # In small steps: a place is lost to a run that comes more than 5 s late for it.
    paced.pass_time(900, step=2)
    paced.settle()

    assert all(paced.get(run).state.type is StateType.COMPLETED for run in runs)
    assert "TooManyRequests" not in {call.outcome for call in paced.double.log}
    paced.double.close()


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_each_fault_ends_in_one_run_of_the_job(world: AciServiceWorld, fault: Fault) -> None:
    world.double.faults.add("put", fault)
    run = trigger(world)

    world.settle()

    assert world.get(run).state.type is StateType.COMPLETED
    assert world.per_attempt() == {f"{run.id}/1": 1}


def test_a_dropped_put_whose_job_is_quick_is_not_sent_again(world: AciServiceWorld) -> None:
    """The job is over before anybody can look; a second PUT would run it again."""
    world.double.model.default_seconds = 0.0
    world.double.faults.add("put", Fault.accept_then_drop())
    run = trigger(world)

    world.settle()

    assert world.get(run).state.type is StateType.COMPLETED
    assert len(world.double.sent("put")) == 1
    assert world.double.starts() == {world.key_of(run): 1}


def faulted_runs(seed: int, number: int) -> None:
    """Submit runs with faults, cancels and crashes; none is doubled, lost or left open."""
    luck = random.Random(seed)
    # Groups show so late that a repeat comes before anybody can see what the first call started.
    world = AciServiceWorld(default_seconds=5.0, visibility_delay_seconds=25.0, rules=roomy(), seed=seed)
    for fault in FAULTS:
        world.double.faults.chance("put", fault, 0.05)
    for operation in ("get", "delete", "stop", "logs"):
        world.double.faults.chance(operation, luck.choice([aci_faults.access_denied(), Fault.drop_before()]), 0.05)
    runs = [trigger(world, command=luck.choice(["true", "exit 1", "sleep 3600"])) for _ in range(number)]
    for _ in range(12):
        world.crash_at = luck.randrange(60)
        world.pass_time(luck.choice([1, 5, 30]), step=1)
        cancelled = luck.choice(runs)
        if not world.get(cancelled).is_final:
            cancel_run(cancelled.id, world.app, by="chance")
    world.crash_at = None

    world.settle(8 * 3600)

    assert len({call.outcome for call in world.double.log}) > 3, "faults were met"
    assert {run: count for run, count in world.per_attempt().items() if count > 1} == {}
    assert {each.number for each in world.double.started} == {1}, "no group was run again"
    assert all(world.get(run).is_final for run in runs)
    assert not world.double.left(), "every group was deleted"
    world.double.close()


@pytest.mark.parametrize("seed", range(4))
def test_faulted_runs_run_once_and_all_end(seed: int) -> None:
    faulted_runs(seed, 13)


@pytest.mark.prove
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(100, 125))
def test_a_thousand_faulted_runs_run_once_and_all_end(seed: int) -> None:
    faulted_runs(seed, PROVEN // 25)


def test_faults_of_the_last_page_do_not_lose_an_outcome(world: AciServiceWorld) -> None:
    """Output that cannot be read at the end is not kept; the run ends all the same."""
    world.double.faults.when(lambda operation, _: aci_faults.server_error() if operation == "logs" else None)
    run = trigger(world, command="echo lost")
    started = world.clock.now()

    world.settle()

    assert world.get(run).state.type is StateType.COMPLETED
    assert world.clock.now() - started < timedelta(hours=1)
    assert read_logs(world.app, world.get(run)).lines == ()
