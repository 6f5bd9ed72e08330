"""The threads that handle messages: of those that are free, one waits at the queue, and handles what it finds there."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Final

from push_pools.domain.errors import PushPoolsError
from push_pools.server.decisions import BACK_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from push_pools.ports import Delivery
    from push_pools.queues.sqlite import SqliteQueue
    from push_pools.sqlite_file import SqliteFile

log = logging.getLogger("push_pools")
LOOK_SECONDS: Final = 0.01
"""How often it is asked whether another process has written to the file."""
LONGEST_WAIT_SECONDS: Final = 1.0
"""After how long the queue is looked at although nothing tells of a message."""


class Workers:
    """A bounded number of handlers at a time.

    A message that comes alone is handled by the thread that waited for it: handing it to another would cost more
    than all that is written down for it.
    """

    def __init__(
        self,
        queue: SqliteQueue,
        file: SqliteFile,
        handle: Callable[[Delivery], None],
        *,
        count: int,
        visibility_seconds: float,
    ) -> None:
        self._queue, self._file, self._handle = queue, file, handle
        self._visibility_seconds = visibility_seconds
        self._stopping = threading.Event()
        self._turn = threading.Lock()
        """Held by the thread that waits at the queue; it guards what follows."""
        self._taken: deque[Delivery] = deque()
        self._seen = (-1, -1)
        """Messages sent here, and the version of the file, when the queue was last looked at."""
        self._look_at = 0.0
        """When it is looked at again, whatever those say."""
        self._free = count
        self._count = threading.Lock()
        self._threads = [threading.Thread(target=self._run, name=f"handler-{n}", daemon=True) for n in range(count)]

    def start(self) -> None:
        """Begin to handle messages."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Take no more messages, and wait for those in hand."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def is_busy(self) -> bool:
        """Whether a message is in somebody's hands."""
        return self._free < len(self._threads) or bool(self._taken)

    def _run(self) -> None:
        while (delivery := self._next()) is not None:
            try:
                self._handle(delivery)
            except PushPoolsError as error:
                log.warning("handler_broke", extra={"message_id": delivery.id, "reason": str(error)})
            except Exception:
                log.exception("handler_broke", extra={"message_id": delivery.id})
            finally:
                self._now_free(1)

    def _now_free(self, more: int) -> None:
        with self._count:
            self._free += more

    def _next(self) -> Delivery | None:
        """Return a message once there is one, or `None` when no more are to be taken."""
        with self._turn:
            while not self._stopping.is_set():
                if self._taken:
                    return self._taken.popleft()
                self._look()
        return None

    def _look(self) -> None:
        try:
            self._fetch()
        except PushPoolsError as error:
            log.warning("queue_unreachable", extra={"reason": str(error)})
            self._stopping.wait(BACK_SECONDS)
        except Exception:
            log.exception("queue_unreachable")
            self._stopping.wait(BACK_SECONDS)

    def _fetch(self) -> None:
        """Take messages for all who are free; when there was nothing new, wait a little."""
        seen, now = (self._queue.sent, self._file.data_version()), time.monotonic()
        if seen == self._seen and now < self._look_at:
            self._queue.wait(min(self._look_at - now, LOOK_SECONDS), seen[0])
            return
        free = self._free
        found = self._queue.receive(free, self._visibility_seconds)
        self._now_free(-len(found))
        self._taken.extend(found)
        self._seen, self._look_at = seen, 0.0
        if len(found) < free:
            wait = self._queue.next_visible_in()
            self._look_at = now + (LONGEST_WAIT_SECONDS if wait is None else min(wait, LONGEST_WAIT_SECONDS))
