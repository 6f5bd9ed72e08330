"""Bundles for the tests, which need PyPI, and a copy of the configuration in which terraform runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.terraform.bundles import HOST, Bundle, kept
from tests.terraform.terraform import Terraform, prepared

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def host_bundle() -> Bundle:
    """The bundle for this machine."""
    return kept(*HOST)


@pytest.fixture(scope="module")
def service() -> Iterator[Terraform]:
    """The service module, with its providers; skipped where there are none."""
    with prepared("modules/service") as terraform:
        yield terraform
