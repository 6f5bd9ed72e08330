"""Simulated time: every decision at its moment, in order, on a copy that leaves the home alone."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from push_pools.bootstrap import embedded
from push_pools.domain.deployments import Deployment
from push_pools.domain.runs import FlowRun, Phase
from push_pools.domain.schedules import Schedule
from push_pools.ports import RunFilter
from push_pools.server.simulation import JOB_SECONDS, Decision, Simulation
from push_pools.services.blocks import create_block
from push_pools.services.catalogue import create_work_pool
from push_pools.services.runs import run_deployment
from push_pools.services.stop import cancel_run
from push_pools.settings import Settings
from tests.world import World

if TYPE_CHECKING:
    from pathlib import Path

START = datetime(2027, 3, 28, tzinfo=UTC)


class Show:
    """A simulation, and what it told."""

    def __init__(self, world: World) -> None:
        self.told: list[Decision] = []
        self.simulation = Simulation(world.app, start=START, tell=self.told.append)

    def run(self, **options: Any) -> FlowRun:
        return run_deployment(self.simulation.app, "report/hourly", **options).run

    def advance(self, seconds: float) -> None:
        self.simulation.advance(self.simulation.clock.now() + timedelta(seconds=seconds))

    def of(self, run: FlowRun) -> list[tuple[float, str]]:
        """Return the seconds since the start and the kind of every decision about a run."""
        told = [each for each in self.told if each.run is not None and each.run.id == run.id]
        return [((each.at - START).total_seconds(), each.what) for each in told]


@pytest.fixture
def world() -> World:
    return World()


def test_every_decision_comes_at_its_very_moment(world: World) -> None:
    """However fast time passes: due is claimed, and the job's end is seen when it ends."""
    show = Show(world)
    run = show.run(scheduled_time=START + timedelta(hours=2, seconds=7))
    show.advance(3 * 3600)
    due, end = 7207.0, 7207.0 + JOB_SECONDS
    assert show.of(run)[0] == (0.0, "put")
    assert show.of(run)[1:] == [
        (due, "claimed"),
        (due, "intent"),
        (due, "submitted"),
        (due, "observed"),
        (end, "observed"),
        (end, "finished"),
    ]
    assert [run.state.name for run in show.simulation.runs()] == ["Completed"]
    assert show.simulation.clock.now() == START + timedelta(hours=3)


def test_decisions_are_told_in_order_and_once(world: World) -> None:
    show = Show(world)
    for minutes in (50, 10, 30):
        show.run(scheduled_time=START + timedelta(minutes=minutes))
    for _ in range(90):
        show.advance(61)
    assert all(a.at <= b.at for a, b in itertools.pairwise(show.told))
    counts = [[what for _, what in show.of(run)].count("finished") for run in show.simulation.runs()]
    assert counts == [1, 1, 1]


def test_the_same_simulation_decides_the_same_at_any_speed(world: World) -> None:
    """Steps of a second, or of an hour."""
    shows = [Show(world), Show(world)]
    for show in shows:
        show.run(scheduled_time=START + timedelta(minutes=5), idempotency_key="a")
        show.run(scheduled_time=START + timedelta(minutes=5, seconds=1), idempotency_key="b")
    for _ in range(3600):
        shows[0].advance(1)
    shows[1].advance(3600)
    first, second = ([(each.at, each.what) for each in show.told] for show in shows)
    assert first == second


def test_a_cancel_and_a_time_limit_end_simulated_jobs(world: World) -> None:
    """Their ends are seen like those of real ones."""
    world.deploy("short", timeout_seconds=20)
    show = Show(world)
    stopped = show.run()
    late = run_deployment(show.simulation.app, "report/short", job_variables={"seconds": 10**6}).run
    show.advance(30)
    cancel_run(stopped.id, show.simulation.app, by="ann")
    show.advance(300)
    states = {run.id: run.state.name for run in show.simulation.runs()}
    assert states == {stopped.id: "Cancelled", late.id: "TimedOut"}


def test_faults_of_a_home_show(world: World) -> None:
    """A template that does not render is a decision like any other."""
    world.deploy("broken", job_variables={"env": {"A": "{{ blocks.secret.none }}"}})
    show = Show(world)
    run_deployment(show.simulation.app, "report/broken")
    show.advance(60)
    assert "Crashed (configuration)" in show.told[-1].text


def test_the_clock_changes_of_the_schedules_zones_are_told(world: World) -> None:
    """At their moments, forward and back."""
    zones = ("Europe/Vienna", "Europe/London", "UTC", "Asia/Tokyo")
    schedules = tuple(Schedule(id=zone, cron="0 0 1 1 *", timezone=zone) for zone in zones)
    world.store.put(world.deployment.model_copy(update={"schedules": schedules}))
    show = Show(world)
    show.advance(2 * 86400)
    changes = [(each.at, each.timezone) for each in show.told if each.what == "clock change"]
    one = START + timedelta(hours=1)
    assert changes == [(one, "Europe/London"), (one, "Europe/Vienna")]
    assert "forward by 60 minutes, from UTC+01:00 to UTC+02:00" in show.told[-1].text


def scheduled(world: World, **fields: Any) -> Show:
    schedule = Schedule(id="s", **fields)
    world.deployment = world.store.put(world.deployment.model_copy(update={"schedules": (schedule,)}))
    return Show(world)


