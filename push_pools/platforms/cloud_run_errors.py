"""What Cloud Run refuses, and what the caller does next: the one place where Google's errors become ours.

By status first, by the library's class and not by the HTTP code: ALREADY_EXISTS and ABORTED are both a 409. Only
where a status hides several things the text decides what is said of it, never what is done next.
"""

from __future__ import annotations

import logging
import re
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from push_pools.credentials.gcp_errors import credentials_error
from push_pools.domain.errors import (
    JobRejected,
    PlatformError,
    PlatformUnavailable,
    PushPoolsError,
    SubmissionUncertain,
)
from push_pools.platforms.cloud_run_request import TYPE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

log = logging.getLogger("push_pools")

LATER: Final = frozenset({"RESOURCE_EXHAUSTED", "UNAUTHENTICATED"})
"""Statuses of calls that were refused before anything was done, and may be taken later."""
REJECTED: Final = frozenset(
    {"INVALID_ARGUMENT", "FAILED_PRECONDITION", "PERMISSION_DENIED", "NOT_FOUND", "OUT_OF_RANGE", "UNIMPLEMENTED"}
)
"""Statuses of calls that would be refused again. All others may have had an effect."""
_NOT_CONNECTED: Final = re.compile(
    r"failed to connect to all addresses|(dns|name) resolution|no address|resolver", re.IGNORECASE
)
"""How gRPC says that it had no connection on which it could have sent anything."""


@dataclass(frozen=True)
class Naming:
    """Errors of one of these statuses with this text, and the code and job variable that they are about."""

    statuses: frozenset[str]
    text: str
    as_code: str | None = None
    variable: str | None = None

    def matches(self, status: str, text: str) -> bool:
        """Whether it is about this error."""
        return status in self.statuses and re.search(self.text, text, re.IGNORECASE) is not None


def _one(*statuses: str) -> frozenset[str]:
    return frozenset(statuses)


_DENIED: Final = _one("PERMISSION_DENIED", "NOT_FOUND", "FAILED_PRECONDITION")
_BAD: Final = _one("INVALID_ARGUMENT", "FAILED_PRECONDITION", "OUT_OF_RANGE")
NAMINGS: Final = (
    Naming(_one("RESOURCE_EXHAUSTED"), r"write requests", "WriteQuota"),
    Naming(_one("RESOURCE_EXHAUSTED"), r"(count|number) of jobs|jobs per (project|region)", "JobsQuota"),
    Naming(_one("RESOURCE_EXHAUSTED"), r"capacity", "CapacityUnavailable"),
    Naming(_one("UNAUTHENTICATED"), r"", "CredentialsExpired"),
    Naming(_DENIED, r"has not been used in project|is disabled|SERVICE_DISABLED", "ApiDisabled"),
    Naming(_DENIED, r"billing", "BillingDisabled"),
    Naming(_DENIED, r"actAs|service ?account", "ServiceAccountDenied", "service_account_name"),
    Naming(_DENIED, r"locations/[a-z0-9-]+'|\blocation\b.*(not found|invalid)", "RegionUnknown", "region"),
    Naming(_BAD, r"\blocation\b|\bregion\b", "RegionUnknown", "region"),
    Naming(_BAD, r"service ?account", None, "service_account_name"),
    Naming(_BAD, r"\bquota\b|exceed.*limit", "QuotaTooSmall"),
    Naming(_BAD, r"timeout", None, "timeout"),
    Naming(_BAD, r"max_retries|maxRetries", None, "max_retries"),
    Naming(_BAD, r"\bimage\b", None, "image"),
    Naming(_BAD, r"memory", None, "memory"),
    Naming(_BAD, r"\bcpu\b", None, "cpu"),
    Naming(_BAD, r"vpc|connector|network", None, "vpc_connector_name"),
    Naming(_BAD, r"secret", None, "env_from_secrets"),
    Naming(_BAD, r"launch.?stage", None, "launch_stage"),
    Naming(_BAD, r"labels?\b", None, "labels"),
    Naming(_BAD, r"\benv\b|environment variable", None, "env"),
)
"""The first that matches speaks."""


def submit_error(error: Exception) -> PlatformError:
    """Return what an error of CreateJob means for the submission."""
    return _as_ours(error, uncertain=SubmissionUncertain)


def prepare_error(error: Exception) -> PlatformError:
    """Return what an error of something that starts nothing means: rejected, or not now."""
    return _as_ours(error, uncertain=PlatformUnavailable)


def asking_error(error: Exception) -> PlatformUnavailable:
    """Return the error for a question, or a stop, that failed: whatever the reason, it is asked again."""
    ours = prepare_error(error)
    if isinstance(ours, PlatformUnavailable):
        return ours
    return PlatformUnavailable(TYPE, ours.reason, codes=ours.codes)


@contextmanager
def ours_from(translate: Callable[[Exception], PlatformError]) -> Iterator[None]:
    """Let errors of Google's libraries leave the block as ours, by one of the functions above; ours pass.

    An answer that is not what the API promises can make a library fail with any error. It is logged, and counts as
    no answer: one strange answer must not end a sweep.
    """
    try:
        yield
    except PushPoolsError:
        raise
    except Exception as error:
        if not _is_known(error):
            log.exception("cloud_run_unexpected_error")
        raise translate(error) from None


def status_of(error: Exception) -> str:
    """Return the name of the gRPC status of an error of the API; empty for one that is not an answer."""
    code = getattr(error, "grpc_status_code", None)
    return str(code.name) if code is not None else ""


def is_status(error: Exception, *names: str) -> bool:
    """Whether the API answered with one of these statuses."""
    return status_of(error) in names


def _is_known(error: Exception) -> bool:
    from google.api_core.exceptions import GoogleAPIError
    from google.auth.exceptions import GoogleAuthError

    return isinstance(error, GoogleAPIError | GoogleAuthError | OSError)


def _as_ours(error: Exception, *, uncertain: type[PlatformError]) -> PlatformError:
    known = credentials_error(error, TYPE)
    if known is not None:
        return known
    status, text = status_of(error), _text(error)
    naming = next((each for each in NAMINGS if each.matches(status, text)), None)
    codes = [code for code in (naming.as_code if naming else None, status) if code]
    if status in LATER:
        return PlatformUnavailable(TYPE, text, codes=codes)
    if status in REJECTED:
        return JobRejected(TYPE, text, codes=codes, variable=naming.variable if naming else None)
    if status == "UNAVAILABLE" and _NOT_CONNECTED.search(text):
        return PlatformUnavailable(TYPE, text, codes=["ConnectFailed"])
    if status in ("DEADLINE_EXCEEDED", "CANCELLED", ""):
        name = type(error).__name__
        text = text if _is_known(error) else f"the answer could not be read ({name})"
        return uncertain(TYPE, text, codes=["NoAnswer", status or name])
    return uncertain(TYPE, text, codes=codes)


def _text(error: Exception) -> str:
    message: Any = getattr(error, "message", None)
    return str(message or error) or type(error).__name__
