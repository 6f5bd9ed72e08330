"""`push-pools serve` and `push-pools dev`: the whole service in this process."""

from __future__ import annotations

import contextlib
import logging
import math
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from push_pools.cli.base import settings, verb
from push_pools.cli.doubles import doubles as taken_for_clouds
from push_pools.cli.health import health_endpoint
from push_pools.cli.json_logs import JsonLines, logging_to
from push_pools.cli.live import RunsView

if TYPE_CHECKING:
    from push_pools.bootstrap import Embedded
    from push_pools.server.embedded import EmbeddedServer

serve_app = verb()
dev_app = verb()

LOOK_SECONDS: Final = 0.05
"""How often a server that shows its runs looks whether it is told to stop."""

UntilIdle = Annotated[bool, typer.Option("--until-idle", help="Exit when no due run, message or active job is left.")]
For = Annotated[
    str | None,
    typer.Option(
        "--for", metavar="DURATION", help="With --until-idle: exit 1 when it takes longer than this, such as 60s."
    ),
]
Port = Annotated[int, typer.Option(min=0, max=65535, help="Answer http://127.0.0.1:PORT/health; 0 answers nothing.")]


At = Annotated[
    str | None,
    typer.Option("--at", metavar="TIME", help="Begin at this time, such as 2027-03-28T00:00:00Z. Jobs are simulated."),
]
Speed = Annotated[
    float | None,
    typer.Option("--speed", metavar="N", help="Let time pass N times as fast, such as 3600. Jobs are simulated."),
]
Doubles = Annotated[
    bool, typer.Option("--doubles", help="Send the jobs of clouds to doubles in this process; no account is needed.")
]
NotHere = Annotated[
    str | None, typer.Option(hidden=True, help="Only `push-pools dev` simulates time; it is refused here.")
]


class Stopped(Exception):
    """Somebody told the server to stop."""


@dataclass(frozen=True)
class Ending:
    """When a server ends by itself."""

    until_idle: bool
    seconds: float

    @classmethod
    def of(cls, until_idle: bool, for_: str | None) -> Ending:
        """Return what the options say."""
        from push_pools.cli.inputs import duration

        if for_ is None:
            return cls(until_idle, math.inf)
        if not until_idle:
            raise typer.BadParameter("--for goes with --until-idle; add it, or leave both out")
        return cls(until_idle, duration(for_, "--for").total_seconds())


@serve_app.command()
def serve(
    until_idle: UntilIdle = False, for_: For = None, port: Port = 0, at: NotHere = None, speed: NotHere = None
) -> None:
    """Serve the home: submit, watch and finish runs until told to stop.

    Log lines are JSON, on stderr. SIGTERM and Ctrl-C stop it gracefully: nothing more is claimed, calls in
    flight end, and jobs go on; a second Ctrl-C does not wait.
    """
    if at is not None or speed is not None:
        option = "--at" if at is not None else "--speed"
        raise typer.BadParameter(f"{option}: serve runs real jobs at their real times; `push-pools dev` simulates time")
    ending = Ending.of(until_idle, for_)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    with logging_to(handler), running(port) as (server, _):
        is_idle = wait(server, ending, lambda: None)
    _finish(is_idle)


@dev_app.command()
def dev(
    until_idle: UntilIdle = False,
    for_: For = None,
    port: Port = 0,
    doubles: Doubles = False,
    at: At = None,
    speed: Speed = None,
) -> None:
    """Serve the home and show its runs in a live table.

    The same server as `push-pools serve`; only warnings are logged. With --doubles, jobs of clouds go to doubles
    of them in this process, where they do nothing and take three seconds, or as long as their `sleep` says.

    With --at or --speed, time is simulated instead: every decision that the home's schedules lead to is printed,
    on a copy of the home, and no job runs. Then --for is simulated time too, needs no --until-idle, and ends the
    show with exit 0.
    """
    if at is not None or speed is not None:
        if doubles:
            raise typer.BadParameter("--doubles goes with a server; in simulated time no job is sent anywhere")
        _simulate(at, 1.0 if speed is None else speed, until_idle, for_, port)
        return
    ending = Ending.of(until_idle, for_)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    handler.setLevel(logging.WARNING)
    with (
        taken_for_clouds() if doubles else contextlib.nullcontext(),
        logging_to(handler),
        running(port) as (server, home),
        RunsView(home.app, title=str(home.settings.home)) as view,
    ):
        is_idle = wait(server, ending, view.update)
    _finish(is_idle)


def _simulate(at: str | None, speed: float, until_idle: bool, for_: str | None, port: int) -> None:
    from push_pools.cli.inputs import duration
    from push_pools.cli.simulated import check_speed, simulate, start_time

    if port:
        raise typer.BadParameter("--port goes with a server; in simulated time nobody serves the home")
    seconds = math.inf if for_ is None else duration(for_, "--for").total_seconds()
    _finish(simulate(start_time(at), check_speed(speed), until_idle, seconds))


def _finish(is_idle: bool) -> None:
    if not is_idle:
        from push_pools.domain.errors import NotAllowed

        raise NotAllowed("the time is over, and there is work left; see `push-pools flow-run ls`, or give more --for")


@contextlib.contextmanager
def running(port: int = 0) -> Iterator[tuple[EmbeddedServer, Embedded]]:
    """Serve the home of this environment for a while."""
    from push_pools.bootstrap import embedded
    from push_pools.server.embedded import EmbeddedServer

    given = settings()
    if given.aws_table is not None:
        from push_pools.domain.errors import InvalidInput

        raise InvalidInput(
            "PUSH_POOLS_AWS_TABLE is set, and functions serve that installation; unset it to serve the home"
        )
    with embedded(given) as home:
        server = EmbeddedServer(home)
        server.start()
        try:
            with health_endpoint(server, port, given.tick_seconds):
                yield server, home
        finally:
            server.stop()


def wait(server: EmbeddedServer, ending: Ending, every: Callable[[], None]) -> bool:
    """Let a server work until it is told to stop, or as `ending` says; return False when time ran out."""
    with stop_signals() as stop:

        def look() -> None:
            every()
            if stop.is_set():
                raise Stopped

        with contextlib.suppress(Stopped):
            if ending.until_idle:
                return server.run_until_idle(ending.seconds, every=look)
            while True:
                look()
                stop.wait(LOOK_SECONDS)
    return True


@contextlib.contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """Turn the first SIGTERM or SIGINT into an event; the second does what it always does."""
    stop = threading.Event()
    before: dict[int, Any] = {}

    def told(number: int, frame: object) -> None:
        stop.set()
        for each, handler in before.items():
            signal.signal(each, handler)

    for number in (signal.SIGTERM, signal.SIGINT):
        before[number] = signal.signal(number, told)
    try:
        yield stop
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
