"""The base of everything that is stored, and the times of the protocol."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import ClassVar

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """A stored value: frozen, and tolerant of fields that a newer release added.

    During a rolling upgrade old and new code write the same records, so unknown
    fields are kept and written back; only what a user types is refused for them.
    No schema is made of what is stored, so its docstrings are not read: that takes a third of the time to load it.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="allow")


class UserInput(BaseModel):
    """A value that a user wrote: frozen, and unknown fields are refused."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True)
class Timing:
    """The times of the protocol, in seconds; tests with real processes shrink them.

    Raises:
        ValueError: A claim would not outlast a call.
    """

    function_seconds: float = 60.0
    """How long one invocation of a handler may take."""
    call_seconds: float = 30.0
    """The total time-out of one submit request; library retries are off for it."""
    claim_margin_seconds: float = 30.0
    """A claim lasts the function's time plus this."""
    spare_seconds: float = 10.0
    """A claim is taken only while the invocation has a call's time plus this left."""
    settle_seconds: float = 60.0
    """After `call_until`, how long a call may still land."""
    look_ahead_seconds: float = 300.0
    """How far the tick plans ahead."""
    tick_seconds: float = 60.0
    """How often the tick comes."""
    replay_seconds: float = 45 * 60.0
    """From the first unanswered call, how long ECS may be asked again under the same token."""
    submit_seconds: float = 60 * 60.0
    """From the first intent of an attempt, how long it may take to get a job."""
    stop_seconds: float = 60 * 60.0
    """How long a stop is repeated before the run is given up as lost."""
    stop_again_seconds: float = 60.0
    """How often an unconfirmed stop is repeated."""
    overdue_seconds: float = 30.0
    """How far past `wake_at` the tick sends a hint again."""
    unseen_seconds: float = 20 * 60.0
    """How long a job may go unseen before an alarm."""
    unreachable_seconds: float = 60 * 60.0
    """After the submit deadline, how long an open call waits for a platform that cannot be asked about it."""
    gone_grace_seconds: float = 5 * 60.0
    """How old a recorded job must be for "unknown to the platform" to mean that it is gone."""
    call_backoff_seconds: float = 2.0
    """After a refused or unanswered call, the first wait; it doubles up to a minute."""
    max_lapses: int = 10
    """Claims in a row that expired without an outcome before the run is ended."""
    list_lag_seconds: float = 30.0
    """How old a write must be for the lists of a store whose lists lag to show it, with 15 s for clocks that differ."""
    early_seconds: float = 1.0
    """How much too early a claim may come."""

    def __post_init__(self) -> None:
        if self.claim_seconds < self.call_seconds + self.spare_seconds:
            raise ValueError("a claim must outlast call_seconds + spare_seconds")

    @property
    def claim_seconds(self) -> float:
        return self.function_seconds + self.claim_margin_seconds

    @property
    def claim(self) -> timedelta:
        return timedelta(seconds=self.claim_seconds)

    @property
    def call(self) -> timedelta:
        return timedelta(seconds=self.call_seconds)

    @property
    def settle(self) -> timedelta:
        return timedelta(seconds=self.settle_seconds)
