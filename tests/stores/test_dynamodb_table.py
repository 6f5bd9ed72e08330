"""The table is one: in the code, in infra/table.json, and as DynamoDB makes it."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from push_pools.credentials.aws import AwsCredentials
from push_pools.stores.dynamodb import DynamoStore
from push_pools.stores.dynamodb_calls import Calls
from push_pools.stores.dynamodb_table import EXPIRES, TABLE, create_table

if TYPE_CHECKING:
    import pytest

    from tests.aws.ministack import Ministack

ROOT = Path(__file__).resolve().parents[2]


def test_infrastructure_code_gets_the_same_table() -> None:
    """Run `python scripts/make_table.py` when this fails."""
    text = runpy.run_path(str(ROOT / "scripts" / "make_table.py"))["text"]()
    assert (ROOT / "infra" / "table.json").read_text() == text
    assert json.loads(text)["table"] == TABLE


def test_the_table_is_made_as_it_is_written_down(ministack: Ministack) -> None:
    """Keys, types, indexes with what they carry, the billing, and what expires."""
    client, name = ministack.client("dynamodb"), f"table-{uuid4()}"
    create_table(client, name)
    found: Any = client.describe_table(TableName=name)["Table"]
    assert found["KeySchema"] == TABLE["KeySchema"]

    def by_name(each: dict[str, Any]) -> str:
        return str(each.get("AttributeName") or each["IndexName"])

    assert sorted(found["AttributeDefinitions"], key=by_name) == sorted(TABLE["AttributeDefinitions"], key=by_name)
    indexes = [
        {key: index[key] for key in ("IndexName", "KeySchema", "Projection")}
        for index in found["GlobalSecondaryIndexes"]
    ]
    assert sorted(indexes, key=by_name) == sorted(TABLE["GlobalSecondaryIndexes"], key=by_name)
    assert found["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
    expires = client.describe_time_to_live(TableName=name)["TimeToLiveDescription"]
    assert (expires["AttributeName"], expires["TimeToLiveStatus"]) == (EXPIRES, "ENABLED")
    client.delete_table(TableName=name)
    client.close()


def test_the_client_of_the_credentials_is_that_of_the_ledger(
    ministack: Ministack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One request per try, and an answer is waited for no longer than an invocation can spare."""
    for name, value in ministack.environ.items():
        monkeypatch.setenv(name, value)
    client = AwsCredentials().client("dynamodb", retries=False)
    config: Any = client.meta.config
    assert config.retries["total_max_attempts"] == 1
    assert (config.connect_timeout, config.read_timeout) == (3.0, 5.0)
    create_table(client, "ledger-of-credentials")
    first = DynamoStore(Calls(client, "ledger-of-credentials"))
    assert DynamoStore(Calls(client, "ledger-of-credentials")).ledger_id == first.ledger_id
    client.delete_table(TableName="ledger-of-credentials")
