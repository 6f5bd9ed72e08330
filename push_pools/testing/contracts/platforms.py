"""What every platform promises, as tests: subclass `PlatformContract`, fill in what is yours, and run it with pytest.

`docs/platforms.md` shows a platform and its subclass from beginning to end.
"""

from __future__ import annotations

import contextlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from push_pools.domain.errors import PlatformError
from push_pools.domain.jobs import (
    BaseJobConfiguration,
    BaseVariables,
    default_base_job_template,
    validate_base_job_template,
    validate_job_variables,
)
from push_pools.domain.pace import take
from push_pools.domain.runs import JobHandle, job_key
from push_pools.domain.states import JobStatus, Observation

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from datetime import datetime

    from pydantic import JsonValue

    from push_pools.domain.pace import Rate
    from push_pools.ports import Platform

BUDGET_SECONDS = 30.0
MOST_LOOKS = 5000
MOST_PAGES = 100


class NoteBook:
    """A `ports.Memo` in memory."""

    def __init__(self) -> None:
        self.notes: dict[str, str] = {}

    def remember(self, key: str, value: str) -> str:
        return self.notes.setdefault(key, value)

    def recall(self, key: str) -> str | None:
        return self.notes.get(key)

    def forget(self, key: str) -> None:
        self.notes.pop(key, None)

    def pace(self, scope: str, rate: Rate, now: datetime, *, ahead_seconds: float = 0.0) -> datetime:
        place, following = take(int(self.notes.get(scope, 0)), rate, now, ahead_seconds)
        self.notes[scope] = str(following)
        return place


def a_key() -> str:
    """Return a job key that was never used."""
    return job_key(uuid4(), 1, 1)


