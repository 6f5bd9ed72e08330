"""What the modules of pools make is what the service may use, and what the documentation says is needed."""

from __future__ import annotations

import json
import re
from fnmatch import fnmatchcase
from typing import Any, Final

import pytest

from tests.terraform.bundles import ROOT
from tests.terraform.plan import ACCOUNT, Plan
from tests.terraform.pools import Applied, applied

SERVICE: Final = Plan.read()
REGION: Final = SERVICE.outputs["region"]
ECS: Final = applied("modules/ecs_pool")


def named(run: Applied, type_: str) -> list[str]:
    return [values["name"] for address, values in run.named.items() if address.startswith(f"{type_}.")]


def statement(sid: str) -> dict[str, Any]:
    return next(each for each in SERVICE.statements("submit_ecs") if each["Sid"] == sid)


def test_the_pools_are_of_the_same_installation() -> None:
    assert SERVICE.outputs["name"] == "jobs"
    assert all(name.startswith("jobs-") for run in ECS for name in named(run, "aws_iam_role"))


def test_tasks_may_be_started_in_the_cluster_that_is_made() -> None:
    clusters = [
        f"arn:aws:ecs:{REGION}:{ACCOUNT}:cluster/{name}" for run in ECS for name in named(run, "aws_ecs_cluster")
    ]
    assert clusters
    for sid in ("RunTask", "WatchAndStopTasks", "FindTasks"):
        allowed = statement(sid)["Condition"]["ArnEquals"]["ecs:cluster"]
        assert all(fnmatchcase(arn, allowed) for arn in clusters), sid


def test_tasks_may_be_watched_in_the_cluster_that_is_made() -> None:
    (cluster,) = {name for run in ECS for name in named(run, "aws_ecs_cluster")}
    task = f"arn:aws:ecs:{REGION}:{ACCOUNT}:task/{cluster}/0123"
    assert any(fnmatchcase(task, each) for each in statement("WatchAndStopTasks")["Resource"])


@pytest.mark.parametrize("run", ECS, ids=str)
def test_the_roles_that_are_made_may_be_passed(run: Applied) -> None:
    roles = named(run, "aws_iam_role")
    assert len(roles) == 2
    for name in roles:
        arn = f"arn:aws:iam::{ACCOUNT}:role/{name}"
        assert any(fnmatchcase(arn, each) for each in statement("PassRoles")["Resource"]), name


@pytest.mark.parametrize("run", ECS, ids=str)
def test_the_command_line_may_read_the_output_of_jobs(run: Applied) -> None:
    policy = SERVICE.outputs["operator_policy"]
    (group,) = named(run, "aws_cloudwatch_log_group")
    arn = f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:{group}:log-stream:nightly/flow/0123"
    resources = [
        each for one in policy["Statement"] if "logs:GetLogEvents" in one["Action"] for each in one["Resource"]
    ]
    assert any(fnmatchcase(arn, each) or fnmatchcase(arn.rpartition(":log-stream")[0], each) for each in resources)


def test_the_role_at_google_is_the_one_that_is_documented() -> None:
    page = (ROOT / "docs" / "google-cloud.md").read_text(encoding="utf-8")
    section = page.partition("## Permissions")[2].partition("\n## ")[0]
    documented = set(re.findall(r"`((?:run|logging)\.\w+\.\w+)`", section))
    for run in applied("modules/cloud_run_pool"):
        assert set(run.named["google_project_iam_custom_role.starter"]["permissions"]) == documented


def test_the_role_at_azure_is_the_one_that_is_documented() -> None:
    page = (ROOT / "docs" / "azure.md").read_text(encoding="utf-8")
    found = re.search(r"```json\n(\{\s+\"Name\".*?)```", page, re.DOTALL)
    assert found
    documented = json.loads(found[1])["Actions"]
    for run in applied("modules/aci_pool"):
        (permissions,) = run.named["azurerm_role_definition.starter"]["permissions"]
        assert sorted(permissions["actions"]) == sorted(documented)
        assert not permissions["data_actions"]
