"""Requests to one DynamoDB table: repeated when that helps, and never past the point where somebody else waits."""

from __future__ import annotations

import random
import re
import time
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from botocore import exceptions as boto

from push_pools.domain.errors import StoreUnavailable
from push_pools.stores.dynamodb_errors import TryAgain, explain
from push_pools.stores.dynamodb_items import Values, to_attributes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from push_pools.stores.dynamodb_items import Item

TRIES: Final = 6
"""How often a request is made that conflicts with another or is throttled: once, and five times more."""
OPEN_TRIES: Final = 3
"""How often a request is made that is not answered. Every write recognises its own effect."""
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.05, 1.0
BATCH: Final = 100
"""Most keys of a BatchGetItem."""
_NOTHING: Final[Values] = MappingProxyType({})
_REFERENCE: Final = re.compile(r"#(\w+)")


class Calls:
    """The operations of a boto3 client (or of what acts like one) on one table.

    The client makes each request once: which errors are worth another try is known here, and not in the library.
    """

    def __init__(
        self,
        client: Any,
        table: str,
        *,
        pause: Callable[[float], None] = time.sleep,
        jitter: random.Random | None = None,
    ) -> None:
        self._client, self.table, self._pause = client, table, pause
        self._jitter = jitter or random.Random()  # noqa: S311 - spreads retries, guards nothing

    def __call__(self, operation: str, **request: Any) -> dict[str, Any]:
        """Make a request until it is answered.

        Raises:
            Refused: A condition was not met.
            StoreUnavailable: It was not answered, or refused for another reason; the sentence says which.
        """
        refused = unanswered = 0
        while True:
            try:
                answer: dict[str, Any] = getattr(self._client, operation)(**request)
                return answer
            except (boto.ClientError, boto.BotoCoreError, boto.HTTPClientError) as error:
                meaning = explain(error, operation, self.table)
                if not isinstance(meaning, TryAgain):
                    raise meaning from error
                refused, unanswered = refused + 1, unanswered + meaning.is_open
                if refused >= TRIES or unanswered >= OPEN_TRIES:
                    why = f"DynamoDB table {self.table!r}: {operation} failed {refused} times, last with {meaning.code}"
                    raise StoreUnavailable(why) from error
                self.wait(refused)

    def wait(self, tries: int) -> None:
        """Pause after that many tries: a random part of a time that doubles, so that rivals do not meet again."""
        longest = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0**tries)
        self._pause(self._jitter.uniform(0, longest))

    # -- one item

    def get(self, key: Mapping[str, str]) -> Item | None:
        """Return the item with that key, as it is now."""
        answer = self("get_item", TableName=self.table, Key=to_attributes(key), ConsistentRead=True)
        return answer.get("Item")

    def put(self, item: Item, condition: str = "", values: Values = _NOTHING) -> None:
        """Write an item. When the condition is not met, `Refused` carries the one that is there."""
        self("put_item", TableName=self.table, Item=item, **_conditional(condition, values))

    def delete(self, key: Mapping[str, str], condition: str = "", values: Values = _NOTHING) -> None:
        """Remove an item. When the condition is not met, `Refused` carries the one that is there."""
        self("delete_item", TableName=self.table, Key=to_attributes(key), **_conditional(condition, values))

    # -- several

    def transact(self, writes: Sequence[dict[str, Any]], token: str) -> None:
        """Do all of the writes or none.

        A repeated request with the same token is done once (for ten minutes), so a lost answer costs nothing.
        """
        self("transact_write_items", TransactItems=list(writes), ClientRequestToken=token)

    def get_many(self, keys: Sequence[Mapping[str, str]]) -> list[Item]:
        """Return the items with those keys as they are now, in no order; what is not there is left out.

        Raises:
            StoreUnavailable: DynamoDB left some of them out again and again.
        """
        found: list[Item] = []
        for start in range(0, len(keys), BATCH):
            wanted: Any = [to_attributes(key) for key in keys[start : start + BATCH]]
            tries = 0
            while wanted:
                answer = self("batch_get_item", RequestItems={self.table: {"Keys": wanted, "ConsistentRead": True}})
                items = answer["Responses"].get(self.table, [])
                found += items
                wanted = answer.get("UnprocessedKeys", {}).get(self.table, {}).get("Keys", [])
                tries = 0 if items else tries + 1
                if wanted and tries >= TRIES:
                    raise StoreUnavailable(f"DynamoDB table {self.table!r}: {tries} reads in a row were throttled")
                if wanted:
                    self.wait(tries + 1)
        return found

    def query(self, condition: str, *, page: int | None = None, **options: Any) -> Iterator[Item]:
        """Yield what a key condition names, in order, reading `page` items first and larger pages then.

        `values` in the options are those of the expressions; `#name` in one means the attribute of that name.
        """
        for answer in self.pages(condition, page=page, **options):
            yield from answer["Items"]

    def pages(
        self, condition: str, *, values: Values, page: int | None = None, where: str = "", **options: Any
    ) -> Iterator[dict[str, Any]]:
        """Yield the answers of a query, as `query` does."""
        request: dict[str, Any] = {"TableName": self.table, "KeyConditionExpression": condition, **options}
        if where:
            request["FilterExpression"] = where
        request |= _references(f"{condition} {where} {options.get('ProjectionExpression', '')}", values)
        while True:
            if page is not None:
                request["Limit"] = page
                page = min(page * 4, 1000)
            answer = self("query", **request)
            yield answer
            if "LastEvaluatedKey" not in answer:
                return
            request["ExclusiveStartKey"] = answer["LastEvaluatedKey"]

    # -- parts of transactions

    def write(
        self,
        kind: str,
        condition: str = "",
        values: Values = _NOTHING,
        *,
        item: Item | None = None,
        key: Mapping[str, str] | None = None,
        update: str = "",
    ) -> dict[str, Any]:
        """Return one write of a transaction: `Put` an item, or `Delete` or `Update` the one with a key."""
        request: dict[str, Any] = {"TableName": self.table}
        if item is not None:
            request["Item"] = item
        if key is not None:
            request["Key"] = to_attributes(key)
        if update:
            request["UpdateExpression"] = update
        request |= _references(f"{update} {condition}", values)
        if condition:
            request |= {"ConditionExpression": condition, "ReturnValuesOnConditionCheckFailure": "ALL_OLD"}
        return {kind: request}


def _conditional(condition: str, values: Values) -> dict[str, Any]:
    if not condition:
        return {}
    return {
        "ConditionExpression": condition,
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        **_references(condition, values),
    }


def _references(expression: str, values: Values) -> dict[str, Any]:
    """Return the names and values of an expression. No attribute is written out in it: some are reserved words."""
    request: dict[str, Any] = {}
    if names := {f"#{name}": name for name in _REFERENCE.findall(expression)}:
        request["ExpressionAttributeNames"] = names
    if values:
        request["ExpressionAttributeValues"] = to_attributes({f":{name}": value for name, value in values.items()})
    return request
