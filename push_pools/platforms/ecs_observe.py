"""What a task of ECS means for its job: the named main container decides (`docs/design.md`, "Platforms").

Reads tasks as DescribeTasks answers them and as "ECS Task State Change" events carry them.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from push_pools.domain.failure_rows import MISSING
from push_pools.domain.states import JobStatus, Observation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import JsonValue

    from push_pools.domain.runs import JobHandle

STOP_REASON: Final = "push-pools"
"""How the reason of every stop of ours begins; it shows in `stoppedReason`."""

_STARTING: Final = frozenset({"PROVISIONING", "PENDING", "ACTIVATING"})
_RUNNING: Final = frozenset({"RUNNING", "DEACTIVATING", "STOPPING", "DEPROVISIONING"})
_OVER: Final = frozenset({"STOPPED", "DELETED"})
_STARTED_BY: Final = re.compile(r"pp/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})/(\d{1,9})")
_NAMED: Final = re.compile(r"\b[A-Z][A-Za-z]+(?:Error|Exception)\b")


def stop_reason(handle: JobHandle) -> str:
    """Return the reason that our StopTask gives."""
    return f"{STOP_REASON} stop run={handle.run_id or handle.key}"


def run_of(started_by: object) -> tuple[str, int] | None:
    """Return the run id and attempt that a `startedBy` names, or None for a task that is not of a run of ours."""
    match = _STARTED_BY.fullmatch(started_by) if isinstance(started_by, str) else None
    return (match[1], int(match[2])) if match else None


def observation(task: Mapping[str, Any], handle: JobHandle, now: datetime) -> Observation:
    """Return what a task says of its job."""
    last = str(task.get("lastStatus", ""))
    started = moment(task.get("startedAt"))
    if last in _OVER:
        return _ending(task, handle, now)
    status = JobStatus.UNKNOWN
    if last in _STARTING or (last in _RUNNING and last != "RUNNING" and started is None):
        status = JobStatus.STARTING  # A task can fail to start, and pass all later statuses without having run.
    elif last in _RUNNING:
        status = JobStatus.RUNNING
    return Observation(
        key=handle.key, status=status, observed_at=now, started_at=started, details={"last_status": last}
    )


def event_handle(detail: Mapping[str, Any], handle: JobHandle) -> JobHandle | None:
    """Return the handle with the pid of the task that an event is about; `None` if it is in another place.

    Cluster and region are compared by name: a task of another cluster with an equal `startedBy` is none of ours.
    """
    task, cluster = detail.get("taskArn"), detail.get("clusterArn")
    if not (isinstance(task, str) and isinstance(cluster, str)):
        return None
    wanted = handle.place.get("cluster", "default")
    region = handle.place.get("region")
    if _short(cluster) != _short(wanted) or (region and f":{region}:" not in task):
        return None
    return handle.model_copy(update={"pid": f"{wanted}::{task}"})


def _short(cluster: str) -> str:
    return cluster.rpartition("/")[2]


def gone(handle: JobHandle, now: datetime, reason: str) -> Observation:
    """Return what it means that ECS does not know a task: it forgets one an hour after its end.

    Right after RunTask the answer can be the same (DescribeTasks is eventually consistent), so the caller has to
    wait before it believes it.
    """
    return Observation(
        key=handle.key,
        status=JobStatus.GONE,
        observed_at=now,
        codes=(MISSING,),
        reason=f"ECS does not know the task (any more): {reason}",
    )


def _ending(task: Mapping[str, Any], handle: JobHandle, now: datetime) -> Observation:
    main = main_of(task, handle.details.get("container"))
    exit_code = main.get("exitCode") if main else None
    stopped_reason = str(task.get("stoppedReason") or "")
    container_reason = str((main or {}).get("reason") or "")
    reason = "; ".join(dict.fromkeys(filter(None, (stopped_reason, container_reason))))
    stop_code = str(task.get("stopCode") or "")
    ours = stop_code == "UserInitiated" and stopped_reason.startswith(STOP_REASON)
    # One without a stop code and without an exit code still has to say what it is.
    codes = dict.fromkeys(filter(None, (stop_code or "TaskStopped", *_NAMED.findall(reason))))
    return Observation(
        key=handle.key,
        status=_end_status(exit_code, ours=ours, others=stop_code == "UserInitiated"),
        observed_at=now,
        started_at=moment(task.get("startedAt")),
        ended_at=moment(task.get("executionStoppedAt")) or moment(task.get("stoppedAt")),
        exit_code=exit_code,
        codes=tuple(codes),
        reason=reason,
        stopped=ours,
        details=_details(task),
    )


def _end_status(exit_code: int | None, *, ours: bool, others: bool) -> JobStatus:
    if ours:
        return JobStatus.CANCELLED
    # A null exit code is never success: the container may not have run at all.
    return JobStatus.SUCCEEDED if exit_code == 0 and not others else JobStatus.FAILED


def main_of(task: Mapping[str, Any], name: str | None) -> Mapping[str, Any] | None:
    """Return the container whose exit decides: the one of that name, or the only one there is."""
    listed = [each for each in task.get("containers") or () if isinstance(each, dict)]
    named = next((each for each in listed if each.get("name") == name), None)
    return named or (listed[0] if len(listed) == 1 else None)


def _details(task: Mapping[str, Any]) -> dict[str, JsonValue]:
    version = task.get("version")
    exits: dict[str, JsonValue] = {
        str(each.get("name")): each.get("exitCode") for each in task.get("containers") or () if isinstance(each, dict)
    }
    seen: dict[str, JsonValue] = {"last_status": str(task.get("lastStatus")), "exit_codes": exits}
    return {**seen, "version": version} if isinstance(version, int) else seen


def moment(value: object) -> datetime | None:
    """Return a time in UTC as boto3 gives it (a datetime) or as events do (text)."""
    if isinstance(value, str) and value:
        value = datetime.fromisoformat(value)
    return value.astimezone(UTC) if isinstance(value, datetime) else None
