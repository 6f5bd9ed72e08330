"""When schedules come due, against two oracles that share no code with the planner, and which missed instants count.

`by_hand` asks the time zone for every local time of a rule, one by one (PEP 495); croniter is another cron.
"""

from __future__ import annotations

import itertools
import random
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise, takewhile
from typing import TYPE_CHECKING, Any
from uuid import UUID
from zoneinfo import ZoneInfo, available_timezones

import pytest
from croniter import croniter  # type: ignore[import-untyped]
from dateutil import tz
from dateutil.rrule import rrulestr
from hypothesis import given, settings
from hypothesis import strategies as st

from push_pools.domain.errors import InvalidInput
from push_pools.domain.instants import FireTime, _spans
from push_pools.domain.planning import (
    CATCH_UP_CAP,
    NOT_MISSED,
    due_fires,
    fire_times,
    names,
)
from push_pools.domain.schedules import DEFAULT_ANCHOR, Schedule, parse_schedule

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

NASTY_ZONES = [
    "Europe/Vienna",
    "America/New_York",
    "Australia/Lord_Howe",  # By half an hour.
    "America/Sao_Paulo",  # At midnight, until 2019.
    "Africa/Casablanca",  # Twice a year around Ramadan.
    "Asia/Tehran",  # At midnight, until 2022; an offset of half hours.
    "Pacific/Apia",  # Left out a whole day in 2011.
    "America/St_Johns",  # At one minute past midnight, until 2011.
    "Antarctica/Troll",  # By two hours.
    "Europe/Dublin",  # Winter time is the exception.
    "Africa/Cairo",
    "Asia/Gaza",
    "UTC",
]
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
LOOK_AHEAD = timedelta(seconds=300)
DEPLOYMENT = UUID(int=7)


def schedule(**fields: Any) -> Schedule:
    return Schedule(id="s1", **parse_schedule(fields).fields(active=True))


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[arg-type, misc]


def instants(it: Iterable[FireTime]) -> list[datetime]:
    return [fire.utc for fire in it]


def shown(it: Iterable[FireTime]) -> list[tuple[str, str]]:
    return [(fire.local.isoformat(), fire.note) for fire in it]


# -- the table of the documentation --------------------------------------------

SPRING = (utc(2026, 3, 29), utc(2026, 3, 29, 3))
"""Clocks in Vienna leap from 02:00 to 03:00 at 01:00 UTC."""
AUTUMN = (utc(2026, 10, 24, 23, 59), utc(2026, 10, 25, 2))
"""Clocks in Vienna are set back from 03:00 to 02:00 at 01:00 UTC."""


def in_vienna(span: tuple[datetime, datetime], **fields: Any) -> list[tuple[str, str]]:
    found = fire_times(schedule(timezone="Europe/Vienna", **fields), span[0], until=span[1])
    return [(fire.local.strftime("%H:%M%z")[:8], fire.note) for fire in found]


@pytest.mark.parametrize(
    "rule",
    [
        {"cron": "30 2 * * *"},
        {"rrule": "FREQ=DAILY;BYHOUR=2;BYMINUTE=30;BYSECOND=0"},
        {"interval": "1d", "anchor_date": "2020-01-01T02:30:00"},
    ],
    ids=["cron", "rrule", "interval"],
)
def test_a_local_time_is_shifted_or_skipped_and_runs_once_or_twice(rule: dict[str, Any]) -> None:
    assert in_vienna(SPRING, **rule) == [("03:30+02", "shifted from 02:30, which clocks leap over")]
    assert in_vienna(SPRING, **rule, dst_gap="skip") == []
    assert in_vienna(AUTUMN, **rule) == [("02:30+02", "first of two 02:30")]
    assert in_vienna(AUTUMN, **rule, dst_fold="twice") == [
        ("02:30+02", "first of two 02:30"),
        ("02:30+01", "second of two 02:30"),
    ]


