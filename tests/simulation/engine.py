"""One clock, and who runs on it: hosts, whose handlers are greenlets that a seed interleaves, kills and freezes.

A handler runs until a port call, where the clock may move, another handler may go first, and its host may die or
stand still. Between two such places nothing else happens, as between two system calls of one thread.
"""

from __future__ import annotations

import heapq
import traceback
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from greenlet import getcurrent, greenlet

from tests.simulation.chance import Chance, Countdown

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

START = datetime(2027, 1, 1, tzinfo=UTC)
SWITCH_SECONDS = (0.0, 0.0, 0.001, 0.02, 0.3)
"""How long a port call takes beside others; the order of handlers comes from this."""
SLOW_SECONDS = (1.0, 3.0, 8.0, 20.0)
FREEZE_SECONDS = (20.0, 65.0, 100.0, 200.0, 400.0, 1500.0, 5000.0, 9000.0)


class Violation(BaseException):
    """The guarantee is broken. Not an `Exception`, so that no handler can survive it."""

    def __init__(self, check: str, why: str, run_id: UUID | None = None) -> None:
        self.check, self.why, self.run_id = check, why, run_id
        super().__init__(f"{check}: {why}")


class Killed(BaseException):
    """The process of this handler has died."""


class HostClock:
    """The clock of one host: the true time, and how wrong it is."""

    speed = 1.0

    def __init__(self, engine: Engine, skew_seconds: float, *, is_real: bool = False) -> None:
        self._engine = engine
        self._add = skew_seconds if is_real else skew_seconds + engine.offset

    def now(self) -> datetime:
        return START + timedelta(seconds=self._engine.now + self._add)


class Host:
    """One process: it has a clock, and dies or stands still as a whole."""

    def __init__(self, name: str, clock: HostClock) -> None:
        self.name, self.clock = name, clock
        self.tasks: set[Task] = set()
        self.frozen_until = 0.0
        self.is_alive = True
        self.app: Any = None


class Task:
    """One handler at work: a greenlet on a host."""

    __slots__ = ("about", "due", "greenlet", "host", "is_doomed", "is_over", "name", "on_end", "port", "port_entered")

    def __init__(self, host: Host, name: str, about: UUID | None) -> None:
        self.host, self.name, self.about = host, name, about
        self.is_doomed = self.is_over = False
        self.greenlet: Any = None
        self.on_end: Callable[[], None] | None = None
        self.due = float("inf")
        self.port = ""
        """The platform call that it makes, or made last."""
        self.port_entered = 0.0
        """When it began its present submit: what keeps it after that is the presumption's affair."""


