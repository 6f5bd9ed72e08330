"""The ledger in one DynamoDB table, which `dynamodb_table` describes.

A run is one item, written over the version that was read by one conditional put. Only when its slots or its place among
the parked runs change too, the write is a transaction: the run, the slot items, the counters of their limits, the
waiter. So an unlimited run touches nothing that others touch.

Every condition that fails brings the stored item along. If that is what was to be written, the answer to an earlier
try was lost, and the write has succeeded.
"""

from __future__ import annotations

from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Protocol
from uuid import UUID, uuid4

from push_pools.domain.errors import NotFound, ScopeFull, StoreTooNew, StoreUnavailable, VersionConflict
from push_pools.domain.runs import HISTORY, FlowRun
from push_pools.ports import Limit, RecordT
from push_pools.stores.dynamodb_errors import CONDITION, Reason, Refused
from push_pools.stores.dynamodb_items import (
    from_attributes,
    microseconds,
    moment_of,
    read_run,
    record_item,
    record_key,
    run_item,
    run_key,
    to_attributes,
    unpack,
)
from push_pools.stores.dynamodb_lists import RunLists
from push_pools.stores.dynamodb_table import SCHEMA_VERSION

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from push_pools.domain.pools import CatalogueRecord
    from push_pools.stores.dynamodb_calls import Calls
    from push_pools.stores.dynamodb_items import Attributes, Item, Values

LEDGER: Final = {"PK": "LEDGER", "SK": "LEDGER"}
PACE_TRIES: Final = 20
"""How often a place is asked for that others take first."""
PUT_THREADS: Final = 8
"""How many of many runs are put at once: a conditional put is a request of its own."""
KEPT_KEYS: Final = 10_000
"""How many ids of records are remembered with their keys."""

_IS_NEW: Final = "attribute_not_exists(#PK)"
_IS_VERSION: Final = "#version = :version"
# A scope that was never limited has no `slots`; one whose holders are being counted gives nothing to others.
_HAS_ROOM: Final = "(attribute_not_exists(#slots) OR #taken < #slots) AND NOT #is_counting = :true"


class Rate(Protocol):
    """How fast something may be asked for."""

    @property
    def interval(self) -> int:
        """Microseconds from one place to the next."""
        ...

    def oldest(self, now: datetime) -> int:
        """Return the earliest place that can still be taken, in microseconds since 1970."""
        ...


