"""The handlers on the real Lambda runtime client: what a fault leaves behind, and what a cold start loads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from push_pools.domain.config import DeploymentSpec
from push_pools.domain.events import hint
from push_pools.domain.runs import Phase
from push_pools.services.blocks import create_block
from push_pools.services.catalogue import create_work_pool
from push_pools.services.deploy import put_deployment
from push_pools.services.runs import run_deployment
from push_pools.testing.ecs_double import EcsDouble
from push_pools.testing.ecs_double import Fault as CloudFault
from tests.aws.event_source import Mapping
from tests.aws.installation import ECS_VARIABLES, Installation, install
from tests.aws.runtime_api import Environment, Fault
from tests.functions.context import sqs_event
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

    from push_pools.domain.runs import FlowRun
    from push_pools.ports import App
    from tests.aws.ministack import Ministack

FUNCTIONS = Path(__file__).resolve().parents[2] / "infra" / "functions.json"
CANARY = "canary-4711-do-not-print"
EVENT = '{"version":1,"type":"scheduled-run","deployment":"report","idempotency_key":"%s"}'


@pytest.fixture
def ecs() -> Iterator[EcsDouble]:
    with EcsDouble() as double:
        yield double


@pytest.fixture
def at(ministack: Ministack, ecs: EcsDouble) -> Installation:
    return install(ministack, ecs)


@pytest.fixture
def app(at: Installation, monkeypatch: pytest.MonkeyPatch) -> App:
    app = at.open(monkeypatch)
    create_work_pool(app, "ecs", "ecs:push", variables=ECS_VARIABLES)
    spec = {"name": "report", "command": "true", "work_pool": {"name": "ecs"}, "retries": {"attempts": 1}}
    put_deployment(app, DeploymentSpec.model_validate(spec))
    return app


@pytest.fixture
def submit(at: Installation) -> Iterator[Environment]:
    with Environment("push_pools.functions.submit_ecs.handler", at.environ, timeout_seconds=60.0) as each:
        yield each


@pytest.fixture
def shrunk(at: Installation) -> Iterator[Environment]:
    with Environment("tests.aws.shrunk_submit_ecs.handler", at.environ, timeout_seconds=4.0) as each:
        yield each


@pytest.fixture
def poll(at: Installation) -> Iterator[Environment]:
    with Environment("push_pools.functions.poll_ecs.handler", at.environ, timeout_seconds=60.0) as each:
        yield each


def mapping(at: Installation, environment: Environment, queue: str = "submit-ecs") -> Mapping:
    return Mapping(at.sqs, at.urls[queue], at.arns[queue], [environment])


def get(app: App, run_id: UUID) -> FlowRun:
    return app.store.get_run(run_id)


# -- the way of a run


def test_every_run_costs_one_call_of_each_kind(
    at: Installation, app: App, ecs: EcsDouble, submit: Environment, poll: Environment
) -> None:
    """Without faults: one RunTask per run, one registration in all, one DescribeTasks per hundred."""
    runs = [run_deployment(app, "report").run for _ in range(30)]
    feed = mapping(at, submit)
    until(lambda: feed.once(submit, wait_seconds=0) is None and at.depth("submit-ecs") == 0)
    assert Counter(get(app, run.id).phase for run in runs) == {Phase.STARTED: 30}
    assert (ecs.calls["RunTask"], ecs.calls["RegisterTaskDefinition"]) == (30, 1)
    with Environment("push_pools.functions.schedule.handler", at.environ, timeout_seconds=60.0) as schedule:
        assert schedule.invoke({"detail-type": "Scheduled Event"}).answer == {"overdue": 0, "sweeps": 1}
        sweeps = mapping(at, poll, "poll-ecs")
        assert sweeps.once(poll) is not None
        assert {get(app, run.id).state.name for run in runs} == {"Completed"}
        assert ecs.calls["DescribeTasks"] == 1
        assert schedule.invoke({}).answer == {"overdue": 0, "sweeps": 0}
    assert at.depth("poll-ecs") == at.depth("dead-letters") == 0
    moves = Counter(event["detail"]["to"]["name"] for event in _published(at, 4 * 30))
    assert moves == {"Scheduled": 30, "Submitting": 30, "Submitted": 30, "Completed": 30}


def _published(at: Installation, count: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []

    def enough() -> bool:
        found.extend(at.published())
        return len(found) >= count

    until(enough)
    return found


def test_the_log_is_json_with_the_run_in_it(at: Installation, app: App, submit: Environment) -> None:
    run = run_deployment(app, "report").run
    feed = mapping(at, submit)
    result = feed.once(submit)
    assert result is not None
    lines = result.lines()
    (submitted,) = (line for line in lines if line.get("message") == "job_submitted")
    assert submitted["flow_run_id"] == str(run.id)
    assert submitted["function_name"] == "submit_ecs"
    assert submitted["infrastructure_pid"] == get(app, run.id).infrastructure_pid
    emf = [line for line in lines if "_aws" in line]
    assert any(line.get("MessagesDone") == [1.0] for line in emf)
    assert submitted["cold_start"] is True


# -- faults


def test_a_poison_message_goes_to_the_dead_letters_and_its_neighbours_go_on(
    at: Installation, app: App, submit: Environment
) -> None:
    run = run_deployment(app, "report").run
    for body in ("{", EVENT.replace("report", "nope") % "a", '{"version":1,"type":"fancy"}'):
        at.sqs.send_message(QueueUrl=at.urls["submit-ecs"], MessageBody=body)
    feed = mapping(at, submit)
    until(lambda: feed.once(submit, wait_seconds=0) is None and at.depth("submit-ecs") == 0)
    assert get(app, run.id).phase is Phase.STARTED
    queue: Any = app.queue
    reasons = " ".join(letter.reason for letter in queue.dead_letters())
    assert len(queue.dead_letters()) == 3
    for part in ("the event is not JSON", "deployment 'nope' does not exist", "unknown type"):
        assert part in reasons


def test_a_ledger_that_is_away_keeps_every_message(
    at: Installation, app: App, submit: Environment, ministack: Ministack
) -> None:
    """Unreadable ones among them are known for what they are without it."""
    assert submit.invoke(sqs_event('{"version":1,"type":"admit","work_pool":"ecs"}')).error is None  # It is open.
    ministack.client("dynamodb").delete_table(TableName=at.environ["PUSH_POOLS_AWS_TABLE"])
    for body in (EVENT % "a", hint("submit", app.store.ledger_id, "ecs:push"), "{"):
        at.sqs.send_message(QueueUrl=at.urls["submit-ecs"], MessageBody=body)
    result = mapping(at, submit).once(submit)
    assert result is not None
    assert len(result.answer["batchItemFailures"]) == 2
    assert at.depth("submit-ecs") == 2
    assert at.depth("dead-letters") == 1


def test_a_throttled_call_is_done_with_and_tried_again(
    at: Installation, app: App, ecs: EcsDouble, submit: Environment
) -> None:
    """The ledger keeps the run, and a delayed message comes back to it."""
    ecs.faults.add("RunTask", CloudFault.throttle())
    run = run_deployment(app, "report").run
    feed = mapping(at, submit)
    assert feed.once(submit) is not None
    waiting = get(app, run.id)
    assert (waiting.phase, waiting.state.type) == (Phase.READY, "SCHEDULED")
    until(lambda: feed.once(submit) is not None and get(app, run.id).phase is Phase.STARTED)
    assert len(ecs.started) == 1


@pytest.mark.parametrize(
    "fault",
    [Fault(kill_at_line='"job_submitted"'), Fault(lose_answer=True)],
    ids=["killed after the record", "answer lost"],
)
def test_work_that_was_done_is_recognised_when_its_message_comes_again(
    at: Installation, app: App, ecs: EcsDouble, shrunk: Environment, fault: Fault
) -> None:
    run = run_deployment(app, "report").run
    feed = Mapping(at.sqs, at.urls["submit-ecs"], at.arns["submit-ecs"], [shrunk], fault=_first(fault))
    first = feed.once(shrunk)
    assert first is not None
    assert first.error in ("killed", "lost")
    until(lambda: feed.once(shrunk) is not None)  # It is visible again.
    assert get(app, run.id).phase is Phase.STARTED
    assert (len(ecs.started), ecs.calls["RunTask"]) == (1, 1)


def _first(fault: Fault) -> Any:
    faults = [fault]
    return lambda: faults.pop() if faults else Fault()


def test_a_function_that_is_killed_at_its_deadline_has_started_one_task(
    at: Installation, app: App, ecs: EcsDouble, shrunk: Environment
) -> None:
    """The task was started, and its answer held back until the end of the function's time."""
    from push_pools.testing.ecs_double import Hold

    run = run_deployment(app, "report").run
    ecs.faults.add("RunTask", CloudFault.hang_answer(Hold()))
    feed = mapping(at, shrunk)

    def once() -> Any:
        result = feed.once(shrunk)
        # A slow machine may have used up the function's time before the message was looked at: then it comes back.
        return result if result is not None and (result.error or get(app, run.id).phase is not Phase.PLANNED) else None

    first = until(once, seconds=90)
    assert first.error == "timeout"
    assert first.seconds < 4.0 + 30.0
    assert get(app, run.id).phase is Phase.CALLING
    ecs.release()
    deadline = time.monotonic() + 60

    def again() -> bool:
        app.queue.send(hint("submit", run.id, "ecs:push"))  # As the tick would.
        feed.once(shrunk)
        return get(app, run.id).phase is Phase.STARTED or time.monotonic() > deadline

    until(again, seconds=90)
    assert get(app, run.id).phase is Phase.STARTED
    assert len(ecs.started) == 1


