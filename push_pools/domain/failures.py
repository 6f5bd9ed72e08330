"""Why a job failed, in words: a total table from what a platform says to a class, a cause and a suggestion.

The first row that matches speaks. Rows about what happened come before rows about an exit code, which says
little once the platform has stopped a job (`docs/design.md`, "Failures").
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from push_pools.domain.errors import JobRejected, PlatformError
from push_pools.domain.failure_rows import FIRST_ROWS, GENERIC_ROWS, MISSING, PROCESS_ROWS, UNKNOWN, Facts, Row
from push_pools.domain.failures_aci import ACI_ROWS
from push_pools.domain.failures_cloud_run import CLOUD_RUN_LAST_ROWS, CLOUD_RUN_ROWS
from push_pools.domain.failures_ecs import ECS_ROWS
from push_pools.domain.states import Failure, FailureClass, JobStatus

if TYPE_CHECKING:
    from collections.abc import Sequence

    from push_pools.domain.states import Observation

ROWS: Final[tuple[Row, ...]] = (
    *FIRST_ROWS,
    *PROCESS_ROWS,
    *ECS_ROWS,
    *CLOUD_RUN_ROWS,
    *ACI_ROWS,
    *GENERIC_ROWS,
    *CLOUD_RUN_LAST_ROWS,
    *UNKNOWN,
)
LONGEST_REASON: Final = 500

_NAMED = re.compile(r"\b[A-Z][A-Za-z0-9]+(?:Error|Exception)\b")


def explain(
    platform: str,
    *,
    codes: Sequence[str] = (),
    reason: str = "",
    exit_code: int | None = None,
    signal: int | None = None,
) -> Failure:
    """Return the failure that these facts mean. Total: unknown facts are a failure of class `platform`.

    `platform` is a pool type, such as `ecs:push`. Error names inside `reason`, such as
    `CannotPullContainerError`, count as codes.
    """
    facts = Facts(platform, frozenset(filter(None, (*codes, *_NAMED.findall(reason)))), reason, exit_code, signal)
    return _failure(_row(facts), facts, codes)


def explain_error(error: PlatformError) -> Failure:
    """Return the failure that a platform's refusal means. What would be refused again is not tried again."""
    failure = explain(error.platform, codes=error.codes, reason=error.reason)
    if not isinstance(error, JobRejected):
        return failure
    where = f"job variable {error.variable!r}: " if error.variable else ""
    return failure.model_copy(update={"cause": where + failure.cause, "retry": False} | _if_unknown(failure))


def _if_unknown(failure: Failure) -> dict[str, object]:
    if failure.failure_class is not FailureClass.PLATFORM:
        return {}
    return {"suggestion": "correct the job variables or the pool's template, and run again: `flow-run retry`"}


def explain_observation(platform: str, seen: Observation) -> Failure:
    """Return the failure that the end of a job means. A job that is gone is `lost`."""
    codes = (MISSING, *seen.codes) if seen.status is JobStatus.GONE else seen.codes
    return explain(platform, codes=codes, reason=seen.reason, exit_code=seen.exit_code, signal=seen.signal)


def row_of(
    platform: str,
    *,
    codes: Sequence[str] = (),
    reason: str = "",
    exit_code: int | None = None,
    signal: int | None = None,
) -> Row:
    """Return the row of the table that speaks for these facts."""
    named = frozenset(filter(None, (*codes, *_NAMED.findall(reason))))
    return _row(Facts(platform, named, reason, exit_code, signal))


def _row(facts: Facts) -> Row:
    return next(row for row in ROWS if row.matches(facts))


def _failure(row: Row, facts: Facts, codes: Sequence[str]) -> Failure:
    reason = facts.reason if len(facts.reason) <= LONGEST_REASON else facts.reason[: LONGEST_REASON - 1] + "…"
    code = next(iter(codes), "") or row.code_in(facts) or ""
    words = {
        "{exit_code}": str(facts.exit_code),
        "{signal}": str(facts.signal),
        "{code}": code,
        "{reason}": reason or code,
    }
    cause = re.sub(r"\{\w+\}", lambda found: words[found[0]], row.cause)
    return Failure(
        failure_class=row.failure_class,
        cause=cause,
        suggestion=row.suggestion,
        retry=row.is_retried,
        exit_code=facts.exit_code,
        signal=facts.signal,
    )
