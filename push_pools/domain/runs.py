"""A flow run: what the user asked for, and everything the ledger knows of it.

One run is one record with one optimistic `version`. `domain.transitions` says how it moves.
"""

from __future__ import annotations

import base64
import hashlib
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid5

from pydantic import Field, JsonValue

from push_pools.domain.records import Record
from push_pools.domain.states import FailureClass, State

if TYPE_CHECKING:
    from collections.abc import Mapping

HISTORY = timedelta(days=90)
"""How long a settled run is kept, and how old an event may be: one that is older could run again."""
SCHEMA = 1
"""The schema version of stored runs; an older binary refuses a newer ledger."""
JOURNAL_ENTRIES = 200
"""Most journal entries kept on a run; the oldest go first."""


class Phase(StrEnum):
    """Where a run is in the protocol; each phase has a deadline, an owner and a next action."""

    PLANNED = "planned"
    """Due at a time; its delayed message, then the tick, looks again."""
    WAITING = "waiting"
    """Parked, in the order of its pool; whoever changes something admits it."""
    READY = "ready"
    """Has its slots, or its call was refused; a message claims it."""
    CLAIMED = "claimed"
    """Somebody prepares the call; nothing was called under this claim."""
    CALLING = "calling"
    """A call was made, or may have been, and its outcome is not known."""
    STARTED = "started"
    """The job is recorded; sweeps and events watch it."""
    STOPPING = "stopping"
    """The job is being stopped, with a verdict."""
    ENDED = "ended"
    """Final, with chores left."""
    SETTLED = "settled"
    """Final, and nothing is left to do."""

    @property
    def is_final(self) -> bool:
        return self in (Phase.ENDED, Phase.SETTLED)

    @property
    def is_submitting(self) -> bool:
        """Whether a `submit` hint is what moves the run on."""
        return self in (Phase.PLANNED, Phase.READY, Phase.CLAIMED, Phase.CALLING)

    @property
    def is_active(self) -> bool:
        """Whether a job is recorded and not known to be over."""
        return self in (Phase.STARTED, Phase.STOPPING)


def job_key(run_id: UUID, attempt: int, launch: int) -> str:
    """Return the name under which a platform starts at most one job.

    Lower-case letters and digits that every cloud accepts: `pp-` and 26 characters of a hash.
    """
    digest = hashlib.sha256(f"{run_id}/{attempt}/{launch}".encode()).digest()
    return "pp-" + base64.b32encode(digest).decode().lower()[:26]


def run_id(namespace: UUID, identity: str) -> UUID:
    """Return the id of the run that `identity` names within a deployment or work pool.

    `identity` is one of `key:<idempotency key>`, `at:<schedule id or "event">:<UTC instant>` and
    `msg:<envelope id>`. The namespace is random per ledger, so two installations never meet.
    """
    return uuid5(namespace, identity)


class JobHandle(Record):
    """All that is needed to find, observe and stop a job later.

    It is written with the intent, so it outlives changes of the deployment and the credential block.
    """

    key: str
    platform: str
    pid: str | None = None
    """The platform's own name for the job (`infrastructure_pid`); `None` until it is known."""
    place: dict[str, str] = Field(default_factory=dict)
    """Region, cluster, project, resource group: where the key counts."""
    details: dict[str, str] = Field(default_factory=dict)
    """What else it takes to understand the job, such as its main container and where its log goes."""
    credential_block_id: str | None = None
    run_id: UUID | None = None
    attempt: int = 1

    @property
    def batch_key(self) -> tuple[str, ...]:
        """Handles with the same batch key may be observed in one call."""
        return (self.platform, self.credential_block_id or "", *(f"{k}={v}" for k, v in sorted(self.place.items())))


class Claim(Record):
    """A run held for submission until a time on the real clock."""

    owner: str
    fence: int
    until: datetime


class Job(Record):
    """The current attempt's job, from its intent on."""

    handle: JobHandle
    request: dict[str, JsonValue]
    """The rendered job configuration, with references in place of secrets."""
    intent_at: datetime
    """First intent of the attempt; the submit deadline counts from it."""
    call_until: datetime
    """No call made so far is sent after this (real clock)."""
    open_since: datetime | None = None
    """First call under the key whose outcome is unknown (real clock)."""
    opened_by: int = 0
    """Fence of the claim that made that call."""
    calls: int = 0
    refused: bool = False
    """The platform answered that it started nothing, and keeps that answer under this key."""
    last_refusal: State | None = None
    submitted_at: datetime | None = None
    seen_rank: int = 0
    seen_at: datetime | None = None
    started_at: datetime | None = None
    unseen_since: datetime | None = None
    """Since when the platform could not be asked about the job, or did not know it; none while it is seen."""
    unseen_alarm: bool = False
    """Whether somebody was alarmed that it is unseen."""
    stop_sent_at: datetime | None = None
    stopping_since: datetime | None = None

    @property
    def key(self) -> str:
        return self.handle.key

    @property
    def pid(self) -> str | None:
        return self.handle.pid


class CancelRequest(Record):
    """Who asked for a cancel, when and why."""

    by: str
    at: datetime
    reason: str = ""


class RetryPolicy(Record):
    """How often an attempt is made, and after which failures."""

    attempts: int = Field(default=3, ge=1, le=100)
    """All tries, the first included."""
    on: tuple[FailureClass, ...] | None = None
    """Failure classes that are tried again; by default those of infrastructure."""
    backoff_seconds: float = Field(default=10.0, gt=0)
    """The first wait; it doubles up to ten minutes."""