def test_a_message_that_comes_twice_at_once_starts_one_task(
    at: Installation, app: App, ecs: EcsDouble, submit: Environment
) -> None:
    """In one batch, so that both are handled side by side."""
    for _ in range(4):
        at.sqs.send_message(QueueUrl=at.urls["submit-ecs"], MessageBody=EVENT % "same")
    assert mapping(at, submit).once(submit) is not None
    assert len(ecs.started) == 1
    assert at.depth("dead-letters") == 0


def test_no_secret_is_printed(at: Installation, app: App, ecs: EcsDouble, submit: Environment) -> None:
    """A canary in a credentials block appears in no table item, log line, request or published event."""
    block = create_block(
        app,
        "aws-credentials",
        "prod",
        {"aws_access_key_id": "AKIDEXAMPLE", "aws_secret_access_key": CANARY, "region_name": "eu-west-1"},
    )
    spec = {
        "name": "secret",
        "command": "true",
        "work_pool": {
            "name": "ecs",
            "job_variables": {"aws_credentials": {"$ref": {"block_document_id": str(block.id)}}},
        },
    }
    put_deployment(app, DeploymentSpec.model_validate(spec))
    run = run_deployment(app, "secret").run
    result = mapping(at, submit).once(submit)
    assert result is not None
    assert get(app, run.id).phase is Phase.STARTED, get(app, run.id).state
    assert CANARY not in "\n".join(result.log)
    assert CANARY not in json.dumps([call.body for call in ecs.log], default=str)
    assert CANARY not in json.dumps(at.published())
    scan = _dynamodb(at).scan(TableName=at.environ["PUSH_POOLS_AWS_TABLE"])
    assert str(block.id) in str(scan["Items"])
    assert CANARY not in str(scan["Items"])


