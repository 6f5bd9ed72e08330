"""`docs/cli.md` is the help of every command, and every command has one."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import typer

from push_pools.cli.main import COMMANDS, app

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cli.runner import Cli

SCRIPT = Path(__file__).parents[2] / "scripts" / "make_cli_docs.py"
PAGE = Path(__file__).parents[2] / "docs" / "cli.md"
ROOT = typer.main.get_command(app)


def commands(command: Any = ROOT, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every visible command with its words."""
    if words:
        yield words, command
    if hasattr(command, "list_commands"):
        for name in command.list_commands(None):
            sub = command.get_command(None, name)
            if not sub.hidden:
                yield from commands(sub, (*words, name))


ALL = dict(commands())
EXPECTED = {
    "work-pool create|ls|inspect|preview|update|delete|types|get-default-base-job-template",
    "work-pool pause|resume|set-concurrency-limit|clear-concurrency-limit",
    "work-queue create|ls|inspect|preview|delete|set-priority",
    "work-queue pause|resume|set-concurrency-limit|clear-concurrency-limit",
    "block create|ls|inspect|delete|type",
    "variable set|get|ls|unset",
    "deployment run|ls|inspect|preview|pause|resume|delete|set-job-variable",
    "flow-run ls|inspect|why|logs|cancel|retry|watch",
    "event send",
    "dlq ls|show|replay",
}


def test_every_promised_command_is_there_and_no_other() -> None:
    expected: set[tuple[str, ...]] = {(name,) for name, entry in COMMANDS.items() if not entry.hidden}
    expected |= {("block", "type", "ls"), ("block", "type", "inspect")}
    schedule = ("create", "ls", "preview", "pause", "resume", "delete")
    expected |= {("deployment", "schedule"), *(("deployment", "schedule", verb) for verb in schedule)}
    for line in EXPECTED:
        noun, _, verbs = line.partition(" ")
        expected |= {(noun, verb) for verb in verbs.split("|")}

    assert set(ALL) == expected


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == runpy.run_path(str(SCRIPT))["cli_docs"](), f"run python {SCRIPT}"


def test_every_command_is_on_the_page() -> None:
    page = PAGE.read_text(encoding="utf-8")

    for words in ALL:
        assert f"# `push-pools {' '.join(words)}`\n" in page


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_every_command_explains_itself(cli: Cli, words: tuple[str, ...]) -> None:
    text = cli.ok(*words, "--help").out

    assert text.startswith(f"Usage: push-pools {' '.join(words)}")
    assert ALL[words].help
    assert ALL[words].help.rstrip().endswith(".")
    for parameter in ALL[words].params:
        assert getattr(parameter, "help", None), f"{words} {parameter.name} has no help"


def test_the_script_finds_an_old_page(tmp_path: Path) -> None:
    code = (
        f"import sys, runpy, pathlib; sys.argv = ['x', '--check']; m = runpy.run_path({str(SCRIPT)!r}); "
        f"old = pathlib.Path({str(tmp_path / 'cli.md')!r}); old.write_text('old'); "
        "m['main'].__globals__['TARGET'] = old; sys.exit(m['main']())"
    )

    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)

    assert ran.returncode == 1
    assert "out of date" in ran.stderr
    checked = subprocess.run([sys.executable, str(SCRIPT), "--check"], timeout=60, check=False)
    assert checked.returncode == 0
