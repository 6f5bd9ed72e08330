"""Every phase has a deadline, an owner and a way out: the table "Phases" of docs/design.md, row by row."""

from __future__ import annotations

import logging
from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from push_pools.domain.errors import NotFound, PlatformMissing, PlatformUnavailable, SubmissionUncertain
from push_pools.domain.pools import WorkPool
from push_pools.domain.records import Timing
from push_pools.domain.runs import ChoreKind, FlowRun, Phase
from push_pools.domain.states import FailureClass, JobStatus, Observation, StateType
from push_pools.domain.transitions import start_deadline
from push_pools.services.explain import explain_run
from push_pools.services.stop import cancel_run
from push_pools.services.sweep import sweep
from push_pools.services.tick import tick
from push_pools.testing.fake_platform import SimulatedCrash
from tests.world import World

if TYPE_CHECKING:
    from collections.abc import Callable

    from push_pools.ports import Platform

HOUR = 3600.0


class Uninstalled:
    """Platforms of which the plug-in of one is gone until `back`."""

    def __init__(self, world: World, error: Exception) -> None:
        self._platforms, self._error = world.app.platforms, error
        self.is_gone = True
        object.__setattr__(world.app, "platforms", self)

    def __call__(self, type_: str) -> Platform:
        if self.is_gone:
            raise self._error
        return self._platforms(type_)

    def types(self) -> list[str]:
        return [] if self.is_gone else list(self._platforms.types())


GONE: list[Exception] = [
    NotFound("pool type", "fake", fix="installed: process"),
    PlatformMissing("fake", "the module 'fake' is not installed", fix="pip install fake"),
]


@pytest.fixture
def world() -> World:
    return World()


def notes(run: FlowRun, what: str) -> list[dict[str, Any]]:
    return [dict(entry.facts) for entry in run.journal if entry.what == what]


def running(world: World, **options: Any) -> FlowRun:
    """Return a run whose job runs for days."""
    run = world.trigger(job_variables={"seconds": 10**7}, **options)
    world.pass_time(10)
    assert world.get(run).state.name == "Running"
    return world.get(run)


# -- a platform that is not there any more


@pytest.mark.parametrize("error", GONE, ids=lambda error: type(error).__name__)
def test_a_run_that_was_never_called_ends_when_its_platform_stays_away(world: World, error: Exception) -> None:
    """After the submit deadline, and says what to install; nothing is left to watch."""
    run = world.trigger()
    Uninstalled(world, error)
    world.pass_time(50 * 60, step=30)
    assert world.get(run).phase in (Phase.READY, Phase.CLAIMED)
    world.pass_time(20 * 60, step=30)
    run = world.get(run)
    assert (run.state.type, run.state.failure_class) == (StateType.CRASHED, FailureClass.CONFIGURATION)
    assert "cannot be used here" in run.state.message
    assert run.phase is Phase.SETTLED
    assert not world.queue.dead_letters()


