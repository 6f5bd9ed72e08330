"""What all tests of platforms share."""

from __future__ import annotations

import pytest

from push_pools.platforms import aci, ecs


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give a submission all the time it takes to open a client: the machine of the tests may be a slow one.

    Tests of that limit set it themselves.
    """
    monkeypatch.setattr(ecs, "BEFORE_CALL_SECONDS", 60.0)
    monkeypatch.setattr(aci, "BEFORE_CALL_SECONDS", 60.0)
