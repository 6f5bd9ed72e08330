"""The state machine, enumerated: every phase has a deadline, an owner and a way out."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from push_pools.domain.phases import PHASES, may_follow, table
from push_pools.domain.runs import Phase

if TYPE_CHECKING:
    from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent.parent


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_phases", ROOT / "scripts" / "make_phases.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("phase", Phase)
def test_every_phase_has_a_deadline_an_owner_and_a_way_out(phase: Phase) -> None:
    """But for the last, where nothing is left to do."""
    rules = PHASES[phase]
    assert rules.shown
    assert rules.next_action
    assert rules.ways_out - {phase}
    if phase is not Phase.SETTLED:
        assert "–" not in (rules.deadline, rules.owner)  # noqa: RUF001


@pytest.mark.parametrize("phase", Phase)
def test_every_phase_leads_to_the_end(phase: Phase) -> None:
    """From everywhere a run can become settled: only final states are absorbing."""
    reached = {phase}
    while more := {way for each in reached for way in PHASES[each].ways_out} - reached:
        reached |= more
    assert Phase.SETTLED in reached
    if phase.is_final:
        assert all(each.is_final for each in reached)


def test_no_way_leads_out_of_a_final_phase() -> None:
    """Nor past the intent; the first claim of a run is written with it."""
    assert not any(may_follow(Phase.ENDED, phase) for phase in Phase if not phase.is_final)
    assert not may_follow(Phase.PLANNED, Phase.STARTED)
    assert not may_follow(Phase.WAITING, Phase.CALLING)
    assert may_follow(Phase.PLANNED, Phase.CALLING)
    assert may_follow(Phase.CALLING, Phase.CALLING)


def test_the_design_has_the_table_as_it_is_here() -> None:
    """`scripts/make_phases.py` writes it."""
    text = (ROOT / "docs" / "design.md").read_text()
    assert script().with_table(text) == text
    assert table() in text


def test_a_design_without_the_table_is_refused() -> None:
    """Rather than left as it is."""
    with pytest.raises(ValueError, match="has 0 tables"):
        script().with_table("nothing")
