"""Events: what is taken in, what is refused and how, and what names a run."""

from __future__ import annotations

import json
import re
import runpy
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from push_pools.domain.errors import InvalidEvent
from push_pools.domain.events import (
    EVENT_TYPES,
    MAX_EVENT_BYTES,
    Admit,
    Chores,
    RunStateChanged,
    ScheduledRun,
    StateChange,
    Stop,
    Submit,
    Sweep,
    Tick,
    event_schemas,
    hint,
    identity,
    parse_event,
)

RUN = UUID("0b9f3c52-6b7a-4a55-9b8e-5d1f6d9f0c11")
NOW = datetime(2027, 1, 1, tzinfo=UTC)
EVENT: dict[str, Any] = {"version": 1, "type": "scheduled-run", "deployment": "report/hourly"}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(codec="utf-8"), max_size=20),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3),
    max_leaves=10,
)
words = st.text(st.characters(codec="utf-8", categories=("L", "N")), min_size=1, max_size=20)
moments = st.datetimes(datetime(1971, 1, 1), datetime(8999, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
scheduled_runs = st.builds(
    ScheduledRun,
    deployment=words,
    scheduled_time=st.none() | moments,
    idempotency_key=st.none() | words,
    parameters=st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=5), json_values, max_size=3),
    job_variables=st.dictionaries(words, json_values, max_size=3),
    tags=st.lists(words, max_size=3).map(tuple),
)
messages = st.one_of(
    st.builds(Submit, run_id=st.uuids(), attempt=st.none() | st.integers(1, 9), reason=st.none() | words),
    st.builds(Stop, run_id=st.uuids(), reason=st.none() | words),
    st.builds(Chores, run_id=st.uuids()),
    st.builds(Sweep, platform=words, shard=st.none() | st.integers(0, 15)),
    st.builds(Admit, work_pool=words),
    st.builds(Tick, reason=words),
)


def event(**changes: Any) -> str:
    return json.dumps({key: value for key, value in {**EVENT, **changes}.items() if value is not ...})


def refusal(text: str | bytes) -> str:
    with pytest.raises(InvalidEvent) as caught:
        parse_event(text)
    return str(caught.value)


# -- what is taken in


@given(scheduled_runs | messages)
def test_what_is_written_is_read_again(sent: Any) -> None:
    assert parse_event(sent.to_json()).event == sent
    assert parse_event(sent.to_json().encode()).event == sent


@given(scheduled_runs | messages)
def test_what_is_written_fits_its_schema(sent: Any) -> None:
    Draft202012Validator(event_schemas()[sent.type]).validate(json.loads(sent.to_json()))


def test_a_scheduled_run_has_defaults() -> None:
    parsed = parse_event(event())
    assert parsed.event == ScheduledRun(deployment="report/hourly")
    assert parsed.envelope_id is None


def test_an_event_may_name_a_pool() -> None:
    parsed = parse_event(event(deployment=..., work_pool="nightly", work_queue="urgent", name="now", tags=["a"]))
    assert parsed.event == ScheduledRun(work_pool="nightly", work_queue="urgent", name="now", tags=("a",))


def test_a_message_of_a_newer_release_is_read() -> None:
    parsed = parse_event(f'{{"version":1,"type":"submit","run_id":"{RUN}","hue":"red"}}')
    assert parsed.event == Submit(run_id=RUN)


@pytest.mark.parametrize("kind", ["submit", "stop", "chores"])
def test_a_hint_is_its_message(kind: str) -> None:
    expected = {"submit": Submit, "stop": Stop, "chores": Chores}[kind](run_id=RUN)
    assert parse_event(hint(kind, RUN)).event == expected
    assert hint(kind, RUN) == expected.to_json()


