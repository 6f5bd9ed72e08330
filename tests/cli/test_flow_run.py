"""`push-pools flow-run` on runs of real processes."""

from __future__ import annotations

import json
import threading
import time
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

import pytest

from push_pools.bootstrap import embedded, open_embedded
from push_pools.cli.flow_run import _state
from push_pools.cli.watch import watch_run
from push_pools.clocks import MovableClock
from push_pools.domain.runs import Phase
from push_pools.domain.states import State
from push_pools.server.embedded import EmbeddedServer
from push_pools.services.stop import cancel_run
from push_pools.services.tick import tick
from push_pools.settings import Settings
from tests.cli.runner import Ran, run_cli

if TYPE_CHECKING:
    from tests.cli.runner import Cli

LISTED = [
    "id", "name", "deployment", "work_pool", "work_queue", "state_type", "state_name", "state_message",
    "failure_class", "scheduled_time", "start_time", "end_time", "attempt", "infrastructure_pid", "parameters",
    "job_variables", "tags",
]  # fmt: skip


def put(cli: Cli, deployment: str, *words: str) -> str:
    """Put a run and return its id."""
    id_: str = cli.ok("deployment", "run", deployment, *words, "-o", "json").data["id"]
    return id_


def serve(cli: Cli) -> None:
    cli.ok("serve", "--until-idle", "--for", "30s")


@pytest.fixture
def ended(deployed: Cli) -> tuple[Cli, str, str]:
    """The command on a home with a Completed and a Failed run, and their ids."""
    good, bad = put(deployed, "hello"), put(deployed, "bad")
    serve(deployed)
    return deployed, good, bad


def test_a_listed_run_has_exactly_the_public_fields(deployed: Cli) -> None:
    put(deployed, "hello")

    (run,) = deployed.read("flow-run", "ls")

    assert list(run) == LISTED


def test_runs_are_listed_by_state_deployment_pool_and_time(ended: tuple[Cli, str, str]) -> None:
    cli, good, bad = ended
    later = put(cli, "hello", "--start-in", "1h")

    def ids(*words: object) -> set[str]:
        return {run["id"] for run in cli.read("flow-run", "ls", *words)}

    assert ids() == {good, bad, later}
    assert ids("--state", "Completed") == ids("--state", "completed") == {good}
    assert ids("--state", "FAILED") == ids("--state", "failed") == ids("--state", "Failed") == {bad}
    assert ids("--state", "FAILED", "--state", "Scheduled") == {bad, later}
    assert ids("--state", "late") == set()
    assert ids("--deployment", "hello") == {good, later}
    assert ids("--pool", "local") == {good, bad, later}
    assert ids("--since", "1h") == {good, bad, later}
    assert ids("--since", "2099-01-01T00:00:00Z") == set()
    assert len(ids("--limit", "2")) == 2


@pytest.mark.parametrize(
    ("text", "state"),
    [("Failed", "Failed"), ("failed", "FAILED"), ("FAILED", "FAILED"), ("late", "Late"), ("TIMEDOUT", "TimedOut")],
)
def test_a_state_is_a_name_as_it_is_written_and_else_a_type(text: str, state: str) -> None:
    assert _state(text) == state


