"""A home for each test, and the command on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cli.runner import Cli

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """The command on an empty home."""
    return Cli(tmp_path / "home")
