"""The coming runs of a pool: those that the ledger has planned, and those that its schedules will plan."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

from push_pools.domain.errors import InvalidInput, NotFound
from push_pools.domain.events import instant_text
from push_pools.domain.planning import fire_times
from push_pools.domain.runs import run_id
from push_pools.ports import RunFilter
from push_pools.services.catalogue import list_deployments

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from push_pools.domain.deployments import Deployment
    from push_pools.domain.runs import FlowRun
    from push_pools.domain.schedules import Schedule
    from push_pools.ports import App

MOST: Final = 1000
"""Most coming runs that are listed."""
MOST_HOURS: Final = 24 * 366


@dataclass(frozen=True)
class Coming:
    """A run that is planned, or will be."""

    scheduled_time: datetime
    due: datetime
    """The scheduled time, put off by a jitter, a back-off or a retry."""
    deployment: str | None
    work_queue: str
    timezone: str | None = None
    """That of the schedule."""
    note: str = ""
    """What a change of the clock does to it."""
    run: FlowRun | None = None
    """The run, once it is in the ledger."""

    def as_listed(self) -> dict[str, str | None]:
        """Return the public fields."""
        local = self.scheduled_time.astimezone(ZoneInfo(self.timezone)).isoformat() if self.timezone else None
        return {
            "scheduled_time": self.scheduled_time.isoformat(),
            "due": self.due.isoformat(),
            "local": local,
            "timezone": self.timezone,
            "note": self.note,
            "deployment": self.deployment,
            "work_queue": self.work_queue,
            "id": str(self.run.id) if self.run else None,
            "name": self.run.name if self.run else None,
            "state_name": self.run.state.name if self.run else None,
        }


def coming_runs(app: App, work_pool: str, *, work_queue: str | None = None, hours: float = 1.0) -> list[Coming]:
    """Return the runs of a pool, or of one of its queues, that are due within some hours, the first one first.

    Runs that are due already, and have no job yet, are among them. At most 1,000.

    Raises:
        InvalidInput: The hours are out of range.
    """
    if not 0 < hours <= MOST_HOURS:
        raise InvalidInput(f"{hours:g} hours are out of range; write more than 0 and at most {MOST_HOURS}")
    until = app.clock.now() + timedelta(hours=hours)
    found = [*_planned(app, work_pool, until), *_to_be_planned(app, work_pool, until)]
    mine = [each for each in found if work_queue in (None, each.work_queue)]
    return sorted(mine, key=lambda each: (each.due, each.deployment or "", each.work_queue))[:MOST]


def _planned(app: App, work_pool: str, until: datetime) -> Iterator[Coming]:
    schedules = {each.id: each for deployment in list_deployments(app) for each in deployment.schedules}
    cursor = None
    while True:
        page = app.store.runs(RunFilter(states=frozenset({"SCHEDULED"}), work_pool=work_pool), cursor=cursor)
        for run in page.runs:
            if run.due_at <= until:
                schedule = schedules.get(run.schedule.id) if run.schedule is not None else None
                zone = schedule.timezone if schedule is not None else None
                note = _note(schedule, run) if schedule is not None else ""
                yield Coming(run.scheduled_time, run.due_at, run.deployment, run.work_queue, zone, note, run)
        cursor = page.cursor
        if cursor is None:
            return


def _note(schedule: Schedule, run: FlowRun) -> str:
    just_before = run.scheduled_time - timedelta(seconds=1)
    fire = next(fire_times(schedule, just_before, until=run.scheduled_time, deployment_id=run.deployment_id), None)
    return fire.note if fire is not None else ""


def _to_be_planned(app: App, work_pool: str, until: datetime) -> Iterator[Coming]:
    now = app.clock.now()
    for deployment in list_deployments(app):
        if deployment.work_pool != work_pool or deployment.is_paused:
            continue
        for schedule in deployment.schedules:
            if not schedule.active:
                continue
            fires = fire_times(schedule, now, until=until, deployment_id=deployment.id)
            for fire in islice(fires, MOST):
                if not _is_known(app, deployment, schedule, fire.utc):
                    queue = deployment.work_queue
                    yield Coming(fire.utc, fire.due, deployment.key, queue, schedule.timezone, fire.note)


def _is_known(app: App, deployment: Deployment, schedule: Schedule, instant: datetime) -> bool:
    """Whether the run is in the ledger: then it is listed from there, or is over already."""
    try:
        app.store.get_run(run_id(deployment.id, f"at:{schedule.id}:{instant_text(instant)}"))
    except NotFound:
        return False
    return True
