"""Write the table of phases into `docs/design.md`, from `push_pools/domain/phases.py`; a test compares."""

from __future__ import annotations

import sys
from pathlib import Path

from push_pools.domain.phases import table

DESIGN = Path(__file__).resolve().parent.parent / "docs" / "design.md"
HEAD = "| phase | state shown |"


def with_table(text: str) -> str:
    """Return the design with the table as the code has it.

    Raises:
        ValueError: There is no table of phases in it.
    """
    lines = text.split("\n")
    found = [number for number, line in enumerate(lines) if line.startswith(HEAD)]
    if len(found) != 1:
        raise ValueError(f"docs/design.md has {len(found)} tables that begin with {HEAD!r}; it needs one")
    end = next((n for n in range(found[0], len(lines)) if not lines[n].startswith("|")), len(lines))
    return "\n".join([*lines[: found[0]], *table().split("\n"), *lines[end:]])


def main() -> int:
    """Write it."""
    DESIGN.write_text(with_table(DESIGN.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
