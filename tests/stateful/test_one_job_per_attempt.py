"""The guarantee, under deliveries, duplicates, crashes at every port call, cancels, cloud trouble and passing time.

After every step: at most one job per attempt was started, and no two attempts run at once. At the end, when trouble
stops: every run is final, its chores are done, and no job of a final run is left running.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, ClassVar, Literal

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from push_pools.domain.errors import (
    JobRejected,
    NotAllowed,
    NothingStarted,
    PlatformUnavailable,
    SubmissionUncertain,
)
from push_pools.domain.runs import FlowRun, Phase, RetryPolicy
from push_pools.domain.states import FailureClass
from push_pools.services.stop import cancel_run
from push_pools.sqlite_file import SqliteFile
from push_pools.stores.memory import MemoryStore
from push_pools.stores.sqlite import SqliteStore
from tests.world import World

if TYPE_CHECKING:
    from collections.abc import Callable

    from push_pools.ports import Store

FAMILIES: dict[str, dict[str, bool]] = {
    "names": {},
    "jobs": {"needs_cleanup": True},
    "tokens": {"key_is_used_up": True, "forgets_keys": True},
    "puts": {"closes_before_repeat": True, "needs_cleanup": True},
}
When = Literal["before", "after", "late"]
TROUBLE: dict[str, tuple[Callable[[], Exception], When]] = {
    "throttled": (lambda: PlatformUnavailable("fake", "throttled"), "before"),
    "uncertain without effect": (lambda: SubmissionUncertain("fake", "timed out"), "before"),
    "uncertain with effect": (lambda: SubmissionUncertain("fake", "connection reset"), "after"),
    "lands late": (lambda: SubmissionUncertain("fake", "timed out"), "late"),
    "nothing started": (lambda: NothingStarted("fake", "no capacity", codes=["RESOURCE:MEMORY"]), "before"),
    "nothing started, they say": (lambda: NothingStarted("fake", "no capacity"), "after"),
    "rejected": (lambda: JobRejected("fake", "denied", codes=["AccessDenied"]), "before"),
    "a fault of the adapter": (lambda: RuntimeError("bug"), "after"),
}


class OneJobPerAttempt(RuleBasedStateMachine):
    """Runs on one family of platforms."""

    runs: Bundle[FlowRun] = Bundle("runs")
    family: ClassVar[str] = "names"
    on_sqlite: ClassVar[bool] = False

    def __init__(self) -> None:
        super().__init__()
        self.file = SqliteFile(":memory:") if self.on_sqlite else None
        self.world = World(FAMILIES[self.family], store=SqliteStore(self.file) if self.file else self.ledger())
        self.world.deploy(
            "stubborn", retries=RetryPolicy(attempts=3, on=tuple(FailureClass), backoff_seconds=5), timeout_seconds=600
        )
        self.final: dict[object, object] = {}

    def ledger(self) -> Store:
        """Return the ledger, where it is no file."""
        return MemoryStore()

    @initialize(target=runs)
    def first(self) -> FlowRun:
        return self.world.trigger()

    @rule(target=runs, name=st.sampled_from(["report/hourly", "report/stubborn"]), delay=st.sampled_from([0, 0, 40]))
    def trigger(self, name: str, delay: int) -> FlowRun:
        from datetime import timedelta

        return self.world.trigger(name, scheduled_time=self.world.clock.now() + timedelta(seconds=delay))

    @rule()
    def deliver(self) -> None:
        self.world.deliver()

    @rule(after=st.integers(0, 14))
    def deliver_and_die(self, after: int) -> None:
        """The handler dies before or after one of its port calls."""
        self.world.crash_at = after
        self.world.deliver()
        self.world.crash_at = None

    @rule(run=runs)
    def duplicate(self, run: FlowRun) -> None:
        """A message is delivered that was delivered before."""
        from push_pools.domain.events import hint

        kind = {Phase.STARTED: "stop", Phase.STOPPING: "stop", Phase.ENDED: "chores"}
        self.world.queue.send(hint(kind.get(self.world.get(run).phase, "submit"), run.id))
        self.world.deliver()

    @rule(what=st.sampled_from(sorted(TROUBLE)), method=st.sampled_from(["submit", "submit", "submit", "prepare"]))
    def trouble(self, what: str, method: str) -> None:
        """The next call goes wrong in one way."""
        make, when = TROUBLE[what]
        if method == "prepare" and when != "before":
            return
        if isinstance(make(), NothingStarted) and when == "after" and self.family != "tokens":
            return  # Known of ECS only.
        self.world.cloud.fail(method, make(), when=when)

    @rule(method=st.sampled_from(["find", "observe", "stop", "cleanup"]))
    def cannot_be_asked(self, method: str) -> None:
        self.world.cloud.fail(method, PlatformUnavailable("fake", "503"))

    @rule()
    def land(self) -> None:
        """Calls that were under way arrive, up to the time that the guarantee allows: `SETTLE` after `call_until`."""
        timing = self.world.app.timing
        self.world.cloud.land(within_seconds=timing.call_seconds + timing.settle_seconds)

    @rule(run=runs)
    def cancel(self, run: FlowRun) -> None:
        with contextlib.suppress(NotAllowed):
            cancel_run(run.id, self.world.app, by="ann")

    @rule(number=st.integers(0, 20), how=st.sampled_from(["finish", "fail", "kill", "lose"]))
    def job_ends(self, number: int, how: str) -> None:
        jobs = self.world.cloud.running()
        if not jobs:
            return
        key = jobs[number % len(jobs)].key
        if key not in self.world.cloud.jobs:
            return
        match how:
            case "finish":
                self.world.cloud.finish(key)
            case "fail":
                self.world.cloud.finish(key, 3)
            case "kill":
                self.world.cloud.kill(key)
            case _ if self._may_vanish(key):
                self.world.cloud.lose(key)

    def _may_vanish(self, key: str) -> bool:
        """Whether the job may be deleted at the cloud: doing so while a call may land frees its name for that call.

        That is outside the guarantee, which has names and tokens behave as documented.
        """
        if any(call.key == key for call in self.world.cloud.late):
            return False
        return any(run.job is not None and run.job.key == key and run.job.pid for run in self.world.runs())

    @rule(seconds=st.sampled_from([1, 5, 31, 61, 91, 151, 301, 1201, 4001]))
    def time_passes(self, seconds: int) -> None:
        """Without anybody acting: claims expire, deadlines pass, calls close."""
        self.world.advance(seconds)

    @rule(seconds=st.sampled_from([2, 10, 60, 100]))
    def life_goes_on(self, seconds: int) -> None:
        """Time passes as on a host: messages, sweeps and ticks come."""
        self.world.pass_time(seconds)

    @rule(run=runs)
    def a_call_of_mine_lands_later(self, run: FlowRun) -> None:
        """The next call is under way when its handler gives up, and the one after it is refused for good."""
        make, _ = TROUBLE["lands late"]
        self.world.cloud.fail("submit", make(), when="late")
        self.world.drain()
        self.world.cloud.fail("submit", JobRejected("fake", "denied", codes=["AccessDenied"]))
        self.world.pass_time(20)

    @rule()
    def sweep(self) -> None:
        self.world.sweep()

    @rule(after=st.integers(0, 6))
    def sweep_and_die(self, after: int) -> None:
        self.world.crash_at = after
        self.world.sweep()
        self.world.crash_at = None

    @rule()
    def tick(self) -> None:
        self.world.tick()

    # -- what always holds

    @invariant()
    def at_most_one_job_per_attempt(self) -> None:
        assert not self.world.cloud.duplicates()

    @invariant()
    def no_two_attempts_at_once(self) -> None:
        running = [job.run_id for job in self.world.cloud.running()]
        assert len(running) == len(set(running))

    @invariant()
    def final_states_never_change(self) -> None:
        for run in self.world.runs():
            if run.is_final:
                assert self.final.setdefault(run.id, run.state) == run.state

    @invariant()
    def every_unfinished_run_has_somebody_who_looks(self) -> None:
        for run in self.world.runs():
            assert run.wake_at is not None or run.waits_at is not None or run.phase is Phase.SETTLED

    def teardown(self) -> None:
        """Trouble stops, time goes on: nothing is in limbo, and nothing is left running."""
        self.world.cloud.faults.clear()
        self.world.cloud.late.clear()
        self.world.settle()
        self.at_most_one_job_per_attempt()
        final = {run.id for run in self.world.runs() if run.is_final}
        assert not [job for job in self.world.cloud.running() if job.run_id in final]
        if self.file is not None:
            self.file.close()


def tell_stories(family: str, *, on_sqlite: bool, stories: int) -> None:
    machine = type(f"On{family.title()}", (OneJobPerAttempt,), {"family": family, "on_sqlite": on_sqlite})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=stories, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_one_job_per_attempt(family: str) -> None:
    """Random stories on each family of platforms, over the ledger in memory."""
    tell_stories(family, on_sqlite=False, stories=150)


def test_one_job_per_attempt_on_sqlite() -> None:
    """And over the ledger in a file's format."""
    tell_stories("tokens", on_sqlite=True, stories=60)


@pytest.mark.prove
@pytest.mark.timeout(3300)
@pytest.mark.parametrize("family", FAMILIES)
def test_one_job_per_attempt_at_length(family: str) -> None:
    """Thousands of stories."""
    tell_stories(family, on_sqlite=False, stories=4000)
