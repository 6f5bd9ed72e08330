"""The ECS double keeps the documented promises of Amazon ECS, and breaks them only when told to.

Every test but the last few drives it with the unmodified boto3 client, over a socket.
"""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError, ReadTimeoutError
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from push_pools.testing.doubles_http import LoopbackServer, Reply, Request
from push_pools.testing.ecs_definitions import EcsError
from push_pools.testing.ecs_double import (
    CAPACITY,
    EcsDouble,
    Fault,
    Hold,
    LifecycleTimes,
    ManualClock,
    ShiftedClock,
    TaskPlan,
)
from push_pools.testing.ecs_model import EcsModel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mypy_boto3_ecs import ECSClient

HOUR = timedelta(hours=1)
SLOW = LifecycleTimes(provisioning_seconds=10, pending_seconds=20, stopping_seconds=30, deprovisioning_seconds=5)
SESSION = boto3.Session(aws_access_key_id="x", aws_secret_access_key="y")


@contextmanager
def connect(ecs: EcsDouble, **config: Any) -> Iterator[ECSClient]:
    """Open a client without library retries, so that a test sees every answer."""
    settings: dict[str, Any] = {"retries": {"total_max_attempts": 1}, "proxies": {}, "max_pool_connections": 64}
    client: Any = SESSION.client(
        "ecs", endpoint_url=ecs.endpoint, region_name=ecs.region, config=Config(**settings | config)
    )
    try:
        yield client
    finally:
        client.close()


class World:
    """A double, its clock and a client."""

    def __init__(self, ecs: EcsDouble, clock: ManualClock, client: ECSClient) -> None:
        self.ecs, self.clock, self.client = ecs, clock, client

    def register(self, family: str = "job", **more: Any) -> str:
        containers = more.pop("containers", [{"name": "main", "image": "busybox", "memory": 128}])
        answer = self.client.register_task_definition(family=family, containerDefinitions=containers, **more)
        return answer["taskDefinition"]["taskDefinitionArn"]

    def run(self, **request: Any) -> str:
        """Run one task and return its ARN."""
        answer = self.client.run_task(**{"taskDefinition": "job"} | request)
        assert answer["failures"] == []
        return answer["tasks"][0]["taskArn"]

    def see(self, arn: str, **more: Any) -> Any:
        """Describe one task."""
        answer = self.client.describe_tasks(tasks=[arn], **more)
        assert answer["failures"] == []
        return answer["tasks"][0]

    def main(self, arn: str) -> Any:
        return self.see(arn)["containers"][0]

    def refused(self, operation: str, **request: Any) -> tuple[str, str]:
        """Call an operation that is refused, and return the error's code and message."""
        with pytest.raises(ClientError) as refusal:
            getattr(self.client, operation)(**request)
        error = refusal.value.response["Error"]
        return error["Code"], error["Message"]


@contextmanager
def a_world(**options: Any) -> Iterator[World]:
    clock = ManualClock()
    with EcsDouble(clock=clock, **options) as ecs, connect(ecs) as client:
        world = World(ecs, clock, client)
        world.register()
        yield world


@pytest.fixture
def world() -> Iterator[World]:
    """A double whose tasks run until somebody ends them."""
    with a_world(default_seconds=1e9) as opened:
        yield opened


# -- clientToken ------------------------------------------------------------------


def test_same_token_and_parameters_return_the_original_task(world: World) -> None:
    first = world.run(clientToken="a", startedBy="pp/1")
    again = world.client.run_task(taskDefinition="job", clientToken="a", startedBy="pp/1")
    assert [each["taskArn"] for each in again["tasks"]] == [first]
    assert again["tasks"][0]["lastStatus"] == "RUNNING"
    assert "containers" in again["tasks"][0]
    assert len(world.ecs.started) == 1


def test_a_cluster_named_in_two_ways_is_one_request(world: World) -> None:
    arn = world.client.describe_clusters()["clusters"][0]["clusterArn"]
    first = world.run(clientToken="a")
    assert world.run(clientToken="a", cluster="default") == first
    assert world.run(clientToken="a", cluster=arn) == first


def test_other_parameters_with_the_same_token_are_a_conflict_that_names_the_tasks(world: World) -> None:
    first = world.run(clientToken="a")
    with pytest.raises(world.client.exceptions.ConflictException) as conflict:
        world.client.run_task(taskDefinition="job", clientToken="a", startedBy="other")
    answer: Any = conflict.value.response
    assert answer["resourceIds"] == [first]
    assert len(world.ecs.started) == 1


def test_tokens_are_case_sensitive(world: World) -> None:
    assert world.run(clientToken="a") != world.run(clientToken="A")


def test_a_token_belongs_to_its_cluster(world: World) -> None:
    world.client.create_cluster(clusterName="other")
    assert world.run(clientToken="a") != world.run(clientToken="a", cluster="other")


def test_without_a_token_boto3_makes_a_new_one_for_each_call(world: World) -> None:
    assert world.run() != world.run()
    assert len(world.ecs.started_by_key()) == 2


def test_a_stopped_task_is_replayed_with_three_members_only(world: World) -> None:
    first = world.run(clientToken="a")
    world.ecs.finish(first)
    again = world.client.run_task(taskDefinition="job", clientToken="a")
    assert again["tasks"] == [{"taskArn": first, "lastStatus": "STOPPED", "desiredStatus": "STOPPED"}]


def test_a_token_dies_one_hour_after_its_task_stopped(world: World) -> None:
    first = world.run(clientToken="a")
    world.clock.advance(2 * HOUR)
    world.ecs.finish(first)
    world.clock.advance(HOUR - timedelta(seconds=1))
    assert world.run(clientToken="a") == first
    world.clock.advance(1)
    assert world.run(clientToken="a") != first


def test_with_several_tasks_the_last_one_to_stop_counts(world: World) -> None:
    answer = world.client.run_task(taskDefinition="job", clientToken="a", count=2)
    first, second = (each["taskArn"] for each in answer["tasks"])
    world.ecs.finish(first)
    world.clock.advance(3 * HOUR)
    again = world.client.run_task(taskDefinition="job", clientToken="a", count=2)
    assert [each["taskArn"] for each in again["tasks"]] == [first, second]
    world.ecs.finish(second)
    world.clock.advance(HOUR - timedelta(seconds=1))
    world.client.run_task(taskDefinition="job", clientToken="a", count=2)
    assert len(world.ecs.started) == 2
    world.clock.advance(1)
    world.client.run_task(taskDefinition="job", clientToken="a", count=2)
    assert len(world.ecs.started) == 4


def test_a_token_dies_after_a_day_even_while_its_task_runs(world: World) -> None:
    first = world.run(clientToken="a")
    world.clock.advance(timedelta(hours=24) - timedelta(seconds=1))
    assert world.run(clientToken="a") == first
    world.clock.advance(1)
    assert world.run(clientToken="a") != first


def test_the_day_also_ends_the_hour_after_a_stop(world: World) -> None:
    first = world.run(clientToken="a")
    world.clock.advance(timedelta(hours=23, minutes=30))
    world.ecs.finish(first)
    world.clock.advance(timedelta(minutes=29))
    assert world.run(clientToken="a") == first
    world.clock.advance(timedelta(minutes=1))
    assert world.run(clientToken="a") != first


def test_failures_are_replayed_and_after_an_hour_only_counted(world: World) -> None:
    world.ecs.faults.add("RunTask", Fault.failures("RESOURCE:MEMORY"))
    request: Any = {"taskDefinition": "job", "clientToken": "a", "count": 2}
    assert [each["reason"] for each in world.client.run_task(**request)["failures"]] == ["RESOURCE:MEMORY"] * 2
    again = world.client.run_task(**request)
    assert again["tasks"] == []
    assert [each["reason"] for each in again["failures"]] == ["RESOURCE:MEMORY"] * 2
    world.clock.advance(HOUR)
    assert world.client.run_task(**request)["failures"] == [{}, {}]
    assert world.ecs.started == []
    assert world.run(clientToken="b") in world.ecs.running()


