"""Planning and its repetitions: every instant of a schedule is run once, or is dropped for a reason that is told."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from push_pools.domain.deployments import Deployment
from push_pools.domain.errors import AlreadyExists, InvalidInput, NotAllowed, NotFound, StoreUnavailable
from push_pools.domain.planning import PlanMark, due_fires, fire_times, why_skip
from push_pools.domain.pools import WorkPool, WorkQueue
from push_pools.domain.runs import FlowRun, Phase, ScheduleRef
from push_pools.domain.schedules import Schedule, parse_schedule
from push_pools.services.catalogue import pause_deployment, resume_deployment
from push_pools.services.edit_schedules import (
    create_schedule,
    delete_schedule,
    find_schedule,
    pause_schedule,
    preview_schedules,
    resume_schedule,
)
from push_pools.services.plan import plan_all, plan_deployment
from push_pools.services.runs import run_deployment
from push_pools.services.tick import tick
from tests.world import World

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MINUTELY = {"cron": "* * * * *"}


def a_schedule(world: World, **fields: Any) -> Schedule:
    """A schedule that was made now."""
    checked = parse_schedule(fields).fields(active=True)
    return Schedule(id=uuid4().hex, planned_from=world.clock.now(), **checked)


def scheduled(world: World, *schedules: dict[str, Any], name: str = "timed", **fields: Any) -> Deployment:
    return world.deploy(name, schedules=tuple(a_schedule(world, **each) for each in schedules), **fields)


def by_time(world: World, deployment: Deployment | None = None) -> dict[datetime, FlowRun]:
    runs = [run for run in world.runs() if deployment is None or run.deployment_id == deployment.id]
    assert len({run.scheduled_time for run in runs}) == len(runs)
    return {run.scheduled_time: run for run in sorted(runs, key=lambda run: run.scheduled_time)}


def minutes_after(begin: datetime, *numbers: int) -> list[datetime]:
    start = begin.replace(second=0, microsecond=0)
    return [start + timedelta(minutes=number) for number in numbers]


def states(world: World) -> list[str]:
    return [run.state.name for run in by_time(world).values()]


# -- the tick ------------------------------------------------------------------


def test_a_tick_plans_five_minutes_ahead_and_runs_start_at_their_second() -> None:
    world = World()
    begin = world.clock.now()
    deployment = scheduled(world, {**MINUTELY, "parameters": {"n": 2}, "job_variables": {"command": "false"}})
    world.store.put(deployment.model_copy(update={"parameters": {"n": 1, "m": 1}}))
    world.tick()
    assert list(by_time(world)) == minutes_after(begin, 1, 2, 3, 4, 5)
    run = next(iter(by_time(world).values()))
    assert (run.parameters, run.job_variables) == ({"n": 2, "m": 1}, {"command": "false"})
    assert run.schedule is not None
    assert (run.schedule.version, run.schedule.overlap) == (1, "allow")
    world.pass_time(180, step=1)
    for at, run in list(by_time(world).items())[:3]:
        assert run.start_time is not None
        assert timedelta() <= run.start_time - at <= timedelta(seconds=1.5)


def test_doubled_ticks_plan_nothing_twice() -> None:
    world = World()
    scheduled(world, MINUTELY, {"cron": "*/2 * * * *"})
    for _ in range(3):
        world.tick()
    assert len(world.runs()) == 5 + len([run for run in world.runs() if run.scheduled_time.minute % 2 == 0]) / 2
    reports = plan_all(world.app), plan_all(world.app)
    assert [report.put for report in reports] == [0, 0]


def test_a_tick_of_many_deployments_writes_one_mark() -> None:
    world = World()
    for number in range(50):
        scheduled(world, {"cron": "0 0 1 1 *"}, name=f"d{number}")
    world.tick()
    world.calls.clear()
    world.advance(60)
    world._guarded(lambda: plan_all(world.app))
    writes = [
        call for call in world.calls if call in ("before store.put", "before store.put_runs", "before queue.send_all")
    ]
    assert writes == ["before store.put"]
    assert [mark.name for mark in world.store.list(PlanMark)] == ["ledger"]


def test_a_run_put_long_before_is_told_when_it_comes_into_the_look_ahead() -> None:
    """It then starts at its second, not when the tick finds it overdue."""
    world = World()
    due = world.clock.now() + timedelta(minutes=40)
    run = run_deployment(world.app, "report/hourly", scheduled_time=due).run
    world.pass_time(41 * 60)
    started = world.get(run).start_time
    assert started is not None
    assert started - due <= timedelta(seconds=6)


def test_jitter_puts_runs_off_and_names_them_by_the_nominal_instant() -> None:
    world = World()
    begin = world.clock.now()
    deployment = scheduled(world, {**MINUTELY, "jitter": 50})
    world.tick()
    runs = by_time(world)
    assert list(runs) == minutes_after(begin, 1, 2, 3, 4, 5)
    fires = fire_times(deployment.schedules[0], begin, deployment_id=deployment.id)
    for run, fire in zip(runs.values(), fires, strict=False):
        assert run.due_at == run.wake_at == fire.due
    assert any(run.due_at > run.scheduled_time for run in runs.values())


# -- edits inside the planned window -------------------------------------------


def reason_after(world: World, deployment: Deployment, edit: Any) -> list[tuple[str, str]]:
    world.tick()
    edit(deployment)
    world.pass_time(330)
    return sorted({(run.state.name, run.state.message) for run in by_time(world, deployment).values()})


def test_a_schedule_that_is_paused_skips_what_is_planned() -> None:
    world = World()
    found = reason_after(
        world,
        scheduled(world, MINUTELY),
        lambda d: pause_schedule(world.app, d.key, None, note="month end"),
    )
    assert found == [("Skipped", "the schedule cron '* * * * *' UTC is paused: month end")]
    assert world.cloud.started == []


def test_a_schedule_that_is_removed_skips_what_is_planned() -> None:
    world = World()
    found = reason_after(world, scheduled(world, MINUTELY), lambda d: delete_schedule(world.app, d.key, None))
    assert found == [("Skipped", "its schedule was removed")]


def test_a_deployment_that_is_paused_skips_what_is_planned() -> None:
    world = World()
    found = reason_after(world, scheduled(world, MINUTELY), lambda d: pause_deployment(world.app, d.key, note="freeze"))
    assert found == [("Skipped", "the deployment report/timed is paused: freeze")]


def test_a_deployment_that_is_deleted_skips_what_is_planned() -> None:
    world = World()
    found = reason_after(world, scheduled(world, MINUTELY), world.store.delete)
    assert found == [("Skipped", "the deployment 'report/timed' was deleted")]


def test_a_schedule_that_is_changed_skips_the_instants_that_it_no_longer_names() -> None:
    world = World()
    deployment = scheduled(world, MINUTELY)
    world.tick()

    def change(before: Deployment) -> None:
        (old,) = before.schedules
        new = old.changed(world.clock.now(), cron="*/2 * * * *", parameters={"new": True})
        plan_deployment(world.app, world.store.put(before.model_copy(update={"schedules": (new,)})))

    change(deployment)
    world.pass_time(330)
    for at, run in by_time(world).items():
        if at.minute % 2:
            assert run.state.name == "Skipped"
            assert "cron '*/2 * * * *' UTC" in run.state.message
        elif run.is_final:
            assert run.state.name == "Completed"
        if at.minute % 2 == 0:
            assert run.parameters == {"new": True}, "planned runs take over what was changed"


def test_a_retry_is_carried_through_whatever_becomes_of_its_schedule() -> None:
    world = World()
    deployment = scheduled(world, {"at": (world.clock.now() + timedelta(minutes=1)).isoformat(), "catchup": "none"})
    world.store.put(
        deployment.model_copy(
            update={"retries": deployment.retries.model_copy(update={"backoff_seconds": 600, "on": ("application",)})}
        )
    )
    world.tick()
    (run,) = world.runs()
    before = world.get(run)
    world.store.save(before, before.evolve(attempt=2, due_at=before.due_at + timedelta(minutes=20)))
    pause_schedule(world.app, deployment.key, None)
    world.pass_time(30 * 60)
    assert world.get(run).state.name == "Completed"


def test_a_manual_run_is_not_judged_by_schedules() -> None:
    world = World()
    scheduled(world, {**MINUTELY, "catchup": "none"})
    run = world.trigger("report/timed")
    world.advance(3600)
    world.pass_time(60)
    assert world.get(run).state.name == "Completed"


# -- catch-up ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("catchup", "hours"),
    [("all", [1, 2, 3, 4]), ("latest", [4]), ("none", []), ("within 2h", [3, 4])],
)
def test_downtime_is_caught_up_by_the_policy(catchup: str, hours: list[int]) -> None:
    world = World()
    begin = world.clock.now().replace(minute=0, second=0, microsecond=0)
    scheduled(world, {"cron": "0 * * * *", "catchup": catchup})
    world.tick()
    world.clock.advance((begin + timedelta(hours=4, minutes=20) - world.clock.now()).total_seconds())
    world.tick()
    world.pass_time(60)
    assert list(by_time(world)) == [begin + timedelta(hours=hour) for hour in hours]
    assert set(states(world)) <= {"Completed"}


def test_runs_that_were_planned_before_a_downtime_are_judged_by_the_policy_too() -> None:
    world = World()
    begin = world.clock.now()
    scheduled(world, {**MINUTELY, "catchup": "latest"})
    world.tick()
    world.advance(3600)
    world.tick()
    world.pass_time(30)
    planned = by_time(world)
    for at in minutes_after(begin, 1, 2, 3, 4, 5):
        assert planned[at].state.name == "Skipped"
        assert "its schedule has catchup latest" in planned[at].state.message
    assert sum(run.state.name in ("Completed", "Running") for run in planned.values()) >= 5


def test_what_is_late_by_less_than_five_minutes_is_not_missed() -> None:
    world = World()
    begin = world.clock.now()
    scheduled(world, {**MINUTELY, "catchup": "none"})
    world.tick()
    world.advance(9 * 60)
    world.tick()
    assert list(by_time(world))[5:9] == minutes_after(begin, 6, 7, 8, 9)


def test_catch_up_is_capped_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    deployment = scheduled(world, {**MINUTELY, "catchup": "all"})
    world.tick()
    world.advance(2 * 86400)
    with caplog.at_level(logging.WARNING, "push_pools"):
        report = plan_all(world.app)
    assert report.capped == ["report/timed: cron '* * * * *' UTC"]
    assert [record.message for record in caplog.records] == ["catch_up_capped"]
    missed = [at for at in by_time(world) if at < world.clock.now() - timedelta(minutes=5)]
    assert len(missed) == 1000 + 5
    oldest = by_time(world, deployment)[missed[5]]
    assert "catch-up capped" in [entry.what for entry in oldest.journal]


def test_time_before_a_schedule_was_made_is_not_caught_up() -> None:
    world = World()
    world.tick()
    world.advance(6 * 3600)
    made = create_schedule(world.app, "report/hourly", parse_schedule({"cron": "*/10 * * * *", "catchup": "all"}))
    world.advance(3600)
    world.tick()
    assert min(by_time(world)) > made.schedule.planned_from  # type: ignore[operator]
    assert len(by_time(world)) in (6, 7)


@pytest.mark.parametrize("what", ["schedule", "deployment"])
def test_paused_time_is_not_caught_up(what: str) -> None:
    world = World()
    deployment = scheduled(world, {"cron": "*/10 * * * *", "catchup": "all"})
    world.tick()
    if what == "schedule":
        pause_schedule(world.app, deployment.key, None)
    else:
        pause_deployment(world.app, deployment.key)
    world.pass_time(6 * 3600, step=60)
    put = set(by_time(world))
    resumed = world.clock.now()
    if what == "schedule":
        resume_schedule(world.app, deployment.key, None)
    else:
        resume_deployment(world.app, deployment.key)
    world.pass_time(1800, step=30)
    later = set(by_time(world)) - put
    assert len(put) <= 1
    assert min(later) > resumed
    assert len(later) >= 3


# -- pauses of pools and queues ------------------------------------------------


def set_lane(world: World, kind: str, *, paused: bool) -> None:
    """What a pause or resume of a pool or queue writes."""
    record = world.store.get(WorkPool, "local") if kind == "pool" else world.store.get(WorkQueue, "local/default")
    assert record is not None
    changes = {"is_paused": paused, "updated_at": world.clock.now()}
    world.store.put(record.model_copy(update=changes))


WEEKEND = 2 * 86400.0


@pytest.mark.parametrize("kind", ["pool", "queue"])
@pytest.mark.parametrize(("catchup", "count"), [("all", 1000), ("latest", 1), ("none", 0), ("within 30m", 31)])
def test_a_weekend_pause_does_not_drown_in_runs(kind: str, catchup: str, count: int) -> None:
    world = World()
    deployment = scheduled(world, {**MINUTELY, "catchup": catchup})
    world.tick()
    before = set(by_time(world))
    set_lane(world, kind, paused=True)
    for _ in range(48):
        world.advance(WEEKEND / 48)
        world.tick()
    assert set(by_time(world)) == before, "nothing is put while it is paused"
    assert len(world.store.list(PlanMark)) == 2
    set_lane(world, kind, paused=False)
    resumed = world.clock.now()
    plan_all(world.app)
    caught_up = sorted(at for at in set(by_time(world, deployment)) - before if at <= resumed)
    assert len(caught_up) == count
    assert caught_up == minutes_after(resumed, *range(1 - count, 1))
    assert [mark.name for mark in world.store.list(PlanMark)] == ["ledger"]
    world.advance(60)
    world.tick()
    assert sorted(at for at in set(by_time(world)) - before if at <= resumed) == caught_up


def test_a_queue_that_stays_paused_when_its_pool_resumes_stays_behind_with_it() -> None:
    world = World()
    scheduled(world, {"cron": "0 * * * *", "catchup": "all"})
    world.tick()
    begin = world.clock.now()
    for kind, paused in (("pool", True), ("queue", True), ("pool", False)):
        set_lane(world, kind, paused=paused)
        world.advance(5 * 3600)
        world.tick()
    assert world.runs() == []
    set_lane(world, "queue", paused=False)
    world.tick()
    assert len([at for at in by_time(world) if at <= begin + timedelta(hours=15)]) == 15


def test_a_pool_that_is_paused_holds_up_no_other() -> None:
    world = World()
    other = world.store.put(world.pool.model_copy(update={"id": uuid4(), "name": "other", "version": 0}))
    queue = world.store.get(WorkQueue, "local/default")
    assert queue is not None
    world.store.put(queue.model_copy(update={"id": uuid4(), "work_pool": "other", "version": 0}))
    held = scheduled(world, MINUTELY, name="held")
    free = scheduled(world, MINUTELY, name="free")
    free = world.store.put(free.model_copy(update={"work_pool": other.name}))
    set_lane(world, "pool", paused=True)
    world.tick()
    assert len(by_time(world, free)) == 5
    assert len(by_time(world, held)) == 0


# -- failures ------------------------------------------------------------------


def test_a_deployment_that_fails_to_plan_stops_no_other_and_is_planned_later(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World()
    bad = scheduled(world, {"cron": "*/10 * * * *", "catchup": "all"}, name="a-bad-one")
    good = scheduled(world, MINUTELY, name="good")
    world.tick()
    real = due_fires

    def failing(schedule: Schedule, *args: Any, **options: Any) -> Any:
        if schedule.id == bad.schedules[0].id:
            raise RuntimeError("no such zone")
        return real(schedule, *args, **options)

    begin = world.clock.now()
    monkeypatch.setattr("push_pools.services.plan.due_fires", failing)
    with caplog.at_level(logging.WARNING, "push_pools"):
        for _ in range(60):
            world.advance(60)
            world.tick()
    assert "plan_failed" in [record.message for record in caplog.records]
    assert len(by_time(world, good)) >= 60
    assert len(by_time(world, bad)) <= 1
    marks = {mark.name: mark for mark in world.store.list(PlanMark)}
    assert set(marks) == {"ledger", f"deployment/{bad.id}"}
    assert marks[f"deployment/{bad.id}"].reason == "no such zone"
    monkeypatch.setattr("push_pools.services.plan.due_fires", real)
    world.advance(60)
    world.tick()
    end = world.clock.now()
    expected = [fire.utc for fire in fire_times(bad.schedules[0], begin, until=end + timedelta(minutes=5))]
    assert list(by_time(world, bad)) == expected
    assert [mark.name for mark in world.store.list(PlanMark)] == ["ledger"]


def test_the_mark_of_a_deleted_deployment_goes() -> None:
    world = World()
    now = world.clock.now()
    stamps = {"created_at": now, "updated_at": now}
    world.store.put(PlanMark(name=f"deployment/{uuid4()}", until=now, planned_at=now, **stamps))
    world.store.put(PlanMark(name="queue/gone/default", until=now, planned_at=now, **stamps))
    world.tick()
    assert [mark.name for mark in world.store.list(PlanMark)] == ["ledger"]


def test_a_deploy_whose_planning_fails_is_planned_by_the_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.tick()
    with monkeypatch.context() as patch:
        patch.setattr(world.store, "put_runs", _unavailable)
        create_schedule(world.app, "report/hourly", parse_schedule(MINUTELY))
    assert world.runs() == []
    begin = world.clock.now()
    world.advance(60)
    world.tick()
    assert list(by_time(world))[:5] == minutes_after(begin, 1, 2, 3, 4, 5)


def _unavailable(*_: Any) -> Any:
    raise StoreUnavailable("the ledger cannot be written")


def test_a_resume_that_is_cut_short_anywhere_is_made_good_by_the_tick() -> None:
    """Whatever port call the resume dies at after its write, no instant after it is lost."""
    for place in range(40):
        world = World()
        deployment = scheduled(world, MINUTELY)
        world.tick()
        pause_deployment(world.app, deployment.key)
        world.pass_time(1200, step=60)
        before = set(by_time(world))
        resumed = world.clock.now()
        world.crash_at = place
        world._guarded(lambda world=world: resume_deployment(world.app, "report/timed"))  # type: ignore[misc]
        world.crash_at = None
        stored = world.store.get(Deployment, "report/timed")
        assert stored is not None
        if stored.is_paused:
            continue  # It died before its write, and may be repeated.
        world.pass_time(660)
        assert sorted(set(by_time(world)) - before)[:10] == minutes_after(resumed, *range(1, 11)), place


def test_a_tick_that_is_cut_short_anywhere_loses_nothing() -> None:
    for place in range(0, 120, 3):
        world = World()
        begin = world.clock.now()
        scheduled(world, MINUTELY)
        scheduled(world, {"cron": "*/2 * * * *"}, name="other")
        world.crash_at = place
        world.tick()
        world.crash_at = None
        world.advance(60)
        world.tick()
        times = [run.scheduled_time for run in world.runs() if run.deployment == "report/timed"]
        assert sorted(times) == minutes_after(begin, *range(1, 7)), place


def test_a_tick_with_an_old_snapshot_puts_nothing_twice_and_moves_no_mark_back() -> None:
    from push_pools.services.plan import _Round

    world = World()
    deployment = scheduled(world, MINUTELY)
    frozen = _Round(world.app)
    world.advance(120)
    world.tick()
    until = world.store.get(PlanMark, "ledger")
    frozen.plan(deployment)
    frozen.end([deployment])
    assert world.store.get(PlanMark, "ledger") == until
    assert len(by_time(world)) == 7


def test_a_clock_that_was_set_back_moves_no_mark_back() -> None:
    world = World()
    scheduled(world, MINUTELY)
    world.tick()
    before = world.store.get(PlanMark, "ledger")
    world.advance(-3600)
    world.tick()
    assert world.store.get(PlanMark, "ledger") == before


# -- every policy, whatever happens to the ticks -------------------------------


@given(
    catchup=st.sampled_from(["all", "latest", "none", "within 20m", "within 2h"]),
    cron=st.sampled_from(["* * * * *", "*/7 * * * *", "0 * * * *"]),
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("work"), st.integers(1, 20)),
            st.tuples(st.just("down"), st.integers(1, 180)),
            st.tuples(st.just("no ticks"), st.integers(1, 12)),
            st.tuples(st.just("doubled"), st.integers(1, 3)),
        ),
        min_size=1,
        max_size=6,
    ),
)
@settings(max_examples=20, deadline=None)
def test_every_instant_runs_once_or_is_dropped_for_a_reason(
    catchup: str, cron: str, steps: Sequence[tuple[str, int]]
) -> None:
    world = World()
    deployment = scheduled(world, {"cron": cron, "catchup": catchup})
    begin, served, ticked = world.clock.now(), [world.clock.now()], [world.clock.now()]
    world.tick()
    for what, minutes in [*steps, ("work", 10)]:
        if what == "down":
            world.advance(minutes * 60)
            world.tick()
            world.drain()
        elif what == "doubled":
            for _ in range(minutes):
                world.tick()
            world.drain()
        else:
            for _ in range(minutes):
                world.advance(60)
                world.drain()
                world.sweep()
                if what == "work":
                    world.tick()
                world.drain()
                served.append(world.clock.now())
                ticked += [world.clock.now()] if what == "work" else []
        served.append(world.clock.now())
        ticked += [world.clock.now()] if what != "no ticks" else []
    runs = by_time(world)
    schedule = deployment.schedules[0]
    fires = [fire.utc for fire in fire_times(schedule, begin, until=world.clock.now() - timedelta(minutes=1))]
    for at in fires:
        run = runs.get(at)
        put = next(moment for moment in ticked if moment >= at - timedelta(minutes=5))
        seen = next(moment for moment in served if moment >= max(at, put))
        late = seen - at
        newer = any(at < other <= seen for other in fires)
        if run is None or run.state.name == "Skipped":
            assert late > timedelta(minutes=5), (at, run)
            assert catchup == "none" or (catchup == "latest" and newer) or catchup.startswith("within"), (at, run)
            limit = schedule.catchup_seconds()
            assert limit is None or late > timedelta(seconds=limit) - timedelta(minutes=2)
        else:
            assert world.started(run) == 1, (at, run.state)
            limit = schedule.catchup_seconds()
            on_time = late <= timedelta(minutes=5) or (limit is not None and late <= timedelta(seconds=limit))
            assert on_time or catchup == "all" or (catchup == "latest" and not newer), (at, run.state, late)
    assert set(runs) >= {at for at in fires if catchup == "all"}
    assert all(run.phase is not Phase.WAITING for run in runs.values())


# -- editing -------------------------------------------------------------------


def test_schedules_are_found_by_slug_id_and_prefix() -> None:
    world = World()
    deployment = scheduled(world, {**MINUTELY, "slug": "fast"}, {"cron": "0 * * * *"})
    fast, hourly = deployment.schedules
    assert find_schedule(deployment, "fast") == fast
    assert find_schedule(deployment, hourly.id) == find_schedule(deployment, hourly.id[:6]) == hourly
    with pytest.raises(NotFound, match="known: fast"):
        find_schedule(deployment, "fats")
    with pytest.raises(InvalidInput, match="has 2 schedules; name one of fast"):
        find_schedule(deployment, None)
    with pytest.raises(NotFound, match="add one with `schedule create`"):
        find_schedule(world.deployment, None)
    with pytest.raises(NotFound, match="add one with `schedule create`"):
        find_schedule(world.deployment, "fast")
    alike = tuple(each.model_copy(update={"id": f"abcd{n}", "slug": None}) for n, each in enumerate((fast, hourly)))
    with pytest.raises(InvalidInput, match="may be abcd0, abcd1"):
        find_schedule(deployment.model_copy(update={"schedules": alike}), "abcd")


def test_an_edit_bumps_the_version_and_leaves_the_others() -> None:
    world = World()
    deployment = scheduled(world, {**MINUTELY, "slug": "fast"}, {"cron": "0 * * * *", "slug": "slow"})
    paused = pause_schedule(world.app, deployment.key, "fast", note="why")
    assert (paused.schedule.version, paused.schedule.active, paused.schedule.pause_note) == (2, False, "why")
    assert pause_schedule(world.app, deployment.key, "fast", note="why").schedule.version == 2
    resumed = resume_schedule(world.app, deployment.key, "fast")
    assert (resumed.schedule.version, resumed.schedule.active, resumed.schedule.pause_note) == (3, True, "")
    assert resume_schedule(world.app, deployment.key, "fast").schedule.version == 3
    assert resumed.deployment.schedules[1] == deployment.schedules[1]
    assert [each.slug for each in delete_schedule(world.app, deployment.key, "slow").deployment.schedules] == ["fast"]


def test_a_schedule_that_cannot_be_is_refused() -> None:
    world = World()
    create_schedule(world.app, "hourly", parse_schedule({**MINUTELY, "slug": "fast"}))
    with pytest.raises(AlreadyExists, match="pick another slug"):
        create_schedule(world.app, "hourly", parse_schedule({**MINUTELY, "slug": "fast"}))
    for key in ("at", "end_date"):
        fields = {"at": "2020-01-01T00:00:00"} if key == "at" else {**MINUTELY, "end_date": "2020-01-01T00:00:00"}
        with pytest.raises(InvalidInput, match=rf"schedule\.{key}: 2020-01-01T00:00:00\+00:00 is past"):
            create_schedule(world.app, "hourly", parse_schedule(fields))
    with pytest.raises(InvalidInput, match="there is no such variable"):
        create_schedule(world.app, "hourly", parse_schedule({**MINUTELY, "job_variables": {"nope": 1}}))
    with pytest.raises(NotFound, match="known: report/hourly"):
        create_schedule(world.app, "hourl", parse_schedule(MINUTELY))


def test_a_schedule_of_a_managed_deployment_is_left_to_its_owner() -> None:
    world = World()
    scheduled(world, MINUTELY, managed_by="terraform:module.pools")
    acts: Sequence[Callable[[], object]] = (
        lambda: create_schedule(world.app, "timed", parse_schedule(MINUTELY)),
        lambda: pause_schedule(world.app, "timed", None),
        lambda: resume_schedule(world.app, "timed", None),
        lambda: delete_schedule(world.app, "timed", None),
    )
    for act in acts:
        with pytest.raises(NotAllowed, match=r"managed by terraform:module\.pools"):
            act()


def test_a_preview_merges_the_active_schedules_in_order() -> None:
    world = World()
    deployment = scheduled(
        world, {"cron": "*/30 * * * *", "slug": "a"}, {"cron": "0 * * * *", "slug": "b"}, {**MINUTELY, "active": False}
    )
    coming = preview_schedules(world.app, deployment.key, count=6)
    assert [each.fire.utc for each in coming] == sorted(each.fire.utc for each in coming)
    assert {each.as_listed()["schedule"] for each in coming} == {"a", "b"}
    assert world.runs() == []
    for count in (0, 1001):
        with pytest.raises(InvalidInput, match="write 1 to 1000"):
            preview_schedules(world.app, deployment.key, count=count)


def test_a_store_that_fails_fails_the_tick_and_leaves_the_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    scheduled(world, MINUTELY)
    with monkeypatch.context() as patch:
        patch.setattr(world.store, "put_runs", _unavailable)
        patch.setattr(world.store, "put", _unavailable)
        with pytest.raises(StoreUnavailable):
            tick(world.app)
    assert world.store.list(PlanMark) == []
    world.tick()
    assert len(world.runs()) == 5


# -- the decision at the claim -------------------------------------------------


def claimed(world: World, deployment: Deployment, at: datetime, **changes: Any) -> FlowRun:
    """A run of the deployment's only schedule, as it is just after its first claim."""
    ref = ScheduleRef(id=deployment.schedules[0].id)
    run = world.trigger(deployment.key)
    values = {"phase": Phase.CLAIMED, "schedule": ref, "scheduled_time": at, "tried_since": world.clock.now()}
    return run.evolve(**values, **changes)


