"""The figures of docs/aws.md are counted here: what an idle tick, and a run without trouble, ask of AWS and cost."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from push_pools.credentials.aws import AwsCredentials
from push_pools.domain.config import DeploymentSpec
from push_pools.domain.runs import Phase
from push_pools.functions import schedule
from push_pools.functions.messages import Batch
from push_pools.services import status
from push_pools.services.catalogue import create_work_pool
from push_pools.services.deploy import put_deployment
from push_pools.services.sweep import sweep
from push_pools.stores.dynamodb import DynamoStore
from push_pools.stores.dynamodb_calls import Calls
from push_pools.stores.dynamodb_table import create_table
from push_pools.testing.dynamodb_model import DynamoModel
from push_pools.testing.ecs_double import EcsDouble
from tests.aws.installation import ECS_VARIABLES, install
from tests.functions.context import Context, sqs_event
from tests.functions.hosts import use
from tests.platforms.test_ecs_service import EcsServiceWorld, trigger

if TYPE_CHECKING:
    from collections.abc import Iterator

    from push_pools.domain.events import RunStateChanged
    from push_pools.ports import App
    from tests.aws.ministack import Ministack

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "aws.md").read_text()
READS, WRITES = {"GetItem", "Query", "BatchGetItem"}, {"PutItem", "UpdateItem", "DeleteItem", "TransactWriteItems"}
EVENT = '{"version":1,"type":"scheduled-run","deployment":"r","idempotency_key":"%s"}'


@pytest.fixture
def counted(ministack: Ministack, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[App, Counter[str]]]:
    """An installation with a pool and a deployment, and the calls that this process makes to it."""
    calls: Counter[str] = Counter()
    with EcsDouble() as ecs:
        app = install(ministack, ecs).open(monkeypatch, acting=("ecs:push",))
        names = ("dynamodb", "sqs", "events")
        clients = [AwsCredentials().client(cast("Any", name), retries=name != "dynamodb") for name in names]
        for client in clients:
            client.meta.events.register("before-call.*.*", lambda model, **_: calls.update([model.name]), unique_id="c")
        create_work_pool(app, "ecs", "ecs:push", variables=ECS_VARIABLES)
        spec = {"name": "r", "command": "true", "work_pool": {"name": "ecs"}}
        put_deployment(app, DeploymentSpec.model_validate(spec))
        yield app, calls
        for client in clients:
            client.meta.events.unregister("before-call.*.*", unique_id="c")


def figure(pattern: str) -> int:
    found = re.search(pattern, PAGE)
    assert found, pattern
    return int(found[1])


def total(calls: Counter[str], of: set[str]) -> int:
    return sum(count for name, count in calls.items() if name in of)


def test_an_idle_tick(counted: tuple[App, Counter[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    app, calls = counted
    use(monkeypatch, schedule, app)
    for _ in range(2):
        calls.clear()
        schedule.handler({}, cast("Any", Context(function_name="schedule")))
    assert total(calls, READS) <= figure(r"ticks of at most (\d+) reads"), calls
    assert total(calls, WRITES) == 1, calls
    assert calls["SendMessage"] == calls["SendMessageBatch"] == calls["PutEvents"] == 0


def test_a_run_without_trouble(counted: tuple[App, Counter[str]]) -> None:
    """The second of its kind; the first also registers its task definition."""
    app, calls = counted
    for name in ("first", "second"):
        calls.clear()
        batch = Batch(app, cast("Any", app.queue), cast("Any", Context()))
        assert batch.handle(sqs_event(EVENT % name))["batchItemFailures"] == []
    submitted = Counter(calls)
    calls.clear()
    sweep("ecs:push", app)
    per_run = total(calls, WRITES) / 2
    assert app.store.count_by_phase()[Phase.SETTLED] == 2
    assert total(submitted, WRITES) + per_run <= figure(r"run without trouble costs (\d+) writes"), (submitted, calls)
    assert total(submitted, READS) + total(calls, {"GetItem"}) / 2 <= figure(r"writes and about (\d+) reads")
    assert submitted["PutEvents"] + calls["PutEvents"] / 2 <= 5


# -- USD, from the list prices of us-east-1

WRITE_UNITS, READ_UNITS, EVENTS, SQS_REQUESTS, LAMBDA_REQUESTS = 0.625, 0.125, 1.00, 0.40, 0.20
"""For a million of each."""
GB_SECOND, LOGS_GB = 0.0000133334, 0.50
SUBMIT_SECONDS, POLL_SECONDS, LOG_KB = 0.3, 0.1, 4
"""What is not counted but supposed, and said to be."""
TICKS = 30 * 24 * 60


class Published:
    """A bus that counts."""

    count = 0

    def publish(self, event: RunStateChanged) -> None:
        self.count += 1


def test_a_million_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second of its kind, from its event to its end, and ECS tells of its start and its end by events."""
    monkeypatch.setattr(status, "BEAT_SECONDS", 1e9)
    model, bus = DynamoModel(), Published()
    create_table(model, "ledger")
    world = EcsServiceWorld(monkeypatch, store=DynamoStore(Calls(model, "ledger")), default_seconds=20.0)
    world.app = replace(world.app, bus=bus)
    for _ in range(2):
        model.write_units = model.read_units = 0
        bus.count, messages = 0, 1  # That of the run itself.
        run = trigger(world)
        world.drain()
        for seconds in (10, 30):
            world.advance(seconds)
            for event in world.double.task_state_change_events():
                if event["detail"]["lastStatus"] in ("RUNNING", "STOPPED"):
                    world.queue.send(json.dumps(event))
                    messages += 1
            world.drain()
        assert world.get(run).phase is Phase.SETTLED
    world.double.close()
    writes, reads = round(model.write_units), round(model.read_units)
    gb_seconds = 0.5 * (SUBMIT_SECONDS + (messages - 1) * POLL_SECONDS)
    costs = {
        f"DynamoDB | {writes} write units and {reads} read units": writes * WRITE_UNITS + reads * READ_UNITS,
        f"EventBridge | {bus.count} events of our own": bus.count * EVENTS,
        f"SQS | {messages} messages, each sent, received and deleted": 3 * messages * SQS_REQUESTS,
        f"Lambda | {messages} invocations, of {SUBMIT_SECONDS} s for the call and {POLL_SECONDS} s for each event": (
            gb_seconds * GB_SECOND * 1e6 + messages * LAMBDA_REQUESTS
        ),
        f"CloudWatch Logs | {LOG_KB} KB": LOG_KB * LOGS_GB,
    }
    for what, usd in costs.items():
        assert f"| {what} | {usd:.2f} |" in PAGE
    assert f"| together | | {sum(costs.values()):.0f} |" in PAGE


def test_an_idle_month() -> None:
    polls, reads = figure(r"long-polled some (\d+),000 times") * 1000, figure(r"ticks of at most (\d+) reads")
    (seconds,) = map(float, re.findall(r"256 MB for about ([\d.]+) s", PAGE))
    costs = {
        "SQS": 2 * polls * SQS_REQUESTS / 1e6,
        "DynamoDB": TICKS * (reads / 2 * READ_UNITS + WRITE_UNITS) / 1e6,
        "Lambda": TICKS * (seconds * 0.25 * GB_SECOND + LAMBDA_REQUESTS / 1e6),
    }
    for what, usd in costs.items():
        (row,) = re.findall(rf"^\| {what} \| .* \| ([\d.]+) \|$", PAGE.partition("For a million runs")[0], re.MULTILINE)
        assert float(row) == round(usd, 2)
