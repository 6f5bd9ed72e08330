"""Every error the project raises on purpose, named for what the caller does next.

PushPoolsError                     print the sentence, exit 1
├── InvalidInput                   the user changes what they wrote
│   ├── InvalidConfig              … in a file, at a line and column
│   ├── InvalidEvent               … in an event; the event goes to the dead letters
│   ├── InvalidTemplate            … in a base job template
│   └── InvalidJobVariables        … in job variables; every problem is listed
├── NotFound                       the user names something that exists
├── AlreadyExists                  the user picks another name
├── InUse                          the user removes what depends on it first
├── NotAllowed                     the thing's state, or its owner, forbids it
├── PlatformMissing                the user installs an extra
├── HomeInUse                      the user stops the other server, or takes another home
├── NotPublished                   try again later: the event could not be published now
├── LedgerError
│   ├── StoreUnavailable           try again: the queue keeps the message
│   ├── StoreCorrupt               restore from a copy
│   ├── StoreTooNew                upgrade push_pools
│   ├── VersionConflict            read and decide again
│   ├── ScopeFull                  try the next waiter: the limit is reached
│   ├── NotDue                     send the message again, delayed
│   ├── RunClaimed                 acknowledge: somebody has it
│   ├── RunLimited                 park it
│   ├── RunAlreadySubmitted        acknowledge: its job is recorded, or it is over
│   ├── OutOfTime                  give the message back: the invocation ends too soon
│   ├── ClaimLost                  stop: another claim may act now
│   └── CancelRequested            stop before the call: a cancel won
└── PlatformError
    ├── JobRejected                end the attempt: it would be refused again unchanged
    ├── PlatformUnavailable        try the same key again later
    │   └── Pacing                 wait for one's turn; nobody refused anything
    ├── NothingStarted             definite: ECS takes the next launch, others the same key again
    └── SubmissionUncertain        look up before anything else
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime


class PushPoolsError(Exception):
    """An error with one sentence for its reader; `str()` of it is that sentence."""


# -- what the user wrote -------------------------------------------------------


class InvalidInput(PushPoolsError):
    """Something the user wrote cannot be accepted; the sentence names it and the fix."""


class InvalidConfig(InvalidInput):
    """A file cannot be accepted. `line` and `column` count from 1."""

    def __init__(self, path: str, problem: str, *, line: int | None = None, column: int | None = None) -> None:
        self.path, self.problem, self.line, self.column = path, problem, line, column
        place = ":".join(str(part) for part in (path, line, column) if part is not None)
        super().__init__(f"{place}: {problem}")


class InvalidEvent(InvalidInput):
    """An event cannot be read. Reading it again will not help, so it goes to the dead letters."""


class InvalidTemplate(InvalidInput):
    """A base job template, or what a placeholder in it names, is wrong."""


class InvalidJobVariables(InvalidInput):
    """Job variables break the pool's schema. `problems` holds one sentence for each."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(self.problems))


class NotFound(PushPoolsError, LookupError):
    """The named thing does not exist. `known` are names that do, nearest first."""

    def __init__(self, kind: str, name: str, known: Iterable[str] = (), *, fix: str | None = None) -> None:
        self.kind, self.name, self.known = kind, name, tuple(known)
        hint = fix or (f"known: {', '.join(self.known)}" if self.known else "")
        super().__init__(f"{kind} {name!r} does not exist" + (f"; {hint}" if hint else ""))


class AlreadyExists(PushPoolsError):
    """The name is taken."""

    def __init__(self, kind: str, name: str, *, fix: str) -> None:
        self.kind, self.name = kind, name
        super().__init__(f"{kind} {name!r} already exists; {fix}")


class InUse(PushPoolsError):
    """The thing cannot be deleted while `users` depend on it."""

    def __init__(self, kind: str, name: str, users: Sequence[str]) -> None:
        self.kind, self.name, self.users = kind, name, tuple(users)
        super().__init__(f"{kind} {name!r} is used by {', '.join(self.users)}; delete or move these first")


class NotAllowed(PushPoolsError):
    """The request is understood, and the thing's state or its owner forbids it."""