def test_an_hour_that_does_not_exist_is_shifted_with_its_note(world: World) -> None:
    """And planned, claimed and over at its moments; the day after is as ever."""
    show = scheduled(world, cron="30 2 * * *", timezone="Europe/Vienna")
    show.advance(2 * 86400)
    first, second = sorted(show.simulation.runs(), key=lambda run: run.scheduled_time)
    assert [run.scheduled_time.isoformat() for run in (first, second)] == [
        "2027-03-28T01:30:00+00:00", "2027-03-29T00:30:00+00:00"
    ]  # fmt: skip
    assert show.of(first)[0] == (85 * 60.0, "put")
    assert show.of(first)[1] == (90 * 60.0, "claimed")
    assert show.of(first)[-1] == (91 * 60.0, "finished")
    puts = [each for each in show.told if each.what == "put"]
    assert [each.timezone for each in puts] == ["Europe/Vienna"] * 2
    assert "(shifted from 02:30" in puts[0].text
    assert "shifted" not in puts[1].text
    changed = next(n for n, each in enumerate(show.told) if each.what == "clock change")
    assert show.told[changed].at == START + timedelta(hours=1)


def test_an_hour_that_comes_twice_runs_once(world: World) -> None:
    """By default; the autumn of the same year, from a year before it."""
    world.clock.advance((datetime(2020, 1, 1, tzinfo=UTC) - world.clock.now()).total_seconds())
    schedule = Schedule(id="s", cron="30 2 * * *", timezone="Europe/Vienna")
    world.store.put(world.deployment.model_copy(update={"schedules": (schedule,)}))
    told: list[Decision] = []
    simulation = Simulation(world.app, start=datetime(2027, 10, 30, 22, tzinfo=UTC), tell=told.append)
    simulation.advance(datetime(2027, 10, 31, 22, tzinfo=UTC))
    assert [run.scheduled_time.isoformat() for run in simulation.runs()] == ["2027-10-31T00:30:00+00:00"]
    assert "go back by 60 minutes" in next(each.text for each in told if each.what == "clock change")


def test_an_instant_at_the_very_start_counts_and_nothing_before(world: World) -> None:
    """Whenever the deployment was made, and whatever was missed since."""
    show = scheduled(world, interval=3600.0, catchup="all")
    show.advance(3600)
    runs = sorted(run.scheduled_time for run in show.simulation.runs())
    assert runs == [START, START + timedelta(hours=1)]


def test_a_run_of_a_schedule_is_never_late(world: World) -> None:
    """A whole day of a run every minute: each is claimed in its very second."""
    show = scheduled(world, cron="* * * * *")
    show.advance(86400)
    claims = [each for each in show.told if each.what == "claimed"]
    assert len(claims) == 1441
    assert all(each.run is not None and each.at == each.run.scheduled_time for each in claims)
    assert not [each for each in show.told if each.what == "late"]


def test_it_is_idle_when_nothing_is_due_or_active(world: World) -> None:
    show = Show(world)
    show.advance(1)
    assert show.simulation.is_idle()
    show.run()
    assert not show.simulation.is_idle()
    show.advance(30)
    assert not show.simulation.is_idle()
    show.advance(60)
    assert show.simulation.is_idle()


def test_it_can_be_stopped_between_two_moments(world: World) -> None:
    """Whoever presses Ctrl-C does not wait for a year to pass."""
    show = Show(world)
    left = iter([False] * 3)
    show.simulation.advance(START + timedelta(days=365), lambda: next(left, True))
    assert show.simulation.clock.now() == START + timedelta(minutes=3)


def test_a_real_home_is_copied_and_left_alone(tmp_path: Path) -> None:
    """Pools of every platform, with their own templates and rules; its runs, its files and its secrets stay."""
    with embedded(Settings(home=tmp_path)) as home:
        create_work_pool(home.app, "local", "process")
        create_work_pool(home.app, "cloud", "ecs:push", variables={"image": "acme/report:7", "cluster": "jobs"})
        create_block(home.app, "secret", "token", {"value": "hush"})
        now = home.app.clock.now()
        for name, pool in (("a", "local"), ("b", "cloud")):
            home.app.store.put(
                Deployment(
                    id=world_id(name), name=name, flow_name="f", command="true", work_pool=pool, created_at=now,
                    updated_at=now,
                )
            )  # fmt: skip
        run_deployment(home.app, "f/a")
        before = {run.id: run for run in home.app.store.runs(RunFilter()).runs}
        (tmp_path / "vault.key").unlink()  # So that opening a secret would fail.
        told: list[Decision] = []
        simulation = Simulation(home.app, start=START, tell=told.append)
        for name in ("f/a", "f/b"):
            run_deployment(simulation.app, name)
        simulation.advance(START + timedelta(minutes=10))
        assert [run.state.name for run in simulation.runs()] == ["Completed", "Completed"], told
        assert {run.phase for run in simulation.runs()} == {Phase.SETTLED}
        assert {run.id: run for run in home.app.store.runs(RunFilter()).runs} == before
        assert not (tmp_path / "jobs").exists()


def world_id(name: str) -> Any:
    from uuid import NAMESPACE_DNS, uuid5

    return uuid5(NAMESPACE_DNS, name)
