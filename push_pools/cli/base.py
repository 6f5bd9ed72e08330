"""What every noun's file begins with: its group of commands, and the opened home."""

from __future__ import annotations

import contextlib
import difflib
import logging
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from push_pools.ports import App
    from push_pools.settings import Settings

PLAIN: Final[dict[str, Any]] = {
    "add_completion": False,
    "rich_markup_mode": None,
    "pretty_exceptions_enable": False,
    "context_settings": {"help_option_names": ["-h", "--help"], "max_content_width": 100},
}
"""What all of our groups are made with: plain help, because rich takes as long to load as everything else together."""


class SuggestingGroup(TyperGroup):
    """A group whose answer to a mistyped command is the nearest one."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        known = self.list_commands(ctx)
        if args and args[0] not in known and not args[0].startswith("-"):
            close = difflib.get_close_matches(args[0], known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(known)}"
            ctx.fail(f"there is no command {args[0]!r}; {hint}")
        return super().resolve_command(ctx, args)


def noun(help_: str) -> typer.Typer:
    """Return a group of commands; the sentence is its help."""
    return typer.Typer(cls=SuggestingGroup, help=help_, no_args_is_help=True, **PLAIN)


def verb() -> typer.Typer:
    """Return what holds a single command, which then needs no name of its own."""
    return typer.Typer(**PLAIN)


def settings() -> Settings:
    """Return what the environment says."""
    from push_pools.settings import Settings

    return Settings.from_environ(os.environ)


@contextlib.contextmanager
def opened() -> Iterator[App]:
    """Open the home, or the installation on AWS if one is named, for one command; close it however that ends."""
    from push_pools.bootstrap import embedded, open_aws

    silence()
    given = settings()
    if given.aws_table is not None:
        app = open_aws(given)
        try:
            yield app
        finally:
            app.store.close()
        return
    with embedded(given) as home:
        yield home.app


def silence() -> None:
    """Keep log lines off stderr, where Python prints warnings that nobody handles; a command answers for itself."""
    ours = logging.getLogger("push_pools")
    if not ours.handlers:
        ours.addHandler(logging.NullHandler())


def note_unless_served(what: str) -> None:
    """Say on stderr that nobody serves the home, so that a run which only waits is no riddle."""
    from push_pools.cli.output import note
    from push_pools.server.home import is_served

    given = settings()
    if given.aws_table is None and not is_served(given.home):
        note(f"{what}: no server is running on this home; start `push-pools serve`")


def confirm(question: str, yes: bool) -> None:
    """Ask whoever sits at a terminal; scripts mean what they say."""
    if not yes and sys.stdin.isatty() and sys.stdout.isatty():
        typer.confirm(question, abort=True)
