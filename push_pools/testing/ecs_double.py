"""A double of Amazon ECS that the unmodified boto3 client talks to over a loopback socket.

    with EcsDouble(clock=clock) as ecs:
        client = boto3.client("ecs", endpoint_url=ecs.endpoint, region_name=ecs.region, ...)

It keeps the promises of the real service, above all those of `clientToken`,
and misbehaves when told to. `python -m push_pools.testing.ecs_double` serves
one for other processes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import sys
import threading
from collections import Counter, deque
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

from push_pools.testing.clocks import RealClock
from push_pools.testing.doubles_http import LoopbackServer, Reply, Request
from push_pools.testing.ecs_account import Account, Bucket
from push_pools.testing.ecs_control import answer_control
from push_pools.testing.ecs_definitions import EcsError
from push_pools.testing.ecs_faults import CAPACITY, Fault
from push_pools.testing.ecs_model import EcsModel, StartedTask
from push_pools.testing.ecs_tasks import (
    Document,
    LifecycleTimes,
    ManualClock,
    Outcome,
    ShiftedClock,
    TaskPlan,
)
from push_pools.testing.faults import Faults, Hold

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from types import TracebackType
    from typing import Self

    from push_pools.testing.clocks import Clock

__all__ = [
    "CAPACITY",
    "Account",
    "Bucket",
    "Call",
    "EcsDouble",
    "EcsError",
    "Fault",
    "Faults",
    "Hold",
    "LifecycleTimes",
    "ManualClock",
    "Outcome",
    "ShiftedClock",
    "StartedTask",
    "TaskPlan",
]

JSON = "application/x-amz-json-1.1"
LOG_LENGTH = 10_000


class Call(NamedTuple):
    """One request and what became of it."""

    at: datetime
    operation: str
    body: Document
    outcome: str
    """`ok`, an error code, or the name of the fault that hid the answer."""


class EcsDouble:
    """Amazon ECS in one account and region, on 127.0.0.1.

    Tasks live on `clock`: a `Clock`, or a function that returns the time. Delays
    and latency are real time. `plan` decides what a task does, given the RunTask
    request; without one, or where it returns None, the container's environment
    variable `PUSH_POOLS_DOUBLE` or its command does. `rules` says what the account
    allows; by default everything.
    """

    def __init__(
        self,
        *,
        clock: Clock | Callable[[], datetime] | None = None,
        region: str = "us-east-1",
        account: str = "123456789012",
        plan: Callable[[Document], TaskPlan | None] | None = None,
        times: LifecycleTimes | None = None,
        default_seconds: float = 0.0,
        visibility_delay_seconds: float = 0.0,
        latency_seconds: float = 0.0,
        started_by_alone: bool = False,
        rules: Account | None = None,
        seed: int = 0,
        port: int = 0,
        control: bool = False,
    ) -> None:
        self.clock: Clock | Callable[[], datetime] = clock or RealClock()
        self.region, self.account = region, account
        self.latency_seconds = latency_seconds
        self.model = EcsModel(
            now=self.clock if callable(self.clock) else self.clock.now,
            region=region,
            account=account,
            plan=plan,
            times=times or LifecycleTimes(),
            default_seconds=default_seconds,
            visibility_delay_seconds=visibility_delay_seconds,
            started_by_alone=started_by_alone,
            rules=rules or Account(),
        )
        self.faults = Faults(Fault, seed=seed)
        self.calls: Counter[str] = Counter()
        self.log: deque[Call] = deque(maxlen=LOG_LENGTH)
        self._random = random.Random(seed)
        self._port, self._control = port, control
        self._server: LoopbackServer | None = None
        self._closing = threading.Event()
        self._holds: set[Hold] = set()

    # -- Serving -----------------------------------------------------------------

    def start(self) -> Self:
        """Listen; `endpoint` is known from here on."""
        self._server = LoopbackServer(self._answer, port=self._port)
        return self

    def close(self) -> None:
        """Release what hangs, without any effect, and end every connection."""
        self._closing.set()
        self.release()
        if self._server is not None:
            self._server.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def endpoint(self) -> str:
        """The URL for `endpoint_url`, known while the double is started."""
        if self._server is None:
            raise RuntimeError("the double is not started: use it in a with statement, or call start()")
        return self._server.endpoint

    # -- Bookkeeping for checks ----------------------------------------------------

    @property
    def started(self) -> list[StartedTask]:
        """Every task that was really started, in order."""
        with self.model.lock:
            return list(self.model.started)

    def started_by_key(self) -> dict[str, list[str]]:
        """Return the ARNs of the tasks really started, by clientToken."""
        found: dict[str, list[str]] = {}
        for task in self.started:
            found.setdefault(task.client_token or "", []).append(task.task_arn)
        return found

    def running(self) -> list[str]:
        """Return the ARNs of the tasks that have not reached STOPPED: those that still cost."""
        return self.model.alive()

    def describe(self, task_arn: str) -> Document:
        """Return a task as it is now, whether the API shows it yet or not.

        Raises:
            LookupError: No such task was started, or it was forgotten.
        """
        return self.model.document(task_arn)

    # -- What happens to tasks -------------------------------------------------------

    def finish(self, task_arn: str, exit_code: int | None = 0) -> bool:
        """Let the main container exit now; None shows a null exit code. False when it had already ended."""
        return self._end(task_arn, TaskPlan(exit_code=exit_code) if exit_code is not None else TaskPlan("null_exit"))

    def kill(self, task_arn: str) -> bool:
        """Let the container die with 137 although nobody called StopTask. False when it had already ended."""
        return self._end(task_arn, TaskPlan("killed"))

    def oom(self, task_arn: str) -> bool:
        """Let the container run out of memory. False when it had already ended."""
        return self._end(task_arn, TaskPlan("oom"))

    def spot(self, task_arn: str) -> bool:
        """Take the task's Spot capacity back. False when its containers had already ended."""
        return self._end(task_arn, TaskPlan("spot"), after_running=False)

    def host_failure(self, task_arn: str) -> bool:
        """Let the machine under the task fail. False when its containers had already ended."""
        return self._end(task_arn, TaskPlan("host"), after_running=False)

    def _end(self, task_arn: str, plan: TaskPlan, *, after_running: bool = True) -> bool:
        return self.model.end(task_arn, plan.ending, after_running=after_running)

    def task_state_change_events(
        self, *, duplicate: float = 0.0, drop: float = 0.0, shuffle: bool = False
    ) -> list[Document]:
        """Return the EventBridge events since the last call.

        EventBridge promises neither order nor single delivery: `duplicate` and
        `drop` are probabilities for each event, and `shuffle` changes the order.
        """
        events: list[Document] = []
        for event in self.model.new_events():
            if self._random.random() >= drop:
                events += [event] * (2 if self._random.random() < duplicate else 1)
        if shuffle:
            self._random.shuffle(events)
        return events

    def release(self) -> None:
        """Release every request that hangs."""
        with self.model.lock:
            holds = list(self._holds)
        for hold in holds:
            hold.release()

    # -- One request -------------------------------------------------------------------

    def _answer(self, request: Request) -> Reply | None:
        if self._control and request.path.startswith("/_control/"):
            return answer_control(self, request)
        operation = request.headers.get("x-amz-target", "").rpartition(".")[2]
        if request.method != "POST" or not operation:
            return _error(EcsError("UnknownOperationException", "Not a request to Amazon ECS.", status=404))
        try:
            body = json.loads(request.body or b"{}")
        except ValueError:
            return _error(EcsError("SerializationException", "The body is not JSON."))
        return self._perform(operation, body)

    def _perform(self, operation: str, body: Document) -> Reply | None:
        with self.model.lock:
            self.calls[operation] += 1
        fault = self.faults.take(operation, body)
        self._wait(self.latency_seconds + fault.before_seconds, fault.hold_before)
        if self._closing.is_set():
            return None
        reply, outcome = _reply({}), "ok"
        if fault.effect:
            reply, outcome = self._call(operation, body, fault)
        outcome = outcome if fault.name == "none" else fault.name
        with self.model.lock:
            self.log.append(Call(self.model.now(), operation, body, outcome))
        self._wait(fault.after_seconds, fault.hold_after)
        return _distort(reply, fault)

    def _call(self, operation: str, body: Document, fault: Fault) -> tuple[Reply, str]:
        try:
            return _reply(self.model.call(operation, body, refusal=fault.refusal)), "ok"
        except EcsError as error:
            return _error(error), error.code
        except Exception as error:  # A plan that fails is the test's mistake, and is answered as such.
            return _error(EcsError("DoubleFailed", f"{type(error).__name__}: {error}")), "DoubleFailed"

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


