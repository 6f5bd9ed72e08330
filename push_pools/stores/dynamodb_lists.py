"""What is found in the ledger's table without knowing its key: runs that are due, active, parked, or in a list.

An index lags behind the table, so it only names runs. Each is then read as it is now, and left out if it has moved on.
Parked runs are items of the table itself, read consistently.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from typing import TYPE_CHECKING
from uuid import UUID

from push_pools.domain.runs import FlowRun, Phase
from push_pools.domain.states import STATE_TYPES, StateType
from push_pools.ports import RunFilter, RunPage
from push_pools.stores.dynamodb_calls import BATCH
from push_pools.stores.dynamodb_items import from_attributes, listed_key, microseconds, read_run, run_key, run_of
from push_pools.stores.dynamodb_table import ACTIVE, DEPLOYMENT, LISTED, SHARDS, WAKE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime
    from typing import Any

    from push_pools.stores.dynamodb_calls import Calls
    from push_pools.stores.dynamodb_items import Item

FIRST, LAST = "\x00", "\U0010ffff"
"""A place before all others, and one behind them."""


class RunLists:
    """The reading half of `DynamoStore` that asks for many runs; see `Store` for what each method promises."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

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


def _shards(shard: int | None) -> str:
    return SHARDS if shard is None else SHARDS[shard % len(SHARDS)]


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
