"""`push-pools dev --at TIME --speed N`."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
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
