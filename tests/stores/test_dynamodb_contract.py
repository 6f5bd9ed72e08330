"""The DynamoDB ledger keeps the promises of all ledgers, on a stand-in for DynamoDB and on the model of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from push_pools.stores.dynamodb import DynamoStore
from push_pools.stores.dynamodb_calls import Calls
from push_pools.stores.dynamodb_table import create_table
from push_pools.testing.contracts.stores import StoreContract
from push_pools.testing.dynamodb_model import DynamoModel

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


class TestDynamoStoreOnTheModel(StoreContract):
    @pytest.fixture
    def store(self) -> Store:
        model = DynamoModel()
        create_table(model, "ledger")
        return DynamoStore(Calls(model, "ledger"))
