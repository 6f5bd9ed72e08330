"""The ledger in memory: the smallest thing that keeps the contract, for tests and simulations."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Final
from uuid import UUID, uuid4

from push_pools.domain.errors import NotFound, ScopeFull, VersionConflict
from push_pools.domain.pace import take
from push_pools.domain.runs import Phase
from push_pools.ports import Limit, RecordT, RunFilter, RunPage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from push_pools.domain.pace import Rate
    from push_pools.domain.pools import CatalogueRecord
    from push_pools.domain.runs import FlowRun


class MemoryStore:
    """A whole ledger in dictionaries behind one lock."""

    lists_lag: Final = False

    def __init__(self, ledger_id: UUID | None = None) -> None:
        self._ledger_id = ledger_id or uuid4()
        self._lock = threading.RLock()
        self._runs: dict[UUID, FlowRun] = {}
        self._limits: dict[str, Limit] = {}
        self._slots: dict[str, set[UUID]] = {}
        self._memo: dict[str, str] = {}
        self._places: dict[str, int] = {}
        self._catalogue: dict[tuple[str, str], CatalogueRecord] = {}

    @property
    def ledger_id(self) -> UUID:
        return self._ledger_id

    def close(self) -> None:
        """Nothing is open."""

    # -- runs

    def put_run(self, run: FlowRun) -> FlowRun:
        with self._lock:
            return self._runs.setdefault(run.id, run.evolve(version=1))

    def put_runs(self, runs: Sequence[FlowRun]) -> Mapping[UUID, FlowRun]:
        with self._lock:
            known = {run.id: self._runs[run.id] for run in runs if run.id in self._runs}
            for run in runs:
                self.put_run(run)
        return known

    def get_run(self, run_id: UUID) -> FlowRun:
        with self._lock:
            if run_id not in self._runs:
                raise NotFound("flow run", str(run_id))
            return self._runs[run_id]

    def save(self, before: FlowRun, after: FlowRun, *, counting: bool = False) -> FlowRun:
        written = after.evolve(version=before.version + 1)
        with self._lock:
            stored = self._runs.get(before.id)
            if stored == written:
                return written  # The first answer was lost.
            if stored is None or stored.version != before.version:
                raise VersionConflict(f"flow run {before.id} was changed meanwhile")
            taken = set(after.slots) - set(before.slots)
            for scope in () if counting else sorted(taken):
                if self.limit_of(scope).is_full:
                    raise ScopeFull(scope)
            for scope in taken:
                self._slots.setdefault(scope, set()).add(before.id)
            for scope in set(before.slots) - set(after.slots):
                self._slots[scope].discard(before.id)
            self._runs[before.id] = written
        return written

    def due(
        self, now: datetime, *, after: datetime | None = None, limit: int = 1000, shard: int | None = None
    ) -> Sequence[FlowRun]:
        del shard
        found = [
            run
            for run in self._all()
            if run.wake_at is not None and run.wake_at <= now and (after is None or run.wake_at > after)
        ]
        return sorted(found, key=lambda run: run.wake_at or now)[:limit]

    def active(self, platform: str, *, shard: int | None = None) -> Sequence[FlowRun]:
        del shard
        return [run for run in self._all() if run.platform == platform and run.phase.is_active]

    def active_platforms(self) -> frozenset[str]:
        return frozenset(run.platform for run in self._all() if run.phase.is_active)

    def waiting(
        self, work_pool: str, *, queue: str | None = None, after: str = "", limit: int = 1000
    ) -> Sequence[FlowRun]:
        found = [
            (run.waits_at, run)
            for run in self._all()
            if run.work_pool == work_pool
            and run.waits_at is not None
            and run.waits_at > after
            and queue in (None, run.work_queue)
        ]
        return [run for _, run in sorted(found, key=lambda each: each[0])[:limit]]

    def waiting_pools(self) -> frozenset[str]:
        return frozenset(run.work_pool for run in self._all() if run.waits_at is not None)

    def limit_of(self, scope: str) -> Limit:
        with self._lock:
            return replace(self._limits.get(scope, Limit(scope)), taken=len(self._slots.get(scope, ())))

    def put_limit(self, limit: Limit) -> Limit:
        with self._lock:
            stored = self.limit_of(limit.scope)
            written = replace(limit, revision=limit.revision + 1, taken=stored.taken)
            if stored != written and stored.revision != limit.revision:
                raise VersionConflict(f"the limit of {limit.scope} was changed meanwhile")
            self._limits[limit.scope] = written
        return written

    def slots(self, scope: str) -> tuple[int | None, frozenset[UUID]]:
        with self._lock:
            return self.limit_of(scope).slots, frozenset(self._slots.get(scope, ()))

    def runs(self, where: RunFilter, *, limit: int = 200, cursor: str | None = None) -> RunPage:
        found = sorted((run for run in self._all() if _matches(run, where)), key=_newest, reverse=True)
        if cursor is not None:
            at, _, run_id = cursor.partition("|")
            found = [run for run in found if _newest(run) < (float(at), run_id)]
        page = tuple(found[:limit])
        return RunPage(page, "{!r}|{}".format(*_newest(page[-1])) if len(found) > limit else None)

    def purge(self, before: datetime, *, limit: int) -> int:
        with self._lock:
            old = [run for run in self._runs.values() if _is_history(run, before)]
            for run in sorted(old, key=_newest)[:limit]:
                del self._runs[run.id]
        return min(len(old), limit)

    def count_by_phase(self) -> Mapping[Phase, int]:
        return Counter(run.phase for run in self._all())

    def _all(self) -> list[FlowRun]:
        with self._lock:
            return list(self._runs.values())

    # -- memo

    def remember(self, key: str, value: str) -> str:
        with self._lock:
            return self._memo.setdefault(key, value)

    def recall(self, key: str) -> str | None:
        with self._lock:
            return self._memo.get(key)

    def forget(self, key: str) -> None:
        with self._lock:
            self._memo.pop(key, None)

    def pace(self, scope: str, rate: Rate, now: datetime, *, ahead_seconds: float = 0.0) -> datetime:
        with self._lock:
            place, self._places[scope] = take(self._places.get(scope), rate, now, ahead_seconds)
        return place

    # -- catalogue

    def get(self, kind: type[RecordT], key: str) -> RecordT | None:
        with self._lock:
            record = self._catalogue.get((kind.__name__, key))
        return record if isinstance(record, kind) else None

    def find(self, kind: type[RecordT], id_: UUID) -> RecordT | None:
        return next((record for record in self.list(kind) if getattr(record, "id", None) == id_), None)

    def put(self, record: RecordT) -> RecordT:
        written = record.model_copy(update={"version": record.version + 1})
        name = (type(record).__name__, record.key)
        with self._lock:
            stored = self._catalogue.get(name)
            if stored != written and (stored.version if stored else 0) != record.version:
                raise VersionConflict(f"{name[0]} {name[1]!r} was changed meanwhile")
            self._catalogue[name] = written
        return written

    def delete(self, record: CatalogueRecord) -> None:
        name = (type(record).__name__, record.key)
        with self._lock:
            stored = self._catalogue.get(name)
            if stored is not None and stored.version != record.version:
                raise VersionConflict(f"{name[0]} {name[1]!r} was changed meanwhile")
            self._catalogue.pop(name, None)

    def list(self, kind: type[RecordT]) -> Sequence[RecordT]:
        with self._lock:
            return [r for _, r in sorted(self._catalogue.items()) if isinstance(r, kind)]


def _is_history(run: FlowRun, before: datetime) -> bool:
    ended = run.phase is Phase.SETTLED and run.end_time is not None and run.end_time < before
    return ended and run.scheduled_time < before


def _newest(run: FlowRun) -> tuple[float, str]:
    return (run.scheduled_time.timestamp(), str(run.id))


def _matches(run: FlowRun, where: RunFilter) -> bool:
    return (
        (not where.states or run.state.type in where.states or run.state.name in where.states)
        and (where.deployment_id is None or run.deployment_id == where.deployment_id)
        and (where.work_pool is None or run.work_pool == where.work_pool)
        and (where.since is None or run.scheduled_time >= where.since)
        and str(run.id).startswith(where.id_prefix)
    )
