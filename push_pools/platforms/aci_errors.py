"""What Azure refuses, and what the caller does next: the one place where Azure's errors become ours.

By code first ("Troubleshoot common issues in Azure Container Instances", "Common Azure Resource Manager errors"). The
text decides only which job variable an error is about, and whether a quota was ever there.
"""

from __future__ import annotations

import json
import logging
import re
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from push_pools.domain.errors import (
    JobRejected,
    NothingStarted,
    PlatformError,
    PlatformUnavailable,
    PushPoolsError,
    SubmissionUncertain,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

log = logging.getLogger("push_pools")
TYPE: Final = "azure-container-instance:push"


class Next(Enum):
    """What follows from an error of Azure."""

    REJECTED = "it would be refused again"
    LATER = "nothing was done, and a later try may succeed"
    NOTHING = "it was answered that nothing was started"
    UNCERTAIN = "it may have been done"


@dataclass(frozen=True)
class Rule:
    """Errors with one of these codes and this text, and what follows from them."""

    codes: frozenset[str]
    next: Next
    text: str | None = None
    as_code: str | None = None
    """The code that tells more than the one Azure gives; it comes first in `codes` of our error."""
    variable: str | None = None
    statuses: frozenset[int] = frozenset()

    def matches(self, code: str, text: str, status: int) -> bool:
        """Whether the rule is about this error."""
        return (
            code in self.codes
            and (not self.statuses or status in self.statuses)
            and (not self.text or re.search(self.text, text, re.IGNORECASE) is not None)
        )


def _one(*codes: str) -> frozenset[str]:
    return frozenset(codes)


MOVING: Final = "ContainerGroupTransitioning"
TAKEN: Final = _one(MOVING, "PreconditionFailed")
"""Codes of a PUT whose name is there already: whoever asked looks it up."""
THROTTLES: Final = _one(
    "TooManyRequests",
    "SubscriptionRequestsThrottled",
    "ResourceRequestsThrottled",
    "OperationNotAllowedThrottled",
    "RequestsThrottled",
)
_NO_ROOM: Final = "not available in the location|no capacity|insufficient capacity|retry with a different resource"

RULES: Final = (
    Rule(THROTTLES, Next.LATER, as_code="TooManyRequests"),
    Rule(_one(MOVING), Next.LATER),
    Rule(_one("RegistryErrorResponse"), Next.LATER, variable="image"),
    Rule(_one("InaccessibleImage", "ImageNotFound", "InvalidImage", "MissingImage"), Next.REJECTED, variable="image"),
    Rule(
        _one("ContainerGroupQuotaReached", "QuotaExceeded"),
        Next.REJECTED,
        r"limit: '?0(?![\d.])",
        "QuotaZero",
        "location",
    ),
    Rule(_one("ContainerGroupQuotaReached", "QuotaExceeded"), Next.NOTHING, as_code="ContainerGroupQuotaReached"),
    Rule(_one("ServiceUnavailable", "ResourceNotAvailable", "Conflict"), Next.NOTHING, _NO_ROOM, "CapacityUnavailable"),
    Rule(_one("ServiceUnavailable"), Next.NOTHING, as_code="CapacityUnavailable", statuses=frozenset({400, 409})),
    Rule(_one("ExpiredAuthenticationToken"), Next.LATER, as_code="CredentialsExpired"),
    Rule(_one("InvalidAuthenticationToken", "AuthenticationFailed"), Next.LATER, "expired", "CredentialsExpired"),
    Rule(
        _one("InvalidAuthenticationToken", "AuthenticationFailed", "InvalidAuthenticationTokenTenant"),
        Next.REJECTED,
        as_code="BadCredentials",
        variable="aci_credentials",
    ),
    Rule(_one("LinkedAuthorizationFailed"), Next.REJECTED, "userAssignedIdentities", variable="identities"),
    Rule(_one("LinkedAuthorizationFailed"), Next.REJECTED, "subnets", variable="subnet_ids"),
    Rule(
        _one("FailedIdentityOperation", "InvalidIdentity", "LinkedInvalidPropertyId"),
        Next.REJECTED,
        variable="identities",
    ),
    Rule(_one("ResourceGroupNotFound", "InvalidResourceGroup"), Next.REJECTED, variable="resource_group_name"),
    Rule(_one("ResourceGroupBeingDeleted"), Next.REJECTED, variable="resource_group_name"),
    Rule(
        _one("SubscriptionNotFound", "InvalidSubscriptionId", "MissingSubscription", "MissingSubscriptionRegistration"),
        Next.REJECTED,
        variable="subscription_id",
    ),
    Rule(
        _one("LocationNotAvailableForResourceType", "LocationRequired", "InvalidLocation", "NoRegisteredProviderFound"),
        Next.REJECTED,
        as_code="LocationNotAvailable",
        variable="location",
    ),
    Rule(_one("InvalidResourceLocation"), Next.REJECTED, as_code="NameCollision", variable="location"),
    Rule(
        _one("ResourceRequestsInvalid", "ResourceRequestsNotSpecified", "InvalidResourceRequests"),
        Next.REJECTED,
        variable="cpu",
    ),
    Rule(_one("SubnetNotFound", "InvalidSubnet", "NetworkProfileNotFound"), Next.REJECTED, variable="subnet_ids"),
)
"""The first that matches speaks; errors that none matches follow their HTTP status."""

VARIABLES_BY_TEXT: Final = (
    (r"\bsubnet", "subnet_ids"),
    (r"\bdns", "dns_servers"),
    (r"\bgpu", "gpu_sku"),
    (r"\bcpu\b|\bcores?\b", "cpu"),
    (r"\bmemory", "memory"),
    (r"\bidentit(y|ies)\b", "identities"),
    (r"\bregistry", "image_registry"),
    (r"\bimage\b", "image"),
    (r"\blocation\b|\bregion\b", "location"),
    (r"\bcommand\b", "command"),
    (r"\benvironment ?variable", "env"),
    (r"\btags?\b", "labels"),
)
"""What a refusal without a telling code is about; the first that is found."""


def submit_error(error: Exception) -> PlatformError:
    """Return what an error of the PUT means for the submission."""
    return _as_ours(error, uncertain=SubmissionUncertain, nothing=NothingStarted)


def prepare_error(error: Exception) -> PlatformError:
    """Return what an error of a call that starts nothing means: rejected, or not now."""
    return _as_ours(error, uncertain=PlatformUnavailable, nothing=PlatformUnavailable)


def asking_error(error: Exception) -> PlatformUnavailable:
    """Return the error for a question, or a stop, that failed: whatever the reason, it is asked again."""
    ours = prepare_error(error)
    if isinstance(ours, PlatformUnavailable):
        return ours
    return PlatformUnavailable(TYPE, ours.reason, codes=ours.codes)


@contextmanager
def ours_from(translate: Callable[[Exception], PlatformError]) -> Iterator[None]:
    """Let errors of Azure's client leave the block as ours, by one of the functions above; ours pass.

    An answer that is not what the API promises can make the client or its reader fail with any error. It is logged,
    and counts as no answer: one strange answer must not end a sweep.
    """
    try:
        yield
    except PushPoolsError:
        raise
    except Exception as error:
        if not _is_of_azure(error):
            log.exception("aci_unexpected_error")
        # Azure's own error may quote the request; ours tells what is needed of it.
        raise translate(error) from None


def status_of(error: Exception) -> int:
    """Return the HTTP status of an error that was answered; 0 for one that was not."""
    answered = getattr(error, "response", None)
    return int(getattr(answered, "status_code", 0) or 0)


def code_of(error: Exception) -> str:
    """Return Azure's code of an error, the innermost where there are several; empty without one."""
    return _code_and_text(error)[0]


def is_not_found(error: Exception) -> bool:
    """Whether Azure answered that the container group, or all of its resource group, is not there."""
    return status_of(error) == 404 and code_of(error) in ("ResourceNotFound", "ResourceGroupNotFound", "NotFound")


def _code_and_text(error: Exception) -> tuple[str, str]:
    answered = getattr(error, "response", None)
    try:
        told = json.loads(answered.text()) if answered is not None else {}
    except Exception:
        told = {}
    inner = told.get("error", told) if isinstance(told, dict) else {}
    while isinstance(inner, dict) and isinstance(inner.get("details"), list) and inner["details"]:
        following = inner["details"][0]
        if not (isinstance(following, dict) and following.get("code")):
            break
        inner = following
    if not isinstance(inner, dict):
        return "", ""
    return str(inner.get("code") or ""), str(inner.get("message") or "")


def _is_of_azure(error: Exception) -> bool:
    from azure.core.exceptions import AzureError

    return isinstance(error, AzureError)


def _as_ours(error: Exception, *, uncertain: type[PlatformError], nothing: type[PlatformError]) -> PlatformError:
    status = status_of(error)
    if status >= 400:
        return _answered(error, status, uncertain, nothing)
    return _unanswered(error, uncertain)


def _answered(
    error: Exception, status: int, uncertain: type[PlatformError], nothing: type[PlatformError]
) -> PlatformError:
    code, text = _code_and_text(error)
    text = text or f"HTTP {status} without a reason"
    rule = next((rule for rule in RULES if rule.matches(code, text, status)), None)
    # Of a code that is not known the status still tells what kind of trouble it is.
    named = (rule.as_code, code) if rule else (code, f"Http{status}")
    codes = list(dict.fromkeys(each for each in named if each))
    match rule.next if rule else _by_status(status):
        case Next.LATER:
            return PlatformUnavailable(TYPE, text, codes=codes, retry_after_seconds=_wish(error))
        case Next.NOTHING:
            return nothing(TYPE, text, codes=codes)
        case Next.REJECTED:
            variable = rule.variable if rule else None
            return JobRejected(TYPE, text, codes=codes, variable=variable or _variable_in(text, status))
        case _:
            return uncertain(TYPE, text, codes=codes)


def _variable_in(text: str, status: int) -> str | None:
    if status != 400:
        return None
    return next((name for pattern, name in VARIABLES_BY_TEXT if re.search(pattern, text, re.IGNORECASE)), None)


def _by_status(status: int) -> Next:
    if status == 429:
        return Next.LATER
    # A conflict that is not known may well be with an earlier call of ours.
    return Next.REJECTED if 400 <= status < 500 and status not in (408, 409) else Next.UNCERTAIN


def _wish(error: Exception) -> float | None:
    answered: Any = getattr(error, "response", None)
    text = str(answered.headers.get("Retry-After", "")) if answered is not None else ""
    return float(text) if text.isdigit() else None


def _unanswered(error: Exception, uncertain: type[PlatformError]) -> PlatformError:
    """Return the error for a call without an answer of Azure.

    `ServiceRequestError` says that nothing was sent, and is raised for broken TLS connections as well, where that is
    not sure; so only a connection that was never made counts.
    """
    name = type(error).__name__
    if _never_connected(error):
        return PlatformUnavailable(TYPE, "Azure could not be reached", codes=["ConnectFailed", name])
    if name in ("SerializationError", "ValidationError"):
        return JobRejected(TYPE, "the job cannot be written as a request", codes=["NotPrepared", name])
    reason = "the connection broke" if _is_of_azure(error) else "the answer could not be read"
    return uncertain(TYPE, f"{reason} ({name})", codes=["NoAnswer", name])


_NEVER: Final = frozenset({"NewConnectionError", "NameResolutionError", "ConnectTimeoutError", "ConnectTimeout"})


def _never_connected(error: Exception) -> bool:
    """Whether the innermost reason is that no connection was made."""
    seen: list[object] = []
    todo: list[object] = [error]
    while todo:
        each = todo.pop()
        if each is None or any(each is other for other in seen):
            continue
        seen.append(each)
        if type(each).__name__ in _NEVER:
            return True
        if isinstance(each, BaseException):
            inner = (getattr(each, name, None) for name in ("inner_exception", "reason", "__cause__"))
            todo += [*inner, *(arg for arg in each.args if isinstance(arg, BaseException))]
    return False