def test_a_refused_request_does_not_use_up_its_token(world: World) -> None:
    world.refused("run_task", taskDefinition="unknown", clientToken="a")
    assert world.run(clientToken="a")


def test_a_token_is_answered_although_its_definition_was_deregistered(world: World) -> None:
    first = world.run(clientToken="a", taskDefinition="job:1")
    world.client.deregister_task_definition(taskDefinition="job:1")
    assert world.run(clientToken="a", taskDefinition="job:1") == first


@pytest.mark.parametrize("token", ["x" * 65, "with space", "umlaut-ä", ""])
def test_a_token_outside_its_alphabet_is_refused(world: World, token: str) -> None:
    assert world.refused("run_task", taskDefinition="job", clientToken=token)[0] == "InvalidParameterException"
    assert world.ecs.started == []


def test_a_token_of_sixty_four_characters_is_accepted(world: World) -> None:
    assert world.run(clientToken="~" * 63 + "!")


def test_many_threads_with_one_token_start_one_task() -> None:
    def slow_plan(_: dict[str, Any]) -> TaskPlan:
        time.sleep(0.05)  # Every other request arrives while this one is being carried out.
        return TaskPlan(seconds=1e9)

    with a_world(plan=slow_plan) as world, ThreadPoolExecutor(64) as pool:
        arns = set(pool.map(lambda _: world.run(clientToken="a"), range(64)))
        assert len(arns) == len(world.ecs.started) == 1
        assert world.ecs.calls["RunTask"] == 64


def test_many_tokens_under_latency_start_one_task_each(world: World) -> None:
    world.ecs.latency_seconds = 0.05
    with ThreadPoolExecutor(64) as pool:
        arns = set(pool.map(lambda i: world.run(clientToken=f"t{i}"), range(200)))
    assert len(arns) == len(world.ecs.started) == len(world.ecs.started_by_key()) == 200


# -- What RunTask refuses -----------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "code", "words"),
    [
        ({"count": 0}, "InvalidParameterException", "Count"),
        ({"count": 11}, "InvalidParameterException", "Count"),
        ({"startedBy": "x" * 129}, "InvalidParameterException", "startedBy"),
        ({"startedBy": "a b"}, "InvalidParameterException", "startedBy"),
        ({"taskDefinition": "unknown"}, "ClientException", "TaskDefinition not found."),
        ({"taskDefinition": "job:7"}, "ClientException", "TaskDefinition not found."),
        ({"cluster": "unknown"}, "ClusterNotFoundException", "Cluster not found."),
        ({"launchType": "LUNAR"}, "InvalidParameterException", "launchType"),
        ({"launchType": "FARGATE"}, "InvalidParameterException", "does not support launch_type FARGATE"),
        (
            {"launchType": "EC2", "capacityProviderStrategy": [{"capacityProvider": "FARGATE_SPOT"}]},
            "InvalidParameterException",
            "both a launch type and capacity provider strategy",
        ),
        (
            {"overrides": {"containerOverrides": [{"name": "nobody", "command": ["x"]}]}},
            "InvalidParameterException",
            "Override for container named nobody is not a container",
        ),
        (
            {"overrides": {"containerOverrides": [{"name": "main", "command": ["x" * 8192]}]}},
            "InvalidParameterException",
            "8192",
        ),
        ({"tags": [{"key": str(i), "value": ""} for i in range(51)]}, "InvalidParameterException", "50"),
        ({"tags": [{"key": "a", "value": ""}] * 2}, "InvalidParameterException", "Duplicate"),
        ({"tags": [{"key": "aws:x", "value": ""}]}, "InvalidParameterException", "aws:"),
        ({"tags": [{"key": "a", "value": "x" * 257}]}, "InvalidParameterException", "256"),
        (
            {"networkConfiguration": {"awsvpcConfiguration": {"subnets": ["s"]}}},
            "InvalidParameterException",
            "not valid for the given networkMode",
        ),
    ],
)
def test_run_task_refuses(world: World, request_: dict[str, Any], code: str, words: str) -> None:
    refusal = world.refused("run_task", **{"taskDefinition": "job"} | request_)
    assert refusal[0] == code
    assert words in refusal[1]
    assert world.ecs.started == []


def test_overrides_may_have_exactly_8192_characters(world: World) -> None:
    def overrides(length: int) -> dict[str, Any]:
        return {"containerOverrides": [{"name": "main", "command": ["x" * length]}]}

    spare = 8192 - len(json.dumps(overrides(0), separators=(",", ":")))
    assert world.run(overrides=overrides(spare))
    umlauts = {"containerOverrides": [{"name": "main", "command": ["ä" * spare]}]}
    assert world.run(overrides=umlauts)
    assert world.refused("run_task", taskDefinition="job", overrides=overrides(spare + 1))


def test_an_inactive_definition_cannot_be_run_but_is_still_described(world: World) -> None:
    arn = world.register("gone")
    world.client.deregister_task_definition(taskDefinition=arn)
    refusal = world.refused("run_task", taskDefinition=arn)
    assert refusal == ("ClientException", "TaskDefinition is inactive")
    assert world.refused("run_task", taskDefinition="gone") == ("ClientException", "TaskDefinition not found.")
    assert world.client.describe_task_definition(taskDefinition=arn)["taskDefinition"]["status"] == "INACTIVE"
    assert world.refused("deregister_task_definition", taskDefinition=arn)[0] == "ClientException"


FARGATE: dict[str, Any] = {
    "requiresCompatibilities": ["FARGATE"],
    "networkMode": "awsvpc",
    "cpu": "256",
    "memory": "512",
}
NETWORK: dict[str, Any] = {"awsvpcConfiguration": {"subnets": ["subnet-1"]}}


def test_fargate_needs_subnets(world: World) -> None:
    world.register("far", **FARGATE)
    request: dict[str, Any] = {"taskDefinition": "far", "launchType": "FARGATE"}
    assert "Network Configuration must be provided" in world.refused("run_task", **request)[1]
    empty: dict[str, Any] = {"networkConfiguration": {"awsvpcConfiguration": {"subnets": []}}}
    assert "subnets can not be empty" in world.refused("run_task", **request | empty)[1]
    many: dict[str, Any] = {"networkConfiguration": {"awsvpcConfiguration": {"subnets": ["s"] * 17}}}
    assert "at most 16" in world.refused("run_task", **request | many)[1]
    groups = {"networkConfiguration": {"awsvpcConfiguration": {"subnets": ["s"], "securityGroups": ["g"] * 6}}}
    assert "at most 5" in world.refused("run_task", **request | groups)[1]
    task = world.see(world.run(**request, networkConfiguration=NETWORK))
    assert (task["launchType"], task["platformVersion"], task["cpu"]) == ("FARGATE", "1.4.0", "256")
    assert task["attachments"][0]["details"] == [{"name": "subnetId", "value": "subnet-1"}]


def test_fargate_checks_sizes_given_as_overrides_and_the_platform_version(world: World) -> None:
    world.register("far", **FARGATE)
    request: dict[str, Any] = {"taskDefinition": "far", "launchType": "FARGATE", "networkConfiguration": NETWORK}
    refusal = world.refused("run_task", **request, overrides={"memory": "8192"})
    assert refusal[0] == "ClientException"
    assert "No Fargate configuration exists" in refusal[1]
    assert world.see(world.run(**request, overrides={"memory": "1 GB"}))["memory"] == "1 GB"
    assert world.refused("run_task", **request, platformVersion="9")[0] == "PlatformUnknownException"


