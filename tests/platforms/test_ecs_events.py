"""Task state-change events move runs at once: doubled, late or out of order, and never a run that is not theirs."""

from __future__ import annotations

import copy
import json
import random
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from push_pools.domain.errors import NotFound, PlatformMissing
from push_pools.domain.events import JobChanged, parse_event
from push_pools.domain.runs import Phase
from push_pools.domain.states import StateType
from push_pools.ports import ReadsEvents
from push_pools.services.stop import cancel_run
from push_pools.testing.ecs_double import CAPACITY, Fault
from tests.world import OnePlatform

from .test_ecs_service import EcsServiceWorld, pids, trigger

if TYPE_CHECKING:
    from collections.abc import Iterator

    from push_pools.domain.runs import FlowRun


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[EcsServiceWorld]:
    world = EcsServiceWorld(monkeypatch, default_seconds=20.0)
    yield world
    world.double.close()


def events(world: EcsServiceWorld, **how: Any) -> list[dict[str, Any]]:
    return world.double.task_state_change_events(**how)


def send(world: EcsServiceWorld, *told: dict[str, Any]) -> None:
    """Deliver events as a queue does that a rule of EventBridge sends to."""
    for event in told:
        world.queue.send(json.dumps(event))
    world.drain()


def started(world: EcsServiceWorld, **variables: Any) -> tuple[FlowRun, list[dict[str, Any]]]:
    """Start a run and return it with all events of its task; nobody has looked at it yet."""
    run = trigger(world, **variables)
    world.drain()
    world.advance(60)
    return run, events(world)


def test_ecs_can_be_read(world: EcsServiceWorld) -> None:
    """So the service asks it."""
    assert isinstance(world.ecs, ReadsEvents)


def test_an_event_of_eventbridge_is_a_job_changed(world: EcsServiceWorld) -> None:
    """Bare or in an SQS record; its id does not matter, since facts name their job."""
    _, told = started(world)
    event = parse_event(json.dumps(told[0])).event
    assert isinstance(event, JobChanged)
    assert (event.platform, event.detail["taskArn"]) == ("ecs:push", told[0]["detail"]["taskArn"])
    record = {"Records": [{"messageId": "m", "body": json.dumps(told[0])}]}
    assert parse_event(json.dumps(record)).event == event


def test_each_event_moves_the_run_without_a_look(world: EcsServiceWorld) -> None:
    """Running, then Completed; ECS is not asked about the task."""
    run, told = started(world)
    by_status = {event["detail"]["lastStatus"]: event for event in told}
    send(world, by_status["PENDING"])
    assert world.get(run).state.name == "Submitted"
    send(world, by_status["RUNNING"])
    assert world.get(run).state.name == "Running"
    send(world, by_status["STOPPED"])
    done = world.get(run)
    assert (done.state.name, done.phase) == ("Completed", Phase.SETTLED)
    assert world.double.calls["DescribeTasks"] == 0


@pytest.mark.parametrize("seed", range(10))
def test_doubled_and_shuffled_events_say_the_same(world: EcsServiceWorld, seed: int) -> None:
    """The last truth stands whatever the order; what comes again writes nothing."""
    run, told = started(world, command="exit 3")
    luck = random.Random(seed)
    order = [*told, *luck.choices(told, k=5)]
    luck.shuffle(order)
    send(world, *order)
    done = world.get(run)
    assert (done.state.type, done.state.exit_code, done.attempt) == (StateType.FAILED, 3, 1)
    send(world, *order)
    assert world.get(run) == done


def test_an_event_may_be_the_first_to_know_the_task(world: EcsServiceWorld) -> None:
    """RunTask's answer was lost: the event names run and attempt, and records the pid."""
    world.double.faults.add("RunTask", Fault.accept_then_drop())
    run = trigger(world)
    world.drain()
    assert world.get(run).infrastructure_pid is None
    world.advance(6)
    send(world, *events(world))
    known = world.get(run)
    assert known.state.name == "Running"
    assert known.infrastructure_pid == f"default::{world.double.started[0].task_arn}"
    world.settle()
    assert world.per_attempt() == {f"pp/{run.id}/1": 1}


