"""A ledger file that is full, locked, damaged, foreign or too new says so, and loses nothing."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from push_pools import sqlite_file
from push_pools.domain.errors import StoreCorrupt, StoreTooNew, StoreUnavailable
from push_pools.sqlite_file import SqliteFile, open_home
from push_pools.stores.sqlite import SqliteStore
from push_pools.testing.contracts.stores import a_run

if TYPE_CHECKING:
    from pathlib import Path

    from push_pools.domain.runs import FlowRun


def test_a_full_disk_is_named_and_nothing_is_half_written(tmp_path: Path) -> None:
    """SQLite's own "full" answer, made by a page limit; afterwards the file works again."""
    store = SqliteStore(file := SqliteFile(tmp_path / "ledger.db"))
    kept = store.put_run(a_run())
    pages = file.execute("PRAGMA page_count")[0][0]
    file.execute(f"PRAGMA max_page_count={pages}")
    big = a_run(parameters={"x": "y" * 100_000})
    with pytest.raises(StoreUnavailable, match="is full; free some space"):
        store.put_run(big)
    with pytest.raises(StoreUnavailable, match="is full"):
        store.save(kept, kept.evolve(parameters={"x": "y" * 100_000}))
    file.execute("PRAGMA max_page_count=1000000")
    assert store.get_run(kept.id) == kept
    assert store.put_run(big).version == 1
    store.close()


def test_a_locked_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another program holds the write lock for longer than we wait; reads go on."""
    monkeypatch.setattr(sqlite_file, "BUSY_SECONDS", 0.05)
    store = SqliteStore(SqliteFile(tmp_path / "ledger.db"))
    run = store.put_run(a_run())
    other = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable, match="is locked by another program"):
        store.put_run(a_run())
    with pytest.raises(StoreUnavailable, match="locked"):
        store.save(run, run.evolve(slots=("POOL#local",)))
    assert store.get_run(run.id) == run
    other.execute("ROLLBACK")
    other.close()
    assert store.put_run(a_run()).version == 1
    store.close()


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    """Whether it is no database at all or one with a torn page."""
    (tmp_path / "a.db").write_bytes(b"this is not a database" * 100)
    with pytest.raises(StoreCorrupt, match=r"a\.db is damaged"):
        SqliteFile(tmp_path / "a.db")
    store = SqliteStore(SqliteFile(tmp_path / "b.db"))
    for _ in range(200):
        store.put_run(a_run())
    store.close()
    raw = bytearray((tmp_path / "b.db").read_bytes())
    raw[4096 * 3 : 4096 * 30] = b"\xff" * (4096 * 27)
    (tmp_path / "b.db").write_bytes(raw)
    with pytest.raises(StoreCorrupt, match="restore a copy"):
        _read_all(tmp_path / "b.db")


def _read_all(path: Path) -> None:
    file = SqliteFile(path)
    try:
        file.execute("SELECT * FROM runs")
    finally:
        file.close()


def test_a_foreign_database_is_left_alone(tmp_path: Path) -> None:
    """Somebody else's SQLite file is refused and not changed."""
    other = sqlite3.connect(tmp_path / "x.db")
    other.execute("CREATE TABLE theirs (a)")
    other.commit()
    other.close()
    with pytest.raises(StoreCorrupt, match="not a push_pools ledger"):
        SqliteFile(tmp_path / "x.db")
    other = sqlite3.connect(tmp_path / "x.db")
    assert [row[0] for row in other.execute("SELECT name FROM sqlite_master")] == ["theirs"]
    other.close()


def test_an_older_ledger_is_upgraded(tmp_path: Path) -> None:
    """By whoever opens it first; its runs stay, and its limits are derived again."""
    store = SqliteStore(file := SqliteFile(tmp_path / "ledger.db"))
    run = store.put_run(a_run())
    file.execute("DROP TABLE limits")
    file.execute("CREATE TABLE limits (scope TEXT PRIMARY KEY, slots INTEGER NOT NULL) WITHOUT ROWID")
    file.execute("INSERT INTO limits VALUES ('POOL#local', 3)")
    file.execute("PRAGMA user_version = 1")
    store.close()
    with ThreadPoolExecutor(4) as pool:
        files = list(pool.map(lambda _: SqliteFile(tmp_path / "ledger.db"), range(4)))
    store = SqliteStore(files[0])
    assert store.get_run(run.id) == run
    assert store.put_limit(store.limit_of("POOL#local")).revision == 1
    for each in files:
        each.close()


