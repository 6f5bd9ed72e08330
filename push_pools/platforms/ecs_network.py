"""The subnets of a VPC, for jobs whose network is not described: as in Prefect, those of the default VPC."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, Final

from push_pools.domain.errors import JobRejected
from push_pools.platforms.ecs_errors import prepare_error

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pydantic import JsonValue

KEPT_SECONDS: Final = 300.0
"""How long the subnets of a VPC are believed to stay; what was prepared with them is stored with its job anyway."""
MAX_SUBNETS: Final = 16
"""Most subnets of an awsvpcConfiguration (API reference)."""


class Networks:
    """Looks subnets up, and keeps what it found for some minutes, so that a burst of runs asks once."""

    def __init__(self, seconds: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._found: dict[tuple[str, str | None], tuple[float, dict[str, JsonValue]]] = {}
        self._subnets: dict[tuple[str, str], tuple[float, frozenset[str]]] = {}
        self._lock = threading.Lock()

    def of_vpc(self, scope: str, vpc_id: str | None, ec2: Callable[[], Any]) -> dict[str, JsonValue]:
        """Return the network of tasks in a VPC, by default the default one.

        Raises:
            JobRejected: There is no such VPC, or it has no subnets.
        """
        with self._lock:
            at, network = self._found.get((scope, vpc_id), (0.0, None))
            if network is None or self._seconds() - at > KEPT_SECONDS:
                network = _look_up(ec2(), vpc_id)
                self._found[scope, vpc_id] = (self._seconds(), network)
            return network

    def check(self, scope: str, vpc_id: str, network: Mapping[str, Any], ec2: Callable[[], Any]) -> None:
        """Check that the subnets of a network that was described are in the VPC that was named, as Prefect does.

        Who may not look subnets up is not kept from using them: RunTask refuses what does not fit.

        Raises:
            JobRejected: Some are not.
        """
        named = set((network.get("awsvpcConfiguration") or {}).get("subnets") or ())
        with self._lock:
            at, known = self._subnets.get((scope, vpc_id), (0.0, frozenset()))
            if not named <= known or self._seconds() - at > KEPT_SECONDS:
                try:
                    known = frozenset(_subnets(ec2(), vpc_id))
                except Exception as error:
                    if prepare_error(error).codes[:1] != ("UnauthorizedOperation",):
                        raise
                    return
                self._subnets[scope, vpc_id] = (self._seconds(), known)
        if strangers := sorted(named - known):
            listed = ", ".join(sorted(known)) or "none"
            reason = f"{', '.join(strangers)}: not in VPC {vpc_id}, whose subnets are {listed}; correct one of the two"
            raise _no_network(reason, "network_configuration")


def _subnets(ec2: Any, vpc_id: str) -> list[str]:
    answer = ec2.describe_subnets(Filters=[{"Name": "vpc-id", "Values": [vpc_id]}])["Subnets"]
    return sorted(str(each["SubnetId"]) for each in answer)


def _look_up(ec2: Any, vpc_id: str | None) -> dict[str, JsonValue]:
    fix = "describe it in network_configuration, or name a vpc_id"
    if vpc_id is None:
        vpcs = ec2.describe_vpcs(Filters=[{"Name": "isDefault", "Values": ["true"]}])["Vpcs"]
        if not vpcs:
            raise _no_network(f"the account has no default VPC in this region; {fix}", "network_configuration")
        vpc_id = str(vpcs[0]["VpcId"])
    subnets: list[JsonValue] = [*_subnets(ec2, vpc_id)[:MAX_SUBNETS]]
    if not subnets:
        raise _no_network(f"VPC {vpc_id} has no subnets in this region; {fix}", "vpc_id")
    # Without a NAT gateway, which a default VPC has not, a task pulls its image through its public address only.
    return {"awsvpcConfiguration": {"subnets": subnets, "assignPublicIp": "ENABLED"}}


def _no_network(reason: str, variable: str) -> JobRejected:
    return JobRejected("ecs:push", reason, codes=["NetworkConfiguration"], variable=variable)
