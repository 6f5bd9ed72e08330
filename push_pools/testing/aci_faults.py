"""Ways in which the double of Azure Container Instances misbehaves, beside those that every double has.

Operations are `put`, `get`, `delete`, `stop`, `logs`, `list`, `patch`, `group` (a resource group), and `*` for any.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from push_pools.testing.faults import COMMON, Fault

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "FAULTS",
    "Fault",
    "access_denied",
    "capacity",
    "expired_token",
    "quota",
    "registry_error",
    "server_error",
    "throttle",
    "transitioning",
    "unavailable",
]


def throttle() -> Fault:
    """Answer 429 with Retry-After; nothing is performed."""
    return Fault.answer("TooManyRequests", "The request is being throttled.", status=429, name="throttle")


def server_error(*, effect: bool = False) -> Fault:
    """Answer 500, the operation performed or not."""
    name = "server_error_with_effect" if effect else "server_error"
    message = "An internal server error occurred."
    return Fault.answer("InternalServerError", message, status=500, effect=effect, name=name)


def unavailable(*, effect: bool = False) -> Fault:
    """Answer 503 of the front end, the operation performed or not: the answer that azure-core would repeat."""
    name = "unavailable_with_effect" if effect else "unavailable"
    return Fault.answer("ServerTimeout", "The service is unavailable.", status=503, effect=effect, name=name)


def capacity() -> Fault:
    """Answer that the region has no room."""
    message = (
        "The requested resource is not available in the location 'westeurope' at this moment. "
        "Please retry with a different resource request or in another location."
    )
    return Fault.answer("ServiceUnavailable", message, status=409, name="capacity")


def quota(limit: int = 10) -> Fault:
    """Answer that a quota of the subscription is used up; with a limit of 0 it never had one."""
    message = (
        "Resource type 'Microsoft.ContainerInstance/containerGroups' container group quota 'StandardCores' exceeded "
        f"in region 'westeurope'. Limit: '{limit}', Usage: '{limit}' Requested: '1'."
    )
    return Fault.answer("ContainerGroupQuotaReached", message, status=409, name="quota")


def registry_error() -> Fault:
    """Answer that the image's registry failed."""
    message = "An error response is received from the docker registry 'index.docker.io'. Please retry later."
    return Fault.answer("RegistryErrorResponse", message, status=409, name="registry_error")


def transitioning() -> Fault:
    """Answer that the group is in transition."""
    message = "The container group is still transitioning, please retry later."
    return Fault.answer("ContainerGroupTransitioning", message, status=409, name="transitioning")


def access_denied() -> Fault:
    """Answer that the caller may not do it."""
    message = "The client 'double' does not have authorization to perform the action over the scope."
    return Fault.answer("AuthorizationFailed", message, status=403, name="access_denied")


def expired_token() -> Fault:
    """Answer that the caller's token has expired."""
    message = "The access token expiry UTC time is earlier than current UTC time."
    return Fault.answer("ExpiredAuthenticationToken", message, status=401, name="expired_token")


FAULTS: Final[dict[str, Callable[..., Fault]]] = {
    **{name: getattr(Fault, name) for name in COMMON},
    "throttle": throttle,
    "server_error": server_error,
    "unavailable": unavailable,
    "capacity": capacity,
    "quota": quota,
    "registry_error": registry_error,
    "transitioning": transitioning,
    "access_denied": access_denied,
    "expired_token": expired_token,
}
"""Every fault by the name that the control API takes."""
