"""When a schedule comes due: its instants, through every change of the clock, and which of the missed ones still count.

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

import hashlib
from bisect import bisect_left
from calendar import monthrange
from collections import deque
from datetime import UTC, date, datetime, timedelta, timezone
from functools import lru_cache
from itertools import dropwhile, takewhile
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, cast

from push_pools.domain.durations import format_duration
from push_pools.domain.pools import CatalogueRecord
from push_pools.domain.runs import Phase
from push_pools.domain.schedules import DEFAULT_ANCHOR, DstFold, DstGap, ScheduleFields, load_timezone, parse_rrule

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import tzinfo
    from uuid import UUID

    from dateutil.rrule import rrule

    from push_pools.domain.deployments import Deployment
    from push_pools.domain.runs import FlowRun
    from push_pools.domain.schedules import Schedule

CATCH_UP_CAP: Final = 1000
"""Most missed instants of a schedule that are made good at once: the newest ones."""
NOT_MISSED: Final = timedelta(minutes=5)
"""How late an instant may be planned, or a run claimed, without being missed."""
LAST_YEAR: Final = 9000
EMPTY_YEARS: Final = 50
"""After so many years in a row without an instant a schedule counts as never due again."""

_TICK: Final = timedelta(microseconds=1)
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


def fire_times(
    schedule: ScheduleFields,
    after: datetime,
    *,
    until: datetime | None = None,
    deployment_id: UUID | None = None,
) -> Iterator[FireTime]:
    """Yield the instants of a schedule after a moment, in order, each once; up to and with `until`.

    Whether the schedule is active does not matter. It ends when the schedule does, after 50 years without an instant,
    and in the year 9000. The jitter derives from the deployment's id, the schedule's and the instant, and never puts
    one off beyond the next.
    """
    if not schedule.jitter:
        return _instants(schedule, after, until)
    return _jittered(schedule, after, until, str(deployment_id or ""))


def names(schedule: ScheduleFields, instant: datetime, *, deployment_id: UUID | None = None) -> FireTime | None:
    """Return the instant of a schedule at that moment, or `None` if it has none there."""
    return next(fire_times(schedule, instant - _TICK, until=instant, deployment_id=deployment_id), None)


# -- catch-up ------------------------------------------------------------------


class DueFires(NamedTuple):
    """What is to be planned of a schedule."""

    fires: Sequence[FireTime]
    """In order; the missed ones that still count come first."""
    capped: bool = False
    """Whether more were missed than are made good."""


def due_fires(
    schedule: ScheduleFields,
    planned_from: datetime,
    now: datetime,
    look_ahead: timedelta,
    *,
    grace: timedelta = NOT_MISSED,
    held_until: datetime | None = None,
    deployment_id: UUID | None = None,
) -> DueFires:
    """Return the instants after `planned_from` to plan now: those within the look-ahead, and of missed ones what
    the catch-up policy makes good.

    Missed is what was due longer than `grace` ago, and what was due by `held_until`: until then a pause held it up.
    A long absence costs no more than the instants that are returned, and a little.
    """
    edge = now - grace - _TICK  # What was due by then is missed.
    if held_until is not None:
        edge = min(max(edge, held_until), now)
    # An instant is due before the next one, so of those before the edge only the last may be due after it.
    last = _newest(schedule, planned_from, edge, 1, deployment_id) if schedule.jitter else ()
    ahead = [
        *last,
        *fire_times(schedule, max(planned_from, edge), until=now + look_ahead, deployment_id=deployment_id),
    ]
    open_ = [fire for fire in ahead if fire.due > edge]
    missed, capped = _caught_up(schedule, planned_from, now, edge, open_, deployment_id)
    return DueFires([*missed, *open_], capped)


def _caught_up(
    schedule: ScheduleFields,
    planned_from: datetime,
    now: datetime,
    edge: datetime,
    open_: Sequence[FireTime],
    deployment_id: UUID | None,
) -> tuple[Sequence[FireTime], bool]:
    limit = schedule.catchup_seconds()
    if schedule.catchup == "none":
        return (), False
    if schedule.catchup == "latest":
        if any(fire.due <= now for fire in open_):
            return (), False  # A newer one is due.
        last = _newest(schedule, planned_from, edge, 2, deployment_id)  # The last may be put off beyond the edge.
        return [fire for fire in last if fire.due <= edge][-1:], False
    oldest = planned_from
    if limit is not None:
        # One more than the limit, as an instant before it may be put off into it.
        first = _newest(schedule, planned_from, now - timedelta(seconds=limit), 1, deployment_id)
        oldest = first[0].utc - _TICK if first else planned_from
    found = _newest(schedule, oldest, edge, CATCH_UP_CAP + 2, deployment_id)
    missed = [fire for fire in found if fire.due <= edge and _within(fire, now, limit)]
    return missed[-CATCH_UP_CAP:], len(missed) > CATCH_UP_CAP


def _within(fire: FireTime, now: datetime, limit: float | None) -> bool:
    return limit is None or now - fire.due <= timedelta(seconds=limit)


def _newest(
    schedule: ScheduleFields, after: datetime, until: datetime, count: int, deployment_id: UUID | None
) -> Sequence[FireTime]:
    """Return the last instants of a stretch of time, looking back ever further."""
    reach = timedelta(hours=1)
    while until > after:
        begin = max(after, until - reach)
        found = deque(fire_times(schedule, begin, until=until, deployment_id=deployment_id), maxlen=count)
        if len(found) == count or begin == after:
            return list(found)
        reach *= 4
    return ()


class PlanMark(CatalogueRecord):
    """How far planning has come: of the whole ledger, or of a part of it that was left behind.

    The tick writes the mark `ledger`. A pool or queue that is paused, and a deployment that could not be planned,
    has a mark of its own while that lasts, so that a tick writes few marks however many deployments there are.
    """

    name: str
    """`ledger`, `pool/<name>`, `queue/<pool>/<name>` or `deployment/<id>`."""
    until: datetime
    """Instants up to this were planned, or given up by their catch-up policy."""
    planned_at: datetime
    """When the catalogue was read for it."""
    reason: str = ""
    """Why the part was left behind."""

    @property
    def key(self) -> str:
        return self.name


# -- at the claim --------------------------------------------------------------


def why_skip(
    run: FlowRun, deployment: Deployment | None, now: datetime, *, grace: timedelta = NOT_MISSED
) -> str | None:
    """Return why a run that was just claimed is not wanted any more, or `None` if it is.

    Only runs that a schedule planned are judged, and only before their first attempt has begun: what was begun is
    carried through. Whether a run is too late is judged by its first claim, and not at all if it waited for a slot:
    a queue is there to wait in.
    """
    ref = run.schedule
    if ref is None or run.attempt > 1 or run.phase is not Phase.CLAIMED:
        return None
    if deployment is None:
        return f"the deployment {run.deployment!r} was deleted"
    if deployment.is_paused:
        return _paused("deployment", deployment.key, deployment.pause_note)
    schedule = next((each for each in deployment.schedules if each.id == ref.id), None)
    if schedule is None:
        return "its schedule was removed"
    if not schedule.active:
        return _paused("schedule", schedule.describe(), schedule.pause_note)
    fire = names(schedule, run.scheduled_time, deployment_id=deployment.id)
    if fire is None:
        at = run.scheduled_time.astimezone(load_timezone(schedule.timezone)).isoformat()
        return f"its schedule was changed ({schedule.describe()}) and names {at} no more"
    if run.slots or run.job is not None:
        return None
    return _too_late(schedule, fire, deployment.id, run.tried_since or now, grace)


def _paused(kind: str, name: str, note: str) -> str:
    return f"the {kind} {name} is paused" + (f": {note}" if note else "")


def _too_late(schedule: Schedule, fire: FireTime, deployment_id: UUID, now: datetime, grace: timedelta) -> str | None:
    late = now - fire.due
    limit = schedule.catchup_seconds()
    if late <= max(grace, timedelta(seconds=limit or 0)) or schedule.catchup == "all":
        return None
    missed = f"it is {format_duration(late // timedelta(seconds=1))} late"
    if schedule.catchup != "latest":
        return f"{missed}, and its schedule has catchup {schedule.catchup}"
    newer = next(fire_times(schedule, fire.utc, until=now, deployment_id=deployment_id), None)
    if newer is None or newer.due > now:
        return None
    return f"{missed}, and {newer.local.isoformat()} was due since; its schedule has catchup latest"


# -- jitter --------------------------------------------------------------------


def _jittered(
    schedule: ScheduleFields, after: datetime, until: datetime | None, deployment_id: str
) -> Iterator[FireTime]:
    seed = f"{deployment_id}/{getattr(schedule, 'id', '')}/".encode()
    waiting: FireTime | None = None
    for fire in _instants(schedule, after, None):  # The one after `until` bounds the last one's jitter.
        if waiting is not None:
            yield _put_off(waiting, seed, min(schedule.jitter, (fire.utc - waiting.utc).total_seconds()))
        waiting = fire
        if until is not None and fire.utc > until:
            return
    if waiting is not None:
        yield _put_off(waiting, seed, schedule.jitter)


def _put_off(fire: FireTime, seed: bytes, most: float) -> FireTime:
    digest = hashlib.sha256(seed + fire.utc.isoformat().encode()).digest()
    # Whole milliseconds, rounded down, stay below the bound.
    milliseconds = int.from_bytes(digest[:6], "big") * int(most * 1000) >> 48
    return fire._replace(due=fire.utc + timedelta(milliseconds=milliseconds))


# -- instants ------------------------------------------------------------------


def _instants(schedule: ScheduleFields, after: datetime, until: datetime | None) -> Iterator[FireTime]:
    plan = _plan_of(schedule)
    low = _naive_utc(after) + _TICK
    if schedule.start_date is not None:
        low = max(low, _naive_utc(schedule.start_date))
    high = datetime(LAST_YEAR + 1, 1, 1)  # noqa: DTZ001 - Naive values are in UTC here.
    for end in (until, schedule.end_date):
        if end is not None:
            high = min(high, _naive_utc(end) + _TICK)
    return plan.instants(low, high)


def _naive_utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(tzinfo=None)


class _Rule(Protocol):
    """Names naive times: local ones, or for elapsed time those of UTC."""

    def times(self, low: datetime, high: datetime) -> Iterable[datetime]:
        """Return the times of a half-open stretch, in order, each once."""
        ...


class _Plan(NamedTuple):
    """A rule in a time zone."""

    rule: _Rule
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
    before = _offset(zone, begin - _TICK)
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
        probe = min(moment + _PROBE, end - _TICK)
        if probe <= moment:
            return
        if (new := _offset(zone, probe)) != offset:
            low, high = moment, probe
            while high - low > _TICK:
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
        return _Plan(_cron(cron, day_or), zone, shifts and not by_clock, once and not by_clock, elapsed=False)
    if rule is not None:
        parsed = parse_rrule(rule, zone)
        by_clock = all(map(_is_by_the_hour, getattr(parsed, "_rrule", [parsed])))
        return _Plan(_recurrence(parsed), zone, shifts and not by_clock, once and not by_clock, elapsed=False)
    if at is not None:
        return _Plan(_Once(_naive_utc(at)), zone, False, False, elapsed=True)
    assert interval is not None
    begin = DEFAULT_ANCHOR.replace(tzinfo=zone) if anchor is None else anchor
    step = timedelta(seconds=interval)
    if step < _DAY:
        return _Plan(_Every(_naive_utc(begin), step), zone, False, False, elapsed=True)
    return _Plan(_Every(begin.astimezone(zone).replace(tzinfo=None), step), zone, shifts, once, elapsed=False)


class _Once(NamedTuple):
    moment: datetime

    def times(self, low: datetime, high: datetime) -> Iterable[datetime]:
        return (self.moment,) if low <= self.moment < high else ()


class _Every(NamedTuple):
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


_cron = lru_cache(maxsize=4096)(_Cron)


# -- recurrence rules ----------------------------------------------------------


def _recurrence(parsed: Any) -> _Rule:
    return _RuleSet(parsed) if hasattr(parsed, "_rrule") else _one_rule(parsed)


def _one_rule(rule: Any) -> _Rule:
    return _Endless(rule) if rule._count is None else _Counted(rule)


def _is_by_the_hour(rule: Any) -> bool:
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
