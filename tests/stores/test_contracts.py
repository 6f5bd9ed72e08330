"""Both ledgers and both queues keep the same promises."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from push_pools.queues.memory import MemoryQueue
from push_pools.queues.sqlite import SqliteQueue
from push_pools.sqlite_file import SqliteFile
from push_pools.stores.memory import MemoryStore
from push_pools.stores.sqlite import SqliteStore
from push_pools.testing.contracts.stores import QueueContract, StoreContract

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from push_pools.ports import LocalQueue, Store
    from push_pools.testing.clocks import ManualClock


class TestMemoryStore(StoreContract):
    @pytest.fixture
    def store(self) -> Store:
        return MemoryStore()


class TestSqliteStore(StoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[Store]:
        store = SqliteStore(SqliteFile(tmp_path / "ledger.db"))
        yield store
        store.close()


class TestMemoryQueue(QueueContract):
    @pytest.fixture
    def queue(self, clock: ManualClock) -> LocalQueue:
        return MemoryQueue(clock.seconds)


class TestSqliteQueue(QueueContract):
    @pytest.fixture
    def queue(self, tmp_path: Path, clock: ManualClock) -> Iterator[LocalQueue]:
        file = SqliteFile(tmp_path / "ledger.db")
        yield SqliteQueue(file, seconds=clock.seconds)
        file.close()
