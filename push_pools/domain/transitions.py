"""How a run moves: pure functions from a run and the facts to the run that follows.

Each is one row of the table in `docs/design.md` ("The ledger, exactly"), and either returns the run
to be written or raises the error that says what the caller does instead. A return of the same object
means that there is nothing to write. *Decisions* on the submit side name the fence they act under;
*facts* (a pid, an Observation) name only a job key, and are welcome whatever the fence or phase.
`now` is on the movable clock, `real_now` on the real one.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from push_pools.domain.errors import (
    CancelRequested,
    ClaimLost,
    NotAllowed,
    NotDue,
    RunAlreadySubmitted,
    RunClaimed,
    RunLimited,
)
from push_pools.domain.runs import (
    CancelRequest,
    Chore,
    ChoreKind,
    Claim,
    FlowRun,
    Job,
    JobHandle,
    Phase,
    Policy,
    job_key,
)
from push_pools.domain.states import (
    OVER,
    Failure,
    FailureClass,
    JobStatus,
    Observation,
    State,
    StateType,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pydantic import JsonValue

    from push_pools.domain.records import Timing

CLOCKS_DIFFER_SECONDS = 15.0
"""By how much the clocks of two hosts may differ; the guarantee presumes it."""
LATE_SECONDS = 15.0
"""A run that nobody has claimed this long after its due time is Late, as in Prefect; one claimed then says so."""


@dataclass(frozen=True)
class Moment:
    """One reading of both clocks; `at` gives the movable time of a real moment."""

    now: datetime
    real_now: datetime
    speed: float = 1.0

    def at(self, real: datetime) -> datetime:
        return self.now + (real - self.real_now) * self.speed


# -- claim and intent ----------------------------------------------------------


def claim(run: FlowRun, owner: str, moment: Moment, timing: Timing, *, limited: bool = False) -> FlowRun:
    """Hold a run for submission until a time, with a fence of its own.

    Raises:
        RunAlreadySubmitted: Its job is recorded, or it is final.
        NotDue: It is too early; the error says when.
        RunClaimed: Another claim stands.
        RunLimited: It needs a slot first.
    """
    if not run.phase.is_submitting:
        raise RunAlreadySubmitted if run.phase is not Phase.WAITING else RunLimited
    if run.due_at > moment.now + timedelta(seconds=timing.early_seconds):
        raise NotDue(run.due_at)
    standing = run.claim is not None and run.claim.until > moment.real_now
    if run.claim is not None and standing:
        if run.claim.owner == owner:
            return run  # A lost answer: the claim is mine already.
        raise RunClaimed(run.claim.until)
    if run.phase in (Phase.PLANNED, Phase.READY) and limited:
        raise RunLimited
    until = moment.real_now + timing.claim
    fence = run.fence + 1
    taken_over = run.claim is not None
    facts = {"fence": fence, "lapses": run.lapses + 1 if taken_over else None, "late_seconds": _late(run, moment)}
    return run.evolve(
        phase=Phase.CALLING if run.phase is Phase.CALLING else Phase.CLAIMED,
        state=run.state if run.cancel else State.of("Submitting", moment.now),
        fence=fence,
        lapses=run.lapses + 1 if taken_over else run.lapses,
        claim=Claim(owner=owner, fence=fence, until=until),
        tried_since=run.tried_since or moment.now,
        wake_at=moment.at(until),
        hints=0,
    ).noted(moment.now, "taken over" if taken_over else "claimed", **facts)


def _late(run: FlowRun, moment: Moment) -> float | None:
    late = (moment.now - run.due_at).total_seconds()
    return round(late, 3) if late > LATE_SECONDS else None


def holds(run: FlowRun, fence: int) -> bool:
    """Whether the claim with this fence still stands on the record."""
    return run.claim is not None and run.claim.fence == fence and run.phase.is_submitting


def require_fence(run: FlowRun, fence: int) -> None:
    """Refuse a decision of an older fence.

    Raises:
        ClaimLost: Another claim was taken, or the run has moved on.
    """
    if not holds(run, fence):
        raise ClaimLost("the claim was taken over, or the run has moved on")


def intend(
    run: FlowRun,
    fence: int,
    handle: JobHandle,
    request: dict[str, JsonValue],
    policy: Policy,
    moment: Moment,
    timing: Timing,
) -> FlowRun:
    """Write down the call that is about to be made; a repeat keeps the stored request.

    Raises:
        ClaimLost: The claim is not mine, or no longer outlasts a call.
        CancelRequested: A cancel was written first.
    """
    require_fence(run, fence)
    if run.cancel is not None or run.verdict is not None:
        raise CancelRequested("a cancel was written before the call")
    assert run.claim is not None
    if run.claim.until < moment.real_now + timing.call:
        raise ClaimLost("the claim is too short for another call")
    call_until = moment.real_now + timing.call
    old = run.job
    if old is None:
        job = Job(
            handle=handle,
            request=request,
            intent_at=moment.now,
            call_until=call_until,
            open_since=moment.real_now,
            opened_by=fence,
            calls=1,
        )
    else:
        first = old.open_since is None
        job = old.model_copy(
            update={
                "handle": handle,
                "call_until": call_until,
                "open_since": moment.real_now if first else old.open_since,
                "opened_by": fence if first else old.opened_by,
                "calls": old.calls + 1,
            }
        )
    return run.evolve(
        phase=Phase.CALLING,
        job=job,
        policy=run.policy if old is not None and run.policy is not None else policy,
        places={},
        hints=0,
    ).noted(moment.now, "intent", key=handle.key, attempt=run.attempt, launch=run.launch, call=job.calls)


# -- outcomes of a call --------------------------------------------------------


def is_closed(job: Job, real_now: datetime, timing: Timing) -> bool:
    """Whether no call under the job's key can still land."""
    return real_now > job.call_until + timing.settle


