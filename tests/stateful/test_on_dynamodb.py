"""The same stories over DynamoDB, whose answers are lost, whose requests land late, and whose indexes lag behind.

Only requests of handlers meet with trouble: what the test itself asks is answered as things are.
"""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from typing import TYPE_CHECKING, ClassVar
from uuid import UUID

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import rule, run_state_machine_as_test

from push_pools.domain.errors import NotFound
from push_pools.stores.dynamodb import DynamoStore
from push_pools.stores.dynamodb_calls import Calls
from push_pools.stores.dynamodb_table import create_table
from push_pools.testing.dynamodb_model import DynamoModel, Fault
from tests.stateful.test_lanes import Lanes
from tests.stateful.test_one_job_per_attempt import OneJobPerAttempt

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from push_pools.domain.runs import FlowRun
    from push_pools.ports import Store
    from tests.world import World

MET: Counter[Fault] = Counter()
"""Which faults the stories met, so that a test without trouble is seen to be one."""


class Trouble:
    """A model whose next requests fail, when a handler makes them."""

    def __init__(self) -> None:
        self.world: World | None = None
        self.model = DynamoModel(seconds=lambda: self.world.clock.seconds() if self.world else 0.0)
        self.faults: list[tuple[int, Fault]] = []
        self.lag = 0
        self.hidden, self.until = 0, 0.0
        create_table(self.model, "ledger")

    def store(self) -> Store:
        calls = Calls(self.model, "ledger", pause=lambda seconds: None, jitter=random.Random(0))
        # One thread: which of several runs is put first must not be decided anew when a story is told again.
        store = DynamoStore(calls, threads=1, ledger_id=UUID(int=0))
        self.model.fault = self._fault
        self.model.index_lag = self._lag
        return store

    def _lag(self) -> int:
        if self.world is not None and self.world.clock.seconds() < self.until:
            return self.hidden
        return self.lag if self._applies() else 0

    def hide(self, lag: int, *, seconds: float) -> None:
        """Let the indexes show what was written so far, and then miss the newest changes until the time is over."""
        assert self.world is not None
        self.hidden = 0
        self.world.store.active("fake")
        self.hidden, self.until = lag, self.world.clock.seconds() + seconds

    def _applies(self) -> bool:
        return self.world is not None and self.world._in_handler

    def _fault(self, operation: str, request: Mapping[str, Any]) -> Fault | None:
        if not self._applies() or not self.faults:
            return None
        after, fault = self.faults[0]
        if after > 0:
            self.faults[0] = (after - 1, fault)
            return None
        self.faults.pop(0)
        MET[fault] += 1
        return fault

    def end(self) -> None:
        """No more trouble: what is late lands, and the indexes show everything."""
        self.faults.clear()
        self.lag = self.hidden = 0
        self.model.land()


class OnDynamo(OneJobPerAttempt):
    """One job per attempt."""

    def ledger(self) -> Store:
        self.trouble_of_ledger = Trouble()
        return self.trouble_of_ledger.store()

    def __init__(self) -> None:
        super().__init__()
        self.trouble_of_ledger.world = self.world

    @rule(faults=st.lists(st.tuples(st.integers(0, 6), st.sampled_from(Fault)), min_size=1, max_size=4))
    def requests_fail(self, faults: list[tuple[int, Fault]]) -> None:
        """Several in a row are more than the store tries."""
        self.trouble_of_ledger.faults += faults

    @rule(lag=st.integers(0, 4))
    def indexes_lag(self, lag: int) -> None:
        self.trouble_of_ledger.lag = lag

    @rule()
    def requests_land(self) -> None:
        self.trouble_of_ledger.model.land()

    def teardown(self) -> None:
        self.trouble_of_ledger.end()
        super().teardown()


class LanesOnDynamo(Lanes):
    """Slots and their order, while requests fail and the indexes lag."""

    trouble: ClassVar[bool] = True

    def ledger(self) -> Store:
        self.trouble_of_ledger = Trouble()
        return self.trouble_of_ledger.store()

    def __init__(self) -> None:
        super().__init__()
        world = self.trouble_of_ledger.world = self.world
        put, self.ids = world.store.put_run, dict[UUID, None]()

        def noticed_put(run: FlowRun) -> FlowRun:
            self.ids[run.id] = None
            return put(run)

        world.store.put_run = noticed_put  # type: ignore[method-assign] # Who is there, for the next line.
        # Judged by the runs themselves: to ask an index would make it show what it hides from others.
        world.runs = self._runs  # type: ignore[method-assign]

    def _runs(self) -> list[FlowRun]:
        """Return every run; without trouble they are read again only when one was written, as every judgement asks."""
        if self.trouble or self.world._read is None:
            self.world._read = list(self._everybody())
        return self.world._read

    def _everybody(self) -> Iterator[FlowRun]:
        for id_ in self.ids:
            with contextlib.suppress(NotFound):  # The request that was to put it failed.
                yield self.world.store.get_run(id_)

    @rule(lag=st.integers(1, 10))
    def indexes_lag(self, lag: int) -> None:
        """What is written from now on they may not show for a while, which is shorter than the service reckons with."""
        if self.trouble:
            self.trouble_of_ledger.hide(lag, seconds=self.world.app.timing.list_lag_seconds)

    @rule(faults=st.lists(st.tuples(st.integers(0, 8), st.sampled_from(Fault)), min_size=1, max_size=3))
    def requests_fail(self, faults: list[tuple[int, Fault]]) -> None:
        if self.trouble:
            self.lossless = False
            self.world.disturbed = True
            self.trouble_of_ledger.faults += faults

    @rule()
    def requests_land(self) -> None:
        self.trouble_of_ledger.model.land()

    def teardown(self) -> None:
        self.trouble_of_ledger.end()
        try:
            self.slots_are_counted()
        finally:
            super().teardown()

    def slots_are_counted(self) -> None:
        """The count of a scope is the number of its slot items, and these are the runs that say so."""
        for scope in self._scopes():
            limit, held = self.world.store.limit_of(scope), self.world.store.slots(scope)[1]
            assert limit.taken == len(held), scope
            assert held == {run.id for run in self.world.runs() if scope in run.slots}, scope


def tell_stories(machine: type[OneJobPerAttempt | Lanes], stories: int, *, are_fixed: bool = True) -> None:
    """Tell stories; fixed ones are the same each time, because what one costs grows with the cube of its runs."""
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=stories,
            stateful_step_count=50,
            deadline=None,
            derandomize=are_fixed,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.parametrize("family", ["names", "tokens"])
def test_one_job_per_attempt_on_dynamodb(family: str) -> None:
    """Random stories, in which every kind of trouble is met."""
    MET.clear()
    tell_stories(type("Here", (OnDynamo,), {"family": family}), 25)
    assert set(MET) == set(Fault)


def test_lanes_on_dynamodb() -> None:
    """Without trouble, so that every admission is judged."""
    tell_stories(type("Here", (LanesOnDynamo,), {"trouble": False}), 8)


def test_lanes_on_dynamodb_in_trouble() -> None:
    """With it: the counts are those of the slots, and everything ends."""
    tell_stories(LanesOnDynamo, 12)


@pytest.mark.prove
@pytest.mark.timeout(3300)
def test_stories_on_dynamodb_at_length() -> None:
    """Many more of both."""
    tell_stories(OnDynamo, 1500, are_fixed=False)
    tell_stories(LanesOnDynamo, 500, are_fixed=False)
