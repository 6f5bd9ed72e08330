"""How commands print: every read in every format, on a terminal and into a pipe."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
import yaml

from push_pools.cli.output import plain
from tests.cli.test_flow_run import put

if TYPE_CHECKING:
    from tests.cli.runner import Cli

READS = [
    ("work-pool", "ls"),
    ("work-pool", "inspect", "local"),
    ("work-pool", "types"),
    ("work-pool", "get-default-base-job-template", "-t", "process"),
    ("work-queue", "ls"),
    ("work-queue", "inspect", "urgent"),
    ("block", "ls"),
    ("block", "inspect", "secret/token"),
    ("block", "type", "ls"),
    ("block", "type", "inspect", "secret"),
    ("variable", "ls"),
    ("variable", "get", "n"),
    ("deployment", "ls"),
    ("deployment", "inspect", "hello"),
    ("deployment", "preview", "hello"),
    ("flow-run", "ls"),
    ("flow-run", "inspect", "mine"),
    ("flow-run", "why", "mine"),
    ("dlq", "ls"),
]


@pytest.fixture
def full(deployed: Cli) -> Cli:
    """The command on a home with one of everything."""
    deployed.ok("block", "create", "secret/token", "--data", "-", stdin='{"value": "canary"}')
    deployed.ok("variable", "set", "n", "3")
    put(deployed, "hello", "--flow-run-name", "mine")
    return deployed


def test_every_read_prints_json_yaml_and_a_table(full: Cli) -> None:
    for words in READS:
        as_json = json.loads(full.ok(*words, "-o", "json").out)
        as_yaml = yaml.safe_load(full.ok(*words, "--output", "yaml").out)
        if words[1] not in ("why", "preview"):  # These tell the time.
            assert as_yaml == as_json, words
        assert full.ok(*words, "-o", "table").out, words


def test_a_table_in_a_pipe_is_plain_aligned_text(full: Cli) -> None:
    full.ok("work-pool", "create", "longer-name", "-t", "process")

    lines = full.ok("work-pool", "ls").out.splitlines()

    assert [line.split()[:3] for line in lines] == [
        ["name", "type", "status"],
        ["local", "process", "NOT_READY"],
        ["longer-name", "process", "NOT_READY"],
    ]
    assert len({line.index("process") for line in lines[1:]} | {lines[0].index("type")}) == 1
    assert all(line == line.rstrip() for line in lines)


def test_an_empty_list_is_an_empty_list(cli: Cli) -> None:
    assert cli.ok("variable", "ls", "-o", "json").out == "[]\n"
    assert cli.ok("variable", "ls", "-o", "yaml").out == "[]\n"
    assert cli.ok("variable", "ls").out.split() == ["name", "value", "tags", "updated"]


def test_a_cell_is_one_line_that_cannot_steer_a_terminal() -> None:
    assert plain("a\nb\x1b[31mc\x07") == "a b [31mc "
    assert plain(None) == plain({}) == plain([]) == ""
    assert (plain(True), plain(False)) == ("yes", "no")
    assert plain({"a": "é"}) == '{"a": "é"}'
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", plain(datetime.now(UTC)))


# -- on a terminal


def on_a_terminal(cli: Cli, *words: str, **environ: str) -> tuple[int, str]:
    """Run the real command on a terminal of 200 columns; return its exit code and what was seen."""
    ours, theirs = pty.openpty()
    clean = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR", "CI")}
    process = subprocess.Popen(
        [sys.executable, "-m", "push_pools.cli.main", *words], stdin=theirs, stdout=theirs, stderr=theirs,
        env={**clean, "PUSH_POOLS_HOME": str(cli.home), "TERM": "xterm-256color", "COLUMNS": "200", **environ},
    )  # fmt: skip
    os.close(theirs)
    seen, end = b"", time.monotonic() + 60
    while time.monotonic() < end:
        ready, _, _ = select.select([ours], [], [], 0.1)
        try:
            seen += os.read(ours, 65536) if ready else b""
        except OSError:  # The other end was closed.
            break
    os.close(ours)
    return process.wait(10), seen.decode()


def test_a_terminal_shows_colours_unless_told_not_to(full: Cli) -> None:
    code, coloured = on_a_terminal(full, "flow-run", "ls")
    _, bare = on_a_terminal(full, "flow-run", "ls", NO_COLOR="1")
    _, record = on_a_terminal(full, "flow-run", "inspect", "mine", NO_COLOR="1")

    assert code == 0
    assert re.search(r"\x1b\[33mScheduled", coloured)
    assert not re.search(r"\x1b\[3\dm", bare)
    assert "mine" in bare
    assert "greet/hello" in record


def test_what_a_user_wrote_is_not_taken_for_markup(full: Cli) -> None:
    put(full, "hello", "--flow-run-name", "[bold]x[/bold] [/]")

    assert "[bold]x[/bold] [/]" in on_a_terminal(full, "flow-run", "ls")[1]


def test_a_deploy_is_coloured_like_a_plan(full: Cli) -> None:
    _, seen = on_a_terminal(full, "deploy", str(full.home.parent / "push-pools.yaml"), "--dry-run")

    assert "\x1b[2m= deployment greet/hello\x1b[0m" in seen


def test_runs_are_shown_live_on_a_terminal(full: Cli) -> None:
    put(full, "bad")

    code, seen = on_a_terminal(full, "dev", "--until-idle", "--for", "30s")

    assert code == 0
    assert "Completed" in seen
    assert "\x1b[?25l" in seen  # The cursor is hidden while the table is redrawn.


def test_a_run_is_watched_live_on_a_terminal(full: Cli) -> None:
    full.ok("serve", "--until-idle", "--for", "30s")

    code, seen = on_a_terminal(full, "flow-run", "watch", "mine")

    assert code == 0
    assert "decided: Completed" in seen


def test_a_run_is_watched_live_while_it_goes_on(full: Cli) -> None:
    from tests.cli.test_flow_run import Serving

    with Serving(full):
        code, seen = on_a_terminal(full, "deployment", "run", "bad", "--watch")

    assert code == 1
    assert "decided: Failed" in seen
