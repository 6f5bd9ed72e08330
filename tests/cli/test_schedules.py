"""`push-pools deployment schedule`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.runner import Cli

NIGHT = ("--cron", "30 2 * * *", "--timezone", "Europe/Vienna", "--slug", "night")


@pytest.fixture
def timed(deployed: Cli) -> Cli:
    """The command on a home where `greet/hello` has the schedule `night`."""
    deployed.ok("deployment", "schedule", "create", "greet/hello", *NIGHT, "--param", "who=moon")
    return deployed


def test_a_schedule_is_added_and_listed(deployed: Cli) -> None:
    ran = deployed.ok("deployment", "schedule", "create", "hello", *NIGHT)
    assert ran.out == "Added schedule night to deployment 'greet/hello': cron '30 2 * * *' Europe/Vienna.\n"
    (listed,) = deployed.read("deployment", "schedule", "ls", "greet/hello")
    assert (listed["slug"], listed["cron"], listed["active"], listed["version"]) == ("night", "30 2 * * *", True, 1)
    table = deployed.ok("deployment", "schedule", "ls", "greet/hello").out.splitlines()
    assert table[1].split()[:1] == ["night"]


def test_every_kind_can_be_added(deployed: Cli) -> None:
    for options in (
        ("--interval", "1h", "--anchor-date", "2026-01-01T00:05:00", "--jitter", "10s"),
        ("--rrule", "FREQ=DAILY;BYHOUR=7;BYMINUTE=0;BYSECOND=0", "--end-date", "2999-01-01T00:00:00"),
        ("--at", "2999-01-31T08:00:00", "--catchup", "within 2h", "--note", "once", "--paused"),
        ("--cron", "@daily", "--overlap", "skip", "--dst-gap", "skip", "--dst-fold", "twice", "-jv", "grace_seconds=1"),
    ):
        deployed.ok("deployment", "schedule", "create", "hello", *options)
    made = deployed.read("deployment", "schedule", "ls", "hello")
    assert [each["interval"] for each in made] == [3600.0, None, None, None]
    assert made[2]["active"] is False
    assert (made[3]["overlap"], made[3]["dst_gap"], made[3]["dst_fold"]) == ("skip", "skip", "twice")
    assert made[3]["job_variables"] == {"grace_seconds": 1}


def test_a_preview_shows_local_and_utc_and_what_the_clock_does(timed: Cli) -> None:
    arguments = ("deployment", "schedule", "preview", "greet/hello", "--from", "2027-03-27T00:00:00Z", "-n", "2")
    assert [{k: each[k] for k in ("local", "utc", "note", "schedule")} for each in timed.read(*arguments)] == [
        {
            "local": "2027-03-27T02:30:00+01:00",
            "utc": "2027-03-27T01:30:00+00:00",
            "note": "",
            "schedule": "night",
        },
        {
            "local": "2027-03-28T03:30:00+02:00",
            "utc": "2027-03-28T01:30:00+00:00",
            "note": "shifted from 02:30, which clocks leap over",
            "schedule": "night",
        },
    ]
    assert "shifted from 02:30" in timed.ok(*arguments).out
    timed.ok("deployment", "pause", "greet/hello")
    assert "is paused, so that nothing is planned" in timed.ok(*arguments).err


def test_a_schedule_is_paused_with_a_note_resumed_and_deleted(timed: Cli) -> None:
    ran = timed.ok("deployment", "schedule", "pause", "hello", "night", "--note", "month end")
    assert ran.out == "Paused schedule night of deployment 'greet/hello'.\n"
    assert "paused (month end)" in timed.ok("deployment", "schedule", "ls", "hello").out
    assert timed.read("deployment", "schedule", "preview", "hello") == []
    timed.ok("deployment", "schedule", "resume", "hello")
    assert "active" in timed.ok("deployment", "schedule", "ls", "hello").out
    (listed,) = timed.read("deployment", "schedule", "ls", "hello")
    assert listed["version"] == 3
    timed.ok("deployment", "schedule", "delete", "hello", listed["id"][:6], "--yes")
    assert timed.read("deployment", "schedule", "ls", "hello") == []


def test_a_made_schedule_is_put_to_json(deployed: Cli) -> None:
    made = deployed.read("deployment", "schedule", "create", "hello", *NIGHT)
    assert (made["slug"], made["timezone"]) == ("night", "Europe/Vienna")


@pytest.mark.parametrize(
    ("options", "say"),
    [
        (("--cron", "61 * * * *"), "schedule.cron: bad minute"),
        (("--cron", "* * *"), "schedule.cron: it has 3 fields, not five; write minute, hour"),
        (("--rrule", "FREQ=NEVER"), "schedule.rrule: "),
        (("--rrule", "FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30"), "schedule.rrule: the rule never comes due"),
        (("--rrule", "FREQ=DAILY;COUNT=100001"), "schedule.rrule: COUNT=100001 is too many to count"),
        (("--cron", "@daily", "--timezone", "Europe/Wien"), "did you mean 'Europe/Vienna'?"),
        (("--interval", "often"), 'write seconds, such as 90, or a number and a unit, such as "15m"'),
        (("--interval", "0"), 'schedule.interval: it is shorter than a second; write a longer one, such as "15m"'),
        (("--at", "2020-01-01T00:00:00"), "schedule.at: 2020-01-01T00:00:00+00:00 is past"),
        (("--cron", "@daily", "--end-date", "2020-01-01T00:00:00"), "schedule.end_date: 2020-01-01T00:00:00+00:00 is"),
        (("--cron", "@daily", "--slug", "night"), "schedule 'night' already exists; pick another slug"),
        (("--cron", "@daily", "-jv", "nope=1"), "nope: there is no such variable"),
        (("--cron", "@daily", "--interval", "1h"), "exactly one of cron, interval, rrule and at"),
        ((), "this one has none of them"),
    ],
)
def test_what_cannot_be_a_schedule_is_refused(timed: Cli, options: tuple[str, ...], say: str) -> None:
    assert say in timed.refused("deployment", "schedule", "create", "greet/hello", *options)
    assert len(timed.read("deployment", "schedule", "ls", "hello")) == 1


def test_unknown_names_are_answered_with_known_ones(timed: Cli) -> None:
    assert "known: greet/hello" in timed.refused("deployment", "schedule", "ls", "greet/helo")
    assert "known: night" in timed.refused("deployment", "schedule", "pause", "greet/hello", "nigth")
    assert "the deployment has none" in timed.refused("deployment", "schedule", "resume", "bad")


def test_a_preview_refuses_a_time_without_an_offset_and_a_silly_count(timed: Cli) -> None:
    ran = timed("deployment", "schedule", "preview", "hello", "--from", "2027-01-01T00:00:00")
    assert (ran.code, "the time has no offset" in ran.err) == (2, True)
    assert "write 1 to 1000" in timed.refused("deployment", "schedule", "preview", "hello", "-n", "0")


def test_a_file_may_not_bring_a_schedule_that_is_past(cli: Cli, config: Path) -> None:
    text = config.read_text()
    config.write_text(text.replace("    tags: [demo]\n", '    schedules: [{at: "2020-01-01T00:00:00"}]\n'))
    assert "deployments[0].schedules[0].at: 2020-01-01T00:00:00+00:00 is past" in cli.refused("deploy", config)
