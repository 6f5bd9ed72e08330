"""A run's way through the services: event, claim, job, observe, finish; and what happens when something goes wrong."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any, cast
from uuid import UUID

import pytest

from push_pools.domain import transitions
from push_pools.domain.errors import (
    InvalidEvent,
    JobRejected,
    NotAllowed,
    NotFound,
    NothingStarted,
    OutOfTime,
    PlatformUnavailable,
    SubmissionUncertain,
)
from push_pools.domain.events import hint
from push_pools.domain.pools import Variable
from push_pools.domain.records import Timing
from push_pools.domain.runs import Chore, ChoreKind, FlowRun, JobHandle, Phase, RetryPolicy
from push_pools.domain.states import FailureClass, JobStatus, Observation, StateType
from push_pools.ports import Invocation
from push_pools.services.admit import admit
from push_pools.services.catalogue import update_work_pool
from push_pools.services.explain import explain_run
from push_pools.services.handle import handle_message
from push_pools.services.ledger import change
from push_pools.services.poll import job_over
from push_pools.services.runs import find_run, is_idle, read_logs, retry_run, run_deployment
from push_pools.services.stop import cancel_run, stop_run
from push_pools.services.submit import submit_run
from push_pools.services.sweep import looks_now, sweep
from push_pools.testing.fake_platform import SimulatedCrash
from tests.world import World

EVENT = '{"version":1,"type":"scheduled-run","deployment":"report/hourly","scheduled_time":"2027-01-01T00:00:00Z"}'


@pytest.fixture
def world() -> World:
    return World()


def facts(run: FlowRun, what: str) -> list[dict[str, object]]:
    return [dict(entry.facts) for entry in run.journal if entry.what == what]


# -- events


def test_an_event_becomes_one_job_and_its_status_comes_back(world: World) -> None:
    """Put, claimed, rendered, submitted, observed, decided: each a line of its story."""
    world.queue.send(EVENT)
    world.pass_time(20)
    (run,) = world.runs()
    assert (run.state.name, run.phase, world.started(run)) == ("Completed", Phase.SETTLED, 1)
    told = [line.what for line in explain_run(run, world.clock.now()).lines]
    assert told == ["put", "claimed", "intent", "submitted", "observed", "observed", "finished"]
    assert world.cloud.started[0].configuration.env["PUSH_POOLS_RUN_ID"] == str(run.id)


def test_the_same_event_twice_is_one_run(world: World) -> None:
    """Also when the same instant is written with another offset, and after the run is over."""
    world.queue.send(EVENT)
    world.queue.send(EVENT.replace("00:00:00Z", "01:00:00+01:00"))
    world.pass_time(20)
    world.queue.send(EVENT)
    world.pass_time(20)
    assert len(world.runs()) == len(world.cloud.started) == 1


def test_the_same_event_with_another_body_is_reported(world: World) -> None:
    """The first one wins."""
    world.queue.send(EVENT)
    world.queue.send(EVENT[:-1] + ',"parameters":{"n":2}}')
    world.pass_time(20)
    (run,) = world.runs()
    assert run.parameters == {}
    assert facts(run, "put again with another body, which is ignored") == [{"fields": ["parameters"]}]


def test_a_redelivery_later_is_not_another_body(world: World) -> None:
    """An event without a time is due when it is received, and received again later it is the same event."""
    bare = '{"version":1,"type":"scheduled-run","deployment":"report/hourly"}'
    for _ in range(2):
        handle_message(bare, "m-1", world.app, Invocation("me", world.clock.now() + timedelta(seconds=60)))
        world.pass_time(20)
    (run,) = world.runs()
    assert [entry.what for entry in run.journal].count("put") == 1
    assert not facts(run, "put again with another body, which is ignored")


def test_events_with_keys_of_their_own_are_runs_of_their_own(world: World) -> None:
    """And two deliveries without a time or key are told apart by their envelopes."""
    for key in ("a", "a", "b"):
        world.queue.send(EVENT[:-1] + f',"idempotency_key":"{key}"}}')
    bare = '{"version":1,"type":"scheduled-run","deployment":"report/hourly"}'
    world.queue.send(bare)
    world.queue.send(bare)
    world.pass_time(20)
    assert len(world.runs()) == 4


def test_a_poisoned_event_goes_to_the_dead_letters_and_its_neighbours_go_on(world: World) -> None:
    """With its reason; replaying it is harmless."""
    world.queue.send("{")
    world.queue.send(EVENT.replace("hourly", "hurly"))
    world.queue.send(EVENT)
    world.pass_time(20)
    assert [run.state.name for run in world.runs()] == ["Completed"]
    reasons = [letter.reason for letter in world.queue.dead_letters()]
    assert "report/hourly" in reasons[0]
    assert "JSON" in reasons[1]
    world.queue.replay(world.queue.dead_letters()[0].id)
    world.drain()
    assert len(world.runs()) == 1
    assert len(world.queue.dead_letters()) == 2


def test_a_paused_deployment_refuses_its_events_with_the_reason(world: World) -> None:
    """The event waits among the dead letters; resumed, it can be replayed."""
    paused = world.store.put(world.deployment.model_copy(update={"is_paused": True, "pause_note": "freeze"}))
    world.queue.send(EVENT)
    world.drain()
    (letter,) = world.queue.dead_letters()
    assert "is paused (freeze)" in letter.reason
    with pytest.raises(NotAllowed, match="paused"):
        world.trigger()
    world.store.put(paused.model_copy(update={"is_paused": False}))
    world.queue.replay(letter.id)
    world.pass_time(20)
    assert [run.state.name for run in world.runs()] == ["Completed"]


def test_an_event_of_long_ago_is_refused(world: World) -> None:
    """Its run may have been forgotten, and would run again."""
    with pytest.raises(InvalidEvent, match="more than 90 days"):
        world.trigger(scheduled_time=world.clock.now() - timedelta(days=91))


@pytest.mark.parametrize(
    ("field", "value", "error", "say"),
    [
        ("deployment", "nothing", NotFound, "report/hourly"),
        ("work_queue", "urgnt", NotFound, "known: default"),
        ("job_variables", {"secnds": 3}, InvalidEvent, "seconds"),
        ("job_variables", {"seconds": "long"}, InvalidEvent, "seconds"),
    ],
)
def test_what_an_event_names_wrongly_is_said_at_once(
    world: World, field: str, value: object, error: type[Exception], say: str
) -> None:
    """Before a run is put."""
    options = {"deployment": "report/hourly", field: value}
    with pytest.raises(error, match=say):
        run_deployment(world.app, **options)  # type: ignore[arg-type]
    assert not world.runs()


def test_a_pool_can_be_asked_without_a_deployment(world: World) -> None:
    """The run's id derives from the pool's; the command comes with the event."""
    world.queue.send('{"version":1,"type":"scheduled-run","work_pool":"local","job_variables":{"command":"true"}}')
    world.pass_time(20)
    assert [(run.state.name, run.deployment) for run in world.runs()] == [("Completed", None)]


def test_a_later_run_waits_for_its_time(world: World) -> None:
    """Its message is delayed; a claim that comes early is sent again."""
    run = world.trigger(scheduled_time=world.clock.now() + timedelta(seconds=100))
    world.queue.send(hint("submit", run.id))
    world.drain()
    assert world.get(run).phase is Phase.PLANNED
    world.pass_time(95)
    assert not world.cloud.started
    world.pass_time(10)
    assert world.started(run) == 1


def test_a_run_far_ahead_is_sent_by_the_tick(world: World) -> None:
    """No message waits for days."""
    run = world.trigger(scheduled_time=world.clock.now() + timedelta(hours=2))
    assert world.queue.depth() == 0
    world.pass_time(2 * 3600 + 180, step=30)
    assert world.get(run).state.name == "Completed"


def test_a_message_of_an_unknown_run_is_done_with(world: World) -> None:
    """Its history is over; it is neither an error nor a dead letter."""
    world.queue.send(hint("submit", UUID(int=5)))
    world.drain()
    assert world.queue.depth() == 0
    assert not world.queue.dead_letters()


# -- rendering


def test_a_changed_pool_default_applies_to_the_next_run(world: World) -> None:
    """Without deploying again."""
    template = world.pool.base_job_template
    template["variables"]["properties"]["exit_code"]["default"] = 4
    world.store.put(world.pool.model_copy(update={"base_job_template": template}))
    run = world.trigger()
    world.pass_time(20)
    assert world.get(run).state.exit_code == 4


def test_what_cannot_be_rendered_ends_with_the_reason(world: World) -> None:
    """A template that names a block that is not there: Crashed, configuration, and what to do."""
    world.deploy("broken", job_variables={"env": {"A": "{{ prefect.blocks.secret.none }}"}})
    run = world.trigger("report/broken")
    world.pass_time(5)
    run = world.get(run)
    assert (run.state.type, run.state.failure_class) == (StateType.CRASHED, FailureClass.CONFIGURATION)
    assert "secret" in run.state.message
    assert "flow-run retry" in explain_run(run, world.clock.now()).advice
    assert not world.cloud.started


def test_a_deleted_pool_ends_its_runs_with_the_reason(world: World) -> None:
    """The run was put before."""
    run = world.trigger()
    world.store.delete(world.store.get(type(world.pool), "local") or world.pool)
    world.pass_time(5)
    assert "work pool 'local' does not exist" in world.get(run).state.message


def test_the_request_is_stored_and_repeated_unchanged(world: World) -> None:
    """What changes after the intent does not change the call under the same key."""
    run = world.trigger()
    world.cloud.fail("submit", SubmissionUncertain("fake", "timed out"))
    world.drain()
    deployment = world.store.get(type(world.deployment), "report/hourly")
    assert deployment is not None
    world.store.put(deployment.model_copy(update={"command": "false"}))
    world.pass_time(20)
    assert world.cloud.started[0].configuration.command == "true"
    assert world.get(run).state.name == "Completed"


# -- trouble


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_unanswered_call_is_looked_up_and_finished(world: World, when: str) -> None:
    """Whether it had an effect or not, there is one job in the end."""
    run = world.trigger()
    world.cloud.fail("submit", SubmissionUncertain("fake", "timed out"), when=when)  # type: ignore[arg-type]
    world.pass_time(30)
    run = world.get(run)
    assert (run.state.name, world.started(run)) == ("Completed", 1)
    assert facts(run, "unanswered")[0]["why"] == "timed out"


def test_a_throttled_call_waits_as_long_as_the_platform_wishes(world: World) -> None:
    """And at least a little."""
    run = world.trigger()
    world.cloud.fail("submit", PlatformUnavailable("fake", "slow down", retry_after_seconds=40))
    world.pass_time(35)
    assert not world.cloud.started
    assert world.get(run).state.message == "slow down"
    world.pass_time(30)
    assert world.get(run).state.name == "Completed"


def test_a_platform_that_wishes_to_be_left_alone_for_a_day_is_asked_again_all_the_same(world: World) -> None:
    """After ten minutes: the wish does not outlast the deadlines of the run."""
    run = world.trigger()
    world.cloud.fail("submit", PlatformUnavailable("fake", "slow down", retry_after_seconds=86_400))
    world.pass_time(590)
    assert not world.cloud.started
    world.pass_time(60)
    assert world.get(run).state.name == "Completed"


def test_a_rejected_job_ends_with_class_cause_and_suggestion(world: World) -> None:
    """At once, when no other call is open."""
    run = world.trigger()
    world.cloud.fail("submit", JobRejected("fake", "denied", codes=["AccessDeniedException"]))
    world.drain()
    run = world.get(run)
    assert (run.state.type, run.attempt) == (StateType.CRASHED, 1)
    assert run.state.failure_class is not None
    assert "denied" in run.state.message


def test_a_rejection_beside_an_open_call_waits_and_adopts_what_it_finds() -> None:
    """The first call lands after the second was refused: its job is found, stopped, and the verdict stands."""
    world = World()
    run = world.trigger(job_variables={"seconds": 1000})
    world.cloud.fail("submit", SubmissionUncertain("fake", "timed out"), when="late")
    world.cloud.fail("submit", JobRejected("fake", "denied"))
    world.pass_time(20)
    assert world.get(run).verdict is not None
    world.cloud.land()
    world.pass_time(200)
    run = world.get(run)
    assert (run.state.type, world.started(run)) == (StateType.CRASHED, 1)
    assert not world.cloud.running()


def test_a_refusal_bound_to_the_key_takes_the_next_launch() -> None:
    """ECS: after settling and a look-up, under another key; one job in the end."""
    world = World({"key_is_used_up": True, "forgets_keys": True})
    run = world.trigger()
    world.cloud.fail("submit", NothingStarted("fake", "RESOURCE:MEMORY", codes=["RESOURCE:MEMORY"]))
    world.pass_time(85)
    assert world.get(run).launch == 1
    world.pass_time(60)
    run = world.get(run)
    assert (run.launch, run.state.name, world.started(run)) == (2, "Completed", 1)


def test_what_comes_while_a_refusal_settles_does_not_replace_it() -> None:
    """The look-up fails for want of credentials: the next launch is decided by the lack of capacity, not by that."""
    world = World({"key_is_used_up": True, "forgets_keys": True})
    run = world.trigger()
    world.cloud.fail("submit", NothingStarted("fake", "RESOURCE:MEMORY", codes=["RESOURCE:MEMORY"]))
    world.pass_time(85)
    world.cloud.fail("find", PlatformUnavailable("fake", "expired", codes=["NoCredentials"]))
    world.pass_time(70)
    run = world.get(run)
    assert (run.attempt, run.launch, run.state.name, world.started(run)) == (1, 2, "Completed", 1)


def test_a_lying_refusal_is_found_out() -> None:
    """The platform says that nothing started, and something did: it is adopted."""
    world = World({"key_is_used_up": True, "forgets_keys": True})
    run = world.trigger()
    world.cloud.fail("submit", NothingStarted("fake", "RESOURCE:MEMORY"), when="after")
    world.pass_time(200)
    run = world.get(run)
    assert (run.launch, run.state.name, world.started(run)) == (1, "Completed", 1)


def test_a_lying_refusal_that_is_looked_into_too_late_takes_no_next_launch() -> None:
    """The task that it started is over and forgotten by then, so that a look-up which finds nothing proves nothing."""
    world = World({"key_is_used_up": True, "forgets_keys": True}, timing=Timing(submit_seconds=4 * 3600))
    run = world.trigger()
    world.cloud.fail("submit", NothingStarted("fake", "RESOURCE:MEMORY", codes=["RESOURCE:MEMORY"]), when="after")
    world.drain()
    world.cloud.fail("find", *[PlatformUnavailable("fake", "503")] * 1000)
    world.pass_time(2 * 3600, step=60)
    world.cloud.faults.clear()
    world.settle(6 * 3600)
    run = world.get(run)
    assert (world.started(run), run.launch, run.state.failure_class) == (1, 1, FailureClass.LOST)


def test_elsewhere_a_refusal_leaves_the_key_fresh(world: World) -> None:
    """The same name is used again, soon."""
    run = world.trigger()
    world.cloud.fail("submit", NothingStarted("fake", "no capacity"))
    world.pass_time(20)
    run = world.get(run)
    assert (run.launch, run.state.name) == (1, "Completed")


def test_a_platform_that_never_answers_ends_in_lost_and_is_watched(world: World) -> None:
    """Within the submit deadline; if the job turns up later, it is stopped."""
    run = world.trigger()
    world.cloud.fail("submit", *[SubmissionUncertain("fake", "timed out")] * 500)
    world.pass_time(3900, step=30)
    run = world.get(run)
    assert (run.state.type, run.state.failure_class) == (StateType.CRASHED, FailureClass.LOST)
    assert run.phase is Phase.SETTLED


def test_a_platform_that_always_refuses_ends_with_its_last_refusal(world: World) -> None:
    """After the submit deadline, in the class of the refusal."""
    run = world.trigger()
    world.cloud.fail("submit", *[PlatformUnavailable("fake", "slow down", codes=["ThrottlingException"])] * 500)
    world.pass_time(3900, step=30)
    run = world.get(run)
    assert run.state.type is StateType.CRASHED
    assert "slow down" in run.state.message


def test_a_platform_that_cannot_prepare_is_given_up_too(world: World) -> None:
    """There is no intent yet; the first claim counts."""
    run = world.trigger()
    world.cloud.fail("prepare", *[PlatformUnavailable("fake", "503")] * 500)
    world.pass_time(3900, step=30)
    assert world.get(run).state.type is StateType.CRASHED


def test_a_handler_that_always_dies_does_not_go_on_for_ever(world: World) -> None:
    """Ten claims in a row without an outcome end the run."""
    run = world.trigger()

    def die(method: str, when: str, key: str) -> None:
        if method == "prepare":
            raise SimulatedCrash

    world.cloud.hook = die
    world.settle()
    run = world.get(run)
    assert (run.state.type, run.state.failure_class) == (StateType.CRASHED, FailureClass.PLATFORM)
    assert "10 claims in a row" in run.state.message


def test_an_invocation_that_ends_too_soon_gives_the_message_back(world: World) -> None:
    """No claim is taken that could not be used."""
    run = world.trigger()
    soon = world.clock.now() + timedelta(seconds=39)
    with pytest.raises(OutOfTime):
        submit_run(run.id, world.app, Invocation("me", soon))
    assert world.get(run).claim is None


def writes(world: World) -> list[str]:
    return [call.split(".")[1] for call in world.calls if call in ("before store.put_run", "before store.save")]


def test_a_due_event_is_put_claimed_and_intended_in_one_write(world: World) -> None:
    """And a planned run is claimed and intended in one; then comes the pid."""
    world.queue.send(EVENT)
    world.drain()
    assert writes(world) == ["put_run", "save"]
    (run,) = world.runs()
    assert [entry.what for entry in run.journal] == ["put", "claimed", "intent", "submitted"]
    world.calls.clear()
    run = world.trigger()
    world.drain()
    assert writes(world) == ["save", "save"]


def test_what_broke_a_handler_once_is_claimed_before_it_is_tried_again(world: World) -> None:
    """Only a claim that is written can be counted as one that expired without an outcome."""
    run = world.trigger()
    world.crash_at = 1  # After the run was read; nothing of the first claim is written.
    world.deliver()
    assert world.get(run) == run
    world.advance(121)
    world.tick()
    world.calls.clear()
    world.drain()
    assert writes(world) == ["save", "save", "save"]
    assert world.started(run) == 1


def test_a_new_run_that_cannot_be_rendered_ends_in_its_first_write(world: World) -> None:
    """With the reason, and nothing asked of the platform."""
    world.queue.send(EVENT.replace("hourly", "odd"))
    world.deploy("odd", command="echo {{ ctx.parameters.absent }}")
    world.drain()
    (run,) = world.runs()
    assert (run.state.failure_class, world.cloud.started) == (FailureClass.CONFIGURATION, [])
    assert writes(world)[0] == "put_run"


def test_a_run_that_was_cancelled_while_it_was_rendered_is_not_started(world: World) -> None:
    """The claim was not written yet, so the cancel was final at once."""
    run = world.trigger()

    def cancel(method: str, when: str, key: str) -> None:
        if (method, when) == ("prepare", "before"):
            cancel_run(run.id, world.app, by="ann")

    world.cloud.hook = cancel
    world.drain()
    assert world.get(run).state.name == "Cancelled"
    assert world.cloud.started == []


def limit_before_the_intent(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the pool's limit to 1 between the decision to claim a run and the write of its intent."""
    save = world.store.save
    done: list[FlowRun] = []

    def set_limit_and_save(before: FlowRun, after: FlowRun, **options: bool) -> FlowRun:
        if after.phase is Phase.CALLING and not done:
            done.append(after)
            update_work_pool(world.app, "local", concurrency_limit=1)
            admit("local", world.app)  # Whoever counts now does not see the run.
        return save(before, after, **options)

    monkeypatch.setattr(world.store, "save", set_limit_and_save)


