"""Work pools, work queues, blocks and variables from the command line."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from push_pools.domain.errors import InvalidInput

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.runner import Cli

CANARY = "wJalrXUtnFEMI-canary"


@pytest.fixture
def pooled(cli: Cli) -> Cli:
    """The command on a home with the pool `local`."""
    cli.ok("work-pool", "create", "local", "-t", "process", "--description", "for tests")
    return cli


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """A file with an AWS key."""
    file = tmp_path / "keys.json"
    file.write_text(json.dumps({"aws_access_key_id": "AKIAEXAMPLE", "aws_secret_access_key": CANARY}))
    return file


# -- work pools


def test_a_pool_is_created_listed_and_inspected(cli: Cli) -> None:
    ran = cli.ok("work-pool", "create", "local", "--type", "process", "--description", "for tests")

    assert ran.out == "Created work pool 'local' of type process.\n"
    (listed,) = cli.read("work-pool", "ls")
    shown = cli.read("work-pool", "inspect", "local")
    assert (listed["name"], listed["type"], listed["description"]) == ("local", "process", "for tests")
    assert shown["work_queues"] == [{"name": "default", "priority": 1}]
    assert set(shown["base_job_template"]) == {"job_configuration", "variables"}


def test_an_alias_of_a_type_is_stored_in_full(cli: Cli) -> None:
    cli.ok("work-pool", "create", "cloud", "-t", "ecs")

    assert cli.read("work-pool", "inspect", "cloud")["type"] == "ecs:push"


def test_a_template_and_new_defaults_may_be_given(cli: Cli, tmp_path: Path) -> None:
    template = cli.read("work-pool", "get-default-base-job-template", "-t", "process")
    template["variables"]["properties"]["colour"] = {"type": "string", "default": "red"}
    (tmp_path / "t.yaml").write_text(yaml.safe_dump(template))

    cli.ok("work-pool", "create", "a", "-t", "process", "--base-job-template", tmp_path / "t.yaml")
    cli.ok("work-pool", "create", "c", "-t", "process", "--variable", "grace_seconds=7")
    cli.ok("work-pool", "create", "b", "-t", "process", "--base-job-template", "-", stdin=json.dumps(template))
    cli.ok("work-pool", "update", "b", "--variable", "colour=blue", "--description", "new")

    def default(name: str) -> Any:
        return cli.read("work-pool", "inspect", name)["base_job_template"]["variables"]["properties"]["colour"]

    assert default("a")["default"] == "red"
    assert default("b")["default"] == "blue"
    variables = cli.read("work-pool", "inspect", "c")["base_job_template"]["variables"]["properties"]
    assert variables["grace_seconds"]["default"] == 7
    assert cli.read("work-pool", "inspect", "b")["description"] == "new"


def test_what_is_wrong_with_a_pool_is_said(pooled: Cli, tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text("{")
    (tmp_path / "t.yaml").write_text("a: [")
    (tmp_path / "list.yaml").write_text("[1]")

    create = ("work-pool", "create", "x", "-t", "process")
    assert "already exists" in pooled.refused("work-pool", "create", "local", "-t", "process")
    assert "did you mean 'process'" in pooled.refused("work-pool", "create", "x", "-t", "proces")
    assert "Missing option '--type'" in pooled.refused("work-pool", "create", "x", code=2)
    assert "nothing to change" in pooled.refused("work-pool", "update", "local", code=2)
    assert "at line 1 column 2" in pooled.refused(*create, "--base-job-template", tmp_path / "t.json")
    assert "neither JSON nor YAML, at line" in pooled.refused(*create, "--base-job-template", tmp_path / "t.yaml")
    assert "a template is one" in pooled.refused(*create, "--base-job-template", tmp_path / "list.yaml")
    assert "cannot be read" in pooled.refused(*create, "--base-job-template", tmp_path / "none")
    assert "does not exist" in pooled.refused("work-pool", "inspect", "nobody")
    assert "does not exist" in pooled.refused("work-pool", "delete", "nobody")


def test_a_pool_is_found_by_its_id_and_a_beginning_of_it(pooled: Cli) -> None:
    id_ = pooled.read("work-pool", "ls")[0]["id"]

    assert pooled.read("work-pool", "inspect", id_)["name"] == "local"
    assert pooled.read("work-pool", "inspect", id_[:8])["name"] == "local"
    pooled.refused("work-pool", "inspect", id_[:3])


def test_a_beginning_that_fits_several_ids_is_refused() -> None:
    from types import SimpleNamespace as Bag

    from push_pools.cli.find import _by_id

    records: Any = [Bag(id="abcd-1", key="a"), Bag(id="abcd-2", key="b")]

    assert _by_id("work pool", "abcd-2", records) is records[1]
    with pytest.raises(InvalidInput, match="work pool 'abcd' may be a, b; write more of the id"):
        _by_id("work pool", "abcd", records)
    assert _by_id("work pool", "abc", records) is None


def test_a_pool_is_deleted_unless_it_is_used(deployed: Cli) -> None:
    deployed.ok("work-pool", "create", "spare", "-t", "process")

    assert deployed.ok("work-pool", "delete", "spare").out == "Deleted work pool 'spare'.\n"
    assert "is used by deployment" in deployed.refused("work-pool", "delete", "local")
    assert [pool["name"] for pool in deployed.read("work-pool", "ls")] == ["local"]


def test_pool_types_are_listed(cli: Cli) -> None:
    types = {each["type"]: each for each in cli.read("work-pool", "types")}

    assert {"process", "ecs:push"} <= set(types)
    assert types["process"]["description"]
    assert types["process"]["problem"] is None


def test_a_pool_type_that_cannot_be_used_says_why(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from push_pools.domain.errors import PlatformMissing
    from push_pools.platforms.registry import EntryPointPlatforms

    def missing(self: object, type_: str) -> Any:
        raise PlatformMissing(type_, "no library", fix="install it")

    monkeypatch.setattr(EntryPointPlatforms, "__call__", missing)

    found = cli.read("work-pool", "types")
    assert "no library; install it" in found[0]["problem"]
    assert "no library" in cli.ok("work-pool", "types").out


def test_a_default_template_may_be_written_to_a_file(cli: Cli, tmp_path: Path) -> None:
    words = ("work-pool", "get-default-base-job-template", "-t", "process")

    cli.ok(*words, "--file", tmp_path / "t.json")

    assert json.loads((tmp_path / "t.json").read_text()) == cli.read(*words) == cli.ok(*words, "-o", "table").data
    assert "cannot be written" in cli.refused(*words, "--file", tmp_path / "none" / "t.json")


def test_a_pool_is_limited_and_paused(pooled: Cli) -> None:
    assert "limit of 3" in pooled.ok("work-pool", "set-concurrency-limit", "local", "3").out
    assert "Paused" in pooled.ok("work-pool", "pause", "local", "--note", "month end").out

    (shown,) = pooled.read("work-pool", "ls")
    assert (shown["concurrency_limit"], shown["is_paused"], shown["pause_note"]) == (3, True, "month end")
    assert [word for word in ("PAUSED", "month end") if word in pooled.ok("work-pool", "ls").out] == [
        "PAUSED",
        "month end",
    ]

    assert "no limit" in pooled.ok("work-pool", "clear-concurrency-limit", "local").out
    assert "Resumed" in pooled.ok("work-pool", "resume", "local").out
    (shown,) = pooled.read("work-pool", "ls")
    assert (shown["concurrency_limit"], shown["is_paused"], shown["pause_note"]) == (None, False, "")

    assert "out of range" in pooled.refused("work-pool", "set-concurrency-limit", "local", "--", "-1")
    for verb in ("pause", "resume", "clear-concurrency-limit"):
        assert "does not exist" in pooled.refused("work-pool", verb, "nope")
    assert "does not exist" in pooled.refused("work-pool", "set-concurrency-limit", "nope", "1")


def test_a_pool_is_created_with_a_limit(cli: Cli) -> None:
    cli.ok("work-pool", "create", "small", "-t", "process", "--concurrency-limit", "0")
    assert cli.read("work-pool", "inspect", "small")["concurrency_limit"] == 0
    assert "out of range" in cli.refused("work-pool", "create", "x", "-t", "process", "--concurrency-limit", "-4")


def test_a_queue_is_limited_and_paused(pooled: Cli) -> None:
    pooled.ok("work-queue", "create", "urgent", "-p", "local", "--concurrency-limit", "5")
    assert pooled.read("work-queue", "inspect", "urgent")["concurrency_limit"] == 5
    assert "limit of 2" in pooled.ok("work-queue", "set-concurrency-limit", "urgent", "2").out
    assert "Paused" in pooled.ok("work-queue", "pause", "urgent", "-p", "local", "--note", "later").out

    shown = pooled.read("work-queue", "inspect", "local/urgent")
    assert (shown["concurrency_limit"], shown["is_paused"], shown["pause_note"]) == (2, True, "later")
    assert "paused (later)" in pooled.ok("work-queue", "ls").out

    assert "no limit" in pooled.ok("work-queue", "clear-concurrency-limit", "urgent").out
    assert "Resumed" in pooled.ok("work-queue", "resume", "urgent").out
    shown = pooled.read("work-queue", "inspect", "urgent")
    assert (shown["concurrency_limit"], shown["is_paused"], shown["pause_note"]) == (None, False, "")

    assert "out of range" in pooled.refused("work-queue", "set-concurrency-limit", "urgent", "1000001")
    for verb in ("pause", "resume", "clear-concurrency-limit"):
        assert "does not exist" in pooled.refused("work-queue", verb, "nope")


# -- work queues


def test_queues_are_created_listed_reordered_and_deleted(pooled: Cli) -> None:
    assert "priority 2" in pooled.ok("work-queue", "create", "urgent", "-p", "local").out
    assert "priority 1" in pooled.ok("work-queue", "set-priority", "urgent", "1", "-p", "local").out
    pooled.ok("work-queue", "set-priority", "local/default", "7")

    queues = pooled.read("work-queue", "ls", "-p", "local")
    assert [(queue["name"], queue["priority"]) for queue in queues] == [("urgent", 1), ("default", 7)]
    assert pooled.read("work-queue", "ls") == queues
    assert pooled.read("work-queue", "inspect", "urgent") == queues[0]
    assert pooled.read("work-queue", "inspect", queues[0]["id"][:10]) == queues[0]
    pooled.ok("work-queue", "delete", "urgent")
    assert "does not exist" in pooled.refused("work-queue", "inspect", "urgent")


def test_what_is_wrong_with_a_queue_is_said(pooled: Cli) -> None:
    pooled.ok("work-pool", "create", "other", "-t", "process")

    assert "give --pool" in pooled.refused("work-queue", "inspect", "default")
    assert "known: default" in pooled.refused("work-queue", "inspect", "x", "-p", "local").replace("local/", "")
    assert "work pool 'x'" in pooled.refused("work-queue", "ls", "-p", "x")
    assert "out of range" in pooled.refused("work-queue", "set-priority", "default", "0", "-p", "local")
    assert "stays" in pooled.refused("work-queue", "delete", "default", "-p", "local")
    assert "Missing option '--pool'" in pooled.refused("work-queue", "create", "x", code=2)
    assert "valid integer" in pooled.refused("work-queue", "set-priority", "default", "first", code=2)


# -- blocks


def test_a_block_keeps_its_secrets(cli: Cli, keys: Path) -> None:
    ran = cli.ok("block", "create", "aws-credentials/prod", "--data", keys)

    assert "Created block 'aws-credentials/prod'" in ran.out
    assert "does not expire" in ran.err
    for words in (("ls",), ("inspect", "aws-credentials/prod")):
        for format_ in ("table", "json", "yaml"):
            shown = cli.ok("block", *words, "-o", format_).out
            assert CANARY not in shown
            assert "$encrypted" not in shown
            assert "prod" in shown
    assert cli.read("block", "inspect", "aws-credentials/prod")["data"]["aws_secret_access_key"] == "********"
    assert CANARY not in ran.out + ran.err
    assert not [file for file in cli.home.rglob("*") if file.is_file() and CANARY.encode() in file.read_bytes()]


def test_a_block_may_come_from_standard_input_and_be_replaced(cli: Cli, keys: Path) -> None:
    cli.ok("block", "create", "aws-credentials/prod", "--data", "-", stdin="region_name: eu-central-1\n")
    id_ = cli.read("block", "ls")[0]["id"]

    assert "already exists" in cli.refused("block", "create", "aws-credentials/prod", "--data", keys)
    cli.ok("block", "create", "aws-credentials/prod", "--data", keys, "--replace")
    cli.ok("block", "create", "aws-credentials/new", "--data", keys, "--replace")

    assert cli.read("block", "inspect", "aws-credentials/prod")["id"] == id_
    assert len(cli.read("block", "ls", "-t", "aws-credentials")) == 2
    assert cli.read("block", "ls", "-t", "secret") == []


def test_a_block_is_deleted(cli: Cli, keys: Path) -> None:
    cli.ok("block", "create", "aws-credentials/prod", "--data", keys)

    assert cli.ok("block", "delete", "aws-credentials/prod").out == "Deleted block 'aws-credentials/prod'.\n"
    assert cli.read("block", "ls") == []


def test_what_is_wrong_with_a_block_is_said_without_its_secret(cli: Cli, tmp_path: Path, keys: Path) -> None:
    def refused(text: str, ref: str = "aws-credentials/prod", code: int = 1, **options: Any) -> str:
        (tmp_path / "data").write_text(text)
        line = cli.refused("block", "create", ref, "--data", tmp_path / "data", code=code)
        assert CANARY not in line
        return line

    assert "no field" in refused(json.dumps({"aws_secret_access_kee": CANARY}))
    assert "JSON" in refused('{"aws_secret_access_key": "' + CANARY)
    assert "neither JSON nor YAML" in refused(f"aws_secret_access_key: [{CANARY}\n:")
    assert "a block is one" in refused(CANARY)
    assert "block type 'aws'" in refused("{}", "aws/prod")
    assert "is not TYPE/NAME" in refused("{}", "prod", code=2)
    assert "lower-case" in refused("{}", "aws-credentials/PROD")
    assert "block type" in cli.refused("block", "ls", "-t", "aws")
    assert "does not exist" in cli.refused("block", "inspect", "aws-credentials/x")
    assert "does not exist" in cli.refused("block", "create", "aws/x", "--data", keys, "--replace")


def test_no_option_takes_a_secret(cli: Cli) -> None:
    assert "No such option" in cli.refused("block", "create", "secret/x", "--value", "s", code=2)


def test_block_types_tell_their_fields(cli: Cli) -> None:
    assert "aws-credentials" in {each["slug"] for each in cli.read("block", "type", "ls")}
    found = cli.read("block", "type", "inspect", "aws-credentials")
    assert "aws_secret_access_key" in found["secret_fields"]
    assert "aws_secret_access_key" in found["schema"]["properties"]
    (line,) = [
        line for line in cli.ok("block", "type", "inspect", "aws-credentials").out.splitlines()
        if line.startswith("aws_secret_access_key")
    ]  # fmt: skip
    assert "secret" in line.split()
    assert "known" in cli.refused("block", "type", "inspect", "gcp")


# -- variables


def test_variables_hold_json(cli: Cli) -> None:
    cli.ok("variable", "set", "n", "3", "--tag", "a", "--tag", "b")
    cli.ok("variable", "set", "text", "hello world")
    cli.ok("variable", "set", "object", '{"a": [1]}')

    assert cli.ok("variable", "get", "n").out == "3\n"
    assert cli.ok("variable", "get", "text").out == "hello world\n"
    assert json.loads(cli.ok("variable", "get", "object").out) == {"a": [1]}
    assert cli.read("variable", "get", "n")["tags"] == ["a", "b"]
    assert [each["name"] for each in cli.read("variable", "ls")] == ["n", "object", "text"]


def test_a_variable_is_changed_and_deleted(cli: Cli) -> None:
    cli.ok("variable", "set", "n", "3")
    cli.ok("variable", "set", "n", "4", "--overwrite")

    assert "already exists" in cli.refused("variable", "set", "n", "5", "--no-overwrite")
    assert cli.ok("variable", "get", "n").out == "4\n"
    cli.ok("variable", "unset", "n")
    assert "does not exist" in cli.refused("variable", "get", "n")
    assert "does not exist" in cli.refused("variable", "unset", "n")
    assert "cannot name a variable" in cli.refused("variable", "set", "Not A Name", "1")


# -- asking


def test_whoever_sits_at_a_terminal_is_asked_before_something_is_deleted(pooled: Cli) -> None:
    def delete(answer: str, *words: str) -> str:
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-m", "push_pools.cli.main", "work-pool", "delete", "local", *words],
            stdin=theirs, stdout=theirs, stderr=theirs, env={**os.environ, "PUSH_POOLS_HOME": str(pooled.home)},
        )  # fmt: skip
        os.close(theirs)
        os.write(ours, answer.encode())
        process.wait(30)
        text = os.read(ours, 10_000).decode()
        os.close(ours)
        return text

    assert "Delete work pool 'local'?" in delete("n\n")
    assert len(pooled.read("work-pool", "ls")) == 1
    assert "Deleted" in delete("", "--yes")
    assert pooled.read("work-pool", "ls") == []


def test_pools_show_whether_they_are_ready(deployed: Cli) -> None:
    """NOT_READY until something ticks, READY while it does, and the reason in words."""
    (pool,) = deployed.read("work-pool", "ls")
    assert pool["status"] == "NOT_READY"
    assert "never ticked" in pool["status_reason"]
    deployed.ok("serve", "--until-idle", "--for", "30s")
    shown = deployed.read("work-pool", "inspect", "local")
    assert (shown["status"], shown["status_reason"]) == ("READY", "")
    assert shown["last_tick"] is not None
    assert shown["last_submit"] is None
    assert "READY" in deployed.ok("work-pool", "ls").out