def test_the_time_is_kept_in_utc() -> None:
    parsed = parse_event(event(scheduled_time="2026-01-31T09:00:00.5+01:00"))
    assert isinstance(parsed.event, ScheduledRun)
    assert parsed.event.scheduled_time == datetime(2026, 1, 31, 8, 0, 0, 500000, UTC)
    assert parsed.event.scheduled_time.tzinfo is UTC


# -- envelopes


def test_an_eventbridge_event_gives_its_id() -> None:
    text = json.dumps({"version": "0", "id": "eb-1", "detail-type": "x", "source": "y", "detail": EVENT})
    assert parse_event(text).envelope_id == "eb-1"


def test_an_sqs_record_gives_its_id() -> None:
    record = {"messageId": "sqs-1", "body": event(), "receiptHandle": "r"}
    for text in (json.dumps(record), json.dumps({"Records": [record]})):
        assert parse_event(text) == (ScheduledRun(deployment="report/hourly"), "sqs-1")


def test_the_innermost_id_counts() -> None:
    """EventBridge may put one event into a queue twice."""
    inner = json.dumps({"id": "eb-1", "detail-type": "x", "detail": EVENT})
    text = json.dumps({"Records": [{"messageId": "sqs-1", "body": inner}]})
    assert parse_event(text, envelope_id="outer").envelope_id == "eb-1"
    assert parse_event(inner, envelope_id="sqs-1").envelope_id == "eb-1"


def test_a_bare_event_has_the_id_of_its_queue() -> None:
    assert parse_event(event(), envelope_id="m-1").envelope_id == "m-1"
    without = json.dumps({"detail-type": "x", "detail": EVENT})
    assert parse_event(without, envelope_id="m-1").envelope_id == "m-1"


def test_a_batch_is_refused() -> None:
    record = {"messageId": "1", "body": event()}
    assert (
        refusal(json.dumps({"Records": [record, record]})) == "the envelope holds 2 records; send one event at a time"
    )


# -- what names a run


def test_an_idempotency_key_names_the_run() -> None:
    sent = ScheduledRun(deployment="a", idempotency_key="k", scheduled_time=NOW)
    assert identity(sent, envelope_id="m", received_at=NOW) == "key:k"


@given(moments, st.integers(-23, 23))
def test_an_instant_names_the_run_whatever_its_offset(moment: datetime, hours: int) -> None:
    there = moment.astimezone(timezone(timedelta(hours=hours)))
    names = {
        identity(ScheduledRun(deployment="a", scheduled_time=time), envelope_id=envelope, received_at=NOW)
        for time in (moment, there)
        for envelope in ("m-1", "m-2")
    }
    assert names == {f"at:event:{moment.isoformat()}"}


def test_else_the_envelope_names_the_run() -> None:
    assert identity(ScheduledRun(deployment="a"), envelope_id="m-1", received_at=NOW) == "msg:m-1"


def test_without_an_envelope_receipt_and_content_do() -> None:
    first, second = ScheduledRun(deployment="a"), ScheduledRun(deployment="b")
    names = [identity(each, envelope_id=None, received_at=NOW) for each in (first, second, first)]
    assert names[0] == names[2] != names[1]


# -- refusals


