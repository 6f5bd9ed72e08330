"""ECS behind the real adapter: its double's model, called without a socket through a client like boto3's.

What goes wrong on the way is drawn as for the other clouds; what ECS remembers of tokens and tasks is the model's.
"""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest import mock
from uuid import UUID

from botocore.exceptions import ClientError, ConnectTimeoutError, ReadTimeoutError
from pydantic import PrivateAttr

from push_pools.credentials.aws import AwsCredentials
from push_pools.domain.jobs import default_base_job_template
from push_pools.domain.runs import JobHandle
from push_pools.platforms import ecs
from push_pools.platforms.ecs import EcsPlatform
from push_pools.platforms.ecs_config import EcsJobConfiguration, EcsVariables
from push_pools.platforms.ecs_observe import observation, run_of
from push_pools.ports import PlatformContext
from push_pools.testing.ecs_definitions import EcsError
from push_pools.testing.ecs_double import CAPACITY
from push_pools.testing.ecs_model import EcsModel, Refusal
from push_pools.testing.ecs_tasks import LifecycleTimes, Task, TaskPlan
from push_pools.testing.fake_platform import Plan
from tests.simulation.clouds import CANARY, LANDS, LASTS, LATENCY, SKEW_SECONDS, STARTS, STOPS, UNSEEN, Trouble, Truth
from tests.simulation.engine import START, Engine, HandlersLock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from push_pools.domain.records import Timing

ENDPOINT = "https://ecs.us-east-1.amazonaws.com"
FATES: tuple[tuple[TaskPlan, Truth], ...] = (
    (TaskPlan(), Truth("COMPLETED", None, 0)),
    (TaskPlan(), Truth("COMPLETED", None, 0)),
    (TaskPlan(), Truth("COMPLETED", None, 0)),
    (TaskPlan(exit_code=3), Truth("FAILED", "exit", 3)),
    (TaskPlan("oom"), Truth("CRASHED", "oom", 137)),
    (TaskPlan("killed"), Truth("CRASHED", "killed", 137)),
    (TaskPlan("null_exit"), Truth("CRASHED", "platform", None)),
    (TaskPlan("spot"), Truth("CRASHED", "spot", 143)),
    (TaskPlan("host"), Truth("CRASHED", "platform", None)),
    (TaskPlan("image"), Truth("CRASHED", "image", None)),
)


class EcsJob:
    """A task that was really started, as the checks look at jobs."""

    def __init__(self, key: str, run_id: UUID, attempt: int, task: Task, truth: Truth, seen_from: datetime) -> None:
        self.key, self.pid, self.run_id, self.attempt, self.task = key, task.arn, run_id, attempt, task
        self.truth, self.seen_from = truth, seen_from
        self.plan = Plan()
        self.submitted_at = task.created_at
        self.ended_at: datetime | None = None
        self.forgotten_at: datetime | None = None
        self.is_told = False
        self.configuration = task.request

    @property
    def stopped(self) -> bool:
        """Whether it ended by our stop."""
        return self.ended_at is not None and self.task.ending.stop_code == "UserInitiated"

    @property
    def exit_shown(self) -> int | None:
        return self.task.ending.exit_code

    def settle(self, now: datetime) -> None:
        self.ended_at = self.task.stopped_at(now)
        if self.ended_at is not None and now >= self.ended_at + timedelta(hours=1):
            self.forgotten_at = now


class SimCredentials(AwsCredentials):
    """Credentials whose client is the simulation's."""

    _stub: Any = PrivateAttr(None)

    def client(self, service: Any, *, retries: bool, region: str | None = None) -> Any:
        return self._stub

    def check(self, platform: str) -> None:
        return

    def identity(self) -> str:
        return "simulated"

    def region(self) -> str:
        return "us-east-1"


