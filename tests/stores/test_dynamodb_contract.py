"""The DynamoDB ledger keeps the promises of all ledgers, on a stand-in for DynamoDB and on the model of it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from push_pools.domain.errors import VersionConflict
from push_pools.domain.runs import Phase
from push_pools.stores.dynamodb import DynamoStore
from push_pools.stores.dynamodb_calls import Calls
from push_pools.stores.dynamodb_table import create_table
from push_pools.testing.clocks import START
from push_pools.testing.contracts.stores import StoreContract, a_run
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


class ForgetsByItself(StoreContract):
    """The promises, of a ledger that needs no purge."""

    def test_old_settled_runs_are_purged_in_batches(self, store: Store) -> None:
        """By DynamoDB, at the time that is written beside them; `test_only_settled_history_expires` reads it."""
        run = store.put_run(a_run(phase=Phase.SETTLED, end_time=START, wake_at=None))
        assert store.purge(START + timedelta(days=1000), limit=10) == 0
        assert store.get_run(run.id) == run

    def test_a_write_to_a_run_that_is_gone_is_a_conflict(self, store: Store) -> None:
        """It was removed since it was read."""
        run = a_run(version=1)
        with pytest.raises(VersionConflict):
            store.save(run, run.evolve(name="again"))


class TestDynamoStore(ForgetsByItself):
    @pytest.fixture
    def store(self, client: Any) -> Iterator[Store]:
        name = f"ledger-{uuid4()}"
        create_table(client, name)
        yield DynamoStore(Calls(client, name))
        client.delete_table(TableName=name)


class TestDynamoStoreOnTheModel(ForgetsByItself):
    @pytest.fixture
    def store(self) -> Store:
        model = DynamoModel()
        create_table(model, "ledger")
        return DynamoStore(Calls(model, "ledger"))
