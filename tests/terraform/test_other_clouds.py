"""The functions of Cloud Run and Azure live in the plan too, and their policies allow what they ask.

They run from the source tree, because a bundle with the clients of all clouds is large; `test_package.py` is about it.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import boto3
import pytest

from push_pools.domain.runs import Phase
from push_pools.ports import RunFilter
from push_pools.services.stop import cancel_run
from push_pools.testing.aci_double import AciDouble
from push_pools.testing.cloud_run_double import CloudRunDouble
from tests.platforms.aci_world import GROUP, SUBSCRIPTION
from tests.terraform.living import Living, another_account
from tests.terraform.plan import Plan
from tests.terraform.rights import BY_LAMBDA, asked, granted, is_allowed
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from uuid import UUID

    from push_pools.ports import App
    from tests.aws.ministack import Ministack

ROOT: Final = Path(__file__).resolve().parents[2]
RUNS: Final = RunFilter()
TOKENS: Final = frozenset({"sts:GetWebIdentityToken"})
"""Asked only where Azure is reached over TLS, which `tests/credentials/test_azure.py` does."""


@dataclass
class Cloud:
    """A double, and what a pool on it is made of."""

    settings: dict[str, str]
    started: Callable[[], int]
    """How many jobs were started."""
    pool: dict[str, Any]
    block: tuple[str, dict[str, Any]]
    reference: str
    """The job variable that names the block."""


@contextmanager
def cloud_run() -> Iterator[Cloud]:
    with CloudRunDouble() as double:
        yield Cloud(
            {"PUSH_POOLS_CLOUD_RUN_ENDPOINT": double.endpoint},
            lambda: len(double.started),
            {"type": "cloud-run-v2:push", "variables": {"image": "acme/report:1", "region": "europe-west1"}},
            ("gcp-credentials/theirs", {"access_token": "a canary", "project": "acme"}),
            "credentials",
        )


@contextmanager
def aci() -> Iterator[Cloud]:
    with AciDouble() as double:
        yield Cloud(
            {"PUSH_POOLS_AZURE_ENDPOINT": double.endpoint},
            lambda: sum(double.starts().values()),
            {
                "type": "azure-container-instance:push",
                "variables": {"image": "acme/report:1", "subscription_id": SUBSCRIPTION, "resource_group_name": GROUP},
            },
            ("azure-container-instance-credentials/theirs", {"token": "a canary"}),
            "aci_credentials",
        )


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source of the package beside what is installed with it, in the places of a bundle."""
    folder = tmp_path_factory.mktemp("lambda")
    (folder / "task").mkdir()
    (folder / "task" / "push_pools").symlink_to(ROOT / "push_pools")
    (folder / "runtime").symlink_to(Path(boto3.__file__).parent.parent)
    return folder / "task"


@pytest.mark.parametrize("make", [cloud_run, aci], ids=lambda make: str(make.__name__))
def test_policies_allow_what_functions_ask_and_no_more(
    make: Callable[[], AbstractContextManager[Cloud]],
    ministack: Ministack,
    task: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every call that they make of AWS in good and bad times, and what each policy would say of it."""
    name, account = make.__name__, another_account()
    functions = (f"submit_{name}", f"poll_{name}")
    with make() as cloud, Living(Plan.read(), ministack, task, account=account, settings=cloud.settings) as at:
        app = at.open(monkeypatch)
        everything_happens(at, app, cloud, functions)
        wrong: list[str] = []
        for function in functions:
            calls, statements = at.calls(function), at.plan.statements(function)
            needed = [one for call in calls for one in asked(call, account, at.plan.outputs["kms_key_arn"])]
            wrong += [f"{function} may not: {one}" for one in needed if not is_allowed(one, statements)]
            unused = granted(statements) - BY_LAMBDA - TOKENS - {one.action for one in needed}
            wrong += [f"{function} never needs {action}" for action in unused if not action.startswith("dynamodb:")]
        assert not wrong, "\n".join(sorted(set(wrong)))


def everything_happens(at: Living, app: App, cloud: Cloud, functions: tuple[str, str]) -> None:
    """Have one run complete, another one stopped, and messages come that nobody can handle."""

    def put(kind: str, name: str, spec: dict[str, Any]) -> str:
        event = {"version": 1, "kind": kind, "name": name, "spec": spec, "tf": {"action": "create"}}
        result = at.function("admin").invoke(event)
        assert result.error is None, result.message
        return str(dict(result.answer)["id"])

    block = put("block", *cloud.block)
    reference = {cloud.reference: {"$ref": {"block_document_id": block}}}
    put("work-pool", "theirs", {**cloud.pool, "variables": {**cloud.pool["variables"], **reference}})
    for name, command in (("quick", "true"), ("long", "sleep 600")):
        put(
            "deployment",
            f"each/{name}",
            {"command": command, "work_pool": {"name": "theirs"}, "retries": {"attempts": 1}},
        )
    (submit,) = (url for url in at.urls.values() if url.endswith(functions[0].replace("_", "-")))
    (poll,) = (url for url in at.urls.values() if url.endswith(functions[1].replace("_", "-")))
    for url in (submit, poll):
        at.sqs.send_message(QueueUrl=url, MessageBody="{")
    for name in ("quick", "long"):
        event = {"version": 1, "type": "scheduled-run", "deployment": f"each/{name}", "idempotency_key": name}
        at.sqs.send_message(QueueUrl=submit, MessageBody=json.dumps(event))
    cancelled: set[UUID] = set()

    def moved() -> bool:
        for function in functions:
            while (result := at.feed(function)) is not None:
                assert result.error is None, result.message
        at.tick()
        for run in app.store.runs(RUNS).runs:
            if run.deployment == "each/long" and run.phase is Phase.STARTED and run.id not in cancelled:
                cancel_run(run.id, app, by="test")
                cancelled.add(run.id)
        found = app.store.runs(RUNS).runs
        return len(found) == 2 and all(run.is_final for run in found)

    until(moved, seconds=60)
    states = {run.deployment: run.state.name for run in app.store.runs(RUNS).runs}
    assert states == {"each/quick": "Completed", "each/long": "Cancelled"}
    assert cloud.started() == 2
    assert at.depth("dead-letters") == 2
