"""When a schedule comes due: which of its instants are to be planned, and which of the missed ones still count."""

from __future__ import annotations

import hashlib
from collections import deque
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

from push_pools.domain.durations import format_duration
from push_pools.domain.instants import TICK, FireTime, instants
from push_pools.domain.pools import CatalogueRecord
from push_pools.domain.runs import Phase
from push_pools.domain.schedules import load_timezone

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from uuid import UUID

    from push_pools.domain.deployments import Deployment
    from push_pools.domain.runs import FlowRun
    from push_pools.domain.schedules import Schedule, ScheduleFields

CATCH_UP_CAP: Final = 1000
"""Most missed instants of a schedule that are made good at once: the newest ones."""
NOT_MISSED: Final = timedelta(minutes=5)
"""How late an instant may be planned, or a run claimed, without being missed."""


def fire_times(
    schedule: ScheduleFields,
    after: datetime,
    *,
    until: datetime | None = None,
    deployment_id: UUID | None = None,
) -> Iterator[FireTime]:
    """Yield the instants of a schedule after a moment, in order, each once; up to and with `until`.

    Whether the schedule is active does not matter. It ends when the schedule does, after 50 years without an instant,
    and in the year 9000. The jitter derives from the deployment's id, the schedule's and the instant, and never puts
    one off beyond the next.
    """
    if not schedule.jitter:
        return instants(schedule, after, until)
    return _jittered(schedule, after, until, str(deployment_id or ""))


def names(schedule: ScheduleFields, instant: datetime, *, deployment_id: UUID | None = None) -> FireTime | None:
    """Return the instant of a schedule at that moment, or `None` if it has none there."""
    return next(fire_times(schedule, instant - TICK, until=instant, deployment_id=deployment_id), None)


# -- catch-up ------------------------------------------------------------------


class DueFires(NamedTuple):
    """What is to be planned of a schedule."""

    fires: Sequence[FireTime]
    """In order; the missed ones that still count come first."""
    capped: bool = False
    """Whether more were missed than are made good."""


def due_fires(
    schedule: ScheduleFields,
    planned_from: datetime,
    now: datetime,
    look_ahead: timedelta,
    *,
    grace: timedelta = NOT_MISSED,
    held_until: datetime | None = None,
    deployment_id: UUID | None = None,
) -> DueFires:
    """Return the instants after `planned_from` to plan now: those within the look-ahead, and of missed ones what
    the catch-up policy makes good.

    Missed is what was due longer than `grace` ago, and what was due by `held_until`: until then a pause held it up.
    A long absence costs no more than the instants that are returned, and a little.
    """
    edge = now - grace - TICK  # What was due by then is missed.
    if held_until is not None:
        edge = min(max(edge, held_until), now)
    # An instant is due before the next one, so of those before the edge only the last may be due after it.
    last = _newest(schedule, planned_from, edge, 1, deployment_id) if schedule.jitter else ()
    ahead = [
        *last,
        *fire_times(schedule, max(planned_from, edge), until=now + look_ahead, deployment_id=deployment_id),
    ]
    open_ = [fire for fire in ahead if fire.due > edge]
    missed, capped = _caught_up(schedule, planned_from, now, edge, open_, deployment_id)
    return DueFires([*missed, *open_], capped)


def _caught_up(
    schedule: ScheduleFields,
    planned_from: datetime,
    now: datetime,
    edge: datetime,
    open_: Sequence[FireTime],
    deployment_id: UUID | None,
) -> tuple[Sequence[FireTime], bool]:
    limit = schedule.catchup_seconds()
    if schedule.catchup == "none":
        return (), False
    if schedule.catchup == "latest":
        if any(fire.due <= now for fire in open_):
            return (), False  # A newer one is due.
        last = _newest(schedule, planned_from, edge, 2, deployment_id)  # The last may be put off beyond the edge.
        return [fire for fire in last if fire.due <= edge][-1:], False
    oldest = planned_from
    if limit is not None:
        # One more than the limit, as an instant before it may be put off into it.
        first = _newest(schedule, planned_from, now - timedelta(seconds=limit), 1, deployment_id)
        oldest = first[0].utc - TICK if first else planned_from
    found = _newest(schedule, oldest, edge, CATCH_UP_CAP + 2, deployment_id)
    missed = [fire for fire in found if fire.due <= edge and _within(fire, now, limit)]
    return missed[-CATCH_UP_CAP:], len(missed) > CATCH_UP_CAP


def _within(fire: FireTime, now: datetime, limit: float | None) -> bool:
    return limit is None or now - fire.due <= timedelta(seconds=limit)


