"""Bring the status of a job back, when somebody looks or the platform tells."""

from __future__ import annotations

from typing import TYPE_CHECKING

from push_pools.domain import transitions
from push_pools.domain.errors import PlatformError
from push_pools.domain.failures import explain_observation
from push_pools.domain.runs import FlowRun, Phase
from push_pools.domain.status import Part
from push_pools.services.ask import asking
from push_pools.services.chores import chores_of, follow_up
from push_pools.services.ledger import change, log
from push_pools.services.status import beat

if TYPE_CHECKING:
    from push_pools.domain.runs import JobHandle
    from push_pools.domain.states import Failure, Observation
    from push_pools.ports import App


def observe_run(run: FlowRun, app: App) -> FlowRun:
    """Look at one run's job now and return the run that follows; a platform that cannot be asked proves nothing."""
    if run.job is None or run.job.pid is None or not run.phase.is_active:
        return run
    try:
        with asking(run.platform, app) as platform:
            seen = platform.observe([run.job.handle])
    except PlatformError as error:
        log.warning("observe_failed", extra={"flow_run_id": str(run.id), "reason": error.reason})
        return not_seen(run, error.reason, app)
    for observation in seen:
        run = apply_observation(run, observation, app)
    return run


def apply_observation(run: FlowRun, seen: Observation, app: App) -> FlowRun:
    """Record what a platform says of a run's job; return the run that follows."""
    return _move(run, seen, app, handle=None)


def not_seen(run: FlowRun, why: str, app: App) -> FlowRun:
    """Record that a run's job could not be seen; when that lasts, somebody is alarmed."""
    before = run.job
    run = change(app, run, lambda stored: transitions.unseen(stored, why, app.moment(), app.timing))
    if run.job is not None and run.job.unseen_alarm and before is not None and not before.unseen_alarm:
        facts = {"flow_run_id": str(run.id), "job_key": run.job.key, "infrastructure_pid": run.job.pid}
        log.error("job_unseen", extra={**facts, "since": str(run.job.unseen_since), "reason": why})
    return run


def job_over(handle: JobHandle, seen: Observation, app: App) -> None:
    """Record what a platform told of a job by itself, mostly its end; its pid too, if nobody has recorded it yet."""
    if handle.run_id is not None:
        _move(app.store.get_run(handle.run_id), seen, app, handle=handle)


def _move(run: FlowRun, seen: Observation, app: App, *, handle: JobHandle | None) -> FlowRun:
    chores = chores_of(app)
    platform = run.platform

    def explain(observation: Observation) -> Failure:
        return explain_observation(platform, observation)

    def decide(stored: FlowRun) -> FlowRun:
        moment = app.moment()
        if handle is not None:
            stored = transitions.record_pid(stored, handle, moment, app.timing)
            if stored.job is None or stored.job.pid != handle.pid:
                return stored  # News of another job than the recorded one: it is watched, and decides nothing.
        return transitions.observe(stored, seen, moment, app.timing, explain, chores)

    before = run.state
    run = change(app, run, decide)
    beat(app, Part.POLL, run.work_pool)
    if run.state != before:
        log.info("run_moved", extra={"flow_run_id": str(run.id), "state": run.state.name, "attempt": run.attempt})
        if run.is_final or run.phase is Phase.PLANNED:
            follow_up(run, app)
    return run
