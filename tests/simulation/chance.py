"""Choices, drawn from a seed and written down, so that a story can be told again and made shorter.

Of every choice, 0 is the tame one: nothing goes wrong, nobody else comes first. A story whose later choices are all 0
is thus the shortest way to tell what the earlier ones did.
"""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

T = TypeVar("T")
NEVER = 1 << 60


class Chance:
    """Draws from a seed, or says again what was drawn."""

    def __init__(self, seed: int, replayed: Sequence[int] | None = None) -> None:
        self._random = random.Random(seed).random
        self._replayed = replayed
        self.drawn: list[int] = []

    def below(self, bound: int) -> int:
        """Return a number from 0 to `bound` - 1."""
        if self._replayed is not None:
            place = len(self.drawn)
            value = self._replayed[place] % bound if place < len(self._replayed) else 0
        else:
            value = int(self._random() * bound)
        self.drawn.append(value)
        return value

    def pick(self, options: Sequence[T]) -> T:
        """Return one of the options; the first is the tame one."""
        return options[self.below(len(options))]

    def gap(self, mean: float) -> int:
        """Return after how many chances something happens that happens at one in `mean`; 0 drawn means never."""
        if self._replayed is not None:
            place = len(self.drawn)
            value = self._replayed[place] if place < len(self._replayed) else 0
        else:
            value = 1 + int(math.log(1.0 - self._random()) / math.log(1.0 - 1.0 / max(mean, 1.001)))
        self.drawn.append(value)
        return value or NEVER


class Countdown:
    """Something that happens at one in `mean` of its chances; never, with a mean of 0."""

    __slots__ = ("_chance", "_left", "_mean")

    def __init__(self, chance: Chance, mean: float) -> None:
        self._chance = chance
        self.start(mean)

    def start(self, mean: float) -> None:
        """Let it happen at one in `mean` of its chances from now on."""
        self._mean = mean
        self._left = self._chance.gap(mean) if mean else NEVER

    def hit(self) -> bool:
        """Take a chance, and say whether it happens."""
        self._left -= 1
        if self._left > 0:
            return False
        self._left = self._chance.gap(self._mean) if self._mean else NEVER
        return True

    def stop(self) -> None:
        """Let it not happen any more."""
        self._mean, self._left = 0.0, NEVER
