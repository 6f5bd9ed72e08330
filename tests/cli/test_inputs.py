"""How what a user writes on the command line is read."""

from __future__ import annotations

import io
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import typer

from push_pools.cli.inputs import duration, instant, json_object, pairs, read_text, since
from push_pools.domain.errors import InvalidInput

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime(2026, 7, 4, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("n=1", 1),
        ("n=1.5", 1.5),
        ("n=true", True),
        ("n=null", None),
        ('n="1"', "1"),
        ("n=[1, 2]", [1, 2]),
        ('n={"a": 1}', {"a": 1}),
        ("n=eu", "eu"),
        ("n=", ""),
        ("n=a=b", "a=b"),
        ("n=NaN", "NaN"),
        ("n=2026-01-01", "2026-01-01"),
        (" n =x", "x"),
    ],
)
def test_a_pair_is_json_if_it_can_be_and_else_text(text: str, value: Any) -> None:
    assert pairs([text], "--param") == {"n": value}


@pytest.mark.parametrize("text", ["n", "=1", " =1", ""])
def test_what_is_no_pair_is_wrong_usage(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="write --param NAME=VALUE"):
        pairs([text], "--param")


def test_a_name_given_twice_is_wrong_usage() -> None:
    with pytest.raises(typer.BadParameter, match="twice"):
        pairs(["a=1", "a=2"], "--param")


def test_an_object_may_come_from_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO('{"a": 1}'))

    assert json_object("-", "--params") == {"a": 1}
    assert json_object('{"b": [2]}', "--params") == {"b": [2]}


@pytest.mark.parametrize("text", ["[1]", "{", "", "3"])
def test_what_is_no_object_is_wrong_usage(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="--params is not"):
        json_object(text, "--params")


def test_durations_and_times() -> None:
    assert duration("10m", "--start-in") == timedelta(minutes=10)
    assert instant("2026-07-04T14:00:00+02:00", "--start-at") == NOW
    assert since("2h", NOW) == NOW - timedelta(hours=2)
    assert since("2026-07-04T12:00:00Z", NOW) == NOW


@pytest.mark.parametrize(
    ("read", "text"),
    [(duration, "soon"), (duration, "-1s"), (instant, "tomorrow"), (instant, "2026-07-04T14:00:00")],
)
def test_a_wrong_duration_or_time_is_wrong_usage(read: Any, text: str) -> None:
    with pytest.raises(typer.BadParameter, match=f"--start {text!r}"):
        read(text, "--start")


@pytest.mark.parametrize("text", ["yesterday", "2026-07-04T12:00:00", "2026-07-04"])
def test_a_wrong_since_is_wrong_usage(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="--since"):
        since(text, NOW)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b"\xe9")

    with pytest.raises(InvalidInput, match=r"nowhere cannot be read: No such file"):
        read_text(str(tmp_path / "nowhere"))
    with pytest.raises(InvalidInput, match=r"latin is not UTF-8"):
        read_text(str(tmp_path / "latin"))
