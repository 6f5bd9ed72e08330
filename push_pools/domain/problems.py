"""What is wrong with something that a user wrote, in words: one sentence per problem, with its place."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pydantic import BaseModel, ValidationError
    from pydantic_core import ErrorDetails

Path = tuple[str | int, ...]

_LONGEST_PART = 30
_LONGEST_PATH = 60


class Problem(NamedTuple):
    """One thing that is wrong: where it is, and what to do."""

    path: Path
    text: str
    at_key: bool = False
    """Whether the key itself is wrong, and not its value."""

    def below(self, *path: str | int) -> Problem:
        """Return the problem as seen from further out."""
        return self._replace(path=(*path, *self.path))

    def __str__(self) -> str:
        """Return the sentence, with its place in front where it has one."""
        return f"{format_path(self.path)}: {self.text}" if self.path else self.text


def format_path(path: Iterable[str | int]) -> str:
    """Return a path into nested values as people write it, such as `schedules[0].cron`, shortened where it is long."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{clip(part, _LONGEST_PART)}" for part in path)
    return clip("".join(parts).removeprefix("."), _LONGEST_PATH)


def clip(value: object, longest: int = 40) -> str:
    """Return what a user wrote on one line, without control characters, cut to a length that an error may show."""
    text = " ".join("".join(char if char.isprintable() else " " for char in str(value)[:200]).split())
    return text if len(text) <= longest else text[: longest - 1] + "…"


def nearest(name: str, known: Iterable[str], count: int = 5) -> list[str]:
    """Return names that exist, the most similar first."""

    def unlikeness(other: str) -> tuple[float, str]:
        return (-difflib.SequenceMatcher(None, name.lower(), other.lower()).ratio(), other)

    return sorted(known, key=unlikeness)[:count]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a hint: the one name that is close, or all that there are."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names)}"


def problems_of(model: type[BaseModel], error: ValidationError, *, show_values: bool = True) -> list[Problem]:
    """Return the sentences of a validation error; values are shown in part, and not at all where they may be secret."""
    return [_problem(model, each, show_values=show_values) for each in error.errors(include_url=False)]


def _problem(model: type[BaseModel], details: ErrorDetails, *, show_values: bool) -> Problem:
    path = tuple(details["loc"])
    is_key = details["type"] == "extra_forbidden"
    if not is_key:
        path = tuple(part for part in path if not _is_branch(part))
    what = f"it is {shown(details['input'])}" if show_values else "the value, which is not shown, does not fit"
    return Problem(path, _text(model, path, details, what), at_key=is_key)


def _is_branch(part: str | int) -> bool:
    """Whether pydantic added the part to name a branch of a union."""
    return isinstance(part, str) and _BRANCH.fullmatch(part) is not None


_BRANCH = re.compile(r"str|int|float|bool|(list|dict|tuple|set|constrained-[a-z]+|function-[a-z]+)(\[.*\])?")


def _text(model: type[BaseModel], path: Path, details: ErrorDetails, what: str) -> str:
    kind, context = details["type"], details.get("ctx", {})
    match kind:
        case "missing":
            return "it is missing; add it"
        case "extra_forbidden":
            return f"there is no such key; {did_you_mean(str(path[-1]), _keys(model, path[:-1]))}"
        case "value_error":
            return str(context["error"])
        case _ if kind in _EXPECTED:
            return f"{what}; {_EXPECTED[kind]}"
        case _ if kind in _BOUNDS:
            return f"{what}; {_BOUNDS[kind]} {_bound(context)}"
        case "literal_error" | "enum":
            return f"{what}; write {context['expected']}"
    message = details["msg"]
    return message[:1].lower() + message[1:]


_EXPECTED = {
    "string_type": "write text, in quotes",
    "int_type": "write a whole number",
    "int_parsing": "write a whole number",
    "int_from_float": "write a whole number",
    "float_type": "write a number",
    "float_parsing": "write a number",
    "finite_number": "write a finite number",
    "bool_type": "write true or false",
    "bool_parsing": "write true or false",
    "dict_type": "write an object of names and values",
    "model_type": "write an object of names and values",
    "model_attributes_type": "write an object of names and values",
    "list_type": "write a list",
    "tuple_type": "write a list",
    "uuid_type": "write an id such as 0b9f3c52-6b7a-4a55-9b8e-5d1f6d9f0c11",
    "uuid_parsing": "write an id such as 0b9f3c52-6b7a-4a55-9b8e-5d1f6d9f0c11",
    "invalid-json-value": "write text, a number, true, false, null, a list or an object",
    "string_too_short": "write at least one character",
}

_BOUNDS = {
    "greater_than": "write more than",
    "greater_than_equal": "write at least",
    "less_than": "write less than",
    "less_than_equal": "write at most",
    "string_too_long": "its length is at most",
    "too_long": "its length is at most",
}


def _bound(context: Mapping[str, Any]) -> object:
    for name in ("gt", "ge", "lt", "le", "max_length"):
        if name in context:
            return context[name]
    return "what the documentation says"  # pragma: no cover - every bound has one of these names.


def shown(value: object) -> str:
    """Return a value as an error may show it: text and numbers in part, of the rest only the kind."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case int() | float():
            return clip(value, 24)
        case str():
            return repr(clip(value, 24))
        case dict():
            return "an object"
        case list() | tuple():
            return "a list"
    return f"a {type(value).__name__}"


def _keys(model: type[BaseModel], path: Path) -> list[str]:
    """Return the keys that the model at a path inside a model takes."""
    for part in path:
        field = model.model_fields.get(str(part))
        model = (_model_in(field.annotation) if field else None) or model
    return [field.alias or name for name, field in model.model_fields.items()]


def _model_in(annotation: Any) -> type[BaseModel] | None:
    from pydantic import BaseModel

    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        if model := _model_in(argument):
            return model
    return None