def test_spot_capacity_is_reached_through_a_strategy(world: World) -> None:
    world.register("far", **FARGATE)
    strategy = [{"capacityProvider": "FARGATE_SPOT", "weight": 1}]
    arn = world.run(taskDefinition="far", capacityProviderStrategy=strategy, networkConfiguration=NETWORK)
    assert world.see(arn)["capacityProviderName"] == "FARGATE_SPOT"


# -- Task definitions ----------------------------------------------------------------


def test_identical_registrations_are_new_revisions(world: World) -> None:
    assert world.register("twice").endswith(":task-definition/twice:1")
    assert world.register("twice").endswith(":task-definition/twice:2")
    assert world.client.describe_task_definition(taskDefinition="twice")["taskDefinition"]["revision"] == 2
    world.client.deregister_task_definition(taskDefinition="twice:2")
    assert world.client.describe_task_definition(taskDefinition="twice")["taskDefinition"]["revision"] == 1
    assert world.register("twice").endswith(":3")


def test_definitions_are_listed_by_family_status_and_page(world: World) -> None:
    for _ in range(3):
        world.register("many")
    world.client.deregister_task_definition(taskDefinition="many:1")
    paginator = world.client.get_paginator("list_task_definitions")
    pages = list(paginator.paginate(familyPrefix="many", PaginationConfig={"PageSize": 1}))
    assert [[arn[-6:] for arn in page["taskDefinitionArns"]] for page in pages] == [["many:2"], ["many:3"]]
    inactive = world.client.list_task_definitions(familyPrefix="many", status="INACTIVE")["taskDefinitionArns"]
    assert [arn[-6:] for arn in inactive] == ["many:1"]
    newest = world.client.list_task_definitions(sort="DESC")["taskDefinitionArns"]
    assert newest[0].endswith("many:3")


def test_families_are_listed_by_what_they_begin_with(world: World) -> None:
    """A family whose revisions are all deregistered is not active; one whose revisions are deleted is none."""
    for family in ("mine-a", "mine-b", "other"):
        world.register(family)
    world.client.deregister_task_definition(taskDefinition="mine-a:1")
    listed = {
        status: world.client.list_task_definition_families(familyPrefix="mine", **status_of(status))["families"]
        for status in ("", "ACTIVE", "INACTIVE")
    }
    assert listed == {"": ["mine-a", "mine-b"], "ACTIVE": ["mine-b"], "INACTIVE": ["mine-a"]}
    (deleted,) = world.client.delete_task_definitions(taskDefinitions=["mine-a:1"])["taskDefinitions"]
    assert deleted["status"] == "DELETE_IN_PROGRESS"
    assert world.client.list_task_definition_families(familyPrefix="mine")["families"] == ["mine-b"]


def status_of(status: str) -> Any:
    return {"status": status} if status else {}


@pytest.mark.parametrize("names", [["mine:1"], ["mine:2"], [], [f"mine:{n}" for n in range(11)]])
def test_only_ten_inactive_definitions_are_deleted_at_once(world: World, names: list[str]) -> None:
    world.register("mine")
    assert world.refused("delete_task_definitions", taskDefinitions=names)[0] == "InvalidParameterException"


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"family": "white space"}, "Family"),
        ({"family": "x" * 256}, "Family"),
        ({"containers": []}, "empty"),
        ({"containers": [{"name": "main", "memory": 1}]}, "Container.image"),
        ({"containers": [{"image": "i", "memory": 1}]}, "Container.name"),
        ({"containers": [{"name": "main", "image": "i"}]}, "'memory' or 'memoryReservation'"),
        ({"containers": [{"name": "a", "image": "i", "memory": 1}] * 2}, "unique"),
        ({"containers": [{"name": "a", "image": "i", "memory": 1, "essential": False}]}, "essential"),
        ({"containers": [{"name": f"c{i}", "image": "i", "memory": 1} for i in range(11)]}, "at most 10"),
        ({"containers": [{"name": "a", "image": "i", "memory": 1, "command": ["x" * 65536]}]}, "65536"),
        (FARGATE | {"networkMode": "bridge"}, "awsvpc"),
        (FARGATE | {"memory": "4096"}, "No Fargate configuration exists"),
        (FARGATE | {"cpu": "300"}, "No Fargate configuration exists"),
        (
            FARGATE
            | {
                "containers": [{"name": "a", "image": "i", "logConfiguration": {"logDriver": "awslogs", "options": {}}}]
            },
            "execution role",
        ),
        (
            FARGATE
            | {"executionRoleArn": "arn:aws:iam::1:role/r"}
            | {
                "containers": [{"name": "a", "image": "i", "logConfiguration": {"logDriver": "awslogs", "options": {}}}]
            },
            "awslogs-stream-prefix",
        ),
    ],
)
def test_register_task_definition_refuses(world: World, asked: dict[str, Any], words: str) -> None:
    containers = asked.pop("containers", [{"name": "main", "image": "busybox", "memory": 128}])
    request = {"family": "new", "containerDefinitions": containers} | asked
    with connect(world.ecs, parameter_validation=False) as client:
        refusal = World(world.ecs, world.clock, client).refused("register_task_definition", **request)
    assert refusal[0] == "ClientException"
    assert words in refusal[1]


def test_fargate_needs_a_size(world: World) -> None:
    asked: dict[str, Any] = {"requiresCompatibilities": ["FARGATE"], "networkMode": "awsvpc"}
    containers = [{"name": "main", "image": "busybox", "memory": 128}]
    refusal = world.refused("register_task_definition", family="new", containerDefinitions=containers, **asked)
    assert "'cpu' and 'memory'" in refusal[1]


@pytest.mark.parametrize(
    ("cpu", "memory"), [("256", "512"), (".25 vCPU", "0.5 GB"), ("1 vCPU", "8GB"), ("16384", "122880")]
)
def test_fargate_sizes_may_be_written_with_units(world: World, cpu: str, memory: str) -> None:
    assert world.register("sized", **FARGATE | {"cpu": cpu, "memory": memory})


def test_unknown_definitions_are_a_client_exception(world: World) -> None:
    unable = ("ClientException", "Unable to describe task definition.")
    for name in ("nobody", "job:9", "arn:aws:ecs:eu-west-1:123456789012:task-definition/job:1"):
        assert world.refused("describe_task_definition", taskDefinition=name) == unable
    assert world.refused("deregister_task_definition", taskDefinition="job:9") == unable
    assert world.refused("deregister_task_definition", taskDefinition="job")[0] == "InvalidParameterException"


# -- Describe, list, stop, tags ---------------------------------------------------------


def test_task_arns_have_the_true_format(world: World) -> None:
    arn = world.run()
    head, _, identity = arn.rpartition("/")
    assert head == "arn:aws:ecs:us-east-1:123456789012:task/default"
    assert len(identity) == 32
    assert int(identity, 16)
    assert world.see(identity)["taskArn"] == arn


def test_describe_takes_one_hundred_tasks(world: World) -> None:
    arns = [world.run() for _ in range(3)] + [f"{i:032x}" for i in range(97)]
    answer = world.client.describe_tasks(tasks=arns)
    assert (len(answer["tasks"]), len(answer["failures"])) == (3, 97)
    assert {each["reason"] for each in answer["failures"]} == {"MISSING"}
    assert world.refused("describe_tasks", tasks=[*arns, "f" * 32])[0] == "InvalidParameterException"
    assert world.refused("describe_tasks", tasks=[])[0] == "InvalidParameterException"
    assert world.refused("describe_tasks", tasks=["short"])[0] == "InvalidParameterException"


def test_a_task_is_missing_in_another_cluster(world: World) -> None:
    world.client.create_cluster(clusterName="other")
    arn = world.run()
    assert world.client.describe_tasks(cluster="other", tasks=[arn])["failures"] == [{"arn": arn, "reason": "MISSING"}]
    assert world.refused("stop_task", cluster="other", task=arn)[1] == "The referenced task was not found."


