"""The smallest example runs: its records in DynamoDB, a job in an account that has what it makes and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from push_pools.testing.ecs_account import Account
from push_pools.testing.ecs_double import EcsDouble
from tests.aws.event_source import Mapping
from tests.aws.installation import Installation, install
from tests.aws.runtime_api import Environment
from tests.cli.test_aws import AwsCli
from tests.terraform.pools import applied, as_sent
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.aws.ministack import Ministack

EXAMPLE = applied("examples/minimal")[0]
VARIABLES: dict[str, Any] = EXAMPLE.record("work-pool", "hello")["spec"]["variables"]
NETWORK: dict[str, Any] = VARIABLES["network_configuration"]


@pytest.fixture
def ecs() -> Iterator[EcsDouble]:
    """An account with the cluster, roles, subnets and security group of the example, and no others."""
    rules = Account(
        role_trust={VARIABLES[name]: True for name in ("execution_role_arn", "task_role_arn")},
        subnets=dict.fromkeys(NETWORK["subnets"], "vpc-1"),
        security_groups=dict.fromkeys(NETWORK["securityGroups"], "vpc-1"),
    )
    with EcsDouble(region="eu-west-1", rules=rules) as double:
        double.model.clusters = {EXAMPLE.named["module.pool.aws_ecs_cluster.this[0]"]["name"]: []}
        yield double


@pytest.fixture
def at(ministack: Ministack, ecs: EcsDouble) -> Installation:
    return install(ministack, ecs)


def test_a_job_of_the_smallest_example_runs_to_its_end(at: Installation, ecs: EcsDouble, tmp_path: Path) -> None:
    cli = AwsCli(tmp_path / "home", at)

    def function(name: str) -> Environment:
        return Environment(f"push_pools.functions.{name}.handler", at.environ, timeout_seconds=60.0)

    with function("admin") as admin, function("submit_ecs") as submit, function("poll_ecs") as poll:
        for record in EXAMPLE.records:
            assert admin.invoke(as_sent(record, "create")).error is None
        cli.ok("deployment", "set-job-variable", "hello/hello", "image=acme/hello:2")  # As CI does.
        cli.ok("deployment", "run", "hello/hello", "--flow-run-name", "first")
        feeds = [
            (Mapping(at.sqs, at.urls[name], at.arns[name], [each]), each)
            for name, each in (("submit-ecs", submit), ("poll-ecs", poll))
        ]

        def completed() -> bool:
            for feed, each in feeds:
                feed.once(each, wait_seconds=0)
            (run,) = cli.read("flow-run", "ls")
            if run["state_type"] in ("PENDING", "RUNNING") and at.depth("poll-ecs") == 0:
                sweep = '{"version": 1, "type": "sweep", "platform": "ecs:push"}'  # As the tick does.
                at.sqs.send_message(QueueUrl=at.urls["poll-ecs"], MessageBody=sweep)
            return bool(run["state_name"] == "Completed")

        until(completed)
    (sent,) = (call.body for call in ecs.log if call.operation == "RunTask")
    assert sent["cluster"] == VARIABLES["cluster"]
    assert sent["networkConfiguration"]["awsvpcConfiguration"] == NETWORK
    assert sent["overrides"]["containerOverrides"][0]["command"] == ["echo", "hello"]
    (definition,) = (call.body for call in ecs.log if call.operation == "RegisterTaskDefinition")
    (container,) = definition["containerDefinitions"]
    assert container["image"] == "acme/hello:2"
    assert container["logConfiguration"]["options"]["awslogs-group"] == "/push-pools/hello"
    assert (definition["executionRoleArn"], definition["taskRoleArn"]) == (
        VARIABLES["execution_role_arn"],
        VARIABLES["task_role_arn"],
    )
