"""What ECS refuses, and what the caller does next: the one place where AWS's errors become ours.

By code first. Only where ECS hides several things behind one code, the text decides: throttles of EC2 inside
InvalidParameterException, and ClientException for everything else (`docs/design.md`, "Platforms").
"""

from __future__ import annotations

import logging
import re
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from push_pools.credentials.aws_errors import credentials_error
from push_pools.domain.errors import (
    JobRejected,
    NothingStarted,
    PlatformError,
    PlatformUnavailable,
    PushPoolsError,
    SubmissionUncertain,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

log = logging.getLogger("push_pools")
TYPE: Final = "ecs:push"


class Next(Enum):
    """What follows from an error of AWS."""

    REJECTED = "it would be refused again"
    LATER = "nothing was done, and a later try may succeed"
    UNCERTAIN = "it may have been done"


@dataclass(frozen=True)
class Rule:
    """Errors with one of these codes and this text, and what follows from them."""

    codes: frozenset[str]
    next: Next
    text: str | None = None
    as_code: str | None = None
    """The code that tells more than the one AWS gives; it comes first in `codes` of our error."""
    variable: str | None = None

    def matches(self, code: str, text: str) -> bool:
        """Whether the rule is about this error."""
        # Compiled, and kept by `re`, when first needed: most processes see no refusal.
        return code in self.codes and (self.text is None or re.search(self.text, text, re.IGNORECASE) is not None)


THROTTLES: Final = frozenset(
    {
        "Throttling",
        "ThrottlingException",
        "ThrottledException",
        "RequestThrottled",
        "RequestThrottledException",
        "RequestLimitExceeded",
        "TooManyRequestsException",
        "BandwidthLimitExceeded",
        "PriorRequestNotComplete",
        "SlowDown",
    }
)
_VAGUE: Final = frozenset({"ClientException", "InvalidParameterException", "InvalidParameter", "ValidationException"})
_SERVER: Final = frozenset(
    {"ServerException", "InternalFailure", "InternalError", "ServiceUnavailable", "ServiceUnavailableException"}
)
_DENIED: Final = frozenset(
    {"AccessDeniedException", "AccessDenied", "UnauthorizedException", "UnauthorizedOperation", "BlockedException"}
)


# RunTask asks EC2 about subnets and security groups, and hands EC2's code on as `(ErrorCode: …)` behind its text.
_THROTTLED_INSIDE: Final = r"rate exceeded|request ?limit ?exceeded|\bthrottling\b"
_FAILED_INSIDE: Final = r"errorcode: (internal(error|failure)|unavailable|serviceunavailable)\b"
_QUOTA: Final = "limit|quota|exceed"
_COUNTED: Final = "provisioning state|vcpus?|concurrently"
_QUOTA_REACHED: Final = rf"({_QUOTA}).*({_COUNTED})|({_COUNTED}).*({_QUOTA})|above your limit"


def _one(*codes: str) -> frozenset[str]:
    return frozenset(codes)


RULES: Final = (
    Rule(THROTTLES, Next.LATER, as_code="ThrottlingException"),
    Rule(_VAGUE, Next.LATER, _THROTTLED_INSIDE, "ThrottlingException"),
    Rule(_VAGUE, Next.LATER, _FAILED_INSIDE, "ServiceUnavailable"),
    Rule(_VAGUE, Next.LATER, r"too many concurrent attempts", "ConcurrentRevisions"),
    Rule(_VAGUE, Next.LATER, _QUOTA_REACHED, "QuotaReached"),
    Rule(_one("LimitExceededException"), Next.LATER),
    Rule(_VAGUE, Next.LATER, r"no container instances were found", "NoContainerInstances"),
    Rule(_VAGUE, Next.LATER, r"capacity is unavailable", "CapacityUnavailable"),
    Rule(_DENIED, Next.REJECTED),
    Rule(_one("ClusterNotFoundException"), Next.REJECTED, variable="cluster"),
    Rule(_VAGUE, Next.REJECTED, r"cluster (was|is) inactive|cluster not found", "ClusterInactive", "cluster"),
    Rule(_VAGUE, Next.REJECTED, r"task ?definition is inactive", "TaskDefinitionInactive", "task_definition_arn"),
    Rule(
        _VAGUE,
        Next.REJECTED,
        r"task ?definition (was )?not found|unable to describe task definition|identifier is for",
        "TaskDefinitionNotFound",
        "task_definition_arn",
    ),
    Rule(_VAGUE, Next.REJECTED, r"overrides? length|8192", variable="env"),
    Rule(_VAGUE, Next.REJECTED, r"override for container|container named", variable="container_name"),
    Rule(_VAGUE, Next.REJECTED, r"no fargate configuration|'cpu'|'memory'", variable="cpu"),
    Rule(_VAGUE, Next.REJECTED, r"execution role", variable="execution_role_arn"),
    Rule(_VAGUE, Next.REJECTED, r"assume the role|task ?role", variable="task_role_arn"),
    Rule(_VAGUE, Next.REJECTED, r"capacity ?provider", variable="capacity_provider_strategy"),
    Rule(_VAGUE, Next.REJECTED, r"subnet|security ?group|network ?configuration", variable="network_configuration"),
    Rule(_VAGUE, Next.REJECTED, r"launch[ _]?type", variable="launch_type"),
    Rule(_VAGUE, Next.REJECTED, r"container\.image|\bimage\b", variable="image"),
    Rule(_VAGUE, Next.REJECTED, r"\bfamily\b", variable="family"),
    Rule(_VAGUE, Next.REJECTED, r"\btags?\b", variable="labels"),
    Rule(_SERVER, Next.UNCERTAIN),
    Rule(_one("RequestTimeout", "RequestTimeoutException"), Next.UNCERTAIN, as_code="NoAnswer"),
)
"""The first that matches speaks; errors that none matches follow their HTTP status."""

_VALUE = re.compile(r"value: .*?(, type: |$)", re.DOTALL)


def submit_error(error: Exception) -> PlatformError:
    """Return what an error of RunTask means for the submission."""
    return _as_ours(error, uncertain=SubmissionUncertain)


def prepare_error(error: Exception) -> PlatformError:
    """Return what an error of a call that starts nothing means: rejected, or not now."""
    return _as_ours(error, uncertain=PlatformUnavailable)


def asking_error(error: Exception) -> PlatformUnavailable:
    """Return the error for a question, or a stop, that failed: whatever the reason, it is asked again."""
    ours = prepare_error(error)
    if isinstance(ours, PlatformUnavailable):
        return ours
    return PlatformUnavailable(TYPE, ours.reason, codes=ours.codes)


@contextmanager
def ours_from(translate: Any) -> Iterator[None]:
    """Let errors of boto3 leave the block as ours, by one of the functions above; ours pass.

    An answer that is not what the API promises can make boto3 or its reader fail with any error. It is logged, and
    counts as no answer: one strange answer must not end a sweep.
    """
    try:
        yield
    except PushPoolsError:
        raise
    except Exception as error:
        if not _is_of_aws(error):
            log.exception("ecs_unexpected_error")
        # AWS's own error may quote the request; ours tells what is needed of it.
        raise translate(error) from None


def nothing_started(failures: list[Mapping[str, Any]]) -> NothingStarted:
    """Return the error for an answer of RunTask that holds only `failures`.

    Also for a lack of capacity that will last: such an answer has been wrong (a task ran all the same), so the
    caller looks for a task before it concludes anything.
    """
    first = failures[0] if failures else {}
    reason = str(first.get("reason") or "ECS keeps only the number of failures of an old request")
    detail = first.get("detail")
    return NothingStarted(TYPE, f"{reason}: {detail}" if detail else reason, codes=[_failure_code(reason)])


def _failure_code(reason: str) -> str:
    if re.fullmatch(r"[A-Z][A-Z_:]+", reason):
        return reason
    if re.search(_QUOTA_REACHED, reason, re.IGNORECASE):
        return "QuotaReached"
    return "CapacityUnavailable" if re.search(r"capacity", reason, re.IGNORECASE) else "RunTaskFailure"


def error_code(error: Exception) -> str:
    """Return AWS's code of an error; empty for one that is not an answer of AWS."""
    return str(_answer_of(error).get("Error", {}).get("Code", ""))


def error_text(error: Exception) -> str:
    """Return AWS's message of an error."""
    return str(_answer_of(error).get("Error", {}).get("Message", ""))


def naming_role(error: JobRejected, roles: Mapping[str, object]) -> JobRejected:
    """Return the error with the variable whose role it is about; AWS names roles by their ARN. `roles` is by variable.

    A role that is in both variables is named by the first.
    """
    named = next((variable for variable, arn in roles.items() if arn and str(arn) in error.reason), None)
    return JobRejected(TYPE, error.reason, codes=error.codes, variable=named) if named else error


def resource_ids(error: Exception) -> list[str]:
    """Return the ARNs of the tasks that a ConflictException says its clientToken has started."""
    return [str(arn) for arn in _answer_of(error).get("resourceIds") or ()]


def _answer_of(error: Exception) -> dict[str, Any]:
    # Errors without an answer have the attribute too, and it is None.
    answer = getattr(error, "response", None)
    return answer if isinstance(answer, dict) else {}


def _is_of_aws(error: Exception) -> bool:
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError

    return isinstance(error, ClientError | BotoCoreError | ResponseParserError)


def _as_ours(error: Exception, *, uncertain: type[PlatformError]) -> PlatformError:
    known = credentials_error(error, TYPE)
    if known is not None:
        return known
    if error_code(error):
        return _answered(error, uncertain)
    return _unanswered(error, uncertain)


def _answered(error: Exception, uncertain: type[PlatformError]) -> PlatformError:
    code, text = error_code(error), error_text(error) or error_code(error)
    rule = next((rule for rule in RULES if rule.matches(code, text)), None)
    codes = [code] if rule is None or rule.as_code in (None, code) else [str(rule.as_code), code]
    match rule.next if rule else _by_status(error):
        case Next.LATER:
            return PlatformUnavailable(TYPE, text, codes=codes, retry_after_seconds=_wish(error))
        case Next.REJECTED:
            return JobRejected(TYPE, text, codes=codes, variable=rule.variable if rule else None)
        case _:
            return uncertain(TYPE, text, codes=codes)


def _by_status(error: Exception) -> Next:
    status = _answer_of(error).get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if status == 429:
        return Next.LATER
    return Next.REJECTED if 400 <= status < 500 and status != 408 else Next.UNCERTAIN


def _wish(error: Exception) -> float | None:
    headers = _answer_of(error).get("ResponseMetadata", {}).get("HTTPHeaders", {})
    text = str(headers.get("retry-after", ""))
    return float(text) if text.isdigit() else None


def _unanswered(error: Exception, uncertain: type[PlatformError]) -> PlatformError:
    """Return the error for a call without an answer of AWS.

    With library retries off there was one request. If the connection was never made, nothing was sent; after
    that the request may have arrived (a TLS error, too, can come while the answer is read).
    """
    from botocore import exceptions as boto

    name = type(error).__name__
    match error:
        case boto.ParamValidationError():
            text = _VALUE.sub("value: (not shown)\\1", str(error))
            return JobRejected(TYPE, text, codes=["ParamValidation", name])
        case boto.ConnectTimeoutError() | boto.EndpointConnectionError() | boto.ProxyConnectionError():
            return PlatformUnavailable(TYPE, str(error), codes=["ConnectFailed", name])
        case (
            boto.InvalidEndpointDiscoveryConfigurationError() | boto.InvalidRegionError() | boto.UnknownEndpointError()
        ):
            return JobRejected(TYPE, str(error), codes=["NoRegion", name])
    text = str(error) if _is_of_aws(error) else f"the answer could not be read ({name})"
    return uncertain(TYPE, text, codes=["NoAnswer", name])
