"""Tells at once when a local process ends, whether it is a child of this process or not."""

from __future__ import annotations

import heapq
import itertools
import logging
import os
import selectors
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

POLL_SECONDS = 0.05
"""How often processes are looked at that the kernel cannot announce."""


@dataclass(frozen=True)
class _Watched:
    pid: int
    is_alive: Callable[[], bool]
    ended: Callable[[], None]


class ExitWatcher:
    """One thread that waits for processes to end, reaps those that are children, and runs a few timers.

    Linux announces ends by a pidfd, which cannot mean another process even if the number is used again.
    Without pidfds, as on macOS, and without a descriptor left, processes are polled.
    """

    def __init__(self, *, use_pidfd: bool = hasattr(os, "pidfd_open")) -> None:
        self._use_pidfd = use_pidfd
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._is_closed = False
        self._polled: dict[int, _Watched] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def watch(self, pid: int, is_alive: Callable[[], bool], ended: Callable[[], None]) -> None:
        """Call `ended` in the watcher's thread once the process has ended; `is_alive` says whether `pid` is still it.

        Nothing is called when the watcher was closed.

        Raises:
            OSError: There is no descriptor, or no thread, for the watcher itself.
        """
        if not self._start():
            return
        watched = _Watched(pid, is_alive, ended)
        if self._use_pidfd:
            with suppress(OSError):  # Ended and reaped already, or no descriptor is free: polling sees both.
                fd = os.pidfd_open(pid)
                if is_alive():
                    self._selector.register(fd, selectors.EVENT_READ, watched)
                    return
                os.close(fd)
        with self._lock:
            self._polled[pid] = watched
        self._wake()

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Call `action` in the watcher's thread after some seconds, unless the watcher is closed first.

        Raises:
            OSError: There is no descriptor, or no thread, for the watcher itself.
        """
        if not self._start():
            return
        with self._lock:
            heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._order), action))
        self._wake()

    def close(self) -> None:
        """End the thread. Processes go on, and are not reaped any more."""
        with self._lock:
            self._is_closed, thread = True, self._thread
        if thread is None:
            return
        self._wake()
        if thread is not threading.current_thread():
            thread.join()

    # -- the thread

    def _start(self) -> bool:
        """Start the thread, if there is none yet, and return whether there is one."""
        with self._lock:
            if self._thread is None and not self._is_closed:
                self._selector = selectors.DefaultSelector()
                self._wake_read, self._wake_write = os.pipe()
                os.set_blocking(self._wake_write, False)
                self._selector.register(self._wake_read, selectors.EVENT_READ)
                self._thread = self._started()
            return not self._is_closed

    def _started(self) -> threading.Thread:
        thread = threading.Thread(target=self._run, name="push-pools-process-exits", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            self._let_go()
            raise OSError(str(error)) from error
        return thread

    def _wake(self) -> None:
        with suppress(OSError):  # Full means that it wakes anyway; closed, that nobody listens.
            os.write(self._wake_write, b"w")

    def _run(self) -> None:
        while not self._is_closed:
            for key, _ in self._selector.select(self._timeout()):
                if isinstance(key.data, _Watched):
                    self._forget(key.fd)
                    self._end(key.data)
                else:
                    os.read(self._wake_read, 4096)
            self._poll()
            self._run_timers()
        self._let_go()

    def _timeout(self) -> float | None:
        with self._lock:
            waits = [max(0.0, self._timers[0][0] - time.monotonic())] if self._timers else []
            waits += [POLL_SECONDS] if self._polled else []
        return min(waits, default=None)

    def _forget(self, fd: int) -> None:
        self._selector.unregister(fd)
        os.close(fd)

    def _poll(self) -> None:
        with self._lock:
            watched = list(self._polled.values())
        for each in watched:
            reap(each.pid)
            if not each.is_alive():
                with self._lock:
                    self._polled.pop(each.pid, None)
                self._end(each)

    def _end(self, watched: _Watched) -> None:
        reap(watched.pid)
        _guarded(watched.ended)

    def _run_timers(self) -> None:
        while True:
            with self._lock:
                if not self._timers or self._timers[0][0] > time.monotonic():
                    return
                _, _, action = heapq.heappop(self._timers)
            _guarded(action)

    def _let_go(self) -> None:
        for key in list(self._selector.get_map().values()):
            self._forget(key.fd)
        self._selector.close()
        os.close(self._wake_write)


def reap(pid: int) -> None:
    """Collect a child that has ended; anything else is left alone."""
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def _guarded(action: Callable[[], None]) -> None:
    try:
        action()
    except Exception:  # One caller's fault must not end the thread that serves all.
        log.exception("process_watcher_failed")
