"""How the commands print: JSON, YAML, or a table; plain text wherever nobody looks at a terminal."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from push_pools.domain.lanes import Limited
    from push_pools.domain.pools import CatalogueRecord
    from push_pools.domain.status import PoolStatus


class Format(StrEnum):
    """How a command prints what it read."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


Output = Annotated[Format, typer.Option("--output", "-o", help="How to print the answer.", show_choices=True)]
"""The option of every command that reads."""

STATE_STYLES = {
    "SCHEDULED": "yellow",
    "PENDING": "blue",
    "RUNNING": "cyan",
    "COMPLETED": "green",
    "FAILED": "red",
    "CRASHED": "bold red",
    "CANCELLING": "magenta",
    "CANCELLED": "magenta",
}


class Styled(str):
    """Text of a cell, with the style it has on a terminal."""

    __slots__ = ("style",)
    style: str

    def __new__(cls, text: str, style: str) -> Styled:
        made = super().__new__(cls, text)
        made.style = style
        return made


def say(text: str = "") -> None:
    """Print a line of the answer."""
    sys.stdout.write(text + "\n")


def note(text: str) -> None:
    """Print a line beside the answer, on stderr."""
    print("Note:", text, file=sys.stderr)


def plain(value: object) -> str:
    """Return a value as one line of text that cannot steer a terminal."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case datetime():
            return time_text(value)
        case dict() | list() | tuple():
            text = json.dumps(value, ensure_ascii=False, default=str) if value else ""
        case _:
            text = str(value)
    return "".join(char if char.isprintable() else " " for char in text)


def time_text(moment: datetime) -> str:
    """Return a moment as tables show it: local time, to the second."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def state_cell(type_: str, name: str) -> Styled:
    """Return a state's name in its colour."""
    return Styled(name, STATE_STYLES.get(type_, ""))


STATUS_STYLES = {"READY": "green", "NOT_READY": "bold red", "PAUSED": "yellow"}


def status_cell(status: PoolStatus) -> Styled:
    """Return a pool's status in its colour."""
    return Styled(str(status.state), STATUS_STYLES[status.state])


def print_data(data: Any, format_: Format) -> None:
    """Print data as JSON or YAML."""
    if format_ is Format.YAML:
        import yaml

        say(yaml.safe_dump(json.loads(json.dumps(data, default=str)), sort_keys=False, allow_unicode=True).rstrip("\n"))
    else:
        say(json.dumps(data, indent=2, ensure_ascii=False, default=str))


def print_list(data: Sequence[Any], format_: Format, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a list: all of it as data, or some columns as a table."""
    if format_ is not Format.TABLE:
        print_data(list(data), format_)
    else:
        print_table(columns, rows)


def print_records(
    data: Sequence[Any],
    format_: Format,
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    records: Sequence[CatalogueRecord],
) -> None:
    """Print a list of records as `print_list` does; where somebody manages one of them, a last column says who."""
    owners = [record.managed_by for record in records]
    if any(owners):
        columns = (*columns, "managed by")
        rows = [(*row, owner) for row, owner in zip(rows, owners, strict=True)]
    print_list(data, format_, columns, rows)


def print_record(data: Mapping[str, Any], format_: Format) -> None:
    """Print one thing: as data, or a line per field."""
    if format_ is not Format.TABLE:
        print_data(dict(data), format_)
    else:
        print_table((), [(name, value) for name, value in data.items()])


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table: drawn on a terminal, aligned text elsewhere."""
    if is_terminal():
        console().print(table(columns, rows))
        return
    lines = [[plain(cell) for cell in row] for row in ([columns, *rows] if columns else rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        say("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, title: str | None = None) -> Table:
    """Return a table for a terminal; nothing in a cell is taken for markup."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    made = Table(*columns, title=title, box=box.SIMPLE_HEAD, show_header=bool(columns), pad_edge=False)
    if not columns:
        made.add_column(style="bold", no_wrap=True)
        made.add_column(overflow="fold")
    for column in made.columns[:2] if columns else ():
        column.overflow = "fold"
    for row in rows:
        made.add_row(*(Text(plain(cell), style=getattr(cell, "style", "")) for cell in row))
    return made


def console() -> Console:
    """Return the terminal; NO_COLOR is honoured by rich itself."""
    from rich.console import Console

    return Console(highlight=False)


def is_terminal() -> bool:
    """Whether a person looks at the answer."""
    return sys.stdout.isatty() or bool(os.environ.get("FORCE_COLOR"))


def limit_text(record: Limited) -> str:
    """Return the concurrency limit of a pool, queue or deployment as lists show it."""
    return "" if record.concurrency_limit is None else str(record.concurrency_limit)


def status_text(record: Limited) -> str:
    """Return whether a pool, queue or deployment is active or paused, and why."""
    if not record.is_paused:
        return "active"
    return f"paused ({record.pause_note})" if record.pause_note else "paused"
