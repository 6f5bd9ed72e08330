"""What the services need from the world, as Protocols whose docstrings are the contract.

`push_pools.testing.contracts` holds one suite of tests per port; every adapter passes it.
"""

from __future__ import annotations

import builtins  # noqa: TC003 - `type` is also a field of Platform
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, TypeVar, runtime_checkable

from push_pools.domain.pools import CatalogueRecord
from push_pools.domain.records import Timing
from push_pools.domain.transitions import Moment

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    from pydantic import BaseModel, JsonValue

    from push_pools.domain.events import RunStateChanged
    from push_pools.domain.jobs import BaseJobConfiguration, BaseVariables
    from push_pools.domain.pace import Pace, Rate
    from push_pools.domain.runs import FlowRun, JobHandle, Phase
    from push_pools.domain.states import Observation

RecordT = TypeVar("RecordT", bound=CatalogueRecord)


class Clock(Protocol):
    """Tells the time. The movable clock runs `speed` times as fast as the real one."""

    @property
    def speed(self) -> float: ...

    def now(self) -> datetime:
        """Return the time, aware and in UTC."""
        ...


# -- the ledger ----------------------------------------------------------------


@dataclass(frozen=True)
class RunFilter:
    """Which runs to list; an empty filter means all."""

    states: frozenset[str] = frozenset()
    """State types (upper case) or state names."""
    deployment_id: UUID | None = None
    work_pool: str | None = None
    since: datetime | None = None
    """Only runs scheduled at or after this time."""
    id_prefix: str = ""


@dataclass(frozen=True)
class RunPage:
    """Some runs, newest first, and the cursor that continues after them."""

    runs: tuple[FlowRun, ...]
    cursor: str | None = None


@dataclass(frozen=True)
class Limit:
    """How many slots a scope has, as the ledger counts by it. The catalogue is the truth, and this is derived from it.

    Like a record it is written over the revision that was read, so that of two writers one has to look again.
    It stays when a limit is removed, so that a revision never comes back.
    """

    scope: str
    slots: int | None = None
    """Most runs that hold a slot; `None` sets no limit."""
    source: str = ""
    """Which setting of the catalogue it is derived from; it differs when a limit is set where there was none."""
    is_counting: bool = False
    """Whether the runs that were active before there was a limit are still being counted; nobody else gets a slot."""
    revision: int = 0
    taken: int = 0
    """How many slot items there are; read with the limit, never written."""

    @property
    def is_full(self) -> bool:
        """Whether nobody gets a slot now."""
        return self.is_counting or (self.slots is not None and self.taken >= self.slots)


