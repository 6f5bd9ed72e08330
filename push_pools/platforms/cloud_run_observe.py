"""What an execution of Cloud Run means for its job (`docs/google-cloud.md`, "How it ends")."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from push_pools.domain.failure_rows import MISSING
from push_pools.domain.states import JobStatus, Observation

if TYPE_CHECKING:
    from collections.abc import Iterable

    from push_pools.domain.runs import JobHandle

COMPLETED: Final = "Completed"
SHOWN_AFTER: Final = timedelta(minutes=5)
"""A job is ready once its execution has started (`start_execution_token`, API reference); so much later that
execution is shown, or somebody has deleted it."""
_CANCELLED: Final = frozenset({"CANCELLED", "CANCELLING"})
_UNDEFINED: Final = frozenset({"COMMON_REASON_UNDEFINED", "EXECUTION_REASON_UNDEFINED", "REVISION_REASON_UNDEFINED"})
_FAILED: Final = "CONDITION_FAILED"
_SUCCEEDED: Final = "CONDITION_SUCCEEDED"
_STATUS_NAMES: Final = {1: "CANCELLED", 2: "UNKNOWN", 4: "DEADLINE_EXCEEDED", 8: "RESOURCE_EXHAUSTED", 10: "ABORTED",
                        13: "INTERNAL", 14: "UNAVAILABLE"}  # fmt: skip
"""Codes of google.rpc.Code that tasks end with."""


class TaskEnd(NamedTuple):
    """How the last try of a task ended."""

    exit_code: int | None
    signal: int | None
    code: str
    message: str


def is_over(execution: Any) -> bool:
    """Whether an execution has completed, however it did."""
    return bool(execution.completion_time)


def succeeded(execution: Any) -> bool:
    """Whether all tasks of an execution did what they had to.

    An operation without an error, or a condition that has not failed, does not say so: a cancelled one has both.
    """
    return bool(execution.succeeded_count >= max(execution.task_count, 1))


def running(execution: Any, handle: JobHandle, now: datetime) -> Observation:
    """Return what an execution that has not completed says of its job."""
    # Between two tries of the platform's own no task runs; what has run once does not start again for us.
    counts = (execution.running_count, execution.succeeded_count, execution.failed_count, execution.retried_count)
    has_run = any(counts) or execution.cancelled_count > 0
    return Observation(
        key=handle.key,
        status=JobStatus.RUNNING if has_run else JobStatus.STARTING,
        observed_at=now,
        started_at=moment(execution.start_time) if has_run else None,
        details={"retried": execution.retried_count} if execution.retried_count else {},
    )


def ending(execution: Any, tasks: Iterable[Any], handle: JobHandle, now: datetime) -> Observation:
    """Return what an execution that has completed says of its job; `tasks` are needed unless it succeeded."""
    reasons, message = _why(execution.conditions)
    seen = {
        "key": handle.key,
        "observed_at": now,
        "started_at": moment(execution.start_time),
        "ended_at": moment(execution.completion_time),
        "details": {"retried": execution.retried_count} if execution.retried_count else {},
    }
    if succeeded(execution):
        return Observation(**seen, status=JobStatus.SUCCEEDED, exit_code=0, stopped=False)
    if execution.cancelled_count > 0 or _CANCELLED.intersection(reasons):
        # Cloud Run does not say who asked; whoever had the job stopped knows.
        return Observation(**seen, status=JobStatus.CANCELLED, codes=("CANCELLED",), reason=message, stopped=True)
    last = _first_bad(tasks)
    codes = dict.fromkeys(filter(None, (*reasons, last.code if last else "")))
    parts = dict.fromkeys(filter(None, (message, last.message if last and last.message not in message else "")))
    return Observation(
        **seen,
        status=JobStatus.FAILED,
        # An end that nothing is said of still has to be called something.
        codes=tuple(codes) or ("ExecutionFailed",),
        reason="; ".join(parts),
        exit_code=last.exit_code if last else None,
        signal=last.signal if last else None,
        stopped=False,
    )


def not_ready(job: Any, handle: JobHandle, now: datetime) -> Observation:
    """Return what a job says that has no execution: it will have one, has had one, or cannot be made ready."""
    condition = job.terminal_condition
    since = moment(condition.last_transition_time)
    if condition.state.name == _SUCCEEDED and since is not None and now >= since + SHOWN_AFTER:
        return missing(handle, now)
    if condition.state.name != _FAILED:
        return Observation(key=handle.key, status=JobStatus.STARTING, observed_at=now)
    reasons, message = _why([condition])
    return Observation(
        key=handle.key,
        status=JobStatus.FAILED,
        observed_at=now,
        ended_at=moment(condition.last_transition_time),
        codes=tuple(reasons) or ("JobNotReady",),
        reason=message,
        stopped=False,
    )


def missing(handle: JobHandle, now: datetime) -> Observation:
    """Return what it means that Cloud Run does not know the execution, and that its job will make no other."""
    if handle.pid is None:
        return Observation(key=handle.key, status=JobStatus.UNKNOWN, observed_at=now)
    return Observation(
        key=handle.key,
        status=JobStatus.GONE,
        observed_at=now,
        codes=(MISSING,),
        reason="Cloud Run does not know the job (any more): somebody deleted it",
    )


def moment(value: object) -> datetime | None:
    """Return a time in UTC of one of the library's; `None` for one that is not set."""
    return value.astimezone(UTC) if isinstance(value, datetime) else None


def _why(conditions: Iterable[Any]) -> tuple[list[str], str]:
    """Return the reasons and the message of what has failed, that of the whole first."""
    failed = [each for each in conditions if each.state.name == _FAILED]
    failed.sort(key=lambda each: each.type_ not in (COMPLETED, "Ready"))
    reasons: list[str] = []
    for each in failed:
        names = (each.execution_reason.name, each.reason.name)
        reasons += [name for name in names if name not in _UNDEFINED]
    return list(dict.fromkeys(reasons)), next((each.message for each in failed if each.message), "")


def _first_bad(tasks: Iterable[Any]) -> TaskEnd | None:
    for task in tasks:
        result = task.last_attempt_result
        status = int(result.status.code)
        # At most one of the two is set, and neither if the container did not run, or its end was not seen.
        if status or result.exit_code or result.term_signal:
            code = f"task:{_STATUS_NAMES.get(status, status)}" if status else ""
            return TaskEnd(result.exit_code or None, result.term_signal or None, code, str(result.status.message))
    return None