def only_mine(job: Job, fence: int) -> bool:
    """Whether the only unanswered call under the key is the one made under this fence."""
    return job.open_since is None or job.opened_by == fence


def record_pid(run: FlowRun, handle: JobHandle, moment: Moment, timing: Timing) -> FlowRun:
    """Record that a job exists; a fact, so no fence is asked for.

    The job of an older key, a second job under the current key, and a job found after the run was given
    up get a `watch` chore, which stops them. If the run is being cancelled, it moves on to stopping.
    """
    job = run.job
    if handle.key in run.over:
        return run
    if job is None or job.key != handle.key:
        return _watch(run, handle, moment, "job of an older key")
    if job.pid is not None:
        if job.pid == handle.pid:
            return run
        return _watch(run, handle, moment, "duplicate_job", pid=handle.pid, first=job.pid)
    recorded = job.model_copy(
        update={"handle": handle, "submitted_at": moment.now, "refused": False, "open_since": None}
    )
    if run.is_final:
        return _watch(run.evolve(job=recorded), handle, moment, "job found after the end", pid=handle.pid)
    submitted = run.evolve(job=recorded, claim=None, lapses=0, hints=0)
    if run.cancel is not None or run.verdict is not None:
        return _stopping(submitted, run.verdict or _cancelled(run, moment.now), moment).noted(
            moment.now, "submitted", pid=handle.pid, then="stop"
        )
    return submitted.evolve(
        phase=Phase.STARTED, state=State.of("Submitted", moment.now), wake_at=start_deadline(submitted, moment.now)
    ).noted(moment.now, "submitted", pid=handle.pid, **handle.place)


def start_deadline(run: FlowRun, now: datetime) -> datetime:
    """When a job that has not begun to run by then is stopped."""
    seconds = run.policy.start_timeout_seconds if run.policy else 600.0
    since = run.job.submitted_at if run.job and run.job.submitted_at else now
    return since + timedelta(seconds=seconds)


