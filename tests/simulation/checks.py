"""The sentences of the guarantee, each with the function that watches over it while a story is told."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from push_pools.domain.phases import may_follow
from push_pools.domain.runs import Phase, job_key
from push_pools.domain.states import StateType
from tests.simulation.clouds import CANARY
from tests.simulation.engine import START, Engine
from tests.simulation.lanes import SKIPPED, LaneChecks

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from push_pools.domain.records import Timing
    from push_pools.domain.runs import FlowRun, Job
    from push_pools.ports import Store
    from tests.simulation.clouds import SimJob

SENTENCES: Final = {
    "one job per attempt": "At most one job per (run, attempt) is started.",
    "one attempt at a time": "Attempt n+1 starts only after attempt n is proven over.",
    "nothing starts for a final run": "A call that may still land is waited for before a run without a job is final.",
    "no limbo": (
        "Every run that was put is final, or waiting for a stated reason, within its deadline plus 120 s, plus the "
        "hint back-off for each hint the injector dropped."
    ),
    "an end is noticed": "A job that is over is noticed by the next sweeps that look at it.",
    "somebody looks again": "An unfinished run has `wake_at` or a waiter item.",
    "final states never change": "A final state is final.",
    "chores end": "The chores of a final run end.",
    "right outcome": "A run shows the state, class and exit code of its job, or the verdict it was stopped with.",
    "only what may be retried": "Only failures of the policy's classes are tried again; `lost` only if it is named.",
    "nothing left running": "No job of a run that is over is left running, but for one that is lost and watched.",
    "nothing lost": "Every event that was accepted is a run, or a dead letter.",
    "a cancel counts": "A run whose cancel was accepted is over, or is being cancelled.",
    "no secret": "No secret is in the ledger, the journal, the logs, the messages or the requests.",
    "nothing unforeseen": "No handler fails in an unforeseen way.",
    "removed when over": "What a job left is removed only when it is over.",
    "no admission at the limit": "No admission while a scope is at its limit.",
    "slots are what runs hold": "n equals the number of slot items, and those are what runs hold.",
    "in order": "No run is admitted by a decision begun after a better one that fits was parked.",
    "no admission while paused": "A paused pool admits nobody.",
    "no overlap": "Runs of a schedule with a policy other than allow do not overlap.",
    "one run per event": "The same event is one run, however often it comes.",
    "the key names the launch": "The job key of a call is that of its run, attempt and launch, and of no other.",
    "ranks only rise": "Observations are ranked; lower or equal ranks are ignored.",
    "nothing left behind": "What a job left that costs is removed when its run is settled.",
    "the table of phases": "A run goes only the ways that the table of phases names.",
    "prompt": "Where nothing goes wrong nobody waits for the tick: whoever makes a run due sends its message.",
}

SLACK_SECONDS: Final = 120.0
CLOCKS_SECONDS: Final = 5.0
LONGEST_TURN_SECONDS: Final = 3600.0
"""How far ahead a call that is made again may have to wait for its turn below a cloud's rate: that reason is stated."""
RETRIED: Final = frozenset({"killed", "capacity", "quota", "spot", "start-timeout", "network", "platform"})
"""What the default policy tries again, written down again from the design."""


@dataclass
class Watch:
    """What is known of a run that is not settled: until when somebody has to have acted."""

    deadline: float
    why: str
    allowed: float = 0.0
    hints_dropped: int = 0
    since: float = 0.0


