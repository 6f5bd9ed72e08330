"""The command on an installation of the AWS hosting, with the caller's own identity."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from botocore.client import BaseClient

from push_pools.testing.doubles_http import LoopbackServer, Reply
from push_pools.testing.ecs_double import EcsDouble
from tests.aws.event_source import Mapping
from tests.aws.installation import ECS_VARIABLES, Installation, install
from tests.aws.runtime_api import Environment
from tests.cli.runner import Cli
from tests.terraform.rights import REGION, Asked, asked, granted, is_allowed
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.aws.ministack import Ministack

CONFIG: dict[str, Any] = {
    "work_pools": [{"name": "ecs", "type": "ecs:push", "variables": ECS_VARIABLES}],
    "deployments": [
        {"name": "report", "command": "true", "work_pool": {"name": "ecs"}},
        {"name": "slow", "command": "sleep 600", "work_pool": {"name": "ecs"}},
    ],
}


ROOT = Path(__file__).resolve().parents[2]
ACCOUNT = "123456789012"


class AwsCli(Cli):
    """The command with the environment of an installation; `calls` are those of AWS that it made."""

    def __init__(self, home: Path, at: Installation) -> None:
        super().__init__(home)
        self.at, self._key = at, at.environ["PUSH_POOLS_AWS_KMS_KEY"]
        self.calls: list[dict[str, Any]] = []

    def __call__(self, *words: object, stdin: str = "", **environ: str) -> Any:
        make_call = BaseClient._make_api_call  # type: ignore[attr-defined] # The one way that every call takes.

        def recorded(client: Any, operation: str, params: Any) -> Any:
            service = client.meta.service_model.service_name
            self.calls.append({"service": service, "operation": operation, "params": params})
            return make_call(client, operation, params)

        with mock.patch.object(BaseClient, "_make_api_call", recorded):
            return super().__call__(*words, stdin=stdin, **{**self.at.environ, **environ})

    def allowed(self) -> list[dict[str, Any]]:
        """Return what `infra/policies/operator.json` allows whoever works on this installation."""
        text = (ROOT / "infra" / "policies" / "operator.json").read_text(encoding="utf-8")
        at = f"{REGION}:{ACCOUNT}"
        for name, arn in {
            "table_arn": f"arn:aws:dynamodb:{at}:table/{self.at.environ['PUSH_POOLS_AWS_TABLE']}",
            "queue_arn_prefix": f"arn:aws:sqs:{at}:{self.at.prefix}",
            "bus_arn": f"arn:aws:events:{at}:event-bus/{self.at.environ['PUSH_POOLS_AWS_BUS']}",
            "kms_key_arn": self._key,
            "task_log_group_arn": f"arn:aws:logs:{at}:log-group:push-pools",
            "task_arn_prefix": f"arn:aws:ecs:*:{ACCOUNT}:task/default/",
            "cluster_arn": f"arn:aws:ecs:{at}:cluster/default",
        }.items():
            text = text.replace(f"${{{name}}}", arn)
        assert "${" not in text
        return list(json.loads(text)["Statement"])

    def asked(self) -> list[Asked]:
        """Return what the calls so far need to be allowed."""
        return [one for call in self.calls for one in asked(call, ACCOUNT, self._key)]


@pytest.fixture
def ecs() -> Iterator[EcsDouble]:
    with EcsDouble() as double:
        yield double


@pytest.fixture
def at(ministack: Ministack, ecs: EcsDouble) -> Installation:
    return install(ministack, ecs)


@pytest.fixture
def cli(tmp_path: Path, at: Installation) -> AwsCli:
    file = tmp_path / "push-pools.yaml"
    file.write_text(json.dumps(CONFIG))
    cli = AwsCli(tmp_path / "home", at)
    cli.ok("deploy", file)
    return cli


@pytest.fixture(autouse=True)
def within_its_rights(cli: AwsCli) -> Iterator[None]:
    """Whatever a command of these tests asked of AWS, the operator's policy allows it."""
    yield
    for one in cli.asked():  # Some tests lead to a table and to queues that are not there.
        assert is_allowed(one, cli.allowed()) or re.search("[/:]nope", one.resource), one


