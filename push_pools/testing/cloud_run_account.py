"""What a Google Cloud project lets Cloud Run do: regions, permissions, identities, quotas.

A project that nothing is said of allows everything but a 1,001st job. Texts follow the service's own where they are
known ("Quotas and limits" and "Troubleshoot Cloud Run issues"); code should not depend on their wording.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from datetime import datetime

MAX_JOBS: Final = 1000
"""Jobs in a project and region, which cannot be raised ("Quotas and limits", Cloud Run)."""
MINUTE: Final = timedelta(minutes=1)


class CloudRunError(Exception):
    """An error that the service answers; `code` is the name of a gRPC status."""

    def __init__(self, code: str, message: str) -> None:
        self.code, self.message = code, message
        super().__init__(f"{code}: {message}")


@dataclass
class PerMinute:
    """So many calls within any minute; the quota is of a project and region."""

    limit: int
    _taken: dict[str, deque[datetime]] = field(default_factory=dict)

    def take(self, where: str, now: datetime) -> bool:
        """Take one of the calls; False if there is none left."""
        taken = self._taken.setdefault(where, deque())
        while taken and taken[0] <= now - MINUTE:
            taken.popleft()
        if len(taken) >= self.limit:
            return False
        taken.append(now)
        return True


@dataclass
class Project:
    """The rules of one project; they may be changed while the double serves."""

    regions: set[str] | None = None
    """The regions there are; None knows every one."""
    denied: set[str] = field(default_factory=set)
    """Permissions that the caller does not have, such as `run.jobs.create` or `iam.serviceaccounts.actAs`."""
    service_accounts: set[str] | None = None
    """The service accounts that the caller may act as; None means all."""
    images: set[str] | None = None
    """The images there are; None knows every one."""
    private_images: set[str] = field(default_factory=set)
    """Images that Cloud Run may not pull."""
    tokens: set[str] | None = None
    """The bearer tokens that are taken; None takes every call, also one without a token."""
    max_jobs: int = MAX_JOBS
    writes: PerMinute | None = None
    """Quota "Write requests per minute per region"; None counts none."""

    def check_token(self, token: str | None) -> None:
        """Refuse a call whose token is not one of those taken."""
        if self.tokens is not None and token not in self.tokens:
            raise CloudRunError(
                "UNAUTHENTICATED",
                "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other "
                "valid authentication credential.",
            )

    def check_permission(self, permission: str, resource: str) -> None:
        """Refuse what the caller may not do."""
        if permission in self.denied:
            raise CloudRunError(
                "PERMISSION_DENIED",
                f"Permission '{permission}' denied on resource '{resource}' (or resource may not exist).",
            )

    def check_region(self, region: str) -> None:
        """Refuse a region that there is not."""
        if self.regions is not None and region not in self.regions:
            message = f"Permission denied on 'locations/{region}' (or it may not exist)."
            raise CloudRunError("PERMISSION_DENIED", message)

    def check_write(self, project: str, region: str, now: datetime) -> None:
        """Count a write, and refuse it when too many came in the last minute."""
        if self.writes is not None and not self.writes.take(f"{project}/{region}", now):
            raise CloudRunError(
                "RESOURCE_EXHAUSTED",
                "Quota exceeded for quota metric 'Write requests' and limit 'Write requests per minute per region' of "
                f"service 'run.googleapis.com' for consumer 'project_number:{project}'.",
            )

    def check_service_account(self, email: str) -> None:
        """Refuse a service account that is not there, or that the caller may not act as."""
        refused = self.service_accounts is not None and email and email not in self.service_accounts
        if refused or (email and "iam.serviceaccounts.actAs" in self.denied):
            raise CloudRunError(
                "PERMISSION_DENIED",
                f"Permission 'iam.serviceaccounts.actAs' denied on service account {email} (or it may not exist).",
            )
