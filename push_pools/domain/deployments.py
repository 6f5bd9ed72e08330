"""A deployment: what to run, where, with which parameters, and when."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from pydantic import Field, JsonValue, NonNegativeInt

from push_pools.domain.pools import DEFAULT_QUEUE, CatalogueRecord
from push_pools.domain.runs import RetryPolicy
from push_pools.domain.schedules import Schedule

if TYPE_CHECKING:
    from collections.abc import Iterable


class Deployment(CatalogueRecord):
    """What runs, in which pool and queue, with which parameters, job variables and schedules."""

    id: UUID
    """Random, minted once per ledger; run ids derive from it."""
    name: str
    flow_name: str
    description: str = ""
    command: str | list[str] | None = None
    """Replaces the image's own command; a string is split like a shell would, without a shell."""
    parameters: dict[str, JsonValue] = Field(default_factory=dict)
    work_pool: str
    work_queue: str = DEFAULT_QUEUE
    job_variables: dict[str, Any] = Field(default_factory=dict)
    open_job_variables: tuple[str, ...] = ()
    """Job variables that are left to others, such as CI: whoever owns the record keeps the values that were set."""
    schedules: tuple[Schedule, ...] = ()
    retries: RetryPolicy = Field(default_factory=RetryPolicy)
    concurrency_limit: NonNegativeInt | None = None
    """Most runs active at once. `None` sets no limit; 0 holds every run."""
    limit_epoch: int = 0
    """How often a limit was set where there was none."""
    start_timeout_seconds: float | None = None
    """Wins over the job variable `task_start_timeout_seconds`; `None` leaves it to that and the platform."""
    timeout_seconds: float | None = None
    """Wins over the job variable `timeout`; 0 sets no limit."""
    max_wait_seconds: float | None = None
    tags: tuple[str, ...] = ()
    is_paused: bool = False
    pause_note: str = ""
    planned_from: datetime | None = None
    """When it was last resumed: instants before are not planned any more."""

    @property
    def key(self) -> str:
        """`flow/name`, as in Prefect."""
        return f"{self.flow_name}/{self.name}"

    def owned_job_variables(self, names: Iterable[str]) -> list[str]:
        """Return those of some job variables that are not left to others."""
        return sorted(set(names) - set(self.open_job_variables))

    def layer(self) -> dict[str, Any]:
        """Return the deployment's job variables, its command among them."""
        return {**self.job_variables, "command": self.command} if self.command is not None else dict(self.job_variables)