def refuse(
    run: FlowRun, fence: int, retry_at: datetime, why: State | None, moment: Moment, *, answered: bool, note: str
) -> FlowRun:
    """Give the claim back after a call, or before one, that did not lead to a job.

    `answered` says that the platform surely started nothing; with it, and no other call open, the
    key is as fresh as before. Otherwise the call stays open, and the next claim looks first.

    Raises:
        ClaimLost: The claim is not mine.
    """
    require_fence(run, fence)
    job = run.job
    fresh = run.phase is Phase.CLAIMED or (answered and job is not None and only_mine(job, fence))
    if job is not None:
        job = job.model_copy(
            update={
                "open_since": None if fresh else job.open_since,
                # A refusal that is bound to the key is what the attempt ends with, not what came while it settled.
                "last_refusal": job.last_refusal if job.refused else why or job.last_refusal,
            }
        )
    phase = Phase.READY if fresh else Phase.CALLING
    shown = State.of("Scheduled", moment.now, note) if phase is Phase.READY and not run.cancel else run.state
    return run.evolve(
        phase=phase, job=job, state=shown, claim=None, lapses=0, due_at=retry_at, wake_at=retry_at, hints=0
    ).noted(moment.now, "refused" if answered else "unanswered", why=note, again_at=retry_at.isoformat())


def wait_for_pace(
    run: FlowRun, fence: int, places: dict[str, datetime], at: datetime, moment: Moment, why: str
) -> FlowRun:
    """Give the claim back before a call, until its turn comes at `at`; the places taken for it are kept.

    Nothing was refused, so this is no failure: the attempt's time to get a job begins anew. An open call stays open.

    Raises:
        ClaimLost: The claim is not mine.
    """
    require_fence(run, fence)
    fresh = run.phase is Phase.CLAIMED
    waiting = run.evolve(
        phase=Phase.READY if fresh else Phase.CALLING,
        state=State.of("Scheduled", moment.now, f"pacing: {why}") if fresh and not run.cancel else run.state,
        places=places,
        claim=None,
        lapses=0,
        tried_since=None if run.job is None else run.tried_since,
        due_at=at,
        wake_at=at,
        hints=0,
    )
    return waiting.noted(moment.now, "pacing", why=why, again_at=at.isoformat())


def bind_refusal(run: FlowRun, fence: int, why: State, moment: Moment, timing: Timing) -> FlowRun:
    """Keep a refusal that the platform remembers under the key (ECS) until no call can land.

    The next claim comes after that, looks once more, and takes the next launch.

    Raises:
        ClaimLost: The claim is not mine.
    """
    require_fence(run, fence)
    assert run.job is not None
    job = run.job.model_copy(update={"refused": True, "last_refusal": why})
    return wait_for_closing(run.evolve(job=job), fence, moment, timing, "the platform started nothing: " + why.message)


def wait_for_closing(run: FlowRun, fence: int, moment: Moment, timing: Timing, note: str) -> FlowRun:
    """Give the claim back until no call under the key can still land.

    Raises:
        ClaimLost: The claim is not mine.
    """
    require_fence(run, fence)
    assert run.job is not None
    at = moment.at(run.job.call_until + timing.settle) + timedelta(milliseconds=1)
    return run.evolve(
        phase=Phase.CALLING, claim=None, lapses=0, due_at=max(at, run.due_at), wake_at=max(at, run.due_at), hints=0
    ).noted(moment.now, "settling", why=note, until=at.isoformat())


def reject(run: FlowRun, fence: int, verdict: State, moment: Moment, timing: Timing) -> FlowRun:
    """Keep a permanent refusal as the verdict while another call under the key is still open.

    Raises:
        ClaimLost: The claim is not mine.
    """
    require_fence(run, fence)
    return wait_for_closing(
        run.evolve(verdict=run.verdict or verdict), fence, moment, timing, "rejected: " + verdict.message
    )


