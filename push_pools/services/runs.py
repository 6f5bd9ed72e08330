"""Runs as their users meet them: find, list, trigger, retry, read logs."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from push_pools.domain.errors import InvalidInput, NotAllowed, NotFound
from push_pools.domain.events import ScheduledRun
from push_pools.domain.runs import FlowRun, run_id
from push_pools.domain.states import State
from push_pools.ports import LogPage, RunFilter
from push_pools.services.ledger import RunKnown, put_first, send_hint
from push_pools.services.schedule import Put, mint_key, put_run, run_of_event, send_if_soon

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic import JsonValue

    from push_pools.ports import App

SCANNED = 1000
"""How many of the newest runs are searched for a name."""


def find_run(app: App, ref: str) -> FlowRun:
    """Return the run with that id, unique id prefix, or name (the newest of that name).

    Raises:
        NotFound: There is none.
        InvalidInput: The prefix fits several runs.
    """
    try:
        return app.store.get_run(UUID(ref))
    except ValueError:
        pass
    except NotFound:
        raise NotFound("flow run", ref, fix="see `push-pools flow-run ls`") from None
    if len(ref) >= 4 and set(ref.lower()) <= set("0123456789abcdef-"):
        found = app.store.runs(RunFilter(id_prefix=ref.lower()), limit=2).runs
        if len(found) > 1:
            raise InvalidInput(f"flow run {ref!r} fits several ids ({found[0].id}, {found[1].id}, …); give more of it")
        if found:
            return found[0]
    for run in app.store.runs(RunFilter(), limit=SCANNED).runs:
        if run.name == ref:
            return run
    raise NotFound("flow run", ref, fix="see `push-pools flow-run ls`")


def run_deployment(
    app: App,
    deployment: str,
    *,
    parameters: Mapping[str, JsonValue] | None = None,
    job_variables: Mapping[str, Any] | None = None,
    scheduled_time: datetime | None = None,
    name: str | None = None,
    work_queue: str | None = None,
    tags: Sequence[str] = (),
    idempotency_key: str | None = None,
) -> Put:
    """Trigger a run of a deployment; without a key of the caller's, every call is a run of its own.

    Raises:
        NotFound: There is no such deployment, or queue.
        NotAllowed: The deployment is paused.
        InvalidInput: A parameter or job variable does not fit.
    """
    event = ScheduledRun(
        deployment=deployment,
        scheduled_time=scheduled_time,
        idempotency_key=idempotency_key or mint_key(),
        parameters=dict(parameters or {}),
        job_variables=dict(job_variables or {}),
        name=name,
        work_queue=work_queue,
        tags=tuple(tags),
    )
    put = put_run(run_of_event(event, app, envelope_id=""), event, app)
    send_if_soon(put.run, app)
    return put


def retry_run(app: App, ref: str, *, key: str | None = None) -> FlowRun:
    """Put a new run that does again what a final one did. A final state itself is never reopened.

    Raises:
        NotFound: There is no such run.
        NotAllowed: The run is not over yet.
    """
    old = find_run(app, ref)
    if not old.is_final:
        raise NotAllowed(
            f"flow run {old.name!r} is not over yet ({old.state.name}); wait, or cancel it: "
            f"`push-pools flow-run cancel {old.id}`"
        )
    now = app.clock.now()
    fresh = FlowRun(
        id=run_id(old.id, f"key:retry:{key or mint_key()}"),
        name=f"{old.name}-retry",
        created_at=now,
        deployment_id=old.deployment_id,
        deployment=old.deployment,
        flow_name=old.flow_name,
        work_pool=old.work_pool,
        work_queue=old.work_queue,
        platform=old.platform,
        scheduled_time=now,
        parameters=old.parameters,
        job_variables=old.job_variables,
        tags=old.tags,
        retry_of=old.id,
        state=State.of("Scheduled", now),
        due_at=now,
        wake_at=now,
    ).noted(now, "put", due=now.isoformat(), retry_of=str(old.id))
    try:
        stored = put_first(fresh, app)
    except RunKnown as known:
        stored = known.run
    send_hint(app, stored)
    return stored


def read_logs(app: App, run: FlowRun, cursor: str | None = None) -> LogPage:
    """Return the next lines of the output of a run's current, or last, job.

    Of a job that the platform has deleted these are the last lines, if they were kept.

    Raises:
        NotAllowed: The run has no job yet.
        PlatformUnavailable: The platform could not be asked.
    """
    if run.job is None or run.job.pid is None:
        raise NotAllowed(
            f"flow run {run.name!r} has no job whose output could be read ({run.state.name}); "
            f"`push-pools flow-run why {run.id}` tells what it waits for"
        )
    page = app.platforms(run.platform).logs(run.job.handle, cursor)
    if page.lines or cursor is not None or not page.is_last:
        return page
    return LogPage(lines=_kept_output(run), is_last=True)


def _kept_output(run: FlowRun) -> tuple[str, ...]:
    """Return the end of the output of the last job, where it was kept because the platform deletes it."""
    last = next((entry for entry in reversed(run.journal) if entry.what in ("kept", "retry")), None)
    output = last.facts.get("output") if last else None
    return tuple(map(str, output)) if isinstance(output, list) else ()


def is_idle(app: App) -> bool:
    """Whether no due run and no active job is left; later runs and chores that wait do not count."""
    soon = app.clock.now() + timedelta(seconds=1)
    if app.store.active_platforms():
        return False
    return not any(not run.is_final and run.due_at <= soon for run in app.store.due(soon, limit=100))
