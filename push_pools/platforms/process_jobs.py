"""What is on disk, and in the process table, of one local job.

    jobs/<key>/started   what the wrapper wrote: one line when the job began, one when it ended
    jobs/<key>/lock      locked by the wrapper for as long as it lives, from before it is told of the job
    jobs/<key>/stop      somebody asked for a stop; the time of the file is when
    jobs/<key>/output    what the job wrote to standard output and standard error
    jobs/.w-<id>         the directory of a wrapper that waits for a job

A directory is made with its lock in it, held, and then renamed to the key: of many who do that, one succeeds. So a
directory that is there, with its lock free and nothing in `started`, is of a wrapper that is gone and ran nothing.
Whoever then decides to try again holds the lock of the directory itself.
"""

# Paths are plain strings: a `Path` costs as much as the system call that it is made for, and a job makes a dozen.
# ruff: noqa: PTH104, PTH108, PTH110, PTH116, PTH208

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import signal
    from collections.abc import Iterator

NOT_STARTED = "not-started"
"""The pid of a job that was stopped before it was started, and so never will be."""
LOST = "unknown"
"""The pid of a job whose wrapper's note did not outlive a power failure."""
SPARE = ".w-"
"""How the names of directories begin that belong to no key yet."""
_POLL_SECONDS = 0.001


class Busy(Exception):
    """Somebody else is about to start the job, and did not come to an end in time."""


@dataclass(frozen=True)
class Note:
    """What `started` says."""

    pid: int
    start: str
    """When the wrapper's process was started, as the kernel counts; with the pid it names one process for ever."""
    boot: str
    began: float
    """When the job was started, in seconds since the epoch."""
    exit_code: int | None = None
    stopped: bool = False
    ended: float | None = None
    """When the job was over; none while it is not known to be."""

    @property
    def name(self) -> str:
        """The `infrastructure_pid` of the job."""
        return f"{self.pid}/{self.start}" if self.pid else self.start

    @classmethod
    def parse(cls, text: str, changed: float) -> Note | None:
        """Return what a note says; only whole lines count. `None` if the first is not there."""
        lines = text.split("\n")[:-1]
        if not lines:
            return None
        try:
            pid, start, boot, began = lines[0].split(" ")
            note = cls(int(pid), start, boot, float(began))
        except ValueError:
            return cls(0, LOST, "-", changed)  # Damaged: something was started, and nobody knows what became of it.
        if len(lines) == 1:
            return note
        code, _, word = lines[1].partition(" ")
        exit_code = int(code) if code.isdigit() else None
        # The times of files come from a clock that ticks a few hundred times a second, and so lag a little.
        return cls(note.pid, start, boot, note.began, exit_code, word == "stopped", max(changed, note.began))

    @property
    def first_line(self) -> str:
        return f"{self.pid} {self.start} {self.boot} {self.began}"


