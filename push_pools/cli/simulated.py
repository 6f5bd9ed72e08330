"""`push-pools dev --at TIME --speed N`: shows what the home's schedules would do, and every decision on the way."""

from __future__ import annotations

import contextlib
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

import typer

from push_pools.cli.output import console, is_terminal, note, plain, say
from push_pools.cli.watch import flush

if TYPE_CHECKING:
    from push_pools.bootstrap import Embedded
    from push_pools.server.simulation import Decision, Simulation

MOST_SPEED: Final = 1_000_000.0
LOOK_SECONDS: Final = 0.05
"""How often the simulated clock catches up with the real one."""
LAST: Final = datetime(9000, 1, 1, tzinfo=UTC)


def check_speed(speed: float) -> float:
    """Return a speed that a clock can run at."""
    if not 0 < speed <= MOST_SPEED:
        raise typer.BadParameter(f"--speed {speed:g} is out of range; write more than 0 and at most {MOST_SPEED:.0f}")
    return speed


def start_time(text: str | None) -> datetime:
    """Return when the simulation begins."""
    from push_pools.cli.inputs import instant
    from push_pools.clocks import SystemClock

    start = SystemClock().now().replace(microsecond=0) if text is None else instant(text, "--at")
    if not 1970 <= start.year < LAST.year:
        raise typer.BadParameter(f"--at {text!r}: the year {start.year} is out of range; write 1970 to {LAST.year - 1}")
    return start


def simulate(start: datetime, speed: float, until_idle: bool, seconds: float) -> bool:
    """Run a simulation until it is stopped, idle or over; return False when time ran out before it was idle."""
    from push_pools.bootstrap import embedded
    from push_pools.cli.base import settings, silence
    from push_pools.cli.serve import stop_signals
    from push_pools.server.simulation import Simulation

    silence()
    with embedded(settings()) as home, _shown() as show, stop_signals() as stop:
        simulation = Simulation(home.app, start=start, tell=lambda decision: show(_line(decision)))
        _explain(home, simulation, start, speed)
        end = LAST if math.isinf(seconds) else min(start + timedelta(seconds=seconds), LAST)
        began = time.monotonic()
        is_idle = False
        while not stop.is_set():
            simulation.advance(min(_after(start, (time.monotonic() - began) * speed), end), stop.is_set)
            is_idle = until_idle and simulation.is_idle()
            if is_idle or simulation.clock.now() >= end:
                break
            show(None, simulation.clock.now())
            stop.wait(LOOK_SECONDS)
        _sum_up(simulation, start, time.monotonic() - began)
        return is_idle or stop.is_set() or not until_idle


def _after(start: datetime, seconds: float) -> datetime:
    left = (LAST - start).total_seconds()
    return start + timedelta(seconds=min(seconds, left))


@contextlib.contextmanager
def _shown() -> Iterator[Callable[..., None]]:
    """Yield what prints a line; a terminal also shows the time between the lines."""
    if not is_terminal():

        def show(line: str | None, now: datetime | None = None) -> None:
            if line is not None:
                say(line)
                flush()

        yield show
        return
    from rich.text import Text

    terminal = console()
    with terminal.status("") as status:

        def show_live(line: str | None, now: datetime | None = None) -> None:
            if line is not None:
                terminal.print(Text(line))
            if now is not None:
                status.update(f"{now:%a %Y-%m-%d %H:%M:%S}Z, simulated")

        yield show_live


def _explain(home: Embedded, simulation: Simulation, start: datetime, speed: float) -> None:
    from push_pools.server.simulation import JOB_SECONDS

    say(f"Simulated time, from {start:%Y-%m-%d %H:%M:%S}Z, {speed:g} times as fast as the clock.")
    say(f"JOBS ARE SIMULATED: nothing runs anywhere; each job takes {JOB_SECONDS:g} s of simulated time and succeeds.")
    say(f"On a copy of the pools, queues, deployments, variables and blocks of {home.settings.home}, in memory:")
    say("no secret is opened, nothing is written there, and its own runs are left alone.")
    schedules = simulation.schedules
    for deployment, schedule in schedules:
        say(f"  {plain(deployment.key)}: {plain(schedule.describe())}")
    if not schedules:
        note("there is no active schedule, so nothing will happen; add one: `push-pools deployment schedule create`")
    flush()


def _line(decision: Decision) -> str:
    utc = f"{decision.at.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"
    local = ""
    if decision.timezone is not None and decision.timezone != "UTC":
        local = f"  {decision.at.astimezone(ZoneInfo(decision.timezone)):%a %H:%M:%S %z} {decision.timezone}"
    name = f"  {plain(decision.run.name)}" if decision.run is not None else ""
    return f"{utc}{local}{name}  {plain(decision.text)}"


def _sum_up(simulation: Simulation, start: datetime, took: float) -> None:
    from push_pools.services.status import age_text

    runs = simulation.runs()
    states = Counter(run.state.name for run in runs)
    listed = ", ".join(f"{count} {name}" for name, count in sorted(states.items())) or "none"
    passed = age_text((simulation.clock.now() - start).total_seconds())
    say(f"Simulated {passed} in {took:.1f} s. Runs: {listed}.")
