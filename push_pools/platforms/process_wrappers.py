"""The shells that start local jobs: spawned ahead of time, told later which job to start.

Most of the time that a local job costs is the start of programs: a shell, then the job's. So a wrapper is kept
waiting, and more when more jobs are expected; a job then costs little more than its own program. Without one
waiting, it is spawned on the spot.
"""

# Plain strings for paths, as in `process_jobs`.
# ruff: noqa: PTH102, PTH116, PTH208

from __future__ import annotations

import fcntl
import os
import re
import select
import shlex
import shutil
import signal
import threading
import time
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from push_pools.platforms.process_jobs import SPARE, JobDirectory, has_process_table, start_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from push_pools.platforms.process_exits import ExitWatcher

SHELL = shutil.which("sh", path="/bin:/usr/bin") or "/bin/sh"
ENV_PROGRAM = "/usr/bin/env"
REFILL_SECONDS = 0.005
"""How long after a job was started the next wrapper is spawned, so that it does not compete with the job's start."""

MOST_WAITING = 64
"""How many wrappers are kept waiting at most, however many jobs are expected."""

YOUNG_SECONDS = 60.0
"""How old the directory of a wrapper that waits for nobody is when it is removed."""

_SHELL_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SHELL_OWN = re.compile(
    r"__pp_.*|BASH.*|DIRSTACK|ENV|EUID|FUNCNAME|FUNCNEST|GROUPS|HIST.*|IFS|LINENO|MAIL.*|OLDPWD|OPT.*|"
    r"POSIXLY_CORRECT|PPID|PS[0-4]|PWD|RANDOM|SECONDS|SHELLOPTS|SHLVL|UID|_"
)
"""Names that mean something to a shell, or are read-only in one; `env` sets them for the job alone."""

_ALL_SIGNALS = sorted(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})


def _prelude() -> bytes:
    text = (files(__package__) / "process_wrapper.sh").read_text()
    return "".join(line + "\n" for line in text.splitlines() if not line.lstrip().startswith("#")).encode()


class WrapperFailed(Exception):
    """A wrapper ended before it started the job, and said why, if it could."""


class WrapperSilent(Exception):
    """A wrapper did not answer in time; it may still start the job."""