class PlatformContract:
    """The promises of `ports.Platform`.

    Methods that raise `NotImplementedError` have to be given; the others may be, where the default does not fit.
    """

    has_exit_codes = True
    """Whether the platform tells the exit code of a job."""
    has_logs = True
    """Whether jobs of the double that the tests run against can write output."""

    # -- what a subclass gives

    @pytest.fixture
    def platform(self) -> Platform | Iterator[Platform]:
        """Return the platform, on a world of its own; or yield it, and clean up."""
        raise NotImplementedError

    def restarted(self, platform: Platform) -> Platform:
        """Return a second platform on the same world, as a restarted process would build it."""
        raise NotImplementedError

    def job(self, *, exit_code: int = 0, output: tuple[str, ...] = (), runs_on: bool = False) -> BaseJobConfiguration:
        """Return a job that writes these lines and ends with this code; with `runs_on`, only when it is stopped."""
        raise NotImplementedError

    def starts(self, platform: Platform, key: str) -> int:
        """Return how often the world outside really started a job under this key."""
        raise NotImplementedError

    def broken(self, platform: Platform) -> AbstractContextManager[Any]:
        """Return a context in which the platform cannot be reached, or used."""
        raise NotImplementedError

    def let_time_pass(self, platform: Platform) -> None:
        """Give the world a moment; called between two looks at a job."""
        time.sleep(0.005)

    def request_sent(self, platform: Platform, handle: JobHandle) -> dict[str, JsonValue] | None:
        """Return the request that the world outside got for a job, in the form of `preview`; `None` if not known."""
        return None

    # -- helpers

    def prepared(self, platform: Platform, job: BaseJobConfiguration) -> BaseJobConfiguration:
        """Return a job as the ledger gives it back: prepared, stored and read again."""
        job = platform.prepare(job, NoteBook())
        stored = job.model_dump(mode="json")
        return platform.job_configuration.model_validate(stored)

    def started(self, platform: Platform, **options: Any) -> JobHandle:
        """Submit a job of that kind and return its handle, read back from JSON."""
        handle = platform.submit(self.prepared(platform, self.job(**options)), a_key())
        return JobHandle.model_validate_json(handle.model_dump_json())

    def look(self, platform: Platform, handle: JobHandle) -> Observation:
        """Observe one job; the answer is about it."""
        (seen,) = platform.observe([handle])
        assert seen.key == handle.key
        return seen

    def until(self, platform: Platform, handle: JobHandle, rank: int) -> Observation:
        """Look at a job until it has got that far; what was seen never goes back."""
        seen = self.look(platform, handle)
        deadline = time.monotonic() + BUDGET_SECONDS
        for _ in range(MOST_LOOKS):
            if seen.status.rank >= rank:
                return seen
            self.let_time_pass(platform)
            before, seen = seen, self.look(platform, handle)
            assert seen.status.rank >= before.status.rank, f"{before.status} became {seen.status}"
            if time.monotonic() > deadline:
                break
        raise AssertionError(f"after {BUDGET_SECONDS:g} s the job is still {seen.status}")

    def until_over(self, platform: Platform, handle: JobHandle) -> Observation:
        """Look at a job until it is over."""
        return self.until(platform, handle, JobStatus.GONE.rank)

    # -- what it is

    def test_it_says_what_it_is(self, platform: Platform) -> None:
        """Everything that the catalogue and the protocol read is there."""
        assert platform.type == type(platform).type
        assert platform.description
        assert issubclass(platform.job_configuration, BaseJobConfiguration)
        variables = platform.job_configuration_variables
        assert variables is None or issubclass(variables, BaseVariables)
        assert platform.observe_batch >= 1
        assert platform.start_timeout_seconds > 0
        for flag in ("key_is_used_up", "forgets_keys", "closes_before_repeat", "needs_cleanup"):
            assert isinstance(getattr(platform, flag), bool), flag

    def test_the_default_template_renders_with_no_values_given(self, platform: Platform) -> None:
        """A pool can be created of it and its template is valid, before anybody has filled anything in."""
        template = default_base_job_template(platform.job_configuration, platform.job_configuration_variables)
        validate_base_job_template(template)
        validate_job_variables(template, {})
        job = platform.job_configuration.from_template_and_values(template, {})
        assert isinstance(job, platform.job_configuration)

    def test_the_handle_is_pure_and_enough(self, platform: Platform) -> None:
        """It is known before the call, always the same, and survives JSON."""
        job, key = self.prepared(platform, self.job()), a_key()
        handle = platform.handle(job, key)
        assert handle == platform.handle(job, key) == self.restarted(platform).handle(job, key)
        assert (handle.key, handle.pid) == (key, None)
        assert handle.platform == platform.type
        assert JobHandle.model_validate_json(handle.model_dump_json()) == handle
        assert self.starts(platform, key) == 0

    def test_preparing_is_repeatable(self, platform: Platform) -> None:
        """A prepared job stays as it is."""
        memo = NoteBook()
        once = platform.prepare(self.job(), memo)
        assert platform.prepare(once, memo) == once

    def test_preview_is_pure(self, platform: Platform) -> None:
        """It says the same twice, starts nothing, and is JSON."""
        job = self.prepared(platform, self.job())
        before = job.model_dump_json()
        assert platform.preview(job) == platform.preview(job)
        assert job.model_dump_json() == before

    def test_preview_is_what_is_sent(self, platform: Platform) -> None:
        """Nothing is added to, or left out of, what was shown."""
        job = self.prepared(platform, self.job())
        preview = platform.preview(job)
        handle = platform.submit(job, a_key())
        self.until_over(platform, handle)
        sent = self.request_sent(platform, handle)
        assert sent is None or sent == preview

    # -- exactly once

    def test_submit_starts_a_job_and_says_which(self, platform: Platform) -> None:
        """The pid is there, in the handle that was written with the intent."""
        job, key = self.prepared(platform, self.job()), a_key()
        handle = platform.submit(job, key)
        assert handle.pid
        assert handle.model_copy(update={"pid": None}) == platform.handle(job, key)
        assert self.until_over(platform, handle).status is JobStatus.SUCCEEDED
        assert self.starts(platform, key) == 1

    def test_the_same_key_starts_one_job(self, platform: Platform) -> None:
        """While it runs, once it is over, and from a restarted process, the answer is the same job."""
        job, key = self.prepared(platform, self.job()), a_key()
        first = platform.submit(job, key)
        assert platform.submit(job, key) == first
        self.until_over(platform, first)
        assert platform.submit(job, key) == first
        assert self.restarted(platform).submit(job, key) == first
        assert self.starts(platform, key) == 1

    def test_the_same_key_eight_times_at_once_starts_one_job(self, platform: Platform) -> None:
        """Whoever answers later answers the same, from this process and from another."""
        job, key = self.prepared(platform, self.job()), a_key()
        callers = [platform, self.restarted(platform)] * 4
        barrier = threading.Barrier(len(callers))

        def submit(caller: Platform) -> JobHandle:
            barrier.wait()
            return caller.submit(job, key)

        with ThreadPoolExecutor(len(callers)) as pool:
            handles = list(pool.map(submit, callers))
        assert len({handle.pid for handle in handles}) == 1
        self.until_over(platform, handles[0])
        assert self.starts(platform, key) == 1

    def test_other_keys_are_other_jobs(self, platform: Platform) -> None:
        """Of one configuration too."""
        job = self.prepared(platform, self.job())
        handles = [platform.submit(job, a_key()) for _ in range(3)]
        assert len({handle.pid for handle in handles}) == 3
        for handle in handles:
            self.until_over(platform, handle)
            assert self.starts(platform, handle.key) == 1

    def test_find_says_what_was_started(self, platform: Platform) -> None:
        """Nothing before, that job after, whoever asks."""
        job, key = self.prepared(platform, self.job()), a_key()
        asked = platform.handle(job, key)
        assert platform.find(asked) is None
        submitted = platform.submit(job, key)
        assert platform.find(asked) == submitted
        assert self.restarted(platform).find(asked) == submitted
        self.until_over(platform, submitted)
        assert platform.find(asked) == submitted

    # -- looking

    def test_an_unknown_job_is_an_answer(self, platform: Platform) -> None:
        """Not an error, and never a success."""
        asked = platform.handle(self.prepared(platform, self.job()), a_key())
        assert self.look(platform, asked).status in (JobStatus.UNKNOWN, JobStatus.GONE)

    def test_a_job_that_ends_by_itself_was_not_stopped(self, platform: Platform) -> None:
        """Exit code 0 is a success, with the times of it."""
        handle = self.started(platform)
        seen = self.until_over(platform, handle)
        assert seen.status is JobStatus.SUCCEEDED
        assert not seen.stopped
        assert seen.exit_code in ((0,) if self.has_exit_codes else (0, None))
        if seen.started_at and seen.ended_at:
            assert seen.started_at <= seen.ended_at
        assert self.look(platform, handle).model_copy(update={"observed_at": seen.observed_at}) == seen

    def test_another_exit_code_is_a_failure(self, platform: Platform) -> None:
        """And the code is told."""
        seen = self.until_over(platform, self.started(platform, exit_code=3))
        assert seen.status is JobStatus.FAILED
        assert not self.has_exit_codes or seen.exit_code == 3

    def test_every_handle_gets_its_own_answer(self, platform: Platform) -> None:
        """Jobs of one place are asked for together; the unknown among them harm nobody."""
        good, bad = self.started(platform), self.started(platform, exit_code=3)
        unknown = good.model_copy(update={"key": a_key(), "pid": None})
        for handle in (good, bad):
            self.until_over(platform, handle)
        seen = {each.key: each.status for each in platform.observe([good, unknown, bad])}
        assert seen.keys() == {good.key, unknown.key, bad.key}
        assert (seen[good.key], seen[bad.key]) == (JobStatus.SUCCEEDED, JobStatus.FAILED)

    def test_no_handles_are_no_question(self, platform: Platform) -> None:
        """An empty sweep asks nothing and answers nothing."""
        assert list(platform.observe([])) == []

    def test_a_restarted_process_goes_on(self, platform: Platform) -> None:
        """A handle from before is enough to observe, to read the logs, to stop."""
        handle = self.started(platform, runs_on=True)
        self.until(platform, handle, JobStatus.RUNNING.rank)
        later = self.restarted(platform)
        assert self.look(later, handle).status is JobStatus.RUNNING
        later.logs(handle, None)
        later.stop(handle, 5)
        assert self.until_over(later, handle).status is not JobStatus.SUCCEEDED

    # -- stopping, and what is left

    def test_stop_ends_a_job_and_is_repeatable(self, platform: Platform) -> None:
        """What was stopped did not succeed, and is not said to have ended by itself."""
        handle = self.started(platform, runs_on=True)
        self.until(platform, handle, JobStatus.RUNNING.rank)
        platform.stop(handle, 5)
        platform.stop(handle, 5)
        seen = self.until_over(platform, handle)
        assert seen.status is not JobStatus.SUCCEEDED
        assert seen.stopped in (True, None)
        platform.stop(handle, 5)
        assert self.look(platform, handle).status is seen.status

    def test_stopping_what_is_over_changes_nothing(self, platform: Platform) -> None:
        """Its own outcome stands."""
        for code, status in ((0, JobStatus.SUCCEEDED), (3, JobStatus.FAILED)):
            handle = self.started(platform, exit_code=code)
            self.until_over(platform, handle)
            platform.stop(handle, 5)
            seen = self.look(platform, handle)
            assert seen.status is status
            assert not seen.stopped

    def test_stopping_what_is_unknown_is_success(self, platform: Platform) -> None:
        """With a pid that nobody knows, and without one."""
        handle = self.started(platform)
        self.until_over(platform, handle)
        platform.stop(handle.model_copy(update={"key": a_key()}), 5)
        platform.stop(handle.model_copy(update={"key": a_key(), "pid": None}), 5)

    def test_cleanup_is_repeatable(self, platform: Platform) -> None:
        """Of what is over, of what is cleaned up, of what never was."""
        handle = self.started(platform)
        self.until_over(platform, handle)
        platform.cleanup(handle)
        platform.cleanup(handle)
        platform.cleanup(handle.model_copy(update={"key": a_key()}))
        assert self.look(platform, handle).status in (JobStatus.SUCCEEDED, JobStatus.GONE, JobStatus.UNKNOWN)

    # -- output

    def test_logs_of_a_finished_job(self, platform: Platform) -> None:
        """All lines, in order, in pages that end."""
        expected = tuple(f"line {n}" for n in range(5)) if self.has_logs else ()
        handle = self.started(platform, output=expected)
        self.until_over(platform, handle)
        assert self.all_logs(platform, handle) == expected
        assert self.all_logs(self.restarted(platform), handle) == expected

    def test_logs_of_a_failed_job(self, platform: Platform) -> None:
        """They are wanted most."""
        expected = ("going wrong",) if self.has_logs else ()
        handle = self.started(platform, output=expected, exit_code=3)
        self.until_over(platform, handle)
        assert self.all_logs(platform, handle) == expected

    def test_logs_of_an_unknown_job(self, platform: Platform) -> None:
        """There are none, which is no error."""
        asked = platform.handle(self.prepared(platform, self.job()), a_key())
        assert platform.logs(asked, None).lines == ()

    def all_logs(self, platform: Platform, handle: JobHandle) -> tuple[str, ...]:
        """Return every line, page by page, until the platform says that nothing follows."""
        lines: tuple[str, ...] = ()
        cursor = None
        for _ in range(MOST_PAGES):
            page = platform.logs(handle, cursor)
            lines, cursor = lines + page.lines, page.cursor
            if page.is_last:
                return lines
            self.let_time_pass(platform)
        raise AssertionError(f"no end after {MOST_PAGES} pages")

    # -- trouble

    def test_trouble_is_a_platform_error(self, platform: Platform) -> None:
        """Nothing else escapes, from any method that asks the world."""
        handle = self.started(platform)
        self.until_over(platform, handle)
        job, other = self.prepared(platform, self.job()), handle.model_copy(update={"key": a_key(), "pid": None})
        with self.broken(platform):
            for ask in (
                lambda: platform.submit(job, a_key()),
                lambda: platform.find(other),
                lambda: platform.observe([handle]),
                lambda: platform.stop(handle, 5),
                lambda: platform.cleanup(handle),
                lambda: platform.logs(handle, None),
            ):
                self.only_platform_errors(ask)

    def test_nothing_was_started_by_a_refused_submit(self, platform: Platform) -> None:
        """The same key starts the job once the trouble is over, unless the platform says that the key is used up."""
        job, key = self.prepared(platform, self.job()), a_key()
        with self.broken(platform), pytest.raises(PlatformError):
            platform.submit(job, key)
        if not platform.key_is_used_up:
            self.until_over(platform, platform.submit(job, key))
            assert self.starts(platform, key) == 1

    def only_platform_errors(self, ask: Any) -> None:
        """Ask, and let pass an answer and a `PlatformError`."""
        with contextlib.suppress(PlatformError):
            ask()
