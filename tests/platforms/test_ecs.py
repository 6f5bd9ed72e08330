"""The ECS platform against the double, through the unmodified boto3 and a real socket."""

from __future__ import annotations

import contextlib
import copy
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import boto3
import pytest
from botocore.exceptions import ClientError
from botocore.stub import Stubber

from push_pools.credentials.aws import AwsCredentials
from push_pools.domain.errors import (
    InvalidJobVariables,
    JobRejected,
    NotFound,
    NothingStarted,
    PlatformError,
    PlatformUnavailable,
    SubmissionUncertain,
)
from push_pools.domain.failures import explain_observation
from push_pools.domain.runs import job_key
from push_pools.domain.states import JobStatus
from push_pools.platforms import ecs as ecs_module
from push_pools.platforms.ecs_config import EcsJobConfiguration
from push_pools.platforms.ecs_jobs import EcsJobs
from push_pools.platforms.ecs_network import KEPT_SECONDS, Networks
from push_pools.platforms.ecs_register import Definitions, ProcessMemo
from push_pools.testing.ecs_double import CAPACITY, EcsDouble, Fault, Hold, LifecycleTimes, ManualClock, TaskPlan

from .ecs_world import (
    SUBNETS,
    TEMPLATE,
    Clock,
    EcsWorld,
    arn_of,
    environment,
    job_of,
    static,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from push_pools.domain.runs import JobHandle

ROLE = "arn:aws:iam::123456789012:role/exec"
BEFORE_CALL_SECONDS = ecs_module.BEFORE_CALL_SECONDS
LOGS: dict[str, Any] = {"configure_cloudwatch_logs": True, "execution_role_arn": ROLE}


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[EcsWorld]:
    yield from a_world(monkeypatch)


def a_world(monkeypatch: pytest.MonkeyPatch, **options: Any) -> Iterator[EcsWorld]:
    clock = ManualClock()
    with EcsDouble(clock=clock, **options) as double:
        for name, value in environment(double.endpoint).items():
            monkeypatch.setenv(name, value)
        yield EcsWorld(double, clock)


def client(world: EcsWorld) -> Any:
    return boto3.client("ecs", endpoint_url=world.double.endpoint)


# -- registering


def test_a_burst_of_200_runs_registers_one_definition(world: EcsWorld) -> None:
    gate = threading.Barrier(50)

    def prepare(number: int) -> EcsJobConfiguration:
        if number < 50:
            gate.wait()
        return world.platform.prepare(job_of(uuid4()), world.memo)

    with ThreadPoolExecutor(50) as pool:
        jobs = list(pool.map(prepare, range(200)))

    assert world.double.calls == {"RegisterTaskDefinition": 1}
    (arn,) = {str(job.task_run_request["taskDefinition"]) for job in jobs}
    assert arn.endswith(":1")


def test_a_later_process_finds_the_definition_in_the_memo(world: EcsWorld) -> None:
    first = world.platform.prepare(job_of(), world.memo)

    later = world.another().prepare(job_of(), world.memo)

    assert later == first
    assert world.double.calls["RegisterTaskDefinition"] == 1


def test_of_two_processes_the_first_to_remember_wins(world: EcsWorld) -> None:
    class SlowMemo(ProcessMemo):
        def remember(self, key: str, value: str) -> str:
            self._kept.setdefault(key, "arn:aws:ecs:us-east-1:123456789012:task-definition/by-another:1")
            return super().remember(key, value)

    job = world.platform.prepare(job_of(), SlowMemo())

    assert str(job.task_run_request["taskDefinition"]).endswith("by-another:1")


def test_regions_and_identities_do_not_share_definitions(world: EcsWorld) -> None:
    world.blocks["b1"] = static(world.double.endpoint)
    world.blocks["b2"] = static(world.double.endpoint, region_name="eu-west-1")
    for block in ("b1", "b2"):
        world.platform.prepare(job_of(aws_credentials={"$ref": {"block_document_id": block}}), world.memo)
    world.platform.prepare(job_of(), world.memo)
    world.blocks["b1"] = static(world.double.endpoint, aws_access_key_id="AKIAOTHER")
    world.platform.prepare(job_of(aws_credentials={"$ref": {"block_document_id": "b1"}}), world.memo)

    assert world.double.calls["RegisterTaskDefinition"] == 4


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault.concurrent_revisions(), PlatformUnavailable),
        (Fault.access_denied(), JobRejected),
        (Fault.answer("ClientException", "Container.image should not be null"), JobRejected),
    ],
)
def test_a_refused_registration(world: EcsWorld, fault: Fault, kind: type[PlatformError]) -> None:
    world.double.faults.add("RegisterTaskDefinition", fault, times=5)

    with pytest.raises(kind):
        world.platform.prepare(job_of(), world.memo)


def test_registering_is_tried_again_by_the_library(world: EcsWorld) -> None:
    world.double.faults.add("RegisterTaskDefinition", Fault.server_error())

    world.platform.prepare(job_of(), world.memo)

    assert world.double.calls["RegisterTaskDefinition"] == 2


def test_callers_that_waited_for_a_failed_registration_do_not_all_try_again(world: EcsWorld) -> None:
    world.double.latency_seconds = 0.3
    world.double.faults.when(lambda operation, _: Fault.access_denied())
    gate = threading.Barrier(20)

    def prepare(_: int) -> bool:
        gate.wait()
        with pytest.raises(JobRejected):
            world.platform.prepare(job_of(uuid4()), world.memo)
        return True

    with ThreadPoolExecutor(20) as pool:
        assert all(pool.map(prepare, range(20)))

    assert world.double.calls["RegisterTaskDefinition"] == 1
    world.double.faults.clear()
    world.clock.advance(1)
    world.platform.prepare(job_of(), world.memo)


