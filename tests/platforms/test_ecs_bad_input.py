"""What users get wrong on ECS: each mistake ends in a state that names it and its fix, or waits and says why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from push_pools.domain.errors import InvalidJobVariables
from push_pools.domain.runs import Phase
from push_pools.domain.states import State, StateType
from push_pools.services.explain import explain_run
from push_pools.services.preview import preview_deployment
from push_pools.testing.ec2_double import Ec2Double
from push_pools.testing.ecs_double import CAPACITY, Account, Bucket, Fault
from tests.credentials.aws_world import sts_double

from .ecs_world import SUBNETS, job_of, static
from .test_ecs_service import VARIABLES, EcsServiceWorld, trigger

if TYPE_CHECKING:
    from collections.abc import Iterator

    from push_pools.domain.runs import FlowRun
    from tests.credentials.aws_world import StsDouble

ROLE = "arn:aws:iam::123456789012:role/run"
OTHER = "arn:aws:iam::123456789012:role/elsewhere"


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[EcsServiceWorld]:
    world = EcsServiceWorld(monkeypatch, default_seconds=20.0)
    yield world
    world.double.close()


class Mistake(NamedTuple):
    """What is wrong, and what the run's final state has to say."""

    name: str
    rules: Account
    variables: dict[str, Any]
    class_: str
    cause: tuple[str, ...]
    suggestion: tuple[str, ...]


def mistake(
    name: str,
    class_: str,
    cause: tuple[str, ...],
    suggestion: tuple[str, ...],
    *,
    rules: Account | None = None,
    **v: Any,
) -> Mistake:
    return Mistake(name, rules or Account(), v, class_, cause, suggestion)


MISTAKES = [
    mistake(
        "a task role that ECS may not assume",
        "permission",
        ("'task_role_arn'", OTHER),
        ("trust ecs-tasks.amazonaws.com",),
        rules=Account(role_trust={ROLE: True, OTHER: False}),
        task_role_arn=OTHER,
        execution_role_arn=ROLE,
    ),
    mistake(
        "an execution role that does not exist",
        "permission",
        ("'execution_role_arn'", OTHER),
        ("trust ecs-tasks.amazonaws.com",),
        rules=Account(role_trust={ROLE: True}),
        task_role_arn=ROLE,
        execution_role_arn=OTHER,
    ),
    mistake(
        "a cluster that is not there", "configuration", ("'cluster'", "Cluster not found"), ("`cluster`",), cluster="x"
    ),
    mistake(
        "denied PassRole",
        "permission",
        ("iam:PassRole", ROLE),
        ("iam:PassRole", "ecs-tasks.amazonaws.com"),
        rules=Account(denied={"iam:PassRole"}),
        task_role_arn=ROLE,
    ),
    mistake(
        "denied RunTask",
        "permission",
        ("ecs:RunTask",),
        ("role",),
        rules=Account(denied={"ecs:RunTask"}),
    ),
    mistake(
        "denied RegisterTaskDefinition",
        "permission",
        ("ecs:RegisterTaskDefinition",),
        ("task_definition_arn",),
        rules=Account(denied={"ecs:RegisterTaskDefinition"}),
    ),
    mistake(
        "subnets of two VPCs",
        "configuration",
        ("'network_configuration'", "same VPC"),
        ("`network_configuration`",),
        rules=Account(subnets={"subnet-1": "vpc-a", "subnet-2": "vpc-b"}),
    ),
    mistake(
        "a security group of another VPC than the subnets",
        "configuration",
        ("'network_configuration'", "sg-other"),
        ("`network_configuration`",),
        rules=Account(subnets={"subnet-1": "vpc-a"}, security_groups={"sg-other": "vpc-b"}),
        network_configuration={"subnets": ["subnet-1"], "securityGroups": ["sg-other"]},
    ),
    mistake(
        "a subnet that does not exist",
        "configuration",
        ("'network_configuration'", "subnet-2"),
        ("`network_configuration`",),
        rules=Account(subnets={"subnet-1": "vpc-a"}),
    ),
    mistake(
        "a pair of cpu and memory that Fargate does not have",
        "configuration",
        ("cpu 256 does not go with memory 4096; it goes with 512, 1024, 2048",),
        ("flow-run retry",),
        cpu=256,
        memory=4096,
    ),
    mistake(
        "a cpu that Fargate does not have",
        "configuration",
        ("Fargate has no cpu 300; it has 256, 512, 1024, 2048, 4096, 8192, 16384",),
        ("flow-run retry",),
        cpu=300,
        memory=512,
    ),
    mistake(
        "a definition that was never registered",
        "configuration",
        ("'task_definition_arn'",),
        ("`task_definition_arn`",),
        task_definition_arn="never:1",
    ),
    mistake(
        "an environment that is too long to be overridden",
        "configuration",
        ("ECS takes 8192", "the longest is env.BIG with 90"),
        ("flow-run retry",),
        env={"BIG": "x" * 9000, "SMALL": "y"},
    ),
    mistake(
        "secrets without a role to read them",
        "configuration",
        ("secrets: give an execution_role_arn too",),
        ("flow-run retry",),
        secrets={"KEY": "arn:aws:ssm:us-east-1:123456789012:parameter/key"},
    ),
]