def test_stopped_tasks_are_forgotten_after_an_hour(world: World) -> None:
    arn = world.run(startedBy="me")
    world.ecs.finish(arn)
    world.clock.advance(HOUR - timedelta(seconds=1))
    assert world.see(arn)["lastStatus"] == "STOPPED"
    assert world.client.list_tasks(startedBy="me", desiredStatus="STOPPED")["taskArns"] == [arn]
    world.clock.advance(1)
    assert world.client.describe_tasks(tasks=[arn])["failures"] == [{"arn": arn, "reason": "MISSING"}]
    assert world.client.list_tasks(startedBy="me", desiredStatus="STOPPED")["taskArns"] == []
    assert world.refused("stop_task", task=arn) == ("InvalidParameterException", "The referenced task was not found.")


def test_list_shows_running_tasks_by_default_and_filters(world: World) -> None:
    world.register("other")
    mine, theirs, gone = world.run(startedBy="me"), world.run(taskDefinition="other"), world.run(startedBy="me")
    world.ecs.finish(gone)

    def listed(**by: Any) -> list[str]:
        return world.client.list_tasks(**by)["taskArns"]

    assert listed() == [mine, theirs]
    assert listed(startedBy="me") == [mine]
    assert listed(family="other") == [theirs]
    assert listed(desiredStatus="STOPPED") == [gone]
    assert listed(desiredStatus="PENDING") == listed(startedBy="nobody") == listed(serviceName="web") == []
    assert listed(launchType="FARGATE") == []
    world.client.create_cluster(clusterName="far")
    assert listed(cluster="far") == []
    assert len(listed(launchType="EC2")) == 2


def test_started_by_must_be_the_only_filter(world: World) -> None:
    assert world.refused("list_tasks", startedBy="me", family="job")[0] == "InvalidParameterException"
    assert world.client.list_tasks(startedBy="me", desiredStatus="STOPPED")["taskArns"] == []
    with a_world(started_by_alone=True) as strict:
        refusal = strict.refused("list_tasks", startedBy="me", desiredStatus="STOPPED")
    assert refusal[0] == "InvalidParameterException"


def test_list_pages_stay_put_while_tasks_come_and_go(world: World) -> None:
    arns = [world.run() for _ in range(5)]
    page = world.client.list_tasks(maxResults=2)
    assert page["taskArns"] == arns[:2]
    world.ecs.finish(arns[0])
    rest = world.client.list_tasks(maxResults=100, nextToken=page["nextToken"])
    assert rest["taskArns"] == arns[2:]
    assert "nextToken" not in rest
    assert world.refused("list_tasks", maxResults=101)[0] == "InvalidParameterException"
    assert world.refused("list_tasks", nextToken="?")[0] == "InvalidParameterException"
    assert world.refused("list_tasks", desiredStatus="LOST")[0] == "InvalidParameterException"


def test_list_pages_hold_one_hundred(world: World) -> None:
    for _ in range(11):
        world.client.run_task(taskDefinition="job", count=10)
    pages = [len(page["taskArns"]) for page in world.client.get_paginator("list_tasks").paginate()]
    assert pages == [100, 10]


def test_stop_names_the_reason_and_drops_the_tags(world: World) -> None:
    arn = world.run(tags=[{"key": "run", "value": "1"}])
    assert world.see(arn, include=["TAGS"])["tags"] == [{"key": "run", "value": "1"}]
    assert world.see(arn)["tags"] == []
    world.client.stop_task(task=arn, reason="push-pools cancel")
    task = world.see(arn, include=["TAGS"])
    assert (task["lastStatus"], task["stopCode"], task["stoppedReason"]) == (
        "STOPPED",
        "UserInitiated",
        "push-pools cancel",
    )
    assert task["containers"][0]["exitCode"] == 143
    assert task["tags"] == []


def test_stop_may_be_repeated_and_changes_nothing(world: World) -> None:
    arn = world.run()
    world.client.stop_task(task=arn, reason="first")
    world.client.stop_task(task=arn, reason="second")
    assert world.see(arn)["stoppedReason"] == "first"
    finished = world.run()
    world.ecs.finish(finished, 3)
    world.client.stop_task(task=finished)
    assert world.see(finished)["stopCode"] == "EssentialContainerExited"
    assert world.refused("stop_task", task="0" * 32)[1] == "The referenced task was not found."


def test_stop_takes_its_time() -> None:
    with a_world(default_seconds=1e9, times=SLOW) as world:
        arn = world.run()
        world.clock.advance(30)
        answer = world.client.stop_task(task=arn)["task"]
        assert (answer["lastStatus"], answer["desiredStatus"]) == ("RUNNING", "STOPPED")
        assert world.client.list_tasks()["taskArns"] == []
        assert world.client.list_tasks(desiredStatus="STOPPED")["taskArns"] == [arn]
        world.clock.advance(30)
        assert world.see(arn)["lastStatus"] == "DEPROVISIONING"
        world.clock.advance(5)
        assert world.see(arn)["lastStatus"] == "STOPPED"


def test_a_task_stopped_before_it_ran_has_no_exit_code() -> None:
    with a_world(default_seconds=1e9, times=SLOW) as world:
        arn = world.run()
        world.client.stop_task(task=arn)
        world.clock.advance(5)
        task = world.see(arn)
        assert (task["lastStatus"], task["stopCode"]) == ("STOPPED", "UserInitiated")
        assert "exitCode" not in task["containers"][0]
        assert "startedAt" not in task


def test_a_container_that_ends_within_the_grace_time_keeps_its_exit_code() -> None:
    with a_world(plan=lambda _: TaskPlan(exit_code=4, seconds=50), times=SLOW) as world:
        arn = world.run()
        world.clock.advance(60)
        world.client.stop_task(task=arn)
        world.clock.advance(25)
        assert world.main(arn)["exitCode"] == 4
        assert world.see(arn)["stopCode"] == "UserInitiated"


def test_tags_of_tasks_definitions_and_clusters(world: World) -> None:
    world.register("tagged", tags=[{"key": "team", "value": "a"}])
    arn = world.run(taskDefinition="tagged", propagateTags="TASK_DEFINITION", tags=[{"key": "run", "value": "1"}])
    world.client.tag_resource(resourceArn=arn, tags=[{"key": "run", "value": "2"}])
    tags = world.client.list_tags_for_resource(resourceArn=arn)["tags"]
    assert tags == [{"key": "team", "value": "a"}, {"key": "run", "value": "2"}]
    definition = world.client.describe_task_definition(taskDefinition="tagged", include=["TAGS"])
    assert definition["tags"] == [{"key": "team", "value": "a"}]
    cluster = world.client.create_cluster(clusterName="c", tags=[{"key": "k", "value": "v"}])["cluster"]["clusterArn"]
    assert world.client.list_tags_for_resource(resourceArn=cluster)["tags"] == [{"key": "k", "value": "v"}]
    world.ecs.finish(arn)
    assert "stopped" in world.refused("tag_resource", resourceArn=arn, tags=[{"key": "a", "value": "b"}])[1]
    assert world.refused("list_tags_for_resource", resourceArn="arn:x")[0] == "InvalidParameterException"


def test_clusters_are_created_once_and_described(world: World) -> None:
    for _ in range(2):
        world.client.create_cluster(clusterName="jobs")
    answer = world.client.describe_clusters(clusters=["default", "jobs", "unknown"])
    assert [each["clusterName"] for each in answer["clusters"]] == ["default", "jobs"]
    assert [each["reason"] for each in answer["failures"]] == ["MISSING"]
    world.run(cluster="jobs")
    assert world.client.describe_clusters(clusters=["jobs"])["clusters"][0]["runningTasksCount"] == 1
    assert world.refused("create_cluster", clusterName="a b")[0] == "InvalidParameterException"