def test_a_large_event_is_refused_before_it_is_parsed() -> None:
    at_most = "[" + " " * (MAX_EVENT_BYTES - 1)
    assert "not JSON" in refusal(at_most)
    for text in (at_most + " ", (at_most + " ").encode(), "ä" * (MAX_EVENT_BYTES // 2 + 1)):
        assert refusal(text).startswith(f"the event has {len(text.encode() if isinstance(text, str) else text)} bytes")
    assert refusal(at_most + " ").endswith("put large input in a store and pass a reference to it")


TIMES = 'write it like "2026-01-31T08:00:00Z" or "2026-01-31T09:00:00+01:00"'


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"version": 1,\n "type": }', "the event is not JSON: Expecting value at line 2 column 10"),
        ('{"version": 1,}', "no comma follows the last item"),
        (b"\xff\xfe\xfa", "the event is not UTF-8 text, at byte 2"),
        ("[" * 60000, "the event is nested too deeply; make it flatter"),
        ("9" * 5000, "thousands of digits; write it as text"),
        ("[1]", "the event is a list; it is an object, such as"),
        ('"x"', "the event is 'x'; it is an object"),
        ("null", "the event is null; it is an object"),
        ('{"version": 1}', f'the event has no type; add "type": "scheduled-run" (types: {", ".join(EVENT_TYPES)})'),
        (event(type="scheduled"), "the event has the unknown type 'scheduled'; it is one of scheduled-run, submit"),
        (event(type=["x"]), "the event has the unknown type a list; it is one of"),
        (event(type="run-state-changed"), "run-state-changed is published and never taken in; send one of"),
        (event(version=...), 'the event has no version; add "version": 1'),
        (event(version=..., tags=5), 'the event has no version; add "version": 1'),
        (event(version=2), "the event has version 2, and this release reads version 1; write 1, or upgrade"),
        (event(version="1"), "the event has version '1', and this release"),
        (event(deploymnt="x"), "the scheduled-run event is wrong: deploymnt: there is no such key; did you mean"),
        (event(zzz=1, yyy=2), "(and 1 more)"),
        (event(zzz=1), "zzz: there is no such key; known: deployment, idempotency_key, job_variables, name"),
        (event(deployment=...), "it names nothing to run; write exactly one, such as"),
        (event(work_pool="p"), "it names a deployment and a work_pool; write exactly one, such as"),
        (event(deployment=""), "deployment: it is ''; write at least one character"),
        (event(deployment=5), "deployment: it is 5; write text, in quotes"),
        (event(deployment="x" * 301), "its length is at most 300"),
        (event(scheduled_time="2026-01-31T08:00:00"), f"scheduled_time: the time has no offset; {TIMES}"),
        (event(scheduled_time="tomorrow"), f"scheduled_time: it is not a time by RFC 3339; {TIMES}"),
        (event(scheduled_time="2026-01-31"), "scheduled_time: it is not a time by RFC 3339"),
        (event(scheduled_time=1700000000), "scheduled_time: it is not a time by RFC 3339"),
        (
            event(scheduled_time="2026-02-30T08:00:00Z"),
            f"there is no such time (day is out of range for month); {TIMES}",
        ),
        (event(scheduled_time="0001-01-01T00:00:00+14:00"), "the year 1 is out of range"),
        (event(scheduled_time="9999-12-31T23:59:59-14:00"), "the year 9999 is out of range"),
        (event(parameters=[]), "parameters: it is a list; write an object of names and values"),
        (event(parameters={"a": [1, float("nan")]}), "parameters: it holds nan, which JSON does not have"),
        (event(job_variables={"a": {"b": float("inf")}}), "job_variables: it holds inf, which JSON does not have"),
        (event(tags=["a", 5]), "tags[1]: it is 5; write text, in quotes"),
        (event(tags="a"), "tags: it is 'a'; write a list"),
        (event(tags=["a"] * 51), "tags: it is a list; its length is at most 50"),
        (event(name=""), "name: it is ''; write at least one character"),
        (event(idempotency_key=""), "idempotency_key: it is ''; write at least one character"),
        ('{"version":1,"type":"submit"}', "the submit event is wrong: run_id: it is missing; add it"),
        ('{"version":1,"type":"stop","run_id":"x"}', "run_id: it is 'x'; write an id such as 0b9f3c52"),
        ('{"version":1,"type":"sweep","platform":5}', "platform: it is 5; write text, in quotes"),
        (json.dumps({"messageId": "1", "body": "{"}), "the event is not JSON"),
        (json.dumps({"detail-type": "x", "detail": [1]}), "the event is a list; it is an object"),
        (json.dumps({"detail-type": "ECS Task State Change", "detail": {"taskArn": "x"}}), "the event has no type"),
    ],
)
def test_a_refusal_says_what_to_change(text: str | bytes, sentence: str) -> None:
    assert sentence in refusal(text)


