"""The queues of the AWS hosting: two for each pool type, and one for the dead letters of all.

Which queue a message goes to follows from the message. What acts on a cloud (`submit`, `stop`, `chores`) goes to
`<prefix>submit-<platform>`, so that one cloud's quota does not hold up another; what learns from it (`sweep`, and the
cloud's own events, by rules) to `<prefix>poll-<platform>`. Any submit function takes what names no platform.

A message that can never be handled is sent to `<prefix>dead-letters` by us, with the reason beside it; one that SQS
itself moves there, because it came back too often, has none. The first id of a message goes with it, because it may
name the run of an event: replayed, it still is the same run.
"""

from __future__ import annotations

import itertools
import json
import re
import threading
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import ClientError

from push_pools.domain.errors import InvalidInput, NotFound, StoreUnavailable
from push_pools.domain.events import MAX_EVENT_BYTES
from push_pools.domain.pools import platform_slug
from push_pools.ports import DeadLetter
from push_pools.queues.aws_calls import code_of, failing_as

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import (
        MessageAttributeValueTypeDef,
        MessageTypeDef,
        SendMessageBatchRequestEntryTypeDef,
    )

MAX_DELAY_SECONDS: Final = 900
"""The longest delay of SQS; the services leave what is further away to the tick."""
BATCH: Final = 10
"""Most messages of one call."""
PEEK_SECONDS: Final = 30
"""How long the dead letters are hidden from others while they are read."""
MAX_PEEKS: Final = 200
"""Most calls to read the dead letters; those beyond show when others have gone."""
FLUSH_AT: Final = BATCH
"""How many collected messages are sent although nobody has asked for it yet: few are lost with a process that dies."""
DEFAULT_PLATFORM: Final = "ecs:push"
"""Whose submit queue takes what names no pool type."""
REASON, MESSAGE_ID, QUEUE, RECEIVES = "reason", "message_id", "queue", "receives"
"""The message attributes that stand beside a dead letter."""
MAX_REASON: Final = 2000
_HEAD: Final = re.compile(
    r'\{"version":1,"type":"(?:submit|stop|chores)","run_id":"[0-9a-f-]{36}","platform":"([^"\\]+)"\}'
)
"""A hint as `domain.events.hint` writes it; others are read as JSON."""


@dataclass(frozen=True)
class Route:
    """Where a message goes: the work it is, and the pool type it is for."""

    work: str
    """`submit` or `poll`."""
    platform: str

    @property
    def queue(self) -> str:
        """Name of the queue, behind the installation's prefix."""
        return f"{self.work}-{platform_slug(self.platform)}"


def route_of(body: str, default: str = DEFAULT_PLATFORM) -> Route:
    """Return where a message goes; one that cannot be read goes where it is found to be unreadable."""
    if match := _HEAD.fullmatch(body):
        return Route("submit", match[1])
    try:
        value = json.loads(body)
    except ValueError:
        value = None
    message = value if isinstance(value, dict) else {}
    platform = message.get("platform")
    work = "poll" if message.get("type") == "sweep" else "submit"
    return Route(work, platform if isinstance(platform, str) and platform else default)


