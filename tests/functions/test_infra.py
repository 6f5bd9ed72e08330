"""`infra/functions.json` and the policies say what the handlers and adapters are and do."""

from __future__ import annotations

import importlib
import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from push_pools.domain.records import Timing
from push_pools.functions.messages import THREADS
from push_pools.queues.sqs import route_of
from push_pools.services.handle import MAX_TRIES

ROOT = Path(__file__).resolve().parents[2]
INFRA: dict[str, Any] = json.loads((ROOT / "infra" / "functions.json").read_text())
FUNCTIONS: dict[str, dict[str, Any]] = INFRA["functions"]
MODULES = {
    path.stem
    for path in (ROOT / "push_pools" / "functions").glob("*.py")
    if "def handler(" in path.read_text(encoding="utf-8")
}
MAKE = runpy.run_path(str(ROOT / "scripts" / "make_policies.py"))
POLICIES = {name.removesuffix(".json"): json.loads(text)["Statement"] for name, text in MAKE["policies"]().items()}
ANY_RESOURCE = {"ecs:ListTasks", "ecs:DescribeTaskDefinition", "ecs:RegisterTaskDefinition"}
ANY_RESOURCE |= {"ec2:DescribeSubnets", "ec2:DescribeVpcs", "sts:GetWebIdentityToken"}
"""Actions that AWS does not scope to a resource."""


def test_every_handler_is_in_the_table_and_no_other() -> None:
    assert set(FUNCTIONS) == MODULES


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_what_the_table_names_is_there(name: str) -> None:
    module, _, function = FUNCTIONS[name]["handler"].rpartition(".")
    assert module == f"push_pools.functions.{name}"
    assert callable(getattr(importlib.import_module(module), function))
    assert (ROOT / "infra" / FUNCTIONS[name]["policy"]).exists()


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_sizes_are_within_those_of_lambda_and_of_the_protocol(name: str) -> None:
    entry = FUNCTIONS[name]
    assert 128 <= entry["memory_mb"] <= 10_240
    assert entry["timeout_seconds"] <= 900
    trigger = entry["trigger"]
    if trigger["type"] == "sqs":
        timing = Timing()
        assert entry["timeout_seconds"] == timing.function_seconds
        queue = INFRA["queues"][trigger["queue"]]
        assert queue["visibility_timeout_seconds"] >= 6 * entry["timeout_seconds"]
        assert queue["visibility_timeout_seconds"] >= timing.claim_seconds
        # What we bury has its reason; SQS only takes what kills its handler again and again.
        assert queue["max_receives"] > MAX_TRIES
        assert trigger["batch_size"] <= THREADS
        assert 2 <= trigger["maximum_concurrency"] <= 1000


def test_messages_go_to_queues_that_are_there_and_are_read() -> None:
    read = {entry["trigger"].get("queue") for entry in FUNCTIONS.values()} - {None}
    sent = {
        route_of('{"version":1,"type":"sweep","platform":"ecs:push"}').queue,
        route_of('{"version":1,"type":"admit","work_pool":"x"}').queue,
        route_of('{"version":1,"type":"sweep","platform":"cloud-run-v2:push"}').queue,
        route_of('{"version":1,"type":"stop","run_id":"x","platform":"cloud-run-v2:push"}').queue,
    }
    for type_ in ('"type":"sweep"', '"type":"submit","run_id":"x"'):
        sent.add(route_of(f'{{"version":1,{type_},"platform":"azure-container-instance:push"}}').queue)
    assert sent == read
    assert set(INFRA["queues"]) == read | {"dead-letters"}
    assert {rule["queue"] for rule in INFRA["rules"].values()} <= read


def test_the_rule_lets_through_the_tasks_of_runs() -> None:
    """`startedBy` begins as the adapter writes it."""
    source = (ROOT / "push_pools" / "platforms" / "ecs_request.py").read_text()
    prefix = INFRA["rules"]["ecs-tasks"]["pattern"]["detail"]["startedBy"][0]["prefix"]
    assert re.search(rf'f"{prefix}\{{', source)


# -- policies


def test_the_written_policies_are_up_to_date() -> None:
    written = {path.name: path.read_text() for path in (ROOT / "infra" / "policies").glob("*.json")}
    assert written == MAKE["policies"](), "run python scripts/make_policies.py"
    assert set(POLICIES) == set(FUNCTIONS) | {"operator"}


def test_the_page_has_every_action_of_every_policy_and_no_other() -> None:
    """And each stands in the row of whoever has it. If not: `python scripts/make_policies.py`."""
    text = (ROOT / "docs" / "aws.md").read_text(encoding="utf-8")
    assert MAKE["page"](text) == text
    table = text[text.index("<!-- made by scripts/make_policies.py") : text.index("<!-- end -->")]
    rows = {
        cells[1].strip(" `"): cells[2] for cells in (row.split("|") for row in table.splitlines()) if len(cells) > 2
    }
    of_all = named(rows["all functions"])
    for name in FUNCTIONS:
        assert of_all | named(rows[name]) == actions(name)
    assert named(rows["the command line (`operator.json`)"]) == actions("operator")


def named(row: str) -> set[str]:
    return set(re.findall(r"`([a-z0-9]+:[A-Za-z]+)`(?! is )", row))


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_no_policy_gives_more_than_it_names(name: str) -> None:
    """No wildcard among the actions; no resource is "everything" where AWS can tell resources apart."""
    for statement in POLICIES[name]:
        assert not [action for action in statement["Action"] if "*" in action]
        if statement["Resource"] == ["*"]:
            assert set(statement["Action"]) <= ANY_RESOURCE
        for resource in statement["Resource"]:
            assert resource == "*" or resource.startswith("${")


def actions(name: str) -> set[str]:
    return {action for statement in POLICIES[name] for action in statement["Action"]}


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_only_submit_acts_on_the_cloud(name: str) -> None:
    acting = {"ecs:RunTask", "ecs:StopTask", "ecs:RegisterTaskDefinition", "iam:PassRole", "ecs:TagResource"}
    assert (actions(name) & acting == acting) == (name == "submit_ecs")
    assert bool(actions(name) & acting) == (name == "submit_ecs")


def test_what_the_ledger_calls_is_allowed() -> None:
    """Every operation that the store names; a transaction needs the rights of its parts."""
    text = "".join(path.read_text() for path in (ROOT / "push_pools" / "stores").glob("dynamodb*.py"))
    used = set(re.findall(r'"(get_item|put_item|update_item|delete_item|query|scan|batch_get_item)"', text))
    names = {"dynamodb:" + "".join(part.title() for part in each.split("_")) for each in used}
    for name in POLICIES:
        assert names <= actions(name)


def test_what_the_adapter_calls_is_allowed() -> None:
    text = "".join(path.read_text() for path in (ROOT / "push_pools" / "platforms").glob("ecs*.py"))
    used = set(re.findall(r"\becs\.((?:run|describe|list|stop|register)_[a-z_]+)\(", text))
    assert "run_task" in used
    names = {"ecs:" + "".join(part.title() for part in each.split("_")) for each in used}
    assert names <= actions("submit_ecs")