class Engine:
    """The clock, the order of things, and what goes wrong with processes."""

    def __init__(self, chance: Chance) -> None:
        self.chance = chance
        self.now = 0.0
        self.offset = 0.0
        """How far the movable clock is from the real one."""
        self.faults: Counter[str] = Counter()
        self.current: Task | None = None
        self.violation: Violation | None = None
        self.story: list[str] = []
        self._heap: list[tuple[float, int, int, Callable[[], None]]] = []
        self._serial = 0
        self._hub = getcurrent()
        self._open: set[Task] = set()
        self.switches = Countdown(chance, 3.0)
        self.slowness = Countdown(chance, 0.0)
        self.kills = Countdown(chance, 0.0)
        self.freezes = Countdown(chance, 0.0)
        self.on_crash: Callable[[Task], None] = self.kill
        self.on_hurt: Callable[[Task | None, float], None] = lambda task, seconds: None
        self.on_freeze: Callable[[Task, float], None] = lambda task, seconds: None

    # -- time

    def at(self, when: float, act: Callable[[], None]) -> None:
        """Do something at a time; what is due at the same time comes in the order of asking."""
        self._serial += 1
        heapq.heappush(self._heap, (when, 0, self._serial, act))

    def after(self, seconds: float, act: Callable[[], None]) -> None:
        self.at(self.now + seconds, act)

    def moment(self, seconds: float | None = None) -> datetime:
        """Return the time of the movable clock, now or at another time of the engine."""
        return START + timedelta(seconds=self.offset + (self.now if seconds is None else seconds))

    def run(self, until: float, *, stop: Callable[[], bool] | None = None) -> None:
        """Let time pass.

        Raises:
            Violation: The guarantee was broken.
        """
        while self._heap and self._heap[0][0] <= until:
            at, _, _, act = heapq.heappop(self._heap)
            if at > self.now:
                if stop is not None and stop():
                    return
                self.now = at
            act()
            if self.violation is not None:
                raise self.violation
        self.now = max(self.now, until)

    def violate(self, check: str, why: str, run_id: UUID | None = None) -> None:
        """Report that a sentence of the guarantee does not hold."""
        if self.violation is None:
            self.violation = Violation(check, why, run_id)

    # -- handlers

    def spawn(
        self,
        host: Host,
        name: str,
        act: Callable[[], None],
        *,
        about: UUID | None = None,
        due: float = float("inf"),
        on_end: Callable[[], None] | None = None,
    ) -> Task:
        """Start a handler on a host. `due` is when its host ends it."""
        task = Task(host, name, about)
        task.due, task.on_end = due, on_end

        def body() -> None:
            try:
                act()
            except Killed:
                pass
            except Violation as violation:
                self.violation = self.violation or violation
            except Exception as error:
                where = traceback.extract_tb(error.__traceback__)[-1]
                self.violate("nothing unforeseen", f"{name}: {error!r} ({where.name})", about)
            finally:
                task.is_over = True
                host.tasks.discard(task)
                self._open.discard(task)

        task.greenlet = greenlet(body, parent=self._hub)
        host.tasks.add(task)
        self._open.add(task)
        self.after(0.0, lambda: self._resume(task))
        return task

    def close(self) -> None:
        """End the handlers that are left, where they stand: what a suspended greenlet holds is never freed."""
        for task in list(self._open):
            task.is_doomed, task.on_end = True, None
            self._resume(task)

    def _resume(self, task: Task) -> None:
        if task.is_over:
            return
        if task.host.frozen_until > self.now and not task.is_doomed:
            self.at(task.host.frozen_until, lambda: self._resume(task))
            return
        before, self.current = self.current, task
        try:
            if not task.is_doomed:
                task.greenlet.switch()
            elif task.greenlet:
                task.greenlet.throw(Killed)
            else:
                task.is_over = True
                task.host.tasks.discard(task)
                self._open.discard(task)
        finally:
            self.current = before
        if task.is_over and task.on_end is not None:
            on_end, task.on_end = task.on_end, None
            on_end()

    def pause(self, seconds: float) -> None:
        """Let the current handler wait, while others go on."""
        task = self.current
        if task is None:
            raise AssertionError("only a handler waits")
        self.after(seconds, lambda: self._resume(task))
        self._hub.switch()
        if task.is_doomed:
            raise Killed
        if self.now > task.due:
            self.faults["handler out of time"] += 1
            self.die(task)

    def place(self, _where: str) -> None:
        """A port call of the current handler begins or ends here."""
        task = self.current
        if task is None:
            return
        if task.is_doomed:
            raise Killed
        if self.kills.hit():
            self.faults["kill"] += 1
            self.die(task)
        if self.freezes.hit():
            self.freeze(task)
        if self.slowness.hit():
            seconds = self.chance.pick(SLOW_SECONDS)
            self.faults["slow call"] += 1
            self.on_hurt(task, seconds)
            self.pause(seconds)
        elif self.switches.hit():
            self.pause(self.chance.pick(SWITCH_SECONDS))

    def freeze(self, task: Task) -> None:
        """Let a whole host stand still, and go on much later."""
        seconds = self.chance.pick(FREEZE_SECONDS)
        task.host.frozen_until = self.now + seconds
        for other in task.host.tasks:
            other.due += seconds  # What stands still is not ended either: it goes on where it was.
        self.faults["freeze"] += 1
        self.on_freeze(task, seconds)
        self.pause(0.0)

    def die(self, task: Task) -> None:
        """The current handler dies here, alone or with its host.

        Raises:
            Killed: Always.
        """
        self.on_crash(task)
        self.kill(task)
        raise Killed

    def kill(self, task: Task) -> None:
        """Doom a handler: it does nothing any more."""
        if task.is_over or task.is_doomed:
            return
        task.is_doomed = True
        self.on_hurt(task, 0.0)
        if task is not self.current:
            self.after(0.0, lambda: self._resume(task))

    def kill_host(self, host: Host) -> None:
        """Doom all handlers of a host."""
        host.is_alive = False
        for task in sorted(host.tasks, key=lambda each: each.name):
            self.kill(task)


class HandlersLock:
    """Stands for a lock between the threads of one process: a handler that waits for it lets others go on."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self._is_held = engine, False

    def __enter__(self) -> None:
        while self._is_held:
            self._engine.pause(0.05)
        self._is_held = True

    def __exit__(self, *_: object) -> None:
        self._is_held = False
