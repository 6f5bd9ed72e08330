"""A home that is damaged, too new, foreign, locked or not writable: one line that names it and the fix, and no loss."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import pytest

from push_pools import sqlite_file

if TYPE_CHECKING:
    from tests.cli.runner import Cli

READS_AND_WRITES = (
    ("work-pool", "ls"),
    ("deployment", "run", "hello"),
    ("flow-run", "ls"),
    ("serve", "--until-idle"),
)


@pytest.mark.parametrize("words", READS_AND_WRITES, ids=" ".join)
def test_a_damaged_ledger(cli: Cli, words: tuple[str, ...]) -> None:
    cli.home.mkdir(parents=True)
    (cli.home / "ledger.db").write_bytes(b"not a database, " * 1000)
    said = cli.refused(*words)
    assert str(cli.home / "ledger.db") in said
    assert "restore a copy, or move the file away" in said
    assert (cli.home / "ledger.db").read_bytes().startswith(b"not a database")


@pytest.mark.parametrize("words", READS_AND_WRITES, ids=" ".join)
def test_a_ledger_of_a_newer_release(deployed: Cli, words: tuple[str, ...]) -> None:
    ledger = sqlite3.connect(deployed.home / "ledger.db")
    ledger.execute("PRAGMA user_version = 7")
    ledger.close()
    assert "schema 7 and this release knows 2; upgrade push-pools" in deployed.refused(*words)


def test_a_locked_ledger(deployed: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads go on; a write says who may be the reason, and works once the lock is gone."""
    monkeypatch.setattr(sqlite_file, "BUSY_SECONDS", 0.1)
    other = sqlite3.connect(deployed.home / "ledger.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert deployed.read("work-pool", "ls")
    assert "is locked by another program" in deployed.refused("deployment", "run", "hello")
    other.execute("ROLLBACK")
    other.close()
    deployed.ok("deployment", "run", "hello")


def test_a_full_disk(deployed: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was there stays there."""
    prepare = sqlite_file.SqliteFile._prepare

    def without_room(file: sqlite_file.SqliteFile) -> None:
        prepare(file)
        file.execute(f"PRAGMA max_page_count={file.execute('PRAGMA page_count')[0][0]}")

    monkeypatch.setattr(sqlite_file.SqliteFile, "_prepare", without_room)
    big = '{"text": "%s"}' % ("x" * 200_000)
    said = deployed.refused("deployment", "run", "hello", "--params", big)
    assert "is full; free some space and try again" in said
    assert deployed.read("deployment", "ls")


def test_a_home_that_cannot_be_made(cli: Cli) -> None:
    cli.home.parent.mkdir(parents=True, exist_ok=True)
    cli.home.write_text("a file")
    assert "set PUSH_POOLS_HOME to a directory you may write" in cli.refused("work-pool", "ls")
