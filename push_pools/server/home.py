"""One server per home: a lock that the system lets go of when its holder dies, however it dies."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

from push_pools.domain.errors import HomeInUse

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType


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
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(fd, 32).decode(errors="replace").strip()
            os.close(fd)
            raise HomeInUse(str(self._path.parent), holder) from None
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
    if not (home / "server.lock").exists():
        return False
    try:
        with HomeLock(home):
            return False
    except HomeInUse:
        return True
