"""The queues of the AWS hosting, on a real SQS API: where messages go, and what becomes of dead letters."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from push_pools.domain.errors import InvalidInput, NotFound, StoreUnavailable
from push_pools.domain.events import Admit, Sweep, hint
from push_pools.queues.sqs import CollectedSends, SqsQueue, route_of
from tests.aws.installation import Installation, install

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.aws.ministack import Ministack

RUN = UUID(int=5)
EVENT = '{"version":1,"type":"scheduled-run","deployment":"report/hourly"}'


@pytest.fixture(scope="module")
def module_installation(ministack: Ministack) -> Installation:
    return install(ministack, visibility_seconds=0, max_receives=3)


@pytest.fixture
def at(module_installation: Installation) -> Installation:
    """An installation whose queues are empty."""
    for name in ("submit-ecs", "poll-ecs", "dead-letters"):
        take(module_installation, name)
    return module_installation


@pytest.fixture
def queue(at: Installation) -> SqsQueue:
    return SqsQueue(at.sqs, at.prefix)


def take(at: Installation, name: str) -> list[dict[str, Any]]:
    """Take all visible messages of a queue."""
    found: list[dict[str, Any]] = []
    while True:
        answer = at.sqs.receive_message(
            QueueUrl=at.urls[name],
            MaxNumberOfMessages=10,
            VisibilityTimeout=60,
            MessageSystemAttributeNames=["All"],
            MessageAttributeNames=["All"],
        )
        messages = answer.get("Messages", [])
        if not messages:
            return found
        for message in messages:
            at.sqs.delete_message(QueueUrl=at.urls[name], ReceiptHandle=message["ReceiptHandle"])
        found += messages


def bodies(at: Installation, name: str) -> list[str]:
    return sorted(message["Body"] for message in take(at, name))


# -- where messages go


@pytest.mark.parametrize(
    ("body", "queue"),
    [
        (hint("submit", RUN, "ecs:push"), "submit-ecs"),
        (hint("stop", RUN, "cloud-run-v2:push"), "submit-cloud-run"),
        (hint("chores", RUN, "azure-container-instance:push"), "submit-aci"),
        (hint("submit", RUN, "acme:push"), "submit-acme-push"),
        (hint("submit", RUN), "submit-ecs"),
        (Sweep(platform="cloud-run-v2:push").to_json(), "poll-cloud-run"),
        (Sweep(platform="ecs:push", shard=3).to_json(), "poll-ecs"),
        (Admit(work_pool="nightly").to_json(), "submit-ecs"),
        (EVENT, "submit-ecs"),
        ('{"platform": "cloud-run-v2:push", "type": "stop", "version": 1}', "submit-cloud-run"),
        ('{"messageId":"1","body":"{}"}', "submit-ecs"),
        ("{", "submit-ecs"),
        ("[1]", "submit-ecs"),
        ('{"type":"sweep","platform":7}', "poll-ecs"),
    ],
)
def test_a_message_goes_where_it_says(body: str, queue: str) -> None:
    assert route_of(body).queue == queue


def test_what_is_sent_arrives(queue: SqsQueue, at: Installation) -> None:
    sweep = Sweep(platform="ecs:push").to_json()
    queue.send(hint("submit", RUN, "ecs:push"))
    queue.send(sweep)
    assert bodies(at, "submit-ecs") == [hint("submit", RUN, "ecs:push")]
    assert bodies(at, "poll-ecs") == [sweep]


def test_many_are_sent_in_tens(queue: SqsQueue, at: Installation) -> None:
    sent = [(hint("submit", UUID(int=n), "ecs:push"), 0.0) for n in range(23)]
    calls: list[int] = []
    at.sqs.meta.events.register(
        "before-call.sqs.SendMessageBatch", lambda params, **_: calls.append(1), unique_id="count"
    )
    queue.send_all([*sent, (Sweep(platform="ecs:push").to_json(), 0.0)])
    at.sqs.meta.events.unregister("before-call.sqs.SendMessageBatch", unique_id="count")
    assert bodies(at, "submit-ecs") == sorted(body for body, _ in sent)
    assert len(bodies(at, "poll-ecs")) == 1
    assert len(calls) == 4


def test_collected_messages_are_sent_by_a_flush_or_when_they_are_many(
    queue: SqsQueue, at: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("push_pools.queues.sqs.FLUSH_AT", 5)
    sends = CollectedSends(queue)
    for number in range(7):
        sends.send(hint("submit", UUID(int=number), "ecs:push"))
    assert len(bodies(at, "submit-ecs")) == 5
    assert sends.flush() == 2
    assert len(bodies(at, "submit-ecs")) == 2
    assert sends.flush() == 0


@pytest.mark.parametrize(("asked", "sent"), [(0.0, 0), (-3.0, 0), (0.2, 1), (59.0, 59), (899.5, 900), (5000.0, 900)])
def test_delays_are_whole_seconds_of_at_most_900(asked: float, sent: int) -> None:
    client = Recorder()
    SqsQueue(client, "x-").send(EVENT, delay_seconds=asked)  # type: ignore[arg-type]
    SqsQueue(client, "x-").send_all([(EVENT, asked)])  # type: ignore[arg-type]
    assert client.delays == [sent, sent]


class Recorder:
    """Takes messages, or fails as it is told."""

    def __init__(self, failed: list[dict[str, str]] | None = None) -> None:
        self.delays: list[int] = []
        self.failed = failed or []

    def get_queue_url(self, QueueName: str) -> dict[str, str]:
        return {"QueueUrl": QueueName}

    def send_message(self, **message: Any) -> None:
        self.delays.append(message["DelaySeconds"])

    def send_message_batch(self, *, QueueUrl: str, Entries: list[dict[str, Any]]) -> dict[str, Any]:
        self.delays += [entry["DelaySeconds"] for entry in Entries]
        return {"Failed": self.failed}


def test_a_part_of_a_batch_that_fails_is_told() -> None:
    client = Recorder([{"Id": "0", "Code": "InternalError", "Message": "try again"}])
    with pytest.raises(StoreUnavailable, match="1 of 1 messages were not sent: InternalError: try again"):
        SqsQueue(client, "x-").send_all([(EVENT, 0.0)])  # type: ignore[arg-type]


def test_a_message_that_is_too_large_is_refused_before_it_is_sent(queue: SqsQueue, at: Installation) -> None:
    body = json.dumps({"x": "ä" * 140_000}, ensure_ascii=False)
    for send in (queue.send, CollectedSends(queue).send):
        with pytest.raises(InvalidInput, match="the message has 280009 bytes; at most 262144 are taken"):
            send(body)
    assert not bodies(at, "submit-ecs")


def test_a_queue_that_is_not_there_is_named(at: Installation) -> None:
    with pytest.raises(StoreUnavailable, match=r"no queue 'nope-submit-ecs'; .* PUSH_POOLS_AWS_QUEUE_PREFIX"):
        SqsQueue(at.sqs, "nope-").send(EVENT)


def test_an_sqs_that_is_away_keeps_the_message(ministack: Ministack) -> None:
    away = ministack.client("sqs")
    away.meta.events.register("before-send.sqs", _break)
    queue = SqsQueue(away, "x-")
    calls: tuple[Callable[[], object], ...] = (
        lambda: queue.send(EVENT),
        lambda: queue.send_all([(EVENT, 0.0)]),
        queue.dead_letters,
    )
    for call in calls:
        with pytest.raises(StoreUnavailable, match=r"(did not take|cannot be read|were not sent)"):
            call()


def _break(request: Any, **_: Any) -> Any:
    from botocore.exceptions import EndpointConnectionError

    raise EndpointConnectionError(endpoint_url=request.url)


# -- dead letters


def test_a_buried_message_is_listed_with_its_reason(queue: SqsQueue, at: Installation) -> None:
    queue.bury("{", "the event is not JSON\x00", message_id="first", queue=at.arns["submit-ecs"], receives=2)
    (letter,) = queue.dead_letters()
    assert (letter.body, letter.reason, letter.receives) == ("{", "the event is not JSON�", 2)
    assert letter.died_at.year >= 2026
    assert queue.dead_letters() == [letter]  # It is visible again at once.


def test_more_dead_letters_than_one_call_brings(queue: SqsQueue, at: Installation) -> None:
    for number in range(25):
        queue.bury(f"bad {number}", "why", message_id=str(number), queue=at.arns["submit-ecs"], receives=1)
    assert {letter.body for letter in queue.dead_letters()} == {f"bad {number}" for number in range(25)}


def test_a_replayed_letter_goes_home_and_keeps_its_first_id(queue: SqsQueue, at: Installation) -> None:
    for name in ("submit-ecs", "poll-ecs"):
        queue.bury(f"to {name}", "why", message_id=f"first of {name}", queue=at.arns[name], receives=1)
    for letter in queue.dead_letters():
        queue.replay(letter.id)
    assert not queue.dead_letters()
    for name in ("submit-ecs", "poll-ecs"):
        (message,) = take(at, name)
        assert message["Body"] == f"to {name}"
        assert message["MessageAttributes"]["message_id"]["StringValue"] == f"first of {name}"


def test_a_letter_that_sqs_moved_has_no_reason_and_goes_home_too(queue: SqsQueue, at: Installation) -> None:
    queue.send(Sweep(platform="ecs:push").to_json())
    first = ""
    for _ in range(4):  # One more than its queue allows.
        answer = at.sqs.receive_message(QueueUrl=at.urls["poll-ecs"], VisibilityTimeout=0)
        first = next((message["MessageId"] for message in answer.get("Messages", [])), first)
    (letter,) = queue.dead_letters()
    assert letter.id == first
    assert letter.reason == "it was handed out as often as its queue allows, without success"
    assert letter.receives >= 3
    queue.replay(letter.id)
    (message,) = take(at, "poll-ecs")
    assert message["MessageAttributes"]["message_id"]["StringValue"] == first


def test_a_letter_that_is_not_there(queue: SqsQueue) -> None:
    with pytest.raises(NotFound, match="dead letter 'nope' does not exist; see `push-pools dlq ls`"):
        queue.replay("nope")
