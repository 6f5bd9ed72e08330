"""Writes of pools, queues, blocks, deployments and variables, for programs: made for Terraform's invocations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from push_pools.domain.admin import read_request
from push_pools.domain.errors import PushPoolsError, StoreUnavailable
from push_pools.functions.runtime import Host, count, function, logger
from push_pools.services.administer import administer

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

host: Final = Host()


class Refused(Exception):
    """A write of Terraform's that was refused; raised, because Terraform takes every answer for a success."""


@function
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Write one record and answer `{id, version}`, with the request's token, or `{error, fix}` when it is refused.

    Raises:
        Refused: Terraform asked for what is refused.
        StoreUnavailable: Try again.
    """
    try:
        request = read_request(event)
        written = administer(request, host.app(context))
    except StoreUnavailable:
        raise
    except PushPoolsError as error:
        count("WritesRefused")
        logger.warning("admin_refused", extra={"reason": str(error)})
        if "tf" in event:
            raise Refused(str(error)) from error
        problem, _, fix = str(error).rpartition("; ")
        return {"error": problem or fix, "fix": fix if problem else ""}
    logger.info(
        "admin_wrote",
        extra={"kind": str(request.kind), "record": request.name, "deleted": request.is_delete},
    )
    token = {"token": request.token} if request.token is not None else {}
    return {"id": written.id, "version": written.version, **token}
