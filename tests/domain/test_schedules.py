"""Schedules and durations: what they may say, what is refused, and how a redeploy recognises them."""

from __future__ import annotations

import contextlib
import itertools
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from push_pools.domain.durations import LONGEST_SECONDS, format_duration, parse_duration
from push_pools.domain.errors import InvalidInput
from push_pools.domain.schedules import (
    CRON_ALIASES,
    Schedule,
    ScheduleSpec,
    load_timezone,
    match_schedules,
    parse_rrule,
    parse_schedule,
)

# -- durations


@pytest.mark.parametrize(
    ("written", "seconds"),
    [(90, 90), ("90", 90), (1.5, 1.5), ("90s", 90), ("15m", 900), ("2h", 7200), ("1d", 86400), ("1.5 h", 5400), (0, 0)],
)
def test_durations_are_seconds_or_have_a_unit(written: object, seconds: float) -> None:
    assert parse_duration(written) == seconds


@pytest.mark.parametrize(
    "written", ["", "m", "15 min", "-5", -5, "1h30m", "1e3", True, None, [1], float("nan"), "PT1H"]
)
def test_other_durations_are_refused_with_an_example(written: object) -> None:
    with pytest.raises(ValueError, match=r'it is not a duration; write seconds, such as 90, or .* such as "15m"'):
        parse_duration(written)


def test_a_duration_ends() -> None:
    assert parse_duration("3650d") == LONGEST_SECONDS
    with pytest.raises(ValueError, match='longer than ten years; write at most "3650d"'):
        parse_duration("3651d")


@given(st.integers(0, LONGEST_SECONDS) | st.floats(0.001, LONGEST_SECONDS).map(lambda seconds: round(seconds, 3)))
def test_a_formatted_duration_is_read_again(seconds: float) -> None:
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, abs=1e-9)


@given(st.integers(1, 1000), st.sampled_from("smhd"))
def test_formatting_finds_a_whole_unit(number: int, unit: str) -> None:
    formatted = format_duration(parse_duration(f"{number}{unit}"))
    assert formatted[:-1].isdigit()
    assert int(formatted[:-1]) <= number


# -- what a schedule may say


def test_a_cron_schedule_has_defaults() -> None:
    spec = parse_schedule({"cron": " 0  7 * * 1-5 "})
    assert spec.cron == "0 7 * * 1-5"
    assert (spec.timezone, spec.catchup, spec.overlap, spec.active) == ("UTC", "latest", "allow", None)


@pytest.mark.parametrize("alias", CRON_ALIASES)
def test_aliases_become_five_fields(alias: str) -> None:
    assert parse_schedule({"cron": alias.upper()}).cron == CRON_ALIASES[alias]


def test_an_interval_is_a_duration() -> None:
    spec = parse_schedule({"interval": "15m", "anchor_date": "2026-01-01T00:07", "timezone": "Europe/Vienna"})
    assert spec.interval == 900
    assert spec.anchor_date == datetime(2026, 1, 1, 0, 7, tzinfo=ZoneInfo("Europe/Vienna"))


def test_a_rule_is_local() -> None:
    spec = parse_schedule({"rrule": "DTSTART:20260101T070000\nRRULE:FREQ=WEEKLY;BYDAY=MO", "timezone": "Europe/Vienna"})
    assert next(iter(parse_rrule(str(spec.rrule), UTC))) == datetime(2026, 1, 5, 7)  # noqa: DTZ001 - Local time.


def test_the_end_of_a_rule_may_be_in_utc() -> None:
    rule = parse_rrule("FREQ=HOURLY;UNTIL=20200101T010000Z", load_timezone("Europe/Vienna"))
    assert [time.hour for time in rule] == [0, 1, 2]  # 01:00 UTC is 02:00 in Vienna.


def test_a_rule_without_a_beginning_has_a_fixed_one() -> None:
    assert next(iter(parse_rrule("FREQ=DAILY", UTC))) == datetime(2020, 1, 1)  # noqa: DTZ001 - Local time.


