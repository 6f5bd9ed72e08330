"""The plan is lived in: a packaged function per handler, the planned wires between them, and a run that completes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import pytest

from push_pools.domain.runs import Phase
from push_pools.services.stop import cancel_run
from push_pools.testing.ec2_double import Ec2Double
from push_pools.testing.ecs_double import EcsDouble, Fault
from tests.terraform.living import Living, another_account, unpacked
from tests.terraform.plan import ACCOUNT, Plan
from tests.terraform.rights import BY_LAMBDA, asked, granted, is_allowed
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from push_pools.ports import App
    from tests.aws.ministack import Ministack
    from tests.terraform.bundles import Bundle

REGION: Final = "eu-west-1"
PLAYED: Final = ("schedule", "submit_ecs", "poll_ecs", "admin", "webhook")
"""The functions that play a part here; those of other clouds do in `test_other_clouds.py`."""
SECRET: Final = "a secret of theirs"
REPORT: Final = {"work_pool": {"name": "main"}, "command": "true", "retries": {"attempts": 1}}


@pytest.fixture(scope="module")
def task(host_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpacked(host_bundle.path, tmp_path_factory.mktemp("lambda"))


@dataclass
class World:
    """An installation from the plan, and the ECS that its functions reach."""

    at: Living
    ecs: EcsDouble

    def put(self, kind: str, name: str, spec: dict[str, Any], *, action: str = "create") -> dict[str, Any]:
        """Write a record as Terraform does, or delete it."""
        event = {"version": 1, "kind": kind, "name": name, "spec": spec, "tf": {"action": action}}
        result = self.at.function("admin").invoke(event)
        assert result.error is None, result.message
        return dict(result.answer)

    def post(self, deployment: str, **more: Any) -> str:
        """Send an event as somebody outside does, and return the run's id."""
        event = {"version": 1, "type": "scheduled-run", "deployment": deployment, **more}
        request = {
            "requestContext": {"http": {"method": "POST"}},
            "headers": {"authorization": f"Bearer {SECRET}"},
            "body": json.dumps(event),
        }
        answer = self.at.function("webhook").invoke(request).answer
        assert answer["statusCode"] == 202, answer
        return str(json.loads(answer["body"])["run_id"])

    def set_up(self) -> None:
        """Write what every run here needs."""
        self.put("work-pool", "main", {"type": "ecs:push", "variables": variables(self.at.account)})
        self.put("block", "secret/webhook", {"value": SECRET})
        self.put("deployment", "report/daily", REPORT)

    def feed(self) -> None:
        """Give the functions of ECS what their queues hold, until these are empty."""
        for name in ("submit_ecs", "poll_ecs"):
            while (result := self.at.feed(name)) is not None:
                assert result.error is None, result.message


def variables(account: str) -> dict[str, Any]:
    """Return the variables of a pool that modules/ecs_pool would make."""
    return {
        "image": "acme/report:1",
        "cluster": f"arn:aws:ecs:{REGION}:{account}:cluster/jobs-main",
        "execution_role_arn": f"arn:aws:iam::{account}:role/jobs-job-run",
        "network_configuration": {"awsvpcConfiguration": {"subnets": ["subnet-1"]}},
    }


@pytest.fixture(scope="module")
def world(ministack: Ministack, task: Path) -> Iterator[World]:
    account = another_account()
    with EcsDouble(region=REGION, account=account, started_by_alone=True) as ecs, Ec2Double() as ec2:
        ecs.model.call("CreateCluster", {"clusterName": "jobs-main"})
        with Living(Plan.read(), ministack, task, account=account, ecs=ecs.endpoint, ec2=ec2.endpoint) as at:
            world = World(at, ecs)
            world.set_up()
            yield world