@pytest.mark.parametrize(
    ("changes", "is_skipped"),
    [
        ({}, True),
        ({"slots": ("POOL#local",)}, False),  # It waited in its lane.
        ({"attempt": 2}, False),
        ({"phase": Phase.CALLING}, False),  # A call may be open.
        ({"schedule": None}, False),
    ],
    ids=["late", "waited", "retry", "calling", "manual"],
)
def test_lateness_is_judged_before_anything_began(changes: dict[str, Any], is_skipped: bool) -> None:
    world = World()
    deployment = scheduled(world, {**MINUTELY, "catchup": "none"})
    at = minutes_after(world.clock.now(), 1)[0]
    world.advance(3600)
    run = claimed(world, deployment, at).evolve(**changes)
    reason = why_skip(run, deployment, world.clock.now())
    assert (reason is not None) == is_skipped
    assert reason is None or reason == "it is 59m late, and its schedule has catchup none"
    in_time = run.evolve(tried_since=at + timedelta(minutes=4))
    assert why_skip(in_time, deployment, world.clock.now()) is None, "its first claim came in time"


def test_a_deployment_without_its_pool_fails_alone() -> None:
    world = World()
    gone = scheduled(world, MINUTELY, name="gone")
    world.store.put(gone.model_copy(update={"work_pool": "nowhere"}))
    good = scheduled(world, MINUTELY, name="good")
    report = plan_all(world.app)
    assert report.failed == {"report/gone": "NotFound: work pool 'nowhere' does not exist; known: local"}
    assert len(by_time(world, good)) == 5


def test_a_planned_run_stays_in_the_pool_that_it_was_put_for() -> None:
    """Only its own pool's handlers look at it; the next ones are put for the new pool."""
    world = World()
    deployment = scheduled(world, MINUTELY)
    world.tick()
    world.store.put(world.pool.model_copy(update={"id": uuid4(), "name": "other", "version": 0}))
    moved = world.store.put(deployment.model_copy(update={"work_pool": "other", "parameters": {"n": 1}}))
    plan_deployment(world.app, moved)
    assert {(run.work_pool, str(run.parameters)) for run in world.runs()} == {("local", "{}")}
