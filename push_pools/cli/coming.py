"""Shows the coming runs of a pool or queue, for `work-pool preview` and `work-queue preview`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from push_pools.cli.output import Format, note, print_list

if TYPE_CHECKING:
    from push_pools.domain.pools import WorkPool, WorkQueue
    from push_pools.ports import App

Hours = Annotated[float, typer.Option("--hours", metavar="N", help="How many hours to look ahead.")]


def show_coming(home: App, pool: WorkPool, queue: WorkQueue | None, hours: float, output: Format) -> None:
    """Print the coming runs, the first one first."""
    from push_pools.services.coming import MOST, coming_runs

    found = coming_runs(home, pool.name, work_queue=queue.name if queue else None, hours=hours)
    rows = [
        (
            each.due,
            f"{each.scheduled_time:%Y-%m-%d %H:%M:%S}Z",
            each.deployment,
            each.work_queue,
            each.run.name if each.run else "",
            each.run.state.name if each.run else "",
            each.note,
        )
        for each in found
    ]
    columns = ("due", "scheduled (UTC)", "deployment", "queue", "run", "state", "note")
    print_list([each.as_listed() for each in found], output, columns, rows)
    if len(found) == MOST:
        note(f"only the first {MOST} are shown; look less far ahead with --hours")
    for record, what in ((pool, "work pool"), (queue, "work queue")):
        if record is not None and record.is_paused:
            note(f"{what} {record.key!r} is paused; these runs will wait until it is resumed")
