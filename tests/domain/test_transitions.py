"""How a run moves, rule by rule; the protocol's reasons are in docs/design.md."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

import pytest

from push_pools.domain import transitions as t
from push_pools.domain.errors import (
    CancelRequested,
    ClaimLost,
    NotAllowed,
    NotDue,
    RunAlreadySubmitted,
    RunClaimed,
    RunLimited,
)
from push_pools.domain.records import Timing
from push_pools.domain.runs import (
    Chore,
    ChoreKind,
    FlowRun,
    JobHandle,
    Phase,
    Policy,
    RetryPolicy,
    job_key,
    run_id,
)
from push_pools.domain.states import Failure, FailureClass, JobStatus, Observation, State, StateType
from push_pools.domain.transitions import Moment
from push_pools.testing.clocks import START
from push_pools.testing.contracts.stores import a_run

if TYPE_CHECKING:
    from collections.abc import Callable

TIMING = Timing()
POLICY = Policy(start_timeout_seconds=30, timeout_seconds=100, retries=RetryPolicy(attempts=3, backoff_seconds=10))


def at(seconds: float) -> Moment:
    """Both clocks that many seconds after the start."""
    now = START + timedelta(seconds=seconds)
    return Moment(now, now)


def no_chores(run: FlowRun, now: datetime) -> tuple[Chore, ...]:
    return ()


def explain(seen: Observation) -> Failure:
    class_ = FailureClass.EXIT if seen.exit_code else FailureClass.KILLED
    return Failure(failure_class=class_, cause=seen.reason or "failed", retry=class_ is FailureClass.KILLED)


def handle_of(run: FlowRun, pid: str | None = None) -> JobHandle:
    return JobHandle(key=run.job_key, platform="fake", pid=pid, run_id=run.id, attempt=run.attempt)


def claimed(**changes: object) -> FlowRun:
    return t.claim(a_run(**changes), "me", at(0), TIMING)


def calling(seconds: float = 0, policy: Policy = POLICY) -> FlowRun:
    run = claimed()
    return t.intend(run, run.fence, handle_of(run), {"command": ["true"]}, policy, at(seconds), TIMING)


def started(policy: Policy = POLICY) -> FlowRun:
    run = calling(policy=policy)
    return t.record_pid(run, handle_of(run, "1"), at(1), TIMING)


def seen(run: FlowRun, status: JobStatus, **more: object) -> Observation:
    return Observation.model_validate({"key": run.job_key, "status": status, "observed_at": START, **more})


def observed(run: FlowRun, seconds: float, status: JobStatus, **more: object) -> FlowRun:
    more.setdefault("observed_at", at(seconds).now)
    return t.observe(run, seen(run, status, **more), at(seconds), TIMING, explain, no_chores)


# -- keys


def test_a_job_key_fits_every_cloud_and_names_run_attempt_and_launch() -> None:
    """29 lower-case characters; any part changes it."""
    id_ = UUID(int=1)
    keys = {job_key(id_, 1, 1), job_key(id_, 2, 1), job_key(id_, 1, 2), job_key(UUID(int=2), 1, 1)}
    assert len(keys) == 4
    assert all(len(key) == 29 and key.startswith("pp-") and key == key.lower() for key in keys)
    assert job_key(id_, 1, 1) == job_key(id_, 1, 1)


def test_run_ids_differ_between_ledgers() -> None:
    """The same identity under another namespace is another run."""
    assert run_id(UUID(int=1), "key:a") != run_id(UUID(int=2), "key:a")


# -- claim


def test_a_claim_has_a_fence_and_an_end() -> None:
    """And the run is looked at again when it ends."""
    run = claimed()
    assert (run.phase, run.fence, run.state.name) == (Phase.CLAIMED, 1, "Submitting")
    assert run.claim is not None
    assert run.claim.until == run.wake_at == START + timedelta(seconds=90)


def test_a_second_claimer_is_refused_while_the_claim_stands() -> None:
    """And told until when."""
    with pytest.raises(RunClaimed) as refused:
        t.claim(claimed(), "other", at(89), TIMING)
    assert refused.value.until == START + timedelta(seconds=90)


def test_my_own_claim_is_found_again() -> None:
    """A lost answer is no conflict."""
    run = claimed()
    assert t.claim(run, "me", at(1), TIMING) is run


def test_an_expired_claim_is_taken_over_with_a_higher_fence() -> None:
    """The older fence can decide nothing any more."""
    run = t.claim(claimed(), "other", at(91), TIMING)
    assert (run.fence, run.lapses) == (2, 1)
    with pytest.raises(ClaimLost):
        t.intend(run, 1, handle_of(run), {}, POLICY, at(91), TIMING)


def test_a_run_is_not_claimed_before_it_is_due() -> None:
    """A second early is allowed for clocks that differ."""
    run = a_run(due_at=START + timedelta(seconds=5))
    with pytest.raises(NotDue):
        t.claim(run, "me", at(3.9), TIMING)
    assert t.claim(run, "me", at(4), TIMING).phase is Phase.CLAIMED


def test_a_limited_run_needs_a_slot_first() -> None:
    """Also while it is parked."""
    with pytest.raises(RunLimited):
        t.claim(a_run(), "me", at(0), TIMING, limited=True)
    with pytest.raises(RunLimited):
        t.claim(a_run(phase=Phase.WAITING), "me", at(0), TIMING)


@pytest.mark.parametrize("phase", [Phase.STARTED, Phase.STOPPING, Phase.ENDED, Phase.SETTLED])
def test_a_submitted_or_final_run_is_not_claimed(phase: Phase) -> None:
    """There is nothing to submit."""
    with pytest.raises(RunAlreadySubmitted):
        t.claim(a_run(phase=phase), "me", at(0), TIMING)


# -- intent


def test_an_intent_is_refused_when_the_claim_is_too_short() -> None:
    """A call is sent only while the claim outlasts its total time-out."""
    run = claimed()
    with pytest.raises(ClaimLost):
        t.intend(run, 1, handle_of(run), {}, POLICY, at(61), TIMING)
    assert t.intend(run, 1, handle_of(run), {}, POLICY, at(59), TIMING).phase is Phase.CALLING


def test_a_cancel_before_the_intent_wins() -> None:
    """The claimer's intent finds the run final."""
    run = claimed()
    cancelled = t.ask_cancel(run, "ann", "", at(1), no_chores)
    assert (cancelled.phase, cancelled.state.name) == (Phase.SETTLED, "Cancelled")
    with pytest.raises(ClaimLost):
        t.intend(cancelled, 1, handle_of(run), {}, POLICY, at(2), TIMING)


