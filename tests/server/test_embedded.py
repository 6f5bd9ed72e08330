"""The embedded server: one per home, graceful, quick, and harmless to what it cannot handle."""

from __future__ import annotations

import itertools
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from push_pools.bootstrap import Embedded, embedded
from push_pools.domain.config import DeploymentSpec
from push_pools.domain.errors import HomeInUse, PlatformUnavailable, StoreUnavailable
from push_pools.domain.runs import Claim, FlowRun, Phase
from push_pools.queues.sqlite import SqliteQueue
from push_pools.server.embedded import EmbeddedServer
from push_pools.server.home import HomeLock, is_served
from push_pools.services.blocks import create_block, find_block
from push_pools.services.catalogue import create_work_pool, update_work_pool
from push_pools.services.deploy import put_deployment
from push_pools.services.handle import handle_message
from push_pools.services.runs import read_logs, run_deployment
from push_pools.services.stop import cancel_run
from push_pools.settings import Settings
from push_pools.sqlite_file import SqliteFile
from push_pools.testing.fake_platform import FakePlatform
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from push_pools.ports import PlatformContext

EVENT = '{"version":1,"type":"scheduled-run","deployment":"job/job"}'


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Embedded]:
    """A home with a pool of local processes, and a deployment `job/job` that succeeds at once."""
    with embedded(Settings(home=tmp_path, sweep_seconds=0.2)) as opened:
        create_work_pool(opened.app, "local", "process")
        deploy(opened, "job", "true")
        yield opened


@pytest.fixture
def server(home: Embedded) -> Iterator[EmbeddedServer]:
    server = EmbeddedServer(home)
    server.start()
    yield server
    server.stop()


def deploy(opened: Embedded, name: str, command: str | list[str], **more: Any) -> None:
    spec = {"name": name, "command": command, "work_pool": {"name": "local"}, **more}
    put_deployment(opened.app, DeploymentSpec.model_validate(spec))


def final(opened: Embedded, run: FlowRun, seconds: float = 20.0) -> FlowRun:
    """Wait for the end of a run and return it."""
    until(lambda: opened.app.store.get_run(run.id).is_final, seconds=seconds)
    return opened.app.store.get_run(run.id)


def test_a_run_goes_its_whole_way(server: EmbeddedServer, home: Embedded) -> None:
    """From the event to the output of its process."""
    deploy(home, "says", ["sh", "-c", "echo hello $PUSH_POOLS_DEPLOYMENT; echo $PUSH_POOLS_PARAMETERS"])
    run = final(home, run_deployment(home.app, "says", parameters={"n": 1}).run)
    assert run.state.name == "Completed"
    assert read_logs(home.app, run).lines == ("hello says/says", '{"n":1}')


def test_runs_go_one_after_the_other_through_one_slot(home: Embedded) -> None:
    """No tick comes in between: whoever ends starts the next, and `--until-idle` waits for all."""
    update_work_pool(home.app, "local", concurrency_limit=1)
    runs = [run_deployment(home.app, "job").run for _ in range(6)]
    server = EmbeddedServer(home)
    server.start()
    try:
        assert server.run_until_idle(30.0)
    finally:
        server.stop()
    ended = [home.app.store.get_run(run.id) for run in runs]
    assert [run.state.name for run in ended] == ["Completed"] * 6
    spans = sorted((_entry(run, "submitted"), _entry(run, "finished")) for run in ended)
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))
    assert home.app.store.slots("POOL#local") == (1, frozenset())


def _entry(run: FlowRun, what: str) -> datetime:
    return next(entry.at for entry in run.journal if entry.what == what)


def test_exit_codes_and_signals_come_back(server: EmbeddedServer, home: Embedded) -> None:
    """A failure is the user's; a kill is tried again."""
    deploy(home, "fails", ["sh", "-c", "exit 3"])
    deploy(home, "dies", ["sh", "-c", "kill -9 $$"], retries={"attempts": 2, "backoff_seconds": 0.2})
    failed = final(home, run_deployment(home.app, "fails").run)
    died = final(home, run_deployment(home.app, "dies").run)
    assert (failed.state.name, failed.state.exit_code, failed.attempt) == ("Failed", 3, 1)
    assert (died.state.name, died.state.signal, died.attempt) == ("Crashed", 9, 2)


