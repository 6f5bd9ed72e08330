"""The `push-pools` command: finds the subcommand, and turns every error into one line and an exit code.

Nothing is imported here that `push-pools --help` does not need; the nouns are loaded on use.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any, Final, NamedTuple

import typer

from push_pools.cli.base import PLAIN, SuggestingGroup

UsageError: Final = typer.BadParameter.__bases__[0]
"""Raised by typer for a command line that cannot be read; typer has no public name for it."""
DEBUG: Final = "PUSH_POOLS_DEBUG"
"""Set to anything, it shows the traceback of an unforeseen error."""


class Entry(NamedTuple):
    """Where a command lives, and its line in the help; a test compares the line with the command's own."""

    module: str
    attribute: str
    help: str
    hidden: bool = False


COMMANDS: Final = {
    "work-pool": Entry("work_pool", "app", "Work pools: places where jobs run."),
    "work-queue": Entry("work_queue", "app", "Work queues: ordered lanes inside a work pool."),
    "block": Entry("block", "app", "Blocks: typed configuration, mostly credentials; secrets are encrypted."),
    "variable": Entry("variable", "app", "Variables: named JSON values that templates may use. Not for secrets."),
    "deploy": Entry("deploy", "app", "Make pools, queues and deployments what a file says."),
    "deployment": Entry("deployment", "app", "Deployments: what runs, where, and with which parameters."),
    "flow-run": Entry("flow_run", "app", "Flow runs: what was asked for, and what became of it."),
    "event": Entry("event", "app", "Events: ask for runs by messages, as a cloud scheduler does."),
    "dlq": Entry("dlq", "app", "Dead letters: events that could not be handled, with the reason."),
    "doctor": Entry(
        "doctor", "app", "Look for what is wrong with the home, and say what to do; exit 1 if anything is red."
    ),
    "serve": Entry("serve", "serve_app", "Serve the home: submit, watch and finish runs until told to stop."),
    "dev": Entry("serve", "dev_app", "Serve the home and show its runs in a live table."),
    "demo": Entry("demo", "app", "Show the service at work, and check its promises, in less than 20 seconds."),
    "worker": Entry("worker", "app", "There is no worker; says what takes its place.", hidden=True),
}


class LazyGroup(SuggestingGroup):
    """A group that knows its commands from a table and imports only the one that is used."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        module = importlib.import_module(f"push_pools.cli.{entry.module}")
        command = typer.main.get_command(getattr(module, entry.attribute))
        command.name, command.hidden = cmd_name, entry.hidden
        return command

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in COMMANDS.items() if not entry.hidden])


app = typer.Typer(
    cls=LazyGroup,
    no_args_is_help=True,
    **{**PLAIN, "add_completion": True},
)


def _version(wanted: bool) -> None:
    if wanted:
        from push_pools import __version__

        typer.echo(f"push-pools {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Turn scheduled runs into exactly one container job per attempt, on clouds that you own, without a worker.

    \b
    Everything is kept in the home directory PUSH_POOLS_HOME, by default ~/.push-pools.
    Begin with `push-pools demo`; then `push-pools deploy FILE` and `push-pools serve`.
    """


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, 1 for an error, 2 for wrong usage, 130 for Ctrl-C."""
    try:
        code = _run(args)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return _unread()
    except Exception as error:
        return _report(error)
    return code


def _run(args: Sequence[str] | None) -> int:
    command = typer.main.get_command(app)
    code = command.main(args=args, prog_name="push-pools", standalone_mode=False)
    return code if isinstance(code, int) else 0


def _unread() -> int:
    """Whoever read our output has gone (`| head`): that is no news to anybody, at exit either."""
    with contextlib.suppress(OSError, ValueError):  # A test's stdout has no file.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    return 1


def _report(error: Exception) -> int:
    if isinstance(error, typer.Abort):
        return _say(["stopped"], 1)
    if isinstance(error, UsageError):
        return _usage(error)
    if os.environ.get(DEBUG):
        import traceback

        traceback.print_exception(error, file=sys.stderr)
    return _say(_sentences(error), 1)


def _usage(error: Any) -> int:
    if type(error).__name__ == "NoArgsIsHelpError":
        typer.echo(error.format_message())
        return 0
    text = " ".join(str(error.message if error.ctx is None else error.format_message()).split()).rstrip(".")
    if error.ctx is None or "--help" in text:
        return _say([text], 2)
    return _say([f"{text} (see `{error.ctx.command_path} --help`)"], 2)


def _sentences(error: Exception) -> Sequence[str]:
    from pydantic import ValidationError

    from push_pools.domain.errors import InvalidConfig, PushPoolsError

    if isinstance(error, InvalidConfig):
        return [str(each) for each in getattr(error, "problems", ())] or [str(error)]
    if isinstance(error, PushPoolsError):
        return [str(error)]
    if isinstance(error, ValidationError):
        return ["; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())]
    hint = "" if os.environ.get(DEBUG) else f"; set {DEBUG}=1 for the traceback"
    return [f"unforeseen {type(error).__name__}: {error}{hint}"]


def _say(sentences: Sequence[str], code: int) -> int:
    for sentence in sentences:
        print("Error:", " ".join(sentence.split()), file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