def _dynamodb(at: Installation) -> Any:
    import boto3

    return boto3.client(
        "dynamodb",
        endpoint_url=at.environ["AWS_ENDPOINT_URL"],
        region_name="eu-west-1",
        aws_access_key_id="x",
        aws_secret_access_key="y",
    )


# -- what is loaded

LOADED = """
import sys
import push_pools.functions.{name}
print("\\n".join(sys.modules))
"""
CLOUDS = {
    "ecs": ("push_pools.platforms.ecs",),
    "cloud_run": ("google.cloud", "grpc", "push_pools.platforms.cloud_run"),
    "aci": ("azure", "msal", "push_pools.platforms.aci"),
}


@pytest.mark.parametrize(
    "name", ["schedule", "submit_ecs", "poll_ecs", "submit_cloud_run", "poll_cloud_run", "admin", "webhook"]
)
def test_a_function_loads_what_it_runs_and_nothing_else(name: str) -> None:
    """Its own cloud, and none of the command line, the server, the doubles or the other hosting."""
    ran = subprocess.run(
        [sys.executable, "-c", LOADED.format(name=name)], capture_output=True, text=True, check=True, timeout=60
    )
    loaded = set(ran.stdout.split())
    unwanted = ("push_pools.cli", "push_pools.server", "push_pools.testing", "typer", "rich", "pytest", "yaml")
    own = name.partition("_")[2]
    others = [library for cloud, libraries in CLOUDS.items() if cloud != own for library in libraries]
    assert not {each for each in loaded if each.startswith((*others, *unwanted))}
    assert loaded.issuperset(CLOUDS.get(own, ()))
    assert "aws_xray_sdk" not in loaded
    # It has no fence: of two that find an entry expired both would submit.
    assert not {each for each in loaded if each.startswith("aws_lambda_powertools.utilities.idempotency")}
    # Models of every event source: powertools' batches load them where pydantic was loaded before.
    assert not {each for each in loaded if each.startswith("aws_lambda_powertools.utilities.parser")}
    assert "push_pools.platforms.process" not in loaded


HANDLERS = sorted(
    each["handler"].rpartition(".")[0] for each in json.loads(FUNCTIONS.read_text())["functions"].values()
)
GARBAGE = """
import gc, os
import push_pools.functions
assert not gc.isenabled()
import {module}
assert gc.isenabled()
print(gc.get_freeze_count())
"""


@pytest.mark.parametrize("module", HANDLERS)
def test_no_garbage_is_looked_for_while_a_function_loads_and_then_it_is(module: str) -> None:
    """What was loaded stays for good, so it is never looked at again."""
    environ = {**os.environ, "AWS_LAMBDA_FUNCTION_NAME": "submit", "AWS_REGION": "eu-west-1"}
    code = GARBAGE.format(module=module)
    ran = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout) > 10_000


def test_elsewhere_loading_a_function_leaves_the_collector_alone() -> None:
    environ = {name: value for name, value in os.environ.items() if name != "AWS_LAMBDA_FUNCTION_NAME"}
    code = "import gc, push_pools.functions\nassert gc.isenabled()\nimport push_pools.functions.admin\n"
    code += "assert gc.get_freeze_count() == 0"
    subprocess.run([sys.executable, "-c", code], env=environ, check=True)
