"""One container group of Azure: what is planned for it, what has happened to it, and how a GET shows it.

A group's state is read off its moments at the asker's time; nothing runs in the background. What happens from outside
(a stop, a kill, a PUT) changes the moments to come.
"""

from __future__ import annotations

import copy
import json
import re
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from typing import Any, Final, Literal, get_args

Document = dict[str, Any]

Outcome = Literal["exit", "oom", "killed", "null_exit", "waiting", "image", "provision_failed", "unhealthy"]
NEVER_RUNS: Final = frozenset({"waiting", "image", "provision_failed", "unhealthy"})
"""Outcomes of groups whose container never begins, and which go on trying until they are deleted."""

PLAN_VARIABLE: Final = "PUSH_POOLS_DOUBLE"
"""Environment variable by which a container asks for its own plan, as JSON."""
STOPPED_LOG_BYTES: Final = 16 * 1024
"""How much output is kept of a container that is over ("Retrieve container logs and events")."""
PROVISIONING_SECONDS: Final = 1800.0
"""After which a group that has not begun to run is said to have failed; it goes on trying all the same."""


@dataclass(frozen=True)
class GroupTimes:
    """How long a group takes for each step; 0 makes it immediate."""

    pending_seconds: float = 0.0
    creating_seconds: float = 0.0
    """While the image is pulled."""
    stopping_seconds: float = 0.0
    deleting_seconds: float = 0.0


@dataclass(frozen=True)
class GroupPlan:
    """What the container of a group will do."""

    outcome: Outcome = "exit"
    exit_code: int = 0
    seconds: float | None = None
    """How long the container runs; None takes the double's default."""
    output: tuple[str, ...] = ()
    stop_exit_code: int = 143
    """Exit code after a stop: 143 for SIGTERM, 137 when it was killed, 0 for one that ends well."""
    times: GroupTimes | None = None

    def __post_init__(self) -> None:
        if self.outcome not in get_args(Outcome):
            raise ValueError(f"unknown outcome {self.outcome!r}; one of {', '.join(get_args(Outcome))}")


def plan_of(body: Document) -> GroupPlan:
    """Return the plan that a container asks for by `PUSH_POOLS_DOUBLE`, else by a simple command.

    `true`, `false`, `sleep N`, `echo TEXT` and `exit N`, also after `sh -c`, do what they say; anything else exits 0.
    """
    container = main_container(body).get("properties", {})
    for variable in container.get("environmentVariables") or ():
        if variable.get("name") == PLAN_VARIABLE:
            return plan_from_json(variable.get("value", "{}"))
    return _plan_of_command(container.get("command") or [])


def plan_from_json(text: str) -> GroupPlan:
    """Read a plan written as a JSON object with the fields of `GroupPlan`."""
    asked = json.loads(text)
    known = {each.name for each in fields(GroupPlan)}
    if not isinstance(asked, dict) or not asked.keys() <= known:
        raise ValueError(f"{PLAN_VARIABLE} is a JSON object with any of {', '.join(sorted(known))}")
    if isinstance(asked.get("times"), dict):
        asked["times"] = GroupTimes(**asked["times"])
    if "output" in asked:
        asked["output"] = tuple(asked["output"])
    return GroupPlan(**asked)


def _plan_of_command(command: list[str]) -> GroupPlan:
    words = " ".join(command[2:] if command[:2] in (["sh", "-c"], ["/bin/sh", "-c"]) else command)
    exit_code, seconds, output = 0, None, []
    for step in re.split(r"\s*(?:;|&&)\s*", words.strip()):
        if match := re.fullmatch(r"exit (\d{1,3})", step):
            exit_code = int(match[1])
            break
        if match := re.fullmatch(r"sleep (\d+(?:\.\d+)?)", step):
            seconds = (seconds or 0.0) + float(match[1])
        if match := re.fullmatch(r"echo (.*)", step):
            output.append(match[1])
        exit_code = 1 if step in ("false", "/bin/false") else 0
    return GroupPlan(exit_code=exit_code, seconds=seconds, output=tuple(output))


def main_container(body: Document) -> Document:
    """Return the first container of a group; an empty one if it has none."""
    containers = body.get("properties", {}).get("containers") or [{}]
    first: Document = containers[0]
    return first


