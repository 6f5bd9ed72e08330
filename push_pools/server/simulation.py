"""Simulated time: what a home's schedules would do, on a clock that runs as fast as it is told.

Everything that a hosting does is done here by one thread, in the order of simulated time: the clock stands still while
a message is handled, and then moves to the next moment at which something falls due. So nothing is ever late for want
of speed, and the same simulation decides the same. Both clocks of the service are this one.
It works on a copy of the catalogue, in memory; every platform is replaced by one that starts nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo

from push_pools.domain.deployments import Deployment
from push_pools.domain.errors import InvalidInput, NotAllowed, NotFound, OutOfTime, StoreUnavailable
from push_pools.domain.planning import names
from push_pools.domain.pools import BlockDocument, Variable, WorkPool, WorkQueue
from push_pools.ports import App, Invocation
from push_pools.queues.memory import MemoryQueue
from push_pools.services.explain import entry_text
from push_pools.services.handle import handle_message
from push_pools.services.limits import sync_limit
from push_pools.services.runs import is_idle
from push_pools.services.sweep import sweep
from push_pools.services.tick import tick
from push_pools.stores.memory import MemoryStore
from push_pools.testing.clocks import ManualClock
from push_pools.testing.fake_platform import FakeCloud, FakeJobConfiguration, FakePlatform

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from uuid import UUID

    from push_pools.domain.jobs import BaseJobConfiguration
    from push_pools.domain.pools import CatalogueRecord
    from push_pools.domain.runs import Entry, FlowRun, JobHandle
    from push_pools.domain.schedules import Schedule
    from push_pools.domain.states import JobStatus
    from push_pools.ports import Platform
    from push_pools.testing.fake_platform import FakeJob

JOB_SECONDS: Final = 60.0
"""How long a simulated job runs; then it succeeds."""
VISIBILITY_SECONDS: Final = 90.0
BACK_SECONDS: Final = 1.0
MAX_AT_ONCE: Final = 10_000
"""Most messages that are handled at one moment; the rest follow a moment later."""
KINDS: Final[tuple[type[CatalogueRecord], ...]] = (WorkPool, WorkQueue, Deployment, BlockDocument, Variable)


@dataclass(frozen=True)
class Decision:
    """One thing that was decided, or happened to the clock."""

    at: datetime
    what: str
    text: str
    run: FlowRun | None = None
    timezone: str | None = None
    """The zone of the run's schedule, if it has one."""


