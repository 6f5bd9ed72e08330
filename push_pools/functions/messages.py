"""A batch of queue messages: handled side by side, with partial failures, and ended before the deadline."""

from __future__ import annotations

import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, cast

from aws_lambda_powertools.utilities.batch import BasePartialBatchProcessor, EventType, process_partial_response

from push_pools.domain.errors import InvalidInput, StoreUnavailable
from push_pools.domain.events import Sweep, parse_event
from push_pools.functions.runtime import count, deadline_of, logger, owner_of
from push_pools.ports import Invocation
from push_pools.queues.sqs import MESSAGE_ID
from push_pools.services.handle import Fate, Outcome, deliver
from push_pools.services.sweep import coalesce
from push_pools.stores.read_once import ReadOnce

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aws_lambda_powertools.utilities.batch.types import PartialItemFailureResponse
    from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
    from aws_lambda_powertools.utilities.typing import LambdaContext

    from push_pools.ports import App, Store
    from push_pools.queues.sqs import SqsQueue
    from push_pools.services.handle import Handle

THREADS: Final = 10
"""How many messages of a batch are handled at once: while one waits for a cloud, others go on."""
LEAST_SECONDS: Final = 5.0
"""With less time left no message is begun; services that need more say so themselves (`OutOfTime`)."""
SWEEP_TRIES: Final = 3
"""How often a sweep is tried. Then it is let go: the next tick asks for another, and `doctor` tells when none ends."""


class GivenBack(Exception):
    """A message goes back to its queue; the reason is in the log already."""


class ConcurrentProcessor(BasePartialBatchProcessor):
    """Powertools' batch processor with a bounded pool of threads, and with an end before the deadline.

    It returns only when every message that was begun has ended: a thread that is frozen with the process would make
    its call hours later.
    """

    def __init__(self, threads: int = THREADS) -> None:
        super().__init__(EventType.SQS, raise_on_entire_batch_failure=False)
        self._threads = threads

    def process(self) -> list[tuple[Any, ...]]:
        """Handle every record, and return what powertools makes of each, in the order of the records."""
        with ThreadPoolExecutor(min(self._threads, max(len(self.records), 1))) as pool:
            return list(pool.map(self._process_record, self.records))

    def _process_record(self, record: dict[str, Any]) -> tuple[Any, ...]:
        data = self._to_batch_type(record, event_type=self.event_type)
        try:
            result = self.handler(record=data)
        except Exception:  # Whatever it is, its neighbours go on, and this one comes back.
            return self.failure_handler(record=data, exception=sys.exc_info())
        return self.success_handler(record=record, result=result)

    async def _async_process_record(self, record: dict[str, Any]) -> tuple[Any, ...]:
        raise NotImplementedError("records are handled by threads")


class Batch:
    """One invocation of a function that is fed by SQS."""

    def __init__(self, app: App, queue: SqsQueue, context: LambdaContext, handle: Handle | None = None) -> None:
        self._app, self._queue, self._context, self._handle = app, queue, context, handle
        self._deadline = deadline_of(context, app.real_clock.now())
        self._fates: Counter[Fate] = Counter()
        self._let_go: frozenset[str] = frozenset()

    def handle(self, event: dict[str, Any]) -> PartialItemFailureResponse:
        """Handle the records of an event and return those that are to come again."""
        self._let_go = _unneeded_sweeps(event.get("Records", []))
        answer = process_partial_response(
            event=event, record_handler=self._record, processor=ConcurrentProcessor(), context=self._context
        )
        failed = len(answer["batchItemFailures"])
        count("MessagesGivenBack", failed)
        count("MessagesDead", self._fates[Fate.DEAD])
        count("MessagesDone", self._fates[Fate.DONE])
        return answer

    def _record(self, record: SQSRecord) -> None:
        id_ = record.message_id
        if id_ in self._let_go:
            logger.info("sweep_let_go", extra={"message_id": id_})
            return
        if self._deadline - self._app.real_clock.now() < timedelta(seconds=LEAST_SECONDS):
            logger.warning("message_back", extra={"message_id": id_, "reason": "the invocation ends"})
            raise GivenBack(id_)
        given = record.message_attributes[MESSAGE_ID]
        first = given.string_value if given is not None else None
        receives = int(record.attributes.approximate_receive_count or 1)
        invocation = Invocation(owner_of(self._context, id_), self._deadline)
        app = replace(self._app, store=cast("Store", ReadOnce(self._app.store)))
        outcome = deliver(record.body, first or id_, receives, app, invocation, self._handle)
        self._end(record, first or id_, receives, outcome)

    def _end(self, record: SQSRecord, first_id: str, receives: int, outcome: Outcome) -> None:
        if outcome.fate is Fate.BACK:
            raise GivenBack(record.message_id)
        if outcome.fate is Fate.DEAD:
            try:
                self._queue.bury(
                    record.body,
                    outcome.reason,
                    message_id=first_id,
                    queue=record.event_source_arn,
                    receives=receives,
                )
            except StoreUnavailable as error:
                logger.warning("not_buried", extra={"message_id": record.message_id, "reason": str(error)})
                raise GivenBack(record.message_id) from error
        self._fates[outcome.fate] += 1


def _unneeded_sweeps(records: Sequence[Mapping[str, Any]]) -> frozenset[str]:
    """Return the ids of the sweeps that others of the batch make needless, and of those that were tried enough."""
    sweeps: dict[str, Sweep] = {}
    tried: set[str] = set()
    for record in records:
        id_, body = str(record["messageId"]), str(record["body"])
        if '"sweep"' in body and isinstance(asked := _parsed(body, id_), Sweep):
            sweeps[id_] = asked
            if int(record["attributes"].get("ApproximateReceiveCount", 1)) > SWEEP_TRIES:
                tried.add(id_)
    fresh = {id_: asked for id_, asked in sweeps.items() if id_ not in tried}
    return frozenset(sweeps.keys() - coalesce(fresh))


def _parsed(body: str, id_: str) -> object:
    try:
        return parse_event(body, envelope_id=id_).event
    except InvalidInput:
        return None  # Whoever handles it says what is wrong with it.
