"""`push-pools flow-run`: list runs, tell why one is where it is, read its output, cancel it, do it again."""

from __future__ import annotations

import getpass
import time
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from push_pools.cli.base import note_unless_served, noun, opened
from push_pools.cli.output import (
    Format,
    Output,
    note,
    print_data,
    print_list,
    print_record,
    print_table,
    say,
    state_cell,
    time_text,
)
from push_pools.cli.watch import POLL_SECONDS, flush, judge, wait_for_run, watch_run

if TYPE_CHECKING:
    from push_pools.domain.runs import FlowRun
    from push_pools.ports import App, RunFilter
    from push_pools.services.explain import Story

PAGE_RUNS: Final = 200
"""How many runs are read at once."""

app = noun("Flow runs: what was asked for, and what became of it.")

Ref = Annotated[str, typer.Argument(metavar="RUN", help="Id of a run, a unique prefix of it, or a name (the newest).")]


@app.command()
def ls(
    limit: Annotated[int, typer.Option(min=1, help="Show at most this many.")] = 200,
    state: Annotated[
        list[str] | None,
        typer.Option(metavar="STATE", help="Only runs in this state, such as Running or FAILED; may be repeated."),
    ] = None,
    deployment: Annotated[str | None, typer.Option(metavar="DEPLOYMENT", help="Only runs of this deployment.")] = None,
    pool: Annotated[
        str | None, typer.Option("--pool", "-p", metavar="POOL", help="Only runs in this work pool.")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Only runs scheduled since then: 2h, or a time by RFC 3339 with an offset."),
    ] = None,
    output: Output = Format.TABLE,
) -> None:
    """List runs, newest first."""
    with opened() as home:
        runs = _list(home, _filter(home, state or [], deployment, pool, since), limit)
        if not runs and pool is not None:
            _check_pool(home, pool)
    rows = [
        (
            str(run.id)[:8],
            run.name,
            run.deployment,
            run.work_pool,
            state_cell(run.state.type, run.state.name),
            run.scheduled_time,
            run.attempt,
            run.state.message,
        )
        for run in runs
    ]
    columns = ("id", "name", "deployment", "pool", "state", "scheduled", "attempt", "message")
    print_list([run.as_listed() for run in runs], output, columns, rows)


def _list(home: App, where: RunFilter, limit: int) -> list[FlowRun]:
    found: list[FlowRun] = []
    cursor = None
    while len(found) < limit:
        page = home.store.runs(where, limit=min(limit - len(found), PAGE_RUNS), cursor=cursor)
        found += page.runs
        cursor = page.cursor
        if cursor is None:
            break
    return found


def _filter(home: App, states: list[str], deployment: str | None, pool: str | None, since: str | None) -> RunFilter:
    from push_pools.cli.inputs import since as since_time
    from push_pools.ports import RunFilter
    from push_pools.services.catalogue import find_deployment

    return RunFilter(
        states=frozenset(map(_state, states)),
        deployment_id=find_deployment(home, deployment).id if deployment else None,
        work_pool=pool,
        since=since_time(since, home.clock.now()) if since else None,
    )


def _state(text: str) -> str:
    from push_pools.domain.problems import did_you_mean
    from push_pools.domain.states import STATE_TYPES, StateType

    types = {str(type_): str(type_) for type_ in StateType}
    known = {**{name.casefold(): name for name in STATE_TYPES}, **{name.casefold(): name for name in types}}
    known |= {**types, **{name: name for name in STATE_TYPES}}
    found = known.get(text) or known.get(text.casefold())
    if found is None:
        raise typer.BadParameter(f"--state {text!r} is no state; {did_you_mean(text, STATE_TYPES)}")
    return found


def _check_pool(home: App, pool: str) -> None:
    """A pool that was deleted may have runs; a name without either is a slip of the pen."""
    from push_pools.services.catalogue import get_work_pool

    get_work_pool(home, pool)


@app.command()
def inspect(ref: Ref, output: Output = Format.TABLE) -> None:
    """Show one run."""
    from push_pools.services.runs import find_run

    with opened() as home:
        run = find_run(home, ref)
    print_record(_inspected(run), output)


def _inspected(run: FlowRun) -> dict[str, Any]:
    job = run.job
    return {
        **run.as_listed(),
        "suggestion": run.state.suggestion,
        "exit_code": run.state.exit_code,
        "platform": run.platform,
        "phase": str(run.phase),
        "job_key": job.key if job else None,
        "retry_of": str(run.retry_of) if run.retry_of else None,
        "idempotency_key": run.idempotency_key,
        "created_at": run.created_at.isoformat(),
        "due_at": run.due_at.isoformat(),
        "wake_at": run.wake_at.isoformat() if run.wake_at else None,
    }


