"""`push-pools deployment`: run deployments, look at them, preview what they would send."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from push_pools.cli.base import confirm, noun, opened
from push_pools.cli.flow_run import show_new_run
from push_pools.cli.inputs import duration, instant, json_object, pairs
from push_pools.cli.output import Format, Output, print_data, print_record, print_records, print_table, say, status_text
from push_pools.cli.schedule import app as schedule_app

if TYPE_CHECKING:
    from push_pools.domain.deployments import Deployment
    from push_pools.services.preview import Preview

app = noun("Deployments: what runs, where, and with which parameters.")
app.add_typer(schedule_app, name="schedule")

Ref = Annotated[str, typer.Argument(metavar="DEPLOYMENT", help="FLOW/NAME, a name that is unique, or an id.")]
Params = Annotated[
    list[str] | None, typer.Option("--param", metavar="NAME=VALUE", help="A parameter; may be repeated.")
]
JobVariables = Annotated[
    list[str] | None,
    typer.Option("--job-variable", "-jv", metavar="NAME=VALUE", help="A job variable; may be repeated."),
]
ParamsJson = Annotated[
    str | None, typer.Option("--params", metavar="JSON|-", help="Parameters as a JSON object; --param goes over it.")
]


@app.command()
def run(
    ref: Ref,
    param: Params = None,
    params: ParamsJson = None,
    job_variable: JobVariables = None,
    start_in: Annotated[
        str | None, typer.Option(metavar="DURATION", help="Start after this time, such as 10m.")
    ] = None,
    start_at: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Start at this time, by RFC 3339 with an offset: 2026-01-31T08:00:00Z."),
    ] = None,
    flow_run_name: Annotated[str | None, typer.Option(metavar="NAME", help="Name of the run.")] = None,
    tag: Annotated[
        list[str] | None, typer.Option(metavar="TAG", help="A tag beside the deployment's; may be repeated.")
    ] = None,
    idempotency_key: Annotated[
        str | None, typer.Option(metavar="KEY", help="Runs of a deployment with the same key are the same run.")
    ] = None,
    work_queue: Annotated[
        str | None,
        typer.Option("--work-queue", "-q", metavar="QUEUE", help="Queue of the pool, in place of the deployment's."),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Follow the run to its end; exit 0 if it is Completed, else 1.")
    ] = False,
    output: Output = Format.TABLE,
) -> None:
    """Put a run of a deployment; the server starts its job."""
    from push_pools.services.runs import run_deployment

    parameters = _parameters(params, param)
    job_variables = pairs(job_variable or [], "--job-variable")
    with opened() as home:
        put = run_deployment(
            home,
            ref,
            parameters=parameters,
            job_variables=job_variables,
            scheduled_time=_start(home.clock.now(), start_in, start_at),
            name=flow_run_name,
            work_queue=work_queue,
            tags=tag or (),
            idempotency_key=idempotency_key,
        )
        show_new_run(home, put.run, output, watch=watch, is_new=put.is_new)


def _parameters(params: str | None, param: list[str] | None) -> dict[str, Any]:
    whole = json_object(params, "--params") if params is not None else {}
    return {**whole, **pairs(param or [], "--param")}


def _start(now: datetime, start_in: str | None, start_at: str | None) -> datetime | None:
    if start_in is not None and start_at is not None:
        raise typer.BadParameter("--start-in and --start-at contradict each other; give one")
    if start_in is not None:
        return now + duration(start_in, "--start-in")
    return instant(start_at, "--start-at") if start_at is not None else None


@app.command()
def preview(
    ref: Ref,
    param: Params = None,
    params: ParamsJson = None,
    job_variable: JobVariables = None,
    output: Output = Format.YAML,
) -> None:
    """Show the exact request that a run would send now, and where each value comes from. Nothing is sent."""
    from push_pools.services.preview import preview_deployment

    parameters = _parameters(params, param)
    job_variables = pairs(job_variable or [], "--job-variable")
    with opened() as home:
        found = preview_deployment(home, ref, parameters=parameters, job_variables=job_variables)
    if output is Format.TABLE:
        _print_preview(found)
    else:
        print_data(_preview(found), output)


def _preview(found: Preview) -> dict[str, Any]:
    return {
        "deployment": found.deployment,
        "work_pool": found.work_pool,
        "platform": found.platform,
        "request": found.request,
        "origins": found.origins,
        "policy": found.policy.model_dump(mode="json"),
    }


def _print_preview(found: Preview) -> None:
    say(f"Deployment {found.deployment} in work pool {found.work_pool} ({found.platform}) would send:")
    say()
    print_data(found.request, Format.YAML)
    say()
    print_table(("job variable", "comes from"), sorted(found.origins.items()))
    say()
    print_table(("policy", ""), sorted(found.policy.model_dump(mode="json").items()))


@app.command()
def ls(
    pool: Annotated[
        str | None, typer.Option("--pool", "-p", metavar="POOL", help="Only deployments of this work pool.")
    ] = None,
    output: Output = Format.TABLE,
) -> None:
    """List the deployments."""
    from push_pools.cli.find import find_pool
    from push_pools.services.catalogue import list_deployments

    with opened() as home:
        name = find_pool(home, pool).name if pool is not None else None
        found = [each for each in list_deployments(home) if name in (None, each.work_pool)]
    rows = [(each.key, each.work_pool, each.work_queue, status_text(each), str(each.id)) for each in found]
    columns = ("deployment", "pool", "queue", "status", "id")
    print_records([_shown(each) for each in found], output, columns, rows, found)


def _shown(deployment: Deployment) -> dict[str, Any]:
    return {"key": deployment.key, **deployment.model_dump(mode="json", exclude={"limit_epoch"})}


@app.command()
def inspect(ref: Ref, output: Output = Format.TABLE) -> None:
    """Show a deployment."""
    from push_pools.services.catalogue import find_deployment

    with opened() as home:
        found = find_deployment(home, ref)
    print_record(_shown(found), output)


@app.command()
def pause(
    ref: Ref, note: Annotated[str, typer.Option(metavar="TEXT", help="Why; whoever asks for a run is told.")] = ""
) -> None:
    """Refuse new runs of a deployment; runs that are there carry on."""
    from push_pools.services.catalogue import pause_deployment

    with opened() as home:
        found = pause_deployment(home, ref, note=note)
    say(f"Paused deployment {found.key!r}.")


@app.command()
def resume(ref: Ref) -> None:
    """Take runs of a paused deployment again."""
    from push_pools.services.catalogue import resume_deployment

    with opened() as home:
        found = resume_deployment(home, ref)
    say(f"Resumed deployment {found.key!r}.")


@app.command("set-job-variable")
def set_job_variable(
    ref: Ref,
    variables: Annotated[
        list[str], typer.Argument(metavar="NAME=VALUE...", help="Job variables; a value that is JSON is that value.")
    ],
) -> None:
    """Set job variables of a deployment, beside those it has.

    A deploy from its file sets them back, but for those in open_job_variables: those are left to you, CI for example.
    Where the deployment is managed elsewhere, by a Terraform module, only they can be set.
    """
    from push_pools.services.catalogue import set_job_variables

    values = pairs(variables, "NAME=VALUE")
    with opened() as home:
        found = set_job_variables(home, ref, values)
    say(f"Set {', '.join(values)} of deployment {found.key!r}.")


@app.command()
def delete(ref: Ref, yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False) -> None:
    """Delete a deployment; its runs stay."""
    from push_pools.services.catalogue import delete_deployment, find_deployment

    with opened() as home:
        found = find_deployment(home, ref)
        confirm(f"Delete deployment {found.key!r}?", yes)
        delete_deployment(home, found.key)
    say(f"Deleted deployment {found.key!r}.")
