"""A double of Cloud Run jobs (API v2) that the unmodified Google client talks to over a loopback socket.

    with CloudRunDouble(clock=clock) as cloud:
        channel = grpc.insecure_channel(cloud.target)
        jobs = run_v2.JobsClient(transport=JobsGrpcTransport(channel=channel))

It keeps the promises of the real service, above all those of a job's name and of `start_execution_token`, and
misbehaves when told to. Its port also answers HTTP: `entries:list` of Cloud Logging, and the token endpoints that
credentials need. `python -m push_pools.testing.cloud_run_double` serves one for other processes.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import threading
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import grpc
from google.cloud import run_v2
from google.longrunning import operations_pb2

from push_pools.testing.clocks import RealClock
from push_pools.testing.cloud_run_account import CloudRunError, PerMinute, Project
from push_pools.testing.cloud_run_executions import ENDINGS, Ending, Execution, JobPlan, LifecycleTimes, exited
from push_pools.testing.cloud_run_faults import Fault
from push_pools.testing.cloud_run_http import answer_http
from push_pools.testing.cloud_run_model import CloudRunModel, Started
from push_pools.testing.cloud_run_relay import Relay
from push_pools.testing.doubles_http import LoopbackServer, Reply, Request
from push_pools.testing.ecs_tasks import ManualClock, ShiftedClock
from push_pools.testing.faults import Faults, Hold

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from types import TracebackType
    from typing import Self

    from push_pools.testing.clocks import Clock

__all__ = [
    "Call",
    "CloudRunDouble",
    "CloudRunError",
    "Ending",
    "Execution",
    "Fault",
    "Faults",
    "Hold",
    "JobPlan",
    "LifecycleTimes",
    "ManualClock",
    "PerMinute",
    "Project",
    "ShiftedClock",
    "Started",
]

LOG_LENGTH: Final = 10_000
WORKERS: Final = 64
REQUESTS: Final[dict[str, Any]] = {
    "google.cloud.run.v2.Jobs/CreateJob": run_v2.CreateJobRequest,
    "google.cloud.run.v2.Jobs/UpdateJob": run_v2.UpdateJobRequest,
    "google.cloud.run.v2.Jobs/GetJob": run_v2.GetJobRequest,
    "google.cloud.run.v2.Jobs/ListJobs": run_v2.ListJobsRequest,
    "google.cloud.run.v2.Jobs/DeleteJob": run_v2.DeleteJobRequest,
    "google.cloud.run.v2.Jobs/RunJob": run_v2.RunJobRequest,
    "google.cloud.run.v2.Executions/GetExecution": run_v2.GetExecutionRequest,
    "google.cloud.run.v2.Executions/ListExecutions": run_v2.ListExecutionsRequest,
    "google.cloud.run.v2.Executions/CancelExecution": run_v2.CancelExecutionRequest,
    "google.cloud.run.v2.Executions/DeleteExecution": run_v2.DeleteExecutionRequest,
    "google.cloud.run.v2.Tasks/GetTask": run_v2.GetTaskRequest,
    "google.cloud.run.v2.Tasks/ListTasks": run_v2.ListTasksRequest,
    "google.longrunning.Operations/GetOperation": operations_pb2.GetOperationRequest,
}
"""Path of a method → the class of its request."""


class Call(NamedTuple):
    """One request and what became of it."""

    at: datetime
    method: str
    request: Any
    outcome: str
    """`ok`, the name of a gRPC status, or the name of the fault that hid the answer."""
    token: str | None


class CloudRunDouble:
    """Cloud Run jobs in any project and region, on 127.0.0.1.

    Executions live on `clock`. Delays and latency are real time. `plan` decides what a job does, given the job;
    without one, or where it returns None, the container's environment variable `PUSH_POOLS_DOUBLE` or its command
    does. `rules` says what the project allows; by default everything.
    """

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        plan: Callable[[run_v2.Job], JobPlan | None] | None = None,
        times: LifecycleTimes | None = None,
        default_seconds: float = 0.0,
        visibility_delay_seconds: float = 0.0,
        latency_seconds: float = 0.0,
        rules: Project | None = None,
        seed: int = 0,
        port: int = 0,
        control: bool = False,
    ) -> None:
        self.clock: Clock = clock or RealClock()
        self.latency_seconds = latency_seconds
        self.model = CloudRunModel(
            now=self.clock.now,
            plan=plan,
            times=times or LifecycleTimes(),
            default_seconds=default_seconds,
            visibility_delay_seconds=visibility_delay_seconds,
            rules=rules or Project(),
        )
        self.faults = Faults(Fault, seed=seed)
        self.calls: Counter[str] = Counter()
        self.log: deque[Call] = deque(maxlen=LOG_LENGTH)
        self.control = control
        self._port = port
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="cloud-run-double")
        self._server: grpc.Server | None = None
        self._http: LoopbackServer | None = None
        self._relay: Relay | None = None
        self._closing = threading.Event()
        self._holds: set[Hold] = set()

    # -- Serving -----------------------------------------------------------------

    def start(self) -> Self:
        """Listen; `endpoint` is known from here on."""
        self._server = grpc.server(self._pool, handlers=[_Methods(self)], options=[("grpc.so_reuseport", 0)])
        grpc_port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()
        self._http = LoopbackServer(self._answer_http)
        self._relay = Relay(grpc_port, self._http.port, port=self._port)
        return self

    def close(self) -> None:
        """Release what hangs, without any effect, and end every connection."""
        self._closing.set()
        self.release()
        if self._server is not None and self._relay is not None and self._http is not None:
            stopped = self._server.stop(None)
            self._relay.close()
            stopped.wait()
            self._http.close()
        self._pool.shutdown()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def target(self) -> str:
        """Host and port, known while the double is started."""
        if self._relay is None:
            raise RuntimeError("the double is not started: use it in a with statement, or call start()")
        return f"127.0.0.1:{self._relay.port}"

    @property
    def endpoint(self) -> str:
        """The URL for `PUSH_POOLS_CLOUD_RUN_ENDPOINT`, known while the double is started."""
        return f"http://{self.target}"

    # -- Bookkeeping for checks ----------------------------------------------------

    @property
    def started(self) -> list[Started]:
        """Every execution that was really created, in order."""
        with self.model.lock:
            return list(self.model.started)

    def runs(self, job_id: str) -> int:
        """Return how often the user's container was started under a job's name; a platform's own retry counts."""
        return self.model.runs(job_id)

    def running(self) -> list[str]:
        """Return the executions that have not completed: those that still cost."""
        return self.model.running()

    def requests(self, method: str) -> list[Any]:
        """Return the requests for a method that arrived, in order."""
        with self.model.lock:
            return [call.request for call in self.log if call.method == method]

    # -- What happens to executions ----------------------------------------------------

    def finish(self, execution: str, exit_code: int = 0) -> bool:
        """Let the container exit now. False when the execution had completed."""
        return self.model.end(execution, exited(exit_code))

    def kill(self, execution: str) -> bool:
        """Let the container die of signal 9 although nobody cancelled it. False when the execution had completed."""
        return self.model.end(execution, ENDINGS["killed"])

    def oom(self, execution: str) -> bool:
        """Let the container run out of memory. False when the execution had completed."""
        return self.model.end(execution, ENDINGS["oom"])

    def cancel(self, execution: str) -> bool:
        """Let somebody else cancel the execution at the cloud. False when it had completed."""
        return self.model.end(execution, ENDINGS["cancelled"])

    def release(self) -> None:
        """Release every request that hangs."""
        with self.model.lock:
            holds = list(self._holds)
        for hold in holds:
            hold.release()

    # -- One request -------------------------------------------------------------------

    def perform(self, method: str, request: Any, context: grpc.ServicerContext) -> bytes:
        """Do one call, with what goes wrong on the way, and return the bytes of its answer."""
        with self.model.lock:
            self.calls[method] += 1
        token = _bearer(context)
        fault = self.faults.take(method, request)
        self._wait(self.latency_seconds + fault.before_seconds, fault.hold_before)
        if self._closing.is_set():
            context.abort(grpc.StatusCode.UNAVAILABLE, "the double closes")
        answer, error = b"", CloudRunError(*fault.error[:2]) if fault.error else None
        if fault.effect:
            try:
                answer = _bytes(self.model.call(method, request, token))
            except CloudRunError as refusal:
                error = error or refusal
        outcome = fault.name if fault.name != "none" else error.code if error is not None else "ok"
        with self.model.lock:
            self.log.append(Call(self.model.now(), method, request, outcome, token))
        self._wait(fault.after_seconds, fault.hold_after)
        if (fault.drop or fault.cut) and self._relay is not None:
            self._relay.cut(int(context.peer().rpartition(":")[2]))
        if error is not None:
            context.abort(grpc.StatusCode[error.code], error.message)
        return answer if fault.body is None else fault.body

    def _answer_http(self, request: Request) -> Reply | None:
        return answer_http(self, request)

    def _wait(self, seconds: float, hold: Hold | None) -> None:
        if seconds > 0:
            self._closing.wait(seconds)
        if hold is None:
            return
        with self.model.lock:
            self._holds.add(hold)
        if not self._closing.is_set():
            hold.wait()
        with self.model.lock:
            self._holds.discard(hold)


