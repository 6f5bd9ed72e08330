"""Pages of output: Azure gives the whole log, or its end, each time it is asked, and every line with its moment.

A cursor is the moment of the last line that was given and how many lines of that moment were: it holds although Azure
drops lines from the beginning once a container is over.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

KEPT_BYTES: Final = 8 * 1024
"""How much of the end of the output is kept with a run when its group is deleted."""
_STAMP: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d+))?(?:Z|[+-]00:00)[ \t]?")


class Line(NamedTuple):
    """A line of output, and its moment in a form that can be compared; the last known one for a line without."""

    moment: str
    text: str


def following(content: str, cursor: str | None) -> tuple[tuple[str, ...], str | None]:
    """Return the lines after a cursor, and the cursor that continues after them."""
    lines = _lines(content)
    last, given = _parsed(cursor)
    fresh: list[Line] = []
    same = 0
    for line in lines:
        if line.moment < last:
            continue
        if line.moment == last:
            same += 1
            if same <= given:
                continue
        fresh.append(line)
    if not fresh:
        return (), cursor
    end = fresh[-1].moment
    number = sum(line.moment == end for line in fresh) + (given if end == last else 0)
    return tuple(line.text for line in fresh), f"{end}/{number}"


def kept(content: str) -> tuple[str, ...]:
    """Return the last whole lines, in `KEPT_BYTES`; of a last line that is longer, its end."""
    lines: list[str] = []
    size = 0
    for line in reversed(_lines(content)):
        size += len(line.text.encode()) + 1
        if size > KEPT_BYTES:
            break
        lines.append(line.text)
    if not lines and (listed := _lines(content)):
        return (listed[-1].text[-KEPT_BYTES // 4 :],)
    return tuple(reversed(lines))


def _lines(content: str) -> list[Line]:
    found: list[Line] = []
    moment = ""
    for text in content.split("\n"):
        stamp = _STAMP.match(text)
        if stamp is not None:
            moment = f"{stamp[1]}.{(stamp[2] or '').ljust(9, '0')[:9]}"
            text = text[stamp.end() :]
        found.append(Line(moment, text.rstrip("\r")))
    return found[:-1] if found and not found[-1].text and content.endswith("\n") else found if content else []


def _parsed(cursor: str | None) -> tuple[str, int]:
    moment, _, number = (cursor or "").partition("/")
    return moment, int(number) if number.isdigit() else 0
