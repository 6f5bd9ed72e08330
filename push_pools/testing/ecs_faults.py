"""Ways in which the ECS double misbehaves, and when."""

from __future__ import annotations

import random
import threading
from collections import defaultdict, deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from push_pools.testing.ecs_definitions import EcsError
from push_pools.testing.ecs_model import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from push_pools.testing.ecs_tasks import Document

ANY = "*"
CAPACITY = "Capacity is unavailable at this time. Please try again later or in a different availability zone"


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


@dataclass(frozen=True)
class Fault:
    """What happens to one request. Without any argument: nothing unusual."""

    name: str = "none"
    effect: bool = True
    """Whether the operation is performed."""
    error: EcsError | None = None
    """Sent in place of the answer."""
    drop: bool = False
    """Close the connection without an answer."""
    cut: bool = False
    """Close the connection in the middle of the answer."""
    body: bytes | None = None
    """Sent in place of the answer's body, with status 200."""
    before_seconds: float = 0.0
    """Real time between the arrival of the request and its effect."""
    after_seconds: float = 0.0
    """Real time between the effect and the answer."""
    hold_before: Hold | None = None
    hold_after: Hold | None = None
    refusal: Refusal | None = None
    """RunTask only: answer `failures`."""

    @classmethod
    def answer(cls, code: str, message: str, *, status: int = 400, effect: bool = False) -> Fault:
        """Answer an error of your choice."""
        return cls(code, effect=effect, error=EcsError(code, message, status=status))

    @classmethod
    def throttle(cls) -> Fault:
        """Answer ThrottlingException; nothing is performed."""
        return replace(cls.answer("ThrottlingException", "Rate exceeded"), name="throttle")

    @classmethod
    def wrapped_throttle(cls) -> Fault:
        """Answer a throttle of EC2 as ECS passes it on: inside an InvalidParameterException."""
        message = "Error retrieving subnet information for [subnet-1]: Rate exceeded (ErrorCode: Throttling)"
        return replace(cls.answer("InvalidParameterException", message), name="wrapped_throttle")

    @classmethod
    def concurrent_revisions(cls) -> Fault:
        """Answer what RegisterTaskDefinition answers to simultaneous calls for one family."""
        message = "Too many concurrent attempts to create a new revision of the specified family."
        return replace(cls.answer("ClientException", message), name="concurrent_revisions")

    @classmethod
    def server_error(cls, *, effect: bool = False) -> Fault:
        """Answer ServerException (500), the operation performed or not."""
        fault = cls.answer("ServerException", "Service Unavailable. Please try again later.", status=500, effect=effect)
        return replace(fault, name="server_error_with_effect" if effect else "server_error")

    @classmethod
    def access_denied(cls) -> Fault:
        """Answer AccessDeniedException."""
        message = "User: arn:aws:iam::123456789012:user/double is not authorized to perform this action"
        return replace(cls.answer("AccessDeniedException", message), name="access_denied")

    @classmethod
    def expired_credentials(cls) -> Fault:
        """Answer ExpiredTokenException."""
        message = "The security token included in the request is expired"
        return replace(cls.answer("ExpiredTokenException", message), name="expired_credentials")

    @classmethod
    def accept_then_drop(cls) -> Fault:
        """Perform the operation, then close the connection without an answer."""
        return cls("accept_then_drop", drop=True)

    @classmethod
    def drop_before(cls) -> Fault:
        """Close the connection without performing the operation."""
        return cls("drop_before", effect=False, drop=True)

    @classmethod
    def cut_answer(cls) -> Fault:
        """Perform the operation, then close the connection in the middle of the answer."""
        return cls("cut_answer", cut=True)

    @classmethod
    def malformed(cls, body: str = "<html>Bad gateway</html>") -> Fault:
        """Perform the operation, then answer 200 with something else than JSON."""
        return cls("malformed", body=body.encode())

    @classmethod
    def delay(cls, seconds: float) -> Fault:
        """Wait in real time before the operation is performed; it is, even when the client has given up."""
        return cls("delay", before_seconds=seconds)

    @classmethod
    def delay_answer(cls, seconds: float) -> Fault:
        """Perform the operation, then wait in real time before the answer."""
        return cls("delay_answer", after_seconds=seconds)

    @classmethod
    def hang(cls, hold: Hold) -> Fault:
        """Perform the operation only when the hold is released; it then lands, however late."""
        return cls("hang", hold_before=hold)

    @classmethod
    def hang_answer(cls, hold: Hold) -> Fault:
        """Perform the operation at once, and answer only when the hold is released."""
        return cls("hang_answer", hold_after=hold)

    @classmethod
    def failures(cls, reason: str = "RESOURCE:MEMORY") -> Fault:
        """RunTask answers `failures` with this reason, such as `CAPACITY` or AGENT, and starts nothing."""
        return cls("failures", refusal=Refusal(reason))

    @classmethod
    def lying_failures(cls, reason: str = "RESOURCE:MEMORY") -> Fault:
        """RunTask answers `failures`, and starts the tasks all the same."""
        return cls("lying_failures", refusal=Refusal(reason, starts_anyway=True))


NO_FAULT = Fault()


@dataclass
class _Chance:
    operation: str
    fault: Fault
    probability: float
    times: int | None


@dataclass
class Faults:
    """Decides which fault a request meets: the queue first, then rules, then chances.

    An operation is the name of an ECS operation, or `*` for any.
    """

    seed: int = 0
    _queues: dict[str, deque[Fault]] = field(default_factory=lambda: defaultdict(deque))
    _rules: list[Callable[[str, Document], Fault | None]] = field(default_factory=list)
    _chances: list[_Chance] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._lock = threading.Lock()

    def add(self, operation: str, fault: Fault, *, times: int = 1) -> None:
        """Let the next requests for an operation meet a fault, after those already added."""
        with self._lock:
            self._queues[operation].extend([fault] * times)

    def chance(self, operation: str, fault: Fault, probability: float, *, times: int | None = None) -> None:
        """Let requests meet a fault with a probability, at most `times` times in all."""
        with self._lock:
            self._chances.append(_Chance(operation, fault, probability, times))

    def when(self, rule: Callable[[str, Document], Fault | None]) -> None:
        """Ask a function of the operation and its body which fault a request meets, if any."""
        with self._lock:
            self._rules.append(rule)

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

    def take(self, operation: str, body: Document) -> Fault:
        """Return the fault a request meets; `NO_FAULT` when there is none."""
        with self._lock:
            for name in (operation, ANY):
                if self._queues.get(name):
                    return self._queues[name].popleft()
            rules = list(self._rules)
        for rule in rules:
            if (fault := rule(operation, body)) is not None:
                return fault
        with self._lock:
            return self._draw(operation)

    def _draw(self, operation: str) -> Fault:
        for chance in self._chances:
            if chance.operation not in (operation, ANY) or chance.times == 0:
                continue
            if self._random.random() < chance.probability:
                chance.times = None if chance.times is None else chance.times - 1
                return chance.fault
        return NO_FAULT
