"""`push-pools work-queue`: the ordered lanes inside a work pool."""

from __future__ import annotations

from typing import Annotated

import typer

from push_pools.cli.base import confirm, noun, opened
from push_pools.cli.coming import Hours, show_coming
from push_pools.cli.output import Format, Output, print_list, print_record, say

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
) -> None:
    """Create a queue in a work pool."""
    from push_pools.cli.find import find_pool
    from push_pools.services.catalogue import create_work_queue

    with opened() as home:
        queue = create_work_queue(home, find_pool(home, pool).name, name, priority=priority, description=description)
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
    rows = [(queue.work_pool, queue.name, queue.priority, str(queue.id), queue.description) for queue in queues]
    data = [queue.model_dump(mode="json") for queue in queues]
    print_list(data, output, ("pool", "name", "priority", "id", "description"), rows)


@app.command()
def inspect(ref: Ref, pool: Pool = None, output: Output = Format.TABLE) -> None:
    """Show a queue."""
    from push_pools.cli.find import find_queue

    with opened() as home:
        queue = find_queue(home, ref, pool)
    print_record(queue.model_dump(mode="json"), output)


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