def _reply(answer: Document) -> Reply:
    return _sealed(200, json.dumps(answer).encode())


def _error(error: EcsError) -> Reply:
    body = {"__type": error.code, "message": error.message, **error.members}
    return _sealed(error.status, json.dumps(body).encode())


def _sealed(status: int, body: bytes, *, cut: bool = False) -> Reply:
    return Reply(status, body, JSON, {"x-amzn-RequestId": str(uuid4())}, cut=cut)


def _distort(reply: Reply, fault: Fault) -> Reply | None:
    if fault.drop:
        return None
    if fault.error is not None:
        return _error(EcsError(fault.error.code, fault.error.message, status=fault.error.status))
    if fault.body is not None:
        return _sealed(200, fault.body)
    if fault.cut:
        return _sealed(reply.status, reply.body, cut=True)
    return reply


# -- Standalone ------------------------------------------------------------------------


def _arguments(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m push_pools.testing.ecs_double", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0 takes a free one")
    parser.add_argument("--control", action="store_true", help="serve the control API below /_control/")
    parser.add_argument("--exit-with-stdin", action="store_true", help="stop when standard input closes")
    parser.add_argument("--max-seconds", type=float, default=3600.0, help="stop after this time")
    parser.add_argument("--region", default="us-east-1")
    parser.add_argument("--account", default="123456789012")
    parser.add_argument("--seed", type=int, default=0)
    for name in ("default", "visibility-delay", "latency", "provisioning", "pending", "stopping", "deprovisioning"):
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
    times = LifecycleTimes(
        given.provisioning_seconds, given.pending_seconds, given.stopping_seconds, given.deprovisioning_seconds
    )
    options: dict[str, Any] = {
        name: getattr(given, name)
        for name in ("port", "control", "region", "account", "seed", "default_seconds", "latency_seconds")
    }
    delay = given.visibility_delay_seconds
    with EcsDouble(clock=ShiftedClock(), times=times, visibility_delay_seconds=delay, **options) as ecs:
        print(ecs.endpoint, flush=True)
        stop.wait(given.max_seconds)
    return 0


def _watch_stdin(stop: threading.Event) -> None:
    with contextlib.suppress(OSError):
        while os.read(sys.stdin.fileno(), 4096):
            pass
    stop.set()


if __name__ == "__main__":
    sys.exit(main())