def test_a_task_that_becomes_known_by_an_event_is_stopped_if_its_run_is_cancelled(world: EcsServiceWorld) -> None:
    """Whoever records the pid of a cancelled run stops the job."""
    world.double.faults.add("RunTask", Fault.accept_then_drop())
    run = trigger(world, command="sleep 900")
    world.deliver()
    cancel_run(run.id, world.app, by="a test")
    world.double.model.visibility_delay_seconds = 30  # Whoever looks for the task does not find it yet.
    world.drain()
    assert (world.get(run).state.name, world.get(run).infrastructure_pid) == ("Cancelling", None)
    world.advance(6)
    send(world, *events(world))
    assert world.double.calls["StopTask"] == 1
    world.settle()
    assert world.get(run).state.name == "Cancelled"


def test_a_task_that_a_refusal_denied_is_adopted_by_its_event(world: EcsServiceWorld) -> None:
    """`failures` lied: the event comes while the key settles, and no second launch follows."""
    world.double.faults.add("RunTask", Fault.lying_failures(CAPACITY))
    run = trigger(world)
    world.drain()
    world.advance(6)
    send(world, *events(world))
    assert world.get(run).state.name == "Running"
    world.settle()
    assert (world.get(run).launch, world.double.calls["RunTask"]) == (1, 1)


def test_a_second_task_of_an_attempt_is_stopped_and_decides_nothing(world: EcsServiceWorld) -> None:
    """It cannot be, unless a promise of AWS is broken: then it is an alarm, and the first task decides."""
    run, told = started(world, command="sleep 900")
    send(world, *told)
    second = copy.deepcopy(told[-1])
    second["detail"] |= {"taskArn": told[-1]["detail"]["taskArn"][:-2] + "zz", "lastStatus": "STOPPED"}
    second["detail"]["containers"][0]["exitCode"] = 0
    send(world, second)
    still = world.get(run)
    assert still.state.name == "Running"
    assert any(entry.what == "duplicate_job" for entry in still.journal)
    assert [chore.kind for chore in still.chores] == ["watch"]


def test_events_of_an_earlier_attempt_are_ignored(world: EcsServiceWorld) -> None:
    """They come late, and must not end the attempt that runs now."""
    run, told = started(world, env={"PUSH_POOLS_DOUBLE": '{"outcome": "spot", "seconds": 5}'})
    send(world, *told)
    assert world.get(run).state.name == "AwaitingRetry"
    world.pass_time(12, step=1)
    assert world.get(run).attempt == 2
    before = world.get(run)
    send(world, *told)
    assert world.get(run) == before


def test_an_end_without_an_exit_code_is_looked_at_once(world: EcsServiceWorld) -> None:
    """The event may be older than the code: DescribeTasks has it."""
    run, told = started(world)
    (last,) = (copy.deepcopy(event) for event in told if event["detail"]["lastStatus"] == "STOPPED")
    del last["detail"]["containers"][0]["exitCode"]
    send(world, last)
    assert world.double.calls["DescribeTasks"] == 1
    assert world.get(run).state.name == "Completed"


@pytest.mark.parametrize("visible", [True, False])
def test_an_end_that_cannot_be_confirmed_is_left_to_the_sweep(world: EcsServiceWorld, visible: bool) -> None:
    """Neither a failure to ask nor a task that is not shown yet ends the run."""
    run, told = started(world)
    (last,) = (copy.deepcopy(event) for event in told if event["detail"]["lastStatus"] == "STOPPED")
    del last["detail"]["containers"][0]["exitCode"]
    if visible:
        world.double.faults.add("DescribeTasks", Fault.access_denied())
    else:
        world.double.model.visibility_delay_seconds = 3600
    send(world, last)
    assert world.get(run).state.name == "Submitted"
    world.double.model.visibility_delay_seconds = 0
    world.settle()
    assert world.get(run).state.name == "Completed"


def test_a_task_that_failed_to_start_is_explained(world: EcsServiceWorld) -> None:
    """Its containers may be missing altogether."""
    run, told = started(world, env={"PUSH_POOLS_DOUBLE": '{"outcome": "no_containers"}'})
    send(world, *told)
    entry = next(each for each in world.get(run).journal if each.what == "retry")
    assert entry.facts["failure_class"] == "network"


def test_a_task_that_only_events_have_shown_is_not_gone_because_a_look_does_not_find_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """DescribeTasks may show it later than EventBridge; a task that nobody may see for five minutes is gone."""
    world = EcsServiceWorld(monkeypatch, default_seconds=900.0, visibility_delay_seconds=60.0)
    run = trigger(world)
    world.drain()
    world.advance(6)
    send(world, *events(world))
    world.sweep()
    assert world.get(run).state.name == "Running"
    world.settle()
    assert (world.get(run).state.name, world.tasks(run)) == ("Completed", 1)
    world.double.close()