class Simulation:
    """A service on simulated time. `advance` it; it calls `tell` for every decision, in order.

    `start` is the first moment, with an offset.
    """

    def __init__(self, home: App, *, start: datetime, tell: Callable[[Decision], None]) -> None:
        self.clock = ManualClock(start.astimezone(UTC))
        self._tell = tell
        self._platforms = _SimulatedPlatforms(home, self.clock)
        self._store = _ToldStore(self._entry)
        self._queue = MemoryQueue(self.clock.seconds)
        self.app = App(
            store=self._store,
            queue=self._queue,
            platforms=self._platforms,
            vault=home.vault,
            block_types=home.block_types,
            clock=self.clock,
            real_clock=self.clock,
            timing=home.timing,
            environ=home.environ,
        )
        self._copy(home)
        self._serial = 0
        self._offsets = {zone: self._offset(zone) for zone in sorted(self._zones())}
        self._tick_at = self.clock.now()

    def _copy(self, home: App) -> None:
        """Copy the catalogue as if it had been made at the start, so that nothing of before is caught up."""
        now = self.clock.now()
        for kind in KINDS:
            for record in home.store.list(kind):
                self._store.put(record.model_copy(update={"version": 0, "created_at": now, "updated_at": now}))
        for deployment in self._store.list(Deployment):
            schedules = tuple(each.model_copy(update={"planned_from": None}) for each in deployment.schedules)
            just_before = now - timedelta(microseconds=1)  # An instant at the very start counts.
            self._store.put(deployment.model_copy(update={"schedules": schedules, "planned_from": just_before}))
        limited = (self._store.list(WorkPool), self._store.list(WorkQueue), self._store.list(Deployment))
        for records in limited:
            for each in records:
                sync_limit(self.app, each)

    # -- what is there

    @property
    def schedules(self) -> Sequence[tuple[Deployment, Schedule]]:
        """Return the schedules that plan runs."""
        deployments = [each for each in self._store.list(Deployment) if not each.is_paused]
        return [(each, schedule) for each in deployments for schedule in each.schedules if schedule.active]

    def _zones(self) -> set[str]:
        return {schedule.timezone for _, schedule in self.schedules} - {"UTC"}

    def is_idle(self) -> bool:
        """Whether nothing is due or active; what is planned for later does not count."""
        soon = self._queue.next_visible_in()
        return not self._platforms.active() and (soon is None or soon > 2 * BACK_SECONDS) and is_idle(self.app)

    def runs(self) -> Sequence[FlowRun]:
        """Return all runs of the simulation."""
        return self._store.all_runs()

    # -- time

    def advance(self, until: datetime, stop: Callable[[], bool] = lambda: False) -> None:
        """Let time pass up to a moment, and do on the way all that falls due; `stop` ends it early."""
        self._work()
        while not stop():
            at = min(self._next(), until)
            self.clock.advance((at - self.clock.now()).total_seconds())
            self._work()
            if at >= until:
                return

    def _next(self) -> datetime:
        now, moments = self.clock.now(), [self._tick_at]
        if (seconds := self._queue.next_visible_in()) is not None:
            moments.append(now + timedelta(seconds=max(seconds, 0.001)))
        if (change := self._platforms.next_change()) is not None:
            moments.append(max(change, now + timedelta(milliseconds=1)))
        return min(moments)

    def _work(self) -> None:
        now = self.clock.now()
        self._note_clock_changes()
        self._drain()
        if now >= self._tick_at:
            self._tick_at = now + timedelta(seconds=self.app.timing.tick_seconds)
            tick(self.app)
            self._look()
            self._drain()
        change = self._platforms.next_change()
        if change is not None and change <= now:
            self._look()
            self._drain()

    def _look(self) -> None:
        for type_ in self._platforms.looked_at():
            sweep(type_, self.app)

    def _drain(self) -> None:
        for _ in range(MAX_AT_ONCE):
            deliveries = self._queue.receive(1, VISIBILITY_SECONDS)
            if not deliveries:
                return
            (delivery,) = deliveries
            self._serial += 1
            deadline = self.clock.now() + timedelta(seconds=self.app.timing.function_seconds)
            invocation = Invocation(f"simulation/{self._serial}", deadline)
            try:
                handle_message(delivery.body, delivery.id, self.app, invocation)
            except (OutOfTime, StoreUnavailable):
                self._queue.release(delivery, delay_seconds=BACK_SECONDS)
            except (InvalidInput, NotAllowed, NotFound) as error:
                self._queue.bury(delivery, str(error))
                self._tell(Decision(self.clock.now(), "dead letter", f"dead letter: {error}"))
            else:
                self._queue.ack(delivery)

    # -- telling

    def _entry(self, run: FlowRun, entry: Entry) -> None:
        text = entry_text(entry)
        schedule = self._schedule_of(run)
        if schedule is not None and entry.what == "put" and run.deployment_id is not None:
            fire = names(schedule, run.scheduled_time, deployment_id=run.deployment_id)
            text += f" ({fire.note})" if fire is not None and fire.note else ""
        self._tell(Decision(entry.at, entry.what, text, run, schedule.timezone if schedule is not None else None))

    def _schedule_of(self, run: FlowRun) -> Schedule | None:
        if run.schedule is None or run.deployment_id is None:
            return None
        deployment = self._store.find(Deployment, run.deployment_id)
        schedules = deployment.schedules if deployment is not None else ()
        return next((each for each in schedules if each.id == run.schedule.id), None)

    def _offset(self, zone: str) -> timedelta:
        return self.clock.now().astimezone(ZoneInfo(zone)).utcoffset() or timedelta(0)

    def _note_clock_changes(self) -> None:
        for zone, before in self._offsets.items():
            after = self._offset(zone)
            if after != before:
                self._offsets[zone] = after
                local = self.clock.now().astimezone(ZoneInfo(zone))
                what = "forward" if after > before else "back"
                minutes = abs(after - before).total_seconds() / 60
                text = f"clocks in {zone} go {what} by {minutes:g} minutes, from UTC{_utc(before)} to UTC{_utc(after)}"
                self._tell(Decision(local.astimezone(UTC), "clock change", text, timezone=zone))


