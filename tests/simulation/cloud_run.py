"""Cloud Run behind the real adapter: its double's model, called without a socket through clients like Google's.

What goes wrong on the way is drawn as for the other clouds; what Cloud Run makes of names and tokens is the model's.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest import mock
from uuid import UUID

import grpc
from google.api_core import exceptions
from google.auth.exceptions import TransportError
from google.cloud import run_v2
from google.cloud.run_v2.services.executions.pagers import ListExecutionsPager
from google.cloud.run_v2.services.tasks.pagers import ListTasksPager
from pydantic import PrivateAttr, SecretStr

from push_pools.credentials.gcp import GcpCredentials
from push_pools.domain.jobs import default_base_job_template
from push_pools.platforms import cloud_run
from push_pools.platforms.cloud_run import BEFORE_CALL_SECONDS, CREATE_SECONDS, CloudRunPlatform
from push_pools.platforms.cloud_run_config import CloudRunJobConfiguration, CloudRunVariables
from push_pools.ports import PlatformContext
from push_pools.testing.cloud_run_account import CloudRunError, PerMinute
from push_pools.testing.cloud_run_executions import ENDINGS, NEVER_STARTS, Execution, JobPlan, LifecycleTimes
from push_pools.testing.cloud_run_model import CloudRunModel, Job
from push_pools.testing.fake_platform import Plan
from tests.simulation.clouds import CANARY, LASTS, STARTS, STOPS, UNSEEN, Trouble, Truth
from tests.simulation.remote import VANISHES, RemoteCloud, RemoteJob

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime

    from push_pools.domain.records import Timing
    from tests.simulation.engine import Engine

REGION = "europe-west1"
FATES: tuple[tuple[JobPlan, Truth], ...] = (
    (JobPlan(), Truth("COMPLETED", None, 0)),
    (JobPlan(), Truth("COMPLETED", None, 0)),
    (JobPlan(), Truth("COMPLETED", None, 0)),
    (JobPlan(), Truth("COMPLETED", None, 0)),
    (JobPlan(exit_code=3), Truth("FAILED", "exit", 3)),
    (JobPlan("oom"), Truth("CRASHED", "oom")),
    (JobPlan("killed"), Truth("CRASHED", "killed")),
    (JobPlan("deleted"), Truth("CRASHED", "killed")),
    (JobPlan("internal"), Truth("CRASHED", "platform")),
    (JobPlan("no_result"), Truth("CRASHED", "platform")),
    (JobPlan("timeout"), Truth("FAILED", "timeout")),
    (JobPlan("image"), Truth("CRASHED", "image")),
    (JobPlan("image_denied"), Truth("CRASHED", "image")),
    (JobPlan(), VANISHES),
)
TOO_LONG = Truth("FAILED", "timeout")
"""Of a job that runs until Cloud Run's own time-out, which is a little later than the run's."""
KINDS: Mapping[str, str | None] = {
    "answer lost": None,
    "lands late": None,
    "request lost": None,
    "throttled": "throttled",
    "capacity": "capacity",
    "rejected": "rejected",
    "error with effect": None,
    "error without effect": None,
    "token expired": "expired",
    "not connected": "unreachable",
}
STATUSES: Mapping[str, tuple[str, str]] = {
    "answer lost": ("DEADLINE_EXCEEDED", "Deadline Exceeded"),
    "lands late": ("DEADLINE_EXCEEDED", "Deadline Exceeded"),
    "request lost": ("UNAVAILABLE", "Socket closed"),
    "throttled": (
        "RESOURCE_EXHAUSTED",
        "Quota exceeded for quota metric 'Write requests' and limit 'Write requests per minute per region'.",
    ),
    "capacity": ("RESOURCE_EXHAUSTED", "The region has no capacity for this request now."),
    "rejected": ("PERMISSION_DENIED", "Permission 'run.jobs.create' denied on resource 'x' (or it may not exist)."),
    "error with effect": ("INTERNAL", "The service is currently unavailable."),
    "error without effect": ("ABORTED", "Conflict for resource."),
    "token expired": ("UNAUTHENTICATED", "Request had invalid authentication credentials."),
    "not connected": ("UNAVAILABLE", "failed to connect to all addresses; last error: UNKNOWN: ipv4:1.2.3.4:443"),
}
ASKED_IN_VAIN = ("INTERNAL", "UNAVAILABLE", "DEADLINE_EXCEEDED", "PERMISSION_DENIED", "UNAUTHENTICATED")
"""What questions are answered, or not, when they fail."""
TOKEN_SECONDS = (0.2, 4.0, 8.0)
"""How long Google may take for a token; after 5 s of it CreateJob is not sent any more."""


class CloudRunJob(RemoteJob):
    """A job that was really made, with its execution if it has one."""

    def __init__(self, key: str, run_id: UUID, attempt: int, job: Job, truth: Truth) -> None:
        execution = next(iter(job.executions.values()), None)
        super().__init__(key, execution.name if execution else job.name, run_id, attempt, truth, job.created_at)
        self.execution: Execution | None = execution
        self.configuration = job.spec

    def settle(self, now: datetime) -> None:
        if self.ended_at is not None:
            return
        if self.execution is None:
            self.ended_at = self.submitted_at  # It never becomes ready.
            return
        self.ended_at = self.execution.over_at(now)
        if self.ended_at is not None and self.execution.ending is ENDINGS["timeout"]:
            self.truth, self.plan = TOO_LONG, Plan()
        self.stopped = self.ended_at is not None and self.execution.ending.is_cancelled


class CloudRunCloud(RemoteCloud):
    """Cloud Run as the simulation drives it."""

    family = "cloud_run"
    kinds = KINDS
    arrives = frozenset({"answer lost", "error with effect"})
    patience = CREATE_SECONDS
    refused = CloudRunError

    def __init__(
        self, engine: Engine, trouble: Trouble, timing: Timing, latest: Callable[[str], datetime | None]
    ) -> None:
        super().__init__(engine, trouble, timing, latest)
        chance = engine.chance
        self.model = CloudRunModel(now=engine.moment, plan=self._plan, visibility_delay_seconds=chance.pick(UNSEEN))
        self.model.rules.max_jobs = chance.pick((1000, 1000, 12))
        self.model.rules.writes = chance.pick((None, None, PerMinute(60)))
        self._truth = Truth("COMPLETED", None, 0)
        self._lasts = 0.0

    # -- jobs

    def _plan(self, spec: Any) -> JobPlan:
        engine, chance = self.engine, self.engine.chance
        plan, self._truth = chance.pick(FATES)
        starts, lasts, stopping = chance.pick(STARTS), chance.pick(LASTS), chance.pick(STOPS)
        self._lasts = starts + lasts
        if self._truth is VANISHES:
            lasts = 1e6
        if self.trouble.endings.hit():
            kind = chance.pick(["never starts", "runs long"])
            engine.faults["job " + kind] += 1
            plan, lasts = (JobPlan("stuck"), 0.0) if kind == "never starts" else (JobPlan(), 1e6)
            self._truth = Truth("COMPLETED", None, 0)
        elif plan.outcome != "exit":
            engine.faults["job " + plan.outcome] += 1
        return replace(plan, seconds=lasts, times=LifecycleTimes(starts, stopping))

    def create(self, request: Any) -> None:
        """Perform CreateJob, and note what it started."""
        name = f"{request.parent}/jobs/{request.job_id}"
        was_there = name in self.model.jobs
        self.model.call("CreateJob", request)
        made = self.model.jobs[name]
        assert not was_there
        labels = dict(made.spec.labels)
        run_id, attempt = UUID(labels["push-pools-run-id"]), int(labels["push-pools-attempt"])
        job = CloudRunJob(request.job_id, run_id, attempt, made, self._truth)
        self.begin(job)
        if job.execution is None:
            assert made.plan.outcome in NEVER_STARTS
            return
        for number, again in enumerate(job.execution.tries[1:], start=1):
            self.later(again.starts_at, lambda number=number: self._runs_again(job, number))  # type: ignore[misc]
        if self._truth is VANISHES:
            self.vanish(job, self._lasts, lambda: self._remove(made))

    def _runs_again(self, job: CloudRunJob, number: int) -> None:
        """A try of the platform's own runs the user's code again, which counts as a second job."""
        assert job.execution is not None
        if len(job.execution.begun(self.engine.moment())) > number:
            self.on_start(job)

    def _remove(self, made: Job) -> None:
        """Delete a job behind our back, without a write of ours."""
        for execution in made.executions.values():
            execution.end(self.engine.moment(), execution.ending)
        del self.model.jobs[made.name]

    def delete(self, name: str) -> None:
        """Perform DeleteJob: a job that runs has to be stopped before."""
        key = name.rpartition("/")[2]
        job = self._get(key)
        is_running = job is not None and job.ended_at is None
        self.model.call("DeleteJob", run_v2.DeleteJobRequest.pb()(name=name))
        self.jobs.pop(key, None)
        if is_running:
            self.removed_running(job)

    # -- what goes wrong

    def problem(self, kind: str) -> Exception:
        return error(*STATUSES[kind])

    def raised(self, refusal: CloudRunError) -> tuple[Exception, str | None]:
        return error(refusal.code, refusal.message), "throttled" if refusal.code == "RESOURCE_EXHAUSTED" else None

    def trouble_of(self, operation: str) -> tuple[Exception, str | None]:
        if operation == "token":
            return TransportError("the connection was refused"), "unreachable"
        return error(self.engine.chance.pick(ASKED_IN_VAIN), f"{operation} failed"), None

    def token(self) -> None:
        """Have a token; one is kept for an hour, so that this rarely takes time."""
        if self.trouble.asks.hit():
            self.engine.pause(self.engine.chance.pick(TOKEN_SECONDS))
            if self.engine.chance.below(2):
                self._fail("token")
        task = self.engine.current
        if task is not None and self.engine.now - task.port_entered > BEFORE_CALL_SECONDS:
            self._answered("expired")  # The adapter gives up, and says that there are no credentials.


def error(code: str, message: str) -> Exception:
    """Return an error as Google's clients raise it."""
    raised: Exception = exceptions.from_grpc_status(grpc.StatusCode[code], message)
    return raised


