"""Looking at the jobs of a batch one by one, where a cloud may fail for one of them or for all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from push_pools.domain.errors import PlatformUnavailable
from push_pools.domain.states import JobStatus, Observation

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from push_pools.domain.runs import JobHandle
    from push_pools.ports import Clock

MOST_FAILED: Final = 3
"""After so many failures it is an outage, which is not asked about for as long as there are jobs."""
THROTTLES: Final = frozenset({"TooManyRequests", "RESOURCE_EXHAUSTED"})
"""Codes after which nothing more is asked."""


def look_at_each(
    handles: Sequence[JobHandle], look: Callable[[JobHandle], Observation], clock: Clock
) -> list[Observation]:
    """Return what is seen of each job, in their order; one that could not be asked about is unknown.

    Sweeps ask about the same jobs in the same order each time, so one that the cloud never shows must not hide others.

    Raises:
        PlatformUnavailable: None could be asked about.
    """
    seen: list[Observation] = []
    shown = 0
    failures: list[PlatformUnavailable] = []
    for handle in handles:
        if len(failures) < MOST_FAILED and not (failures and THROTTLES.intersection(failures[-1].codes)):
            try:
                seen.append(look(handle))
                shown += 1
                continue
            except PlatformUnavailable as error:
                failures.append(error)
        last = failures[-1]
        reason = f"{last.platform}: {last.reason}"
        seen.append(Observation(key=handle.key, status=JobStatus.UNKNOWN, observed_at=clock.now(), reason=reason))
    if failures and not shown:
        raise failures[0]
    return seen