@pytest.mark.parametrize("wrong", MISTAKES, ids=lambda wrong: wrong.name)
def test_a_mistake_ends_the_run_with_its_class_cause_and_suggestion(world: EcsServiceWorld, wrong: Mistake) -> None:
    """At once, without a second attempt, and without a task."""
    world.double.model.rules = wrong.rules
    run = trigger(world, **wrong.variables)
    world.settle()
    state = world.get(run).state
    assert (state.type, state.failure_class) == (StateType.CRASHED, wrong.class_)
    for words in wrong.cause:
        assert words in state.message
    for words in wrong.suggestion:
        assert words in str(state.suggestion)
    assert world.get(run).attempt == 1
    assert not world.double.started
    assert world.double.calls["RunTask"] <= 1
    assert str(state.suggestion) in explain_run(world.get(run), world.clock.now()).advice


@pytest.mark.parametrize(
    ("cpu", "memory"), [(256, 4096), (512, 8192), (1024, 1024), (4096, 4096), (8192, 16385), (300, 512)]
)
def test_an_impossible_size_is_refused_at_preview_with_those_that_exist(cpu: int, memory: int) -> None:
    """Before anything is asked of AWS: it is a job that cannot be made."""
    with pytest.raises(InvalidJobVariables, match=r"it goes with \d|it has 256, 512"):
        job_of(cpu=cpu, memory=memory)


def test_an_impossible_size_is_refused_by_the_preview_of_a_deployment_and_asks_nobody(world: EcsServiceWorld) -> None:
    world.deploy("large", job_variables={**VARIABLES, "cpu": 256, "memory": 4096})
    with pytest.raises(InvalidJobVariables, match="cpu 256 does not go with memory 4096; it goes with 512, 1024, 2048"):
        preview_deployment(world.app, "report/large")
    assert not world.double.calls


