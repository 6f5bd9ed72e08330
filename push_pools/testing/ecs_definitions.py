"""Task definitions as Amazon ECS keeps them: a family, its revisions, and what ECS refuses.

The rules are those of the pages RegisterTaskDefinition (API reference) and
"Amazon ECS task definition parameters for Fargate" (developer guide).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from push_pools.testing.ecs_tasks import Document

FAMILY = re.compile(r"[A-Za-z0-9_-]{1,255}")
MAX_CONTAINERS = 10
MAX_DEFINITION_BYTES = 65_536
MAX_TAGS = 50

_GB = 1024
# CPU units → memory in MiB that Fargate accepts with them ("Task size", developer guide).
FARGATE_SIZES: dict[int, frozenset[int]] = {
    256: frozenset({512, _GB, 2 * _GB}),
    512: frozenset(range(_GB, 4 * _GB + 1, _GB)),
    1024: frozenset(range(2 * _GB, 8 * _GB + 1, _GB)),
    2048: frozenset(range(4 * _GB, 16 * _GB + 1, _GB)),
    4096: frozenset(range(8 * _GB, 30 * _GB + 1, _GB)),
    8192: frozenset(range(16 * _GB, 60 * _GB + 1, 4 * _GB)),
    16384: frozenset(range(32 * _GB, 120 * _GB + 1, 8 * _GB)),
}


class EcsError(Exception):
    """An error answer of ECS: its code, its message, its HTTP status and any further members."""

    def __init__(self, code: str, message: str, *, status: int = 400, **members: Any) -> None:
        self.code, self.message, self.status, self.members = code, message, status, members
        super().__init__(f"{code}: {message}")


def client_error(message: str) -> EcsError:
    """Return a ClientException."""
    return EcsError("ClientException", message)


def invalid(message: str) -> EcsError:
    """Return an InvalidParameterException."""
    return EcsError("InvalidParameterException", message)


def check_tags(tags: list[Document]) -> None:
    """Refuse more tags, or longer ones, than a resource may have (API reference, Tag)."""
    keys = [each.get("key", "") for each in tags]
    if len(keys) > MAX_TAGS:
        raise invalid(f"Tags can not have more than {MAX_TAGS} elements.")
    if len(set(keys)) != len(keys):
        raise invalid("Duplicate tag keys found. Tag keys must be unique.")
    for each in tags:
        if not 1 <= len(each.get("key", "")) <= 128 or len(each.get("value", "")) > 256:
            raise invalid("Tag keys have 1 to 128 characters, and tag values at most 256.")
        if each["key"].lower().startswith("aws:"):
            raise invalid("Tag keys must not begin with aws:.")


def check_fargate_size(cpu: object, memory: object) -> None:
    """Refuse a pair of task CPU and memory that Fargate has no configuration for."""
    try:
        sizes = FARGATE_SIZES[_units(cpu, "vcpu", 1024)]
        fits = _units(memory, "gb", _GB) in sizes
    except (KeyError, ValueError):
        fits = False
    if not fits:
        raise client_error(f"No Fargate configuration exists for given values: {cpu} CPU, {memory} memory.")


def _units(value: object, unit: str, factor: int) -> int:
    text = str(value).strip().lower()
    if text.endswith(unit):
        return int(float(text.removesuffix(unit)) * factor)
    return int(text)


def check_definition(asked: Document) -> None:
    """Refuse what RegisterTaskDefinition refuses."""
    if not FAMILY.fullmatch(asked.get("family", "")):
        raise client_error("Family contains invalid characters or is not 1 to 255 characters long.")
    length = len(json.dumps(asked, separators=(",", ":")).encode())
    if length > MAX_DEFINITION_BYTES:
        raise client_error(f"Actual length: '{length}'. Max allowed length is '{MAX_DEFINITION_BYTES}' bytes.")
    _check_containers(asked)
    check_tags(asked.get("tags", []))
    if "FARGATE" in asked.get("requiresCompatibilities", []):
        _check_fargate(asked)


def _check_containers(asked: Document) -> None:
    containers = asked.get("containerDefinitions", [])
    if not containers:
        raise client_error("Container list cannot be empty.")
    if len(containers) > MAX_CONTAINERS:
        raise client_error(f"Too many containers. A task definition can have at most {MAX_CONTAINERS}.")
    for each in containers:
        if not FAMILY.fullmatch(each.get("name") or ""):
            raise client_error("Container.name contains invalid characters, or is empty.")
        if not each.get("image"):
            raise client_error("Container.image should not be null or empty.")
        if "memory" not in asked and "memory" not in each and "memoryReservation" not in each:
            raise client_error(
                f"Invalid setting for container '{each['name']}'. "
                "At least one of 'memory' or 'memoryReservation' must be specified."
            )
    names = [each["name"] for each in containers]
    if len(set(names)) != len(names):
        raise client_error("Container names must be unique within a task definition.")
    if not any(each.get("essential", True) for each in containers):
        raise client_error("At least one container must be essential.")


def _check_fargate(asked: Document) -> None:
    if asked.get("networkMode") != "awsvpc":
        raise client_error("Fargate only supports network mode 'awsvpc'.")
    if "cpu" not in asked or "memory" not in asked:
        raise client_error("Fargate requires that 'cpu' and 'memory' be defined at the task level.")
    check_fargate_size(asked["cpu"], asked["memory"])
    for each in asked["containerDefinitions"]:
        logs = each.get("logConfiguration", {})
        if logs.get("logDriver") != "awslogs":
            continue
        if "executionRoleArn" not in asked:
            raise client_error(
                "Fargate requires task definition to have execution role ARN to support log driver awslogs."
            )
        if "awslogs-stream-prefix" not in logs.get("options", {}):
            raise client_error("Log driver awslogs requires options: awslogs-stream-prefix.")


@dataclass
class TaskDefinitions:
    """Every family and its revisions, in the order they were registered."""

    prefix: str
    """`arn:aws:ecs:<region>:<account>`."""
    families: dict[str, list[Document]] = field(default_factory=dict)
    tags: dict[str, list[Document]] = field(default_factory=dict)

    def register(self, asked: Document, registered_at: float) -> Document:
        """Keep a new revision, also when the same definition is registered again."""
        check_definition(asked)
        family = asked["family"]
        revisions = self.families.setdefault(family, [])
        number = len(revisions) + 1
        containers = [_with_defaults(each) for each in asked["containerDefinitions"]]
        fargate = "FARGATE" in asked.get("requiresCompatibilities", [])
        definition = {
            **{name: value for name, value in asked.items() if name != "tags"},
            "containerDefinitions": containers,
            "taskDefinitionArn": f"{self.prefix}:task-definition/{family}:{number}",
            "revision": number,
            "status": "ACTIVE",
            "volumes": asked.get("volumes", []),
            "placementConstraints": asked.get("placementConstraints", []),
            "compatibilities": ["EC2", "FARGATE"] if fargate else ["EXTERNAL", "EC2"],
            "registeredAt": registered_at,
        }
        revisions.append(definition)
        self.tags[definition["taskDefinitionArn"]] = list(asked.get("tags", []))
        return definition

    def find(self, name: str) -> Document | None:
        """Return the revision for `family`, `family:revision` or an ARN; a family means its newest active one."""
        if name.startswith("arn:") and not name.startswith(f"{self.prefix}:"):
            return None
        family, _, number = name.rpartition("task-definition/")[2].partition(":")
        revisions = self.families.get(family, [])
        if not number:
            return next((each for each in reversed(revisions) if each["status"] == "ACTIVE"), None)
        return next((each for each in revisions if str(each["revision"]) == number), None)

    def deregister(self, name: str, deregistered_at: float) -> Document:
        """Mark one revision INACTIVE; it stays readable."""
        if not re.search(r":\d+$", name):
            raise invalid("Invalid revision number. Number: null")
        definition = self.find(name)
        if definition is None:
            raise client_error("Unable to describe task definition.")
        if definition["status"] != "ACTIVE":
            raise client_error(
                "The specified task definition is inactive. You can only deregister active task definitions."
            )
        definition |= {"status": "INACTIVE", "deregisteredAt": deregistered_at}
        return definition

    def delete(self, name: str) -> Document:
        """Begin to delete a revision that is INACTIVE already (DeleteTaskDefinitions, API reference)."""
        definition = self.find(name)
        if definition is None or definition["status"] != "INACTIVE":
            raise invalid(f"{name} is not an inactive task definition: deregister it first.")
        definition["status"] = "DELETE_IN_PROGRESS"
        return definition

    def names(self, *, prefix: str, status: str) -> list[str]:
        """Return the families that begin so and have revisions; `ACTIVE` are those with an active one."""
        wanted = {"ALL": {"ACTIVE", "INACTIVE"}}.get(status, {status})
        return [
            family
            for family, revisions in sorted(self.families.items())
            if family.startswith(prefix) and any(each["status"] in wanted for each in revisions)
        ]

    def arns(self, *, family: str | None, status: str) -> list[str]:
        """Return the ARNs of revisions with a status, by family name and revision."""
        return [
            each["taskDefinitionArn"]
            for name, revisions in sorted(self.families.items())
            if family is None or name == family
            for each in revisions
            if each["status"] == status
        ]


def _with_defaults(container: Document) -> Document:
    # ECS echoes these although nobody wrote them, which is why comparing an echo with one's own text fails.
    empty: dict[str, list[Document]] = {
        name: [] for name in ("environment", "mountPoints", "portMappings", "systemControls", "volumesFrom")
    }
    return {**empty, "cpu": 0, "essential": True, **container}
