"""`push-pools event send` and `push-pools dlq`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.runner import Cli


def event(**fields: Any) -> dict[str, Any]:
    return {"version": 1, "type": "scheduled-run", "deployment": "greet/hello", **fields}


def serve(cli: Cli) -> None:
    cli.ok("serve", "--until-idle", "--for", "30s")


def test_an_event_becomes_the_run_that_was_announced(deployed: Cli, tmp_path: Path) -> None:
    (tmp_path / "e.json").write_text(json.dumps(event(parameters={"who": "event"})))

    ran = deployed.ok("event", "send", tmp_path / "e.json")
    serve(deployed)

    (run,) = deployed.read("flow-run", "ls")
    assert ran.out == f"Sent event 1: it becomes flow run {run['id']}.\n"
    assert "no server is running" in ran.err
    assert run["parameters"] == {"who": "event"}


def test_events_of_one_key_are_one_run(deployed: Cli) -> None:
    text = json.dumps(event(idempotency_key="k"))

    sent = [deployed.ok("event", "send", "-", "-o", "json", stdin=text).data[0] for _ in range(2)]
    serve(deployed)

    assert sent[0] == sent[1]
    assert sent[0]["identity"] == "key:k"
    assert [run["id"] for run in deployed.read("flow-run", "ls")] == [sent[0]["run_id"]]


def test_an_event_without_a_name_is_a_run_of_its_own_each_time(deployed: Cli) -> None:
    text = json.dumps(event())

    ids = {deployed.ok("event", "send", "-", "-o", "json", stdin=text).data[0]["run_id"] for _ in range(2)}
    serve(deployed)

    assert {run["id"] for run in deployed.read("flow-run", "ls")} == ids
    assert len(ids) == 2


def test_an_envelope_keeps_its_own_id(deployed: Cli) -> None:
    envelope = {"id": "e-1", "detail-type": "Scheduled Event", "source": "s", "detail": event()}

    sent = deployed.ok("event", "send", "-", "-o", "json", stdin=json.dumps(envelope)).data[0]

    assert sent["identity"] == "msg:e-1"


def test_several_events_are_an_array_or_lines(deployed: Cli) -> None:
    events = [event(idempotency_key=str(number)) for number in range(3)]

    array = deployed.ok("event", "send", "-", stdin=json.dumps(events))
    lines = deployed.ok("event", "send", "-", stdin="\n\n".join(map(json.dumps, events)) + "\n")

    assert array.out == lines.out
    assert len(array.out.splitlines()) == 3
    serve(deployed)
    assert len(deployed.read("flow-run", "ls")) == 3


def test_one_bad_event_does_not_take_its_neighbours_with_it(deployed: Cli) -> None:
    text = "\n".join([json.dumps(event(idempotency_key="a")), "{not json", json.dumps(event(nmae="b")), "{}"])

    ran = deployed("event", "send", "-", stdin=text)

    assert ran.code == 1
    assert ran.out.startswith("Sent event 1: it becomes flow run ")
    (line,) = [line for line in ran.err.splitlines() if line.startswith("Error: ")]
    assert line.startswith("Error: 3 of 4 events were not sent: event 2: the event is not JSON")
    assert "event 3: the scheduled-run event is wrong: nmae: there is no such key; did you mean 'name'?" in line
    assert "event 4: the event has no type" in line
    serve(deployed)
    assert len(deployed.read("flow-run", "ls")) == 1
    assert deployed.read("dlq", "ls") == []
    as_json = deployed("event", "send", "-", "-o", "json", stdin=text)
    assert (as_json.code, [sent["number"] for sent in as_json.data]) == (1, [1])


def test_a_bad_event_is_refused_and_not_sent(deployed: Cli) -> None:
    assert "not JSON" in deployed.refused("event", "send", "-", stdin="{\n  'version': 1\n}")
    assert "no version" in deployed.refused("event", "send", "-", stdin='{"type": "scheduled-run"}')
    assert "there is no event" in deployed.refused("event", "send", "-", stdin="  \n")
    assert "cannot be read" in deployed.refused("event", "send", "nowhere.json")
    assert "Missing argument" in deployed.refused("event", "send", code=2)
    serve(deployed)
    assert deployed.read("dlq", "ls") == []


def test_an_event_for_nothing_is_sent_and_foretold(deployed: Cli) -> None:
    ran = deployed.ok("event", "send", "-", stdin=json.dumps(event(deployment="greet/nobody")))

    assert "it will go to the dead letters: deployment 'greet/nobody' does not exist" in ran.out


def test_an_event_for_a_pool_is_announced_too(deployed: Cli) -> None:
    text = json.dumps({"version": 1, "type": "scheduled-run", "work_pool": "local", "idempotency_key": "k"})

    assert deployed.ok("event", "send", "-", "-o", "json", stdin=text).data[0]["run_id"]


def test_other_events_may_be_sent_too(deployed: Cli) -> None:
    ran = deployed.ok("event", "send", "-", stdin='{"version": 1, "type": "tick"}')

    assert ran.out == "Sent event 1 (tick).\n"


def test_without_validation_a_bad_event_is_buried_with_its_reason(deployed: Cli) -> None:
    ran = deployed.ok("event", "send", "-", "--no-validate", stdin="{broken")
    assert ran.out == "Sent event 1: not validated.\n"
    serve(deployed)

    (letter,) = deployed.read("dlq", "ls")
    assert "not JSON" in letter["reason"]
    assert "not JSON" in deployed.ok("dlq", "ls").out
    shown = deployed.read("dlq", "show", letter["id"])
    assert "{broken" in shown["body"]
    assert yaml.safe_load(deployed.ok("dlq", "show", letter["id"], "-o", "yaml").out) == shown


def test_a_dead_letter_is_replayed_once_its_cause_is_gone(deployed: Cli, config: Path) -> None:
    deployed.ok("event", "send", "-", stdin=json.dumps(event(deployment="late/late", idempotency_key="k")))
    serve(deployed)
    (letter,) = deployed.read("dlq", "ls")
    assert "late/late" in letter["reason"]
    assert deployed.read("dlq", "show", letter["id"])["body"]["deployment"] == "late/late"

    deployed.ok("deploy", "-", stdin=config.read_text().replace("name: slow", "name: late").replace("sleep 30", "echo"))
    ran = deployed.ok("dlq", "replay", letter["id"])
    serve(deployed)

    assert ran.out == f"Put dead letter {letter['id']} back on the queue.\n"
    assert deployed.read("dlq", "ls") == []
    assert [run["deployment"] for run in deployed.read("flow-run", "ls")] == ["late/late"]


def test_all_dead_letters_are_replayed(deployed: Cli) -> None:
    for _ in range(2):
        deployed.ok("event", "send", "-", "--no-validate", stdin="{broken")
    serve(deployed)

    assert len(deployed.ok("dlq", "replay", "--all").out.splitlines()) == 2
    assert deployed.read("dlq", "ls") == []
    assert deployed.ok("dlq", "replay", "--all").out == "There are no dead letters.\n"


def test_a_dead_letter_that_is_not_there_is_refused(cli: Cli) -> None:
    assert "dead letter '7' does not exist" in cli.refused("dlq", "show", "7")
    assert "dead letter '7' does not exist" in cli.refused("dlq", "replay", "7")
    assert "name the dead letters" in cli.refused("dlq", "replay", code=2)
    assert "name the dead letters" in cli.refused("dlq", "replay", "7", "--all", code=2)