def test_no_new_call_after_a_cancel_or_a_verdict() -> None:
    """While an older call is open, nothing is sent on top of it."""
    run = t.ask_cancel(calling(), "ann", "", at(1), no_chores)
    run = t.claim(run, "other", at(91), TIMING)
    with pytest.raises(CancelRequested):
        t.intend(run, 2, handle_of(run), {}, POLICY, at(91), TIMING)


def test_a_repeat_keeps_the_stored_request_and_the_first_open_call() -> None:
    """The same token with another request would be a conflict; the replay window starts at the first call."""
    run = t.claim(calling(), "other", at(91), TIMING)
    again = t.intend(run, 2, handle_of(run), {"command": ["changed"]}, POLICY, at(91), TIMING)
    assert again.job is not None
    assert again.job.request == {"command": ["true"]}
    assert again.job.open_since == START
    assert again.job.call_until == START + timedelta(seconds=121)
    assert not t.only_mine(again.job, 2)


# -- refusals


def test_an_answered_refusal_makes_the_key_fresh() -> None:
    """When the only call was mine, nothing is open any more."""
    run = t.refuse(calling(), 1, START + timedelta(seconds=2), None, at(1), answered=True, note="throttled")
    assert (run.phase, run.lapses, run.claim) == (Phase.READY, 0, None)
    assert run.job is not None
    assert run.job.open_since is None


def test_an_answered_refusal_says_nothing_of_an_older_call() -> None:
    """The first call may still land: the key stays open."""
    run = t.claim(calling(), "other", at(91), TIMING)
    run = t.intend(run, 2, handle_of(run), {}, POLICY, at(91), TIMING)
    run = t.refuse(run, 2, START, None, at(92), answered=True, note="throttled")
    assert run.phase is Phase.CALLING
    assert run.job is not None
    assert run.job.open_since == START


