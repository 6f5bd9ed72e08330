"""`push-pools serve` and `push-pools dev`."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any, cast

import pytest

from push_pools.cli import health
from push_pools.cli.health import health_endpoint, health_of
from push_pools.cli.serve import stop_signals
from tests.cli.test_flow_run import put

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from push_pools.server.embedded import EmbeddedServer
    from tests.cli.runner import Cli


@contextlib.contextmanager
def server(home: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    """Run a real server that has begun to serve."""
    process = subprocess.Popen(
        [sys.executable, "-m", "push_pools.cli.main", *words],
        env={**os.environ, "PUSH_POOLS_HOME": str(home), "PUSH_POOLS_SWEEP_SECONDS": "0.2"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if json.loads(line)["event"] == "serving":
                break
        yield process
    finally:
        process.kill()
        process.communicate()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def get(port: int, path: str = "/health") -> tuple[int, Any]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def when_well(port: int) -> tuple[int, Any]:
    """Return what a server answers once it listens and has ticked."""
    end = time.monotonic() + 20
    while True:
        with contextlib.suppress(urllib.error.URLError):
            answer = get(port)
            if answer[0] == 200 or time.monotonic() > end:
                return answer
        assert time.monotonic() < end, "nothing listens"
        time.sleep(0.05)


def logs_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_works_and_stops_when_it_is_told(deployed: Cli, number: signal.Signals) -> None:
    with server(deployed.home, "serve") as process:
        ran = deployed.ok("deployment", "run", "hello", "--watch")
        process.send_signal(number)
        out, err = process.communicate(timeout=30)

    assert "no server is running" not in ran.err
    assert (process.returncode, out) == (0, "")
    events = [line["event"] for line in logs_of(err)]
    assert "job_submitted" in events
    assert events[-1] == "stopped"


def test_jobs_outlive_a_server_and_the_next_one_finishes_them(deployed: Cli, config: Path) -> None:
    deployed.ok("deploy", "-", stdin=config.read_text().replace("sleep 30", "sleep 2"))
    run = put(deployed, "slow")
    with server(deployed.home, "serve") as process:
        end = time.monotonic() + 20
        while deployed.read("flow-run", "inspect", run)["state_name"] != "Running":
            assert time.monotonic() < end
        process.terminate()
        process.wait(20)

    deployed.ok("serve", "--until-idle", "--for", "30s")

    shown = deployed.read("flow-run", "inspect", run)
    assert (shown["state_name"], shown["attempt"]) == ("Completed", 1)


def test_a_second_server_says_who_serves(cli: Cli) -> None:
    with server(cli.home, "serve") as process:
        for verb in ("serve", "dev"):
            line = cli.refused(verb)
            assert f"process {process.pid} serves the home" in line


def test_health_is_answered(cli: Cli) -> None:
    port = free_port()
    with server(cli.home, "serve", "--port", str(port)):
        status, body = when_well(port)
        assert (status, body["status"]) == (200, "ok")
        assert get(port, "/other")[0] == 404


def test_a_port_that_is_taken_is_named(cli: Cli) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        ran = cli("serve", "--port", port)

    assert ran.code == 1
    assert f"port {port} of 127.0.0.1 cannot be used" in ran.err.splitlines()[-1]


class Idle:
    """Just enough of a server to ask for its health."""

    def __init__(self, last_tick: float) -> None:
        self.last_tick = last_tick
        self.app = cast("Any", self)
        self.store = cast("Any", self)

    def count_by_phase(self) -> dict[str, int]:
        return {"settled": 2}


def idle(last_tick: float) -> EmbeddedServer:
    return cast("EmbeddedServer", Idle(last_tick))


def test_a_server_that_does_not_tick_is_unwell() -> None:
    now = time.time()

    assert health_of(idle(0), 60) == (503, {"status": "starting"})
    assert health_of(idle(now), 60)[0] == 200
    assert health_of(idle(now - 170), 60)[0] == 200
    assert health_of(idle(now - 190), 60)[1]["status"] == "stale"
    assert health_of(idle(now - 29), 1)[0] == 200
    assert health_of(idle(now - 31), 1)[0] == 503
    assert health_of(idle(now), 60)[1]["runs"] == {"settled": 2}


def test_a_ledger_that_cannot_be_read_is_unwell(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> Any:
        raise OSError("the disk is gone")

    monkeypatch.setattr(health, "health_of", broken)
    port = free_port()
    with health_endpoint(idle(0), port, 60):
        assert get(port) == (503, {"status": "the disk is gone"})


# -- until idle


def test_until_idle_ends_when_nothing_is_left(deployed: Cli) -> None:
    put(deployed, "hello")
    put(deployed, "hello", "--start-in", "1h")

    ran = deployed.ok("serve", "--until-idle", "--for", "30s")

    assert ran.out == ""
    assert {line["event"] for line in logs_of(ran.err)} >= {"serving", "job_submitted", "run_finished", "stopped"}
    assert all({"time", "level", "event"} <= set(line) for line in logs_of(ran.err))
    (submitted,) = [line for line in logs_of(ran.err) if line["event"] == "job_submitted"]
    assert submitted["infrastructure_pid"]
    assert sorted(run["state_name"] for run in deployed.read("flow-run", "ls")) == ["Completed", "Scheduled"]


def test_until_idle_ends_with_1_when_time_ran_out(deployed: Cli) -> None:
    run = put(deployed, "slow")

    ran = deployed("serve", "--until-idle", "--for", "1s")

    assert (ran.code, ran.out) == (1, "")
    assert "there is work left" in ran.err.splitlines()[-1]
    deployed.ok("flow-run", "cancel", run)
    deployed.ok("serve", "--until-idle", "--for", "30s")
    assert deployed.read("flow-run", "inspect", run)["state_name"] == "Cancelled"


@pytest.mark.parametrize("verb", ["serve", "dev"])
def test_options_that_make_no_sense_are_refused(cli: Cli, verb: str) -> None:
    assert "goes with --until-idle" in cli.refused(verb, "--for", "1s", code=2)
    assert "--for 'soon'" in cli.refused(verb, "--until-idle", "--for", "soon", code=2)
    assert "'--port'" in cli.refused(verb, "--port", "70000", code=2)


# -- dev


def test_dev_shows_every_change_of_a_run(deployed: Cli) -> None:
    put(deployed, "hello")
    put(deployed, "bad")

    ran = deployed.ok("dev", "--until-idle", "--for", "30s")

    assert ran.err == ""
    assert [line for line in ran.out.splitlines() if line.endswith("Completed") and "hello-" in line]
    assert [line for line in ran.out.splitlines() if "Failed: the command ended with exit code 3" in line]


# -- signals


def test_the_first_signal_asks_and_the_second_is_as_ever() -> None:
    before = signal.getsignal(signal.SIGINT)
    with stop_signals() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        assert stop.is_set()
        assert signal.getsignal(signal.SIGINT) is before
    assert signal.getsignal(signal.SIGINT) is before
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