def next_launch(run: FlowRun, fence: int, at: datetime, moment: Moment) -> FlowRun:
    """Take a new key within the attempt, after a proof that the refused one started nothing.

    Raises:
        ClaimLost: The claim is not mine.
    """
    require_fence(run, fence)
    assert run.job is not None
    launch = run.launch + 1
    handle = run.job.handle.model_copy(update={"key": job_key(run.id, run.attempt, launch)})
    job = run.job.model_copy(update={"handle": handle, "refused": False, "open_since": None, "opened_by": 0})
    shown = run.state if run.cancel else State.of("Scheduled", moment.now, "waits to launch again")
    return run.evolve(
        phase=Phase.READY, launch=launch, job=job, state=shown, claim=None, lapses=0, due_at=at, wake_at=at, hints=0
    ).noted(moment.now, "next launch", launch=launch, at=at.isoformat())


def submit_deadline(run: FlowRun, timing: Timing) -> datetime | None:
    """When an attempt without a job is given up: counted from its first intent, before that from its first claim."""
    since = run.job.intent_at if run.job else run.tried_since
    return since + timedelta(seconds=timing.submit_seconds) if since else None


# -- observations --------------------------------------------------------------


@dataclass(frozen=True)
class Ending:
    """What follows from a job that is over: a final state, or another attempt at a time."""

    state: State
    retry_at: datetime | None = None


def observe(
    run: FlowRun,
    seen: Observation,
    moment: Moment,
    timing: Timing,
    explain: Callable[[Observation], Failure],
    chores: Callable[[FlowRun, datetime], tuple[Chore, ...]],
) -> FlowRun:
    """Apply what a platform says of the current job; a lower or equal rank changes nothing.

    `explain` turns a job that did not succeed into a Failure; `chores` lists what the end of the
    attempt leaves to do.
    """
    job = run.job
    if job is None or job.key != seen.key or run.is_final or job.pid is None:
        return run
    if seen.status is JobStatus.UNKNOWN and _is_old(job, seen.observed_at, timing):
        return unseen(run, "the platform does not know the job", moment, timing)
    if seen.status is JobStatus.GONE and not _surely_gone(job, seen, timing):
        return run
    if seen.status.rank <= job.seen_rank:
        return _seen_again(run, seen, moment)
    job = job.model_copy(
        update={
            "seen_rank": seen.status.rank,
            "seen_at": job.seen_at if seen.told else seen.observed_at,
            "unseen_since": None,
            "unseen_alarm": False,
            "started_at": job.started_at or seen.started_at or (moment.now if seen.status.rank >= 2 else None),
        }
    )
    run = run.evolve(job=job, hints=0)
    if seen.status.rank < OVER:
        return _running(run, seen, moment)
    run = run.evolve(start_time=run.start_time or seen.started_at, over=(*run.over, seen.key)).noted(
        moment.now,
        "observed",
        status=str(seen.status),
        exit_code=seen.exit_code,
        signal=seen.signal,
        codes=list(seen.codes) or None,
        reason=seen.reason or None,
    )
    if seen.details.get("events") or seen.details.get("output"):
        # What the platform soon forgets: it is deleted with the job.
        run = run.noted(moment.now, "kept", events=seen.details.get("events"), output=seen.details.get("output"))
    return end(run, outcome(run, seen, moment.now, explain), moment, chores)


def _running(run: FlowRun, seen: Observation, moment: Moment) -> FlowRun:
    assert run.job is not None
    if seen.status is not JobStatus.RUNNING:
        return run.noted(moment.now, "observed", status=str(seen.status))
    run = run.noted(moment.now, "observed", status="running")
    started = run.job.started_at if run.job else None
    run = run.evolve(start_time=run.start_time or started)
    if run.phase is not Phase.STARTED:
        return run
    return run.evolve(state=State.of("Running", moment.now), wake_at=run_deadline(run))


def run_deadline(run: FlowRun) -> datetime | None:
    """When a running job is stopped as TimedOut; without a limit, when it is looked after again."""
    assert run.job is not None
    assert run.job.started_at is not None
    seconds = run.policy.timeout_seconds if run.policy else 0.0
    return run.job.started_at + timedelta(seconds=seconds or 24 * 3600)


