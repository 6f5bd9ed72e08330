"""`push-pools dev --at TIME --speed N`."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.runner import Cli

AT = ("--at", "2027-03-28T00:00:00Z")


@pytest.mark.parametrize(
    ("words", "say"),
    [
        (("--at", "2027-03-28T00:00:00"), "offset"),
        (("--at", "soon"), "--at 'soon'"),
        (("--at", "9999-01-01T00:00:00Z"), "the year 9999 is out of range"),
        ((*AT, "--speed", "0"), "--speed 0 is out of range; write more than 0"),
        ((*AT, "--speed", "-3"), "--speed -3 is out of range"),
        ((*AT, "--speed", "nan"), "--speed nan is out of range"),
        ((*AT, "--speed", "1e9"), "at most 1000000"),
        ((*AT, "--speed", "fast"), "--speed"),
        ((*AT, "--for", "long"), "--for 'long'"),
        ((*AT, "--port", "9999"), "--port goes with a server"),
    ],
)
def test_what_cannot_be_simulated_is_wrong_usage(cli: Cli, words: tuple[str, ...], say: str) -> None:
    assert say in cli.refused("dev", *words, code=2)


@pytest.mark.parametrize("words", [AT, ("--speed", "3600")])
def test_serve_does_not_simulate(cli: Cli, words: tuple[str, ...]) -> None:
    """And says what does."""
    said = cli.refused("serve", *words, code=2)
    assert f"{words[0]}: serve runs real jobs" in said
    assert "`push-pools dev` simulates time" in said


def test_a_home_without_schedules_says_that_nothing_will_happen(deployed: Cli) -> None:
    ran = deployed.ok("dev", *AT, "--speed", "1000000", "--for", "1d")
    assert "JOBS ARE SIMULATED" in ran.out
    assert "there is no active schedule" in ran.err
    assert "Simulated 24 h in" in ran.out
    assert deployed.ok("dev", *AT, "--until-idle").code == 0


def start(home: Path, *words: str, stdout: int, stderr: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "push_pools.cli.main", "dev", *words],
        env={**os.environ, "PUSH_POOLS_HOME": str(home)},
        text=True,
        stdout=stdout,
        stderr=stderr,
    )


WEEKEND = """\
work_pools: [{name: local, type: process}]
deployments:
  - name: nightly
    flow_name: report
    command: "exit 1"
    work_pool: {name: local}
    schedules: [{cron: "30 2 * * *", timezone: Europe/Vienna}]
"""


def test_a_weekend_in_which_clocks_change(cli: Cli) -> None:
    """Every decision with its moment, in UTC and in the schedule's zone; the home is left alone."""
    cli.ok("deploy", "-", stdin=WEEKEND)
    process = start(cli.home, *AT, "--speed", "36000", "--for", "2d", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    lines = out.splitlines()
    assert "JOBS ARE SIMULATED: nothing runs anywhere" in out
    assert "  report/nightly: cron '30 2 * * *' Europe/Vienna" in lines
    decisions = [line for line in lines if line.startswith("2027-03-2")]
    put = next(line for line in decisions if "put into the ledger" in line)
    assert put.startswith("2027-03-28 01:25:00Z  Sun 03:25:00 +0200 Europe/Vienna  nightly-")
    assert "(shifted from 02:30" in put
    assert any("clocks in Europe/Vienna go forward by 60 minutes" in line for line in decisions)
    told = [line for line in decisions if put.split("  ")[2] in line]
    for moment, what in (
        ("01:30:00Z", "claimed"), ("01:30:00Z", "intent"), ("01:30:00Z", "submitted"),
        ("01:30:00Z", "observed running"), ("01:31:00Z", "observed succeeded"), ("01:31:00Z", "decided: Completed"),
    ):  # fmt: skip
        assert [line for line in told if moment in line and what in line], (moment, what)
    assert decisions == sorted(decisions, key=lambda line: line[:20])
    assert lines[-1].startswith("Simulated 2 d in ")
    assert lines[-1].endswith("Runs: 2 Completed.")
    assert cli.read("flow-run", "ls") == []
    assert not (cli.home / "jobs").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_stops_when_it_is_told(deployed: Cli, number: signal.Signals) -> None:
    """With the sum of what was seen, and exit 0."""
    process = start(deployed.home, *AT, "--speed", "1000000", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stderr is not None
    process.stderr.readline()
    process.send_signal(number)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "Runs: none." in out


def test_a_terminal_shows_the_simulated_time(deployed: Cli) -> None:
    """Between the lines."""
    ours, theirs = pty.openpty()
    process = start(deployed.home, *AT, "--speed", "3600", "--for", "1h", stdout=theirs, stderr=theirs)
    os.close(theirs)
    seen = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # The terminal is closed.
            break
        if not part:
            break
        seen += part
    os.close(ours)
    assert process.wait(30) == 0
    assert re.search(rb"Sun 2027-03-28 00:\d\d:\d\dZ, simulated", seen)
    assert b"JOBS ARE SIMULATED" in seen


def test_it_begins_now_unless_it_is_told(deployed: Cli) -> None:
    ran = deployed.ok("dev", "--speed", "1000000", "--for", "1h")
    assert f"from {datetime.now(UTC):%Y-%m-%d}" in ran.out
    assert "Simulated 60 min in" in ran.out


def test_time_that_is_over_before_it_is_idle_is_an_error(cli: Cli) -> None:
    """As with a real server."""
    cli.ok("deploy", "-", stdin=WEEKEND.replace('cron: "30 2 * * *"', 'cron: "0 1 * * *"'))
    ran = cli("dev", *AT, "--speed", "1000000", "--until-idle", "--for", "20s")
    assert ran.code == 1
    assert "Runs: 1 Running." in ran.out
    assert "the time is over" in ran.err
    assert cli.ok("dev", *AT, "--speed", "1000000", "--until-idle", "--for", "1h").out.endswith("Runs: 1 Completed.\n")