class PlatformMissing(PushPoolsError):
    """A pool type exists, but its library is not installed or does not import."""

    def __init__(self, type_: str, problem: str, *, fix: str) -> None:
        self.type, self.problem = type_, problem
        super().__init__(f"pool type {type_!r} cannot be used: {problem}; {fix}")


class HomeInUse(PushPoolsError):
    """Another process serves the home."""

    def __init__(self, home: str, holder: str) -> None:
        self.home, self.holder = home, holder
        who = f"process {holder}" if holder else "another process"
        super().__init__(f"{who} serves the home {home} already; stop it, or set PUSH_POOLS_HOME to another directory")


class NotPublished(PushPoolsError):
    """The bus did not take an event; its chore tries again."""


# -- the ledger ----------------------------------------------------------------


class LedgerError(PushPoolsError):
    """The ledger refuses an operation, or cannot be used."""


class StoreUnavailable(LedgerError):
    """The ledger cannot be reached or written now; nothing was changed that it will not tell of later."""


class StoreCorrupt(LedgerError):
    """The ledger's file is damaged."""


class StoreTooNew(LedgerError):
    """The ledger was written by a newer release than this one."""


class VersionConflict(LedgerError):
    """Somebody else wrote the record since it was read; read it and decide again."""


class ScopeFull(LedgerError):
    """A slot was to be taken, and its scope has none free."""

    def __init__(self, scope: str) -> None:
        self.scope = scope
        super().__init__(f"{scope} has no slot free")


class NotDue(LedgerError):
    """It is too early to claim the run."""

    def __init__(self, due_at: datetime) -> None:
        self.due_at = due_at
        super().__init__(f"not due before {due_at.isoformat()}")


class RunClaimed(LedgerError):
    """Another claim stands until a time."""

    def __init__(self, until: datetime) -> None:
        self.until = until
        super().__init__(f"claimed by another until {until.isoformat()}")


class RunLimited(LedgerError):
    """The run needs a slot before it can be claimed."""


class RunAlreadySubmitted(LedgerError):
    """The run's job is recorded, or the run is over; there is nothing to submit."""


class OutOfTime(LedgerError):
    """The invocation ends too soon to begin something that could not end in time."""


class ClaimLost(LedgerError):
    """The claim was taken over or is too short for another call."""


class CancelRequested(LedgerError):
    """A cancel was written before the intent, and wins."""


# -- the platforms -------------------------------------------------------------


class PlatformError(PushPoolsError):
    """A platform did not do what it was asked.

    `codes` are the platform's own error codes, which `domain.failures` explains.
    """

    def __init__(self, platform: str, reason: str, *, codes: Sequence[str] = ()) -> None:
        self.platform, self.reason, self.codes = platform, reason, tuple(codes)
        super().__init__(f"{platform}: {reason}")


class JobRejected(PlatformError):
    """The platform refused the job and would refuse it again unchanged."""

    def __init__(self, platform: str, reason: str, *, codes: Sequence[str] = (), variable: str | None = None) -> None:
        super().__init__(platform, reason, codes=codes)
        self.variable = variable
        where = f" (job variable {variable!r})" if variable else ""
        self.args = (f"{platform} rejected the job{where}: {reason}",)


class PlatformUnavailable(PlatformError):
    """The platform refused for now, surely without effect (a throttle): the same key again, later.

    `retry_after_seconds` is the platform's own wish, if it gave one.
    """

    def __init__(
        self, platform: str, reason: str, *, codes: Sequence[str] = (), retry_after_seconds: float | None = None
    ) -> None:
        super().__init__(platform, reason, codes=codes)
        self.retry_after_seconds = retry_after_seconds


class Pacing(PlatformUnavailable):
    """The service's own pace says not yet, so that the cloud need not refuse. `free_at` is on the real clock."""

    def __init__(self, platform: str, reason: str, *, free_at: datetime) -> None:
        super().__init__(platform, reason, codes=["Pacing"])
        self.free_at = free_at


class NothingStarted(PlatformError):
    """The platform answered that it started nothing.

    On ECS the answer is bound to the key, so a new launch is needed; elsewhere the same key may be used again.
    """


class SubmissionUncertain(PlatformError):
    """The call may or may not have had an effect: a time-out, a broken connection, a server error."""
