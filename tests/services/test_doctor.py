"""Each check of `doctor`: what makes it red, what it says to do, and that it is green again afterwards."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from push_pools.credentials import is_long_lived
from push_pools.domain.errors import PlatformUnavailable
from push_pools.domain.findings import Finding, Level, ok
from push_pools.domain.pools import BlockDocument, WorkPool, WorkQueue
from push_pools.domain.runs import FlowRun, Phase
from push_pools.domain.schedules import Schedule
from push_pools.domain.states import State
from push_pools.services.admit import admit
from push_pools.services.doctor import CHECKS, Patient, examine, is_red
from push_pools.services.limits import sync_limit
from push_pools.services.stop import cancel_run
from tests.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator

HOUR = 3600.0


@pytest.fixture
def world() -> World:
    world = World()
    world.tick()
    return world


def patient(world: World, **options: Any) -> Patient:
    return Patient(
        world.app,
        world.clock.now(),
        dead_letters=world.queue.dead_letters,
        is_long_lived=is_long_lived,
        **options,
    )


def look(world: World, check: str, **options: Any) -> Finding:
    """Return the worst that a check finds. Where functions work, it finds the same, and speaks of no server."""
    found = examine(patient(world, **options), {check: CHECKS[check]})
    if not options:
        there = examine(patient(world, on_functions=True), {check: CHECKS[check]})
        assert [(each.level, each.found) for each in there] == [(each.level, each.found) for each in found]
        assert not [each.fix for each in there if "serve" in each.fix]
        assert all(bool(ours.fix) == bool(theirs.fix) for ours, theirs in zip(found, there, strict=True))
    return max(found, key=lambda each: list(Level).index(each.level))


def running(world: World, **options: Any) -> FlowRun:
    run = world.trigger(job_variables={"seconds": 10**7}, **options)
    world.pass_time(10)
    return run


def test_a_service_that_works_is_green(world: World) -> None:
    """Every check says what it saw."""
    world.trigger()
    running(world)
    world.pass_time(600)
    found = examine(patient(world))
    assert [each.check for each in found] == list(CHECKS)
    assert {each.level for each in found} == {Level.OK}, found
    assert all(each.found and not each.fix for each in found)
    assert not is_red(found)


# -- the hosting


def test_ticks_that_do_not_come_are_red_when_there_is_work(world: World) -> None:
    """And only a warning when there is none."""
    world.advance(181)
    assert look(world, "ticks").level is Level.WARN
    world.trigger()
    found = look(world, "ticks")
    assert (found.level, found.fix) == (Level.RED, "start `push-pools serve`, and see that it stays up")
    assert "3 min ago" in found.found
    world.tick()
    assert look(world, "ticks").level is Level.OK


def test_an_active_schedule_is_work(world: World) -> None:
    """A paused one, or one of a paused deployment, is not."""
    world.advance(1000)
    schedule = Schedule(id="s", cron="0 * * * *")
    deployment = world.store.put(world.deployment.model_copy(update={"schedules": (schedule,)}))
    assert look(world, "ticks").level is Level.RED
    deployment = world.store.put(deployment.model_copy(update={"is_paused": True}))
    assert look(world, "ticks").level is Level.WARN
    paused = schedule.model_copy(update={"active": False})
    world.store.put(deployment.model_copy(update={"is_paused": False, "schedules": (paused,)}))
    assert look(world, "ticks").level is Level.WARN


def test_a_server_that_does_not_tick_is_red() -> None:
    """Whether there is work or not, unless it has only just begun."""
    world = World()
    began = world.clock.now()
    assert look(world, "ticks", served_since=began).level is Level.OK
    world.advance(200)
    found = look(world, "ticks", served_since=began)
    assert found.level is Level.RED
    assert "nothing has ever ticked" in found.found
    assert "its log" in found.fix


def test_jobs_that_nobody_sweeps_are_red(world: World) -> None:
    """Five minutes after the last sweep; a job that was just started is no reason."""
    running(world)
    world.advance(290)  # The last sweep is noted to the nearest ten seconds.
    assert look(world, "sweeps").level is Level.OK
    world.advance(11)
    found = look(world, "sweeps")
    assert found.level is Level.RED
    assert "fake" in found.found
    world.sweep()
    assert look(world, "sweeps").level is Level.OK


# -- runs


def test_runs_that_nobody_looks_after_are_red(world: World) -> None:
    """When more ticks have failed to come than may."""
    run = world.trigger()
    world.advance(209)
    assert look(world, "stuck runs").level is Level.OK
    world.advance(2)
    found = look(world, "stuck runs")
    assert found.level is Level.RED
    assert run.name in found.found
    world.pass_time(120)
    assert look(world, "stuck runs").level is Level.OK


def test_a_run_that_is_sent_in_vain_is_red(world: World) -> None:
    """Its messages never come."""
    run = world.trigger()
    for _ in range(40):
        world.queue.receive(10, 10**9)
        world.advance(60)
        world.tick()
    found = look(world, "stuck runs")
    assert "do not move" in found.found
    assert str(run.id) in found.fix


def test_a_run_that_waits_beside_a_free_slot_is_red(world: World) -> None:
    """Not one whose pool, queue or deployment is full or paused, nor one that has only just come to wait."""
    run = world.trigger()
    sync_limit(world.app, world.store.put(world.pool.model_copy(update={"concurrency_limit": 1})))
    admit("local", world.app)  # The new limit counts the active runs.
    shown = State.of("AwaitingConcurrencySlot", world.clock.now())
    parked = run.evolve(phase=Phase.WAITING, state=shown, waits_at="1", wake_at=None)
    world.store.save(world.get(run), parked)
    assert look(world, "stuck runs").level is Level.OK
    world.advance(200)
    found = look(world, "stuck runs")
    assert "wait for a slot, and there is one" in found.found
    queue = world.store.get(WorkQueue, "local/default")
    assert queue is not None
    queue = world.store.put(queue.model_copy(update={"is_paused": True}))
    assert look(world, "stuck runs").level is Level.OK
    world.store.put(queue.model_copy(update={"is_paused": False}))
    sync_limit(world.app, world.store.put(world.deployment.model_copy(update={"concurrency_limit": 0})))
    assert look(world, "stuck runs").level is Level.OK


def test_a_job_that_cannot_be_seen_is_red(world: World) -> None:
    """From the moment of the alarm."""
    run = running(world)
    world.cloud.fail("observe", *[PlatformUnavailable("fake", "503")] * 1000)
    world.pass_time(19 * 60, step=30)
    assert look(world, "stuck runs").level is Level.OK
    world.pass_time(120, step=30)
    found = look(world, "stuck runs")
    assert "could not be seen for 20 min" in found.found
    assert str(run.id) in found.fix
    world.cloud.faults.clear()
    world.pass_time(30)
    assert look(world, "stuck runs").level is Level.OK


def test_a_job_that_may_run_on_is_shown_until_it_is_over(world: World) -> None:
    """A warning at first, red after a day."""
    run = running(world)
    cancel_run(run.id, world.app, by="ann")
    world.cloud.fail("stop", *[PlatformUnavailable("fake", "503")] * 5000)
    world.pass_time(1.1 * HOUR, step=30)
    found = look(world, "orphans")
    assert found.level is Level.WARN
    assert run.name in found.found
    world.advance(24 * HOUR)
    assert look(world, "orphans").level is Level.RED
    world.cloud.faults.clear()
    world.settle()
    assert look(world, "orphans").level is Level.OK


def test_a_chore_that_is_owed_for_a_day_is_a_warning() -> None:
    world = World({"needs_cleanup": True})
    run = world.trigger()
    world.cloud.fail("cleanup", *[PlatformUnavailable("fake", "503")] * 50)
    world.pass_time(600)
    assert look(world, "chores").found == "1 chore left"
    world.advance(25 * HOUR)
    found = look(world, "chores")
    assert (found.level, str(run.id) in found.fix) == (Level.WARN, True)


def test_jobs_that_are_kept_at_a_platform_are_listed(world: World) -> None:
    """Those whose job variables ask for it."""
    run = world.trigger()
    world.pass_time(30)
    done = world.get(run)
    assert done.job is not None
    assert look(world, "kept jobs").level is Level.OK
    job = done.job.model_copy(update={"request": {**done.job.request, "keep_job": True}})
    world.store.save(done, done.evolve(job=job))
    found = look(world, "kept jobs")
    assert found.level is Level.WARN
    assert run.name in found.found


def test_dead_letters_are_red_for_a_day(world: World) -> None:
    """With the newest reason; then a warning, because they may have been seen to."""
    world.queue.send("{")
    world.drain()
    found = look(world, "dead letters")
    assert found.level is Level.RED
    assert "JSON" in found.found
    assert "dlq replay" in found.fix
    world.advance(25 * HOUR)
    assert look(world, "dead letters").level is Level.WARN


# -- the catalogue


@pytest.mark.parametrize(
    ("slug", "data", "say"),
    [
        ("aws-credentials", {"aws_access_key_id": "A", "aws_secret_access_key": {"$encrypted": "x"}}, "use a role"),
        ("docker-registry-credentials", {"password": {"$encrypted": "x"}}, "a token that expires"),
    ],
)
def test_long_lived_keys_are_named_with_what_takes_their_place(
    world: World, slug: str, data: dict[str, Any], say: str
) -> None:
    """And nothing of the key is shown, nor opened."""
    now = world.clock.now()
    world.store.put(BlockDocument(id=uuid4(), type_slug=slug, name="prod", data=data, created_at=now, updated_at=now))
    found = look(world, "long-lived keys")
    assert found.level is Level.WARN
    assert f"{slug}/prod" in found.found
    assert say in found.fix


def test_a_block_of_a_type_that_is_not_installed_is_no_finding(world: World) -> None:
    now = world.clock.now()
    fields = {"id": uuid4(), "name": "x", "data": {"key": "k"}, "created_at": now, "updated_at": now}
    world.store.put(BlockDocument(type_slug="of-a-plug-in", **fields))
    assert look(world, "long-lived keys").found == "none in 1 block"


def test_a_pool_that_is_not_ready_is_red_when_a_deployment_uses_it(world: World) -> None:
    """Else it is a warning; that nobody ticks is another check's finding."""
    job = {**world.pool.base_job_template["job_configuration"], "seconds": "soon"}
    world.store.put(
        world.pool.model_copy(update={"base_job_template": {**world.pool.base_job_template, "job_configuration": job}})
    )
    world.advance(10**6)
    found = look(world, "work pools")
    assert found.level is Level.RED
    assert "'local' is not ready" in found.found
    world.store.delete(world.deployment)
    assert look(world, "work pools").level is Level.WARN


