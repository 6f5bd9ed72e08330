"""The task definition of a job: what ECS does not let a run override, registered once per content."""

from __future__ import annotations

import copy
import hashlib
import math
import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from push_pools.domain.errors import InvalidJobVariables
from push_pools.platforms.ecs_shape import (
    DEFAULT_CONTAINER,
    as_map,
    as_pairs,
    canonical,
    compact,
    containers,
    is_fargate,
    tag_pairs,
    text,
    whole_number,
    without_empty,
    words,
)
from push_pools.platforms.ecs_sizes import DEFAULT_CPU, DEFAULT_MEMORY, fargate_size

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import JsonValue

    from push_pools.platforms.ecs_config import EcsJobConfiguration

LOGS: Final = "push-pools"
"""The default log group and stream prefix. One for all, since both are part of the definition."""
DEFAULT_FAMILY: Final = "push-pools"
HASH_LENGTH: Final = 12
_FAMILY_LENGTH: Final = 255 - 1 - HASH_LENGTH
_LONGEST_STOP: Final = 120
_NUMBERS: Final = ("cpu", "memory", "memoryReservation", "stopTimeout", "startTimeout")


class Definition(NamedTuple):
    """What a run has to know of its task definition."""

    request: dict[str, JsonValue]
    """The body of RegisterTaskDefinition."""
    hash: str
    container: str
    network_mode: str | None
    log_place: dict[str, str]


def build_definition(job: EcsJobConfiguration, region: str) -> Definition:
    """Return the definition of a job in a region.

    Raises:
        InvalidJobVariables: It has no image, or a container would be restarted.
    """
    body = _body(job, region)
    main = containers(body, "containerDefinitions")[0]
    digest = hashlib.sha256(compact(body).encode()).hexdigest()
    body["family"] = f"{body['family']}-{digest[:HASH_LENGTH]}"
    return Definition(
        request=canonical(body),
        hash=digest,
        container=str(main["name"]),
        network_mode=body.get("networkMode"),
        log_place=log_place(main, region),
    )


def main_container(job: EcsJobConfiguration) -> str:
    """Return the name of the container whose exit decides."""
    listed = containers(job.task_definition, "containerDefinitions")
    overridden = containers(job.task_run_request.get("overrides") or {}, "containerOverrides")
    names = [str(each["name"]) for each in (*listed, *overridden) if each.get("name")]
    return job.container_name or (names[0] if names else DEFAULT_CONTAINER)


def family_name(name: str) -> str:
    """Return a name as a family may be called, with room for a hash."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-_")[:_FAMILY_LENGTH] or DEFAULT_FAMILY


def log_place(container: Mapping[str, Any], region: str) -> dict[str, str]:
    """Return where a container's output is, if it is in CloudWatch."""
    logs = container.get("logConfiguration") or {}
    options = logs.get("options") or {}
    if logs.get("logDriver") != "awslogs" or not options.get("awslogs-stream-prefix"):
        return {}
    place = {"log_group": text(options.get("awslogs-group", "")), "log_prefix": text(options["awslogs-stream-prefix"])}
    elsewhere = text(options.get("awslogs-region", region))
    return place if elsewhere == region else {**place, "log_region": elsewhere}


def _body(job: EcsJobConfiguration, region: str) -> dict[str, Any]:
    body: dict[str, Any] = copy.deepcopy(job.task_definition)
    body["family"] = family_name(text(body.get("family") or DEFAULT_FAMILY))
    main = main_container(job)
    body["containerDefinitions"] = [_container(each, main) for each in _with_main(body, main)]
    _complete_main(body["containerDefinitions"][0], job, region)
    fargate = is_fargate(job.task_run_request, body)
    _set_launch(body, job, fargate=fargate)
    _set_size(body, fargate=fargate)
    platform = body.get("runtimePlatform") or {}
    if any(platform.values()):
        body["runtimePlatform"] = {"operatingSystemFamily": "LINUX", **platform}
    if body.get("tags"):
        body["tags"] = tag_pairs(as_map(body["tags"], "key", "value"))
    cleaned: dict[str, Any] = without_empty(body)
    return cleaned


