"""The state of Amazon ECS in one account and region, as its API promises it.

Every operation reads the clock once and takes one lock. What a task does in
the meantime is read off its own list of changes (`ecs_tasks`).
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from push_pools.testing.ecs_account import Account
from push_pools.testing.ecs_definitions import (
    EcsError,
    TaskDefinitions,
    check_tags,
    client_error,
    invalid,
)
from push_pools.testing.ecs_requests import check_against_definition, check_text
from push_pools.testing.ecs_tasks import (
    Document,
    Ending,
    LifecycleTimes,
    Task,
    TaskPlan,
    plan_from_request,
    planned_changes,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

CLUSTER = re.compile(r"[A-Za-z0-9_-]{1,255}")
TASK_ID = re.compile(r"[0-9a-f]{32}")
PAGE = 100
DAY = timedelta(hours=24)
HOUR = timedelta(hours=1)
MAX_UNREPORTED = 50_000
SWEEP_AT_LEAST = 10_000


@dataclass(frozen=True)
class Refusal:
    """Makes one RunTask answer `failures` instead of tasks."""

    reason: str
    starts_anyway: bool = False
    """The tasks are started all the same, and the answer does not say so."""


@dataclass(frozen=True)
class StartedTask:
    """A task that was really started, kept for as long as the double lives."""

    task_arn: str
    cluster: str
    client_token: str | None
    started_by: str | None
    task_definition_arn: str
    created_at: datetime


@dataclass
class Token:
    """What a clientToken is bound to within a cluster."""

    created_at: datetime
    fingerprint: str
    tasks: list[Task]
    failures: list[Document]


@dataclass
class EcsModel:
    """Answers ECS operations. `call` is the only entrance for requests."""

    now: Callable[[], datetime] = field(default=lambda: datetime.now(UTC))
    region: str = "us-east-1"
    account: str = "123456789012"
    plan: Callable[[Document], TaskPlan | None] | None = None
    times: LifecycleTimes = field(default_factory=LifecycleTimes)
    default_seconds: float = 0.0
    visibility_delay_seconds: float = 0.0
    rules: Account = field(default_factory=Account)
    started_by_alone: bool = False
    """Refuse ListTasks with both startedBy and desiredStatus; the documentation calls startedBy the only filter."""

    def __post_init__(self) -> None:
        self.lock = threading.RLock()
        self.prefix = f"arn:aws:ecs:{self.region}:{self.account}"
        self.definitions = TaskDefinitions(self.prefix)
        self.clusters: dict[str, list[Document]] = {"default": []}
        self.tasks: dict[str, Task] = {}
        self.by_started_by: dict[str, list[Task]] = {}
        self.tokens: dict[tuple[str, str], Token] = {}
        self.started: list[StartedTask] = []
        self._unreported: deque[Task] = deque(maxlen=MAX_UNREPORTED)
        self._sweep_at = SWEEP_AT_LEAST
        self._operations: dict[str, Callable[[Document, datetime], Document]] = {
            "CreateCluster": self._create_cluster,
            "DescribeClusters": self._describe_clusters,
            "RegisterTaskDefinition": self._register_task_definition,
            "DescribeTaskDefinition": self._describe_task_definition,
            "DeregisterTaskDefinition": self._deregister_task_definition,
            "ListTaskDefinitions": self._list_task_definitions,
            "ListTaskDefinitionFamilies": self._list_task_definition_families,
            "DeleteTaskDefinitions": self._delete_task_definitions,
            "DescribeTasks": self._describe_tasks,
            "ListTasks": self._list_tasks,
            "StopTask": self._stop_task,
            "TagResource": self._tag_resource,
            "ListTagsForResource": self._list_tags_for_resource,
        }

    def call(self, operation: str, body: Document, *, refusal: Refusal | None = None) -> Document:
        """Perform one operation and return its answer.

        Raises:
            EcsError: ECS would answer with this error; nothing has changed.
        """
        with self.lock:
            now = self.now()
            self.rules.check_call(operation, body, self.account, now)
            if operation == "RunTask":
                return self._run_task(body, now, refusal)
            if operation not in self._operations:
                raise EcsError("UnknownOperationException", f"The double does not know the operation {operation}.")
            return self._operations[operation](body, now)

    # -- RunTask ---------------------------------------------------------------

    def _run_task(self, body: Document, now: datetime, refusal: Refusal | None) -> Document:
        cluster = self._cluster(body.get("cluster"))
        check_text(body)
        token = body.get("clientToken")
        if token is not None:
            bound = self._bound(cluster, token, now)
            if bound is not None:
                return _replay(bound, _fingerprint(body, cluster), now)
        definition = self._runnable(body)
        check_against_definition(body, definition)
        self.rules.check_run(body, definition)
        if (why := self.rules.over_quota(body, definition, self._running(now))) is not None:
            if not self.rules.vcpus_in_failures:
                raise client_error(why)
            refusal = Refusal(why)
        count = body.get("count", 1)
        failures: list[Document] = []
        if refusal is not None:
            arn = f"{self.prefix}:container-instance/{cluster}/{'0' * 32}"
            failures = [{"arn": arn, "reason": refusal.reason} for _ in range(count)]
        started = refusal is None or refusal.starts_anyway
        tasks = [self._start(body, cluster, definition, now) for _ in range(count)] if started else []
        shown = tasks if refusal is None else []
        if token is not None:
            self.tokens[cluster, token] = Token(now, _fingerprint(body, cluster), shown, failures)
        return {"tasks": [task.document_at(0, with_tags=True) for task in shown], "failures": failures}

    def _bound(self, cluster: str, token: str, now: datetime) -> Token | None:
        """Return what a token is bound to, forgetting it when its time is over.

        "Ensuring idempotency" (API reference): the lower of 24 hours and the
        lifetime of the last task that reached STOPPED plus one hour.
        """
        bound = self.tokens.get((cluster, token))
        if bound is not None and self._expired(bound, now):
            del self.tokens[cluster, token]
            return None
        return bound

    def _expired(self, bound: Token, now: datetime) -> bool:
        ends = bound.created_at + DAY
        stopped = [task.stopped_at(now) for task in bound.tasks]
        moments = [each for each in stopped if each is not None]
        if moments and len(moments) == len(stopped):
            ends = min(ends, max(moments) + HOUR)
        return now >= ends

    def _runnable(self, body: Document) -> Document:
        name = body.get("taskDefinition")
        if not name:
            raise invalid("TaskDefinition can not be blank.")
        definition = self.definitions.find(name)
        if definition is None:
            raise client_error("TaskDefinition not found.")
        if definition["status"] != "ACTIVE":
            raise client_error("TaskDefinition is inactive")
        return definition

    def _running(self, now: datetime) -> list[Document]:
        if self.rules.vcpus is None:
            return []
        return [task.document(now, with_tags=False) for task in self.tasks.values() if task.stopped_at(now) is None]

    def _start(self, body: Document, cluster: str, definition: Document, now: datetime) -> Task:
        plan = self.plan(body) if self.plan is not None else None
        plan = plan or plan_from_request(body, definition)
        times = plan.times or self.times
        number = len(self.started) + 1
        identity = hashlib.sha256(f"{self.prefix}/{number}".encode()).hexdigest()[:32]
        task = Task(
            arn=f"{self.prefix}:task/{cluster}/{identity}",
            cluster_arn=self._cluster_arn(cluster),
            definition=definition,
            request=body,
            plan=plan,
            times=times,
            changes=planned_changes(now, plan, times, self.default_seconds),
            ending=plan.ending,
            number=number,
            tags=self._tags_of(body, definition),
        )
        self._sweep(now)
        self.tasks[task.arn] = task
        self.by_started_by.setdefault(body.get("startedBy", ""), []).append(task)
        self._unreported.append(task)
        self.started.append(
            StartedTask(
                task_arn=task.arn,
                cluster=cluster,
                client_token=body.get("clientToken"),
                started_by=body.get("startedBy"),
                task_definition_arn=definition["taskDefinitionArn"],
                created_at=now,
            )
        )
        return task

    def _tags_of(self, body: Document, definition: Document) -> list[Document]:
        tags: dict[str, str] = {}
        if body.get("propagateTags") == "TASK_DEFINITION":
            tags |= {
                each["key"]: each.get("value", "") for each in self.definitions.tags[definition["taskDefinitionArn"]]
            }
        tags |= {each["key"]: each.get("value", "") for each in body.get("tags", [])}
        return [{"key": key, "value": value} for key, value in tags.items()]

    def _sweep(self, now: datetime) -> None:
        """Drop what nothing can ask for any more, so that long runs do not fill the memory."""
        if len(self.tasks) < self._sweep_at:
            return
        self.tasks = {arn: task for arn, task in self.tasks.items() if self._remembered(task, now)}
        self.tokens = {key: token for key, token in self.tokens.items() if not self._expired(token, now)}
        self.by_started_by = {}
        for task in self.tasks.values():
            self.by_started_by.setdefault(task.request.get("startedBy", ""), []).append(task)
        self._sweep_at = max(SWEEP_AT_LEAST, 2 * len(self.tasks))

    # -- Other task operations ---------------------------------------------------

    def _remembered(self, task: Task, now: datetime) -> bool:
        """Say whether a task is still known: stopped ones are for one hour (API reference, DescribeTasks)."""
        stopped = task.stopped_at(now)
        return stopped is None or now < stopped + HOUR

    def _visible(self, task: Task, now: datetime) -> bool:
        seen_from = task.created_at + timedelta(seconds=self.visibility_delay_seconds)
        return now >= seen_from and self._remembered(task, now)

    def _known(self, cluster: str, name: str) -> Task | None:
        arn = name if name.startswith("arn:") else f"{self.prefix}:task/{cluster}/{name}"
        task = self.tasks.get(arn)
        return task if task is not None and task.cluster_arn == self._cluster_arn(cluster) else None

    def _describe_tasks(self, body: Document, now: datetime) -> Document:
        cluster = self._cluster(body.get("cluster"))
        names = body.get("tasks", [])
        if not names:
            raise invalid("Tasks cannot be empty.")
        if len(names) > PAGE:
            raise invalid(f"Tasks can not have more than {PAGE} elements.")
        with_tags = "TAGS" in body.get("include", [])
        tasks, failures = [], []
        for name in dict.fromkeys(names):
            _check_task_id(name)
            task = self._known(cluster, name)
            if task is not None and self._visible(task, now):
                tasks.append(task.document(now, with_tags=with_tags))
            else:
                arn = name if name.startswith("arn:") else f"{self.prefix}:task/{cluster}/{name}"
                failures.append({"arn": arn, "reason": "MISSING"})
        return {"tasks": tasks, "failures": failures}

    def _list_tasks(self, body: Document, now: datetime) -> Document:
        cluster = self._cluster(body.get("cluster"))
        desired = body.get("desiredStatus", "RUNNING")
        if desired not in ("RUNNING", "PENDING", "STOPPED"):
            raise invalid(f"desiredStatus {desired} is not one of RUNNING, PENDING, STOPPED.")
        started_by = body.get("startedBy")
        alone = ["family", "serviceName", "containerInstance", "launchType", "daemonName"]
        if self.started_by_alone:
            alone.append("desiredStatus")
        if started_by is not None and any(name in body for name in alone):
            raise invalid("startedBy must be the only filter.")
        candidates: Iterable[Task] = self.tasks.values()
        if started_by is not None:
            candidates = self.by_started_by.get(started_by, [])
        cluster_arn = self._cluster_arn(cluster)
        found = [
            task
            for task in candidates
            if task.cluster_arn == cluster_arn
            and task.at(now).desired_status == desired
            and _passes(task, body)
            and self._visible(task, now)
        ]
        arns, token = _page([(task.number, task.arn) for task in found], body)
        return {"taskArns": arns} | token

    def _stop_task(self, body: Document, now: datetime) -> Document:
        cluster = self._cluster(body.get("cluster"))
        name = body.get("task", "")
        _check_task_id(name)
        task = self._known(cluster, name)
        if task is None or not self._remembered(task, now):
            raise invalid("The referenced task was not found.")
        task.stop(now, body.get("reason", "Task stopped by user"))
        return {"task": task.document(now, with_tags=True)}

    # -- Task definitions ----------------------------------------------------------

    def _register_task_definition(self, body: Document, now: datetime) -> Document:
        definition = self.definitions.register(body, now.timestamp())
        return {"taskDefinition": dict(definition), "tags": body.get("tags", [])}

    def _describe_task_definition(self, body: Document, now: datetime) -> Document:
        definition = self.definitions.find(body.get("taskDefinition", ""))
        if definition is None:
            raise client_error("Unable to describe task definition.")
        tags = self.definitions.tags[definition["taskDefinitionArn"]] if "TAGS" in body.get("include", []) else []
        return {"taskDefinition": dict(definition), "tags": list(tags)}

    def _deregister_task_definition(self, body: Document, now: datetime) -> Document:
        definition = self.definitions.deregister(body.get("taskDefinition", ""), now.timestamp())
        return {"taskDefinition": dict(definition)}

    def _list_task_definitions(self, body: Document, now: datetime) -> Document:
        arns = self.definitions.arns(family=body.get("familyPrefix"), status=body.get("status", "ACTIVE"))
        if body.get("sort") == "DESC":
            arns.reverse()
        page, token = _page(list(enumerate(arns, start=1)), body)
        return {"taskDefinitionArns": page} | token

    def _list_task_definition_families(self, body: Document, now: datetime) -> Document:
        families = self.definitions.names(prefix=body.get("familyPrefix", ""), status=body.get("status", "ALL"))
        page, token = _page(list(enumerate(families, start=1)), body)
        return {"families": page} | token

    def _delete_task_definitions(self, body: Document, now: datetime) -> Document:
        names = body.get("taskDefinitions", [])
        if not 1 <= len(names) <= 10:
            raise invalid("Between 1 and 10 task definitions can be deleted at once.")
        return {"taskDefinitions": [dict(self.definitions.delete(name)) for name in names], "failures": []}

    # -- Clusters and tags ---------------------------------------------------------

    def _cluster(self, name: str | None) -> str:
        """Return the short name of a cluster given by name or ARN; none means `default`."""
        if name is None:
            name = "default"
        short = name.removeprefix(f"{self.prefix}:cluster/")
        if short not in self.clusters and not self.rules.has_every_cluster:
            raise EcsError("ClusterNotFoundException", "Cluster not found.")
        return short

    def _cluster_arn(self, cluster: str) -> str:
        return f"{self.prefix}:cluster/{cluster}"

    def _create_cluster(self, body: Document, now: datetime) -> Document:
        name = body.get("clusterName", "default")
        if not CLUSTER.fullmatch(name):
            raise invalid("Cluster name contains invalid characters, or is longer than 255 characters.")
        check_tags(body.get("tags", []))
        self.clusters.setdefault(name, list(body.get("tags", [])))
        return {"cluster": self._cluster_document(name, now)}

    def _describe_clusters(self, body: Document, now: datetime) -> Document:
        clusters, failures = [], []
        for name in body.get("clusters") or ["default"]:
            short = name.removeprefix(f"{self.prefix}:cluster/")
            if short in self.clusters or self.rules.has_every_cluster:
                clusters.append(self._cluster_document(short, now))
            else:
                failures.append({"arn": self._cluster_arn(short), "reason": "MISSING"})
        return {"clusters": clusters, "failures": failures}

    def _cluster_document(self, name: str, now: datetime) -> Document:
        arn = self._cluster_arn(name)
        statuses = [task.at(now).last_status for task in self.tasks.values() if task.cluster_arn == arn]
        return {
            "clusterArn": arn,
            "clusterName": name,
            "status": "ACTIVE",
            "registeredContainerInstancesCount": 0,
            "runningTasksCount": statuses.count("RUNNING"),
            "pendingTasksCount": statuses.count("PROVISIONING") + statuses.count("PENDING"),
            "activeServicesCount": 0,
            "statistics": [],
            "tags": list(self.clusters[name]),
            "settings": [{"name": "containerInsights", "value": "disabled"}],
            "capacityProviders": ["FARGATE", "FARGATE_SPOT"],
            "defaultCapacityProviderStrategy": [],
        }

    def _tag_resource(self, body: Document, now: datetime) -> Document:
        kept = self._tags_at(body.get("resourceArn", ""), now)
        merged = {each["key"]: each for each in [*kept, *body.get("tags", [])]}
        check_tags(list(merged.values()))
        kept[:] = merged.values()
        return {}

    def _list_tags_for_resource(self, body: Document, now: datetime) -> Document:
        return {"tags": list(self._tags_at(body.get("resourceArn", ""), now))}

    def _tags_at(self, arn: str, now: datetime) -> list[Document]:
        task = self.tasks.get(arn)
        if task is not None and self._remembered(task, now):
            if task.at(now).last_status == "STOPPED":
                raise invalid("The specified task is stopped. Specify a running task and try again.")
            return task.tags
        if arn in self.definitions.tags:
            return self.definitions.tags[arn]
        cluster = arn.removeprefix(f"{self.prefix}:cluster/")
        if cluster in self.clusters and cluster != arn:
            return self.clusters[cluster]
        raise invalid("The specified resource was not found.")

    # -- What a test does to tasks, and asks about them ------------------------------

    def end(self, task_arn: str, ending: Ending, *, after_running: bool) -> bool:
        """End a task now with this evidence; False when its containers have already ended.

        Raises:
            LookupError: No such task was started, or it was forgotten.
        """
        with self.lock:
            task = self.tasks.get(task_arn)
            if task is None:
                raise LookupError(f"no task {task_arn}")
            return task.end(self.now(), ending, after_running=after_running)

    def document(self, task_arn: str) -> Document:
        """Return one task as it is now, visible to the API or not.

        Raises:
            LookupError: No such task was started, or it was forgotten.
        """
        with self.lock:
            now = self.now()
            task = self.tasks.get(task_arn)
            if task is None or not self._remembered(task, now):
                raise LookupError(f"no task {task_arn}")
            return task.document(now, with_tags=True)

    def alive(self) -> list[str]:
        """Return the ARNs of the tasks that have not reached STOPPED, in the order they were started."""
        with self.lock:
            now = self.now()
            return [arn for arn, task in self.tasks.items() if task.stopped_at(now) is None]

    def documents(self) -> list[Document]:
        """Return every remembered task as it is now, visible to the API or not."""
        with self.lock:
            now = self.now()
            return [task.document(now, with_tags=True) for task in self.tasks.values() if self._remembered(task, now)]

    def new_events(self) -> list[Document]:
        """Return an "ECS Task State Change" event for every change since the last call, oldest first."""
        with self.lock:
            now = self.now()
            found: list[tuple[datetime, int, int, Task]] = []
            waiting: list[Task] = []
            for task in self._unreported:
                newest = task.index(now)
                found += [(task.changes[i].at, task.number, i, task) for i in range(task.reported, newest + 1)]
                task.reported = newest + 1
                if task.changes[newest].last_status != "STOPPED":
                    waiting.append(task)
            self._unreported = deque(waiting, maxlen=MAX_UNREPORTED)
            found.sort(key=lambda each: each[:3])
            return [self._event(task, index) for _, _, index, task in found]

    def _event(self, task: Task, index: int) -> Document:
        """Return the envelope of the page "Amazon ECS task state change events" (developer guide).

        Tags are not part of an event, and its times are ISO strings.
        """
        detail = task.document_at(index)
        del detail["tags"]
        for name in [name for name in detail if name.endswith("At")]:
            detail[name] = _iso(datetime.fromtimestamp(detail[name], UTC))
        at = _iso(task.changes[index].at)
        return {
            "version": "0",
            "id": task.identity(f"event/{index}"),
            "detail-type": "ECS Task State Change",
            "source": "aws.ecs",
            "account": self.account,
            "time": f"{at[:19]}Z",
            "region": self.region,
            "resources": [task.arn],
            "detail": detail | {"updatedAt": at},
        }


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _fingerprint(body: Document, cluster: str) -> str:
    rest = {name: value for name, value in body.items() if name not in ("clientToken", "cluster")}
    return json.dumps([cluster, rest], sort_keys=True)


def _replay(bound: Token, fingerprint: str, now: datetime) -> Document:
    """Answer a repeated clientToken ("RunTask retry rules and responses", Ensuring idempotency)."""
    if fingerprint != bound.fingerprint:
        raise EcsError(
            "ConflictException",
            "The provided clientToken is already in use with a different RunTask request.",
            resourceIds=[task.arn for task in bound.tasks],
        )
    tasks = []
    for task in bound.tasks:
        document = task.document(now, with_tags=True)
        if document["lastStatus"] == "STOPPED":
            document = {name: document[name] for name in ("taskArn", "lastStatus", "desiredStatus")}
        tasks.append(document)
    old = now >= bound.created_at + HOUR
    # "Failures that are over an hour old only include the number of failed tasks."
    return {"tasks": tasks, "failures": [{} if old else dict(each) for each in bound.failures]}


def _passes(task: Task, body: Document) -> bool:
    if {"serviceName", "containerInstance", "daemonName"} & body.keys():
        return False  # Tasks started by RunTask on Fargate belong to none of these.
    return body.get("family") in (None, task.definition["family"]) and body.get("launchType") in (
        None,
        task.launch().get("launchType"),
    )


def _check_task_id(name: str) -> None:
    if not TASK_ID.fullmatch(name.rpartition("/")[2]):
        raise invalid("taskId length should be one of [32,36]")


def _page(items: list[tuple[int, str]], body: Document) -> tuple[list[str], dict[str, Any]]:
    """Return one page of (number, value), and the token of the next one.

    The token names the last number shown, so that a page is not shifted by what
    appears or disappears between two calls. Items come ordered by number.
    """
    size = body.get("maxResults", PAGE)
    if not 1 <= size <= PAGE:
        raise invalid(f"maxResults must be between 1 and {PAGE}.")
    after = 0
    if "nextToken" in body:
        try:
            after = int(base64.b64decode(body["nextToken"], validate=True))
        except ValueError:
            raise invalid("Invalid token.") from None
    rest = [item for item in items if item[0] > after]
    page = rest[:size]
    token = {"nextToken": base64.b64encode(str(page[-1][0]).encode()).decode()} if len(rest) > size else {}
    return [value for _, value in page], token
