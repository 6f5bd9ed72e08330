"""References to secrets: what is rendered and stored in place of a secret's value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

SECRET_KEY = "$secret"  # noqa: S105  # The marker of a reference, not a secret.

Path = tuple[str | int, ...]
"""Where a value sits inside nested dictionaries and lists."""


@dataclass(frozen=True, slots=True)
class SecretRef:
    """One secret field of one block; the adapter opens it at the line that uses it."""

    block_id: str
    field: str

    def as_json(self) -> dict[str, str]:
        """Return the stored form, `{"$secret": "<block id>/<field>"}`."""
        return {SECRET_KEY: f"{self.block_id}/{self.field}"}

    @classmethod
    def parse(cls, value: object) -> SecretRef | None:
        """Return the reference that a stored form names, or None for any other value."""
        if not isinstance(value, dict) or value.keys() != {SECRET_KEY}:
            return None
        match value[SECRET_KEY]:
            case str(text) if all(parts := text.partition("/")):
                return cls(parts[0], parts[2])
        return None


def find_secret_refs(value: object) -> list[tuple[Path, SecretRef]]:
    """Return every reference inside a value with its path, objects and stored forms alike, in document order."""
    return list(_find(value, ()))


def _find(value: object, path: Path) -> Iterator[tuple[Path, SecretRef]]:
    ref = value if isinstance(value, SecretRef) else SecretRef.parse(value)
    if ref is not None:
        yield path, ref
        return
    for key, item in _items(value):
        yield from _find(item, (*path, key))


def _items(value: object) -> list[tuple[Any, object]]:
    if isinstance(value, dict):
        return list(value.items())
    if isinstance(value, list | tuple):
        return list(enumerate(value))
    return []


def secrets_as_json(value: Any) -> Any:
    """Return a copy of a value in which every SecretRef object is in its stored form."""
    if isinstance(value, SecretRef):
        return value.as_json()
    if isinstance(value, dict):
        return {key: secrets_as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [secrets_as_json(item) for item in value]
    return value
