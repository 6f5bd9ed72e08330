"""How the service is: when its parts last worked, and whether a pool's runs would be submitted."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from push_pools.domain.pools import CatalogueRecord

TICK_STALE: timedelta = timedelta(minutes=3)
"""How old the last tick may be; after that nobody looks after what waits."""


class Part(StrEnum):
    """The parts of the service that leave a note that they work."""

    TICK = "tick"
    SWEEP = "sweep"
    """Of a platform: its active jobs were looked at, or tried to be."""
    SUBMIT = "submit"
    """Of a pool: a job was submitted."""
    POLL = "poll"
    """Of a pool: its platform told of a job."""


class Beat(CatalogueRecord):
    """When a part of the service last worked; `updated_at` is that moment.

    One small record per part, and per platform or pool. Each process writes it every few seconds at most, and who
    loses the race to write it has been outdone by somebody who works: so it is cheap on every hosting.
    """

    part: Part
    of: str = ""
    """The platform of a sweep, the pool of a submit or poll."""

    @property
    def key(self) -> str:
        return beat_key(self.part, self.of)


def beat_key(part: Part, of: str = "") -> str:
    """Return the key of a part's beat."""
    return f"{part}/{of}" if of else str(part)


class PoolState(StrEnum):
    """Whether the runs of a pool would be submitted now, in Prefect's words."""

    READY = "READY"
    NOT_READY = "NOT_READY"
    PAUSED = "PAUSED"


@dataclass(frozen=True)
class PoolStatus:
    """The state of a pool, why, and when the parts that serve it last worked."""

    state: PoolState
    reason: str = ""
    last_tick: datetime | None = None
    last_sweep: datetime | None = None
    last_submit: datetime | None = None
    last_poll: datetime | None = None

    def as_listed(self) -> dict[str, str | None]:
        """Return the public fields, as `work-pool ls` shows them."""
        return {"status": str(self.state), "status_reason": self.reason}

    def as_inspected(self) -> dict[str, str | None]:
        """Return the public fields, with the times, as `work-pool inspect` shows them."""
        times = {name: getattr(self, name) for name in ("last_tick", "last_sweep", "last_submit", "last_poll")}
        return self.as_listed() | {name: at.isoformat() if at else None for name, at in times.items()}
