"""Runs each attempt of a flow run as one process of this machine.

A job is started by a small POSIX shell script, `process_wrapper.sh`, which takes the job's key for itself before it
runs anything, and writes down how the job ended whether the server still lives or not. `process_jobs` says what is
kept on disk, `process_wrappers` how wrappers are spawned, `process_exits` how the end of a job is learned at once, and
`process_config` what a job may be made of.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import signal
import socket
import time
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final
from uuid import UUID, uuid4

from push_pools.domain.errors import (
    JobRejected,
    PlatformMissing,
    PlatformUnavailable,
    SubmissionUncertain,
)
from push_pools.domain.runs import JobHandle
from push_pools.domain.states import JobStatus, Observation
from push_pools.platforms.process_config import (
    TYPE,
    ProcessJobConfiguration,
    ProcessVariables,
    checked,
    inherited,
    own,
    working_dir,
)
from push_pools.platforms.process_exits import ExitWatcher
from push_pools.platforms.process_jobs import SPARE, Busy, JobDirectory, Note, boot_id
from push_pools.platforms.process_output import PAGE_BYTES, page_of
from push_pools.platforms.process_wrappers import (
    Wrapper,
    WrapperFailed,
    Wrappers,
    WrapperSilent,
    make_directory,
    script_for,
)
from push_pools.ports import LogPage

if TYPE_CHECKING:
    import builtins
    from collections.abc import Callable, Sequence

    from pydantic import JsonValue

    from push_pools.domain.jobs import BaseJobConfiguration, BaseVariables
    from push_pools.ports import Memo, PlatformContext

log = logging.getLogger(__name__)

CALL_SECONDS: Final = 25.0
"""How long a submit takes at most; `Timing.call_seconds` is more."""
ASK_SECONDS: Final = 1.0
"""How long a look-up waits for a job that is just being started."""
LOOK_AGAIN_SECONDS: Final = 0.05
"""How often a job is looked at whose wrapper was killed while its processes run on."""
YOUNG_JOB_SECONDS: Final = 1.0
TERM_AGAIN_SECONDS: Final = (0.1, 0.5, 2.0)
"""When SIGTERM is sent again to a job that was stopped as it was being started."""
HISTORY_DAYS: Final = 90
"""How long after its end a job's directory is kept; the ledger takes no run that old."""
PRUNE_AFTER_SECONDS: Final = 60.0
PRUNE_ENTRIES: Final = 50
"""Most directories looked at in one go."""
_TRIES: Final = 3


