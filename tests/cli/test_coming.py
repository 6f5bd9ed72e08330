"""`work-pool preview` and `work-queue preview`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from push_pools.domain.events import instant_text
from push_pools.domain.planning import fire_times
from push_pools.domain.runs import ScheduleRef, run_id
from push_pools.domain.schedules import Schedule
from push_pools.services.coming import coming_runs
from push_pools.services.stop import cancel_run
from tests.world import World

if TYPE_CHECKING:
    from tests.cli.runner import Cli

CONFIG = """\
work_pools:
  - name: local
    type: process
    work_queues: [{name: urgent}, {name: default}]
deployments:
  - name: often
    flow_name: f
    command: "true"
    work_pool: {name: local}
    schedules: [{interval: 10m}]
  - name: urgent
    flow_name: f
    command: "true"
    work_pool: {name: local, work_queue_name: urgent}
    schedules: [{cron: "*/30 * * * *"}, {interval: 5m, active: false}]
"""


@pytest.fixture
def scheduled(cli: Cli) -> Cli:
    cli.ok("deploy", "-", stdin=CONFIG)
    return cli


def test_the_coming_runs_of_a_pool(scheduled: Cli) -> None:
    """Planned ones of the ledger among those of active schedules, the first one first."""
    scheduled.ok("deployment", "run", "f/often", "--start-in", "45m", "--flow-run-name", "mine")
    found = scheduled.read("work-pool", "preview", "local")
    assert set(found[0]) == {
        "scheduled_time", "due", "local", "timezone", "note", "deployment", "work_queue", "id", "name", "state_name"
    }  # fmt: skip
    assert [each["due"] for each in found] == sorted(each["due"] for each in found)
    deployments = [each["deployment"] for each in found]
    assert deployments.count("f/often") in (7, 8)
    assert deployments.count("f/urgent") in (2, 3)
    mine = [each for each in found if each["name"] == "mine"]
    assert [each["state_name"] for each in mine] == ["Scheduled"]
    out = scheduled.ok("work-pool", "preview", "local", "--hours", "0.5").out
    assert "f/often" in out
    assert "mine" not in out


def test_the_coming_runs_of_a_queue(scheduled: Cli) -> None:
    found = scheduled.read("work-queue", "preview", "urgent", "--hours", "2")
    assert {each["work_queue"] for each in found} == {"urgent"}
    assert len(found) in (4, 5)


@pytest.mark.parametrize("hours", ["0", "-1", "nan", "1e9"])
def test_hours_that_cannot_be_looked_ahead(scheduled: Cli, hours: str) -> None:
    assert "out of range" in scheduled.refused("work-pool", "preview", "local", "--hours", hours)


def test_an_unknown_pool_is_named(scheduled: Cli) -> None:
    assert "'lokal'" in scheduled.refused("work-pool", "preview", "lokal")


def world_with(*schedules: Schedule) -> World:
    world = World()
    world.clock.advance((datetime(2027, 3, 27, tzinfo=UTC) - world.clock.now()).total_seconds())
    world.deployment = world.store.put(world.deployment.model_copy(update={"schedules": schedules}))
    return world


VIENNA = Schedule(id="v", cron="30 2 * * *", timezone="Europe/Vienna")


def listed(world: World, **options: Any) -> list[dict[str, Any]]:
    return [each.as_listed() for each in coming_runs(world.app, "local", **options)]


def test_a_change_of_the_clock_is_noted() -> None:
    """The hour that does not exist."""
    world = world_with(VIENNA)
    found = listed(world, hours=60)
    assert [each["local"] for each in found] == [
        "2027-03-27T02:30:00+01:00", "2027-03-28T03:30:00+02:00", "2027-03-29T02:30:00+02:00"
    ]  # fmt: skip
    assert [bool(each["note"]) for each in found] == [False, True, False]


def test_a_planned_run_is_listed_once_and_a_cancelled_one_not_at_all() -> None:
    """With its note; a planned run has its id."""
    world = world_with(VIENNA)
    first, second = list(fire_times(VIENNA, world.clock.now(), until=world.clock.now() + timedelta(hours=48)))
    runs = []
    for fire in (first, second):
        run = world.trigger(scheduled_time=fire.utc)
        id_ = run_id(world.deployment.id, f"at:v:{instant_text(fire.utc)}")
        cancel_run(run.id, world.app, by="test")
        runs.append(world.store.put_run(run.evolve(id=id_, schedule=ScheduleRef(id="v"))))
    cancel_run(runs[0].id, world.app, by="ann")
    (only,) = listed(world, hours=47)
    assert (only["id"], only["timezone"]) == (str(runs[1].id), "Europe/Vienna")
    assert only["note"]


def test_paused_deployments_and_schedules_plan_nothing() -> None:
    world = world_with(VIENNA.model_copy(update={"active": False}))
    assert listed(world, hours=48) == []
    world = world_with(VIENNA)
    world.store.put(world.deployment.model_copy(update={"is_paused": True}))
    assert listed(world, hours=48) == []


def test_no_more_than_a_thousand_are_listed() -> None:
    world = world_with(Schedule(id="s", interval=1.0), Schedule(id="t", interval=1.0))
    found = coming_runs(world.app, "local", hours=1)
    assert len(found) == 1000
    assert found[-1].due == world.clock.now() + timedelta(seconds=500)