def test_an_unanswered_call_stays_open() -> None:
    """The next claim looks before it does anything."""
    run = t.refuse(calling(), 1, START + timedelta(seconds=2), None, at(1), answered=False, note="timed out")
    assert run.phase is Phase.CALLING
    assert t.claim(run, "other", at(2), TIMING).phase is Phase.CALLING


def test_a_bound_refusal_waits_until_no_call_can_land() -> None:
    """ECS keeps the answer under the token; only then may the next launch follow, under another key."""
    why = State.of("Crashed", START, "RESOURCE:MEMORY")
    run = t.bind_refusal(calling(), 1, why, at(1), TIMING)
    assert run.due_at > START + timedelta(seconds=90)
    with pytest.raises(NotDue):
        t.claim(run, "other", at(80), TIMING)
    run = t.claim(run, "other", at(91), TIMING)
    launched = t.next_launch(run, run.fence, START + timedelta(seconds=91), at(91))
    assert launched.launch == 2
    assert launched.job is not None
    assert launched.job.key == launched.job_key != run.job_key
    assert launched.phase is Phase.READY


def test_a_rejection_beside_an_open_call_becomes_a_verdict() -> None:
    """It is a conclusion, and conclusions wait."""
    state = State.of("Crashed", START, "denied")
    run = t.reject(calling(), 1, state, at(1), TIMING)
    assert run.verdict == state
    assert run.phase is Phase.CALLING


_STATE = State.of("Crashed", START)
DECISIONS: dict[str, Callable[[FlowRun], FlowRun]] = {
    "refuse": lambda run: t.refuse(run, 1, START, None, at(92), answered=True, note=""),
    "bind": lambda run: t.bind_refusal(run, 1, _STATE, at(92), TIMING),
    "reject": lambda run: t.reject(run, 1, _STATE, at(92), TIMING),
    "launch": lambda run: t.next_launch(run, 1, START, at(92)),
    "close": lambda run: t.wait_for_closing(run, 1, at(92), TIMING, ""),
}


@pytest.mark.parametrize("decide", DECISIONS)
def test_every_submit_decision_asks_for_the_fence(decide: str) -> None:
    """A zombie of an older claim decides nothing."""
    run = t.claim(calling(), "other", at(91), TIMING)
    with pytest.raises(ClaimLost):
        DECISIONS[decide](run)


# -- the pid is a fact


def test_a_pid_is_recorded_whatever_the_fence() -> None:
    """The zombie holds the only proof of it."""
    run = t.claim(calling(), "other", at(91), TIMING)
    recorded = t.record_pid(run, handle_of(run, "1"), at(92), TIMING)
    assert (recorded.phase, recorded.infrastructure_pid, recorded.claim) == (Phase.STARTED, "1", None)
    assert recorded.wake_at == START + timedelta(seconds=92 + 30)
    assert t.record_pid(recorded, handle_of(run, "1"), at(93), TIMING) is recorded


def test_a_pid_found_on_a_cancelled_run_stops_the_job() -> None:
    """Whoever records it goes on to stop."""
    run = t.ask_cancel(calling(), "ann", "late", at(1), no_chores)
    assert run.state.name == "Cancelling"
    stopping = t.record_pid(run, handle_of(run, "1"), at(2), TIMING)
    assert (stopping.phase, stopping.wake_at) == (Phase.STOPPING, at(2).now)
    assert stopping.verdict is not None
    assert "ann: late" in stopping.verdict.message


def test_a_second_job_is_watched() -> None:
    """Another pid under the key, or under an older key, is stopped by a chore."""
    run = started()
    other = t.record_pid(run, handle_of(run, "2"), at(2), TIMING)
    assert [chore.kind for chore in other.chores] == [ChoreKind.WATCH]
    assert other.infrastructure_pid == "1"
    older = t.record_pid(run, handle_of(run, "3").model_copy(update={"key": "pp-old"}), at(2), TIMING)
    assert [chore.handle.key for chore in older.chores if chore.handle] == ["pp-old"]
    assert older.wake_at == at(2).now


