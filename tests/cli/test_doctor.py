"""`push-pools doctor` on real homes: green, red, damaged, and beside a server."""

from __future__ import annotations

import json
import sqlite3
from collections import namedtuple
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.cli.test_serve import server

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.runner import Cli


def look(cli: Cli, code: int = 0) -> dict[str, dict[str, str]]:
    """Return the worst finding of each check."""
    ran = cli("doctor", "-o", "json")
    assert ran.code == code, ran
    order = ["ok", "warn", "red"]
    found: dict[str, dict[str, str]] = {}
    for each in sorted(ran.data, key=lambda each: order.index(each["level"])):
        assert set(each) == {"check", "level", "found", "fix"}
        assert each["level"] == "ok" or each["fix"]
        found[each["check"]] = each
    return found


def test_a_home_that_is_not_there_yet(cli: Cli) -> None:
    """Nothing is made by looking."""
    assert look(cli)["home"]["level"] == "warn"
    assert not cli.home.exists()


def test_a_home_without_a_ledger(cli: Cli) -> None:
    cli.home.mkdir(mode=0o700)
    assert look(cli)["ledger"]["level"] == "ok"
    assert not (cli.home / "ledger.db").exists()


def test_a_home_that_works_is_green(deployed: Cli) -> None:
    deployed.ok("deployment", "run", "hello")
    deployed.ok("serve", "--until-idle", "--for", "30s")
    found = look(deployed)
    assert {each["level"] for each in found.values()} == {"ok"}, found
    assert {"home", "disk", "ledger", "ticks", "stuck runs", "dead letters", "clock"} <= set(found)


def test_work_without_a_server_is_red(deployed: Cli) -> None:
    deployed.ok("deployment", "run", "hello")
    found = look(deployed, code=1)
    assert found["ticks"]["level"] == "red"
    assert "push-pools serve" in found["ticks"]["fix"]


def test_a_running_server_is_seen(deployed: Cli) -> None:
    """And is not disturbed."""
    with server(deployed.home, "serve"):
        assert look(deployed)["ticks"]["level"] == "ok"
        deployed.ok("deployment", "run", "hello", "--watch")


def test_all_formats_say_the_same(deployed: Cli) -> None:
    as_json = deployed("doctor", "-o", "json")
    as_yaml = deployed("doctor", "-o", "yaml")
    table = deployed("doctor")
    same = [each for each in json.loads(as_json.out) if each["check"] not in ("disk", "clock")]  # These move.
    assert [each for each in yaml.safe_load(as_yaml.out) if each["check"] not in ("disk", "clock")] == same
    for each in same:
        assert each["found"] in table.out
    assert table.err == ""


def test_dead_letters_and_long_lived_keys(deployed: Cli) -> None:
    key = {"aws_access_key_id": "AKIA", "aws_secret_access_key": "hush-hush"}
    deployed.ok("block", "create", "aws-credentials/prod", "--data", "-", stdin=json.dumps(key))
    found = look(deployed)
    assert found["long-lived keys"]["level"] == "warn"
    assert "aws-credentials/prod" in found["long-lived keys"]["found"]
    ledger = sqlite3.connect(deployed.home / "ledger.db")
    ledger.execute("INSERT INTO messages (body, visible_at) VALUES ('{', 0)")
    ledger.commit()
    ledger.close()
    deployed.ok("serve", "--until-idle", "--for", "30s")
    ran = deployed("doctor")
    assert ran.code == 1
    assert "push-pools dlq replay" in ran.out
    assert "hush-hush" not in ran.out


@pytest.mark.parametrize(("mode", "level"), [(0o755, "warn"), (0o777, "red")])
def test_a_home_that_others_may_read_or_write(deployed: Cli, mode: int, level: str) -> None:
    deployed.home.chmod(mode)
    found = look(deployed, code=int(level == "red"))
    assert found["home"]["level"] == level
    assert found["home"]["fix"] == f"run: chmod 700 {deployed.home}"


def test_a_key_file_that_others_may_read(deployed: Cli) -> None:
    """The ledger is looked at all the same."""
    key = deployed.home / "vault.key"
    key.write_text("x")
    key.chmod(0o644)
    found = look(deployed, code=1)
    assert found["key file"]["fix"] == f"run: chmod 600 {key}"
    assert "ticks" in found


@pytest.mark.parametrize(("free", "level"), [(500_000_000, "warn"), (1_000_000, "red")])
def test_a_disk_that_is_nearly_full(deployed: Cli, monkeypatch: pytest.MonkeyPatch, free: int, level: str) -> None:
    usage = namedtuple("usage", "total used free")

    def disk_usage(path: Any) -> Any:
        return usage(1, 1, free)

    monkeypatch.setattr("push_pools.server.home_checks.shutil.disk_usage", disk_usage)
    assert look(deployed, code=int(level == "red"))["disk"]["level"] == level


def test_a_home_of_somebody_else(deployed: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its ledger is not tried."""
    monkeypatch.setattr("push_pools.server.home_checks.os.access", lambda path, mode: False)
    found = look(deployed, code=1)
    assert list(found) == ["home"]
    assert "cannot be read and written" in found["home"]["found"]


def test_a_home_that_cannot_be_reached(deployed: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def exists(path: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.exists", exists)
    assert "Permission denied" in look(deployed, code=1)["home"]["found"]


def test_a_home_that_is_a_file(cli: Cli) -> None:
    cli.home.write_text("x")
    assert look(cli, code=1)["home"]["level"] == "red"


def test_a_ledger_that_is_no_database(cli: Cli) -> None:
    """Said with the fix, and left alone."""
    cli.home.mkdir(mode=0o700)
    (cli.home / "ledger.db").write_bytes(b"not a database, " * 1000)
    found = look(cli, code=1)
    assert "is damaged" in found["ledger"]["found"]
    assert "restore a copy" in found["ledger"]["fix"]
    assert "ticks" not in found
    assert (cli.home / "ledger.db").read_bytes().startswith(b"not a database")


def test_a_ledger_with_a_damaged_page(deployed: Cli) -> None:
    """That other commands may not meet for long."""
    for _ in range(40):
        deployed.ok("deployment", "run", "hello")
    ledger = sqlite3.connect(deployed.home / "ledger.db")
    ledger.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    page_size, root = (
        ledger.execute("PRAGMA page_size").fetchone()[0],
        ledger.execute("SELECT rootpage FROM sqlite_master WHERE name='runs_newest'").fetchone()[0],
    )
    ledger.close()
    with (deployed.home / "ledger.db").open("r+b") as file:
        file.seek((root - 1) * page_size)
        file.write(b"\xff" * 200)
    found = look(deployed, code=1)
    assert found["ledger"]["level"] == "red"
    assert "damaged" in found["ledger"]["found"]


def test_a_ledger_of_a_newer_release(deployed: Cli) -> None:
    ledger = sqlite3.connect(deployed.home / "ledger.db")
    ledger.execute("PRAGMA user_version = 7")
    ledger.close()
    assert look(deployed, code=1)["ledger"]["fix"] == "upgrade push-pools"