class EcsCloud:
    """ECS as the simulation drives it."""

    family = "ecs"
    needs_cleanup = False
    tells_more = True

    def __init__(
        self, engine: Engine, trouble: Trouble, timing: Timing, latest: Callable[[str], datetime | None]
    ) -> None:
        self.engine, self.trouble, self.timing, self._latest = engine, trouble, timing, latest
        chance = engine.chance
        self.model = EcsModel(now=engine.moment, plan=self._plan, visibility_delay_seconds=chance.pick(UNSEEN))
        self.clock = SimpleNamespace(now=engine.moment)
        self.started: list[EcsJob] = []
        self.jobs: dict[str, EcsJob] = {}
        self.answers: dict[tuple[UUID | None, int], list[str]] = {}
        self.on_start: Callable[[Any], None] = lambda job: None
        self.on_end: Callable[[Any], None] = lambda job: None
        self.removed_running: Callable[[Any], None] = lambda job: None
        self._truth = Truth("COMPLETED", None, 0)

    # -- tasks

    def _plan(self, body: dict[str, Any]) -> TaskPlan:
        engine, chance = self.engine, self.engine.chance
        plan, self._truth = chance.pick(FATES)
        starts, lasts, stopping = chance.pick(STARTS), chance.pick(LASTS), chance.pick(STOPS)
        if self.trouble.endings.hit():
            kind = chance.pick(["never starts", "runs long"])
            engine.faults["job " + kind] += 1
            plan = TaskPlan("stuck") if kind == "never starts" else TaskPlan(seconds=1e6)
        elif plan.outcome != "exit":
            engine.faults["job " + plan.outcome] += 1
        seconds = plan.seconds if plan.seconds is not None else lasts
        times = LifecycleTimes(starts / 2, starts / 2, stopping, 1.0)
        return TaskPlan(plan.outcome, plan.exit_code, seconds, times=times)

    def _watch_end(self, job: EcsJob) -> None:
        stopped = [change.at for change in job.task.changes if change.last_status == "STOPPED"]
        if stopped:
            self.engine.after((stopped[-1] - self.engine.moment()).total_seconds() + 0.01, lambda: self._may_tell(job))

    def _may_tell(self, job: EcsJob) -> None:
        job.settle(self.engine.moment())
        if job.ended_at is not None and not job.is_told:
            job.is_told = True
            self.on_end(job)

    def told(self, job: EcsJob) -> Any:
        """Return what an event of ECS says of a task: the handle it names, and the observation."""
        now = self.engine.moment()
        place = {"region": "us-east-1", "cluster": "default"}
        handle = JobHandle(
            key=job.key,
            platform="ecs:push",
            pid=f"default::{job.pid}",
            place=place,
            run_id=job.run_id,
            attempt=job.attempt,
            credential_block_id=self.block_id,
        )
        return handle, observation(job.task.document(now), handle, now)

    block_id: str | None = None

    def running_of(self, run_id: UUID) -> list[EcsJob]:
        found = [job for job in self.started if job.run_id == run_id]
        for job in found:
            job.settle(self.engine.moment())
        return [job for job in found if job.ended_at is None]

    def _get(self, key: str) -> EcsJob | None:
        job = self.jobs.get(key)
        if job is not None:
            job.settle(self.engine.moment())
        return job

    # -- RunTask

    def run_task(self, body: dict[str, Any]) -> dict[str, Any]:
        """Send RunTask: it lands on its way, whatever becomes of its sender."""
        engine, chance = self.engine, self.engine.chance
        task, sent = engine.current, engine.now
        assert task is not None
        key = body["clientToken"]
        until = self._latest(key)
        latest = (until - START).total_seconds() if until else sent
        latest += self.timing.settle_seconds - SKEW_SECONDS - max(UNSEEN)
        if sent > latest >= task.port_entered:
            engine.faults["frozen call never sent"] += 1
            raise ReadTimeoutError(endpoint_url=ENDPOINT)
        kinds = ("answer lost", "lands late", "request lost", "throttled", "capacity", "rejected", "capacity, they say")
        kind = self.trouble.of_call(kinds)
        if kind != "fine":
            engine.faults[kind] += 1
        box: list[Any] = []
        refusal = Refusal(CAPACITY, starts_anyway=kind != "capacity") if kind.startswith("capacity") else None
        early = min(sent + chance.pick(LATENCY), max(latest, sent))
        if kind == "lands late":
            at = min(sent + chance.pick(LANDS), max(latest, sent))
            engine.at(at, lambda: self._land(body, None, box))
            engine.pause(chance.pick((25.0, 5.0, 0.5)))
            raise ReadTimeoutError(endpoint_url=ENDPOINT)
        if kind in ("fine", "answer lost") or refusal is not None:
            engine.at(early, lambda: self._land(body, refusal, box))
        engine.pause(early - sent + chance.pick(LATENCY) / 2)
        run = run_of(body.get("startedBy"))
        answers = self.answers.setdefault((UUID(run[0]), run[1]) if run else (None, 1), [])
        if kind == "throttled":
            answers.append(kind)
            raise error("ThrottlingException", "Rate exceeded")
        if kind == "rejected":
            answers.append(kind)
            raise error("AccessDeniedException", "not authorized to perform ecs:RunTask")
        if kind in ("answer lost", "request lost") or engine.now - sent > self.timing.call_seconds or not box:
            raise ReadTimeoutError(endpoint_url=ENDPOINT)
        if isinstance(box[0], EcsError):
            raise from_model(box[0])
        if box[0]["failures"]:
            answers.append("capacity")
        answer: dict[str, Any] = box[0]
        return answer

    def _land(self, body: dict[str, Any], refusal: Refusal | None, box: list[Any]) -> None:
        before = len(self.model.started)
        try:
            box.append(self.model.call("RunTask", body, refusal=refusal))
        except EcsError as problem:
            box.append(problem)
        for started in self.model.started[before:]:
            run = run_of(started.started_by)
            assert run is not None
            task = self.model.tasks[started.task_arn]
            delay = timedelta(seconds=self.model.visibility_delay_seconds)
            key = str(started.client_token)
            job = EcsJob(key, UUID(run[0]), run[1], task, self._truth, task.created_at + delay)
            self.started.append(job)
            self.jobs[key] = job
            self._watch_end(job)
            self.on_start(job)

    # -- everything else

    def ask(self, operation: str, body: dict[str, Any]) -> dict[str, Any]:
        """Ask the model, with what goes wrong on the way."""
        engine, chance = self.engine, self.engine.chance
        if operation == "RegisterTaskDefinition":  # The adapter holds a lock meanwhile, and only its own process waits.
            return self.model.call(operation, body)
        fails = self.trouble.asks.hit()
        blind = operation == "ListTasks" and self.trouble.is_blind(engine.now, fails=fails)
        engine.pause(chance.pick(LATENCY) / 2)
        if blind or (fails and chance.below(2) == 0):
            self._unavailable(operation)
        try:
            answer = self.model.call(operation, body)
        except EcsError as problem:
            raise from_model(problem) from None
        if operation == "StopTask":
            for job in self.started:
                if job.pid == body["task"]:
                    self._watch_end(job)
        engine.pause(chance.pick(LATENCY) / 2)  # Its answer travels too, and may be overtaken.
        if fails and chance.below(4) == 1 and engine.current is not None:
            engine.freeze(engine.current)  # It is read by a host that has stood still meanwhile.
        elif fails:
            self._unavailable(operation)
        return {**answer, "tasks": [with_times(task) for task in answer["tasks"]]} if "tasks" in answer else answer

    def _unavailable(self, operation: str) -> None:
        self.engine.faults[f"cannot {operation}"] += 1
        self.engine.on_hurt(self.engine.current, 300.0 if operation == "DescribeTasks" else 60.0)
        if self.engine.chance.below(2):
            raise error("ServerException", "Service Unavailable", 500)
        raise ConnectTimeoutError(endpoint_url=ENDPOINT)


