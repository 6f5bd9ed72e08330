"""The local times that a rule names, without a time zone: cron, intervals, recurrence rules, one time."""

from __future__ import annotations

from bisect import bisect_left
from calendar import monthrange
from datetime import date, datetime, timedelta
from functools import lru_cache
from itertools import dropwhile, takewhile
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, cast

from push_pools.domain.schedules import DEFAULT_ANCHOR

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from dateutil.rrule import rrule

_DAY: Final = timedelta(days=1)


class Rule(Protocol):
    """Names naive times: local ones, or for elapsed time those of UTC."""

    def times(self, low: datetime, high: datetime) -> Iterable[datetime]:
        """Return the times of a half-open stretch, in order, each once."""
        ...


class Once(NamedTuple):
    moment: datetime

    def times(self, low: datetime, high: datetime) -> Iterable[datetime]:
        return (self.moment,) if low <= self.moment < high else ()


class Every(NamedTuple):
    anchor: datetime
    step: timedelta

    def times(self, low: datetime, high: datetime) -> Iterator[datetime]:
        moment = self.anchor - (self.anchor - low) // self.step * self.step
        while moment < high:
            yield moment
            moment += self.step


class _Cron:
    """A cron rule: the days that match it, and the times of each."""

    def __init__(self, expression: str, day_or: bool) -> None:
        from cronsim import CronSim

        rule = CronSim(expression, DEFAULT_ANCHOR)
        rule.day_and = rule.day_and or not day_or
        self._rule = rule
        self._days: dict[tuple[int, int], tuple[int, ...]] = {}
        self._clock = tuple(
            timedelta(hours=hour, minutes=minute) for hour in sorted(rule.hours) for minute in sorted(rule.minutes)
        )

    def times(self, low: datetime, high: datetime) -> Iterator[datetime]:
        clock = self._clock
        for day in self._matching_days(low.date(), high.date()):
            begin = datetime(day.year, day.month, day.day)  # noqa: DTZ001 - Local to the schedule's time zone.
            if low <= begin and begin + _DAY <= high:
                for moment in clock:
                    yield begin + moment
            else:
                for moment in clock[bisect_left(clock, low - begin) : bisect_left(clock, high - begin)]:
                    yield begin + moment

    def _matching_days(self, first: date, last: date) -> Iterator[date]:
        year, month = first.year, first.month
        while (year, month) <= (last.year, last.month):
            if month in self._rule.months:
                for number in self._days_of(year, month):
                    if first <= (day := date(year, month, number)) <= last:
                        yield day
            year, month = (year, month + 1) if month < 12 else (year + 1, 1)

    def _days_of(self, year: int, month: int) -> tuple[int, ...]:
        """Return the days of a month that match: the same for months of one length that begin on the same weekday."""
        shape = monthrange(year, month)
        if shape not in self._days:
            days = range(1, shape[1] + 1)
            self._days[shape] = tuple(day for day in days if self._rule.match_day(date(year, month, day)))
        return self._days[shape]


cron_rule = lru_cache(maxsize=4096)(_Cron)


def recurrence(parsed: Any) -> Rule:
    return _RuleSet(parsed) if hasattr(parsed, "_rrule") else _one_rule(parsed)


def _one_rule(rule: Any) -> Rule:
    return _Endless(rule) if rule._count is None else _Counted(rule)


def is_by_the_hour(rule: Any) -> bool:
    return rule._freq >= _HOURLY and "byhour" not in rule._original_rule


class _RuleSet:
    """Rules and dates, less other rules and dates."""

    def __init__(self, parts: Any) -> None:
        self._in, self._out = [*map(_one_rule, parts._rrule)], [*map(_one_rule, parts._exrule)]
        self._dates, self._exdates = frozenset(parts._rdate), frozenset(parts._exdate)

    def times(self, low: datetime, high: datetime) -> Iterable[datetime]:
        out = {moment for rule in self._out for moment in rule.times(low, high)} | self._exdates
        found = {moment for rule in self._in for moment in rule.times(low, high)}
        found |= {moment for moment in self._dates if low <= moment < high}
        return sorted(found - out)


class _Counted:
    """A rule with COUNT has to be counted from its beginning; the library keeps what it has counted."""

    def __init__(self, rule: Any) -> None:
        self._rule: rrule = rule.replace(cache=True)

    def times(self, low: datetime, high: datetime) -> Iterator[datetime]:
        return takewhile(lambda moment: moment < high, dropwhile(lambda moment: moment < low, self._rule))


class _Endless:
    """A rule without COUNT can begin anywhere on its grid, so that nothing is counted from years ago."""

    def __init__(self, rule: Any) -> None:
        self._rule, self._begin, self._until = (
            rule,
            cast("datetime", rule._dtstart),
            cast("datetime | None", rule._until),
        )

    def times(self, low: datetime, high: datetime) -> Iterator[datetime]:
        until = high if self._until is None else min(self._until, high)
        rule: rrule = self._rule.replace(dtstart=self._beginning(low), until=until)
        for moment in rule:
            if moment >= high:
                return
            if moment >= low:
                yield moment

    def _beginning(self, low: datetime) -> datetime:
        """Return a beginning with the same rhythm, two periods early, as a rule's first week may be a part of one."""
        unit = _UNITS.get(self._rule._freq)
        if unit is None:
            return self._begin
        period = unit * cast("int", self._rule._interval)
        return self._begin + max((low - self._begin) // period - 2, 0) * period


_HOURLY: Final = 4
_UNITS: Final = {
    2: timedelta(weeks=1),
    3: timedelta(days=1),
    4: timedelta(hours=1),
    5: timedelta(minutes=1),
    6: timedelta(seconds=1),
}
"""The periods of dateutil's frequencies WEEKLY to SECONDLY; months and years are few and not of one length."""
