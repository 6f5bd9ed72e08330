"""An SQS event source mapping: polls a queue, invokes a function with batches, and heeds partial batch responses.

A message that is neither done nor reported comes back when its visibility ends, as on AWS.
"""

from __future__ import annotations

import contextlib
import random
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from tests.aws.runtime_api import Fault

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.aws.runtime_api import Environment, Result

NO_FAULT: Final = Fault()


class Mapping:
    """Feeds a function from a queue, with one poller per environment, until it is stopped."""

    def __init__(
        self,
        client: Any,
        queue_url: str,
        queue_arn: str,
        environments: Sequence[Environment],
        *,
        batch: int = 10,
        fault: Callable[[], Fault] = lambda: NO_FAULT,
        throttled: Callable[[], bool] = lambda: False,
        duplicate: float = 0.0,
        seed: int = 0,
    ) -> None:
        self._client, self._url, self._arn, self._batch = client, queue_url, queue_arn, batch
        self._fault, self._throttled, self._duplicate = fault, throttled, duplicate
        self._random = random.Random(seed)
        self._stop = threading.Event()
        self.results: Counter[str] = Counter()
        self.failures: list[str] = []
        self.duplicates = 0
        self._threads = [
            threading.Thread(target=self._run, args=(each,), name=f"mapping-{each.name}", daemon=True)
            for each in environments
        ]

    def start(self) -> None:
        """Begin to poll."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Poll no more, and wait for the invocations in flight."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, environment: Environment) -> None:
        while not self._stop.is_set():
            try:
                self.once(environment)
            except Exception as error:
                self.failures.append(f"{type(error).__name__}: {error}")
                return

    def once(self, environment: Environment, *, wait_seconds: int = 1) -> Result | None:
        """Receive one batch and invoke the function with it; `None` when there was nothing, or it was throttled."""
        answer = self._client.receive_message(
            QueueUrl=self._url,
            MaxNumberOfMessages=self._batch,
            WaitTimeSeconds=wait_seconds,
            MessageSystemAttributeNames=["All"],
            MessageAttributeNames=["All"],
        )
        messages = answer.get("Messages", [])
        if not messages:
            return None
        if self._throttled():
            self.results["throttled"] += 1
            return None
        records = [self._record(message) for message in messages]
        again = [record for record in records if self._random.random() < self._duplicate]
        self.duplicates += len(again)
        result = environment.invoke({"Records": records}, self._fault())
        self.results[result.error or "ok"] += 1
        if result.error is None:
            self._delete(messages, result.answer)
        if again:  # SQS may deliver a message twice, also when it was deleted.
            self.results["again"] += 1
            environment.invoke({"Records": again}, self._fault())
        return result

    def _delete(self, messages: Sequence[Any], answer: Any) -> None:
        failed = {each["itemIdentifier"] for each in (answer or {}).get("batchItemFailures", [])}
        self.results["given back"] += len(failed)
        done = [message for message in messages if message["MessageId"] not in failed]
        if done:
            self._client.delete_message_batch(
                QueueUrl=self._url,
                Entries=[
                    {"Id": str(number), "ReceiptHandle": message["ReceiptHandle"]}
                    for number, message in enumerate(done)
                ],
            )
        for message in messages:
            if message["MessageId"] in failed:
                with contextlib.suppress(self._client.exceptions.ReceiptHandleIsInvalid):  # It is visible again.
                    self._client.change_message_visibility(
                        QueueUrl=self._url, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=0
                    )

    def _record(self, message: Any) -> dict[str, Any]:
        attributes = {
            name: {
                "stringValue": value.get("StringValue"),
                "dataType": value["DataType"],
                "stringListValues": [],
                "binaryListValues": [],
            }
            for name, value in message.get("MessageAttributes", {}).items()
        }
        return {
            "messageId": message["MessageId"],
            "receiptHandle": message["ReceiptHandle"],
            "body": message["Body"],
            "attributes": message["Attributes"],
            "messageAttributes": attributes,
            "md5OfBody": message["MD5OfBody"],
            "eventSource": "aws:sqs",
            "eventSourceARN": self._arn,
            "awsRegion": "eu-west-1",
        }