class Checks:
    """Watches every write and every start of a job, and looks around from time to time."""

    def __init__(self, engine: Engine, cloud: Any, store: Store, timing: Timing, sweep_seconds: float) -> None:
        self.engine, self.cloud, self.store, self.timing = engine, cloud, store, timing
        self.sweep_seconds = sweep_seconds
        self.runs: dict[UUID, FlowRun] = {}
        self.watches: dict[UUID, Watch] = {}
        self.lanes = LaneChecks(self, store)
        self.call_until: dict[str, datetime] = {}
        """Until when a call under a key may be sent, as its last intent says (real clock)."""
        self.outages = self.down_until = 0.0
        self.is_calm = self.finds_fail = False
        self.ways: set[tuple[Phase, Phase]] = set()
        self.last_stop: dict[UUID, list[float]] = {}
        self.active: set[UUID] = set()
        """Runs whose job is recorded and not known to be over."""
        self._final: dict[UUID, FlowRun] = {}
        self._per_attempt: dict[tuple[UUID | None, int], int] = {}
        self.doubles = self.lost = self.limbo = 0

    def _violate(self, check: str, why: str, run_id: UUID | None) -> None:
        assert check in SENTENCES
        self.engine.violate(check, why, run_id)

    def _s(self, moment: datetime) -> float:
        """Return a time of the movable clock as the engine's."""
        return (moment - START).total_seconds() - self.engine.offset

    # -- what the injector did

    def hint_dropped(self, run_id: UUID | None) -> None:
        """A hint of this run, or of every run, was lost, or its handler was: the next comes by the back-off."""
        for watch in self._of(run_id):
            watch.hints_dropped += 1
            watch.allowed += min(2**watch.hints_dropped, 10) * 60.0

    def delayed(self, run_id: UUID | None, seconds: float) -> None:
        """A call of a handler, or everything, took that much longer."""
        for watch in self._of(run_id):
            watch.allowed += seconds
        if run_id is None:
            self.outages += seconds
            self.down_until = max(self.down_until, self.engine.now + seconds)

    def _of(self, run_id: UUID | None) -> list[Watch]:
        if run_id is None:
            return list(self.watches.values())
        watch = self.watches.get(run_id)
        return [watch] if watch else []

    # -- what users were told

    def cancelled(self, run_id: UUID) -> None:
        """A cancel was accepted: it is in the ledger, or the run is over."""
        run = self.runs[run_id]
        if run.cancel is None and not run.is_final:
            self._violate("a cancel counts", f"its cancel was accepted, and it is {run.phase} without one", run_id)

    # -- jobs

    def job_started(self, job: SimJob) -> None:
        """At most one job per attempt; one attempt at a time; none for a run that is over."""
        which = (job.run_id, job.attempt)
        self._per_attempt[which] = self._per_attempt.get(which, 0) + 1
        if self._per_attempt[which] > 1:
            self.doubles += 1
            self._violate(
                "one job per attempt", f"{self._per_attempt[which]} jobs of attempt {job.attempt}", job.run_id
            )
        assert job.run_id is not None
        others = [other for other in self.cloud.running_of(job.run_id) if other is not job]
        if others:
            why = f"attempt {others[0].attempt} still runs when {job.attempt} starts"
            self._violate("one attempt at a time", why, job.run_id)
        run = self.runs.get(job.run_id)
        self.lanes.job_started(run)
        if run is not None and run.is_final:
            self._violate("nothing starts for a final run", f"a job starts after {run.state.name}", job.run_id)

    def removed_running(self, job: SimJob) -> None:
        self._violate("removed when over", f"{job.key} was removed while it ran", job.run_id)

    # -- writes

    def written(self, before: FlowRun | None, after: FlowRun, *, counting: bool = False) -> None:
        """Every write of a run comes by here, at the moment it is made."""
        if before is None and after.id in self.runs:
            return  # It was put before.
        self.runs[after.id] = after
        (self.active.add if after.phase.is_active else self.active.discard)(after.id)
        if after.job is not None:
            self.call_until[after.job.key] = after.job.call_until
        if before is not None and before.is_final:
            self._stays_final(before, after)
        elif after.is_final:
            self._ended(before, after)
        elif before is not None and after.attempt > before.attempt:
            self._tried_again(before, after)
        if after.wake_at is None and after.waits_at is None and after.phase is not Phase.SETTLED:
            self._violate("somebody looks again", f"{after.phase} without wake_at", after.id)
        far = (after.scheduled_time - after.created_at).total_seconds() > self.timing.look_ahead_seconds
        if self.is_calm and not far and before and after.hints > before.hints and after.phase.is_submitting:
            self._violate("prompt", f"the tick had to send a hint for a run that is {after.phase}", after.id)
        self.lanes.written(before, after, counting=counting)
        self._check_job(before, after)
        if before is not None:
            self.ways.add((before.phase, after.phase))
            if not may_follow(before.phase, after.phase):
                self._violate("the table of phases", f"{before.phase} led to {after.phase}", after.id)
        if before is not None and after.hints > before.hints:
            return  # The tick sent a hint: nobody has acted yet.
        if after.phase is Phase.SETTLED:
            self.watches.pop(after.id, None)
            return
        old = self.watches.get(after.id)
        deadline, why = self._deadline(after)
        deadline = max(deadline, self.engine.now)  # Put, admitted, found late: nobody could act on it before.
        since = self.engine.now
        watch = Watch(deadline, why, since=since)
        if old is not None and old.deadline == deadline and old.why == why:
            watch.allowed, watch.hints_dropped, watch.since = old.allowed, old.hints_dropped, old.since
        self.watches[after.id] = watch

    def _check_job(self, before: FlowRun | None, after: FlowRun) -> None:
        old, new = before.job if before else None, after.job
        if new is None:
            return
        if new.key != job_key(after.id, after.attempt, after.launch):
            self._violate("the key names the launch", f"launch {after.launch} is called {new.key}", after.id)
        if old is not None and old.key == new.key and new.seen_rank < old.seen_rank:
            self._violate("ranks only rise", f"rank {new.seen_rank} after {old.seen_rank}", after.id)

    def _stays_final(self, before: FlowRun, after: FlowRun) -> None:
        if (before.state, before.end_time) != (after.state, after.end_time) or not after.is_final:
            why = f"{before.state.name} became {after.state.name} ({after.phase})"
            self._violate("final states never change", why, after.id)

    def _deadline(self, run: FlowRun) -> tuple[float, str]:
        """Return until when somebody has to act on a run as it is now, by the table of phases."""
        timing, job, now = self.timing, run.job, self.engine.now
        match run.phase:
            case Phase.PLANNED:
                latest = now + 600.0 if run.attempt > 1 else float("inf")
                return min(self._s(run.due_at), latest), "its due time"
            case Phase.WAITING:
                return float("inf"), "what it waits for"
            case Phase.READY:
                if _waits_for_its_turn(run):
                    return min(self._s(run.due_at), now + LONGEST_TURN_SECONDS), "its turn"
                return min(self._s(run.due_at), now + 65.0), "the end of its back-off"
            case Phase.CLAIMED:
                assert run.claim is not None
                return min(_real(run.claim.until), now + timing.claim_seconds), "the end of its claim"
            case Phase.CALLING:
                assert job is not None
                closed = _real(job.call_until) + timing.settle_seconds + 1.0
                if run.claim is not None:
                    return min(_real(run.claim.until), now + timing.claim_seconds), "the end of its claim"
                if _waits_for_its_turn(run):
                    return min(self._s(run.due_at), max(closed, now + LONGEST_TURN_SECONDS)), "its turn"
                return min(self._s(run.due_at), max(closed, now + 305.0)), "the next look for its job"
            case Phase.STARTED:
                assert job is not None
                assert job.submitted_at is not None
                policy = run.policy
                if job.started_at is None:
                    limit = policy.start_timeout_seconds if policy else 600.0
                    return self._s(job.submitted_at) + limit, "its start deadline"
                return self._s(job.started_at) + ((policy.timeout_seconds if policy else 0) or DAY), "its run deadline"
            case Phase.STOPPING:
                assert job is not None
                assert job.stopping_since is not None
                return now + timing.stop_again_seconds, "the next stop"
            case _:
                return min(self._s(chore.not_before) for chore in run.chores), "its next chore"

    # -- ends

    def _ended(self, before: FlowRun | None, after: FlowRun) -> None:
        self._final[after.id] = after
        self._check_outcome(before, after, after.state.type, _text(after.state.failure_class), after.state.exit_code)

    def _tried_again(self, before: FlowRun, after: FlowRun) -> None:
        class_ = _text(after.state.failure_class)
        policy = before.policy.retries if before.policy else None
        allowed = RETRIED if policy is None or policy.on is None else {str(each) for each in policy.on}
        if class_ not in allowed:
            self._violate("only what may be retried", f"{class_} is tried again", after.id)
        if policy is not None and before.attempt >= policy.attempts:
            self._violate("only what may be retried", f"attempt {after.attempt} of {policy.attempts}", after.id)
        if before.cancel is not None:
            self._violate("only what may be retried", "a cancelled run is tried again", after.id)
        type_ = StateType.FAILED if class_ in ("exit", "timeout") else StateType.CRASHED
        self._check_outcome(before, after, type_, class_, after.state.exit_code)

    def _check_outcome(
        self, before: FlowRun | None, after: FlowRun, type_: StateType, class_: str | None, exit_code: int | None
    ) -> None:
        attempt = before.attempt if before is not None else 1
        job = next(
            (job for job in reversed(self.cloud.started) if (job.run_id, job.attempt) == (after.id, attempt)), None
        )
        shown = f"{type_} {class_ or ''} {'' if exit_code is None else exit_code}".strip()
        if job is None:
            self._outcome_without_job(before, after, type_, class_, shown)
            return
        job.settle(self.cloud.clock.now())
        truth = self._truth_of(job, before, after)
        if (str(type_), class_, exit_code) not in truth:
            wanted = " or ".join(
                f"{a} {b or ''} {'' if c is None else c}".strip() for a, b, c in sorted(truth, key=str)
            )
            self._violate(
                "right outcome", f"shows {shown}, but its job means {wanted or 'that it is not over'}", after.id
            )

    def _outcome_without_job(
        self, before: FlowRun | None, after: FlowRun, type_: StateType, class_: str | None, shown: str
    ) -> None:
        if type_ is StateType.CANCELLED and after.cancel is not None:
            return
        if after.state.name == SKIPPED and after.schedule is not None and after.state.message:
            return
        answers = self.cloud.answers.get((after.id, before.attempt if before else 1), [])
        classes = {"lost", "platform", *(c for answer in answers for c in _ANSWERS[answer])}
        if type_ is StateType.CRASHED and class_ in classes:
            if class_ == "lost" and not self._long_tried(before):
                self._violate("right outcome", "is lost before its submit deadline", after.id)
            return
        self._violate(
            "right outcome", f"shows {shown}, but no job was started ({', '.join(answers) or 'no answer'})", after.id
        )

    def _long_tried(self, run: FlowRun | None) -> bool:
        since = run.job.intent_at if run and run.job else run.tried_since if run else None
        return since is None or self.engine.now - self._s(since) >= self.timing.submit_seconds - 2 * CLOCKS_SECONDS

    def _truth_of(self, job: SimJob, before: FlowRun | None, after: FlowRun) -> set[tuple[str, str | None, int | None]]:
        """Return every outcome that is right for a job as it really is."""
        assert before is not None
        right: set[tuple[str, str | None, int | None]] = set()
        recorded, now = before.job, self.engine.now
        if self._may_be_lost(job, before, after):
            right.add(("CRASHED", "lost", None))
        if job.ended_at is None:
            return right
        own = (job.truth.state, job.truth.failure_class, job.truth.exit_code)
        verdict = self._verdict(before, job)
        if job.stopped:
            return right | verdict
        right.add(own)
        ended = self._s(job.ended_at)
        if verdict and recorded and ended >= self._stop_asked(before, recorded, now) - CLOCKS_SECONDS:
            right |= verdict  # It ended by itself after a stop was sent: either is true.
        if self._forgotten(job):
            right |= verdict  # It vanished, or was forgotten, while it was being stopped.
        return right

    def _stop_asked(self, run: FlowRun, recorded: Job, now: float) -> float:
        """Return when the first stop of the attempt was sent; one that was not answered may have been carried out."""
        sent = [self._s(recorded.stop_sent_at)] if recorded.stop_sent_at else []
        since = recorded.stopping_since
        if since is not None:
            sent += [self._s(each.at) for each in run.journal if each.what == "stop failed" and each.at >= since]
        return min(sent, default=now)

    def _verdict(self, run: FlowRun, job: SimJob) -> set[tuple[str, str | None, int | None]]:
        codes = {None, job.exit_shown} if job.stopped else {None, job.truth.exit_code}
        found: set[tuple[str, str | None, int | None]] = set()
        if run.cancel is not None:
            found |= {("CANCELLED", None, code) for code in codes}
        for answer in self.cloud.answers.get((run.id, run.attempt), ()):
            if answer in _REJECTIONS:
                found |= {("CRASHED", class_, code) for code in codes for class_ in _ANSWERS[answer]}
        policy, recorded = run.policy, run.job
        if policy is None or recorded is None or recorded.stopping_since is None:
            return found
        stopping, since = self._s(recorded.stopping_since), recorded.started_at
        submitted = self._s(recorded.submitted_at) if recorded.submitted_at else 0.0
        if stopping >= submitted + policy.start_timeout_seconds - CLOCKS_SECONDS:
            found |= {("CRASHED", "start-timeout", code) for code in codes}
        if since and policy.timeout_seconds and stopping >= self._s(since) + policy.timeout_seconds - CLOCKS_SECONDS:
            found |= {("FAILED", "timeout", code) for code in codes}
        return found

    def _may_be_lost(self, job: SimJob, before: FlowRun, after: FlowRun) -> bool:
        """Whether nobody could know: the platform forgot, a stop was never confirmed, or nobody looked for an hour."""
        recorded: Job | None = before.job
        if recorded is not None and recorded.stopping_since is not None:
            long = self.engine.now - self._s(recorded.stopping_since) >= self.timing.stop_seconds - CLOCKS_SECONDS
            return (long and any(chore.handle for chore in after.chores)) or self._forgotten(job)
        if recorded is None or recorded.pid is None:
            return self._long_tried(before)
        return self._forgotten(job)

    def _forgotten(self, job: SimJob) -> bool:
        self.cloud._get(job.key)
        return job.forgotten_at is not None or (job.ended_at is not None and job.plan.outcome == "gone")

    # -- from time to time

    def unsettled(self) -> list[FlowRun]:
        """Return the runs with which something is left to do."""
        return [self.runs[id_] for id_ in self.watches]

    def look_around(self) -> None:
        """Nothing is in limbo, and the end of a job does not go unnoticed."""
        self.lanes.look_around()
        now = self.engine.now
        for run_id, watch in self.watches.items():
            if now <= max(watch.deadline, self.down_until) + SLACK_SECONDS + watch.allowed + CLOCKS_SECONDS:
                continue
            run = self.runs[run_id]
            late = now - watch.deadline
            self.limbo += 1
            why = f"{run.phase} ({run.state.name}), {late:.0f} s after {watch.why}; {watch.allowed:.0f} s were allowed"
            self._violate("chores end" if run.is_final else "no limbo", why, run_id)
        for run in self.unsettled():
            if run.phase.is_submitting:
                self._is_given_up(run)
            if run.phase is Phase.STARTED and run.job is not None:
                self._notices(run)
            elif run.phase is Phase.STOPPING and run.job is not None and run.job.stopping_since is not None:
                watch = self.watches[run.id]
                over = self._s(run.job.stopping_since) + self.timing.stop_seconds
                if now > over + SLACK_SECONDS + watch.allowed + self.outages + CLOCKS_SECONDS:
                    self._violate("no limbo", f"is being stopped for {now - over + 3600:.0f} s", run.id)

    def _is_given_up(self, run: FlowRun) -> None:
        """An attempt that gets no job ends at its submit deadline, once a last call is closed."""
        since = run.job.intent_at if run.job else run.tried_since
        if since is None:
            return
        closing = self.timing.call_seconds + self.timing.settle_seconds + self.timing.claim_seconds
        latest = max(self._s(since) + self.timing.submit_seconds, self.down_until) + closing + 300.0
        if run.phase is Phase.CALLING and self.finds_fail:
            latest += self.timing.unreachable_seconds
        if self.engine.now > latest + 2 * SLACK_SECONDS + self.watches[run.id].allowed:
            self._violate("no limbo", f"has had no job for {self.engine.now - self._s(since):.0f} s", run.id)

    def _notices(self, run: FlowRun) -> None:
        assert run.job is not None
        job = next((each for each in reversed(self.cloud.started) if each.key == run.job.key), None)
        if job is None or job.ended_at is None:
            return
        watch = self.watches[run.id]
        ended = max(self._s(job.ended_at), watch.since, self.down_until)
        looks = min((self.engine.now - self._s(job.submitted_at)) / 60.0, 300.0) + 2 * self.sweep_seconds
        if self._forgotten(job) and run.job.submitted_at is not None:
            ended = max(ended, self._s(run.job.submitted_at))
            looks += self.timing.gone_grace_seconds
        if self.engine.now > ended + looks + SLACK_SECONDS + watch.allowed + CLOCKS_SECONDS + 30.0:
            late = self.engine.now - ended
            self._violate("an end is noticed", f"its job has been over for {late:.0f} s", run.id)

    # -- at the end

    def at_end(self, shown: list[str]) -> None:
        """Everything is settled, nothing runs, and no secret is anywhere."""
        for run in self.runs.values():
            stored = self.store.get_run(run.id)
            if stored != run:
                self._violate("final states never change", "the ledger holds something that was not written", run.id)
            if run.phase is not Phase.SETTLED:
                self._violate("chores end" if run.is_final else "no limbo", f"is {run.phase} at the end", run.id)
            elif left := self.cloud.running_of(run.id):
                self._violate("nothing left running", f"{left[0].key} still runs", run.id)
        if self.cloud.needs_cleanup and self.cloud.jobs:
            job = next(iter(self.cloud.jobs.values()))
            self._violate("nothing left behind", f"{job.key} was not removed", job.run_id)
        text = "\n".join(shown)
        if CANARY in text:
            at = text.index(CANARY)
            self._violate("no secret", f"…{text[max(at - 60, 0) : at + 30]!r}", None)


