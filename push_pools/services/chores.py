"""What a run still owes after an attempt is over: done until it is done, by whoever finds it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

from push_pools.domain import transitions
from push_pools.domain.deployments import Deployment
from push_pools.domain.errors import NotPublished, PlatformError
from push_pools.domain.runs import Chore, ChoreKind, Phase
from push_pools.domain.states import JobStatus
from push_pools.services.ask import asking, is_installed
from push_pools.services.ledger import change, log, send_hint, send_hint_at
from push_pools.services.limits import ask_to_admit
from push_pools.services.news import publish_chore

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime
    from uuid import UUID

    from push_pools.domain.runs import FlowRun
    from push_pools.ports import App

ALARM_AFTER: Final = timedelta(hours=24)


AT_THE_PLATFORM: Final = frozenset({ChoreKind.CLEANUP, ChoreKind.WATCH, ChoreKind.LOGS})
"""Chores that only the handlers which act on the run's platform can do; others leave them to these."""


class ChoreOpen(Exception):
    """The chore did what it could, and there is more to do later."""


def chores_of(app: App) -> Callable[[FlowRun, datetime], tuple[Chore, ...]]:
    """Return the function that lists what the end of a run's attempt leaves to do."""

    def chores(run: FlowRun, now: datetime) -> tuple[Chore, ...]:
        job, todo = run.job, []
        if any(not scope.endswith("#NEXT") for scope in run.slots):
            todo.append(Chore(kind=ChoreKind.WAKE, not_before=now, since=now))
        if job is not None and _needs_cleanup(run.platform, app):
            moment = app.moment()
            closed = moment.at(job.call_until + app.timing.settle)
            todo.append(Chore(kind=ChoreKind.CLEANUP, not_before=max(closed, now), since=now, handle=job.handle))
        return tuple(todo)

    return chores


def _needs_cleanup(platform: str, app: App) -> bool:
    # Of one that is not installed now nobody knows; whoever installs it again finds the chore.
    return not is_installed(platform, app) or app.platforms(platform).needs_cleanup


def watch_chore(run: FlowRun, now: datetime) -> Sequence[Chore]:
    """Return the chore that looks after a job whose end was not proven."""
    if run.job is None:
        return ()
    return (Chore(kind=ChoreKind.WATCH, not_before=now, since=now, handle=run.job.handle),)


def do_chores(run_id: UUID, app: App) -> None:
    """Do what is due of a run's chores; what fails is put off and tried again."""
    run = app.store.get_run(run_id)
    now = app.clock.now()
    for chore in [chore for chore in run.chores if chore.not_before <= now]:
        if chore.kind not in AT_THE_PLATFORM or app.acts_on(run.platform):
            run = _do(run, chore, app)
    if run.chores:
        send_hint_at(app, run, min(chore.not_before for chore in run.chores))


def follow_up(run: FlowRun, app: App) -> None:
    """Do, or send for, what follows from a run that ended or whose next attempt is planned."""
    if run.is_final:
        log.info("run_finished", extra={"flow_run_id": str(run.id), "state": run.state.name, "attempt": run.attempt})
    if run.chores:
        do_chores(run.id, app)
    if run.phase is Phase.PLANNED:
        send_hint(app, run)


def _do(run: FlowRun, chore: Chore, app: App) -> FlowRun:
    try:
        _DO.get(chore.kind, _unknown)(run, chore, app)
    except (PlatformError, NotPublished, ChoreOpen) as problem:
        if app.clock.now() - chore.since > ALARM_AFTER:
            log.error("chore_overdue", extra={"flow_run_id": str(run.id), "chore": chore.name, "reason": str(problem)})
        reason = str(problem)
        return change(app, run, lambda r: transitions.chore_failed(r, chore.name, reason, app.moment()))
    return change(app, run, lambda r: transitions.chore_done(r, chore.name, app.moment()))


def _wake(run: FlowRun, chore: Chore, app: App) -> None:
    """Have those admitted who waited for the slots that this run gave back."""
    del chore
    ask_to_admit(app, run.work_pool)
    deployment = app.store.find(Deployment, run.deployment_id) if run.deployment_id else None
    if deployment is not None and deployment.work_pool != run.work_pool:
        ask_to_admit(app, deployment.work_pool)  # It moved, and its next run waits there.


def _cleanup(run: FlowRun, chore: Chore, app: App) -> None:
    assert chore.handle is not None
    key = chore.handle.key
    if any(each.kind is ChoreKind.WATCH and each.handle and each.handle.key == key for each in run.chores):
        raise ChoreOpen("its job is not seen to be over yet")
    with asking(chore.handle.platform, app) as platform:
        platform.cleanup(chore.handle)


def _watch(run: FlowRun, chore: Chore, app: App) -> None:
    """Stop a job that should not be running, until it is seen to be over."""
    assert chore.handle is not None
    with asking(chore.handle.platform, app) as platform:
        handle = chore.handle if chore.handle.pid else platform.find(chore.handle)
        if handle is None:
            return
        seen = platform.observe([handle])[0]
        old = app.clock.now() - chore.since >= timedelta(seconds=app.timing.gone_grace_seconds)
        if seen.is_over and (seen.status is not JobStatus.GONE or old):
            return
        event = "orphan_job" if run.infrastructure_pid in (None, handle.pid) else "duplicate_job"
        log.error(event, extra={"flow_run_id": str(run.id), "job_key": handle.key, "infrastructure_pid": handle.pid})
        platform.stop(handle, 0.0)
    raise ChoreOpen("the job is not seen to be over yet; it was asked to stop")


def _publish(run: FlowRun, chore: Chore, app: App) -> None:
    publish_chore(chore, app)


def _unknown(run: FlowRun, chore: Chore, app: App) -> None:
    """A newer release left it, and a newer one will do it: it is kept."""
    raise ChoreOpen(f"this release cannot do the chore {chore.kind!r}; upgrade push_pools")


_DO: Final = {
    ChoreKind.WAKE: _wake,
    ChoreKind.CLEANUP: _cleanup,
    ChoreKind.WATCH: _watch,
    ChoreKind.PUBLISH: _publish,
}
