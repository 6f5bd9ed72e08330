"""What is told to the outside when a run moves to another state."""

from __future__ import annotations

from typing import TYPE_CHECKING

from push_pools.domain.events import RunStateChanged, StateChange

if TYPE_CHECKING:
    from datetime import datetime

    from push_pools.domain.runs import FlowRun
    from push_pools.domain.states import State


def state_changed(before: FlowRun | None, after: FlowRun, now: datetime, sequence: int) -> RunStateChanged | None:
    """Return the event that tells of the change from one record of a run to the next; `None` if its state stays.

    `sequence` is the version under which `after` is stored.
    """
    if before is not None and _named(before) == _named(after):
        return None
    return RunStateChanged(
        run_id=after.id,
        run_name=after.name,
        deployment=after.deployment,
        work_pool=after.work_pool,
        work_queue=after.work_queue,
        from_=_shown(before.state) if before is not None else None,
        to=_shown(after.state),
        attempt=before.attempt if before is not None and is_ending(after) else after.attempt,
        failure_class=str(after.state.failure_class) if after.state.failure_class else None,
        scheduled_time=after.scheduled_time,
        start_time=after.start_time,
        end_time=after.end_time,
        occurred_at=now,
        sequence=sequence,
    )


def is_ending(run: FlowRun) -> bool:
    """Whether the run, or its last attempt, has just ended: what must not go untold."""
    return run.is_final or run.state.name == "AwaitingRetry"


def _named(run: FlowRun) -> tuple[str, str, int]:
    return str(run.state.type), run.state.name, run.attempt


def _shown(state: State) -> StateChange:
    return StateChange(type=str(state.type), name=state.name, message=state.message)
