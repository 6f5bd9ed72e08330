"""Ways in which the double of Azure Container Instances misbehaves, beside those that every double has.

Operations are `put`, `get`, `delete`, `stop`, `logs`, `list`, `patch`, `group` (a resource group), and `*` for any.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from push_pools.testing.ecs_faults import Fault, Faults, Hold

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "FAULTS",
    "Fault",
    "Faults",
    "Hold",
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
    return _named("throttle", Fault.answer("TooManyRequests", "The request is being throttled.", status=429))


def server_error(*, effect: bool = False) -> Fault:
    """Answer 500, the operation performed or not."""
    fault = Fault.answer("InternalServerError", "An internal server error occurred.", status=500, effect=effect)
    return _named("server_error_with_effect" if effect else "server_error", fault)


def unavailable(*, effect: bool = False) -> Fault:
    """Answer 503 of the front end, the operation performed or not: the answer that azure-core would repeat."""
    fault = Fault.answer("ServerTimeout", "The service is unavailable.", status=503, effect=effect)
    return _named("unavailable_with_effect" if effect else "unavailable", fault)


def capacity() -> Fault:
    """Answer that the region has no room."""
    message = (
        "The requested resource is not available in the location 'westeurope' at this moment. "
        "Please retry with a different resource request or in another location."
    )
    return _named("capacity", Fault.answer("ServiceUnavailable", message, status=409))


def quota(limit: int = 10) -> Fault:
    """Answer that a quota of the subscription is used up; with a limit of 0 it never had one."""
    message = (
        "Resource type 'Microsoft.ContainerInstance/containerGroups' container group quota 'StandardCores' exceeded "
        f"in region 'westeurope'. Limit: '{limit}', Usage: '{limit}' Requested: '1'."
    )
    return _named("quota", Fault.answer("ContainerGroupQuotaReached", message, status=409))


def registry_error() -> Fault:
    """Answer that the image's registry failed."""
    message = "An error response is received from the docker registry 'index.docker.io'. Please retry later."
    return _named("registry_error", Fault.answer("RegistryErrorResponse", message, status=409))


def transitioning() -> Fault:
    """Answer that the group is in transition."""
    message = "The container group is still transitioning, please retry later."
    return _named("transitioning", Fault.answer("ContainerGroupTransitioning", message, status=409))


def access_denied() -> Fault:
    """Answer that the caller may not do it."""
    message = "The client 'double' does not have authorization to perform the action over the scope."
    return _named("access_denied", Fault.answer("AuthorizationFailed", message, status=403))


def expired_token() -> Fault:
    """Answer that the caller's token has expired."""
    message = "The access token expiry UTC time is earlier than current UTC time."
    return _named("expired_token", Fault.answer("ExpiredAuthenticationToken", message, status=401))


def _named(name: str, fault: Fault) -> Fault:
    return replace(fault, name=name)


FAULTS: Final[dict[str, Callable[..., Fault]]] = {
    "answer": Fault.answer,
    "throttle": throttle,
    "server_error": server_error,
    "unavailable": unavailable,
    "capacity": capacity,
    "quota": quota,
    "registry_error": registry_error,
    "transitioning": transitioning,
    "access_denied": access_denied,
    "expired_token": expired_token,
    "accept_then_drop": Fault.accept_then_drop,
    "drop_before": Fault.drop_before,
    "cut_answer": Fault.cut_answer,
    "malformed": Fault.malformed,
    "delay": Fault.delay,
    "delay_answer": Fault.delay_answer,
}
"""Every fault by the name that the control API takes."""
