"""Local jobs: started once whatever dies, seen to end at once, stopped for certain, and never told a secret."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import random
import signal
import stat
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from push_pools.clocks import MovableClock, SystemClock
from push_pools.domain.errors import (
    InvalidJobVariables,
    JobRejected,
    PlatformMissing,
    PlatformUnavailable,
    SubmissionUncertain,
)
from push_pools.domain.failures import explain_observation
from push_pools.domain.jobs import FlowRunInfo, default_base_job_template
from push_pools.domain.runs import JobHandle, job_key
from push_pools.domain.secrets import SecretRef
from push_pools.domain.states import FailureClass, JobStatus, Observation
from push_pools.platforms import process as process_module
from push_pools.platforms import process_wrappers
from push_pools.platforms.process import ProcessPlatform
from push_pools.platforms.process_config import ProcessJobConfiguration, ProcessVariables
from push_pools.platforms.process_exits import ExitWatcher
from push_pools.platforms.process_jobs import LOST, NOT_STARTED, JobDirectory, Note, boot_id, start_of
from push_pools.platforms.process_wrappers import Wrapper, WrapperFailed, Wrappers, script_for
from push_pools.ports import PlatformContext, TellsOfEndings
from push_pools.testing.contracts.platforms import NoteBook

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads the process table as files")

DEADLINE_SECONDS = 20.0


def eventually(check: Callable[[], Any], what: str = "") -> Any:
    """Return the first truth that `check` tells, or fail."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < deadline:
        if result := check():
            return result
        time.sleep(0.002)
    raise AssertionError(f"not within {DEADLINE_SECONDS:g} s: {what or check}")


def a_key() -> str:
    return job_key(uuid4(), 1, 1)


def sh(script: str, **fields: Any) -> ProcessJobConfiguration:
    return ProcessJobConfiguration(command=["sh", "-c", script], **fields)


def context_of(home: Path, clock: Any = None) -> PlatformContext:
    real = SystemClock()
    return PlatformContext(lambda _: None, {"home": str(home)}, clock or real, real)


class World:
    """One home, the platforms that were opened on it, and what they told."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.opened: list[ProcessPlatform] = []
        self.told: list[tuple[JobHandle, Observation, float]] = []

    def open(self, **options: Any) -> ProcessPlatform:
        platform = ProcessPlatform(context_of(self.home), **options)
        platform.on_over(lambda handle, seen: self.told.append((handle, seen, time.time())))
        self.opened.append(platform)
        return platform

    def place(self, key: str) -> Path:
        return self.home / "jobs" / key

    def note(self, key: str) -> Note:
        note = JobDirectory(str(self.place(key))).note()
        assert note is not None
        return note

    def over(self, platform: ProcessPlatform, handle: JobHandle) -> Observation:
        def look() -> Observation | None:
            (seen,) = platform.observe([handle])
            return seen if seen.is_over else None

        seen: Observation = eventually(look, f"{handle.key} over")
        return seen

    def run(self, platform: ProcessPlatform, job: ProcessJobConfiguration) -> Observation:
        return self.over(platform, platform.submit(job, a_key()))

    def output(self, platform: ProcessPlatform, job: ProcessJobConfiguration) -> tuple[str, ...]:
        handle = platform.submit(job, a_key())
        self.over(platform, handle)
        page = platform.logs(handle, None)
        assert page.is_last
        return page.lines

    def kill_all(self) -> None:
        for started in self.home.glob("jobs/*/started"):
            directory = JobDirectory(str(started.parent))
            if (note := directory.note()) is not None:
                directory.signal(note, signal.SIGKILL)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Return a home of its own; afterwards no process, thread or descriptor is left."""
    before = open_files()
    world = World(tmp_path / "home")
    yield world
    world.kill_all()
    for platform in world.opened:
        platform.close()
    eventually(lambda: not processes_of(world.home), f"processes of {world.home} gone")
    assert not [t for t in threading.enumerate() if t.name == "push-pools-process-exits"]
    assert open_files() == before


@pytest.fixture
def platform(world: World) -> ProcessPlatform:
    return world.open()


def open_files() -> list[str]:
    """Return what this process holds open that has to do with processes and pipes."""
    links = []
    for fd in Path("/proc/self/fd").glob("*"):
        with contextlib.suppress(OSError):
            links.append(str(fd.readlink()))
    return sorted(link.partition(":")[0] for link in links if link.startswith(("pipe:", "anon_inode:[pid", "/tmp")))


def processes_of(home: Path) -> list[str]:
    """Return the living processes that hold a file of this home open."""
    found = []
    for proc in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if proc.name != str(os.getpid()) and any(str(home) in str(fd.readlink()) for fd in (proc / "fd").iterdir()):
                found.append(proc.name)
    return found


def is_alive(pid: int) -> bool:
    return start_of(pid) is not None


def is_over(wrapper: Wrapper) -> bool:
    return not wrapper.is_alive()


def server(home: Path, code: str, *words: str) -> subprocess.Popen[str]:
    """Start a process that has `platform` and `sh` and runs this code."""
    prelude = (
        "import sys, os, time\n"
        "from pathlib import Path\n"
        "from tests.platforms.test_process import ProcessPlatform, context_of, sh, a_key\n"
        f"platform = ProcessPlatform(context_of(Path({str(home)!r})))\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", prelude + code, *words], stdout=subprocess.PIPE, text=True, cwd=Path.cwd()
    )