@pytest.fixture
def work(at: Installation) -> Iterator[Any]:
    """Let the functions work until their queues are empty."""
    environ = {**at.environ}
    with (
        Environment("push_pools.functions.submit_ecs.handler", environ, timeout_seconds=60.0) as submit,
        Environment("push_pools.functions.poll_ecs.handler", environ, timeout_seconds=60.0) as poll,
        Environment("push_pools.functions.schedule.handler", environ, timeout_seconds=60.0) as schedule,
    ):
        feeds = [
            (Mapping(at.sqs, at.urls[name], at.arns[name], [each]), each, name)
            for name, each in (("submit-ecs", submit), ("poll-ecs", poll))
        ]

        def drained() -> bool:
            for feed, each, _ in feeds:
                feed.once(each, wait_seconds=0)
            return not any(at.depth(name) for _, _, name in feeds)

        def work() -> None:
            until(drained)
            assert schedule.invoke({}).error is None
            until(drained)

        yield work


def test_a_run_from_the_command_line_to_its_end(cli: AwsCli, work: Any, tmp_path: Path) -> None:
    ran = cli.ok("deployment", "run", "report/report", "-o", "json").data
    assert not (tmp_path / "home").exists()
    assert "no server" not in cli.ok("deployment", "run", "report/report").err
    work()
    (first, second) = cli.read("flow-run", "ls")
    assert {first["state_name"], second["state_name"]} == {"Completed"}
    run_id = ran.get("id") or ran.get("run_id") or first["id"]
    assert "Completed" in cli.ok("flow-run", "why", run_id).out
    assert cli.read("flow-run", "inspect", run_id)["infrastructure_pid"].startswith("default::arn:aws:ecs:")


def test_every_reading_command_works(cli: AwsCli) -> None:
    for words in (
        ("work-pool", "ls"),
        ("work-pool", "inspect", "ecs"),
        ("work-pool", "types"),
        ("work-pool", "preview", "ecs"),
        ("work-queue", "preview", "default", "-p", "ecs"),
        ("deployment", "schedule", "ls", "report/report"),
        ("work-queue", "ls"),
        ("block", "ls"),
        ("block", "type", "ls"),
        ("variable", "ls"),
        ("deployment", "ls"),
        ("deployment", "inspect", "report/report"),
        ("deployment", "preview", "report/report"),
        ("flow-run", "ls"),
        ("dlq", "ls"),
    ):
        cli.read(*words)


def test_the_operator_s_policy_has_what_commands_need_and_no_more(cli: AwsCli, at: Installation, work: Any) -> None:
    """So a person with exactly these rights can do everything; the identity of functions is never used."""
    keys = '{"aws_access_key_id": "AKIDEXAMPLE", "aws_secret_access_key": "canary", "region_name": "eu-west-1"}'
    cli.ok("block", "create", "aws-credentials/keys", "--data", "-", stdin=keys)
    variables = {"configure_cloudwatch_logs": True, "aws_credentials": "{{ blocks.aws-credentials.keys }}"}
    spec = {"name": "told", "command": "true", "work_pool": {"name": "ecs", "job_variables": variables}}
    file = cli.home.parent / "told.yaml"
    file.write_text(json.dumps({"deployments": [spec]}))
    cli.ok("deploy", file)
    cli.ok("deployment", "run", "told/told")
    work()
    (run,) = cli.read("flow-run", "ls")
    nothing = Reply(400, b'{"__type": "ResourceNotFoundException"}')
    with contextlib.closing(LoopbackServer(lambda _: nothing)) as cloudwatch:
        cli.ok("flow-run", "logs", run["id"], AWS_ENDPOINT_URL_CLOUDWATCH_LOGS=cloudwatch.endpoint)
    cli.ok("flow-run", "why", run["id"])
    cli.ok("flow-run", "retry", run["id"])
    (waiting,) = (each for each in cli.read("flow-run", "ls") if each["id"] != run["id"])
    cli.ok("flow-run", "cancel", waiting["id"])
    cli.ok("work-pool", "set-concurrency-limit", "ecs", "5")
    cli.ok("work-pool", "pause", "ecs")
    cli.ok("work-pool", "resume", "ecs")
    cli.ok("deployment", "preview", "told/told")
    cli.ok("deployment", "delete", "told/told", "--yes")
    for body in ("{", '{"version": 1, "type": "sweep", "platform": "ecs:push"}'):
        at.sqs.send_message(QueueUrl=at.urls["dead-letters"], MessageBody=body)
    cli.read("dlq", "ls")
    cli.ok("dlq", "replay", "--all")
    cli("doctor")
    used = {one.action for one in cli.asked()}
    assert used == granted(cli.allowed()), used ^ granted(cli.allowed())