def test_what_cannot_be_run_is_not_registered(world: EcsWorld) -> None:
    with pytest.raises(InvalidJobVariables, match="8192"):
        world.platform.prepare(job_of(env={"BIG": "x" * 9000}), world.memo)
    with pytest.raises(InvalidJobVariables, match="8192"):
        world.platform.preview(job_of(env={"BIG": "x" * 9000}))

    assert not world.double.calls


def test_preparing_twice_changes_nothing(world: EcsWorld) -> None:
    once = world.platform.prepare(job_of(), world.memo)

    assert world.platform.prepare(once, world.memo) is once
    assert world.double.calls["RegisterTaskDefinition"] == 1


def test_without_a_region_nothing_is_asked(world: EcsWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION")

    with pytest.raises(JobRejected, match="no AWS region is set") as caught:
        world.platform.prepare(job_of(), world.memo)

    assert caught.value.codes == ("NoRegion",)
    monkeypatch.setenv("AWS_REGION", "eu-north-1")
    assert world.platform.prepare(job_of(), world.memo).region == "eu-north-1"


# -- a definition of the user's own


def own_definition(world: EcsWorld, family: str = "mine", **extra: Any) -> str:
    body: dict[str, Any] = {
        "family": family,
        "containerDefinitions": [
            {"name": "proxy", "image": "p", "essential": False},
            {
                "name": "main",
                "image": "m",
                "logConfiguration": {
                    "logDriver": "awslogs",
                    "options": {"awslogs-group": "g", "awslogs-stream-prefix": "p"},
                },
            },
        ],
        "cpu": "256",
        "memory": "512",
        "networkMode": "awsvpc",
        "requiresCompatibilities": ["FARGATE"],
        "executionRoleArn": ROLE,
        **extra,
    }
    return str(client(world).register_task_definition(**body)["taskDefinition"]["taskDefinitionArn"])


def test_a_given_definition_is_resolved_to_its_revision_and_never_registered(world: EcsWorld) -> None:
    own_definition(world)
    arn = own_definition(world)

    job, key = world.prepared(task_definition_arn="mine", command="exit 3")
    handle = world.platform.submit(job, key)

    assert world.double.calls["RegisterTaskDefinition"] == 2
    assert job.task_run_request["taskDefinition"] == arn
    assert handle.place == {"region": "us-east-1", "cluster": "default"}
    assert handle.details == {"container": "main", "log_group": "g", "log_prefix": "p"}
    assert world.observed(handle).exit_code == 3


def test_a_revision_is_described_once_and_a_family_again_after_a_minute(world: EcsWorld) -> None:
    arn = own_definition(world)
    now = 0.0
    definitions = Definitions(seconds=lambda: now)
    for name, later in ((arn, 0.0), (arn, 9999.0), ("mine", 9999.0), ("mine", 10_030.0)):
        now = later
        definitions.describe(name, None, "scope", "us-east-1", client(world))

    assert world.double.calls["DescribeTaskDefinition"] == 2
    newer = own_definition(world)
    now += 61
    assert definitions.describe("mine", None, "scope", "us-east-1", client(world)).arn == newer


def test_an_inactive_definition_and_a_missing_container_are_named(world: EcsWorld) -> None:
    arn = own_definition(world)
    with pytest.raises(JobRejected, match="has no container 'absent'; it has proxy, main"):
        world.prepared(task_definition_arn=arn, container_name="absent")
    client(world).deregister_task_definition(taskDefinition=arn)

    with pytest.raises(JobRejected, match="is inactive") as caught:
        world.prepared(task_definition_arn=arn)

    assert caught.value.variable == "task_definition_arn"
    with pytest.raises(JobRejected, match="Unable to describe"):
        world.prepared(task_definition_arn="absent")


def test_a_given_definition_without_awsvpc_gets_no_network(world: EcsWorld) -> None:
    own_definition(world, "bridged", networkMode="bridge", requiresCompatibilities=["EC2"])

    job, _ = world.prepared(task_definition_arn="bridged", launch_type="EC2")

    assert "networkConfiguration" not in job.task_run_request


# -- submitting


def test_one_run_is_one_register_and_one_run_task(world: EcsWorld) -> None:
    run = uuid4()
    handle = world.submitted(run=run, attempt=2)

    (body,) = world.bodies("RunTask")
    assert world.double.calls == {"RegisterTaskDefinition": 1, "RunTask": 1}
    assert (body["clientToken"], body["startedBy"], body["count"]) == (job_key(run, 2, 1), f"pp/{run}/2", 1)
    assert handle.pid == f"default::{world.double.started[0].task_arn}"
    assert (handle.run_id, handle.attempt) == (run, 2)


def test_a_repeated_submission_is_the_same_request_and_the_same_task(world: EcsWorld) -> None:
    job, key = world.prepared(env={"B": "1", "A": "2"})

    first = world.platform.submit(job, key)
    again = world.another().submit(EcsJobConfiguration.model_validate_json(job.model_dump_json()), key)

    assert again == first
    assert len({json.dumps(body) for body in world.bodies("RunTask")}) == 1
    assert len(world.double.started) == 1


def test_a_cluster_is_kept_in_the_pid_as_it_was_written(world: EcsWorld) -> None:
    client(world).create_cluster(clusterName="jobs")

    handle = world.submitted(cluster="jobs")

    assert handle.pid is not None
    assert handle.pid.startswith("jobs::arn:aws:ecs:us-east-1:123456789012:task/jobs/")
    assert world.observed(handle).status is JobStatus.SUCCEEDED


SUBMIT_FAULTS: list[tuple[Fault, type[PlatformError]]] = [
    (Fault.throttle(), PlatformUnavailable),
    (Fault.wrapped_throttle(), PlatformUnavailable),
    (Fault.answer("ClientException", "limit on the number of vCPUs"), PlatformUnavailable),
    (Fault.expired_credentials(), PlatformUnavailable),
    (Fault.access_denied(), JobRejected),
    (Fault.answer("ClusterNotFoundException", "Cluster not found."), JobRejected),
    (Fault.answer("BlockedException", "blocked"), JobRejected),
    (Fault.failures(), NothingStarted),
    (Fault.failures(CAPACITY), NothingStarted),
    (Fault.failures("AGENT"), NothingStarted),
    (Fault.lying_failures(), NothingStarted),
    (Fault.server_error(), SubmissionUncertain),
    (Fault.server_error(effect=True), SubmissionUncertain),
    (Fault.accept_then_drop(), SubmissionUncertain),
    (Fault.drop_before(), SubmissionUncertain),
    (Fault.cut_answer(), SubmissionUncertain),
    (Fault.malformed(), SubmissionUncertain),
    (Fault.malformed("{}"), SubmissionUncertain),
    (Fault.malformed('{"tasks": [], "failures": []}'), SubmissionUncertain),
    (Fault.malformed("[]"), SubmissionUncertain),
    (Fault.malformed('{"tasks": [{}]}'), SubmissionUncertain),
    (Fault.malformed('{"tasks": [null]}'), SubmissionUncertain),
    (Fault.malformed("null"), SubmissionUncertain),
]


@pytest.mark.parametrize(
    ("fault", "kind"), SUBMIT_FAULTS, ids=[f"{i}-{f.name}" for i, (f, _) in enumerate(SUBMIT_FAULTS)]
)
def test_a_fault_becomes_the_right_error_after_one_request(
    world: EcsWorld, fault: Fault, kind: type[PlatformError]
) -> None:
    job, key = world.prepared()
    world.double.faults.add("RunTask", fault)

    with pytest.raises(PlatformError) as caught:
        world.platform.submit(job, key)

    assert type(caught.value) is kind
    assert world.double.calls["RunTask"] == 1
    assert caught.value.codes


@pytest.mark.parametrize(
    "fault", [Fault.accept_then_drop(), Fault.server_error(effect=True), Fault.cut_answer(), Fault.malformed()]
)
def test_what_landed_without_an_answer_is_found_and_not_started_again(world: EcsWorld, fault: Fault) -> None:
    job, key = world.prepared()
    world.double.faults.add("RunTask", fault)
    with pytest.raises(SubmissionUncertain):
        world.platform.submit(job, key)

    found = world.platform.find(world.platform.handle(job, key))

    assert found is not None
    assert found.key == key
    assert found == world.platform.submit(job, key)
    assert len(world.double.started) == 1


def test_a_slow_answer_is_given_up_in_time(world: EcsWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("push_pools.credentials.aws_sessions.SUBMIT_READ_SECONDS", 0.2)
    job, key = world.prepared()
    hold = Hold()
    world.double.faults.add("RunTask", Fault.hang(hold))

    with pytest.raises(SubmissionUncertain, match=r"(?i)read timeout"):
        world.platform.submit(job, key)

    assert world.double.calls["RunTask"] == 1
    hold.release()


def test_the_times_of_a_submission_stay_below_thirty_seconds() -> None:
    from push_pools.credentials.aws_sessions import CONNECT_SECONDS, SUBMIT_READ_SECONDS
    from push_pools.domain.records import Timing

    longest = BEFORE_CALL_SECONDS + CONNECT_SECONDS + SUBMIT_READ_SECONDS

    assert longest < Timing().call_seconds


def test_an_endpoint_that_nobody_listens_on_is_unavailable_and_not_uncertain(world: EcsWorld) -> None:
    job, key = world.prepared()
    world.double.close()

    with pytest.raises(PlatformUnavailable) as caught:
        world.platform.submit(job, key)

    assert caught.value.codes[0] == "ConnectFailed"


def test_slow_credentials_send_nothing(world: EcsWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    job, key = world.prepared()
    monkeypatch.setattr(ecs_module, "BEFORE_CALL_SECONDS", 0.05)
    monkeypatch.setattr(AwsCredentials, "check", lambda self, platform: time.sleep(0.2))

    with pytest.raises(PlatformUnavailable, match="too long"):
        world.platform.submit(job, key)

    assert world.double.calls["RunTask"] == 0


def test_a_block_that_is_gone_is_unavailable_everywhere(world: EcsWorld) -> None:
    world.blocks["b"] = static(world.double.endpoint)
    job, key = world.prepared(aws_credentials={"$ref": {"block_document_id": "b"}})
    handle = world.platform.submit(job, key)

    class NoBlocks(dict[str | None, Any]):
        def __missing__(self, key: str | None) -> Any:
            raise NotFound("block", str(key))

    world.blocks = NoBlocks()
    calls: list[Callable[[], Any]] = [
        lambda: world.platform.submit(job, key),
        lambda: world.platform.find(handle),
        lambda: world.platform.observe([handle]),
        lambda: world.platform.stop(handle, 1),
        lambda: world.platform.prepare(job_of(aws_credentials={"$ref": {"block_document_id": "b"}}), world.memo),
    ]
    for call in calls:
        with pytest.raises(PlatformUnavailable, match="block 'b' does not exist"):
            call()


def test_a_block_of_another_type_is_refused(world: EcsWorld) -> None:
    world.blocks["b"] = "a secret"

    with pytest.raises(JobRejected, match="of another type") as caught:
        world.prepared(aws_credentials={"$ref": {"block_document_id": "b"}})

    assert "a secret" not in str(caught.value)


def test_the_stored_region_wins_over_a_changed_block(world: EcsWorld) -> None:
    world.blocks["b"] = static(world.double.endpoint)
    job, key = world.prepared(aws_credentials={"$ref": {"block_document_id": "b"}})
    world.blocks["b"] = static(world.double.endpoint, region_name="eu-west-1")

    handle = world.platform.submit(job, key)

    assert handle.place["region"] == "us-east-1"
    assert handle.credential_block_id == "b"
    assert world.observed(handle).status is JobStatus.SUCCEEDED


# -- conflicts, and definitions that disappear


def test_a_conflict_is_adopted(world: EcsWorld) -> None:
    run = uuid4()
    job, key = world.prepared(run=run)
    other, _ = world.prepared(run=run, env={"CHANGED": "1"})
    first = world.platform.submit(job, key)

    adopted = world.platform.submit(other, key)

    assert adopted.pid == first.pid
    assert len(world.double.started) == 1
    assert world.double.calls["DescribeTasks"] == 1


def test_a_conflict_is_adopted_unseen_when_there_is_no_time_to_look(
    world: EcsWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = uuid4()
    job, key = world.prepared(run=run)
    other, _ = world.prepared(run=run, env={"CHANGED": "1"})
    first = world.platform.submit(job, key)
    world.double.latency_seconds = 0.2
    monkeypatch.setattr(ecs_module, "BEFORE_CALL_SECONDS", 0.1)

    assert world.platform.submit(other, key).pid == first.pid
    assert world.double.calls["DescribeTasks"] == 0


@pytest.mark.parametrize("fault", [Fault.throttle(), Fault.access_denied(), Fault.drop_before(), Fault.malformed("[]")])
def test_a_conflict_is_adopted_unseen_when_looking_fails(world: EcsWorld, fault: Fault) -> None:
    run = uuid4()
    job, key = world.prepared(run=run)
    other, _ = world.prepared(run=run, env={"CHANGED": "1"})
    first = world.platform.submit(job, key)
    world.double.faults.add("DescribeTasks", fault)

    assert world.platform.submit(other, key).pid == first.pid


def test_a_conflict_with_a_task_that_is_not_visible_yet_is_adopted(monkeypatch: pytest.MonkeyPatch) -> None:
    for world in a_world(monkeypatch, visibility_delay_seconds=60.0):
        run = uuid4()
        job, key = world.prepared(run=run)
        first = world.platform.submit(job, key)

        other, _ = world.prepared(run=run, env={"CHANGED": "1"})

        assert world.platform.submit(other, key).pid == first.pid


def test_a_conflict_with_a_refused_request_says_that_nothing_was_started(world: EcsWorld) -> None:
    run = uuid4()
    job, key = world.prepared(run=run)
    world.double.faults.add("RunTask", Fault.failures())
    with pytest.raises(NothingStarted):
        world.platform.submit(job, key)
    other, _ = world.prepared(run=run, env={"CHANGED": "1"})

    with pytest.raises(NothingStarted, match="bound to a request that was refused"):
        world.platform.submit(other, key)


def test_a_conflict_with_a_task_of_somebody_else_is_looked_into_by_people(world: EcsWorld) -> None:
    job, key = world.prepared()
    foreign = client(world).run_task(
        taskDefinition=str(job.task_run_request["taskDefinition"]),
        networkConfiguration={"awsvpcConfiguration": SUBNETS},
        launchType="FARGATE",
        clientToken=key,
        startedBy="somebody",
    )

    with pytest.raises(SubmissionUncertain, match="which is not ours"):
        world.platform.submit(job, key)

    assert foreign["tasks"]


def test_a_refusal_is_replayed_under_its_key_and_the_next_launch_starts(world: EcsWorld) -> None:
    run = uuid4()
    job, key = world.prepared(run=run)
    world.double.faults.add("RunTask", Fault.failures())
    for _ in range(2):
        with pytest.raises(NothingStarted):
            world.platform.submit(job, key)
    assert world.platform.find(world.platform.handle(job, key)) is None

    handle = world.platform.submit(job, job_key(run, 1, 2))

    assert len(world.double.started) == 1
    assert world.platform.find(world.platform.handle(job, job_key(run, 1, 3))) == handle.model_copy(
        update={"key": job_key(run, 1, 3)}
    )


@pytest.mark.parametrize("has_memo", [True, False])
def test_a_deregistered_definition_is_registered_anew_once_and_for_all(world: EcsWorld, has_memo: bool) -> None:
    jobs = [world.prepared() for _ in range(3)]
    arn = str(jobs[0][0].task_run_request["taskDefinition"])
    client(world).deregister_task_definition(taskDefinition=arn)
    platform = world.platform if has_memo else world.another()

    handles = [platform.submit(job, key) for job, key in jobs]

    assert world.double.calls["RegisterTaskDefinition"] == 2
    assert len({handle.pid for handle in handles}) == len(world.double.started) == 3
    assert {task.task_definition_arn for task in world.double.started} == {arn[:-1] + "2"}
    again = [world.another().submit(job, key) for job, key in jobs]
    assert again == handles, "a repeat adopts by conflict, whichever revision it names"
    if has_memo:
        assert world.prepared()[0].task_run_request["taskDefinition"] == arn[:-1] + "2"


def test_a_definition_is_not_registered_anew_without_time_for_another_call(
    world: EcsWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, key = world.prepared()
    client(world).deregister_task_definition(taskDefinition=str(job.task_run_request["taskDefinition"]))
    world.double.latency_seconds = 0.2
    monkeypatch.setattr(ecs_module, "BEFORE_CALL_SECONDS", 0.3)

    with pytest.raises(PlatformUnavailable, match="registered anew") as caught:
        world.platform.submit(job, key)

    assert caught.value.codes[0] == "TaskDefinitionInactive"
    world.double.latency_seconds = 0.0
    assert world.platform.submit(job, key).pid


def test_a_definition_of_the_users_own_is_not_registered_anew(world: EcsWorld) -> None:
    arn = own_definition(world)
    job, key = world.prepared(task_definition_arn=arn)
    client(world).deregister_task_definition(taskDefinition=arn)

    with pytest.raises(JobRejected, match="inactive") as caught:
        world.platform.submit(job, key)

    assert caught.value.variable == "task_definition_arn"


# -- finding


def test_find_sees_running_and_stopped_tasks_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    for world in a_world(monkeypatch, default_seconds=60.0):
        world.submitted()
        run = uuid4()
        job, key = world.prepared(run=run)
        asked = world.platform.handle(job, key)
        assert world.platform.find(asked) is None

        handle = world.platform.submit(job, key)

        assert world.platform.find(asked) == handle
        world.clock.advance(120)
        assert world.platform.find(asked) == handle
        assert world.platform.find(asked.model_copy(update={"attempt": 2})) is None


def test_find_works_where_started_by_must_be_the_only_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    for world in a_world(monkeypatch, started_by_alone=True, default_seconds=60.0):
        others = [world.submitted() for _ in range(120)]
        job, key = world.prepared()
        handle = world.platform.submit(job, key)
        asked = handle.model_copy(update={"pid": None})

        assert world.platform.find(asked) == handle
        world.clock.advance(120)

        assert world.platform.find(asked) == handle
        assert world.double.calls["DescribeTasks"] == 2
        assert len(others) == 120


def test_of_several_tasks_find_returns_the_earliest(world: EcsWorld) -> None:
    run = uuid4()
    job, key = world.prepared(run=run)
    world.double.faults.add("RunTask", Fault.lying_failures())
    with pytest.raises(NothingStarted):
        world.platform.submit(job, key)
    world.clock.advance(1)
    second = world.platform.submit(job, job_key(run, 1, 2))

    found = world.platform.find(second.model_copy(update={"pid": None}))

    assert found is not None
    assert arn_of(found) == world.double.started[0].task_arn != arn_of(second)


def test_too_many_tasks_to_tell_is_no_proof(world: EcsWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("push_pools.platforms.ecs_jobs.MAX_PAGES", 0)

    with pytest.raises(PlatformUnavailable, match="cannot be told"):
        world.platform.find(world.platform.handle(*world.prepared()))


def test_find_reads_all_pages(world: EcsWorld) -> None:
    run = uuid4()
    job, _ = world.prepared(run=run)
    for launch in range(1, 103):
        world.clock.advance(1)
        world.platform.submit(job, job_key(run, 1, launch))

    found = world.platform.find(world.platform.handle(job, job_key(run, 1, 1)))

    assert found is not None
    assert arn_of(found) == world.double.started[0].task_arn


# -- observing


def test_hundreds_of_tasks_are_observed_by_the_hundred(world: EcsWorld) -> None:
    handles = [world.submitted() for _ in range(250)]

    seen = world.platform.observe(handles)

    assert world.double.calls["DescribeTasks"] == 3
    assert [each.key for each in seen] == [handle.key for handle in handles]
    assert {each.status for each in seen} == {JobStatus.SUCCEEDED}
    assert len({handle.batch_key for handle in handles}) == 1


def test_no_handles_are_no_call(world: EcsWorld) -> None:
    assert world.platform.observe([]) == []
    assert not world.double.calls


def test_clusters_are_asked_about_apart(world: EcsWorld) -> None:
    client(world).create_cluster(clusterName="jobs")
    handles = [world.submitted(), world.submitted(cluster="jobs"), world.submitted()]

    assert {each.status for each in world.platform.observe(handles)} == {JobStatus.SUCCEEDED}
    assert world.double.calls["DescribeTasks"] == 2


def test_a_task_goes_through_its_states(monkeypatch: pytest.MonkeyPatch) -> None:
    times = LifecycleTimes(10, 10, 10, 10)
    for world in a_world(monkeypatch, times=times, default_seconds=30):
        handle = world.submitted()
        seen = []
        for _ in range(7):
            seen.append(str(world.observed(handle).status))
            world.clock.advance(10)

        assert seen == ["starting", "starting", "running", "running", "running", "running", "succeeded"]


def test_a_forgotten_task_is_gone_and_an_invisible_one_looks_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    for world in a_world(monkeypatch, visibility_delay_seconds=30):
        handle = world.submitted()
        assert world.observed(handle).status is JobStatus.GONE
        world.clock.advance(60)
        assert world.observed(handle).status is JobStatus.SUCCEEDED
        world.clock.advance(timedelta(hours=2))

        seen = world.observed(handle)

        assert (seen.status, seen.codes) == (JobStatus.GONE, ("MISSING",))


def test_a_handle_without_a_task_is_unknown(world: EcsWorld) -> None:
    handle = world.platform.handle(*world.prepared())

    assert world.observed(handle).status is JobStatus.UNKNOWN


@pytest.mark.parametrize(
    ("plan", "status", "class_"),
    [
        (TaskPlan(exit_code=0), "succeeded", None),
        (TaskPlan(exit_code=0, sidecar_exit_code=1), "succeeded", None),
        (TaskPlan(exit_code=4), "failed", "exit"),
        (TaskPlan("oom"), "failed", "oom"),
        (TaskPlan("killed"), "failed", "killed"),
        (TaskPlan("null_exit"), "failed", "platform"),
        (TaskPlan("spot"), "failed", "spot"),
        (TaskPlan("termination_notice"), "failed", "killed"),
        (TaskPlan("host"), "failed", "platform"),
        (TaskPlan("image"), "failed", "image"),
        (TaskPlan("resource_init"), "failed", "platform"),
        (TaskPlan("no_containers"), "failed", "network"),
        (TaskPlan("stuck"), "starting", None),
    ],
    ids=lambda each: getattr(each, "outcome", each),
)
def test_every_ending_of_the_double(
    monkeypatch: pytest.MonkeyPatch, plan: TaskPlan, status: str, class_: str | None
) -> None:
    for world in a_world(monkeypatch, plan=lambda _: plan):
        seen = world.observed(world.submitted())

        assert seen.status == status
        if class_:
            assert str(explain_observation("ecs:push", seen).failure_class) == class_


@pytest.mark.parametrize("fault", [Fault.throttle(), Fault.access_denied(), Fault.server_error(), Fault.drop_before()])
def test_questions_that_fail_are_unavailable(world: EcsWorld, fault: Fault) -> None:
    handle = world.submitted()
    world.double.faults.when(lambda *_: fault)
    asked = handle.model_copy(update={"pid": None})
    calls: list[Callable[[], Any]] = [
        lambda: world.platform.observe([handle]),
        lambda: world.platform.find(asked),
        lambda: world.platform.stop(handle, 1),
    ]
    for call in calls:
        with pytest.raises(PlatformUnavailable):
            call()


@pytest.mark.parametrize("body", ["{}", "[]", "null", "x", '{"tasks": [{}]}', '{"failures": [{}]}', '{"taskArns": 1}'])
def test_a_strange_answer_is_no_answer(world: EcsWorld, body: str) -> None:
    handle = world.submitted()
    world.double.faults.when(lambda *_: Fault.malformed(body))
    asked = handle.model_copy(update={"pid": None})

    with contextlib.suppress(PlatformUnavailable):
        assert world.observed(handle).status is JobStatus.UNKNOWN
    with pytest.raises(PlatformUnavailable):
        world.platform.find(asked)  # Nothing listed is no proof that there is nothing.


def test_a_passing_fault_of_a_question_is_tried_again(world: EcsWorld) -> None:
    handle = world.submitted()
    world.double.faults.add("DescribeTasks", Fault.server_error())

    assert world.observed(handle).status is JobStatus.SUCCEEDED
    assert world.double.calls["DescribeTasks"] == 2


# -- stopping


def test_a_stop_is_ours_by_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    for world in a_world(monkeypatch, default_seconds=60):
        handle = world.submitted()

        world.platform.stop(handle, 5)
        world.platform.stop(handle, 5)

        seen = world.observed(handle)
        assert (seen.status, seen.stopped, seen.exit_code) == (JobStatus.CANCELLED, True, 143)
        assert seen.reason.startswith(f"push-pools stop run={handle.run_id}")


def test_a_stop_by_others_is_a_killed_job(monkeypatch: pytest.MonkeyPatch) -> None:
    for world in a_world(monkeypatch, default_seconds=60):
        handle = world.submitted()
        client(world).stop_task(cluster="default", task=arn_of(handle), reason="by hand")

        seen = world.observed(handle)

        assert (seen.status, seen.stopped) == (JobStatus.FAILED, False)
        assert str(explain_observation("ecs:push", seen).failure_class) == "killed"


def test_stopping_what_ended_by_itself_leaves_its_outcome(world: EcsWorld) -> None:
    handle = world.submitted(command="exit 3")

    world.platform.stop(handle, 5)

    seen = world.observed(handle)
    assert (seen.status, seen.exit_code, seen.stopped) == (JobStatus.FAILED, 3, False)


def test_stopping_what_ecs_has_forgotten_is_success(world: EcsWorld) -> None:
    handle = world.submitted()
    world.clock.advance(timedelta(hours=2))

    world.platform.stop(handle, 5)
    world.platform.stop(handle.model_copy(update={"pid": None}), 5)
    world.platform.cleanup(handle)


def test_a_stop_without_a_pid_looks_for_the_task(monkeypatch: pytest.MonkeyPatch) -> None:
    for world in a_world(monkeypatch, default_seconds=60):
        handle = world.submitted()

        world.platform.stop(handle.model_copy(update={"pid": None}), 5)

        assert world.observed(handle).stopped


def test_another_refusal_of_a_stop_is_no_success(world: EcsWorld) -> None:
    handle = world.submitted()
    world.double.faults.add("StopTask", Fault.answer("InvalidParameterException", "something else"), times=3)

    with pytest.raises(PlatformUnavailable):
        world.platform.stop(handle, 5)


# -- logs


def page(lines: list[str], token: str) -> dict[str, Any]:
    return {
        "events": [{"message": line, "timestamp": 1, "ingestionTime": 1} for line in lines],
        "nextForwardToken": token,
    }


@pytest.fixture
def logs(world: EcsWorld) -> Iterator[tuple[JobHandle, Stubber]]:
    handle = world.submitted(**LOGS, cloudwatch_logs_options={"awslogs-region": "eu-west-1"})
    cloudwatch = boto3.client("logs", region_name="eu-west-1")
    real = world.platform._clients

    def opened(block_id: str | None, region: str | None, service: Any, *, retries: bool) -> Any:
        if service != "logs":
            return real(block_id, region, service, retries=retries)
        assert region == "eu-west-1"
        return cloudwatch

    world.platform._jobs = EcsJobs(opened, Clock(world.clock))
    with Stubber(cloudwatch) as stubber:
        yield handle, stubber
        stubber.assert_no_pending_responses()


def asked_for(handle: JobHandle, **extra: Any) -> dict[str, Any]:
    stream = f"push-pools/flow/{arn_of(handle).rpartition('/')[2]}"
    return {"logGroupName": "push-pools", "logStreamName": stream, "startFromHead": True, "limit": 1000, **extra}


@pytest.mark.parametrize(
    ("waits", "last"),
    [((0, 0, 0, 0, 60), [False, False, False, False, True]), ((60, 0, 0, 0, 0), [False, False, False, True, True])],
)
def test_logs_are_read_page_by_page_until_the_token_stays(
    world: EcsWorld, logs: tuple[JobHandle, Stubber], waits: tuple[int, ...], last: list[bool]
) -> None:
    handle, stubber = logs
    stubber.add_response("get_log_events", page(["one", "two"], "t1"), asked_for(handle))
    stubber.add_response("get_log_events", page([], "t2"), asked_for(handle, nextToken="t1"))
    stubber.add_response("get_log_events", page(["three"], "t3"), asked_for(handle, nextToken="t2"))
    stubber.add_response("get_log_events", page([], "t3"), asked_for(handle, nextToken="t3"))
    stubber.add_response("get_log_events", page([], "t3"), asked_for(handle, nextToken="t3"))
    pages, cursor = [], None
    for wait in waits:
        world.clock.advance(wait)
        pages.append(world.platform.logs(handle, cursor))
        cursor = pages[-1].cursor

    assert [each.lines for each in pages] == [("one", "two"), (), ("three",), (), ()]
    assert [each.is_last for each in pages] == last


def test_logs_that_are_not_there_are_no_lines(world: EcsWorld, logs: tuple[JobHandle, Stubber]) -> None:
    handle, stubber = logs
    for _ in range(2):
        stubber.add_client_error("get_log_events", "ResourceNotFoundException", "no stream")

    assert not world.platform.logs(handle, None).is_last
    world.clock.advance(60)
    assert world.platform.logs(handle, None).is_last


def test_logs_that_may_not_be_read_are_unavailable(world: EcsWorld, logs: tuple[JobHandle, Stubber]) -> None:
    handle, stubber = logs
    stubber.add_client_error("get_log_events", "AccessDeniedException", "no")

    with pytest.raises(PlatformUnavailable):
        world.platform.logs(handle, None)


def test_a_job_without_logs_in_cloudwatch_has_none(world: EcsWorld) -> None:
    assert world.platform.logs(world.submitted(), None).is_last


# -- the network


def ec2_answers(stubber: Stubber, vpcs: list[str] | None, subnets: list[str]) -> None:
    if vpcs is not None:
        stubber.add_response("describe_vpcs", {"Vpcs": [{"VpcId": each} for each in vpcs]})
    if vpcs != []:
        stubber.add_response("describe_subnets", {"Subnets": [{"SubnetId": each} for each in subnets]})


def test_the_subnets_of_the_default_vpc_are_looked_up_once() -> None:
    now = 0.0
    networks, ec2 = Networks(lambda: now), boto3.client("ec2", region_name="us-east-1")
    with Stubber(ec2) as stubber:
        ec2_answers(stubber, ["vpc-1"], ["s-2", "s-1"])
        found = [networks.of_vpc("scope", None, lambda: ec2) for _ in range(3)]
        assert found[0] == {"awsvpcConfiguration": {"subnets": ["s-1", "s-2"], "assignPublicIp": "ENABLED"}}
        assert found[0] == found[2]
        ec2_answers(stubber, None, [f"s-{n:02}" for n in range(20)])
        many: Any = networks.of_vpc("scope", "vpc-2", lambda: ec2)
        assert len(many["awsvpcConfiguration"]["subnets"]) == 16
        now = KEPT_SECONDS + 1
        ec2_answers(stubber, ["vpc-1"], ["s-3"])
        later: Any = networks.of_vpc("scope", None, lambda: ec2)
        assert later["awsvpcConfiguration"]["subnets"] == ["s-3"]
        stubber.assert_no_pending_responses()


def test_a_vpc_that_is_not_there_is_a_sentence() -> None:
    networks, ec2 = Networks(), boto3.client("ec2", region_name="us-east-1")
    with Stubber(ec2) as stubber:
        ec2_answers(stubber, [], [])
        with pytest.raises(JobRejected, match="no default VPC"):
            networks.of_vpc("scope", None, lambda: ec2)
        ec2_answers(stubber, None, [])
        with pytest.raises(JobRejected, match="VPC vpc-9 has no subnets"):
            networks.of_vpc("scope", "vpc-9", lambda: ec2)


def test_subnets_of_another_vpc_than_the_one_that_is_named_are_refused() -> None:
    """The sentence has those that are there. What is known to fit is not asked again for some minutes."""
    networks, ec2 = Networks(), boto3.client("ec2", region_name="us-east-1")
    fits = {"awsvpcConfiguration": {"subnets": ["s-1", "s-2"]}}
    with Stubber(ec2) as stubber:
        ec2_answers(stubber, None, ["s-2", "s-1"])
        networks.check("scope", "vpc-1", fits, lambda: ec2)
        networks.check("scope", "vpc-1", fits, lambda: ec2)
        stubber.assert_no_pending_responses()
        ec2_answers(stubber, None, ["s-2", "s-1"])
        with pytest.raises(JobRejected, match=r"s-9: not in VPC vpc-1, whose subnets are s-1, s-2;") as caught:
            networks.check("scope", "vpc-1", {"awsvpcConfiguration": {"subnets": ["s-1", "s-9"]}}, lambda: ec2)
        assert caught.value.variable == "network_configuration"
        ec2_answers(stubber, None, [])
        with pytest.raises(JobRejected, match=r"not in VPC vpc-0, whose subnets are none"):
            networks.check("scope", "vpc-0", fits, lambda: ec2)


def test_who_may_not_look_subnets_up_may_still_use_them() -> None:
    """Any other failure to look is one."""
    networks, ec2 = Networks(), boto3.client("ec2", region_name="us-east-1")
    fits = {"awsvpcConfiguration": {"subnets": ["s-1"]}}
    with Stubber(ec2) as stubber:
        stubber.add_client_error("describe_subnets", "UnauthorizedOperation", "You are not authorized")
        networks.check("scope", "vpc-1", fits, lambda: ec2)
        stubber.add_client_error("describe_subnets", "RequestLimitExceeded", "slow down", 503)
        with pytest.raises(ClientError):
            networks.check("scope", "vpc-1", fits, lambda: ec2)


def test_a_network_is_checked_only_when_a_vpc_is_named_too(world: EcsWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def check(self: Networks, scope: str, vpc_id: str, network: Any, ec2: Callable[[], Any]) -> None:
        asked.append((vpc_id, network["awsvpcConfiguration"]["subnets"]))

    monkeypatch.setattr(Networks, "check", check)
    world.prepared()
    assert not asked
    world.prepared(vpc_id="vpc-1")
    assert asked == [("vpc-1", SUBNETS["subnets"])]


def test_a_job_without_a_network_gets_that_of_its_vpc(world: EcsWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"awsvpcConfiguration": {"subnets": ["s-1"]}}
    asked = []

    def of_vpc(self: Networks, scope: str, vpc_id: str | None, ec2: Callable[[], Any]) -> dict[str, Any]:
        asked.append(vpc_id)
        return found

    monkeypatch.setattr(Networks, "of_vpc", of_vpc)

    job, key = world.prepared(network_configuration={}, vpc_id="vpc-1")

    assert job.task_run_request["networkConfiguration"] == found
    assert asked == ["vpc-1"]
    assert world.platform.submit(job, key).pid


# -- preview and secrets


def test_the_preview_is_what_is_sent(world: EcsWorld) -> None:
    run = uuid4()
    shown: Any = world.platform.preview(job_of(run, command="true"))
    assert not world.double.calls
    world.submitted(run=run, command="true")
    (registered,), (sent,) = world.bodies("RegisterTaskDefinition"), world.bodies("RunTask")

    assert shown["register_task_definition"] == registered
    assert shown["run_task"].pop("clientToken") == "<job key>"
    assert shown["run_task"].pop("taskDefinition") == f"<the ARN of {registered['family']}, with its revision>"
    assert shown["run_task"] == {name: sent[name] for name in sent if name not in ("clientToken", "taskDefinition")}


def test_the_preview_of_a_prepared_job_has_its_arn(world: EcsWorld) -> None:
    job, key = world.prepared()
    shown: Any = world.platform.preview(job)
    world.platform.submit(job, key)

    (registered,), (sent,) = world.bodies("RegisterTaskDefinition"), world.bodies("RunTask")
    assert shown["register_task_definition"] == registered
    assert shown["run_task"] | {"clientToken": key} == sent


def test_the_preview_asks_nobody_and_says_what_it_does_not_know(
    world: EcsWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    shown: Any = world.platform.preview(
        job_of(network_configuration={}, **LOGS, auto_deregister_task_definition=True, vpc_id="vpc-1")
    )
    given: Any = world.platform.preview(job_of(task_definition_arn="mine", container_name="c"))

    options = shown["register_task_definition"]["containerDefinitions"][0]["logConfiguration"]["options"]
    assert options["awslogs-region"] == "<region>"
    assert shown["run_task"]["networkConfiguration"]["awsvpcConfiguration"]["subnets"] == ["<those of VPC vpc-1>"]
    assert shown["notes"][0].startswith("auto_deregister_task_definition has no effect")
    assert given["register_task_definition"] is None
    assert given["run_task"]["taskDefinition"] == "mine"
    assert not world.double.calls


def test_keys_of_a_block_are_nowhere_to_be_seen(world: EcsWorld, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", logger="push_pools")
    world.blocks["b"] = static(
        world.double.endpoint, aws_secret_access_key="canary-secret", aws_session_token="canary-token"
    )
    reference = {"$ref": {"block_document_id": "b"}}
    job, key = world.prepared(aws_credentials=reference)
    texts = [job.model_dump_json(), json.dumps(world.platform.preview(job_of(aws_credentials=reference)))]
    texts += [world.platform.submit(job, key).model_dump_json(), json.dumps(world.memo._kept), caplog.text]
    world.double.faults.when(lambda *_: Fault.access_denied())
    with pytest.raises(PlatformError) as caught:
        world.platform.submit(job, key)
    texts += [str(caught.value), repr(caught.value), repr(world.blocks["b"])]
    texts += [json.dumps([call.body for call in world.double.log])]

    assert not [text for text in texts if "canary" in text]


def test_a_stored_job_does_not_keep_its_environment_twice(world: EcsWorld) -> None:
    job, _ = world.prepared(env={"BIG": "only-once"})

    assert job.model_dump_json().count("only-once") == 1


def test_jobs_without_a_run_are_marked_by_their_key(world: EcsWorld) -> None:
    job = EcsJobConfiguration.from_template_and_values(
        copy.deepcopy(TEMPLATE), {"image": "x", "network_configuration": SUBNETS}
    )
    prepared = world.platform.prepare(job, world.memo)
    handle = world.platform.submit(prepared, "pp-some-key")

    assert world.bodies("RunTask")[0]["startedBy"] == "pp/key/pp-some-key"
    assert handle.run_id is None
    assert world.platform.find(handle.model_copy(update={"pid": None})) == handle
    assert world.platform.find(world.platform.handle(prepared, "pp-other")) is None


def test_a_job_of_another_platform_is_refused(world: EcsWorld) -> None:
    from push_pools.domain.jobs import BaseJobConfiguration

    with pytest.raises(JobRejected, match="is not a job of ECS"):
        world.platform.prepare(BaseJobConfiguration(), world.memo)


def test_many_submissions_at_once_start_one_task_each(world: EcsWorld) -> None:
    jobs = [world.prepared() for _ in range(20)]
    began = time.monotonic()

    with ThreadPoolExecutor(16) as pool:
        handles = list(pool.map(lambda each: world.platform.submit(*each), jobs * 3))

    assert len({handle.pid for handle in handles}) == len(world.double.started) == 20
    assert time.monotonic() - began < 30
    assert {len(tasks) for tasks in world.double.started_by_key().values()} == {1}
