"""Schedules one at a time: adding, pausing, resuming and removing them, and looking ahead."""

from __future__ import annotations

import heapq
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple
from uuid import uuid4

from push_pools.domain.errors import AlreadyExists, InvalidInput, NotFound
from push_pools.domain.job_variables import validate_job_variables
from push_pools.domain.planning import fire_times
from push_pools.domain.problems import nearest
from push_pools.domain.schedules import match_schedules, past_of
from push_pools.services.catalogue import ask_to_plan, find_deployment, get_work_pool
from push_pools.services.records import change_record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime
    from typing import Any

    from push_pools.domain.deployments import Deployment
    from push_pools.domain.instants import FireTime
    from push_pools.domain.schedules import Schedule, ScheduleSpec
    from push_pools.ports import App

LEAST_PREFIX: Final = 4
"""A shorter beginning of an id is taken for a slip of the pen."""
MOST_PREVIEWED: Final = 1000
"""Most instants that a preview shows."""


class Edited(NamedTuple):
    """A schedule as it is now, or was when it was removed, and its deployment."""

    deployment: Deployment
    schedule: Schedule


def find_schedule(deployment: Deployment, ref: str | None) -> Schedule:
    """Return a schedule of a deployment by its slug, its id or a unique beginning of its id; `None` is the only one.

    Raises:
        NotFound: There is none.
        InvalidInput: More than one is meant.
    """
    schedules = deployment.schedules
    if ref is None:
        if len(schedules) == 1:
            return schedules[0]
        if schedules:
            raise InvalidInput(
                f"deployment {deployment.key!r} has {len(schedules)} schedules; name one of "
                f"{', '.join(map(schedule_name, schedules))}"
            )
        raise NotFound("schedule", deployment.key, fix="the deployment has none; add one with `schedule create`")
    exact = [each for each in schedules if ref in (each.slug, each.id)]
    begins = [each for each in schedules if len(ref) >= LEAST_PREFIX and each.id.startswith(ref.lower())]
    found = exact or begins
    if len(found) > 1:
        raise InvalidInput(f"schedule {ref!r} may be {', '.join(each.id for each in found)}; write more of the id")
    if not found:
        known = nearest(ref, map(schedule_name, schedules))
        fix = None if known else "the deployment has none; add one with `schedule create`"
        raise NotFound(f"schedule of deployment {deployment.key!r}", ref[:100], known, fix=fix)
    return found[0]


def schedule_name(schedule: Schedule) -> str:
    """Return what a schedule is called: its slug, else the beginning of its id."""
    return schedule.slug or schedule.id[:8]


def create_schedule(app: App, ref: str, spec: ScheduleSpec, *, managed_by: str | None = None) -> Edited:
    """Add a schedule to a deployment; it is planned from now on. A deploy from a file sets the schedules back.

    Raises:
        NotFound: There is no such deployment, or its pool is gone.
        NotAllowed: Somebody else manages it.
        AlreadyExists: The deployment has a schedule of that slug.
        InvalidInput: The schedule is over already, or a job variable does not fit the pool.
    """
    now = app.clock.now()
    if (past := past_of(spec, now)) is not None:
        raise InvalidInput(f"schedule.{past[0]}: {past[1]}")
    (fresh,) = match_schedules([spec], (), lambda: uuid4().hex, now)

    def change(before: Deployment) -> Deployment:
        if spec.slug is not None and any(each.slug == spec.slug for each in before.schedules):
            raise AlreadyExists("schedule", spec.slug, fix="pick another slug, or delete that one first")
        template = get_work_pool(app, before.work_pool).base_job_template
        validate_job_variables(template, spec.job_variables, require=False)
        return before.model_copy(update={"schedules": (*before.schedules, fresh)})

    return Edited(_changed(app, ref, change, managed_by), fresh)


