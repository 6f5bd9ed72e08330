"""The whole service in one process: the handlers of the cloud functions, fed from the ledger's own file.

A dispatcher hands deliveries to a bounded pool of threads, a ticker sends what is overdue, a sweeper looks
at active jobs, and platforms that can tell of endings do so at once. What is decided is in `server.decisions`.
"""

from __future__ import annotations

import itertools
import logging
import os
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from push_pools.domain.errors import NotFound, PlatformMissing, PushPoolsError
from push_pools.ports import TellsOfEndings
from push_pools.server.decisions import (
    BACK_SECONDS,
    handle_delivery,
    sweep_all,
    take_over,
    told_over,
    visibility_seconds,
)
from push_pools.server.home import HomeLock
from push_pools.services.runs import is_idle
from push_pools.services.tick import tick

if TYPE_CHECKING:
    from collections.abc import Callable

    from push_pools.bootstrap import Embedded
    from push_pools.domain.runs import JobHandle
    from push_pools.domain.states import Observation
    from push_pools.ports import Delivery

log = logging.getLogger("push_pools")
LOOK_SECONDS: Final = 0.01
"""How often the dispatcher asks whether another process has written to the file."""


class EmbeddedServer:
    """Serves one home. `start` it, then `stop` it; in between it works by itself.

    Raises:
        HomeInUse: On `start`, when another process serves the home.
    """

    def __init__(self, opened: Embedded) -> None:
        self.app, self._queue, self._file = opened.app, opened.queue, opened.file
        settings = opened.settings
        self._lock = HomeLock(settings.home)
        self._workers = settings.workers
        self._sweep_seconds, self._tick_seconds = settings.sweep_seconds, settings.tick_seconds
        self._owner = f"embedded:{os.getpid()}:{time.time_ns()}"
        self._stopping = threading.Event()
        self._room = threading.Semaphore(self._workers)
        self._pool: ThreadPoolExecutor | None = None
        self._threads: list[threading.Thread] = []
        self._listening: set[str] = set()
        self._serial = itertools.count(1)
        self.last_tick = 0.0
        """When the last tick ended, in seconds of the real clock."""

    # -- life

    def start(self) -> None:
        """Take the home, take over what an earlier server left, and begin to work."""
        self._lock.acquire()
        take_over(self._owner, self.app, self._queue)
        self._pool = ThreadPoolExecutor(self._workers, thread_name_prefix="handler")
        for type_ in self.app.platforms.types():
            self._listen(type_)
        for name, loop in (("dispatch", self._dispatch), ("tick", self._tick), ("sweep", self._sweep)):
            thread = threading.Thread(target=self._guarded, args=(name, loop), name=name, daemon=True)
            thread.start()
            self._threads.append(thread)
        log.info("serving", extra={"owner": self._owner})

    def stop(self) -> None:
        """Claim nothing more, wait for the calls in flight, and let go of the home. Jobs go on."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        if self._pool is not None:
            self._pool.shutdown(wait=True)
        for type_ in self._listening:
            platform = self.app.platforms(type_)
            if isinstance(platform, TellsOfEndings):
                platform.close()
        self._lock.release()
        log.info("stopped", extra={"owner": self._owner})

    def run_until_idle(self, seconds: float, *, every: Callable[[], None] | None = None) -> bool:
        """Work until no due run, message or active job is left; return False when the time ran out first."""
        end = time.monotonic() + seconds
        quiet = 0
        while time.monotonic() < end and not self._stopping.is_set():
            quiet = quiet + 1 if self.is_idle() else 0
            if quiet == 2:  # Twice in a row, so that a message between two hands is not overlooked.
                return True
            if every is not None:
                every()
            self._stopping.wait(0.05)
        return self._stopping.is_set()

    def is_idle(self) -> bool:
        """Whether nothing is due and nothing is in a worker's hands."""
        soon = self._queue.next_visible_in()
        busy = self._room._value < self._workers
        return not busy and (soon is None or soon > BACK_SECONDS * 2) and is_idle(self.app)

    def _guarded(self, name: str, loop: Callable[[], None]) -> None:
        while not self._stopping.is_set():
            try:
                loop()
            except PushPoolsError as error:
                log.warning("loop_failed", extra={"loop": name, "reason": str(error)})
            except Exception:
                log.exception("loop_failed", extra={"loop": name})
            self._stopping.wait(BACK_SECONDS)

    # -- endings

    def _listen(self, type_: str) -> None:
        try:
            platform = self.app.platforms(type_)
        except (NotFound, PlatformMissing) as error:
            log.warning("platform_missing", extra={"platform": type_, "reason": str(error)})
            return
        if not isinstance(platform, TellsOfEndings):
            return
        platform.on_over(self._over)
        self._listening.add(type_)
        for run in self.app.store.active(type_):
            if run.job is not None:
                platform.follow(run.job.handle)

    def _over(self, handle: JobHandle, seen: Observation) -> None:
        told_over(handle, seen, self.app)

    # -- loops

    def _dispatch(self) -> None:
        sent, version = self._queue.wait(0.0, -1), self._file.data_version()
        while not self._stopping.is_set():
            for delivery in self._receive():
                self._room.acquire()
                assert self._pool is not None
                self._pool.submit(self._handle, delivery).add_done_callback(self._done)
            sent, version = self._wait(sent, version)

    def _receive(self) -> list[Delivery]:
        if not self._room.acquire(timeout=1.0):
            return []
        free = 1
        while free < self._workers and self._room.acquire(blocking=False):
            free += 1
        self._room.release(free)
        return list(self._queue.receive(free, visibility_seconds(self.app)))

    def _wait(self, sent: int, version: int) -> tuple[int, int]:
        """Wait until a message is visible, sent here, or written by another process."""
        end = time.monotonic() + min(self._queue.next_visible_in() or 0.0, 1.0)
        if self._queue.next_visible_in() is None:
            end = time.monotonic() + 1.0
        while not self._stopping.is_set():
            left = end - time.monotonic()
            if left <= 0:
                break
            now_sent = self._queue.wait(min(left, LOOK_SECONDS), sent)
            now_version = self._file.data_version()
            if now_sent != sent or now_version != version:
                return now_sent, now_version
        return sent, self._file.data_version()

    def _done(self, future: Future[None]) -> None:
        self._room.release()
        if error := future.exception():
            log.error("handler_broke", extra={"reason": repr(error)})

    def _handle(self, delivery: Delivery) -> None:
        owner = f"{self._owner}/{delivery.id}.{delivery.receives}.{next(self._serial)}"
        handle_delivery(delivery, owner, self.app, self._queue)

    def _tick(self) -> None:
        while not self._stopping.is_set():
            tick(self.app)
            self.last_tick = time.time()
            self._stopping.wait(self._tick_seconds)

    def _sweep(self) -> None:
        while not self._stopping.wait(self._sweep_seconds):
            sweep_all(self.app, self._sweep_seconds)
