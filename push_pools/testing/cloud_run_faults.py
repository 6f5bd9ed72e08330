"""Ways in which the Cloud Run double misbehaves, beside those that every double has.

An operation is the name of one of the API's methods, such as CreateJob. A connection that is cut ends the other
requests on it too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from push_pools.testing import faults

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Fault(faults.Fault):
    """What happens to one request; the code of an answer is the name of a gRPC status."""

    @classmethod
    def throttle(cls) -> Fault:
        """Answer that the quota of writes is used up; nothing is performed."""
        message = (
            "Quota exceeded for quota metric 'Write requests' and limit 'Write requests per minute per region' of "
            "service 'run.googleapis.com' for consumer 'project_number:1'."
        )
        return cls.answer("RESOURCE_EXHAUSTED", message, name="throttle")

    @classmethod
    def server_error(cls, code: str = "INTERNAL", *, effect: bool = False) -> Fault:
        """Answer INTERNAL, or UNAVAILABLE, UNKNOWN or ABORTED; the operation is performed or not."""
        name = f"{code.lower()}{'_with_effect' if effect else ''}"
        return cls.answer(code, "The service is currently unavailable.", effect=effect, name=name)

    @classmethod
    def access_denied(cls) -> Fault:
        """Answer PERMISSION_DENIED."""
        message = "Permission 'run.jobs.create' denied on resource 'x' (or resource may not exist)."
        return cls.answer("PERMISSION_DENIED", message, name="access_denied")

    @classmethod
    def expired_credentials(cls) -> Fault:
        """Answer UNAUTHENTICATED."""
        message = "Request had invalid authentication credentials."
        return cls.answer("UNAUTHENTICATED", message, name="expired_credentials")

    @classmethod
    def capacity(cls) -> Fault:
        """Answer that there is no room in the region; nothing is performed."""
        message = "The region has no capacity for this request now. Try again later, or in another region."
        return cls.answer("RESOURCE_EXHAUSTED", message, name="capacity")


FAULTS: Final[dict[str, Callable[..., Fault]]] = {
    name: getattr(Fault, name)
    for name in (*faults.COMMON, "throttle", "server_error", "access_denied", "expired_credentials", "capacity")
}
"""Every fault by the name that the control API takes."""