def changed(**detail: Any) -> dict[str, Any]:
    return {"version": 1, "type": "job-changed", "platform": "ecs:push", "detail": detail}


def strange(event: dict[str, Any], **detail: Any) -> dict[str, Any]:
    return {**event, "detail": {**event["detail"], **detail}}


def test_events_of_tasks_that_are_not_ours_are_ignored(world: EcsServiceWorld) -> None:
    """Another service's, another installation's, one in another cluster or region, and what is no event at all."""
    run, told = started(world)
    last = told[-1]
    before = world.get(run)
    task, cluster = last["detail"]["taskArn"], last["detail"]["clusterArn"]
    send(
        world,
        strange(last, startedBy="ecs-svc/123"),
        strange(last, startedBy=None),
        strange(last, startedBy=f"pp/{uuid4()}/1"),
        strange(last, startedBy=f"pp/{'-' * 36}/1"),
        strange(last, startedBy=f"pp/{run.id}/2"),
        strange(last, clusterArn=cluster + "-other"),
        strange(last, taskArn=task.replace("us-east-1", "eu-west-1")),
        strange(last, taskArn=7),
        strange(last, executionStoppedAt="yesterday"),
        changed(),
        changed(startedBy=f"pp/{run.id}/1"),
    )
    assert world.get(run) == before
    assert not world.queue.dead_letters()


def test_an_event_before_the_intent_is_ignored(world: EcsServiceWorld) -> None:
    """A run without a job has nothing that could have changed."""
    run, told = started(world)
    other = world.trigger(scheduled_time=world.clock.now().replace(year=2040))
    send(world, strange(told[-1], startedBy=f"pp/{other.id}/1"))
    assert world.get(other).job is None
    assert world.get(run).state.name == "Submitted"


def test_a_platform_that_reads_no_events_ignores_them(world: EcsServiceWorld) -> None:
    """They may come from a newer release."""
    from push_pools.testing.fake_platform import FakePlatform

    run, told = started(world)
    world.app.platforms.platform = FakePlatform(cloud=world.cloud)  # type: ignore[attr-defined]
    send(world, *told)
    assert world.get(run).state.name == "Submitted"


@pytest.mark.parametrize("error", [NotFound("pool type", "ecs:push"), PlatformMissing("ecs:push", "broken", fix="x")])
def test_an_event_of_a_platform_that_is_not_there_is_ignored(
    world: EcsServiceWorld, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """It would be of no more use among the dead letters: a sweep finds what it told."""
    run, told = started(world)

    def missing(self: OnePlatform, type_: str) -> Any:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(OnePlatform, "__call__", missing)
        send(world, *told)
    assert world.get(run).state.name == "Submitted"
    assert not world.queue.dead_letters()


@pytest.mark.parametrize("seed", range(4))
def test_with_lost_doubled_and_shuffled_events_and_faults_each_attempt_has_one_task(
    monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Events come at any time among calls that fail, cancels and sweeps."""
    luck = random.Random(seed)
    world = EcsServiceWorld(monkeypatch, default_seconds=20.0, visibility_delay_seconds=20.0, seed=seed)
    for fault in (Fault.accept_then_drop(), Fault.lying_failures(), Fault.failures(), Fault.server_error(effect=True)):
        world.double.faults.chance("RunTask", fault, 0.12)
    runs = [trigger(world, command=luck.choice(["true", "exit 1", "sleep 300"])) for _ in range(16)]
    for _ in range(30):
        world.crash_at = luck.randrange(80)
        world.pass_time(luck.choice([1, 5, 30]), step=2)
        send(world, *events(world, duplicate=0.4, drop=0.2, shuffle=True))
        if not world.get(one := luck.choice(runs)).is_final:
            cancel_run(one.id, world.app, by="chance")
    world.crash_at = None
    world.settle(6 * 3600)
    assert set(world.per_attempt().values()) <= {1}
    known = {pid for run in runs for pid in pids(world.get(run))}
    assert {f"default::{task.task_arn}" for task in world.double.started} <= known
    assert not world.double.running()
    world.double.close()


def test_an_uncertain_call_is_not_repeated_once_an_event_told(world: EcsServiceWorld) -> None:
    """The submission that comes after the event finds the run submitted."""
    world.double.faults.add("RunTask", Fault.accept_then_drop())
    run = trigger(world)
    world.drain()
    world.advance(1)
    send(world, *events(world))
    world.pass_time(30)
    assert world.double.calls["RunTask"] == 1
    assert world.get(run).state.name in ("Running", "Completed")