class RunStore(Protocol):
    """The runs of a ledger, and what must change in the same write as a run.

    A run is one record with one `version`. Every write names the version it read and writes the next.
    Beside the run, and only ever changed with it, stand its slot items (`slots`, counted per scope), its
    waiter item (`waits_at`, while its phase is waiting) and its places in the hint indexes.
    """

    @property
    def ledger_id(self) -> UUID:
        """Random, minted when the ledger was made."""
        ...

    @property
    def lists_lag(self) -> bool:
        """Whether `runs` may miss what was written within the last `Timing.list_lag_seconds`."""
        ...

    def put_run(self, run: FlowRun) -> FlowRun:
        """Add a run whose id is not known yet and return it at version 1; else return the one that is there.

        The first write wins: of two simultaneous calls with one id, both return the same run.

        Raises:
            StoreUnavailable: Nothing is known to be written.
        """
        ...

    def put_runs(self, runs: Sequence[FlowRun]) -> Mapping[UUID, FlowRun]:
        """Add many runs as `put_run` does, and return those whose id was known already, as they are stored.

        Raises:
            StoreUnavailable: Some may have been written; putting them again tells.
        """
        ...

    def get_run(self, run_id: UUID) -> FlowRun:
        """Return the run as it is now; the read is consistent.

        Raises:
            NotFound: There is no such run.
        """
        ...

    def save(self, before: FlowRun, after: FlowRun, *, counting: bool = False) -> FlowRun:
        """Write `after` over `before` in one transaction and return it with the next version.

        Slots in `after` but not in `before` are taken, slots no longer in it are released, and the waiter
        and hint items follow. A write that finds its own effect already there has succeeded. With `counting`
        a slot is given although its scope is full: the run was active before the limit was there.

        Raises:
            VersionConflict: The stored run is not `before` any more; nothing was changed.
            ScopeFull: A slot to be taken is not free, or its scope is being counted; nothing was changed.
            StoreUnavailable: The write may or may not have happened; reading tells.
        """
        ...

    def due(
        self, now: datetime, *, after: datetime | None = None, limit: int = 1000, shard: int | None = None
    ) -> Sequence[FlowRun]:
        """Return runs whose `wake_at` is at or before `now`, and later than `after`, earliest first.

        A hint: it may lag.
        """
        ...

    def active(self, platform: str, *, shard: int | None = None) -> Sequence[FlowRun]:
        """Return the runs of a platform whose job is recorded and not known to be over. A hint."""
        ...

    def active_platforms(self) -> frozenset[str]:
        """Return the platforms that have active runs. A hint."""
        ...

    def waiting(
        self, work_pool: str, *, queue: str | None = None, after: str = "", limit: int = 1000
    ) -> Sequence[FlowRun]:
        """Return the parked runs of a pool, or of one of its queues, in the order of `waits_at`, those after a place.

        The read is consistent.
        """
        ...

    def waiting_pools(self) -> frozenset[str]:
        """Return the pools that have parked runs. A hint."""
        ...

    def limit_of(self, scope: str) -> Limit:
        """Return the limit of a scope, at revision 0 when none was ever written. The read is consistent."""
        ...

    def put_limit(self, limit: Limit) -> Limit:
        """Write a limit over the revision that was read and return it with the next; holders keep what they hold.

        Raises:
            VersionConflict: The stored limit has another revision; nothing was changed.
        """
        ...

    def slots(self, scope: str) -> tuple[int | None, frozenset[UUID]]:
        """Return a scope's limit and the runs that hold its slots. The read is consistent."""
        ...

    def runs(self, where: RunFilter, *, limit: int = 200, cursor: str | None = None) -> RunPage:
        """Return runs newest first (by scheduled time, then id)."""
        ...

    def purge(self, before: datetime, *, limit: int) -> int:
        """Remove runs that are settled, and whose `end_time` and `scheduled_time` are before; return how many.

        At most `limit`, the ones scheduled first before others. A store that forgets by itself, by a time that it
        writes beside a settled run (DynamoDB), has nothing to do. A write to a run that is gone is a `VersionConflict`.
        """
        ...

    def count_by_phase(self) -> Mapping[Phase, int]:
        """Return how many runs are in each phase."""
        ...


class Memo(Protocol):
    """Small facts that are written once (task definitions, cursors), and the pace of calls that many share."""

    def remember(self, key: str, value: str) -> str:
        """Keep `value` under `key` unless there is one; return the one that is kept."""
        ...

    def recall(self, key: str) -> str | None:
        """Return what is kept under `key`."""
        ...

    def forget(self, key: str) -> None:
        """Drop what is kept under `key`; dropping nothing is success."""
        ...

    def pace(self, scope: str, rate: Rate, now: datetime, *, ahead_seconds: float = 0.0) -> datetime:
        """Take the next place of a scope and return its moment; at or before `now` (real clock) it is free.

        A place that is more than `ahead_seconds` after `now` is not taken: its moment is returned, and whoever
        asked asks again. No place is given to two, and a place that is taken and not used is lost.

        A store keeps the moment of the next place, n. With f = `rate.oldest(now)` and i = `rate.interval`, a
        place is max(n, f), and n becomes max(n, f) + i. In one conditional update: add i if f ≤ n ≤ now + ahead,
        else, where n is missing or older than f, set f + i under the condition that it still is.
        """
        ...