class Wrapper:
    """One shell, in a session of its own, that starts at most one job."""

    def __init__(self, jobs: str, env: Mapping[str, str], prelude: bytes, strangers: Sequence[int]) -> None:
        self.directory = f"{jobs}/{SPARE}{uuid4().hex}"
        """Holds its lock; it becomes the directory of its job."""
        self.ended: Callable[[], None] | None = None
        """What to do when it is over, once it was told of a job."""
        self._script = self._answer = -1
        fds: list[int] = []
        try:
            self._spawn(fds, env, strangers)
            self._send(prelude, time.monotonic() + 1)
        except BaseException:
            self.dismiss()
            raise
        finally:
            for fd in fds:
                os.close(fd)
        self.start = start_of(self.pid) or ("gone" if has_process_table() else uuid4().hex)

    def _spawn(self, fds: list[int], env: Mapping[str, str], strangers: Sequence[int]) -> None:
        make_directory(self.directory)
        lock = _open(fds, os.open(self.directory + "/lock", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Here and not by the wrapper, so that as little as possible is left to do when there is a job.
        os.close(os.open(self.directory + "/output", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        script, self._script = os.pipe()
        script = _open(fds, script)
        self._answer, answer = os.pipe()
        answer = _open(fds, answer)
        os.set_blocking(self._script, False)
        actions: list[tuple[int, ...]] = [
            (os.POSIX_SPAWN_DUP2, old, new) for old, new in ((script, 0), (answer, 1), (answer, 2), (lock, 3))
        ]
        actions += [(os.POSIX_SPAWN_CLOSE, fd) for fd in strangers]
        # No fork of this process, which has threads and may be large. Ignored and blocked signals are inherited:
        # without the last two the job would not die of a broken pipe, which Python ignores.
        self.pid = os.posix_spawn(
            SHELL, ["sh", "-s", "push-pools-job"], env, file_actions=actions, setsid=True, setsigmask=(),
            setsigdef=_ALL_SIGNALS,
        )  # fmt: skip

    def tell(self, script: bytes, deadline: float) -> None:
        """Have it start a job; return once the key is used.

        Raises:
            WrapperFailed: It ended first.
            WrapperSilent: It did not answer until the deadline (monotonic).
        """
        try:
            self._send(script, deadline)
            self._close_script()
            self._await(deadline)
        finally:
            self._close_answer()

    def is_alive(self) -> bool:
        """Whether the process is there; until it is reaped, its number is not used again."""
        if has_process_table():
            return start_of(self.pid) == self.start
        with suppress(ProcessLookupError):
            os.kill(self.pid, 0)
            return True
        return False

    def dismiss(self) -> None:
        """Let a wrapper end that was told nothing, and remove its directory if it still has one."""
        self._close_script()
        self._close_answer()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _send(self, script: bytes, deadline: float) -> None:
        while script:
            try:
                script = script[os.write(self._script, script) :]
            except BlockingIOError:
                if not _ready(self._script, select.POLLOUT, deadline):
                    raise WrapperSilent("the wrapper does not read") from None
            except BrokenPipeError:
                return  # It is gone, and its answer says so.

    def _await(self, deadline: float) -> None:
        answer = b""
        while not answer.endswith(b"ok\n"):
            if not _ready(self._answer, select.POLLIN, deadline):
                raise WrapperSilent("the wrapper does not answer")
            if not (more := os.read(self._answer, 4096)):
                raise WrapperFailed(answer.decode(errors="replace").strip())
            answer += more

    def _close_script(self) -> None:
        if self._script >= 0:
            os.close(self._script)
            self._script = -1

    def _close_answer(self) -> None:
        if self._answer >= 0:
            os.close(self._answer)
            self._answer = -1


def make_directory(directory: str) -> None:
    """Make a directory among the jobs', and theirs if there is none yet."""
    try:
        os.mkdir(directory, 0o700)
    except FileNotFoundError:
        Path(directory).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.mkdir(directory, 0o700)


def _open(fds: list[int], fd: int) -> int:
    """Return the descriptor, or a copy of it that is out of the way of the wrapper's own four; it is closed later."""
    if fd < 4:
        fd, low = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 4), fd
        os.close(low)
    fds.append(fd)
    return fd


def _inheritable() -> list[int]:
    """Return the descriptors that this process got from its parent, and would pass on to jobs that outlive both."""
    found = []
    for name in os.listdir("/dev/fd"):
        with suppress(OSError):
            if int(name) > 3 and os.get_inheritable(int(name)):
                found.append(int(name))
    return found


def _ready(fd: int, event: int, deadline: float) -> bool:
    poll = select.poll()
    poll.register(fd, event)
    return bool(poll.poll(max(0.0, deadline - time.monotonic()) * 1000))


class Wrappers:
    """Keeps a wrapper waiting, and hands it out."""

    def __init__(self, jobs: str, env: Mapping[str, str], watcher: ExitWatcher, *, waiting: int = 1) -> None:
        self._jobs, self._env, self._watcher = jobs, env, watcher
        self._usually = self._wanted = waiting
        self._prelude, self._strangers = _prelude(), _inheritable()
        self._lock = threading.Lock()
        self._waiting: list[Wrapper] = []
        self._is_closed = False

    def take(self) -> Wrapper:
        """Return a wrapper that was told nothing yet.

        Raises:
            OSError: There is none, and none can be spawned.
        """
        with self._lock:
            if self._waiting:
                return self._waiting.pop()
        return self._spawn()

    def give_back(self, wrapper: Wrapper) -> None:
        """Take back a wrapper that was told nothing."""
        with self._lock:
            self._waiting.append(wrapper)

    def refill(self) -> None:
        """Spawn what is missing; best done when nothing else is to be done. What fails here, a submit reports."""
        with suppress(OSError, WrapperSilent):
            while not self._is_closed and len(self._waiting) < self._wanted:
                self.give_back(self._spawn())

    def refill_soon(self) -> None:
        """Have the watcher's thread spawn what is missing, shortly."""
        with suppress(OSError):  # Only for speed.
            if self._wanted:
                self._watcher.after(REFILL_SECONDS, self.refill)

    def expect(self, jobs: int) -> None:
        """Keep as many wrappers waiting as jobs are expected, and let others go that are not needed any more."""
        with self._lock:
            self._wanted = max(self._usually, min(jobs, MOST_WAITING)) if self._usually else 0
            missing = self._wanted - len(self._waiting)
            spare, self._waiting = self._waiting[self._wanted :], self._waiting[: self._wanted]
        for wrapper in spare:
            wrapper.dismiss()
        if missing > 0:
            with suppress(OSError):  # Only for speed.
                self._watcher.after(0.0, self._prepare)

    def _prepare(self) -> None:
        """Spawn one of those that are missing, then let the watcher see to others before the next."""
        with suppress(OSError, WrapperSilent):
            if not self._is_closed and len(self._waiting) < self._wanted:
                self.give_back(self._spawn())
                self._watcher.after(0.0, self._prepare)

    def close(self) -> None:
        """Let the waiting wrappers end. To be called when the watcher has ended."""
        with self._lock:
            self._is_closed, waiting = True, self._waiting
            self._waiting = []
        for wrapper in waiting:
            wrapper.dismiss()
            with suppress(ProcessLookupError, ChildProcessError):
                os.kill(wrapper.pid, signal.SIGKILL)
                os.waitpid(wrapper.pid, 0)

    def _spawn(self) -> Wrapper:
        wrapper = Wrapper(self._jobs, self._env, self._prelude, self._strangers)
        # Watched from its birth, which costs no time when there is a job.
        self._watcher.watch(wrapper.pid, wrapper.is_alive, lambda: self._ended(wrapper))
        return wrapper

    def _ended(self, wrapper: Wrapper) -> None:
        if wrapper.ended is not None:
            return wrapper.ended()
        with self._lock:
            was_waiting = wrapper in self._waiting
            if was_waiting:
                self._waiting.remove(wrapper)
        if was_waiting:
            wrapper.dismiss()
        return None

    def clear(self) -> None:
        """Remove the directories of wrappers that waited for a server that is gone."""
        with suppress(OSError):
            for name in os.listdir(self._jobs):
                path = f"{self._jobs}/{name}"
                is_young = os.stat(path).st_mtime > time.time() - YOUNG_SECONDS  # Somebody may be about to lock it.
                if name.startswith(SPARE) and not is_young and not JobDirectory(path).is_locked():
                    shutil.rmtree(path, ignore_errors=True)


# -- what a wrapper is told ----------------------------------------------------


def script_for(directory: str, cwd: str, identity: str, argv: Sequence[str], env: Mapping[str, str | None]) -> bytes:
    """Return the lines that have a wrapper start a job."""
    by_shell = {name: value for name, value in env.items() if _is_plain(name)}
    lines = [f"unset {n}" if v is None else f"export {n}={shlex.quote(v)}" for n, v in by_shell.items()]
    if len(by_shell) < len(env):
        others = [(name, value) for name, value in env.items() if name not in by_shell]
        unset = [word for name, value in others if value is None for word in ("-u", name)]
        argv = [ENV_PROGRAM, *unset, *(f"{name}={value}" for name, value in others if value is not None), *argv]
    call = shlex.join(["__pp_job", directory, cwd, identity, *argv])
    return os.fsencode("\n".join(["{", *lines, call, "}", ""]))


def _is_plain(name: str) -> bool:
    return _SHELL_NAME.fullmatch(name) is not None and _SHELL_OWN.fullmatch(name) is None
