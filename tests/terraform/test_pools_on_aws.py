"""What an example sends, on the real runtime of the function and a ledger in DynamoDB; and the command line there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.aws.installation import install
from tests.aws.runtime_api import Environment
from tests.cli.test_aws import AwsCli
from tests.terraform.pools import Request, applied, as_sent

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.aws.ministack import Ministack

(EXAMPLE,) = applied("examples/three_clouds")


@pytest.fixture
def cli(ministack: Ministack, tmp_path: Path) -> AwsCli:
    return AwsCli(tmp_path / "home", install(ministack, more_queues=["submit-aci", "submit-cloud-run"]))


@pytest.fixture
def admin(cli: AwsCli) -> Iterator[Environment]:
    with Environment("push_pools.functions.admin.handler", cli.at.environ, timeout_seconds=60.0) as environment:
        yield environment


def taken(admin: Environment, request: Request) -> Any:
    """Invoke the function and return its answer, as the provider does when there is no function error."""
    result = admin.invoke(request)
    assert result.error is None, result
    return result.answer


def test_an_installation_is_applied_used_and_destroyed(cli: AwsCli, admin: Environment) -> None:
    for record in EXAMPLE.records:
        for _ in range(2):
            assert taken(admin, as_sent(record, "create"))["token"] == record["token"]
    assert {each["name"]: each["managed_by"] for each in cli.read("work-pool", "ls")} == {
        "aci": "terraform:module.aci",
        "ecs": "terraform:module.ecs",
        "run": "terraform:module.cloud_run",
    }

    # CI sets the image, and nothing else; an apply keeps it.
    cli.ok("deployment", "set-job-variable", "hello/ecs", "image=acme/hello:2")
    line = cli.refused("deployment", "set-job-variable", "hello/ecs", "cpu=512")
    assert 'managed by terraform:module.hello["ecs"]' in line
    hello = EXAMPLE.record("deployment", "hello/ecs")
    described = {**hello, "spec": {**hello["spec"], "description": "says hello"}, "token": "another"}
    assert taken(admin, as_sent(described, "update", hello))["token"] == "another"
    shown = cli.read("deployment", "inspect", "hello/ecs")
    assert (shown["description"], shown["job_variables"]) == ("says hello", {"image": "acme/hello:2"})

    # A refusal is an error of the function, with a sentence, and the ledger holds what it held.
    wrong = {**hello, "spec": {**hello["spec"], "schedules": [{"cron": "61 * * * *"}]}}
    refused = admin.invoke(as_sent(wrong, "update", described))
    assert refused.error == "Refused"
    assert "schedules[0].cron" in refused.message
    assert cli.read("deployment", "inspect", "hello/ecs") == shown

    for record in reversed(EXAMPLE.records):
        for _ in range(2):
            taken(admin, as_sent(record, "delete"))
    for noun in ("work-pool", "work-queue", "block", "deployment"):
        assert cli.read(noun, "ls") == []


def test_a_ledger_that_is_away_fails_the_apply(cli: AwsCli) -> None:
    """The next plan sees it by the token; `again` has it sent once more."""
    environ = {**cli.at.environ, "PUSH_POOLS_AWS_TABLE": "nowhere"}
    with Environment("push_pools.functions.admin.handler", environ, timeout_seconds=60.0) as admin:
        assert admin.invoke(as_sent(EXAMPLE.records[0], "create")).error is not None