class Catalogue(Protocol):
    """Pools, queues, deployments, blocks and variables: one record each, with an optimistic version."""

    def get(self, kind: type[RecordT], key: str) -> RecordT | None:
        """Return the record of that key (`WorkPool.key` and so on), or `None`. The read is consistent."""
        ...

    def find(self, kind: type[RecordT], id_: UUID) -> RecordT | None:
        """Return the record with that id, or `None`."""
        ...

    def put(self, record: RecordT) -> RecordT:
        """Write a record and return it with the next version; version 0 means that it must be new.

        Raises:
            VersionConflict: The stored record has another version, or there is one already.
        """
        ...

    def delete(self, record: CatalogueRecord) -> None:
        """Remove a record; removing one that is gone is success.

        Raises:
            VersionConflict: It was changed since it was read.
        """
        ...

    def list(self, kind: type[RecordT]) -> Sequence[RecordT]:
        """Return all records of a kind in the order of their keys."""
        ...


class Store(RunStore, Memo, Catalogue, Protocol):
    """A whole ledger."""

    def close(self) -> None:
        """Let go of files and connections."""
        ...


# -- queues --------------------------------------------------------------------


class Queue(Protocol):
    """Where hints and events wait. Delivery is at least once, in no order.

    A hosting may have several queues behind this one. Which of them a message goes to follows from the message:
    its type, and the pool type that it names.
    """

    def send(self, body: str, *, delay_seconds: float = 0.0) -> None:
        """Put a message on the queue, to be delivered after a delay in real seconds.

        Raises:
            StoreUnavailable: The message was not kept.
        """
        ...

    def send_all(self, messages: Sequence[tuple[str, float]]) -> None:
        """Put many messages on the queue, each with its delay in real seconds.

        Raises:
            StoreUnavailable: Some may not have been kept.
        """
        ...


@dataclass(frozen=True)
class Delivery:
    """A message handed out for a while; `receipt` names this handing out."""

    id: str
    body: str
    receipt: str
    receives: int


@dataclass(frozen=True)
class DeadLetter:
    """A message that was given up, with the reason."""

    id: str
    body: str
    reason: str
    receives: int
    died_at: datetime


class DeadLetters(Protocol):
    """The messages that were given up."""

    def dead_letters(self) -> Sequence[DeadLetter]:
        """Return the dead letters, newest first.

        Raises:
            StoreUnavailable: They cannot be read now.
        """
        ...

    def replay(self, id_: str) -> None:
        """Put a dead letter back on the queue it came from.

        Raises:
            NotFound: There is no such dead letter.
        """
        ...


class LocalQueue(Queue, DeadLetters, Protocol):
    """The embedded queue: visibility, redelivery and dead letters, as SQS has them."""

    def receive(self, limit: int, visibility_seconds: float) -> Sequence[Delivery]:
        """Hand out visible messages and hide them for that long; oldest first."""
        ...

    def ack(self, delivery: Delivery) -> None:
        """Remove a message. A receipt that is no longer current removes nothing."""
        ...

    def release(self, delivery: Delivery, *, delay_seconds: float = 0.0) -> None:
        """Make a message visible again after a delay."""
        ...

    def bury(self, delivery: Delivery, reason: str) -> None:
        """Move a message to the dead letters."""
        ...

    def show_all(self) -> int:
        """Make every hidden message visible and return how many; for a start after a crash."""
        ...

    def next_visible_in(self) -> float | None:
        """Return the seconds until the next message becomes visible, or `None` without messages."""
        ...

    def depth(self) -> int:
        """Return how many messages there are, visible or not."""
        ...


class Bus(Protocol):
    """Where state changes are published, for alerts and whatever follows from a run."""

    def publish(self, event: RunStateChanged) -> None:
        """Publish an event; it may be published twice.

        Raises:
            NotPublished: The bus did not take it, or it is not known that it did.
        """
        ...


# -- platforms -----------------------------------------------------------------


class OpenCredentials(Protocol):
    """Opens the clients of a credential block; `None` opens the service's own identity."""

    def __call__(self, block_id: str | None) -> Any:
        """Return the block, its secrets decrypted.

        Raises:
            PlatformUnavailable: It is gone, or cannot be decrypted; the sentence says why.
        """
        ...


@dataclass(frozen=True)
class PlatformContext:
    """What a platform is built with."""

    credentials: OpenCredentials
    settings: Mapping[str, str]
    clock: Clock
    real_clock: Clock


