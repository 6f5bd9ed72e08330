"""Shows the runs of a home while they change: a live table on a terminal, a line per change elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING, Final

from push_pools.cli.output import console, is_terminal, plain, say, state_cell, table
from push_pools.cli.watch import flush

if TYPE_CHECKING:
    from uuid import UUID

    from rich.live import Live
    from rich.table import Table

    from push_pools.domain.runs import FlowRun
    from push_pools.ports import App

REFRESH_SECONDS: Final = 0.1
"""How often the ledger is read."""
SHOWN_RUNS: Final = 20
"""How many of the newest runs a terminal shows."""
READ_RUNS: Final = 200
"""How many of the newest runs are looked at for changes."""


class RunsView:
    """A view of the newest runs. `update` it as often as you like; it reads the ledger when it is time."""

    def __init__(self, app: App, *, title: str | None = None) -> None:
        self._app, self._title = app, title
        self._live: Live | None = None
        self._shown: dict[UUID, tuple[str, int]] = {}
        self._next = 0.0

    def __enter__(self) -> RunsView:
        if is_terminal():
            from rich.live import Live

            self._live = Live(console=console(), auto_refresh=False)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.update(force=True)
        if self._live is not None:
            self._live.stop()

    def update(self, *, force: bool = False) -> None:
        """Show what has changed."""
        from push_pools.ports import RunFilter

        now = time.monotonic()
        if now < self._next and not force:
            return
        self._next = now + REFRESH_SECONDS
        runs = self._app.store.runs(RunFilter(), limit=READ_RUNS).runs
        if self._live is not None:
            self._live.update(self._table(runs), refresh=True)
        else:
            self._lines(runs)

    def _table(self, runs: tuple[FlowRun, ...]) -> Table:
        rows = [
            (
                str(run.id)[:8],
                run.name,
                run.work_pool,
                state_cell(run.state.type, run.state.name),
                f"{run.scheduled_time.astimezone():%H:%M:%S}",
                run.attempt,
                run.state.message[:60],
            )
            for run in runs[:SHOWN_RUNS]
        ]
        more = f"{len(runs) - SHOWN_RUNS} more" if len(runs) > SHOWN_RUNS else None
        made = table(("id", "run", "pool", "state", "due", "attempt", "message"), rows, title=self._title)
        made.caption = more
        return made

    def _lines(self, runs: tuple[FlowRun, ...]) -> None:
        changed = [run for run in runs if self._shown.get(run.id) != (run.state.name, run.attempt)]
        for run in sorted(changed, key=lambda run: run.state.timestamp):
            self._shown[run.id] = (run.state.name, run.attempt)
            attempt = f" (attempt {run.attempt})" if run.attempt > 1 else ""
            message = f": {plain(run.state.message)}" if run.state.message else ""
            say(f"{run.state.timestamp.astimezone():%H:%M:%S}  {plain(run.name)}  {run.state.name}{attempt}{message}")
        if changed:
            flush()
