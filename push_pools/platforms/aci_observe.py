"""What a container group means for its job: the current state of its main container decides.

The group's own `provisioningState` decides nothing. `Succeeded` only says that the container was brought to run, and
`Failed` not that Azure stops to try ("Container group provisioning states").
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from push_pools.domain.failure_rows import MISSING
from push_pools.domain.states import JobStatus, Observation

if TYPE_CHECKING:
    from pydantic import JsonValue

    from push_pools.domain.runs import JobHandle

MOST_EVENTS: Final = 20
_BAD: Final = frozenset({"Failed", "Unhealthy", "Repairing"})
"""Provisioning states that somebody should know of; none says that the job is over."""
_BAD_CODES: Final = frozenset(f"Provisioning{state}" for state in _BAD)
_DULL: Final = frozenset({"", "Completed", "Error", "Waiting", "Running"})
"""Detail statuses that say no more than the state and the exit code."""
_NAMED: Final = re.compile(r"\b[A-Z][A-Za-z]+(?:Error|Exception|BackOff)\b")


def observation(group: Any, handle: JobHandle, now: datetime) -> Observation:
    """Return what a group, as Azure's client reads it, says of its job."""
    main = main_of(group, handle.details.get("container"))
    view = getattr(main, "instance_view", None)
    current = getattr(view, "current_state", None)
    state = str(getattr(current, "state", None) or "")
    if state == "Terminated" or (_group_state(group) == "Stopped" and state != "Running"):
        return _ending(group, view, current, handle, now)
    status = JobStatus.RUNNING if state == "Running" else JobStatus.STARTING
    reason = "" if state == "Running" else _trouble(group, view, current)
    return Observation(
        key=handle.key,
        status=status,
        observed_at=now,
        started_at=moment(getattr(current, "start_time", None)) if state == "Running" else None,
        codes=tuple(_codes(group, current, reason)) if reason else (),
        reason=reason,
        details=_details(group, view),
    )


def gone(handle: JobHandle, now: datetime, before: str = "") -> Observation:
    """Return what it means that Azure does not know a group. `before` is what was wrong with it when it was seen."""
    reason = "the container group does not exist (any more)"
    return Observation(
        key=handle.key,
        status=JobStatus.GONE if handle.pid else JobStatus.UNKNOWN,
        observed_at=now,
        codes=(MISSING,) if handle.pid else (),
        reason=f"{reason}; before that: {before}" if before else reason,
    )


def is_over(group: Any, handle: JobHandle) -> bool:
    """Whether the job is over, so that a stop has nothing to do."""
    return observation(group, handle, datetime.now(UTC)).is_over


def runs(group: Any, handle: JobHandle) -> bool:
    """Whether the job's container runs now."""
    main = main_of(group, handle.details.get("container"))
    current = getattr(getattr(main, "instance_view", None), "current_state", None)
    return getattr(current, "state", None) == "Running"


def main_of(group: Any, name: str | None) -> Any:
    """Return the container whose exit decides: the one of that name, or the only one there is."""
    listed = list(getattr(group, "containers", None) or ())
    named = next((each for each in listed if each.name == name), None)
    return named or (listed[0] if len(listed) == 1 else None)


def _ending(group: Any, view: Any, current: Any, handle: JobHandle, now: datetime) -> Observation:
    exit_code = getattr(current, "exit_code", None)
    # Azure leaves a group that ended by itself as it was when it is stopped: this state is of a stop that had effect.
    stopped = _group_state(group) == "Stopped"
    status = JobStatus.SUCCEEDED if exit_code == 0 and not stopped else JobStatus.FAILED
    trouble = "" if status is JobStatus.SUCCEEDED else _trouble(group, view, current)
    codes = ["Stopped"] if stopped else []
    # With an exit code the container has run, whatever Azure says of its resource.
    codes += [code for code in _codes(group, current, trouble) if exit_code is None or code not in _BAD_CODES]
    if exit_code is None and not codes:
        codes = ["NoExitCode"]
    return Observation(
        key=handle.key,
        status=status,
        observed_at=now,
        started_at=moment(getattr(current, "start_time", None)),
        ended_at=moment(getattr(current, "finish_time", None)),
        exit_code=exit_code,
        codes=tuple(dict.fromkeys(codes)),
        reason=trouble,
        stopped=True if stopped else None,
        details={**_details(group, view), "events": list(events_of(view))},
    )


def _group_state(group: Any) -> str:
    return str(getattr(getattr(group, "instance_view", None), "state", None) or "")


def _codes(group: Any, current: Any, reason: str) -> list[str]:
    detail = str(getattr(current, "detail_status", None) or "")
    provisioning = str(getattr(group, "provisioning_state", None) or "")
    bad = [f"Provisioning{provisioning}"] if provisioning in _BAD else []
    return list(dict.fromkeys([*([detail] if detail not in _DULL else []), *_NAMED.findall(reason), *bad]))


def _trouble(group: Any, view: Any, current: Any) -> str:
    """Return what Azure says is wrong: its state of the resource if that is bad, the detail, the last warning."""
    provisioning = str(getattr(group, "provisioning_state", None) or "")
    detail = str(getattr(current, "detail_status", None) or "")
    warnings = [str(each.message) for each in getattr(view, "events", None) or () if each.type == "Warning"]
    parts = [
        f"provisioning {provisioning}" if provisioning in _BAD else "",
        detail if detail not in _DULL else "",
        *warnings[-1:],
    ]
    return "; ".join(dict.fromkeys(part for part in parts if part))


def events_of(view: Any) -> list[JsonValue]:
    """Return the container's last events as lines, oldest first."""
    events = list(getattr(view, "events", None) or ())
    return [f"{each.last_timestamp} {each.type} {each.name}: {each.message}" for each in events[-MOST_EVENTS:]]


def _details(group: Any, view: Any) -> dict[str, JsonValue]:
    facts: dict[str, JsonValue] = {"provisioning_state": str(getattr(group, "provisioning_state", None) or "")}
    restarts = getattr(view, "restart_count", None)
    # A restart under the policy Never would be Azure running the job again.
    return {**facts, "restart_count": restarts} if restarts else facts


def moment(value: object) -> datetime | None:
    """Return a time in UTC."""
    return value.astimezone(UTC) if isinstance(value, datetime) else None