@dataclass
class Group:
    """A container group, from its PUT until it is deleted."""

    name: str
    resource_group: str
    id: str
    body: Document
    plan: GroupPlan
    times: GroupTimes
    default_seconds: float
    seen_from: datetime
    begun_at: datetime
    number: int = 1
    """Which of the runs of this name it is: 2 means that the containers were started again."""
    stop_at: datetime | None = None
    deleted_at: datetime | None = None
    forced_end: tuple[datetime, GroupPlan] | None = None
    tags: Document = field(default_factory=dict)

    # -- moments

    @property
    def creating_at(self) -> datetime:
        return self.begun_at + timedelta(seconds=self.times.pending_seconds)

    @property
    def running_at(self) -> datetime | None:
        """When the container begins; None if it never does."""
        if self.plan.outcome in NEVER_RUNS:
            return None
        return self.creating_at + timedelta(seconds=self.times.creating_seconds)

    @property
    def own_end(self) -> datetime | None:
        """When the container ends, but for a stop."""
        if self.running_at is None:
            return None
        seconds = self.plan.seconds if self.plan.seconds is not None else self.default_seconds
        planned = self.running_at + timedelta(seconds=seconds)
        return min(planned, max(self.forced_end[0], self.running_at)) if self.forced_end else planned

    @property
    def stopped_at(self) -> datetime | None:
        """When a stop takes effect; None without one, or if the container ended first."""
        if self.stop_at is None:
            return None
        effective = self.stop_at + timedelta(seconds=self.times.stopping_seconds)
        return effective if self.own_end is None or effective < self.own_end else None

    @property
    def ended_at(self) -> datetime | None:
        return self.stopped_at or self.own_end

    def is_gone(self, now: datetime) -> bool:
        """Whether the deletion is over."""
        return self.deleted_at is not None and now >= self.deleted_at + timedelta(seconds=self.times.deleting_seconds)

    def has_ended(self, now: datetime) -> bool:
        """Whether the container is over; one that never began goes on trying."""
        return self.ended_at is not None and self.ended_at <= now

    def runs(self, now: datetime) -> bool:
        """Whether the container runs."""
        return self.running_at is not None and self.running_at <= now and not self.has_ended(now)

    def is_moving(self, now: datetime) -> bool:
        """Whether ACI answers that the group is in transition."""
        if self.deleted_at is not None:
            return True
        if self.stop_at is not None and not self.has_ended(now):
            return True
        return self.running_at is None or now < self.running_at

    # -- how it is shown

    def document(self, now: datetime, *, instance_view: bool = True) -> Document:
        """Return what a GET answers: what was put, without its secrets, and how it is."""
        properties = _without_secrets(self.body.get("properties", {}))
        properties["provisioningState"] = self.provisioning_state(now)
        if instance_view and now >= self.creating_at:
            properties["instanceView"] = {"events": [], "state": self.state(now)}
            for index, container in enumerate(properties.get("containers") or ()):
                container.setdefault("properties", {})["instanceView"] = self._view(now, is_main=index == 0)
        shown: Document = {name: copy.deepcopy(self.body[name]) for name in ("identity", "zones") if name in self.body}
        return {
            **shown,
            "id": self.id,
            "name": self.name,
            "type": "Microsoft.ContainerInstance/containerGroups",
            "location": self.body.get("location"),
            "tags": dict(self.tags),
            "properties": properties,
        }

    def provisioning_state(self, now: datetime) -> str:
        """Return the state of the resource, which says little of the container."""
        if self.deleted_at is not None:
            return "Deleting"
        if now < self.creating_at:
            return "Pending"
        if self.running_at is not None:
            return "Succeeded" if now >= self.running_at else "Creating"
        tries_end = self.creating_at + timedelta(seconds=self.times.creating_seconds)
        if self.plan.outcome == "provision_failed" and now >= tries_end:
            return "Failed"
        if now >= self.begun_at + timedelta(seconds=PROVISIONING_SECONDS):
            return "Failed"
        return "Unhealthy" if self.plan.outcome == "unhealthy" else "Creating"

    def state(self, now: datetime) -> str:
        """Return the state of the group's instance view."""
        if not self.has_ended(now):
            return "Running" if self.runs(now) else "Pending"
        if self.stopped_at is not None:
            return "Stopped"
        return "Succeeded" if self.exit_code() == 0 else "Failed"

    def exit_code(self) -> int | None:
        """Return the exit code that the end shows."""
        if self.stopped_at is not None:
            return self.plan.stop_exit_code
        plan = self._ending()
        return {"oom": 137, "killed": 137, "null_exit": None}.get(plan.outcome, plan.exit_code)

    def _ending(self) -> GroupPlan:
        if self.forced_end is not None and self.own_end is not None and self.own_end >= self.forced_end[0]:
            return self.forced_end[1]
        return self.plan

    def _view(self, now: datetime, *, is_main: bool) -> Document:
        view: Document = {"restartCount": 0, "currentState": self._current(now), "events": []}
        if is_main:
            view["events"] = self._events(now)
        return view

    def _current(self, now: datetime) -> Document:
        if self.running_at is None:
            detail = {"image": "ImagePullBackOff", "waiting": "CrashLoopBackOff"}.get(self.plan.outcome, "")
            return {"state": "Waiting", "detailStatus": detail}
        if now < self.running_at:
            return {"state": "Waiting", "detailStatus": "Waiting"}
        if not self.has_ended(now):
            return {"state": "Running", "startTime": _text(self.running_at), "detailStatus": ""}
        assert self.ended_at is not None
        code = self.exit_code()
        oom = self.stopped_at is None and self._ending().outcome == "oom"
        ended: Document = {
            "state": "Terminated",
            "startTime": _text(self.running_at),
            "finishTime": _text(self.ended_at),
            "detailStatus": "OOMKilled" if oom else "Completed" if code == 0 else "Error",
        }
        return ended if code is None else {**ended, "exitCode": code}

    def _events(self, now: datetime) -> list[Document]:
        image = main_container(self.body).get("properties", {}).get("image", "")
        events = [_event("Normal", "Pulling", f'pulling image "{image}"', self.creating_at)]
        if self.plan.outcome == "image":
            message = f'Failed to pull image "{image}": rpc error: code = Unknown desc = i/o timeout'
            return [*events, _event("Warning", "Failed", message, self.creating_at)]
        if self.plan.outcome == "waiting":
            message = "Error: failed to create containerd task: exec: no such file or directory"
            return [*events, _event("Warning", "Failed", message, self.creating_at)]
        if self.running_at is not None and now >= self.running_at:
            events.append(_event("Normal", "Pulled", f'Successfully pulled image "{image}"', self.running_at))
            events.append(_event("Normal", "Started", "Started container", self.running_at))
            if self.stopped_at is not None and self.has_ended(now):
                events.append(_event("Normal", "Killing", "Killing container", self.stopped_at))
        return events

    def log(self, now: datetime, *, tail: int | None = None, timestamps: bool = False) -> str:
        """Return what the container has written; of one that is over the last 16 KB."""
        if self.running_at is None or now < self.running_at:
            return ""
        moment = self.running_at
        lines = [
            f"{_text(moment + timedelta(milliseconds=index))} {line}" if timestamps else line
            for index, line in enumerate(self.plan.output)
        ]
        if self.has_ended(now):
            while lines and sum(len(line) + 1 for line in lines) > STOPPED_LOG_BYTES:
                lines = lines[1:]
        lines = lines[-tail:] if tail else lines
        return "".join(f"{line}\n" for line in lines)


def _event(kind: str, name: str, message: str, at: datetime) -> Document:
    moment = _text(at)
    return {
        "count": 1,
        "firstTimestamp": moment,
        "lastTimestamp": moment,
        "name": name,
        "message": message,
        "type": kind,
    }


def _text(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


def _without_secrets(properties: Document) -> Document:
    shown: Document = copy.deepcopy(properties)
    for container in shown.get("containers") or ():
        for variable in container.get("properties", {}).get("environmentVariables") or ():
            variable.pop("secureValue", None)
    for login in shown.get("imageRegistryCredentials") or ():
        login.pop("password", None)
    return shown