@dataclass(frozen=True)
class LogPage:
    """Some lines of a job's output, and the cursor that continues after them."""

    lines: tuple[str, ...]
    cursor: str | None = None
    is_last: bool = False
    """Whether the job is over and nothing will follow."""


class Platform(Protocol):
    """A place where jobs run, found through the entry-point group `push_pools.platforms`.

    The class is built once, as `Platform(context)`. Errors are those of `domain.errors.PlatformError`
    and nothing else: `JobRejected`, `PlatformUnavailable`, `NothingStarted`, `SubmissionUncertain`.
    """

    type: ClassVar[str]
    description: ClassVar[str]
    documentation_url: ClassVar[str]
    logo_url: ClassVar[str]
    job_configuration: ClassVar[builtins.type[BaseJobConfiguration]]
    job_configuration_variables: ClassVar[builtins.type[BaseVariables] | None]
    observe_batch: ClassVar[int]
    """Most handles per `observe` call."""
    start_timeout_seconds: ClassVar[float]
    """How long a job may take to begin to run, unless something else is said."""
    key_is_used_up: ClassVar[bool]
    """Whether a refusal is bound to the key (ECS), so that only a new launch can follow it."""
    forgets_keys: ClassVar[bool]
    """Whether the platform forgets a key some time after its job ended (ECS), so that it is not asked again later."""
    closes_before_repeat: ClassVar[bool]
    """Whether the same key may be asked for again only when no earlier call can still land (ACI)."""
    needs_cleanup: ClassVar[bool]
    """Whether something is left at the platform that `cleanup` has to remove."""

    def __init__(self, context: PlatformContext) -> None: ...

    def handle(self, job: BaseJobConfiguration, key: str) -> JobHandle:
        """Return the handle, without a pid, of the job that `submit` would start. Pure."""
        ...

    def prepare(self, job: BaseJobConfiguration, memo: Memo) -> BaseJobConfiguration:
        """Make what has to exist before the call (an ECS task definition) and return the job that names it.

        Repeatable; it starts nothing. What it returns is stored with the intent, and is all that `submit` sees.
        """
        ...

    def submit(self, job: BaseJobConfiguration, key: str) -> JobHandle:
        """Start the job and return its handle with its pid. The same key never starts a second job.

        Takes at most `Timing.call_seconds`, library retries included.

        Raises:
            JobRejected: Refused; it would be refused again unchanged.
            PlatformUnavailable: Refused for now, without effect.
            NothingStarted: The platform answered that it started nothing.
            SubmissionUncertain: It may or may not have had an effect.
        """
        ...

    def find(self, handle: JobHandle) -> JobHandle | None:
        """Return the handle, with its pid, of the job started under this key, or `None` if there is none.

        Raises:
            PlatformUnavailable: The platform could not be asked.
        """
        ...

    def observe(self, handles: Sequence[JobHandle]) -> Sequence[Observation]:
        """Return what the platform says of jobs of one credential and place, at most `observe_batch`.

        A job that the platform does not know is `unknown` or `gone`, not an error.

        Raises:
            PlatformUnavailable: The platform could not be asked.
        """
        ...

    def stop(self, handle: JobHandle, grace_seconds: float) -> None:
        """Ask for the job to be stopped. Repeatable; a job that is over or gone is success.

        Raises:
            PlatformUnavailable: The platform could not be asked.
        """
        ...

    def cleanup(self, handle: JobHandle) -> None:
        """Remove what the job left that costs or counts to a quota. Repeatable; nothing left is success.

        Raises:
            PlatformUnavailable: The platform could not be asked.
        """
        ...

    def logs(self, handle: JobHandle, cursor: str | None) -> LogPage:
        """Return the next lines of a job's output, of finished and crashed jobs too.

        Raises:
            PlatformUnavailable: The platform could not be asked.
        """
        ...

    def preview(self, job: BaseJobConfiguration) -> dict[str, JsonValue]:
        """Return the exact request that `submit` would send. Pure; secrets are references."""
        ...


