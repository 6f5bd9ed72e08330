"""What an AWS account lets ECS do: permissions, roles, networks, vCPUs, and how often it may be asked.

An account that nothing is said of allows everything. Texts follow "API failure reasons", "Service quotas" and
"Troubleshooting" of the ECS developer guide where they give one; code should not depend on their wording.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from push_pools.testing.ecs_definitions import EcsError, client_error, invalid

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from push_pools.testing.ecs_tasks import Document

VCPU = 1024


@dataclass
class Bucket:
    """So many calls at once, and so many a second from then on ("Request throttling", API reference)."""

    size: int
    per_second: float
    _left: float = field(init=False)
    _at: datetime | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self._left = float(self.size)

    def take(self, now: datetime) -> bool:
        """Take a token; False if there is none."""
        passed = (now - self._at).total_seconds() if self._at else 0.0
        self._left, self._at = min(self._left + passed * self.per_second, float(self.size)), now
        if self._left < 1:
            return False
        self._left -= 1
        return True


@dataclass
class Account:
    """The rules of one account; they may be changed while the double serves."""

    denied: set[str] = field(default_factory=set)
    """Actions that the caller may not do, such as `ecs:RunTask` or `iam:PassRole`."""
    role_trust: dict[str, bool] | None = None
    """The roles there are, and whether ECS may assume each; None knows every role."""
    subnets: dict[str, str] | None = None
    """VPC of every subnet there is; None knows every subnet, all in one VPC."""
    security_groups: dict[str, str] | None = None
    """VPC of every security group there is, likewise."""
    has_every_cluster: bool = False
    """Whether a cluster is there as soon as it is named; else only those that were created."""
    vcpus: float | None = None
    """How many vCPUs may run on Fargate at once (quota "Fargate On-Demand vCPU resource count")."""
    vcpus_in_failures: bool = True
    """Whether more are refused by `failures[]`, as users of ECS have seen it, or by a ClientException."""
    buckets: dict[str, Bucket] = field(default_factory=dict)
    """How often an operation may be called."""

    def check_call(self, operation: str, body: Document, account: str, now: datetime) -> None:
        """Refuse an operation that is throttled, or that the caller may not do."""
        bucket = self.buckets.get(operation)
        if bucket is not None and not bucket.take(now):
            raise EcsError("ThrottlingException", "Rate exceeded")
        if f"ecs:{operation}" in self.denied:
            raise _denied(account, f"ecs:{operation}", "*")
        passed = sorted(set(_roles(body)))
        if passed and "iam:PassRole" in self.denied:
            raise _denied(account, "iam:PassRole", passed[0])

    def check_run(self, body: Document, definition: Document) -> None:
        """Refuse a RunTask whose roles or network the account does not have."""
        for role in dict.fromkeys((*_roles(body.get("overrides", {})), *_roles(definition))):
            if self.role_trust is not None and not self.role_trust.get(role, False):
                raise client_error(
                    f"ECS was unable to assume the role '{role}' that was provided for this task. Please verify that "
                    "the role being passed has the proper trust relationship and permissions and that your IAM user "
                    "has permissions to pass this role."
                )
        network = body.get("networkConfiguration", {}).get("awsvpcConfiguration", {})
        self._check_network(network.get("subnets", []), network.get("securityGroups", []))

    def over_quota(self, body: Document, definition: Document, running: Iterable[Document]) -> str | None:
        """Return why a RunTask needs more vCPUs than are left; None if it does not."""
        if self.vcpus is None:
            return None
        used = sum(int(str(task.get("cpu") or 0)) for task in running)
        wanted = body.get("overrides", {}).get("cpu") or definition.get("cpu") or 0
        if used + int(str(wanted)) * body.get("count", 1) <= self.vcpus * VCPU:
            return None
        return "You've reached the limit on the number of vCPUs you can run concurrently"

    def _check_network(self, subnets: list[str], groups: list[str]) -> None:
        vpcs = [_vpc(self.subnets, "subnet", subnet) for subnet in subnets]
        if len(set(vpcs)) > 1:
            raise invalid("All subnets must belong to the same VPC.")
        for group in groups:
            if _vpc(self.security_groups, "security group", group) not in (None, *vpcs):
                raise invalid(f"Security Group {group} does not appear to belong to the same VPC as the input subnets.")


def _vpc(known: dict[str, str] | None, kind: str, name: str) -> str | None:
    if known is None:
        return None
    if name not in known:
        code = "InvalidSubnetID.NotFound" if kind == "subnet" else "InvalidGroup.NotFound"
        what = f"The {kind} ID '{name}' does not exist (ErrorCode: {code})"
        raise invalid(f"Error retrieving {kind} information for [{name}]: {what}")
    return known[name]


def _roles(body: Document) -> list[str]:
    overrides = body.get("overrides", {})
    named = (body.get("executionRoleArn"), body.get("taskRoleArn"))
    return [
        role for role in (*named, overrides.get("executionRoleArn"), overrides.get("taskRoleArn")) if role is not None
    ]


def _denied(account: str, action: str, resource: str) -> EcsError:
    return EcsError(
        "AccessDeniedException",
        f"User: arn:aws:sts::{account}:assumed-role/push-pools/double is not authorized to perform: {action} on "
        f"resource: {resource} because no identity-based policy allows the {action} action",
    )
