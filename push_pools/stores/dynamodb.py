"""The ledger in one DynamoDB table, which `dynamodb_table` describes.

A run is one item, written over the version that was read by one conditional put. Only when its slots or its place among
the parked runs change too, the write is a transaction: the run, the slot items, the counters of their limits, the
waiter. So an unlimited run touches nothing that others touch.

Every condition that fails brings the stored item along. If that is what was to be written, the answer to an earlier
try was lost, and the write has succeeded.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter, OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Protocol
from uuid import UUID, uuid4

from push_pools.domain.errors import NotFound, ScopeFull, StoreTooNew, StoreUnavailable, VersionConflict
from push_pools.domain.runs import HISTORY, FlowRun, Phase
from push_pools.domain.states import STATE_TYPES, StateType
from push_pools.ports import Limit, RecordT, RunFilter, RunPage
from push_pools.stores.dynamodb_calls import BATCH
from push_pools.stores.dynamodb_errors import CONDITION, Reason, Refused
from push_pools.stores.dynamodb_items import (
    from_attributes,
    listed_key,
    microseconds,
    moment_of,
    read_run,
    record_item,
    record_key,
    run_item,
    run_key,
    run_of,
    to_attributes,
    unpack,
)
from push_pools.stores.dynamodb_table import ACTIVE, DEPLOYMENT, LISTED, SCHEMA_VERSION, SHARDS, WAKE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
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
FIRST, LAST = "\x00", "\U0010ffff"
"""A place before all others, and one behind them."""

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


class DynamoStore:
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
        self._calls, self._history, self._threads = calls, history, threads
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

    # -- hints

    def due(
        self, now: datetime, *, after: datetime | None = None, limit: int = 1000, shard: int | None = None
    ) -> Sequence[FlowRun]:
        first, last = microseconds(after) + 1 if after else 0, microseconds(now)
        if first > last:
            return []
        places = [self._due_in(digit, first, last, limit) for digit in _shards(shard)]
        ids = [run_id for _, run_id in itertools.islice(heapq.merge(*places), limit)]
        # The index may name a run that has moved on; the run itself says when it is due.
        due = [
            (run.wake_at, run)
            for run in self._read_runs(ids)
            if run.wake_at is not None and first <= microseconds(run.wake_at) <= last
        ]
        return [run for _, run in sorted(due, key=lambda each: each[0])]

    def _due_in(self, digit: str, first: int, last: int, limit: int) -> Iterator[tuple[int, str]]:
        condition = "#shard = :shard AND #wake_at BETWEEN :first AND :last"
        values = {"shard": digit, "first": first, "last": last}
        for item in self._calls.query(condition, values=values, IndexName=WAKE, page=min(limit, 1000)):
            place = from_attributes(item)
            yield place["wake_at"], place["SK"]

    def active(self, platform: str, *, shard: int | None = None) -> Sequence[FlowRun]:
        condition = "#shard = :shard AND begins_with(#active_key, :platform)"
        ids = [
            item["SK"]["S"]
            for digit in _shards(shard)
            for item in self._calls.query(
                condition, values={"shard": digit, "platform": f"{platform}#"}, IndexName=ACTIVE
            )
        ]
        return [run for run in self._read_runs(ids) if run.platform == platform and run.phase.is_active]

    def active_platforms(self) -> frozenset[str]:
        return frozenset(platform for digit in SHARDS for platform in self._active_in(digit))

    def _active_in(self, digit: str) -> Iterator[str]:
        """Yield the platforms of a shard, reading one entry of each: what follows a platform is asked for anew."""
        condition, values = "#shard = :shard", {"shard": digit}
        while True:
            page = next(self._calls.pages(condition, values=values, IndexName=ACTIVE, page=1))["Items"]
            if not page:
                return
            platform = page[0]["active_key"]["S"].partition("#")[0]
            yield platform
            # `$` is the character after `#`.
            condition, values = "#shard = :shard AND #active_key > :after", {"shard": digit, "after": f"{platform}$"}

    # -- parked runs

    def waiting(
        self, work_pool: str, *, queue: str | None = None, after: str = "", limit: int = 1000
    ) -> Sequence[FlowRun]:
        # A place begins with its queue and `#`; `$` is the character after it.
        low, high = (after or FIRST, LAST) if queue is None else (max(after, f"{queue}#"), f"{queue}$")
        if low >= high:
            return []
        places = self._places(work_pool, low, high, limit)
        runs: list[FlowRun] = []
        # Runs that moved on between the two reads are not waiting; those behind them take their place, so that a short
        # answer always means that nobody else waits.
        while len(runs) < limit and (part := list(itertools.islice(places, limit - len(runs)))):
            found = {run.id: run for run in self._read_runs([run_id for _, run_id in part])}
            runs += [run for at, run_id in part if (run := found.get(UUID(run_id))) is not None and run.waits_at == at]
        return runs

    def _places(self, work_pool: str, low: str, high: str, limit: int) -> Iterator[tuple[str, str]]:
        condition, values = (
            "#PK = :pool AND #SK BETWEEN :low AND :high",
            {"pool": f"WAIT#{work_pool}", "low": low, "high": high},
        )
        page = min(limit + 1, 1000)  # One more: the place itself that is continued after is read, and not meant.
        for item in self._calls.query(condition, values=values, page=page, ConsistentRead=True):
            place = from_attributes(item)
            if low < place["SK"] < high:
                yield place["SK"], place["run_id"]

    def waiting_pools(self) -> frozenset[str]:
        pools = [item["SK"]["S"] for item in self._calls.query("#PK = :waits", values={"waits": "WAITS"})]
        return frozenset(pool for pool in pools if any(True for _ in self._places(pool, FIRST, LAST, 1)))

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

    # -- lists

    def runs(self, where: RunFilter, *, limit: int = 200, cursor: str | None = None) -> RunPage:
        candidates = self._by_prefix(where, cursor) if where.id_prefix else self._newest(where, limit, cursor)
        found = list(itertools.islice((run for run in candidates if _matches(run, where)), limit + 1))
        page = tuple(found[:limit])
        more = len(found) > limit
        return RunPage(page, listed_key(page[-1].scheduled_time, page[-1].id) if more else None)

    def _by_prefix(self, where: RunFilter, cursor: str | None) -> Iterator[FlowRun]:
        """Yield the runs whose id begins like that, newest first. They are few, unless the prefix is very short."""
        prefix = where.id_prefix
        if len(prefix) >= 2:
            collections = [prefix[:2]]
        else:
            collections = [prefix + digit for digit in SHARDS]
        found = [
            read_run(item)
            for each in collections
            for item in self._calls.query(
                "#PK = :runs AND begins_with(#SK, :prefix)",
                values={"runs": f"RUN#{each}", "prefix": prefix},
                ConsistentRead=True,
            )
        ]
        for run in sorted(found, key=lambda run: listed_key(run.scheduled_time, run.id), reverse=True):
            if cursor is None or listed_key(run.scheduled_time, run.id) < cursor:
                yield run

    def _newest(self, where: RunFilter, limit: int, cursor: str | None) -> Iterator[FlowRun]:
        """Yield the runs that an index names, newest first. They are read from the table, so they are as they are now.

        Open runs are filtered by what never changes, and their states by the caller: the index lags behind.
        """
        low = listed_key(where.since) if where.since else "0"
        high = cursor or ":"  # The character after `9`.
        if low > high:
            return
        parts = _parts(where.states)
        sources: list[Iterable[str]] = []
        if where.deployment_id is not None and "done" in parts:
            values = {"deployment_id": str(where.deployment_id), "low": low, "high": high}
            sources.append(self._listed(DEPLOYMENT, "deployment_id", values, "", min(limit + 1, 1000)))
        else:
            fixed, more = _filters(where)
            for part, digit in itertools.product(parts, SHARDS):
                values = {"part": f"{part}#{digit}", "low": low, "high": high, **more}
                final, names = _final_filter(where.states) if part == "done" else ("", {})
                conditions = " AND ".join(filter(None, (fixed, final)))
                page = 200 if conditions else limit // (len(parts) * len(SHARDS)) + 8
                sources.append(self._listed(LISTED, "part", {**values, **names}, conditions, page))
        # A run may be in both parts for a moment, while the index follows its end.
        listed = (key for key, _ in itertools.groupby(heapq.merge(*sources, reverse=True)) if key != cursor)
        size = min(limit + 1, BATCH)
        while keys := list(itertools.islice(listed, size)):
            yield from self._read_runs([run_of(key) for key in keys])

    def _listed(self, index: str, partition: str, values: Mapping[str, Any], where: str, page: int) -> Iterator[str]:
        condition = f"#{partition} = :{partition} AND #listed_key BETWEEN :low AND :high"
        for item in self._calls.query(
            condition, values=values, where=where, page=page, IndexName=index, ScanIndexForward=False
        ):
            yield item["listed_key"]["S"]

    def purge(self, before: datetime, *, limit: int) -> int:
        """Do nothing: DynamoDB removes settled runs at the time that is written beside them, and free of charge."""
        del before, limit
        return 0

    def count_by_phase(self) -> Mapping[Phase, int]:
        """Return how many runs are in each phase. It counts the index of all history: a second per million runs or so.

        Open runs are read. Of the final ones those with chores left are in the index of wake-ups, the others settled.
        """
        done = sum(self._count_part(f"done#{digit}") for digit in SHARDS)
        ids = {item["SK"]["S"] for digit in SHARDS for item in self._entries(LISTED, "part", f"open#{digit}")}
        ids |= {item["SK"]["S"] for digit in SHARDS for item in self._entries(WAKE, "shard", digit)}
        phases = Counter(run.phase for run in self._read_runs(sorted(ids)))
        phases[Phase.SETTLED] = max(0, done - phases[Phase.ENDED])
        return {phase: count for phase, count in phases.items() if count}

    def _entries(self, index: str, partition: str, value: str) -> Iterator[Item]:
        return self._calls.query(f"#{partition} = :value", values={"value": value}, IndexName=index)

    def _count_part(self, part: str) -> int:
        pages = self._calls.pages("#part = :part", values={"part": part}, IndexName=LISTED, Select="COUNT")
        return sum(int(page["Count"]) for page in pages)

    def _read_runs(self, ids: Sequence[str]) -> list[FlowRun]:
        """Return runs as they are now, in the order of their ids' first mention; those that are gone are left out."""
        wanted = list(dict.fromkeys(ids))
        found = {item["SK"]["S"]: read_run(item) for item in self._calls.get_many([run_key(id_) for id_ in wanted])}
        return [found[id_] for id_ in wanted if id_ in found]

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