class SqsQueue:
    """Implements `ports.Queue` and `ports.DeadLetters` over the queues whose names begin with a prefix.

    `client` may be shared between threads.
    """

    def __init__(self, client: SQSClient, prefix: str, *, default_platform: str = DEFAULT_PLATFORM) -> None:
        self._client, self._prefix, self._default = client, prefix, default_platform
        self._urls: dict[str, str] = {}

    # -- sending

    def send(self, body: str, *, delay_seconds: float = 0.0) -> None:
        """Send a message to the queue that it belongs to.

        Raises:
            StoreUnavailable: It was not kept, or it is not known that it was.
            InvalidInput: It is larger than an event may be.
        """
        name = route_of(_checked(body), self._default).queue
        with self._sending(name):
            self._client.send_message(QueueUrl=self._url(name), MessageBody=body, DelaySeconds=_delay(delay_seconds))

    def send_all(self, messages: Sequence[tuple[str, float]]) -> None:
        """Send messages, each with its delay in seconds, ten at a time.

        Raises:
            StoreUnavailable: Some were not kept; the others were.
            InvalidInput: One is larger than an event may be; none was sent.
        """
        by_queue: dict[str, list[tuple[str, float]]] = defaultdict(list)
        for body, delay_seconds in messages:
            by_queue[route_of(_checked(body), self._default).queue].append((body, delay_seconds))
        lost: list[str] = []
        for name, listed in by_queue.items():
            for batch in _batches(listed):
                try:
                    lost += self._send_batch(name, batch)
                except StoreUnavailable as error:
                    lost += [str(error)] * len(batch)
        if lost:
            raise StoreUnavailable(f"{len(lost)} of {len(messages)} messages were not sent: {lost[0]}")

    def _send_batch(self, name: str, batch: Sequence[tuple[str, float]]) -> list[str]:
        entries: list[SendMessageBatchRequestEntryTypeDef] = [
            {"Id": str(number), "MessageBody": body, "DelaySeconds": _delay(delay)}
            for number, (body, delay) in enumerate(batch)
        ]
        with self._sending(name):
            answer = self._client.send_message_batch(QueueUrl=self._url(name), Entries=entries)
        return [f"{each['Code']}: {each.get('Message', '')}" for each in answer.get("Failed", [])]

    def bury(self, body: str, reason: str, *, message_id: str, queue: str, receives: int) -> None:
        """Put a message that can never be handled among the dead letters. The caller acknowledges it.

        `queue` is the full name, or ARN, of the queue that it came from.

        Raises:
            StoreUnavailable: It is not known to be there; give the message back.
        """
        attributes = {
            REASON: _printable(reason),
            MESSAGE_ID: message_id,
            QUEUE: queue.rpartition(":")[2],
            RECEIVES: str(receives),
        }
        with self._sending("dead-letters"):
            self._client.send_message(
                QueueUrl=self._url("dead-letters"), MessageBody=body, MessageAttributes=_attributes(attributes)
            )

    def _sending(self, name: str) -> Any:
        return failing_as(StoreUnavailable, f"the queue {self._prefix}{name} did not take a message")

    def _url(self, name: str) -> str:
        """Return a queue's URL, asked for once. A queue that is not there is named.

        Raises:
            StoreUnavailable: There is no such queue.
        """
        if name not in self._urls:
            full = f"{self._prefix}{name}"
            try:
                self._urls[name] = self._client.get_queue_url(QueueName=full)["QueueUrl"]
            except ClientError as error:
                if code_of(error) in {"QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue"}:
                    fix = "make it (see docs/aws.md), or correct PUSH_POOLS_AWS_QUEUE_PREFIX"
                    raise StoreUnavailable(f"there is no queue {full!r}; {fix}") from error
                raise
        return self._urls[name]

    # -- dead letters

    def dead_letters(self) -> Sequence[DeadLetter]:
        """Return the dead letters, newest first. Those that somebody else reads just now are not among them.

        Raises:
            StoreUnavailable: They cannot be read.
        """
        with self._peeking() as letters:
            return sorted((_letter(each) for each in letters), key=lambda each: (each.died_at, each.id), reverse=True)

    def replay(self, id_: str) -> None:
        """Put a dead letter back on the queue it came from.

        Raises:
            NotFound: There is no such dead letter, or somebody else reads it just now.
            StoreUnavailable: The queues cannot be reached; if it was sent and not removed, it is there twice.
        """
        with self._peeking() as letters:
            message = next((each for each in letters if each.get("MessageId") == id_), None)
            if message is None:
                raise NotFound("dead letter", id_, fix="see `push-pools dlq ls`")
            target, body = self._home_of(message), message.get("Body", "")
            kept = {MESSAGE_ID: _attribute(message, MESSAGE_ID) or id_}
            with self._sending(target):
                self._client.send_message(
                    QueueUrl=self._url(target), MessageBody=body, MessageAttributes=_attributes(kept)
                )
                self._client.delete_message(QueueUrl=self._url("dead-letters"), ReceiptHandle=message["ReceiptHandle"])

    def _home_of(self, message: MessageTypeDef) -> str:
        """Return the name, behind the prefix, of the queue that a dead letter came from."""
        arn = message.get("Attributes", {}).get("DeadLetterQueueSourceArn", "")
        name = _attribute(message, QUEUE) or arn.rpartition(":")[2]
        if name.startswith(self._prefix) and name != f"{self._prefix}dead-letters":
            return name.removeprefix(self._prefix)
        return route_of(message.get("Body", ""), self._default).queue

    def _peeking(self) -> _Peek:
        return _Peek(self._client, lambda: self._url("dead-letters"))