class DynamoStore(RunLists):
    """A whole ledger in a DynamoDB table; it is opened, and made if the table is empty, by the constructor.

    `history` is how long settled runs are kept, `threads` how many of many runs are put at once, and `ledger_id` the id
    of a ledger that is made; a random one, unless a simulation wants to be repeatable.

    Raises:
        StoreUnavailable: The table cannot be reached or used; the sentence says why.
        StoreTooNew: A newer release wrote it.
    """

    lists_lag: Final = True

    def __init__(
        self,
        calls: Calls,
        *,
        history: timedelta = HISTORY,
        threads: int = PUT_THREADS,
        ledger_id: UUID | None = None,
    ) -> None:
        super().__init__(calls)
        self._history, self._threads = history, threads
        self._parked_in: set[str] = set()
        self._keys: OrderedDict[tuple[str, UUID], str] = OrderedDict()
        self._ledger_id = self._open(ledger_id or uuid4())

    def _open(self, ledger_id: UUID) -> UUID:
        wanted: Attributes = {**LEDGER, "ledger_id": str(ledger_id), "schema": SCHEMA_VERSION}
        stored = self._get(LEDGER)
        if stored is None:
            try:
                self._calls.put(to_attributes(wanted), _IS_NEW)  # Of two that open an empty table one mints the id.
                stored = wanted
            except Refused as refused:
                stored = _stored(refused)
        if int(stored["schema"]) > SCHEMA_VERSION:
            raise StoreTooNew(
                f"the ledger in DynamoDB table {self._calls.table!r} has schema {stored['schema']} and this release "
                f"knows {SCHEMA_VERSION}; upgrade push-pools"
            )
        return UUID(stored["ledger_id"])

    @property
    def ledger_id(self) -> UUID:
        return self._ledger_id

    def close(self) -> None:
        """Nothing is open: the client belongs to the credentials."""

    # -- runs

    def put_run(self, run: FlowRun) -> FlowRun:
        fresh, stored = self._put(run)
        return stored or fresh

    def put_runs(self, runs: Sequence[FlowRun]) -> Mapping[UUID, FlowRun]:
        # Not in batches: those of DynamoDB know no conditions, and a transaction costs twice as much and puts none of
        # its runs if one of them is known.
        if self._threads == 1 or len(runs) < 2:
            put = [self._put(run) for run in runs]
        else:
            with ThreadPoolExecutor(self._threads) as pool:
                put = list(pool.map(self._put, runs))
        return {stored.id: stored for _, stored in put if stored is not None}

    def _put(self, run: FlowRun) -> tuple[FlowRun, FlowRun | None]:
        """Put a run; return it at version 1, and the one that is there if its id is known."""
        fresh, item = run_item(run.evolve(version=1), self._history)
        # The first write wins; whoever comes later gets the run that is there, without asking for it.
        try:
            if fresh.waits_at is None:
                self._calls.put(item, _IS_NEW)
            else:
                self._note_parking(fresh)
                writes = [self._calls.write("Put", _IS_NEW, item=item), self._put_waiter(fresh)]
                self._calls.transact(writes, str(uuid4()))
        except Refused as refused:
            return fresh, read_run(_item(refused))
        return fresh, None

    def get_run(self, run_id: UUID) -> FlowRun:
        item = self._calls.get(run_key(run_id))
        if item is None:
            raise NotFound("flow run", str(run_id))
        return read_run(item)

    def save(self, before: FlowRun, after: FlowRun, *, counting: bool = False) -> FlowRun:
        written, item = run_item(after.evolve(version=before.version + 1), self._history)
        try:
            if before.slots == written.slots and before.waits_at == written.waits_at:
                # Whoever writes names the version they read, so of two writers one reads and decides again.
                self._calls.put(item, _IS_VERSION, {"version": before.version})
            else:
                self._save_with_others(before, written, item, counting)
        except Refused as refused:
            if not refused.failed(0):
                raise
            self._recognise(written, refused.reasons[0].item)
        return written

    def _save_with_others(self, before: FlowRun, written: FlowRun, item: Item, counting: bool) -> None:
        # The version alone guards the whole: slot items and counters change with their run and with nothing else, so
        # there are as many of the former as the latter say, whoever writes.
        writes = [self._calls.write("Put", _IS_VERSION, {"version": before.version}, item=item)]
        scopes: dict[int, str] = {}
        for scope in sorted(set(before.slots) - set(written.slots)):
            writes += [self._count(scope, -1), self._calls.write("Delete", key=_slot_key(scope, before.id))]
        for scope in sorted(set(written.slots) - set(before.slots)):
            scopes[len(writes)] = scope
            slot = to_attributes({**_slot_key(scope, before.id), "run_id": str(before.id)})
            writes += [self._count(scope, +1, counting=counting), self._calls.write("Put", item=slot)]
        if before.waits_at != written.waits_at:
            if before.waits_at is not None:
                writes.append(self._calls.write("Delete", key=_waiter_key(before)))
            if written.waits_at is not None:
                self._note_parking(written)
                writes.append(self._put_waiter(written))
        try:
            self._calls.transact(writes, str(uuid4()))
        except Refused as refused:
            if refused.failed(0):
                raise
            self._unless_mine(written, before)
            raise ScopeFull(next(scope for n, scope in scopes.items() if refused.failed(n))) from refused

    def _count(self, scope: str, change: int, *, counting: bool = False) -> dict[str, Any]:
        """Return the write of a scope's counter. A slot is given while there is room, or to whom was active before."""
        update = "ADD #taken :change"
        if change < 0 or counting:
            return self._calls.write("Update", values={"change": change}, key=_limit_key(scope), update=update)
        # `NOT x = :true` holds where there is no x, as for a scope that nobody has limited yet.
        values = {"change": change, "true": True}
        return self._calls.write("Update", _HAS_ROOM, values, key=_limit_key(scope), update=update)

    def _unless_mine(self, written: FlowRun, before: FlowRun) -> None:
        """Look at the run before a scope is said to be full: it may be full because my own first try took the slot.

        DynamoDB does not promise to name every condition that failed.
        """
        stored = self._calls.get(run_key(written.id))
        if stored is None or from_attributes(stored)["version"] != before.version:
            raise Refused([Reason(CONDITION, stored)])

    def _recognise(self, written: FlowRun, stored: Item | None) -> None:
        """Accept a refused write when its effect is already there: the first answer was lost."""
        if stored is None or unpack(stored["body"]["B"]) != written.model_dump_json():
            raise VersionConflict(f"flow run {written.id} was changed meanwhile")

    # -- parked runs

    def _note_parking(self, run: FlowRun) -> None:
        """Write down, before the first run of a pool is parked by this process, that the pool may have parked runs.

        It is a write of its own, and repeatable: in the transaction all who park would write the same item.
        """
        if run.work_pool not in self._parked_in:
            self._calls.put(to_attributes({"PK": "WAITS", "SK": run.work_pool}))
            self._parked_in.add(run.work_pool)

    def _put_waiter(self, run: FlowRun) -> dict[str, Any]:
        return self._calls.write("Put", item=to_attributes({**_waiter_key(run), "run_id": str(run.id)}))

    # -- limits

    def limit_of(self, scope: str) -> Limit:
        return _limit(scope, self._get(_limit_key(scope)) or {})

    def put_limit(self, limit: Limit) -> Limit:
        written = replace(limit, revision=limit.revision + 1)
        # The count is left as it is: it belongs to the slots. A new item begins one, to be compared with the limit.
        kept = "#taken = if_not_exists(#taken, :zero)"
        update = f"SET #source = :source, #is_counting = :is_counting, #revision = :next, {kept}"
        values: dict[str, Any] = {
            "zero": 0,
            "source": written.source,
            "is_counting": written.is_counting,
            "next": written.revision,
        }
        if written.slots is None:
            update += " REMOVE #slots"
        else:
            update, values["slots"] = f"{update}, #slots = :slots", written.slots
        # Of two writers over one revision one has to look again. The item may be there without a revision: slots are
        # counted in it whether there is a limit or not.
        condition = "#revision = :revision" if limit.revision else "attribute_not_exists(#revision)"
        if limit.revision:
            values["revision"] = limit.revision
        try:
            stored = self._update(_limit_key(limit.scope), condition, values, update)
        except Refused as refused:
            stored = _stored(refused)
        found = _limit(limit.scope, stored)
        if replace(found, taken=0) != replace(written, taken=0):
            raise VersionConflict(f"the limit of {limit.scope} was changed meanwhile")
        return found

    def slots(self, scope: str) -> tuple[int | None, frozenset[UUID]]:
        limit, held = None, set()
        values = {"limit": _limit_key(scope)["PK"]}
        for item in self._calls.query("#PK = :limit", values=values, ConsistentRead=True):
            found = from_attributes(item)
            if found["SK"] == "LIMIT":
                limit = found.get("slots")
            else:
                held.add(UUID(found["run_id"]))
        return limit, frozenset(held)

    # -- history

    def purge(self, before: datetime, *, limit: int) -> int:
        """Do nothing: DynamoDB removes settled runs at the time that is written beside them, and free of charge."""
        del before, limit
        return 0

    # -- memo

    def remember(self, key: str, value: str) -> str:
        memo = _memo_key(key)
        try:
            self._calls.put(to_attributes({**memo, "value": value}), _IS_NEW)  # The first one is kept.
        except Refused as refused:
            return str(_stored(refused)["value"])
        return value

    def recall(self, key: str) -> str | None:
        stored = self._get(_memo_key(key))
        return None if stored is None else str(stored["value"])

    def forget(self, key: str) -> None:
        self._calls.delete(_memo_key(key))

    def pace(self, scope: str, rate: Rate, now: datetime, *, ahead_seconds: float = 0.0) -> datetime:
        key, oldest, interval = {"PK": f"PACE#{scope}", "SK": "PACE"}, rate.oldest(now), rate.interval
        latest = microseconds(now + timedelta(seconds=ahead_seconds))
        for _ in range(PACE_TRIES):
            try:
                # The next place, if it can be taken still and is not too far ahead. When the answer to the first try
                # is lost, its place is lost too: nobody gets one that another has.
                values = {"interval": interval, "oldest": oldest, "latest": latest}
                condition = "#place BETWEEN :oldest AND :latest"
                return moment_of(self._update(key, condition, values, "ADD #place :interval")["place"] - interval)
            except Refused as refused:
                stored = from_attributes(refused.reasons[0].item or {}).get("place")
            if stored is not None and stored > latest:
                return moment_of(stored)
            try:
                # After a rest, or for the first time: the oldest that is saved up, unless somebody was faster.
                condition = "attribute_not_exists(#place) OR #place < :oldest"
                values = {"next": oldest + interval, "oldest": oldest}
                self._update(key, condition, values, "SET #place = :next")
                return moment_of(oldest)
            except Refused:
                continue
        raise StoreUnavailable(f"too many ask for the pace of {scope} at once")

    def _update(self, key: Mapping[str, str], condition: str, values: Values, update: str) -> Attributes:
        """Change an item under a condition and return it as it is then."""
        request = self._calls.write("Update", condition, values, key=key, update=update)["Update"]
        return from_attributes(self._calls("update_item", ReturnValues="ALL_NEW", **request)["Attributes"])

    # -- catalogue

    def get(self, kind: type[RecordT], key: str) -> RecordT | None:
        stored = self._get(record_key(kind.__name__, key))
        return None if stored is None else kind.model_validate_json(unpack(stored["body"]))

    def find(self, kind: type[RecordT], id_: UUID) -> RecordT | None:
        """Return the record with that id. Where it was found last is tried first, and what is there decides."""
        known = self._keys.get((kind.__name__, id_))
        if known is not None and (record := self.get(kind, known)) is not None and _id(record) == id_:
            return record
        pointer = self._get(_id_key(kind.__name__, id_))
        record = None if pointer is None else self.get(kind, pointer["key"])
        if record is None or _id(record) != id_:
            return None
        self._keys[kind.__name__, id_] = record.key
        while len(self._keys) > KEPT_KEYS:
            self._keys.popitem(last=False)
        return record

    def put(self, record: RecordT) -> RecordT:
        written = record.model_copy(update={"version": record.version + 1})
        # Version 0 means that it must be new; otherwise it is written over the version that was read.
        condition = _IS_VERSION if record.version else _IS_NEW
        values: Values = {"version": record.version} if record.version else {}
        try:
            self._write_record(
                self._calls.write("Put", condition, values, item=record_item(written)), self._put_pointer(written)
            )
        except Refused as refused:
            stored = refused.reasons[0].item
            if stored is None or unpack(stored["body"]["B"]) != written.model_dump_json():
                kind = type(record).__name__
                raise VersionConflict(f"{kind} {record.key!r} was changed meanwhile") from refused
        return written

    def delete(self, record: CatalogueRecord) -> None:
        kind, id_ = type(record).__name__, _id(record)
        # What is gone is gone, by whomever; what was changed since it was read stays.
        remove = self._calls.write(
            "Delete",
            f"{_IS_NEW} OR {_IS_VERSION}",
            {"version": record.version},
            key=record_key(kind, record.key),
        )
        try:
            self._write_record(remove, self._calls.write("Delete", key=_id_key(kind, id_)) if id_ else None)
        except Refused as refused:
            raise VersionConflict(f"{kind} {record.key!r} was changed meanwhile") from refused

    def list(self, kind: type[RecordT]) -> Sequence[RecordT]:
        values = {"kind": record_key(kind.__name__, "")["PK"]}
        items = self._calls.query("#PK = :kind", values=values, ConsistentRead=True)
        return [kind.model_validate_json(unpack(item["body"]["B"])) for item in items]

    def _put_pointer(self, record: CatalogueRecord) -> dict[str, Any] | None:
        """Return the write that says under which key the record with that id is; a record that has one only."""
        if (id_ := _id(record)) is None:
            return None
        pointer = {**_id_key(type(record).__name__, id_), "key": record.key}
        return self._calls.write("Put", item=to_attributes(pointer))

    def _write_record(self, write: dict[str, Any], pointer: dict[str, Any] | None) -> None:
        if pointer is not None:
            self._calls.transact([write, pointer], str(uuid4()))
            return
        ((kind, request),) = write.items()
        self._calls(f"{kind.lower()}_item", **request)

    def _get(self, key: Mapping[str, str]) -> Attributes | None:
        item = self._calls.get(key)
        return None if item is None else from_attributes(item)