_ANSWERS: Final = {
    "throttled": ("quota", "platform"),
    "rejected": ("permission", "platform"),
    "capacity": ("capacity", "platform"),
    "expired": ("permission", "platform"),
    "unreachable": ("network", "platform"),
    "no image": ("image", "platform"),
    "registry": ("image", "platform"),
}
"""From how a call was refused, to the classes that the attempt may end with."""
_REJECTIONS: Final = frozenset({"rejected", "no image"})
"""Those that are for good, so that a job which is found after all is stopped with them."""
DAY: Final = 24 * 3600.0


class LogCollector(logging.Handler):
    """Keeps what is logged, for those who look for secrets, and reports what nobody foresaw."""

    def __init__(self, checks: Checks) -> None:
        super().__init__()
        self.checks, self.lines = checks, list[str]()

    def emit(self, record: logging.LogRecord) -> None:
        facts: dict[str, Any] = {k: v for k, v in record.__dict__.items() if k not in _USUAL}
        self.lines.append(f"{record.msg} {facts}")
        if record.msg in ("message_failed", "loop_failed"):
            self.checks._violate(
                "nothing unforeseen", f"{record.msg}: {record.exc_info and record.exc_info[1]!r}", None
            )


_USUAL: Final = frozenset(logging.makeLogRecord({}).__dict__)


def _real(moment: datetime) -> float:
    """Return a time of the real clock as the engine's."""
    return (moment - START).total_seconds()


def _waits_for_its_turn(run: FlowRun) -> bool:
    return run.journal[-1].what == "pacing"


def _text(value: object) -> str | None:
    return str(value) if value is not None else None
