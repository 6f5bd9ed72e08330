"""The DynamoDB ledger keeps the promises of all ledgers, on a local stand-in for DynamoDB."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from push_pools.stores.dynamodb import DynamoStore
from push_pools.stores.dynamodb_calls import Calls
from push_pools.stores.dynamodb_table import create_table
from push_pools.testing.contracts.stores import StoreContract

if TYPE_CHECKING:
    from collections.abc import Iterator

    from push_pools.ports import Store
    from tests.aws.ministack import Ministack


@pytest.fixture(scope="module")
def client(ministack: Ministack) -> Iterator[Any]:
    client = ministack.client("dynamodb")
    yield client
    client.close()


class TestDynamoStore(StoreContract):
    @pytest.fixture
    def store(self, client: Any) -> Iterator[Store]:
        name = f"ledger-{uuid4()}"
        create_table(client, name)
        yield DynamoStore(Calls(client, name))
        client.delete_table(TableName=name)
