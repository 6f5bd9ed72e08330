"""The ledger in an SQLite file. Every write names the version it read; slots and waiters change with their run."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from push_pools.domain.errors import NotFound, ScopeFull, VersionConflict
from push_pools.domain.pace import microseconds, moment_of
from push_pools.domain.runs import FlowRun, Phase
from push_pools.domain.states import StateType
from push_pools.ports import Limit, RecordT, RunFilter, RunPage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from push_pools.domain.pace import Rate
    from push_pools.domain.pools import CatalogueRecord
    from push_pools.sqlite_file import SqliteFile

_COLUMNS: Final = (
    "id, version, phase, state_type, state_name, deployment_id, work_pool, platform, scheduled_time, wake_at, "
    "waits_at, body"
)
_INSERT: Final = (
    f"INSERT INTO runs ({_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?,?,?) "  # noqa: S608 - constant text
    "ON CONFLICT (id) DO NOTHING RETURNING 1"
)
_UPDATE: Final = (
    "UPDATE runs SET version=?, phase=?, state_type=?, state_name=?, wake_at=?, waits_at=?, body=? "
    "WHERE id=? AND version=?"
)
_PACE: Final = (
    "INSERT INTO memo VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = max(CAST(value AS INTEGER), ?3) + ?4 "
    "WHERE CAST(value AS INTEGER) <= ?5 RETURNING value"
)
KEPT_RUNS: Final = 1024
"""How many runs are kept in memory."""


class SqliteStore:
    """A whole ledger in one file."""

    lists_lag: Final = False

    def __init__(self, file: SqliteFile) -> None:
        self._file = file
        self._runs = _KeptRuns()
        self._kept: dict[tuple[str, str], CatalogueRecord] = {}
        self._kept_at = (-1, -1)
        self._catalogue_writes = 0
        self._listed: dict[str, dict[str, CatalogueRecord]] = {}
        self._ledger_id = UUID(file.execute("SELECT value FROM meta WHERE name='ledger_id'")[0][0])

    @property
    def ledger_id(self) -> UUID:
        return self._ledger_id

    def close(self) -> None:
        self._file.close()

    # -- runs

    def put_run(self, run: FlowRun) -> FlowRun:
        fresh = run.evolve(version=1)
        row = _row(fresh)
        if not self._file.execute(_INSERT, row):
            return self.get_run(run.id)
        self._runs.keep(fresh, row[-1])
        return fresh

    def put_runs(self, runs: Sequence[FlowRun]) -> Mapping[UUID, FlowRun]:
        rows = [_row(run.evolve(version=1)) for run in runs]
        with self._file.transaction() as execute:
            known = [run.id for run, row in zip(runs, rows, strict=True) if not execute(_INSERT, row).fetchall()]
        return {run_id: self.get_run(run_id) for run_id in known}

    def get_run(self, run_id: UUID) -> FlowRun:
        """Return a run; what is stored in the words that this process wrote last is not parsed anew."""
        kept = self._runs.get(run_id)
        known = kept[1] if kept is not None else None
        rows = self._file.execute("SELECT nullif(body, ?) FROM runs WHERE id=?", (known, str(run_id)))
        if not rows:
            raise NotFound("flow run", str(run_id))
        (body,) = rows[0]
        return kept[0] if kept is not None and body is None else FlowRun.model_validate_json(body)

    def save(self, before: FlowRun, after: FlowRun, *, counting: bool = False) -> FlowRun:
        written = after.evolve(version=before.version + 1)
        body = written.model_dump_json()
        values = (
            written.version,
            written.phase,
            written.state.type,
            written.state.name,
            _seconds(written.wake_at),
            written.waits_at,
            body,
            str(before.id),
            before.version,
        )
        if before.slots == after.slots:
            saved = bool(self._file.execute(_UPDATE + " RETURNING 1", values))
        else:
            saved = self._save_with_slots(before, after, values, counting)
        if not saved:
            self._recognise(written, body)
        self._runs.keep(written, body)
        return written

    def _save_with_slots(self, before: FlowRun, after: FlowRun, values: Sequence[Any], counting: bool) -> bool:
        run_id = str(before.id)
        with self._file.transaction() as run:
            if not run(_UPDATE, values).rowcount:
                return False
            for scope in set(before.slots) - set(after.slots):
                run("DELETE FROM slots WHERE scope=? AND run_id=?", (scope, run_id))
            for scope in sorted(set(after.slots) - set(before.slots)):
                _take(run, scope, run_id, counting)
        return True

    def _recognise(self, written: FlowRun, body: str) -> None:
        """Accept a refused write when its effect is already there: the first answer was lost."""
        rows = self._file.execute("SELECT body FROM runs WHERE id=?", (str(written.id),))
        if not rows or rows[0][0] != body:
            raise VersionConflict(f"flow run {written.id} was changed meanwhile")

    def due(
        self, now: datetime, *, after: datetime | None = None, limit: int = 1000, shard: int | None = None
    ) -> Sequence[FlowRun]:
        del shard  # One file is one shard.
        low = after.timestamp() if after else -math.inf
        tail = "WHERE wake_at <= ? AND wake_at > ? ORDER BY wake_at LIMIT ?"
        return self._select(tail, (now.timestamp(), low, limit))

    def active(self, platform: str, *, shard: int | None = None) -> Sequence[FlowRun]:
        del shard
        return self._select("WHERE platform=? AND phase IN ('started', 'stopping')", (platform,))

    def active_platforms(self) -> frozenset[str]:
        sql = "SELECT DISTINCT platform FROM runs WHERE phase IN ('started', 'stopping')"
        return frozenset(row[0] for row in self._file.execute(sql))

    def waiting(
        self, work_pool: str, *, queue: str | None = None, after: str = "", limit: int = 1000
    ) -> Sequence[FlowRun]:
        # A place begins with its queue and `#`; `$` is the character after it.
        low, high = (after, "\uffff") if queue is None else (max(after, f"{queue}#"), f"{queue}$")
        return self._select(
            "WHERE work_pool=? AND waits_at > ? AND waits_at < ? ORDER BY waits_at LIMIT ?",
            (work_pool, low, high, limit),
        )

    def waiting_pools(self) -> frozenset[str]:
        sql = "SELECT DISTINCT work_pool FROM runs WHERE waits_at IS NOT NULL"
        return frozenset(row[0] for row in self._file.execute(sql))

    def limit_of(self, scope: str) -> Limit:
        rows = self._file.execute(
            "SELECT slots, source, is_counting, revision, (SELECT count(*) FROM slots WHERE scope=?1) "
            "FROM (SELECT 1) LEFT JOIN limits ON scope=?1",
            (scope,),
        )
        slots, source, is_counting, revision, taken = rows[0]
        return Limit(scope, slots, source or "", bool(is_counting), revision or 0, taken)

    def put_limit(self, limit: Limit) -> Limit:
        values = (limit.slots, limit.source, int(limit.is_counting), limit.revision + 1, limit.scope)
        if limit.revision == 0:
            sql = "INSERT INTO limits (slots, source, is_counting, revision, scope) VALUES (?,?,?,?,?) "
            rows = self._file.execute(sql + "ON CONFLICT DO NOTHING RETURNING 1", values)
        else:
            sql = "UPDATE limits SET slots=?, source=?, is_counting=?, revision=? WHERE scope=? AND revision=? "
            rows = self._file.execute(sql + "RETURNING 1", (*values, limit.revision))
        stored = self.limit_of(limit.scope)
        written = replace(limit, revision=limit.revision + 1, taken=stored.taken)
        if not rows and stored != written:
            raise VersionConflict(f"the limit of {limit.scope} was changed meanwhile")
        return written

    def slots(self, scope: str) -> tuple[int | None, frozenset[UUID]]:
        with self._file.transaction() as run:
            limit = run("SELECT slots FROM limits WHERE scope=?", (scope,)).fetchone()
            held = run("SELECT run_id FROM slots WHERE scope=?", (scope,)).fetchall()
        return (limit[0] if limit else None), frozenset(UUID(row[0]) for row in held)

    def runs(self, where: RunFilter, *, limit: int = 200, cursor: str | None = None) -> RunPage:
        clauses, values = _where(where)
        if cursor is not None:
            at, _, run_id = cursor.partition("|")
            clauses.append("(scheduled_time, id) < (?, ?)")
            values += [float(at), run_id]
        sql = ("WHERE " + " AND ".join(clauses) if clauses else "") + " ORDER BY scheduled_time DESC, id DESC LIMIT ?"
        found = self._select(sql, (*values, limit + 1))
        page = tuple(found[:limit])
        more = len(found) > limit
        return RunPage(page, f"{page[-1].scheduled_time.timestamp()!r}|{page[-1].id}" if more else None)

    def purge(self, before: datetime, *, limit: int) -> int:
        # The index of newest runs ends with the oldest, so that nothing is read while there is no history.
        old = (
            "SELECT id FROM runs WHERE scheduled_time < ?1 AND phase = 'settled' "
            "AND CAST(strftime('%s', json_extract(body, '$.end_time')) AS REAL) < ?1 "
            "ORDER BY scheduled_time, id LIMIT ?2"
        )
        sql = f"DELETE FROM runs WHERE id IN ({old}) RETURNING id"  # noqa: S608 - constant text
        rows = self._file.execute(sql, (before.timestamp(), limit))
        for (run_id,) in rows:
            self._runs.drop(UUID(run_id))
        return len(rows)

    def count_by_phase(self) -> Mapping[Phase, int]:
        rows = self._file.execute("SELECT phase, count(*) FROM runs GROUP BY phase")
        return {Phase(phase): count for phase, count in rows}

    def _select(self, tail: str, values: Sequence[Any]) -> list[FlowRun]:
        rows = self._file.execute(f"SELECT body FROM runs {tail}", values)  # noqa: S608 - `tail` is ours
        return [FlowRun.model_validate_json(row[0]) for row in rows]

    # -- memo

    def remember(self, key: str, value: str) -> str:
        rows = self._file.execute(
            "INSERT INTO memo VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value=value RETURNING value", (key, value)
        )
        return str(rows[0][0])

    def recall(self, key: str) -> str | None:
        rows = self._file.execute("SELECT value FROM memo WHERE name=?", (key,))
        return str(rows[0][0]) if rows else None

    def forget(self, key: str) -> None:
        self._file.execute("DELETE FROM memo WHERE name=?", (key,))

    def pace(self, scope: str, rate: Rate, now: datetime, *, ahead_seconds: float = 0.0) -> datetime:
        name, oldest, interval = f"pace/{scope}", rate.oldest(now), rate.interval
        latest = microseconds(now + timedelta(seconds=ahead_seconds))
        rows = self._file.execute(_PACE, (name, oldest + interval, oldest, interval, latest))
        if rows:
            return moment_of(int(rows[0][0]) - interval)
        # Refused: the next place is too far ahead. It may have come closer since, and is asked for again.
        return moment_of(max(int(self.recall(name) or oldest), oldest))

    # -- catalogue

    def get(self, kind: type[RecordT], key: str) -> RecordT | None:
        return self._read(kind, "name", key)

    def find(self, kind: type[RecordT], id_: UUID) -> RecordT | None:
        return self._read(kind, "id", str(id_))

    def _read(self, kind: type[RecordT], column: str, value: str) -> RecordT | None:
        """Return a record, from memory if nobody has written since it was read.

        Every run reads its pool and deployment several times. `data_version` tells of other processes' writes,
        a counter of our own, so what is kept is what is stored.
        """
        now = (self._file.data_version(), self._catalogue_writes)
        if self._kept_at != now:
            self._kept, self._kept_at = {}, now
        kept = self._kept  # Not emptied by others: whoever finds it stale begins another one.
        name = (f"{kind.__name__}.{column}", value)
        if (found := kept.get(name)) is not None:
            return found if isinstance(found, kind) else None
        sql = f"SELECT body FROM catalogue WHERE kind=? AND {column}=?"  # noqa: S608 - `column` is ours
        rows = self._file.execute(sql, (kind.__name__, value))
        if not rows:
            return None
        record = kept[name] = kind.model_validate_json(rows[0][0])
        return record

    def put(self, record: RecordT) -> RecordT:
        written = record.model_copy(update={"version": record.version + 1})
        kind, name, id_ = type(record).__name__, record.key, getattr(record, "id", None)
        body = written.model_dump_json()
        if record.version == 0:
            rows = self._file.execute(
                "INSERT INTO catalogue VALUES (?,?,?,?,?) ON CONFLICT DO NOTHING RETURNING 1",
                (kind, name, str(id_) if id_ else None, written.version, body),
            )
        else:
            rows = self._file.execute(
                "UPDATE catalogue SET version=?, body=? WHERE kind=? AND name=? AND version=? RETURNING 1",
                (written.version, body, kind, name, record.version),
            )
        self._catalogue_writes += 1  # After the write: who reads before it may keep the old record no longer.
        if not rows and self.get(type(record), name) != written:
            raise VersionConflict(f"{kind} {name!r} was changed meanwhile")
        return written

    def delete(self, record: CatalogueRecord) -> None:
        kind, name = type(record).__name__, record.key
        rows = self._file.execute(
            "DELETE FROM catalogue WHERE kind=? AND name=? AND version=? RETURNING 1", (kind, name, record.version)
        )
        self._catalogue_writes += 1
        if not rows and self.get(type(record), name) is not None:
            raise VersionConflict(f"{kind} {name!r} was changed meanwhile")

    def list(self, kind: type[RecordT]) -> Sequence[RecordT]:
        """Return the records of a kind; what is stored in the words that were listed before is not parsed anew."""
        rows = self._file.execute("SELECT body FROM catalogue WHERE kind=? ORDER BY name", (kind.__name__,))
        kept = self._listed.get(kind.__name__, {})
        found = {body: kept.get(body) or kind.model_validate_json(body) for (body,) in rows}
        self._listed[kind.__name__] = found
        return [record for record in found.values() if isinstance(record, kind)]


def _row(run: FlowRun) -> tuple[Any, ...]:
    return (
        str(run.id),
        run.version,
        run.phase,
        run.state.type,
        run.state.name,
        str(run.deployment_id) if run.deployment_id else None,
        run.work_pool,
        run.platform,
        run.scheduled_time.timestamp(),
        _seconds(run.wake_at),
        run.waits_at,
        run.model_dump_json(),
    )


class _KeptRuns:
    """The runs that this process wrote last, each with the words in which it is stored."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs: OrderedDict[UUID, tuple[FlowRun, str]] = OrderedDict()

    def get(self, run_id: UUID) -> tuple[FlowRun, str] | None:
        return self._runs.get(run_id)

    def drop(self, run_id: UUID) -> None:
        with self._lock:
            self._runs.pop(run_id, None)

    def keep(self, run: FlowRun, body: str) -> None:
        with self._lock:
            self._runs[run.id] = (run, body)
            self._runs.move_to_end(run.id)
            if len(self._runs) > KEPT_RUNS:
                self._runs.popitem(last=False)