def test_more_runs_than_a_page_are_listed(deployed: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from push_pools.cli import flow_run

    monkeypatch.setattr(flow_run, "PAGE_RUNS", 2)
    for _ in range(5):
        put(deployed, "hello")

    assert len(deployed.read("flow-run", "ls")) == 5
    assert len(deployed.read("flow-run", "ls", "--limit", "3")) == 3


def test_a_filter_that_cannot_be_is_refused(deployed: Cli) -> None:
    assert "did you mean 'Running'" in deployed.refused("flow-run", "ls", "--state", "Runing", code=2)
    assert "deployment 'x'" in deployed.refused("flow-run", "ls", "--deployment", "x")
    assert "work pool 'x'" in deployed.refused("flow-run", "ls", "--pool", "x")
    assert "--since" in deployed.refused("flow-run", "ls", "--since", "yesterday", code=2)


def test_a_run_is_found_by_id_prefix_and_name(ended: tuple[Cli, str, str]) -> None:
    cli, good, _ = ended
    shown = cli.read("flow-run", "inspect", good)

    assert cli.read("flow-run", "inspect", good[:8]) == shown
    assert cli.read("flow-run", "inspect", shown["name"]) == shown
    for command in ("inspect", "why", "logs", "cancel", "retry", "watch"):
        assert "flow run 'nobody' does not exist" in cli.refused("flow-run", command, "nobody")


def test_an_inspected_run_tells_more(ended: tuple[Cli, str, str]) -> None:
    cli, _, bad = ended

    shown = cli.read("flow-run", "inspect", bad)

    assert list(shown)[: len(LISTED)] == LISTED
    assert (shown["state_name"], shown["exit_code"], shown["failure_class"]) == ("Failed", 3, "exit")
    assert shown["suggestion"]


def test_why_tells_the_story_what_it_waits_for_and_what_to_do(ended: tuple[Cli, str, str]) -> None:
    cli, _, bad = ended

    text = cli.ok("flow-run", "why", bad).out
    told = cli.read("flow-run", "why", bad)

    for part in ("put into the ledger", "claimed", "submitted", "decided: Failed", "Waits for: nothing", "Next: "):
        assert part in text
    assert "flow-run retry" in text
    assert told["run"]["id"] == bad
    assert [line["what"] for line in told["story"]][:2] == ["put", "claimed"]
    assert all(line["after_seconds"] >= 0 for line in told["story"])
    assert told["waits_for"] == "nothing"
    assert "flow-run logs" in told["advice"]


def test_why_of_a_run_that_waits(deployed: Cli) -> None:
    run = put(deployed, "hello", "--start-in", "1h")

    text = deployed.ok("flow-run", "why", run).out

    assert "Waits for: its time" in text
    assert "Next:" not in text


def test_logs_are_the_output_of_the_job(ended: tuple[Cli, str, str]) -> None:
    cli, good, bad = ended

    assert cli.ok("flow-run", "logs", good).out == 'hello {"who":"world"}\n'
    assert cli.ok("flow-run", "logs", bad, "-f").out == "one\ntwo\n"


def test_logs_of_a_run_without_a_job_are_refused(deployed: Cli) -> None:
    assert "has no job" in deployed.refused("flow-run", "logs", put(deployed, "hello"))


def test_a_run_that_waits_is_cancelled_at_once(deployed: Cli) -> None:
    run = put(deployed, "hello")

    ran = deployed.ok("flow-run", "cancel", run, "--reason", "not today")

    assert ran.out.startswith("Cancelled flow run 'hello-")
    shown = deployed.read("flow-run", "inspect", run)
    assert shown["state_name"] == "Cancelled"
    assert "not today" in shown["state_message"]
    assert "over" in deployed.refused("flow-run", "cancel", run)


def test_a_cancel_by_a_user_without_a_name_is_by_the_command_line(
    deployed: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nameless() -> str:
        raise KeyError("uid 12345")

    monkeypatch.setattr("getpass.getuser", nameless)
    run = put(deployed, "hello")

    deployed.ok("flow-run", "cancel", run)

    assert "command line" in deployed.read("flow-run", "inspect", run)["state_message"]


def test_a_cancelled_run_may_be_printed_as_data(deployed: Cli) -> None:
    run = put(deployed, "hello")

    assert deployed.ok("flow-run", "cancel", run, "-o", "json").data["state_name"] == "Cancelled"


def test_a_retry_is_a_new_run(ended: tuple[Cli, str, str]) -> None:
    cli, _, bad = ended

    fresh = cli.ok("flow-run", "retry", bad, "-o", "json").data

    assert fresh["id"] != bad
    assert cli.read("flow-run", "inspect", fresh["id"])["retry_of"] == bad
    assert "not over yet" in cli.refused("flow-run", "retry", fresh["id"])


def test_watching_a_run_that_is_over_tells_how_it_ended(ended: tuple[Cli, str, str]) -> None:
    cli, good, bad = ended

    assert cli.ok("flow-run", "watch", good).out.rstrip().endswith("Completed")
    ran = cli("flow-run", "watch", bad)
    assert (ran.code, ran.err) == (1, "")
    assert "Failed: the command ended with exit code 3" in ran.out


# -- while it runs


class Serving:
    """A server for a home in this process, while its block lasts."""

    def __init__(self, cli: Cli) -> None:
        self.cli = cli

    def __enter__(self) -> Serving:
        self.opened = open_embedded(Settings(home=self.cli.home, sweep_seconds=0.2))
        self.server = EmbeddedServer(self.opened)
        self.server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.stop()
        self.opened.close()

    def wait_for(self, run: str, state: str) -> None:
        """Wait until a run is in a state."""
        end = time.monotonic() + 30
        while self.opened.app.store.get_run(UUID(run)).state.name != state:
            assert time.monotonic() < end, f"run {run} is not {state}"
            time.sleep(0.02)


def test_a_running_job_is_stopped_by_a_cancel_and_watched_to_its_end(deployed: Cli) -> None:
    run = put(deployed, "slow")
    with Serving(deployed) as serving:
        serving.wait_for(run, "Running")

        ran = deployed.ok("flow-run", "cancel", run)
        watched = deployed("flow-run", "watch", run)

    assert ran.out.endswith("is being cancelled: its job is stopped first.\n")
    assert ran.err == ""
    assert watched.code == 1
    assert "Cancelled" in watched.out.splitlines()[-1]


def test_a_run_may_be_watched_as_it_is_put(deployed: Cli) -> None:
    with Serving(deployed):
        good = deployed("deployment", "run", "hello", "--watch")
        bad = deployed("deployment", "run", "bad", "--watch")
        again = deployed("flow-run", "retry", _id(bad), "--watch")

    assert (good.code, good.err) == (0, "")
    assert "Completed" in good.out.splitlines()[-1]
    assert (bad.code, again.code) == (1, 1)
    assert "Failed" in again.out.splitlines()[-1]


def test_a_watched_run_may_be_printed_as_data_once_it_is_over(deployed: Cli) -> None:
    with Serving(deployed):
        good = deployed.ok("deployment", "run", "hello", "--watch", "-o", "json")
        bad = deployed("deployment", "run", "bad", "--watch", "-o", "json")

    assert good.data["state_name"] == "Completed"
    assert (bad.code, bad.data["state_name"]) == (1, "Failed")


def test_a_state_that_lasts_is_one_line(deployed: Cli, capsys: pytest.CaptureFixture[str]) -> None:
    run = put(deployed, "hello")
    with embedded(Settings(home=deployed.home)) as opened:
        waits = opened.app.store.get_run(UUID(run))
        over = waits.evolve(phase=Phase.SETTLED, state=State.of("Completed", waits.created_at))
        later = iter([waits, waits, over])

        watch_run(cast("Any", SimpleNamespace(store=SimpleNamespace(get_run=lambda _: next(later)))), waits)

    assert [line.split()[2] for line in capsys.readouterr().out.splitlines()] == ["Scheduled", "Completed"]


def _id(ran: Ran) -> str:
    return ran.out.partition("(")[2].partition(")")[0]


def test_logs_are_followed_to_the_end_of_the_run(deployed: Cli, config: Any) -> None:
    text = config.read_text().replace("echo one; echo two; exit 3", "echo one; sleep 1; echo two; exit 3")
    deployed.ok("deploy", "-", stdin=text)
    run = put(deployed, "bad")
    with Serving(deployed):
        ran = deployed.ok("flow-run", "logs", "--follow", run)

    assert ran.out == "one\ntwo\n"


def test_following_says_when_nobody_serves(deployed: Cli) -> None:
    """Without a server the run waits; it is cancelled so that following it ends."""
    run = put(deployed, "hello")
    timer = threading.Timer(0.5, lambda: run_cancel(deployed, run))
    timer.start()

    ran = deployed("flow-run", "logs", "-f", run)
    timer.join()

    assert ran.code == 0
    assert ran.out == ""
    assert "no server is running" in ran.err


def run_cancel(cli: Cli, run: str) -> None:
    with embedded(Settings(home=cli.home)) as opened:
        cancel_run(UUID(run), opened.app, by="test")


def test_a_new_attempt_begins_its_output_anew() -> None:
    """The cursor of one job means nothing to the next."""
    from push_pools.cli import flow_run

    def a_run(attempt: int, *, final: bool = False) -> Any:
        return SimpleNamespace(id=1, attempt=attempt, is_final=final, job=SimpleNamespace(key=f"k{attempt}", pid="p"))

    asked: list[tuple[int, str | None]] = []

    def read(home: Any, run: Any, cursor: str | None) -> Any:
        asked.append((run.attempt, cursor))
        return SimpleNamespace(lines=(), cursor=f"c{run.attempt}", is_last=False)

    later = iter([a_run(1), a_run(2), a_run(2, final=True)])
    home: Any = SimpleNamespace(store=SimpleNamespace(get_run=lambda _: next(later)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("push_pools.services.runs.read_logs", read)
        patch.setattr(flow_run, "POLL_SECONDS", 0)
        flow_run._follow(home, a_run(1))

    assert asked == [(1, None), (1, "c1"), (2, None), (2, "c2")]


def test_the_output_of_a_run_is_json_lines_when_asked(ended: tuple[Cli, str, str]) -> None:
    cli, good, _ = ended

    assert json.loads(cli.ok("flow-run", "inspect", good, "-o", "json").out)["id"] == good
    assert run_cli("flow-run", "ls", home=cli.home).code == 0


def test_late_runs_are_listed_and_not_made_by_listing(deployed: Cli) -> None:
    """The tick gives the name; whoever reads writes nothing."""
    run = put(deployed, "hello")
    ahead = datetime.now(UTC) + timedelta(seconds=20)
    assert [each["state_name"] for each in deployed.read("flow-run", "ls")] == ["Scheduled"]
    with embedded(Settings(home=deployed.home), clock=MovableClock(ahead)) as home:
        tick(home.app)
    (late,) = deployed.read("flow-run", "ls", "--state", "Late")
    assert (late["id"], late["state_type"]) == (run, "SCHEDULED")
    assert "nobody has claimed it yet" in deployed.ok("flow-run", "why", run).out
    deployed.ok("serve", "--until-idle", "--for", "30s")
    assert deployed.read("flow-run", "inspect", run)["state_name"] == "Completed"
