"""What the double's account refuses, in AWS's codes; a request that is refused uses up no token."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from push_pools.testing.ecs_double import Account, Bucket, LifecycleTimes

from .test_ecs_double import a_world

GOOD = "arn:aws:iam::123456789012:role/good"
BAD = "arn:aws:iam::123456789012:role/bad"
NETWORK: dict[str, Any] = {"awsvpcConfiguration": {"subnets": ["subnet-a1", "subnet-a2"], "securityGroups": ["sg-a"]}}
FARGATE: dict[str, Any] = {
    "networkMode": "awsvpc",
    "requiresCompatibilities": ["FARGATE"],
    "cpu": "1024",
    "memory": "2048",
    "containers": [{"name": "main", "image": "busybox"}],
}


def on_fargate(**more: Any) -> dict[str, Any]:
    return {"taskDefinition": "far", "launchType": "FARGATE", "networkConfiguration": NETWORK, **more}


def test_an_account_of_which_nothing_is_said_allows_everything() -> None:
    with a_world() as world:
        world.register("far", taskRoleArn=BAD, **FARGATE)
        assert world.run(**on_fargate())


@pytest.mark.parametrize("action", ["ecs:RunTask", "ecs:DescribeTasks", "ecs:RegisterTaskDefinition"])
def test_a_denied_action_names_itself(action: str) -> None:
    with a_world() as world:
        world.ecs.model.rules.denied.add(action)
        calls: dict[str, Any] = {
            "ecs:RunTask": lambda: world.refused("run_task", taskDefinition="job"),
            "ecs:DescribeTasks": lambda: world.refused("describe_tasks", tasks=["0" * 32]),
            "ecs:RegisterTaskDefinition": lambda: world.refused(
                "register_task_definition", family="x", containerDefinitions=[]
            ),
        }
        code, message = calls[action]()
        assert code == "AccessDeniedException"
        assert f"not authorized to perform: {action}" in message


def test_pass_role_is_asked_where_a_role_is_given() -> None:
    """At the registration, and at RunTask for a role of the overrides."""
    with a_world(rules=Account(denied={"iam:PassRole"})) as world:
        assert world.run()
        code, message = world.refused(
            "register_task_definition", family="x", taskRoleArn=GOOD, containerDefinitions=[{"name": "a", "image": "b"}]
        )
        assert (code, GOOD in message, "iam:PassRole" in message) == ("AccessDeniedException", True, True)
        code, _ = world.refused("run_task", taskDefinition="job", overrides={"taskRoleArn": GOOD})
        assert code == "AccessDeniedException"


@pytest.mark.parametrize("field", ["taskRoleArn", "executionRoleArn"])
def test_a_role_that_ecs_may_not_assume_is_refused_at_run_task_and_uses_up_no_token(field: str) -> None:
    with a_world(rules=Account(role_trust={GOOD: True, BAD: False})) as world:
        world.register("far", **{**FARGATE, field: BAD})
        code, message = world.refused("run_task", **on_fargate(clientToken="t"))
        assert (code, BAD in message) == ("ClientException", True)
        world.ecs.model.rules.role_trust = {BAD: True}
        assert world.run(**on_fargate(clientToken="t"))


@pytest.mark.parametrize(
    ("subnets", "groups", "words"),
    [
        (["subnet-a1", "subnet-b1"], [], "same VPC"),
        (["subnet-no"], [], "InvalidSubnetID.NotFound"),
        (["subnet-a1"], ["sg-b"], "same VPC as the input subnets"),
        (["subnet-a1"], ["sg-no"], "InvalidGroup.NotFound"),
    ],
)
def test_a_network_has_to_be_of_one_vpc(subnets: list[str], groups: list[str], words: str) -> None:
    rules = Account(
        subnets={"subnet-a1": "vpc-a", "subnet-a2": "vpc-a", "subnet-b1": "vpc-b"},
        security_groups={"sg-a": "vpc-a", "sg-b": "vpc-b"},
    )
    with a_world(rules=rules) as world:
        world.register("far", **FARGATE)
        assert world.run(**on_fargate())
        network = {"awsvpcConfiguration": {"subnets": subnets, "securityGroups": groups}}
        code, message = world.refused("run_task", **on_fargate(networkConfiguration=network))
        assert (code, words in message) == ("InvalidParameterException", True)


def test_vcpus_are_counted_while_tasks_are_not_stopped() -> None:
    """With the size of the overrides, and until the task is stopped and not only asked to stop."""
    rules = Account(vcpus=6, vcpus_in_failures=False)
    with a_world(rules=rules, times=LifecycleTimes(stopping_seconds=30), default_seconds=999) as world:
        world.register("far", **FARGATE)
        arns = [world.run(**on_fargate()) for _ in range(4)]
        big = on_fargate(overrides={"cpu": "4096", "memory": "8192"})
        code, message = world.refused("run_task", **big)
        assert (code, "vCPUs" in message) == ("ClientException", True)
        for arn in arns[:2]:
            world.client.stop_task(task=arn)
        assert world.refused("run_task", **big)[0] == "ClientException"
        world.clock.advance(60)
        assert world.run(**big)


def test_vcpus_that_are_not_left_are_failures_and_bound_to_the_token() -> None:
    """The token has been answered: another size under it is a conflict, and the same size the same refusal."""
    with a_world(rules=Account(vcpus=6), default_seconds=999) as world:
        world.register("far", **FARGATE)
        big = on_fargate(clientToken="t", overrides={"cpu": "8192", "memory": "16384"})
        answer = world.client.run_task(**big)
        assert answer["tasks"] == []
        assert "limit on the number of vCPUs" in answer["failures"][0]["reason"]
        world.ecs.model.rules.vcpus = None
        assert world.client.run_task(**big)["failures"] == answer["failures"]
        assert world.refused("run_task", **on_fargate(clientToken="t"))[0] == "ConflictException"
        assert not world.ecs.started


def test_a_bucket_refills_with_time() -> None:
    with a_world(rules=Account(buckets={"RunTask": Bucket(2, 0.5)})) as world:
        world.run()
        world.run()
        assert world.refused("run_task", taskDefinition="job") == ("ThrottlingException", "Rate exceeded")
        world.clock.advance(1)
        assert world.refused("run_task", taskDefinition="job")[0] == "ThrottlingException"
        world.clock.advance(1)
        assert world.run()
        world.clock.advance(timedelta(hours=1))
        assert [world.run(), world.run()]
        assert world.refused("run_task", taskDefinition="job")[0] == "ThrottlingException"


def test_a_repeated_token_is_answered_although_the_quota_is_used_up() -> None:
    """It starts nothing, so it needs nothing."""
    with a_world(rules=Account(vcpus=1), default_seconds=999) as world:
        world.register("far", **FARGATE)
        first = world.run(**on_fargate(clientToken="t"))
        assert world.run(**on_fargate(clientToken="t")) == first
