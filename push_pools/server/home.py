"""One server per home: a lock that the system lets go of when its holder dies, however it dies."""

from __future__ import annotations

import fcntl
import os
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from push_pools.domain.errors import HomeInUse

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

PROBE_SECONDS: Final = 0.25
"""How long a server that starts waits for those who only ask whether there is one."""


class HomeLock:
    """The right to serve a home, held until `release`, or the end of the process.

    A stopped (SIGSTOP) holder keeps it, so what it has in flight is not taken for dead.
    """

    def __init__(self, home: Path) -> None:
        self._path = home / "server.lock"
        self._fd: int | None = None

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            HomeInUse: Another process serves this home.
        """
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        end = time.monotonic() + PROBE_SECONDS
        while not _lock(fd, fcntl.LOCK_EX):
            if time.monotonic() > end:
                holder = os.read(fd, 32).decode(errors="replace").strip()
                os.close(fd)
                raise HomeInUse(str(self._path.parent), holder)
            time.sleep(PROBE_SECONDS / 10)
        os.ftruncate(fd, 0)
        os.write(fd, f"{os.getpid()}\n".encode())
        self._fd = fd

    def release(self) -> None:
        """Let go; letting go twice is fine."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def __enter__(self) -> HomeLock:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def is_served(home: Path) -> bool:
    """Whether a server runs on this home now."""
    try:
        fd = os.open(home / "server.lock", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return not _lock(fd, fcntl.LOCK_SH)
    finally:
        os.close(fd)


def served_since(home: Path) -> datetime | None:
    """Return when the server that runs on this home took it, or `None` if none runs."""
    if not is_served(home):
        return None
    return datetime.fromtimestamp((home / "server.lock").stat().st_mtime, UTC)  # It wrote its pid then.


def _lock(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
