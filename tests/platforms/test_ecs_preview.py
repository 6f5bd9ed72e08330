"""The preview of a deployment is what ECS gets when it runs, for every kind of job; and what stands between them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

import pytest

from push_pools.domain.errors import PlatformUnavailable, StoreUnavailable
from push_pools.domain.failures import explain_error
from push_pools.domain.runs import Phase, job_key
from push_pools.domain.states import StateType
from push_pools.platforms.ecs import EcsPlatform
from push_pools.ports import PlatformContext
from push_pools.services.explain import explain_run
from push_pools.services.preview import PREVIEW_ID, preview_deployment

from .ecs_world import EcsWorld, job_of
from .test_ecs_service import VARIABLES, EcsServiceWorld

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROLE = "arn:aws:iam::123456789012:role/run"
RICH: dict[str, Any] = {
    **VARIABLES,
    "execution_role_arn": ROLE,
    "task_role_arn": ROLE.replace("run", "job"),
    "cpu": 512,
    "memory": 2048,
    "ephemeral_storage": 40,
    "cpu_architecture": "ARM64",
    "entrypoint": "sh -c",
    "env": {"REGION": "eu", "EMPTY": ""},
    "secrets": {"KEY": "arn:aws:secretsmanager:us-east-1:123456789012:secret:key"},
    "labels": {"team": "blue"},
    "tags": {"cost": "7"},
    "configure_cloudwatch_logs": True,
    "stop_timeout": 60,
    "launch_type": "FARGATE_SPOT",
    "group": "reports",
    "propagate_tags": "TASK_DEFINITION",
}


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[EcsServiceWorld]:
    world = EcsServiceWorld(monkeypatch, default_seconds=20.0)
    yield world
    world.double.close()


def sent(world: EcsServiceWorld, operation: str) -> list[dict[str, Any]]:
    return [call.body for call in world.double.log if call.operation == operation]


@pytest.mark.parametrize("variables", [VARIABLES, RICH], ids=["few variables", "many variables"])
def test_the_preview_of_a_deployment_is_what_its_run_sends(world: EcsServiceWorld, variables: dict[str, Any]) -> None:
    """Apart from what only the run has, its id and name, and what only AWS knows, the revision of the definition."""
    world.deploy("shown", job_variables=variables)
    shown: Any = preview_deployment(world.app, "report/shown").request
    assert not world.double.calls, "a preview asks nobody"

    run = world.trigger("report/shown")
    world.pass_time(10)

    (registered,), (request,) = sent(world, "RegisterTaskDefinition"), sent(world, "RunTask")
    assert shown["register_task_definition"] == registered
    text = json.dumps(shown["run_task"]).replace(str(PREVIEW_ID), str(run.id))
    text = text.replace(f"shown-{str(PREVIEW_ID)[:8]}", run.name).replace("<job key>", job_key(run.id, 1, 1))
    wanted = {**json.loads(text), "taskDefinition": request["taskDefinition"]}
    assert wanted == request
    assert request["taskDefinition"].rpartition(":")[0].endswith(f"/{registered['family']}")


def test_a_definition_of_ones_own_is_shown_as_it_is_sent(world: EcsServiceWorld) -> None:
    """Nothing is registered, and nothing need be."""
    world.deploy("first", job_variables=VARIABLES)
    world.trigger("report/first")
    world.pass_time(10)
    arn = sent(world, "RunTask")[0]["taskDefinition"]
    container = sent(world, "RegisterTaskDefinition")[0]["containerDefinitions"][0]["name"]
    own = {"task_definition_arn": arn, "container_name": container, "image": None}
    world.deploy("own", job_variables={**VARIABLES, **own})

    shown: Any = preview_deployment(world.app, "report/own").request
    world.trigger("report/own")
    world.pass_time(10)

    assert shown["register_task_definition"] is None
    assert shown["run_task"]["taskDefinition"] == sent(world, "RunTask")[1]["taskDefinition"] == arn
    assert world.double.calls["RegisterTaskDefinition"] == 1


# -- the ledger is away when a block is opened


def away(block_id: str | None) -> Any:
    raise StoreUnavailable("the ledger cannot be read")


def test_a_ledger_that_is_away_is_no_fault_of_aws(world: EcsServiceWorld) -> None:
    """Whatever is asked of the platform: it may be asked again, and the failure has its own class and cause."""
    ready = EcsWorld(world.double, cast("Any", world.clock))
    job, key = ready.prepared(configure_cloudwatch_logs=True, execution_role_arn=ROLE)
    handle = ready.platform.submit(job, key)
    platform = EcsPlatform(PlatformContext(away, {}, world.clock, world.clock))
    calls: list[Callable[[], Any]] = [
        lambda: platform.prepare(job_of(), ready.memo),
        lambda: platform.submit(job, key),
        lambda: platform.find(handle),
        lambda: platform.observe([handle]),
        lambda: platform.stop(handle, 1),
        lambda: platform.logs(handle, None),
    ]

    for call in calls:
        with pytest.raises(PlatformUnavailable, match="the ledger cannot be read") as caught:
            call()
        assert caught.value.codes == ("LedgerUnavailable",)

    failure = explain_error(caught.value)
    assert (str(failure.failure_class), failure.retry) == ("platform", True)
    assert failure.cause == "the service's ledger could not be used: the ledger cannot be read"
    assert "`push-pools doctor`" in failure.suggestion
    assert len(world.double.started) == 1


def test_a_run_waits_while_the_ledger_cannot_open_its_block_and_then_goes_on(world: EcsServiceWorld) -> None:
    opened: list[str] = []

    def opens(block_id: str | None) -> Any:
        return None if opened else away(block_id)

    world.ecs._clients._open = opens
    run = world.trigger(job_variables=VARIABLES)
    world.pass_time(60)
    waiting = world.get(run)
    assert (waiting.phase, waiting.state.type) == (Phase.READY, StateType.SCHEDULED)
    assert "the ledger cannot be read" in explain_run(waiting, world.clock.now()).waits_for
    assert not world.double.calls

    opened.append("now")
    world.settle()

    assert world.get(run).state.type is StateType.COMPLETED
    assert world.tasks(run) == 1
