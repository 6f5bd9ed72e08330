"""Calls keep below the rates of their platform: a run that has to wait says so, and nothing fails for it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from push_pools.domain.errors import Pacing, PlatformUnavailable
from push_pools.domain.pace import Pace, Rate
from push_pools.domain.runs import Phase
from push_pools.domain.states import StateType
from push_pools.services.explain import explain_run
from push_pools.services.stop import cancel_run
from push_pools.testing.fake_platform import FakePlatform
from tests.world import OnePlatform, World

if TYPE_CHECKING:
    from collections.abc import Sequence

    from push_pools.domain.jobs import BaseJobConfiguration
    from push_pools.domain.runs import FlowRun
    from push_pools.ports import Memo

SLOW = Rate(per_second=2)


class PacedPlatform(FakePlatform):
    """The fake platform with two rates."""

    rates: tuple[Pace, ...] = (Pace("calls", SLOW),)
    first: datetime | None = None
    """Until when `prepare` lets nobody pass."""

    def paces(self, job: BaseJobConfiguration) -> Sequence[Pace]:
        return self.rates

    def prepare(self, job: BaseJobConfiguration, memo: Memo) -> BaseJobConfiguration:
        if self.first is not None and self.cloud.clock.now() < self.first:
            raise Pacing("fake", "definitions are registered at 1 a second", free_at=self.first)
        return super().prepare(job, memo)


@pytest.fixture
def world() -> World:
    world = World()
    world.platform = PacedPlatform(cloud=world.cloud)
    world.app.platforms.platform = world.platform  # type: ignore[attr-defined]
    assert isinstance(world.app.platforms, OnePlatform)
    return world


def calls(world: World) -> list[float]:
    """Return when jobs were started, in seconds after the first."""
    moments = sorted(job.submitted_at for job in world.cloud.started)
    return [(moment - moments[0]).total_seconds() for moment in moments]


def noted(run: FlowRun, what: str) -> int:
    return sum(entry.what == what for entry in run.journal)


def test_a_burst_is_spread_over_the_rate(world: World) -> None:
    """Thirty runs at two a second take fifteen seconds, one call each, and no run asks all the time."""
    runs = [world.trigger() for _ in range(30)]
    world.drain()
    assert world.get(runs[5]).state.type is StateType.SCHEDULED
    world.pass_time(40, step=0.1)
    took = calls(world)
    assert len(took) == 30
    for n in range(len(took)):
        assert sum(took[n] <= other < took[n] + 1 - 0.05 for other in took) <= 3
    assert 14 <= took[-1] <= 20
    asked = [noted(world.get(run), "pacing") for run in runs]
    assert max(asked) <= 5
    assert sum(each > 0 for each in asked) >= 28


def test_a_run_that_waits_for_its_turn_says_so_and_has_not_failed(world: World) -> None:
    """Its state is Scheduled with the reason, its story tells of the rate, its claim is given back."""
    world.trigger()
    run = world.trigger()
    world.drain()
    held = world.get(run)
    assert (held.phase, held.state.name, held.claim, held.job) == (Phase.READY, "Scheduled", None, None)
    assert held.state.message == "pacing: calls allows 2 calls a second"
    assert held.state.failure_class is None
    story = explain_run(held, world.clock.now()).lines[-1].text
    assert story.startswith("waits for its turn, until ")
    world.settle()
    assert world.get(run).state.name == "Completed"


def test_waiting_for_a_turn_is_never_a_failure(world: World) -> None:
    """An hour of backlog does not use up the time in which a run has to get its job."""
    world.platform.rates = (Pace("calls", Rate(per_second=1 / 600)),)  # type: ignore[attr-defined]
    runs = [world.trigger() for _ in range(12)]
    world.settle(4 * 3600)
    assert [world.get(run).state.name for run in runs] == ["Completed"] * 12
    assert calls(world)[-1] > world.app.timing.submit_seconds + 1200


def test_a_place_that_was_taken_is_used_when_its_time_comes(world: World) -> None:
    """The run does not ask again; a run that comes much too late for its place does."""
    world.trigger()
    run = world.trigger()
    world.drain()
    place = world.get(run).places["calls"]
    assert place > world.clock.now()
    next_free = world.store.pace("calls", SLOW, world.clock.now())
    world.pass_time(1, step=0.1)
    assert world.started(run) == 1
    assert world.get(run).places == {}
    assert world.store.pace("calls", SLOW, place) == next_free


def test_a_place_is_lost_when_its_run_comes_much_too_late(world: World) -> None:
    """A host that slept does not make all calls that it missed at once."""
    runs = [world.trigger() for _ in range(11)]
    world.drain()
    world.advance(600)
    world.pass_time(30, step=0.1)
    took = sorted(calls(world))
    assert len(took) == 11
    assert sum(each - took[1] < 0.7 for each in took[1:]) <= 3
    assert all(world.started(run) == 1 for run in runs)


def test_of_two_rates_the_slower_one_decides(world: World) -> None:
    """Both are kept."""
    world.platform.rates = (Pace("fast", Rate(50)), Pace("slow", Rate(1)))  # type: ignore[attr-defined]
    for _ in range(4):
        world.trigger()
    world.pass_time(15, step=0.1)
    took = calls(world)
    assert len(took) == 4
    assert took[-1] >= 2.7


def test_a_call_that_is_repeated_is_not_put_off_behind_new_ones(world: World) -> None:
    """It takes the next place however far ahead, and new runs take only places near by."""
    first = world.trigger()
    world.cloud.fail("submit", PlatformUnavailable("fake", "busy"))
    world.drain()
    assert world.get(first).job is not None
    for _ in range(40):
        world.store.pace("calls", SLOW, world.clock.now(), ahead_seconds=60)
    new = world.trigger()
    world.pass_time(25, step=0.1)
    assert (world.started(first), noted(world.get(first), "pacing")) == (1, 1)
    assert noted(world.get(new), "pacing") > 1


def test_what_a_platform_cannot_prepare_yet_waits_too(world: World) -> None:
    """`Pacing` from `prepare` is a wait, not a refusal."""
    world.platform.first = world.clock.now() + timedelta(hours=2)  # type: ignore[attr-defined]
    run = world.trigger()
    world.drain()
    assert world.get(run).state.message == "pacing: definitions are registered at 1 a second"
    assert noted(world.get(run), "refused") == 0
    world.pass_time(3 * 3600, step=5)
    assert world.get(run).state.name == "Completed"


def test_a_run_that_waits_for_its_turn_is_cancelled_at_once(world: World) -> None:
    """Nothing was started, so nothing has to be stopped."""
    world.trigger()
    run = world.trigger()
    world.drain()
    cancel_run(run.id, world.app, by="a test")
    assert world.get(run).state.name == "Cancelled"
    world.settle()
    assert world.started(run) == 0


def test_a_takeover_keeps_to_the_rate_and_its_call_stays_open(world: World) -> None:
    """Asking for the same key again is a call as well; until its turn the run stays in doubt."""
    from push_pools.domain.errors import SubmissionUncertain

    world.platform.rates = (Pace("calls", Rate(per_second=0.05)),)  # type: ignore[attr-defined]
    run = world.trigger()
    world.cloud.fail("submit", SubmissionUncertain("fake", "no answer"))
    world.pass_time(6, step=0.5)
    held = world.get(run)
    assert held.phase is Phase.CALLING
    assert noted(held, "pacing") == 1
    assert held.job is not None
    assert held.job.open_since is not None
    world.settle()
    assert world.started(run) == 1
    assert calls(world) == [0.0]


@pytest.mark.parametrize(("per_second", "burst"), [(0, 1), (-1, 1), (1, 0)])
def test_a_rate_lets_something_pass(per_second: float, burst: int) -> None:
    """Else runs would wait for ever."""
    with pytest.raises(ValueError, match="more than 0 a second"):
        Rate(per_second, burst)
