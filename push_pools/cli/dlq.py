"""`push-pools dlq`: the dead letters, why each was given up, and how to try it again."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from push_pools.cli.base import note_unless_served, noun, opened
from push_pools.cli.output import Format, Output, print_list, print_record, say

if TYPE_CHECKING:
    from push_pools.ports import App, DeadLetter, DeadLetters

app = noun("Dead letters: events that could not be handled, with the reason.")


@app.command()
def ls(output: Output = Format.TABLE) -> None:
    """List the dead letters, newest first."""
    with opened() as home:
        letters = _queue(home).dead_letters()
    rows = [(letter.id, letter.died_at, letter.receives, letter.reason) for letter in letters]
    print_list([_shown(letter) for letter in letters], output, ("id", "died", "receives", "reason"), rows)


@app.command()
def show(
    id_: Annotated[str, typer.Argument(metavar="ID", help="Id of a dead letter.")], output: Output = Format.TABLE
) -> None:
    """Show one dead letter with its whole body."""
    from push_pools.domain.errors import NotFound

    with opened() as home:
        letters = _queue(home).dead_letters()
    for letter in letters:
        if letter.id == id_:
            return print_record({**_shown(letter), "body": _body(letter.body)}, output)
    raise NotFound("dead letter", id_, fix="see `push-pools dlq ls`")


@app.command()
def replay(
    ids: Annotated[list[str] | None, typer.Argument(metavar="ID...", help="Ids of dead letters.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Replay every dead letter.")] = False,
) -> None:
    """Put dead letters back on the queue. Always harmless: what was done already is recognised."""
    if every == bool(ids):
        raise typer.BadParameter("name the dead letters, or give --all")
    with opened() as home:
        queue = _queue(home)
        chosen = [letter.id for letter in queue.dead_letters()] if every else list(dict.fromkeys(ids or []))
        for id_ in chosen:
            queue.replay(id_)
            say(f"Put dead letter {id_} back on the queue.")
    if chosen:
        note_unless_served("the events wait")
    else:
        say("There are no dead letters.")


def _queue(home: App) -> DeadLetters:
    return cast("DeadLetters", home.queue)  # Both hostings' queues keep them.


def _shown(letter: DeadLetter) -> dict[str, Any]:
    return {
        "id": letter.id,
        "died_at": letter.died_at.isoformat(),
        "receives": letter.receives,
        "reason": letter.reason,
        "body": letter.body,
    }


def _body(text: str) -> Any:
    """Return the body as data if it is JSON, our own envelope around it removed."""
    try:
        value = json.loads(text)
        if isinstance(value, dict) and set(value) == {"messageId", "body"}:
            value = json.loads(value["body"])
    except (TypeError, ValueError):
        return text
    return value
