"""The states a run shows, why a run failed, and what a platform says of a job."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from pydantic import Field, JsonValue

from push_pools.domain.records import Record


class StateType(StrEnum):
    """The eight kinds of state, as in Prefect; four of them are final."""

    SCHEDULED = "SCHEDULED"
    PENDING = "PENDING"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CRASHED = "CRASHED"
    CANCELLING = "CANCELLING"
    CANCELLED = "CANCELLED"

    @property
    def is_final(self) -> bool:
        return self in _FINAL


_FINAL = frozenset({StateType.COMPLETED, StateType.FAILED, StateType.CRASHED, StateType.CANCELLED})


class FailureClass(StrEnum):
    """Why a run did not complete. `exit` and `timeout` are FAILED, all others CRASHED."""

    EXIT = "exit"
    OOM = "oom"
    KILLED = "killed"
    IMAGE = "image"
    CAPACITY = "capacity"
    QUOTA = "quota"
    SPOT = "spot"
    START_TIMEOUT = "start-timeout"
    TIMEOUT = "timeout"
    PERMISSION = "permission"
    CONFIGURATION = "configuration"
    NETWORK = "network"
    LOST = "lost"
    PLATFORM = "platform"


class Failure(Record):
    """One failure, explained: its class, its cause in words, and what its reader can change."""

    failure_class: FailureClass
    cause: str
    suggestion: str = ""
    retry: bool = False
    """Whether the default policy tries again."""
    exit_code: int | None = None
    signal: int | None = None


TRIED_AGAIN = "it is tried again"
"""How suggestions promise another try by the default policy."""


class State(Record):
    """What a run shows: a type, a name within the type, and why."""

    type: StateType
    name: str
    timestamp: datetime
    message: str = ""
    suggestion: str = ""
    failure_class: FailureClass | None = None
    exit_code: int | None = None
    signal: int | None = None
    retry: bool = False
    """Whether the default policy tries a failure of this kind again."""

    @property
    def is_final(self) -> bool:
        return self.type.is_final

    def without_promise(self) -> State:
        """Return the state as a run ends with it: what its failure's table says of another try is not true any more."""
        parts = self.suggestion.split("; ")
        kept = [part for part in parts if not part.startswith(TRIED_AGAIN)]
        if len(kept) == len(parts):
            return self
        return self.model_copy(update={"suggestion": "; ".join(kept) or "run it again: `flow-run retry`"})

    @classmethod
    def of(cls, name: str, now: datetime, message: str = "") -> State:
        """Return the state of that name; the name alone decides the type."""
        return cls.model_construct(type=STATE_TYPES[name], name=name, timestamp=now, message=message)

    @classmethod
    def failed(cls, failure: Failure, now: datetime) -> State:
        """Return the final state that a failure leads to."""
        return cls(
            type=STATE_TYPES[_NAMES.get(failure.failure_class, "Crashed")],
            name=_NAMES.get(failure.failure_class, "Crashed"),
            timestamp=now,
            message=failure.cause,
            suggestion=failure.suggestion,
            failure_class=failure.failure_class,
            exit_code=failure.exit_code,
            signal=failure.signal,
            retry=failure.retry,
        )


_NAMES = {FailureClass.EXIT: "Failed", FailureClass.TIMEOUT: "TimedOut"}

STATE_TYPES = {
    "Scheduled": StateType.SCHEDULED,
    "Late": StateType.SCHEDULED,
    "AwaitingConcurrencySlot": StateType.SCHEDULED,
    "AwaitingRetry": StateType.SCHEDULED,
    "Submitting": StateType.PENDING,
    "Submitted": StateType.PENDING,
    "Running": StateType.RUNNING,
    "Completed": StateType.COMPLETED,
    "Failed": StateType.FAILED,
    "TimedOut": StateType.FAILED,
    "Crashed": StateType.CRASHED,
    "Cancelling": StateType.CANCELLING,
    "Cancelled": StateType.CANCELLED,
    "Skipped": StateType.CANCELLED,
}


class JobStatus(StrEnum):
    """What a platform says of a job; the last four mean that it is over."""

    UNKNOWN = "unknown"
    STARTING = "starting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    GONE = "gone"

    @property
    def rank(self) -> int:
        """Order of statuses; a lower or equal rank than one already seen is ignored."""
        return _RANKS.get(self, OVER)


OVER = 3
_RANKS = {JobStatus.UNKNOWN: 0, JobStatus.STARTING: 1, JobStatus.RUNNING: 2}


class Observation(Record):
    """What a platform says of one job, before any decision."""

    key: str
    """The job key it is about; an Observation under an older key changes nothing."""
    status: JobStatus
    observed_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    exit_code: int | None = None
    signal: int | None = None
    codes: tuple[str, ...] = ()
    """The platform's own codes, most telling first; `domain.failures` explains them."""
    reason: str = ""
    stopped: bool | None = None
    """Whether the job ended because it was asked to stop; `None` where the platform does not say."""
    told: bool = False
    """Whether the platform told it by itself: somebody who asks may not be shown the job yet."""
    details: dict[str, JsonValue] = Field(default_factory=dict)

    @property
    def is_over(self) -> bool:
        return self.status.rank == OVER
