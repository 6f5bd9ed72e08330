"""How the command finds its subcommands, and how it ends when something is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
import typer

from push_pools.cli import main as main_module
from push_pools.cli.main import COMMANDS, LazyGroup, main
from push_pools.domain.config import InvalidConfigFile
from push_pools.domain.errors import InvalidConfig, NotFound

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.runner import Cli

PYTHON = sys.executable


def command(*words: str, home: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PUSH_POOLS_HOME": str(home), **options.pop("env", {})}
    return subprocess.run(
        [PYTHON, "-m", "push_pools.cli.main", *words],
        env=environ, capture_output=True, text=True, timeout=60, check=False, **options,
    )  # fmt: skip


def real_command(name: str) -> Any:
    return LazyGroup(name="x").get_command(None, name)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_static_help_line_of_a_command_is_the_first_of_its_own_help(name: str) -> None:
    own = real_command(name)

    assert own.name == name
    assert own.help.splitlines()[0] == COMMANDS[name].help
    assert own.hidden == COMMANDS[name].hidden


def test_help_names_every_visible_command_and_no_hidden_one(cli: Cli) -> None:
    listed = cli.ok("--help").out.partition("Commands:")[2]

    for name, entry in COMMANDS.items():
        assert (f"\n  {name} " in listed) != entry.hidden


def test_without_words_the_help_is_printed(cli: Cli) -> None:
    assert cli.ok().out == cli.ok("--help").out == cli.ok("-h").out


def test_a_group_without_a_command_prints_its_help(cli: Cli) -> None:
    assert cli.ok("flow-run").out == cli.ok("flow-run", "--help").out


def test_version(cli: Cli) -> None:
    from push_pools import __version__

    assert cli.ok("--version").out == f"push-pools {__version__}\n"


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("flow-runs",), "there is no command 'flow-runs'; did you mean 'flow-run'?"),
        (("xyzzy",), "there is no command 'xyzzy'; there are: work-pool"),
        (("flow-run", "cancle"), "there is no command 'cancle'; did you mean 'cancel'?"),
        (("flow-run", "xyzzy"), "there is no command 'xyzzy'; there are: ls, inspect"),
        (("flow-run", "ls", "--limt", "3"), "No such option: --limt"),
        (("flow-run", "ls", "--limit", "0"), "Invalid value for '--limit'"),
        (("flow-run", "inspect"), "Missing argument"),
        (("flow-run", "ls", "-o", "xml"), "Invalid value for '--output'"),
        (("--wrong",), "No such option: --wrong"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(cli: Cli, words: tuple[str, ...], hint: str) -> None:
    line = cli.refused(*words, code=2)

    assert line.startswith(hint)
    assert line.endswith("--help`)")


def test_there_is_no_worker(cli: Cli) -> None:
    line = cli.refused("worker", "start", "--pool", "nightly", "-x")

    assert "no worker" in line
    assert "push-pools serve" in line


class Broken:
    """Makes a command fail with an error of choice."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.error: BaseException = RuntimeError()
        monkeypatch.setitem(COMMANDS, "broken", main_module.Entry("worker", "app", "Fails."))
        monkeypatch.setattr(LazyGroup, "get_command", lambda *_: self._command())

    def _command(self) -> Any:
        app = typer.Typer(add_completion=False, rich_markup_mode=None)

        @app.command()
        def broken() -> None:
            raise self.error

        return typer.main.get_command(app)


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Broken:
    return Broken(monkeypatch)


def test_an_error_of_ours_is_its_sentence(cli: Cli, broken: Broken) -> None:
    broken.error = NotFound("work pool", "nightly", ["daily"])

    assert cli.refused("broken") == "work pool 'nightly' does not exist; known: daily"


def test_an_error_with_line_breaks_is_one_line(cli: Cli, broken: Broken) -> None:
    broken.error = NotFound("work pool", "x", fix="first\n  second")

    assert cli.refused("broken") == "work pool 'x' does not exist; first second"


def test_a_file_with_problems_is_a_line_each(cli: Cli, broken: Broken) -> None:
    broken.error = InvalidConfigFile([InvalidConfig("f", "one", line=1, column=2), InvalidConfig("f", "two", line=3)])

    ran = cli("broken")

    assert (ran.code, ran.out) == (1, "")
    assert ran.err == "Error: f:1:2: one\nError: f:3: two\n"


def test_an_unforeseen_error_is_one_line_and_says_how_to_see_more(cli: Cli, broken: Broken) -> None:
    broken.error = ZeroDivisionError("oh")

    assert cli.refused("broken") == "unforeseen ZeroDivisionError: oh; set PUSH_POOLS_DEBUG=1 for the traceback"


def test_with_debug_the_traceback_is_shown(cli: Cli, broken: Broken) -> None:
    broken.error = ZeroDivisionError("oh")

    ran = cli("broken", PUSH_POOLS_DEBUG="1")

    assert ran.code == 1
    assert "Traceback" in ran.err
    assert ran.err.endswith("Error: unforeseen ZeroDivisionError: oh\n")


def test_a_model_that_refuses_a_value_names_it(cli: Cli, broken: Broken) -> None:
    from pydantic import ValidationError

    from push_pools.domain.events import ScheduledRun

    with pytest.raises(ValidationError) as caught:
        ScheduledRun(deployment="a/b", tags=("",))
    broken.error = caught.value

    assert cli.refused("broken").startswith("tags.0: String should have at least 1 character")