def test_a_job_found_after_the_end_is_watched() -> None:
    """The run was given up; its job is stopped all the same, and the state stays."""
    lost = t.finish(calling(), State.of("Crashed", START), at(5))
    found = t.record_pid(lost, handle_of(lost, "1"), at(6), TIMING)
    assert (found.phase, found.state.name) == (Phase.ENDED, "Crashed")
    assert [chore.kind for chore in found.chores] == [ChoreKind.WATCH]


def test_news_of_a_job_that_was_seen_over_changes_nothing() -> None:
    """The submitter may record a pid after the job's end was told."""
    run = started()
    over = observed(run, 5, JobStatus.FAILED)
    assert over.attempt == 2
    assert t.record_pid(over, handle_of(run, "1"), at(6), TIMING) is over


# -- observations


def test_a_job_runs_and_completes() -> None:
    """With its times, and without a wake-up afterwards."""
    run = observed(started(), 2, JobStatus.RUNNING)
    assert (run.state.name, run.wake_at) == ("Running", START + timedelta(seconds=102))
    done = observed(run, 9, JobStatus.SUCCEEDED, exit_code=0)
    assert (done.phase, done.state.type, done.wake_at) == (Phase.SETTLED, StateType.COMPLETED, None)
    assert done.start_time == START + timedelta(seconds=2)
    assert done.end_time == START + timedelta(seconds=9)


def test_lower_or_equal_ranks_are_ignored() -> None:
    """A late poll never takes a run back."""
    run = observed(started(), 2, JobStatus.RUNNING)
    assert observed(run, 3, JobStatus.RUNNING) is run
    assert observed(run, 3, JobStatus.STARTING) is run
    assert observed(run, 3, JobStatus.UNKNOWN) is run


def test_a_final_state_never_changes() -> None:
    """Whatever is observed afterwards."""
    done = observed(started(), 2, JobStatus.SUCCEEDED)
    assert observed(done, 3, JobStatus.FAILED, exit_code=1) is done
    assert t.finish(done, State.of("Crashed", START), at(3)) is done


def test_an_observation_of_another_key_changes_nothing() -> None:
    """A late event of attempt 1 is not applied to attempt 2."""
    run = started()
    other = Observation(key="pp-other", status=JobStatus.FAILED, observed_at=START)
    assert t.observe(run, other, at(2), TIMING, explain, no_chores) is run


def test_gone_counts_only_when_seen_or_old() -> None:
    """Right after the start "unknown to the platform" proves nothing."""
    run = started()
    assert observed(run, 10, JobStatus.GONE) is run
    assert observed(run, 400, JobStatus.GONE).attempt == 2
    running = observed(run, 2, JobStatus.RUNNING)
    assert observed(running, 30, JobStatus.GONE).attempt == 2


def test_a_look_that_found_nothing_counts_from_when_it_was_made() -> None:
    """Its answer may be applied much later, when another look, made after it, has seen the job."""
    run = started()
    early = Observation(key=run.job_key, status=JobStatus.GONE, observed_at=START + timedelta(seconds=1))
    assert t.observe(run, early, at(1000), TIMING, explain, no_chores) is run
    running = observed(run, 20, JobStatus.RUNNING)
    assert t.observe(running, early, at(1000), TIMING, explain, no_chores) is running


def test_a_failed_job_fails_and_an_infrastructure_failure_is_tried_again() -> None:
    """The user's code is not; the place in time is backed off and doubled."""
    assert observed(started(), 2, JobStatus.FAILED, exit_code=3).state.name == "Failed"
    again = observed(started(), 2, JobStatus.FAILED)
    assert (again.phase, again.state.name, again.attempt, again.job) == (Phase.PLANNED, "AwaitingRetry", 2, None)
    wait = (again.due_at - at(2).now).total_seconds()
    assert 8 <= wait <= 10


def test_attempts_count_all_tries() -> None:
    """With three attempts the third failure is final."""
    run = started().evolve(attempt=3)
    run = run.evolve(job=run.job and run.job.model_copy(update={"handle": handle_of(run, "1")}))
    assert observed(run, 2, JobStatus.FAILED).state.name == "Crashed"


