"""What the clouds behind real adapters have in common: a call on its way, its answer, and what they know of jobs.

A cloud of this kind is the model of its double, called without a socket through a client that raises and returns what
the cloud's own client does. Nobody tells of endings: only who asks sees them.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

from push_pools.testing.fake_platform import Plan
from tests.simulation.clouds import LANDS, LATENCY, SKEW_SECONDS, UNSEEN, Trouble, Truth
from tests.simulation.engine import START, Engine

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime
    from uuid import UUID

    from push_pools.domain.records import Timing

TRAVEL = (0.0, 0.05, 0.0, 0.3, 2.0)
"""How long a question, and its answer, is on its way; 0 lets nobody else go first."""
AGAIN_SECONDS = 60.0
VANISHES = Truth("CRASHED", "lost", None)
"""Of a job that somebody else deletes at the cloud while it runs."""


class RemoteJob:
    """A job that was really started, as the checks look at jobs."""

    def __init__(self, key: str, pid: str, run_id: UUID, attempt: int, truth: Truth, now: datetime) -> None:
        self.key, self.pid, self.run_id, self.attempt, self.truth = key, pid, run_id, attempt, truth
        self.submitted_at = now
        self.plan = Plan(outcome="gone") if truth is VANISHES else Plan()
        self.ended_at: datetime | None = None
        self.forgotten_at: datetime | None = None
        self.stopped = False
        """Whether it ended by our stop."""
        self.exit_shown: int | None = None
        """The exit code that it shows after a stop."""
        self.configuration: Any = None
        """What was sent, for those who look for secrets."""

    def settle(self, now: datetime) -> None:
        """Note its end if it is over."""
        raise NotImplementedError


class RemoteCloud:
    """A cloud as the simulation drives it; a subclass says what is sent and what goes wrong with it."""

    family: ClassVar[str]
    needs_cleanup: ClassVar[bool] = True
    tells_more: ClassVar[bool] = False
    kinds: ClassVar[Mapping[str, str | None]]
    """What can go wrong with the call that starts a job → the word for its answer in `answers`, if it is a refusal."""
    arrives: ClassVar[frozenset[str]]
    """Those of them with which the call is performed all the same."""
    patience: ClassVar[float]
    """How long the client waits for the answer to it."""
    refused: ClassVar[type[Exception]]
    """What the model raises in place of an answer."""

    def __init__(
        self, engine: Engine, trouble: Trouble, timing: Timing, latest: Callable[[str], datetime | None]
    ) -> None:
        self.engine, self.trouble, self.timing, self._latest = engine, trouble, timing, latest
        self.clock = SimpleNamespace(now=engine.moment)
        self.started: list[Any] = []
        self.jobs: dict[str, Any] = {}
        """By key: what was made and not removed, over or not."""
        self.answers: dict[tuple[UUID | None, int], list[str]] = {}
        self.on_start: Callable[[Any], None] = lambda job: None
        self.on_end: Callable[[Any], None] = lambda job: None
        self.removed_running: Callable[[Any], None] = lambda job: None
        self.attempt_of: Callable[[UUID | None], int] = lambda run_id: 1
        self.is_recorded: Callable[[Any], bool] = lambda job: True
        self.block_id: str | None = None

    # -- what a subclass says

    def problem(self, kind: str) -> Exception:
        """Return what the client raises when this goes wrong with the call that starts a job."""
        raise NotImplementedError

    def trouble_of(self, operation: str) -> tuple[Exception, str | None]:
        """Return what the client raises when a question fails, and the word for it in `answers`."""
        raise NotImplementedError

    def raised(self, refusal: Any) -> tuple[Exception, str | None]:
        """Return what the client raises for an answer of the model, and the word for it in `answers`."""
        raise NotImplementedError

    # -- jobs

    def running_of(self, run_id: UUID) -> list[Any]:
        """Return the jobs of a run that are not over."""
        found = [job for job in self.started if job.run_id == run_id]
        for job in found:
            job.settle(self.engine.moment())
        return [job for job in found if job.ended_at is None]

    def _get(self, key: str) -> Any:
        job = self.jobs.get(key)
        if job is not None:
            job.settle(self.engine.moment())
        return job

    def begin(self, job: Any) -> None:
        """Note that a job was started."""
        self.started.append(job)
        self.jobs[job.key] = job
        self.on_start(job)

    def vanish(self, job: Any, seconds: float, delete: Callable[[], None]) -> None:
        """Have somebody else delete a job while it runs, once our ledger knows of it.

        Before that a name can no longer mean what it meant: the guarantee presumes that nobody touches it.
        """

        def act() -> None:
            job.settle(self.engine.moment())
            if job.ended_at is not None or job.key not in self.jobs:
                return
            if not self.is_recorded(job):
                self.engine.after(AGAIN_SECONDS, act)
                return
            self.engine.faults["job deleted by others"] += 1
            delete()
            del self.jobs[job.key]
            job.ended_at = job.forgotten_at = self.engine.moment()

        self.engine.after(seconds, act)

    def later(self, at: datetime, act: Callable[[], None]) -> None:
        """Do something at a time of the movable clock."""
        self.engine.after((at - self.engine.moment()).total_seconds(), act)

    # -- the call that starts a job

    def send(self, key: str, land: Callable[[], Any]) -> Any:
        """Send it: it lands on its way, whatever becomes of its sender."""
        engine, chance = self.engine, self.engine.chance
        task, sent = engine.current, engine.now
        assert task is not None
        until = self._latest(key)
        latest = (until - START).total_seconds() if until else sent  # On the real clock.
        latest += self.timing.settle_seconds - SKEW_SECONDS - max(UNSEEN)
        if sent > latest >= task.port_entered:
            engine.faults["frozen call never sent"] += 1
            raise self.problem("request lost")
        kind = self.trouble.of_call(tuple(self.kinds))
        if kind != "fine":
            engine.faults[kind] += 1
        box: list[Any] = []

        def arrive() -> None:
            try:
                box.append(land())
            except self.refused as refusal:
                box.append(refusal)

        if kind == "lands late":
            at = min(sent + chance.pick(LANDS), max(latest, sent))
            engine.at(at, arrive)
            engine.pause(min(chance.pick((25.0, 5.0, 0.5)), self.patience))
            raise self.problem(kind)
        early = min(sent + chance.pick(LATENCY), max(latest, sent))
        if kind == "fine" or kind in self.arrives:
            engine.at(early, arrive)
        engine.pause(early - sent + chance.pick(LATENCY) / 2)
        if kind != "fine":
            self._answered(self.kinds[kind])
            raise self.problem(kind)
        if engine.now - sent > self.patience or not box:
            raise self.problem("answer lost")
        return self._read(box[0])

    def _read(self, answer: Any) -> Any:
        if not isinstance(answer, self.refused):
            return answer
        error, word = self.raised(answer)
        self._answered(word)
        raise error

    def _answered(self, word: str | None) -> None:
        """Note a refusal that may end the attempt for which something is being prepared or submitted."""
        task = self.engine.current
        if word is not None and task is not None and task.port in ("prepare", "submit"):
            self.answers.setdefault((task.about, self.attempt_of(task.about)), []).append(word)

    # -- everything else

    def ask(self, operation: str, effect: Callable[[], Any]) -> Any:
        """Ask the model, with what goes wrong on the way. An answer travels too, and may be overtaken."""
        fails = self.trouble.asks.hit()
        self._travel()
        if fails and self.engine.chance.below(2) == 0:
            self._fail(operation)
        try:
            answer = effect()
        except self.refused as refusal:
            answer = refusal
        self._travel()
        if fails:
            self._fail(operation)
        return self._read(answer)

    def _travel(self) -> None:
        if seconds := self.engine.chance.pick(TRAVEL):
            self.engine.pause(seconds)

    def _fail(self, operation: str) -> None:
        engine = self.engine
        task = engine.current
        engine.faults[f"cannot {operation}"] += 1
        engine.on_hurt(task, 300.0 if task is not None and task.port == "observe" else 60.0)
        error, word = self.trouble_of(operation)
        self._answered(word)
        raise error
