"""`push-pools deploy` and `push-pools deployment`."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import yaml

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.runner import Cli

# -- deploy


def test_a_deploy_shows_what_it_makes(cli: Cli, config: Path) -> None:
    ran = cli.ok("deploy", config)

    assert ran.err == ""
    assert ran.out.splitlines() == [
        "+ work queue local/urgent",
        "+ work queue local/default",
        "+ work pool local",
        "+ deployment greet/hello",
        "+ deployment bad/bad",
        "+ deployment slow/slow",
        "Deployed: 6 created, 0 updated, 0 deleted, 0 unchanged.",
    ]
    assert [each["key"] for each in cli.read("deployment", "ls")] == ["bad/bad", "greet/hello", "slow/slow"]


def test_a_second_deploy_changes_nothing(deployed: Cli, config: Path) -> None:
    before = deployed.read("deployment", "ls")

    assert deployed.ok("deploy", config, "--all").out.endswith("0 created, 0 updated, 0 deleted, 6 unchanged.\n")
    assert deployed.read("deployment", "ls") == before


def test_a_changed_field_is_shown(deployed: Cli, config: Path) -> None:
    config.write_text(config.read_text().replace("who: world", "who: moon").replace("sleep 30", "sleep 60"))

    lines = deployed.ok("deploy", config).out.splitlines()

    assert "~ deployment greet/hello" in lines
    assert '    parameters.who: "world" -> "moon"' in lines
    assert '    command: "sleep 30" -> "sleep 60"' in lines
    assert "= deployment bad/bad" in lines
    assert deployed.read("deployment", "inspect", "hello")["parameters"] == {"who": "moon"}


def test_a_dry_run_shows_the_same_and_changes_nothing(cli: Cli, config: Path) -> None:
    ran = cli.ok("deploy", config, "--dry-run")

    assert "+ deployment greet/hello" in ran.out.splitlines()
    assert ran.out.endswith("Plan: 6 to create, 0 to update, 0 to delete, 0 unchanged. Nothing was changed.\n")
    assert cli.read("deployment", "ls") == []


@pytest.mark.parametrize("name", ["hello", "greet/hello"])
def test_one_deployment_brings_its_pool_and_nothing_else(cli: Cli, config: Path, name: str) -> None:
    cli.ok("deploy", config, "-n", name)

    assert [each["key"] for each in cli.read("deployment", "ls")] == ["greet/hello"]
    assert [each["name"] for each in cli.read("work-pool", "ls")] == ["local"]


def test_prune_deletes_what_the_file_does_not_name_any_more(
    deployed: Cli, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = yaml.safe_load(config.read_text())
    tree["deployments"] = tree["deployments"][:1]
    config.write_text(yaml.safe_dump(tree))

    assert "deleted, 4 unchanged" in deployed.ok("deploy", config).out
    assert len(deployed.read("deployment", "ls")) == 3
    monkeypatch.chdir(config.parent)  # Named in another way, it is the same file.
    lines = deployed.ok("deploy", "--prune").out.splitlines()

    assert {"- deployment bad/bad", "- deployment slow/slow"} <= set(lines)
    assert [each["key"] for each in deployed.read("deployment", "ls")] == ["greet/hello"]


def test_prune_needs_to_know_what_the_file_owns(deployed: Cli, config: Path) -> None:
    text = config.read_text()

    assert "add project:" in deployed.refused("deploy", "-", "--prune", stdin=text, code=2)
    deployed.ok("deploy", "-", "--prune", stdin="project: mine\n" + text)


def test_a_file_may_be_piped_and_the_plan_read_by_a_program(cli: Cli, config: Path) -> None:
    plan = cli.ok("deploy", "-", "--dry-run", "-o", "json", stdin=config.read_text()).data
    cli.ok("deploy", config)
    config.write_text(config.read_text().replace("who: world", "who: moon"))
    changed = yaml.safe_load(cli.ok("deploy", config, "-o", "yaml").out)

    assert plan["dry_run"]
    assert {change["action"] for change in plan["changes"]} == {"create"}
    (update,) = [change for change in changed["changes"] if change["action"] == "update"]
    assert update["key"] == "greet/hello"
    assert update["diff"] == [{"path": "parameters.who", "old": "world", "new": "moon"}]


def test_a_template_file_is_read_beside_the_config(cli: Cli, tmp_path: Path) -> None:
    template = cli.read("work-pool", "get-default-base-job-template", "-t", "process")
    template["variables"]["properties"]["colour"] = {"type": "string"}
    (tmp_path / "template.json").write_text(json.dumps(template))
    config = tmp_path / "c.yaml"
    config.write_text("work_pools: [{name: a, type: process, base_job_template: template.json}]")

    cli.ok("deploy", config)

    assert cli.read("work-pool", "inspect", "a")["base_job_template"] == template


def test_a_wrong_file_is_refused_with_a_line_per_problem(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("work_pools:\n  - {name: a, type: proces}\ndeployments:\n  - {nam: b, work_pool: {name: a}}\n")

    ran = cli("deploy", file)

    assert (ran.code, ran.out) == (1, "")
    lines = ran.err.splitlines()
    assert len(lines) >= 2
    assert all(line.startswith(f"Error: {file}:4:") for line in lines), lines
    assert cli.read("work-pool", "ls") == []


def test_a_file_that_is_not_there_is_named(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    assert "nowhere.yaml cannot be read" in cli.refused("deploy", "nowhere.yaml")
    assert "there is no push-pools.yaml" in cli.refused("deploy")


def test_a_name_that_the_file_does_not_have_is_refused(cli: Cli, config: Path) -> None:
    assert "known: greet/hello" in cli.refused("deploy", config, "-n", "helo")
    assert "contradict" in cli.refused("deploy", config, "-n", "hello", "--all", code=2)
    assert "--prune" in cli.refused("deploy", config, "-n", "hello", "--prune")


def test_what_a_prefect_file_leaves_out_is_noted(cli: Cli, config: Path, tmp_path: Path) -> None:
    cli.ok("deploy", config)
    file = tmp_path / "prefect.yaml"
    file.write_text(
        "name: x\nprefect-version: 3.0.0\n"
        "deployments:\n  - {name: p, version: '1', work_pool: {name: local, job_variables: {command: 'true'}}}\n"
    )

    ran = cli("deploy", file)

    assert ran.code == 0, ran
    assert all(line.startswith("Note: ") for line in ran.err.splitlines())
    assert "+ deployment p/p" in ran.out


# -- deployment


def run_of(cli: Cli, *words: object, **options: Any) -> Any:
    return cli.ok("deployment", "run", *words, "-o", "json", **options).data


def test_a_run_is_put_and_named(deployed: Cli) -> None:
    ran = deployed.ok("deployment", "run", "greet/hello")

    (run,) = deployed.read("flow-run", "ls")
    assert ran.out.startswith(f"Put flow run {run['name']!r} ({run['id']}), due ")
    assert ran.err == (
        f"Note: flow run {run['name']!r} waits: no server is running on this home; start `push-pools serve`\n"
    )


def test_a_run_takes_parameters_variables_tags_and_a_name(deployed: Cli) -> None:
    run = run_of(
        deployed, "hello", "--params", '{"who": "x", "n": 1}', "--param", "who=moon", "--param", "on=true",
        "--job-variable", "grace_seconds=5", "--tag", "a", "--tag", "b", "--flow-run-name", "mine", "-q", "urgent",
    )  # fmt: skip

    assert run["parameters"] == {"who": "moon", "n": 1, "on": True}
    assert run["job_variables"] == {"grace_seconds": 5}
    assert run["tags"] == ["demo", "a", "b"]
    assert (run["name"], run["work_queue"]) == ("mine", "urgent")


def test_parameters_may_be_piped(deployed: Cli) -> None:
    assert run_of(deployed, "hello", "--params", "-", stdin='{"who": "pipe"}')["parameters"] == {"who": "pipe"}


def test_every_run_is_a_run_of_its_own_unless_it_has_a_key(deployed: Cli) -> None:
    assert run_of(deployed, "hello")["id"] != run_of(deployed, "hello")["id"]

    first = run_of(deployed, "hello", "--idempotency-key", "k")
    ran = deployed.ok("deployment", "run", "hello", "--idempotency-key", "k")

    assert first["id"] in ran.out
    assert "was put before, under the same key" in ran.out
    assert len(deployed.read("flow-run", "ls")) == 3


def test_a_run_may_start_later(deployed: Cli) -> None:
    later = run_of(deployed, "hello", "--start-in", "10m")
    at = run_of(deployed, "hello", "--start-at", "2099-01-31T09:00:00+01:00")

    wait = datetime.fromisoformat(later["scheduled_time"]) - datetime.now(UTC)
    assert timedelta(minutes=9) < wait < timedelta(minutes=10)
    assert at["scheduled_time"] == "2099-01-31T08:00:00+00:00"


@pytest.mark.parametrize(
    ("words", "code", "hint"),
    [
        (("nobody",), 1, "deployment 'nobody' does not exist"),
        (("hello", "--param", "x"), 2, "write --param NAME=VALUE"),
        (("hello", "--params", "[]"), 2, "--params is not a JSON object"),
        (("hello", "--start-in", "soon"), 2, "--start-in 'soon'"),
        (("hello", "--start-at", "noon"), 2, "--start-at 'noon'"),
        (("hello", "--start-at", "2099-01-01T00:00:00Z", "--start-in", "1m"), 2, "contradict"),
        (("hello", "--start-at", "2001-01-01T00:00:00Z"), 1, "days ago"),
        (("hello", "-q", "x"), 1, "work queue 'local/x' does not exist"),
        (("hello", "--job-variable", "grace=1"), 1, "grace"),
        (("hello", "--tag", ""), 1, "tags"),
    ],
)
def test_a_run_that_cannot_be_is_refused(deployed: Cli, words: tuple[str, ...], code: int, hint: str) -> None:
    assert hint in deployed.refused("deployment", "run", *words, code=code)
    assert deployed.read("flow-run", "ls") == []


def test_a_paused_deployment_takes_no_runs(deployed: Cli) -> None:
    assert deployed.ok("deployment", "pause", "hello", "--note", "holiday").out == "Paused deployment 'greet/hello'.\n"

    assert "holiday" in deployed.refused("deployment", "run", "hello")
    assert "paused (holiday)" in deployed.ok("deployment", "ls").out
    deployed.ok("deployment", "resume", "hello")
    deployed.ok("deployment", "run", "hello")


def test_a_preview_is_the_request_and_where_its_values_come_from(deployed: Cli) -> None:
    shown = deployed.ok(
        "deployment", "preview", "slow", "--param", "n=1", "--job-variable", "command=echo", "-o", "json"
    ).data

    assert shown["request"]["argv"] == ["echo"]
    assert json.loads(shown["request"]["env"]["PUSH_POOLS_PARAMETERS"]) == {"n": 1}
    assert shown["origins"]["command"] == "run"
    assert shown["origins"]["grace_seconds"] == "deployment"
    assert shown["policy"]["grace_seconds"] == 1.0
    assert yaml.safe_load(deployed.ok("deployment", "preview", "slow").out)["request"]["argv"] == ["sleep", "30"]
    assert deployed.read("flow-run", "ls") == []


def test_a_preview_may_be_a_table(deployed: Cli) -> None:
    text = deployed.ok("deployment", "preview", "slow", "-o", "table").out

    assert "would send:" in text
    assert "job variable" in text
    assert "start_timeout_seconds" in text


def test_job_variables_are_set(deployed: Cli) -> None:
    ran = deployed.ok("deployment", "set-job-variable", "slow", "grace_seconds=9", "stream_output=false")

    assert ran.out == "Set grace_seconds, stream_output of deployment 'slow/slow'.\n"
    shown = deployed.read("deployment", "inspect", "slow")
    assert shown["job_variables"] == {"grace_seconds": 9, "stream_output": False}
    assert "grace" in deployed.refused("deployment", "set-job-variable", "slow", "grace=1")
    assert "NAME=VALUE" in deployed.refused("deployment", "set-job-variable", "slow", "x", code=2)


def test_a_deployment_is_found_by_key_name_and_id(deployed: Cli) -> None:
    shown = deployed.read("deployment", "inspect", "greet/hello")

    for ref in ("hello", shown["id"], shown["id"][:8]):
        assert deployed.read("deployment", "inspect", ref) == shown
    assert "did you mean" in (line := deployed.refused("deployment", "inspect", "helo")) or "known" in line


def test_a_deployment_is_deleted_and_its_runs_stay(deployed: Cli) -> None:
    deployed.ok("deployment", "run", "hello")

    assert deployed.ok("deployment", "delete", "hello").out == "Deleted deployment 'greet/hello'.\n"
    assert "does not exist" in deployed.refused("deployment", "delete", "hello")
    assert len(deployed.read("flow-run", "ls")) == 1


def test_deployments_are_listed_by_pool(deployed: Cli) -> None:
    deployed.ok("work-pool", "create", "other", "-t", "process")

    assert len(deployed.read("deployment", "ls", "-p", "local")) == 3
    assert deployed.read("deployment", "ls", "--pool", "other") == []
    assert "does not exist" in deployed.refused("deployment", "ls", "-p", "x")