def _surely_gone(job: Job, seen: Observation, timing: Timing) -> bool:
    """Whether a look that did not find the job proves that it is over.

    What counts is when the platform was asked, not when the answer is applied: it may come late, and a platform shows
    a new job late. The looks that are compared may be of two hosts, whose clocks differ.
    """
    # A job that only events have shown was not seen: they may come before it is shown to those who ask.
    if job.seen_rank > 0 and job.seen_at is not None:
        return seen.observed_at >= job.seen_at + timedelta(seconds=CLOCKS_DIFFER_SECONDS)
    return _is_old(job, seen.observed_at, timing)


def _is_old(job: Job, now: datetime, timing: Timing) -> bool:
    """Whether the platform has had time enough to list the job."""
    return job.submitted_at is not None and now - job.submitted_at >= timedelta(seconds=timing.gone_grace_seconds)


def unseen(run: FlowRun, why: str, moment: Moment, timing: Timing) -> FlowRun:
    """Record that a job could not be seen: at first, and when it has lasted so long that somebody is alarmed.

    Two writes at most, however often nobody sees it.
    """
    job = run.job
    if job is None or not run.phase.is_active:
        return run
    if job.unseen_since is None:
        job = job.model_copy(update={"unseen_since": moment.now})
        return run.evolve(job=job).noted(moment.now, "unseen", why=why)
    if job.unseen_alarm or moment.now - job.unseen_since < timedelta(seconds=timing.unseen_seconds):
        return run
    since = job.unseen_since.isoformat()
    job = job.model_copy(update={"unseen_alarm": True})
    return run.evolve(job=job).noted(moment.now, "job_unseen", since=since, why=why)


def _seen_again(run: FlowRun, seen: Observation, moment: Moment) -> FlowRun:
    if run.job is None or run.job.unseen_since is None or seen.status is JobStatus.UNKNOWN:
        return run
    job = run.job.model_copy(update={"unseen_since": None, "unseen_alarm": False})
    run = run.evolve(job=job).noted(moment.now, "seen again", status=str(seen.status))
    if run.phase is not Phase.STARTED or job.started_at is not None:
        return run
    # Its start deadline did not count while nobody saw it, and hints were put off meanwhile: now it counts again.
    deadline = start_deadline(run, moment.now)
    return run.evolve(wake_at=min(run.wake_at or deadline, deadline), hints=0)


def outcome(run: FlowRun, seen: Observation, now: datetime, explain: Callable[[Observation], Failure]) -> State:
    """Return the state a job's end leads to: its own outcome, or the verdict it was stopped with.

    A job that ended by itself before the stop was sent keeps its own outcome.
    """
    if run.verdict is not None and _was_stopped(run, seen):
        return run.verdict.model_copy(update={"timestamp": now, "exit_code": seen.exit_code, "signal": seen.signal})
    if seen.status is JobStatus.SUCCEEDED:
        return State(type=StateType.COMPLETED, name="Completed", timestamp=now, exit_code=seen.exit_code)
    if seen.status is JobStatus.CANCELLED:
        reason = seen.reason or "stopped at the platform"
        return State(type=StateType.CANCELLED, name="Cancelled", timestamp=now, message=reason)
    return State.failed(explain(seen), now)


def _was_stopped(run: FlowRun, seen: Observation) -> bool:
    if seen.stopped is not None:
        return seen.stopped
    if seen.status in (JobStatus.CANCELLED, JobStatus.GONE):
        return True
    sent = run.job.stop_sent_at if run.job else None
    return sent is not None and (seen.ended_at is None or seen.ended_at >= sent)


def end(
    run: FlowRun, state: State, moment: Moment, chores: Callable[[FlowRun, datetime], tuple[Chore, ...]]
) -> FlowRun:
    """Finish a run, or its attempt: with attempts left, a failure that may be tried again is."""
    if may_retry(run, state):
        return retry(run, state, moment.now + backoff(run), moment, chores(run, moment.now))
    return finish(run, state, moment, chores(run, moment.now))


