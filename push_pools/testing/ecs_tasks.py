"""One ECS task: what is planned for it, what has happened to it, and how ECS shows it.

A task is a list of changes, each with its moment, drawn up when the task is
started. Its state is read off that list at the asker's time; nothing runs in
the background. What happens to it from outside replaces the changes to come.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Document = dict[str, Any]

Outcome = Literal[
    "exit",
    "oom",
    "killed",
    "null_exit",
    "spot",
    "termination_notice",
    "host",
    "image",
    "resource_init",
    "no_containers",
    "stuck",
]
FAILS_TO_START = frozenset({"image", "resource_init", "no_containers"})

PLAN_VARIABLE = "PUSH_POOLS_DOUBLE"
"""Environment variable by which a container asks for its own plan, as JSON."""


class ManualClock:
    """A clock that stands still until it is moved."""

    def __init__(self, start: datetime = datetime(2030, 1, 1, tzinfo=UTC)) -> None:
        self._now = start

    def now(self) -> datetime:
        """Return the moment the clock was last moved to."""
        return self._now

    def advance(self, by: timedelta | float) -> datetime:
        """Move the clock forward by a timedelta or by seconds, and return the new moment."""
        step = by if isinstance(by, timedelta) else timedelta(seconds=by)
        if step < timedelta():
            raise ValueError("time does not run backwards")
        self._now += step
        return self._now


class ShiftedClock:
    """Real time plus a shift that only grows, for a double that other processes drive."""

    def __init__(self) -> None:
        self._shift = timedelta()

    def now(self) -> datetime:
        """Return real time plus the shift."""
        return datetime.now(UTC) + self._shift

    def advance(self, by: timedelta | float) -> datetime:
        """Add a timedelta or seconds to the shift, and return the new moment."""
        step = by if isinstance(by, timedelta) else timedelta(seconds=by)
        if step < timedelta():
            raise ValueError("time does not run backwards")
        self._shift += step
        return self.now()


@dataclass(frozen=True)
class LifecycleTimes:
    """How long a task stays in each state on its way; 0 makes a step immediate."""

    provisioning_seconds: float = 0.0
    pending_seconds: float = 0.0
    stopping_seconds: float = 0.0
    """From StopTask until the containers have ended."""
    deprovisioning_seconds: float = 0.0


@dataclass(frozen=True)
class Ending:
    """How a task ends: the evidence DescribeTasks shows afterwards."""

    stop_code: str
    stopped_reason: str
    exit_code: int | None = None
    """Exit code of the main container; None is shown as no exit code at all."""
    container_reason: str | None = None
    shows_containers: bool = True


_EXITED = "Essential container in task exited"

# Stop codes are the enumeration TaskStopCode of the ECS API; reasons follow the
# page "Amazon ECS stopped tasks error messages".
ENDINGS: dict[str, Ending] = {
    "exit": Ending("EssentialContainerExited", _EXITED, 0),
    "oom": Ending("EssentialContainerExited", _EXITED, 137, "OutOfMemoryError: Container killed due to memory usage"),
    "killed": Ending("EssentialContainerExited", _EXITED, 137),
    "null_exit": Ending("EssentialContainerExited", _EXITED),
    "spot": Ending("SpotInterruption", "Your Spot Task was interrupted.", 143),
    "termination_notice": Ending(
        "TerminationNotice", "ECS is performing maintenance on the underlying infrastructure hosting the task.", 143
    ),
    "host": Ending("InfrastructureHealth", "Host EC2 (instance i-0123456789abcdef0) terminated."),
    "image": Ending(
        "TaskFailedToStart",
        "CannotPullContainerError: pull image manifest has been retried 1 time(s): failed to resolve ref: not found",
        container_reason="CannotPullContainerError: failed to resolve ref: not found",
    ),
    "resource_init": Ending(
        "TaskFailedToStart",
        "ResourceInitializationError: unable to pull secrets or registry auth: execution resource retrieval failed",
    ),
    "no_containers": Ending(
        "TaskFailedToStart", "Timeout waiting for network interface provisioning to complete.", shows_containers=False
    ),
}


@dataclass(frozen=True)
class TaskPlan:
    """What a task will do. A field left None takes what is usual for the outcome."""

    outcome: Outcome = "exit"
    exit_code: int | None = None
    seconds: float | None = None
    """How long the container runs; for a failure to start, how long ECS keeps trying."""
    stop_code: str | None = None
    stopped_reason: str | None = None
    container_reason: str | None = None
    sidecar_exit_code: int | None = 0
    """Exit code of every container but the main one; None is a null exit code."""
    stop_exit_code: int = 143
    """Exit code after StopTask: 143 for SIGTERM, 137 when SIGKILL was needed."""
    times: LifecycleTimes | None = None

    def __post_init__(self) -> None:
        if self.outcome not in get_args(Outcome):
            raise ValueError(f"unknown outcome {self.outcome!r}; one of {', '.join(get_args(Outcome))}")

    @property
    def ending(self) -> Ending:
        """The evidence this plan ends with. A task that is stuck has none of its own."""
        usual = ENDINGS.get(self.outcome, ENDINGS["exit"])
        asked: dict[str, Any] = {
            name: value
            for name in ("stop_code", "stopped_reason", "container_reason", "exit_code")
            if (value := getattr(self, name)) is not None
        }
        return replace(usual, **asked)


def plan_from_request(request: Document, definition: Document) -> TaskPlan:
    """Return the plan a container asks for by `PUSH_POOLS_DOUBLE`, else by a simple command.

    `true`, `false`, `sleep N` and `exit N`, also after `sh -c`, do what they say;
    anything else exits 0.
    """
    overrides = request.get("overrides", {}).get("containerOverrides", [])
    for container in [*overrides, *definition["containerDefinitions"]]:
        for variable in container.get("environment", []):
            if variable.get("name") == PLAN_VARIABLE:
                return plan_from_json(variable.get("value", "{}"))
    main = main_container(request, definition)
    override: Document = next((each for each in overrides if each.get("name") == main["name"]), {})
    return _plan_from_command(override.get("command") or main.get("command") or [])


def plan_from_json(text: str) -> TaskPlan:
    """Read a plan written as a JSON object with the fields of `TaskPlan`."""
    asked = json.loads(text)
    known = {each.name for each in fields(TaskPlan)}
    if not isinstance(asked, dict) or not asked.keys() <= known:
        raise ValueError(f"{PLAN_VARIABLE} is a JSON object with any of {', '.join(sorted(known))}")
    if isinstance(asked.get("times"), dict):
        asked["times"] = LifecycleTimes(**asked["times"])
    return TaskPlan(**asked)


def _plan_from_command(command: list[str]) -> TaskPlan:
    words = " ".join(command[2:] if command[:2] in (["sh", "-c"], ["/bin/sh", "-c"]) else command)
    exit_code, seconds = 0, 0.0
    for step in re.split(r"\s*(?:;|&&)\s*", words.strip()):
        if match := re.fullmatch(r"exit (\d{1,3})", step):
            exit_code = int(match[1])
            break
        if match := re.fullmatch(r"sleep (\d+(?:\.\d+)?)", step):
            seconds += float(match[1])
        exit_code = 1 if step in ("false", "/bin/false") else 0
    return TaskPlan(exit_code=exit_code, seconds=seconds or None)


def main_container(request: Document, definition: Document) -> Document:
    """Return the container whose exit ends the task: the first overridden essential one, else the first essential."""
    containers: list[Document] = definition["containerDefinitions"]
    essential = [each for each in containers if each.get("essential", True)] or containers
    overridden = {each.get("name") for each in request.get("overrides", {}).get("containerOverrides", [])}
    return next((each for each in essential if each["name"] in overridden), essential[0])


class Change(NamedTuple):
    """A moment at which a task's status changed."""

    at: datetime
    last_status: str
    desired_status: str


