"""Write `docs/cli.md`: the help of every command. `--check` compares instead, and fails when it is out of date."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from push_pools.cli.main import COMMANDS, app

if TYPE_CHECKING:
    from collections.abc import Iterator

TARGET = Path(__file__).parents[1] / "docs" / "cli.md"
WIDTH = 100
INTRO = """\
# The `push-pools` command

<!-- Written by scripts/make_cli_docs.py; a test compares. -->

Everything is kept in the home directory, `PUSH_POOLS_HOME` (default `~/.push-pools`); commands and the server may
use it at the same time. Arguments take an id, a unique prefix of it, or a name.

- **Output.** Every command that reads takes `-o table|json|yaml`. Tables are drawn on a terminal and plain aligned
  text elsewhere. `NO_COLOR` is honoured.
- **Exit codes.** 0: done. 1: an error, one line on standard error that names the thing and the fix. 2: wrong usage.
  130: Ctrl-C. `flow-run watch` and `--watch` exit 0 only when the run is Completed.
- **Pairs.** In `--param NAME=VALUE` and `--job-variable NAME=VALUE` a value that is JSON is that value (`n=3`,
  `on=true`), and any other is text (`region=eu`).
- **Secrets** are never taken from the command line: `block create` reads a file, or standard input for `-`.
- There is no worker: `push-pools serve` submits the runs of every pool by itself.
- `PUSH_POOLS_DEBUG=1` shows the traceback of an unforeseen error.
"""


def cli_docs() -> str:
    """Return the whole page."""
    root = typer.main.get_command(app)
    context = _context(root, "push-pools", None)
    parts = [INTRO, _help(root, context)]
    for name in COMMANDS:
        command = root.get_command(context, name)  # type: ignore[attr-defined] # The root is a group.
        if not command.hidden:
            parts += _pages(command, name, context, level=2)
    return "\n".join(parts)


def _pages(command: Any, name: str, parent: Any, level: int) -> Iterator[str]:
    context = _context(command, name, parent)
    yield f"{'#' * level} `{context.command_path}`\n"
    yield _help(command, context)
    for sub in getattr(command, "commands", {}):
        yield from _pages(command.get_command(context, sub), sub, context, level + 1)


def _context(command: Any, name: str, parent: Any) -> Any:
    settings = {**command.context_settings, "terminal_width": WIDTH}
    return command.context_class(command, info_name=name, parent=parent, **settings)


def _help(command: Any, context: Any) -> str:
    return f"```text\n{command.get_help(context)}\n```\n"


def main() -> int:
    """Write or check the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only compare")
    page = cli_docs()
    if not parser.parse_args().check:
        TARGET.write_text(page, encoding="utf-8")
        return 0
    if TARGET.read_text(encoding="utf-8") == page:
        return 0
    print("docs/cli.md is out of date; run python scripts/make_cli_docs.py", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