class _Peek:
    """The dead letters, hidden from others while one looks at them, and visible again afterwards."""

    def __init__(self, client: SQSClient, url: Any) -> None:
        self._client, self._url = client, url
        self._found: dict[str, MessageTypeDef] = {}

    def __enter__(self) -> Sequence[MessageTypeDef]:
        with failing_as(StoreUnavailable, "the dead letters cannot be read"):
            for _ in range(MAX_PEEKS):
                answer = self._client.receive_message(
                    QueueUrl=self._url(),
                    MaxNumberOfMessages=BATCH,
                    VisibilityTimeout=PEEK_SECONDS,
                    WaitTimeSeconds=0,
                    MessageSystemAttributeNames=["All"],
                    MessageAttributeNames=["All"],
                )
                fresh = {each["MessageId"]: each for each in answer.get("Messages", [])}
                if not fresh.keys() - self._found.keys():
                    break
                self._found.update(fresh)
        return list(self._found.values())

    def __exit__(self, *_: object) -> None:
        handles = [each["ReceiptHandle"] for each in self._found.values()]
        with failing_as(StoreUnavailable, "the dead letters stay hidden for half a minute"):
            for batch in _batches(handles):
                self._client.change_message_visibility_batch(
                    QueueUrl=self._url(),
                    Entries=[
                        {"Id": str(number), "ReceiptHandle": handle, "VisibilityTimeout": 0}
                        for number, handle in enumerate(batch)
                    ],
                )


class CollectedSends:
    """A queue that keeps what is sent, for `flush` to send ten at a time; for work that sends much, such as the tick.

    What is not flushed was never sent, which the ledger outlives: a lost hint only is a late one.
    """

    def __init__(self, queue: SqsQueue) -> None:
        self._queue = queue
        self._lock = threading.Lock()
        self._kept: list[tuple[str, float]] = []

    def send(self, body: str, *, delay_seconds: float = 0.0) -> None:
        """Keep a message for the next flush.

        Raises:
            InvalidInput: It is larger than an event may be.
        """
        with self._lock:
            self._kept.append((_checked(body), delay_seconds))
            full = len(self._kept) >= FLUSH_AT
        if full:
            self.flush()

    def send_all(self, messages: Sequence[tuple[str, float]]) -> None:
        """Keep messages, each with its delay in seconds, for the next flush.

        Raises:
            InvalidInput: One is larger than an event may be.
        """
        for body, delay_seconds in messages:
            self.send(body, delay_seconds=delay_seconds)

    def flush(self) -> int:
        """Send what was kept, and return how many.

        Raises:
            StoreUnavailable: Some were not kept by SQS; they are not sent again.
        """
        with self._lock:
            kept, self._kept = self._kept, []
        if kept:
            self._queue.send_all(kept)
        return len(kept)


def _letter(message: MessageTypeDef) -> DeadLetter:
    system = message.get("Attributes", {})
    receives = int(_attribute(message, RECEIVES) or system.get("ApproximateReceiveCount", "1"))
    reason = _attribute(message, REASON) or "it was handed out as often as its queue allows, without success"
    died_at = datetime.fromtimestamp(int(system.get("SentTimestamp", "0")) / 1000, UTC)
    return DeadLetter(message["MessageId"], message.get("Body", ""), reason, receives, died_at)


def _attribute(message: MessageTypeDef, name: str) -> str | None:
    found = message.get("MessageAttributes", {}).get(name)
    return found.get("StringValue") if found is not None else None


def _attributes(values: Mapping[str, str]) -> dict[str, MessageAttributeValueTypeDef]:
    return {name: {"DataType": "String", "StringValue": value} for name, value in values.items() if value}


def _printable(text: str) -> str:
    # What SQS refuses in an attribute are the characters that XML 1.0 does.
    return re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "�", text)[:MAX_REASON] or "?"


def _checked(body: str) -> str:
    if len(body) * 4 > MAX_EVENT_BYTES and (size := len(body.encode(errors="surrogatepass"))) > MAX_EVENT_BYTES:
        raise InvalidInput(
            f"the message has {size} bytes; at most {MAX_EVENT_BYTES} are taken, so put large input in a store and "
            "pass a reference to it"
        )
    return body


def _delay(seconds: float) -> int:
    # Rounded up: a message that comes too early is only sent again.
    return min(max(-int(-seconds // 1), 0), MAX_DELAY_SECONDS)


def _batches(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in itertools.count(0, BATCH):
        batch = items[start : start + BATCH]
        if not batch:
            return
        yield batch
