"""The form of a row of the table of failures, and the rows that hold on every platform."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from push_pools.domain.states import FailureClass

if TYPE_CHECKING:
    from collections.abc import Collection

RETRIED: Final = frozenset(
    {
        FailureClass.KILLED,
        FailureClass.CAPACITY,
        FailureClass.QUOTA,
        FailureClass.SPOT,
        FailureClass.START_TIMEOUT,
        FailureClass.NETWORK,
        FailureClass.PLATFORM,
    }
)
"""Classes that the default policy tries again; `image` only where its row says so."""

MISSING: Final = "MISSING"
"""The code of a job that its platform does not know any more; the word is that of ECS."""


@dataclass(frozen=True)
class Facts:
    """What is known of one failure."""

    platform: str
    codes: frozenset[str]
    reason: str
    exit_code: int | None
    signal: int | None


@dataclass(frozen=True)
class Row:
    """One kind of failure: what it is known by, and what is said of it. Every matcher that is given must match."""

    name: str
    failure_class: FailureClass
    cause: str
    """In words; `{exit_code}`, `{signal}`, `{code}` and `{reason}` are filled in."""
    suggestion: str
    platform: str | None = None
    codes: Collection[str] = ()
    """Any of them; a code that ends with `*` stands for all that begin so."""
    reason: str | None = None
    """A regular expression, found anywhere, without regard to case."""
    exit_codes: Collection[int] = ()
    signals: Collection[int] = ()
    has_exit_code: bool | None = None
    retry: bool | None = None
    """Whether the default policy tries again; by default the class says so."""

    @property
    def is_retried(self) -> bool:
        """Whether the default policy tries a failure of this kind again."""
        return self.failure_class in RETRIED if self.retry is None else self.retry

    def matches(self, facts: Facts) -> bool:
        """Whether the row is about these facts."""
        return (
            (self.platform is None or self.platform == facts.platform)
            and (not self.codes or self.code_in(facts) is not None)
            # Compiled, and kept by `re`, when first needed: most processes see no failure.
            and (self.reason is None or re.search(self.reason, facts.reason, re.IGNORECASE) is not None)
            and (not self.exit_codes or facts.exit_code in self.exit_codes)
            and (not self.signals or facts.signal in self.signals)
            and (self.has_exit_code is None or self.has_exit_code == (facts.exit_code is not None))
        )

    def code_in(self, facts: Facts) -> str | None:
        """Return the code of these facts that the row knows, if any."""
        return next((code for code in sorted(facts.codes) if any(_is(code, known) for known in self.codes)), None)


def _is(code: str, known: str) -> bool:
    return code.startswith(known[:-1]) if known.endswith("*") else code == known


_MEMORY = "give the job more memory (`memory`), or make it need less"
_KILLED = "if it happens again, look at its memory, and for who or what stops jobs at the platform"

FIRST_ROWS: Final = (
    Row(
        "missing",
        FailureClass.LOST,
        "the platform does not know the job any more, and its end was not seen",
        "look at the platform and in the job's log; add `lost` to `retries.on` if a second try is harmless",
        codes={MISSING, "gone"},
    ),
    Row(
        "platform-missing",
        FailureClass.CONFIGURATION,
        "the pool's platform cannot be used here: {reason}",
        "install its extra where jobs are submitted",
        codes={"PlatformMissing"},
    ),
)
"""Rows that come before those of a platform."""

_LOCAL = "process"
PROCESS_ROWS: Final = (
    Row(
        "process/wrapper-died",
        FailureClass.KILLED,
        "the job was killed, or its machine restarted: {reason}",
        "it is tried again; look for who or what kills processes there, such as a lack of memory",
        platform=_LOCAL,
        codes={"wrapper-died"},
    ),
    Row(
        "process/no-room",
        FailureClass.CAPACITY,
        "this machine has no room for the job now: {reason}",
        "it is tried again; give the pool a concurrency limit",
        platform=_LOCAL,
        codes={"EAGAIN", "ENOMEM", "EMFILE", "ENFILE", "ENOSPC", "EDQUOT"},
    ),
    Row(
        "process/not-allowed",
        FailureClass.PERMISSION,
        "this machine does not allow it: {reason}",
        "make the home directory writable for the user of the service",
        platform=_LOCAL,
        codes={"EACCES", "EPERM", "EROFS"},
    ),
)
"""What local processes meet; their exit codes and signals are the generic rows."""

GENERIC_ROWS: Final = (
    Row(
        "ledger",
        FailureClass.PLATFORM,
        "the service's ledger could not be used: {reason}",
        "it is tried again; `push-pools doctor` tells what is wrong with the service",
        codes={"LedgerUnavailable"},
    ),
    Row(
        "too-slow",
        FailureClass.PLATFORM,
        "what has to be asked before the call took too long, so it was not made: {reason}",
        "it is tried again; where it happens often, look at the network, and at the memory that the function has",
        codes={"TooSlow"},
    ),
    Row(
        "no-credentials",
        FailureClass.PERMISSION,
        "there are no credentials for the platform: {reason}",
        "give the pool a credentials block, or the service a role",
        codes={"NoCredentials"},
    ),
    Row(
        "credentials-expired",
        FailureClass.PERMISSION,
        "the credentials have expired: {reason}",
        "renew them in the credentials block, or use a role",
        codes={"CredentialsExpired"},
    ),
    Row(
        "connection",
        FailureClass.NETWORK,
        "the platform could not be reached: {reason}",
        "look at the network, the endpoint and the region; it is tried again",
        codes={"ConnectFailed"},
    ),
    Row(
        "no-answer",
        FailureClass.NETWORK,
        "the platform's answer did not arrive: {reason}",
        "look at the network; what became of the call is looked up",
        codes={"NoAnswer"},
    ),
    Row(
        "out-of-memory",
        FailureClass.OOM,
        "the job ran out of memory",
        _MEMORY,
        reason=r"\bout ?of ?memory|\boom[- ]?kill",
    ),
    Row(
        "not-executable",
        FailureClass.EXIT,
        "the command could not be run (exit code 126)",
        "make it executable, and of the processor architecture that the job runs on",
        exit_codes={126},
    ),
    Row(
        "command-not-found",
        FailureClass.EXIT,
        "the command was not found (exit code 127)",
        "correct `command`: it has to exist where the job runs, with every program that it calls",
        exit_codes={127},
    ),
    Row(
        "killed-exit-code",
        FailureClass.KILLED,
        "the job was killed from outside (exit code {exit_code})",
        _KILLED,
        exit_codes={137, 143},
    ),
    Row(
        "segmentation-fault-exit-code",
        FailureClass.KILLED,
        "the system killed the job for a segmentation fault (exit code 139)",
        "look for a fault in a native library, or a wrong processor architecture",
        exit_codes={139},
    ),
    Row(
        "killed",
        FailureClass.KILLED,
        "the job was killed from outside (signal {signal})",
        _KILLED,
        signals={1, 2, 3, 9, 15},
    ),
    Row(
        "segmentation-fault",
        FailureClass.KILLED,
        "the system killed the job for a segmentation fault (signal {signal})",
        "look for a fault in a native library",
        signals={7, 11},
    ),
    Row(
        "time-limit",
        FailureClass.TIMEOUT,
        "the job used up a time limit of its system (signal 24)",
        "raise the limit, or make the job shorter",
        signals={24},
    ),
    Row(
        "other-signal",
        FailureClass.EXIT,
        "the job ended itself by signal {signal}",
        "look in the job's log",
        signals=frozenset(range(1, 65)),
    ),
    Row(
        "exit",
        FailureClass.EXIT,
        "the command ended with exit code {exit_code}",
        "look in the job's log",
        exit_codes=frozenset(range(1, 256)),
    ),
)
"""Rows that come after those of a platform."""

UNKNOWN: Final = (
    Row(
        "unknown-code",
        FailureClass.PLATFORM,
        "the platform says {code}: {reason}",
        "look at the platform; it is tried again",
        codes={"*"},
    ),
    Row(
        "unknown-reason",
        FailureClass.PLATFORM,
        "the platform says: {reason}",
        "look at the platform; it is tried again",
        reason=r"\S",
    ),
    Row(
        "no-exit-code",
        FailureClass.PLATFORM,
        "the job ended without an exit code",
        "look at the platform; it is tried again",
        has_exit_code=False,
    ),
    Row(
        "strange-exit-code",
        FailureClass.PLATFORM,
        "the platform calls the job failed, with exit code {exit_code}",
        "look at the platform; it is tried again",
    ),
)
"""What is said of everything else; the last row matches anything."""
