"""Answers that are lost on a real connection: the request took effect, and the client's socket closes or is silent."""

from __future__ import annotations

import http.client
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from push_pools.domain.errors import StoreUnavailable
from push_pools.domain.pools import WorkPool
from push_pools.domain.runs import Phase
from push_pools.stores.dynamodb import DynamoStore
from push_pools.stores.dynamodb_calls import OPEN_TRIES, Calls
from push_pools.stores.dynamodb_table import create_table
from push_pools.testing.clocks import START
from push_pools.testing.contracts.stores import a_run, set_limit
from tests.aws.ministack import Ministack

if TYPE_CHECKING:
    from collections.abc import Iterator


class Proxy:
    """Passes requests on, and loses the answers of the next `losing` of those that write."""

    def __init__(self, target: str) -> None:
        self.losing = 0
        self.lost = 0
        self.silent = False
        """Whether a lost answer leaves the connection open, so that only the client's time-out ends it."""
        self.over = threading.Event()
        proxy, port = self, urlsplit(target).port

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                upstream = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
                upstream.request("POST", self.path, body, dict(self.headers))
                answer = upstream.getresponse()
                content = answer.read()
                upstream.close()
                if proxy.losing and not self.headers["X-Amz-Target"].endswith(("GetItem", "Query")):
                    proxy.losing -= 1
                    proxy.lost += 1
                    self.close_connection = True
                    if proxy.silent:
                        proxy.over.wait(30)
                    return
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in ("transfer-encoding", "content-length", "connection", "date", "server"):
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self.over.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def proxy(ministack: Ministack) -> Iterator[Proxy]:
    proxy = Proxy(ministack.endpoint)
    yield proxy
    proxy.close()


@pytest.fixture
def store(ministack: Ministack, proxy: Proxy) -> Iterator[DynamoStore]:
    direct, table = ministack.client("dynamodb"), f"lost-{uuid4()}"
    create_table(direct, table)
    through = Ministack()
    through.endpoint = proxy.endpoint
    client: Any = through.client("dynamodb", read_timeout=1)
    yield DynamoStore(Calls(client, table, pause=lambda seconds: None))
    client.close()
    direct.delete_table(TableName=table)
    direct.close()


@pytest.mark.parametrize("silent", [False, True])
def test_every_write_finds_its_own_effect(store: DynamoStore, proxy: Proxy, silent: bool) -> None:
    """A whole life, each of whose answers is lost once."""
    proxy.silent = silent
    pool = WorkPool(id=uuid4(), name="local", type="fake", base_job_template={}, created_at=START, updated_at=START)

    def lose() -> None:
        assert proxy.losing == 0, "the last request was not lost"
        proxy.losing = 1

    lose()
    pool = store.put(pool)
    lose()
    limit = set_limit(store, "POOL#local", 1)
    lose()
    run = store.put_run(a_run())
    lose()
    store._note_parking(run.evolve(waits_at="q#1"))
    lose()
    run = store.save(run, run.evolve(phase=Phase.WAITING, waits_at="q#1"))
    lose()
    run = store.save(run, run.evolve(phase=Phase.READY, waits_at=None, slots=("POOL#local",)))
    assert store.limit_of("POOL#local").taken == 1
    lose()
    run = store.save(run, run.evolve(phase=Phase.STARTED))
    lose()
    run = store.save(run, run.evolve(phase=Phase.SETTLED, slots=(), wake_at=None))
    lose()
    store.delete(pool)
    assert proxy.lost == 9
    assert (run.version, store.get_run(run.id)) == (5, run)
    assert store.limit_of("POOL#local") == limit
    assert store.slots("POOL#local") == (1, frozenset())
    assert not store.waiting_pools()


def test_a_write_that_is_never_answered_is_given_up_and_found_later(store: DynamoStore, proxy: Proxy) -> None:
    """The caller is told that it is open; asking again finds it done."""
    set_limit(store, "POOL#local", 1)
    run = store.put_run(a_run())
    after = run.evolve(phase=Phase.READY, slots=("POOL#local",))
    proxy.losing = OPEN_TRIES
    with pytest.raises(StoreUnavailable, match="transact_write_items failed 3 times"):
        store.save(run, after)
    assert proxy.losing == 0
    assert store.save(run, after) == store.get_run(run.id)
    assert store.limit_of("POOL#local").taken == 1
