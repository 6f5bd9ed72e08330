"""What a run costs in DynamoDB: requests are counted, and docs/aws.md says the same figures."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from push_pools.domain.runs import Phase
from push_pools.services import status
from push_pools.services.catalogue import update_work_pool
from push_pools.stores.dynamodb import DynamoStore
from push_pools.stores.dynamodb_calls import Calls
from push_pools.stores.dynamodb_table import create_table
from push_pools.testing.dynamodb_model import DynamoModel
from tests.world import World

if TYPE_CHECKING:
    from collections.abc import Callable

DOCS = Path(__file__).resolve().parents[2] / "docs" / "aws.md"


@dataclass
class Cost:
    """Requests, and what they cost."""

    writes: int = 0
    transactions: int = 0
    reads: int = 0
    write_units: float = 0
    read_units: float = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))

    def row(self, name: str) -> str:
        """Return the line of the table in the documentation."""
        units = f"{self.write_units:g} | {self.read_units:g}"
        return f"| {name} | {self.writes} | {self.transactions} | {self.reads} | {units} |"


class Counted:
    """A service over the model, past its first run: what is known by then is not asked for again."""

    def __init__(self, limit: int | None) -> None:
        self.model = DynamoModel()
        create_table(self.model, "ledger")
        self.world = World(store=DynamoStore(Calls(self.model, "ledger")))
        if limit is not None:
            update_work_pool(self.world.app, "local", concurrency_limit=limit)
        self.world.trigger()
        self.world.settle()

    def cost(self, *acts: Callable[[], object]) -> Cost:
        self.model.calls.clear()
        self.model.write_units = self.model.read_units = 0
        for act in acts:
            act()
        calls = Counter(self.model.calls)
        transactions = calls.pop("transact_write_items", 0)
        writes = sum(calls.pop(name, 0) for name in ("put_item", "update_item", "delete_item"))
        return Cost(writes, transactions, calls.total(), self.model.write_units, self.model.read_units)

    def life(self) -> Cost:
        """Return the cost of a run from its event to its end, without that of the sweeps that look at it."""
        world = self.world
        looking = self.cost(world.sweep)
        total = self.cost(world.trigger, world.drain)
        for seconds in (5.0, 10.0):
            world.advance(seconds)
            seen = self.cost(world.sweep, world.drain)
            total += seen + Cost(reads=-looking.reads, read_units=-looking.read_units)
        assert {run.phase for run in world.runs()} == {Phase.SETTLED}
        return total


@pytest.fixture(autouse=True)
def _no_beats(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each part note once that it works: these notes come by time, and not by runs."""
    monkeypatch.setattr(status, "BEAT_SECONDS", 1e9)


UNLIMITED = Cost(writes=5, transactions=0, reads=18, write_units=23, read_units=18)
LIMITED = Cost(writes=5, transactions=3, reads=48, write_units=47, read_units=48)
SWEEP = Cost(reads=16, read_units=8)
TICK = Cost(writes=1, reads=37, write_units=1, read_units=20.5)


def test_a_run_costs_what_is_written_down() -> None:
    """Five writes, none of which is a transaction."""
    counted = Counted(None)
    assert counted.life() == UNLIMITED
    assert counted.cost(counted.world.sweep) == SWEEP
    counted.world.tick()
    counted.world.advance(60.0)
    assert counted.cost(counted.world.tick) == TICK


def test_a_limited_run_costs_what_is_written_down() -> None:
    """Parking, slots and the end are transactions, and the parked runs are read."""
    assert Counted(5).life() == LIMITED


@pytest.mark.parametrize(
    ("name", "cost"),
    [
        ("a run without limits", UNLIMITED),
        ("a run of a limited pool", LIMITED),
        ("a sweep of one platform", SWEEP),
        ("a tick", TICK),
    ],
)
def test_the_documentation_says_the_same(name: str, cost: Cost) -> None:
    """Row by row."""
    assert cost.row(name) in DOCS.read_text()
