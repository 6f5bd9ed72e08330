"""Ways in which the ECS double misbehaves, beside those that every double has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from push_pools.testing import faults
from push_pools.testing.ecs_model import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable

CAPACITY: Final = "Capacity is unavailable at this time. Please try again later or in a different availability zone"


@dataclass(frozen=True)
class Fault(faults.Fault):
    """What happens to one request. An operation is the name of one of ECS's, such as RunTask."""

    refusal: Refusal | None = None
    """RunTask only: answer `failures`."""

    @classmethod
    def throttle(cls) -> Fault:
        """Answer ThrottlingException; nothing is performed."""
        return cls.answer("ThrottlingException", "Rate exceeded", name="throttle")

    @classmethod
    def wrapped_throttle(cls) -> Fault:
        """Answer a throttle of EC2 as ECS passes it on: inside an InvalidParameterException."""
        message = "Error retrieving subnet information for [subnet-1]: Rate exceeded (ErrorCode: Throttling)"
        return cls.answer("InvalidParameterException", message, name="wrapped_throttle")

    @classmethod
    def concurrent_revisions(cls) -> Fault:
        """Answer what RegisterTaskDefinition answers to simultaneous calls for one family."""
        message = "Too many concurrent attempts to create a new revision of the specified family."
        return cls.answer("ClientException", message, name="concurrent_revisions")

    @classmethod
    def server_error(cls, *, effect: bool = False) -> Fault:
        """Answer ServerException (500), the operation performed or not."""
        message, name = "Service Unavailable. Please try again later.", "server_error"
        name = f"{name}_with_effect" if effect else name
        return cls.answer("ServerException", message, status=500, effect=effect, name=name)

    @classmethod
    def access_denied(cls) -> Fault:
        """Answer AccessDeniedException."""
        message = "User: arn:aws:iam::123456789012:user/double is not authorized to perform this action"
        return cls.answer("AccessDeniedException", message, name="access_denied")

    @classmethod
    def expired_credentials(cls) -> Fault:
        """Answer ExpiredTokenException."""
        message = "The security token included in the request is expired"
        return cls.answer("ExpiredTokenException", message, name="expired_credentials")

    @classmethod
    def failures(cls, reason: str = "RESOURCE:MEMORY") -> Fault:
        """RunTask answers `failures` with this reason, such as `CAPACITY` or AGENT, and starts nothing."""
        return cls("failures", refusal=Refusal(reason))

    @classmethod
    def lying_failures(cls, reason: str = "RESOURCE:MEMORY") -> Fault:
        """RunTask answers `failures`, and starts the tasks all the same."""
        return cls("lying_failures", refusal=Refusal(reason, starts_anyway=True))


FAULTS: Final[dict[str, Callable[..., Fault]]] = {
    name: getattr(Fault, name)
    for name in (
        *faults.COMMON,
        "throttle",
        "wrapped_throttle",
        "concurrent_revisions",
        "server_error",
        "access_denied",
        "expired_credentials",
        "failures",
        "lying_failures",
    )
}
"""Every fault by the name that the control API takes."""
