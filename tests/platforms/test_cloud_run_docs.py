"""The page about Cloud Run says what the code does."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path

import pytest

from push_pools.credentials.gcp import GcpCredentials
from push_pools.platforms.cloud_run_config import CloudRunVariables
from push_pools.platforms.cloud_run_pace import pace_of_creates
from push_pools.services.config_file import parse_config
from push_pools.settings import Settings
from tests.credentials.test_gcp import federation

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "google-cloud.md").read_text(encoding="utf-8")
CALL = re.compile(r'"(jobs|executions|tasks)",\s+"([a-z]+)_[a-z]+"')


def test_the_tables_are_those_of_the_code() -> None:
    """If not: `python scripts/make_cloud_run_docs.py`."""
    made = runpy.run_path(str(ROOT / "scripts" / "make_cloud_run_docs.py"))["page"](TEXT)
    assert made == TEXT


@pytest.mark.parametrize("name", sorted(CloudRunVariables.model_fields))
def test_every_variable_has_a_row_with_a_description(name: str) -> None:
    row = next(line for line in TEXT.splitlines() if line.startswith(f"| `{name}` |"))
    assert len(row.split("|")[4].strip()) > 10


def test_every_call_is_in_the_table_of_permissions() -> None:
    """So that a role made from the page is enough, and no more is asked for."""
    called = set()
    for path in (ROOT / "push_pools" / "platforms").glob("cloud_run*.py"):
        called |= {f"run.{service}.{verb}" for service, verb in CALL.findall(path.read_text(encoding="utf-8"))}
    table = TEXT[TEXT.index("## Permissions") : TEXT.index("`roles/run.developer`")]
    listed = set(re.findall(r"`([a-z]+\.[A-Za-z]+\.[A-Za-z]+)`", table))
    assert len(called) >= 7
    assert listed == called | {"logging.logEntries.list", "iam.serviceAccounts.actAs"}


def test_the_pace_on_the_page_is_that_of_the_default_quota() -> None:
    settings = Settings()
    rate = pace_of_creates(settings.for_platforms(), "x").rate
    assert (
        f"| {settings.cloud_run_writes_per_minute:g} | starts {rate.per_second * 60:.0f} jobs a minute, {rate.burst} of"
        in TEXT
    )


def test_the_config_on_the_page_is_one() -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    config = parse_config(text, "push-pools.yaml")
    assert [pool.type for pool in config.work_pools] == ["cloud-run-v2:push"]
    assert set(config.work_pools[0].variables) <= set(CloudRunVariables.model_fields)


def test_the_blocks_on_the_page_can_be_made() -> None:
    (block,) = (json.loads(each) for each in re.findall(r"```json\n(.*?)```", TEXT, re.DOTALL))
    assert GcpCredentials.model_validate(block).project_id() == "acme"
    assert GcpCredentials.model_validate({"project": "acme", "external_account": federation()}).external_account
    for name in GcpCredentials.model_fields:
        assert name == "project" or f"| `{name}` |" in TEXT
