"""`push-pools work-pool`: the places where jobs run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from push_pools.cli.base import confirm, noun, opened
from push_pools.cli.coming import Hours, show_coming
from push_pools.cli.inputs import pairs, read_object
from push_pools.cli.output import (
    Format,
    Output,
    limit_text,
    print_data,
    print_list,
    print_record,
    print_records,
    say,
    status_cell,
)

if TYPE_CHECKING:
    from push_pools.domain.pools import WorkPool
    from push_pools.ports import App, Platform

app = noun("Work pools: places where jobs run.")

Ref = Annotated[str, typer.Argument(metavar="POOL", help="Name of the work pool, or its id.")]
TemplateFile = Annotated[
    str | None,
    typer.Option("--base-job-template", metavar="FILE|-", help="The template, JSON or YAML; else the pool type's own."),
]
Variables = Annotated[
    list[str] | None,
    typer.Option("--variable", metavar="NAME=VALUE", help="A new default of a template's variable; may be repeated."),
]


@app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the new work pool.")],
    type_: Annotated[
        str, typer.Option("--type", "-t", metavar="TYPE", help="Pool type; `work-pool types` lists them.")
    ],
    base_job_template: TemplateFile = None,
    variable: Variables = None,
    description: Annotated[str, typer.Option(metavar="TEXT", help="What the pool is for.")] = "",
    concurrency_limit: Annotated[
        int | None,
        typer.Option("--concurrency-limit", metavar="N", help="Most runs active at once; 0 holds every run."),
    ] = None,
) -> None:
    """Create a work pool, with its queue `default`."""
    from push_pools.services.catalogue import create_work_pool

    variables = pairs(variable or [], "--variable")
    template = read_object(base_job_template, "a template") if base_job_template is not None else None
    with opened() as home:
        pool = create_work_pool(
            home,
            name,
            type_,
            base_job_template=template,
            variables=variables,
            description=description,
            concurrency_limit=concurrency_limit,
        )
    say(f"Created work pool {pool.name!r} of type {pool.type}.")


@app.command()
def ls(output: Output = Format.TABLE) -> None:
    """List the work pools, and whether their runs would be submitted now."""
    from push_pools.services.catalogue import list_work_pools, list_work_queues
    from push_pools.services.status import pool_status

    with opened() as home:
        pools = list_work_pools(home)
        queues = list_work_queues(home)
        states = [pool_status(home, pool) for pool in pools]
    rows = [
        (
            pool.name,
            pool.type,
            status_cell(each),
            limit_text(pool),
            sum(queue.work_pool == pool.name for queue in queues),
            str(pool.id),
            pool.description,
            each.reason,
        )
        for pool, each in zip(pools, states, strict=True)
    ]
    columns = ("name", "type", "status", "limit", "queues", "id", "description", "reason")
    data = [{**_listed(pool), **each.as_listed()} for pool, each in zip(pools, states, strict=True)]
    print_records(data, output, columns, rows, pools)


def _listed(pool: WorkPool) -> dict[str, Any]:
    return pool.model_dump(mode="json", exclude={"base_job_template", "limit_epoch"})


@app.command()
def inspect(ref: Ref, output: Output = Format.TABLE) -> None:
    """Show a work pool, its status and when it was last served, its queues and its template."""
    from push_pools.cli.find import find_pool
    from push_pools.services.catalogue import list_work_queues
    from push_pools.services.status import pool_status

    with opened() as home:
        pool = find_pool(home, ref)
        queues = list_work_queues(home, pool.name)
        status = pool_status(home, pool).as_inspected()
    shown = [{"name": queue.name, "priority": queue.priority} for queue in queues]
    more = {"work_queues": shown, "base_job_template": pool.base_job_template}
    print_record({**_listed(pool), **status, **more}, output)


@app.command()
def update(
    ref: Ref,
    base_job_template: TemplateFile = None,
    variable: Variables = None,
    description: Annotated[str | None, typer.Option(metavar="TEXT", help="What the pool is for.")] = None,
) -> None:
    """Change a work pool; runs that are not claimed yet use the new template."""
    from push_pools.cli.find import find_pool
    from push_pools.services.catalogue import update_work_pool

    if base_job_template is None and not variable and description is None:
        raise typer.BadParameter("there is nothing to change; give --base-job-template, --variable or --description")
    variables = pairs(variable or [], "--variable")
    template = read_object(base_job_template, "a template") if base_job_template is not None else None
    with opened() as home:
        name = find_pool(home, ref).name
        update_work_pool(home, name, base_job_template=template, variables=variables, description=description)
    say(f"Updated work pool {name!r}.")


@app.command()
def pause(
    ref: Ref, note: Annotated[str, typer.Option(metavar="TEXT", help="Why; runs that wait show it.")] = ""
) -> None:
    """Hold the runs of a work pool that are not submitted yet; the others carry on."""
    from push_pools.cli.find import find_pool
    from push_pools.services.catalogue import pause_work_pool

    with opened() as home:
        pool = pause_work_pool(home, find_pool(home, ref).name, note=note)
    say(f"Paused work pool {pool.name!r}.")


@app.command()
def resume(ref: Ref) -> None:
    """Serve a paused work pool again; the runs that waited go first."""
    from push_pools.cli.find import find_pool
    from push_pools.services.catalogue import resume_work_pool

    with opened() as home:
        pool = resume_work_pool(home, find_pool(home, ref).name)
    say(f"Resumed work pool {pool.name!r}.")


@app.command("set-concurrency-limit")
def set_concurrency_limit(
    ref: Ref, limit: Annotated[int, typer.Argument(metavar="N", help="Most runs active at once; 0 holds every run.")]
) -> None:
    """Limit how many runs of a work pool are active at once; a lower limit waits for runs to end."""
    from push_pools.cli.find import find_pool
    from push_pools.services.catalogue import update_work_pool

    with opened() as home:
        pool = update_work_pool(home, find_pool(home, ref).name, concurrency_limit=limit)
    say(f"Work pool {pool.name!r} has a limit of {limit}.")


@app.command("clear-concurrency-limit")
def clear_concurrency_limit(ref: Ref) -> None:
    """Remove the limit of a work pool."""
    from push_pools.cli.find import find_pool
    from push_pools.services.catalogue import update_work_pool

    with opened() as home:
        pool = update_work_pool(home, find_pool(home, ref).name, concurrency_limit=None)
    say(f"Work pool {pool.name!r} has no limit.")


@app.command()
def delete(ref: Ref, yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False) -> None:
    """Delete a work pool and its queues; refused while deployments or unfinished runs use it."""
    from push_pools.cli.find import find_pool
    from push_pools.services.catalogue import delete_work_pool

    with opened() as home:
        name = find_pool(home, ref).name
        confirm(f"Delete work pool {name!r}?", yes)
        delete_work_pool(home, name)
    say(f"Deleted work pool {name!r}.")


@app.command()
def preview(ref: Ref, hours: Hours = 1.0, output: Output = Format.TABLE) -> None:
    """List the coming runs of a work pool: those planned, and those that its schedules will plan."""
    from push_pools.cli.find import find_pool

    with opened() as home:
        show_coming(home, find_pool(home, ref), None, hours, output)


@app.command()
def types(output: Output = Format.TABLE) -> None:
    """List the pool types that are installed, and why one cannot be used."""
    with opened() as home:
        found = [_type(home, name) for name in home.platforms.types()]
    rows = [(each["type"], each["description"] or each["problem"]) for each in found]
    print_list(found, output, ("type", "description"), rows)


def _type(home: App, name: str) -> dict[str, Any]:
    from push_pools.domain.errors import PlatformMissing

    try:
        platform: Platform | None = home.platforms(name)
        problem = None
    except PlatformMissing as error:
        platform, problem = None, str(error)
    return {
        "type": name,
        "description": platform.description if platform else None,
        "documentation_url": platform.documentation_url if platform else None,
        "problem": problem,
    }


@app.command("get-default-base-job-template")
def get_default_base_job_template(
    type_: Annotated[str, typer.Option("--type", "-t", metavar="TYPE", help="Pool type.")],
    file: Annotated[
        str | None, typer.Option("--file", "-f", metavar="FILE", help="Write it there as JSON instead of printing it.")
    ] = None,
    output: Output = Format.JSON,
) -> None:
    """Print the base job template that a new pool of a type gets."""
    from push_pools.cli.inputs import write_text
    from push_pools.services.catalogue import pool_template

    with opened() as home:
        template = pool_template(home, type_)
    if file is None:
        print_data(template, Format.JSON if output is Format.TABLE else output)
        return
    import json

    write_text(file, json.dumps(template, indent=2) + "\n")
    say(f"Wrote the template of {type_} to {file}.")
