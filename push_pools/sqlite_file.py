"""The embedded ledger's file: one SQLite database that the store and the queue share.

A process holds one connection behind one lock: within it nobody waits for SQLite's busy handler, and
other processes (the CLI beside the server) are serialised by the file itself (WAL).
`synchronous=NORMAL` is enough: a power cut may undo the last writes, and because ids and job keys are
derived, what is done again starts nothing twice.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from push_pools.domain.errors import StoreCorrupt, StoreTooNew, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SCHEMA_VERSION: Final = 2
BUSY_SECONDS: Final = 10.0
"""How long a statement waits for another process's write."""

_SCHEMA: Final = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE runs (
    id TEXT PRIMARY KEY, version INTEGER NOT NULL, phase TEXT NOT NULL, state_type TEXT NOT NULL,
    state_name TEXT NOT NULL, deployment_id TEXT, work_pool TEXT NOT NULL, platform TEXT NOT NULL,
    scheduled_time REAL NOT NULL, wake_at REAL, waits_at TEXT, body TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX runs_wake ON runs (wake_at) WHERE wake_at IS NOT NULL;
CREATE INDEX runs_active ON runs (platform) WHERE phase IN ('started', 'stopping');
CREATE INDEX runs_waiting ON runs (work_pool, waits_at) WHERE waits_at IS NOT NULL;
CREATE INDEX runs_newest ON runs (scheduled_time DESC, id DESC);
CREATE TABLE limits (
    scope TEXT PRIMARY KEY, slots INTEGER, source TEXT NOT NULL, is_counting INTEGER NOT NULL, revision INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE slots (scope TEXT NOT NULL, run_id TEXT NOT NULL, PRIMARY KEY (scope, run_id)) WITHOUT ROWID;
CREATE TABLE memo (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE catalogue (
    kind TEXT NOT NULL, name TEXT NOT NULL, id TEXT, version INTEGER NOT NULL, body TEXT NOT NULL,
    PRIMARY KEY (kind, name)
) WITHOUT ROWID;
CREATE INDEX catalogue_id ON catalogue (kind, id);
CREATE TABLE messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT, body TEXT NOT NULL, visible_at REAL NOT NULL,
    receipt TEXT, receives INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX messages_visible ON messages (visible_at);
CREATE TABLE dead_letters (
    id INTEGER PRIMARY KEY, body TEXT NOT NULL, reason TEXT NOT NULL, receives INTEGER NOT NULL, died_at REAL NOT NULL
);
"""

_UPGRADES: Final = {
    # Limits are derived from the catalogue; whoever needs one next writes it again.
    1: """
DROP TABLE limits;
CREATE TABLE limits (
    scope TEXT PRIMARY KEY, slots INTEGER, source TEXT NOT NULL, is_counting INTEGER NOT NULL, revision INTEGER NOT NULL
) WITHOUT ROWID;
""",
}
"""How a ledger of that schema version becomes one of the next."""


class SqliteFile:
    """An open ledger file, safe to share between threads.

    Raises:
        StoreTooNew: A newer release wrote it.
        StoreCorrupt: It is not a ledger, or is damaged.
        StoreUnavailable: It cannot be opened or written now.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = str(path)
        self._lock = threading.RLock()
        try:
            with self._explained():
                self._connection = sqlite3.connect(
                    self.path,
                    timeout=BUSY_SECONDS,
                    isolation_level=None,
                    check_same_thread=False,
                    cached_statements=256,
                )
        except sqlite3.OperationalError as error:
            raise StoreUnavailable(f"the ledger {self.path} cannot be opened: {error}") from error
        try:
            self._prepare()
        except BaseException:
            self._connection.close()
            raise

    def _prepare(self) -> None:
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "temp_store=MEMORY", "cache_size=-16000"):
            self.execute(f"PRAGMA {pragma}")
        version = self._version()
        if version == 0:
            self._create()
            version = self._version()
        if version > SCHEMA_VERSION:
            raise StoreTooNew(
                f"the ledger {self.path} has schema {version} and this release knows {SCHEMA_VERSION}; "
                "upgrade push-pools"
            )
        if version < SCHEMA_VERSION:
            self._upgrade()

    def _version(self) -> int:
        return int(self.execute("PRAGMA user_version")[0][0])

    def _create(self) -> None:
        with self.transaction() as run:
            if run("PRAGMA user_version").fetchone()[0]:
                return  # Another process was faster.
            if run("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                raise StoreCorrupt(f"{self.path} is an SQLite file, but not a push_pools ledger; choose another path")
            for statement in filter(str.strip, _SCHEMA.split(";")):
                run(statement)
            run("INSERT INTO meta VALUES ('ledger_id', ?)", (str(uuid4()),))
            run(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def _upgrade(self) -> None:
        with self.transaction() as run:
            for version in range(run("PRAGMA user_version").fetchone()[0], SCHEMA_VERSION):
                for statement in filter(str.strip, _UPGRADES[version].split(";")):
                    run(statement)
            run(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def execute(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run one statement, which is a transaction of its own, and return its rows."""
        with self._lock, self._explained():
            return self._connection.execute(sql, values).fetchall()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Any]:
        """Hold the write lock; the value runs statements. Leaving with an error undoes everything."""
        with self._lock, self._explained():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection.execute
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def data_version(self) -> int:
        """Return a number that changes when another process writes."""
        return int(self.execute("PRAGMA data_version")[0][0])

    def close(self) -> None:
        """Close the file; nothing may be executed afterwards."""
        with self._lock:
            self._connection.close()

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.IntegrityError:
            raise
        except sqlite3.DatabaseError as error:
            raise _explain(error, self.path) from error


def _explain(error: sqlite3.DatabaseError, path: str) -> Exception:
    text = str(error)
    code = getattr(error, "sqlite_errorcode", None) or 0
    match code & 0xFF:
        case sqlite3.SQLITE_FULL:
            return StoreUnavailable(f"the disk that holds {path} is full; free some space and try again")
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return StoreUnavailable(
                f"the ledger {path} is locked by another program for more than {BUSY_SECONDS:g} s; "
                "end that program (an open `sqlite3` shell?) and try again"
            )
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return StoreCorrupt(f"the ledger {path} is damaged ({text}); restore a copy, or move the file away")
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM:
            return StoreUnavailable(f"the ledger {path} cannot be written ({text}); check the directory's permissions")
        case _:
            return StoreUnavailable(f"the ledger {path} cannot be used now: {text}")


def open_home(home: Path) -> SqliteFile:
    """Open the ledger of a home directory, and make both if they are not there."""
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StoreUnavailable(
            f"the home {home} cannot be made: {error.strerror}; set PUSH_POOLS_HOME to a directory you may write"
        ) from error
    return SqliteFile(Path(home) / "ledger.db")
