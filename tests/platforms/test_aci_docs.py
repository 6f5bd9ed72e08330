"""The page about Azure says what the code does."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path

import pytest

from push_pools.platforms.aci_config import IGNORED, AciVariables
from push_pools.platforms.aci_logs import KEPT_BYTES
from push_pools.platforms.aci_pace import CREATES_PER_HOUR, Paces
from push_pools.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "azure.md").read_text(encoding="utf-8")
ACTIONS = {
    "container_groups.get": "Microsoft.ContainerInstance/containerGroups/read",
    "container_groups.begin_create_or_update": "Microsoft.ContainerInstance/containerGroups/write",
    "groups.begin_delete": "Microsoft.ContainerInstance/containerGroups/delete",
    "groups.stop": "Microsoft.ContainerInstance/containerGroups/stop/action",
    "containers.list_logs": "Microsoft.ContainerInstance/containerGroups/containers/logs/read",
    "client._send_request": "Microsoft.Resources/subscriptions/resourceGroups/read",
}
CALL = re.compile(r"\b((?:container_groups|groups|containers|client)\.(?:_send_request|get|stop|list_\w+|begin_\w+))\(")


def test_the_tables_are_those_of_the_code() -> None:
    """If not: `python scripts/make_aci_docs.py`."""
    made = runpy.run_path(str(ROOT / "scripts" / "make_aci_docs.py"))["page"](TEXT)
    assert made == TEXT


@pytest.mark.parametrize("name", sorted(AciVariables.model_fields))
def test_every_variable_has_a_row_with_a_description(name: str) -> None:
    row = next(line for line in TEXT.splitlines() if line.startswith(f"| `{name}` |"))
    assert len(row.split("|")[4].strip()) > 10
    assert ("without effect" in row) is (name in IGNORED)


def test_the_role_allows_what_is_called_and_no_more() -> None:
    called: set[str] = set()
    for path in (ROOT / "push_pools" / "platforms").glob("aci*.py"):
        called |= set(CALL.findall(path.read_text(encoding="utf-8")))
    (role,) = (json.loads(block) for block in re.findall(r"```json\n(.*?)```", TEXT, re.DOTALL))
    assert set(role["Actions"]) == {ACTIONS[name] for name in called}


def test_the_rates_on_the_page_are_the_defaults() -> None:
    settings = Settings()
    rate = Paces(settings.for_platforms()).creates
    assert settings.aci_creates_per_hour == CREATES_PER_HOUR == 300
    assert f"{rate.burst} at once, and {rate.per_second * 3600:.0f} an hour" in TEXT
    assert f"the last {KEPT_BYTES // 1024} KB" in TEXT
