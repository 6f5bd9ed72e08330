"""What the parts of the service note of themselves, and what a pool's status follows from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from push_pools.domain.errors import (
    InvalidInput,
    NotAllowed,
    NotFound,
    PlatformMissing,
    StoreUnavailable,
    VersionConflict,
)
from push_pools.domain.status import TICK_STALE, Beat, Part, PoolState, PoolStatus, beat_key
from push_pools.services.blocks import load_block
from push_pools.services.ledger import log
from push_pools.services.render import load_variable

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from push_pools.domain.pools import WorkPool
    from push_pools.ports import App

BEAT_SECONDS: Final = 10.0
"""How often a process writes that a part of it works, at most."""
_KEPT: Final = 1024
_BEATEN: Final[dict[tuple[UUID, str], datetime]] = {}
"""When this process last wrote each beat, on the real clock."""


def beat(app: App, part: Part, of: str = "") -> None:
    """Note that a part of the service works. A note that cannot be written is no reason for it to stop."""
    key, now = (app.store.ledger_id, beat_key(part, of)), app.real_clock.now()
    last = _BEATEN.get(key)
    if last is not None and 0 <= (now - last).total_seconds() < BEAT_SECONDS:
        return
    if len(_BEATEN) >= _KEPT:
        _BEATEN.clear()
    _BEATEN[key] = now
    at = app.clock.now()
    try:
        old = app.store.get(Beat, key[1])
        fresh = Beat(part=part, of=of, created_at=at, updated_at=at)
        app.store.put(old.model_copy(update={"updated_at": at}) if old else fresh)
    except VersionConflict:
        pass  # Somebody else noted the same.
    except StoreUnavailable as error:
        log.warning("beat_failed", extra={"part": key[1], "reason": str(error)})


def last_beat(app: App, part: Part, of: str = "") -> datetime | None:
    """Return when a part of the service last worked, or `None` if it never did."""
    found = app.store.get(Beat, beat_key(part, of))
    return found.updated_at if found else None


def forget_beats(app: App, pool: str) -> None:
    """Drop what was noted of a pool that was deleted. Repeatable."""
    for part in (Part.SUBMIT, Part.POLL):
        if (found := app.store.get(Beat, beat_key(part, pool))) is not None:
            try:
                app.store.delete(found)
            except VersionConflict:
                log.info("beat_kept", extra={"part": found.key})  # A last job of the pool was just seen.


def pool_status(app: App, pool: WorkPool) -> PoolStatus:
    """Return whether a pool's runs would be submitted now, with the reason why not. Nothing is called or written."""
    last_tick = last_beat(app, Part.TICK)
    state, reason = PoolState.READY, ""
    if pool.is_paused:
        state, reason = PoolState.PAUSED, pool.pause_note or "it was paused; `push-pools work-pool resume` it"
    elif problem := pool_problem(app, pool) or tick_problem(last_tick, app.clock.now()):
        state, reason = PoolState.NOT_READY, problem
    return PoolStatus(
        state,
        reason,
        last_tick=last_tick,
        last_sweep=last_beat(app, Part.SWEEP, pool.type),
        last_submit=last_beat(app, Part.SUBMIT, pool.name),
        last_poll=last_beat(app, Part.POLL, pool.name),
    )


def pool_problem(app: App, pool: WorkPool) -> str:
    """Return why no run of a pool could be rendered here: its platform, its template or a block; empty if it could."""
    try:
        platform = app.platforms(pool.type)
        platform.job_configuration.from_template_and_values(
            pool.base_job_template,
            {},
            load_block=load_block(app),
            load_variable=load_variable(app),
            environ=app.environ,
        )
    except (NotFound, PlatformMissing, InvalidInput, NotAllowed) as error:
        return str(error)
    return ""


def tick_problem(last_tick: datetime | None, now: datetime) -> str:
    """Return what is wrong with the ticks of the hosting; empty if nothing is."""
    if last_tick is None:
        return "the service has never ticked; start `push-pools serve` (on AWS, the schedule of `schedule`)"
    if now - last_tick <= TICK_STALE:
        return ""
    seconds = (now - last_tick).total_seconds()
    fix = "start `push-pools serve`, or look into its log, on AWS into that of `schedule`"
    return f"the service has not ticked for {age_text(seconds)}; {fix}"


def age_text(seconds: float) -> str:
    """Return a stretch of time as people say it, to two figures or so."""
    for unit, size in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
