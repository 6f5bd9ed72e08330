"""The instants of a schedule, through every change of the clock.

Rules are asked for local times, and this file maps them to instants, so that daylight saving time means the same for
every kind of schedule. A stretch of time with one offset from UTC is a *span*; within it the mapping is a subtraction.

- A cron rule with fixed hours, a recurrence rule and an interval of a day or more name local times: one that the clock
  leaps over is shifted by the length of the leap or skipped (`dst_gap`), one that comes twice counts once, the first
  time, or twice (`dst_fold`).
- A cron rule whose hours begin with `*`, and a recurrence rule by the hour or less without `BYHOUR`, go by the clock on
  the wall as it turns, as other crons do: they fire whenever the clock shows a time of the rule. A shorter interval
  goes by elapsed time. For these the options mean nothing.
- `at` is an instant.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from push_pools.domain.recurrence import Every, Once, Rule, cron_rule, is_by_the_hour, recurrence
from push_pools.domain.schedules import DEFAULT_ANCHOR, DstFold, DstGap, load_timezone, parse_rrule

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import tzinfo

    from push_pools.domain.schedules import ScheduleFields

LAST_YEAR: Final = 9000
EMPTY_YEARS: Final = 50
"""After so many years in a row without an instant a schedule counts as never due again."""
TICK: Final = timedelta(microseconds=1)
"""The least time between two instants."""
_DAY: Final = timedelta(days=1)
_ZERO: Final = timedelta()


class FireTime(NamedTuple):
    """One instant of a schedule."""

    utc: datetime
    """The nominal instant; it names the run."""
    local: datetime
    """The same instant as clocks of the schedule's time zone show it."""
    note: str
    """What a change of the clock did to it, or empty."""
    due: datetime
    """When the run is due: `utc`, put off by the schedule's jitter."""


def instants(schedule: ScheduleFields, after: datetime, until: datetime | None) -> Iterator[FireTime]:
    """Yield the instants of a schedule after a moment, without its jitter; see `planning.fire_times`."""
    plan = _plan_of(schedule)
    low = _naive_utc(after) + TICK
    if schedule.start_date is not None:
        low = max(low, _naive_utc(schedule.start_date))
    high = datetime(LAST_YEAR + 1, 1, 1)  # noqa: DTZ001 - Naive values are in UTC here.
    for end in (until, schedule.end_date):
        if end is not None:
            high = min(high, _naive_utc(end) + TICK)
    return plan.instants(low, high)


class _Plan(NamedTuple):
    """A rule in a time zone."""

    rule: Rule
    zone: tzinfo
    shifts: bool
    """Whether times that the clock leaps over are shifted, else left out."""
    once: bool
    """Whether times that come twice count the first time only."""
    elapsed: bool
    """Whether the rule names times of UTC."""

    def instants(self, low: datetime, high: datetime) -> Iterator[FireTime]:
        """Yield the instants of a half-open stretch of naive UTC, in order, each once."""
        shifted: list[tuple[datetime, datetime]] = []
        shown = datetime.min  # noqa: DTZ901 - The latest time that local clocks have shown.
        empty = 0
        year = max((low - 2 * _DAY).year, 1)  # So that what the clocks did just before is known.
        while year <= LAST_YEAR:
            found = False
            for span in _spans(self.zone, year):
                if span.begin >= high:
                    return
                if self.shifts and span.offset > span.before:
                    shifted[:] = sorted((*shifted, *self._leapt_over(span, low)))
                if span.end > low:
                    for fire in self._in_span(span, low, high, shown, shifted):
                        found = True
                        yield fire
                shown = max(shown, span.end + span.offset)
            empty = 0 if found else empty + 1
            if empty > EMPTY_YEARS:
                return
            year += 1

    def _leapt_over(self, span: _Span, low: datetime) -> Iterator[tuple[datetime, datetime]]:
        for wall in self.rule.times(span.begin + span.before, span.begin + span.offset):
            if wall - span.before >= low:
                yield wall - span.before, wall

    def _in_span(
        self, span: _Span, low: datetime, high: datetime, shown: datetime, shifted: list[tuple[datetime, datetime]]
    ) -> Iterator[FireTime]:
        begin, end, offset = max(span.begin, low), min(span.end, high), span.offset
        again = min(max(begin + offset, shown), end + offset)  # Before this the clock shows times again.
        first = max(min(end + offset, span.end + span.after), again)  # From this on they will be shown again.
        if not self.once:
            yield from _merged(self._walls(span, begin + offset, again), span, shifted, "second of two {}")
        yield from _merged(self._walls(span, again, first), span, shifted, "")
        yield from _merged(self._walls(span, first, end + offset), span, shifted, "first of two {}")
        while shifted and shifted[0][0] < end:
            yield _shifted_fire(*shifted.pop(0), span)

    def _walls(self, span: _Span, low: datetime, high: datetime) -> Iterable[datetime]:
        if low >= high:
            return ()
        if not self.elapsed:
            return self.rule.times(low, high)
        return (moment + span.offset for moment in self.rule.times(low - span.offset, high - span.offset))