def _newest(
    schedule: ScheduleFields, after: datetime, until: datetime, count: int, deployment_id: UUID | None
) -> Sequence[FireTime]:
    """Return the last instants of a stretch of time, looking back ever further."""
    reach = timedelta(hours=1)
    while until > after:
        begin = max(after, until - reach)
        found = deque(fire_times(schedule, begin, until=until, deployment_id=deployment_id), maxlen=count)
        if len(found) == count or begin == after:
            return list(found)
        reach *= 4
    return ()


class PlanMark(CatalogueRecord):
    """How far planning has come: of the whole ledger, or of a part of it that was left behind.

    The tick writes the mark `ledger`. A pool or queue that is paused, and a deployment that could not be planned,
    has a mark of its own while that lasts, so that a tick writes few marks however many deployments there are.
    """

    name: str
    """`ledger`, `pool/<name>`, `queue/<pool>/<name>` or `deployment/<id>`."""
    until: datetime
    """Instants up to this were planned, or given up by their catch-up policy."""
    planned_at: datetime
    """When the catalogue was read for it."""
    reason: str = ""
    """Why the part was left behind."""

    @property
    def key(self) -> str:
        return self.name


# -- at the claim --------------------------------------------------------------


def why_skip(
    run: FlowRun, deployment: Deployment | None, now: datetime, *, grace: timedelta = NOT_MISSED
) -> str | None:
    """Return why a run that was just claimed is not wanted any more, or `None` if it is.

    Only runs that a schedule planned are judged, and only before their first attempt has begun: what was begun is
    carried through. Whether a run is too late is judged by its first claim, and not at all if it waited for a slot:
    a queue is there to wait in.
    """
    ref = run.schedule
    if ref is None or run.attempt > 1 or run.phase is not Phase.CLAIMED:
        return None
    if deployment is None:
        return f"the deployment {run.deployment!r} was deleted"
    if deployment.is_paused:
        return _paused("deployment", deployment.key, deployment.pause_note)
    schedule = next((each for each in deployment.schedules if each.id == ref.id), None)
    if schedule is None:
        return "its schedule was removed"
    if not schedule.active:
        return _paused("schedule", schedule.describe(), schedule.pause_note)
    fire = names(schedule, run.scheduled_time, deployment_id=deployment.id)
    if fire is None:
        at = run.scheduled_time.astimezone(load_timezone(schedule.timezone)).isoformat()
        return f"its schedule was changed ({schedule.describe()}) and names {at} no more"
    if run.slots or run.job is not None:
        return None
    return _too_late(schedule, fire, deployment.id, run.tried_since or now, grace)


def _paused(kind: str, name: str, note: str) -> str:
    return f"the {kind} {name} is paused" + (f": {note}" if note else "")


def _too_late(schedule: Schedule, fire: FireTime, deployment_id: UUID, now: datetime, grace: timedelta) -> str | None:
    late = now - fire.due
    limit = schedule.catchup_seconds()
    if late <= max(grace, timedelta(seconds=limit or 0)) or schedule.catchup == "all":
        return None
    missed = f"it is {format_duration(late // timedelta(seconds=1))} late"
    if schedule.catchup != "latest":
        return f"{missed}, and its schedule has catchup {schedule.catchup}"
    newer = next(fire_times(schedule, fire.utc, until=now, deployment_id=deployment_id), None)
    if newer is None or newer.due > now:
        return None
    return f"{missed}, and {newer.local.isoformat()} was due since; its schedule has catchup latest"


# -- jitter --------------------------------------------------------------------


def _jittered(
    schedule: ScheduleFields, after: datetime, until: datetime | None, deployment_id: str
) -> Iterator[FireTime]:
    seed = f"{deployment_id}/{getattr(schedule, 'id', '')}/".encode()
    waiting: FireTime | None = None
    for fire in instants(schedule, after, None):  # The one after `until` bounds the last one's jitter.
        if waiting is not None:
            yield _put_off(waiting, seed, min(schedule.jitter, (fire.utc - waiting.utc).total_seconds()))
        waiting = fire
        if until is not None and fire.utc > until:
            return
    if waiting is not None:
        yield _put_off(waiting, seed, schedule.jitter)


def _put_off(fire: FireTime, seed: bytes, most: float) -> FireTime:
    digest = hashlib.sha256(seed + fire.utc.isoformat().encode()).digest()
    # Whole milliseconds, rounded down, stay below the bound.
    milliseconds = int.from_bytes(digest[:6], "big") * int(most * 1000) >> 48
    return fire._replace(due=fire.utc + timedelta(milliseconds=milliseconds))