def may_retry(run: FlowRun, state: State) -> bool:
    """Whether the policy tries again after this state. A cancel never does."""
    if run.policy is None or run.cancel is not None or state.failure_class is None:
        return False
    policy = run.policy.retries
    wanted = state.retry if policy.on is None else state.failure_class in policy.on
    return wanted and run.attempt < policy.attempts


def backoff(run: FlowRun) -> timedelta:
    """How long the next attempt waits: doubling to ten minutes, spread by up to a fifth."""
    first = run.policy.retries.backoff_seconds if run.policy else 10.0
    seconds = min(first * 2 ** (run.attempt - 1), 600.0)
    return timedelta(seconds=seconds * spread(run))


def spread(run: FlowRun) -> float:
    """A factor between 0.8 and 1.0 that differs between runs and stays the same for one."""
    return 0.8 + 0.2 * ((run.id.int + run.attempt * 7919 + run.fence * 104729) % 997) / 997


# -- ends ----------------------------------------------------------------------


def finish(run: FlowRun, state: State, moment: Moment, chores: Sequence[Chore] = ()) -> FlowRun:
    """Return the run as over, with its slots free and its chores to do."""
    if run.is_final:
        return run
    todo = _merge(run.chores, chores)
    return run.evolve(
        state=state.without_promise(),
        phase=Phase.ENDED if todo else Phase.SETTLED,
        claim=None,
        slots=(),
        waits_at=None,
        waits_since=None,
        wait_until=None,
        verdict=None,
        chores=todo,
        wake_at=_next_chore(todo),
        end_time=moment.now,
        hints=0,
    ).noted(
        moment.now,
        "finished",
        state=state.name,
        failure_class=str(state.failure_class) if state.failure_class else None,
        why=state.message or None,
    )


def retry(run: FlowRun, state: State, at: datetime, moment: Moment, chores: Sequence[Chore] = ()) -> FlowRun:
    """Return the run with its attempt over and the next one planned; overlap slots are kept."""
    todo = _merge(run.chores, chores)
    chore_at = _next_chore(todo)
    shown = state.model_copy(
        update={
            "type": StateType.SCHEDULED,
            "name": "AwaitingRetry",
            "timestamp": moment.now,
            "message": f"attempt {run.attempt} ended {state.name}: {state.message}",
        }
    )
    return run.evolve(
        state=shown,
        phase=Phase.PLANNED,
        attempt=run.attempt + 1,
        launch=1,
        claim=None,
        tried_since=None,
        job=None,
        verdict=None,
        slots=tuple(s for s in run.slots if s.endswith("#OVERLAP")),
        chores=todo,
        due_at=at,
        wake_at=min(at, chore_at) if chore_at else at,
        lapses=0,
        hints=0,
    ).noted(
        moment.now,
        "retry",
        attempt=run.attempt + 1,
        at=at.isoformat(),
        failure_class=str(state.failure_class) if state.failure_class else None,
        why=state.message or None,
        pid=run.infrastructure_pid,
    )


def _merge(old: Sequence[Chore], new: Sequence[Chore]) -> tuple[Chore, ...]:
    return tuple({chore.name: chore for chore in (*new, *old)}.values())


def _next_chore(chores: Sequence[Chore]) -> datetime | None:
    return min((chore.not_before for chore in chores), default=None)


# -- cancel and stop -----------------------------------------------------------


def _cancelled(run: FlowRun, now: datetime) -> State:
    cancel = run.cancel
    reason = f"cancelled by {cancel.by}" + (f": {cancel.reason}" if cancel.reason else "") if cancel else "cancelled"
    return State.of("Cancelled", now, reason)


