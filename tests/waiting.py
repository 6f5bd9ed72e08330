"""Waiting for something to become true, with an end."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


def until(what: Callable[[], T], *, seconds: float = 30.0, every: float = 0.01) -> T:
    """Return the first true value of `what`.

    Raises:
        AssertionError: It was never true in that time.
    """
    end = time.monotonic() + seconds
    while True:
        value = what()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not true within {seconds:g} s: {what}; last {value!r}")
        time.sleep(every)