@given(
    st.text(st.characters(codec="utf-8"), min_size=200, max_size=400), st.sampled_from([*sorted(EVENT), "tags", "x"])
)
def test_a_refusal_shows_little_of_the_input(junk: str, key: str) -> None:
    for text in (event(**{key: junk}), event(**{junk: 1}), event(scheduled_time=junk), json.dumps(junk), junk):
        try:
            parse_event(text)
        except InvalidEvent as error:
            told = str(error)
        else:
            continue
        assert "\n" not in told
        assert not any(junk[start : start + 81] in told for start in range(len(junk) - 80))


def test_a_refusal_holds_no_control_characters() -> None:
    """It goes to terminals and logs."""
    assert "wrong: a[31mb: there is no such key" in refusal(event(**{"a\x1b[31mb": 1})).replace(" [", "[")
    assert "\x1b" not in refusal(event(type="\x1b]0;x"))


@given(st.binary(max_size=300) | st.text(max_size=300).map(lambda text: text.encode(errors="surrogatepass")))
def test_nothing_but_invalid_event_is_raised(junk: bytes) -> None:
    with pytest.raises(InvalidEvent):
        parse_event(junk)


@given(json_values)
def test_no_json_raises_anything_else(value: Any) -> None:
    for wrapped in (
        value,
        {**EVENT, "tags": value},
        {"Records": value},
        {"detail-type": 1, "detail": value, "id": value},
    ):
        try:
            parse_event(json.dumps(wrapped))
        except InvalidEvent as error:
            assert str(error)  # noqa: PT017 - Either way is right.


# -- what is published


def test_a_state_change_is_published_under_its_names() -> None:
    change = RunStateChanged(
        run_id=RUN,
        run_name="report",
        work_pool="nightly",
        work_queue="default",
        from_=StateChange(type="PENDING", name="Submitted"),
        to=StateChange(type="RUNNING", name="Running"),
        attempt=1,
        scheduled_time=NOW,
        occurred_at=NOW,
        sequence=7,
    )
    sent = json.loads(change.to_json())
    assert sent["from"]["name"] == "Submitted"
    assert (sent["type"], sent["version"], sent["sequence"]) == ("run-state-changed", 1, 7)
    assert RunStateChanged.model_validate_json(change.to_json()) == change
    Draft202012Validator(event_schemas()["run-state-changed"]).validate(sent)


def test_the_schemas_refuse_what_the_parser_refuses() -> None:
    validator = Draft202012Validator(event_schemas()["scheduled-run"])
    assert validator.is_valid(EVENT)
    for wrong in (
        {**EVENT, "x": 1},
        {**EVENT, "work_pool": "p"},
        {"version": 1, "type": "scheduled-run"},
        {"type": "x"},
    ):
        assert not validator.is_valid(wrong)


def test_the_generated_schemas_are_those_of_the_code() -> None:
    """If not: `python scripts/make_schemas.py`."""
    root = Path(__file__).resolve().parents[2]
    made = runpy.run_path(str(root / "scripts" / "make_schemas.py"))["schemas"]()
    stored = {path.name: path.read_text(encoding="utf-8") for path in (root / "infra" / "schemas").glob("*.json")}
    assert stored == made


def test_the_documented_events_are_read() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "events.md").read_text(encoding="utf-8")
    scheduled, published = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    assert isinstance(parse_event(scheduled).event, ScheduledRun)
    assert RunStateChanged.model_validate_json(published).failure_class == "oom"
    fields = set(ScheduledRun.model_fields) | set(Sweep.model_fields) | set(Submit.model_fields)
    assert not [name for name in fields if f"`{name}`" not in text]
    said = {field.alias or name for name, field in RunStateChanged.model_fields.items()}
    assert not [name for name in said if f'"{name}"' not in published and f"`{name}`" not in text]
