"""Turn a scheduled-run event into a run of the ledger, once however often it is delivered."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID, uuid4

from push_pools.domain.errors import InvalidEvent, InvalidInput, NotAllowed, NotFound
from push_pools.domain.events import ScheduledRun, identity
from push_pools.domain.job_variables import validate_job_variables
from push_pools.domain.pools import DEFAULT_QUEUE, WorkPool, WorkQueue
from push_pools.domain.runs import HISTORY, FlowRun, run_id
from push_pools.domain.states import State
from push_pools.services.catalogue import find_deployment, get_work_pool
from push_pools.services.ledger import RunKnown, change, log, put_first, send_hint

if TYPE_CHECKING:
    from push_pools.domain.deployments import Deployment
    from push_pools.ports import App

_PUT_AGAIN: Final = ("parameters", "job_variables", "scheduled_time", "work_pool", "work_queue")


@dataclass(frozen=True)
class Put:
    """The run of an event, and whether this event made it."""

    run: FlowRun
    is_new: bool


def run_of_event(event: ScheduledRun, app: App, *, envelope_id: str) -> FlowRun:
    """Return the planned run that an event asks for, not stored yet; the same event twice is the same run.

    Raises:
        InvalidEvent: The event is too old, or names something in a wrong way.
        NotFound: It names a deployment, pool or queue that does not exist.
        NotAllowed: The deployment is paused.
        InvalidInput: Its job variables do not fit the pool.
    """
    now = app.clock.now()
    due = event.scheduled_time or now
    if due < now - HISTORY:
        raise InvalidEvent(f"scheduled_time {due.isoformat()} is more than {HISTORY.days} days ago; send a current one")
    return _run_of(event, app, due, identity(event, envelope_id=envelope_id, received_at=now))


def put_run(run: FlowRun, event: ScheduledRun, app: App) -> Put:
    """Put the run of an event, unless it is there. The caller submits it, or sends its hint."""
    try:
        return Put(put_first(run, app), is_new=True)
    except RunKnown as known:
        return Put(put_again(known.run, run, event, app), is_new=False)


def send_if_soon(run: FlowRun, app: App) -> None:
    """Send the hint of a run that is due within the look-ahead; the tick sends those of later ones."""
    soon = app.clock.now() + timedelta(seconds=app.timing.look_ahead_seconds)
    if not run.is_final and run.due_at <= soon:
        send_hint(app, run)


def _run_of(event: ScheduledRun, app: App, due: datetime, identity_: str) -> FlowRun:
    deployment = find_deployment(app, str(event.deployment)) if event.deployment else None
    if deployment is not None and deployment.is_paused:
        note = f" ({deployment.pause_note})" if deployment.pause_note else ""
        raise NotAllowed(
            f"deployment {deployment.key!r} is paused{note}; `push-pools deployment resume {deployment.key}` "
            "and send the event again"
        )
    pool = get_work_pool(app, deployment.work_pool if deployment else str(event.work_pool))
    queue = _queue(event, deployment, pool, app)
    _check_variables(event, deployment, pool)
    id_ = run_id(deployment.id if deployment else pool.id, identity_)
    return new_run(event, app, id_, deployment, pool, queue, due)


def new_run(
    event: ScheduledRun,
    app: App,
    id_: UUID,
    deployment: Deployment | None,
    pool: WorkPool,
    queue: str,
    due: datetime,
    **more: Any,
) -> FlowRun:
    """Return the planned run of an event, not stored yet."""
    now = app.clock.now()
    parameters = {**(deployment.parameters if deployment else {}), **(event.parameters or {})}
    run = FlowRun(
        id=id_,
        name=event.name or f"{deployment.name if deployment else pool.name}-{id_.hex[:8]}",
        created_at=now,
        idempotency_key=event.idempotency_key,
        deployment_id=deployment.id if deployment else None,
        deployment=deployment.key if deployment else None,
        flow_name=deployment.flow_name if deployment else None,
        work_pool=pool.name,
        work_queue=queue,
        platform=pool.type,
        scheduled_time=due,
        parameters=parameters,
        job_variables=event.job_variables or {},
        tags=tuple(dict.fromkeys((*(deployment.tags if deployment else ()), *(event.tags or ())))),
        state=State.of("Scheduled", now),
        due_at=due,
        wake_at=due,
        **more,
    )
    return run.noted(now, "put", due=due.isoformat(), deployment=run.deployment, work_pool=pool.name)


def _queue(event: ScheduledRun, deployment: Deployment | None, pool: WorkPool, app: App) -> str:
    name = event.work_queue or (deployment.work_queue if deployment else DEFAULT_QUEUE)
    if app.store.get(WorkQueue, f"{pool.name}/{name}") is None:
        known = [queue.name for queue in app.store.list(WorkQueue) if queue.work_pool == pool.name]
        raise NotFound("work queue", f"{pool.name}/{name}", known)
    return name


def _check_variables(event: ScheduledRun, deployment: Deployment | None, pool: WorkPool) -> None:
    if event.job_variables:
        try:
            validate_job_variables(pool.base_job_template, event.job_variables, require=False)
        except InvalidInput as error:
            where = f"deployment {deployment.key!r}" if deployment else f"work pool {pool.name!r}"
            raise InvalidEvent(f"job_variables of an event for {where}: {error}") from error


def put_again(stored: FlowRun, run: FlowRun, event: ScheduledRun, app: App) -> FlowRun:
    """Report a second event of the same identity that asks for something else; the first one wins."""
    differs = [name for name in _PUT_AGAIN if getattr(stored, name) != getattr(run, name)]
    if event.scheduled_time is None and "scheduled_time" in differs:
        differs.remove("scheduled_time")  # It was only received later.
    if not differs:
        return stored
    log.warning("put_again_differs", extra={"flow_run_id": str(stored.id), "fields": differs})
    return change(
        app, stored, lambda r: r.noted(app.clock.now(), "put again with another body, which is ignored", fields=differs)
    )


def mint_key() -> str:
    """Return a fresh idempotency key, for callers who mean each call to be a run of its own."""
    return uuid4().hex
