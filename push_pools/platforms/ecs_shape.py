"""The shapes in which ECS wants what templates write more simply, and the facts of a launch."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

from push_pools.domain.job_variables import split_command

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_CONTAINER: Final = "flow"
_NOT_IN_TAGS: Final = re.compile(r"[^\w .:/=+@-]")
_TAG_KEY, _TAG_VALUE = 128, 256


def canonical(value: Any) -> Any:
    """Return a copy in which every dictionary is ordered by its keys, so that equal values have equal JSON."""
    return json.loads(json.dumps(value, sort_keys=True))


def compact(value: Any) -> str:
    """Return the shortest JSON of a value, with ordered keys."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def without_empty(value: Any) -> Any:
    """Return a copy without nulls, empty dictionaries and empty lists; empty text, False and 0 stay."""
    if isinstance(value, dict):
        kept = {name: without_empty(item) for name, item in value.items()}
        return {name: item for name, item in kept.items() if item is not None and item not in ({}, [])}
    if isinstance(value, list):
        return [item for item in map(without_empty, value) if item is not None and item not in ({}, [])]
    return value


def as_map(value: object, key: str, item: str) -> dict[str, Any]:
    """Return a dictionary from one, or from ECS's list of `{key: …, item: …}`."""
    if isinstance(value, dict):
        return dict(value)
    pairs = value if isinstance(value, list) else []
    return {each[key]: each.get(item) for each in pairs if isinstance(each, dict) and key in each}


def as_pairs(values: Mapping[str, Any], key: str, item: str) -> list[dict[str, str]]:
    """Return ECS's list for a dictionary, ordered by name; a value of None leaves its name out."""
    return [{key: name, item: text(value)} for name, value in sorted(values.items()) if value is not None]


def text(value: object) -> str:
    """Return a value as ECS wants it, which is text everywhere."""
    return value if isinstance(value, str) else json.dumps(value)


def words(value: object) -> Any:
    """Return the words of a command that is written as text; anything else as it is."""
    return split_command(value) if isinstance(value, str) else value


def whole_number(value: object) -> Any:
    """Return the number that text of digits means; anything else as it is."""
    return int(value) if isinstance(value, str) and value.isdigit() else value


def tag_pairs(tags: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return tags as AWS takes them: other characters become `-`, and what is too long is cut (API reference, Tag)."""
    clean = {
        _NOT_IN_TAGS.sub("-", name)[:_TAG_KEY]: _NOT_IN_TAGS.sub("-", text(value))[:_TAG_VALUE]
        for name, value in tags.items()
        if value is not None
    }
    return as_pairs({name: value for name, value in clean.items() if name}, "key", "value")


def containers(section: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """Return copies of the containers listed in a section."""
    listed = section.get(name)
    return [dict(each) for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []


def is_fargate(request: Mapping[str, Any], definition: Mapping[str, Any]) -> bool:
    """Whether a task would run on Fargate. A strategy decides before the launch type, which is FARGATE by default."""
    if strategy := request.get("capacityProviderStrategy"):
        providers = [str(each.get("capacityProvider", "")) for each in strategy if isinstance(each, dict)]
        return any(provider.startswith("FARGATE") for provider in providers)
    launch = request.get("launchType")
    if launch:
        return str(launch).startswith("FARGATE")
    return not {"EC2", "EXTERNAL"}.intersection(definition.get("requiresCompatibilities") or ())