def test_a_moment_is_local_or_has_an_offset() -> None:
    local = parse_schedule({"at": "2026-07-01 08:00", "timezone": "Europe/Vienna"})
    aware = parse_schedule({"at": "2026-07-01T06:00:00Z", "timezone": "Europe/Vienna"})
    assert local.at == aware.at == datetime(2026, 7, 1, 6, tzinfo=UTC)
    assert local.at is not None
    assert local.at.utcoffset() == timedelta(hours=2)


def test_an_ambiguous_moment_is_the_first() -> None:
    spec = parse_schedule({"at": "2026-10-25T02:30:00", "timezone": "Europe/Vienna"})
    assert spec.at == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)


def test_catchup_has_a_limit() -> None:
    spec = parse_schedule({"cron": "@daily", "catchup": "within 7200"})
    assert spec.catchup == "within 2h"
    assert spec.catchup_seconds() == 7200
    assert parse_schedule({"cron": "@daily"}).catchup_seconds() is None


def test_null_is_left_out() -> None:
    assert parse_schedule({"cron": "@daily", "interval": None, "slug": None, "active": None}).slug is None


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"cron": "@daily"}, "cron '0 0 * * *' UTC"),
        ({"interval": 5400}, "every 90m"),
        ({"rrule": "FREQ=DAILY", "timezone": "Asia/Tokyo"}, "rrule 'FREQ=DAILY' Asia/Tokyo"),
        ({"at": "2026-01-01T00:00:00Z"}, "at 2026-01-01T00:00:00+00:00"),
    ],
)
def test_a_schedule_is_described(data: dict[str, Any], words: str) -> None:
    assert parse_schedule(data).describe() == words