@runtime_checkable
class TellsOfEndings(Protocol):
    """A platform that can tell at once that a job is over, such as local processes."""

    def on_over(self, tell: Callable[[JobHandle, Observation], None]) -> None:
        """Call `tell` for every job that ends from now on. A hint: sweeps find what it misses."""
        ...

    def follow(self, handle: JobHandle) -> None:
        """Also tell of this job, which an earlier process started. Repeatable."""
        ...

    def close(self) -> None:
        """Stop telling; jobs go on."""
        ...


class ReportedJob(NamedTuple):
    """Whose job an event of a platform is about."""

    run_id: UUID
    attempt: int


@runtime_checkable
class ReadsEvents(Protocol):
    """A platform that sends an event when a job changes, such as ECS through EventBridge."""

    def reported(self, detail: Mapping[str, JsonValue]) -> ReportedJob | None:
        """Return whose job an event is about; `None` for one that is not about a job of a run. Pure."""
        ...

    def read_event(self, detail: Mapping[str, JsonValue], handle: JobHandle) -> tuple[JobHandle, Observation] | None:
        """Return the handle, with its pid, and what the event says of the job; `None` if it is not in that place.

        `handle` is that of the attempt, with or without a pid. Events come twice, late and out of order. Where
        one does not say enough, the platform is asked.

        Raises:
            PlatformUnavailable: It could not be asked.
        """
        ...


@runtime_checkable
class HasPaces(Protocol):
    """A platform whose calls are limited by its cloud, so that the service keeps below the limit by itself."""

    def paces(self, job: BaseJobConfiguration) -> Sequence[Pace]:
        """Return the rates that one `submit` of this job has to keep. Pure; it asks nobody."""
        ...


@runtime_checkable
class PreparesAhead(Protocol):
    """A platform that starts a job faster when it is told before, such as local processes."""

    def expect(self, jobs: int) -> None:
        """Prepare for that many jobs within seconds; fewer than before lets go of what was prepared. A hint."""
        ...


class Platforms(Protocol):
    """The platforms of this installation, loaded on first use."""

    def __call__(self, type_: str) -> Platform:
        """Return the platform of a pool type.

        Raises:
            NotFound: No such type is installed.
            PlatformMissing: It is, but does not import.
        """
        ...

    def types(self) -> Sequence[str]:
        """Return the names of all installed pool types."""
        ...


class Vault(Protocol):
    """Encrypts the secret fields of blocks."""

    def encrypt(self, clear: bytes, context: Mapping[str, str]) -> str:
        """Return a text that only `decrypt` with the same context opens."""
        ...

    def decrypt(self, sealed: str, context: Mapping[str, str]) -> bytes:
        """Return what was encrypted.

        Raises:
            NotAllowed: It was sealed with another key or context, or was changed.
        """
        ...


# -- the whole -----------------------------------------------------------------


class BlockTypes(Protocol):
    """The block types of this installation."""

    def __call__(self, type_slug: str, /) -> builtins.type[BaseModel]:
        """Return the class that reads and checks blocks of a type.

        Raises:
            NotFound: There is no such type.
        """
        ...


@dataclass(frozen=True)
class Invocation:
    """One call of a handler: who it is, and until when (real clock) it may work."""

    owner: str
    deadline: datetime


@dataclass(frozen=True)
class App:
    """Everything a service needs, chosen by `bootstrap`, once per process."""

    store: Store
    queue: Queue
    platforms: Platforms
    vault: Vault
    block_types: BlockTypes
    clock: Clock
    real_clock: Clock
    timing: Timing = field(default_factory=Timing)
    environ: Mapping[str, str] = field(default_factory=dict)
    """The environment variables that templates may read; an allow-list."""
    bus: Bus | None = None
    """Where state changes are published; none by default."""
    acting: frozenset[str] | None = None
    """The pool types at whose platforms this process starts, stops and cleans up jobs; `None` means all.

    Where it does not act it sends a hint, which leads to a process that does.
    """

    def acts_on(self, platform: str) -> bool:
        """Whether this process acts on the platform of a pool type itself."""
        return self.acting is None or platform in self.acting

    def moment(self) -> Moment:
        """Return one reading of both clocks."""
        return Moment(now=self.clock.now(), real_now=self.real_clock.now(), speed=self.clock.speed)
