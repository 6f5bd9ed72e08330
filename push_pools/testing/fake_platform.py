"""A platform in memory, on a clock that can be moved, which keeps the promises of the real ones and fails when told.

A `FakeCloud` is the outside world: jobs, what is remembered of keys, what goes wrong. A `FakePlatform` is one
process's adapter to it; two of them on one cloud are a restart.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Literal
from uuid import UUID

from pydantic import Field, JsonValue

from push_pools.domain.errors import NothingStarted
from push_pools.domain.jobs import BaseJobConfiguration, BaseVariables
from push_pools.domain.runs import JobHandle
from push_pools.domain.states import JobStatus, Observation
from push_pools.ports import LogPage
from push_pools.testing.clocks import ManualClock

if TYPE_CHECKING:
    import builtins
    from collections.abc import Callable, Sequence

    from push_pools.ports import Clock, Memo, PlatformContext

Outcome = Literal["exit", "hang", "gone", "oom"]

_SECONDS = "How long the job runs; left out, the platform's default, which may be until a test ends the job."
_OUTCOME = (
    "`exit` ends with the exit code, `hang` never ends by itself or by SIGTERM, `gone` disappears, `oom` is killed for "
    "want of memory."
)


class FakeVariables(BaseVariables):
    """The variables of a pool on the fake platform."""

    seconds: float | None = Field(default=None, ge=0, description=_SECONDS)
    exit_code: int = Field(default=0, ge=0, le=255, description="Exit code of the job.")
    outcome: Outcome = Field(default="exit", description=_OUTCOME)
    output: list[str] = Field(default_factory=list, description="Lines that the job writes.")
    grace_seconds: float = Field(default=30.0, ge=0, description="Seconds between the request to stop and the end.")


class FakeJobConfiguration(BaseJobConfiguration):
    """One job that nobody runs."""

    seconds: float | None = Field(default=None, ge=0, description=_SECONDS)
    exit_code: int = Field(default=0, ge=0, le=255, description="Exit code of the job.")
    outcome: Outcome = Field(default="exit", description=_OUTCOME)
    output: list[str] = Field(default_factory=list, description="Lines that the job writes.")
    grace_seconds: float = Field(default=30.0, ge=0, description="Seconds between the request to stop and the end.")


class SimulatedCrash(BaseException):
    """The process died here. Not an `Exception`, so nothing that survives a crash in a test may catch it."""


@dataclass(frozen=True)
class Plan:
    """What becomes of a job."""

    start_seconds: float = 0.0
    """From the submit until it runs."""
    seconds: float | None = None
    """From then until it ends; `None` until a test, or a stop, ends it."""
    exit_code: int | None = 0
    signal: int | None = None
    codes: tuple[str, ...] = ()
    reason: str = ""
    outcome: Outcome = "exit"


@dataclass
class FakeJob:
    """One job of the cloud."""

    key: str
    pid: str
    run_id: UUID | None
    attempt: int
    configuration: FakeJobConfiguration
    plan: Plan
    submitted_at: datetime
    ended_at: datetime | None = None
    stopped: bool = False
    stop_asked_at: datetime | None = None

    @property
    def began_at(self) -> datetime:
        return self.submitted_at + timedelta(seconds=self.plan.start_seconds)

    def settle(self, now: datetime) -> None:
        """End the job if its time is over."""
        if self.ended_at is None and self.plan.seconds is not None and self.plan.outcome != "hang":
            end = self.began_at + timedelta(seconds=self.plan.seconds)
            self.ended_at = end if end <= now else None

    def status(self, now: datetime) -> JobStatus:
        self.settle(now)
        if self.ended_at is None:
            return JobStatus.STARTING if now < self.began_at else JobStatus.RUNNING
        if self.stopped:
            return JobStatus.CANCELLED
        if self.plan.outcome == "gone":
            return JobStatus.GONE
        return JobStatus.SUCCEEDED if self.plan.exit_code == 0 else JobStatus.FAILED


@dataclass(frozen=True)
class Fault:
    """What happens to one call: an error before or after its effect; or `late`, when a submit lands at `land()`."""

    error: BaseException
    when: Literal["before", "after", "late"] = "before"


@dataclass(frozen=True)
class _LateCall:
    key: str
    configuration: FakeJobConfiguration
    run_id: UUID | None
    attempt: int
    sent_at: datetime


@dataclass
class FakeCloud:
    """The world outside: it outlives every `FakePlatform` that looks at it."""

    clock: Clock = field(default_factory=ManualClock)
    seconds: float | None = None
    """How long jobs run that do not say it themselves; `None` until `finish`, `kill` or a stop."""
    start_seconds: float = 0.0
    binds_refusals: bool = False
    """Whether a refusal is kept under the key, as ECS keeps it under the token."""
    forgets_after_seconds: float | None = None
    """How long after its end a job, and its key, is forgotten; the key then starts a new job."""
    overwrites: bool = False
    """Whether a call that lands late starts the job again, as a PUT over a container group does."""

    jobs: dict[str, FakeJob] = field(default_factory=dict)
    """By key; a forgotten or removed job is not there."""
    started: list[FakeJob] = field(default_factory=list)
    """Every job that was ever started, in order."""
    calls: list[tuple[str, str]] = field(default_factory=list)
    """Every call: method, and the key it was about."""
    plans: dict[str, Plan] = field(default_factory=dict)
    """What becomes of the job with this key, or of every job under ""; else its configuration says it."""
    delays: dict[str, float] = field(default_factory=dict)
    """Seconds that a call of this method takes on the clock, if the clock can be moved."""
    hook: Callable[[str, str, str], None] | None = None
    """Called as `hook(method, "before" or "after", key)` around every call's effect; what it raises passes through."""
    faults: dict[str, deque[Fault]] = field(default_factory=dict)
    refused: dict[str, NothingStarted] = field(default_factory=dict)
    late: list[_LateCall] = field(default_factory=list)
    lock: threading.RLock = field(default_factory=threading.RLock)
    tells: list[Callable[[FakeJob], None]] = field(default_factory=list)

    # -- what a test says

    def fail(self, method: str, *errors: BaseException, when: Literal["before", "after", "late"] = "before") -> None:
        """Have the next calls of a method raise, one error each."""
        self.faults.setdefault(method, deque()).extend(Fault(error, when) for error in errors)

    def land(self, *, within_seconds: float | None = None) -> int:
        """Have the calls arrive that were under way, and return how many there were.

        Those that were sent longer ago than `within_seconds` never arrive.
        """
        now = self.clock.now()
        with self.lock:
            calls, self.late = self.late, []
            if within_seconds is not None:
                calls = [call for call in calls if now - call.sent_at <= timedelta(seconds=within_seconds)]
            for call in calls:
                self._arrive(call)
        return len(calls)

    def running(self) -> list[FakeJob]:
        """Return the jobs that are not over, forgotten ones included."""
        with self.lock:
            for job in self.started:
                job.settle(self.clock.now())
            return [job for job in self.started if job.ended_at is None]

    def duplicates(self) -> dict[tuple[UUID | None, int], int]:
        """Return every (run, attempt) of which more than one job was started, and how many."""
        counts = Counter((job.run_id, job.attempt) for job in self.started if job.run_id is not None)
        return {which: count for which, count in counts.items() if count > 1}

    def finish(self, key: str, exit_code: int = 0) -> None:
        """End a job by itself, now."""
        self._end(self.jobs[key], exit_code=exit_code)

    def kill(self, key: str) -> None:
        """End a job from outside, now: by signal 9, without an exit code."""
        self._end(self.jobs[key], exit_code=None, signal=9, reason="killed from outside")

    def lose(self, key: str) -> None:
        """Have the cloud know nothing of a job any more; it counts as over."""
        with self.lock:
            job = self.jobs.pop(key)
            job.ended_at = job.ended_at or self.clock.now()

    def _end(self, job: FakeJob, **changes: Any) -> None:
        with self.lock:
            job.settle(self.clock.now())
            if job.ended_at is not None:
                return
            job.plan = replace(job.plan, **changes)
            job.ended_at = self.clock.now()
        for tell in self.tells:
            tell(job)

    # -- what an adapter asks

    def submit(self, call: _LateCall) -> FakeJob:
        """Start a job, unless there is one under the key."""
        fault = self._begin("submit", call.key)
        with self.lock:
            if call.key in self.refused:
                raise self.refused[call.key]
            if fault is not None and fault.when == "late":
                self.late.append(call)
                raise fault.error
            if fault is not None and fault.when == "before":
                if self.binds_refusals and isinstance(fault.error, NothingStarted):
                    self.refused[call.key] = fault.error
                raise fault.error
            job = self._get(call.key) or self._start(call)
        self._finish("submit", call.key, fault)
        return job

    def ask(self, method: str, key: str, effect: Callable[[], Any]) -> Any:
        """Do anything but a submit, with what was told to go wrong."""
        fault = self._begin(method, key)
        if fault is not None and fault.when != "after":
            raise fault.error
        with self.lock:
            result = effect()
        self._finish(method, key, fault)
        return result

    def job_of(self, handle: JobHandle) -> FakeJob | None:
        """Return the job that a handle means: that of its key, unless its pid says that it means an earlier one."""
        job = self._get(handle.key)
        return job if job is not None and handle.pid in (None, job.pid) else None

    def ask_to_stop(self, job: FakeJob, grace_seconds: float) -> None:
        """Ask a job to end: it does at once, or after the grace if it hangs."""
        now = self.clock.now()
        job.settle(now)
        if job.ended_at is not None:
            return
        job.stop_asked_at = job.stop_asked_at or now
        over_at = job.stop_asked_at + timedelta(seconds=grace_seconds)
        if job.plan.outcome == "hang" and now < over_at:
            return
        job.stopped = True
        self._end(job, exit_code=137 if job.plan.outcome == "hang" else 143, reason="stopped")

    def _begin(self, method: str, key: str) -> Fault | None:
        self.calls.append((method, key))
        if self.hook is not None:
            self.hook(method, "before", key)
        if (seconds := self.delays.get(method)) and (advance := getattr(self.clock, "advance", None)):
            advance(seconds)
        faults = self.faults.get(method)
        return faults.popleft() if faults else None

    def _finish(self, method: str, key: str, fault: Fault | None) -> None:
        if self.hook is not None:
            self.hook(method, "after", key)
        if fault is not None:
            raise fault.error

    def _arrive(self, call: _LateCall) -> None:
        if call.key not in self.refused and (self.overwrites or self._get(call.key) is None):
            self._start(call)

    def _get(self, key: str) -> FakeJob | None:
        job = self.jobs.get(key)
        if job is not None and self._is_forgotten(job):
            del self.jobs[key]
        return self.jobs.get(key)

    def _is_forgotten(self, job: FakeJob) -> bool:
        now = self.clock.now()
        job.settle(now)
        if job.ended_at is None or self.forgets_after_seconds is None:
            return False
        return now >= job.ended_at + timedelta(seconds=self.forgets_after_seconds)

    def _start(self, call: _LateCall) -> FakeJob:
        job = FakeJob(
            key=call.key,
            pid=f"fake-{len(self.started) + 1}",
            run_id=call.run_id,
            attempt=call.attempt,
            configuration=call.configuration,
            plan=self.plans.get(call.key) or self.plans.get("") or self._plan_of(call.configuration),
            submitted_at=self.clock.now(),
        )
        self.jobs[job.key] = job
        self.started.append(job)
        return job

    def _plan_of(self, job: FakeJobConfiguration) -> Plan:
        seconds = self.seconds if job.seconds is None else job.seconds
        plan = Plan(self.start_seconds, seconds, job.exit_code, outcome=job.outcome)
        if job.outcome == "oom":
            return replace(plan, exit_code=137, signal=9, reason="OutOfMemoryError: the container used too much memory")
        return plan