def test_named_classes_replace_the_default() -> None:
    """`on: [exit]` retries the user's code, and nothing else."""
    policy = POLICY.model_copy(update={"retries": RetryPolicy(on=(FailureClass.EXIT,))})
    assert observed(started(policy), 2, JobStatus.FAILED, exit_code=3).state.name == "AwaitingRetry"
    assert observed(started(policy), 2, JobStatus.FAILED).state.name == "Crashed"


def test_a_cancelled_run_is_never_retried() -> None:
    """Even when its job crashed by itself first."""
    run = t.ask_cancel(started(), "ann", "", at(2), no_chores)
    assert observed(run, 3, JobStatus.FAILED).state.name == "Crashed"


def test_a_job_cancelled_at_the_platform_is_cancelled() -> None:
    """Somebody stopped it there."""
    done = observed(started(), 3, JobStatus.CANCELLED, reason="stopped in the console")
    assert (done.state.type, done.state.message) == (StateType.CANCELLED, "stopped in the console")


# -- stop


def sent(run: FlowRun, seconds: float) -> FlowRun:
    return t.stop_sent(run, run.job_key, at(seconds).now, at(seconds), TIMING)


def test_a_job_that_ended_before_the_stop_keeps_its_outcome() -> None:
    """Otherwise the verdict stands."""
    run = sent(t.ask_cancel(started(), "ann", "", at(10), no_chores), 11)
    early = observed(run, 12, JobStatus.SUCCEEDED, ended_at=at(10.5).now)
    late = observed(run, 12, JobStatus.FAILED, exit_code=143, ended_at=at(11.5).now)
    assert (early.state.name, late.state.name) == ("Completed", "Cancelled")


def test_the_platforms_word_on_the_stop_wins_over_times() -> None:
    """Where it says whether the job was stopped."""
    run = sent(t.ask_cancel(started(), "ann", "", at(10), no_chores), 11)
    by_itself = observed(run, 12, JobStatus.SUCCEEDED, ended_at=at(11.5).now, stopped=False)
    by_us = observed(run, 12, JobStatus.FAILED, ended_at=at(10.5).now, stopped=True)
    assert (by_itself.state.name, by_us.state.name) == ("Completed", "Cancelled")


def test_deadlines_give_a_verdict() -> None:
    """A job that does not start in time, or runs too long."""
    run = started()
    assert t.overdue(run, at(30).now, TIMING) is None
    late = t.overdue(run, at(31).now, TIMING)
    assert late is not None
    assert late.failure_class is FailureClass.START_TIMEOUT
    running = observed(run, 5, JobStatus.RUNNING)
    assert t.overdue(running, at(104).now, TIMING) is None
    long = t.overdue(running, at(105).now, TIMING)
    assert long is not None
    assert long.failure_class is FailureClass.TIMEOUT
    verdict = State.failed(long, at(105).now)
    ended = observed(sent(t.begin_stop(running, verdict, at(105)), 106), 107, JobStatus.FAILED, ended_at=at(106.5).now)
    assert (ended.state.type, ended.state.name) == (StateType.FAILED, "TimedOut")


def test_no_time_limit_still_has_an_owner() -> None:
    """`timeout_seconds: 0` never stops the job, and the run is looked after all the same."""
    run = observed(started(POLICY.model_copy(update={"timeout_seconds": 0})), 5, JobStatus.RUNNING)
    assert run.wake_at is not None
    assert t.overdue(run, at(10**7).now, TIMING) is None


def test_a_start_timeout_is_tried_again() -> None:
    """It is an infrastructure failure; a cancel is not."""
    run = started()
    failure = t.overdue(run, at(40).now, TIMING)
    assert failure is not None
    run = sent(t.begin_stop(run, State.failed(failure, at(40).now), at(40)), 41)
    assert observed(run, 42, JobStatus.CANCELLED).state.name == "AwaitingRetry"


def test_a_stop_is_repeated_and_given_up_after_an_hour() -> None:
    """Each minute; the first time it was sent is what counts."""
    run = sent(t.ask_cancel(started(), "ann", "", at(10), no_chores), 11)
    again = sent(run, 71)
    assert again.job is not None
    assert again.job.stop_sent_at == at(11).now
    assert again.wake_at == at(131).now
    assert not t.gives_up_stopping(again, at(3600).now, TIMING)
    assert t.gives_up_stopping(again, at(3611).now, TIMING)
    postponed = t.stop_postponed(run, "throttled", at(20), TIMING)
    assert postponed.wake_at == at(80).now