@pytest.mark.parametrize(
    "rule",
    [{"cron": "*/30 * * * *"}, {"interval": "30m"}, {"rrule": "FREQ=MINUTELY;INTERVAL=30"}],
    ids=["cron", "interval", "rrule"],
)
@pytest.mark.parametrize("options", [{}, {"dst_gap": "skip", "dst_fold": "twice"}], ids=["default", "other"])
def test_what_runs_around_the_clock_never_pauses_or_doubles(rule: dict[str, Any], options: dict[str, Any]) -> None:
    assert in_vienna(SPRING, **rule, **options) == [
        ("01:30+01", ""),
        ("03:00+02", ""),
        ("03:30+02", ""),
        ("04:00+02", ""),
        ("04:30+02", ""),
        ("05:00+02", ""),
    ]
    assert in_vienna(AUTUMN, **rule, **options) == [
        ("02:00+02", "first of two 02:00"),
        ("02:30+02", "first of two 02:30"),
        ("02:00+01", "second of two 02:00"),
        ("02:30+01", "second of two 02:30"),
        ("03:00+01", ""),
    ]


def test_a_time_shifted_onto_another_is_one() -> None:
    assert in_vienna(SPRING, cron="30 2,3 * * *") == [("03:30+02", "also for 02:30, which clocks leap over")]


def test_shifted_times_come_in_order_among_the_others() -> None:
    """In Lord Howe clocks leap from 02:00 to 02:30: 02:20 becomes 02:50, after 02:35."""
    lord_howe = schedule(cron="20,35 2 * * *", timezone="Australia/Lord_Howe")
    assert shown(fire_times(lord_howe, utc(2026, 10, 3, 15), until=utc(2026, 10, 3, 17))) == [
        ("2026-10-04T02:35:00+11:00", ""),
        ("2026-10-04T02:50:00+11:00", "shifted from 02:20, which clocks leap over"),
    ]


def test_a_day_that_was_left_out_is_shifted_onto_the_next() -> None:
    """Apia went from 29 to 31 December 2011."""
    daily = schedule(cron="0 7 * * *", timezone="Pacific/Apia")
    assert shown(fire_times(daily, utc(2011, 12, 29), until=utc(2011, 12, 31))) == [
        ("2011-12-29T07:00:00-10:00", ""),
        ("2011-12-31T07:00:00+14:00", "also for 07:00, which clocks leap over"),
    ]


def test_at_is_an_instant_and_says_which_of_two() -> None:
    once = schedule(at="2026-10-25T02:30:00", timezone="Europe/Vienna")
    assert shown(fire_times(once, utc(2026, 1, 1))) == [("2026-10-25T02:30:00+02:00", "first of two 02:30")]
    assert instants(fire_times(once, utc(2026, 10, 25, 0, 30))) == []


def test_an_interval_of_a_day_or_more_keeps_the_local_time_and_a_shorter_one_the_elapsed_time() -> None:
    daily = schedule(interval="36h", anchor_date="2026-03-28T00:00:00", timezone="Europe/Vienna")
    found = [fire.local.isoformat() for fire in islice(fire_times(daily, utc(2026, 3, 28)), 2)]
    assert found == ["2026-03-29T12:00:00+02:00", "2026-03-31T00:00:00+02:00"]
    shorter = schedule(interval="23h", anchor_date="2026-03-28T00:00:00", timezone="Europe/Vienna")
    assert {later - earlier for earlier, later in pairwise(instants(islice(fire_times(shorter, SPRING[0]), 9)))} == {
        23 * HOUR
    }


# -- against the time zone itself ----------------------------------------------


