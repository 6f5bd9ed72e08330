"""Azure Container Instances without a socket: what each request does to the groups, and what is answered.

The promises, from "Update containers in Azure Container Instances", "Stop and start containers" and the REST reference:
a name is one group; a PUT over a running group without a change does nothing, and with one starts its containers
anew; **a PUT over a group that is over runs it again**; a group in transition answers 409.
"""

from __future__ import annotations

import copy
import json
import re
import threading
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from push_pools.testing.aci_groups import Document, Group, GroupPlan, GroupTimes, main_container, plan_of
from push_pools.testing.aci_rules import AciError, Subscription

if TYPE_CHECKING:
    from collections.abc import Callable

API_VERSION: Final = "2023-05-01"
_GROUPS: Final = re.compile(
    r"/subscriptions/(?P<subscription>[^/]+)/resourceGroups/(?P<resource_group>[^/]+)"
    r"(?:/providers/Microsoft\.ContainerInstance/containerGroups(?:/(?P<name>[^/]+)"
    r"(?:/(?:(?P<action>stop|start|restart)|containers/(?P<container>[^/]+)/logs))?)?)?",
    re.IGNORECASE,
)
_LOCATION: Final = re.compile(
    r"/subscriptions/(?P<subscription>[^/]+)/providers/Microsoft\.ContainerInstance/locations/(?P<location>[^/]+)"
    r"/(?P<what>operations|usages)(?:/(?P<id>[^/]+))?",
    re.IGNORECASE,
)


class Answer(NamedTuple):
    """What a request is answered."""

    status: int
    body: Document | None = None
    headers: dict[str, str] = {}  # noqa: RUF012 - never changed


class Started(NamedTuple):
    """One time that the containers of a group were started."""

    name: str
    at: datetime
    number: int
    """1 for the first start under this name; more is a job that was run again."""
    body: Document
    cause: str
    """`put`, `put over a finished group`, `put with changes`, `start` or `restart`."""