def test_subnets_of_another_vpc_than_the_one_that_is_named_end_the_run(
    world: EcsServiceWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With those that are in it, and before anything is registered or started."""
    with Ec2Double(vpc="vpc-b", subnets=("subnet-8", "subnet-9")) as ec2:
        monkeypatch.setenv("AWS_ENDPOINT_URL_EC2", ec2.endpoint)
        run = trigger(world, vpc_id="vpc-b")
        world.settle()
    state = world.get(run).state
    assert (state.type, state.failure_class) == (StateType.CRASHED, "configuration")
    assert "subnet-1, subnet-2: not in VPC vpc-b, whose subnets are subnet-8, subnet-9" in state.message
    assert state.suggestion == "correct `network_configuration` or `vpc_id`"
    assert not world.double.calls


@pytest.fixture
def sts(monkeypatch: pytest.MonkeyPatch) -> Iterator[StsDouble]:
    with sts_double(monkeypatch) as double:
        yield double


def test_a_role_of_the_block_that_may_not_be_assumed_ends_the_run(world: EcsServiceWorld, sts: StsDouble) -> None:
    """The wrong role, or the wrong ExternalId: AWS does not say which, so the suggestion names both."""
    sts.error = (403, "AccessDenied")
    block = static(world.double.endpoint, assume_role_arn=OTHER, assume_role_kwargs={"ExternalId": "wrong"})
    world.ecs._clients._open = lambda _: block
    run = trigger(world)
    world.settle()
    state = world.get(run).state
    assert (state.type, state.failure_class) == (StateType.CRASHED, "permission")
    assert "'aws_credentials'" in state.message
    assert "sts:AssumeRole" in str(state.suggestion)
    assert "ExternalId" in str(state.suggestion)
    assert world.get(run).attempt == 1
    assert not world.double.calls


# -- what passes by itself waits, and says why


def waiting(world: EcsServiceWorld, run: FlowRun) -> State:
    """Return the state of a run that is held back: Scheduled, neither failed nor claimed."""
    held = world.get(run)
    assert (held.phase, held.state.type, held.state.failure_class) == (Phase.READY, StateType.SCHEDULED, None)
    return held.state


@pytest.mark.parametrize("in_failures", [True, False], ids=["failures", "ClientException"])
def test_a_used_up_vcpu_quota_lets_runs_wait_and_all_complete(world: EcsServiceWorld, in_failures: bool) -> None:
    """A new account has 6 vCPUs: of ten jobs with one each, four wait with AWS's own words until others end."""
    world.double.model.rules = Account(vcpus=6, vcpus_in_failures=in_failures)
    runs = [trigger(world) for _ in range(10)]
    world.drain()
    assert len(world.double.running()) == 6
    held = [run for run in runs if world.get(run).infrastructure_pid is None]
    assert len(held) == 4
    for run in held:
        if not in_failures:
            assert "limit on the number of vCPUs you can run concurrently" in waiting(world, run).message
        told = explain_run(world.get(run), world.clock.now())
        assert "limit on the number of vCPUs you can run concurrently" in told.waits_for
        kept = next(entry for entry in world.get(run).journal if entry.what in ("refused", "settling"))
        assert "vCPUs" in str(kept.facts["why"])
    world.settle()
    assert [world.get(run).state.name for run in runs] == ["Completed"] * 10
    assert set(world.per_attempt().values()) == {1}


@pytest.mark.parametrize("in_failures", [True, False], ids=["failures", "ClientException"])
def test_a_job_that_never_fits_the_quota_ends_with_the_class_quota(world: EcsServiceWorld, in_failures: bool) -> None:
    """After an hour of asking: 8 vCPUs are never given by a quota of 6."""
    world.double.model.rules = Account(vcpus=6, vcpus_in_failures=in_failures)
    run = trigger(world, cpu=8192, memory=16384)
    world.settle()
    state = world.get(run).state
    assert (state.type, state.failure_class) == (StateType.CRASHED, "quota")
    assert state.suggestion == "raise the quota, or give the pool a concurrency limit"
    assert not world.double.started
    assert not world.get(run).chores, "nothing is lost, and nothing has to be watched"


def test_what_no_host_of_the_cluster_has_ends_the_run_after_one_look(world: EcsServiceWorld) -> None:
    """`failures` that would come again lead to no second launch; a task is looked for first, since they have lied."""
    world.double.faults.chance("RunTask", Fault.failures("ATTRIBUTE"), 1.0)
    run = trigger(world, launch_type="EC2")
    world.settle()
    state = world.get(run).state
    assert (state.type, state.failure_class) == (StateType.CRASHED, "configuration")
    assert "placement constraints" in str(state.suggestion)
    assert world.double.calls["RunTask"] == 1
    assert world.double.calls["ListTasks"] == 2
    assert (world.get(run).launch, world.get(run).attempt) == (1, 1)


def test_a_lack_of_capacity_that_lasts_ends_the_run_with_that_class(world: EcsServiceWorld) -> None:
    """Each refusal was looked into and proven, so the end is no mystery: it is not `lost`."""
    world.double.faults.chance("RunTask", Fault.failures(CAPACITY), 1.0)
    run = trigger(world)
    world.settle()
    state = world.get(run).state
    assert (state.type, state.failure_class) == (StateType.CRASHED, "capacity")
    assert "Capacity is unavailable" in state.message
    assert not world.double.started


def test_a_lack_of_capacity_is_looked_up_before_another_launch(world: EcsServiceWorld) -> None:
    """By `startedBy`, running and stopped, after nothing can land any more; then the next token is used."""
    world.double.faults.add("RunTask", Fault.failures(CAPACITY))
    run = trigger(world)
    world.settle()
    assert world.get(run).state.name == "Completed"
    order = [(call.operation, call.body.get("startedBy")) for call in world.double.log]
    mark = f"pp/{run.id}/1"
    calls = [each for each in order if each[0] in ("RunTask", "ListTasks")]
    assert calls == [("RunTask", mark), ("ListTasks", mark), ("ListTasks", mark), ("RunTask", mark)]
    first, second = (call for call in world.double.log if call.operation == "RunTask")
    assert first.body["clientToken"] != second.body["clientToken"]
    looks = [call for call in world.double.log if call.operation == "ListTasks"]
    settled = world.app.timing.call_seconds + world.app.timing.settle_seconds
    assert (looks[0].at - first.at).total_seconds() >= settled


@pytest.mark.parametrize("operation", ["RunTask", "RegisterTaskDefinition"])
def test_expired_credentials_let_a_run_wait_with_that_reason(world: EcsServiceWorld, operation: str) -> None:
    """They may be renewed at any moment; then the run goes on."""
    world.double.faults.add(operation, Fault.expired_credentials(), times=3)
    run = trigger(world)
    world.drain()
    assert "expired" in waiting(world, run).message
    world.settle()
    assert world.get(run).state.name == "Completed"
    assert set(world.per_attempt().values()) == {1}


def test_credentials_that_stay_expired_end_the_run_with_what_to_renew(world: EcsServiceWorld) -> None:
    """The class is that of the last refusal."""
    world.double.faults.chance("RunTask", Fault.expired_credentials(), 1.0)
    run = trigger(world)
    world.settle()
    state = world.get(run).state
    assert (state.type, state.failure_class) == (StateType.CRASHED, "permission")
    assert "credentials have expired" in state.message
    assert "renew them in the credentials block" in str(state.suggestion)


def test_a_throttled_account_is_paced_and_every_run_is_one_call(world: EcsServiceWorld) -> None:
    """AWS's own bucket (20 at once, 20 a second) never refuses: the pace keeps below it."""
    world.double.model.rules = Account(buckets={"RunTask": Bucket(20, 20), "RegisterTaskDefinition": Bucket(20, 1)})
    runs = [trigger(world) for _ in range(120)]
    world.drain()
    assert len(world.double.started) == 20
    assert sum(world.get(run).state.message.startswith("pacing: ") for run in runs) == 100
    world.pass_time(20, step=0.05)
    world.settle()
    assert [world.get(run).state.name for run in runs] == ["Completed"] * 120
    assert world.double.calls["RunTask"] == 120
    assert world.double.calls["RegisterTaskDefinition"] == 1
    assert {call.outcome for call in world.double.log if call.operation == "RunTask"} == {"ok"}


# -- a definition of the user's own


def test_an_existing_definition_is_used_as_it_is_by_a_role_that_may_not_register(world: EcsServiceWorld) -> None:
    """Its image, roles and logs are its own; the run only overrides."""
    arn = register(world)
    world.double.model.rules = Account(denied={"ecs:RegisterTaskDefinition"})
    before = world.double.model.definitions.find(arn)
    run = world.trigger(
        job_variables={
            "network_configuration": SUBNETS,
            "task_definition_arn": arn,
            "container_name": "main",
            "image": "other:2",
            "command": "exit 0",
        }
    )
    world.settle()
    assert world.get(run).state.name == "Completed"
    assert world.double.calls["RegisterTaskDefinition"] == 0
    assert world.double.calls["DescribeTaskDefinition"] == 1
    assert world.double.calls["RunTask"] == 1
    assert world.double.model.definitions.find(arn) == before
    (task,) = world.double.started
    assert task.task_definition_arn == arn


def test_runs_of_a_family_share_one_look_at_it(world: EcsServiceWorld) -> None:
    """Ten runs, ten tasks of the newest revision, one DescribeTaskDefinition."""
    register(world)
    newest = register(world)
    own = {"network_configuration": SUBNETS, "task_definition_arn": "theirs"}
    runs = [world.trigger(job_variables=own) for _ in range(10)]
    world.settle()
    assert {world.get(run).state.name for run in runs} == {"Completed"}
    assert {task.task_definition_arn for task in world.double.started} == {newest}
    assert (world.double.calls["DescribeTaskDefinition"], world.double.calls["RunTask"]) == (1, 10)


def register(world: EcsServiceWorld) -> str:
    body = {
        "family": "theirs",
        "containerDefinitions": [{"name": "main", "image": "acme/own:1"}],
        "requiresCompatibilities": ["FARGATE"],
        "networkMode": "awsvpc",
        "cpu": "256",
        "memory": "512",
    }
    answer = world.double.model.call("RegisterTaskDefinition", body)
    return str(answer["taskDefinition"]["taskDefinitionArn"])


# -- exact counts


@pytest.mark.parametrize("count", [1, 100, 101, 230])
def test_calls_are_counted(world: EcsServiceWorld, count: int) -> None:
    """One RunTask a run, one RegisterTaskDefinition a definition, one DescribeTasks for every hundred tasks."""
    runs = [trigger(world, command="sleep 600", image=f"acme/report:{n % 2}") for n in range(count)]
    for _ in range(20):
        world.advance(1)
        world.drain()
    world.double.calls["DescribeTasks"] = 0
    world.sweep()
    assert world.double.calls["RunTask"] == len(runs) == len(world.double.started)
    assert world.double.calls["RegisterTaskDefinition"] == min(count, 2)
    assert world.double.calls["DescribeTasks"] == -(-count // 100)
    assert world.double.calls["ListTasks"] == 0
    assert VARIABLES["image"]
