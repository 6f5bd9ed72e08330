"""The whole service in one process: the handlers of the cloud functions, fed from the ledger's own file.

A bounded number of workers handle messages, a ticker sends what is overdue, a sweeper looks
at active jobs, and platforms that can tell of endings do so at once. What is decided is in `server.decisions`.
"""

from __future__ import annotations

import gc
import itertools
import logging
import os
import threading
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from push_pools.domain.errors import NotFound, PlatformMissing, PushPoolsError
from push_pools.ports import PreparesAhead, TellsOfEndings
from push_pools.server.decisions import (
    BACK_SECONDS,
    handle_delivery,
    sweep_all,
    take_over,
    told_over,
    visibility_seconds,
)
from push_pools.server.home import HomeLock
from push_pools.server.workers import Workers
from push_pools.services.runs import is_idle
from push_pools.services.tick import tick

if TYPE_CHECKING:
    from collections.abc import Callable

    from push_pools.bootstrap import Embedded
    from push_pools.domain.runs import JobHandle
    from push_pools.domain.states import Observation
    from push_pools.ports import Delivery

log = logging.getLogger("push_pools")
PREPARE_SECONDS: Final = 0.5
"""How often platforms are told what is due."""
AHEAD_SECONDS: Final = 3.0
"""How far ahead they are told of it."""
AHEAD_RUNS: Final = 100
"""How many of the runs that are due are looked at for it."""


class EmbeddedServer:
    """Serves one home. `start` it, then `stop` it; in between it works by itself.

    Raises:
        HomeInUse: On `start`, when another process serves the home.
    """

    def __init__(self, opened: Embedded) -> None:
        self.app, self._queue, self._file = opened.app, opened.queue, opened.file
        settings = opened.settings
        self._lock = HomeLock(settings.home)
        self._sweep_seconds, self._tick_seconds = settings.sweep_seconds, settings.tick_seconds
        self._owner = f"embedded:{os.getpid()}:{time.time_ns()}"
        self._stopping = threading.Event()
        self._workers = Workers(
            self._queue,
            self._file,
            self._handle,
            count=settings.workers,
            visibility_seconds=visibility_seconds(self.app),
        )
        self._threads: list[threading.Thread] = []
        self._listening: set[str] = set()
        self._serial = itertools.count(1)
        self.last_tick = 0.0
        """When the last tick ended, in seconds of the real clock."""

    # -- life

    def start(self) -> None:
        """Take the home, take over what an earlier server left, and begin to work."""
        self._lock.acquire()
        gc.freeze()  # What is loaded by now stays; looking through it again and again would hold up bursts.
        take_over(self._owner, self.app, self._queue)
        for type_ in self.app.platforms.types():
            self._listen(type_)
        for name, loop in (("tick", self._tick), ("sweep", self._sweep), ("prepare", self._prepare)):
            thread = threading.Thread(target=self._guarded, args=(name, loop), name=name, daemon=True)
            thread.start()
            self._threads.append(thread)
        self._workers.start()
        log.info("serving", extra={"owner": self._owner})

    def stop(self) -> None:
        """Claim nothing more, wait for the calls in flight, and let go of the home. Jobs go on."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        self._workers.stop()
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
        return not self._workers.is_busy() and (soon is None or soon > BACK_SECONDS * 2) and is_idle(self.app)

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

    def _handle(self, delivery: Delivery) -> None:
        owner = f"{self._owner}/{delivery.id}.{delivery.receives}.{next(self._serial)}"
        handle_delivery(delivery, owner, self.app, self._queue)

    def _tick(self) -> None:
        while not self._stopping.is_set():
            tick(self.app)
            self.last_tick = time.time()
            self._stopping.wait(self._tick_seconds)

    def _prepare(self) -> None:
        """Tell platforms that are faster then how many jobs are due within moments."""
        platforms = {type_: self.app.platforms(type_) for type_ in self._listening}
        while not self._stopping.wait(PREPARE_SECONDS):
            soon = self.app.clock.now() + timedelta(seconds=AHEAD_SECONDS * self.app.clock.speed)
            due = [run for run in self.app.store.due(soon, limit=AHEAD_RUNS) if run.phase.is_submitting]
            for type_, platform in platforms.items():
                if isinstance(platform, PreparesAhead):
                    platform.expect(sum(run.platform == type_ for run in due))

    def _sweep(self) -> None:
        while not self._stopping.wait(self._sweep_seconds):
            sweep_all(self.app, self._sweep_seconds)
