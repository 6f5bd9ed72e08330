"""Start the job of one run: claim, render, intent, call, record."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

from push_pools.domain import lanes, transitions
from push_pools.domain.errors import (
    CancelRequested,
    ClaimLost,
    InvalidInput,
    JobRejected,
    NotAllowed,
    NotDue,
    NotFound,
    NothingStarted,
    OutOfTime,
    Pacing,
    PlatformError,
    PlatformMissing,
    PlatformUnavailable,
    RunAlreadySubmitted,
    RunClaimed,
    RunLimited,
    SubmissionUncertain,
)
from push_pools.domain.failures import explain_error
from push_pools.domain.runs import Phase
from push_pools.domain.states import Failure, FailureClass, State
from push_pools.domain.status import Part
from push_pools.services.admit import is_limited, lane_of, park_run
from push_pools.services.ask import asking
from push_pools.services.chores import chores_of, do_chores, follow_up, watch_chore
from push_pools.services.ledger import RunKnown, change, log, put_first, send_hint, send_hint_at
from push_pools.services.limits import count_run
from push_pools.services.pace import Turn, next_turn, turn_at
from push_pools.services.plan import skip_reason
from push_pools.services.render import policy_of, render_run
from push_pools.services.schedule import put_again, put_run, run_of_event, send_if_soon
from push_pools.services.status import beat
from push_pools.services.stop import stop_run

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from push_pools.domain.events import ScheduledRun
    from push_pools.domain.jobs import BaseJobConfiguration
    from push_pools.domain.runs import FlowRun, Job, JobHandle
    from push_pools.domain.transitions import Moment
    from push_pools.ports import App, Invocation, Platform

MAX_WISH_SECONDS: Final = 600.0
"""The longest that a platform is left alone because it wishes so: a day would be past every deadline."""


def submit_run(run_id: UUID, app: App, invocation: Invocation) -> None:
    """Start the job of one run, once however often this is called.

    Cloud trouble does not escape: the ledger keeps the run and says when to look again.

    Raises:
        OutOfTime: The invocation ends too soon; the message has to be given back.
        StoreUnavailable: The ledger cannot be read or written; likewise.
    """
    run = app.store.get_run(run_id)
    if not app.acts_on(run.platform):
        return send_hint_at(app, run, app.clock.now())
    if run.chores:
        do_chores(run_id, app)
    return _submit(run, app, invocation)


def submit_scheduled_run(event: ScheduledRun, app: App, invocation: Invocation, *, envelope_id: str) -> None:
    """Put the run that an event asks for, and start its job if it is due; else send its hint.

    A run that is due is put together with its claim and intent: until then the event itself is its hint.

    Raises:
        OutOfTime: As `submit_run`.
        StoreUnavailable: Likewise.
        InvalidInput: As `run_of_event`, which also raises `NotFound` and `NotAllowed`.
    """
    run = run_of_event(event, app, envelope_id=envelope_id)
    if run.due_at > app.clock.now() or not app.acts_on(run.platform):
        return send_if_soon(put_run(run, event, app).run, app)
    try:
        if not is_limited(run, app):
            return _submit(run, app, invocation)
        stored = put_run(run, event, app).run
    except RunKnown as known:
        stored = put_again(known.run, run, event, app)
    if stored.phase.is_submitting or stored.phase is Phase.WAITING:
        submit_run(stored.id, app, invocation)
    return None


def _submit(run: FlowRun, app: App, invocation: Invocation) -> None:
    left = (invocation.deadline - app.real_clock.now()).total_seconds()
    if left < app.timing.call_seconds + app.timing.spare_seconds:
        raise OutOfTime(f"{left:.0f} s are left of this invocation")
    try:
        _Submission(run, app, invocation.owner).go_on()
    except NotDue as early:
        send_hint_at(app, run, early.due_at)
    except RunLimited:
        park_run(run if run.version else put_first(run, app), app)
    except (RunClaimed, RunAlreadySubmitted):
        pass  # Somebody has it, or it is done; `wake_at` guards the rest.
    except ClaimLost:
        log.info("claim_lost", extra={"flow_run_id": str(run.id)})
        if not run.version:  # Perhaps nobody has put it: the event is all there is of it.
            raise OutOfTime("the claim ran out before the run was put") from None


class _Submission:
    """One claim of one run, from here to the outcome that the ledger keeps.

    The first claim of a run, and the run itself if it is new, are written together with what follows from them,
    mostly the intent: nothing was done before that a second claimer would double. A later claim, or one after a hint
    was sent again, is written at once, so that a run which breaks its handlers is counted out.
    """

    def __init__(self, run: FlowRun, app: App, owner: str) -> None:
        self.app, self._owner = app, owner
        self._unclaimed: FlowRun | None = None
        """The run as it is stored, while its claim is not."""
        if run.fence or run.hints:
            self.run = change(app, run, self._claimed)
        else:
            self.run, self._unclaimed = self._claimed(run), run
        assert self.run.claim is not None
        self.fence = self.run.claim.fence

    def _claimed(self, run: FlowRun) -> FlowRun:
        limited = run.phase in (Phase.PLANNED, Phase.READY) and is_limited(run, self.app)
        return transitions.claim(run, self._owner, self.app.moment(), self.app.timing, limited=limited)

    def _has_to_park(self) -> bool:
        """Ask again after a claim that was written, which a new limit counts: one of the two always sees the other."""
        if self._unclaimed is not None or self.run.phase is not Phase.CLAIMED or not is_limited(self.run, self.app):
            return False
        self.run = park_run(self.run, self.app, fence=self.fence)
        return self.run.phase is not Phase.CLAIMED

    def _count_in(self) -> None:
        """Take the slots of limits that came after the claim was decided: they count the run as active before them."""
        for scope in lanes.scopes(self.run, lane_of(self.run, self.app)):
            if scope not in self.run.slots:
                self.run = count_run(self.run, scope, self.app)

    def go_on(self) -> None:
        """Do what the claimed run needs next.

        Raises:
            ClaimLost: Another claim was taken meanwhile.
        """
        try:
            self.platform: Platform = self.app.platforms(self.run.platform)
        except (NotFound, PlatformMissing) as error:
            return self._cannot_ask(PlatformUnavailable(self.run.platform, str(error), codes=["PlatformMissing"]))
        if self.run.phase is Phase.CALLING:
            self._count_in()
            return self._look_first()
        if self._has_to_park():
            return None
        if why := self._why_give_up():
            return self._end(why)
        if reason := skip_reason(self.app, self.run):
            return self._end(State.of("Skipped", self.app.clock.now(), reason))
        return self._prepare_and_call()

    # -- a call is open

    def _look_first(self) -> None:
        """A call was made, or may have been: ask the platform before anything else."""
        job = self.run.job
        assert job is not None
        closed = transitions.is_closed(job, self.app.real_clock.now(), self.app.timing)
        try:
            with asking(self.run.platform, self.app) as platform:
                found = platform.find(job.handle)
        except PlatformError as error:
            return self._cannot_ask(error)
        if found is not None:
            return self._record(found)
        if closed:
            return self._conclude_not_started()
        if self._decided() or job.refused or self.platform.closes_before_repeat:
            return self._wait_for_closing("no call may be open when this is concluded")
        return self._repeat()

    def _cannot_ask(self, error: PlatformError) -> None:
        """An open call stays open while the platform cannot be asked. When that lasts, nothing can be proven: lost."""
        if self.run.phase is not Phase.CALLING:
            return self._not_now(error)
        job, now, timing = self.run.job, self.app.clock.now(), self.app.timing
        deadline = transitions.submit_deadline(self.run, timing)
        assert job is not None
        assert deadline is not None
        if now < deadline + timedelta(seconds=timing.unreachable_seconds):
            return self._unanswered(error)
        if not transitions.is_closed(job, self.app.real_clock.now(), timing):
            return self._wait_for_closing("no call may be open when the run is given up")
        cause = f"the platform could not be asked whether a job was started: {error.reason}"
        suggestion = "look for the job at the platform by its key; it goes on being looked for, and stopped"
        return self._end(State.failed(_failure(FailureClass.LOST, cause, suggestion), now), watch=True)

    def _decided(self) -> bool:
        run = self.run
        return run.cancel is not None or run.verdict is not None or self._why_give_up() is not None

    def _conclude_not_started(self) -> None:
        """No call can land any more, and a look-up after that found nothing."""
        run, job, now = self.run, self.run.job, self.app.clock.now()
        assert job is not None
        if run.cancel is not None:
            return self._end(State.of("Cancelled", now, f"cancelled by {run.cancel.by} before a job was started"))
        if run.verdict is not None:
            return self._end(run.verdict)
        if job.refused and not self._may_be_forgotten(job):
            return self._next_launch()
        if why := self._why_give_up():
            return self._end(why, watch=True)
        return self._repeat()

    def _next_launch(self) -> None:
        at = self.app.clock.now()
        refusal = self.run.job.last_refusal if self.run.job else None
        if refusal is not None and not refusal.retry:
            return self._end(refusal.model_copy(update={"timestamp": at}))  # Another key would be refused as well.
        if why := self._why_give_up():
            if refusal is not None and not self._lapsed():
                # Nothing is lost: the last call was answered "nothing", and a look has confirmed it.
                why = refusal.model_copy(update={"timestamp": at, "retry": False})
            return self._end(why)
        self._write(lambda r, m: transitions.next_launch(r, self.fence, at, m))
        return send_hint(self.app, self.run)

    def _repeat(self) -> None:
        """Ask for the same key again with the stored request, while the platform remembers the key."""
        job = self.run.job
        assert job is not None
        if self._may_be_forgotten(job):
            return self._only_look_up()
        return self._call(self._stored_job(), job.handle)

    def _may_be_forgotten(self, job: Job) -> bool:
        """Whether the platform may know neither the key any more nor a job under it that is over.

        Then a look-up that finds nothing proves that nothing runs, but not that nothing was started.
        """
        since = job.open_since
        age = (self.app.real_clock.now() - since).total_seconds() if since else 0.0
        return self.platform.forgets_keys and age > self.app.timing.replay_seconds

    def _only_look_up(self) -> None:
        deadline = transitions.submit_deadline(self.run, self.app.timing)
        assert deadline is not None
        now = self.app.clock.now()
        again = min(deadline, now + timedelta(minutes=5))
        self._write(
            lambda r, m: transitions.refuse(
                r, self.fence, again, None, m, answered=False, note="the platform may have forgotten the key: look only"
            )
        )
        return send_hint(self.app, self.run)

    def _lapsed(self) -> bool:
        return self.run.lapses >= self.app.timing.max_lapses

    def _why_give_up(self, refusal: PlatformError | None = None) -> State | None:
        """Return the state of a run that took too long, or too many claims, to get a job.

        While no call is open it is the class of the last refusal; without any, one more try is made.
        """
        now, run = self.app.clock.now(), self.run
        if self._lapsed():
            cause = f"{run.lapses} claims in a row expired without an outcome"
            return State.failed(_failure(FailureClass.PLATFORM, cause, "look into the log of the functions"), now)
        deadline = transitions.submit_deadline(run, self.app.timing)
        if deadline is None or now < deadline:
            return None
        if run.phase is not Phase.CALLING:
            why = State.failed(explain_error(refusal), now) if refusal else run.job.last_refusal if run.job else None
            return why.model_copy(update={"timestamp": now, "retry": False}) if why else None
        cause = f"no job could be started, or found, within {self.app.timing.submit_seconds:g} s"
        return State.failed(_failure(FailureClass.LOST, cause, "look for the job at the platform by its key"), now)

    # -- nothing is open

    def _prepare_and_call(self) -> None:
        run = self.run
        if run.job is not None:
            return self._call(self._stored_job(), run.job.handle)
        try:
            job = self.platform.prepare(render_run(run, self.app), self.app.store)
        except (InvalidInput, NotFound, NotAllowed) as error:
            failure = _failure(FailureClass.CONFIGURATION, str(error), "correct it and run again: `flow-run retry`")
            return self._end(State.failed(failure, self.app.clock.now()))
        except JobRejected as error:
            return self._end(State.failed(explain_error(error), self.app.clock.now()))
        except PlatformError as error:
            return self._not_now(error)
        handle = self.platform.handle(job, run.job_key)
        return self._call(job, handle.model_copy(update={"run_id": run.id, "attempt": run.attempt}))

    def _stored_job(self) -> BaseJobConfiguration:
        assert self.run.job is not None
        return self.platform.job_configuration.model_validate(self.run.job.request)

    def _call(self, job: BaseJobConfiguration, handle: JobHandle) -> None:
        """Write the intent, make the call, and write its outcome."""
        if (turn := next_turn(self.run, self.platform, job, self.app)).at is not None:
            return self._wait_for_turn(turn)
        request = self.run.job.request if self.run.job else job.model_dump(mode="json")
        policy = policy_of(self.run, job, self.platform, self.app)
        is_new = self._unclaimed is not None
        try:
            self._write(lambda r, m: transitions.intend(r, self.fence, handle, request, policy, m, self.app.timing))
        except CancelRequested:  # Perhaps after the intent was written, and the answer to that was lost.
            self.run = self.app.store.get_run(self.run.id)
            return self._wait_for_closing("cancelled while an earlier call may still land")
        if is_new:
            self._count_in()
        self._require_time()
        try:
            submitted = self.platform.submit(job, handle.key)
        except PlatformUnavailable as error:
            return self._not_now(error)
        except NothingStarted as error:
            return self._nothing_started(error)
        except SubmissionUncertain as error:
            return self._unanswered(error)
        except JobRejected as error:
            return self._rejected(error)
        except Exception as error:  # A fault of the adapter: the call may have been made.
            log.exception("submit_failed", extra={"flow_run_id": str(self.run.id), "job_key": handle.key})
            return self._unanswered(SubmissionUncertain(self.run.platform, f"{type(error).__name__}: {error}"))
        return self._record(handle.model_copy(update={"pid": submitted.pid}))

    def _require_time(self) -> None:
        """Refuse to call after the time that the intent gave: a process that stood still meanwhile calls no more.

        Whoever looks for the job since then takes it that no call can land after `call_until` and the settling.
        """
        assert self.run.job is not None
        if self.app.real_clock.now() >= self.run.job.call_until:
            raise ClaimLost("the time in which the call was to be made is over")

    # -- outcomes

    def _record(self, handle: JobHandle) -> None:
        run = change(
            self.app, self.run, lambda r: transitions.record_pid(r, handle, self.app.moment(), self.app.timing)
        )
        log.info(
            "job_submitted",
            extra={"flow_run_id": str(run.id), "job_key": handle.key, "infrastructure_pid": handle.pid},
        )
        beat(self.app, Part.SUBMIT, run.work_pool)
        if run.phase is Phase.STOPPING:
            stop_run(run.id, self.app)
        elif run.chores:
            send_hint(self.app, run)

    def _wait_for_turn(self, turn: Turn) -> None:
        """Wait, without a claim, for what the rates of the platform let happen later."""
        now, at = self.app.moment(), turn.at
        assert at is not None
        due = max(now.at(at), now.now)
        self._write(lambda r, m: transitions.wait_for_pace(r, self.fence, turn.places, due, m, turn.why))
        send_hint(self.app, self.run)

    def _not_now(self, error: PlatformError) -> None:
        """Refused for now, without effect: the same key again, later."""
        if isinstance(error, Pacing):
            return self._wait_for_turn(turn_at(self.run, error, self.app))
        if self.run.phase is Phase.CLAIMED and (why := self._why_give_up(error)):
            return self._end(why)
        self._refuse(error, answered=True, wait=getattr(error, "retry_after_seconds", None))
        return None

    def _unanswered(self, error: PlatformError) -> None:
        self._refuse(error, answered=False, wait=None)

    def _refuse(self, error: PlatformError, *, answered: bool, wait: float | None) -> None:
        now = self.app.clock.now()
        why = State.failed(explain_error(error), now)
        wished = min(wait or 0.0, MAX_WISH_SECONDS)
        at = now + timedelta(seconds=max(wished, self._wait_seconds()) * self.app.clock.speed)
        self._write(lambda r, m: transitions.refuse(r, self.fence, at, why, m, answered=answered, note=error.reason))
        log.warning("submit_refused", extra={"flow_run_id": str(self.run.id), "reason": error.reason})
        send_hint(self.app, self.run)

    def _wait_seconds(self) -> float:
        calls = self.run.job.calls if self.run.job else 1
        doubled = self.app.timing.call_backoff_seconds * 2.0 ** min(max(calls - 1, 0), 10)
        return min(doubled, 60.0) * transitions.spread(self.run)

    def _nothing_started(self, error: NothingStarted) -> None:
        if not self.platform.key_is_used_up:
            return self._not_now(error)
        why = State.failed(explain_error(error), self.app.clock.now())
        self._write(lambda r, m: transitions.bind_refusal(r, self.fence, why, m, self.app.timing))
        return send_hint(self.app, self.run)

    def _rejected(self, error: JobRejected) -> None:
        state = State.failed(explain_error(error), self.app.clock.now())
        assert self.run.job is not None
        if transitions.only_mine(self.run.job, self.fence):
            return self._end(state)
        self._write(lambda r, m: transitions.reject(r, self.fence, state, m, self.app.timing))
        return send_hint(self.app, self.run)

    def _wait_for_closing(self, note: str) -> None:
        self._write(lambda r, m: transitions.wait_for_closing(r, self.fence, m, self.app.timing, note))
        send_hint(self.app, self.run)

    def _end(self, state: State, *, watch: bool = False) -> None:
        """End the run, or its attempt, with nothing started."""
        chores = chores_of(self.app)

        def decide(run: FlowRun, moment: Moment) -> FlowRun:
            transitions.require_fence(run, self.fence)
            if watch:
                return transitions.finish(run, state, moment, (*chores(run, moment.now), *watch_chore(run, moment.now)))
            return transitions.end(run, state, moment, chores)

        self._write(decide)
        follow_up(self.run, self.app)

    def _write(self, decide: Callable[[FlowRun, Moment], FlowRun]) -> None:
        before, self._unclaimed = self._unclaimed, None
        if before is None:
            self.run = change(self.app, self.run, lambda run: decide(run, self.app.moment()))
        elif before.version:
            self.run = change(self.app, before, lambda run: decide(self._claimed(run), self.app.moment()))
        else:
            self.run = put_first(decide(self.run, self.app.moment()), self.app)


def _failure(class_: FailureClass, cause: str, suggestion: str) -> Failure:
    return Failure(failure_class=class_, cause=cause, suggestion=suggestion)
