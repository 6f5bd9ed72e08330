"""The clocks of doubles and tests: the computer's own, and one that stands still until it is moved."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Protocol

START = datetime(2027, 1, 1, tzinfo=UTC)


class Clock(Protocol):
    """Anything that tells the time."""

    def now(self) -> datetime:
        """Return the time, aware of its zone."""
        ...


class RealClock:
    """The computer's own clock."""

    def now(self) -> datetime:
        """Return the time in UTC."""
        return datetime.now(UTC)


class ManualClock:
    """Shows the time it was set to; `advance` moves it."""

    speed = 1.0

    def __init__(self, start: datetime = START) -> None:
        self._now = start

    def now(self) -> datetime:
        return self._now

    def advance(self, seconds: float) -> datetime:
        """Move the clock on and return the new time."""
        self._now += timedelta(seconds=seconds)
        return self._now

    def seconds(self) -> float:
        """Return the time as seconds since 1970."""
        return self._now.timestamp()
