"""A process that may not act on a platform leaves that to those who may, by a hint."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pytest

from push_pools.domain.errors import PlatformUnavailable
from push_pools.domain.events import JobChanged, hint, parse_event
from push_pools.domain.runs import Chore, ChoreKind, Phase
from push_pools.domain.states import JobStatus, Observation
from push_pools.ports import App, ReportedJob
from push_pools.services.handle import handle_message
from push_pools.services.ledger import change
from push_pools.services.reported import job_changed
from push_pools.services.runs import run_deployment
from push_pools.services.stop import cancel_run, stop_run
from push_pools.services.sweep import sweep
from tests.world import World

if TYPE_CHECKING:
    from push_pools.domain.runs import FlowRun, JobHandle


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def idle(world: World) -> App:
    """The App of a process that acts on nothing, as `poll` does."""
    return dataclasses.replace(world.app, acting=frozenset())


def sent(world: World) -> list[str]:
    """Take the messages that are on the queue, and return their types."""
    found = []
    for delivery in world.queue.receive(100, 90.0):
        event: Any = parse_event(delivery.body).event
        assert event.type == "scheduled-run" or event.platform == "fake"
        found.append(event.type)
        world.queue.ack(delivery)
    return found


def invocation(world: World) -> Any:
    from datetime import timedelta

    from push_pools.ports import Invocation

    return Invocation("me", world.clock.now() + timedelta(seconds=60))


EVENT = '{"version":1,"type":"scheduled-run","deployment":"hourly","idempotency_key":"a"}'


def test_an_event_is_put_and_its_submission_left_to_others(world: World, idle: App) -> None:
    from push_pools.services.handle import handle_message

    handle_message(EVENT, "m", idle, invocation(world))
    (run,) = world.runs()
    assert run.phase is Phase.PLANNED
    assert sent(world) == ["submit"]
    assert not world.cloud.started


def test_a_submit_hint_is_passed_on(world: World, idle: App) -> None:
    from push_pools.services.submit import submit_run

    run = run_deployment(world.app, "hourly").run
    sent(world)
    submit_run(run.id, idle, invocation(world))
    assert sent(world) == ["submit"]
    assert world.get(run).fence == 0


def test_a_stop_is_passed_on(world: World, idle: App) -> None:
    run = _started(world)
    stop_run(run.id, idle)
    assert sent(world) == ["stop"]


def test_a_cancel_of_a_running_job_is_written_and_its_stop_left_to_others(world: World, idle: App) -> None:
    run = _started(world)
    after = cancel_run(run.id, idle, by="cli")
    assert after.phase is Phase.STOPPING
    assert sent(world) == ["stop"]
    assert len(world.cloud.running()) == 1
    assert after.job is not None
    assert after.job.stop_sent_at is None


def test_a_sweep_learns_and_leaves_stops_and_cleanups_to_others(world: World, idle: App) -> None:
    run = _started(world)
    change(world.app, world.get(run), lambda r: r.evolve(wake_at=world.clock.now()))
    assert sweep("fake", idle) == 1
    assert sent(world) == ["stop"]
    chore = Chore(kind=ChoreKind.CLEANUP, not_before=world.clock.now(), since=world.clock.now(), handle=_handle(run))
    change(world.app, world.get(run), lambda r: r.evolve(chores=(chore,), phase=Phase.ENDED))
    from push_pools.services.chores import do_chores

    do_chores(run.id, idle)
    assert len(world.get(run).chores) == 1
    assert sent(world) == ["chores"]
    do_chores(run.id, world.app)
    assert not world.get(run).chores


def test_a_message_names_the_pool_type(world: World) -> None:
    run = run_deployment(world.app, "hourly").run
    (delivery,) = world.queue.receive(10, 90.0)
    assert delivery.body == hint("submit", run.id, "fake")


# -- what a platform says by itself


class Reader:
    """Makes the fake platform one that reads events."""

    def __init__(self, world: World) -> None:
        self.world, self.is_away = world, False
        world.platform.reported = self.reported  # type: ignore[attr-defined]
        world.platform.read_event = self.read_event  # type: ignore[attr-defined]

    def reported(self, detail: Any) -> ReportedJob | None:
        return ReportedJob(detail["run"], detail["attempt"]) if "run" in detail else None

    def read_event(self, detail: Any, handle: JobHandle) -> tuple[JobHandle, Observation] | None:
        if self.is_away:
            raise PlatformUnavailable("fake", "away")
        if detail.get("elsewhere"):
            return None
        status = JobStatus(detail["status"])
        seen = Observation(key=handle.key, status=status, observed_at=self.world.clock.now(), exit_code=0)
        return handle.model_copy(update={"pid": handle.pid or detail.get("pid")}), seen


def test_an_event_of_the_platform_ends_its_run(world: World, idle: App) -> None:
    Reader(world)
    run = _started(world)
    hear("fake", {"run": run.id, "attempt": 1, "status": "succeeded"}, idle)
    assert world.get(run).state.name == "Completed"
    hear("fake", {"run": run.id, "attempt": 1, "status": "running"}, idle)  # Late and out of order.
    assert world.get(run).state.name == "Completed"


def test_an_event_tells_of_a_job_that_nobody_has_recorded(world: World, idle: App) -> None:
    """The answer to the call was lost, and the event comes before anybody has looked."""
    Reader(world)
    run = _started(world)
    change(
        world.app,
        world.get(run),
        lambda r: r.evolve(
            phase=Phase.CALLING, job=r.job and r.job.model_copy(update={"handle": _handle(run, pid=None)})
        ),
    )
    hear("fake", {"run": run.id, "attempt": 1, "status": "running", "pid": "p9"}, idle)
    assert world.get(run).infrastructure_pid == "p9"
    assert world.get(run).state.name == "Running"


@pytest.mark.parametrize("more", [{"attempt": 2}, {"elsewhere": True}])
def test_an_event_of_something_else_says_nothing(world: World, idle: App, more: dict[str, Any]) -> None:
    Reader(world)
    run = _started(world)
    before = world.get(run)
    hear("fake", {"run": run.id, "attempt": 1, "status": "succeeded", **more}, idle)
    hear("fake", {"group": "service:web"}, idle)
    hear("fake", {"run": world.store.ledger_id, "attempt": 1, "status": "succeeded"}, idle)
    hear("other", {"run": run.id, "attempt": 1, "status": "succeeded"}, idle)
    assert world.get(run) == before


def test_a_platform_that_is_away_leaves_it_to_the_sweep(world: World, idle: App) -> None:
    Reader(world).is_away = True
    run = _started(world)
    hear("fake", {"run": run.id, "attempt": 1, "status": "succeeded"}, idle)
    assert world.get(run).phase is Phase.STARTED


def test_events_of_the_cloud_and_messages_of_ours_come_mixed(world: World, idle: App) -> None:
    import json

    Reader(world)
    run = _started(world)
    handle_message('{"version":1,"type":"sweep","platform":"fake"}', "m", idle, invocation(world))
    assert world.get(run).state.name == "Running"
    detail = {"run": str(run.id), "attempt": 1, "status": "succeeded"}
    body = json.dumps({"version": 1, "type": "job-changed", "platform": "fake", "detail": detail})
    world.platform.reported = lambda d: ReportedJob(run.id, d["attempt"])  # type: ignore[attr-defined]
    handle_message(body, "m", idle, invocation(world))
    assert world.get(run).state.name == "Completed"


# -- parts


def hear(platform: str, detail: dict[str, Any], app: App) -> None:
    job_changed(JobChanged.model_construct(platform=platform, detail=detail), app)


def _started(world: World) -> FlowRun:
    run = run_deployment(world.app, "hourly").run
    world.drain()
    assert world.get(run).phase is Phase.STARTED
    sent(world)
    return world.get(run)


def _handle(run: FlowRun, **changes: Any) -> JobHandle:
    assert run.job is not None
    return run.job.handle.model_copy(update=changes)