def test_a_deadline_and_a_cancel_stop_the_process(server: EmbeddedServer, home: Embedded) -> None:
    """The run is over only when the process is."""
    deploy(home, "long", ["sleep", "100"], timeout_seconds=0.5)
    deploy(home, "longer", ["sleep", "100"])
    timed = run_deployment(home.app, "long").run
    longer = run_deployment(home.app, "longer").run
    until(lambda: home.app.store.get_run(longer.id).phase is Phase.STARTED)
    cancel_run(longer.id, home.app, by="ann")
    assert final(home, timed).state.name == "TimedOut"
    assert final(home, longer).state.name == "Cancelled"


def test_events_of_another_process_are_noticed_at_once(server: EmbeddedServer, home: Embedded) -> None:
    """Whoever writes to the file, such as the command line, need not tell the server."""
    assert server.is_idle()
    other = SqliteFile(Path(home.settings.home) / "ledger.db")
    SqliteQueue(other).send(EVENT)
    other.close()
    until(lambda: any(run.is_final for run in _runs(home)), seconds=10)


def test_a_run_is_started_at_its_due_second(server: EmbeddedServer, home: Embedded) -> None:
    """Not before, and soon after."""
    due = datetime.now(UTC) + timedelta(seconds=1.5)
    run = final(home, run_deployment(home.app, "job", scheduled_time=due).run)
    intent = next(entry for entry in run.journal if entry.what == "intent")
    assert due - timedelta(seconds=1) <= intent.at <= due + timedelta(seconds=5)


def test_poison_goes_to_the_dead_letters_and_the_rest_goes_on(server: EmbeddedServer, home: Embedded) -> None:
    """Not JSON, unknown fields, a naive time, a wrong version, one megabyte."""
    naive = EVENT[:-1] + ',"scheduled_time":"2027-01-01T00:00:00"}'
    bad = ["{", EVENT[:-1] + ',"x":1}', naive, EVENT.replace("1", "9", 1), EVENT[:-1] + f',"name":"{"x" * 10**6}"}}']
    for body in [*bad, EVENT]:
        home.queue.send(body)
    until(lambda: len(home.queue.dead_letters()) == len(bad) and any(run.is_final for run in _runs(home)))
    assert len(_runs(home)) == 1
    reasons = " ".join(letter.reason for letter in home.queue.dead_letters())
    for say in ("JSON", "x", "offset", "version", "262144"):
        assert say in reasons


def test_a_second_server_says_so(server: EmbeddedServer, home: Embedded) -> None:
    """And the first goes on; when it has stopped, the home is free."""
    assert is_served(home.settings.home)
    with pytest.raises(HomeInUse, match="serves the home"):
        EmbeddedServer(home).start()
    assert final(home, run_deployment(home.app, "job").run).state.name == "Completed"


def test_asking_whether_a_home_is_served_disturbs_nobody(tmp_path: Path) -> None:
    """A server that starts while others ask gets its home."""
    stop = threading.Event()

    def ask() -> None:
        while not stop.wait(0.001):
            is_served(tmp_path)

    askers = [threading.Thread(target=ask) for _ in range(4)]
    for asker in askers:
        asker.start()
    try:
        for _ in range(50):
            with HomeLock(tmp_path):
                assert is_served(tmp_path)
    finally:
        stop.set()
        for asker in askers:
            asker.join()


def test_a_home_that_nobody_serves_is_free(tmp_path: Path) -> None:
    """Also when a lock file of an earlier server is left."""
    assert not is_served(tmp_path)
    with HomeLock(tmp_path):
        assert is_served(tmp_path)
    assert not is_served(tmp_path)


def test_stopping_waits_for_what_is_in_hand_and_jobs_go_on(home: Embedded) -> None:
    """The next server finds the job and brings its status back."""
    deploy(home, "slow", ["sleep", "1.5"])
    first = EmbeddedServer(home)
    first.start()
    run = run_deployment(home.app, "slow").run
    until(lambda: home.app.store.get_run(run.id).phase is Phase.STARTED)
    first.stop()
    assert not is_served(home.settings.home)
    assert home.app.store.get_run(run.id).phase is Phase.STARTED
    assert threading.active_count() < 10
    with embedded(Settings(home=home.settings.home, sweep_seconds=30.0)) as again:
        second = EmbeddedServer(again)
        second.start()
        assert final(again, run, seconds=10).state.name == "Completed"  # Told, not swept.
        second.stop()