@app.command()
def why(ref: Ref, output: Output = Format.TABLE) -> None:
    """Tell what happened to a run, what it waits for, and what can be done."""
    from push_pools.services.admit import why_waiting
    from push_pools.services.explain import explain_run
    from push_pools.services.runs import find_run

    with opened() as home:
        run = find_run(home, ref)
        story = explain_run(run, home.clock.now(), waits_for=why_waiting(run, home))
    if output is Format.TABLE:
        _print_story(story)
    else:
        print_data(_story(story), output)


def _print_story(story: Story) -> None:
    run = story.run
    say(f"Flow run {run.name} ({run.id}): {run.state.name}, attempt {run.attempt}")
    if run.state.message:
        say(run.state.message)
    rows = [(_clock_text(line.at), f"+{line.after_seconds:.3f}s", line.text) for line in story.lines]
    print_table(("time", "after", "what happened"), rows)
    say(f"Waits for: {story.waits_for}")
    if story.advice:
        say(f"Next: {story.advice}")


def _clock_text(moment: datetime) -> str:
    return f"{time_text(moment)}.{moment.microsecond // 1000:03d}"


def _story(story: Story) -> dict[str, Any]:
    return {
        "run": story.run.as_listed(),
        "story": [
            {"at": line.at.isoformat(), "after_seconds": line.after_seconds, "what": line.what, "text": line.text}
            for line in story.lines
        ],
        "waits_for": story.waits_for,
        "advice": story.advice,
    }


@app.command()
def logs(
    ref: Ref,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run is over.")] = False,
) -> None:
    """Print the output of a run's job."""
    from push_pools.services.runs import find_run

    with opened() as home:
        run = find_run(home, ref)
        if follow and not run.is_final:
            note_unless_served(f"flow run {run.name!r} makes no progress by itself")
            _follow(home, run)
        else:
            _print_lines(home, run, None)


def _print_lines(home: App, run: FlowRun, cursor: str | None) -> str | None:
    """Print what there is after a cursor, and return the cursor after that."""
    from push_pools.services.runs import read_logs

    while True:
        page = read_logs(home, run, cursor)
        for line in page.lines:
            say(line)
        cursor = page.cursor or cursor
        if page.cursor is None or page.is_last or not page.lines:
            flush()
            return cursor


def _follow(home: App, run: FlowRun) -> None:
    cursor: str | None = None
    key = run.job.key if run.job else None
    while True:
        is_final = run.is_final
        if run.job is not None and run.job.pid is not None:
            if run.job.key != key:
                note(f"attempt {run.attempt} begins")
                key, cursor = run.job.key, None
            cursor = _print_lines(home, run, cursor)
        if is_final:
            return
        time.sleep(POLL_SECONDS)
        run = home.store.get_run(run.id)


@app.command()
def cancel(
    ref: Ref,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; it is kept with the run.")] = "",
    output: Output = Format.TABLE,
) -> None:
    """Cancel a run; a job that runs is stopped first."""
    from push_pools.services.runs import find_run
    from push_pools.services.stop import cancel_run

    with opened() as home:
        run = cancel_run(find_run(home, ref).id, home, by=_user(), reason=reason)
    if output is not Format.TABLE:
        print_data(run.as_listed(), output)
    elif run.is_final:
        say(f"Cancelled flow run {run.name!r}.")
    else:
        say(f"Flow run {run.name!r} is being cancelled: its job is stopped first.")
    if not run.is_final:
        note_unless_served(f"flow run {run.name!r} is not stopped yet")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # A container without a user of that number.
        return "command line"


@app.command()
def retry(
    ref: Ref,
    watch: Annotated[bool, typer.Option("--watch", help="Follow the new run to its end.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """Run again what a finished run did, as a new run."""
    from push_pools.services.runs import retry_run

    with opened() as home:
        run = retry_run(home, ref)
        show_new_run(home, run, output, watch=watch)


def show_new_run(home: App, run: FlowRun, output: Format, *, watch: bool, is_new: bool = True) -> None:
    """Print a run that was just put, say so when nobody is there to start it, and follow it if that is wanted."""
    if output is Format.TABLE:
        say(_put_sentence(run, is_new))
        flush()
    if not run.is_final:
        note_unless_served(f"flow run {run.name!r} waits")
    if watch and output is Format.TABLE:
        watch_run(home, run)
    elif output is not Format.TABLE:
        run = wait_for_run(home, run) if watch else run
        print_data(run.as_listed(), output)
        if watch:
            judge(run)


def _put_sentence(run: FlowRun, is_new: bool) -> str:
    if is_new:
        return f"Put flow run {run.name!r} ({run.id}), due {time_text(run.scheduled_time)}."
    return f"Flow run {run.name!r} ({run.id}) was put before, under the same key: it is {run.state.name}."


@app.command()
def watch(ref: Ref) -> None:
    """Follow a run to its end; exit 0 if it is Completed, else 1."""
    from push_pools.services.runs import find_run

    with opened() as home:
        run = find_run(home, ref)
        if not run.is_final:
            note_unless_served(f"flow run {run.name!r} makes no progress by itself")
        watch_run(home, run)
