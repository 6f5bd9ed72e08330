"""A small HTTP/1.1 server on the loopback interface, for doubles of cloud services.

It keeps connections alive, answers with one send, and can do what a cloud
does on a bad day: close a connection without an answer, or in the middle of one.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable
    from io import BufferedReader
    from types import TracebackType
    from typing import Self

MAX_HEADERS = 200
MAX_LINE_BYTES = 65_536
MAX_BODY_BYTES = 16 * 1024 * 1024
BACKLOG = 1024
REASONS = {200: "OK", 201: "Created", 202: "Accepted", 204: "No Content", 400: "Bad Request", 404: "Not Found"}


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it arrived; header names are lower case."""

    method: str
    path: str
    """The request target as sent, query string included."""
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """What is sent back."""

    status: int
    body: bytes = b""
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False
    """Send only the first half of the body, then close the connection."""


class BadRequest(Exception):
    """What arrived is not an HTTP/1.1 request that this server reads."""


class LoopbackServer:
    """Serves one handler on 127.0.0.1, a thread for each connection.

    With `tls` it speaks https. The handler gets a `Request` and returns a `Reply`, or None to close the
    connection without an answer. `close()` ends every connection and waits for
    its thread, so a handler that waits must be woken before.
    """

    def __init__(
        self, handler: Callable[[Request], Reply | None], *, port: int = 0, tls: ssl.SSLContext | None = None
    ) -> None:
        self._handler = handler
        listener = socket.create_server(("127.0.0.1", port), backlog=BACKLOG)
        # The handshake is left to the connection's own thread: a client that fails it ends nothing else.
        self._listener = tls.wrap_socket(listener, server_side=True, do_handshake_on_connect=False) if tls else listener
        self._scheme = "https" if tls else "http"
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._open: dict[socket.socket, threading.Thread] = {}
        self._closing = False
        self._acceptor = threading.Thread(target=self._accept, name=f"double-{self.port}", daemon=True)
        self._acceptor.start()

    @property
    def endpoint(self) -> str:
        """The URL to give to a client."""
        return f"{self._scheme}://127.0.0.1:{self.port}"

    def close(self) -> None:
        """Stop listening, end every connection, and wait for their threads; may be repeated."""
        with self._lock:
            if self._closing:
                return
            self._closing = True
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=5):
            pass  # Closing a listener does not wake its accept(); a connection does.
        self._acceptor.join()
        self._listener.close()
        with self._lock:
            still_open = list(self._open.items())
        for connection, _ in still_open:
            _shut(connection)
        for _, thread in still_open:
            thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                if self._closing:
                    connection.close()
                    return
                thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
                self._open[connection] = thread
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection, connection.makefile("rb") as reader, contextlib.suppress(OSError):
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._converse(connection, reader)
                _shut(connection)
        finally:
            with self._lock:
                self._open.pop(connection, None)

    def _converse(self, connection: socket.socket, reader: BufferedReader) -> None:
        keep_alive = True
        while keep_alive:
            try:
                request = read_request(reader, connection)
            except BadRequest as error:
                connection.sendall(encode(Reply(400, str(error).encode(), "text/plain"), keep_alive=False))
                return
            if request is None:
                return
            reply = self._handler(request)
            if reply is None:
                return
            keep_alive = request.headers.get("connection", "").lower() != "close" and not reply.cut
            connection.sendall(encode(reply, keep_alive=keep_alive))


def read_request(reader: BufferedReader, connection: socket.socket) -> Request | None:
    """Return the next request, or None when the client has closed.

    Raises:
        BadRequest: The request line, a header or the length cannot be read.
    """
    line = reader.readline(MAX_LINE_BYTES)
    if not line:
        return None
    parts = line.decode("latin-1").split()
    if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
        raise BadRequest("not an HTTP/1.1 request line")
    headers = _read_headers(reader)
    if "transfer-encoding" in headers:
        raise BadRequest("a body needs a Content-Length here")
    length = headers.get("content-length", "0")
    if not length.isdigit() or int(length) > MAX_BODY_BYTES:
        raise BadRequest("unreadable Content-Length")
    if headers.get("expect", "").lower() == "100-continue":
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    body = reader.read(int(length))
    if len(body) < int(length):
        return None  # The client went away in the middle of its request.
    return Request(parts[0], parts[1], headers, body)


def _read_headers(reader: BufferedReader) -> dict[str, str]:
    headers: dict[str, str] = {}
    for _ in range(MAX_HEADERS):
        line = reader.readline(MAX_LINE_BYTES)
        if line in (b"\r\n", b"\n", b""):
            return headers
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.strip().lower()] = value.strip()
    raise BadRequest("too many headers")


def encode(reply: Reply, *, keep_alive: bool) -> bytes:
    """Return the bytes of a reply, headers and body together."""
    lines = [
        f"HTTP/1.1 {reply.status} {REASONS.get(reply.status, 'Status')}",
        f"Content-Type: {reply.content_type}",
        f"Content-Length: {len(reply.body)}",
        f"Connection: {'keep-alive' if keep_alive else 'close'}",
        *(f"{name}: {value}" for name, value in reply.headers.items()),
    ]
    body = reply.body[: len(reply.body) // 2] if reply.cut else reply.body
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def _shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
