"""What goes wrong with AWS credentials, and what the caller does next."""

from __future__ import annotations

from typing import Final

from push_pools.domain.errors import JobRejected, PlatformError, PlatformUnavailable

EXPIRED: Final = frozenset(
    {"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired", "AuthFailure.Expired"}
)
DENIED: Final = frozenset({"AccessDenied", "AccessDeniedException", "ValidationError", "MalformedPolicyDocument"})
BAD_KEY: Final = frozenset(
    {
        "InvalidClientTokenId",
        "UnrecognizedClientException",
        "SignatureDoesNotMatch",
        "AuthFailure",
        "IncompleteSignature",
        "MissingAuthenticationToken",
        "InvalidAccessKeyId",
    }
)
ROLE_CALLS: Final = frozenset({"AssumeRole", "AssumeRoleWithWebIdentity", "AssumeRoleWithSAML", "GetSessionToken"})
_NO_ROLE_NOW = "the role could not be assumed now"


def credentials_error(error: Exception, platform: str) -> PlatformError | None:
    """Return our error for one that is about credentials; `None` for all others.

    Such errors are raised before a request is sent, or AWS refused it for its signature: nothing was done.
    Expired and missing credentials can be there at the next try (`PlatformUnavailable`); a denial stays one.
    """
    from botocore import exceptions as boto

    name = type(error).__name__
    match error:
        case boto.ClientError():
            return _refused(error, platform)
        case boto.NoRegionError():
            return JobRejected(platform, "no AWS region is set; give the credentials a region_name", codes=["NoRegion"])
        case boto.ProfileNotFound() | boto.ConfigNotFound() | boto.ConfigParseError() | boto.PartialCredentialsError():
            return JobRejected(platform, str(error), codes=["ProfileNotFound", name], variable="aws_credentials")
        case (
            boto.NoCredentialsError()
            | boto.CredentialRetrievalError()
            | boto.MetadataRetrievalError()
            | boto.SSOError()
            | boto.TokenRetrievalError()
        ):
            return PlatformUnavailable(platform, str(error), codes=["NoCredentials", name])
    return None


def _refused(error: Exception, platform: str) -> PlatformError | None:
    answer = getattr(error, "response", {})
    code = str(answer.get("Error", {}).get("Code", ""))
    text = str(answer.get("Error", {}).get("Message") or code)
    by_role = getattr(error, "operation_name", "") in ROLE_CALLS
    if code in EXPIRED:
        return PlatformUnavailable(platform, text, codes=["CredentialsExpired", code])
    if code in BAD_KEY:
        return JobRejected(platform, text, codes=[code], variable="aws_credentials")
    if by_role and code in DENIED:
        return JobRejected(platform, text, codes=["AssumeRoleDenied", code], variable="aws_credentials")
    if by_role:
        return PlatformUnavailable(platform, f"{_NO_ROLE_NOW}: {text}", codes=["NoCredentials", code])
    return None


def role_unreachable(error: Exception, platform: str) -> PlatformError:
    """Return the error for any other failure while credentials are fetched; no request was sent with them."""
    from botocore.exceptions import ParamValidationError

    if isinstance(error, ParamValidationError):
        return JobRejected(platform, str(error), codes=["ParamValidation"], variable="aws_credentials")
    return PlatformUnavailable(platform, f"{_NO_ROLE_NOW}: {error}", codes=["NoCredentials", type(error).__name__])
