"""The embedded queue, in tables of the ledger's file: visibility, redelivery and dead letters, as SQS has them.

Visibility runs on real time. A message that was handed out `MAX_RECEIVES` times is given up.
"""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from push_pools.domain.errors import NotFound
from push_pools.ports import DeadLetter, Delivery

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from push_pools.sqlite_file import SqliteFile

MAX_RECEIVES: Final = 5

_SEND: Final = "INSERT INTO messages (body, visible_at) VALUES (?, ?)"


class SqliteQueue:
    """A queue that survives its process; `wait` returns early when this process sends."""

    def __init__(self, file: SqliteFile, *, seconds: Callable[[], float] = time.time) -> None:
        self._file = file
        self._seconds = seconds
        self._sent = threading.Condition()
        self._count = 0

    def send(self, body: str, *, delay_seconds: float = 0.0) -> None:
        self._file.execute(_SEND, (body, self._seconds() + max(delay_seconds, 0.0)))
        self._tell(1)

    def send_all(self, messages: Sequence[tuple[str, float]]) -> None:
        now = self._seconds()
        with self._file.transaction() as execute:
            for body, delay_seconds in messages:
                execute(_SEND, (body, now + max(delay_seconds, 0.0)))
        self._tell(len(messages))

    def _tell(self, count: int) -> None:
        with self._sent:
            self._count += count
            self._sent.notify_all()

    @property
    def sent(self) -> int:
        """How many messages this process has sent."""
        return self._count

    def wait(self, seconds: float, seen: int) -> None:
        """Wait until this process has sent more than `seen` messages, or the time is over."""
        with self._sent:
            self._sent.wait_for(lambda: self._count > seen, timeout=seconds)

    def receive(self, limit: int, visibility_seconds: float) -> Sequence[Delivery]:
        now, receipt = self._seconds(), uuid4().hex
        rows = self._file.execute(
            "UPDATE messages SET visible_at=?, receipt=?, receives=receives+1 WHERE id IN "
            "(SELECT id FROM messages WHERE visible_at <= ? ORDER BY visible_at LIMIT ?) "
            "RETURNING id, body, receives",
            (now + visibility_seconds, receipt, now, limit),
        )
        found = [Delivery(str(row[0]), row[1], receipt, row[2]) for row in sorted(rows)]
        for delivery in found:
            if delivery.receives > MAX_RECEIVES:
                self.bury(delivery, f"handed out {MAX_RECEIVES} times without success")
        return [delivery for delivery in found if delivery.receives <= MAX_RECEIVES]

    def ack(self, delivery: Delivery) -> None:
        self._file.execute("DELETE FROM messages WHERE id=? AND receipt=?", (int(delivery.id), delivery.receipt))

    def release(self, delivery: Delivery, *, delay_seconds: float = 0.0) -> None:
        self._file.execute(
            "UPDATE messages SET visible_at=?, receipt=NULL WHERE id=? AND receipt=?",
            (self._seconds() + delay_seconds, int(delivery.id), delivery.receipt),
        )

    def bury(self, delivery: Delivery, reason: str) -> None:
        with self._file.transaction() as run:
            gone = run("DELETE FROM messages WHERE id=? AND receipt=?", (int(delivery.id), delivery.receipt)).rowcount
            if gone:
                run(
                    "INSERT OR REPLACE INTO dead_letters VALUES (?,?,?,?,?)",
                    (int(delivery.id), delivery.body, reason, delivery.receives, self._seconds()),
                )

    def show_all(self) -> int:
        rows = self._file.execute(
            "UPDATE messages SET visible_at=?, receipt=NULL WHERE receipt IS NOT NULL RETURNING 1", (self._seconds(),)
        )
        return len(rows)

    def next_visible_in(self) -> float | None:
        at = self._file.execute("SELECT min(visible_at) FROM messages")[0][0]
        return None if at is None else max(at - self._seconds(), 0.0)

    def depth(self) -> int:
        return int(self._file.execute("SELECT count(*) FROM messages")[0][0])

    def dead_letters(self) -> Sequence[DeadLetter]:
        rows = self._file.execute("SELECT id, body, reason, receives, died_at FROM dead_letters ORDER BY id DESC")
        return [DeadLetter(str(r[0]), r[1], r[2], r[3], datetime.fromtimestamp(r[4], UTC)) for r in rows]

    def replay(self, id_: str) -> None:
        with self._file.transaction() as run:
            row = run("DELETE FROM dead_letters WHERE id=? RETURNING body", (id_,)).fetchone()
            if row is None:
                raise NotFound("dead letter", id_, fix="see `push-pools dlq ls`")
            run("INSERT INTO messages (body, visible_at) VALUES (?, ?)", (row[0], self._seconds()))
        with self._sent:
            self._count += 1
            self._sent.notify_all()