def _with_main(body: Mapping[str, Any], main: str) -> list[dict[str, Any]]:
    """Return the containers with the main one first; one without a name is the main one."""
    listed = containers(body, "containerDefinitions") or [{}]
    index = next((i for i, each in enumerate(listed) if each.get("name") == main), None)
    if index is None:
        index = next((i for i, each in enumerate(listed) if not each.get("name")), None)
    if index is None:
        known = ", ".join(str(each["name"]) for each in listed)
        raise InvalidJobVariables([f"container_name: task_definition has no container {main!r}; it has {known}"])
    return [listed[index], *listed[:index], *listed[index + 1 :]]


def _container(container: dict[str, Any], main: str) -> dict[str, Any]:
    name = container.get("name") or main
    shaped: dict[str, Any] = {
        **container,
        "name": name,
        "environment": as_pairs(as_map(container.get("environment"), "name", "value"), "name", "value"),
        "secrets": as_pairs(as_map(container.get("secrets"), "name", "valueFrom"), "name", "valueFrom"),
        "entryPoint": words(container.get("entryPoint")),
        "command": words(container.get("command")),
    }
    shaped |= {field: whole_number(container[field]) for field in _NUMBERS if field in container}
    if (container.get("restartPolicy") or {}).get("enabled"):
        raise InvalidJobVariables([f"task_definition: the restart policy of {name!r} would run the job more than once"])
    return shaped


def _complete_main(container: dict[str, Any], job: EcsJobConfiguration, region: str) -> None:
    if not container.get("image"):
        raise InvalidJobVariables(["image: name the image of the job, or a task_definition_arn"])
    if job.secret_variables:
        listed = as_map(container.get("secrets"), "name", "valueFrom")
        container["secrets"] = as_pairs(listed | job.secret_variables, "name", "valueFrom")
        # ECS refuses a name that is both, and a definition's environment is for everybody to read.
        container["environment"] = [
            each for each in container["environment"] if each["name"] not in job.secret_variables
        ]
    if container.get("stopTimeout") is None and job.grace_seconds is not None:
        container["stopTimeout"] = min(math.ceil(job.grace_seconds), _LONGEST_STOP)
    if job.configure_cloudwatch_logs and not container.get("logConfiguration"):
        options = {
            "awslogs-create-group": "true",
            "awslogs-group": LOGS,
            "awslogs-region": region,
            "awslogs-stream-prefix": job.cloudwatch_logs_prefix or LOGS,
        }
        container["logConfiguration"] = {"logDriver": "awslogs", "options": options | job.cloudwatch_logs_options}


def _set_launch(body: dict[str, Any], job: EcsJobConfiguration, *, fargate: bool) -> None:
    if job.execution_role_arn and not body.get("executionRoleArn"):
        body["executionRoleArn"] = job.execution_role_arn
    asked = job.task_run_request.get("launchType")
    launch = "FARGATE" if fargate else asked if asked in ("EXTERNAL", "MANAGED_INSTANCES") else "EC2"
    listed = list(body.get("requiresCompatibilities") or ())
    body["requiresCompatibilities"] = listed if launch in listed else [*listed, launch]
    # Fargate has no other mode; elsewhere the mode is the user's, and a network that is named needs this one.
    wants_network = job.network_configuration or job.vpc_id or job.task_run_request.get("networkConfiguration")
    if not body.get("networkMode") and (fargate or wants_network):
        body["networkMode"] = "awsvpc"


def _set_size(body: dict[str, Any], *, fargate: bool) -> None:
    """Give the task a size. A run overrides it, so that all sizes share one definition."""
    cpu, memory = body.get("cpu"), body.get("memory")
    if fargate:
        try:
            cpu, memory = fargate_size(cpu, memory)
        except ValueError as error:
            raise InvalidJobVariables([str(error)]) from error
    body["cpu"] = text(cpu if cpu is not None else DEFAULT_CPU)
    body["memory"] = text(memory if memory is not None else DEFAULT_MEMORY)
