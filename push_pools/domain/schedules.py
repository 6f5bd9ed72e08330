"""When a deployment's runs are due: what a schedule may say, and how a redeploy recognises it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from difflib import get_close_matches
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Final, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    JsonValue,
    ValidationError,
    field_validator,
    model_validator,
)

from push_pools.domain.durations import Duration, format_duration, parse_duration
from push_pools.domain.errors import InvalidInput
from push_pools.domain.problems import clip, problems_of
from push_pools.domain.records import Record, UserInput
from push_pools.domain.values import JsonObject, Name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from dateutil.rrule import rrule, rruleset

DEFAULT_ANCHOR: Final = datetime(2020, 1, 1)  # noqa: DTZ001 - Local to the schedule's time zone.
"""Where intervals and recurrence rules without a beginning of their own count from, in the schedule's time zone.

A fixed moment, so that a redeploy does not shift what is planned. It is Prefect's, too.
"""

CRON_ALIASES: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}

_CRON_EXAMPLE = 'write minute, hour, day, month and weekday, such as "0 7 * * 1-5"'
_RRULE_EXAMPLE = 'write a rule such as "FREQ=WEEKLY;BYDAY=MO;BYHOUR=7;BYMINUTE=0;BYSECOND=0"'
_TIME_EXAMPLE = 'write it like "2026-01-31T08:00:00", in the schedule\'s time zone, or with an offset'
_TIMES = ("at", "anchor_date", "start_date", "end_date")
_KINDS = ("cron", "interval", "rrule", "at")
_LONGEST_RRULE = 6500  # As in Prefect.
MOST_COUNT: Final = 100_000
"""The largest COUNT of a recurrence rule, whose times have to be counted from its first."""


class Overlap(StrEnum):
    """What happens when a run is due while an earlier run of the deployment is unfinished."""

    ALLOW = "allow"
    SKIP = "skip"
    BUFFER_ONE = "buffer_one"
    CANCEL_OTHER = "cancel_other"


class DstGap(StrEnum):
    """What happens to a local time that the clock leaps over."""

    SHIFT = "shift"
    SKIP = "skip"


class DstFold(StrEnum):
    """What happens to a local time that the clock shows twice."""

    ONCE = "once"
    TWICE = "twice"


# -- the values of keys --------------------------------------------------------


def _parse_catchup(value: object) -> str:
    if value in ("all", "latest", "none"):
        return str(value)
    if isinstance(value, str) and value.startswith("within "):
        return f"within {format_duration(parse_duration(value.removeprefix('within ')))}"
    raise ValueError('it is all, latest, none, or a limit such as "within 2h"')


def _parse_time(value: object) -> datetime:
    try:
        time = value if isinstance(value, datetime) else datetime.fromisoformat(_text(value))
    except (TypeError, ValueError):
        raise ValueError(f"it is not a time; {_TIME_EXAMPLE}") from None
    if not 1970 <= time.year <= 9000:
        raise ValueError(f"the year {time.year} is out of range; {_TIME_EXAMPLE}")
    return time


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    raise TypeError


Catchup = Annotated[str, BeforeValidator(_parse_catchup)]
LocalTime = Annotated[datetime, BeforeValidator(_parse_time)]


# -- the schedule --------------------------------------------------------------


class ScheduleFields(BaseModel, defer_build=True):  # Built within what has schedules.
    """What a schedule says; exactly one of `cron`, `interval`, `rrule` and `at` is set."""

    cron: str | None = None
    """Five fields, or an alias such as `@daily`; kept as five fields."""
    day_or: bool = True
    """Whether a day matches by day of month *or* weekday where `cron` restricts both; else by both."""
    interval: float | None = None
    """Seconds from one run to the next."""
    anchor_date: datetime | None = None
    """A moment at which the interval begins; by default 2020-01-01T00:00 in the time zone."""
    rrule: str | None = None
    """A recurrence rule by RFC 5545, in local time."""
    at: datetime | None = None
    """The moment of a single run."""
    timezone: str = "UTC"
    """Name in the IANA database."""
    slug: str | None = None
    """A name by which a redeploy recognises the schedule, whatever else changed."""
    note: str = ""
    parameters: dict[str, JsonValue] = Field(default_factory=dict)
    """Parameters over those of the deployment."""
    job_variables: dict[str, Any] = Field(default_factory=dict)
    """Job variables over those of the deployment."""
    catchup: str = "latest"
    """What becomes of missed runs: `all`, `latest`, `none`, or `within <duration>`."""
    overlap: Overlap = Overlap.ALLOW
    jitter: float = 0.0
    """Most seconds by which a run is put off, a fixed amount for each run."""
    start_date: datetime | None = None
    """No run is due before."""
    end_date: datetime | None = None
    """No run is due after."""
    dst_gap: DstGap = DstGap.SHIFT
    dst_fold: DstFold = DstFold.ONCE

    def describe(self) -> str:
        """Return what makes runs due, in a few words."""
        if self.interval is not None:
            return f"every {format_duration(self.interval)}"
        if self.at is not None:
            return f"at {self.at.isoformat()}"
        rule = f"cron {self.cron!r}" if self.cron else f"rrule {self.rrule!r}"
        return f"{rule} {self.timezone}"

    def catchup_seconds(self) -> float | None:
        """Return how late a missed run may be under `within <duration>`; `None` under another policy."""
        limit = self.catchup.removeprefix("within ")
        return parse_duration(limit) if limit != self.catchup else None


class Schedule(Record, ScheduleFields):
    """One schedule of a deployment, as it is stored. It was checked when it was written."""

    id: str
    """Random, minted when first stored; run ids derive from it."""
    version: int = 1
    """Goes up when the schedule is changed."""
    active: bool = True
    """Whether runs are planned."""
    pause_note: str = ""
    """Why it is paused."""
    planned_from: datetime | None = None
    """When it was made, last changed or resumed: instants before are not planned any more."""

    def changed(self, now: datetime | None, **fields: Any) -> Schedule:
        """Return the schedule at its next version, with these fields, planned from `now` on."""
        changed = self.model_copy(update={**fields, "version": self.version + 1, "planned_from": now})
        return changed.model_copy(update={"pause_note": ""}) if changed.active else changed


class ScheduleSpec(UserInput, ScheduleFields):
    """One schedule as a user writes it. Times without an offset are local to `timezone`."""

    active: bool | None = None
    """Whether runs are planned; left out, a schedule that was paused stays paused."""
    interval: Duration | None = None
    """From one run to the next: seconds, or a duration such as `15m`."""
    anchor_date: LocalTime | None = None
    """A moment at which the interval begins; by default 2020-01-01T00:00 in the time zone."""
    at: LocalTime | None = None
    """The moment of a single run."""
    slug: Name | None = None
    """A name by which a redeploy recognises the schedule, whatever else changed."""
    note: str = Field(default="", max_length=500)
    parameters: JsonObject = Field(default_factory=dict)
    """Parameters over those of the deployment."""
    job_variables: JsonObject = Field(default_factory=dict)
    """Job variables over those of the deployment."""
    catchup: Catchup = "latest"
    """What becomes of missed runs: `all`, `latest`, `none`, or `within <duration>`."""
    jitter: Duration = 0.0
    """How long a run is put off at most, by a fixed amount for each run."""
    start_date: LocalTime | None = None
    """No run is due before."""
    end_date: LocalTime | None = None
    """No run is due after."""

    @model_validator(mode="before")
    @classmethod
    def _leave_out_nulls(cls, value: object) -> object:
        return {key: item for key, item in value.items() if item is not None} if isinstance(value, Mapping) else value

    @field_validator("cron")
    @classmethod
    def _check_cron(cls, value: str | None) -> str | None:
        return value if value is None else check_cron(value)

    @field_validator("rrule")
    @classmethod
    def _check_rrule(cls, value: str | None) -> str | None:
        if value is not None:
            check_rrule(value)
        return value

    @field_validator("interval")
    @classmethod
    def _check_interval(cls, value: float | None) -> float | None:
        if value is not None and value < 1:
            raise ValueError('it is shorter than a second; write a longer one, such as "15m"')
        return value

    @field_validator("timezone")
    @classmethod
    def _check_timezone(cls, value: str) -> str:
        load_timezone(value)
        return value

    @model_validator(mode="after")
    def _check_whole(self) -> Self:
        self._check_kind()
        self._check_companions()
        self._make_times_aware()
        if self.start_date and self.end_date and self.start_date >= self.end_date:
            raise ValueError("start_date is not before end_date; swap them")
        return self

    def _check_kind(self) -> None:
        given = [name for name in _KINDS if getattr(self, name) is not None]
        if len(given) != 1:
            names = " and ".join(given) or "none of them"
            raise ValueError(
                f"a schedule has exactly one of cron, interval, rrule and at, and this one has {names}; "
                f'keep one, such as cron: "0 7 * * *"'
            )

    def _check_companions(self) -> None:
        if self.anchor_date is not None and self.interval is None:
            raise ValueError("anchor_date goes with interval only; leave it out")
        if not self.day_or and self.cron is None:
            raise ValueError("day_or goes with cron only; leave it out")
        if self.cron is not None and not self.day_or:
            check_cron(self.cron, day_or=False)
        if self.interval is not None and self.jitter >= self.interval:
            raise ValueError("jitter is not shorter than interval; make it shorter")

    def _make_times_aware(self) -> None:
        zone = load_timezone(self.timezone)
        for name in _TIMES:
            if (time := getattr(self, name)) is not None:
                # The model is frozen, and not yet anybody's.
                object.__setattr__(self, name, _aware(name, time, zone))

    def fields(self, *, active: bool) -> dict[str, Any]:
        """Return what is stored of the schedule; `active` counts where the user did not say."""
        return {**self.model_dump(), "active": active if self.active is None else self.active}


def _aware(name: str, time: datetime, zone: tzinfo) -> datetime:
    if time.tzinfo is None:
        time = time.replace(tzinfo=zone)
        if time.astimezone(UTC).astimezone(zone).replace(tzinfo=None) != time.replace(tzinfo=None):
            raise ValueError(f"{name}: clocks in {zone} leap over {time.replace(tzinfo=None)}; write another time")
    # A fixed offset: times with a zone are never equal to others while clocks are set back.
    return time.astimezone(timezone(time.utcoffset() or timedelta()))


def parse_schedule(data: object) -> ScheduleSpec:
    """Return a schedule from what a user wrote.

    Raises:
        InvalidInput: With every problem, one sentence each.
    """
    try:
        return ScheduleSpec.model_validate(data)
    except ValidationError as error:
        problems = problems_of(ScheduleSpec, error)
        raise InvalidInput("; ".join(str(each.below("schedule")) for each in problems)) from None


def past_of(schedule: ScheduleFields, now: datetime) -> tuple[str, str] | None:
    """Return the key by which a schedule is over before it begins, and what is wrong with it; `None` if it is not."""
    for name, moment in (("at", schedule.at), ("end_date", schedule.end_date)):
        if moment is not None and moment < now:
            return name, f"{moment.isoformat()} is past, so that nothing would ever run; write a time to come"
    return None


# -- checking rules ------------------------------------------------------------


def check_cron(value: str, *, day_or: bool = True) -> str:
    """Return a cron expression as five fields.

    Raises:
        ValueError: It is malformed, has another number of fields, or never comes due.
    """
    from cronsim import CronSim, CronSimError

    text = " ".join(value.split())
    expression = CRON_ALIASES.get(text.lower(), text)
    fields = len(expression.split())
    if expression.startswith("@"):
        raise ValueError(f"{clip(text)!r} is no alias; {_CRON_EXAMPLE}, or one of {', '.join(CRON_ALIASES)}")
    if fields != 5:
        raise ValueError(f"it has {fields} fields, not five; {_CRON_EXAMPLE}")
    try:
        times = CronSim(expression, DEFAULT_ANCHOR)
        times.day_and = times.day_and or not day_or
        first = next(times, None)
    except (CronSimError, ArithmeticError, AssertionError, LookupError, TypeError, ValueError) as error:
        problem = str(error).lower() if isinstance(error, CronSimError) else "bad field"
        raise ValueError(f"{problem} in {clip(text)!r}; {_CRON_EXAMPLE}") from None
    if first is None:
        raise ValueError(f"{clip(text)!r} never comes due; {_CRON_EXAMPLE}")
    return expression


def parse_rrule(text: str, zone: tzinfo) -> rrule | rruleset:
    """Return a recurrence rule whose times are naive and local to a time zone.

    Without a `DTSTART` it begins at `DEFAULT_ANCHOR`.

    Raises:
        ValueError: It is malformed, too long, or holds times in another time zone.
    """
    from dateutil.rrule import rrulestr

    if len(text) > _LONGEST_RRULE:
        raise ValueError(f"it has {len(text)} characters; write at most {_LONGEST_RRULE}")
    local = _UNTIL_UTC.sub(lambda found: _local_until(found[1], zone), text)
    if _OTHER_ZONE.search(local):
        raise ValueError("times in a rule are local; leave out TZID and Z, and name the zone under timezone")
    try:
        return rrulestr(local, dtstart=DEFAULT_ANCHOR)
    except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{clip(error, 60)}; {_RRULE_EXAMPLE}") from None


def check_rrule(text: str) -> None:
    """Check a recurrence rule.

    Raises:
        ValueError: As `parse_rrule`, or it counts too far, or it does not come due within 50 years.
    """
    parsed = parse_rrule(text, UTC)
    rules: Any = parsed if hasattr(parsed, "_rrule") else None
    if rules is None:
        first = next(iter(_bounded(parsed)), None)
    else:
        rules._rrule, rules._exrule = [*map(_bounded, rules._rrule)], [*map(_bounded, rules._exrule)]
        first = next(iter(rules), None)
    if first is None:
        raise ValueError(f"the rule never comes due; {_RRULE_EXAMPLE}")


def _bounded(rule: Any) -> rrule:
    """Return a rule that gives up after 50 years, so that one which is never due is soon found out."""
    if rule._count is not None and rule._count > MOST_COUNT:
        raise ValueError(f"COUNT={rule._count} is too many to count; write at most {MOST_COUNT}, or UNTIL")
    begin: datetime = rule._dtstart
    end = begin.replace(year=min(begin.year + 50, 9000), day=min(begin.day, 28))
    until = end if rule._until is None else min(rule._until, end)
    bounded: rrule = rule.replace(until=until, count=None)
    return bounded


_UNTIL_UTC = re.compile(r"(?<=UNTIL=)(\d{8}T\d{6})Z", re.IGNORECASE)
_OTHER_ZONE = re.compile(r"TZID|\d{8}T\d{6}Z", re.IGNORECASE)


def _local_until(text: str, zone: tzinfo) -> str:
    until = datetime.strptime(text.upper(), "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
    return until.astimezone(zone).strftime("%Y%m%dT%H%M%S")


@cache
def load_timezone(name: str) -> tzinfo:
    """Return a time zone of the IANA database.

    Raises:
        ValueError: There is none of that name, or it depends on the machine.
    """
    from zoneinfo import ZoneInfo, available_timezones

    try:
        if name not in ("localtime", "posixrules", ""):
            return ZoneInfo(name)
    except (OSError, LookupError, ValueError):
        pass
    close = get_close_matches(name[:60], available_timezones() - {"localtime", "posixrules"}, n=1)
    hint = f"did you mean {close[0]!r}?" if close else "write one such as 'Europe/Vienna'"
    raise ValueError(f"{clip(name)!r} is no time zone of the IANA database; {hint}")


# -- redeploying ---------------------------------------------------------------


def match_schedules(
    specs: Sequence[ScheduleSpec],
    stored: Iterable[Schedule],
    mint: Callable[[], str],
    now: datetime | None = None,
) -> tuple[Schedule, ...]:
    """Return the schedules to store: unchanged ones as they are, changed ones at their next version, new ones minted.

    A schedule is recognised by its slug; without one by what it says, and else by its position. New and changed ones
    are planned from `now` on.
    """
    left = dict(enumerate(stored))
    found: dict[int, Schedule] = {}
    for is_same in (_has_slug, _says_the_same, _has_position):
        for index, spec in enumerate(specs):
            same = (number for number, old in left.items() if is_same(spec, index, old, number))
            if index not in found and (number := next(same, None)) is not None:
                found[index] = left.pop(number)
    return tuple(_stored(spec, found.get(index), mint, now) for index, spec in enumerate(specs))


def _has_slug(spec: ScheduleSpec, _: int, old: Schedule, __: int) -> bool:
    return spec.slug is not None and spec.slug == old.slug


def _says_the_same(spec: ScheduleSpec, _: int, old: Schedule, __: int) -> bool:
    return old.slug is None and _without_slug(spec.fields(active=old.active)) == _without_slug(_said(old))


def _has_position(spec: ScheduleSpec, index: int, old: Schedule, number: int) -> bool:
    return index == number and spec.slug is None and old.slug is None


def _without_slug(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name != "slug"}


def _said(schedule: Schedule) -> dict[str, Any]:
    return {name: getattr(schedule, name) for name in ScheduleSpec.model_fields}


def _stored(spec: ScheduleSpec, old: Schedule | None, mint: Callable[[], str], now: datetime | None) -> Schedule:
    if old is None:
        return Schedule(id=mint(), planned_from=now, **spec.fields(active=True))
    fields = spec.fields(active=old.active)
    return old if fields == _said(old) else old.changed(now, **fields)