@dataclass
class Task:
    """A task that was really started."""

    arn: str
    cluster_arn: str
    definition: Document
    request: Document
    plan: TaskPlan
    times: LifecycleTimes
    changes: list[Change]
    ending: Ending
    number: int
    """Order of starting within one double."""
    tags: list[Document] = field(default_factory=list)
    reported: int = 0
    """How many changes have been handed out as events."""

    @property
    def created_at(self) -> datetime:
        """When RunTask accepted the task."""
        return self.changes[0].at

    def index(self, now: datetime) -> int:
        """Return the place in `changes` of the newest change that has happened."""
        return max((i for i, change in enumerate(self.changes) if change.at <= now), default=0)

    def at(self, now: datetime) -> Change:
        """Return the newest change that has happened."""
        return self.changes[self.index(now)]

    def stopped_at(self, now: datetime) -> datetime | None:
        """Return when the task reached STOPPED, or None while it has not."""
        change = self.at(now)
        return change.at if change.last_status == "STOPPED" else None

    def stop(self, now: datetime, reason: str) -> bool:
        """Do what StopTask does; False when the task is already on its way to STOPPED.

        A container that ends by itself within the grace time keeps its own exit code.
        """
        last = self.at(now)
        if last.desired_status == "STOPPED":
            return False
        ran = last.last_status == "RUNNING"
        over = now + timedelta(seconds=self.times.stopping_seconds if ran else 0)
        exit_code = self.plan.stop_exit_code if ran else None
        by_itself = next((each.at for each in self.changes if each.last_status == "DEPROVISIONING"), None)
        if ran and by_itself is not None and by_itself <= over:
            over, exit_code = by_itself, self.ending.exit_code
        self._replan(now, [Change(now, last.last_status, "STOPPED"), *ending_changes(over, self.times)])
        self.ending = Ending("UserInitiated", reason, exit_code)
        self.tags = []  # "Any tags associated with the task will be deleted" (API reference, StopTask).
        return True

    def end(self, now: datetime, ending: Ending, *, after_running: bool) -> bool:
        """End the task now with this evidence; False when its containers have already ended."""
        last = self.at(now)
        if last.desired_status == "STOPPED":
            return False
        started = [Change(now, "RUNNING", "RUNNING")] if after_running and last.last_status != "RUNNING" else []
        ran = bool(started) or last.last_status == "RUNNING"
        self._replan(now, [*started, *ending_changes(now, self.times)])
        self.ending = ending if ran else replace(ending, exit_code=None)
        return True

    def _replan(self, now: datetime, coming: list[Change]) -> None:
        self.changes = [*self.changes[: self.index(now) + 1], *coming]

    def document(self, now: datetime, *, with_tags: bool = False) -> Document:
        """Return the task as the API shows it at a moment."""
        return self.document_at(self.index(now), with_tags=with_tags)

    def document_at(self, index: int, *, with_tags: bool = False) -> Document:
        """Return the task as it was after a change; times are epoch seconds, as in the JSON protocol."""
        change = self.changes[index]
        task: Document = {
            "taskArn": self.arn,
            "clusterArn": self.cluster_arn,
            "taskDefinitionArn": self.definition["taskDefinitionArn"],
            "lastStatus": change.last_status,
            "desiredStatus": change.desired_status,
            "version": index + 1,
            "group": self.request.get("group", f"family:{self.definition['family']}"),
            "overrides": {"containerOverrides": [], "inferenceAcceleratorOverrides": []}
            | self.request.get("overrides", {}),
            "containers": self._containers(index),
            "attachments": self._attachments(change.last_status),
            "attributes": [{"name": "ecs.cpu-architecture", "value": "x86_64"}],
            "availabilityZone": f"{self.arn.split(':')[3]}a",
            "connectivity": "CONNECTED",
            "enableExecuteCommand": self.request.get("enableExecuteCommand", False),
            "healthStatus": "UNKNOWN",
            "tags": list(self.tags) if with_tags else [],
            **self._size(),
            **self.launch(),
            **self._moments(index),
        }
        if "startedBy" in self.request:
            task["startedBy"] = self.request["startedBy"]
        if change.desired_status == "STOPPED":
            task |= {"stopCode": self.ending.stop_code, "stoppedReason": self.ending.stopped_reason}
        return task

    def _size(self) -> Document:
        overrides = self.request.get("overrides", {})
        size = {name: overrides.get(name) or self.definition.get(name) for name in ("cpu", "memory")}
        return {name: str(value) for name, value in size.items() if value is not None}

    def launch(self) -> Document:
        """Return the members that say where the task runs."""
        strategy = self.request.get("capacityProviderStrategy")
        launch: Document = {"launchType": self.request.get("launchType", "EC2")}
        if strategy:
            provider = strategy[0]["capacityProvider"]
            launch = {"capacityProviderName": provider}
            if provider.startswith("FARGATE"):
                launch["launchType"] = "FARGATE"
        if launch.get("launchType") == "FARGATE":
            version = self.request.get("platformVersion", "LATEST")
            launch |= {"platformVersion": "1.4.0" if version == "LATEST" else version, "platformFamily": "Linux"}
        return launch

    def _moments(self, index: int) -> Document:
        happened = self.changes[: index + 1]
        moments = {
            "createdAt": self.created_at,
            "pullStartedAt": _first(happened, lambda each: each.last_status == "PENDING"),
            "pullStoppedAt": _first(happened, lambda each: each.last_status == "RUNNING"),
            "startedAt": _first(happened, lambda each: each.last_status == "RUNNING"),
            "stoppingAt": _first(happened, lambda each: each.desired_status == "STOPPED"),
            "executionStoppedAt": _first(happened, lambda each: each.last_status == "DEPROVISIONING"),
            "stoppedAt": _first(happened, lambda each: each.last_status == "STOPPED"),
        }
        return {name: round(at.timestamp(), 3) for name, at in moments.items() if at is not None}

    def _containers(self, index: int) -> list[Document]:
        ended = self.changes[index].last_status in ("DEPROVISIONING", "STOPPED")
        if ended and not self.ending.shows_containers:
            return []
        ran = any(change.last_status == "RUNNING" for change in self.changes[: index + 1])
        status = "STOPPED" if ended else "RUNNING" if ran else "PENDING"
        main = main_container(self.request, self.definition)["name"]
        return [
            self._container(each, status, is_main=each["name"] == main, ran=ran)
            for each in self.definition["containerDefinitions"]
        ]

    def _container(self, definition: Document, status: str, *, is_main: bool, ran: bool) -> Document:
        container: Document = {
            "containerArn": f"{self.arn.replace(':task/', ':container/')}/{self.identity(definition['name'])}",
            "taskArn": self.arn,
            "name": definition["name"],
            "image": definition["image"],
            "lastStatus": status,
            "networkInterfaces": [],
            "healthStatus": "UNKNOWN",
            "cpu": str(definition.get("cpu", 0)),
        }
        if ran:
            container["runtimeId"] = f"{self.arn.rpartition('/')[2]}-{self.number}"
        if status != "STOPPED":
            return container
        exit_code = self.ending.exit_code if is_main else self.plan.sidecar_exit_code if ran else None
        if exit_code is not None:
            container["exitCode"] = exit_code  # A null exit code is absent from the answer.
        if is_main and self.ending.container_reason is not None:
            container["reason"] = self.ending.container_reason
        return container

    def _attachments(self, last_status: str) -> list[Document]:
        if self.definition.get("networkMode") != "awsvpc":
            return []
        status = {"PROVISIONING": "PRECREATED", "STOPPED": "DELETED"}.get(last_status, "ATTACHED")
        subnets = self.request.get("networkConfiguration", {}).get("awsvpcConfiguration", {}).get("subnets", [""])
        details = [{"name": "subnetId", "value": subnets[0]}]
        return [
            {
                "id": self.identity("eni"),
                "type": "ElasticNetworkInterface",
                "status": status,
                "details": details,
            }
        ]

    def identity(self, part: str) -> str:
        """Return a stable id for a part of this task, in the shape ECS uses for such ids."""
        digest = hashlib.sha256(f"{self.arn}/{part}".encode()).hexdigest()
        return "-".join((digest[:8], digest[8:12], digest[12:16], digest[16:20], digest[20:32]))


def _first(changes: Iterable[Change], test: Callable[[Change], bool]) -> datetime | None:
    return next((change.at for change in changes if test(change)), None)


def planned_changes(start: datetime, plan: TaskPlan, times: LifecycleTimes, default_seconds: float) -> list[Change]:
    """Return everything that will happen to a task if nobody interferes."""
    changes = [Change(start, "PROVISIONING", "RUNNING")]
    if plan.outcome == "stuck":
        return changes
    at = start + timedelta(seconds=times.provisioning_seconds)
    changes.append(Change(at, "PENDING", "RUNNING"))
    at += timedelta(seconds=times.pending_seconds)
    if plan.outcome not in FAILS_TO_START:
        changes.append(Change(at, "RUNNING", "RUNNING"))
    at += timedelta(seconds=default_seconds if plan.seconds is None else plan.seconds)
    return [*changes, *ending_changes(at, times)]


def ending_changes(at: datetime, times: LifecycleTimes) -> list[Change]:
    """Return the changes from the end of the containers to STOPPED."""
    gone = at + timedelta(seconds=times.deprovisioning_seconds)
    return [Change(at, "DEPROVISIONING", "STOPPED"), Change(gone, "STOPPED", "STOPPED")]