def test_a_limit_that_comes_before_the_intent_counts_the_run(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its claim was decided before there was a limit: it is active, and others wait."""
    run, second = world.trigger(job_variables={"seconds": 500}), world.trigger()
    limit_before_the_intent(world, monkeypatch)
    world.drain()
    assert world.store.slots("POOL#local") == (1, frozenset({run.id}))
    assert (world.get(run).phase, world.get(second).phase) == (Phase.STARTED, Phase.WAITING)
    world.settle()
    assert {world.get(each).state.name for each in (run, second)} == {"Completed"}


def test_an_open_call_is_counted_by_whoever_takes_it_over(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its claimer died between the intent and counting it."""
    run = world.trigger(job_variables={"seconds": 500})
    limit_before_the_intent(world, monkeypatch)

    def die(*_: object) -> None:
        raise SimulatedCrash

    with monkeypatch.context() as patched:
        patched.setattr("push_pools.services.submit.count_run", die)
        world.deliver()
    assert (world.get(run).phase, world.get(run).slots) == (Phase.CALLING, ())
    world.pass_time(200)
    assert (world.get(run).phase, world.get(run).slots) == (Phase.STARTED, ("POOL#local",))


def test_a_filled_template_is_not_shared_between_runs(world: World) -> None:
    """What one run's job adds to its environment is not seen by the next."""
    first, second = world.trigger(job_variables={"env": {"A": "1"}}), world.trigger(job_variables={"env": {"A": "1"}})
    world.drain()
    jobs = {job.run_id: job.configuration.env for job in world.cloud.started}
    assert jobs[first.id]["PUSH_POOLS_RUN_ID"] == str(first.id)
    assert jobs[second.id]["PUSH_POOLS_RUN_ID"] == str(second.id)


def test_a_changed_variable_applies_to_the_next_run(world: World) -> None:
    """What a template reads from elsewhere is read for each run."""
    stamps = {"created_at": world.clock.now(), "updated_at": world.clock.now()}
    world.deploy("report-to", job_variables={"env": {"TO": "{{ variables.to }}"}})
    variable = world.store.put(Variable(name="to", value="ann", **stamps))
    world.trigger("report/report-to")
    world.drain()
    world.store.put(variable.model_copy(update={"value": "bob"}))
    world.trigger("report/report-to")
    world.drain()
    assert [job.configuration.env["TO"] for job in world.cloud.started] == ["ann", "bob"]


def test_two_handlers_do_not_submit_the_same_run(world: World) -> None:
    """The second acknowledges; the ledger guards the rest."""
    run = world.trigger()
    world.crash_at = 5
    world.deliver()
    world.queue.send(hint("submit", run.id))
    world.deliver()
    assert world.get(run).fence == 1
    world.settle()
    assert world.started(run) == 1


# -- crashes of jobs


def test_a_crashed_job_is_tried_again_and_a_failed_one_is_not(world: World) -> None:
    """The user's code is the user's."""
    crashed, failed = world.trigger(), world.trigger(job_variables={"exit_code": 3})
    world.drain()
    world.cloud.kill(next(job.key for job in world.cloud.started if job.run_id == crashed.id))
    world.pass_time(60)
    crashed, failed = world.get(crashed), world.get(failed)
    assert (crashed.state.name, crashed.attempt, world.started(crashed)) == ("Completed", 2, 2)
    assert (failed.state.name, failed.state.exit_code, world.started(failed)) == ("Failed", 3, 1)


def test_a_job_that_vanished_is_lost_and_not_tried_again(world: World) -> None:
    """Only `on: [lost]` would."""
    run = world.trigger()
    world.pass_time(5)
    world.cloud.lose(world.cloud.started[0].key)
    world.pass_time(30)
    run = world.get(run)
    assert (run.state.type, run.state.failure_class, run.attempt) == (StateType.CRASHED, FailureClass.LOST, 1)


def test_deadlines_stop_the_job_before_the_run_is_over(world: World) -> None:
    """A job that runs too long ends TimedOut, and is stopped at the cloud."""
    world.deploy("short", timeout_seconds=30, retries=RetryPolicy(attempts=1))
    run = world.trigger("report/short", job_variables={"seconds": 1000})
    world.pass_time(60)
    run = world.get(run)
    assert (run.state.type, run.state.name) == (StateType.FAILED, "TimedOut")
    assert not world.cloud.running()


def test_a_job_that_does_not_start_is_stopped_and_tried_again(world: World) -> None:
    """Its attempt ends as start-timeout."""
    world.cloud.start_seconds = 10_000
    world.deploy("slow", start_timeout_seconds=30, retries=RetryPolicy(attempts=2, backoff_seconds=1))
    run = world.trigger("report/slow")
    world.pass_time(60)
    assert world.get(run).attempt == 2
    world.pass_time(60)
    run = world.get(run)
    assert (run.state.failure_class, run.state.type) == (FailureClass.START_TIMEOUT, StateType.CRASHED)
    assert not world.cloud.running()


# -- cancel


def test_cancel_before_the_job_is_final_at_once(world: World) -> None:
    """And no job is started by the message that is still there."""
    run = world.trigger()
    assert cancel_run(run.id, world.app, by="ann", reason="mistake").state.name == "Cancelled"
    world.pass_time(20)
    assert not world.cloud.started
    assert "ann: mistake" in world.get(run).state.message
    with pytest.raises(NotAllowed, match="over already"):
        cancel_run(run.id, world.app, by="ann")


def test_cancel_of_a_running_job_stops_it(world: World) -> None:
    """Cancelling until the platform confirms."""
    run = world.trigger(job_variables={"seconds": 1000})
    world.pass_time(5)
    assert cancel_run(run.id, world.app, by="ann").state.name == "Cancelling"
    world.pass_time(10)
    assert world.get(run).state.name == "Cancelled"
    assert not world.cloud.running()


def test_cancel_between_intent_and_pid_finds_and_stops_the_job(world: World) -> None:
    """The submitter died after its call."""
    run = world.trigger(job_variables={"seconds": 1000})
    world.cloud.fail("submit", SubmissionUncertain("fake", "reset"), when="after")
    world.deliver()
    assert world.started(run) == 1
    assert cancel_run(run.id, world.app, by="ann").state.name == "Cancelling"
    world.pass_time(200)
    assert world.get(run).state.name == "Cancelled"
    assert not world.cloud.running()


def test_cancel_after_an_intent_whose_answer_was_lost_starts_nothing(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The write is repeated, meets itself and the cancel, and the run waits until no call could land."""
    run = world.trigger()
    save = world.store.save
    lost: list[int] = []

    def lose_the_answer(before: FlowRun, after: FlowRun, **options: Any) -> FlowRun:
        if after.phase is Phase.CALLING and not lost:
            lost.append(1)
            save(before, after, **options)
            cancel_run(run.id, world.app, by="ann")
        return save(before, after, **options)

    monkeypatch.setattr(world.store, "save", lose_the_answer)
    world.drain()
    assert world.get(run).phase is Phase.CALLING
    assert not [record for record in caplog.records if record.message == "message_failed"]
    world.settle()
    assert world.get(run).state.name == "Cancelled"
    assert not world.cloud.started


def test_cancel_with_an_open_call_that_had_no_effect_waits_until_none_can_land(world: World) -> None:
    """Then it is Cancelled, with nothing started."""
    run = world.trigger()
    world.cloud.fail("submit", SubmissionUncertain("fake", "timed out"))
    world.deliver()
    cancel_run(run.id, world.app, by="ann")
    world.pass_time(60)
    assert world.get(run).state.name == "Cancelling"
    world.pass_time(120)
    run = world.get(run)
    assert (run.state.name, world.started(run)) == ("Cancelled", 0)
    assert facts(run, "settling")


def test_a_stop_that_is_never_confirmed_is_given_up_and_goes_on(world: World) -> None:
    """Lost after an hour; a chore keeps stopping the job until it is over."""
    run = world.trigger(job_variables={"seconds": 10**6})
    world.pass_time(5)
    cancel_run(run.id, world.app, by="ann")
    world.cloud.fail("stop", *[PlatformUnavailable("fake", "503")] * 500)
    world.pass_time(3700, step=30)
    run = world.get(run)
    assert (run.state.type, run.state.failure_class) == (StateType.CRASHED, FailureClass.LOST)
    assert [chore.kind for chore in run.chores] == [ChoreKind.WATCH]
    assert world.cloud.running()
    world.cloud.faults.clear()
    world.settle()
    assert world.get(run).state == run.state
    assert not world.cloud.running()


def test_a_stop_that_fails_is_repeated(world: World) -> None:
    """The platform cannot be asked at first."""
    run = world.trigger(job_variables={"seconds": 1000})
    world.pass_time(5)
    cancel_run(run.id, world.app, by="ann")
    world.cloud.fail("stop", PlatformUnavailable("fake", "503"))
    world.pass_time(130)
    run = world.get(run)
    assert run.state.name == "Cancelled"
    assert facts(run, "stop failed")


# -- endings that are told, sweeps, chores


def test_an_ending_that_is_told_before_the_pid_is_recorded_is_not_lost(world: World) -> None:
    """A short job may be over before its submitter has written its pid; both orders give the same run."""
    run = world.trigger()
    world.cloud.fail("submit", SubmissionUncertain("fake", "slow answer"), when="after")
    world.deliver()
    key = world.get(run).job_key
    handle = JobHandle(key=key, platform="fake", pid="fake-1", run_id=run.id)
    job_over(handle, Observation(key=key, status=JobStatus.SUCCEEDED, observed_at=world.clock.now()), world.app)
    assert world.get(run).state.name == "Completed"
    world.pass_time(120)
    assert world.get(run).phase is Phase.SETTLED
    assert world.started(run) == 1


def test_sweeps_ask_in_batches_and_write_nothing_when_nothing_changed(world: World) -> None:
    """⌈M/batch⌉ calls for M jobs."""
    for _ in range(250):
        world.trigger(job_variables={"seconds": 1000})
    world.drain()
    world.sweep()
    world.cloud.calls.clear()
    versions = {run.id: run.version for run in world.runs()}
    assert sweep("fake", world.app) == 250
    assert [method for method, _ in world.cloud.calls] == ["observe"] * 3
    assert {run.id: run.version for run in world.runs()} == versions


def test_a_sweep_that_fails_is_left_to_the_next(world: World) -> None:
    """Nothing is concluded from a platform that cannot be asked."""
    run = world.trigger()
    world.drain()
    world.cloud.fail("observe", PlatformUnavailable("fake", "503"))
    world.advance(11)
    world.sweep()
    assert world.get(run).state.name == "Submitted"
    world.sweep()
    assert world.get(run).state.name == "Completed"


def test_old_jobs_are_looked_at_less_often(world: World) -> None:
    """By a pure function of age and id; every job at least every five minutes, and at once past its deadline."""
    run = world.trigger(job_variables={"seconds": 10**6})
    world.pass_time(10)
    run = world.get(run)
    start = world.clock.now()
    young = [looks_now(run, start + timedelta(seconds=n), 5) for n in range(0, 250, 5)]
    old = [looks_now(run, start + timedelta(hours=12, seconds=n), 5) for n in range(0, 3600, 5)]
    assert all(young)
    assert 10 <= sum(old) <= 24
    assert looks_now(run, start + timedelta(days=2), 5)


@pytest.mark.parametrize("every", [5.0, 20.0])
def test_no_job_is_left_out_by_the_spreading_of_looks(world: World, every: float) -> None:
    """Whatever its id and age, a job is looked at within two of its intervals: a sixtieth of its age, at most 5 min."""
    start = world.clock.now()
    for _ in range(30):
        run = world.trigger()
        world.drain()
        run = world.get(run).evolve(wake_at=start + timedelta(days=1))
        unseen = 0.0
        for n in range(1, int(6 * 3600 / every)):
            age = n * every
            unseen = 0.0 if looks_now(run, start + timedelta(seconds=age), every) else unseen + every
            assert unseen <= 2 * min(age / 60, 300) + every, (run.id, age)


def test_cleanup_waits_until_no_call_can_land() -> None:
    """Otherwise the name would be free for a call that is under way."""
    world = World({"needs_cleanup": True, "closes_before_repeat": True})
    run = world.trigger()
    world.pass_time(20)
    assert world.get(run).phase is Phase.ENDED
    assert world.cloud.jobs
    world.cloud.fail("cleanup", PlatformUnavailable("fake", "503"))
    world.pass_time(300)
    assert world.get(run).phase is Phase.SETTLED
    assert not world.cloud.jobs


# -- what users do


def test_a_retry_is_a_new_run(world: World) -> None:
    """A final state is never reopened; the same retry key is the same run."""
    old = world.trigger(job_variables={"exit_code": 3}, parameters={"n": 1})
    with pytest.raises(NotAllowed, match="not over yet"):
        retry_run(world.app, str(old.id))
    world.pass_time(20)
    fresh = retry_run(world.app, str(old.id), key="once")
    assert retry_run(world.app, str(old.id), key="once").id == fresh.id
    assert (fresh.retry_of, fresh.parameters, fresh.id != old.id) == (old.id, {"n": 1}, True)
    world.pass_time(20)
    assert world.get(fresh).state.name == "Failed"
    assert world.get(old).state.exit_code == 3


def test_runs_are_found_by_id_prefix_and_name(world: World) -> None:
    """And not found with the command that lists them."""
    run = world.trigger(name="morning")
    for ref in (str(run.id), str(run.id)[:8], "morning"):
        assert find_run(world.app, ref).id == run.id
    for ref in (str(UUID(int=9)), "evening", "ffff"):
        with pytest.raises(NotFound, match="flow-run ls"):
            find_run(world.app, ref)


def test_logs_are_read_from_the_platform(world: World) -> None:
    """And before there is a job, the reason is said."""
    run = world.trigger(job_variables={"output": ["one", "two"]})
    with pytest.raises(NotAllowed, match="has no job"):
        read_logs(world.app, run)
    world.pass_time(20)
    assert read_logs(world.app, world.get(run)).lines == ("one", "two")


def test_idle_means_that_nothing_is_due_or_active(world: World) -> None:
    """Later runs do not count."""
    assert is_idle(world.app)
    world.trigger(scheduled_time=world.clock.now() + timedelta(hours=1))
    assert is_idle(world.app)
    world.trigger()
    assert not is_idle(world.app)
    world.drain()
    assert not is_idle(world.app)
    world.pass_time(20)
    assert is_idle(world.app)


def test_sweep_and_tick_come_as_messages_too(world: World) -> None:
    """As the functions get them."""
    run = world.trigger()
    world.drain()
    world.advance(11)
    deadline = world.clock.now() + timedelta(seconds=60)
    for body in ('{"version":1,"type":"tick"}', '{"version":1,"type":"sweep","platform":"fake"}'):
        handle_message(body, "m", world.app, Invocation("me", deadline))
    assert world.get(run).state.name == "Completed"


def test_every_phase_tells_what_it_waits_for(world: World) -> None:
    """`why` has an answer at any moment."""
    run = world.trigger(scheduled_time=world.clock.now() + timedelta(seconds=30), job_variables={"seconds": 100})
    told = {explain_run(world.get(run), world.clock.now()).waits_for}
    for _ in range(6):
        world.advance(30)
        world.drain()
        told.add(explain_run(world.get(run), world.clock.now()).waits_for)
        world.sweep()
        told.add(explain_run(world.get(run), world.clock.now()).waits_for)
    assert any("its time" in text for text in told)
    assert any("the job's start" in text for text in told)
    assert any("the job's end" in text for text in told)
    assert "nothing" in told


def test_a_process_that_stood_still_after_its_intent_makes_no_call() -> None:
    """Another took over, the job ran and was cleaned up, and its name is free again: a call would start a second."""
    world = World({"needs_cleanup": True})
    run = world.trigger()
    store, stood_still = world.store, False

    class StandsStill:
        """The ledger as the frozen process sees it."""

        def __getattr__(self, name: str) -> Any:
            return getattr(store, name)

        def save(self, before: FlowRun, after: FlowRun) -> FlowRun:
            nonlocal stood_still
            saved = store.save(before, after)
            if saved.phase is Phase.CALLING and not stood_still:
                stood_still = True
                world.pass_time(1800)
            return saved

    deadline = world.real_clock.now() + timedelta(seconds=60)
    frozen = replace(world.app, store=cast(Any, StandsStill()))
    submit_run(run.id, frozen, Invocation("frozen", deadline))
    assert stood_still
    assert world.get(run).state.name == "Completed"
    assert world.started(run) == 1


def test_an_event_whose_handler_stood_still_before_the_run_was_put_comes_back() -> None:
    """The claim is over before it was written; were the message acknowledged, nothing would be left of the event."""
    world = World()
    world.queue.send(EVENT)
    world.cloud.delays["prepare"] = 65
    world.deliver()
    assert not world.runs()
    world.cloud.delays.clear()
    world.settle()
    assert [run.state.name for run in world.runs()] == ["Completed"]
    assert len(world.cloud.started) == 1


def test_a_deadline_of_one_attempt_does_not_stop_the_next() -> None:
    """Whoever found the first attempt overdue, and stood still, decides anew when the run has moved on."""
    world = World()
    retries = RetryPolicy(attempts=2, on=(FailureClass.KILLED,), backoff_seconds=1)
    world.deploy("hasty", retries=retries, timeout_seconds=60)
    run = world.trigger("report/hasty", job_variables={"seconds": 10**6})
    world.pass_time(10)
    world.advance(60)
    store, stood_still = world.store, False

    class StandsStill:
        """The ledger as the frozen process sees it."""

        def __getattr__(self, name: str) -> Any:
            return getattr(store, name)

        def save(self, before: FlowRun, after: FlowRun) -> FlowRun:
            nonlocal stood_still
            if not stood_still:
                stood_still = True
                world.cloud.kill(world.cloud.started[0].key)
                world.sweep()
                world.advance(5)
                world.drain()
            return store.save(before, after)

    stop_run(run.id, replace(world.app, store=cast(Any, StandsStill())))
    assert stood_still
    assert (world.get(run).attempt, world.get(run).phase) == (2, Phase.STARTED)


def test_a_job_whose_stop_was_not_confirmed_is_cleaned_up_only_when_it_is_over() -> None:
    """The run is given up as lost while its job still runs; what belongs to the job stays until the watch is done."""
    world = World({"needs_cleanup": True})
    run = world.trigger(job_variables={"seconds": 10**6})
    world.pass_time(5)
    world.cloud.fail("stop", *[PlatformUnavailable("fake", "503")] * 1000)
    cancel_run(run.id, world.app, by="ann")
    world.pass_time(4000, step=30)
    assert world.get(run).state.name == "Crashed"
    assert {chore.kind for chore in world.get(run).chores} == {"cleanup", "watch"}
    assert len(world.cloud.jobs) == 1
    world.cloud.faults.clear()
    world.settle(8 * 3600)
    assert not world.cloud.jobs


def test_chores_of_an_attempt_do_not_delay_the_next() -> None:
    """The next attempt is claimed when it is due, though something of the last one is still to be cleaned up."""
    world = World({"needs_cleanup": True})
    run = world.trigger()
    world.pass_time(5)
    world.cloud.kill(world.cloud.started[0].key)
    world.sweep()
    due = world.get(run).due_at
    assert world.get(run).chores
    while world.get(run).attempt == 2 and not world.get(run).job:
        world.advance(1)
        world.drain()
        assert world.clock.now() < due + timedelta(seconds=5)
    world.settle()
    assert world.get(run).state.name == "Completed"
    assert not world.cloud.jobs


def test_a_key_that_may_be_forgotten_is_only_looked_up() -> None:
    """Past the token's life a repeat would start a second task, so it is not made, whatever the deadline."""
    world = World({"key_is_used_up": True, "forgets_keys": True}, timing=Timing(submit_seconds=4 * 3600))
    run = world.trigger()
    world.cloud.fail("submit", SubmissionUncertain("fake", "reset"), when="after")
    world.drain()
    world.cloud.fail("find", *[PlatformUnavailable("fake", "503")] * 1000)
    world.pass_time(3700, step=60)
    world.cloud.faults.clear()
    world.settle(6 * 3600)
    run = world.get(run)
    assert (world.started(run), run.state.failure_class) == (1, FailureClass.LOST)
    assert facts(run, "unanswered")[-1]["why"] == "the platform may have forgotten the key: look only"


def test_a_second_job_of_a_running_run_is_stopped() -> None:
    """It is alarmed, watched until it is over, and the first job goes on."""
    world = World()
    run = world.trigger(job_variables={"seconds": 1000})
    world.pass_time(5)
    job = world.cloud.started[0].configuration
    other = world.platform.submit(job, "pp-another-key").model_copy(update={"run_id": run.id})
    change(
        world.app,
        world.get(run),
        lambda r: transitions.record_pid(r, other, world.app.moment(), world.app.timing),
    )
    world.pass_time(200)
    assert [running.key for running in world.cloud.running()] == [world.get(run).job_key]
    assert world.get(run).state.name == "Running"


def test_a_chore_of_a_newer_release_is_kept(world: World) -> None:
    """It is put off, not taken for done."""
    run = world.trigger()
    world.pass_time(20)
    chore = Chore(kind=ChoreKind.REPORT, not_before=world.clock.now(), since=world.clock.now())
    change(world.app, world.get(run), lambda r: r.evolve(chores=(chore,), phase=Phase.ENDED, wake_at=chore.not_before))
    world.queue.send(hint("chores", run.id))
    world.pass_time(5)
    (kept,) = world.get(run).chores
    assert (kept.kind, kept.tries) == (ChoreKind.REPORT, 1)
    assert "upgrade" in str(facts(world.get(run), "chore failed")[0]["why"])