def test_claims_and_messages_of_a_dead_server_are_taken_over_at_once(home: Embedded) -> None:
    """Without waiting for the claim's end: the lock says that its owner is dead."""
    run = run_deployment(home.app, "job").run
    assert len(home.queue.receive(1, 3600)) == 1
    until_ = datetime.now(UTC) + timedelta(seconds=3000)
    claim = Claim(owner="embedded:dead", fence=1, until=until_)
    stored = home.app.store.get_run(run.id)
    home.app.store.save(stored, stored.evolve(phase=Phase.CLAIMED, claim=claim, fence=1, wake_at=until_))
    server = EmbeddedServer(home)
    server.start()
    done = final(home, run)
    server.stop()
    assert (done.state.name, done.fence) == ("Completed", 2)


def test_until_idle_knows_the_end_and_the_time(server: EmbeddedServer, home: Embedded) -> None:
    """True when nothing is due or active; False when the time ran out first. Later runs do not count."""
    deploy(home, "slow", ["sleep", "30"])
    run_deployment(home.app, "job")
    run_deployment(home.app, "job", scheduled_time=datetime.now(UTC) + timedelta(hours=1))
    assert server.run_until_idle(20)
    slow = run_deployment(home.app, "slow").run
    assert not server.run_until_idle(0.5)
    cancel_run(slow.id, home.app, by="ann")
    assert server.run_until_idle(20)


def test_a_ledger_that_cannot_be_written_keeps_the_messages(
    server: EmbeddedServer, home: Embedded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They come back; when the disk has room again, the run goes on."""
    store = home.app.store
    full = threading.Event()
    full.set()
    save = store.save

    refused = threading.Event()

    def refuse(before: FlowRun, after: FlowRun) -> FlowRun:
        if full.is_set():
            refused.set()
            raise StoreUnavailable("the disk is full")
        return save(before, after)

    monkeypatch.setattr(store, "save", refuse)
    run = run_deployment(home.app, "job").run
    assert refused.wait(20)
    assert home.app.store.get_run(run.id).phase is Phase.PLANNED
    assert home.queue.depth() >= 1
    full.clear()
    assert final(home, run).state.name == "Completed"


def test_an_unforeseen_fault_of_a_handler_ends_in_the_dead_letters(
    server: EmbeddedServer, home: Embedded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After five tries, with its name; the server goes on."""
    monkeypatch.setattr("push_pools.server.decisions.BACK_SECONDS", 0.01)

    def fault(body: str, *rest: Any) -> None:
        if "sweep" in body:
            raise RuntimeError("bug")
        handle_message(body, *rest)

    monkeypatch.setattr("push_pools.services.handle.handle_message", fault)
    home.queue.send('{"version":1,"type":"sweep","platform":"process"}')
    until(lambda: home.queue.dead_letters())
    assert home.queue.dead_letters()[0].reason == "RuntimeError: bug"
    assert final(home, run_deployment(home.app, "job").run).state.name == "Completed"


def _runs(opened: Embedded) -> list[FlowRun]:
    from push_pools.ports import RunFilter

    return list(opened.app.store.runs(RunFilter(), limit=100).runs)


def test_a_block_that_cannot_be_opened_is_trouble_of_its_platform_alone(tmp_path: Path) -> None:
    """The platform's callers see one of their own errors, so a sweep of others goes on; and it says what is wrong."""
    contexts: list[PlatformContext] = []

    class Watched(FakePlatform):
        def __init__(self, context: PlatformContext | None = None) -> None:
            assert context is not None
            contexts.append(context)
            super().__init__(context)

    with embedded(Settings(home=tmp_path), extra_platforms={"fake": Watched}) as opened:
        block = create_block(opened.app, "secret", "token", {"value": "x"})
        opened.app.platforms("fake")
        assert contexts[0].credentials(str(block.id)).value.get_secret_value() == "x"
    (tmp_path / "vault.key").unlink()
    with embedded(Settings(home=tmp_path), extra_platforms={"fake": Watched}) as opened:
        opened.app.platforms("fake")
        create_block(opened.app, "secret", "other", {"value": "y"})  # It makes another key.
        for wrong, say in ((str(uuid4()), "does not exist"), ("no id", "does not exist")):
            with pytest.raises(PlatformUnavailable, match=say):
                contexts[1].credentials(wrong)
        stored = find_block(opened.app, "secret/token")
        opened.app.store.put(stored.model_copy(update={"updated_at": opened.app.clock.now()}))  # Not the kept one.
        with pytest.raises(PlatformUnavailable, match="encrypted with the key"):
            contexts[1].credentials(str(block.id))
