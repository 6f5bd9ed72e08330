"""`push-pools event`: send scheduled-run events, as a cloud scheduler would."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any
from uuid import uuid4

import typer

from push_pools.cli.base import note_unless_served, noun, opened
from push_pools.cli.inputs import read_text
from push_pools.cli.output import Format, Output, print_data, say

if TYPE_CHECKING:
    from push_pools.domain.events import ParsedEvent
    from push_pools.ports import App

app = noun("Events: ask for runs by messages, as a cloud scheduler does.")


@dataclass(frozen=True)
class Outgoing:
    """One event of the input: what is put on the queue, and what is known of it."""

    number: int
    body: str
    parsed: ParsedEvent | None


@app.callback()
def group() -> None:
    """Events: ask for runs by messages, as a cloud scheduler does."""


@app.command()
def send(
    file: Annotated[str, typer.Argument(metavar="FILE|-", help="File of one event, a JSON array, or one per line.")],
    validate: Annotated[
        bool, typer.Option("--validate/--no-validate", help="Refuse what cannot be read, before it is sent.")
    ] = True,
    output: Output = Format.TABLE,
) -> None:
    """Put events on the queue; the server turns each into its run, once however often it is sent.

    Of several events the good ones are sent, and each bad one is named by its number.
    """
    texts = split_events(read_text(file))
    with opened() as home:
        good, problems = _read(texts, validate)
        for outgoing in good:
            home.queue.send(outgoing.body)
        answers = [_answer(outgoing, home) for outgoing in good]
    if output is Format.TABLE:
        for answer in answers:
            say(_sentence(answer))
    elif answers:
        print_data(answers, output)
    if good:
        note_unless_served("the events wait" if len(good) > 1 else "the event waits")
    _refuse(problems, len(texts))


def split_events(text: str) -> list[str]:
    """Return the events of an input: a JSON array, one event, or one on each line."""
    from push_pools.domain.errors import InvalidInput

    if not text.strip():
        raise InvalidInput('there is no event in the input; write {"version": 1, "type": "scheduled-run", …}')
    try:
        value = json.loads(text)
    except ValueError:
        lines = [line for line in text.splitlines() if line.strip()]
        # An event that goes over several lines and is not JSON is one bad event, not many.
        return lines if all(line.lstrip().startswith("{") for line in lines) and _any_json(lines) else [text]
    if isinstance(value, list):
        return [json.dumps(item) for item in value]
    return [text]


def _any_json(lines: Sequence[str]) -> bool:
    for line in lines:
        try:
            json.loads(line)
        except ValueError:
            continue
        return True
    return False


def _read(texts: Sequence[str], validate: bool) -> tuple[list[Outgoing], list[tuple[int, str]]]:
    from push_pools.domain.errors import InvalidEvent
    from push_pools.domain.events import parse_event

    good: list[Outgoing] = []
    problems: list[tuple[int, str]] = []
    for number, text in enumerate(texts, start=1):
        body = json.dumps({"messageId": f"cli:{uuid4().hex}", "body": text}, ensure_ascii=False)
        try:
            good.append(Outgoing(number, body, parse_event(body)))
        except InvalidEvent as error:
            if validate:
                problems.append((number, str(error)))
            else:
                good.append(Outgoing(number, body, None))
    return good, problems


def _answer(outgoing: Outgoing, home: App) -> dict[str, Any]:
    from push_pools.domain.events import ScheduledRun

    if outgoing.parsed is None:
        return {"number": outgoing.number, "type": None, "run_id": None, "identity": None, "problem": "not validated"}
    event = outgoing.parsed.event
    answer: dict[str, Any] = {"number": outgoing.number, "type": event.type, "run_id": None, "identity": None}
    if isinstance(event, ScheduledRun):
        from push_pools.domain.errors import PushPoolsError
        from push_pools.domain.events import identity
        from push_pools.domain.runs import run_id

        answer["identity"] = identity(event, envelope_id=outgoing.parsed.envelope_id, received_at=home.clock.now())
        try:
            answer["run_id"] = str(run_id(_namespace(event, home), answer["identity"]))
        except PushPoolsError as error:
            answer["problem"] = f"it will go to the dead letters: {error}"
    return answer


def _namespace(event: Any, home: App) -> Any:
    from push_pools.services.catalogue import find_deployment, get_work_pool

    if event.deployment is not None:
        return find_deployment(home, event.deployment).id
    return get_work_pool(home, event.work_pool).id


def _sentence(answer: dict[str, Any]) -> str:
    event = f"event {answer['number']}"
    if answer.get("problem"):
        return f"Sent {event}: {answer['problem']}."
    if answer["run_id"] is None:
        return f"Sent {event} ({answer['type']})."
    return f"Sent {event}: it becomes flow run {answer['run_id']}."


def _refuse(problems: Sequence[tuple[int, str]], count: int) -> None:
    from push_pools.domain.errors import InvalidEvent

    if not problems:
        return
    if count == 1:
        raise InvalidEvent(problems[0][1])
    listed = "; ".join(f"event {number}: {problem}" for number, problem in problems)
    raise InvalidEvent(f"{len(problems)} of {count} events were not sent: {listed}")
