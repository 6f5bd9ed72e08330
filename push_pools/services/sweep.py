"""Sweeps: look at all active jobs of a platform, in batches. They are the guarantee; events are only faster."""

from __future__ import annotations

import hashlib
import itertools
import math
from functools import partial
from typing import TYPE_CHECKING, Final

from push_pools.domain.errors import PlatformError, StoreUnavailable
from push_pools.domain.events import Sweep
from push_pools.domain.runs import Phase
from push_pools.domain.status import Part
from push_pools.services.ask import asking, is_installed
from push_pools.services.ledger import log
from push_pools.services.poll import apply_observation, not_seen
from push_pools.services.status import beat
from push_pools.services.stop import stop_run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from push_pools.domain.runs import FlowRun
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


def coalesce(sweeps: Mapping[str, Sweep]) -> set[str]:
    """Return the ids of the sweeps that do the work of all of these: one for each platform and shard.

    It is the one that goes on from the earliest place. Sweeps that take longer than the time between two ticks would
    otherwise be many at once, look at the same jobs, and take the time from each other.
    """
    best: dict[tuple[str, int | None], str] = {}
    # One from the start comes last: it would begin again before the one that goes on has come to its end.
    for id_, asked in sorted(sweeps.items(), key=lambda each: (each[1].after is None, each[1].after or "", each[0])):
        best.setdefault((asked.platform, asked.shard), id_)
    return set(best.values())


def sweep(
    platform: str,
    app: App,
    *,
    every_seconds: float | None = None,
    shard: int | None = None,
    after: str | None = None,
    until: datetime | None = None,
) -> int:
    """Look at the active jobs of a platform, in batches; return how many were looked at.

    With `every_seconds`, old jobs are looked at less often than in every sweep; without it, all are.

    With `until` (real clock), a sweep that takes longer ends there, and a message has the next invocation go on
    behind the last job that was looked at: `after` is its place. So those at the end have their turn too.

    A batch that cannot be asked about now is left to the next sweep; the deadlines of its runs hold all the same.
    So is a run that cannot be written: it keeps nobody behind it waiting.
    """
    now = app.clock.now()
    runs = [run for run in app.store.active(platform, shard=shard) if looks_now(run, now, every_seconds)]
    known = {_place(run): run for run in runs if run.job is not None and run.job.pid is not None}
    places = sorted(place for place in known if after is None or place > after)
    size = app.platforms(platform).observe_batch if is_installed(platform, app) else UNASKED_BATCH
    looks = (
        each for batch in _batches([known[place] for place in places], size) for each in _looks(platform, batch, app)
    )
    for looked, (run, look) in enumerate(looks, 1):
        try:
            look()
            if run.wake_at is not None and run.wake_at <= now:  # A deadline, or a stop to repeat.
                stop_run(run.id, app)
        except StoreUnavailable as error:
            log.warning("sweep_skipped", extra={"flow_run_id": str(run.id), "reason": str(error)})
        left = len(places) - looked
        if left and until is not None and app.real_clock.now() >= until:
            log.info("sweep_goes_on", extra={"platform": platform, "jobs": looked, "left": left})
            app.queue.send(Sweep(platform=platform, shard=shard, after=places[looked - 1]).to_json())
            return looked
    beat(app, Part.SWEEP, platform)
    return len(places)


def _place(run: FlowRun) -> str:
    """Return where a run stands in a sweep: beside those that are asked about in one call."""
    return "/".join((*(run.job.handle.batch_key if run.job else ()), str(run.id)))


def _looks(platform: str, batch: Sequence[FlowRun], app: App) -> Iterator[tuple[FlowRun, Callable[[], object]]]:
    """Ask about a batch, and yield each of its runs with what is to be done about the answer."""
    try:
        with asking(platform, app) as asked:
            seen = {each.key: each for each in asked.observe([run.job.handle for run in batch if run.job])}
    except (PlatformError, StoreUnavailable) as error:
        why = error.reason if isinstance(error, PlatformError) else str(error)
        log.warning("sweep_failed", extra={"platform": platform, "jobs": len(batch), "reason": why})
        for run in batch:
            yield run, partial(not_seen, run, why, app)
        return
    for run in batch:
        observation = seen.get(run.job.key) if run.job else None
        yield run, partial(apply_observation, run, observation, app) if observation else _nothing


def _nothing() -> None:
    """Do nothing: the platform said nothing of the job."""


def _batches(runs: Iterable[FlowRun], size: int) -> Iterator[Sequence[FlowRun]]:
    for _, group in itertools.groupby(runs, key=lambda run: run.job.handle.batch_key if run.job else ()):
        rest = list(group)
        for start in range(0, len(rest), size):
            yield rest[start : start + size]
