"""What goes wrong with Google Cloud credentials, and what the caller does next."""

from __future__ import annotations

from push_pools.domain.errors import JobRejected, PlatformError, PlatformUnavailable

VARIABLE = "credentials"


def credentials_error(error: Exception, platform: str) -> PlatformError | None:
    """Return our error for one that is about credentials; `None` for all others.

    Such errors are raised before a request is sent: nothing was done. Missing credentials, and those that could not
    be asked for, can be there at the next try (`PlatformUnavailable`); a refusal of Google's stays one.
    """
    from google.auth import exceptions as auth

    name, text = type(error).__name__, " ".join(str(part) for part in error.args if part) or type(error).__name__
    match error:
        case auth.TransportError():
            return PlatformUnavailable(platform, f"no token could be asked for: {text}", codes=["ConnectFailed", name])
        case auth.MalformedError():
            return JobRejected(platform, text, codes=["CredentialsMalformed", name], variable=VARIABLE)
        case auth.GoogleAuthError(retryable=True) | auth.DefaultCredentialsError() | auth.UserAccessTokenError():
            return PlatformUnavailable(platform, text, codes=["NoCredentials", name])
        case auth.RefreshError() | auth.OAuthError():
            if "AWS" in text and "credentials" in text:
                return PlatformUnavailable(platform, text, codes=["NoCredentials", name])
            code = "ImpersonationDenied" if "impersonated" in text else "CredentialsRefused"
            return JobRejected(platform, text, codes=[code, name], variable=VARIABLE)
        case auth.GoogleAuthError():
            return PlatformUnavailable(platform, text, codes=["NoCredentials", name])
    return None
