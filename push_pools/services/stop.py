"""Stop jobs: because somebody asked, or because a deadline has passed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from push_pools.domain import transitions
from push_pools.domain.errors import PlatformError
from push_pools.domain.runs import FlowRun, Phase
from push_pools.domain.states import Failure, FailureClass, State
from push_pools.services.ask import asking
from push_pools.services.chores import chores_of, do_chores, follow_up, watch_chore
from push_pools.services.ledger import change, log, send_hint_at
from push_pools.services.poll import observe_run

if TYPE_CHECKING:
    from uuid import UUID

    from push_pools.ports import App


def cancel_run(run_id: UUID, app: App, *, by: str, reason: str = "") -> FlowRun:
    """Cancel a run. Without a job, and no call open, it is over at once; else its job is looked for and stopped.

    Raises:
        NotFound: There is no such run.
        NotAllowed: It is over.
    """
    chores = chores_of(app)
    run = app.store.get_run(run_id)
    run = change(app, run, lambda r: transitions.ask_cancel(r, by, reason, app.moment(), chores))
    log.info("cancel_asked", extra={"flow_run_id": str(run.id), "phase": str(run.phase)})
    if run.is_final:
        follow_up(run, app)
    else:
        send_hint_at(app, run, app.clock.now())
    return run


def stop_run(run_id: UUID, app: App) -> None:
    """Move a run with a job on: stop it if a deadline has passed, repeat a stop, or give the stop up."""
    run = app.store.get_run(run_id)
    if not app.acts_on(run.platform):
        return send_hint_at(app, run, app.clock.now())
    if run.chores:
        do_chores(run_id, app)
    if run.phase is Phase.STARTED and transitions.overdue(run, app.clock.now(), app.timing):
        run = observe_run(run, app)  # It may have started, or ended, since anybody looked.
        run = change(app, run, lambda r: _stop_if_overdue(r, app))
    elif run.phase is Phase.STOPPING and run.job is not None and run.job.stop_sent_at is not None:
        run = observe_run(run, app)
    if run.phase is Phase.STOPPING:
        _stop(run, app)
    return None


def _stop_if_overdue(run: FlowRun, app: App) -> FlowRun:
    """Decide anew for every record that is read: it may be another attempt by now, with time left."""
    moment = app.moment()
    failure = transitions.overdue(run, moment.now, app.timing)
    return run if failure is None else transitions.begin_stop(run, State.failed(failure, moment.now), moment)


def _stop(run: FlowRun, app: App) -> None:
    assert run.job is not None
    if transitions.gives_up_stopping(run, app.clock.now(), app.timing):
        return _give_up(run, app)
    key, sent_at = run.job.key, app.clock.now()
    grace = run.policy.grace_seconds if run.policy else 30.0
    try:
        with asking(run.platform, app) as platform:
            platform.stop(run.job.handle, grace)
    except PlatformError as error:
        reason = error.reason
        change(app, run, lambda r: transitions.stop_postponed(r, reason, app.moment(), app.timing))
        return None
    change(app, run, lambda r: transitions.stop_sent(r, key, sent_at, app.moment(), app.timing))
    return None


def _give_up(run: FlowRun, app: App) -> None:
    failure = Failure(
        failure_class=FailureClass.LOST,
        cause=f"stop not confirmed within {app.timing.stop_seconds:g} s",
        suggestion="look at the platform whether the job still runs; it goes on being stopped",
    )
    chores = chores_of(app)

    def decide(stored: FlowRun) -> FlowRun:
        moment = app.moment()
        if stored.phase is not Phase.STOPPING or not transitions.gives_up_stopping(stored, moment.now, app.timing):
            return stored
        state = State.failed(failure, moment.now)
        return transitions.finish(
            stored, state, moment, (*chores(stored, moment.now), *watch_chore(stored, moment.now))
        )

    follow_up(change(app, run, decide), app)
