"""`push-pools deployment schedule`: when a deployment runs by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from push_pools.cli.base import confirm, noun, opened
from push_pools.cli.inputs import instant, pairs
from push_pools.cli.output import Format, Output, note, print_list, print_record, say

if TYPE_CHECKING:
    from push_pools.domain.deployments import Deployment
    from push_pools.domain.schedules import Schedule
    from push_pools.services.edit_schedules import Edited

app = noun("Schedules: when a deployment runs by itself.")

Ref = Annotated[str, typer.Argument(metavar="DEPLOYMENT", help="FLOW/NAME, a name that is unique, or an id.")]
ScheduleRef = Annotated[
    str | None,
    typer.Argument(
        metavar="[SCHEDULE]", help="Its slug, its id or a unique beginning of it; not needed if there is only one."
    ),
]


def _option(text: str, metavar: str = "TEXT") -> Any:
    return typer.Option(metavar=metavar, help=text)


@app.command()
def create(
    ref: Ref,
    cron: Annotated[
        str | None, _option('Five fields, such as "0 7 * * 1-5", or an alias such as @daily.', "CRON")
    ] = None,
    interval: Annotated[str | None, _option("A duration from one run to the next, such as 15m.", "DURATION")] = None,
    rrule: Annotated[str | None, _option("A rule by RFC 5545 whose times are local.", "RRULE")] = None,
    at: Annotated[str | None, _option("The time of a single run, such as 2026-01-31T08:00:00.", "TIME")] = None,
    timezone: Annotated[str | None, _option("IANA name; times without an offset are local to it.", "ZONE")] = None,
    anchor_date: Annotated[str | None, _option("A time that the interval counts from.", "TIME")] = None,
    slug: Annotated[str | None, _option("A name for the schedule.", "NAME")] = None,
    note_: Annotated[str | None, typer.Option("--note", metavar="TEXT", help="A note beside it.")] = None,
    catchup: Annotated[
        str | None, _option('What becomes of missed runs: all, latest, none or "within 2h".', "POLICY")
    ] = None,
    overlap: Annotated[
        str | None,
        _option("While an earlier run is unfinished: allow, skip, buffer_one or cancel_other.", "POLICY"),
    ] = None,
    jitter: Annotated[str | None, _option("How long a run is put off at most.", "DURATION")] = None,
    start_date: Annotated[str | None, _option("No run is due before.", "TIME")] = None,
    end_date: Annotated[str | None, _option("No run is due after.", "TIME")] = None,
    dst_gap: Annotated[str | None, _option("A local time that the clock leaps over: shift or skip.", "POLICY")] = None,
    dst_fold: Annotated[str | None, _option("A local time that comes twice: once or twice.", "POLICY")] = None,
    param: Annotated[
        list[str] | None, typer.Option("--param", metavar="NAME=VALUE", help="A parameter; may be repeated.")
    ] = None,
    job_variable: Annotated[
        list[str] | None,
        typer.Option("--job-variable", "-jv", metavar="NAME=VALUE", help="A job variable; may be repeated."),
    ] = None,
    paused: Annotated[bool, typer.Option("--paused", help="Plan nothing until it is resumed.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """Add a schedule to a deployment: one of --cron, --interval, --rrule and --at.

    A deploy from its file sets the schedules of a deployment back to what the file says.
    """
    from push_pools.domain.schedules import parse_schedule
    from push_pools.services.edit_schedules import create_schedule

    given = {
        "cron": cron,
        "interval": interval,
        "rrule": None if rrule is None else rrule.replace("\\n", "\n"),
        "at": at,
        "timezone": timezone,
        "anchor_date": anchor_date,
        "slug": slug,
        "note": note_,
        "catchup": catchup,
        "overlap": overlap,
        "jitter": jitter,
        "start_date": start_date,
        "end_date": end_date,
        "dst_gap": dst_gap,
        "dst_fold": dst_fold,
        "parameters": pairs(param or [], "--param"),
        "job_variables": pairs(job_variable or [], "--job-variable"),
        "active": False if paused else None,
    }
    spec = parse_schedule(given)
    with opened() as home:
        made = create_schedule(home, ref, spec)
    if output is Format.TABLE:
        say(f"Added schedule {_name(made.schedule)} to deployment {made.deployment.key!r}: {made.schedule.describe()}.")
    else:
        print_record(_shown(made.schedule), output)


@app.command()
def ls(ref: Ref, output: Output = Format.TABLE) -> None:
    """List the schedules of a deployment."""
    from push_pools.services.catalogue import find_deployment

    with opened() as home:
        found = find_deployment(home, ref)
    _note_if_paused(found)
    rows = [
        (_name(each), each.describe(), each.catchup, each.overlap, _status(each), each.id) for each in found.schedules
    ]
    columns = ("schedule", "due", "catchup", "overlap", "status", "id")
    print_list([_shown(each) for each in found.schedules], output, columns, rows)


@app.command()
def preview(
    ref: Ref,
    from_: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="TIME", help="Begin after this time, by RFC 3339 with an offset; by default now."
        ),
    ] = None,
    count: Annotated[int, typer.Option("-n", metavar="N", help="How many times to show.")] = 10,
    output: Output = Format.TABLE,
) -> None:
    """Show when a deployment is due next, local and UTC, with notes on daylight saving time. Nothing is planned."""
    from push_pools.services.catalogue import find_deployment
    from push_pools.services.edit_schedules import preview_schedules

    after = instant(from_, "--from") if from_ is not None else None
    with opened() as home:
        coming = [each.as_listed() for each in preview_schedules(home, ref, after=after, count=count)]
        found = find_deployment(home, ref)
    _note_if_paused(found)
    rows = [(each["schedule"], each["local"], each["utc"], each["note"]) for each in coming]
    print_list(coming, output, ("schedule", "local", "utc", "note"), rows)


@app.command()
def pause(
    ref: Ref,
    schedule: ScheduleRef = None,
    note_: Annotated[str, typer.Option("--note", metavar="TEXT", help="Why; runs that it skips say so.")] = "",
) -> None:
    """Plan no more runs of a schedule; those planned already are skipped."""
    from push_pools.services.edit_schedules import pause_schedule

    with opened() as home:
        _say("Paused", pause_schedule(home, ref, schedule, note=note_))


@app.command()
def resume(ref: Ref, schedule: ScheduleRef = None) -> None:
    """Plan runs of a schedule again, from now on."""
    from push_pools.services.edit_schedules import resume_schedule

    with opened() as home:
        _say("Resumed", resume_schedule(home, ref, schedule))


@app.command()
def delete(
    ref: Ref,
    schedule: ScheduleRef = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove a schedule; runs of it that are planned already are skipped."""
    from push_pools.services.catalogue import find_deployment
    from push_pools.services.edit_schedules import delete_schedule, find_schedule

    with opened() as home:
        found = find_deployment(home, ref)
        wanted = find_schedule(found, schedule)
        confirm(f"Delete schedule {_name(wanted)} ({wanted.describe()}) of deployment {found.key!r}?", yes)
        _say("Deleted", delete_schedule(home, found.key, wanted.id))


def _name(schedule: Schedule) -> str:
    from push_pools.services.edit_schedules import schedule_name

    return schedule_name(schedule)


def _status(schedule: Schedule) -> str:
    if schedule.active:
        return "active"
    return f"paused ({schedule.pause_note})" if schedule.pause_note else "paused"


def _shown(schedule: Schedule) -> dict[str, Any]:
    return schedule.model_dump(mode="json")


def _say(done: str, edited: Edited) -> None:
    say(f"{done} schedule {_name(edited.schedule)} of deployment {edited.deployment.key!r}.")


def _note_if_paused(deployment: Deployment) -> None:
    if deployment.is_paused:
        note(f"deployment {deployment.key!r} is paused, so that nothing is planned")
