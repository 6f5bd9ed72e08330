"""Records that a Terraform module manages: the command line shows whose they are, and leaves them alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from push_pools.bootstrap import open_embedded
from push_pools.domain.admin import read_request
from push_pools.services.administer import administer
from push_pools.settings import Settings

if TYPE_CHECKING:
    from tests.cli.runner import Cli

OWNER = "terraform:module.nightly"
RECORDS: dict[tuple[str, str], dict[str, Any]] = {
    ("block", "aws-credentials/nightly"): {"region_name": "eu-west-1"},
    ("work-pool", "nightly"): {"type": "process", "work_queues": [{"name": "urgent"}]},
    ("variable", "region"): {"value": "eu"},
    ("deployment", "etl/hourly"): {
        "work_pool": {
            "name": "nightly",
            "job_variables": {"working_dir": "/v1", "grace_seconds": 5},
            "open_job_variables": ["working_dir"],
        },
        "command": "true",
        "schedules": [{"cron": "@hourly", "slug": "clock"}],
    },
}


@pytest.fixture
def managed(cli: Cli) -> Cli:
    """The command on a home whose records Terraform owns."""
    cli.ok("work-pool", "create", "mine", "-t", "process")
    opened = open_embedded(Settings.from_environ({"PUSH_POOLS_HOME": str(cli.home)}))
    for (kind, name), spec in RECORDS.items():
        request = {"version": 1, "action": "put", "kind": kind, "name": name, "spec": spec, "managed_by": OWNER}
        administer(read_request(request), opened.app)
    opened.close()
    return cli


@pytest.mark.parametrize("noun", ["work-pool", "work-queue", "block", "variable", "deployment"])
def test_lists_say_who_manages_what(managed: Cli, noun: str) -> None:
    lines = managed.ok(noun, "ls").out.splitlines()

    assert lines[0].endswith("managed by")
    assert any(line.endswith(OWNER) for line in lines[1:])
    assert OWNER in {each["managed_by"] for each in managed.read(noun, "ls")}


def test_lists_have_no_such_column_where_nobody_manages_anything(deployed: Cli) -> None:
    for noun in ("work-pool", "work-queue", "deployment"):
        assert "managed by" not in deployed.ok(noun, "ls").out


@pytest.mark.parametrize(
    "words",
    [
        ("work-pool", "inspect", "nightly"),
        ("work-queue", "inspect", "nightly/urgent"),
        ("block", "inspect", "aws-credentials/nightly"),
        ("deployment", "inspect", "etl/hourly"),
    ],
)
def test_inspect_says_who_manages_it(managed: Cli, words: tuple[str, ...]) -> None:
    shown = managed.ok(*words).out.splitlines()
    assert [line.split() for line in shown if line.startswith("managed_by")] == [["managed_by", OWNER]]


@pytest.mark.parametrize(
    "words",
    [
        ("work-pool", "update", "nightly", "--description", "mine"),
        ("work-pool", "pause", "nightly"),
        ("work-pool", "resume", "nightly"),
        ("work-pool", "delete", "nightly", "--yes"),
        ("work-pool", "set-concurrency-limit", "nightly", "3"),
        ("work-pool", "clear-concurrency-limit", "nightly"),
        ("work-queue", "pause", "nightly/urgent"),
        ("work-queue", "resume", "nightly/urgent"),
        ("work-queue", "delete", "nightly/urgent", "--yes"),
        ("work-queue", "set-priority", "nightly/urgent", "3"),
        ("work-queue", "set-concurrency-limit", "nightly/urgent", "3"),
        ("work-queue", "clear-concurrency-limit", "nightly/urgent"),
        ("block", "delete", "aws-credentials/nightly", "--yes"),
        ("block", "create", "aws-credentials/nightly", "--data", "-", "--replace"),
        ("variable", "set", "region", "us"),
        ("variable", "unset", "region"),
        ("deployment", "pause", "hourly"),
        ("deployment", "resume", "hourly"),
        ("deployment", "delete", "hourly", "--yes"),
        ("deployment", "set-job-variable", "hourly", "grace_seconds=9"),
        ("deployment", "schedule", "create", "hourly", "--cron", "@daily"),
        ("deployment", "schedule", "pause", "hourly", "clock"),
        ("deployment", "schedule", "resume", "hourly", "clock"),
        ("deployment", "schedule", "delete", "hourly", "clock", "--yes"),
    ],
    ids=" ".join,
)
def test_every_command_that_changes_something_is_refused_and_names_the_module(
    managed: Cli, words: tuple[str, ...]
) -> None:
    """In one line, on stderr, and nothing is changed."""
    before = [managed.read(noun, "ls") for noun in ("work-pool", "work-queue", "block", "variable", "deployment")]
    line = managed.refused(*words, stdin="{}")

    assert f"is managed by {OWNER}; change it there" in line
    assert before == [
        managed.read(noun, "ls") for noun in ("work-pool", "work-queue", "block", "variable", "deployment")
    ]


def test_ci_sets_what_the_module_leaves_to_it(managed: Cli) -> None:
    managed.ok("deployment", "set-job-variable", "etl/hourly", "working_dir=/v2")

    shown = managed.read("deployment", "inspect", "etl/hourly")
    assert shown["job_variables"] == {"working_dir": "/v2", "grace_seconds": 5}
    assert (shown["open_job_variables"], shown["managed_by"]) == (["working_dir"], OWNER)
    line = managed.refused("deployment", "set-job-variable", "etl/hourly", "working_dir=/v3", "grace_seconds=9")
    assert f"managed by {OWNER}; change it there: it leaves only working_dir to others, not grace_seconds" in line
    assert managed.read("deployment", "inspect", "etl/hourly") == shown


def test_runs_of_managed_deployments_are_everybody_s(managed: Cli) -> None:
    managed.ok("deployment", "run", "etl/hourly")
