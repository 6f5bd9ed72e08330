"""Clocks: the real one, and one that starts where it is told and runs as fast as it is told."""

from __future__ import annotations

from datetime import UTC, datetime


class SystemClock:
    """The machine's clock."""

    speed = 1.0

    def now(self) -> datetime:
        return datetime.now(UTC)


class MovableClock:
    """A clock that begins at `start` and runs `speed` times as fast as the real one.

    Raises:
        ValueError: The speed is not above zero, or the start has no time zone.
    """

    def __init__(self, start: datetime | None = None, *, speed: float = 1.0) -> None:
        if speed <= 0:
            raise ValueError("speed must be above 0")
        if start is not None and start.tzinfo is None:
            raise ValueError("start needs a time zone, such as 2027-03-28T00:00:00Z")
        self.speed = speed
        self._origin = datetime.now(UTC)
        self._start = (start or self._origin).astimezone(UTC)

    def now(self) -> datetime:
        return self._start + (datetime.now(UTC) - self._origin) * self.speed
