"""The health endpoint of `push-pools serve`: whether the server still ticks, and how many runs are where."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from push_pools.server.embedded import EmbeddedServer

STALE_TICKS: Final = 3
"""After how many ticks that did not come the server is unwell."""
STALE_SECONDS: Final = 30.0
"""It is not unwell before that, however often it ticks."""


def health_of(server: EmbeddedServer, tick_seconds: float) -> tuple[int, dict[str, Any]]:
    """Return the HTTP status and body that tell how the server is."""
    if not server.last_tick:
        return 503, {"status": "starting"}
    age = time.time() - server.last_tick
    stale = age > max(STALE_TICKS * tick_seconds, STALE_SECONDS)
    body = {
        "status": "stale" if stale else "ok",
        "last_tick_seconds_ago": round(age, 3),
        "runs": {str(phase): count for phase, count in server.app.store.count_by_phase().items()},
    }
    return (503 if stale else 200), body


@contextlib.contextmanager
def health_endpoint(server: EmbeddedServer, port: int, tick_seconds: float) -> Iterator[None]:
    """Answer `GET /health` on 127.0.0.1 for a while; port 0 answers nothing.

    Raises:
        InvalidInput: The port cannot be listened on.
    """
    if not port:
        yield
        return

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = 404, {"status": "there is only /health"}
            if self.path.partition("?")[0] == "/health":
                try:
                    status, body = health_of(server, tick_seconds)
                except Exception as error:  # An unreadable ledger is what the endpoint is there to tell.
                    status, body = 503, {"status": str(error)}
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing: probes come every few seconds."""

    listener = _listen(port, Handler)
    thread = threading.Thread(target=listener.serve_forever, args=(0.1,), name="health", daemon=True)
    thread.start()
    try:
        yield
    finally:
        listener.shutdown()
        listener.server_close()
        thread.join()


def _listen(port: int, handler: type[BaseHTTPRequestHandler]) -> ThreadingHTTPServer:
    from push_pools.domain.errors import InvalidInput

    try:
        return ThreadingHTTPServer(("127.0.0.1", port), handler)
    except OSError as error:
        raise InvalidInput(f"port {port} of 127.0.0.1 cannot be used: {error.strerror}; give another --port") from None
