"""The model of DynamoDB answers as another implementation of it does, request by request."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from botocore.exceptions import ClientError

from push_pools.stores.dynamodb_table import TABLE, create_table
from push_pools.testing.dynamodb_model import DynamoModel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.aws.ministack import Ministack

REQUESTS = 700
NAMES = ["PK", "SK", "shard", "wake_at", "part", "listed_key", "version", "taken", "slots", "is_counting", "body"]
REFERENCES = {f"#{name}": name for name in NAMES}
CONDITIONS = [
    "attribute_not_exists(#PK)",
    "attribute_exists(#PK)",
    "#version = :version",
    "attribute_not_exists(#PK) OR #version = :version",
    "(attribute_not_exists(#slots) OR #taken < #slots) AND NOT #is_counting = :true",
    "NOT #version <= :version AND begins_with(#body, :text)",
    "#version BETWEEN :low AND :version OR #body >= :text",
]
UPDATES = [
    "ADD #taken :change",
    "SET #version = :version, #taken = if_not_exists(#taken, :low) REMOVE #slots",
    "SET #slots = :version, #is_counting = :true",
    "REMOVE #wake_at, #part",
    "SET #wake_at = :version ADD #taken :change",
]
RANGES = ["", " AND {0} = :at", " AND {0} > :at", " AND {0} <= :at", " AND {0} BETWEEN :from AND :at"]


class Requests:
    """Random requests over few keys, so that they meet."""

    def __init__(self, seed: int, table: str) -> None:
        self.random, self.table = random.Random(seed), table

    def next(self) -> tuple[str, dict[str, Any]]:
        kinds = [
            self.put,
            self.update,
            self.delete,
            self.get,
            self.batch,
            self.transact,
            self.query,
            self.index,
            self.odd,
        ]
        return self.random.choices(kinds, [5, 4, 2, 2, 1, 5, 3, 4, 1])[0]()

    def key(self) -> dict[str, Any]:
        return {"PK": {"S": self.random.choice("pqr")}, "SK": {"S": self.random.choice(["a", "a#1", "b", "c", "é"])}}

    def item(self) -> dict[str, Any]:
        pick = self.random
        item = {**self.key(), "version": self.number(), "body": {"S": pick.choice(["x", "xy", "z" * 3000])}}
        if pick.random() < 0.7:
            item |= {"shard": {"S": pick.choice("01")}, "wake_at": self.number()}
        if pick.random() < 0.6:
            item |= {"part": {"S": pick.choice(["open#0", "done#0"])}, "listed_key": {"S": pick.choice("abcdef")}}
        if pick.random() < 0.4:
            item |= {"slots": self.number(), "taken": self.number(), "is_counting": {"BOOL": pick.random() < 0.5}}
        if pick.random() < 0.3:
            item |= {"work_pool": {"S": "w"}, "deployment_id": {"S": "d"}, "blob": {"B": b"\0\xff"}}
        return item

    def number(self) -> dict[str, str]:
        return {"N": str(self.random.choice([-20, 0, 1, 2, 3, 10, 100]))}

    def condition(self) -> dict[str, Any]:
        if self.random.random() < 0.2:
            return {}
        expression = self.random.choice(CONDITIONS)
        old = {"ReturnValuesOnConditionCheckFailure": "ALL_OLD"} if self.random.random() < 0.7 else {}
        return {"ConditionExpression": expression, **old}

    def referenced(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the request with the names and values that its expressions use."""
        text = " ".join(str(value) for name, value in request.items() if name.endswith("Expression"))
        low, high = sorted([int(self.number()["N"]), int(self.number()["N"])])
        values = {
            ":version": {"N": str(high)},
            ":low": {"N": str(low)},
            ":change": {"N": self.random.choice(["1", "-1"])},
            ":true": {"BOOL": True},
            ":text": {"S": "x"},
        }
        words = text.replace("(", " ").replace(")", " ").replace(",", " ").split()
        if names := {word: REFERENCES[word] for word in words if word in REFERENCES}:
            request["ExpressionAttributeNames"] = names
        if used := {word: values[word] for word in words if word in values}:
            request["ExpressionAttributeValues"] = used
        return {"TableName": self.table, **request}

    def put(self) -> tuple[str, dict[str, Any]]:
        return "put_item", self.referenced({"Item": self.item(), **self.condition()})

    def delete(self) -> tuple[str, dict[str, Any]]:
        return "delete_item", self.referenced({"Key": self.key(), **self.condition()})

    def update(self) -> tuple[str, dict[str, Any]]:
        request = {"Key": self.key(), "UpdateExpression": self.random.choice(UPDATES), **self.condition()}
        returned = {"ReturnValues": "ALL_NEW"} if self.random.random() < 0.5 else {}
        return "update_item", {**self.referenced(request), **returned}

    def get(self) -> tuple[str, dict[str, Any]]:
        return "get_item", {"TableName": self.table, "Key": self.key(), "ConsistentRead": True}

    def batch(self) -> tuple[str, dict[str, Any]]:
        keys = [self.key() for _ in range(self.random.randint(1, 5))]
        return "batch_get_item", {"RequestItems": {self.table: {"Keys": keys, "ConsistentRead": True}}}

    def transact(self) -> tuple[str, dict[str, Any]]:
        writes = []
        for _ in range(self.random.randint(1, 4)):
            operation, request = self.random.choice([self.put, self.update, self.delete])()
            request.pop("ReturnValues", None)
            writes.append({operation.removesuffix("_item").capitalize(): request})
        token = str(self.random.randint(0, 10**9))
        return "transact_write_items", {"TransactItems": writes, "ClientRequestToken": token}

    def query(self) -> tuple[str, dict[str, Any]]:
        return self.reading("PK", {"S": self.random.choice("pqr")}, "SK", ["a", "b", "c"], {"ConsistentRead": True})

    def index(self) -> tuple[str, dict[str, Any]]:
        if self.random.random() < 0.5:
            return self.reading("part", {"S": "open#0"}, "listed_key", ["b", "d", "f"], {"IndexName": "listed"})
        return self.reading("shard", {"S": "0"}, "wake_at", [-20, 2, 10], {"IndexName": "wake"})

    def reading(
        self, partition: str, value: dict[str, Any], sort: str, bounds: list[Any], options: dict[str, Any]
    ) -> tuple[str, dict[str, Any]]:
        ranged = self.random.choice(RANGES).format(f"#{sort}")
        low, high = sorted(self.random.choices(bounds, k=2))
        kind = "N" if sort == "wake_at" else "S"
        if kind == "S" and self.random.random() < 0.3:
            ranged = f" AND begins_with(#{sort}, :at)"
        request: dict[str, Any] = {
            "TableName": self.table,
            "KeyConditionExpression": f"#{partition} = :partition{ranged}",
            "ExpressionAttributeNames": {f"#{partition}": partition, **({f"#{sort}": sort} if ranged else {})},
            "ExpressionAttributeValues": {
                ":partition": value,
                **({":at": {kind: str(high)}} if ranged else {}),
                **({":from": {kind: str(low)}} if ":from" in ranged else {}),
            },
            "ScanIndexForward": self.random.random() < 0.5,
            **options,
        }
        if self.random.random() < 0.6:
            request["Limit"] = self.random.randint(1, 4)
        if self.random.random() < 0.3 and options.get("IndexName") == "listed":
            request["FilterExpression"] = "#work_pool = :pool"
            request["ExpressionAttributeNames"]["#work_pool"] = "work_pool"
            request["ExpressionAttributeValues"][":pool"] = {"S": "w"}
        if self.random.random() < 0.2:
            request["Select"] = "COUNT"
        return "query", request

    def odd(self) -> tuple[str, dict[str, Any]]:
        """Something that is refused for itself."""
        operation, request = self.put()
        pick = self.random.randrange(7)
        if pick == 0:
            return operation, {**request, "TableName": "nowhere-at-all"}
        if pick == 1:
            return operation, {**request, "Item": {**request["Item"], "body": {"S": "y" * 410_000}}}
        if pick == 2:
            return operation, {**request, "Item": {**request["Item"], "wake_at": {"S": "soon"}, "shard": {"S": "0"}}}
        if pick == 3:
            return operation, {**request, "Item": {**request["Item"], "SK": {"S": ""}}}
        if pick == 4:
            operation, request = self.query()
            return operation, {**request, "IndexName": "nothing", "ConsistentRead": False}
        if pick == 5:
            names = {**request.get("ExpressionAttributeNames", {}), "#unused": "unused"}
            return operation, {
                **request,
                "ConditionExpression": "attribute_exists(#PK)",
                "ExpressionAttributeNames": names,
            }
        write = {"Put": {"TableName": self.table, "Item": self.item()}}
        return "transact_write_items", {"TransactItems": [write, write]}


