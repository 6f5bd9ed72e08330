"""Sweeps: look at all active jobs of a platform, in batches. They are the guarantee; events are only faster."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from typing import TYPE_CHECKING, Final

from push_pools.domain.errors import PlatformError
from push_pools.domain.runs import Phase
from push_pools.domain.status import Part
from push_pools.services.ask import asking, is_installed
from push_pools.services.ledger import log
from push_pools.services.poll import apply_observation, not_seen
from push_pools.services.status import beat
from push_pools.services.stop import stop_run

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime

    from push_pools.domain.runs import FlowRun, JobHandle
    from push_pools.ports import App

MAX_INTERVAL_SECONDS: Final = 300.0
UNASKED_BATCH: Final = 100
"""How many jobs are taken together of a platform that is not installed."""
AGE_SHARE: Final = 60.0
"""A job is looked at every sixtieth of its age, at most every five minutes, and at every sweep while it is young."""


def looks_now(run: FlowRun, now: datetime, every_seconds: float | None) -> bool:
    """Whether a job is looked at in the sweep at `now`, when sweeps come every so often.

    A pure function of the job's age and id, so that nothing has to be written to spread the looks.
    """
    if every_seconds is None or run.phase is Phase.STOPPING or run.job is None or run.job.submitted_at is None:
        return True
    if run.wake_at is not None and run.wake_at <= now:
        return True  # Its deadline has passed.
    age = (now - run.job.submitted_at).total_seconds()
    longest = min(age / AGE_SHARE, MAX_INTERVAL_SECONDS)
    if longest < 2 * every_seconds:
        return True
    # The interval doubles at certain ages and stays the same in between: one that grew with the age would keep pace
    # with it, and some jobs would never be looked at.
    interval = every_seconds * 2.0 ** math.floor(math.log2(longest / every_seconds))
    offset = int.from_bytes(hashlib.sha256(run.id.bytes).digest()[:4]) / 2**32 * interval
    return int((age + offset) / interval) != int((age + offset - every_seconds) / interval)


def sweep(platform: str, app: App, *, every_seconds: float | None = None, shard: int | None = None) -> int:
    """Look at the active jobs of a platform, in batches; return how many were asked about.

    With `every_seconds`, old jobs are looked at less often than in every sweep; without it, all are.

    A batch that cannot be asked about now is left to the next sweep; the deadlines of its runs hold all the same.
    """
    now = app.clock.now()
    runs = [run for run in app.store.active(platform, shard=shard) if looks_now(run, now, every_seconds)]
    by_key = {run.job.key: run for run in runs if run.job is not None and run.job.pid is not None}
    handles = (run.job.handle for run in by_key.values() if run.job is not None)
    size = app.platforms(platform).observe_batch if is_installed(platform, app) else UNASKED_BATCH
    for batch in _batches(handles, size):
        try:
            with asking(platform, app) as asked:
                seen = asked.observe(batch)
        except PlatformError as error:
            log.warning("sweep_failed", extra={"platform": platform, "jobs": len(batch), "reason": error.reason})
            for handle in batch:
                not_seen(by_key[handle.key], error.reason, app)
            continue
        for observation in seen:
            if (run := by_key.get(observation.key)) is not None:
                apply_observation(run, observation, app)
    for run in by_key.values():
        if run.wake_at is not None and run.wake_at <= now:  # A deadline, or a stop to repeat.
            stop_run(run.id, app)
    beat(app, Part.SWEEP, platform)
    return len(by_key)


def _batches(handles: Iterable[JobHandle], size: int) -> Iterator[Sequence[JobHandle]]:
    groups: dict[tuple[str, ...], list[JobHandle]] = defaultdict(list)
    for handle in handles:
        groups[handle.batch_key].append(handle)
    for group in groups.values():
        for start in range(0, len(group), size):
            yield group[start : start + size]