def test_a_new_task_may_be_invisible_at_first() -> None:
    with a_world(default_seconds=1e9, visibility_delay_seconds=5) as world:
        arn = world.run(startedBy="me", clientToken="a")
        assert world.client.describe_tasks(tasks=[arn])["failures"][0]["reason"] == "MISSING"
        assert world.client.list_tasks(startedBy="me")["taskArns"] == []
        assert world.run(startedBy="me", clientToken="a") == arn
        world.clock.advance(5)
        assert world.see(arn)["lastStatus"] == "RUNNING"
        assert world.client.list_tasks(startedBy="me")["taskArns"] == [arn]


def test_other_operations_are_refused_by_name(world: World) -> None:
    assert world.refused("list_services")[0] == "UnknownOperationException"


# -- Lives and ends of tasks ---------------------------------------------------------------


def test_a_task_goes_through_its_states_on_the_clock() -> None:
    with a_world(plan=lambda _: TaskPlan(seconds=100), times=SLOW) as world:
        arn = world.run()
        seen = []
        for step in (0, 10, 20, 100, 5):
            world.clock.advance(step)
            task = world.see(arn)
            seen.append(
                (task["lastStatus"], task["desiredStatus"], task["containers"][0]["lastStatus"], task["version"])
            )
    assert seen == [
        ("PROVISIONING", "RUNNING", "PENDING", 1),
        ("PENDING", "RUNNING", "PENDING", 2),
        ("RUNNING", "RUNNING", "RUNNING", 3),
        ("DEPROVISIONING", "STOPPED", "STOPPED", 4),
        ("STOPPED", "STOPPED", "STOPPED", 5),
    ]
    start = datetime(2030, 1, 1, tzinfo=UTC)
    moments = {name: (task[name] - start).seconds for name in ("createdAt", "startedAt", "stoppingAt", "stoppedAt")}
    assert moments == {"createdAt": 0, "startedAt": 30, "stoppingAt": 130, "stoppedAt": 135}


@pytest.mark.parametrize(
    ("plan", "stop_code", "reason", "exit_code", "container_reason"),
    [
        ({}, "EssentialContainerExited", "Essential container in task exited", 0, None),
        ({"exit_code": 3}, "EssentialContainerExited", "Essential container", 3, None),
        ({"outcome": "oom"}, "EssentialContainerExited", "Essential container", 137, "OutOfMemoryError"),
        ({"outcome": "killed"}, "EssentialContainerExited", "Essential container", 137, None),
        ({"outcome": "null_exit"}, "EssentialContainerExited", "Essential container", None, None),
        ({"outcome": "spot"}, "SpotInterruption", "Your Spot Task was interrupted.", 143, None),
        ({"outcome": "termination_notice"}, "TerminationNotice", "maintenance", 143, None),
        ({"outcome": "host"}, "InfrastructureHealth", "Host EC2", None, None),
        ({"outcome": "image"}, "TaskFailedToStart", "CannotPullContainerError", None, "CannotPullContainerError"),
        ({"outcome": "resource_init"}, "TaskFailedToStart", "ResourceInitializationError", None, None),
        ({"outcome": "image", "stopped_reason": "my words"}, "TaskFailedToStart", "my words", None, "Cannot"),
    ],
)
def test_every_end_leaves_its_evidence(
    plan: dict[str, Any], stop_code: str, reason: str, exit_code: int | None, container_reason: str | None
) -> None:
    with a_world(plan=lambda _: TaskPlan(**plan)) as world:
        arn = world.run()
        task, main = world.see(arn), world.main(arn)
    assert (task["lastStatus"], task["stopCode"], main.get("exitCode")) == ("STOPPED", stop_code, exit_code)
    assert task["stoppedReason"].startswith(reason) or reason in task["stoppedReason"]
    assert (container_reason or "") in main.get("reason", "")
    assert ("reason" in main) == (container_reason is not None)
    assert ("startedAt" in task) == (stop_code != "TaskFailedToStart")


def test_a_failed_start_may_show_no_containers() -> None:
    with a_world(plan=lambda _: TaskPlan("no_containers")) as world:
        task = world.see(world.run())
    assert (task["stopCode"], task["containers"]) == ("TaskFailedToStart", [])


def test_a_stuck_task_stays_in_provisioning_until_it_is_stopped() -> None:
    with a_world(plan=lambda _: TaskPlan("stuck")) as world:
        arn = world.run()
        world.clock.advance(timedelta(days=2))
        assert world.see(arn)["lastStatus"] == "PROVISIONING"
        assert world.ecs.running() == [arn]
        world.client.stop_task(task=arn, reason="too long")
        assert world.see(arn)["stopCode"] == "UserInitiated"


def test_a_sidecar_may_have_a_null_exit_code() -> None:
    containers = [
        {"name": "proxy", "image": "envoy", "memory": 1, "essential": False},
        {"name": "main", "image": "busybox", "memory": 1},
    ]
    with a_world(plan=lambda _: TaskPlan(exit_code=2, sidecar_exit_code=None)) as world:
        world.register("pair", containers=containers)
        proxy, main = world.see(world.run(taskDefinition="pair"))["containers"]
    assert (proxy["name"], "exitCode" in proxy) == ("proxy", False)
    assert main["exitCode"] == 2


def test_the_main_container_is_the_one_the_request_overrides() -> None:
    containers = [{"name": "a", "image": "i", "memory": 1}, {"name": "b", "image": "i", "memory": 1}]
    with a_world(plan=lambda _: TaskPlan(exit_code=2)) as world:
        world.register("pair", containers=containers)
        codes = []
        for name in ("a", "b"):
            arn = world.run(taskDefinition="pair", overrides={"containerOverrides": [{"name": name}]})
            codes.append([each["exitCode"] for each in world.see(arn)["containers"]])
    assert codes == [[2, 0], [0, 2]]


def test_tests_end_tasks_by_hand(world: World) -> None:
    ends: dict[str, tuple[str, int | None]] = {
        "finish": ("EssentialContainerExited", 0),
        "kill": ("EssentialContainerExited", 137),
        "oom": ("EssentialContainerExited", 137),
        "spot": ("SpotInterruption", 143),
        "host_failure": ("InfrastructureHealth", None),
    }
    for name, evidence in ends.items():
        arn = world.run()
        assert getattr(world.ecs, name)(arn)
        assert (world.see(arn)["stopCode"], world.main(arn).get("exitCode")) == evidence
        assert not getattr(world.ecs, name)(arn)
    null = world.run()
    world.ecs.finish(null, None)
    assert "exitCode" not in world.main(null)
    assert world.ecs.running() == []
    with pytest.raises(LookupError):
        world.ecs.kill("arn:nothing")
    with pytest.raises(LookupError):
        world.ecs.describe("arn:nothing")


def test_a_task_that_never_ran_has_no_exit_code_when_its_capacity_is_taken() -> None:
    with a_world(plan=lambda _: TaskPlan("stuck")) as world:
        lost, done = world.run(), world.run()
        world.ecs.spot(lost)
        world.ecs.finish(done, 5)
        assert "exitCode" not in world.main(lost)
        assert world.main(done)["exitCode"] == 5
        assert "startedAt" in world.see(done)


@pytest.mark.parametrize(
    ("command", "exit_code", "seconds"),
    [
        (["true"], 0, 0),
        (["false"], 1, 0),
        (["sh", "-c", "exit 3"], 3, 0),
        (["/bin/sh", "-c", "sleep 2; exit 4"], 4, 2),
        (["sleep", "2.5"], 0, 2.5),
        (["python", "-m", "report"], 0, 0),
    ],
)
def test_simple_commands_do_what_they_say(world: World, command: list[str], exit_code: int, seconds: float) -> None:
    with a_world() as quick:
        arn = quick.run(overrides={"containerOverrides": [{"name": "main", "command": command}]})
        if seconds:
            assert quick.see(arn)["lastStatus"] == "RUNNING"
            quick.clock.advance(seconds)
        assert quick.main(arn)["exitCode"] == exit_code