@dataclass(frozen=True)
class JobDirectory:
    """The directory of one job."""

    path: str

    def note(self) -> Note | None:
        """Return what the wrapper wrote; `None` if nothing was started, or just now is."""
        try:
            fd = os.open(self.path + "/started", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            return Note.parse(os.read(fd, 4096).decode(errors="replace"), os.fstat(fd).st_mtime)
        finally:
            os.close(fd)

    def settled_note(self, deadline: float) -> Note | None:
        """Return what the wrapper wrote; `None` if there is none, and none that could still write it.

        To be called with the directory locked. An empty note without a wrapper is of one that was killed between
        two system calls, and ran nothing: it is removed. One from before the last boot may have lost its text to a
        power failure, and nobody knows what ran.

        Raises:
            Busy: Until the deadline (monotonic) a wrapper knows of the job and has not started it.
        """
        while self.is_locked():
            if (note := self.note()) is not None:
                return note
            if time.monotonic() > deadline:
                raise Busy
            time.sleep(_POLL_SECONDS)
        return self.note() or self._remains()

    def _remains(self) -> Note | None:
        with suppress(FileNotFoundError):
            if os.stat(self.path + "/started").st_mtime < boot_time():
                return Note(0, LOST, "-", boot_time())
            os.unlink(self.path + "/started")
        return None

    @contextmanager
    def locked(self, deadline: float, *, shared: bool = False) -> Iterator[None]:
        """Hold the directory's lock.

        Raises:
            Busy: It could not be had until the deadline (monotonic).
            FileNotFoundError: There is no such directory.
        """
        fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            while not _lock(fd, fcntl.LOCK_SH if shared else fcntl.LOCK_EX):
                if time.monotonic() > deadline:
                    raise Busy
                time.sleep(_POLL_SECONDS)
            yield
        finally:
            os.close(fd)

    def refuse_start(self) -> None:
        """Write that the job is never to be started; nothing else is there yet, or can be."""
        note = Note(0, NOT_STARTED, "-", time.time())
        draft = Path(self.path, "draft")
        draft.write_text(f"{note.first_line}\n- stopped\n")
        draft.rename(self.path + "/started")

    def claim(self, spare: str) -> bool:
        """Make a directory, with what is in it, that of the job; `False` if the job has one already."""
        try:
            os.rename(spare, self.path)
        except OSError as error:
            if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
                return False
            raise
        return True

    def adopt(self, spare: str) -> None:
        """Take the lock of a wrapper into the directory, which is locked, in place of that of one that is gone."""
        os.rename(spare + "/lock", self.path + "/lock")
        shutil.rmtree(spare, ignore_errors=True)

    def mark_stop(self) -> float:
        """Write down that a stop was asked for, before any signal, and return when that was first done."""
        with suppress(FileExistsError):
            os.close(os.open(self.path + "/stop", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        return os.stat(self.path + "/stop").st_mtime

    def is_stop_marked(self) -> bool:
        return os.path.exists(self.path + "/stop")

    def is_alive(self, note: Note) -> bool:
        """Whether the wrapper that wrote the note still runs; one with the same number does not count."""
        if note.pid <= 1:
            return False  # A damaged note: group 0 is this process's own, and 1 that of the whole machine.
        if not has_process_table():
            return self.is_locked()
        return note.boot == boot_id() and start_of(note.pid) == note.start

    def has_survivors(self, note: Note) -> bool:
        """Whether processes of the job run on, after something killed their wrapper alone."""
        if note.pid <= 1 or (has_process_table() and note.boot != boot_id()):
            return False
        leader = _stat(note.pid)
        if leader is not None and leader[19] != note.start:
            return False  # The number was used again, so the job's group was empty.
        return bool(_members(note.pid))

    def signal(self, note: Note, number: signal.Signals) -> None:
        """Send a signal to all processes of the job that were not moved to another group."""
        if self.is_alive(note) or self.has_survivors(note):
            with suppress(ProcessLookupError):
                os.killpg(note.pid, number)

    def is_locked(self) -> bool:
        """Whether a wrapper lives that was, or is about to be, told of the job."""
        try:
            fd = os.open(self.path + "/lock", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            return not _lock(fd, fcntl.LOCK_SH)
        finally:
            os.close(fd)


def _lock(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


# -- the process table ---------------------------------------------------------


@cache
def has_process_table() -> bool:
    """Whether the kernel shows processes as files; elsewhere a wrapper's lock tells whether it lives."""
    return Path("/proc/self/stat").exists()


@cache
def boot_id() -> str:
    """What tells one boot of this machine from the next."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "-"


@cache
def boot_time() -> float:
    """When this machine was started, in seconds since the epoch; 0 where that is not known."""
    with suppress(OSError, StopIteration):
        lines = Path("/proc/stat").read_text().splitlines()
        return float(next(line for line in lines if line.startswith("btime ")).split()[1])
    return 0.0


def start_of(pid: int) -> str | None:
    """Return when a process was started, in ticks since the boot; `None` if there is none, or only its remains."""
    fields = _stat(pid)
    return None if fields is None or fields[0] in "ZX" else fields[19]


def _stat(pid: int | str) -> list[str] | None:
    # After the name, which may hold anything: state, parent, group, session, ... and as the 20th the start.
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return os.read(fd, 4096).decode(errors="replace").rpartition(") ")[2].split()
    except ProcessLookupError:
        return None
    finally:
        os.close(fd)


def _members(group: int) -> list[str]:
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return []
    if not has_process_table():
        return [str(group)]
    stats = ((name, _stat(name)) for name in os.listdir("/proc") if name.isdigit())
    # In the group *and* the session that the wrapper began: an unrelated group would hardly have both numbers.
    return [name for name, f in stats if f and f[2] == f[3] == str(group) and f[0] not in "ZX"]
