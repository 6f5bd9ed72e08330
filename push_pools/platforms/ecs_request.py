"""The RunTask request of a job: its template's section, completed with what belongs to the run."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Final, cast

from push_pools.domain.errors import InvalidJobVariables, JobRejected
from push_pools.domain.jobs import SERVICE_ENV
from push_pools.platforms.ecs_shape import (
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
from push_pools.platforms.ecs_sizes import fargate_size

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from pydantic import JsonValue

    from push_pools.platforms.ecs_config import EcsJobConfiguration

MAX_OVERRIDES: Final = 8192
"""Most characters of the JSON of `overrides` (TaskOverride, API reference)."""
MAX_TAGS: Final = 50
OUR_LABELS: Final = "push-pools/"
_VARIABLES: Final = {"environmentFiles": "environment_files", "resourceRequirements": "resource_requirements"}
_NOT_FROM_TEMPLATE: Final = ("clientToken", "startedBy", "count", "taskDefinition", "networkConfiguration")


def started_by(run_id: UUID | str, attempt: int) -> str:
    """Return the `startedBy` of every task of an attempt, whatever its launch."""
    return f"pp/{run_id}/{attempt}"


def started_by_key(key: str) -> str:
    """Return the `startedBy` of a job that no run stands behind."""
    return f"pp/key/{key}"


def given_definition(job: EcsJobConfiguration) -> str | None:
    """Return the task definition that the user names, if any; none is registered then."""
    return str(job.task_run_request.get("taskDefinition") or "") or None


def given_network(job: EcsJobConfiguration) -> dict[str, Any] | None:
    """Return the network that the user describes, whole or as ECS's awsvpcConfiguration alone."""
    network = job.task_run_request.get("networkConfiguration") or job.network_configuration
    if not network:
        return None
    return dict(network) if "awsvpcConfiguration" in network else {"awsvpcConfiguration": dict(network)}


def check(job: EcsJobConfiguration) -> None:
    """Refuse what ECS would refuse later.

    Raises:
        InvalidJobVariables: With a sentence for each problem.
    """
    problems = [*_size_problems(job), *_role_problems(job)]
    if job.cloudwatch_logs_options and not job.configure_cloudwatch_logs:
        problems.append("cloudwatch_logs_options: set configure_cloudwatch_logs too, or leave them out")
    if problems:
        raise InvalidJobVariables(problems)


def _size_problems(job: EcsJobConfiguration) -> list[str]:
    if given_definition(job):
        return []
    try:
        _sizes(job.task_run_request, job.task_definition)
    except ValueError as error:
        return [str(error)]
    return []


def _role_problems(job: EcsJobConfiguration) -> list[str]:
    if job.execution_role_arn or job.task_definition.get("executionRoleArn") or given_definition(job):
        return []
    problems = []
    if job.configure_cloudwatch_logs:
        problems.append("configure_cloudwatch_logs: give an execution_role_arn too; ECS writes the logs with that role")
    listed = containers(job.task_definition, "containerDefinitions")
    if job.secret_variables:
        named = "prefect_api_key_secret_arn" if job.prefect_api_key_secret_arn else "prefect_api_auth_string_secret_arn"
        problems.append(f"{named}: give an execution_role_arn too; ECS reads the secret with that role")
    if any((each.get("repositoryCredentials") or {}).get("credentialsParameter") for each in listed):
        problems.append(
            "repository_credentials: give an execution_role_arn too; ECS logs in to the registry with that role"
        )
    if any(each.get("secrets") for each in listed):
        problems.append("secrets: give an execution_role_arn too; ECS reads the secrets with that role")
    return problems


def build_request(
    job: EcsJobConfiguration, *, definition: str, container: str, network: Mapping[str, Any] | None
) -> dict[str, JsonValue]:
    """Return the RunTask request of a job, but for the clientToken.

    Raises:
        InvalidJobVariables: Its overrides are too long, or it has too many tags.
    """
    request: dict[str, Any] = copy.deepcopy(job.task_run_request)
    request = {name: value for name, value in request.items() if name not in _NOT_FROM_TEMPLATE}
    request["overrides"] = _overrides(job, request, container)
    request["tags"] = _tags(job, request)
    _set_launch(request, job.task_definition)
    request |= {
        "cluster": request.get("cluster") or job.cluster,
        "count": 1,
        "networkConfiguration": dict(network) if network else None,
        "startedBy": job.started_by,
        "taskDefinition": definition,
    }
    complete = canonical(without_empty(request))
    check_overrides(complete.get("overrides", {}))
    return cast("dict[str, JsonValue]", complete)


def run_task_request(job: EcsJobConfiguration, key: str) -> dict[str, JsonValue]:
    """Return the body of RunTask. It is stored but for the token, so a repeat never differs: ECS would refuse it.

    Raises:
        JobRejected: The job was not prepared.
    """
    if not job.is_complete:
        raise JobRejected("ecs:push", "the job was not prepared", codes=["NotPrepared"])
    asked = {"startedBy": started_by_key(key), **job.task_run_request}
    return cast("dict[str, JsonValue]", canonical({**asked, "clientToken": key}))