def test_the_environment_may_ask_for_a_plan() -> None:
    with a_world() as world:
        variable = {
            "name": "PUSH_POOLS_DOUBLE",
            "value": '{"exit_code": 3, "seconds": 2, "times": {"pending_seconds": 1}}',
        }
        arn = world.run(overrides={"containerOverrides": [{"name": "main", "environment": [variable]}]})
        assert world.see(arn)["lastStatus"] == "PENDING"
        world.clock.advance(3)
        assert world.main(arn)["exitCode"] == 3
        variable = {"name": "PUSH_POOLS_DOUBLE", "value": '{"outcome": "oom"}'}
        world.register("env", containers=[{"name": "a", "image": "i", "memory": 1, "environment": [variable]}])
        assert "OutOfMemoryError" in world.main(world.run(taskDefinition="env"))["reason"]


@pytest.mark.parametrize("text", ['{"typo": 1}', "[]", "not json", '{"outcome": "explode"}'])
def test_a_plan_that_cannot_be_read_is_said_so(text: str) -> None:
    with a_world() as world:
        override = {"name": "main", "environment": [{"name": "PUSH_POOLS_DOUBLE", "value": text}]}
        refusal = world.refused("run_task", taskDefinition="job", overrides={"containerOverrides": [override]})
        assert refusal[0] == "DoubleFailed"
        assert world.ecs.started == []


# -- Events ------------------------------------------------------------------------------------


def test_every_change_is_one_event_with_a_growing_version() -> None:
    with a_world(plan=lambda _: TaskPlan(seconds=100, exit_code=1), times=SLOW) as world:
        arn = world.run(startedBy="pp/1", tags=[{"key": "a", "value": "b"}])
        world.clock.advance(30)
        first = world.ecs.task_state_change_events()
        world.clock.advance(200)
        events = first + world.ecs.task_state_change_events()
        assert world.ecs.task_state_change_events() == []
        described = world.see(arn)["version"]
    assert [(each["detail"]["version"], each["detail"]["lastStatus"]) for each in events] == [
        (1, "PROVISIONING"),
        (2, "PENDING"),
        (3, "RUNNING"),
        (4, "DEPROVISIONING"),
        (5, "STOPPED"),
    ]
    last = events[-1]
    assert {name: last[name] for name in ("version", "detail-type", "source", "account", "time", "region")} == {
        "version": "0",
        "detail-type": "ECS Task State Change",
        "source": "aws.ecs",
        "account": "123456789012",
        "time": "2030-01-01T00:02:15Z",
        "region": "us-east-1",
    }
    assert last["resources"] == [arn]
    detail = last["detail"]
    assert (detail["startedBy"], detail["containers"][0]["exitCode"]) == ("pp/1", 1)
    assert detail["createdAt"] == "2030-01-01T00:00:00.000Z"
    assert "tags" not in detail
    assert detail["version"] == described
    assert len({each["id"] for each in events}) == 5


def test_stop_is_an_event_of_its_own() -> None:
    with a_world(default_seconds=1e9, times=SLOW) as world:
        arn = world.run()
        world.clock.advance(30)
        world.ecs.task_state_change_events()
        world.client.stop_task(task=arn, reason="enough")
        (event,) = world.ecs.task_state_change_events()
    seen = {name: event["detail"][name] for name in ("lastStatus", "desiredStatus", "stoppedReason")}
    assert seen == {"lastStatus": "RUNNING", "desiredStatus": "STOPPED", "stoppedReason": "enough"}


def test_events_may_be_doubled_lost_and_out_of_order() -> None:
    with a_world() as world:
        world.run()
        doubled = world.ecs.task_state_change_events(duplicate=1.0)
        assert [each["detail"]["version"] for each in doubled] == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
        assert doubled[0] == doubled[1]
        world.run()
        assert world.ecs.task_state_change_events(drop=1.0) == []
        for _ in range(5):
            world.run()
        shuffled = [each["detail"]["version"] for each in world.ecs.task_state_change_events(shuffle=True)]
        assert sorted(shuffled) == sorted([1, 2, 3, 4, 5] * 5)
        assert shuffled != [1, 2, 3, 4, 5] * 5


