"""The guarantee, told in thousands of stories; `make prove` tells more."""

from __future__ import annotations

import os
import time

import pytest

from tests.simulation.__main__ import Total, report, tell_some
from tests.simulation.adapters import ADAPTERS
from tests.simulation.clouds import FAMILIES
from tests.simulation.shrink import shrink
from tests.simulation.world import kind_of, tell

FIXED = 20270101
STORIES = 32
"""With those of the fresh seed: some 2,000 runs."""


def check(total: Total) -> None:
    assert not total.failed, report(total.failed[0], seconds=30)
    assert (total.doubles, total.lost, total.limbo) == (0, 0, 0)


@pytest.mark.parametrize("part", range(2))
def test_stories_of_a_fixed_seed(part: int) -> None:
    """The same stories each time, with every kind of fault among them."""
    total = tell_some(list(range(FIXED + part * STORIES // 2, FIXED + (part + 1) * STORIES // 2)))
    check(total)
    assert total.runs >= 450
    assert len(total.faults) >= 50


def test_the_fixed_stories_are_on_every_family_and_every_kind_of_ledger() -> None:
    """So that what `make test` tells each time leaves none out."""
    kinds = {word for seed in range(FIXED, FIXED + STORIES) for word in kind_of(seed).split(", ")}
    assert {
        *FAMILIES,
        *ADAPTERS,
        "memory",
        "SQLite",
        "DynamoDB",
        "embedded",
        "functions",
        "lanes",
        "schedules",
    } <= kinds


@pytest.mark.parametrize("part", range(2))
def test_stories_of_a_fresh_seed(part: int) -> None:
    """Other stories each time; a failure names its seed."""
    seed = int(os.environ.get("SEED", str(time.time_ns() % 10**9)))
    check(tell_some([seed + part * 1000 + n for n in range(STORIES // 2)]))


def test_a_story_is_told_again_exactly() -> None:
    """By its seed, and by its choices."""
    first, again = tell(FIXED + 5), tell(FIXED + 5)
    assert (first.drawn, first.faults, first.finals) == (again.drawn, again.faults, again.finals)
    replayed = tell(FIXED + 5, first.drawn)
    assert (replayed.drawn, replayed.faults, replayed.finals) == (first.drawn, first.faults, first.finals)


def test_a_tame_story_has_no_fault() -> None:
    """All choices 0: nothing goes wrong, and every run completes."""
    told = tell(1, [])
    assert told.violation is None
    assert not told.faults
    assert set(told.finals) == {"Completed"}


def test_a_broken_story_is_shrunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """To one that breaks the same sentence, with fewer choices."""
    from push_pools.domain import transitions

    monkeypatch.setattr(transitions, "_surely_gone", lambda job, seen, timing: True)
    broken = next(told for told in map(tell, range(FIXED, FIXED + 200)) if told.violation is not None)
    best, choices = shrink(broken, seconds=5)
    assert best.violation is not None
    assert broken.violation is not None
    assert best.violation.check == broken.violation.check
    assert sum(map(bool, choices)) < sum(map(bool, broken.drawn))
