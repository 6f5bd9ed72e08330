"""`push-pools work-queue`: the ordered lanes inside a work pool."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from push_pools.cli.base import confirm, noun, opened
from push_pools.cli.coming import Hours, show_coming
from push_pools.cli.output import Format, Output, limit_text, print_record, print_records, say, status_text

if TYPE_CHECKING:
    from push_pools.domain.pools import WorkQueue

app = noun("Work queues: ordered lanes inside a work pool.")

Ref = Annotated[str, typer.Argument(metavar="QUEUE", help="Name of the queue, POOL/NAME, or its id.")]
Pool = Annotated[
    str | None,
    typer.Option("--pool", "-p", metavar="POOL", help="Work pool; needed where the name alone is not clear."),
]


@app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the new queue.")],
    pool: Annotated[str, typer.Option("--pool", "-p", metavar="POOL", help="Work pool of the queue.")],
    priority: Annotated[
        int | None, typer.Option("--priority", help="1 is served first; by default the queue comes last.")
    ] = None,
    description: Annotated[str, typer.Option(metavar="TEXT", help="What the queue is for.")] = "",
    concurrency_limit: Annotated[
        int | None,
        typer.Option("--concurrency-limit", metavar="N", help="Most runs active at once; 0 holds every run."),
    ] = None,
) -> None:
    """Create a queue in a work pool."""
    from push_pools.cli.find import find_pool
    from push_pools.services.catalogue import create_work_queue

    with opened() as home:
        queue = create_work_queue(
            home,
            find_pool(home, pool).name,
            name,
            priority=priority,
            description=description,
            concurrency_limit=concurrency_limit,
        )
    say(f"Created work queue {queue.key!r} with priority {queue.priority}.")


@app.command()
def ls(
    pool: Annotated[str | None, typer.Option("--pool", "-p", metavar="POOL", help="Only queues of this pool.")] = None,
    output: Output = Format.TABLE,
) -> None:
    """List the queues, in the order in which they are served."""
    from push_pools.cli.find import find_pool
    from push_pools.services.catalogue import list_work_queues

    with opened() as home:
        queues = list_work_queues(home, find_pool(home, pool).name if pool is not None else None)
    rows = [
        (
            queue.work_pool,
            queue.name,
            queue.priority,
            limit_text(queue),
            status_text(queue),
            str(queue.id),
            queue.description,
        )
        for queue in queues
    ]
    columns = ("pool", "name", "priority", "limit", "status", "id", "description")
    print_records([_listed(queue) for queue in queues], output, columns, rows, queues)


def _listed(queue: WorkQueue) -> dict[str, Any]:
    return queue.model_dump(mode="json", exclude={"limit_epoch"})


@app.command()
def inspect(ref: Ref, pool: Pool = None, output: Output = Format.TABLE) -> None:
    """Show a queue."""
    from push_pools.cli.find import find_queue

    with opened() as home:
        queue = find_queue(home, ref, pool)
    print_record(_listed(queue), output)


@app.command()
def preview(ref: Ref, pool: Pool = None, hours: Hours = 1.0, output: Output = Format.TABLE) -> None:
    """List the coming runs of a queue: those planned, and those that its schedules will plan."""
    from push_pools.cli.find import find_pool, find_queue

    with opened() as home:
        queue = find_queue(home, ref, pool)
        show_coming(home, find_pool(home, queue.work_pool), queue, hours, output)


@app.command("set-priority")
def set_priority(
    ref: Ref,
    priority: Annotated[int, typer.Argument(metavar="PRIORITY", help="1 is served first.")],
    pool: Pool = None,
) -> None:
    """Set a queue's place in the order of its pool."""
    from push_pools.cli.find import find_queue
    from push_pools.services.catalogue import update_work_queue

    with opened() as home:
        queue = find_queue(home, ref, pool)
        queue = update_work_queue(home, queue.work_pool, queue.name, priority=priority)
    say(f"Work queue {queue.key!r} has priority {queue.priority}.")


@app.command()
def pause(
    ref: Ref,
    pool: Pool = None,
    note: Annotated[str, typer.Option(metavar="TEXT", help="Why; runs that wait show it.")] = "",
) -> None:
    """Hold the runs of a queue that are not submitted yet; the others carry on."""
    from push_pools.cli.find import find_queue
    from push_pools.services.catalogue import pause_work_queue

    with opened() as home:
        queue = find_queue(home, ref, pool)
        pause_work_queue(home, queue.work_pool, queue.name, note=note)
    say(f"Paused work queue {queue.key!r}.")


@app.command()
def resume(ref: Ref, pool: Pool = None) -> None:
    """Serve a paused queue again; the runs that waited go first."""
    from push_pools.cli.find import find_queue
    from push_pools.services.catalogue import resume_work_queue

    with opened() as home:
        queue = find_queue(home, ref, pool)
        resume_work_queue(home, queue.work_pool, queue.name)
    say(f"Resumed work queue {queue.key!r}.")


@app.command("set-concurrency-limit")
def set_concurrency_limit(
    ref: Ref,
    limit: Annotated[int, typer.Argument(metavar="N", help="Most runs active at once; 0 holds every run.")],
    pool: Pool = None,
) -> None:
    """Limit how many runs of a queue are active at once; a lower limit waits for runs to end."""
    from push_pools.cli.find import find_queue
    from push_pools.services.catalogue import update_work_queue

    with opened() as home:
        queue = find_queue(home, ref, pool)
        update_work_queue(home, queue.work_pool, queue.name, concurrency_limit=limit)
    say(f"Work queue {queue.key!r} has a limit of {limit}.")


@app.command("clear-concurrency-limit")
def clear_concurrency_limit(ref: Ref, pool: Pool = None) -> None:
    """Remove the limit of a queue; that of its pool stays."""
    from push_pools.cli.find import find_queue
    from push_pools.services.catalogue import update_work_queue

    with opened() as home:
        queue = find_queue(home, ref, pool)
        update_work_queue(home, queue.work_pool, queue.name, concurrency_limit=None)
    say(f"Work queue {queue.key!r} has no limit.")


@app.command()
def delete(
    ref: Ref, pool: Pool = None, yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False
) -> None:
    """Delete a queue; refused while deployments or unfinished runs use it."""
    from push_pools.cli.find import find_queue
    from push_pools.services.catalogue import delete_work_queue

    with opened() as home:
        queue = find_queue(home, ref, pool)
        confirm(f"Delete work queue {queue.key!r}?", yes)
        delete_work_queue(home, queue.work_pool, queue.name)
    say(f"Deleted work queue {queue.key!r}.")