def answer(client: Any, operation: str, request: dict[str, Any]) -> Any:
    """Return what a client answers; of an error its code, and what it says of the items."""
    try:
        found = dict(getattr(client, operation)(**request))
    except ClientError as error:
        refused: Any = error.response
        reasons = [(each["Code"], each.get("Item")) for each in refused.get("CancellationReasons", [])]
        return refused["Error"]["Code"], refused.get("Item"), reasons
    found.pop("ResponseMetadata", None)
    if "Responses" in found:
        found["Responses"] = {
            name: sorted(items, key=lambda item: (item["PK"]["S"], item["SK"]["S"]))
            for name, items in found["Responses"].items()
        }
    return found


@pytest.fixture
def real(ministack: Ministack) -> Iterator[tuple[Any, str]]:
    client, name = ministack.client("dynamodb"), f"table-{uuid4()}"
    create_table(client, name)
    yield client, name
    client.delete_table(TableName=name)
    client.close()


@pytest.mark.parametrize("seed", range(3))
def test_the_model_answers_as_another_implementation(real: tuple[Any, str], seed: int) -> None:
    """The same requests, in the same order, from an empty table; and in the end there are the same items."""
    client, name = real
    model = DynamoModel()
    create_table(model, name)
    requests, seen = Requests(seed, name), set()
    for number in range(REQUESTS):
        operation, request = requests.next()
        want, got = answer(client, operation, request), answer(model, operation, request)
        assert got == want, f"request {number}: {operation} {str(request)[:2000]}"
        seen.add((operation, want[0] if isinstance(want, tuple) else "ok"))
        if operation == "query" and isinstance(want, dict) and "LastEvaluatedKey" in want:
            more = {**request, "ExclusiveStartKey": want["LastEvaluatedKey"]}
            assert answer(model, operation, more) == answer(client, operation, more), more
    assert {
        ("put_item", "ok"),
        ("put_item", "ConditionalCheckFailedException"),
        ("put_item", "ResourceNotFoundException"),
        ("put_item", "ValidationException"),
        ("update_item", "ConditionalCheckFailedException"),
        ("delete_item", "ConditionalCheckFailedException"),
        ("transact_write_items", "ok"),
        ("transact_write_items", "TransactionCanceledException"),
        ("transact_write_items", "ValidationException"),
        ("query", "ValidationException"),
        ("query", "ok"),
        ("batch_get_item", "ok"),
    } <= seen
    for partition in "pqr":
        request = {
            "TableName": name,
            "KeyConditionExpression": "PK = :pk",
            "ExpressionAttributeValues": {":pk": {"S": partition}},
        }
        named = {**request, "KeyConditionExpression": "#PK = :pk", "ExpressionAttributeNames": {"#PK": "PK"}}
        assert answer(model, "query", named) == answer(client, "query", request)


