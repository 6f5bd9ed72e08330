"""Lanes: which slots a run needs, where it waits for them, and what an overlap leads to.

A limited run parks first, and is given its slots by `services.admit`; it never takes one itself. Slots are written on
the run and given back from that record, so no change of a pool or deployment can free the wrong one.

A scope is what has a limit: a pool, a queue, a deployment. Two scopes of one slot each belong to the overlap policies
of a deployment: OVERLAP is held from admission until the run is final, NEXT by the one run that waits for it. As both
are taken by a conditional write, of two runs that are due in the same second only one is next.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, TypeVar

from push_pools.domain.deployments import Deployment
from push_pools.domain.errors import ClaimLost
from push_pools.domain.pools import WorkPool, WorkQueue
from push_pools.domain.runs import Chore, FlowRun, Phase
from push_pools.domain.schedules import Overlap
from push_pools.domain.states import State
from push_pools.domain.transitions import Moment, finish, holds, only_mine, waiting_wake_at

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

Limited = WorkPool | WorkQueue | Deployment
LimitedT = TypeVar("LimitedT", WorkPool, WorkQueue, Deployment)

_OVERLAP, _NEXT = "#OVERLAP", "#NEXT"


# -- scopes --------------------------------------------------------------------


def pool_scope(pool: str) -> str:
    return f"POOL#{pool}"


def queue_scope(pool: str, queue: str) -> str:
    return f"QUEUE#{pool}/{queue}"


def deployment_scope(id_: UUID) -> str:
    return f"DEP#{id_}"


def overlap_scope(id_: UUID) -> str:
    """Return the scope of the one run of a deployment that may be unfinished."""
    return f"DEP#{id_}{_OVERLAP}"


def next_scope(id_: UUID) -> str:
    """Return the scope of the one run of a deployment that waits for the overlap scope."""
    return f"DEP#{id_}{_NEXT}"


def is_overlap(scope: str) -> bool:
    """Whether a scope belongs to an overlap policy; its limit is always one."""
    return scope.endswith((_OVERLAP, _NEXT))


def limit_source(record: Limited | None) -> str:
    """Return which setting a record's limit is: another one whenever a limit is set where there was none.

    Runs that became active while there was no limit hold no slot, so a limit from another source has to be counted.
    """
    if record is None or record.concurrency_limit is None:
        return ""
    return f"{record.id}/{record.limit_epoch}"


def with_epoch(before: LimitedT | None, after: LimitedT) -> LimitedT:
    """Return the record to be written over `before`, its epoch raised if it sets a limit where there was none."""
    if before is None or before.concurrency_limit is not None or after.concurrency_limit is None:
        return after
    return after.model_copy(update={"limit_epoch": before.limit_epoch + 1})


# -- what a run needs ----------------------------------------------------------


@dataclass(frozen=True)
class Lane:
    """What the catalogue says of the way a run takes; `None` stands for a record that was deleted."""

    pool: WorkPool | None
    queue: WorkQueue | None
    deployment: Deployment | None


def scopes(run: FlowRun, lane: Lane) -> tuple[str, ...]:
    """Return the scopes in which a run needs a slot, the widest first."""
    needed = []
    if lane.pool is not None and lane.pool.concurrency_limit is not None:
        needed.append(pool_scope(lane.pool.name))
    if lane.queue is not None and lane.queue.concurrency_limit is not None:
        needed.append(queue_scope(lane.queue.work_pool, lane.queue.name))
    if lane.deployment is not None and lane.deployment.concurrency_limit is not None:
        needed.append(deployment_scope(lane.deployment.id))
    if (scope := overlap_of(run)) is not None:
        needed.append(scope)
    return tuple(needed)


def overlap_of(run: FlowRun) -> str | None:
    """Return the overlap scope of a run whose schedule has a policy other than allow."""
    if run.deployment_id is None or run.schedule is None or run.schedule.overlap == Overlap.ALLOW:
        return None
    return overlap_scope(run.deployment_id)


def pause_of(lane: Lane) -> str | None:
    """Return why a lane is closed, if it is."""
    for kind, record in (("work pool", lane.pool), ("work queue", lane.queue)):
        if record is not None and record.is_paused:
            return f"{kind} {record.key!r} is paused" + (f": {record.pause_note}" if record.pause_note else "")
    return None


def is_limited(run: FlowRun, lane: Lane) -> bool:
    """Whether a run must park before it is claimed: its lane is closed, or it lacks a slot."""
    return pause_of(lane) is not None or not set(scopes(run, lane)) <= set(run.slots)


def after_queue(queue: str) -> str:
    """Return a place behind all runs of a queue, and before those of the next."""
    return f"{queue}$"


def place(run: FlowRun) -> str:
    """Return where a run waits: its queue, due time and id.

    The priority of the queue is not in it. It is read when slots are given, so that it counts at once when it changes.
    """
    due = run.scheduled_time.astimezone(UTC)
    return f"{run.work_queue}#{due:%Y-%m-%dT%H:%M:%S.%f}#{run.id}"


def order(run: FlowRun) -> tuple[datetime, str]:
    """Return a run's place among those of one priority, or of one deployment."""
    return (run.scheduled_time, str(run.id))


