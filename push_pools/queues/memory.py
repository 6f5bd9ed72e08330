"""The queue in memory, on a clock of the test's choice."""

from __future__ import annotations

import itertools
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from push_pools.domain.errors import NotFound
from push_pools.ports import DeadLetter, Delivery

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MAX_RECEIVES = 5


@dataclass
class _Message:
    body: str
    visible_at: float
    receipt: str = ""
    receives: int = 0


class MemoryQueue:
    """A queue of the embedded contract in a dictionary."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._lock = threading.RLock()
        self._ids = itertools.count(1)
        self._messages: dict[str, _Message] = {}
        self._dead: dict[str, DeadLetter] = {}

    def send(self, body: str, *, delay_seconds: float = 0.0) -> None:
        with self._lock:
            self._messages[str(next(self._ids))] = _Message(body, self._seconds() + max(delay_seconds, 0.0))

    def send_all(self, messages: Sequence[tuple[str, float]]) -> None:
        for body, delay_seconds in messages:
            self.send(body, delay_seconds=delay_seconds)

    def receive(self, limit: int, visibility_seconds: float) -> Sequence[Delivery]:
        now, found = self._seconds(), []
        with self._lock:
            visible = sorted((m.visible_at, int(i)) for i, m in self._messages.items() if m.visible_at <= now)
            for _, number in visible[:limit]:
                message = self._messages[str(number)]
                message.visible_at, message.receipt = now + visibility_seconds, f"r{next(self._ids)}"
                message.receives += 1
                found.append(Delivery(str(number), message.body, message.receipt, message.receives))
        for delivery in found:
            if delivery.receives > MAX_RECEIVES:
                self.bury(delivery, f"handed out {MAX_RECEIVES} times without success")
        return [delivery for delivery in found if delivery.receives <= MAX_RECEIVES]

    def ack(self, delivery: Delivery) -> None:
        with self._lock:
            if self._is_current(delivery):
                del self._messages[delivery.id]

    def release(self, delivery: Delivery, *, delay_seconds: float = 0.0) -> None:
        with self._lock:
            if self._is_current(delivery):
                message = self._messages[delivery.id]
                message.visible_at, message.receipt = self._seconds() + delay_seconds, ""

    def bury(self, delivery: Delivery, reason: str) -> None:
        with self._lock:
            if self._is_current(delivery):
                del self._messages[delivery.id]
                died_at = datetime.fromtimestamp(self._seconds(), UTC)
                self._dead[delivery.id] = DeadLetter(delivery.id, delivery.body, reason, delivery.receives, died_at)

    def show_all(self) -> int:
        with self._lock:
            hidden = [message for message in self._messages.values() if message.receipt]
            for message in hidden:
                message.visible_at, message.receipt = self._seconds(), ""
            return len(hidden)

    def next_visible_in(self) -> float | None:
        with self._lock:
            at = min((message.visible_at for message in self._messages.values()), default=None)
        return None if at is None else max(at - self._seconds(), 0.0)

    def depth(self) -> int:
        with self._lock:
            return len(self._messages)

    def dead_letters(self) -> Sequence[DeadLetter]:
        with self._lock:
            return sorted(self._dead.values(), key=lambda letter: int(letter.id), reverse=True)

    def replay(self, id_: str) -> None:
        with self._lock:
            if id_ not in self._dead:
                raise NotFound("dead letter", id_, fix="see `push-pools dlq ls`")
            self.send(self._dead.pop(id_).body)

    def _is_current(self, delivery: Delivery) -> bool:
        message = self._messages.get(delivery.id)
        return message is not None and message.receipt == delivery.receipt