def test_ctrl_c_exits_130(cli: Cli, broken: Broken) -> None:
    broken.error = KeyboardInterrupt()

    assert cli("broken").code == 130


def test_a_broken_pipe_without_a_file_is_quiet_too(cli: Cli, broken: Broken) -> None:
    broken.error = BrokenPipeError()

    ran = cli("broken")

    assert (ran.code, ran.out, ran.err) == (1, "", "")


def test_an_aborted_prompt_exits_1(cli: Cli, broken: Broken) -> None:
    broken.error = typer.Abort()

    assert cli.refused("broken") == "stopped"


def test_a_setting_that_is_wrong_is_one_line(cli: Cli) -> None:
    assert "PUSH_POOLS_WORKERS" in cli.refused("flow-run", "ls", PUSH_POOLS_WORKERS="many")
    assert "PUSH_POOLS_HOEM" in cli.refused("flow-run", "ls", PUSH_POOLS_HOEM="x")


def test_a_home_that_cannot_be_made_is_one_line(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    assert "cannot be made" in cli.refused("flow-run", "ls", PUSH_POOLS_HOME=str(tmp_path / "file" / "home"))


# -- as a process


def test_the_real_command_prints_its_errors_on_stderr(tmp_path: Path) -> None:
    ran = command("flow-run", "inspect", "nobody", home=tmp_path)

    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr == "Error: flow run 'nobody' does not exist; see `push-pools flow-run ls`\n"


def test_a_reader_that_goes_away_is_no_news(tmp_path: Path) -> None:
    script = f"'{PYTHON}' -m push_pools.cli.main --help | true; '{PYTHON}' -m push_pools.cli.main flow-run ls | true"
    environ = {**os.environ, "PUSH_POOLS_HOME": str(tmp_path), "PYTHONUNBUFFERED": "1"}

    ran = subprocess.run(["sh", "-c", script], env=environ, capture_output=True, text=True, timeout=60, check=False)

    assert ran.stderr == ""


@pytest.mark.parametrize("unbuffered", ["1", ""])
def test_a_broken_pipe_is_no_news(tmp_path: Path, unbuffered: str) -> None:
    """With a buffer, the answer is short enough to stay there until the end."""
    reading, writing = os.pipe()
    os.close(reading)

    ran = subprocess.run(
        [PYTHON, "-m", "push_pools.cli.main", "variable", "ls"],
        env={**os.environ, "PUSH_POOLS_HOME": str(tmp_path), "PYTHONUNBUFFERED": unbuffered},
        stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60, check=False,
    )  # fmt: skip
    os.close(writing)

    assert (ran.returncode, ran.stderr) == (1, "")


def test_the_log_lines_of_the_services_are_not_for_whoever_gives_a_command(deployed: Cli) -> None:
    words = ("deployment", "run", "hello", "--idempotency-key", "k", "--param")
    command(*words, "n=1", home=deployed.home)

    ran = command(*words, "n=2", home=deployed.home)  # Another body under the same key is worth a warning.

    assert ran.returncode == 0
    assert [line.split(":")[0] for line in ran.stderr.splitlines()] == ["Note"]


HEAVY = ("pydantic", "boto3", "botocore", "yaml", "rich.console", "sqlite3", "cryptography")


def test_help_imports_nothing_that_it_does_not_need() -> None:
    code = (
        "import sys; from push_pools.cli.main import main; main(['--help']); "
        f"print([m for m in {HEAVY!r} if m in sys.modules], "
        "[m for m in sys.modules if m.startswith('push_pools.') and not m.startswith('push_pools.cli')])"
    )

    ran = subprocess.run([PYTHON, "-c", code], capture_output=True, text=True, timeout=60, check=True)

    assert ran.stdout.splitlines()[-1] == "[] []"


def test_help_of_a_noun_imports_no_cloud() -> None:
    code = (
        "import sys; from push_pools.cli.main import main\n"
        f"for name in {list(COMMANDS)!r}: main([name, '--help'])\n"
        f"print([m for m in {HEAVY[1:]!r} if m in sys.modules])"  # typer itself may use pydantic for arguments.
    )

    ran = subprocess.run([PYTHON, "-c", code], capture_output=True, text=True, timeout=60, check=True)

    assert ran.stdout.splitlines()[-1] == "[]"


def test_ctrl_c_of_the_real_command() -> None:
    code = (
        "import sys, signal, os, time\n"
        "from push_pools.cli import main as m, flow_run\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # Background jobs of a shell ignore it.
        "flow_run.opened = lambda: (os.kill(os.getpid(), signal.SIGINT), time.sleep(30))\n"
        "sys.exit(m.main(['flow-run', 'ls']))\n"
    )

    begun = time.monotonic()
    ran = subprocess.run([PYTHON, "-c", code], capture_output=True, text=True, timeout=60, check=False)

    assert (ran.returncode, ran.stdout, ran.stderr) == (130, "", "")
    assert time.monotonic() - begun < 20


def test_main_reads_the_arguments_of_the_process(capsys: pytest.CaptureFixture[str]) -> None:
    with mock.patch.object(sys, "argv", ["push-pools", "--version"]):
        assert main() == 0

    assert capsys.readouterr().out.startswith("push-pools ")


def test_json_is_readable_by_anything(cli: Cli) -> None:
    assert json.loads(cli.ok("flow-run", "ls", "-o", "json").out) == []