class _Methods(grpc.GenericRpcHandler):
    """Finds the handler of a method."""

    def __init__(self, double: CloudRunDouble) -> None:
        self._double = double

    def service(self, handler_call_details: Any) -> Any:
        path = handler_call_details.method.removeprefix("/")
        class_ = REQUESTS.get(path)
        if class_ is None:
            return None
        method = path.rpartition("/")[2]

        def behaviour(request: Any, context: grpc.ServicerContext) -> bytes:
            return self._double.perform(method, request, context)

        read = class_.FromString if hasattr(class_, "FromString") else class_.deserialize
        return grpc.unary_unary_rpc_method_handler(behaviour, request_deserializer=read, response_serializer=bytes)


def _bytes(answer: Any) -> bytes:
    if isinstance(answer, operations_pb2.Operation):
        return bytes(answer.SerializeToString())
    return bytes(type(answer).serialize(answer))


def _bearer(context: grpc.ServicerContext) -> str | None:
    metadata = {str(key): value for key, value in context.invocation_metadata() or ()}
    text = str(metadata.get("authorization", ""))
    return text.removeprefix("Bearer ") if text.startswith("Bearer ") else None


# -- Standalone ------------------------------------------------------------------------


def _arguments(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m push_pools.testing.cloud_run_double", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0 takes a free one")
    parser.add_argument("--control", action="store_true", help="serve the control API below /_control/")
    parser.add_argument("--exit-with-stdin", action="store_true", help="stop when standard input closes")
    parser.add_argument("--max-seconds", type=float, default=3600.0, help="stop after this time")
    parser.add_argument("--seed", type=int, default=0)
    for name in ("default", "visibility-delay", "latency", "pending", "stopping"):
        parser.add_argument(f"--{name}-seconds", type=float, default=0.0)
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> int:
    """Serve one double, its endpoint being the first line printed, until told to stop."""
    given = _arguments(words)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    if given.exit_with_stdin:
        threading.Thread(target=_watch_stdin, args=(stop,), daemon=True).start()
    names = ("port", "control", "seed", "default_seconds", "visibility_delay_seconds", "latency_seconds")
    options: dict[str, Any] = {name: getattr(given, name) for name in names}
    times = LifecycleTimes(given.pending_seconds, given.stopping_seconds)
    with CloudRunDouble(clock=ShiftedClock(), times=times, **options) as cloud:
        print(cloud.endpoint, flush=True)
        stop.wait(given.max_seconds)
    return 0


def _watch_stdin(stop: threading.Event) -> None:
    with contextlib.suppress(OSError):
        while os.read(sys.stdin.fileno(), 4096):
            pass
    stop.set()


if __name__ == "__main__":
    sys.exit(main())
