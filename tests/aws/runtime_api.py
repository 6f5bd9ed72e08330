"""Lambda on this machine: the real runtime client (`awslambdaric`) under a small Runtime API, with faults.

An `Environment` is one process that handles one invocation at a time. It is killed at the deadline, at a line of its
log, or when a test says so; its answer can be lost after the work was done. Killed, it starts anew when next invoked.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType
    from typing import Self

ROOT: Final = Path(__file__).resolve().parent.parent.parent
VERSION: Final = "/2018-06-01/runtime"
START_SECONDS: Final = 60.0


@dataclass(frozen=True)
class Fault:
    """What happens to one invocation."""

    kill_at_line: str | None = None
    """Killed when a line of its log holds this."""
    kill_after_seconds: float | None = None
    kill_when_told: bool = False
    """Killed when somebody calls `told`, such as a double of a cloud that has just done what it was asked."""
    lose_answer: bool = False
    """The work is done, and the caller is told that it failed."""


@dataclass
class Result:
    """What the caller of an invocation gets."""

    answer: Any = None
    error: str | None = None
    """`timeout`, `killed`, `lost`, or the type of the handler's exception."""
    message: str = ""
    seconds: float = 0.0
    log: list[str] = field(default_factory=list)

    def lines(self) -> list[dict[str, Any]]:
        """Return the log lines that are JSON."""
        return [json.loads(line) for line in self.log if line.startswith("{")]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: the client was killed."""


class Environment:
    """One execution environment of a function. `handler` is `module.function`.

    `root` is the folder of its code, by default this repository; `command` is how the runtime client is started.
    """

    def __init__(
        self,
        handler: str,
        environ: Mapping[str, str],
        *,
        timeout_seconds: float,
        name: str = "",
        root: Path = ROOT,
        command: Sequence[str] = (sys.executable, "-m", "awslambdaric"),
    ) -> None:
        self._handler, self._timeout = handler, timeout_seconds
        self._root, self._command = root, command
        self.name = name or handler.rpartition(".")[0].rpartition(".")[2]
        self._environ = dict(environ)
        self._process: subprocess.Popen[str] | None = None
        self._pending: queue.Queue[tuple[str, Any, float]] = queue.Queue()
        self._answers: queue.Queue[tuple[str, str, Any]] = queue.Queue()
        self._lock = threading.Lock()
        self._fault = Fault()
        self._log: list[str] = []
        self._reader: threading.Thread | None = None
        self.starts = 0
        self.invocations = 0
        self._server = _Server(("127.0.0.1", 0), self._requests())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process and the server."""
        self.kill()
        self._server.shutdown()
        self._server.server_close()

    # -- invoking

    def invoke(self, event: Any, fault: Fault = Fault()) -> Result:
        """Invoke the function and wait for what becomes of it; one caller at a time."""
        with self._lock:
            self.invocations += 1
            self._fault, self._log = fault, []
            self._forget()
            if self._process is None or self._process.poll() is not None:
                self._start()
            began, request_id = time.monotonic(), str(uuid4())
            self._pending.put((request_id, event, time.time() + self._timeout))
            result = self._wait(request_id, began)
            result.seconds, result.log = time.monotonic() - began, self._log
            self._fault = Fault()
            return result

    def kill(self) -> None:
        """End the process at once, whatever it does."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.wait()
        if self._reader is not None:
            self._reader.join()
        if process.stdout is not None:
            process.stdout.close()

    def cpu_seconds(self) -> float:
        """Return the CPU time that the process has used so far; 0 when there is none."""
        process = self._process
        if process is None or process.poll() is not None:
            return 0.0
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def told(self) -> bool:
        """Kill the process now if that is what happens to this invocation; return whether it is."""
        process = self._process
        if not self._fault.kill_when_told or process is None or process.poll() is not None:
            return False
        process.send_signal(signal.SIGKILL)
        return True

    def _wait(self, request_id: str, began: float) -> Result:
        fault = self._fault
        end = began + self._timeout
        kill_at = began + fault.kill_after_seconds if fault.kill_after_seconds is not None else end + START_SECONDS
        taken = False
        limit = began + START_SECONDS
        while True:
            now = time.monotonic()
            if not taken and self._pending.empty():  # The time runs from when the process has taken it.
                taken, end = True, now + self._timeout
            if now > kill_at or (taken and now > end) or now > limit + self._timeout:
                self.kill()
                return Result(error="killed" if now > kill_at else "timeout")
            try:
                kind, id_, body = self._answers.get(timeout=0.005)
            except queue.Empty:
                process = self._process
                if process is None or process.poll() is not None:
                    self.kill()
                    return Result(error="killed")
                continue
            if id_ not in (request_id, ""):
                continue
            if kind == "response":
                return Result(error="lost") if fault.lose_answer else Result(answer=body)
            if kind == "init":
                self.kill()
            return Result(error=str(body.get("errorType")), message=str(body.get("errorMessage")))

    def _forget(self) -> None:
        """Drop what an invocation that was given up left behind."""
        for each in (self._pending, self._answers):
            while not each.empty():
                each.get_nowait()

    # -- the process

    def _start(self) -> None:
        self.kill()
        host, port = self._server.server_address[:2]
        environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTHONDONT")}
        environ |= {
            **self._environ,
            "AWS_LAMBDA_RUNTIME_API": f"{host!s}:{port}",
            "AWS_LAMBDA_FUNCTION_NAME": self.name,
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "512",
            "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{self.name}",
            "AWS_LAMBDA_LOG_STREAM_NAME": "local",
            "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
            "LAMBDA_TASK_ROOT": str(self._root),
            "_HANDLER": self._handler,
        }
        self.starts += 1
        self._process = subprocess.Popen(
            [*self._command, self._handler],
            cwd=self._root,
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, args=(self._process,), daemon=True)
        self._reader.start()

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self._log.append(line.rstrip("\n"))
            wanted = self._fault.kill_at_line
            if wanted is not None and wanted in line:
                process.send_signal(signal.SIGKILL)

    # -- the Runtime API

    def _next(self) -> tuple[str, Any, float] | None:
        process = self._process
        while process is not None and process is self._process and process.poll() is None:
            try:
                return self._pending.get(timeout=0.05)
            except queue.Empty:
                continue
        return None

    def _requests(self) -> type[BaseHTTPRequestHandler]:
        environment = self

        class Requests(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # One segment per answer: else Nagle's algorithm adds 40 ms.
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                found = environment._next()
                if found is None:
                    self.close_connection = True
                    return
                request_id, event, deadline = found
                self._answer(
                    200,
                    json.dumps(event).encode(),
                    {
                        "Lambda-Runtime-Aws-Request-Id": request_id,
                        "Lambda-Runtime-Deadline-Ms": str(int(deadline * 1000)),
                        "Lambda-Runtime-Invoked-Function-Arn": (
                            f"arn:aws:lambda:eu-west-1:123456789012:function:{environment.name}"
                        ),
                        "Lambda-Runtime-Trace-Id": "Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700",
                    },
                )

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", "0"))) or b"null")
                parts = self.path.removeprefix(VERSION).strip("/").split("/")
                if parts[0] == "init":
                    environment._answers.put(("init", "", body))
                else:
                    environment._answers.put((parts[2], parts[1], body))
                self._answer(202, b"{}", {})

            def _answer(self, status: int, data: bytes, headers: Mapping[str, str]) -> None:
                self.send_response(status)
                for name, value in {**headers, "Content-Type": "application/json"}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                try:
                    self.wfile.write(data)
                    self.wfile.flush()
                except OSError:
                    self.close_connection = True  # It was killed meanwhile.

            def log_message(self, format: str, *args: Any) -> None:
                pass

        return Requests