@dataclass
class AciModel:
    """The container groups of one subscription."""

    now: Callable[[], datetime]
    plan: Callable[[Document], GroupPlan | None] | None = None
    times: GroupTimes = field(default_factory=GroupTimes)
    default_seconds: float = 0.0
    visibility_delay_seconds: float = 0.0
    rules: Subscription = field(default_factory=Subscription)
    honours_if_none_match: bool = False
    """Whether `If-None-Match: *` refuses a PUT over a group. Azure's own answer is not documented."""
    retry_after_seconds: int = 0
    endpoint: str = "https://management.azure.com"

    def __post_init__(self) -> None:
        self.lock = threading.RLock()
        self.groups: dict[str, Group] = {}
        self.started: list[Started] = []
        self.counts: dict[str, int] = {}
        self._operations: dict[str, Group] = {}

    # -- requests

    def call(self, method: str, path: str, headers: dict[str, str] | None = None, body: Any = None) -> Answer:
        """Do one request and return its answer.

        Raises:
            AciError: It is refused.
        """
        with self.lock:
            self._forget_deleted()
            self.rules.check_token(headers or {})
            split = urlsplit(path)
            query = {name: values[-1] for name, values in parse_qs(split.query).items()}
            if "api-version" not in query:
                raise AciError("MissingApiVersionParameter", "The api-version query parameter is required.")
            if match := _GROUPS.fullmatch(unquote(split.path)):
                return self._of_group(method, match, query, headers or {}, body)
            if match := _LOCATION.fullmatch(unquote(split.path)):
                return self._of_location(match)
            raise AciError("InvalidRequestUri", f"Nothing is at {split.path}.", status=404)

    def _of_group(
        self, method: str, match: re.Match[str], query: dict[str, str], headers: dict[str, str], body: Any
    ) -> Answer:
        resource_group, name = match["resource_group"], match["name"]
        region = self.rules.region_of(resource_group)
        if "containerGroups".lower() not in match[0].lower():
            return Answer(200, {"name": resource_group, "location": region})
        if name is None:
            self.rules.check_allowed("read", match[0])
            listed = [group.document(self.now(), instance_view=False) for group in self._seen(resource_group)]
            return Answer(200, {"value": listed})
        if match["container"]:
            self.rules.check_allowed("logs", match[0])
            return self._logs(self._existing(resource_group, name), match["container"], query)
        if method == "POST":
            self.rules.check_allowed("stop", match[0])
            return self._act(self._existing(resource_group, name), str(match["action"]).lower())
        action = {"GET": "read", "PUT": "write", "PATCH": "write", "DELETE": "delete"}.get(method)
        if action is None:
            raise AciError("MethodNotAllowed", f"{method} is not allowed.", status=405)
        self.rules.check_allowed(action, match[0])
        match method:
            case "GET":
                return Answer(200, self._existing(resource_group, name).document(self.now()))
            case "PUT":
                return self._put(match, headers, body)
            case "PATCH":
                group = self._existing(resource_group, name)
                group.tags = dict(body.get("tags") or {})
                return Answer(200, group.document(self.now()))
            case _:
                return self._delete(resource_group, name)

    def _put(self, match: re.Match[str], headers: dict[str, str], body: Any) -> Answer:
        if not isinstance(body, dict):
            raise AciError("InvalidRequestContent", "The request content was invalid.")
        resource_group, name, now = match["resource_group"], match["name"], self.now()
        if not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", name):
            raise AciError("InvalidContainerGroupName", f"The container group name '{name}' is invalid.")
        there = self.groups.get(_key(resource_group, name))
        if there is not None and self.honours_if_none_match and headers.get("if-none-match") == "*":
            raise AciError("PreconditionFailed", "The container group exists.", status=412)
        if there is not None and there.is_moving(now):
            raise _moving(name)
        self.rules.check_group(body, self._cores(besides=there))
        if there is not None and there.runs(now) and there.body == body:
            return Answer(200, there.document(now))
        self.rules.count_create(now)
        cause = "put" if there is None else "put with changes" if there.runs(now) else "put over a finished group"
        group = self._begin(match, copy.deepcopy(body), there, cause)
        operation = f"{group.name}-{group.number}"
        self._operations[operation] = group
        where = f"{self.endpoint}/subscriptions/{match['subscription']}/providers/Microsoft.ContainerInstance"
        polled = f"{where}/locations/{body['location']}/operations/{operation}?api-version={API_VERSION}"
        headers = {"Azure-AsyncOperation": polled, "Retry-After": str(self.retry_after_seconds)}
        return Answer(201 if there is None else 200, group.document(now), headers)

    def _begin(self, match: re.Match[str], body: Document, there: Group | None, cause: str) -> Group:
        now = self.now()
        plan = (self.plan(body) if self.plan else None) or plan_of(body)
        group = Group(
            name=match["name"],
            resource_group=match["resource_group"],
            id=unquote(urlsplit(match[0]).path),
            body=body,
            plan=plan,
            times=plan.times or self.times,
            default_seconds=self.default_seconds,
            seen_from=there.seen_from if there else now + timedelta(seconds=self.visibility_delay_seconds),
            begun_at=now,
            tags=dict(body.get("tags") or {}),
        )
        self.groups[_key(group.resource_group, group.name)] = group
        self._note_start(group, cause)
        return group

    def _note_start(self, group: Group, cause: str) -> None:
        group.number = self.counts[group.name] = self.counts.get(group.name, 0) + 1
        self.started.append(Started(group.name, self.now(), group.number, group.body, cause))

    def _delete(self, resource_group: str, name: str) -> Answer:
        group = self._find(resource_group, name)
        if group is None:
            return Answer(204)
        if group.deleted_at is None:
            group.deleted_at = self.now()
        shown = group.document(self.now())
        if group.is_gone(self.now()):
            self._forget_deleted()
            return Answer(200, shown)
        return Answer(202, shown, {"Retry-After": str(self.retry_after_seconds)})

    def _act(self, group: Group, action: str) -> Answer:
        now = self.now()
        if group.is_moving(now):
            raise _moving(group.name)
        if action == "stop":
            if group.runs(now):
                group.stop_at = now
            return Answer(204)
        if action == "restart" or group.has_ended(now):
            group.begun_at, group.stop_at, group.forced_end = now, None, None
            self._note_start(group, action)
        return Answer(202 if action == "start" else 204)

    def _logs(self, group: Group, container: str, query: dict[str, str]) -> Answer:
        if main_container(group.body).get("name") != container:
            raise AciError("ContainerNotFound", f"The container '{container}' was not found.", status=404)
        tail = int(query["tail"]) if "tail" in query else None
        timestamps = query.get("timestamps", "").lower() == "true"
        return Answer(200, {"content": group.log(self.now(), tail=tail, timestamps=timestamps)})

    def _of_location(self, match: re.Match[str]) -> Answer:
        if match["what"] == "usages":
            cores, limit = self._cores(), self.rules.cores if self.rules.cores is not None else 1000
            name = {"value": "StandardCores", "localizedValue": "Standard Cores"}
            return Answer(200, {"value": [{"name": name, "unit": "Count", "currentValue": cores, "limit": limit}]})
        group = self._operations.get(str(match["id"]))
        if group is None:
            raise AciError("OperationNotFound", "There is no such operation.", status=404)
        state = group.provisioning_state(self.now())
        ended = {"Succeeded": "Succeeded", "Failed": "Failed", "Unhealthy": "Succeeded"}
        return Answer(200, {"id": match[0], "status": ended.get(state, "InProgress")})

    # -- groups

    def _find(self, resource_group: str, name: str) -> Group | None:
        group = self.groups.get(_key(resource_group, name))
        return group if group is not None and group.seen_from <= self.now() else None

    def _existing(self, resource_group: str, name: str) -> Group:
        group = self._find(resource_group, name)
        if group is None:
            resource = f"Microsoft.ContainerInstance/containerGroups/{name}"
            message = f"The Resource '{resource}' under resource group '{resource_group}' was not found."
            raise AciError("ResourceNotFound", message, status=404)
        return group

    def _seen(self, resource_group: str) -> list[Group]:
        listed = [group for group in self.groups.values() if group.resource_group.lower() == resource_group.lower()]
        return [group for group in listed if group.seen_from <= self.now()]

    def _cores(self, besides: Group | None = None) -> float:
        return sum(
            float(main_container(group.body)["properties"]["resources"]["requests"]["cpu"])
            for group in self.groups.values()
            if group is not besides and not group.has_ended(self.now())
        )

    def _forget_deleted(self) -> None:
        for key in [key for key, group in self.groups.items() if group.is_gone(self.now())]:
            del self.groups[key]

    # -- for tests

    def group(self, name: str) -> Group:
        """Return a group, whether a GET shows it yet or not.

        Raises:
            LookupError: There is none of that name.
        """
        with self.lock:
            self._forget_deleted()
            found = next((group for group in self.groups.values() if group.name == name), None)
        if found is None:
            raise LookupError(f"no container group {name!r}")
        return found

    def alive(self) -> list[str]:
        """Return the names of the groups that still cost, or still try to start."""
        with self.lock:
            self._forget_deleted()
            return [group.name for group in self.groups.values() if not group.has_ended(self.now())]

    def end(self, name: str, plan: GroupPlan) -> bool:
        """Let the container of a group end now, as the plan says. False if it is not running."""
        with self.lock:
            group = self.group(name)
            if not group.runs(self.now()):
                return False
            group.forced_end = (self.now(), plan)
            return True


def error_body(code: str, message: str) -> bytes:
    """Return the body of an error, as Azure Resource Manager writes it."""
    return json.dumps({"error": {"code": code, "message": message}}).encode()


def _key(resource_group: str, name: str) -> str:
    return f"{resource_group}/{name}".lower()


def _moving(name: str) -> AciError:
    message = f"The container group '{name}' is still transitioning, please retry later."
    return AciError("ContainerGroupTransitioning", message, status=409)