class ProcessPlatform:
    """Runs jobs as processes of this machine; they outlive the server, and are found again by the next one."""

    type: ClassVar[str] = TYPE
    description: ClassVar[str] = "Runs each job as a process of the server's machine, for development and small hosts."
    documentation_url: ClassVar[str] = ""
    logo_url: ClassVar[str] = ""
    job_configuration: ClassVar[builtins.type[BaseJobConfiguration]] = ProcessJobConfiguration
    job_configuration_variables: ClassVar[builtins.type[BaseVariables] | None] = ProcessVariables
    observe_batch: ClassVar[int] = 1000
    start_timeout_seconds: ClassVar[float] = 30.0
    key_is_used_up: ClassVar[bool] = False
    forgets_keys: ClassVar[bool] = False
    closes_before_repeat: ClassVar[bool] = False
    needs_cleanup: ClassVar[bool] = False

    def __init__(self, context: PlatformContext, *, use_pidfd: bool | None = None, waiting: int = 1) -> None:
        home = context.settings.get("home")
        if not home:
            raise PlatformMissing(TYPE, "there is no home directory", fix="set PUSH_POOLS_HOME")
        self._clock, self._real_clock = context.clock, context.real_clock
        self._home = Path(home).expanduser().absolute()
        self._jobs = f"{self._home}/jobs"
        self._place = {"host": socket.gethostname(), "home": str(self._home)}
        self._env = inherited(os.environ)
        self._watcher = ExitWatcher() if use_pidfd is None else ExitWatcher(use_pidfd=use_pidfd)
        self._wrappers = Wrappers(self._jobs, self._env, self._watcher, waiting=waiting)
        self._tells: list[Callable[[JobHandle, Observation], None]] = []
        self._followed: set[str] = set()

    # -- starting

    def handle(self, job: BaseJobConfiguration, key: str) -> JobHandle:
        """Return the handle, without a pid, of the job that `submit` would start. Pure."""
        run_id, attempt = job.env.get("PUSH_POOLS_RUN_ID"), job.env.get("PUSH_POOLS_ATTEMPT")
        return JobHandle(
            key=key,
            platform=TYPE,
            place=dict(self._place),
            run_id=UUID(run_id) if run_id else None,
            attempt=int(attempt) if attempt else 1,
        )

    def prepare(self, job: BaseJobConfiguration, memo: Memo) -> BaseJobConfiguration:
        """Return the job with its working directory, which a server started elsewhere would not know."""
        return own(job).model_copy(update={"working_dir": working_dir(own(job))})

    def preview(self, job: BaseJobConfiguration) -> dict[str, JsonValue]:
        """Return the arguments, environment and directory of the process that `submit` would start. Pure."""
        env = {name: value for name, value in {**self._env, **job.env}.items() if value is not None}
        return {"argv": [*(job.command_list() or [])], "env": {**env}, "cwd": working_dir(own(job))}

    def submit(self, job: BaseJobConfiguration, key: str) -> JobHandle:
        """Start the job and return its handle with its pid. The same key never starts a second process.

        Raises:
            JobRejected: There is no command, or no such directory, or a text that no process can be given.
            PlatformUnavailable: Nothing was started; the disk, the process table or the descriptors are full.
            SubmissionUncertain: The wrapper was told, and did not answer in time.
        """
        argv = checked(own(job))
        handle, directory = self.handle(job, key), self._directory(key)
        deadline = time.monotonic() + CALL_SECONDS
        try:
            script = partial(self._script, own(job), argv, directory)
            return self._start_first(directory, handle, script, deadline) or self._start_again(
                directory, handle, script, deadline
            )
        except (Busy, WrapperSilent) as error:
            raise SubmissionUncertain(TYPE, f"the wrapper of {key} did not answer in {CALL_SECONDS:g} s") from error
        except WrapperFailed as error:
            raise _not_started(own(job), str(error)) from error
        except OSError as error:
            raise _unavailable(error) from error

    def _start_first(
        self, directory: JobDirectory, handle: JobHandle, script: Callable[[str], bytes], deadline: float
    ) -> JobHandle | None:
        """Start the job if its key has no directory yet; one rename is all that has to be done on disk."""
        wrapper = self._wrappers.take()
        try:
            is_first = directory.claim(wrapper.directory)
        except OSError:
            wrapper.dismiss()
            raise
        if not is_first:
            self._wrappers.give_back(wrapper)
            return None
        return self._tell(wrapper, directory, handle, script, deadline)

    def _start_again(
        self, directory: JobDirectory, handle: JobHandle, script: Callable[[str], bytes], deadline: float
    ) -> JobHandle:
        """Return the job that was started under the key; if it provably was not, start it."""
        with directory.locked(deadline):
            for _ in range(_TRIES):
                if (note := directory.settled_note(deadline)) is not None:
                    self.follow(handle)
                    return handle.model_copy(update={"pid": note.name})
                wrapper = self._wrappers.take()
                try:
                    directory.adopt(wrapper.directory)
                except OSError:
                    wrapper.dismiss()
                    raise
                if started := self._tell(wrapper, directory, handle, script, deadline):
                    return started
        raise PlatformUnavailable(TYPE, f"{_TRIES} wrappers were killed before they started the job")

    def _tell(
        self,
        wrapper: Wrapper,
        directory: JobDirectory,
        handle: JobHandle,
        script: Callable[[str], bytes],
        deadline: float,
    ) -> JobHandle | None:
        """Tell a wrapper, whose lock is in the job's directory, to start the job; `None` if it was dead before.

        From here on the job may start until the wrapper is gone, even if this process dies on the next line.
        """
        note = Note(wrapper.pid, wrapper.start, boot_id(), time.time())
        started = handle.model_copy(update={"pid": note.name})
        told = script(note.first_line)
        self._followed.add(handle.key)
        wrapper.ended = partial(self._ended, started, directory)
        try:
            wrapper.tell(told, deadline)
        except WrapperFailed as error:
            if found := directory.note():  # It was killed before it could answer, or somebody else was faster.
                return handle.model_copy(update={"pid": found.name})
            if str(error):
                raise
            return None  # Somebody killed it while it waited.
        except OSError as error:
            raise SubmissionUncertain(TYPE, f"the wrapper's answer could not be read: {error}") from error
        self._wrappers.refill_soon()
        return started

    def _script(self, job: ProcessJobConfiguration, argv: Sequence[str], directory: JobDirectory, line: str) -> bytes:
        return script_for(directory.path, working_dir(job), line, self._looked_up(argv, job), job.env)

    def _directory(self, key: str) -> JobDirectory:
        return JobDirectory(f"{self._jobs}/{key}")

    def _looked_up(self, argv: Sequence[str], job: ProcessJobConfiguration) -> Sequence[str]:
        """Return the command with the path of its program, if it is found; the wrapper reports what is not."""
        if "/" in argv[0]:
            return argv
        paths = job.env.get("PATH", self._env.get("PATH")) or ""
        programs = (f"{directory}/{argv[0]}" for directory in paths.split(":") if directory.startswith("/"))
        found = next((path for path in programs if os.access(path, os.X_OK) and not os.path.isdir(path)), argv[0])  # noqa: PTH112
        return [found, *argv[1:]]

    # -- looking

    def find(self, handle: JobHandle) -> JobHandle | None:
        """Return the handle, with its pid, of the job started under this key, or `None` if there is none.

        `None` is a proof: nothing that was told of the key so far can still start it.

        Raises:
            PlatformUnavailable: The job is just being started, or the disk cannot be read.
        """
        note = self._look(handle.key)
        return handle.model_copy(update={"pid": note.name}) if note else None

    def _look(self, key: str) -> Note | None:
        directory = self._directory(key)
        deadline = time.monotonic() + ASK_SECONDS
        try:
            if note := directory.note():
                return note
            with directory.locked(deadline):
                return directory.settled_note(deadline)
        except FileNotFoundError:
            return None
        except Busy as error:
            raise PlatformUnavailable(TYPE, f"{key} is just being started; ask again") from error
        except OSError as error:
            raise _unavailable(error) from error

    def observe(self, handles: Sequence[JobHandle]) -> Sequence[Observation]:
        """Return what is known of each job.

        Raises:
            PlatformUnavailable: The disk cannot be read.
        """
        try:
            return [self._observe(handle) for handle in handles]
        except OSError as error:
            raise _unavailable(error) from error

    def _observe(self, handle: JobHandle) -> Observation:
        directory = self._directory(handle.key)
        note = directory.note()
        if note is None:
            return self._unknown(handle)
        if note.ended is None and not directory.is_alive(note):
            note = directory.note() or note  # It may have ended, and said so, in between.
            if note.ended is None:
                return self._without_wrapper(directory, handle, note)
        return self._seen(handle, note)

    def _unknown(self, handle: JobHandle) -> Observation:
        if handle.pid is None:
            return self._observation(handle, JobStatus.UNKNOWN, reason="nothing was started under this key yet")
        return self._observation(handle, JobStatus.GONE, reason="the job's directory was removed")

    def _without_wrapper(self, directory: JobDirectory, handle: JobHandle, note: Note) -> Observation:
        facts: dict[str, Any] = {"started_at": self._moment(note.began)}
        if directory.has_survivors(note):
            details = {"wrapper": "killed"}
            return self._observation(handle, JobStatus.RUNNING, details=details, **facts)
        if directory.is_stop_marked():
            reason = "killed because it did not end in time when it was asked to stop"
            facts |= {"signal": int(signal.SIGKILL), "stopped": True}
            return self._observation(handle, JobStatus.CANCELLED, reason=reason, **facts)
        same_boot = note.boot == boot_id()
        reason = "its wrapper was killed from outside" if same_boot else "the machine was restarted while it ran"
        facts |= {"codes": ("wrapper-died",), "stopped": False}
        return self._observation(handle, JobStatus.FAILED, reason=reason + "; its exit code is lost", **facts)

    def _seen(self, handle: JobHandle, note: Note) -> Observation:
        if note.ended is None:
            return self._observation(handle, JobStatus.RUNNING, started_at=self._moment(note.began))
        number = _signal_of(note.exit_code)
        status = JobStatus.SUCCEEDED if note.exit_code == 0 else JobStatus.FAILED
        return self._observation(
            handle,
            JobStatus.CANCELLED if note.stopped else status,
            started_at=self._moment(note.began) if note.pid else None,
            ended_at=self._moment(note.ended),
            exit_code=note.exit_code,
            signal=number,
            stopped=note.stopped,
            reason=_reason(note, number),
        )

    def _observation(self, handle: JobHandle, status: JobStatus, **facts: Any) -> Observation:
        return Observation(key=handle.key, status=status, observed_at=self._clock.now(), **facts)

    def _moment(self, epoch: float) -> datetime:
        """Return a time of the machine on the clock that runs are kept by."""
        real = datetime.fromtimestamp(epoch, UTC)
        if self._clock is self._real_clock:
            return real
        return self._clock.now() + (real - self._real_clock.now()) * self._clock.speed

    # -- stopping

    def stop(self, handle: JobHandle, grace_seconds: float) -> None:
        """Send SIGTERM to the job's processes, and SIGKILL when the grace is over. Does not wait for either.

        A repeat sends SIGKILL once the grace since the first stop is over, so a server that was started in between
        goes on with it. A key that was not started is used up, so that it never will be.

        Raises:
            PlatformUnavailable: The job is just being started, or the disk cannot be read or written.
        """
        directory = self._directory(handle.key)
        note = self._look(handle.key)
        try:
            if note is None:
                note = self._refuse_start(directory)
            if note is None or note.ended is not None:
                return
            if directory.is_alive(note) or directory.has_survivors(note):
                self._signal(directory, note, grace_seconds)
        except OSError as error:
            raise _unavailable(error) from error

    def _refuse_start(self, directory: JobDirectory) -> Note | None:
        """Use up a key that nothing was started under; return the note of the job if that came first."""
        refusal = JobDirectory(f"{self._jobs}/{SPARE}{uuid4().hex}")
        make_directory(refusal.path)
        refusal.refuse_start()
        if directory.claim(refusal.path):
            return None
        shutil.rmtree(refusal.path, ignore_errors=True)
        deadline = time.monotonic() + ASK_SECONDS
        try:
            with directory.locked(deadline):
                note = directory.settled_note(deadline)
                if note is None:
                    directory.refuse_start()
                return note
        except Busy as error:
            raise PlatformUnavailable(TYPE, "the job is just being started; ask again") from error

    def _signal(self, directory: JobDirectory, note: Note, grace_seconds: float) -> None:
        # The mark before the signal, so that whoever sees the end knows whose doing it was.
        left = directory.mark_stop() + grace_seconds - time.time()
        if left <= 0:
            return directory.signal(note, signal.SIGKILL)
        directory.signal(note, signal.SIGTERM)
        # Between the fork and the exec of the job's program a signal reaches only the shell's own trap, and is lost.
        is_young = time.time() - note.began < YOUNG_JOB_SECONDS
        for seconds in (each for each in TERM_AGAIN_SECONDS if is_young and each < left):
            self._watcher.after(seconds, partial(self._signal_again, directory, signal.SIGTERM))
        return self._watcher.after(left, partial(self._signal_again, directory, signal.SIGKILL))

    def _signal_again(self, directory: JobDirectory, number: signal.Signals) -> None:
        note = directory.note()
        if note is not None and note.ended is None:
            directory.signal(note, number)

    def cleanup(self, handle: JobHandle) -> None:
        """Do nothing: what a job leaves is its log, and the note that its key is used."""

    # -- output

    def logs(self, handle: JobHandle, cursor: str | None) -> LogPage:
        """Return the next lines of what the job wrote. A last line without an end waits for it while the job runs.

        Raises:
            PlatformUnavailable: The disk cannot be read.
        """
        is_over = self.observe([handle])[0].is_over  # First, or what is written in between would be missed.
        offset = int(cursor) if cursor else 0
        try:
            with Path(self._jobs, handle.key, "output").open("rb") as file:
                file.seek(offset)
                data = file.read(PAGE_BYTES + 1)
        except FileNotFoundError:
            return LogPage((), cursor, is_last=is_over)
        except OSError as error:
            raise _unavailable(error) from error
        return page_of(data, offset, is_over=is_over)

    # -- telling of ends

    def on_over(self, tell: Callable[[JobHandle, Observation], None]) -> None:
        """Call `tell`, in a thread of the platform, for every job that ends from now on.

        It may be called before `submit` has returned: the handle has the pid.
        """
        self._tells.append(tell)
        self._wrappers.refill_soon()
        with suppress(OSError):
            if len(self._tells) == 1:
                self._watcher.after(PRUNE_AFTER_SECONDS, self._prune)

    def expect(self, jobs: int) -> None:
        """Have shells waiting for jobs that are about to be started."""
        self._wrappers.expect(jobs)

    def follow(self, handle: JobHandle) -> None:
        """Also tell of this job, which an earlier process started; at once if it is over. Repeatable."""
        directory = self._directory(handle.key)
        if handle.key in self._followed:
            return
        with suppress(OSError):  # Only a hint: sweeps see it too.
            if (note := directory.note()) is None:
                return
            self._followed.add(handle.key)
            ended = partial(self._ended, handle.model_copy(update={"pid": note.name}), directory)
            if directory.is_alive(note):
                self._watcher.watch(note.pid, partial(directory.is_alive, note), ended)
            else:
                self._watcher.after(0, ended)

    def close(self) -> None:
        """Stop telling; jobs go on. Children that end later are left to the system."""
        self._watcher.close()
        self._wrappers.close()

    def _ended(self, handle: JobHandle, directory: JobDirectory) -> None:
        self._followed.discard(handle.key)
        if (note := directory.note()) is None:
            return  # A wrapper that failed to start the job.
        seen = self._observe(handle) if note.ended is None else self._seen(handle, note)
        if seen.is_over:
            self._tell_all(handle, seen)
        else:  # Its wrapper was killed, and nobody announces the end of the others.
            self._followed.add(handle.key)
            self._watcher.after(LOOK_AGAIN_SECONDS, partial(self._ended, handle, directory))

    def _tell_all(self, handle: JobHandle, seen: Observation) -> None:
        for tell in self._tells:
            try:
                tell(handle, seen)
            except Exception:  # A hint; and others wait for theirs.
                log.exception("job_over_failed", extra={"job_key": handle.key})
        self._wrappers.refill()

    # -- keeping house

    def _prune(self, keys: Sequence[str] | None = None) -> None:
        """Remove the directories of jobs that are long over: some now, the rest later, then again the next day."""
        oldest = time.time() - HISTORY_DAYS * 86400
        with suppress(OSError):
            if keys is None:
                self._wrappers.clear()
                keys = os.listdir(self._jobs)  # noqa: PTH208
            for key in keys[:PRUNE_ENTRIES]:
                note = self._directory(key).note()
                if note is not None and (note.ended or note.began) < oldest and not self._runs(key):
                    shutil.rmtree(f"{self._jobs}/{key}", ignore_errors=True)
            if more := keys[PRUNE_ENTRIES:]:
                return self._watcher.after(0.2, partial(self._prune, more))
        return self._watcher.after(86400.0, self._prune)

    def _runs(self, key: str) -> bool:
        return not self._observe(JobHandle(key=key, platform=TYPE)).is_over


