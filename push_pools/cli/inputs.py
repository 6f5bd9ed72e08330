"""How the commands read what a user wrote: pairs, durations, times, files. What is wrong is wrong usage, exit 2."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import typer


def pairs(texts: Sequence[str], option: str) -> dict[str, Any]:
    """Return `k=v` texts as names and values; a value that is JSON is that value, and any other is text."""
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise typer.BadParameter(f"{option} {text!r} is not a pair; write {option} NAME=VALUE")
        if name.strip() in found:
            raise typer.BadParameter(f"{option} names {name.strip()!r} twice; give it once")
        found[name.strip()] = json_or_text(value)
    return found


def json_or_text(text: str) -> Any:
    """Return what the text means as JSON, or the text itself."""
    try:
        return json.loads(text, parse_constant=_no_constant)
    except ValueError:
        return text


def _no_constant(name: str) -> Any:
    raise ValueError(name)


def json_object(text: str, option: str) -> dict[str, Any]:
    """Return a JSON object given as text, or on standard input for `-`."""
    try:
        value = json.loads(sys.stdin.read() if text == "-" else text)
    except ValueError as error:
        raise typer.BadParameter(f"""{option} is not JSON ({error}); write {option} '{{"name": "value"}}'""") from None
    if not isinstance(value, dict):
        raise typer.BadParameter(f"""{option} is not a JSON object; write {option} '{{"name": "value"}}'""")
    return value


def duration(text: str, option: str) -> timedelta:
    """Return a duration such as `10m`."""
    from push_pools.domain.durations import parse_duration

    try:
        return timedelta(seconds=parse_duration(text))
    except ValueError as error:
        raise typer.BadParameter(f"{option} {text!r}: {error}") from None


def instant(text: str, option: str) -> datetime:
    """Return a moment with an offset, by RFC 3339."""
    from pydantic import TypeAdapter, ValidationError

    from push_pools.domain.events import Instant

    try:
        found: datetime = TypeAdapter(Instant).validate_python(text)
    except ValidationError as error:
        raise typer.BadParameter(f"{option} {text!r}: {error.errors()[0]['ctx']['error']}") from None
    return found


def since(text: str, now: datetime) -> datetime:
    """Return the moment that `--since` means: a time, or a duration before now."""
    if text[:1].isdigit() and ("T" in text.upper() or text.count("-") > 1):
        return instant(text, "--since").astimezone(UTC)
    return now - duration(text, "--since")


def read_text(path: str) -> str:
    """Return the text of a file, or of standard input for `-`.

    Raises:
        InvalidInput: It cannot be read.
    """
    from push_pools.domain.errors import InvalidInput

    try:
        return sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidInput(f"the file {path} cannot be read: {error.strerror}; give a path, or - for input") from None
    except UnicodeDecodeError:
        raise InvalidInput(f"the file {path} is not UTF-8 text; save it as UTF-8") from None


def read_object(path: str, what: str) -> dict[str, Any]:
    """Return the JSON or YAML object in a file. It may hold secrets, so an error shows nothing of it.

    Raises:
        InvalidInput: It cannot be read, or holds something else.
    """
    import yaml

    from push_pools.domain.errors import InvalidInput

    text = read_text(path)
    where = "standard input" if path == "-" else f"the file {path}"
    try:
        value = json.loads(text) if text.lstrip().startswith("{") else yaml.safe_load(text)
    except json.JSONDecodeError as error:
        raise InvalidInput(f"{where} is not JSON, at line {error.lineno} column {error.colno}; correct it") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        at = f", at line {mark.line + 1} column {mark.column + 1}" if mark else ""
        raise InvalidInput(f"{where} is neither JSON nor YAML{at}; correct it") from None
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise InvalidInput(f"{where} does not hold an object of names and values; {what} is one")
    return value


def write_text(path: str, text: str) -> None:
    """Write a text file.

    Raises:
        InvalidInput: It cannot be written.
    """
    from push_pools.domain.errors import InvalidInput

    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise InvalidInput(f"the file {path} cannot be written: {error.strerror}; give another path") from None