CRON = 'write minute, hour, day, month and weekday, such as "0 7 * * 1-5"'


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ("x", "schedule: it is 'x'; write an object of names and values"),
        ({}, "exactly one of cron, interval, rrule and at, and this one has none of them; keep one, such as cron:"),
        ({"cron": "@daily", "interval": 5}, "this one has cron and interval; keep one"),
        ({"cron": "61 * * * *"}, f"schedule.cron: bad minute in '61 * * * *'; {CRON}"),
        ({"cron": "* * * * 8"}, f"bad day-of-week in '* * * * 8'; {CRON}"),
        ({"cron": "* * * * * *"}, f"schedule.cron: it has 6 fields, not five; {CRON}"),
        ({"cron": ""}, f"it has 0 fields, not five; {CRON}"),
        ({"cron": "@reboot"}, "'@reboot' is no alias; write minute, hour"),
        ({"cron": "0 0 30 2 *"}, "bad day-of-month in '0 0 30 2 *'"),
        ({"cron": "0 0 31 2 1", "day_or": False}, "'0 0 31 2 1' never comes due"),
        ({"cron": "1/L * * * *"}, "bad minute"),
        ({"cron": 5}, "schedule.cron: it is 5; write text, in quotes"),
        ({"interval": "0.5s"}, 'schedule.interval: it is shorter than a second; write a longer one, such as "15m"'),
        ({"interval": "soon"}, "schedule.interval: it is not a duration"),
        ({"interval": 60, "jitter": 60}, "jitter is not shorter than interval; make it shorter"),
        ({"interval": 60, "day_or": False}, "day_or goes with cron only; leave it out"),
        ({"cron": "@daily", "anchor_date": "2026-01-01"}, "anchor_date goes with interval only; leave it out"),
        ({"rrule": "FREQ=FOO"}, "invalid 'FREQ': FOO; write a rule such as"),
        ({"rrule": "every day"}, "; write a rule such as"),
        ({"rrule": ""}, "; write a rule such as"),
        ({"rrule": "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30"}, "the rule never comes due"),
        ({"rrule": "DTSTART:20260101T000000Z\nFREQ=DAILY"}, "times in a rule are local; leave out TZID and Z"),
        ({"rrule": "DTSTART;TZID=Europe/Vienna:20260101T000000\nFREQ=DAILY"}, "times in a rule are local"),
        ({"rrule": "FREQ=DAILY;UNTIL=20269901T000000Z"}, "schedule.rrule: "),
        ({"rrule": "X" * 6501}, "it has 6501 characters; write at most 6500"),
        ({"at": "tomorrow"}, 'schedule.at: it is not a time; write it like "2026-01-31T08:00:00"'),
        ({"at": 5}, "schedule.at: it is not a time"),
        ({"at": "0001-01-01"}, "the year 1 is out of range"),
        (
            {"at": "2026-03-29T02:30:00", "timezone": "Europe/Vienna"},
            "at: clocks in Europe/Vienna leap over 2026-03-29 02:30:00; write another time",
        ),
        ({"cron": "@daily", "start_date": "2026-01-02", "end_date": "2026-01-01"}, "start_date is not before end_date"),
        (
            {"cron": "@daily", "timezone": "Europe/Viena"},
            "'Europe/Viena' is no time zone of the IANA database; did you",
        ),
        (
            {"cron": "@daily", "timezone": "localtime"},
            "'localtime' is no time zone of the IANA database; write one such",
        ),
        ({"cron": "@daily", "timezone": "/etc/passwd"}, "'/etc/passwd' is no time zone"),
        ({"cron": "@daily", "timezone": ""}, "'' is no time zone"),
        ({"cron": "@daily", "timezone": 5}, "schedule.timezone: it is 5; write text, in quotes"),
        (
            {"cron": "@daily", "catchup": "some"},
            'schedule.catchup: it is all, latest, none, or a limit such as "within 2h"',
        ),
        ({"cron": "@daily", "catchup": "within reason"}, "schedule.catchup: it is not a duration"),
        ({"cron": "@daily", "overlap": "skp"}, "it is 'skp'; write 'allow', 'skip', 'buffer_one' or 'cancel_other'"),
        ({"cron": "@daily", "jitter": "-1s"}, "schedule.jitter: it is not a duration"),
        ({"cron": "@daily", "dst_gap": "leap"}, "write 'shift' or 'skip'"),
        ({"cron": "@daily", "dst_fold": "thrice"}, "write 'once' or 'twice'"),
        ({"cron": "@daily", "slug": "a b"}, "schedule.slug: a name has 1 to 128 letters"),
        ({"cron": "@daily", "active": "maybe"}, "schedule.active: it is 'maybe'; write true or false"),
        ({"cron": "@daily", "parameters": []}, "schedule.parameters: it is a list; write an object"),
        ({"cron": "@daily", "job_variables": {"a": float("inf")}}, "schedule.job_variables: it holds inf"),
        ({"cron": "@daily", "tz": "UTC"}, "schedule.tz: there is no such key; known: active, anchor_date"),
        ({"cron": "@daily", "timezon": "UTC"}, "schedule.timezon: there is no such key; did you mean 'timezone'?"),
    ],
)
def test_a_refusal_names_the_place_and_the_fix(data: object, sentence: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_schedule(data)
    assert sentence in str(caught.value)


@given(
    st.text(max_size=30)
    | st.lists(st.text("0123456789*/,-LW#", min_size=1, max_size=6), min_size=5, max_size=5).map(" ".join)
)
def test_no_cron_raises_anything_else(text: str) -> None:
    try:
        parse_schedule({"cron": text})
    except InvalidInput as error:
        assert "such as" in str(error)  # noqa: PT017 - Either way is right.


@given(
    st.text(max_size=40)
    | st.text("FREQ=DAILYUNTCOBS;0123456789:\n", max_size=40).map(lambda text: f"FREQ=YEARLY;{text}")
)
def test_no_rule_raises_anything_else(text: str) -> None:
    with contextlib.suppress(InvalidInput):
        parse_schedule({"rrule": text})


# -- redeploying


def mint() -> Any:
    numbers = itertools.count(1)
    return lambda: f"id-{next(numbers)}"


def specs(*datas: dict[str, Any]) -> list[ScheduleSpec]:
    return [parse_schedule(data) for data in datas]


HOURLY, DAILY, WEEKLY = {"cron": "@hourly"}, {"cron": "@daily"}, {"cron": "@weekly"}


def again(stored: tuple[Schedule, ...], *datas: dict[str, Any]) -> list[tuple[str, int]]:
    def unexpected() -> str:
        return "new"

    return [(each.id, each.version) for each in match_schedules(specs(*datas), stored, unexpected)]


def test_new_schedules_are_minted() -> None:
    stored = match_schedules(specs(HOURLY, DAILY), (), mint())
    assert [(each.id, each.version, each.active) for each in stored] == [("id-1", 1, True), ("id-2", 1, True)]


def test_unchanged_schedules_stay_as_they_are() -> None:
    datas = (
        {**HOURLY, "parameters": {"a": 1}, "timezone": "Europe/Vienna"},
        {"interval": 60, "anchor_date": "2026-10-25T02:30:00", "timezone": "Europe/Vienna"},
        {"at": "2026-07-01T08:00", "timezone": "Europe/Vienna"},
        DAILY,
        DAILY,
    )
    stored = match_schedules(specs(*datas), (), mint())
    read = tuple(Schedule.model_validate_json(each.model_dump_json()) for each in stored)
    assert match_schedules(specs(*datas), read, mint()) == read


def test_a_changed_schedule_keeps_its_id_at_its_position() -> None:
    stored = match_schedules(specs(HOURLY, DAILY), (), mint())
    assert again(stored, HOURLY, WEEKLY) == [("id-1", 1), ("id-2", 2)]


def test_an_inserted_schedule_changes_no_other() -> None:
    stored = match_schedules(specs(HOURLY, DAILY), (), mint())
    assert again(stored, WEEKLY, HOURLY, DAILY) == [("new", 1), ("id-1", 1), ("id-2", 1)]
    assert again(stored, DAILY) == [("id-2", 1)]


def test_a_slug_finds_a_schedule_anywhere() -> None:
    stored = match_schedules(specs(HOURLY, {**DAILY, "slug": "main"}), (), mint())
    assert again(stored, {**WEEKLY, "slug": "main"}, HOURLY) == [("id-2", 2), ("id-1", 1)]
    assert again(stored, HOURLY, {**DAILY, "slug": "other"}) == [("id-1", 1), ("new", 1)]


def test_a_schedule_may_be_given_a_slug() -> None:
    stored = match_schedules(specs(HOURLY), (), mint())
    assert again(stored, {**HOURLY, "slug": "main"}) == [("id-1", 2)]


def test_a_paused_schedule_stays_paused_unless_the_file_says_otherwise() -> None:
    (stored,) = match_schedules(specs(HOURLY), (), mint())
    paused = stored.model_copy(update={"active": False, "version": 2})
    assert match_schedules(specs(HOURLY), (paused,), mint()) == (paused,)
    assert not match_schedules(specs(WEEKLY), (paused,), mint())[0].active
    (resumed,) = match_schedules(specs({**HOURLY, "active": True}), (paused,), mint())
    assert (resumed.id, resumed.version, resumed.active) == (stored.id, 3, True)


def test_what_a_newer_release_added_is_kept() -> None:
    (stored,) = match_schedules(specs(HOURLY), (), mint())
    newer = Schedule.model_validate({**stored.model_dump(), "hue": "red"})
    assert match_schedules(specs(HOURLY), (newer,), mint()) == (newer,)
    assert match_schedules(specs(WEEKLY), (newer,), mint())[0].model_extra == {"hue": "red"}
