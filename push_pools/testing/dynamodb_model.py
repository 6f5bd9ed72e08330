"""DynamoDB in memory, as far as the ledger uses it: the operations of a boto3 client, and their failures on demand.

It needs no sockets and no process, so that a simulation makes thousands of requests in a second. What it answers is
compared, request by request, with another implementation of DynamoDB by the tests. What the ledger does not use is
refused rather than guessed.
"""

from __future__ import annotations

import bisect
import json
import threading
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import ClientError, ConnectTimeoutError, ReadTimeoutError

from push_pools.testing.dynamodb_expressions import (
    InvalidExpression,
    Item,
    References,
    Value,
    check_used,
    condition,
    holds,
    key_values,
    order,
    updated,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

MAX_ITEM_BYTES: Final = 400 * 1024
MAX_PAGE_BYTES: Final = 1024 * 1024
MAX_TRANSACTION_ITEMS: Final = 100
MAX_TRANSACTION_BYTES: Final = 4 * 1024 * 1024
MAX_BATCH_KEYS: Final = 100
TOKEN_SECONDS: Final = 600.0
_INDEX_ENTRY = tuple[Any, bytes, bytes]


class Fault(Enum):
    """What goes wrong with a request."""

    NOT_SENT = "no connection; nothing is done"
    LOST = "done, but the answer is lost"
    LATE = "the answer is lost, and it is done when `land` is called"
    SERVER_ERROR = "status 500; nothing is done"
    DONE_SERVER_ERROR = "status 500, although it is done"
    THROTTLED = "too much at once; nothing is done"
    CONFLICT = "another transaction writes an item at this moment; nothing is done"


@dataclass
class _Index:
    name: str
    partition: str
    sort: str
    projection: Mapping[str, Any]
    places: dict[Any, list[_INDEX_ENTRY]] = field(default_factory=dict)
    entries: dict[tuple[str, str], Item] = field(default_factory=dict)
    """What of each item is in the index, by the table's key."""

    def entry(self, item: Item | None, keys: Sequence[str]) -> Item | None:
        """Return what of an item the index holds; nothing, if it lacks a key of the index."""
        if item is None or self.partition not in item or self.sort not in item:
            return None
        if self.projection["ProjectionType"] == "ALL":
            return item
        kept = {*keys, self.partition, self.sort, *self.projection.get("NonKeyAttributes", ())}
        return {name: value for name, value in item.items() if name in kept}

    def apply(self, key: tuple[str, str], entry: Item | None) -> None:
        """Make an item's entry the one in the index."""
        old = self.entries.pop(key, None)
        if old is not None:
            places = self.places[order(old[self.partition])]
            del places[bisect.bisect_left(places, self._place(key, old))]
        if entry is not None:
            self.entries[key] = entry
            bisect.insort(self.places.setdefault(order(entry[self.partition]), []), self._place(key, entry))

    def _place(self, key: tuple[str, str], entry: Item) -> _INDEX_ENTRY:
        return (order(entry[self.sort]), key[0].encode(), key[1].encode())


@dataclass
class _Table:
    keys: tuple[str, str]
    types: Mapping[str, str]
    indexes: dict[str, _Index]
    items: dict[str, dict[str, Item]] = field(default_factory=dict)
    sorted: dict[str, list[bytes]] = field(default_factory=dict)
    pending: deque[tuple[tuple[str, str], Item | None]] = field(default_factory=deque)
    """Changes that the indexes do not show yet, oldest first."""

    def get(self, key: tuple[str, str]) -> Item | None:
        return self.items.get(key[0], {}).get(key[1])

    def set(self, key: tuple[str, str], item: Item | None) -> None:
        collection, places = self.items.setdefault(key[0], {}), self.sorted.setdefault(key[0], [])
        place = key[1].encode()
        if item is None:
            if collection.pop(key[1], None) is None:
                return
            del places[bisect.bisect_left(places, place)]
        else:
            if key[1] not in collection:
                bisect.insort(places, place)
            collection[key[1]] = item
        self.pending.append((key, item))

    def catch_up(self, lag: int) -> None:
        """Let the indexes show all changes but the newest."""
        while len(self.pending) > lag:
            key, item = self.pending.popleft()
            for index in self.indexes.values():
                index.apply(key, index.entry(item, self.keys))


class DynamoModel:
    """What a boto3 client for DynamoDB does, with tables in memory. It is safe to share between threads."""

    def __init__(self, *, seconds: Callable[[], float] = time.monotonic) -> None:
        self.calls: Counter[str] = Counter()
        """How many requests were made, by operation, those that failed included."""
        self.write_units = 0.0
        """What the writes cost, in write request units: of the table and its indexes, failed conditions included."""
        self.read_units = 0.0
        """What the reads cost, in read request units."""
        self.fault: Callable[[str, Mapping[str, Any]], Fault | None] = lambda operation, request: None
        """Asked for every request of the ledger what goes wrong with it."""
        self.index_lag: Callable[[], int] = lambda: 0
        """Asked for every query of an index how many of the newest changes it does not show."""
        self._seconds = seconds
        self._lock = threading.RLock()
        self._tables: dict[str, _Table] = {}
        self._tokens: dict[str, tuple[float, str]] = {}
        self._late: list[Callable[[], Any]] = []

    def land(self) -> int:
        """Do the requests that are late, in the order in which they were made; return how many there were."""
        with self._lock:
            late, self._late = self._late, []
            for act in late:
                _quietly(act)
            return len(late)

    # -- tables

    def create_table(self, **request: Any) -> dict[str, Any]:
        """Make a table that is there at once."""
        types = {each["AttributeName"]: each["AttributeType"] for each in request["AttributeDefinitions"]}
        indexes = {
            each["IndexName"]: _Index(each["IndexName"], *_key_names(each), each["Projection"])
            for each in request.get("GlobalSecondaryIndexes", ())
        }
        with self._lock:
            if request["TableName"] in self._tables:
                raise _error("CreateTable", "ResourceInUseException", f"Table already exists: {request['TableName']}")
            self._tables[request["TableName"]] = _Table(_key_names(request), types, indexes)
        return {"TableDescription": {"TableName": request["TableName"], "TableStatus": "ACTIVE"}}

    def delete_table(self, **request: Any) -> dict[str, Any]:
        """Remove a table."""
        with self._lock:
            self._table("DeleteTable", request)
            del self._tables[request["TableName"]]
        return {}

    def update_time_to_live(self, **request: Any) -> dict[str, Any]:
        """Accept the setting. Nothing expires here."""
        self._table("UpdateTimeToLive", request)
        return {"TimeToLiveSpecification": request["TimeToLiveSpecification"]}

    def get_waiter(self, name: str) -> DynamoModel:
        """Return something to wait with."""
        assert name == "table_exists"
        return self

    def wait(self, **request: Any) -> None:
        """Find that the table is there."""
        self._table("DescribeTable", request)

    def close(self) -> None:
        """Nothing is open."""

    # -- one item

    def get_item(self, **request: Any) -> dict[str, Any]:
        """Read an item."""
        return self._faulty("get_item", request, lambda: self._get_item(request))

    def _get_item(self, request: Mapping[str, Any]) -> dict[str, Any]:
        table = self._table("GetItem", request)
        item = table.get(self._key("GetItem", table, request["Key"]))
        self._read(_size(item), consistent=bool(request.get("ConsistentRead")))
        return {} if item is None else {"Item": _copy(item)}

    def put_item(self, **request: Any) -> dict[str, Any]:
        """Write an item."""
        return self._faulty("put_item", request, lambda: self._write_one("PutItem", "Put", request))

    def delete_item(self, **request: Any) -> dict[str, Any]:
        """Remove an item."""
        return self._faulty("delete_item", request, lambda: self._write_one("DeleteItem", "Delete", request))

    def update_item(self, **request: Any) -> dict[str, Any]:
        """Change an item, or make it."""
        return self._faulty("update_item", request, lambda: self._write_one("UpdateItem", "Update", request))

    def _write_one(self, operation: str, kind: str, request: Mapping[str, Any]) -> dict[str, Any]:
        write = self._write(operation, kind, request)
        if kind == "Put" and (problem := _problem(write)):
            raise _invalid(operation, problem[1])
        if not write.holds:
            self.write_units += _kilobytes(_size(write.before))
            extra: dict[str, Any] = (
                {"Item": _copy(write.before)} if _wants_old(request) and write.before is not None else {}
            )
            raise _error(operation, "ConditionalCheckFailedException", "The conditional request failed", **extra)
        if problem := _problem(write):
            raise _invalid(operation, problem[1])
        self._do(write, 1)
        wanted = request.get("ReturnValues", "NONE")
        if wanted == "ALL_NEW" and kind == "Update":
            return {"Attributes": _copy(write.after or {})}
        if wanted != "NONE":
            raise _invalid(operation, f"ReturnValues={wanted} is not known here")
        return {}

    # -- several

    def batch_get_item(self, **request: Any) -> dict[str, Any]:
        """Read items by their keys."""
        return self._faulty("batch_get_item", request, lambda: self._batch_get_item(request))

    def _batch_get_item(self, request: Mapping[str, Any]) -> dict[str, Any]:
        responses: dict[str, list[Item]] = {}
        for name, wanted in request["RequestItems"].items():
            table = self._table("BatchGetItem", {"TableName": name})
            keys = [self._key("BatchGetItem", table, key) for key in wanted["Keys"]]
            if not 1 <= len(keys) <= MAX_BATCH_KEYS:
                raise _invalid("BatchGetItem", "Too many items requested for the BatchGetItem call")
            if len(set(keys)) < len(keys):
                raise _invalid("BatchGetItem", "Provided list of item keys contains duplicates")
            found = [table.get(key) for key in keys]
            for item in found:
                self._read(_size(item), consistent=bool(wanted.get("ConsistentRead")))
            responses[name] = [_copy(item) for item in found if item is not None]
        return {"Responses": responses, "UnprocessedKeys": {}}

    def transact_write_items(self, **request: Any) -> dict[str, Any]:
        """Do all writes or none."""
        return self._faulty("transact_write_items", request, lambda: self._transact(request))

    def _transact(self, request: Mapping[str, Any]) -> dict[str, Any]:
        operation, actions = "TransactWriteItems", request["TransactItems"]
        if not 1 <= len(actions) <= MAX_TRANSACTION_ITEMS:
            raise _invalid(operation, f"Member must have length less than or equal to {MAX_TRANSACTION_ITEMS}")
        signature = json.dumps(actions, default=lambda value: value.hex(), sort_keys=True)
        if len(signature) > MAX_TRANSACTION_BYTES:
            raise _invalid(operation, "Transaction request exceeds the 4MB transaction size limit")
        if self._is_repeated(request.get("ClientRequestToken"), signature):
            return {}
        writes = [self._write(operation, kind, body) for action in actions for kind, body in action.items()]
        targets = [(id(write.table), write.key) for write in writes]
        if len(set(targets)) < len(targets):
            raise _invalid(operation, "Transaction request cannot include multiple operations on one item")
        problems = [_problem(write) for write in writes]
        for problem in problems:
            if problem is not None and not problem[0]:
                raise _invalid(operation, problem[1])
        if any(problems):
            raise _cancelled([{"Code": "ValidationError" if each else "None"} for each in problems])
        if not all(write.holds for write in writes):
            raise _cancelled([_reason(write) for write in writes])
        for write in writes:
            self._do(write, 2)
        if token := request.get("ClientRequestToken"):
            self._tokens[token] = (self._seconds(), signature)
        return {}

    def _is_repeated(self, token: str | None, signature: str) -> bool:
        if token is None or token not in self._tokens:
            return False
        done_at, before = self._tokens[token]
        if self._seconds() - done_at >= TOKEN_SECONDS:
            del self._tokens[token]
            return False
        if before != signature:
            raise _error("TransactWriteItems", "IdempotentParameterMismatchException", "Request token already in use")
        return True

    # -- queries

    def query(self, **request: Any) -> dict[str, Any]:
        """Read a collection of items in order."""
        return self._faulty("query", request, lambda: self._query(request))

    def _query(self, request: Mapping[str, Any]) -> dict[str, Any]:
        table, references = self._table("Query", request), _references(request)
        index, where = request.get("IndexName"), request.get("FilterExpression", "")
        if unknown := set(request) - _QUERY:
            raise _invalid("Query", f"{sorted(unknown)} are not known here")
        check_used(references, request["KeyConditionExpression"], where)
        if index is not None and index not in table.indexes:
            raise _invalid("Query", f"The table does not have the specified index: {index}")
        if index is not None and request.get("ConsistentRead"):
            raise _invalid("Query", "Consistent reads are not supported on global secondary indexes")
        if index is not None:
            table.catch_up(self.index_lag())
        entries = self._in_order(table, index, request, references)
        page: list[Item] = []
        size, last = 0, None
        for entry in entries:
            if page and size + _size(entry) > MAX_PAGE_BYTES:
                last = page[-1]
                break
            page.append(entry)
            size += _size(entry)
            if len(page) >= request.get("Limit", MAX_PAGE_BYTES):
                last = entry
                break
        self._read(size, consistent=bool(request.get("ConsistentRead")))
        found = [e for e in page if not where or holds(condition(where), e, references)]
        answer: dict[str, Any] = {"Count": len(found), "ScannedCount": len(page)}
        if request.get("Select") != "COUNT":
            answer["Items"] = [_copy(entry) for entry in found]
        if last is not None:
            names = {*table.keys, *((table.indexes[index].partition, table.indexes[index].sort) if index else ())}
            answer["LastEvaluatedKey"] = {name: dict(value) for name, value in last.items() if name in names}
        return answer

    def _in_order(
        self, table: _Table, index_name: str | None, request: Mapping[str, Any], references: References
    ) -> Iterator[Item]:
        index = table.indexes[index_name] if index_name else None
        partition, sort = (index.partition, index.sort) if index else table.keys
        node = condition(request["KeyConditionExpression"])
        equal, ranged, about = key_values(node, references)
        if partition not in equal or set(equal) - {partition, sort} or about not in ("", sort):
            raise _invalid("Query", f"Query condition missed key schema element: {partition}")
        for name, value in equal.items():
            if set(value) != {table.types[name]}:
                raise _invalid("Query", "Condition parameter type does not match schema type")
        _check_bounds(ranged, references)
        forward = request.get("ScanIndexForward", True)
        start = request.get("ExclusiveStartKey")
        for entry in self._places(table, index, equal[partition], start, forward):
            if holds(node, entry, references):
                yield entry
            elif ranged is not None and _is_past(ranged, entry, references, forward):
                return

    def _places(
        self, table: _Table, index: _Index | None, value: Value, start: Item | None, forward: bool
    ) -> Iterator[Item]:
        first, second = table.keys
        places: Sequence[Any]
        after: Any = None
        if index is None:
            places = table.sorted.get(value["S"], [])
            after = order(start[second]) if start else None
        else:
            places = index.places.get(order(value), [])
            after = (order(start[index.sort]), order(start[first]), order(start[second])) if start else None
        if forward:
            at = bisect.bisect_right(places, after) if after is not None else 0
            numbers: Any = range(at, len(places))
        else:
            at = bisect.bisect_left(places, after) if after is not None else len(places)
            numbers = range(at - 1, -1, -1)
        for number in numbers:
            place = places[number]
            if index is None:
                yield table.items[value["S"]][place.decode()]
            else:
                yield index.entries[place[1].decode(), place[2].decode()]

    # -- the parts of a write

    def _write(self, operation: str, kind: str, request: Mapping[str, Any]) -> _Write:
        """Return what a write would do, and whether its condition holds."""
        table, references = self._table(operation, request), _references(request)
        if unknown := set(request) - _WRITE:
            raise _invalid(operation, f"{sorted(unknown)} are not known here")
        expression, update = request.get("ConditionExpression", ""), request.get("UpdateExpression", "")
        key = self._key(operation, table, request["Item"] if kind == "Put" else request["Key"], whole=kind != "Put")
        before = table.get(key)
        try:
            check_used(references, expression, update)
            met = not expression or holds(condition(expression), before or {}, references)
            if kind == "Put":
                after: Item | None = _copy(request["Item"])
            elif kind == "Update":
                after = updated(update, before or _copy(request["Key"]), references) if met else before
            elif kind in ("Delete", "ConditionCheck"):
                after = None if kind == "Delete" else before
            else:
                raise _invalid(operation, f"{kind} is not known here")
        except InvalidExpression as error:
            raise _invalid(operation, str(error)) from error
        return _Write(table, key, before, after, met, _wants_old(request))

    def _do(self, write: _Write, times: int) -> None:
        size = max(_size(write.before), _size(write.after))
        self.write_units += times * _kilobytes(size)
        for index in write.table.indexes.values():
            keys = write.table.keys
            self.write_units += _index_units(index, index.entry(write.before, keys), index.entry(write.after, keys))
        if write.after is not write.before:
            write.table.set(write.key, write.after)

    # -- parts of requests

    def _faulty(self, operation: str, request: Mapping[str, Any], act: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Make a request, and let go wrong what shall."""
        name = "".join(part.capitalize() for part in operation.split("_"))
        with self._lock:
            self.calls[operation] += 1
            match self.fault(operation, request):
                case Fault.NOT_SENT:
                    raise ConnectTimeoutError(endpoint_url="https://dynamodb")
                case Fault.LATE:
                    self._late.append(act)
                    raise ReadTimeoutError(endpoint_url="https://dynamodb")
                case Fault.LOST:
                    _quietly(act)
                    raise ReadTimeoutError(endpoint_url="https://dynamodb")
                case Fault.DONE_SERVER_ERROR:
                    _quietly(act)
                    raise _error(name, "InternalServerError", "Internal server error", status=500)
                case Fault.SERVER_ERROR:
                    raise _error(name, "InternalServerError", "Internal server error", status=500)
                case Fault.THROTTLED | Fault.CONFLICT as fault:
                    raise _refused(name, request, fault)
                case _:
                    return act()

    def _table(self, operation: str, request: Mapping[str, Any]) -> _Table:
        table = self._tables.get(request["TableName"])
        if table is None:
            raise _error(operation, "ResourceNotFoundException", "Requested resource not found")
        return table

    def _key(self, operation: str, table: _Table, values: Item, *, whole: bool = True) -> tuple[str, str]:
        first, second = table.keys
        if (whole and set(values) != {first, second}) or any(set(values.get(k, {})) != {"S"} for k in table.keys):
            raise _invalid(operation, "The provided key element does not match the schema")
        key = (values[first]["S"], values[second]["S"])
        if not all(key):
            raise _invalid(operation, "The AttributeValue for a key attribute cannot contain an empty string value")
        if len(key[0].encode()) > 2048 or len(key[1].encode()) > 1024:
            raise _invalid(operation, "Size of hashkey or rangekey has exceeded the maximum size limit")
        return key

    def _read(self, size: int, *, consistent: bool) -> None:
        self.read_units += max(1, -(-size // 4096)) * (1.0 if consistent else 0.5)


@dataclass
class _Write:
    table: _Table
    key: tuple[str, str]
    before: Item | None
    after: Item | None
    holds: bool
    wants_old: bool


_WRITE: Final = frozenset(
    {
        "TableName",
        "Item",
        "Key",
        "ConditionExpression",
        "UpdateExpression",
        "ExpressionAttributeNames",
        "ExpressionAttributeValues",
        "ReturnValues",
        "ReturnValuesOnConditionCheckFailure",
    }
)
_QUERY: Final = frozenset(
    {
        "TableName",
        "IndexName",
        "KeyConditionExpression",
        "FilterExpression",
        "ExpressionAttributeNames",
        "ExpressionAttributeValues",
        "ConsistentRead",
        "ExclusiveStartKey",
        "Limit",
        "ScanIndexForward",
        "Select",
    }
)


def _key_names(request: Mapping[str, Any]) -> tuple[str, str]:
    first, second = (each["AttributeName"] for each in request["KeySchema"])
    return first, second


def _references(request: Mapping[str, Any]) -> References:
    return References(request.get("ExpressionAttributeNames", {}), request.get("ExpressionAttributeValues", {}))


def _wants_old(request: Mapping[str, Any]) -> bool:
    return bool(request.get("ReturnValuesOnConditionCheckFailure", "NONE") == "ALL_OLD")


def _problem(write: _Write) -> tuple[bool, str] | None:
    """Return what is wrong with an item, and whether it is the type of an index's key."""
    if write.after is None:
        return None
    if _size(write.after) > MAX_ITEM_BYTES:
        return False, "Item size has exceeded the maximum allowed size"
    for name, kind in write.table.types.items():
        if write.after.get(name, {}).get(kind, kind) in ("", b""):
            return False, f"The AttributeValue for a key attribute cannot be empty: {name}"
        if name in write.after and set(write.after[name]) != {kind}:
            return True, f"One or more parameter values were invalid: Type mismatch for {name}"
    return None


def _check_bounds(ranged: Any, references: References) -> None:
    if ranged is not None and ranged[0] == "between":
        low, high = references.value(ranged[2]), references.value(ranged[3])
        if order(low) > order(high):
            raise _invalid("Query", "The BETWEEN operator requires an upper bound that is not below the lower one")


def _is_past(ranged: Any, entry: Item, references: References, forward: bool) -> bool:
    """Whether what follows an entry that is outside a range is outside too."""
    match ranged, forward:
        case ("compare", "<" | "<=", _, _), True:
            return True
        case ("compare", ">" | ">=", _, _), False:
            return True
        case ("between", name, low, high), _:
            value = order(entry[references.name(name)])
            bound = order(references.value(high if forward else low))
            return bool(value > bound if forward else value < bound)
        case ("begins_with", name, prefix), _:
            value, start = order(entry[references.name(name)]), order(references.value(prefix))
            return bool(value > start if forward else value < start)
    return False


# -- answers -------------------------------------------------------------------


def _error(operation: str, code: str, message: str, *, status: int = 400, **extra: Any) -> ClientError:
    answer: Any = {
        "Error": {"Code": code, "Message": message},
        "ResponseMetadata": {"HTTPStatusCode": status},
        **extra,
    }
    return ClientError(answer, operation)


def _invalid(operation: str, message: str) -> ClientError:
    return _error(operation, "ValidationException", message)


def _reason(write: _Write) -> dict[str, Any]:
    if write.holds:
        return {"Code": "None"}
    found = {"Item": _copy(write.before)} if write.wants_old and write.before is not None else {}
    return {"Code": "ConditionalCheckFailed", "Message": "The conditional request failed", **found}


def _cancelled(reasons: Sequence[Mapping[str, Any]]) -> ClientError:
    codes = ", ".join(each["Code"] for each in reasons)
    message = f"Transaction cancelled, please refer cancellation reasons for specific reasons [{codes}]"
    return _error("TransactWriteItems", "TransactionCanceledException", message, CancellationReasons=list(reasons))


def _refused(operation: str, request: Mapping[str, Any], fault: Fault) -> ClientError:
    """Return the refusal of a request; of a transaction it is the first item that meets somebody else."""
    conflict = fault is Fault.CONFLICT
    if operation == "TransactWriteItems":
        code = "TransactionConflict" if conflict else "ThrottlingError"
        others: list[Mapping[str, Any]] = [{"Code": "None"}] * (len(request["TransactItems"]) - 1)
        return _cancelled([{"Code": code, "Message": code}, *others])
    if conflict and operation in ("PutItem", "UpdateItem", "DeleteItem"):
        return _error(operation, "TransactionConflictException", "Transaction is ongoing for the item")
    return _error(operation, "ThrottlingException", "Rate exceeded")


def _quietly(act: Callable[[], Any]) -> None:
    """Do what was asked for; whoever asked does not learn what came of it."""
    try:
        act()
    except ClientError:
        return


# -- sizes ---------------------------------------------------------------------


def _copy(item: Item) -> Item:
    return {name: dict(value) for name, value in item.items()}


def _size(item: Item | None) -> int:
    return sum(len(name.encode()) + _value_size(value) for name, value in (item or {}).items())


def _value_size(value: Value) -> int:
    ((kind, content),) = value.items()
    match kind:
        case "S":
            return len(content) if content.isascii() else len(content.encode())
        case "B":
            return len(content)
        case "N":
            digits = content.lstrip("-").strip("0")
            return 1 + -(-len(digits) // 2) + int(content.startswith("-"))
        case _:
            return 1


def _kilobytes(size: int) -> int:
    return max(1, -(-size // 1024))


def _index_units(index: _Index, before: Item | None, after: Item | None) -> float:
    """Return what a write costs in an index: nothing if its entry is the same, two if it moves to another place."""
    if before == after:
        return 0.0
    if before is None or after is None:
        return float(_kilobytes(_size(after or before)))
    if all(before[key] == after[key] for key in (index.partition, index.sort)):
        return float(_kilobytes(max(_size(before), _size(after))))
    return float(_kilobytes(_size(before)) + _kilobytes(_size(after)))
