"""The ledger in DynamoDB: the real store over the model of the service, with what goes wrong between the two.

Every request of a handler is a place, so others come between the requests of one write. A run is shown to the checks at
the moment at which the model changes it, whether the writer ever hears of it or not.
"""

from __future__ import annotations

from collections import deque
from random import Random
from typing import TYPE_CHECKING, Any, Final

from push_pools.domain.errors import StoreUnavailable
from push_pools.stores.dynamodb import DynamoStore
from push_pools.stores.dynamodb_calls import Calls
from push_pools.stores.dynamodb_items import read_run, unpack
from push_pools.stores.dynamodb_table import create_table
from push_pools.testing.dynamodb_model import DynamoModel, Fault
from tests.simulation.chance import Chance, Countdown

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

    from push_pools.domain.runs import FlowRun
    from tests.simulation.checks import Checks
    from tests.simulation.engine import Engine

TABLE: Final = "ledger"
LAGS: Final = (0.0, 0.2, 2.0, 15.0)
"""How far the indexes are behind the table, in seconds."""
FAULTS: Final = (
    Fault.LOST,
    Fault.LATE,
    Fault.NOT_SENT,
    Fault.SERVER_ERROR,
    Fault.DONE_SERVER_ERROR,
    Fault.THROTTLED,
    Fault.CONFLICT,
)
IN_A_ROW: Final = (1, 1, 2, 3, 6)
"""How many requests a fault meets. The store repeats what is not answered twice, and what is refused five times."""
LATE_SECONDS: Final = (0.1, 3.0, 30.0)
WRITES: Final = frozenset({"put_item", "update_item", "delete_item", "transact_write_items"})


class DynamoLedger:
    """The table, its trouble, and one store for the handlers; another, which meets no trouble, for who looks on."""

    def __init__(self, engine: Engine, chance: Chance, ledger_id: UUID, seed: int) -> None:
        self.engine, self.chance = engine, chance
        self.faults = Countdown(chance, 0.0)
        self.lag_seconds = 0.0
        self.model = DynamoModel(seconds=lambda: engine.now)
        create_table(self.model, TABLE)
        self.checks: Checks | None = None
        self.model.fault, self.model.index_lag = self._fault, self._lag
        self._asks = False
        self._met: tuple[Fault, int] = (Fault.LOST, 0)
        self._written: list[FlowRun] = []
        self._changed_at: deque[float] = deque()
        self._counting: set[tuple[UUID, int, tuple[str, ...]]] = set()
        table = self.model._tables[TABLE]
        self._set, table.set = table.set, self._changes  # type: ignore[method-assign]
        self.looker_on = DynamoStore(Calls(self.model, TABLE), threads=1, ledger_id=ledger_id)
        calls = Calls(_Client(self), TABLE, pause=self._pause, jitter=Random(seed))
        self.store = DynamoStore(calls, threads=1, ledger_id=ledger_id)

    def end(self) -> None:
        """No more trouble."""
        self.faults.stop()
        self._met, self.lag_seconds = (Fault.LOST, 0), 0.0

    def _pause(self, seconds: float) -> None:
        if self.engine.current is not None:
            self.engine.pause(seconds)

    # -- what the model asks

    def _fault(self, operation: str, request: Any) -> Fault | None:
        if not self._asks:
            return None
        fault, left = self._met
        if left == 0:
            if not self.faults.hit():
                return None
            fault, left = self.chance.pick(FAULTS), self.chance.pick(IN_A_ROW)
        self._met = (fault, left - 1)
        if fault in (Fault.LATE, Fault.CONFLICT) and operation not in WRITES:
            fault = Fault.NOT_SENT if fault is Fault.LATE else Fault.THROTTLED
        self.engine.faults[f"DynamoDB: {fault.name.lower().replace('_', ' ')}"] += 1
        if fault is Fault.LATE:
            self.engine.after(self.chance.pick(LATE_SECONDS), self._land)
        return fault

    def _lag(self) -> int:
        if not self._asks or not self.lag_seconds:
            return 0
        since = self.engine.now - self.lag_seconds
        while self._changed_at and self._changed_at[0] <= since:
            self._changed_at.popleft()
        return len(self._changed_at)

    # -- what changes

    def _changes(self, key: tuple[str, str], item: Any) -> None:
        self._set(key, item)
        self._changed_at.append(self.engine.now)
        if item is not None and key[0].startswith("RUN#"):
            self._written.append(read_run(item))

    def _land(self) -> None:
        self.model.land()
        self.show()

    def show(self) -> None:
        """Show the checks what was written."""
        written, self._written = self._written, []
        for run in written:
            assert self.checks is not None
            which = (run.id, run.version, run.slots)
            self.checks.written(self.checks.runs.get(run.id), run, counting=which in self._counting)

    def will_count(self, before: FlowRun, after: FlowRun) -> None:
        """Note a write that gives slots to a run that is active already: it may go over a limit."""
        self._counting.add((before.id, before.version + 1, after.slots))

    def ask(self, operation: str, request: dict[str, Any]) -> Any:
        """Make a request of a handler, or of a user."""
        engine = self.engine
        if engine.current is None:
            try:
                return getattr(self.model, operation)(**request)
            finally:
                self.show()
        engine.place(f"dynamodb.{operation}")
        self._asks = True
        try:
            answer = getattr(self.model, operation)(**request)
        finally:
            self._asks = False
            self.show()
        engine.place(f"dynamodb.{operation}")
        return answer

    def shown(self) -> Iterator[str]:
        """Yield all that is stored, for those who look for secrets."""
        for collection in self.model._tables[TABLE].items.values():
            for item in collection.values():
                yield unpack(item["body"]["B"]) if "body" in item else repr(item)


class _Client:
    """The operations of a boto3 client that the store uses."""

    def __init__(self, ledger: DynamoLedger) -> None:
        self._ledger = ledger

    def __getattr__(self, operation: str) -> Any:
        def call(**request: Any) -> Any:
            return self._ledger.ask(operation, request)

        self.__dict__[operation] = call
        return call


class DynamoPort:
    """The store as a host sees it: its requests are the places, and what it cannot do counts as trouble."""

    def __init__(self, ledger: DynamoLedger, checks: Checks) -> None:
        self._ledger, self._checks = ledger, checks

    def __getattr__(self, method: str) -> Any:
        attribute = getattr(self._ledger.store, method)
        if not callable(attribute):
            return attribute
        ledger, lanes = self._ledger, self._checks.lanes

        def call(*args: Any, **options: Any) -> Any:
            if options.get("counting"):
                ledger.will_count(*args)
            lanes.asked(method, args, options)
            try:
                return attribute(*args, **options)
            except StoreUnavailable:
                ledger.engine.faults["store unavailable"] += 1
                ledger.engine.on_hurt(ledger.engine.current, 0.0)
                raise
            finally:
                lanes.answered(method)

        self.__dict__[method] = call
        return call