class Client:
    """The calls of boto3's ECS client that the adapter makes."""

    class exceptions:
        class ConflictException(ClientError):
            """A token is bound to another request."""

        class InvalidParameterException(ClientError):
            """ECS does not take it."""

    def __init__(self, cloud: EcsCloud) -> None:
        self._cloud = cloud

    def run_task(self, **body: Any) -> dict[str, Any]:
        return self._cloud.run_task(body)

    def describe_tasks(self, **body: Any) -> dict[str, Any]:
        return self._cloud.ask("DescribeTasks", body)

    def list_tasks(self, **body: Any) -> dict[str, Any]:
        return self._cloud.ask("ListTasks", body)

    def stop_task(self, **body: Any) -> dict[str, Any]:
        return self._cloud.ask("StopTask", body)

    def register_task_definition(self, **body: Any) -> dict[str, Any]:
        return self._cloud.ask("RegisterTaskDefinition", body)


class EcsStories:
    """How ECS takes part in stories; see `adapters.Adapter`."""

    pool_type: str = "ecs:push"
    template: Mapping[str, Any] = default_base_job_template(EcsJobConfiguration, EcsVariables)
    variables: Mapping[str, Any] = {
        "image": "acme/report:7",
        "network_configuration": {"awsvpcConfiguration": {"subnets": ["subnet-1"]}},
        "aws_credentials": "{{ blocks.aws-credentials.prod }}",
    }
    block: tuple[str, str, Mapping[str, Any]] = (
        "aws-credentials",
        "prod",
        {"aws_access_key_id": "AKIDEXAMPLE", "aws_secret_access_key": CANARY, "region_name": "us-east-1"},
    )

    def cloud(
        self, engine: Engine, trouble: Trouble, timing: Timing, latest: Callable[[str], datetime | None]
    ) -> EcsCloud:
        return EcsCloud(engine, trouble, timing, latest)

    def platform(
        self, engine: Engine, cloud: EcsCloud, clock: Any, opened: Callable[[str | None], Any] | None
    ) -> EcsPlatform:
        def credentials(block_id: str | None) -> Any:
            if opened is None:
                return None
            assert opened(block_id).aws_secret_access_key.get_secret_value() == CANARY
            ours = SimCredentials()
            ours._stub = Client(cloud)
            return ours

        platform = EcsPlatform(PlatformContext(credentials, {}, clock, clock))
        for stripe in platform._preparation._definitions._stripes:
            lock: Any = HandlersLock(engine)  # It stands for a lock of threads.
            stripe.lock = lock
        return platform

    @contextlib.contextmanager
    def on_clock(self, engine: Engine) -> Iterator[None]:
        with mock.patch.object(ecs, "time", SimpleNamespace(monotonic=lambda: engine.now)):
            yield


def error(code: str, message: str, status: int = 400, **members: Any) -> ClientError:
    """Return an error as boto3 raises it."""
    class_: Any = getattr(Client.exceptions, code, ClientError)
    answer = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}, **members}
    raised: ClientError = class_(answer, "operation")
    return raised


def from_model(problem: EcsError) -> ClientError:
    return error(problem.code, problem.message, problem.status, **problem.members)


def with_times(task: dict[str, Any]) -> dict[str, Any]:
    """Return a task with its times as boto3 reads them."""
    return {
        name: datetime.fromtimestamp(value, UTC) if name.endswith("At") and isinstance(value, int | float) else value
        for name, value in task.items()
    }
