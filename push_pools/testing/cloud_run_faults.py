"""Ways in which the Cloud Run double misbehaves, and when."""

from __future__ import annotations

import random
import threading
from collections import defaultdict, deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from push_pools.testing.cloud_run_account import CloudRunError
from push_pools.testing.ecs_faults import ANY, Hold

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ANY", "Fault", "Faults", "Hold"]


@dataclass(frozen=True)
class Fault:
    """What happens to one request. Without any argument: nothing unusual."""

    name: str = "none"
    effect: bool = True
    """Whether the operation is performed."""
    error: CloudRunError | None = None
    """Sent in place of the answer."""
    drop: bool = False
    """Cut the connection without an answer; other requests on it are lost too."""
    body: bytes | None = None
    """Sent in place of the answer."""
    before_seconds: float = 0.0
    """Real time between the arrival of the request and its effect."""
    after_seconds: float = 0.0
    """Real time between the effect and the answer."""
    hold_before: Hold | None = None
    hold_after: Hold | None = None

    @classmethod
    def answer(cls, code: str, message: str, *, effect: bool = False) -> Fault:
        """Answer an error of your choice; `code` is the name of a gRPC status."""
        return cls(code.lower(), effect=effect, error=CloudRunError(code, message))

    @classmethod
    def throttle(cls) -> Fault:
        """Answer that the quota of writes is used up; nothing is performed."""
        message = (
            "Quota exceeded for quota metric 'Write requests' and limit 'Write requests per minute per region' of "
            "service 'run.googleapis.com' for consumer 'project_number:1'."
        )
        return replace(cls.answer("RESOURCE_EXHAUSTED", message), name="throttle")

    @classmethod
    def server_error(cls, code: str = "INTERNAL", *, effect: bool = False) -> Fault:
        """Answer INTERNAL, or UNAVAILABLE, UNKNOWN or ABORTED; the operation is performed or not."""
        fault = cls.answer(code, "The service is currently unavailable.", effect=effect)
        return replace(fault, name=f"{code.lower()}{'_with_effect' if effect else ''}")

    @classmethod
    def access_denied(cls) -> Fault:
        """Answer PERMISSION_DENIED."""
        message = "Permission 'run.jobs.create' denied on resource 'x' (or resource may not exist)."
        return replace(cls.answer("PERMISSION_DENIED", message), name="access_denied")

    @classmethod
    def expired_credentials(cls) -> Fault:
        """Answer UNAUTHENTICATED."""
        message = "Request had invalid authentication credentials."
        return replace(cls.answer("UNAUTHENTICATED", message), name="expired_credentials")

    @classmethod
    def capacity(cls) -> Fault:
        """Answer that there is no room in the region; nothing is performed."""
        message = "The region has no capacity for this request now. Try again later, or in another region."
        return replace(cls.answer("RESOURCE_EXHAUSTED", message), name="capacity")

    @classmethod
    def accept_then_drop(cls) -> Fault:
        """Perform the operation, then cut the connection without an answer."""
        return cls("accept_then_drop", drop=True)

    @classmethod
    def drop_before(cls) -> Fault:
        """Cut the connection without performing the operation."""
        return cls("drop_before", effect=False, drop=True)

    @classmethod
    def malformed(cls, body: str = "<html>Bad gateway</html>") -> Fault:
        """Perform the operation, then answer something else than a message."""
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


NO_FAULT = Fault()


@dataclass
class _Chance:
    method: str
    fault: Fault
    probability: float
    times: int | None


@dataclass
class Faults:
    """Decides which fault a request meets: the queue first, then rules, then chances.

    A method is the name of one of the API's, such as CreateJob, or `*` for any.
    """

    seed: int = 0
    _queues: dict[str, deque[Fault]] = field(default_factory=lambda: defaultdict(deque))
    _rules: list[Callable[[str, Any], Fault | None]] = field(default_factory=list)
    _chances: list[_Chance] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._lock = threading.Lock()

    def add(self, method: str, fault: Fault, *, times: int = 1) -> None:
        """Let the next requests for a method meet a fault, after those already added."""
        with self._lock:
            self._queues[method].extend([fault] * times)

    def chance(self, method: str, fault: Fault, probability: float, *, times: int | None = None) -> None:
        """Let requests meet a fault with a probability, at most `times` times in all."""
        with self._lock:
            self._chances.append(_Chance(method, fault, probability, times))

    def when(self, rule: Callable[[str, Any], Fault | None]) -> None:
        """Ask a function of the method and its request which fault a request meets, if any."""
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

    def take(self, method: str, request: Any) -> Fault:
        """Return the fault a request meets; `NO_FAULT` when there is none."""
        with self._lock:
            for name in (method, ANY):
                if self._queues.get(name):
                    return self._queues[name].popleft()
            rules = list(self._rules)
        for rule in rules:
            if (fault := rule(method, request)) is not None:
                return fault
        with self._lock:
            return self._draw(method)

    def _draw(self, method: str) -> Fault:
        for chance in self._chances:
            if chance.method not in (method, ANY) or chance.times == 0:
                continue
            if self._random.random() < chance.probability:
                chance.times = None if chance.times is None else chance.times - 1
                return chance.fault
        return NO_FAULT