class Policy(Record):
    """What the deployment and pool said at the claim; frozen by the intent."""

    start_timeout_seconds: float
    timeout_seconds: float
    """0 sets no limit."""
    grace_seconds: float = 30.0
    retries: RetryPolicy = Field(default_factory=RetryPolicy)


class ScheduleRef(Record):
    """The schedule, at a version, that planned a run."""

    id: str
    version: int = 1
    overlap: str = "allow"


class ChoreKind(StrEnum):
    """What a run still owes after its state is final, or after an attempt is over."""

    WAKE = "wake"
    PUBLISH = "publish"
    REPORT = "report"
    LOGS = "logs"
    CLEANUP = "cleanup"
    WATCH = "watch"


class Chore(Record):
    """One thing left to do; it may be done twice, and is not given up."""

    kind: ChoreKind
    not_before: datetime
    handle: JobHandle | None = None
    since: datetime
    tries: int = 0
    event: str | None = None
    """What is to be published, as JSON."""
    sequence: int | None = None
    """The `sequence` of that event."""

    @property
    def name(self) -> str:
        """Identity among a run's chores."""
        if self.handle is None:
            return str(self.kind) if self.sequence is None else f"{self.kind}/{self.sequence}"
        return "/".join(filter(None, (self.kind, self.handle.key, self.handle.pid)))


class Entry(Record):
    """One line of the journal: what happened, when, and the facts of it."""

    at: datetime
    what: str
    facts: dict[str, JsonValue] = Field(default_factory=dict)


class FlowRun(Record):
    """One requested execution."""

    schema_version: int = SCHEMA
    id: UUID
    name: str
    created_at: datetime
    idempotency_key: str | None = None
    deployment_id: UUID | None = None
    deployment: str | None = None
    """`flow/name` when the run was put."""
    flow_name: str | None = None
    work_pool: str
    work_queue: str = "default"
    platform: str
    """The pool's type; a pool never changes it."""
    scheduled_time: datetime
    parameters: dict[str, JsonValue] = Field(default_factory=dict)
    job_variables: dict[str, Any] = Field(default_factory=dict)
    tags: tuple[str, ...] = ()
    schedule: ScheduleRef | None = None
    retry_of: UUID | None = None

    state: State
    phase: Phase = Phase.PLANNED
    version: int = 0
    attempt: int = 1
    launch: int = 1
    fence: int = 0
    """Claims so far; a decision of an older fence is refused."""
    lapses: int = 0
    """Claims in a row that expired without an outcome."""
    claim: Claim | None = None
    tried_since: datetime | None = None
    """First claim of the attempt; a run that is refused before its first intent gives up after that."""
    job: Job | None = None
    over: tuple[str, ...] = ()
    """Job keys whose job was seen to be over; news of them changes nothing."""
    places: dict[str, datetime] = Field(default_factory=dict)
    """Places taken for the next call, by the scope of their rate (real clock); see `domain.pace`."""
    policy: Policy | None = None
    slots: tuple[str, ...] = ()
    """Scopes held, as they were taken; released from this record and from nothing else."""
    waits_at: str | None = None
    """Place among the parked runs of the pool: queue, due time, id."""
    waits_since: datetime | None = None
    """When it was parked."""
    wait_until: datetime | None = None
    """When it has waited for as long as its deployment lets it; `None` is for ever."""
    cancel: CancelRequest | None = None
    verdict: State | None = None
    """The state decided while the job is being stopped, or while a refused key settles."""
    due_at: datetime
    """Earliest next claim."""
    wake_at: datetime | None = None
    """The latest moment at which somebody looks again; none while parked and when settled."""
    hints: int = 0
    """Hints that the tick has sent since the last transition."""
    start_time: datetime | None = None
    end_time: datetime | None = None
    chores: tuple[Chore, ...] = ()
    prefect: dict[str, JsonValue] | None = None
    journal: tuple[Entry, ...] = ()

    @property
    def is_final(self) -> bool:
        return self.phase.is_final

    @property
    def infrastructure_pid(self) -> str | None:
        return self.job.pid if self.job else None

    @property
    def job_key(self) -> str:
        """The key of the current attempt and launch."""
        return job_key(self.id, self.attempt, self.launch)

    def evolve(self, **changes: Any) -> FlowRun:
        """Return the run with these fields changed; the caller answers for their types."""
        return self.model_copy(update=changes)

    def noted(self, now: datetime, what: str, **facts: Any) -> FlowRun:
        """Return the run with one more journal entry."""
        entry = Entry(at=now, what=what, facts={k: v for k, v in facts.items() if v is not None})
        return self.model_copy(update={"journal": (*self.journal[-(JOURNAL_ENTRIES - 1) :], entry)})

    def as_listed(self) -> Mapping[str, Any]:
        """Return the public fields of a run, as `flow-run ls` and the API show them."""
        return {
            "id": str(self.id),
            "name": self.name,
            "deployment": self.deployment,
            "work_pool": self.work_pool,
            "work_queue": self.work_queue,
            "state_type": str(self.state.type),
            "state_name": self.state.name,
            "state_message": self.state.message,
            "failure_class": str(self.state.failure_class) if self.state.failure_class else None,
            "scheduled_time": self.scheduled_time.isoformat(),
            "start_time": self.start_time.isoformat() if self.start_time else None,
            "end_time": self.end_time.isoformat() if self.end_time else None,
            "attempt": self.attempt,
            "infrastructure_pid": self.infrastructure_pid,
            "parameters": self.parameters,
            "job_variables": self.job_variables,
            "tags": list(self.tags),
        }