def test_doctor_looks_at_the_installation(cli: AwsCli, work: Any) -> None:
    """It is well once it has ticked; a table that is not there is said. Nobody is told to start a server."""
    keys = '{"aws_access_key_id": "AKIDEXAMPLE", "aws_secret_access_key": "canary", "region_name": "eu-west-1"}'
    cli.ok("block", "create", "aws-credentials/keys", "--data", "-", stdin=keys)
    cli.ok("deployment", "run", "report/report")
    (ticks,) = (each for each in cli("doctor", "-o", "json").data if each["check"] == "ticks")
    assert (ticks["level"], ticks["found"]) == ("red", "nothing has ever ticked, and there is work")
    assert ticks["fix"] == "see that the schedule of the function `schedule` is on, and look into its log"
    work()
    found = cli.read("doctor")
    assert not [each for each in found if "push-pools serve" in each["fix"]], found
    (flagged,) = (each for each in found if each["check"] == "long-lived keys")
    assert (flagged["level"], "aws-credentials/keys" in flagged["found"]) == ("warn", True)
    assert not [each for each in found if each["level"] == "red"], found
    assert any("tick" in each["check"] for each in found)
    ran = cli("doctor", "-o", "json", PUSH_POOLS_AWS_TABLE="nope")
    assert ran.code == 1
    assert [each["check"] for each in ran.data] == ["installation"]


def test_local_pools_are_not_for_functions(cli: AwsCli) -> None:
    types = {each["type"] for each in cli.read("work-pool", "types")}
    assert "ecs:push" in types
    assert "process" not in types
    assert "pool type 'process' does not exist" in cli.refused("work-pool", "create", "local", "-t", "process")


def test_blocks_are_sealed_with_the_key_of_the_installation(cli: AwsCli, at: Installation) -> None:
    cli.ok("block", "create", "secret/token", "--data", "-", stdin='{"value": "canary"}')
    shown = cli.ok("block", "inspect", "secret/token", "-o", "json")
    assert "canary" not in shown.out
    environ = {**at.environ}
    del environ["PUSH_POOLS_AWS_KMS_KEY"]
    cli.at = Installation(environ, at.sqs, at.prefix, at.urls, at.arns, at.seen)
    said = cli.refused("block", "create", "secret/other", "--data", "-", stdin='{"value": "x"}')
    assert "set PUSH_POOLS_AWS_KMS_KEY" in said


def test_a_cancel_is_asked_for_and_the_functions_stop_the_task(cli: AwsCli, ecs: EcsDouble, work: Any) -> None:
    """The caller needs no right to stop tasks."""
    cli.ok("deployment", "run", "slow/slow")
    work()
    (run,) = cli.read("flow-run", "ls")
    assert run["state_name"] == "Running"
    cli.ok("flow-run", "cancel", run["id"])
    assert ecs.calls["StopTask"] == 0
    work()
    assert ecs.calls["StopTask"] == 1
    assert cli.read("flow-run", "inspect", run["id"])["state_name"] == "Cancelled"


def test_dead_letters_are_listed_shown_and_replayed(cli: AwsCli, at: Installation, work: Any) -> None:
    event = '{"version":1,"type":"scheduled-run","deployment":"later","scheduled_time":"2026-11-20T08:00:00Z"}'
    cli.ok("event", "send", "-", stdin=event)
    work()
    (letter,) = cli.read("dlq", "ls")
    assert "deployment 'later' does not exist" in letter["reason"]
    assert cli.ok("dlq", "show", letter["id"], "-o", "json").data["body"]["deployment"] == "later"
    assert "dead letter 'nope' does not exist" in cli.refused("dlq", "replay", "nope")
    spec = {"deployments": [{"name": "later", "command": "true", "work_pool": {"name": "ecs"}}]}
    file = cli.home.parent / "later.yaml"
    file.write_text(json.dumps(spec))
    cli.ok("deploy", file)
    cli.ok("dlq", "replay", "--all")
    work()
    assert cli.read("dlq", "ls") == []
    assert [run["deployment"] for run in cli.read("flow-run", "ls")] == ["later/later"]


def test_an_installation_is_not_served_from_here(cli: AwsCli) -> None:
    assert "PUSH_POOLS_AWS_TABLE is set" in cli.refused("serve", "--until-idle")


def test_a_table_that_is_not_there_is_named(cli: AwsCli) -> None:
    assert "nope" in cli.refused("flow-run", "ls", PUSH_POOLS_AWS_TABLE="nope")


def test_a_prefix_without_queues_is_named(cli: AwsCli) -> None:
    said = cli.refused("dlq", "ls", PUSH_POOLS_AWS_QUEUE_PREFIX="nope-")
    assert "there is no queue 'nope-dead-letters'" in said
