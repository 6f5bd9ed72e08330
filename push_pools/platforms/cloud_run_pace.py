"""How fast Cloud Run is asked to start jobs: below its quota of writes ("Quotas and limits", Cloud Run)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from push_pools.domain.pace import Pace, Rate

if TYPE_CHECKING:
    from collections.abc import Mapping

WRITES_PER_MINUTE: Final = 60.0
"""Writes a minute in a project and region, unless Google has raised it."""
WRITES_PER_RUN: Final = 2
"""A job is created and deleted."""
BURST_SHARE: Final = 12
"""A twelfth of a minute's writes may come at once, as many jobs. The rest of the minute then has room for them too."""


def pace_of_creates(settings: Mapping[str, str], where: str) -> Pace:
    """Return the pace of CreateJob in a project and region, at which no minute has more writes than the quota."""
    writes = float(settings.get("cloud_run_writes_per_minute") or WRITES_PER_MINUTE)
    burst = max(int(writes / BURST_SHARE), 1)
    runs = writes / WRITES_PER_RUN
    return Pace(f"cloud-run/CreateJob/{where}", Rate(max(runs - burst, runs / 2) / 60, burst))