def by_hand(
    zone: ZoneInfo, walls: Iterable[datetime], *, shift: bool, twice: bool, by_clock: bool = False
) -> list[datetime]:
    """Return the instants of local times: each is looked up in the time zone by itself."""
    found: set[datetime] = set()
    for wall in walls:
        first, second = (wall.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
        exists = first.astimezone(zone).replace(tzinfo=None) == wall
        if not exists:
            found |= {first} if shift and not by_clock else set()
        else:
            found |= {first, second} if twice or by_clock else {first}
    return sorted(found)


def walls_of(minutes: Sequence[int], hours: Sequence[int], first: datetime, last: datetime) -> Iterator[datetime]:
    day = first.replace(hour=0, minute=0)
    while day <= last:
        for hour, minute in itertools.product(hours, minutes):
            yield day.replace(hour=hour, minute=minute)
        day += DAY


TABLE_RULES = [
    ([30], [2]),
    ([0], [0]),
    ([5, 35], [0, 1, 2, 3]),
    ([20, 35], [2]),
    ([59], [23]),
    ([0, 1], [0, 12, 23]),
]


@pytest.mark.parametrize("zone_name", NASTY_ZONES)
@pytest.mark.parametrize("begin", [2007, 2019], ids=["2007-2017", "2019-2029"])
def test_ten_years_are_as_the_time_zone_says(zone_name: str, begin: int) -> None:
    _compare_with_zone(zone_name, datetime(begin, 1, 1), datetime(begin + 10, 1, 1))  # noqa: DTZ001 - Local.


@pytest.mark.prove
@pytest.mark.timeout(3300)
@pytest.mark.parametrize("zone_name", sorted(available_timezones() - {"localtime"}))
def test_ten_years_are_as_every_time_zone_says(zone_name: str) -> None:
    _compare_with_zone(zone_name, datetime(2016, 1, 1), datetime(2026, 1, 1))  # noqa: DTZ001 - Local.


def _windows(zone: ZoneInfo, first: datetime, last: datetime) -> Iterator[tuple[datetime, datetime]]:
    """Yield the three days around every change of the clock, and one quiet week."""
    at = first.replace(tzinfo=UTC) + 3 * DAY
    yield at, at + 7 * DAY
    while at < last.replace(tzinfo=UTC) - 3 * DAY:
        if at.astimezone(zone).utcoffset() != (at + 6 * HOUR).astimezone(zone).utcoffset():
            yield at - 36 * HOUR, at + 36 * HOUR
        at += 6 * HOUR


def _compare_with_zone(zone_name: str, first: datetime, last: datetime) -> None:
    zone = ZoneInfo(zone_name)
    for low, high in _windows(zone, first, last):
        ends = [at.astimezone(zone).replace(tzinfo=None) for at in (low - 2 * DAY, high + 2 * DAY)]
        for minutes, hours in TABLE_RULES:
            walls = list(walls_of(minutes, hours, *ends))
            for shift, twice in itertools.product((True, False), (True, False)):
                rule = schedule(
                    cron=f"{','.join(map(str, minutes))} {','.join(map(str, hours))} * * *",
                    timezone=zone_name,
                    dst_gap="shift" if shift else "skip",
                    dst_fold="twice" if twice else "once",
                )
                expected = [at for at in by_hand(zone, walls, shift=shift, twice=twice) if low < at <= high]
                found = list(fire_times(rule, low, until=high))
                assert instants(found) == expected, (zone_name, minutes, hours, shift, twice)
                assert all(fire.local == fire.utc for fire in found)
        walls = list(walls_of([0, 20, 40], range(24), *ends))
        expected = [at for at in by_hand(zone, walls, shift=True, twice=False, by_clock=True) if low < at <= high]
        assert instants(fire_times(schedule(cron="*/20 * * * *", timezone=zone_name), low, until=high)) == expected


@pytest.mark.parametrize("zone_name", NASTY_ZONES)
def test_a_start_in_the_middle_sees_what_a_start_before_sees(zone_name: str) -> None:
    """In the very minutes of a change, too: what the clocks did before counts."""
    rng = random.Random(zone_name)
    for cron in ("*/10 * * * *", "15,45 0-3 * * *", "30 23 * * *"):
        for options in ({}, {"dst_gap": "skip"}, {"dst_fold": "twice"}):
            rule = schedule(cron=cron, timezone=zone_name, **options)
            for year in (2011, 2018, 2026):
                whole = list(fire_times(rule, utc(year, 1, 1), until=utc(year + 1, 1, 1)))
                turns = [
                    span.begin.replace(tzinfo=UTC)
                    for span in _spans(ZoneInfo(zone_name), year)
                    if span.before != span.offset
                ]
                for turn in (*turns, utc(year, 7, 1)):
                    for _ in range(12):
                        after = turn + timedelta(minutes=rng.randint(-180, 180), seconds=rng.choice((0, 1, 59)))
                        until = after + 3 * HOUR
                        expected = [fire for fire in whole if after < fire.utc <= until]
                        if utc(year, 1, 1) <= after and until <= utc(year + 1, 1, 1):
                            assert list(fire_times(rule, after, until=until)) == expected


@pytest.mark.prove
@pytest.mark.timeout(3300)
def test_every_change_of_every_time_zone_is_found() -> None:
    """dateutil reads the transitions from the files; the planner finds them by asking."""
    for name in sorted(available_timezones() - {"localtime"}):
        file: Any = tz.gettz(name)
        changes, before = set(), getattr(file, "_ttinfo_before", None)
        for seconds, after in zip(getattr(file, "_trans_list_utc", None) or (), file._trans_idx or (), strict=True):
            if before is not None and after.delta != before.delta:
                changes.add(datetime(1970, 1, 1) + timedelta(seconds=seconds))  # noqa: DTZ001 - Naive UTC.
            before = after
        found = {s.begin for year in range(1971, 2037) for s in _spans(ZoneInfo(name), year) if s.before != s.offset}
        assert found == {at for at in changes if 1971 <= at.year < 2037}, name


# -- against croniter ----------------------------------------------------------


def _field(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    # Of two numbers: croniter takes a range from a number to itself for every number.
    ranges = st.tuples(number, number).filter(lambda p: p[0] < p[1]).map(lambda p: f"{p[0]}-{p[1]}")
    lists = st.lists(st.one_of(number.map(str), ranges), min_size=1, max_size=3).map(",".join)
    steps = st.integers(2, max(high // 2, 2)).map(lambda step: f"*/{step}")
    return st.one_of(st.just("*"), lists, steps)


def _days(low: int, high: int) -> st.SearchStrategy[str]:
    """Without steps from `*`: Debian's cron then asks for both days, and croniter for either."""
    return _field(low, high).filter(lambda text: "/" not in text)


CRONS = st.tuples(_field(0, 59), _field(0, 23), _days(1, 28), _field(1, 12), _days(0, 6)).map(" ".join)


@given(cron=CRONS, start=st.datetimes(datetime(2000, 1, 1), datetime(2090, 1, 1)))  # noqa: DTZ001 - Made UTC below.
@settings(max_examples=300, deadline=None)
def test_cron_agrees_with_croniter(cron: str, start: datetime) -> None:
    after = start.replace(tzinfo=UTC)
    oracle = croniter(cron, after, ret_type=datetime)
    expected = [oracle.get_next(datetime).astimezone(UTC) for _ in range(8)]
    assert instants(islice(fire_times(schedule(cron=cron), after), 8)) == expected


@given(
    cron=CRONS,
    zone=st.sampled_from(NASTY_ZONES),
    start=st.datetimes(datetime(2005, 1, 1), datetime(2035, 1, 1)),  # noqa: DTZ001 - Made UTC below.
)
@settings(max_examples=200, deadline=None)
def test_cron_agrees_with_croniter_in_time_zones(cron: str, zone: str, start: datetime) -> None:
    """Away from changes of the clock: there croniter fires fixed times twice, and shifts to the end of the leap."""
    after = start.replace(tzinfo=UTC)
    info = ZoneInfo(zone)
    offset = after.astimezone(info).utcoffset()
    ours = list(islice(fire_times(schedule(cron=cron, timezone=zone), after), 5))
    last = ours[-1].utc + 2 * DAY
    probe = after - 2 * DAY
    while probe <= last:
        if probe.astimezone(info).utcoffset() != offset:
            return
        if probe > after + 400 * DAY:
            return
        probe += 6 * HOUR
    oracle = croniter(cron, after.astimezone(info), ret_type=datetime)
    assert instants(ours) == [oracle.get_next(datetime).astimezone(UTC) for _ in range(5)]


# -- recurrence rules ----------------------------------------------------------


@st.composite
def rrules(draw: st.DrawFn) -> str:
    freq = draw(st.sampled_from(["YEARLY", "MONTHLY", "WEEKLY", "DAILY", "HOURLY", "MINUTELY"]))
    parts = [f"FREQ={freq}", f"INTERVAL={draw(st.integers(1, 5))}"]
    days = st.lists(st.sampled_from(["MO", "TU", "WE", "TH", "FR", "SA", "SU"]), min_size=1, max_size=3, unique=True)
    if draw(st.booleans()):
        parts.append(f"BYDAY={','.join(draw(days))}")
        if freq in ("MONTHLY", "WEEKLY") and draw(st.booleans()):
            parts.append(f"BYSETPOS={draw(st.sampled_from([1, 2, -1]))}")
    if freq not in ("HOURLY", "MINUTELY") or draw(st.booleans()):
        parts.append(f"BYHOUR={draw(st.integers(0, 23))}")
    if freq != "MINUTELY":
        parts.append(f"BYMINUTE={draw(st.integers(0, 59))}")
    if draw(st.booleans()):
        parts.append(draw(st.sampled_from(["COUNT=40", "UNTIL=20200601T000000", "WKST=SU"])))
    start = draw(st.sampled_from(["", "DTSTART:20191231T233000\n", "DTSTART:20200115T010203\n"]))
    more = draw(st.sampled_from(["", "\nEXDATE:20200301T100000", "\nRRULE:FREQ=WEEKLY;BYHOUR=4"]))
    return f"{start}RRULE:{';'.join(parts)}{more}"


@given(text=rrules(), days=st.integers(0, 500), hours=st.integers(0, 23))
@settings(max_examples=80, deadline=None)
def test_a_rule_that_begins_in_the_middle_is_as_one_that_is_counted_from_its_beginning(
    text: str, days: int, hours: int
) -> None:
    after = DEFAULT_ANCHOR + timedelta(days=days, hours=hours)
    until = after + 90 * DAY
    try:
        whole = rrulestr(text, dtstart=DEFAULT_ANCHOR)
    except ValueError:
        with pytest.raises(InvalidInput):
            schedule(rrule=text)
        return
    known = takewhile(lambda at: at <= until, whole)
    expected = list(islice((at.replace(tzinfo=UTC) for at in known if at > after), 50))
    try:
        rule = schedule(rrule=text)
    except InvalidInput:
        assert expected == []  # It is never due.
        return
    found = islice(fire_times(rule, after.replace(tzinfo=UTC), until=until.replace(tzinfo=UTC)), 50)
    assert instants(found) == expected


def test_the_first_of_a_week_is_that_of_the_whole_week() -> None:
    """The rule began on a Wednesday: wherever it is begun anew, Monday is the first of Monday and Friday."""
    rule = schedule(rrule="DTSTART:20200101T000000\nRRULE:FREQ=WEEKLY;BYDAY=MO,FR;BYSETPOS=1;BYHOUR=7")
    for day in range(14):
        found = next(fire_times(rule, utc(2026, 6, 1) + day * DAY))
        assert (found.utc.weekday(), found.utc.hour) == (0, 7)


def test_a_rule_by_the_minute_is_not_counted_from_its_beginning() -> None:
    rule = schedule(rrule="DTSTART:19700101T000000\nRRULE:FREQ=SECONDLY;INTERVAL=7")
    found = instants(islice(fire_times(rule, utc(8000, 1, 1)), 3))
    assert [b - a for a, b in pairwise(found)] == [timedelta(seconds=7)] * 2
    assert (found[0] - utc(1970, 1, 1)) % timedelta(seconds=7) == timedelta()


# -- bounds --------------------------------------------------------------------


def test_start_and_end_are_part_of_it() -> None:
    rule = schedule(cron="0 * * * *", start_date="2026-01-01T10:00:00", end_date="2026-01-01T12:00:00")
    assert instants(fire_times(rule, utc(2020, 1, 1))) == [utc(2026, 1, 1, hour) for hour in (10, 11, 12)]
    assert instants(fire_times(rule, utc(2026, 1, 1, 10), until=utc(2026, 1, 1, 11))) == [utc(2026, 1, 1, 11)]


@pytest.mark.parametrize("zone", ["UTC", "Europe/Vienna"])
def test_a_schedule_that_is_over_ends(zone: str) -> None:
    for rule in (
        {"at": "2026-01-01T00:00:00"},
        {"rrule": "FREQ=DAILY;UNTIL=20260101T000000"},
        {"rrule": "FREQ=DAILY;COUNT=3"},
    ):
        assert list(fire_times(schedule(timezone=zone, **rule), utc(2026, 2, 1))) == []


def test_the_year_9000_is_the_last() -> None:
    for rule in ({"cron": "0 0 29 2 *"}, {"interval": "1d"}, {"rrule": "FREQ=YEARLY"}, {"cron": "* * * * *"}):
        found = list(fire_times(schedule(timezone="Europe/Vienna", **rule), utc(9000, 12, 30)))
        assert all(fire.utc.year == 9000 for fire in found)
    assert [fire.utc.year for fire in fire_times(schedule(cron="0 0 29 2 *"), utc(8980, 1, 1))][-1] == 8996
    assert instants(fire_times(schedule(at="8999-06-01T00:00:00"), utc(8990, 1, 1))) == [utc(8999, 6, 1)]


def test_a_leap_day_on_a_monday_is_waited_for() -> None:
    assert instants(islice(fire_times(schedule(cron="0 0 29 2 1", day_or=False), utc(2026, 1, 1)), 2)) == [
        utc(2044, 2, 29),
        utc(2072, 2, 29),
    ]


def test_names_knows_an_instant_by_itself() -> None:
    rule = schedule(cron="0 * * * *")
    found = names(rule, utc(2026, 1, 1, 10))
    assert found is not None
    assert found.utc == utc(2026, 1, 1, 10)
    assert names(rule, utc(2026, 1, 1, 10, 1)) is None


# -- jitter --------------------------------------------------------------------


@given(
    jitter=st.integers(1, 100_000),
    cron=st.sampled_from(["* * * * *", "0 * * * *", "0,7 3,4 * * *"]),
    days=st.integers(0, 365),
)
@settings(max_examples=60, deadline=None)
def test_jitter_is_fixed_and_never_overtakes(jitter: int, cron: str, days: int) -> None:
    rule = schedule(cron=cron, jitter=jitter, timezone="Europe/Vienna")
    after = utc(2026, 1, 1) + days * DAY
    fires = list(islice(fire_times(rule, after, deployment_id=DEPLOYMENT), 100))
    assert all(timedelta() <= fire.due - fire.utc <= timedelta(seconds=jitter) for fire in fires)
    assert all(one.due < other.utc for one, other in pairwise(fires))
    # However it is asked for.
    some = fires[40]
    assert names(rule, some.utc, deployment_id=DEPLOYMENT) == some
    assert list(fire_times(rule, fires[9].utc, until=fires[29].utc, deployment_id=DEPLOYMENT)) == fires[10:30]


def test_jitter_differs_between_instants_schedules_and_deployments() -> None:
    def offsets(rule: Schedule, deployment: UUID) -> list[timedelta]:
        fires = islice(fire_times(rule, utc(2026, 1, 1), deployment_id=deployment), 50)
        return [fire.due - fire.utc for fire in fires]

    rule = schedule(cron="0 * * * *", jitter=600)
    own = offsets(rule, DEPLOYMENT)
    assert len(set(own)) > 45
    assert max(own) > timedelta(seconds=500)
    assert own != offsets(rule, UUID(int=8))
    assert own != offsets(rule.model_copy(update={"id": "s2"}), DEPLOYMENT)


# -- catch-up ------------------------------------------------------------------

POLICIES = ["all", "latest", "none", "within 30m", "within 2h", "within 1m"]
RULES: list[dict[str, Any]] = [
    {"cron": "* * * * *"},
    {"cron": "*/7 * * * *"},
    {"cron": "0 * * * *"},
    {"cron": "0 * * * *", "jitter": 1200},
    {"cron": "*/5 * * * *", "jitter": 3600},
    {"interval": "90m"},
]


def planned_by_hand(
    rule: Schedule, fires: Sequence[FireTime], begin: datetime, ticks: Sequence[datetime]
) -> set[datetime]:
    """Return what is planned by the words of the documentation, each instant looked at by itself, at its first tick."""
    planned = set()
    limit = rule.catchup_seconds()
    for fire in fires:
        tick = next((at for at in ticks if fire.utc <= at + LOOK_AHEAD), None)
        if fire.utc <= begin or tick is None:
            continue
        late = tick - fire.due
        newer_is_due = any(other.utc > fire.utc and other.due <= tick for other in fires)
        counts = {"all": True, "latest": not newer_is_due, "none": False}.get(
            rule.catchup, limit is not None and late <= timedelta(seconds=limit)
        )
        if late <= NOT_MISSED or counts:
            planned.add(fire.utc)
    return planned


@given(
    rule=st.sampled_from(RULES),
    catchup=st.sampled_from(POLICIES),
    gaps=st.lists(st.one_of(st.integers(20, 150), st.integers(150, 6 * 3600)), min_size=1, max_size=12),
    doubled=st.sets(st.integers(0, 12)),
    stale=st.sets(st.integers(1, 12)),
)
@settings(max_examples=400, deadline=None)
def test_every_instant_is_planned_or_dropped_as_the_policy_says(
    rule: dict[str, Any], catchup: str, gaps: list[int], doubled: set[int], stale: set[int]
) -> None:
    """Ticks come late, are lost (long gaps), come twice, and overlap (begin at the mark before the last)."""
    checked = schedule(**rule, catchup=catchup)
    begin = utc(2026, 1, 1, 0, 0) + timedelta(seconds=17)
    ticks = [begin + timedelta(seconds=seconds) for seconds in itertools.accumulate(gaps)]
    marks = [begin, *(at + LOOK_AHEAD for at in ticks)]
    fires = list(fire_times(checked, begin - DAY, until=marks[-1] + DAY, deployment_id=DEPLOYMENT))
    planned: set[datetime] = set()
    allowed: set[datetime] = set()
    for number, at in enumerate(ticks):
        runs = 1 + (number in doubled)
        for again in range(runs):
            found = due_fires(checked, marks[number], at, LOOK_AHEAD, deployment_id=DEPLOYMENT).fires
            assert len({fire.utc for fire in found}) == len(found)
            assert [fire.utc for fire in found] == sorted(fire.utc for fire in found)
            planned |= {fire.utc for fire in found}
            assert again == 0 or {fire.utc for fire in found} <= planned
        if number in stale:
            found = due_fires(checked, marks[number - 1], at, LOOK_AHEAD, deployment_id=DEPLOYMENT).fires
            allowed |= {fire.utc for fire in found}
    expected = planned_by_hand(checked, fires, begin, ticks)
    assert planned == expected
    # A tick that overlaps another may at most make good what was not missed yet, or is the latest.
    assert all(at in expected or catchup == "latest" or catchup.startswith("within") for at in allowed)


@pytest.mark.parametrize(
    ("catchup", "first", "count"),
    [
        ("all", utc(2026, 12, 31, 23, 54) - 999 * MINUTE, 1000),
        ("latest", None, 0),
        ("none", None, 0),
        ("within 2h", utc(2026, 12, 31, 22, 0), 115),
    ],
)
def test_a_year_of_downtime_costs_little(
    catchup: str, first: datetime | None, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A minutely schedule missed half a million instants; not many more are looked at than are made good."""
    looked_at = 0
    real = fire_times

    def counted(*args: Any, **options: Any) -> Iterator[FireTime]:
        nonlocal looked_at
        for fire in real(*args, **options):
            looked_at += 1
            yield fire

    monkeypatch.setattr("push_pools.domain.planning.fire_times", counted)
    rule = schedule(cron="* * * * *", catchup=catchup)
    now = utc(2027, 1, 1)
    due = due_fires(rule, utc(2026, 1, 1), now, LOOK_AHEAD)
    missed = [fire.utc for fire in due.fires if fire.utc < now - NOT_MISSED]
    assert len(missed) == count
    assert (missed[0] if missed else None) == first
    assert due.capped == (catchup == "all")
    assert [fire.utc for fire in due.fires][-11:] == [now + number * MINUTE for number in range(-5, 6)]
    assert looked_at < 8 * CATCH_UP_CAP


def test_a_pause_is_missed_to_its_last_second() -> None:
    """Lateness of up to five minutes is forgiven to the service, not to whoever paused a pool."""
    now = utc(2026, 1, 5, 8, 0, 30)
    for catchup, expected in (
        ("none", []),
        ("latest", [utc(2026, 1, 5, 8)]),
        ("within 3m", [utc(2026, 1, 5, 7, 58), utc(2026, 1, 5, 7, 59), utc(2026, 1, 5, 8)]),
    ):
        rule = schedule(cron="* * * * *", catchup=catchup)
        due = due_fires(rule, utc(2026, 1, 2), now, LOOK_AHEAD, held_until=now)
        assert [fire.utc for fire in due.fires if fire.utc <= now] == expected, catchup
        assert len([fire for fire in due.fires if fire.utc > now]) == 5


def test_a_rare_schedule_is_caught_up_after_years() -> None:
    rule = schedule(cron="0 0 29 2 *")
    due = due_fires(rule, utc(2021, 1, 1), utc(2027, 5, 1), LOOK_AHEAD)
    assert [fire.utc for fire in due.fires] == [utc(2024, 2, 29)]
