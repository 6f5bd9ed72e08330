"""The DynamoDB table of a ledger, as data: its keys, its indexes, and what makes it.

`infra/table.json` is written from here and compared by a test, so that infrastructure code and this release agree.

| item | PK | SK |
| --- | --- | --- |
| a run | `RUN#` and the first two digits of its id | its id |
| a parked run's place | `WAIT#` and the pool | `waits_at` |
| a scope's limit and count | `LIMIT#` and the scope | `LIMIT` |
| a slot that is held | `LIMIT#` and the scope | `SLOT#` and the run's id |
| a catalogue record | `CAT#` and the kind | its key |
| which key a record's id has | `ID#` and the kind | its id |
| the next place of a pace | `PACE#` and the scope | `PACE` |
| a memo | `MEMO#` and the key | `MEMO` |
| a pool that had parked runs | `WAITS` | the pool |
| the ledger's id and schema | `LEDGER` | `LEDGER` |

All indexes hold runs only, and are hints: they lag behind the table, and what they name is read again from it.
"""

from __future__ import annotations

from typing import Any, Final

SCHEMA_VERSION: Final = 1
"""Of the items; an older release refuses a ledger with a higher one."""
SHARDS: Final = "0123456789abcdef"
"""A run's shard is the first digit of its id, so that no index has one place that all writes go to."""
EXPIRES: Final = "expires_at"
"""The attribute by which DynamoDB removes history, in seconds since 1970. Only settled runs have it."""

WAKE: Final = "wake"
"""By shard and `wake_at`; a run without one is not in it."""
ACTIVE: Final = "active"
"""By shard, platform and id: the runs whose job is recorded and not known to be over."""
LISTED: Final = "listed"
"""By part (`open#` or `done#` and the shard), scheduled time and id; with what lists are filtered by."""
DEPLOYMENT: Final = "deployment"
"""By deployment, scheduled time and id."""


def _index(name: str, partition: str, sort: str, *carried: str) -> dict[str, Any]:
    projection: dict[str, Any] = {"ProjectionType": "KEYS_ONLY"}
    if carried:
        projection = {"ProjectionType": "INCLUDE", "NonKeyAttributes": list(carried)}
    keys = [{"AttributeName": partition, "KeyType": "HASH"}, {"AttributeName": sort, "KeyType": "RANGE"}]
    return {"IndexName": name, "KeySchema": keys, "Projection": projection}


TABLE: Final[dict[str, Any]] = {
    "BillingMode": "PAY_PER_REQUEST",
    "AttributeDefinitions": [
        {"AttributeName": "PK", "AttributeType": "S"},
        {"AttributeName": "SK", "AttributeType": "S"},
        {"AttributeName": "shard", "AttributeType": "S"},
        {"AttributeName": "wake_at", "AttributeType": "N"},
        {"AttributeName": "active_key", "AttributeType": "S"},
        {"AttributeName": "part", "AttributeType": "S"},
        {"AttributeName": "listed_key", "AttributeType": "S"},
        {"AttributeName": "deployment_id", "AttributeType": "S"},
    ],
    "KeySchema": [{"AttributeName": "PK", "KeyType": "HASH"}, {"AttributeName": "SK", "KeyType": "RANGE"}],
    "GlobalSecondaryIndexes": [
        _index(WAKE, "shard", "wake_at"),
        _index(ACTIVE, "shard", "active_key"),
        # What is carried never changes while a run is open, and then once, in the write that moves it to `done`:
        # so the index costs one write when a run is put and two when it ends, and none in between.
        _index(LISTED, "part", "listed_key", "work_pool", "deployment_id", "final_type", "final_name"),
        _index(DEPLOYMENT, "deployment_id", "listed_key"),
    ],
}
"""The arguments of CreateTable, but for the name."""

TIME_TO_LIVE: Final = {"AttributeName": EXPIRES, "Enabled": True}


def create_table(client: Any, name: str) -> None:
    """Make the table, wait until it can be used, and let DynamoDB remove what has expired.

    Raises:
        ClientError: DynamoDB refuses, for instance because the table exists.
    """
    client.create_table(TableName=name, **TABLE)
    client.get_waiter("table_exists").wait(TableName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 120})
    client.update_time_to_live(TableName=name, TimeToLiveSpecification=TIME_TO_LIVE)


def as_infra() -> dict[str, Any]:
    """Return what infrastructure code needs to make the same table."""
    return {
        "schema_version": SCHEMA_VERSION,
        "table": TABLE,
        "time_to_live": {"AttributeName": EXPIRES, "Enabled": True},
    }
