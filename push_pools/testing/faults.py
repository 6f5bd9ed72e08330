"""Ways in which a double of a cloud misbehaves, and when; each double adds what its own cloud answers."""

from __future__ import annotations

import random
import threading
from collections import defaultdict, deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Self

ANY = "*"


class Hold:
    """Keeps a request waiting until it is released, or until the double closes."""

    def __init__(self) -> None:
        self._released = threading.Event()
        self.reached = threading.Event()
        """Set once a request waits here."""

    def release(self) -> None:
        """Let the waiting requests, and all later ones, go on."""
        self._released.set()

    def wait(self) -> None:
        """Wait for the release."""
        self.reached.set()
        self._released.wait()


class Refused(NamedTuple):
    """An error that is answered: its code and message, and its HTTP status where the cloud speaks HTTP."""

    code: str
    message: str
    status: int = 400


@dataclass(frozen=True)
class Fault:
    """What happens to one request. Without any argument: nothing unusual."""

    name: str = "none"
    effect: bool = True
    """Whether the operation is performed."""
    error: Refused | None = None
    """Sent in place of the answer."""
    drop: bool = False
    """Close the connection without an answer."""
    cut: bool = False
    """Close the connection in the middle of the answer."""
    body: bytes | None = None
    """Sent in place of the answer's body, as if all were well."""
    before_seconds: float = 0.0
    """Real time between the arrival of the request and its effect."""
    after_seconds: float = 0.0
    """Real time between the effect and the answer."""
    hold_before: Hold | None = None
    hold_after: Hold | None = None

    @classmethod
    def answer(cls, code: str, message: str, *, status: int = 400, effect: bool = False, name: str = "") -> Self:
        """Answer an error of your choice."""
        return cls(name or code, effect=effect, error=Refused(code, message, status))

    @classmethod
    def accept_then_drop(cls) -> Self:
        """Perform the operation, then close the connection without an answer."""
        return cls("accept_then_drop", drop=True)

    @classmethod
    def drop_before(cls) -> Self:
        """Close the connection without performing the operation."""
        return cls("drop_before", effect=False, drop=True)

    @classmethod
    def cut_answer(cls) -> Self:
        """Perform the operation, then close the connection in the middle of the answer."""
        return cls("cut_answer", cut=True)

    @classmethod
    def malformed(cls, body: str = "<html>Bad gateway</html>") -> Self:
        """Perform the operation, then answer something else than what the API promises."""
        return cls("malformed", body=body.encode())

    @classmethod
    def delay(cls, seconds: float) -> Self:
        """Wait in real time before the operation is performed; it is, even when the client has given up."""
        return cls("delay", before_seconds=seconds)

    @classmethod
    def delay_answer(cls, seconds: float) -> Self:
        """Perform the operation, then wait in real time before the answer."""
        return cls("delay_answer", after_seconds=seconds)

    @classmethod
    def hang(cls, hold: Hold) -> Self:
        """Perform the operation only when the hold is released; it then lands, however late."""
        return cls("hang", hold_before=hold)

    @classmethod
    def hang_answer(cls, hold: Hold) -> Self:
        """Perform the operation at once, and answer only when the hold is released."""
        return cls("hang_answer", hold_after=hold)


COMMON = ("answer", "accept_then_drop", "drop_before", "cut_answer", "malformed", "delay", "delay_answer")
"""The faults above that take arguments which JSON can write."""
HANGING = ("hang", "hang_answer")

F = TypeVar("F", bound=Fault)


@dataclass(frozen=True)
class _Chance(Generic[F]):
    operation: str
    fault: F
    probability: float
    times: int | None


class Faults(Generic[F]):
    """Decides which fault a request meets: the queue first, then rules, then chances.

    `kind` is the double's own class of faults. An operation is what the double calls it, or `*` for any.
    """

    def __init__(self, kind: type[F], *, seed: int = 0) -> None:
        self._kind = kind
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._queues: dict[str, deque[F]] = defaultdict(deque)
        self._rules: list[Callable[[str, Any], F | None]] = []
        self._chances: list[_Chance[F]] = []

    def add(self, operation: str, fault: F, *, times: int = 1) -> None:
        """Let the next requests for an operation meet a fault, after those already added."""
        with self._lock:
            self._queues[operation].extend([fault] * times)

    def chance(self, operation: str, fault: F, probability: float, *, times: int | None = None) -> None:
        """Let requests meet a fault with a probability, at most `times` times in all."""
        with self._lock:
            self._chances.append(_Chance(operation, fault, probability, times))

    def when(self, rule: Callable[[str, Any], F | None]) -> None:
        """Ask a function of the operation and its request which fault a request meets, if any."""
        with self._lock:
            self._rules.append(rule)

    def told(self, known: Mapping[str, Callable[..., F]], body: Mapping[str, Any]) -> None:
        """Add the fault that a request of a control API describes; `known` are those with arguments of JSON.

        Raises:
            LookupError: There is no such fault.
        """
        name, operation = body["fault"], body.get("operation", ANY)
        if name in HANGING:
            fault: F = getattr(self._kind, name)(Hold())
        elif name in known:
            fault = known[name](**body.get("arguments", {}))
        else:
            raise LookupError(f"no fault {name!r}; one of {', '.join(sorted({*known, *HANGING}))}")
        if "probability" in body:
            self.chance(operation, fault, float(body["probability"]), times=body.get("times"))
        else:
            self.add(operation, fault, times=int(body.get("times", 1)))

    def clear(self) -> None:
        """Forget every fault that has not been met yet."""
        with self._lock:
            self._queues.clear()
            self._rules.clear()
            self._chances.clear()

    def pending(self) -> int:
        """Return how many added faults no request has met yet."""
        with self._lock:
            return sum(len(queue) for queue in self._queues.values())

    def take(self, operation: str, request: Any) -> F:
        """Return the fault a request meets; one of the name `none` when there is none."""
        with self._lock:
            for name in (operation, ANY):
                if self._queues.get(name):
                    return self._queues[name].popleft()
            rules = list(self._rules)
        for rule in rules:
            if (fault := rule(operation, request)) is not None:
                return fault
        with self._lock:
            return self._draw(operation)

    def _draw(self, operation: str) -> F:
        for at, chance in enumerate(self._chances):
            if chance.operation not in (operation, ANY) or chance.times == 0:
                continue
            if self._random.random() < chance.probability:
                if chance.times is not None:
                    self._chances[at] = replace(chance, times=chance.times - 1)
                return chance.fault
        return self._kind()
