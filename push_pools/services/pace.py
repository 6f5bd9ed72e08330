"""Whose turn it is: calls are kept below the rates that a cloud allows, so that it need not refuse them."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

from push_pools.domain import transitions
from push_pools.domain.pace import AHEAD_SECONDS
from push_pools.ports import HasPaces

if TYPE_CHECKING:
    from datetime import datetime

    from push_pools.domain.errors import Pacing
    from push_pools.domain.jobs import BaseJobConfiguration
    from push_pools.domain.pace import Rate
    from push_pools.domain.runs import FlowRun
    from push_pools.ports import App, Platform

EARLY_SECONDS: Final = 0.02
"""How much too early a call may come, since queues and clocks are no finer."""
ANY_SECONDS: Final = 3600.0
"""How far ahead a place is taken for a call that is made again: it is never put off behind new ones."""


class Turn(NamedTuple):
    """When a call may be made, and the places taken for it."""

    at: datetime | None
    """When to come back (real clock); `None` if the call may be made now."""
    places: dict[str, datetime]
    why: str = ""


def next_turn(run: FlowRun, platform: Platform, job: BaseJobConfiguration, app: App) -> Turn:
    """Take the places that the next call of a run needs, and return when it may be made.

    Places taken before are used, unless the run comes much too late for them.
    """
    if not isinstance(platform, HasPaces):
        return Turn(None, {})
    now = app.real_clock.now()
    ahead = AHEAD_SECONDS if run.job is None else ANY_SECONDS
    places = {scope: place for scope, place in run.places.items() if (now - place).total_seconds() <= AHEAD_SECONDS}
    at, whose = now, ""
    for scope, rate in platform.paces(job):
        place = places.get(scope) or app.store.pace(scope, rate, now, ahead_seconds=ahead)
        if (place - now).total_seconds() <= ahead:
            places[scope] = place
        else:
            place = _later(run, now)
        if place > at:
            at, whose = place, f"{scope} allows {_told(rate)}"
    return Turn(at if (at - now).total_seconds() > EARLY_SECONDS else None, places, whose)


def _told(rate: Rate) -> str:
    """Return a rate in the unit in which it is at least one."""
    units = (("a second", 1), ("a minute", 60), ("an hour", 3600))
    unit, seconds = next((each for each in units if rate.per_second * each[1] >= 1), units[-1])
    return f"{rate.per_second * seconds:g} calls {unit}"


def turn_at(run: FlowRun, error: Pacing, app: App) -> Turn:
    """Return the turn of a run for which a platform could not prepare everything yet."""
    now = app.real_clock.now()
    return Turn(max(min(error.free_at, _later(run, now)), now), run.places, error.reason)


def _later(run: FlowRun, now: datetime) -> datetime:
    """Return when a run asks again, so that a backlog asks neither all at once nor all the time."""
    return now + timedelta(seconds=AHEAD_SECONDS * transitions.spread(run))