# -- keys ----------------------------------------------------------------------


def _limit_key(scope: str) -> dict[str, str]:
    return {"PK": f"LIMIT#{scope}", "SK": "LIMIT"}


def _slot_key(scope: str, run_id: UUID) -> dict[str, str]:
    return {"PK": f"LIMIT#{scope}", "SK": f"SLOT#{run_id}"}


def _waiter_key(run: FlowRun) -> dict[str, str]:
    return {"PK": f"WAIT#{run.work_pool}", "SK": run.waits_at or ""}


def _memo_key(key: str) -> dict[str, str]:
    return {"PK": f"MEMO#{key}", "SK": "MEMO"}


def _id_key(kind: str, id_: UUID) -> dict[str, str]:
    return {"PK": f"ID#{kind}", "SK": str(id_)}


def _id(record: CatalogueRecord) -> UUID | None:
    id_ = getattr(record, "id", None)
    return id_ if isinstance(id_, UUID) else None


# -- what is stored ------------------------------------------------------------


def _limit(scope: str, stored: Attributes) -> Limit:
    return Limit(
        scope,
        stored.get("slots"),
        stored.get("source", ""),
        stored.get("is_counting", False),
        stored.get("revision", 0),
        stored.get("taken", 0),
    )


def _item(refused: Refused) -> Item:
    """Return the item that is there instead.

    Raises:
        StoreUnavailable: It was removed while it was looked for.
    """
    item = refused.reasons[0].item
    if item is None:
        raise StoreUnavailable("an item was there, and is gone; try again")
    return item


def _stored(refused: Refused) -> Attributes:
    return from_attributes(_item(refused))