def _utc(offset: timedelta) -> str:
    minutes = round(offset.total_seconds() / 60)
    return f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"


class _ToldStore(MemoryStore):
    """A ledger in memory that tells of every new journal entry; an entry is in the same write as its decision."""

    def __init__(self, tell: Callable[[FlowRun, Entry], None]) -> None:
        super().__init__()
        self._tell = tell
        self._told: dict[UUID, Entry] = {}

    def all_runs(self) -> Sequence[FlowRun]:
        return self._all()

    def put_run(self, run: FlowRun) -> FlowRun:
        stored = super().put_run(run)
        self._tell_of(stored)
        return stored

    def save(self, before: FlowRun, after: FlowRun, *, counting: bool = False) -> FlowRun:
        written = super().save(before, after, counting=counting)
        self._tell_of(written)
        return written

    def _tell_of(self, run: FlowRun) -> None:
        last, fresh = self._told.get(run.id), []
        for entry in reversed(run.journal):
            if entry is last:
                break
            fresh.append(entry)
        for entry in reversed(fresh):
            self._told[run.id] = entry
            self._tell(run, entry)


class _SimulatedPlatforms:
    """The platforms of a home, each replaced by one that renders as it does and starts nothing."""

    def __init__(self, home: App, clock: ManualClock) -> None:
        self._home, self._cloud = home, FakeCloud(clock, seconds=JOB_SECONDS)
        self._made: dict[str, SimulatedPlatform] = {}

    def __call__(self, type_: str) -> Platform:
        if type_ not in self._made:
            self._made[type_] = SimulatedPlatform(self._home.platforms(type_), self._cloud)
        return self._made[type_]

    def types(self) -> Sequence[str]:
        return self._home.platforms.types()

    def active(self) -> bool:
        """Whether a job has not been seen to be over."""
        return any(platform.jobs for platform in self._made.values())

    def next_change(self) -> datetime | None:
        """Return when a job next does something that a look would show; it may be now."""
        return min((at for platform in self._made.values() if (at := platform.next_change()) is not None), default=None)

    def looked_at(self) -> Sequence[str]:
        """Return the types that have jobs to look at; what is over is then forgotten."""
        return [type_ for type_, platform in self._made.items() if platform.look()]


class SimulatedPlatform(FakePlatform):
    """Stands for a platform: its templates and rules are the real one's, its jobs exist in memory only."""

    def __init__(self, real: Platform, cloud: FakeCloud) -> None:
        super().__init__(cloud=cloud)
        for name in _TRAITS:
            setattr(self, name, getattr(real, name))
        self.jobs: dict[str, tuple[FakeJob, JobStatus | None]] = {}
        """By key, the jobs that have not been seen to be over, and what was last seen of each."""

    def submit(self, job: BaseJobConfiguration, key: str) -> JobHandle:
        configuration: Any = job
        if not isinstance(job, FakeJobConfiguration):
            configuration = FakeJobConfiguration(env=job.env)  # All that the cloud in memory needs of it.
        handle = super().submit(configuration, key)
        self.jobs.setdefault(key, (self.cloud.jobs[key], None))
        return handle

    def next_change(self) -> datetime | None:
        now = self.cloud.clock.now()
        return min((_change(job, seen, now) for job, seen in self.jobs.values()), default=None)

    def look(self) -> bool:
        now, before = self.cloud.clock.now(), bool(self.jobs)
        seen = {key: (job, job.status(now)) for key, (job, _) in self.jobs.items()}
        self.jobs = {key: each for key, each in seen.items() if each[0].ended_at is None}
        return before


_TRAITS: Final = (
    "type",
    "description",
    "job_configuration",
    "job_configuration_variables",
    "observe_batch",
    "start_timeout_seconds",
    "key_is_used_up",
    "forgets_keys",
    "closes_before_repeat",
    "needs_cleanup",
)
_NEVER: Final = datetime(9999, 1, 1, tzinfo=UTC)


def _change(job: FakeJob, seen: JobStatus | None, now: datetime) -> datetime:
    if job.status(now) is not seen:
        return now
    if now < job.began_at:
        return job.began_at
    if job.plan.seconds is None or job.plan.outcome == "hang":
        return _NEVER
    return job.began_at + timedelta(seconds=job.plan.seconds)
