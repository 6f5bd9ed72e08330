"""What `doctor` says of one thing that it looked at."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum


class Level(StrEnum):
    """How well something is."""

    OK = "ok"
    WARN = "warn"
    """It works, and somebody should look at it."""
    RED = "red"
    """Something does not work, or soon will not."""


@dataclass(frozen=True)
class Finding:
    """What a check found, and what to do about it."""

    check: str
    level: Level
    found: str
    fix: str = ""

    def as_listed(self) -> dict[str, str]:
        """Return the public fields."""
        return {name: str(value) for name, value in asdict(self).items()}


def ok(check: str, found: str) -> Finding:
    """Return the finding that all is well."""
    return Finding(check, Level.OK, found)


def warn(check: str, found: str, fix: str) -> Finding:
    """Return a finding that somebody should look at."""
    return Finding(check, Level.WARN, found, fix)


def red(check: str, found: str, fix: str) -> Finding:
    """Return a finding that somebody has to act on."""
    return Finding(check, Level.RED, found, fix)