def test_a_run_goes_through_everything_that_is_planned(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """From records that Terraform writes, through the webhook, the queues and ECS, to its end."""
    at, app = world.at, world.at.open(monkeypatch)
    run_id = UUID(world.post("report/daily"))
    world.feed()
    (started,) = [task for task in world.ecs.started if str(run_id) in str(task.started_by)]
    assert started.cluster == "jobs-main"
    run = app.store.get_run(run_id)
    assert run.phase is Phase.STARTED
    assert run.infrastructure_pid == f"{variables(at.account)['cluster']}::{started.task_arn}"

    assert at.tick().answer["sweeps"] == 1
    world.feed()
    assert app.store.get_run(run_id).state.name == "Completed"
    assert at.depth("dead-letters") == at.depth("undelivered") == 0


def test_what_ecs_tells_moves_a_run_without_a_tick(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The planned rule lets the events of runs through, and no others, to the queue of whoever learns from ECS."""
    at, app = world.at, world.at.open(monkeypatch)
    run_id = UUID(world.post("report/daily"))
    world.feed()
    told = [event for event in world.ecs.task_state_change_events() if event["detail"]["lastStatus"] == "STOPPED"]
    (ours,) = [event for event in told if str(run_id) in event["detail"]["startedBy"]]
    theirs = {**ours, "detail": {**ours["detail"], "startedBy": "somebody else"}}
    assert [at.tell(event) for event in (theirs, ours)] == [[], ["jobs-poll-ecs"]]
    world.feed()
    assert app.store.get_run(run_id).state.name == "Completed"


def test_policies_allow_what_functions_ask_and_no_more(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every call that the functions make in good and bad times, and what each policy would say of it."""
    at, app = world.at, world.at.open(monkeypatch)
    everything_happens(world, app)
    wrong: list[str] = []
    for name in PLAYED:
        calls, statements = at.calls(name), at.plan.statements(name)
        needed = [one for call in calls for one in asked(call, at.account, at.plan.outputs["kms_key_arn"])]
        wrong += [f"{name} may not: {one}" for one in needed if not is_allowed(one, statements)]
        used = {one.action for one in needed}
        unused = granted(statements) - BY_LAMBDA - used
        wrong += [f"{name} never needs {action}" for action in unused if not action.startswith("dynamodb:")]
    used = {one.action for name in PLAYED for call in at.calls(name) for one in asked(call, at.account, "")}
    ledger = {action for action in granted(at.plan.statements("submit_ecs")) if action.startswith("dynamodb:")}
    assert not wrong, "\n".join(sorted(set(wrong)))
    assert ledger <= used, "the ledger never needs " + ", ".join(ledger - used)


def everything_happens(world: World, app: App) -> None:
    """Have runs that need, each, something else of AWS."""
    at, account = world.at, world.at.account
    network = {name: value for name, value in variables(account).items() if name != "network_configuration"}
    definition = world.ecs.model.call(
        "RegisterTaskDefinition",
        {
            **{"family": "theirs", "requiresCompatibilities": ["FARGATE"], "networkMode": "awsvpc"},
            **{"cpu": "256", "memory": "512", "executionRoleArn": network["execution_role_arn"]},
            "containerDefinitions": [{"name": "main", "image": "acme/theirs:1", "essential": True}],
        },
    )["taskDefinition"]["taskDefinitionArn"]
    keys = {"aws_access_key_id": "AKIDTHEIRS", "aws_secret_access_key": "a canary", "region_name": REGION}
    block = world.put("block", "aws-credentials/theirs", keys)["id"]
    world.put("work-pool", "default-network", {"type": "ecs:push", "variables": network})
    world.put("work-pool", "narrow", {"type": "ecs:push", "variables": variables(account), "concurrency_limit": 1})
    for name, pool, more in (
        ("sealed", "main", {"aws_credentials": {"$ref": {"block_document_id": block}}}),
        ("own", "main", {"task_definition_arn": definition}),
        ("networked", "default-network", {}),
        ("one", "narrow", {}),
        ("long", "main", {"task_role_arn": f"arn:aws:iam::{account}:role/jobs-job-work"}),
    ):
        spec = {**REPORT, "work_pool": {"name": pool, "job_variables": more}}
        world.put("deployment", f"each/{name}", {**spec, "command": "sleep 600" if name == "long" else "true"})
    world.ecs.faults.add("RunTask", Fault.accept_then_drop())
    for arn, url in at.urls.items():
        if arn.endswith(("submit-ecs", "poll-ecs")):
            at.sqs.send_message(QueueUrl=url, MessageBody="{")  # Nobody can handle it.
    ids = {name: UUID(world.post(f"each/{name}")) for name in ("sealed", "own", "networked", "one", "long")}

    due = (app.clock.now() - timedelta(minutes=1)).isoformat()
    ids["late"] = UUID(world.post("report/daily", scheduled_time=due))
    at.tick()  # It is late, and nobody has claimed it.

    def moved() -> bool:
        world.feed()
        at.tick()
        for name, phase in (("long", Phase.STARTED), ("one", Phase.WAITING)):
            if app.store.get_run(ids[name]).phase is phase:
                cancel_run(ids[name], app, by="test")
        return all(app.store.get_run(run_id).is_final for run_id in ids.values())

    until(moved, seconds=60)
    states = {name: app.store.get_run(run_id).state.name for name, run_id in ids.items()}
    assert {states.pop("long"), states.pop("one")} == {"Cancelled"}
    assert set(states.values()) == {"Completed"}
    assert at.depth("dead-letters") == 2
    world.put("deployment", "each/own", {}, action="delete")


def broken(**edits: Any) -> Plan:
    """Return the plan with some values replaced, by address."""
    plan = Plan.read()
    for address, values in edits.items():
        plan.one(address).update(values)
    return plan


def indexes_with(name: str) -> list[dict[str, Any]]:
    """Return the planned indexes, the one for what is due under another name."""
    planned: list[dict[str, Any]] = Plan.read().one("aws_dynamodb_table.ledger")["global_secondary_index"]
    return [{**each, "name": name} if each["name"] == "wake" else each for each in planned]


FUNCTION: Final = 'aws_lambda_function.this["{}"]'
MAPPING: Final = 'aws_lambda_event_source_mapping.this["submit_ecs"]'


def the_tick_fails(at: Living) -> str | None:
    return at.tick().error


def nothing_is_submitted(at: Living) -> str | None:
    """An event waits in the queue that it was sent to, and its function does not start a job."""
    (url,) = (each for arn, each in at.urls.items() if arn.endswith("-submit-ecs"))
    at.sqs.send_message(QueueUrl=url, MessageBody='{"version":1,"type":"admit","work_pool":"none"}')
    result = at.feed("submit_ecs")
    return "nobody reads it" if result is None else result.error


@pytest.mark.parametrize(
    ("edits", "what_is_seen"),
    [
        ({FUNCTION.format("submit_ecs"): {"handler": "push_pools.functions.submit.handler"}}, nothing_is_submitted),
        ({MAPPING: {"event_source_arn": f"arn:aws:sqs:{REGION}:{ACCOUNT}:jobs-poll-ecs"}}, nothing_is_submitted),
        ({FUNCTION.format("schedule"): {"environment": [{"variables": {}}]}}, the_tick_fails),
        ({"aws_dynamodb_table.ledger": {"global_secondary_index": indexes_with("waking")}}, the_tick_fails),
    ],
    ids=["a handler that is not there", "a queue that nobody reads", "no environment", "an index of another name"],
)
def test_a_wrong_wire_does_not_go_unseen(
    ministack: Ministack, task: Path, edits: dict[str, Any], what_is_seen: Callable[[Living], str | None]
) -> None:
    with Living(broken(**edits), ministack, task, account=another_account()) as at:
        assert what_is_seen(at)


def test_the_right_wires_show_nothing(world: World) -> None:
    assert the_tick_fails(world.at) is None
    assert nothing_is_submitted(world.at) is None
