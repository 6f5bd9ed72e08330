"""What `docs/testing.md` shows and lists of the doubles is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from push_pools.testing import aci_faults, cloud_run_faults, ecs_faults
from push_pools.testing.faults import HANGING

PAGE = (Path(__file__).parents[2] / "docs" / "testing.md").read_text(encoding="utf-8")
SECTIONS = {part.partition("\n")[0]: part for part in PAGE.split("\n## ")[1:]}
EXAMPLES = {
    name: text for name, part in SECTIONS.items() for text in re.findall(r"```python\n(.*?)```", part, re.DOTALL)
}


@pytest.mark.parametrize("section", EXAMPLES)
def test_the_example_of_a_section_runs(section: str) -> None:
    exec(compile(EXAMPLES[section], f"docs/testing.md, {section}", "exec"), {})


def test_every_double_has_a_section_with_an_example() -> None:
    assert {"Amazon ECS", "Google Cloud Run", "Azure Container Instances", "DynamoDB"} <= EXAMPLES.keys()


@pytest.mark.parametrize(
    ("section", "faults"),
    [
        ("Amazon ECS", ecs_faults.FAULTS),
        ("Google Cloud Run", cloud_run_faults.FAULTS),
        ("Azure Container Instances", aci_faults.FAULTS),
    ],
)
def test_every_fault_of_a_double_is_named(section: str, faults: dict[str, object]) -> None:
    """Those that all doubles have where the first of them is described."""
    common = SECTIONS["Amazon ECS"] + SECTIONS["Google Cloud Run"]
    for name in [*faults, *HANGING]:
        assert re.search(rf"`{name}[(`]", SECTIONS[section] + common), name
