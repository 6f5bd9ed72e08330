"""How fast something may be asked for: places in a row, each a moment (the generic cell rate algorithm).

A scope keeps one number: the moment of its next place. Taking a place moves it on by one interval. While nobody
asks, places are saved up, at most `burst` of them, as in the token buckets by which clouds limit their calls.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

AHEAD_SECONDS: Final = 5.0
"""How far ahead places are taken: a run that comes later waits at most this long behind runs of a lower priority."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


@dataclass(frozen=True)
class Rate:
    """How many calls a second, and how many at once after a rest.

    Raises:
        ValueError: It lets nothing pass.
    """

    per_second: float
    burst: int = 1

    def __post_init__(self) -> None:
        if self.per_second <= 0 or self.burst < 1:
            raise ValueError("a rate is more than 0 a second, with a burst of at least 1")

    @property
    def interval(self) -> int:
        """Microseconds from one place to the next."""
        return max(round(1e6 / self.per_second), 1)

    def oldest(self, now: datetime) -> int:
        """Return the earliest place that can still be taken at `now`: older ones are not saved up."""
        return microseconds(now) - (self.burst - 1) * self.interval


class Pace(NamedTuple):
    """One rate that a call has to keep. Calls with an equal scope share it."""

    scope: str
    """What counts together, such as `ecs/RunTask/<account>/<region>`."""
    rate: Rate


def microseconds(moment: datetime) -> int:
    """Return a moment as the whole number of microseconds since 1970."""
    return (moment - _EPOCH) // _MICROSECOND


def moment_of(microseconds: int) -> datetime:
    """Return the moment of a number that `microseconds` gave."""
    return _EPOCH + microseconds * _MICROSECOND


def take(following: int | None, rate: Rate, now: datetime, ahead_seconds: float) -> tuple[datetime, int]:
    """Return the next place of a scope, and what the scope keeps from then on; the same if it was not taken."""
    oldest = rate.oldest(now)
    number = oldest if following is None else max(following, oldest)
    place = moment_of(number)
    return place, number + rate.interval if place <= now + timedelta(seconds=ahead_seconds) else number
