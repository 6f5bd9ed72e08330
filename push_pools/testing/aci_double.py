"""A double of Azure Container Instances that the unmodified Azure client talks to over a loopback socket.

    with AciDouble(clock=clock) as aci:
        client = ContainerInstanceManagementClient(credential, subscription, base_url=aci.endpoint, ...)

It keeps the promises of the real service, above all what a second PUT of a name does, and misbehaves when told to.
`python -m push_pools.testing.aci_double` serves one for other processes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import sys
import threading
from collections import Counter, deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from uuid import uuid4

from push_pools.testing.aci_control import answer_control
from push_pools.testing.aci_groups import Document, GroupPlan, GroupTimes
from push_pools.testing.aci_model import AciModel, Answer, Started, error_body
from push_pools.testing.aci_rules import AciError, Subscription
from push_pools.testing.clocks import RealClock
from push_pools.testing.doubles_http import LoopbackServer, Reply, Request
from push_pools.testing.ecs_tasks import ManualClock, ShiftedClock
from push_pools.testing.faults import Fault, Faults, Hold

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from types import TracebackType
    from typing import Self

    from push_pools.testing.clocks import Clock

__all__ = [
    "AciDouble",
    "AciError",
    "Call",
    "Fault",
    "Faults",
    "GroupPlan",
    "GroupTimes",
    "Hold",
    "ManualClock",
    "ShiftedClock",
    "Started",
    "Subscription",
]

LOG_LENGTH: Final = 10_000
THROTTLED_SECONDS: Final = 2
"""The Retry-After of a fault that throttles."""
_NAME: Final = re.compile(r"/containerGroups/[^/?]+$", re.IGNORECASE)


class Call(NamedTuple):
    """One request and what became of it."""

    at: datetime
    operation: str
    path: str
    headers: dict[str, str]
    body: Document | None
    outcome: str
    """`ok`, an error code, or the name of the fault that hid the answer."""


class AciDouble:
    """Container groups of one subscription, on 127.0.0.1.

    Groups live on `clock`: a `Clock`, or a function that returns the time. Delays and latency are real time. `plan`
    decides what a group does, given the body of its PUT; without one, or where it returns None, the container's
    environment variable `PUSH_POOLS_DOUBLE` or its command does. `rules` says what the subscription allows.
    """

    def __init__(
        self,
        *,
        clock: Clock | Callable[[], datetime] | None = None,
        plan: Callable[[Document], GroupPlan | None] | None = None,
        times: GroupTimes | None = None,
        default_seconds: float = 0.0,
        visibility_delay_seconds: float = 0.0,
        latency_seconds: float = 0.0,
        honours_if_none_match: bool = False,
        rules: Subscription | None = None,
        seed: int = 0,
        port: int = 0,
        control: bool = False,
    ) -> None:
        self.clock: Clock | Callable[[], datetime] = clock or RealClock()
        self.latency_seconds = latency_seconds
        self.model = AciModel(
            now=self.clock if callable(self.clock) else self.clock.now,
            plan=plan,
            times=times or GroupTimes(),
            default_seconds=default_seconds,
            visibility_delay_seconds=visibility_delay_seconds,
            honours_if_none_match=honours_if_none_match,
            rules=rules or Subscription(),
        )
        self.faults = Faults(Fault, seed=seed)
        self.calls: Counter[str] = Counter()
        self.log: deque[Call] = deque(maxlen=LOG_LENGTH)
        self._port, self._control = port, control
        self._server: LoopbackServer | None = None
        self._closing = threading.Event()
        self._holds: set[Hold] = set()

    # -- serving

    def start(self) -> Self:
        """Listen; `endpoint` is known from here on."""
        self._server = LoopbackServer(self._answer, port=self._port)
        self.model.endpoint = self._server.endpoint
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
        """The URL of the management endpoint, known while the double is started."""
        if self._server is None:
            raise RuntimeError("the double is not started: use it in a with statement, or call start()")
        return self._server.endpoint

    # -- bookkeeping for checks

    @property
    def rules(self) -> Subscription:
        """What the subscription allows."""
        return self.model.rules

    @property
    def started(self) -> list[Started]:
        """Every time that containers were really started, in order."""
        with self.model.lock:
            return list(self.model.started)

    def starts(self) -> Counter[str]:
        """Return how often the containers of each group were really started."""
        return Counter(each.name for each in self.started)

    def alive(self) -> list[str]:
        """Return the names of the groups that still cost, or still try to start."""
        return self.model.alive()

    def left(self) -> list[str]:
        """Return the names of the groups that nobody has deleted."""
        with self.model.lock:
            return [group.name for group in self.model.groups.values() if group.deleted_at is None]

    def sent(self, operation: str) -> list[Call]:
        """Return the requests of one kind, in order."""
        with self.model.lock:
            return [call for call in self.log if call.operation == operation]

    # -- what happens to groups

    def finish(self, name: str, exit_code: int = 0) -> bool:
        """Let the container exit now. False when it does not run."""
        return self.model.end(name, GroupPlan(exit_code=exit_code))

    def kill(self, name: str) -> bool:
        """Let the container die with 137 although nobody stopped it. False when it does not run."""
        return self.model.end(name, GroupPlan("killed"))

    def oom(self, name: str) -> bool:
        """Let the container run out of memory. False when it does not run."""
        return self.model.end(name, GroupPlan("oom"))

    def release(self) -> None:
        """Release every request that hangs."""
        with self.model.lock:
            holds = list(self._holds)
        for hold in holds:
            hold.release()

    # -- one request

    def _answer(self, request: Request) -> Reply | None:
        if self._control and request.path.startswith("/_control/"):
            return answer_control(self, request)
        try:
            body = json.loads(request.body) if request.body else None
        except ValueError:
            return _error("InvalidRequestContent", "The request content was invalid.", 400)
        operation = operation_of(request.method, request.path)
        with self.model.lock:
            self.calls[operation] += 1
        fault = self.faults.take(operation, body or {})
        self._wait(self.latency_seconds + fault.before_seconds, fault.hold_before)
        if self._closing.is_set():
            return None
        reply, outcome = Reply(200), "ok"
        if fault.effect:
            reply, outcome = self._call(request, body)
        outcome = outcome if fault.name == "none" else fault.name
        with self.model.lock:
            self.log.append(Call(self.model.now(), operation, request.path, request.headers, body, outcome))
        self._wait(fault.after_seconds, fault.hold_after)
        return _distorted(reply, fault)

    def _call(self, request: Request, body: Any) -> tuple[Reply, str]:
        try:
            return _reply(self.model.call(request.method, request.path, request.headers, body)), "ok"
        except AciError as error:
            return _error(error.code, error.message, error.status, error.headers), error.code
        except Exception as error:  # A plan that fails is the test's mistake, and is answered as such.
            return _error("DoubleFailed", f"{type(error).__name__}: {error}", 400), "DoubleFailed"

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


def operation_of(method: str, path: str) -> str:
    """Return the name by which faults and checks know a request."""
    plain = path.partition("?")[0]
    if "/containers/" in plain:
        return "logs"
    if "/locations/" in plain:
        return "operation"
    if "containergroups" not in plain.lower():
        return "group"
    if method == "POST":
        return plain.rpartition("/")[2].lower()
    return method.lower() if _NAME.search(plain) else "list"


def _reply(answer: Answer) -> Reply:
    body = b"" if answer.body is None else json.dumps(answer.body).encode()
    return Reply(answer.status, body, "application/json; charset=utf-8", {**_ids(), **answer.headers})


def _error(code: str, message: str, status: int, headers: dict[str, str] | None = None) -> Reply:
    more = {**_ids(), "x-ms-failure-cause": "service", **(headers or {})}
    return Reply(status, error_body(code, message), "application/json; charset=utf-8", more)


def _ids() -> dict[str, str]:
    return {"x-ms-request-id": str(uuid4())}


def _distorted(reply: Reply, fault: Fault) -> Reply | None:
    if fault.drop:
        return None
    if (error := fault.error) is not None:
        wait = {"Retry-After": str(THROTTLED_SECONDS)} if error.status == 429 else None
        return _error(error.code, error.message, error.status, wait)
    if fault.body is not None:
        return Reply(200, fault.body, "application/json; charset=utf-8", _ids())
    if fault.cut:
        return Reply(reply.status, reply.body, reply.content_type, reply.headers, cut=True)
    return reply


# -- standalone


def _arguments(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m push_pools.testing.aci_double", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0 takes a free one")
    parser.add_argument("--control", action="store_true", help="serve the control API below /_control/")
    parser.add_argument("--exit-with-stdin", action="store_true", help="stop when standard input closes")
    parser.add_argument("--max-seconds", type=float, default=3600.0, help="stop after this time")
    parser.add_argument("--seed", type=int, default=0)
    for name in ("default", "visibility-delay", "latency", "pending", "creating", "stopping", "deleting"):
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
    times = GroupTimes(given.pending_seconds, given.creating_seconds, given.stopping_seconds, given.deleting_seconds)
    options: dict[str, Any] = {
        name: getattr(given, name) for name in ("port", "control", "seed", "default_seconds", "latency_seconds")
    }
    delay = given.visibility_delay_seconds
    with AciDouble(clock=ShiftedClock(), times=times, visibility_delay_seconds=delay, **options) as aci:
        print(aci.endpoint, flush=True)
        stop.wait(given.max_seconds)
    return 0


def _watch_stdin(stop: threading.Event) -> None:
    with contextlib.suppress(OSError):
        while os.read(sys.stdin.fileno(), 4096):
            pass
    stop.set()


if __name__ == "__main__":
    sys.exit(main())