def _shards(shard: int | None) -> str:
    return SHARDS if shard is None else SHARDS[shard % len(SHARDS)]


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


# -- filters -------------------------------------------------------------------


def _matches(run: FlowRun, where: RunFilter) -> bool:
    return (
        (not where.states or run.state.type in where.states or run.state.name in where.states)
        and (where.deployment_id is None or run.deployment_id == where.deployment_id)
        and (where.work_pool is None or run.work_pool == where.work_pool)
        and (where.since is None or run.scheduled_time >= where.since)
        and str(run.id).startswith(where.id_prefix)
    )


def _parts(states: frozenset[str]) -> list[str]:
    """Return which parts of the index hold runs in one of these states; a name that is not known may be in both."""
    finals = {_is_final(state) for state in states} or {None}
    parts = []
    if finals & {False, None}:
        parts.append("open")
    if finals & {True, None}:
        parts.append("done")
    return parts


def _is_final(state: str) -> bool | None:
    kind = StateType.__members__.get(state) or STATE_TYPES.get(state)
    return None if kind is None else kind.is_final


def _filters(where: RunFilter) -> tuple[str, dict[str, str]]:
    """Return a condition on what of a run never changes, and its values."""
    values = {}
    if where.work_pool is not None:
        values["work_pool"] = where.work_pool
    if where.deployment_id is not None:
        values["deployment_id"] = str(where.deployment_id)
    return " AND ".join(f"#{name} = :{name}" for name in values), values


def _final_filter(states: frozenset[str]) -> tuple[str, dict[str, str]]:
    """Return a condition on the state in which a run ended, and its values."""
    clauses, values = [], {}
    for n, state in enumerate(sorted(states)):
        attribute = "final_type" if state in StateType.__members__ else "final_name"
        clauses.append(f"#{attribute} = :state{n}")
        values[f"state{n}"] = state
    return f"({' OR '.join(clauses)})" if clauses else "", values
