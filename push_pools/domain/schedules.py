"""When a deployment's runs are due."""

from __future__ import annotations

from push_pools.domain.records import Record


class Schedule(Record):
    """One schedule of a deployment."""

    id: str
    version: int = 1