# -- Faults ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "code", "status", "words", "has_effect"),
    [
        (Fault.throttle(), "ThrottlingException", 400, "Rate exceeded", False),
        (Fault.wrapped_throttle(), "InvalidParameterException", 400, "Rate exceeded (ErrorCode: Throttling)", False),
        (Fault.server_error(), "ServerException", 500, "", False),
        (Fault.server_error(effect=True), "ServerException", 500, "", True),
        (Fault.access_denied(), "AccessDeniedException", 400, "not authorized", False),
        (Fault.expired_credentials(), "ExpiredTokenException", 400, "expired", False),
        (Fault.concurrent_revisions(), "ClientException", 400, "Too many concurrent attempts", False),
        (Fault.answer("BlockedException", "blocked", status=403), "BlockedException", 403, "blocked", False),
    ],
)
def test_error_faults(world: World, fault: Fault, code: str, status: int, words: str, has_effect: bool) -> None:
    world.ecs.faults.add("RunTask", fault)
    with pytest.raises(ClientError) as refusal:
        world.run(clientToken="a")
    answer: Any = refusal.value.response
    assert (answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"]) == (code, status)
    assert words in answer["Error"]["Message"]
    assert len(world.ecs.started) == int(has_effect)
    world.run(clientToken="a")
    assert len(world.ecs.started) == 1


def test_accept_then_drop_starts_the_task_and_loses_the_answer(world: World) -> None:
    world.ecs.faults.add("RunTask", Fault.accept_then_drop())
    with pytest.raises(ConnectionClosedError):
        world.run(clientToken="a")
    (started,) = world.ecs.started
    assert (started.client_token, started.task_arn) == ("a", world.run(clientToken="a"))
    assert [(call.operation, call.outcome) for call in world.ecs.log][1:] == [
        ("RunTask", "accept_then_drop"),
        ("RunTask", "ok"),
    ]


def test_a_retry_of_the_library_itself_meets_the_same_task(world: World) -> None:
    world.ecs.faults.add("RunTask", Fault.accept_then_drop())
    with connect(world.ecs, retries={"total_max_attempts": 3, "mode": "standard"}) as client:
        client.run_task(taskDefinition="job")
    assert (world.ecs.calls["RunTask"], len(world.ecs.started)) == (2, 1)


def test_drop_before_has_no_effect(world: World) -> None:
    world.ecs.faults.add("RunTask", Fault.drop_before())
    with pytest.raises(ConnectionClosedError):
        world.run()
    assert world.ecs.started == []
    assert world.ecs.calls["RunTask"] == 1


@pytest.mark.parametrize("fault", [Fault.malformed(), Fault.cut_answer()])
def test_an_unreadable_answer_reaches_the_caller_without_its_members(world: World, fault: Fault) -> None:
    """botocore takes an unreadable body of status 200 for an empty answer, so callers must not trust the members."""
    world.ecs.faults.add("RunTask", fault)
    answer = world.client.run_task(taskDefinition="job", clientToken="a")
    assert set(answer) == {"ResponseMetadata"}
    assert len(world.ecs.started) == 1


@pytest.mark.parametrize("reason", ["RESOURCE:MEMORY", CAPACITY, "AGENT"])
def test_capacity_failures_start_nothing(world: World, reason: str) -> None:
    world.ecs.faults.add("RunTask", Fault.failures(reason))
    answer = world.client.run_task(taskDefinition="job")
    assert (answer["tasks"], [each["reason"] for each in answer["failures"]]) == ([], [reason])
    assert world.ecs.started == []


def test_failures_may_lie(world: World) -> None:
    world.ecs.faults.add("RunTask", Fault.lying_failures())
    answer = world.client.run_task(taskDefinition="job", startedBy="pp/1")
    assert (answer["tasks"], len(answer["failures"])) == ([], 1)
    (started,) = world.ecs.started
    assert world.client.list_tasks(startedBy="pp/1")["taskArns"] == [started.task_arn]


def test_a_request_may_land_long_after_the_client_gave_up(world: World) -> None:
    hold = Hold()
    world.ecs.faults.add("RunTask", Fault.hang(hold))
    with connect(world.ecs, read_timeout=0.2) as client, pytest.raises(ReadTimeoutError):
        client.run_task(taskDefinition="job", clientToken="a")
    assert hold.reached.wait(10)
    assert world.ecs.started == []
    hold.release()
    arn = world.run(clientToken="a")
    assert [each.task_arn for each in world.ecs.started] == [arn]


def test_an_answer_may_hang_after_the_effect(world: World) -> None:
    hold = Hold()
    world.ecs.faults.add("RunTask", Fault.hang_answer(hold))
    with connect(world.ecs, read_timeout=0.2) as client, pytest.raises(ReadTimeoutError):
        client.run_task(taskDefinition="job", clientToken="a")
    assert hold.reached.wait(10)
    assert len(world.ecs.started) == 1


def test_closing_ends_what_hangs_without_any_effect() -> None:
    hold = Hold()
    with ThreadPoolExecutor(1) as pool, a_world() as world:
        world.ecs.faults.add("RunTask", Fault.hang(hold))
        with connect(world.ecs) as client:
            waiting = pool.submit(lambda: client.run_task(taskDefinition="job"))
            assert hold.reached.wait(10)
            world.ecs.close()
            assert isinstance(waiting.exception(timeout=10), ConnectionClosedError)
        assert world.ecs.started == []


@pytest.mark.parametrize(("fault", "started"), [(Fault.delay(0.6), 0), (Fault.delay_answer(0.6), 1)])
def test_delays_lie_before_or_after_the_effect(world: World, fault: Fault, started: int) -> None:
    world.ecs.faults.add("RunTask", fault)
    with connect(world.ecs, read_timeout=0.2) as client, pytest.raises(ReadTimeoutError):
        client.run_task(taskDefinition="job", clientToken="a")
    assert len(world.ecs.started) == started


def test_faults_are_met_in_order_and_by_operation(world: World) -> None:
    world.ecs.faults.add("RunTask", Fault.throttle(), times=2)
    world.ecs.faults.add("*", Fault.server_error())
    world.ecs.faults.add("RunTask", Fault.access_denied())
    assert world.ecs.faults.pending() == 4
    assert world.refused("list_tasks")[0] == "ServerException"
    world.client.list_tasks()
    codes = [world.refused("run_task", taskDefinition="job")[0] for _ in range(3)]
    assert codes == ["ThrottlingException", "ThrottlingException", "AccessDeniedException"]
    world.run()
    world.ecs.faults.add("RunTask", Fault.throttle())
    world.ecs.faults.clear()
    world.run()


def test_faults_may_be_chosen_by_a_function(world: World) -> None:
    world.ecs.faults.when(lambda _, body: Fault.throttle() if body.get("startedBy") == "unlucky" else None)
    world.run(startedBy="lucky")
    assert world.refused("run_task", taskDefinition="job", startedBy="unlucky")[0] == "ThrottlingException"


def test_chances_repeat_with_the_seed_and_end_with_their_number() -> None:
    def outcomes(seed: int) -> list[str]:
        with a_world(seed=seed) as world:
            world.ecs.faults.chance("ListTasks", Fault.drop_before(), 0.5, times=5)
            for _ in range(30):
                try:
                    world.client.list_tasks()
                except ConnectionClosedError:
                    continue
            return [call.outcome for call in world.ecs.log]

    assert outcomes(1) == outcomes(1) != outcomes(2)
    assert outcomes(1).count("drop_before") == 5


# -- Standing alone, and the socket ------------------------------------------------------------


class Standalone:
    """A double in a process of its own."""

    def __init__(self, *words: str) -> None:
        command = [sys.executable, "-m", "push_pools.testing.ecs_double", "--control", *words]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.endpoint = self.process.stdout.readline().strip()
        self.region = "us-east-1"

    def tell(self, verb: str, **body: Any) -> Any:
        connection = http.client.HTTPConnection(self.endpoint.removeprefix("http://"), timeout=10)
        connection.request("POST", f"/_control/{verb}", json.dumps(body))
        answer = connection.getresponse()
        document = json.loads(answer.read())
        connection.close()
        return document if answer.status == 200 else (answer.status, document)


@contextmanager
def standalone(*words: str) -> Iterator[tuple[Standalone, ECSClient]]:
    double = Standalone(*words)
    try:
        with connect(double) as client:  # type: ignore[arg-type] # It has the two attributes that are read.
            yield double, client
    finally:
        double.process.kill()
        double.process.communicate()


def test_another_process_is_driven_by_the_control_api() -> None:
    with standalone("--default-seconds", "60") as (double, client):
        client.register_task_definition(family="job", containerDefinitions=[{"name": "m", "image": "i", "memory": 1}])
        double.tell("fault", operation="RunTask", fault="throttle")
        with pytest.raises(ClientError):
            client.run_task(taskDefinition="job")
        arns = [client.run_task(taskDefinition="job")["tasks"][0]["taskArn"] for _ in range(5)]
        assert double.tell("kill", task=arns[0]) == {"ended": True}
        assert double.tell("finish", task=arns[1], exit_code=9) == {"ended": True}
        assert double.tell("oom", task=arns[2]) == double.tell("spot", task=arns[3]) == {"ended": True}
        codes = [each["containers"][0].get("exitCode") for each in double.tell("tasks")["tasks"]]
        assert codes == [137, 9, 137, 143, None]
        assert double.tell("calls") == {
            "calls": {"RegisterTaskDefinition": 1, "RunTask": 6},
            "started": 5,
            "running": 1,
        }
        assert [each["task_arn"] for each in double.tell("started")["started"]] == arns
        double.tell("advance", seconds=60)
        assert double.tell("calls")["running"] == 0
        assert len(double.tell("events", duplicate=1.0)["events"]) == 50
        assert client.describe_tasks(tasks=arns[4:])["tasks"][0]["lastStatus"] == "STOPPED"


def test_the_control_api_injects_chances_and_hangs() -> None:
    with standalone() as (double, client):
        double.tell("fault", operation="ListTasks", fault="server_error", arguments={"effect": True}, probability=1.0)
        with pytest.raises(ClientError, match="ServerException"):
            client.list_tasks()
        double.tell("clear_faults")
        double.tell("fault", operation="ListTasks", fault="hang")
        with connect(double, read_timeout=0.2) as hasty, pytest.raises(ReadTimeoutError):  # type: ignore[arg-type]
            hasty.list_tasks()
        double.tell("release")
        assert client.list_tasks()["taskArns"] == []
        for wrong in ({"verb": "explode"}, {"verb": "fault", "fault": "unknown"}, {"verb": "kill", "task": "arn:x"}):
            status, answer = double.tell(**wrong)
            assert status == 400
            assert answer["error"]


def test_the_process_ends_when_told_to() -> None:
    with standalone() as (double, _):
        double.process.send_signal(signal.SIGTERM)
        assert double.process.wait(20) == 0
    with standalone("--exit-with-stdin") as (double, _):
        assert double.process.stdin is not None
        double.process.stdin.close()
        assert double.process.wait(20) == 0
        double.process.stdin = None
    with standalone("--max-seconds", "0.1") as (double, _):
        assert double.process.wait(20) == 0


def test_without_the_flag_there_is_no_control_api(world: World) -> None:
    connection = http.client.HTTPConnection(world.ecs.endpoint.removeprefix("http://"), timeout=10)
    connection.request("POST", "/_control/tasks", "{}")
    answer = connection.getresponse()
    assert (answer.status, "UnknownOperationException" in answer.read().decode()) == (404, True)
    connection.request("POST", "/", "not json", {"X-Amz-Target": "AmazonEC2ContainerServiceV20141113.ListTasks"})
    answer = connection.getresponse()
    assert (answer.status, "SerializationException" in answer.read().decode()) == (400, True)
    connection.close()


def test_the_endpoint_is_known_only_while_the_double_is_started() -> None:
    double = EcsDouble()
    with pytest.raises(RuntimeError):
        _ = double.endpoint
    double.close()


@pytest.mark.parametrize(
    "raw",
    [
        b"nonsense\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: many\r\n\r\n",
        b"POST / HTTP/1.1\r\n" + b"X-A: b\r\n" * 300,
    ],
)
def test_the_server_refuses_what_it_does_not_read(raw: bytes) -> None:
    with (
        LoopbackServer(lambda _: Reply(200)) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection,
    ):
        connection.sendall(raw)
        assert connection.recv(100).startswith(b"HTTP/1.1 400")


def test_the_server_keeps_connections_and_honours_close_and_continue() -> None:
    def echo(request: Request) -> Reply:
        return Reply(200, request.body)

    with LoopbackServer(echo) as server, socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        reader = connection.makefile("rb")
        for headers in (b"", b"Expect: 100-continue\r\n", b"Connection: close\r\n"):
            connection.sendall(b"POST / HTTP/1.1\r\nContent-Length: 2\r\n" + headers + b"\r\nhi")
        rest = reader.read()
        reader.close()
    assert rest.count(b"HTTP/1.1 200") == 3
    assert rest.count(b"HTTP/1.1 100") == 1
    assert rest.endswith(b"Connection: close\r\n\r\nhi")


def test_clocks_do_not_run_backwards() -> None:
    for clock in (ManualClock(), ShiftedClock()):
        before = clock.now()
        assert clock.advance(timedelta(hours=1)) >= before + HOUR
        with pytest.raises(ValueError, match="backwards"):
            clock.advance(-1)
    moment = datetime(2031, 1, 1, tzinfo=UTC)
    assert EcsDouble(clock=lambda: moment).model.now() == moment
    assert abs(EcsDouble().model.now() - datetime.now(UTC)) < timedelta(minutes=1)


def unknown_members(shape: Any, value: Any, path: str) -> list[str]:
    """Return the paths of members that botocore's model of the answer does not have."""
    if shape.type_name == "structure":
        found = [f"{path}.{name}" for name in value if name not in shape.members]
        known = [(name, each) for name, each in value.items() if name in shape.members]
        return found + [p for name, each in known for p in unknown_members(shape.members[name], each, f"{path}.{name}")]
    if shape.type_name == "list":
        return [p for each in value for p in unknown_members(shape.member, each, f"{path}[]")]
    return []


def test_answers_have_only_members_of_the_service_model(world: World) -> None:
    world.register("far", **FARGATE)
    request = {"taskDefinition": "far", "launchType": "FARGATE", "networkConfiguration": NETWORK, "startedBy": "me"}
    arn = world.run(**request)
    world.ecs.oom(arn)
    asked: list[tuple[str, dict[str, Any]]] = [
        ("RunTask", request),
        ("DescribeTasks", {"tasks": [arn, "0" * 32], "include": ["TAGS"]}),
        ("ListTasks", {"maxResults": 1}),
        ("StopTask", {"task": arn}),
        ("DescribeTaskDefinition", {"taskDefinition": "far"}),
        ("DeregisterTaskDefinition", {"taskDefinition": "far:1"}),
        ("ListTaskDefinitions", {}),
        ("CreateCluster", {"clusterName": "c"}),
        ("DescribeClusters", {"clusters": ["c", "d"]}),
    ]
    for operation, body in asked:
        shape = world.client.meta.service_model.operation_model(operation).output_shape
        assert unknown_members(shape, world.ecs.model.call(operation, body), operation) == []


# -- The token rule against a tiny reference ------------------------------------------------------


class TokenRule(RuleBasedStateMachine):
    """Requests, ends of tasks and time in any order; the reference is a few lines of arithmetic on minutes."""

    @initialize()
    def open(self) -> None:
        self.clock = ManualClock()
        self.model = EcsModel(now=self.clock.now, default_seconds=1e9)
        self.model.call("CreateCluster", {"clusterName": "b"})
        containers = [{"name": "m", "image": "i", "memory": 1}]
        self.model.call("RegisterTaskDefinition", {"family": "job", "containerDefinitions": containers})
        self.minute = 0
        self.bound: dict[tuple[str, str], tuple[int, str, str]] = {}
        self.stopped: dict[str, int] = {}
        self.expected_started = 0

    def _live(self, key: tuple[str, str]) -> tuple[int, str, str] | None:
        found = self.bound.get(key)
        if found is None:
            return None
        born, _, arn = found
        ends = born + 24 * 60
        if arn in self.stopped:
            ends = min(ends, self.stopped[arn] + 60)
        return found if self.minute < ends else None

    @rule(token=st.sampled_from("xy"), cluster=st.sampled_from(["default", "b"]), started_by=st.sampled_from("pq"))
    def run(self, token: str, cluster: str, started_by: str) -> None:
        body = {"taskDefinition": "job", "clientToken": token, "cluster": cluster, "startedBy": started_by}
        live = self._live((cluster, token))
        if live is not None and live[1] != started_by:
            with pytest.raises(EcsError) as conflict:
                self.model.call("RunTask", body)
            assert (conflict.value.code, conflict.value.members["resourceIds"]) == ("ConflictException", [live[2]])
            return
        arn = self.model.call("RunTask", body)["tasks"][0]["taskArn"]
        if live is not None:
            assert arn == live[2]
        else:
            self.expected_started += 1
            self.bound[cluster, token] = (self.minute, started_by, arn)

    @precondition(lambda self: self.model.alive())
    @rule(data=st.data(), by_hand=st.booleans())
    def end(self, data: st.DataObject, by_hand: bool) -> None:
        arn = data.draw(st.sampled_from(self.model.alive()))
        if by_hand:
            self.model.call("StopTask", {"task": arn, "cluster": arn.split("/")[1]})
        else:
            self.model.end(arn, TaskPlan().ending, after_running=True)
        self.stopped[arn] = self.minute

    @rule(minutes=st.sampled_from([1, 30, 59, 60, 61, 12 * 60, 24 * 60]))
    def wait(self, minutes: int) -> None:
        self.minute += minutes
        self.clock.advance(minutes * 60)

    @invariant()
    def tasks_are_started_as_often_as_the_rule_says(self) -> None:
        if hasattr(self, "model"):
            assert len(self.model.started) == self.expected_started

    @invariant()
    def exactly_the_tasks_stopped_less_than_an_hour_ago_are_remembered(self) -> None:
        if hasattr(self, "model"):
            shown = {each["taskArn"] for each in self.model.documents()}
            started = {each.task_arn for each in self.model.started}
            gone = {arn for arn, minute in self.stopped.items() if self.minute >= minute + 60}
            assert shown == started - gone


TokenRule.TestCase.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestTokenRule = TokenRule.TestCase


def test_what_nothing_can_ask_for_any_more_leaves_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("push_pools.testing.ecs_model.SWEEP_AT_LEAST", 100)
    clock = ManualClock()
    model = EcsModel(now=clock.now)
    containers = [{"name": "m", "image": "i", "memory": 1}]
    model.call("RegisterTaskDefinition", {"family": "job", "containerDefinitions": containers})
    for i in range(1000):
        model.call("RunTask", {"taskDefinition": "job", "clientToken": f"t{i}", "startedBy": f"r{i}"})
        clock.advance(60)
    assert len(model.started) == 1000
    assert max(len(model.tasks), len(model.tokens), len(model.by_started_by)) <= 130
