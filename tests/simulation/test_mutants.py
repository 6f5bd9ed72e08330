"""The known bugs still fit the code, and the stories notice one of them."""

from __future__ import annotations

import ast

import pytest

from tests.simulation.bugs import MUTANTS, Mutant
from tests.simulation.mutants import PACKAGE, catch


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_applies_exactly_once(mutant: Mutant) -> None:
    """So that none goes stale unseen; and what it makes can be compiled."""
    text = (PACKAGE / mutant.file).read_text()
    changed = mutant.applied_to(text)
    assert changed != text
    ast.parse(changed)


def test_there_are_enough_and_each_has_a_name_of_its_own() -> None:
    """At least 24."""
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 24


def test_a_mutant_that_does_not_fit_is_reported() -> None:
    """By name, with its file."""
    with pytest.raises(ValueError, match=r"'x' fits 0 places of a\.py"):
        Mutant("x", "a.py", "old", "new", "").applied_to("text")


def test_a_bug_is_noticed() -> None:
    """The whole way, for one that is noticed at once."""
    mutant = next(each for each in MUTANTS if each.name == "record the pid only while Submitting")
    verdict = catch(mutant, 200)
    assert verdict.check is not None


def test_a_patch_that_only_makes_the_program_fail_proves_nothing() -> None:
    """Whatever story meets it first."""
    broken = Mutant(
        "x",
        "services/stop.py",
        "    if run.phase is Phase.STOPPING:\n        _stop(run, app)\n",
        "    _stop(run)\n",
        "",
    )
    verdict = catch(broken, 200)
    assert verdict.check is None
    assert "TypeError" in verdict.unsound