class Client:
    """The calls of JobsClient, ExecutionsClient and TasksClient that the adapter makes.

    The operations that writes are answered are left out: nothing waits for them.
    """

    def __init__(self, cloud: CloudRunCloud) -> None:
        self._cloud = cloud

    def create_job(self, request: Any, **options: Any) -> None:
        once(options)
        self._cloud.send(request.job_id, lambda: self._cloud.create(request))

    def get_job(self, request: Any, **options: Any) -> Any:
        return self._ask("GetJob", run_v2.GetJobRequest, request, options)

    def delete_job(self, request: Any, **options: Any) -> None:
        once(options)
        self._cloud.ask("DeleteJob", lambda: self._cloud.delete(request["name"]))

    def get_execution(self, request: Any, **options: Any) -> Any:
        return self._ask("GetExecution", run_v2.GetExecutionRequest, request, options)

    def list_executions(self, request: Any, **options: Any) -> Any:
        answer = self._ask("ListExecutions", run_v2.ListExecutionsRequest, request, options)
        return ListExecutionsPager(self._next("ListExecutions"), run_v2.ListExecutionsRequest(request), answer)

    def cancel_execution(self, request: Any, **options: Any) -> None:
        self._ask("CancelExecution", run_v2.CancelExecutionRequest, request, options)

    def list_tasks(self, request: Any, **options: Any) -> Any:
        answer = self._ask("ListTasks", run_v2.ListTasksRequest, request, options)
        return ListTasksPager(self._next("ListTasks"), run_v2.ListTasksRequest(request), answer)

    def _ask(self, method: str, class_: Any, request: Any, options: Any) -> Any:
        once(options)
        asked = class_.pb()(**request)
        return self._cloud.ask(method, lambda: self._cloud.model.call(method, asked))

    def _next(self, method: str) -> Callable[..., Any]:
        return lambda request, **_: self._cloud.ask(method, lambda: self._cloud.model.call(method, request))