def test_a_transaction_with_a_token_is_done_once(real: tuple[Any, str]) -> None:
    """Repeated as it was it succeeds and does nothing; with another content it is refused. Both implementations."""
    client, name = real
    model = DynamoModel()
    create_table(model, name)
    key = {"PK": {"S": "p"}, "SK": {"S": "s"}}

    def add(change: str) -> dict[str, Any]:
        update = {
            "TableName": name,
            "Key": key,
            "UpdateExpression": "ADD #n :n",
            "ExpressionAttributeNames": {"#n": "n"},
            "ExpressionAttributeValues": {":n": {"N": change}},
        }
        return {"TransactItems": [{"Update": update}], "ClientRequestToken": "token-1"}

    for each in (client, model):
        assert answer(each, "transact_write_items", add("1")) == {}
        assert answer(each, "transact_write_items", add("1")) == {}
        assert answer(each, "transact_write_items", add("2"))[0] == "IdempotentParameterMismatchException"
        assert answer(each, "get_item", {"TableName": name, "Key": key})["Item"]["n"] == {"N": "1"}


def test_a_token_is_forgotten_after_ten_minutes() -> None:
    """Then the same transaction is another one."""
    now = [0.0]
    model = DynamoModel(seconds=lambda: now[0])
    create_table(model, "t")
    item = {"PK": {"S": "p"}, "SK": {"S": "s"}}
    request = {
        "TransactItems": [
            {
                "Put": {
                    "TableName": "t",
                    "Item": item,
                    "ConditionExpression": "attribute_not_exists(#PK)",
                    "ExpressionAttributeNames": {"#PK": "PK"},
                }
            }
        ],
        "ClientRequestToken": "t",
    }
    model.transact_write_items(**request)
    now[0] = 599.0
    model.transact_write_items(**request)
    now[0] = 600.0
    assert answer(model, "transact_write_items", request)[0] == "TransactionCanceledException"


def test_indexes_lag_when_told_to() -> None:
    """The newest changes are not shown yet; the table itself shows them."""
    model = DynamoModel()
    create_table(model, "t")
    lag = [0]
    model.index_lag = lambda: lag[0]
    read: dict[str, Any] = {
        "TableName": "t",
        "IndexName": "wake",
        "KeyConditionExpression": "#shard = :shard",
        "ExpressionAttributeNames": {"#shard": "shard"},
        "ExpressionAttributeValues": {":shard": {"S": "0"}},
    }
    for n in range(3):
        key = {"PK": {"S": "p"}, "SK": {"S": str(n)}}
        model.put_item(TableName="t", Item={**key, "shard": {"S": "0"}, "wake_at": {"N": str(n)}})
    lag[0] = 2
    assert model.query(**read)["Count"] == 1
    assert model.get_item(TableName="t", Key=key)["Item"]
    lag[0] = 0
    assert model.query(**read)["Count"] == 3
    assert len(TABLE["GlobalSecondaryIndexes"]) == 4
