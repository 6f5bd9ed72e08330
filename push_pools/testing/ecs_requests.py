"""What Amazon ECS refuses in a RunTask request (API reference, RunTask)."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from push_pools.testing.ecs_definitions import EcsError, check_fargate_size, check_tags, invalid

if TYPE_CHECKING:
    from push_pools.testing.ecs_tasks import Document

TOKEN = re.compile(r"[\x21-\x7e]{1,64}")
STARTED_BY = re.compile(r"[A-Za-z0-9/_-]{0,128}")
MAX_OVERRIDES_CHARACTERS = 8192
MAX_COUNT = 10
LAUNCH_TYPES = ("EC2", "FARGATE", "EXTERNAL", "MANAGED_INSTANCES")
PLATFORM_VERSIONS = ("LATEST", "1.0.0", "1.1.0", "1.2.0", "1.3.0", "1.4.0")


def check_text(body: Document) -> None:
    """Refuse what can be refused without knowing the task definition."""
    token = body.get("clientToken")
    if token is not None and not TOKEN.fullmatch(token):
        raise invalid("clientToken must have 1 to 64 ASCII characters in the range of 33-126.")
    if not 1 <= body.get("count", 1) <= MAX_COUNT:
        raise invalid(f"Count must be between 1 and {MAX_COUNT}.")
    overrides = json.dumps(body.get("overrides", {}), separators=(",", ":"), ensure_ascii=False)
    if len(overrides) > MAX_OVERRIDES_CHARACTERS:
        raise invalid(f"Container Overrides length must be at most {MAX_OVERRIDES_CHARACTERS}")
    if not STARTED_BY.fullmatch(body.get("startedBy", "")):
        raise invalid("startedBy has up to 128 letters, numbers, hyphens, slashes and underscores.")
    if "launchType" in body and body.get("capacityProviderStrategy"):
        raise invalid(
            "Specifying both a launch type and capacity provider strategy is not supported. Remove one and try again."
        )
    if body.get("launchType", "EC2") not in LAUNCH_TYPES:
        raise invalid(f"launchType is not one of {', '.join(LAUNCH_TYPES)}.")
    check_tags(body.get("tags", []))


def check_against_definition(body: Document, definition: Document) -> None:
    """Refuse overrides, launch types and networks that the task definition does not allow."""
    known = {each["name"] for each in definition["containerDefinitions"]}
    overrides = body.get("overrides", {})
    for each in overrides.get("containerOverrides", []):
        if each and each.get("name") not in known:
            raise invalid(f"Override for container named {each.get('name')} is not a container in the TaskDefinition.")
    if _on_fargate(body):
        if "FARGATE" not in definition["compatibilities"]:
            raise invalid("Task definition does not support launch_type FARGATE.")
        size = {name: overrides.get(name, definition.get(name)) for name in ("cpu", "memory")}
        check_fargate_size(size["cpu"], size["memory"])
        if body.get("platformVersion", "LATEST") not in PLATFORM_VERSIONS:
            raise EcsError("PlatformUnknownException", "The specified platform does not exist.")
    _check_network(body, definition)


def _on_fargate(body: Document) -> bool:
    strategy = body.get("capacityProviderStrategy", [])
    return body.get("launchType") == "FARGATE" or any(
        each.get("capacityProvider", "").startswith("FARGATE") for each in strategy
    )


def _check_network(body: Document, definition: Document) -> None:
    network = body.get("networkConfiguration")
    if definition.get("networkMode") != "awsvpc":
        if network is not None:
            raise invalid("Network Configuration is not valid for the given networkMode of this task definition.")
        return
    if network is None or "awsvpcConfiguration" not in network:
        raise invalid("Network Configuration must be provided when networkMode 'awsvpc' is specified.")
    subnets = network["awsvpcConfiguration"].get("subnets", [])
    if not subnets:
        raise invalid("subnets can not be empty.")
    if len(subnets) > 16:
        raise invalid("subnets can have at most 16 items.")
    if len(network["awsvpcConfiguration"].get("securityGroups", [])) > 5:
        raise invalid("securityGroups can have at most 5 items.")
