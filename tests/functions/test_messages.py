"""A batch of messages in a handler: partial failures, the deadline, threads, and dead letters."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import pytest

from push_pools.domain.errors import InvalidInput, OutOfTime, StoreUnavailable
from push_pools.domain.events import Sweep
from push_pools.functions.messages import SWEEP_TRIES, THREADS, Batch
from tests.functions.context import Context, sqs_event
from tests.world import World

if TYPE_CHECKING:
    from collections.abc import Callable

    from push_pools.ports import App, Invocation


@dataclass
class Letters:
    """Takes dead letters, or fails."""

    buried: list[dict[str, Any]] = field(default_factory=list)
    is_away: bool = False

    def bury(self, body: str, reason: str, **facts: Any) -> None:
        if self.is_away:
            raise StoreUnavailable("SQS is away")
        self.buried.append({"body": body, "reason": reason, **facts})


@pytest.fixture
def letters() -> Letters:
    return Letters()


@pytest.fixture
def app() -> App:
    return World().app


def run(
    app: App,
    letters: Letters,
    act: Callable[[str], None],
    *bodies: str,
    context: Context | None = None,
    **event: Any,
) -> list[str]:
    """Handle a batch and return the ids that come again."""

    def handle(body: str, envelope_id: str, app: App, invocation: Invocation) -> None:
        act(body)

    batch = Batch(app, cast("Any", letters), cast("Any", context or Context()), handle)
    answer = batch.handle(sqs_event(*bodies, **event))
    return [str(each["itemIdentifier"]) for each in answer["batchItemFailures"]]


def test_one_that_fails_takes_no_other_with_it(app: App, letters: Letters) -> None:
    done: list[str] = []

    def act(body: str) -> None:
        if body == "away":
            raise StoreUnavailable("the ledger is away")
        if body == "late":
            raise OutOfTime("3 s are left")
        if body == "bug":
            raise RuntimeError("bug")
        done.append(body)

    failed = run(app, letters, act, "a", "away", "b", "late", "bug")
    assert sorted(failed) == ["m1", "m3", "m4"]  # Threads handle them: which of them fails first says nothing.
    assert sorted(done) == ["a", "b"]
    assert not letters.buried


def test_a_batch_that_fails_as_a_whole_is_no_error_of_the_function(app: App, letters: Letters) -> None:
    def act(body: str) -> None:
        raise StoreUnavailable("the ledger is away")

    assert run(app, letters, act, "a", "b") == ["m0", "m1"]


def test_what_can_never_be_handled_is_buried_with_its_reason_and_done(app: App, letters: Letters) -> None:
    def act(body: str) -> None:
        raise InvalidInput("the event is not JSON")

    assert run(app, letters, act, "{", receives=2) == []
    assert letters.buried == [
        {
            "body": "{",
            "reason": "the event is not JSON",
            "message_id": "m0",
            "queue": "arn:aws:sqs:eu-west-1:0:pp-submit-ecs",
            "receives": 2,
        }
    ]


def test_a_replayed_message_keeps_its_first_id(app: App, letters: Letters) -> None:
    seen: list[str] = []
    attributes = {"message_id": {"stringValue": "first", "dataType": "String"}}

    def handle(body: str, envelope_id: str, app: App, invocation: Invocation) -> None:
        seen.append(envelope_id)
        raise InvalidInput("still bad")

    Batch(app, cast("Any", letters), cast("Any", Context()), handle).handle(
        sqs_event("x", messageAttributes=attributes)
    )
    assert seen == ["first"]
    assert letters.buried[0]["message_id"] == "first"


def test_an_unforeseen_fault_is_buried_after_five_tries(app: App, letters: Letters) -> None:
    def act(body: str) -> None:
        raise RuntimeError("bug")

    assert run(app, letters, act, "x", receives=4) == ["m0"]
    assert run(app, letters, act, "x", receives=5) == []
    assert letters.buried[0]["reason"] == "RuntimeError: bug"


def test_what_cannot_be_buried_comes_again(app: App, letters: Letters) -> None:
    letters.is_away = True

    def act(body: str) -> None:
        raise InvalidInput("bad")

    assert run(app, letters, act, "x") == ["m0"]


def test_nothing_is_begun_shortly_before_the_deadline(app: App, letters: Letters) -> None:
    done: list[str] = []
    assert run(app, letters, done.append, "a", "b", context=Context(seconds=7.0)) == ["m0", "m1"]
    assert not done
    assert run(app, letters, done.append, "a", "b", context=Context(seconds=9.0)) == []


def test_the_rest_is_handed_back_when_the_time_is_over(app: App, letters: Letters, monkeypatch: Any) -> None:
    """With one thread, the first message takes all the time."""
    monkeypatch.setattr("push_pools.functions.messages.ConcurrentProcessor.__init__.__defaults__", (1,))
    world = World()
    done: list[str] = []

    def act(body: str) -> None:
        done.append(body)
        world.real_clock.advance(56.0)

    assert run(world.app, letters, act, "a", "b", "c") == ["m1", "m2"]
    assert done == ["a"]


def test_messages_are_handled_side_by_side_and_all_have_ended_when_the_handler_returns(
    app: App, letters: Letters
) -> None:
    """Each waits for all the others, as it could not if they came one after the other."""
    together = threading.Barrier(THREADS, timeout=30)
    ended: list[str] = []

    def act(body: str) -> None:
        together.wait()
        ended.append(body)

    assert run(app, letters, act, *[f"{n}" for n in range(THREADS)]) == []
    assert len(ended) == THREADS
    assert not [thread for thread in threading.enumerate() if "ThreadPool" in thread.name]


def test_no_more_than_so_many_at_once(app: App, letters: Letters) -> None:
    lock, now, most = threading.Lock(), [0], [0]

    def act(body: str) -> None:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        with lock:
            now[0] -= 1

    run(app, letters, act, *[f"{n}" for n in range(THREADS * 5)])
    assert most[0] <= THREADS


def test_every_message_has_a_claim_owner_of_its_own(app: App, letters: Letters) -> None:
    owners: set[str] = set()

    def handle(body: str, envelope_id: str, app: App, invocation: Invocation) -> None:
        owners.add(invocation.owner)

    for _ in range(2):  # The same messages, in another invocation.
        Batch(app, cast("Any", letters), cast("Any", Context()), handle).handle(sqs_event("a", "b"))
    assert len(owners) == 4


def sweep_of(platform: str, after: str | None = None) -> str:
    return Sweep(platform=platform, after=after).to_json()


def test_of_the_sweeps_of_a_batch_one_per_platform_is_made(app: App, letters: Letters) -> None:
    """The one that goes on from the earliest place, else one from the start; other messages are handled as ever."""
    done: list[str] = []
    bodies = [sweep_of("ecs:push"), "other", sweep_of("ecs:push", "m"), sweep_of("ecs:push", "b"), sweep_of("fake")]
    assert run(app, letters, done.append, *bodies, sweep_of("fake"), '{"type":"sweep"}') == []
    assert sorted(done) == sorted(["other", bodies[3], bodies[4], '{"type":"sweep"}'])


def test_a_sweep_that_cannot_be_made_comes_again_and_takes_no_other_with_it(app: App, letters: Letters) -> None:
    def act(body: str) -> None:
        raise StoreUnavailable("the ledger is away")

    assert run(app, letters, act, sweep_of("fake"), sweep_of("fake")) == ["m0"]


def test_a_sweep_that_was_tried_enough_is_let_go_and_no_dead_letter(app: App, letters: Letters) -> None:
    """A tick asks for a new one every minute."""
    done: list[str] = []
    assert run(app, letters, done.append, sweep_of("fake"), receives=SWEEP_TRIES) == []
    assert done == [sweep_of("fake")]
    assert run(app, letters, done.append, sweep_of("fake"), "other", receives=SWEEP_TRIES + 1) == []
    assert done == [sweep_of("fake"), "other"]
    assert not letters.buried