def ask_cancel(
    run: FlowRun, by: str, reason: str, moment: Moment, chores: Callable[[FlowRun, datetime], tuple[Chore, ...]]
) -> FlowRun:
    """Write a cancel. Without an open call and a job it is final at once; else the job is looked for and stopped.

    Raises:
        NotAllowed: The run is over.
    """
    if run.is_final:
        raise NotAllowed(f"flow run {run.name!r} is over already ({run.state.name}); there is nothing to cancel")
    if run.cancel is not None:
        return run
    run = run.evolve(cancel=CancelRequest(by=by, at=moment.now, reason=reason), hints=0).noted(
        moment.now, "cancel asked", by=by, why=reason or None
    )
    verdict = _cancelled(run, moment.now)
    if run.phase.is_active:
        if run.phase is Phase.STOPPING:
            return run.evolve(state=State.of("Cancelling", moment.now, verdict.message))
        return _stopping(run, verdict, moment)
    # "calling" with `refused` or nothing open still waits: only a look-up after closing proves "not started".
    if run.phase is Phase.CALLING:
        # Under a standing claim nobody else can act: a hint sent before its end would be spent for nothing.
        wake_at = moment.at(max(run.claim.until, moment.real_now)) if run.claim else moment.now
        return run.evolve(state=State.of("Cancelling", moment.now, verdict.message), wake_at=wake_at)
    return finish(run, verdict, moment, chores(run, moment.now))


def _stopping(run: FlowRun, verdict: State, moment: Moment) -> FlowRun:
    assert run.job is not None
    job = run.job.model_copy(update={"stopping_since": run.job.stopping_since or moment.now})
    shown = State.of("Cancelling", moment.now, verdict.message) if run.cancel else run.state
    return run.evolve(phase=Phase.STOPPING, verdict=verdict, job=job, state=shown, wake_at=moment.now, hints=0)


def overdue(run: FlowRun, now: datetime, timing: Timing) -> Failure | None:
    """Return why a started job has to be stopped now, if its deadline has passed.

    A job that could not be seen may have begun to run: it is looked for as long as it takes to alarm somebody.
    """
    if run.phase is not Phase.STARTED or run.job is None:
        return None
    policy = run.policy
    if run.job.started_at is None:
        unseen_since = run.job.unseen_since
        if now < start_deadline(run, now):
            return None
        if unseen_since is not None and now < unseen_since + timedelta(seconds=timing.unseen_seconds):
            return None
        seconds = policy.start_timeout_seconds if policy else 600.0
        return Failure(
            failure_class=FailureClass.START_TIMEOUT,
            cause=f"the job did not start within {seconds:g} s",
            suggestion="look at the platform's capacity and the image, or raise start_timeout_seconds",
            retry=True,
        )
    if policy is None or not policy.timeout_seconds:
        return None
    if now < run.job.started_at + timedelta(seconds=policy.timeout_seconds):
        return None
    return Failure(
        failure_class=FailureClass.TIMEOUT,
        cause=f"the job ran longer than timeout_seconds ({policy.timeout_seconds:g} s)",
        suggestion="make the job shorter, or raise timeout_seconds",
    )


def begin_stop(run: FlowRun, verdict: State, moment: Moment) -> FlowRun:
    """Start to stop a job, with the state it will end in unless it ended by itself first."""
    if run.phase is not Phase.STARTED:
        return run
    return _stopping(run, verdict, moment).noted(moment.now, "stop", why=verdict.message)


def stop_sent(run: FlowRun, key: str, sent_at: datetime, moment: Moment, timing: Timing) -> FlowRun:
    """Record that the platform took a stop; it is repeated until the job is seen to be over."""
    if run.phase is not Phase.STOPPING or run.job is None or run.job.key != key:
        return run
    job = run.job.model_copy(update={"stop_sent_at": run.job.stop_sent_at or sent_at})
    after = run.evolve(job=job, wake_at=moment.now + timedelta(seconds=timing.stop_again_seconds), hints=0)
    return after if run.job.stop_sent_at else after.noted(moment.now, "stop sent", pid=job.pid)


def stop_postponed(run: FlowRun, why: str, moment: Moment, timing: Timing) -> FlowRun:
    """Record that the platform could not be asked to stop; it will be asked again."""
    if run.phase is not Phase.STOPPING:
        return run
    at = moment.now + timedelta(seconds=timing.stop_again_seconds)
    return run.evolve(wake_at=at, hints=0).noted(moment.now, "stop failed", why=why, again_at=at.isoformat())