class FakePlatform:
    """Implements `ports.Platform` on a `FakeCloud`.

    Built with a context alone, as an installation builds it, it has a cloud of its own on the context's clock, whose
    jobs take a minute. The options make it behave as each family of platforms does.
    """

    type: ClassVar[str] = "fake"
    description: ClassVar[str] = "Runs nothing: jobs that exist in memory only, for tests and simulated time."
    documentation_url: ClassVar[str] = ""
    logo_url: ClassVar[str] = ""
    job_configuration: ClassVar[builtins.type[BaseJobConfiguration]] = FakeJobConfiguration
    job_configuration_variables: ClassVar[builtins.type[BaseVariables] | None] = FakeVariables
    observe_batch: ClassVar[int] = 100
    start_timeout_seconds: ClassVar[float] = 300.0
    key_is_used_up: ClassVar[bool] = False
    forgets_keys: ClassVar[bool] = False
    closes_before_repeat: ClassVar[bool] = False
    needs_cleanup: ClassVar[bool] = False

    def __init__(
        self,
        context: PlatformContext | None = None,
        *,
        cloud: FakeCloud | None = None,
        type_: str | None = None,
        key_is_used_up: bool = False,
        forgets_keys: bool = False,
        closes_before_repeat: bool = False,
        needs_cleanup: bool = False,
    ) -> None:
        if cloud is None:
            cloud = FakeCloud(context.clock, seconds=60.0) if context is not None else FakeCloud()
        self.cloud = cloud
        self._options: dict[str, Any] = {
            "type_": type_,
            "key_is_used_up": key_is_used_up,
            "forgets_keys": forgets_keys,
            "closes_before_repeat": closes_before_repeat,
            "needs_cleanup": needs_cleanup,
        }
        for name, value in self._options.items():
            if value:
                setattr(self, name.rstrip("_"), value)
        cloud.binds_refusals = cloud.binds_refusals or key_is_used_up
        cloud.overwrites = cloud.overwrites or closes_before_repeat
        if forgets_keys and cloud.forgets_after_seconds is None:
            cloud.forgets_after_seconds = 3600.0

    def restarted(self) -> FakePlatform:
        """Return the platform as another process sees it: the same cloud, nothing remembered."""
        return self.__class__(cloud=self.cloud, **self._options)

    def handle(self, job: BaseJobConfiguration, key: str) -> JobHandle:
        run_id, attempt = job.env.get("PUSH_POOLS_RUN_ID"), job.env.get("PUSH_POOLS_ATTEMPT")
        return JobHandle(
            key=key,
            platform=self.type,
            place={"cloud": "fake"},
            run_id=UUID(run_id) if run_id else None,
            attempt=int(attempt) if attempt else 1,
        )

    def prepare(self, job: BaseJobConfiguration, memo: Memo) -> BaseJobConfiguration:
        prepared: BaseJobConfiguration = self.cloud.ask("prepare", "", lambda: job)
        return prepared

    def submit(self, job: BaseJobConfiguration, key: str) -> JobHandle:
        assert isinstance(job, FakeJobConfiguration)
        handle = self.handle(job, key)
        started = self.cloud.submit(_LateCall(key, job, handle.run_id, handle.attempt, self.cloud.clock.now()))
        return handle.model_copy(update={"pid": started.pid})

    def find(self, handle: JobHandle) -> JobHandle | None:
        def effect() -> JobHandle | None:
            job = self.cloud.job_of(handle.model_copy(update={"pid": None}))
            return handle.model_copy(update={"pid": job.pid}) if job else None

        found: JobHandle | None = self.cloud.ask("find", handle.key, effect)
        return found

    def observe(self, handles: Sequence[JobHandle]) -> Sequence[Observation]:
        assert len(handles) <= self.observe_batch
        key = handles[0].key if len(handles) == 1 else ""
        seen: list[Observation] = self.cloud.ask("observe", key, lambda: [self._observe(h) for h in handles])
        return seen

    def _observe(self, handle: JobHandle) -> Observation:
        now = self.cloud.clock.now()
        job = self.cloud.job_of(handle)
        if job is None:
            status = JobStatus.GONE if handle.pid else JobStatus.UNKNOWN
            return Observation(key=handle.key, status=status, observed_at=now)
        status = job.status(now)
        facts: dict[str, Any] = {"started_at": job.began_at if status is not JobStatus.STARTING else None}
        if status.rank == JobStatus.FAILED.rank:
            plan = job.plan
            facts |= {"ended_at": job.ended_at, "exit_code": plan.exit_code, "signal": plan.signal}
            facts |= {"codes": plan.codes, "reason": plan.reason, "stopped": job.stopped}
        return Observation(key=handle.key, status=status, observed_at=now, **facts)

    def stop(self, handle: JobHandle, grace_seconds: float) -> None:
        def effect() -> None:
            if job := self.cloud.job_of(handle):
                self.cloud.ask_to_stop(job, grace_seconds)

        self.cloud.ask("stop", handle.key, effect)

    def cleanup(self, handle: JobHandle) -> None:
        def effect() -> None:
            job = self.cloud.job_of(handle)
            if job is not None and self.needs_cleanup:
                assert job.status(self.cloud.clock.now()).rank == JobStatus.GONE.rank, "removed while it ran"
                self.cloud.jobs.pop(handle.key, None)

        self.cloud.ask("cleanup", handle.key, effect)

    def logs(self, handle: JobHandle, cursor: str | None) -> LogPage:
        def effect() -> LogPage:
            job = self.cloud.job_of(handle)
            if job is None:
                return LogPage((), None, is_last=True)
            is_over = job.status(self.cloud.clock.now()).rank == JobStatus.GONE.rank
            lines = tuple(job.configuration.output[int(cursor or 0) :])
            return LogPage(lines, str(len(job.configuration.output)), is_last=is_over)

        page: LogPage = self.cloud.ask("logs", handle.key, effect)
        return page

    def preview(self, job: BaseJobConfiguration) -> dict[str, JsonValue]:
        request: dict[str, JsonValue] = job.model_dump(mode="json")
        return request


class TellingFakePlatform(FakePlatform):
    """A fake platform that also tells of endings, of those that a test or a stop brings about."""

    def __init__(self, context: PlatformContext | None = None, **options: Any) -> None:
        super().__init__(context, **options)
        self._tells: list[Callable[[JobHandle, Observation], None]] = []
        self.followed: list[str] = []
        self.cloud.tells.append(self._tell)

    def on_over(self, tell: Callable[[JobHandle, Observation], None]) -> None:
        self._tells.append(tell)

    def follow(self, handle: JobHandle) -> None:
        self.followed.append(handle.key)

    def close(self) -> None:
        self._tells.clear()

    def _tell(self, job: FakeJob) -> None:
        handle = self.handle(job.configuration, job.key).model_copy(update={"pid": job.pid})
        for tell in self._tells:
            tell(handle, self._observe(handle))