def test_stopping_twice_keeps_the_first_verdict() -> None:
    """A cancel of a run that is being stopped for its deadline leaves the verdict."""
    run = started()
    verdict = State.of("TimedOut", START)
    run = t.begin_stop(run, verdict, at(1))
    assert t.begin_stop(run, State.of("Crashed", START), at(2)) is run
    run = t.ask_cancel(run, "ann", "", at(3), no_chores)
    assert (run.verdict, run.state.name) == (verdict, "Cancelling")


# -- cancel


def test_cancel_is_final_at_once_without_a_call() -> None:
    """Planned, ready and claimed runs; asking a final one says that it is over."""
    for run in (a_run(), claimed(), t.refuse(calling(), 1, START, None, at(1), answered=True, note="")):
        assert t.ask_cancel(run, "ann", "", at(2), no_chores).state.name == "Cancelled"
    with pytest.raises(NotAllowed):
        t.ask_cancel(t.finish(a_run(), State.of("Completed", START), at(1)), "ann", "", at(2), no_chores)


def test_a_cancel_under_a_standing_claim_is_looked_after_when_the_claim_ends() -> None:
    """Until then nobody else can claim the run, and a hint would be spent for nothing."""
    run = calling()
    assert run.claim is not None
    cancelled = t.ask_cancel(run, "ann", "", at(5), no_chores)
    assert cancelled.wake_at == run.claim.until
    assert t.ask_cancel(run, "ann", "", at(500), no_chores).wake_at == at(500).now


def test_cancel_with_an_open_call_only_flags() -> None:
    """The run is taken over, looked for, and stopped or concluded."""
    run = t.ask_cancel(calling(), "ann", "", at(1), no_chores)
    assert (run.phase, run.state.name) == (Phase.CALLING, "Cancelling")
    assert t.ask_cancel(run, "bob", "", at(2), no_chores) is run
    taken = t.claim(run, "other", at(91), TIMING)
    assert taken.state.name == "Cancelling"


# -- chores and hints


def test_chores_keep_a_final_run_awake_until_they_are_done() -> None:
    """A failed chore is put off, at most an hour."""
    chore = Chore(kind=ChoreKind.CLEANUP, not_before=at(60).now, since=START, handle=handle_of(a_run()))
    run = t.finish(started(), State.of("Completed", START), at(5), [chore])
    assert (run.phase, run.wake_at) == (Phase.ENDED, at(60).now)
    for _ in range(9):
        run = t.chore_failed(run, chore.name, "throttled", at(60))
    assert run.wake_at == at(60).now + timedelta(hours=1)
    run = t.chore_done(run, chore.name, at(61))
    assert (run.phase, run.wake_at) == (Phase.SETTLED, None)
    assert t.chore_done(run, chore.name, at(62)) is run


def test_chores_of_an_attempt_are_done_while_the_next_waits() -> None:
    """The wake-up is the earlier of both."""
    chore = Chore(kind=ChoreKind.CLEANUP, not_before=at(3).now, since=START)
    run = t.retry(started(), State.of("Crashed", START), at(20).now, at(2), [chore])
    assert run.wake_at == at(3).now
    assert t.chore_done(run, chore.name, at(4)).wake_at == at(20).now


def test_hints_back_off() -> None:
    """2, 4, 8, then 10 minutes, until something happens."""
    run = a_run()
    waits = []
    for _ in range(5):
        run = t.hinted(run, START)
        assert run.wake_at is not None
        waits.append((run.wake_at - START).total_seconds() / 60)
    assert waits == [2, 4, 8, 10, 10]
    assert t.claim(run, "me", at(0), TIMING).hints == 0


def test_slots_end_with_the_attempt_and_overlap_with_the_run() -> None:
    """A retry waits for its slot again, and keeps others of its schedule out."""
    run = started().evolve(slots=("POOL#local", "DEP#1#OVERLAP"))
    assert t.retry(run, State.of("Crashed", START), START, at(1)).slots == ("DEP#1#OVERLAP",)
    assert t.finish(run, State.of("Crashed", START), at(1)).slots == ()