def check_overrides(overrides: Mapping[str, Any]) -> None:
    """Refuse overrides that ECS would refuse for their length; names are shown, values are not.

    Raises:
        InvalidJobVariables: They are too long; the sentence has the length and the longest part.
    """
    length = len(compact(overrides))
    if length <= MAX_OVERRIDES:
        return
    parts = _lengths(overrides)
    biggest = max(parts, key=lambda name: parts[name])
    raise InvalidJobVariables(
        [
            f"what a run overrides has {length} characters as JSON, and ECS takes {MAX_OVERRIDES}; the longest is "
            f"{biggest} with {parts[biggest]}: keep it in S3 or in the image, or name it in `secrets`"
        ]
    )


def _lengths(overrides: Mapping[str, Any]) -> dict[str, int]:
    """Return the length of every part, named as who wrote it calls it; those of a sidecar with its name."""
    parts = {name: len(compact(value)) for name, value in overrides.items() if name != "containerOverrides"}
    for index, each in enumerate(containers(overrides, "containerOverrides")):
        sidecar = f"{each.get('name')}: " if index else ""  # The main container's is the first.
        for field, value in each.items():
            if field == "environment":
                parts |= {f"{sidecar}env.{pair['name']}": len(compact(pair)) for pair in value}
            else:
                parts[sidecar + _VARIABLES.get(field, field)] = len(compact(value))
    return parts


def _overrides(job: EcsJobConfiguration, request: Mapping[str, Any], main: str) -> dict[str, Any]:
    asked = request.get("overrides") or {}
    overrides: dict[str, Any] = {name: value for name, value in asked.items() if name not in ("cpu", "memory")}
    listed = containers(overrides, "containerOverrides")
    own = next((each for each in listed if each.get("name") in (main, None)), {})
    others = [_shaped(each) for each in listed if each is not own]
    overrides["containerOverrides"] = [_own_override(job, own, main), *others]
    if isinstance(storage := (overrides.get("ephemeralStorage") or {}).get("sizeInGiB"), str):
        overrides["ephemeralStorage"] = {"sizeInGiB": whole_number(storage)}
    definition = {} if given_definition(job) else job.task_definition
    try:
        size = _sizes(request, definition)
    except ValueError as error:
        raise InvalidJobVariables([str(error)]) from error
    # What the definition says already costs nothing of the 8,192 characters.
    return overrides | {name: value for name, value in size.items() if value != str(definition.get(name))}


def _own_override(job: EcsJobConfiguration, override: Mapping[str, Any], main: str) -> dict[str, Any]:
    """Return the main container's override. What the template says literally stands; the service's names win."""
    listed = as_map(override.get("environment"), "name", "value")
    # As the base class makes text of `env`, so that both say the same.
    template = {name: value if value is None else str(value) for name, value in listed.items()}
    service = {name: job.env[name] for name in SERVICE_ENV if name in job.env}
    command = override["command"] if override.get("command") else job.command_list()
    environment = job.env | template | service
    # What ECS reads from a secret is not also written into the request.
    shown = {name: value for name, value in environment.items() if name not in job.secret_variables}
    return _shaped({**override, "name": main, "command": command, "environment": shown})


def _shaped(override: Mapping[str, Any]) -> dict[str, Any]:
    shaped = dict(override)
    shaped["command"] = words(override.get("command"))
    shaped["environment"] = as_pairs(as_map(override.get("environment"), "name", "value"), "name", "value")
    shaped["environmentFiles"] = [
        {"type": "s3", "value": each} if isinstance(each, str) else each
        for each in override.get("environmentFiles") or ()
    ]
    needs = as_map(override.get("resourceRequirements"), "type", "value")
    shaped["resourceRequirements"] = as_pairs(needs, "type", "value")
    return shaped | {
        field: whole_number(shaped[field]) for field in ("cpu", "memory", "memoryReservation") if field in shaped
    }


def _sizes(request: Mapping[str, Any], definition: Mapping[str, Any]) -> dict[str, str]:
    """Return the task's `cpu` and `memory`; on Fargate both, where any is known."""
    overrides = request.get("overrides") or {}
    size = {name: overrides.get(name) or definition.get(name) for name in ("cpu", "memory")}
    given = {name: value for name, value in size.items() if value is not None}
    if given and definition and is_fargate(request, definition):
        given = dict(zip(("cpu", "memory"), fargate_size(size["cpu"], size["memory"]), strict=True))
    return {name: text(value) for name, value in given.items()}


def _tags(job: EcsJobConfiguration, request: Mapping[str, Any]) -> list[dict[str, str]]:
    template = as_map(request.get("tags"), "key", "value")
    ours = {name: value for name, value in job.labels.items() if name.startswith(OUR_LABELS)}
    name = {"Name": job.name} if job.name else {}
    pairs = tag_pairs({**name, **job.labels, **template, **ours})
    if len(pairs) > MAX_TAGS:
        raise InvalidJobVariables([f"labels: a task takes {MAX_TAGS} tags, and these are {len(pairs)}"])
    return pairs


def _set_launch(request: dict[str, Any], definition: Mapping[str, Any]) -> None:
    """Choose between launch type and capacity providers, of which ECS takes one (RunTask, API reference)."""
    launch = request.pop("launchType", None)
    if request.get("capacityProviderStrategy"):
        return
    if launch == "FARGATE_SPOT":
        request["capacityProviderStrategy"] = [{"capacityProvider": "FARGATE_SPOT", "weight": 1}]
    elif launch:
        request["launchType"] = launch
    elif is_fargate(request, definition):
        request["launchType"] = "FARGATE"
