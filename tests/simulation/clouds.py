"""The clouds: doubles behind the platform port that keep what is documented of them, and nothing more.

What goes wrong is drawn from the seed. A call that is under way lands later, whatever became of its caller, but within
what the guarantee presumes: it lands, and is visible, within `SETTLE` after the `call_until` of its intent, less the
five seconds by which clocks differ here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from push_pools.domain.errors import JobRejected, NothingStarted, PlatformUnavailable, SubmissionUncertain
from push_pools.testing.fake_platform import FakeCloud, FakeJob, FakePlatform, Plan
from tests.simulation.chance import Chance, Countdown
from tests.simulation.engine import START, Engine

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from uuid import UUID

    from push_pools.domain.records import Timing
    from push_pools.domain.runs import JobHandle

CANARY = "CANARY-4f2a-never-in-clear"
"""The secret of the block that every job uses."""
SKEW_SECONDS = 5.0
DAY, HOUR = 24 * 3600.0, 3600.0
LATENCY = (0.05, 0.05, 0.2, 1.0, 4.0)
LANDS = (0.5, 5.0, 20.0, 40.0, 75.0)
UNSEEN = (0.0, 0.0, 2.0, 12.0, 28.0)
BLIND = (600.0, 5400.0, 9000.0)
"""How long nobody can look jobs up."""
STARTS = (0.0, 1.0, 20.0, 100.0)
LASTS = (5.0, 0.0, 1.0, 40.0, 200.0, 1000.0, 4000.0)
STOPS = (0.0, 1.0, 8.0, 29.0)

FAMILIES: dict[str, dict[str, Any]] = {
    "names": {},
    "jobs": {"needs_cleanup": True},
    "tokens": {"key_is_used_up": True, "forgets_keys": True, "type_": "ecs:push"},
    "puts": {"closes_before_repeat": True, "needs_cleanup": True},
}
"""Options of the fake platform: local processes, Cloud Run jobs, ECS, and container groups of Azure."""


@dataclass(frozen=True)
class Truth:
    """What a job that ends by itself has to lead to: state type, failure class and exit code."""

    state: str
    failure_class: str | None = None
    exit_code: int | None = None


@dataclass
class SimJob(FakeJob):
    """A job, and what only the outside world knows of it."""

    truth: Truth = field(default_factory=lambda: Truth("COMPLETED", None, 0))
    seen_from: datetime = START
    stop_first_asked: datetime | None = None
    ignores_stops: bool = False
    forgotten_at: datetime | None = None
    call_entered: float = 0.0
    is_told: bool = False

    @property
    def exit_shown(self) -> int | None:
        """The exit code that it shows after a stop."""
        return 143


FATES: tuple[tuple[Plan, Truth], ...] = (
    (Plan(exit_code=0), Truth("COMPLETED", None, 0)),
    (Plan(exit_code=0), Truth("COMPLETED", None, 0)),
    (Plan(exit_code=0), Truth("COMPLETED", None, 0)),
    (Plan(exit_code=0), Truth("COMPLETED", None, 0)),
    (Plan(exit_code=3), Truth("FAILED", "exit", 3)),
    (Plan(exit_code=1), Truth("FAILED", "exit", 1)),
    (
        Plan(exit_code=137, signal=9, outcome="oom", reason="OutOfMemoryError: the container used too much memory"),
        Truth("CRASHED", "oom", 137),
    ),
    (Plan(exit_code=None, signal=9, reason="killed from outside"), Truth("CRASHED", "killed")),
    (Plan(exit_code=None, outcome="gone"), Truth("CRASHED", "lost")),
)
ECS_FATES: tuple[tuple[Plan, Truth], ...] = (
    (
        Plan(exit_code=143, codes=("SpotInterruption",), reason="Your Spot Task was interrupted."),
        Truth("CRASHED", "spot", 143),
    ),
    (
        Plan(exit_code=None, codes=("InfrastructureHealth",), reason="Host EC2 terminated."),
        Truth("CRASHED", "platform"),
    ),
    (
        Plan(exit_code=None, codes=("EssentialContainerExited",), reason="Essential container in task exited"),
        Truth("CRASHED", "platform"),
    ),
)


class Trouble:
    """What goes wrong at the cloud, and how often."""

    def __init__(self, chance: Chance, submit: float, ask: float, ending: float) -> None:
        self.submits = Countdown(chance, submit)
        self.asks = Countdown(chance, ask)
        self.endings = Countdown(chance, ending)
        self._chance = chance
        self._blind_until = 0.0
        self.only_throttles = False
        """Whether a call is only ever refused for now, as in stories in which nothing else goes wrong."""

    def stop(self) -> None:
        for each in (self.submits, self.asks, self.endings):
            each.stop()
        self._blind_until = 0.0

    def of_call(self, kinds: Sequence[str]) -> str:
        """Return what goes wrong with a submit call, `fine` if nothing does."""
        if not self.submits.hit():
            return "fine"
        return "throttled" if self.only_throttles else self._chance.pick(kinds)

    def is_blind(self, now: float, *, fails: bool) -> bool:
        """Whether jobs cannot be looked up for a long time, as without the permission."""
        if fails and now >= self._blind_until and self._chance.below(6) == 1:
            self._blind_until = now + self._chance.pick(BLIND)
        return now < self._blind_until


@dataclass
class Landing:
    """A submit call on its way, and its answer when it has arrived."""

    call: Any
    entered: float
    over_existing: bool = False
    answer: SimJob | NothingStarted | None = None


class SimCloud(FakeCloud):
    """A cloud of one family on the engine's clock."""

    def __init__(
        self, engine: Engine, family: str, trouble: Trouble, timing: Timing, latest: Callable[[str], datetime | None]
    ) -> None:
        super().__init__(clock=_TrueClock(engine))
        self.engine, self.family, self.trouble, self.timing = engine, family, trouble, timing
        self.needs_cleanup = bool(FAMILIES[family].get("needs_cleanup"))
        self.tells_more = family == "tokens"
        """Whether it tells of every change of a job, and not only of its end."""
        self._latest = latest
        """From a job key, the `call_until` that its intent says."""
        self.fates = FATES + ECS_FATES if family == "tokens" else FATES
        self.on_start: Callable[[SimJob], None] = lambda job: None
        self.on_end: Callable[[SimJob], None] = lambda job: None
        self.answers: dict[tuple[UUID | None, int], list[str]] = {}
        """For every attempt, the ways in which calls for it were refused."""
        self.removed_running: Callable[[SimJob], None] = lambda job: None
        self._refused_at: dict[str, float] = {}

    # -- submit

    def submit(self, call: Any) -> SimJob:
        engine, chance = self.engine, self.engine.chance
        task = engine.current
        assert task is not None
        self.calls.append(("submit", call.key))
        latest = self._latest_landing(call.key)
        if engine.now > latest >= task.port_entered:
            engine.faults["frozen call never sent"] += 1
            raise SubmissionUncertain("fake", "the connection was gone when the process went on")
        landing = Landing(call, task.port_entered)
        sent = engine.now
        if self.overwrites and self._get(call.key) is not None:
            landing.over_existing = False  # A GET came before the PUT, and found it.
            landing.answer = self.jobs[call.key]  # type: ignore[assignment]
        kind = self.trouble.of_call(self._kinds())
        if kind != "fine":
            engine.faults[kind] += 1
        early = min(sent + chance.pick(LATENCY), max(latest, sent))
        if kind in ("fine", "capacity, they say", "answer lost", "adapter fails"):
            engine.at(early, lambda: self._land(landing, refuses=kind == "capacity, they say"))
        elif kind == "capacity":
            engine.at(early, lambda: self._refuse(call.key))
        elif kind == "lands late":
            at = min(sent + chance.pick(LANDS), max(latest, sent))
            engine.at(at, lambda: self._land(landing))
            engine.pause(min(chance.pick((25.0, 5.0, 0.5)), 25.0))
            raise SubmissionUncertain("fake", "timed out")
        engine.pause(early - sent + chance.pick(LATENCY) / 2)
        if engine.now - sent > self.timing.call_seconds:
            raise SubmissionUncertain("fake", "timed out")
        self._raise(kind, landing)
        assert isinstance(landing.answer, SimJob)
        return landing.answer

    def _kinds(self) -> Sequence[str]:
        kinds = ["answer lost", "lands late", "request lost", "throttled", "capacity", "rejected", "adapter fails"]
        if self.family == "tokens":
            kinds.append("capacity, they say")
        return kinds

    def _raise(self, kind: str, landing: Landing) -> None:
        call = landing.call
        answers = self.answers.setdefault((call.run_id, call.attempt), [])
        match kind:
            case "throttled":
                answers.append(kind)
                raise PlatformUnavailable("fake", "throttled", codes=["ThrottlingException"])
            case "rejected":
                answers.append(kind)
                raise JobRejected("fake", "denied", codes=["AccessDeniedException"])
            case "request lost" | "answer lost":
                raise SubmissionUncertain("fake", "connection reset")
            case "capacity" | "capacity, they say":
                answers.append("capacity")
                raise NothingStarted("fake", "RESOURCE:MEMORY", codes=["RESOURCE:MEMORY"])
            case "adapter fails":
                raise RuntimeError("a fault of the adapter")
        if isinstance(landing.answer, NothingStarted):
            answers.append("capacity")
            raise landing.answer

    def _refuse(self, key: str, *, anyway: bool = False) -> None:
        """Bind a token to a refusal, if the platform does so: to its first answer, for a day."""
        if self.binds_refusals and (anyway or key not in self.jobs) and key not in self.refused:
            self.refused[key] = NothingStarted("fake", "RESOURCE:MEMORY", codes=["RESOURCE:MEMORY"])
            self._refused_at[key] = self.engine.now

    def _latest_landing(self, key: str) -> float:
        until = self._latest(key)
        if until is None:
            return self.engine.now
        seconds = (until - START).total_seconds()  # On the real clock.
        return seconds + self.timing.settle_seconds - SKEW_SECONDS - max(UNSEEN)

    def _land(self, landing: Landing, *, refuses: bool = False) -> None:
        if landing.answer is not None:
            return
        call = landing.call
        if call.key in self.refused:
            if self.engine.now < self._refused_at[call.key] + DAY:
                landing.answer = self.refused[call.key]
                return
            del self.refused[call.key]
        there = self._get(call.key)
        if there is not None and not self.overwrites and self._binds(there):
            landing.answer = there  # type: ignore[assignment]
            return
        landing.answer = self._begin_job(call, landing.entered)
        if refuses:
            self._refuse(call.key, anyway=True)

    def _binds(self, job: FakeJob) -> bool:
        """Whether the key still means this job; a token is forgotten after a day."""
        age = (self.clock.now() - job.submitted_at).total_seconds()
        return self.forgets_after_seconds is None or age < DAY

    def _begin_job(self, call: Any, entered: float) -> SimJob:
        engine, chance = self.engine, self.engine.chance
        now = self.clock.now()
        plan, truth = chance.pick(self.fates)
        starts, lasts = chance.pick(STARTS), chance.pick(LASTS)
        kind = "plain"
        if self.trouble.endings.hit():
            kind = chance.pick(["never starts", "runs long", "ignores stops"])
            engine.faults["job " + kind] += 1
            starts = 1e7 if kind == "never starts" else starts
            lasts = 1e6 if kind == "runs long" else 9000.0 if kind == "ignores stops" else lasts
        if truth.failure_class in ("spot", "platform", "killed", "lost", "oom"):
            engine.faults["job " + truth.failure_class] += 1
        plan = Plan(starts, lasts, plan.exit_code, plan.signal, plan.codes, plan.reason, plan.outcome)
        unseen = chance.pick(UNSEEN)
        if unseen:
            engine.faults["late visibility"] += 1
        job = SimJob(
            key=call.key,
            pid=f"fake-{len(self.started) + 1}",
            run_id=call.run_id,
            attempt=call.attempt,
            configuration=call.configuration,
            plan=plan,
            submitted_at=now,
            truth=truth,
            seen_from=now + timedelta(seconds=unseen),
            ignores_stops=kind == "ignores stops",
            call_entered=entered,
        )
        self.jobs[job.key] = job
        self.started.append(job)
        if lasts < 1e6 and starts < 1e6:
            engine.after(starts + lasts, lambda: self._ends_by_itself(job))
        self.on_start(job)
        return job

    # -- what becomes of jobs

    def told(self, job: SimJob) -> Any:
        """Return what a message about the end of a job says: its handle, and the observation."""
        platform = FakePlatform(cloud=self, **FAMILIES[self.family])
        handle = platform.handle(job.configuration, job.key).model_copy(update={"pid": job.pid})
        seen_from, job.seen_from = job.seen_from, self.clock.now()
        seen = platform._observe(handle)
        job.seen_from = seen_from
        return handle, seen

    def _ends_by_itself(self, job: SimJob) -> None:
        job.settle(self.clock.now())
        if job.ended_at is not None and not job.is_told:
            job.is_told = True
            self.on_end(job)

    def job_of(self, handle: JobHandle) -> FakeJob | None:
        job = super().job_of(handle)
        if job is not None and isinstance(job, SimJob) and job.seen_from > self.clock.now():
            return None
        return job

    def ask_to_stop(self, job: FakeJob, grace_seconds: float) -> None:
        assert isinstance(job, SimJob)
        now = self.clock.now()
        job.settle(now)
        if job.ended_at is not None or job.stop_asked_at is not None:
            return
        job.stop_first_asked = job.stop_first_asked or now
        if job.ignores_stops:
            return
        job.stop_asked_at = now
        self.engine.after(self.engine.chance.pick(STOPS), lambda: self._stopped(job))

    def _stopped(self, job: SimJob) -> None:
        job.settle(self.clock.now())
        if job.ended_at is None:
            job.stopped, job.ended_at, job.is_told = True, self.clock.now(), True
            job.plan = Plan(job.plan.start_seconds, job.plan.seconds, 143, None, (), "stopped")
            self.on_end(job)

    def _is_forgotten(self, job: FakeJob) -> bool:
        forgotten = super()._is_forgotten(job)
        if forgotten and isinstance(job, SimJob):
            job.forgotten_at = job.forgotten_at or self.clock.now()
        return forgotten

    def running_of(self, run_id: UUID) -> list[SimJob]:
        """Return the jobs of a run that are not over."""
        now, found = self.clock.now(), []
        for job in self.started:
            if job.run_id == run_id:
                job.settle(now)
                if job.ended_at is None:
                    found.append(job)
        return found  # type: ignore[return-value]

    # -- everything but submit

    def ask(self, method: str, key: str, effect: Callable[[], Any]) -> Any:
        engine, chance = self.engine, self.engine.chance
        self.calls.append((method, key))
        if engine.current is None:
            return effect()
        fails = self.trouble.asks.hit()
        blind = method == "find" and self.family == "tokens" and self.trouble.is_blind(engine.now, fails=fails)
        engine.pause(chance.pick(LATENCY) / 2)
        if blind or (fails and chance.below(2) == 0):
            self._unavailable(method)
        if method == "cleanup":
            job = self._get(key)
            if job is not None:
                job.settle(self.clock.now())
                if job.ended_at is None:
                    self.removed_running(job)  # type: ignore[arg-type]
        result = effect()
        engine.pause(chance.pick(LATENCY) / 2)  # Its answer travels too, and may be overtaken.
        if fails and chance.below(4) == 1:
            engine.freeze(engine.current)  # It is read by a host that has stood still meanwhile.
        elif fails:
            self._unavailable(method)
        return result

    def _unavailable(self, method: str) -> None:
        self.engine.faults[f"cannot {method}"] += 1
        self.engine.on_hurt(self.engine.current, 300.0 if method == "observe" else 60.0)
        raise PlatformUnavailable("fake", "503")


class _TrueClock:
    speed = 1.0

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def now(self) -> datetime:
        return self._engine.moment()