def _merged(
    walls: Iterable[datetime], span: _Span, shifted: list[tuple[datetime, datetime]], note: str
) -> Iterator[FireTime]:
    offset, zone = span.offset, span.zone
    for wall in walls:
        utc = (wall - offset).replace(tzinfo=UTC)
        said = note.format(_clock(wall)) if note else ""
        if shifted:
            naive = wall - offset
            while shifted and shifted[0][0] < naive:
                yield _shifted_fire(*shifted.pop(0), span)
            if shifted and shifted[0][0] == naive:
                said = f"also for {_clock(shifted.pop(0)[1])}, which clocks leap over"
        yield FireTime(utc, wall.replace(tzinfo=zone), said, utc)


def _shifted_fire(utc: datetime, wall: datetime, span: _Span) -> FireTime:
    moment = utc.replace(tzinfo=UTC)
    local = (utc + span.offset).replace(tzinfo=span.zone)
    return FireTime(moment, local, f"shifted from {_clock(wall)}, which clocks leap over", moment)


def _clock(wall: datetime) -> str:
    return wall.strftime("%H:%M:%S" if wall.second else "%H:%M")


# -- spans of a time zone ------------------------------------------------------


class _Span(NamedTuple):
    """A stretch of naive UTC in which a time zone has one offset; it ends with the year at the latest."""

    begin: datetime
    end: datetime
    before: timedelta
    """The offset just before."""
    offset: timedelta
    after: timedelta
    """The offset just after."""
    zone: timezone
    """The offset as a time zone."""


_PROBE: Final = timedelta(days=1)
"""No time zone changes its offset and changes it back within this time."""


@lru_cache(maxsize=4096)
def _spans(zone: tzinfo, year: int) -> tuple[_Span, ...]:
    begin, end = datetime(year, 1, 1), datetime(year + 1, 1, 1)  # noqa: DTZ001 - Naive UTC.
    before = _offset(zone, begin - TICK)
    changes = list(_changes(zone, begin, end))
    spans = []
    for index, (start, offset) in enumerate(changes):
        stop, after = changes[index + 1] if index + 1 < len(changes) else (end, _offset(zone, end))
        spans.append(_Span(start, stop, before, offset, after, timezone(offset)))
        before = offset
    return tuple(spans)


def _changes(zone: tzinfo, begin: datetime, end: datetime) -> Iterator[tuple[datetime, timedelta]]:
    moment, offset = begin, _offset(zone, begin)
    yield moment, offset
    while moment < end:
        probe = min(moment + _PROBE, end - TICK)
        if probe <= moment:
            return
        if (new := _offset(zone, probe)) != offset:
            low, high = moment, probe
            while high - low > TICK:
                middle = low + (high - low) // 2
                low, high = (middle, high) if _offset(zone, middle) == offset else (low, middle)
            moment, offset = high, _offset(zone, high)
            yield moment, offset
            if offset != new:
                continue  # Two changes between two probes.
        moment = probe


def _offset(zone: tzinfo, naive_utc: datetime) -> timedelta:
    return naive_utc.replace(tzinfo=UTC).astimezone(zone).utcoffset() or _ZERO


# -- rules ---------------------------------------------------------------------


def _plan_of(schedule: ScheduleFields) -> _Plan:
    return _compiled(
        schedule.cron,
        schedule.day_or,
        schedule.interval,
        schedule.anchor_date,
        schedule.rrule,
        schedule.at,
        schedule.timezone,
        schedule.dst_gap is DstGap.SHIFT,
        schedule.dst_fold is DstFold.ONCE,
    )


@lru_cache(maxsize=4096)
def _compiled(
    cron: str | None,
    day_or: bool,
    interval: float | None,
    anchor: datetime | None,
    rule: str | None,
    at: datetime | None,
    timezone_name: str,
    shifts: bool,
    once: bool,
) -> _Plan:
    zone = load_timezone(timezone_name)
    if cron is not None:
        by_clock = cron.split()[1].startswith("*")
        return _Plan(cron_rule(cron, day_or), zone, shifts and not by_clock, once and not by_clock, elapsed=False)
    if rule is not None:
        parsed = parse_rrule(rule, zone)
        by_clock = all(map(is_by_the_hour, getattr(parsed, "_rrule", [parsed])))
        return _Plan(recurrence(parsed), zone, shifts and not by_clock, once and not by_clock, elapsed=False)
    if at is not None:
        return _Plan(Once(_naive_utc(at)), zone, False, False, elapsed=True)
    assert interval is not None
    begin = DEFAULT_ANCHOR.replace(tzinfo=zone) if anchor is None else anchor
    step = timedelta(seconds=interval)
    if step < _DAY:
        return _Plan(Every(_naive_utc(begin), step), zone, False, False, elapsed=True)
    return _Plan(Every(begin.astimezone(zone).replace(tzinfo=None), step), zone, shifts, once, elapsed=False)


def _naive_utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(tzinfo=None)