def test_a_newer_ledger_is_refused(tmp_path: Path) -> None:
    """An older binary does not touch it."""
    file = SqliteFile(tmp_path / "ledger.db")
    file.execute("PRAGMA user_version = 99")
    file.close()
    with pytest.raises(StoreTooNew, match=r"schema 99 and this release knows 2; upgrade"):
        SqliteFile(tmp_path / "ledger.db")


def test_a_home_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """With the setting that changes it."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailable, match="set PUSH_POOLS_HOME"):
        open_home(tmp_path / "file" / "home")
    with pytest.raises(StoreUnavailable, match="cannot be"):
        SqliteFile(tmp_path / "nowhere" / "ledger.db")


def test_many_processes_may_make_the_ledger_at_once(tmp_path: Path) -> None:
    """One of them makes it; all see the same ledger."""
    with ThreadPoolExecutor(8) as pool:
        files = list(pool.map(lambda _: SqliteFile(tmp_path / "ledger.db"), range(8)))
    assert len({SqliteStore(file).ledger_id for file in files}) == 1
    for file in files:
        file.close()


def test_another_process_is_noticed(tmp_path: Path) -> None:
    """`data_version` changes with their writes and not with ours."""
    one, two = SqliteFile(tmp_path / "ledger.db"), SqliteFile(tmp_path / "ledger.db")
    before = one.data_version()
    one.execute("INSERT INTO memo VALUES ('a', 'b')")
    assert one.data_version() == before
    two.execute("INSERT INTO memo VALUES ('b', 'b')")
    assert one.data_version() != before
    one.close()
    two.close()


def test_a_run_that_another_process_wrote_is_read_afresh(tmp_path: Path) -> None:
    """What is kept in memory counts only while the file says the same."""
    ours = SqliteStore(SqliteFile(tmp_path / "ledger.db"))
    theirs = SqliteStore(SqliteFile(tmp_path / "ledger.db"))
    run = ours.put_run(a_run())
    assert ours.get_run(run.id) is ours.get_run(run.id)
    newer = theirs.save(theirs.get_run(run.id), run.evolve(name="theirs"))
    assert ours.get_run(run.id) == newer
    newest = ours.save(newer, newer.evolve(name="ours"))
    assert theirs.get_run(run.id) == newest
    for store in (ours, theirs):
        store.close()


def test_a_write_that_others_overtook_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between a write and its keeping another process wrote: what is kept then is seen to be old."""
    ours = SqliteStore(SqliteFile(tmp_path / "ledger.db"))
    theirs = SqliteStore(SqliteFile(tmp_path / "ledger.db"))
    run = ours.get_run(ours.put_run(a_run()).id)
    keep = ours._runs.keep

    def late(written: FlowRun, body: str) -> None:
        theirs.save(theirs.get_run(run.id), written.evolve(name="theirs"))
        keep(written, body)

    monkeypatch.setattr(ours._runs, "keep", late)
    ours.save(run, run.evolve(name="ours"))
    assert ours.get_run(run.id).name == "theirs"
    for store in (ours, theirs):
        store.close()


def test_only_the_last_runs_are_kept_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are read from the file."""
    monkeypatch.setattr("push_pools.stores.sqlite.KEPT_RUNS", 2)
    store = SqliteStore(SqliteFile(tmp_path / "ledger.db"))
    runs = [store.put_run(a_run()) for _ in range(3)]
    assert store.get_run(runs[0].id) is not runs[0]
    assert store.get_run(runs[0].id) == runs[0]
    assert store.get_run(runs[2].id) is runs[2]
    store.close()
