"""The figures of docs/aws.md are counted here: what an idle tick, and a run without trouble, ask of AWS."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from push_pools.credentials.aws import AwsCredentials
from push_pools.domain.config import DeploymentSpec
from push_pools.domain.runs import Phase
from push_pools.functions import schedule
from push_pools.functions.messages import Batch
from push_pools.services.catalogue import create_work_pool
from push_pools.services.deploy import put_deployment
from push_pools.services.sweep import sweep
from push_pools.testing.ecs_double import EcsDouble
from tests.aws.installation import ECS_VARIABLES, install
from tests.functions.context import Context, sqs_event
from tests.functions.hosts import use

if TYPE_CHECKING:
    from collections.abc import Iterator

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
    assert total(calls, WRITES) <= 2, calls
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