def pause_schedule(
    app: App, ref: str, schedule: str | None, *, note: str = "", managed_by: str | None = None
) -> Edited:
    """Plan no more runs of a schedule; those planned already are skipped when they come due. The note says why.

    Raises:
        NotFound: There is no such deployment or schedule.
        InvalidInput: More than one schedule is meant.
        NotAllowed: Somebody else manages the deployment.
    """
    return _edit(app, ref, schedule, managed_by, lambda old: _paused(old, note[:500], app.clock.now()))


def resume_schedule(app: App, ref: str, schedule: str | None, *, managed_by: str | None = None) -> Edited:
    """Plan runs of a schedule again, from now on: what was due while it was paused is not made good.

    Raises:
        NotFound: There is no such deployment or schedule.
        InvalidInput: More than one schedule is meant.
        NotAllowed: Somebody else manages the deployment.
    """
    return _edit(
        app, ref, schedule, managed_by, lambda old: old if old.active else old.changed(app.clock.now(), active=True)
    )


def delete_schedule(app: App, ref: str, schedule: str | None, *, managed_by: str | None = None) -> Edited:
    """Remove a schedule; runs of it that are planned already are skipped when they come due.

    Raises:
        NotFound: There is no such deployment or schedule.
        InvalidInput: More than one schedule is meant.
        NotAllowed: Somebody else manages the deployment.
    """
    return _edit(app, ref, schedule, managed_by, lambda _: None)


def _paused(old: Schedule, note: str, now: datetime) -> Schedule:
    if not old.active and old.pause_note == note:
        return old
    return old.changed(now, active=False, pause_note=note)


def _edit(
    app: App, ref: str, name: str | None, managed_by: str | None, edit: Callable[[Schedule], Schedule | None]
) -> Edited:
    """Write what `edit` makes of a schedule, `None` meaning that it goes."""
    edited: list[Schedule] = []

    def change(before: Deployment) -> Deployment:
        old = find_schedule(before, name)
        new = edit(old)
        edited[:] = [new or old]
        kept = (new if each is old else each for each in before.schedules)
        return before.model_copy(update={"schedules": tuple(each for each in kept if each is not None)})

    return Edited(_changed(app, ref, change, managed_by), edited[0])


def _changed(app: App, ref: str, change: Callable[[Deployment], Deployment], managed_by: str | None) -> Deployment:
    deployment = change_record(app, "deployment", lambda: find_deployment(app, ref), change, managed_by=managed_by)
    ask_to_plan(app, [deployment])
    return deployment


# -- looking ahead -------------------------------------------------------------


class Coming(NamedTuple):
    """An instant to come, and the schedule that names it."""

    schedule: Schedule
    fire: FireTime

    def as_listed(self) -> dict[str, Any]:
        """Return the public fields, as `schedule preview` shows them."""
        return {
            "local": self.fire.local.isoformat(),
            "utc": self.fire.utc.isoformat(),
            "note": self.fire.note,
            "schedule": schedule_name(self.schedule),
            "due": self.fire.due.isoformat(),
        }


def preview_schedules(app: App, ref: str, *, after: datetime | None = None, count: int = 10) -> list[Coming]:
    """Return the next instants of a deployment's active schedules, from a moment on, by default now. Nothing is put.

    Raises:
        NotFound: There is no such deployment.
        InvalidInput: More instants are asked for than are shown.
    """
    if not 1 <= count <= MOST_PREVIEWED:
        raise InvalidInput(f"-n {count} is out of range; write 1 to {MOST_PREVIEWED}, such as -n 10")
    deployment = find_deployment(app, ref)
    start = app.clock.now() if after is None else after
    streams = (_coming(deployment, each, start) for each in deployment.schedules if each.active)
    return list(islice(heapq.merge(*streams, key=lambda each: each.fire.utc), count))


def _coming(deployment: Deployment, schedule: Schedule, after: datetime) -> Iterator[Coming]:
    for fire in fire_times(schedule, after, deployment_id=deployment.id):
        yield Coming(schedule, fire)