@pytest.mark.parametrize("error", GONE, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("cancelled", [False, True])
def test_a_run_with_an_open_call_ends_lost_when_its_platform_stays_away(
    world: World, error: Exception, cancelled: bool
) -> None:
    """Nobody can tell whether its job was started: lost, an hour past the deadline, and the job is watched for."""
    run = world.trigger()
    world.cloud.fail("submit", SubmissionUncertain("fake", "timed out"), when="after")
    world.deliver()
    plug_in = Uninstalled(world, error)
    if cancelled:
        cancel_run(run.id, world.app, by="ann")
    world.pass_time(115 * 60, step=30)
    assert world.get(run).phase is Phase.CALLING
    world.pass_time(10 * 60, step=30)
    run = world.get(run)
    assert (run.state.name, run.state.failure_class) == ("Crashed", FailureClass.LOST)
    assert "whether a job was started" in run.state.message
    assert ChoreKind.WATCH in {chore.kind for chore in run.chores}
    assert not world.queue.dead_letters()
    plug_in.is_gone = False
    world.settle()
    assert world.get(run).state == run.state
    assert not world.cloud.running()


def test_a_platform_that_cannot_look_up_for_hours_ends_the_run_lost(world: World) -> None:
    """Such as one whose credentials are gone for good; an outage of an hour does not end a run."""
    run = world.trigger(job_variables={"seconds": 10**6})
    world.cloud.fail("submit", SubmissionUncertain("fake", "timed out"), when="after")
    world.cloud.fail("find", *[PlatformUnavailable("fake", "503")] * 500)
    world.pass_time(100 * 60, step=30)
    assert world.get(run).phase is Phase.CALLING
    world.pass_time(30 * 60, step=30)
    assert world.get(run).state.failure_class is FailureClass.LOST
    world.cloud.faults.clear()
    world.settle()
    assert not world.cloud.running()


def test_a_run_is_not_given_up_while_a_call_may_land() -> None:
    """However short the wait for an unreachable platform is set: the call that lands then would be nobody's."""
    world = World(timing=Timing(unreachable_seconds=0.0))
    run = world.trigger()
    world.cloud.fail("submit", *[SubmissionUncertain("fake", "timed out")] * 500)
    world.pass_time(3590, step=10)
    world.cloud.fail("find", *[PlatformUnavailable("fake", "503")] * 500)
    while not world.get(run).is_final:
        world.pass_time(5)
    job = world.get(run).job
    assert job is not None
    assert world.clock.now() > job.call_until + world.app.timing.settle
    assert world.clock.now() < world.get(run).created_at + timedelta(seconds=3900)


def test_an_outage_shorter_than_that_leaves_the_job_alone(world: World) -> None:
    run = world.trigger(job_variables={"seconds": 10**6})
    world.cloud.fail("submit", SubmissionUncertain("fake", "timed out"), when="after")
    world.cloud.fail("find", *[PlatformUnavailable("fake", "503")] * 500)
    world.pass_time(100 * 60, step=30)
    world.cloud.faults.clear()
    world.pass_time(120)
    assert world.get(run).state.name == "Running"


def test_a_faulty_look_up_is_an_unreachable_platform(world: World) -> None:
    """An adapter's own fault must not keep a run for ever."""
    run = world.trigger()
    world.cloud.fail("submit", SubmissionUncertain("fake", "timed out"))
    world.cloud.fail("find", *(RuntimeError("bug") for _ in range(500)))
    world.pass_time(2.5 * HOUR, step=30)
    assert world.get(run).state.failure_class is FailureClass.LOST


def test_a_running_job_whose_platform_is_uninstalled_is_alarmed_and_can_be_cancelled(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """The sweep goes on, an alarm comes, and an hour after the cancel the run is lost and its job watched."""
    run = running(world)
    plug_in = Uninstalled(world, GONE[1])
    assert sweep("fake", world.app) == 1
    world.pass_time(25 * 60, step=30)
    assert [r.message for r in caplog.records].count("job_unseen") == 1
    cancel_run(run.id, world.app, by="ann")
    world.pass_time(65 * 60, step=30)
    run = world.get(run)
    assert run.state.failure_class is FailureClass.LOST
    assert not world.queue.dead_letters()
    plug_in.is_gone = False
    world.settle()
    assert not world.cloud.running()


def test_the_cleanup_of_a_run_waits_for_its_platform() -> None:
    """A run that ends while the plug-in is away still owes the clean-up of its job."""
    world = World({"needs_cleanup": True})
    run = running(world)
    plug_in = Uninstalled(world, GONE[0])
    cancel_run(run.id, world.app, by="ann")
    world.pass_time(65 * 60, step=30)
    assert {chore.kind for chore in world.get(run).chores} == {ChoreKind.CLEANUP, ChoreKind.WATCH}
    plug_in.is_gone = False
    world.settle()
    assert not world.cloud.jobs


def test_a_run_whose_pool_was_deleted_between_intent_and_pid_goes_on(world: World) -> None:
    """From the intent on only the stored request counts."""
    run = world.trigger()
    world.cloud.fail("submit", SubmissionUncertain("fake", "timed out"))
    world.drain()
    pool = world.store.get(WorkPool, "local")
    assert pool is not None
    world.store.delete(pool)
    world.store.delete(world.deployment)
    world.settle()
    assert (world.get(run).state.name, world.started(run)) == ("Completed", 1)


# -- faults of an adapter


@pytest.mark.parametrize("method", ["observe", "stop", "cleanup"])
def test_a_fault_of_an_adapter_delays_and_does_not_bury(method: str) -> None:
    """Its message is done with, and the run goes on when the fault is gone."""
    world = World({"needs_cleanup": True})
    run = running(world)
    world.cloud.fail(method, RuntimeError("bug"), RuntimeError("bug"))
    cancel_run(run.id, world.app, by="ann")
    world.pass_time(30 * 60)
    assert world.get(run).phase is Phase.SETTLED
    assert not world.queue.dead_letters()


def test_one_faulty_batch_stops_neither_the_others_nor_the_deadlines(world: World) -> None:
    """In one sweep."""
    world.deploy("short", timeout_seconds=60)
    quick, slow = world.trigger(), running(world, deployment="report/short")
    world.pass_time(5)
    world.advance(60)
    world.cloud.fail("observe", *[RuntimeError("bug")] * 2)
    world.sweep()
    assert world.get(slow).phase is Phase.STOPPING
    world.pass_time(10)
    assert world.get(quick).state.name == "Completed"


def test_a_failing_chore_backs_off_and_does_not_hold_up_the_others() -> None:
    """A minute, doubling to an hour."""
    world = World({"needs_cleanup": True})
    run = world.trigger()
    world.cloud.fail("cleanup", *(RuntimeError("bug") for _ in range(9)))
    world.pass_time(5 * HOUR, step=30)
    tried = [entry.at for entry in world.get(run).journal if entry.what == "chore failed"]
    waits = [(b - a).total_seconds() / 60 for a, b in pairwise(tried)]
    for wait, minutes in zip(waits, (1, 2, 4, 8, 16, 32, 60), strict=False):
        assert minutes <= wait <= minutes + 2


# -- jobs that nobody can see


def unseen_for(world: World, minutes: int) -> None:
    world.cloud.fail("observe", *[PlatformUnavailable("fake", "503")] * 10_000)
    world.pass_time(minutes * 60, step=30)


def test_a_job_that_is_not_seen_for_twenty_minutes_is_alarmed_once(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """And its story tells since when, and when it was seen again."""
    run = running(world)
    unseen_for(world, 19)
    assert not [r for r in caplog.records if r.message == "job_unseen"]
    unseen_for(world, 30)
    alarms = [r for r in caplog.records if r.message == "job_unseen"]
    assert len(alarms) == 1
    assert alarms[0].levelno == logging.ERROR
    assert len(notes(world.get(run), "unseen")) == 1
    world.cloud.faults.clear()
    world.pass_time(60)
    seen = world.get(run)
    assert seen.job is not None
    assert seen.job.unseen_since is None
    assert notes(seen, "seen again")
    unseen_for(world, 25)
    assert len([r for r in caplog.records if r.message == "job_unseen"]) == 2


def test_a_short_outage_is_written_down_once_per_job(world: World) -> None:
    """Two writes for an outage, none while it lasts."""
    run = running(world)
    before = run.version
    unseen_for(world, 10)
    assert world.get(run).version == before + 1


def test_an_outage_at_the_start_deadline_does_not_stop_a_job_that_may_run(world: World) -> None:
    """Whether it has begun to run is not known; it is looked at first, for as long as it takes to alarm."""
    run = world.trigger(job_variables={"seconds": 10**6})
    world.drain()
    unseen_for(world, 15)
    assert world.get(run).phase is Phase.STARTED
    world.cloud.faults.clear()
    world.pass_time(60)
    assert world.get(run).state.name == "Running"


def test_a_job_that_is_seen_again_and_has_not_begun_is_stopped_at_once(world: World) -> None:
    """Its start deadline counts again, however far its hints were put off while nobody saw it."""
    world.cloud.start_seconds = 10 * HOUR
    run = world.trigger()
    world.drain()
    world.pass_time(60)
    unseen_for(world, 18)
    assert world.get(run).phase is Phase.STARTED
    world.cloud.faults.clear()
    world.sweep()
    again = world.get(run)
    assert notes(again, "seen again")
    assert (again.wake_at, again.hints) == (start_deadline(again, world.clock.now()), 0)
    world.pass_time(60)
    (stopped,) = notes(world.get(run), "stop")
    assert "did not start within" in stopped["why"]
    assert world.get(run).attempt == 2


def test_a_job_that_nobody_ever_saw_is_stopped_in_the_end(world: World) -> None:
    run = world.trigger(job_variables={"seconds": 10**6})
    world.drain()
    unseen_for(world, 30)
    world.cloud.faults.clear()
    world.pass_time(300)
    assert notes(world.get(run), "stop")


def test_a_job_that_the_platform_does_not_know_counts_as_unseen(world: World) -> None:
    """Not while it is young: a platform may need a moment to list what it started."""
    from push_pools.services.poll import apply_observation

    run = running(world)
    assert run.job is not None
    unknown = Observation(key=run.job.key, status=JobStatus.UNKNOWN, observed_at=world.clock.now())
    assert apply_observation(run, unknown, world.app).version == run.version
    world.pass_time(400)
    unknown = unknown.model_copy(update={"observed_at": world.clock.now()})
    told = apply_observation(world.get(run), unknown, world.app)
    assert told.job is not None
    assert told.job.unseen_since == world.clock.now()


# -- cancel in every phase


def planned(world: World) -> FlowRun:
    return world.trigger(scheduled_time=world.clock.now().replace(hour=5))


def ready(world: World) -> FlowRun:
    run = world.trigger()
    world.cloud.fail("submit", PlatformUnavailable("fake", "slow down", retry_after_seconds=500))
    world.drain()
    return run


def claimed(world: World) -> FlowRun:
    """Its second claimer dies before the intent: only that claim is written at once."""
    run = world.trigger()

    def die(method: str, when: str, key: str) -> None:
        if method == "prepare":
            raise SimulatedCrash

    before, world.cloud.hook = world.cloud.hook, die
    world.deliver()
    world.advance(31)
    world.tick()
    world.deliver()
    world.cloud.hook = before
    return run


def calling(world: World) -> FlowRun:
    run = world.trigger(job_variables={"seconds": 10**6})
    world.cloud.fail("submit", SubmissionUncertain("fake", "timed out"), when="after")
    world.deliver()
    return run


def finishing(world: World) -> FlowRun:
    """The job is being stopped by a deadline when somebody cancels."""
    world.deploy("short", timeout_seconds=30)
    run = world.trigger("report/short", job_variables={"outcome": "hang"})
    world.pass_time(50)
    return run


def awaiting_retry(world: World) -> FlowRun:
    run = world.trigger(job_variables={"outcome": "hang"})
    world.pass_time(10)
    world.cloud.kill(world.get(run).job_key)
    world.sweep()
    return run


@pytest.mark.parametrize(
    ("make", "phase", "name"),
    [
        (planned, Phase.PLANNED, "Cancelled"),
        (ready, Phase.READY, "Cancelled"),
        (claimed, Phase.CLAIMED, "Cancelled"),
        (calling, Phase.CALLING, "Cancelled"),
        (running, Phase.STARTED, "Cancelled"),
        (finishing, Phase.STOPPING, "TimedOut"),
        (awaiting_retry, Phase.PLANNED, "Cancelled"),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_cancel_ends_a_run_in_every_phase(
    world: World, make: Callable[[World], FlowRun], phase: Phase, name: str
) -> None:
    """Without another attempt, and without a job that runs on; a verdict that came first stands."""
    run = make(world)
    assert world.get(run).phase is phase
    attempt = world.get(run).attempt
    cancelled = cancel_run(run.id, world.app, by="ann", reason="enough")
    assert cancelled.is_final or cancelled.state.name == "Cancelling"
    world.settle()
    run = world.get(run)
    assert (run.state.name, run.attempt) == (name, attempt)
    assert not world.cloud.running()


def test_awaiting_retry_backs_off_by_class(world: World) -> None:
    """Killed is tried again after 10 s, then 20 s, each a little less; exit is not."""
    run = awaiting_retry(world)
    assert world.get(run).state.name == "AwaitingRetry"
    for _ in range(2):
        world.pass_time(40)
        if world.cloud.running():
            world.cloud.kill(world.get(run).job_key)
    world.settle()
    waits = [note["at"] for note in notes(world.get(run), "retry")]
    assert len(waits) == 2
    began = [entry.at for entry in world.get(run).journal if entry.what == "retry"]
    seconds = [(type(at).fromisoformat(str(text)) - at).total_seconds() for at, text in zip(began, waits, strict=True)]
    assert 8 <= seconds[0] <= 10
    assert 16 <= seconds[1] <= 20


# -- Late


def test_a_due_run_that_nobody_claims_is_shown_as_late(world: World) -> None:
    """By the tick, after 15 s; a claim goes on as ever."""
    run = world.trigger()
    world.advance(14)
    tick(world.app)
    assert world.get(run).state.name == "Scheduled"
    world.advance(2)
    tick(world.app)
    late = world.get(run)
    assert (late.state.type, late.state.name, late.phase) == (StateType.SCHEDULED, "Late", Phase.PLANNED)
    assert late.wake_at == run.wake_at
    tick(world.app)
    assert world.get(run).version == late.version
    assert "late" in [line.what for line in explain_run(late, world.clock.now()).lines]
    world.pass_time(20)
    assert world.get(run).state.name == "Completed"


def test_a_run_that_was_put_for_tomorrow_is_claimed_when_it_is_due(world: World) -> None:
    """The tick sends its message within the look-ahead, once, delayed to the very moment."""
    due = world.clock.now() + timedelta(days=1, seconds=7)
    run = world.trigger(scheduled_time=due)
    assert world.queue.depth() == 0
    world.pass_time(86400 - 600, step=60)
    assert world.queue.depth() == 0
    for _ in range(8):
        world.advance(60)
        world.tick()
    assert world.queue.depth() == 1
    world.pass_time(300, step=1)
    assert notes(world.get(run), "claimed") == [{"fence": 1}]
    assert [entry.at for entry in world.get(run).journal if entry.what == "claimed"] == [due]


def test_a_message_that_was_sent_is_not_sent_again_before_its_time(world: World) -> None:
    """Nor is anything written."""
    run = world.trigger(scheduled_time=world.clock.now() + timedelta(seconds=290))
    for _ in range(4):
        world.advance(60)
        world.tick()
    assert world.queue.depth() == 1
    assert world.get(run).version == 1


def test_a_late_run_is_still_sent_again(world: World) -> None:
    """Its message was lost."""
    run = world.trigger()
    world.queue.receive(10, 10**9)
    for _ in range(3):
        world.advance(20)
        tick(world.app)
    assert world.get(run).state.name == "Late"
    world.pass_time(20)
    assert world.get(run).state.name == "Completed"


# -- history


def test_history_ends_after_90_days(world: World) -> None:
    """In batches, by the tick; what is not settled stays."""
    done = [world.trigger() for _ in range(3)]
    world.pass_time(30)
    kept = running(world)
    world.advance(89 * 24 * HOUR)
    world.tick()
    assert len(world.runs()) == 4
    world.advance(2 * 24 * HOUR)
    world.tick()
    assert [run.id for run in world.runs()] == [kept.id]
    for run in done:
        with pytest.raises(NotFound):
            world.get(run)
