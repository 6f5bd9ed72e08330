"""What alarms are about, counted where it cannot be missed: the ends of runs, and errors in the log."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from push_pools.domain.events import RunStateChanged
    from push_pools.ports import Bus

RUNS_FAILED: Final = "RunsFailed"
"""Runs that ended FAILED or CRASHED, at least once each, as their ends are published."""
ERRORS_LOGGED: Final = "ErrorsLogged"
"""Lines of the log that somebody should see: a duplicate or an orphan, a job that is unseen, an overdue chore."""
FAILURES: Final = frozenset({"FAILED", "CRASHED"})


class CountingBus:
    """Implements `ports.Bus`: publishes on another one, and counts the runs that failed.

    The end of a run is owed until it is published, so it is counted even when a function dies on the way.
    """

    def __init__(self, bus: Bus, count: Callable[[str], None]) -> None:
        self._bus, self._count = bus, count

    def publish(self, event: RunStateChanged) -> None:
        """Put the event on the bus, then count it.

        Raises:
            NotPublished: It was not taken, or it is not known that it was.
        """
        self._bus.publish(event)
        if event.to.type in FAILURES:
            self._count(RUNS_FAILED)


class CountingErrors(logging.Handler):
    """Counts the errors that are logged, at every level that a log may have."""

    def __init__(self, count: Callable[[str], None]) -> None:
        super().__init__(logging.ERROR)
        self._do_count = count

    def emit(self, record: logging.LogRecord) -> None:
        """Count the line."""
        self._do_count(ERRORS_LOGGED)
