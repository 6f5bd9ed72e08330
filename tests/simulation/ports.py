"""The ports as the handlers of one host see them: every call is a place, and the ledger and queue may fail."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from uuid import UUID

from push_pools.domain.errors import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from push_pools.domain.runs import FlowRun
    from push_pools.ports import DeadLetter, Delivery, LocalQueue, Platform, Store
    from tests.simulation.chance import Countdown
    from tests.simulation.checks import Checks
    from tests.simulation.engine import Engine

LATE_SECONDS = (1.0, 10.0, 45.0, 200.0, 1200.0, 4000.0)
WRITES = frozenset({"put_run", "save", "put", "delete", "put_limit", "purge"})
VISIBLE = frozenset({"ledger_id", "close", "recall", "remember", "forget"})
"""What is no place: the memo is asked by an adapter under a lock of its process, where nobody else can go on."""
ASKS = frozenset({"prepare", "find", "observe", "stop", "cleanup", "logs"})
"""The calls of a platform that leave the process, but for `submit`."""


class PlacedStore:
    """The ledger: calls are places, answers get lost, and what is written is shown to the checks."""

    def __init__(
        self,
        engine: Engine,
        store: Store,
        faults: Countdown,
        checks: Checks,
    ) -> None:
        self._engine, self._store, self._faults, self._checks = engine, store, faults, checks

    def __getattr__(self, method: str) -> Any:
        attribute = getattr(self._store, method)
        if not callable(attribute) or method in VISIBLE:
            return attribute
        engine, faults, lanes, where = self._engine, self._faults, self._checks.lanes, f"store.{method}"
        writes = method in WRITES

        def call(*args: Any, **options: Any) -> Any:
            engine.place(where)
            fails = engine.current is not None and faults.hit()
            if fails and not (writes and engine.chance.below(2)):
                fail(engine, "store unavailable", method)
            lanes.asked(method, args, options)
            result = attribute(*args, **options)
            lanes.answered(method)
            if fails:
                fail(engine, "store answer lost", method)
            engine.place(where)
            return result

        self.__dict__[method] = call
        return call

    def put_run(self, run: FlowRun) -> FlowRun:
        engine = self._engine
        engine.place("store.put_run")
        fails = engine.current is not None and self._faults.hit()
        if fails and not engine.chance.below(2):
            fail(engine, "store unavailable", "put_run")
        stored = self._store.put_run(run)
        if stored.version == 1:
            self._checks.written(None, stored)
        if fails:
            fail(engine, "store answer lost", "put_run")
        engine.place("store.put_run")
        return stored

    def save(self, before: FlowRun, after: FlowRun, *, counting: bool = False) -> FlowRun:
        engine = self._engine
        engine.place("store.save")
        fails = engine.current is not None and self._faults.hit()
        if fails and not engine.chance.below(2):
            fail(engine, "store unavailable", "save")
        saved = self._store.save(before, after, counting=counting)
        self._checks.written(before, saved, counting=counting)
        if fails:
            fail(engine, "store answer lost", "save")
        engine.place("store.save")
        return saved


def fail(engine: Engine, kind: str, what: str) -> None:
    """Raise what an adapter raises when its answer does not come."""
    engine.faults[kind] += 1
    engine.on_hurt(engine.current, 0.0)
    raise StoreUnavailable(f"{kind} ({what})")


class ChaosQueue:
    """A queue that delivers twice, late, out of order and never. What comes in it tells to `on_send`."""

    def __init__(self, engine: Engine, queue: LocalQueue, faults: Countdown, errors: Countdown) -> None:
        self._engine, self._queue, self._faults, self._errors = engine, queue, faults, errors
        self.on_send: Callable[[float], None] = lambda seconds: None
        self.on_lost: Callable[[str], None] = lambda body: None
        self.bodies: list[str] = []
        """Every body that was ever sent, for those who look for secrets in it."""

    def send(self, body: str, *, delay_seconds: float = 0.0) -> None:
        engine = self._engine
        engine.place("queue.send")
        if engine.current is not None and self._errors.hit():
            if engine.chance.below(2):
                self._keep(body, delay_seconds)
            fail(engine, "queue unavailable", "send")
        if self._faults.hit():
            self._wrongly(body, delay_seconds)
        else:
            self._keep(body, delay_seconds)
        engine.place("queue.send")

    def send_all(self, messages: Sequence[tuple[str, float]]) -> None:
        for body, delay_seconds in messages:
            self.send(body, delay_seconds=delay_seconds)

    def _wrongly(self, body: str, delay_seconds: float) -> None:
        engine = self._engine
        match engine.chance.below(4):
            case 0 | 1:
                engine.faults["message twice"] += 1
                self._keep(body, delay_seconds)
                self._keep(body, delay_seconds + engine.chance.pick(LATE_SECONDS))
            case 2:
                engine.faults["message late"] += 1
                self.on_lost(body)
                self._keep(body, delay_seconds + engine.chance.pick(LATE_SECONDS))
            case _ if is_event(body):
                self._keep(body, delay_seconds)  # A sender keeps an event until the queue has it.
            case _:
                engine.faults["message lost"] += 1
                self.on_lost(body)

    def _keep(self, body: str, delay_seconds: float) -> None:
        self.bodies.append(body)
        self._queue.send(body, delay_seconds=delay_seconds)
        self.on_send(max(delay_seconds, 0.0))

    # -- what the host does with deliveries

    def receive(self, limit: int, visibility_seconds: float) -> Sequence[Delivery]:
        found = self._queue.receive(limit, visibility_seconds)
        if found:
            self.on_send(visibility_seconds)
        return found

    def ack(self, delivery: Delivery) -> None:
        self._engine.place("queue.ack")
        if self._engine.current is not None and self._errors.hit():
            fail(self._engine, "queue unavailable", "ack")
        self._queue.ack(delivery)
        self._engine.place("queue.ack")

    def release(self, delivery: Delivery, *, delay_seconds: float = 0.0) -> None:
        self._engine.place("queue.release")
        self._queue.release(delivery, delay_seconds=delay_seconds)
        self.on_send(delay_seconds)
        self._engine.place("queue.release")

    def bury(self, delivery: Delivery, reason: str) -> None:
        self._engine.place("queue.bury")
        self._queue.bury(delivery, reason)
        self.on_lost(delivery.body)
        self._engine.place("queue.bury")

    def show_all(self) -> int:
        self._engine.place("queue.show_all")
        shown = self._queue.show_all()
        self.on_send(0.0)
        self._engine.place("queue.show_all")
        return shown

    def next_visible_in(self) -> float | None:
        return self._queue.next_visible_in()

    def depth(self) -> int:
        return self._queue.depth()

    def dead_letters(self) -> Sequence[DeadLetter]:
        return self._queue.dead_letters()

    def replay(self, id_: str) -> None:
        self._queue.replay(id_)
        self.on_send(0.0)


def is_event(body: str) -> bool:
    """Whether a message is what a user sent in, and not a hint."""
    return '"scheduled-run"' in body


def run_of(body: str) -> UUID | None:
    """Return the run that a hint is about."""
    read = json.loads(body)
    return UUID(read["run_id"]) if "run_id" in read else None


class PlacedPlatform:
    """A platform: its calls are places.

    When a submit began is noted, because the guarantee presumes something of what follows.
    """

    def __init__(self, engine: Engine, platform: Any) -> None:
        self._engine, self._port = engine, platform

    def __getattr__(self, method: str) -> Any:
        attribute = getattr(self._port, method)
        if method not in ASKS:
            return attribute
        engine, where = self._engine, f"platform.{method}"

        def call(*args: Any, **options: Any) -> Any:
            engine.place(where)
            if engine.current is not None:
                engine.current.port = method
            result = attribute(*args, **options)
            engine.place(where)
            return result

        self.__dict__[method] = call
        return call

    def submit(self, job: Any, key: str) -> Any:
        engine = self._engine
        if engine.current is not None:
            engine.current.port, engine.current.port_entered = "submit", engine.now
        engine.place("platform.submit")
        handle = self._port.submit(job, key)
        engine.place("platform.submit")
        return handle


class HostPlatforms:
    """The one platform of a world, as a host sees it."""

    def __init__(self, engine: Engine, platform: Any) -> None:
        self.real = platform
        self._placed: Any = PlacedPlatform(engine, platform)

    def __call__(self, type_: str) -> Platform:
        placed: Platform = self._placed
        return placed

    def types(self) -> Sequence[str]:
        return [self.real.type]
