"""The page about ECS says what the code does."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from push_pools.domain.events import parse_event
from push_pools.platforms.ecs_config import IGNORED, EcsVariables
from push_pools.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "ecs.md").read_text(encoding="utf-8")
CALL = re.compile(r"\b(?:ecs|ec2|client|self\._sts)\.([a-z]+(?:_[a-z]+)+)\(")
OF_LOGS, OF_EC2 = {"get_log_events"}, {"describe_subnets", "describe_vpcs"}


def test_the_tables_are_those_of_the_code() -> None:
    """If not: `python scripts/make_ecs_docs.py`."""
    made = runpy.run_path(str(ROOT / "scripts" / "make_ecs_docs.py"))["page"](TEXT)
    assert made == TEXT


@pytest.mark.parametrize("name", sorted(EcsVariables.model_fields))
def test_every_variable_has_a_row_with_a_description(name: str) -> None:
    row = next(line for line in TEXT.splitlines() if line.startswith(f"| `{name}` |"))
    assert len(row.split("|")[4].strip()) > 10
    assert ("without effect" in row) is (name in IGNORED)


def test_every_action_that_is_called_is_in_the_table_of_permissions() -> None:
    """So that a role made from the page is enough, and no more is asked for."""
    called = set()
    for path in (ROOT / "push_pools" / "platforms").glob("ecs*.py"):
        called |= set(CALL.findall(path.read_text(encoding="utf-8")))
    service = {name: "logs" if name in OF_LOGS else "ec2" if name in OF_EC2 else "ecs" for name in called}
    actions = {f"{service[name]}:{name.title().replace('_', '')}" for name in called}
    table = TEXT[TEXT.index("## Permissions") : TEXT.index("`sts:AssumeRole`")]
    granted = set(re.findall(r"^\| (`[^|]*`) \|", table, re.MULTILINE))
    listed = {action for cell in granted for action in re.findall(r"`([a-z0-9]+:[A-Za-z]+)`", cell)}
    assert len(actions) >= 9
    assert listed == actions | {"ecs:TagResource", "iam:PassRole"}


def test_the_pattern_of_the_rule_lets_our_events_through() -> None:
    (shown,) = (json.loads(block) for block in re.findall(r"```json\n(.*?)```", TEXT, re.DOTALL))
    detail: dict[str, Any] = {"startedBy": "pp/x/1", "lastStatus": "STOPPED"}
    event = {"source": shown["source"][0], "detail-type": shown["detail-type"][0], "detail": detail}
    assert parse_event(json.dumps(event)).event.type == "job-changed"
    assert detail["startedBy"].startswith(shown["detail"]["startedBy"][0]["prefix"])
    assert detail["lastStatus"] in shown["detail"]["lastStatus"]


def test_the_rates_on_the_page_are_the_defaults() -> None:
    settings = Settings()
    assert f"`RunTask` {settings.ecs_run_task_per_second:g} a second" in TEXT
    assert f"`RegisterTaskDefinition` {settings.ecs_register_per_second:g} a second" in TEXT