def test_timing_refuses_a_claim_shorter_than_a_call() -> None:
    """Otherwise no call could ever be sent."""
    with pytest.raises(ValueError, match="outlast"):
        Timing(function_seconds=5, claim_margin_seconds=5)


def test_the_journal_keeps_its_newest_entries() -> None:
    """Two hundred of them."""
    run = a_run()
    for n in range(250):
        run = run.noted(START, "n", n=n)
    assert len(run.journal) == 200
    assert run.journal[-1].facts == {"n": 249}


def test_backoff_doubles_to_ten_minutes() -> None:
    """And differs between runs."""
    run = started()
    waits = [t.backoff(run.evolve(attempt=n)).total_seconds() for n in (1, 2, 3, 20)]
    assert waits[0] < waits[1] < waits[2] < waits[3] <= 600
    assert len({t.spread(a_run()) for _ in range(20)}) > 10


# -- Late, and jobs that nobody sees


@pytest.mark.parametrize(
    ("phase", "name", "seconds", "shown"),
    [
        (Phase.PLANNED, "Scheduled", 15, "Scheduled"),
        (Phase.PLANNED, "Scheduled", 16, "Late"),
        (Phase.READY, "Scheduled", 16, "Late"),
        (Phase.PLANNED, "Late", 60, "Late"),
        (Phase.PLANNED, "AwaitingRetry", 60, "AwaitingRetry"),
        (Phase.WAITING, "Scheduled", 60, "Scheduled"),
        (Phase.CLAIMED, "Submitting", 60, "Submitting"),
        (Phase.SETTLED, "Completed", 60, "Completed"),
    ],
)
def test_a_due_run_without_a_claim_is_late(phase: Phase, name: str, seconds: float, shown: str) -> None:
    """After 15 s, from Scheduled only; nothing but its state and journal changes."""
    run = a_run(phase=phase, state=State.of(name, START, "why"))
    late = t.late(run, at(seconds))
    assert late.state.name == shown
    if late is not run:
        assert late.evolve(state=run.state, journal=run.journal) == run
        assert late.state.message == "why"
        assert t.claim(late, "me", at(seconds), TIMING).state.name == "Submitting"


def test_a_job_that_is_not_seen_is_written_down_twice_at_most() -> None:
    """When it begins, and when it is alarmed; being seen ends it, whatever is seen."""
    run = started()
    assert run.job is not None
    first = t.unseen(run, "503", at(100), TIMING)
    assert first.wake_at == run.wake_at
    assert t.unseen(first, "503", at(100 + 1199), TIMING) is first
    second = t.unseen(first, "503", at(100 + 1200), TIMING)
    assert second.job is not None
    assert second.job.unseen_alarm
    assert t.unseen(second, "503", at(9999), TIMING) is second
    over = observed(second, 200, JobStatus.SUCCEEDED)
    assert t.unseen(over, "503", at(1), TIMING) is over
    for status in (JobStatus.STARTING, JobStatus.RUNNING):
        again = observed(second, 2000, status)
        assert again.job is not None
        assert (again.job.unseen_since, again.job.unseen_alarm) == (None, False)
    running = observed(run, 5, JobStatus.RUNNING)
    again = observed(t.unseen(running, "503", at(100), TIMING), 2000, JobStatus.RUNNING)
    assert again.job is not None
    assert again.job.unseen_since is None
    assert observed(again, 2001, JobStatus.RUNNING) is again


def test_a_start_deadline_waits_for_a_job_that_cannot_be_seen() -> None:
    """It may have begun to run; a job that runs too long is stopped all the same."""
    run = t.unseen(started(), "503", at(20), TIMING)
    assert t.overdue(run, at(20 + 1199).now, TIMING) is None
    assert t.overdue(run, at(20 + 1200).now, TIMING) is not None
    running = t.unseen(observed(started(), 5, JobStatus.RUNNING), "503", at(20), TIMING)
    assert t.overdue(running, at(105).now, TIMING) is not None
