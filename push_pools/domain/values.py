"""The types of small things that users write: names, JSON objects."""

from __future__ import annotations

import math
import re
from typing import Annotated, Final

from pydantic import AfterValidator, Field, JsonValue

MOST_PRIORITY: Final = 1_000_000
MOST_LIMIT: Final = 1_000_000

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def check_name(name: str) -> str:
    """Return the name of a pool, queue, deployment, flow or schedule if it can be one.

    Raises:
        ValueError: It holds other characters, is too long, or does not begin with a letter or digit.
    """
    if _NAME.fullmatch(name):
        return name
    raise ValueError(
        "a name has 1 to 128 letters, digits, dashes, underscores and dots, and begins with a letter or digit, "
        "such as 'nightly-report'"
    )


def check_json(value: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Return an object of names and values if JSON can carry it.

    Raises:
        ValueError: It holds an infinity, or "not a number".
    """
    todo: list[JsonValue] = [value]
    while todo:
        match todo.pop():
            case float() as number if not math.isfinite(number):
                raise ValueError(f"it holds {number}, which JSON does not have; write null or text")
            case dict() as items:
                todo.extend(items.values())
            case list() as items:
                todo.extend(items)
    return value


Name = Annotated[str, Field(strict=True), AfterValidator(check_name)]
"""A name as `check_name` takes it."""

JsonObject = Annotated[dict[str, JsonValue], AfterValidator(check_json)]
"""Names and values that JSON can carry."""