@contextlib.contextmanager
def killed_at_the_end(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    with process:
        try:
            yield process
        finally:
            process.kill()


# -- what a job is given -------------------------------------------------------


def test_the_servers_secrets_stay_with_the_server(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job gets a few harmless names of the server's environment, and its own."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary")
    monkeypatch.setenv("PUSH_POOLS_CANARY", "canary")
    monkeypatch.setenv("LC_TIME", "C")
    lines = world.output(world.open(), sh("env", env={"MINE": "yes"}))
    names = {line.partition("=")[0] for line in lines}
    assert not [line for line in lines if "canary" in line]
    assert {"PATH", "LC_TIME", "MINE"} <= names
    assert names <= {
        "PATH",
        "HOME",
        "LANG",
        "TZ",
        "USER",
        "TMPDIR",
        "SHELL",
        "LC_TIME",
        "LC_ALL",
        "LC_CTYPE",
        "MINE",
    } | {
        "PWD",
        "SHLVL",
        "_",
    }


def test_null_unsets_what_the_server_would_pass_on(world: World, platform: ProcessPlatform) -> None:
    """After the service has prepared the job, too; its own names win."""
    job = sh("env", env={"HOME": None, "PUSH_POOLS_ATTEMPT": "9"})
    job.prepare_for_flow_run(a_flow_run())
    lines = world.output(platform, job)
    assert not [line for line in lines if line.startswith("HOME=")]
    assert "PUSH_POOLS_ATTEMPT=1" in lines
    assert "HOME" not in dict(platform.preview(job)["env"])  # type: ignore[arg-type]


def a_flow_run() -> FlowRunInfo:
    return FlowRunInfo.model_validate(
        {"id": uuid4(), "name": "run", "attempt": 1, "scheduled_time": "2027-01-01T00:00:00Z"}
    )


NASTY = "a'b\"c\\n$HOME `id` \n}\n{ ünï 𝄞 -n"


def test_texts_arrive_as_they_were_written(world: World, platform: ProcessPlatform) -> None:
    """Quotes, newlines, dollars, backslashes and other alphabets, in arguments and in the environment."""
    script = (
        "import json, os, sys; print(json.dumps([sys.argv[1:], os.environ['A_1'], os.environ['a.b'], os.getcwd()]))"
    )
    cwd = world.home / "it's $HOME"
    cwd.mkdir(parents=True)
    job = ProcessJobConfiguration(
        command=[sys.executable, "-c", script, NASTY, "", "-e"], env={"A_1": NASTY, "a.b": NASTY}, working_dir=str(cwd)
    )
    (line,) = world.output(platform, job)
    assert json.loads(line) == [[NASTY, "", "-e"], NASTY, NASTY, str(cwd)]


def test_names_that_a_shell_keeps_for_itself_reach_the_job(world: World, platform: ProcessPlatform) -> None:
    """Some are read-only in a shell, or would change what the wrapper does."""
    names = ("IFS", "OPTIND", "PPID", "UID", "PS1", "ENV", "__pp_dir", "BASH_ENV", "a-b")
    env: dict[str, str | None] = dict.fromkeys(names, "x")
    script = "import json, os; print(json.dumps(dict(os.environ)))"
    (line,) = world.output(platform, ProcessJobConfiguration(command=[sys.executable, "-c", script], env=env))
    assert json.loads(line).items() >= env.items()


def test_a_large_environment_fits(world: World, platform: ProcessPlatform) -> None:
    """Far more than a pipe holds at once."""
    env: dict[str, str | None] = {f"BIG_{n}": str(n) * 120_000 for n in range(3)}
    assert world.output(platform, sh('echo "${#BIG_0} ${#BIG_1} ${#BIG_2}"', env=env)) == ("120000 120000 120000",)


def test_a_job_is_an_ordinary_process(world: World, platform: ProcessPlatform) -> None:
    """No input, no descriptors of ours or of the server's parent, default signals, the server's umask."""
    script = "cat; umask; for n in 3 4 5 6 7 8 9 10 11 12 13 14; do [ -e /proc/$$/fd/$n ] && echo open $n; done; "
    script += "grep -E 'Sig(Blk|Ign)' /proc/self/status"
    umask, leak = os.umask(0o027), os.open("/dev/null", os.O_RDONLY)
    try:
        os.set_inheritable(leak, True)
        lines = world.output(world.open(waiting=0), sh(script))
    finally:
        os.close(leak)
        os.umask(umask)
    assert lines[0].endswith("27")
    # glibc ignores two signals of its own (32 and 33) in what it spawns.
    assert [int(line.split()[1], 16) & 0x7FFF_FFFF for line in lines[1:]] == [0, 0]
    assert world.run(platform, sh("kill -PIPE $$; exit 0")).signal == signal.SIGPIPE


def test_what_is_kept_is_for_the_owner(world: World, platform: ProcessPlatform) -> None:
    """Output may hold anything."""
    handle = platform.submit(sh("echo secret"), a_key())
    world.over(platform, handle)
    place = world.place(handle.key)
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert stat.S_IMODE(place.parent.stat().st_mode) == 0o700
    assert {stat.S_IMODE((place / name).stat().st_mode) for name in ("output", "started", "lock")} == {0o600}


# -- what is refused -----------------------------------------------------------


def test_a_job_needs_a_command(platform: ProcessPlatform) -> None:
    """Said when it is prepared, and when it is submitted."""
    job = ProcessJobConfiguration()
    with pytest.raises(InvalidJobVariables, match="a process job needs a command"):
        job.prepare_for_flow_run(a_flow_run())
    with pytest.raises(JobRejected, match="a process job needs a command") as refused:
        platform.submit(job, a_key())
    assert refused.value.variable == "command"


@pytest.mark.parametrize(
    ("job", "variable"),
    [
        (ProcessJobConfiguration(command="sh -c 'open"), "command"),
        (sh("a\0b"), "command"),
        (sh("\ud800"), "command"),
        (sh("x" * 200_000), "command"),
        (sh("true", env={"": "x"}), "env"),
        (sh("true", env={"a=b": "x"}), "env"),
        (sh("true", env={"A": "x" * 200_000}), "env.A"),
        (sh("true", env={"A": "\0"}), "env.A"),
        (sh("true", working_dir="/nowhere/at/all"), "working_dir"),
        (sh("true", working_dir="/etc/hostname"), "working_dir"),
        (sh("true", working_dir="/\0"), "working_dir"),
    ],
)
def test_what_no_process_can_be_given_is_refused(
    world: World, platform: ProcessPlatform, job: ProcessJobConfiguration, variable: str
) -> None:
    """By name, with nothing started and the key unused."""
    key = a_key()
    with pytest.raises(JobRejected) as refused:
        platform.submit(job, key)
    assert refused.value.variable == variable
    assert platform.find(platform.handle(job, key)) is None
    assert world.over(platform, platform.submit(sh("true"), key)).status is JobStatus.SUCCEEDED


def test_a_secret_is_never_a_variable_of_a_local_job() -> None:
    """Other users see processes; the base class refuses it."""
    template = default_base_job_template(ProcessJobConfiguration, ProcessVariables)
    with pytest.raises(InvalidJobVariables, match="secret"):
        ProcessJobConfiguration.from_template_and_values(
            template, {"env": {"A": "{{ blocks.secret.x }}"}}, load_block=lambda *_: {"value": SecretRef("1", "value")}
        )


def test_without_a_home_there_is_no_platform() -> None:
    """As in a function, which has no disk of its own."""
    clock = SystemClock()
    with pytest.raises(PlatformMissing, match="PUSH_POOLS_HOME"):
        ProcessPlatform(PlatformContext(lambda _: None, {}, clock, clock))


@pytest.mark.parametrize(
    "command", [["exit", "3"], ["cd", "/"], [":"], ["__pp_job"], ["eval", "true"], ["no-such"], ["/no/such"]]
)
def test_a_command_is_a_program_and_nothing_else(world: World, platform: ProcessPlatform, command: list[str]) -> None:
    """Never a command to the wrapper's shell; what is not found ends with 127, as everywhere."""
    seen = world.run(platform, ProcessJobConfiguration(command=command))
    assert (seen.status, seen.exit_code, seen.signal) == (JobStatus.FAILED, 127, None)
    assert "not found" in seen.reason
    assert explain_observation("process", seen).failure_class is FailureClass.EXIT


def test_what_is_not_executable_ends_with_126(world: World, platform: ProcessPlatform, tmp_path: Path) -> None:
    """With the reason."""
    (tmp_path / "file").write_text("#!/bin/sh\n")
    seen = world.run(platform, ProcessJobConfiguration(command=[str(tmp_path / "file")]))
    assert (seen.exit_code, "not executable" in seen.reason) == (126, True)


def test_the_program_is_looked_up_on_the_jobs_path(world: World, platform: ProcessPlatform, tmp_path: Path) -> None:
    """Not on the server's."""
    program = tmp_path / "sh"
    program.write_text("#!/bin/sh\necho mine\n")
    program.chmod(0o755)
    assert world.output(platform, sh("true", env={"PATH": f"{tmp_path}:/usr/bin:/bin"})) == ("mine",)


def test_the_working_directory_is_fixed_when_the_job_is_prepared(
    world: World, platform: ProcessPlatform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that is started again from elsewhere runs it in the same place."""
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path)
    jobs = [platform.prepare(sh("pwd -P", working_dir=at), NoteBook()) for at in (None, "sub")]
    monkeypatch.chdir("/")
    assert [world.output(platform, job) for job in jobs if isinstance(job, ProcessJobConfiguration)] == [
        (str(tmp_path),),
        (str(tmp_path / "sub"),),
    ]


# -- a machine in trouble ------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "fix"),
    [
        (BlockingIOError(11, "Resource temporarily unavailable"), "limit on processes"),
        (OSError(24, "Too many open files"), "ulimit"),
        (OSError(12, "Cannot allocate memory"), "memory"),
    ],
)
def test_no_process_can_be_spawned(world: World, monkeypatch: pytest.MonkeyPatch, error: OSError, fix: str) -> None:
    """It is for now, surely without effect, and says what to do."""
    platform, key = world.open(waiting=0), a_key()

    def refuse(*_: Any, **__: Any) -> int:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_spawn", refuse)
        with pytest.raises(PlatformUnavailable, match=fix):
            platform.submit(sh("true"), key)
    assert not list((world.home / "jobs").glob(".w-*"))
    assert world.over(platform, platform.submit(sh("true"), key)).status is JobStatus.SUCCEEDED


def test_the_disk_is_full(world: World, platform: ProcessPlatform, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the job's directory is made."""

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device", "/x")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", full)
        with pytest.raises(PlatformUnavailable, match="free some disk space") as refused:
            platform.submit(sh("true"), a_key())
    assert refused.value.codes == ("ENOSPC",)


def test_the_wrapper_cannot_write(world: World, platform: ProcessPlatform) -> None:
    """Before the key is used: what it says is passed on, and the same key works later."""
    key = a_key()
    (world.place(key) / "output").mkdir(parents=True)
    with pytest.raises(PlatformUnavailable, match=r"could not start the job: .*output"):
        platform.submit(sh("true"), key)
    (world.place(key) / "output").rmdir()
    assert world.over(platform, platform.submit(sh("true"), key)).status is JobStatus.SUCCEEDED


def test_a_wrapper_that_does_not_answer_is_uncertain(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may still start the job: so nobody else may, and nobody may say that it did not."""
    platform, key = world.open(), a_key()
    monkeypatch.setattr(process_module, "CALL_SECONDS", 0.3)
    monkeypatch.setattr(process_module, "ASK_SECONDS", 0.05)
    (wrapper,) = eventually(lambda: list(platform._wrappers._waiting))
    os.kill(wrapper.pid, signal.SIGSTOP)
    job = sh("echo x >>$MARK", env={"MARK": str(world.home / "mark")})
    asked = platform.handle(job, key)
    with pytest.raises(SubmissionUncertain):
        platform.submit(job, key)
    second = world.open()
    for each in (platform, second):
        with pytest.raises(PlatformUnavailable, match="just being started"):
            each.find(asked)
        with pytest.raises(PlatformUnavailable, match="just being started"):
            each.stop(asked, 1)
    with pytest.raises(SubmissionUncertain):
        second.submit(job, key)
    os.kill(wrapper.pid, signal.SIGCONT)
    handle = eventually(lambda: found(second, asked))
    assert world.over(second, handle).status is JobStatus.SUCCEEDED
    assert (world.home / "mark").read_text() == "x\n"
    assert eventually(lambda: world.told)[0][0].key == key


def test_wrappers_wait_for_jobs_that_are_expected(world: World) -> None:
    """As many as jobs are expected, up to a limit; they end when the jobs do not come."""
    platform = world.open()
    wrappers = platform._wrappers
    platform.expect(3)
    waiting = eventually(lambda: list(wrappers._waiting) if len(wrappers._waiting) == 3 else [])
    handle = platform.submit(sh("true"), a_key())
    assert world.over(platform, handle).status is JobStatus.SUCCEEDED

    def spares() -> int:
        platform.expect(0)  # As the server does again and again: one may just have been spawned.
        return sum(path.name.startswith(".w-") for path in (world.home / "jobs").iterdir())

    eventually(lambda: spares() == 1 and len(wrappers._waiting) == 1)
    eventually(lambda: sum(wrapper.is_alive() for wrapper in waiting) <= 1)


def test_no_more_wrappers_wait_than_the_limit(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """And none where none is to wait."""
    monkeypatch.setattr("push_pools.platforms.process_wrappers.MOST_WAITING", 2)
    platform, none = world.open(), world.open(waiting=0)
    platform.expect(50)
    none.expect(50)
    eventually(lambda: len(platform._wrappers._waiting) == 2)
    assert (platform._wrappers._wanted, none._wrappers._wanted) == (2, 0)


def found(platform: ProcessPlatform, asked: JobHandle) -> JobHandle | None:
    try:
        return platform.find(asked)
    except PlatformUnavailable:
        return None


# -- once ----------------------------------------------------------------------


def test_eight_processes_with_one_key_start_one_job(world: World) -> None:
    """Each has a platform of its own; all name the same pid."""
    key, mark, go = a_key(), world.home / "mark", world.home / "go"
    world.home.mkdir()
    code = (
        "print('ready', flush=True)\n"
        "while not os.path.exists(sys.argv[3]): time.sleep(0.001)\n"
        "job = sh('echo x >>$MARK; sleep 0.2', env={'MARK': sys.argv[2]})\n"
        "print(platform.submit(job, sys.argv[1]).pid, flush=True)\n"
    )
    servers = [server(world.home, code, key, str(mark), str(go)) for _ in range(8)]
    with contextlib.ExitStack() as stack:
        for each in servers:
            stack.enter_context(killed_at_the_end(each))
            assert each.stdout is not None
            assert each.stdout.readline() == "ready\n"
        go.touch()
        pids = [each.communicate(timeout=DEADLINE_SECONDS)[0].strip() for each in servers]
    assert len(set(pids)) == 1
    assert pids[0] == world.note(key).name
    assert mark.read_text() == "x\n"


def test_a_server_killed_at_any_moment_starts_each_job_once(world: World) -> None:
    """Kill it at random moments around `submit`, and submit the same keys again: each ran exactly once."""
    marks = world.home / "marks"
    marks.mkdir(parents=True)
    code = (
        "for n in range(100000):\n"
        "    key = a_key()\n"
        "    print(key, flush=True)\n"
        "    platform.submit(sh('echo x >>$MARK', env={'MARK': sys.argv[1] + '/' + key}), key)\n"
    )
    chance = random.Random(7)
    keys: list[str] = []
    for _ in range(4):
        servers = [server(world.home, code, str(marks)) for _ in range(3)]
        for each in servers:
            assert each.stdout is not None
            keys.append(each.stdout.readline().strip())
        for each in servers:
            time.sleep(chance.random() * 0.02)  # Not a wait for anything: the moment of death is what is tested.
            each.kill()
            keys += each.communicate()[0].split()
    platform = world.open()
    before = sum((marks / key).exists() for key in keys)
    for key in keys:
        handle = platform.submit(sh("echo x >>$MARK", env={"MARK": str(marks / key)}), key)
        seen = world.over(platform, handle)
        assert seen.status is JobStatus.SUCCEEDED or (seen.codes == ("wrapper-died",) and not (marks / key).exists())
    assert {(marks / key).read_text() for key in keys if (marks / key).exists()} == {"x\n"}
    assert len(keys) > len(set(keys)) - 1
    assert before > 0


def test_a_wrapper_killed_at_any_moment_runs_nothing_twice(world: World) -> None:
    """And what it did not see to the end is no success."""
    platform, chance = world.open(waiting=0), random.Random(11)
    for n in range(60):
        key, mark = a_key(), world.home / f"mark-{n}"
        killer: list[threading.Thread] = []
        spawn = os.posix_spawn

        def and_kill(*args: Any, spawn: Any = spawn, killer: Any = killer, **kwargs: Any) -> int:
            pid: int = spawn(*args, **kwargs)
            delay = chance.random() * 0.003

            def kill() -> None:
                time.sleep(delay)
                with contextlib.suppress(OSError):
                    if " (sh) " in Path(f"/proc/{pid}/stat").read_text():
                        os.kill(pid, signal.SIGKILL)

            killer.append(threading.Thread(target=kill))
            killer[-1].start()
            return pid

        job = sh("echo x >>$MARK", env={"MARK": str(mark)})
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "posix_spawn", and_kill)
            with contextlib.suppress(PlatformUnavailable):
                platform.submit(job, key)
        for thread in killer:
            thread.join()
        seen = world.over(platform, platform.submit(job, key))
        assert seen.status is JobStatus.SUCCEEDED or seen.codes == ("wrapper-died",)
        assert not mark.exists() or mark.read_text() == "x\n"
        assert mark.exists() or seen.status is not JobStatus.SUCCEEDED


def test_a_wrapper_killed_as_it_is_told_leaves_the_job_to_the_next(
    world: World, platform: ProcessPlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process starts the job in between; both answer with the pid of the one that runs."""
    other, mark, key = world.open(), world.home / "mark", a_key()
    job = sh(f"echo x >>{mark}")
    tell, handles = Wrapper.tell, list[JobHandle]()

    def killed_first(self: Wrapper, script: bytes, deadline: float) -> None:
        monkeypatch.setattr(Wrapper, "tell", tell)
        os.kill(self.pid, signal.SIGKILL)
        eventually(partial(is_over, self))
        handles.append(other.submit(job, key))
        tell(self, script, deadline)

    monkeypatch.setattr(Wrapper, "tell", killed_first)
    assert platform.submit(job, key) == handles[0]
    assert world.over(platform, handles[0]).status is JobStatus.SUCCEEDED
    assert mark.read_text() == "x\n"


def test_an_answer_that_cannot_be_read_is_uncertain(
    world: World, platform: ProcessPlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wrapper was told, and may have started the job."""

    def broken(*_: Any) -> None:
        raise OSError(5, "Input/output error")

    job, key = sh("true"), a_key()
    with monkeypatch.context() as patch:
        patch.setattr(Wrapper, "_await", broken)
        with pytest.raises(SubmissionUncertain):
            platform.submit(job, key)
    assert world.over(platform, platform.submit(job, key)).status is JobStatus.SUCCEEDED


def test_of_two_wrappers_that_are_told_of_one_job_one_starts_it(world: World) -> None:
    """The file that the wrapper creates is the last word, should everything before it fail."""
    watcher = ExitWatcher()
    wrappers = Wrappers(str(world.home / "jobs"), {"PATH": "/usr/bin:/bin"}, watcher, waiting=0)
    both = [wrappers.take() for _ in range(2)]
    place = world.place("pp-a")
    place.mkdir()
    mark = world.home / "mark"
    script = script_for(str(place), "/", "0 2 3 4", ["/bin/sh", "-c", f"echo x >>{mark}"], {})
    answers = []
    for wrapper in both:
        try:
            wrapper.tell(script, time.monotonic() + DEADLINE_SECONDS)
            answers.append("ok")
        except WrapperFailed as error:
            answers.append(str(error))
    eventually(lambda: not any(wrapper.is_alive() for wrapper in both))
    watcher.close()
    wrappers.close()
    assert answers[0] == "ok"
    assert "started" in answers[1]
    assert mark.read_text() == "x\n"
    assert (place / "started").read_text() == "0 2 3 4\n0\n"


def test_half_a_script_runs_nothing(world: World) -> None:
    """The server died while it wrote; wherever it was cut."""
    watcher = ExitWatcher()
    wrappers = Wrappers(str(world.home / "jobs"), {"PATH": "/usr/bin:/bin"}, watcher, waiting=0)
    place, mark = world.place("pp-a"), world.home / "mark"
    argv = ["/bin/sh", "-c", f"echo x >>{mark}", "}\n{", "it's"]
    script = script_for(str(place), "/", "0 2 3 4", argv, {"A": "}\n}\n", "B": None})
    for cut in range(0, len(script) - 1, 7):
        wrapper = wrappers.take()
        place.mkdir(exist_ok=True)
        with pytest.raises(WrapperFailed):
            wrapper.tell(script[:cut], time.monotonic() + DEADLINE_SECONDS)
        eventually(partial(is_over, wrapper))
        wrapper.dismiss()
        assert not (place / "started").exists()
    watcher.close()
    wrappers.close()
    assert not mark.exists()


def test_a_wrapper_that_was_killed_while_it_waited_is_replaced(world: World, platform: ProcessPlatform) -> None:
    """Nobody sees it."""
    (wrapper,) = eventually(lambda: list(platform._wrappers._waiting))
    os.kill(wrapper.pid, signal.SIGKILL)
    assert world.run(platform, sh("true")).status is JobStatus.SUCCEEDED


def test_an_empty_note_without_a_wrapper_ran_nothing(world: World, platform: ProcessPlatform) -> None:
    """Its wrapper was killed between creating the file and writing to it; the key starts the job after all."""
    key = a_key()
    place = world.place(key)
    place.mkdir(parents=True)
    (place / "lock").touch()
    (place / "started").touch()
    asked = platform.handle(sh("true"), key)
    assert platform.find(asked) is None
    (place / "started").touch()
    assert world.over(platform, platform.submit(sh("true"), key)).status is JobStatus.SUCCEEDED


def test_an_empty_note_with_a_wrapper_says_nothing_yet(
    world: World, platform: ProcessPlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wrapper is between creating the file and writing to it, for as long as it may take."""
    monkeypatch.setattr(process_module, "ASK_SECONDS", 0.05)
    key = a_key()
    world.place(key).mkdir(parents=True)
    (world.place(key) / "started").touch()
    with (world.place(key) / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(PlatformUnavailable):
            platform.find(platform.handle(sh("true"), key))
    assert (world.place(key) / "started").exists()


@pytest.mark.parametrize("text", ["", "\0\0\0\0", "12 34", "rubbish\n"])
def test_a_note_that_a_power_failure_emptied_is_no_reason_to_start_again(
    world: World, platform: ProcessPlatform, text: str
) -> None:
    """Something may have run."""
    key = a_key()
    world.place(key).mkdir(parents=True)
    (world.place(key) / "started").write_text(text)
    os.utime(world.place(key) / "started", (1, 1))
    handle = platform.submit(sh("echo x >$MARK", env={"MARK": str(world.home / "mark")}), key)
    assert handle.pid == LOST
    (seen,) = platform.observe([handle])
    assert seen.status in (JobStatus.FAILED, JobStatus.GONE)
    assert not (world.home / "mark").exists()


def test_a_stop_before_the_start_uses_the_key_up(world: World, platform: ProcessPlatform) -> None:
    """A late submit starts nothing; it, and every look-up, finds a job that was cancelled."""
    key = a_key()
    job = sh("echo x >$MARK", env={"MARK": str(world.home / "mark")})
    asked = platform.handle(job, key)
    platform.stop(asked, 1)
    platform.stop(asked, 1)
    handle = platform.submit(job, key)
    assert handle.pid == NOT_STARTED
    assert platform.find(asked) == handle
    (seen,) = world.open().observe([handle])
    assert (seen.status, seen.stopped, seen.exit_code) == (JobStatus.CANCELLED, True, None)
    assert "before it was started" in seen.reason
    assert not (world.home / "mark").exists()


def test_200_at_once(world: World, platform: ProcessPlatform) -> None:
    """Each runs once, each end is told once."""
    mark = world.home / "mark"
    keys = [a_key() for _ in range(200)]
    with ThreadPoolExecutor(32) as pool:
        handles = list(pool.map(lambda key: platform.submit(sh(f"echo {key} >>{mark}; sleep 0.1"), key), keys))
    for handle in handles:
        assert world.over(platform, handle).status is JobStatus.SUCCEEDED
    assert sorted(mark.read_text().split()) == sorted(keys)
    eventually(lambda: len(world.told) >= 200)
    assert sorted(handle.key for handle, _, _ in world.told) == sorted(keys)


# -- how it ended --------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_death_by_a_signal_is_told(world: World, platform: ProcessPlatform, number: signal.Signals) -> None:
    """A shell says 128 + n."""
    seen = world.run(platform, sh(f"kill -{number.value} $$; sleep 5"))
    assert (seen.status, seen.exit_code, seen.signal) == (JobStatus.FAILED, 128 + number, number)
    assert seen.stopped is False
    assert number.name in seen.reason


@pytest.mark.parametrize("code", [1, 2, 64, 127, 128, 200, 255])
def test_other_exit_codes_are_no_signals(world: World, platform: ProcessPlatform, code: int) -> None:
    """Every one comes back."""
    seen = world.run(platform, sh(f"exit {code}"))
    assert (seen.status, seen.exit_code, seen.signal) == (JobStatus.FAILED, code, None)


def test_a_killed_wrapper_is_not_the_end_of_the_job(world: World, platform: ProcessPlatform) -> None:
    """While its processes run the job runs; when they are gone it failed, for nobody knows how it ended."""
    ready, go = world.home / "ready", world.home / "go"
    handle = platform.submit(sh(f"echo >{ready}; while [ ! -e {go} ]; do sleep 0.01; done"), a_key())
    eventually(ready.exists)
    os.kill(world.note(handle.key).pid, signal.SIGKILL)
    eventually(lambda: not is_alive(world.note(handle.key).pid))
    (seen,) = platform.observe([handle])
    assert (seen.status, seen.details) == (JobStatus.RUNNING, {"wrapper": "killed"})
    assert not world.told
    go.touch()
    seen = world.over(platform, handle)
    assert (seen.status, seen.exit_code, seen.codes) == (JobStatus.FAILED, None, ("wrapper-died",))
    assert explain_observation("process", seen).failure_class is not FailureClass.EXIT
    assert eventually(lambda: world.told)[0][1].status is JobStatus.FAILED


def test_the_processes_of_a_killed_wrapper_can_be_stopped(world: World, platform: ProcessPlatform) -> None:
    """They are found by their group."""
    ready = world.home / "ready"
    handle = platform.submit(sh(f"echo >{ready}; sleep 60; true"), a_key())
    eventually(ready.exists)
    os.kill(world.note(handle.key).pid, signal.SIGKILL)
    eventually(lambda: not is_alive(world.note(handle.key).pid))
    platform.stop(handle, 30)
    seen = world.over(platform, handle)
    assert (seen.status, seen.stopped) == (JobStatus.CANCELLED, True)


def test_a_reboot_ends_every_job(world: World, platform: ProcessPlatform) -> None:
    """Even if the numbers are used again."""
    handle = platform.submit(sh("sleep 60"), a_key())
    note = world.note(handle.key)
    forge(world, handle.key, note.first_line.replace(boot_id(), "another-boot"))
    (seen,) = platform.observe([handle])
    assert (seen.status, seen.codes) == (JobStatus.FAILED, ("wrapper-died",))
    assert "restarted" in seen.reason
    platform.stop(handle, 0)
    assert is_alive(note.pid)
    forge(world, handle.key, note.first_line)


@needs_proc
def test_a_process_that_has_the_same_number_is_left_alone(world: World, platform: ProcessPlatform) -> None:
    """It has another start time: it is not the job, and is never signalled."""
    handle = platform.submit(sh("sleep 60"), a_key())
    note = world.note(handle.key)
    stranger = subprocess.Popen(["sleep", "60"], start_new_session=True)
    with stranger:
        forge(world, handle.key, Note(stranger.pid, "1", note.boot, note.began).first_line)
        (seen,) = platform.observe([handle])
        platform.stop(handle, 0)
        with pytest.raises(subprocess.TimeoutExpired):
            stranger.wait(0.2)
        stranger.kill()
    assert (seen.status, seen.codes) == (JobStatus.FAILED, ("wrapper-died",))
    forge(world, handle.key, note.first_line)


@pytest.mark.parametrize("pid", [0, 1])
def test_a_damaged_note_never_names_the_whole_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pid: int
) -> None:
    """Group 0 is the server's own, group 1 that of the first process: neither is ever a job's."""
    signalled: list[int] = []
    monkeypatch.setattr(os, "killpg", lambda group, _: signalled.append(group))
    note = Note(pid, start_of(pid) or "-", boot_id(), 0.0)
    directory = JobDirectory(str(tmp_path))
    directory.signal(note, signal.SIGTERM)
    assert not directory.is_alive(note)
    assert not directory.has_survivors(note)
    assert not signalled


def forge(world: World, key: str, line: str) -> None:
    (world.place(key) / "started").write_text(line + "\n")


def test_a_directory_that_was_removed_is_gone(world: World, platform: ProcessPlatform) -> None:
    """With a pid the job was there once; without, nothing is known."""
    handle = platform.handle(sh("true"), a_key())
    assert [seen.status for seen in platform.observe([handle, handle.model_copy(update={"pid": "1/2"})])] == [
        JobStatus.UNKNOWN,
        JobStatus.GONE,
    ]


def test_times_are_told_on_the_clock_that_runs_are_kept_by(world: World) -> None:
    """A movable clock may be years away from the machine's."""
    clock = MovableClock(SystemClock().now().replace(year=2050))
    platform = ProcessPlatform(context_of(world.home, clock))
    world.opened.append(platform)
    seen = world.run(platform, sh("true"))
    assert seen.started_at is not None
    assert seen.ended_at is not None
    assert 2049 < seen.started_at.year < 2052
    assert seen.started_at.timestamp() <= seen.ended_at.timestamp() + 0.1 <= seen.observed_at.timestamp() + 0.2


# -- stopping ------------------------------------------------------------------


def test_a_stop_gives_time_and_then_kills(world: World, platform: ProcessPlatform) -> None:
    """A job that will not end is killed with everything it started, after the grace and not before."""
    ready = world.home / "ready"
    handle = platform.submit(sh(f"trap '' TERM; (trap '' TERM; sleep 60) & echo >{ready}; wait; sleep 60"), a_key())
    eventually(ready.exists)
    grace = 0.4
    platform.stop(handle, grace)
    asked = world.place(handle.key).joinpath("stop").stat().st_mtime
    seen = world.over(platform, handle)
    assert (seen.status, seen.stopped, seen.signal) == (JobStatus.CANCELLED, True, signal.SIGKILL)
    _, told, at = eventually(lambda: world.told)[0]
    assert told.status is JobStatus.CANCELLED
    assert at - asked >= grace - 0.01
    eventually(lambda: not processes_of(world.place(handle.key)))


def test_a_job_may_end_well_when_it_is_stopped(world: World, platform: ProcessPlatform) -> None:
    """It keeps its exit code, and is still one that was stopped."""
    ready = world.home / "ready"
    script = f"trap 'echo bye; exit 0' TERM; echo >{ready}; while :; do sleep 0.01; done"
    handle = platform.submit(sh(script), a_key())
    eventually(ready.exists)
    platform.stop(handle, 30)
    seen = world.over(platform, handle)
    assert (seen.status, seen.stopped, seen.exit_code) == (JobStatus.CANCELLED, True, 0)
    assert platform.logs(handle, None).lines[-1] == "bye"


def test_a_stop_reaches_what_the_job_started(world: World, platform: ProcessPlatform) -> None:
    """The signal goes to the group; the wrapper outlives it to write down the end."""
    handle = platform.submit(sh("sleep 60 & sleep 60"), a_key())
    platform.stop(handle, 30)
    seen = world.over(platform, handle)
    assert (seen.status, seen.stopped, seen.exit_code) == (JobStatus.CANCELLED, True, 143)
    eventually(lambda: not processes_of(world.place(handle.key)))


def test_a_stop_right_after_the_start_holds(world: World, platform: ProcessPlatform) -> None:
    """Whether or not there is a process to signal yet; it does not take the whole grace."""
    for _ in range(40):
        handle = platform.submit(sh("sleep 60"), a_key())
        platform.stop(handle, 3600)
        seen = world.over(platform, handle)
        assert (seen.status, seen.exit_code) == (JobStatus.CANCELLED, 143)


def test_a_repeated_stop_kills_once_the_grace_is_over(world: World) -> None:
    """The server that asked first is gone, and its timer with it."""
    ready = world.home / "ready"
    first = world.open()
    handle = first.submit(sh(f"trap '' TERM; echo >{ready}; while :; do sleep 0.01; done"), a_key())
    eventually(ready.exists)
    first.stop(handle, 0.2)
    first.close()
    asked = world.place(handle.key).joinpath("stop").stat().st_mtime
    eventually(lambda: time.time() > asked + 0.25)
    second = world.open()
    assert second.observe([handle])[0].status is JobStatus.RUNNING
    second.stop(handle, 0.2)
    assert world.over(second, handle).stopped is True


def test_a_stop_that_comes_too_late_changes_nothing(
    world: World, platform: ProcessPlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It leaves no mark, and what the job left running gets no signal."""
    left = world.home / "left"
    handle = platform.submit(sh(f"sleep 60 & echo $! >{left}; exit 3"), a_key())
    world.over(platform, handle)
    sent: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(os, "killpg", lambda _, number: sent.append(number))
        platform.stop(handle, 0)
        platform._signal_again(JobDirectory(str(world.place(handle.key))), signal.SIGKILL)
    assert not sent
    assert not world.place(handle.key).joinpath("stop").exists()
    (seen,) = platform.observe([handle])
    assert (seen.status, seen.stopped) == (JobStatus.FAILED, False)
    os.kill(int(left.read_text()), signal.SIGKILL)


# -- output --------------------------------------------------------------------


def pages(platform: ProcessPlatform, handle: JobHandle) -> list[tuple[str, ...]]:
    found, cursor = [], None
    for _ in range(1000):
        page = platform.logs(handle, cursor)
        found.append(page.lines)
        cursor = page.cursor
        if page.is_last:
            return found
    raise AssertionError("no end")


def test_five_megabytes_come_in_pages(world: World, platform: ProcessPlatform) -> None:
    """Of bounded size, with nothing lost between them."""
    script = "import sys\nfor n in range(5000): sys.stdout.write(f'{n:04d}' + 'x' * 995 + '\\n')"
    handle = platform.submit(ProcessJobConfiguration(command=[sys.executable, "-c", script]), a_key())
    world.over(platform, handle)
    found = pages(platform, handle)
    assert len(found) >= 5
    assert max(sum(len(line) + 1 for line in page) for page in found) <= 1_000_000
    assert [int(line[:4]) for page in found for line in page] == list(range(5000))


def test_many_short_lines_come_in_pages(world: World, platform: ProcessPlatform) -> None:
    """Of at most 10,000 lines."""
    handle = platform.submit(sh("seq 25000"), a_key())
    world.over(platform, handle)
    found = pages(platform, handle)
    assert [len(page) for page in found] == [10_000, 10_000, 5_000]
    assert [int(line) for page in found for line in page] == list(range(1, 25_001))


def test_exactly_a_page_of_lines_ends(world: World, platform: ProcessPlatform) -> None:
    """Without an empty line behind it."""
    handle = platform.submit(sh("seq 10000"), a_key())
    world.over(platform, handle)
    assert [len(page) for page in pages(platform, handle)] == [10_000]


def test_anything_may_be_written(world: World, platform: ProcessPlatform) -> None:
    """What is no text is shown as such; ends of lines are those of any system; the last needs none."""
    lines = world.output(platform, sh(r"printf 'a\377b\r\n\nlast \303\244'; echo err >&2"))
    assert lines == ("a�b", "", "last äerr")
    assert world.output(platform, sh("printf end")) == ("end",)
    binary = "import os, sys; sys.stdout.buffer.write(bytes(range(256)) * 100)"
    assert len(world.output(platform, ProcessJobConfiguration(command=[sys.executable, "-c", binary]))) == 101


def test_a_line_longer_than_a_page_is_cut_between_characters(world: World, platform: ProcessPlatform) -> None:
    """Nothing is lost, and no character is broken."""
    script = "import sys; sys.stdout.buffer.write(('x' + 'ä€𝄞' * 300_000).encode())"
    handle = platform.submit(ProcessJobConfiguration(command=[sys.executable, "-c", script]), a_key())
    world.over(platform, handle)
    text = "".join(line for page in pages(platform, handle) for line in page)
    assert text == "x" + "ä€𝄞" * 300_000


def test_a_line_that_has_not_ended_waits(world: World, platform: ProcessPlatform) -> None:
    """Until it has, or the job is over."""
    go = world.home / "go"
    script = f"printf 'one\\ntwo'; while [ ! -e {go} ]; do sleep 0.01; done; printf more"
    handle = platform.submit(sh(script), a_key())
    page = eventually(lambda: (page := platform.logs(handle, None)).lines and page)
    assert (page.lines, page.is_last) == (("one",), False)
    assert platform.logs(handle, page.cursor).lines == ()
    go.touch()
    world.over(platform, handle)
    page = platform.logs(handle, page.cursor)
    assert (page.lines, page.is_last) == (("twomore",), True)
    assert platform.logs(handle, page.cursor).lines == ()


# -- telling, and restarts -----------------------------------------------------


def test_it_tells_of_endings(platform: ProcessPlatform) -> None:
    """The server asks for this."""
    assert isinstance(platform, TellsOfEndings)


@pytest.mark.parametrize("use_pidfd", [True, False])
def test_an_end_is_told_once_with_everything(world: World, use_pidfd: bool) -> None:
    """The handle has the pid and the run, for `submit` may not have returned yet."""
    platform = world.open(use_pidfd=use_pidfd)
    run = uuid4()
    job = sh("exit 5", env={"PUSH_POOLS_RUN_ID": str(run), "PUSH_POOLS_ATTEMPT": "2"})
    handle = platform.submit(job, a_key())
    told, seen, _ = eventually(lambda: world.told)[0]
    assert told == handle
    assert (told.run_id, told.attempt) == (run, 2)
    assert seen.model_copy(update={"observed_at": None}) == platform.observe([handle])[0].model_copy(
        update={"observed_at": None}
    )
    platform.submit(job, handle.key)
    platform.follow(handle)
    other = platform.submit(sh("true"), a_key())
    eventually(lambda: other.key in [told.key for told, _, _ in world.told])


def test_a_fault_of_one_listener_harms_nobody(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, and the others are told."""
    platform = ProcessPlatform(context_of(world.home))
    world.opened.append(platform)
    heard: list[str] = []

    def bad(*_: Any) -> None:
        raise ValueError("no")

    platform.on_over(bad)
    platform.on_over(lambda handle, _: heard.append(handle.key))
    for _ in range(2):
        key = a_key()
        platform.submit(sh("true"), key)
        eventually(partial(heard.__contains__, key))
    assert "job_over_failed" in caplog.text


@pytest.mark.parametrize("use_pidfd", [True, False])
def test_jobs_go_on_without_the_server_and_are_followed_by_the_next(world: World, use_pidfd: bool) -> None:
    """Killed with -9; the next one finds them, sees them end at once, and has their exit code."""
    go, code = (
        world.home / "go",
        "print(platform.submit(sh(sys.argv[1]), a_key()).model_dump_json(), flush=True)\nos.kill(os.getpid(), 9)",
    )
    with killed_at_the_end(
        server(world.home, code, f"while [ ! -e {go} ]; do sleep 0.01; done; echo done; exit 7")
    ) as dead:
        assert dead.stdout is not None
        handle = JobHandle.model_validate_json(dead.stdout.readline())
    platform = world.open(use_pidfd=use_pidfd)
    assert platform.find(handle.model_copy(update={"pid": None})) == handle
    assert platform.observe([handle])[0].status is JobStatus.RUNNING
    platform.follow(handle)
    platform.follow(handle)
    go.touch()
    told, seen, _ = eventually(lambda: world.told)[0]
    assert (told, seen.exit_code, seen.stopped) == (handle, 7, False)
    assert platform.logs(handle, None).lines == ("done",)
    other = platform.submit(sh("true"), a_key())
    eventually(lambda: other.key in [told.key for told, _, _ in world.told])
    assert [told.key for told, _, _ in world.told] == [handle.key, other.key]


def test_following_what_ended_meanwhile_tells_at_once(world: World) -> None:
    """It ended between two servers."""
    first = world.open()
    handle = first.submit(sh("exit 4"), a_key())
    world.over(first, handle)
    first.close()
    world.told.clear()
    world.open().follow(handle)
    assert eventually(lambda: world.told)[0][1].exit_code == 4


def test_following_what_nobody_knows_is_nothing(world: World, platform: ProcessPlatform) -> None:
    """No error, and nothing is told."""
    platform.follow(platform.handle(sh("true"), a_key()))
    assert not world.told


def test_closing_twice_and_using_it_afterwards(world: World, platform: ProcessPlatform) -> None:
    """Nothing is told any more; jobs still start and end."""
    platform.close()
    platform.close()
    assert world.run(platform, sh("true")).status is JobStatus.SUCCEEDED
    platform.stop(platform.submit(sh("true"), a_key()), 1)
    assert not world.told


def test_a_wrapper_ends_with_its_server(world: World) -> None:
    """One that waits reads from a pipe whose other end only the server has."""
    code = "platform._wrappers.refill()\nprint(platform._wrappers._waiting[0].pid, flush=True)\ntime.sleep(60)"
    with killed_at_the_end(server(world.home, code)) as each:
        assert each.stdout is not None
        pid = int(each.stdout.readline())
        assert is_alive(pid)
    eventually(lambda: not is_alive(pid))
    (left,) = (world.home / "jobs").glob(".w-*")
    os.utime(left, (1, 1))
    world.open(waiting=0)._prune()
    assert not left.exists()


def test_old_jobs_are_removed(world: World, platform: ProcessPlatform, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some at a time; never one that runs, or one that is not old."""
    monkeypatch.setattr(process_module, "PRUNE_ENTRIES", 2)
    old = [platform.submit(sh("true"), a_key()) for _ in range(5)]
    for handle in old:
        world.over(platform, handle)
        os.utime(world.place(handle.key) / "started", (1e9, 1e9))
        forge_began(world, handle.key)
    young, running = platform.submit(sh("true"), a_key()), platform.submit(sh("sleep 60"), a_key())
    world.over(platform, young)
    forge_began(world, running.key)
    platform._prune()
    eventually(lambda: not [handle for handle in old if world.place(handle.key).exists()])
    assert world.place(young.key).exists()
    assert world.place(running.key).exists()


def forge_began(world: World, key: str) -> None:
    started = world.place(key) / "started"
    times = started.stat()
    note = world.note(key)
    started.write_text(started.read_text().replace(str(note.began), "1000000000.0"))
    os.utime(started, (times.st_atime, times.st_mtime))


# -- the watcher by itself -----------------------------------------------------


@pytest.mark.parametrize("use_pidfd", [True, False])
def test_the_watcher_reaps_children_and_sees_others_end(use_pidfd: bool) -> None:
    """A child's remains are collected; a process that is no child is seen all the same."""
    watcher, ended = ExitWatcher(use_pidfd=use_pidfd), threading.Event()
    child = subprocess.Popen(["sleep", "60"])
    start = start_of(child.pid)
    watcher.watch(child.pid, lambda: start_of(child.pid) == start, ended.set)
    child.kill()
    assert ended.wait(DEADLINE_SECONDS)
    with pytest.raises(ChildProcessError):
        os.waitpid(child.pid, 0)
    child.wait()
    watcher.close()


def test_a_process_that_is_gone_already_is_told_at_once() -> None:
    """Between the decision to watch it and the watching."""
    watcher, ended = ExitWatcher(), threading.Event()
    with subprocess.Popen(["true"]) as child:
        child.wait()
        watcher.watch(child.pid, lambda: False, ended.set)
        assert ended.wait(DEADLINE_SECONDS)
    watcher.close()


def test_timers_run_in_order_and_faults_pass(caplog: pytest.LogCaptureFixture) -> None:
    """One that fails is logged; the thread lives on."""
    watcher, seen, done = ExitWatcher(), list[int](), threading.Event()

    def fail() -> None:
        raise ValueError("no")

    watcher.after(0.03, done.set)
    watcher.after(0.02, lambda: seen.append(2))
    watcher.after(0.01, lambda: seen.append(1))
    watcher.after(0.0, fail)
    assert done.wait(DEADLINE_SECONDS)
    watcher.close()
    watcher.after(0, lambda: seen.append(3))
    assert seen == [1, 2]
    assert "process_watcher_failed" in caplog.text


def test_a_shell_that_is_bash_will_do(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many systems have it as `sh`."""
    bash = Path("/bin/bash")
    if not bash.exists():
        pytest.skip("there is no bash here")
    monkeypatch.setattr(process_wrappers, "SHELL", str(bash))
    platform = world.open()
    env: dict[str, str | None] = {"A": NASTY, "UID": "x", "LANG": None}
    job = sh('printf "%s" "$A"; exit 9', env=env)
    handle = platform.submit(job, a_key())
    assert platform.submit(job, handle.key) == handle
    seen = world.over(platform, handle)
    assert (seen.exit_code, "\n".join(platform.logs(handle, None).lines)) == (9, NASTY)
    stopped = platform.submit(sh("sleep 60"), a_key())
    platform.stop(stopped, 30)
    assert world.over(platform, stopped).exit_code == 143