# -- texts ---------------------------------------------------------------------


def _not_started(job: ProcessJobConfiguration, why: str) -> JobRejected | PlatformUnavailable:
    if "no-working-dir" in why:
        reason = f"{working_dir(job)} is no directory that can be entered; create it, or correct it"
        return JobRejected(TYPE, reason, variable="working_dir")
    return PlatformUnavailable(TYPE, f"the wrapper could not start the job: {why}")


_FIXES: Final = {
    errno.ENOSPC: "free some disk space",
    errno.EDQUOT: "free some of the disk quota",
    errno.EROFS: "make the home directory writable",
    errno.EACCES: "make the home directory writable for this user",
    errno.EPERM: "make the home directory writable for this user",
    errno.EAGAIN: "raise the limit on processes, or limit the pool's concurrency",
    errno.ENOMEM: "free some memory, or limit the pool's concurrency",
    errno.EMFILE: "raise the limit on open files (ulimit -n), or limit the pool's concurrency",
    errno.ENFILE: "raise the system's limit on open files",
}


def _unavailable(error: OSError) -> PlatformUnavailable:
    where = f": {error.filename}" if error.filename else ""
    fix = _FIXES.get(error.errno or 0, "look at the home directory, and at the limits of this user")
    code = errno.errorcode.get(error.errno or 0, "OSError")
    return PlatformUnavailable(TYPE, f"{error.strerror or error}{where}; {fix}", codes=[code])


def _signal_of(exit_code: int | None) -> int | None:
    """Return the signal that a shell's exit code stands for: it says 128 + n of a program that signal n ended."""
    number = (exit_code or 0) - 128
    return number if 0 < number < 32 else None


def _reason(note: Note, number: int | None) -> str:
    if not note.pid:
        return "stopped before it was started"
    how = f"ended by {_signal_name(number)}" if number else f"ended with exit code {note.exit_code}"
    if note.stopped:
        return f"stopped; {how}"
    known = {126: "the command cannot be run: not executable", 127: "the command, or one it calls, was not found"}
    return known.get(note.exit_code or 0, how if note.exit_code else "")


def _signal_name(number: int) -> str:
    with suppress(ValueError):
        return f"signal {number} ({signal.Signals(number).name})"
    return f"signal {number}"
