"""One loopback port for two servers: gRPC behind it, and HTTP/1.1.

It passes bytes on, and can cut a connection in the middle of a call, which a gRPC server cannot.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading

PREFACE = b"PRI"
"""What every HTTP/2 connection begins with (RFC 9113, section 3.4)."""
CHUNK = 65_536


class Relay:
    """Passes connections on to one of two ports of 127.0.0.1, by how they begin."""

    def __init__(self, grpc_port: int, http_port: int, *, port: int = 0) -> None:
        self._grpc_port, self._http_port = grpc_port, http_port
        self._listener = socket.create_server(("127.0.0.1", port), backlog=1024)
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._open: dict[int, tuple[socket.socket, socket.socket]] = {}
        self._threads: set[threading.Thread] = set()
        self._closing = False
        self._acceptor = threading.Thread(target=self._accept, name=f"relay-{self.port}", daemon=True)
        self._acceptor.start()

    def cut(self, upstream_port: int) -> None:
        """Cut the connection whose far end, as the server behind sees it, has this port."""
        with self._lock:
            pair = self._open.get(upstream_port)
        if pair is not None:
            # With a reset, as a machine that is gone: what was sent and not yet read is lost.
            with contextlib.suppress(OSError):
                pair[0].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            for each in pair:
                _shut(each)

    def close(self) -> None:
        """Stop listening, end every connection, and wait for its threads; may be repeated."""
        with self._lock:
            if self._closing:
                return
            self._closing = True
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=5):
            pass  # Closing a listener does not wake its accept(); a connection does.
        self._acceptor.join()
        self._listener.close()
        with self._lock:
            pairs, threads = list(self._open.values()), list(self._threads)
        for pair in pairs:
            for each in pair:
                _shut(each)
        for thread in threads:
            thread.join()

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
                self._threads.add(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection, contextlib.suppress(OSError):
                connection.settimeout(60)
                first = connection.recv(CHUNK)
                connection.settimeout(None)
                if not first:
                    return
                port = self._grpc_port if first.startswith(PREFACE) else self._http_port
                with socket.create_connection(("127.0.0.1", port), timeout=10) as upstream:
                    upstream.settimeout(None)
                    self._pass_on(connection, upstream, first)
        finally:
            with self._lock:
                self._threads.discard(threading.current_thread())

    def _pass_on(self, connection: socket.socket, upstream: socket.socket, first: bytes) -> None:
        for each in (connection, upstream):
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        number = upstream.getsockname()[1]
        with self._lock:
            self._open[number] = (connection, upstream)
            closing = self._closing
        try:
            if closing:
                return
            upstream.sendall(first)
            back = threading.Thread(target=_pump, args=(upstream, connection), daemon=True)
            back.start()
            _pump(connection, upstream)
            back.join()
        finally:
            with self._lock:
                self._open.pop(number, None)


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(CHUNK):
            target.sendall(data)
    for each in (source, target):
        _shut(each)


def _shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