def test_a_paused_pool_is_in_order(world: World) -> None:
    pool = world.store.get(WorkPool, "local")
    assert pool is not None
    world.store.put(pool.model_copy(update={"is_paused": True}))
    assert look(world, "work pools").found == "1 pool, of which paused: local"


# -- the clock, and the checks themselves


def test_a_ledger_from_the_future_is_red(world: World) -> None:
    """Beyond the 15 s that clocks may differ by: the machine's clock went back, or another's is ahead."""
    world.trigger()
    behind = Patient(world.app, world.clock.now() - timedelta(seconds=15))
    assert [each.level for each in CHECKS["clock"](behind)] == [Level.OK]
    behind = Patient(world.app, world.clock.now() - timedelta(hours=3))
    (found,) = CHECKS["clock"](behind)
    assert found.level is Level.RED
    assert "2 records of the ledger are up to 3 h in the future" in found.found


def test_a_run_that_is_planned_ahead_is_not_from_the_future(world: World) -> None:
    world.trigger(scheduled_time=world.clock.now() + timedelta(days=3))
    assert look(world, "clock").level is Level.OK


def test_a_check_that_fails_is_a_finding_and_stops_no_other(world: World) -> None:
    def broken(patient: Patient) -> Iterator[Finding]:
        raise KeyError("x")

    def refused(patient: Patient) -> Iterator[Finding]:
        raise PlatformUnavailable("fake", "503")

    def fine(patient: Patient) -> Iterator[Finding]:
        yield ok("c", "fine")

    found = examine(patient(world), {"a": broken, "b": refused, "c": fine})
    assert [each.level for each in found] == [Level.RED, Level.RED, Level.OK]
    assert "KeyError" in found[0].found
    assert "503" in found[1].found


def test_hostings_without_a_local_queue_leave_its_checks_out(world: World) -> None:
    found = examine(Patient(world.app, world.clock.now()))
    assert "dead letters" not in {each.check for each in found}