def gives_up_stopping(run: FlowRun, now: datetime, timing: Timing) -> bool:
    """Whether a stop has gone unconfirmed for so long that the run is declared lost."""
    since = run.job.stopping_since if run.job else None
    return since is not None and now - since >= timedelta(seconds=timing.stop_seconds)


# -- hints and chores ----------------------------------------------------------


def late(run: FlowRun, moment: Moment) -> FlowRun:
    """Show a due run that nobody has claimed as Late, as Prefect does. Nothing else about it changes."""
    if run.phase not in (Phase.PLANNED, Phase.READY) or run.state.name != "Scheduled":
        return run
    seconds = _late(run, moment)
    if seconds is None:
        return run
    state = State.of("Late", moment.now, run.state.message)
    return run.evolve(state=state).noted(moment.now, "late", late_seconds=seconds)


def hinted(run: FlowRun, now: datetime) -> FlowRun:
    """Record that a hint was sent again, and put the next one off by 2, 4, 8, at most 10 minutes."""
    minutes = min(2 ** (run.hints + 1), 10)
    return run.evolve(hints=run.hints + 1, wake_at=now + timedelta(minutes=minutes))


def owing(run: FlowRun, chore: Chore, now: datetime) -> FlowRun:
    """Return the run with one more chore, to be looked at now."""
    wake_at = min(run.wake_at, now) if run.wake_at else now
    return run.evolve(
        chores=(*run.chores, chore), phase=Phase.ENDED if run.is_final else run.phase, wake_at=wake_at, hints=0
    )


def chore_done(run: FlowRun, name: str, moment: Moment) -> FlowRun:
    """Return the run without that chore; the last one settles it."""
    todo = tuple(chore for chore in run.chores if chore.name != name)
    return (
        run
        if len(todo) == len(run.chores)
        else _chores_left(run.evolve(chores=todo)).noted(moment.now, "chore done", chore=name)
    )


CHORE_BACKOFF_MAX = timedelta(hours=1)


def chore_failed(run: FlowRun, name: str, why: str, moment: Moment) -> FlowRun:
    """Return the run with that chore put off: a minute, doubling to an hour."""
    todo = tuple(_put_off(chore, moment.now) if chore.name == name else chore for chore in run.chores)
    return _chores_left(run.evolve(chores=todo)).noted(moment.now, "chore failed", chore=name, why=why)


def _put_off(chore: Chore, now: datetime) -> Chore:
    wait = min(timedelta(minutes=2 ** min(chore.tries, 6)), CHORE_BACKOFF_MAX)
    return chore.model_copy(update={"tries": chore.tries + 1, "not_before": now + wait})


def _chores_left(run: FlowRun) -> FlowRun:
    at = _next_chore(run.chores)
    if not run.is_final:
        if run.phase is Phase.PLANNED:
            return run.evolve(wake_at=min(run.due_at, at) if at else run.due_at, hints=0)
        if run.phase is Phase.WAITING:
            return run.evolve(wake_at=waiting_wake_at(run), hints=0)
        return run
    return run.evolve(phase=Phase.ENDED if run.chores else Phase.SETTLED, wake_at=at, hints=0)


def waiting_wake_at(run: FlowRun) -> datetime | None:
    """When somebody looks at a parked run for another reason than a free slot: its wait is over, or it has chores."""
    return min(filter(None, (run.wait_until, _next_chore(run.chores))), default=None)


def _watch(run: FlowRun, handle: JobHandle, moment: Moment, what: str, **facts: object) -> FlowRun:
    chore = Chore(kind=ChoreKind.WATCH, not_before=moment.now, since=moment.now, handle=handle)
    if any(old.name == chore.name for old in run.chores):
        return run
    run = run.evolve(chores=(*run.chores, chore)).noted(moment.now, what, key=handle.key, **facts)
    wake_at = min(run.wake_at, moment.now) if run.wake_at else moment.now
    return run.evolve(phase=Phase.ENDED if run.is_final else run.phase, wake_at=wake_at, hints=0)
