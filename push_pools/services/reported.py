"""What a platform tells by itself of its jobs: an event moves its run at once, and sweeps find what is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from push_pools.domain.errors import NotFound, PlatformError, PlatformMissing
from push_pools.domain.runs import Phase
from push_pools.ports import ReadsEvents
from push_pools.services.ledger import log, send_hint
from push_pools.services.poll import job_over
from push_pools.services.stop import stop_run

if TYPE_CHECKING:
    from push_pools.domain.events import JobChanged
    from push_pools.ports import App


def job_changed(event: JobChanged, app: App) -> None:
    """Record what an event says of a job, and its pid too if nobody has recorded it yet.

    Events of jobs that are not ours, of earlier attempts and of runs that nobody knows are ignored. Doubled, late
    and lost ones do no harm: what is known already, or is older than that, changes nothing.

    Raises:
        StoreUnavailable: The ledger cannot be read or written.
    """
    try:
        platform = app.platforms(event.platform)
    except (NotFound, PlatformMissing) as error:
        return log.warning("event_of_unknown_platform", extra={"reason": str(error)})
    told = platform.reported(event.detail) if isinstance(platform, ReadsEvents) else None
    if told is None:
        return None
    try:
        run = app.store.get_run(told.run_id)
    except NotFound:
        return log.info("event_of_unknown_run", extra={"flow_run_id": str(told.run_id)})
    if run.job is None or run.attempt != told.attempt or run.platform != event.platform:
        return None
    try:
        read = platform.read_event(event.detail, run.job.handle)  # type: ignore[attr-defined] # `reported` comes with it.
    except PlatformError as error:
        return log.warning("event_not_confirmed", extra={"flow_run_id": str(run.id), "reason": error.reason})
    if read is None:
        return None
    handle, seen = read
    job_over(handle.model_copy(update={"run_id": run.id}), seen, app)
    after = app.store.get_run(run.id)
    if after.phase is Phase.STOPPING and run.phase is not Phase.STOPPING:
        return stop_run(run.id, app)  # The job of a run that is being cancelled became known by this event.
    if after.chores and not run.chores:
        send_hint(app, after)
    return None
