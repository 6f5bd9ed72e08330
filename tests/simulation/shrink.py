"""Making a story that breaks the guarantee shorter: choices become tame while it still breaks the same sentence."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tests.simulation.world import Outcome, tell

if TYPE_CHECKING:
    from collections.abc import Callable


def shrink(
    outcome: Outcome, *, seconds: float = 60.0, retell: Callable[[int, list[int]], Outcome] = tell
) -> tuple[Outcome, list[int]]:
    """Return the shortest story found that breaks the same sentence, and its choices."""
    assert outcome.violation is not None
    check, end = outcome.violation.check, time.monotonic() + seconds
    best, choices = outcome, _without_tail(outcome.drawn)

    def breaks(tried: list[int]) -> Outcome | None:
        told = retell(outcome.seed, tried)
        return told if told.violation is not None and told.violation.check == check else None

    block = max(len(choices) // 2, 1)
    while block >= 1 and time.monotonic() < end:
        start = 0
        while start < len(choices) and time.monotonic() < end:
            piece = choices[start : start + block]
            if any(piece):
                tried = _without_tail([*choices[:start], *[0] * len(piece), *choices[start + block :]])
                if (told := breaks(tried)) is not None:
                    best, choices = told, tried
                    continue
            start += block
        block //= 2
    return best, choices


def _without_tail(choices: list[int]) -> list[int]:
    last = max((place for place, value in enumerate(choices) if value), default=-1)
    return choices[: last + 1]
