"""As much of Amazon EC2 as a task without a described network needs: a default VPC with two subnets.

    with Ec2Double() as ec2:
        client = boto3.client("ec2", endpoint_url=ec2.endpoint, ...)

Knows DescribeVpcs and DescribeSubnets with the filters `isDefault` and `vpc-id`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs

from push_pools.testing.doubles_http import LoopbackServer, Reply, Request

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

DEFAULT_VPC: Final = "vpc-00000000"
SUBNETS: Final = ("subnet-0000000a", "subnet-0000000b")
_XML: Final = "text/xml"


class Ec2Double:
    """The network of an account in one region, on 127.0.0.1. `vpc` None means that there is no default VPC."""

    def __init__(self, *, vpc: str | None = DEFAULT_VPC, subnets: tuple[str, ...] = SUBNETS) -> None:
        self._vpc, self._subnets = vpc, subnets

    def __enter__(self) -> Self:
        self._server = LoopbackServer(self._answer)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()

    @property
    def endpoint(self) -> str:
        """The URL to give to a client."""
        return self._server.endpoint

    def _answer(self, request: Request) -> Reply:
        asked = {name: values[0] for name, values in parse_qs(request.body.decode()).items()}
        wanted = asked.get("Filter.1.Value.1")
        match asked.get("Action"), asked.get("Filter.1.Name"):
            case "DescribeVpcs", "isDefault" | None:
                found = [f"<vpcId>{self._vpc}</vpcId>"] if self._vpc is not None and wanted != "false" else []
                return _reply("DescribeVpcs", "vpcSet", found)
            case "DescribeSubnets", "vpc-id" | None:
                subnets = self._subnets if wanted in (None, self._vpc) else ()
                found = [f"<subnetId>{subnet}</subnetId><vpcId>{self._vpc}</vpcId>" for subnet in subnets]
                return _reply("DescribeSubnets", "subnetSet", found)
            case action, _:
                error = f"<Code>InvalidAction</Code><Message>The double does not know {action} like this.</Message>"
                body = f"<Response><Errors><Error>{error}</Error></Errors><RequestID>double</RequestID></Response>"
                return Reply(400, body.encode(), _XML)


def _reply(action: str, name: str, items: list[str]) -> Reply:
    listed = "".join(f"<item>{item}</item>" for item in items)
    body = f"<{action}Response><requestId>double</requestId><{name}>{listed}</{name}></{action}Response>"
    return Reply(200, body.encode(), _XML)
