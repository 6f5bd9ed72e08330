"""Bundles for the tests; making one needs PyPI."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.terraform.bundles import HOST, Bundle, make

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def host_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The bundle for this machine."""
    folder: Path = tmp_path_factory.mktemp("bundle")
    return make(*HOST, folder / "functions.zip")