# -- moves ---------------------------------------------------------------------


def park(run: FlowRun, lane: Lane, why: str, moment: Moment) -> FlowRun:
    """Return the run as waiting; what it holds is given back, but for the overlap slot of an earlier attempt."""
    if run.phase not in (Phase.PLANNED, Phase.READY):
        return run
    kept = tuple(scope for scope in run.slots if scope.endswith(_OVERLAP))
    wanted = overlap_of(run)
    if wanted is not None and wanted not in kept and run.deployment_id is not None:
        kept = (*kept, next_scope(run.deployment_id))
    name = "Scheduled" if pause_of(lane) else "AwaitingConcurrencySlot"
    parked = run.evolve(
        phase=Phase.WAITING,
        state=State.of(name, moment.now, why),
        slots=kept,
        waits_at=place(run),
        waits_since=moment.now,
        hints=0,
    )
    return patient(parked, lane).noted(moment.now, "parked", why=why or None)


def patient(run: FlowRun, lane: Lane) -> FlowRun:
    """Return a parked run that is looked at when it has waited for as long as its deployment lets it."""
    most = lane.deployment.max_wait_seconds if lane.deployment else None
    until = run.waits_since + timedelta(seconds=most) if most is not None and run.waits_since is not None else None
    run = run.evolve(wait_until=until)
    return run.evolve(wake_at=waiting_wake_at(run))


def give_back(run: FlowRun, fence: int) -> FlowRun:
    """Return a run that was claimed as ready again, for it has to park: nothing was called under the claim.

    Raises:
        ClaimLost: The claim is not mine, or a call of somebody else's is open.
    """
    if not holds(run, fence) or run.cancel is not None or (run.job is not None and not only_mine(run.job, fence)):
        raise ClaimLost("the claim was taken over, or the run has moved on")
    job = None if run.job is None else run.job.model_copy(update={"open_since": None})
    return run.evolve(phase=Phase.READY, job=job, claim=None, lapses=0)


def take_slots(run: FlowRun, needed: Sequence[str], moment: Moment) -> FlowRun:
    """Return a waiting run as ready, with its slots."""
    if run.phase is not Phase.WAITING:
        return run
    kept = tuple(scope for scope in run.slots if scope.endswith(_OVERLAP))
    waited = (moment.now - run.waits_since).total_seconds() if run.waits_since else 0.0
    return run.evolve(
        phase=Phase.READY,
        state=State.of("Scheduled", moment.now),
        slots=tuple(dict.fromkeys((*kept, *needed))),
        waits_at=None,
        waits_since=None,
        wait_until=None,
        wake_at=max(moment.now, run.due_at),
        hints=0,
    ).noted(moment.now, "admitted", slots=list(needed) or None, waited_seconds=round(waited, 3))


def count_in(run: FlowRun, scope: str, moment: Moment) -> FlowRun:
    """Return an active run with a slot of a limit that is newer than it is."""
    if scope in run.slots or not (run.phase.is_active or run.phase in (Phase.CLAIMED, Phase.CALLING)):
        return run
    return run.evolve(slots=(*run.slots, scope)).noted(moment.now, "counted", scope=scope)


def skip(run: FlowRun, why: str, moment: Moment, chores: Sequence[Chore] = ()) -> FlowRun:
    """Return a run without a job as Skipped, with the reason."""
    if run.phase not in (Phase.PLANNED, Phase.WAITING, Phase.READY):
        return run
    return finish(run, State.of("Skipped", moment.now, why), moment, chores)


def waited_too_long(run: FlowRun, lane: Lane, now: datetime) -> bool:
    """Whether a parked run has waited for longer than its deployment lets it."""
    until = patient(run, lane).wait_until
    return until is not None and now >= until


# -- overlap -------------------------------------------------------------------


class Overlapping(StrEnum):
    """What becomes of a run that meets another of its deployment."""

    WAIT = "wait"
    SKIP = "skip"
    CANCEL_OTHER = "cancel_other"


def on_overlap(run: FlowRun, other: FlowRun) -> Overlapping:
    """Decide what a run does that finds another one active (it holds the overlap scope), or waiting to be next.

    `cancel_other` cancels earlier runs only: an older run that is delivered late does not end a newer one.
    """
    policy = run.schedule.overlap if run.schedule else Overlap.ALLOW
    match policy:
        case Overlap.BUFFER_ONE:
            return Overlapping.WAIT if overlap_of(run) in other.slots else Overlapping.SKIP
        case Overlap.CANCEL_OTHER:
            return Overlapping.CANCEL_OTHER if order(other) < order(run) else Overlapping.SKIP
        case _:
            return Overlapping.SKIP


def why_skipped(run: FlowRun, other: FlowRun) -> str:
    """Return the reason of a run that is skipped because of another."""
    policy = run.schedule.overlap if run.schedule else ""
    if policy == Overlap.CANCEL_OTHER:
        return f"overlap {policy}: the later run {other.name!r} is there already"
    doing = "is not finished" if overlap_of(run) in other.slots else "waits already"
    return f"overlap {policy}: {other.name!r}, due {other.scheduled_time.isoformat()}, {doing}"
