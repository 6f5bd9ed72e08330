"""Durations as users write them: seconds, or a number with a unit."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, GetJsonSchemaHandler

LONGEST_SECONDS: Final = 3650 * 86400
"""No duration that a user writes is longer than ten years."""

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"(\d{1,12}(?:\.\d{1,9})?) ?([smhd]?)")


def parse_duration(value: object) -> float:
    """Return the seconds of a duration: 90, "90", "90s", "15m", "1.5h" or "1d".

    Raises:
        ValueError: It is written in another way, negative, or longer than ten years.
    """
    text = str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value
    found = _DURATION.fullmatch(text.strip()) if isinstance(text, str) else None
    if found is None:
        raise ValueError('it is not a duration; write seconds, such as 90, or a number and a unit, such as "15m"')
    seconds = float(found[1]) * _UNITS[found[2] or "s"]
    if seconds > LONGEST_SECONDS:
        raise ValueError('it is longer than ten years; write at most "3650d"')
    return seconds


def format_duration(seconds: float) -> str:
    """Return a duration in its largest whole unit, such as `2h`; `parse_duration` reads it again."""
    for unit, size in reversed(_UNITS.items()):
        if seconds and seconds % size == 0:
            return f"{int(seconds // size)}{unit}"
    return f"{seconds:.9f}".rstrip("0").rstrip(".") + "s"


class _DurationSchema:
    def __get_pydantic_json_schema__(self, _: Any, __: GetJsonSchemaHandler) -> dict[str, Any]:
        return {
            "anyOf": [
                {"type": "number", "minimum": 0},
                {"type": "string", "pattern": r"^\d+(\.\d+)? ?[smhd]?$", "examples": ["90s", "15m", "2h", "1d"]},
            ]
        }


Duration = Annotated[float, BeforeValidator(parse_duration), _DurationSchema()]
"""Seconds, however they were written."""