def once(options: Mapping[str, Any]) -> None:
    """See that a call has a time-out, shows who makes it, and is sent once: Google's clients do none of it unasked."""
    assert options["retry"] is None
    assert options["timeout"] > 0
    assert options["metadata"] == [("authorization", f"Bearer {CANARY}")]


class Opened:
    """Stands for `credentials.gcp_sessions.Opened`."""

    def __init__(self, cloud: CloudRunCloud) -> None:
        self._cloud, self._client = cloud, Client(cloud)

    def metadata(self) -> list[tuple[str, str]]:
        self._cloud.token()
        return [("authorization", f"Bearer {CANARY}")]

    def client(self, name: str) -> Client:
        return self._client


class SimCredentials(GcpCredentials):
    """Credentials whose clients are the simulation's."""

    _opened: Any = PrivateAttr(None)

    def opened(self, endpoint: Any = None) -> Any:
        return self._opened


class CloudRunStories:
    """How Cloud Run takes part in stories; see `adapters.Adapter`."""

    pool_type: str = "cloud-run-v2:push"
    template: Mapping[str, Any] = default_base_job_template(CloudRunJobConfiguration, CloudRunVariables)
    variables: Mapping[str, Any] = {
        "image": "acme/report:7",
        "region": REGION,
        "credentials": "{{ blocks.gcp-credentials.prod }}",
    }
    block: tuple[str, str, Mapping[str, Any]] = ("gcp-credentials", "prod", {"project": "acme", "access_token": CANARY})

    def cloud(
        self, engine: Engine, trouble: Trouble, timing: Timing, latest: Callable[[str], datetime | None]
    ) -> CloudRunCloud:
        return CloudRunCloud(engine, trouble, timing, latest)

    def platform(
        self, engine: Engine, cloud: CloudRunCloud, clock: Any, opened: Callable[[str | None], Any] | None
    ) -> CloudRunPlatform:
        stand_in = Opened(cloud)

        def credentials(block_id: str | None) -> Any:
            if opened is None:
                return None
            block = opened(block_id)
            assert block.access_token.get_secret_value() == CANARY
            ours = SimCredentials(project=block.project, access_token=SecretStr(CANARY))
            ours._opened = stand_in
            return ours

        return CloudRunPlatform(PlatformContext(credentials, {}, clock, clock))

    @contextlib.contextmanager
    def on_clock(self, engine: Engine) -> Iterator[None]:
        with mock.patch.object(cloud_run, "time", SimpleNamespace(monotonic=lambda: engine.now)):
            yield