def _take(run: Any, scope: str, run_id: str, counting: bool) -> None:
    # The count and the limit are read under the write lock, so no two takers see the same free slot.
    taken = run(
        "INSERT INTO slots SELECT ?1, ?2 WHERE ?3 OR NOT EXISTS (SELECT 1 FROM limits WHERE scope=?1 AND "
        "(is_counting OR (SELECT count(*) FROM slots WHERE scope=?1) >= slots))",
        (scope, run_id, counting),
    ).rowcount
    if not taken:
        raise ScopeFull(scope)


def _where(where: RunFilter) -> tuple[list[str], list[Any]]:
    clauses: list[str] = []
    values: list[Any] = []
    if where.states:
        types = [state for state in where.states if state in StateType.__members__]
        names = [state for state in where.states if state not in StateType.__members__]
        marks = ",".join("?" * len(types)), ",".join("?" * len(names))
        clauses.append(f"(state_type IN ({marks[0]}) OR state_name IN ({marks[1]}))")
        values += [*types, *names]
    for clause, value in (
        ("deployment_id = ?", str(where.deployment_id) if where.deployment_id else None),
        ("work_pool = ?", where.work_pool),
        ("scheduled_time >= ?", where.since.timestamp() if where.since else None),
        ("id LIKE ?", where.id_prefix + "%" if where.id_prefix else None),
    ):
        if value is not None:
            clauses.append(clause)
            values.append(value)
    return clauses, values


def _seconds(moment: datetime | None) -> float | None:
    return moment.timestamp() if moment else None
