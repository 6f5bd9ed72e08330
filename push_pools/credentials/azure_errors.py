"""What goes wrong while a token for Azure is fetched, and what the caller does next. Nothing was asked with it yet."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from push_pools.domain.errors import JobRejected, PlatformError, PlatformUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

VARIABLE: Final = "aci_credentials"
FOR_NOW: Final = frozenset(
    {
        "AADSTS90033",
        "AADSTS50196",
        "AADSTS90006",
        "AADSTS90007",
        "AADSTS90024",
        "AADSTS90055",
        "AADSTS700024",
    }
)
"""Codes of Entra ID that the next try may not meet ("Microsoft Entra authentication and authorization error codes")."""
MEANINGS: Final[Mapping[str, str]] = {
    "AADSTS7000215": "BadClientSecret",
    "AADSTS7000222": "ClientSecretExpired",
    "AADSTS700016": "ClientNotFound",
    "AADSTS90002": "TenantNotFound",
    "AADSTS900023": "TenantNotFound",
    "AADSTS70021": "FederationNotTrusted",
    "AADSTS700211": "FederationNotTrusted",
    "AADSTS700212": "FederationNotTrusted",
    "AADSTS700213": "FederationNotTrusted",
}
"""Codes of Entra ID → the code by which `domain.failures` explains them."""
_AADSTS: Final = re.compile(r"AADSTS\d+")
_REFUSED_BY_AWS: Final = frozenset({"AccessDenied", "AccessDeniedException"})


def token_error(error: Exception, platform: str) -> PlatformError:
    """Return our error for a token that could not be had."""
    text = _first_sentence(error)
    if isinstance(error, ValueError | TypeError):
        return JobRejected(
            platform, f"the credentials are malformed: {text}", codes=["BadCredentials"], variable=VARIABLE
        )
    if (code := _aws_code(error)) is not None:
        return _aws_error(error, code, platform)
    name = type(error).__name__
    if name == "CredentialUnavailableError":
        return PlatformUnavailable(platform, f"no managed identity is here: {text}", codes=["NoCredentials", name])
    found = _AADSTS.search(str(error))
    if found is None:
        return PlatformUnavailable(platform, f"no token now: {text}", codes=["NoCredentials", name])
    code = found[0]
    if code in FOR_NOW or _is_outage(error):
        return PlatformUnavailable(platform, text, codes=["NoCredentials", code])
    return JobRejected(platform, text, codes=[MEANINGS.get(code, "BadCredentials"), code], variable=VARIABLE)


def _is_outage(error: Exception) -> bool:
    """Whether the status of the answer, where azure-identity keeps it, says that the code means nothing lasting."""
    status = int(getattr(getattr(error, "response", None), "status_code", 0) or 0)
    return status == 429 or status >= 500


def _aws_error(error: Exception, code: str, platform: str) -> PlatformError:
    text = _first_sentence(error)
    if "FederationDisabled" in code:
        return JobRejected(platform, text, codes=["FederationDisabled", code], variable=VARIABLE)
    if code in _REFUSED_BY_AWS:
        return JobRejected(platform, text, codes=["AssertionDenied", code], variable=VARIABLE)
    return PlatformUnavailable(platform, f"no token of AWS now: {text}", codes=["NoCredentials", code])


def _aws_code(error: Exception) -> str | None:
    """Return AWS's code of an error of boto3; `None` for any other error."""
    if not type(error).__module__.startswith("botocore"):
        return None
    answer: Any = getattr(error, "response", None)
    found = answer.get("Error", {}).get("Code") if isinstance(answer, dict) else None
    return str(found or type(error).__name__)


def _first_sentence(error: Exception) -> str:
    # Entra ID adds ids and links to its sentence, line by line.
    text = str(error).strip().partition("\n")[0].strip()
    return text.partition(" Trace ID:")[0][:400] or type(error).__name__
