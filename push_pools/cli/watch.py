"""Follows one run to its end: live on a terminal, a line per state elsewhere."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import typer

from push_pools.cli.output import console, is_terminal, plain, say, state_cell, table

if TYPE_CHECKING:
    from rich.console import Group

    from push_pools.domain.runs import FlowRun
    from push_pools.ports import App

POLL_SECONDS: Final = 0.1
"""How often the ledger is read."""
STORY_LINES: Final = 12
"""How much of a run's story a terminal shows while it goes on."""


def watch_run(app: App, run: FlowRun) -> None:
    """Show a run until it is over; exit 1 unless it is Completed."""
    judge(_live(app, run) if is_terminal() else _lines(app, run))


def wait_for_run(app: App, run: FlowRun) -> FlowRun:
    """Wait until a run is over, show nothing, and return it."""
    while not run.is_final:
        time.sleep(POLL_SECONDS)
        run = app.store.get_run(run.id)
    return run


def judge(run: FlowRun) -> None:
    """Exit 1 unless the run is Completed."""
    if run.state.name != "Completed":
        raise typer.Exit(1)


def _lines(app: App, run: FlowRun) -> FlowRun:
    shown: tuple[str, int] | None = None
    while True:
        now = (run.state.name, run.attempt)
        if now != shown:
            shown = now
            attempt = f" (attempt {run.attempt})" if run.attempt > 1 else ""
            message = f": {plain(run.state.message)}" if run.state.message else ""
            say(f"{run.state.timestamp.astimezone():%H:%M:%S}  {plain(run.name)}  {run.state.name}{attempt}{message}")
            flush()
        if run.is_final:
            return run
        time.sleep(POLL_SECONDS)
        run = app.store.get_run(run.id)


def _live(app: App, run: FlowRun) -> FlowRun:
    from rich.live import Live

    with Live(_picture(app, run), console=console(), auto_refresh=False) as live:
        while not run.is_final:
            time.sleep(POLL_SECONDS)
            run = app.store.get_run(run.id)
            live.update(_picture(app, run), refresh=True)
    return run


def _picture(app: App, run: FlowRun) -> Group:
    from rich.console import Group
    from rich.text import Text

    from push_pools.services.explain import explain_run

    story = explain_run(run, app.clock.now())
    rows = [(f"{line.at.astimezone():%H:%M:%S}", line.text) for line in story.lines[-STORY_LINES:]]
    state = state_cell(run.state.type, run.state.name)
    ending = run.state.message if run.is_final else f"waits for {story.waits_for}"
    head = Text.assemble((plain(run.name), "bold"), "  ", (str(state), state.style), "  ", plain(ending))
    return Group(head, table((), rows))


def flush() -> None:
    """Show what was printed so far to whoever reads along."""
    import sys

    sys.stdout.flush()
