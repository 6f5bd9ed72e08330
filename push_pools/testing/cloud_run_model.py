"""The state of Cloud Run jobs in the projects of one double, as the v2 API promises it.

Every operation takes and returns the library's own messages, reads the clock once and takes one lock. What an
execution does in the meantime is read off its own list of tries (`cloud_run_executions`).
"""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from google.cloud import run_v2
from google.longrunning import operations_pb2
from google.protobuf import any_pb2

from push_pools.testing.cloud_run_account import CloudRunError, Project
from push_pools.testing.cloud_run_checks import check_job, check_job_id, check_labels
from push_pools.testing.cloud_run_executions import (
    ENDINGS,
    NEVER_STARTS,
    Ending,
    Execution,
    JobPlan,
    LifecycleTimes,
    Line,
    plan_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PARENT: Final = re.compile(r"projects/([^/]+)/locations/([^/]+)")
JOB: Final = re.compile(r"projects/([^/]+)/locations/([^/]+)/jobs/([^/]+)")
EXECUTION: Final = re.compile(r"(projects/([^/]+)/locations/([^/]+)/jobs/([^/]+))/executions/([^/]+)")
PAGE: Final = 100
Condition: Any = run_v2.Condition
Status: Any = run_v2.ExecutionReference.CompletionStatus


@dataclass
class Job:
    """A job that is there."""

    name: str
    spec: run_v2.Job
    created_at: datetime
    plan: JobPlan
    executions: dict[str, Execution] = field(default_factory=dict)
    failure: tuple[str, str] | None = None
    """Reason and message of a job that does not become ready."""
    generation: int = 1


@dataclass(frozen=True)
class Started:
    """An execution that was really created, kept for as long as the double lives."""

    job_id: str
    execution: str
    labels: dict[str, str]
    created_at: datetime


@dataclass
class CloudRunModel:
    """Answers the operations of Jobs, Executions, Tasks and Operations. `call` is the only entrance for requests."""

    now: Callable[[], datetime] = field(default=lambda: datetime.now(UTC))
    plan: Callable[[run_v2.Job], JobPlan | None] | None = None
    times: LifecycleTimes = field(default_factory=LifecycleTimes)
    default_seconds: float = 0.0
    visibility_delay_seconds: float = 0.0
    """For so long a new job and its execution are shown to nobody who asks; a second CreateJob is refused all the
    same."""
    rules: Project = field(default_factory=Project)

    def __post_init__(self) -> None:
        self.lock = threading.RLock()
        self.jobs: dict[str, Job] = {}
        self.started: list[Started] = []
        self.gone: dict[str, Execution] = {}
        """Executions whose job was deleted: nobody is shown them, and they no longer run."""
        self._operations: dict[str, operations_pb2.Operation] = {}
        self._methods: dict[str, Callable[[Any, datetime], Any]] = {
            "CreateJob": self._create_job,
            "UpdateJob": self._update_job,
            "GetJob": self._get_job,
            "ListJobs": self._list_jobs,
            "DeleteJob": self._delete_job,
            "RunJob": self._run_job,
            "GetExecution": self._get_execution,
            "ListExecutions": self._list_executions,
            "CancelExecution": self._cancel_execution,
            "DeleteExecution": self._delete_execution,
            "GetTask": self._get_task,
            "ListTasks": self._list_tasks,
            "GetOperation": self._get_operation,
        }

    def call(self, method: str, request: Any, token: str | None = None) -> Any:
        """Perform one operation and return its answer.

        Raises:
            CloudRunError: The service would answer with this error; nothing has changed.
        """
        with self.lock:
            self.rules.check_token(token)
            return self._methods[method](request, self.now())

    # -- jobs ------------------------------------------------------------------

    def _create_job(self, request: run_v2.CreateJobRequest, now: datetime) -> operations_pb2.Operation:
        project, region = self._place(request.parent)
        name = f"{request.parent}/jobs/{request.job_id}"
        self.rules.check_permission("run.jobs.create", name)
        self.rules.check_write(project, region, now)
        check_job_id(request.job_id, request.job.start_execution_token or request.job.run_execution_token)
        check_job(request.job)
        self.rules.check_service_account(request.job.template.template.service_account)
        if name in self.jobs:
            raise CloudRunError("ALREADY_EXISTS", f"Resource '{request.job_id}' already exists.")
        if sum(other.startswith(f"{request.parent}/jobs/") for other in self.jobs) >= self.rules.max_jobs:
            limit = f"Limit of {self.rules.max_jobs} jobs per project and region is reached in {region}."
            raise CloudRunError("RESOURCE_EXHAUSTED", f"Quota exceeded for total allowed count of jobs. {limit}")
        job = Job(name, run_v2.Job(request.job), now, self._plan(request.job))
        if not request.validate_only:
            self.jobs[name] = job
            self._after_write(job, now)
        return self._operation(self._shown(job, now), name)

    def _update_job(self, request: run_v2.UpdateJobRequest, now: datetime) -> operations_pb2.Operation:
        name = request.job.name
        match = _match(JOB, name)
        self.rules.check_permission("run.jobs.update", name)
        self.rules.check_write(match[1], match[2], now)
        if name not in self.jobs and request.allow_missing:
            asked: Any = {"parent": name.rpartition("/jobs/")[0], "job_id": match[3], "job": run_v2.Job(request.job)}
            asked["job"].name = ""
            return self._create_job(run_v2.CreateJobRequest(asked), now)
        job = self._job(name, now)
        check_job(request.job)
        token = request.job.start_execution_token
        if token and f"{name}/executions/{match[3]}-{token}" in job.executions:
            raise CloudRunError("ALREADY_EXISTS", f"Resource '{match[3]}-{token}' already exists.")
        job.spec, job.plan = run_v2.Job(request.job), self._plan(request.job)
        job.generation += 1
        self._after_write(job, now)
        return self._operation(self._shown(job, now), name)

    def _after_write(self, job: Job, now: datetime) -> None:
        """Look at the image, and create the execution that the token asks for."""
        image = job.spec.template.template.containers[0].image
        missing = self.rules.images is not None and image not in self.rules.images | self.rules.private_images
        if missing or job.plan.outcome == "image":
            job.failure = ("CONTAINER_MISSING", f"Image '{image}' not found.")
        elif image in self.rules.private_images or job.plan.outcome == "image_denied":
            robot = "service-1@serverless-robot-prod.iam.gserviceaccount.com"
            message = f"Google Cloud Run Service Agent {robot} must have permission to read the image, {image}."
            job.failure = ("CONTAINER_PERMISSION_DENIED", message)
        token = job.spec.start_execution_token or job.spec.run_execution_token
        if token and job.failure is None and job.plan.outcome not in NEVER_STARTS:
            self._execute(job, f"{job.name.rpartition('/')[2]}-{token}", now)

    def _execute(self, job: Job, execution_id: str, now: datetime) -> Execution:
        template = job.spec.template
        execution = Execution(
            name=f"{job.name}/executions/{execution_id}",
            job=job.name,
            created_at=now,
            plan=job.plan,
            template=template.template,
            labels=dict(template.labels),
            times=job.plan.times or self.times,
            default_seconds=self.default_seconds,
            task_count=template.task_count or 1,
        )
        job.executions[execution.name] = execution
        job_id = job.name.rpartition("/")[2]
        self.started.append(Started(job_id, execution.name, dict(job.spec.labels), now))
        return execution

    def _plan(self, spec: run_v2.Job) -> JobPlan:
        plan = self.plan(spec) if self.plan is not None else None
        return plan or plan_of(spec.template.template)

    def _run_job(self, request: run_v2.RunJobRequest, now: datetime) -> operations_pb2.Operation:
        """Start one more execution, whoever asks and however often: this call has no idempotency."""
        match = _match(JOB, request.name)
        self.rules.check_permission("run.jobs.run", request.name)
        self.rules.check_write(match[1], match[2], now)
        job = self._job(request.name, now)
        execution = self._execute(job, f"{match[3]}-{len(self.started):05d}", now)
        return self._operation(execution.message(now), execution.name)

    def _get_job(self, request: run_v2.GetJobRequest, now: datetime) -> run_v2.Job:
        self.rules.check_permission("run.jobs.get", request.name)
        return self._shown(self._job(request.name, now), now)

    def _list_jobs(self, request: run_v2.ListJobsRequest, now: datetime) -> run_v2.ListJobsResponse:
        self._place(request.parent)
        self.rules.check_permission("run.jobs.list", request.parent)
        found = [job for name, job in sorted(self.jobs.items()) if name.startswith(f"{request.parent}/jobs/")]
        shown, token = _page([job for job in found if self._is_shown(job.created_at, now)], request)
        return run_v2.ListJobsResponse(jobs=[self._shown(job, now) for job in shown], next_page_token=token)

    def _delete_job(self, request: run_v2.DeleteJobRequest, now: datetime) -> operations_pb2.Operation:
        """Delete a job with its executions; those that run are ended ("Delete jobs", Cloud Run)."""
        match = _match(JOB, request.name)
        self.rules.check_permission("run.jobs.delete", request.name)
        self.rules.check_write(match[1], match[2], now)
        job = self._job(request.name, now)
        shown = self._shown(job, now)
        if not request.validate_only:
            for execution in job.executions.values():
                execution.end(now, ENDINGS["deleted"])
                self.gone[execution.name] = execution
            del self.jobs[job.name]
        return self._operation(shown, job.name)

    def _shown(self, job: Job, now: datetime) -> run_v2.Job:
        shown: Any = run_v2.Job(job.spec)
        shown.name, shown.create_time, shown.generation = job.name, job.created_at, job.generation
        shown.start_execution_token = job.spec.start_execution_token
        shown.execution_count = len(job.executions)
        shown.terminal_condition = self._ready(job)
        if job.executions:
            shown.latest_created_execution = _reference(list(job.executions.values())[-1], now)
        return shown  # type: ignore[no-any-return]  # It is typed `Any` because times are set as what they are not.

    def _ready(self, job: Job) -> Any:
        if job.failure is None:
            state = Condition.State.CONDITION_SUCCEEDED
            return Condition(type_="Ready", state=state, last_transition_time=job.created_at)
        reason, message = job.failure
        state = Condition.State.CONDITION_FAILED
        return Condition(type_="Ready", state=state, reason=Condition.CommonReason[reason], message=message)

    # -- executions ------------------------------------------------------------

    def _get_execution(self, request: run_v2.GetExecutionRequest, now: datetime) -> run_v2.Execution:
        self.rules.check_permission("run.executions.get", request.name)
        return self._execution(request.name, now).message(now)

    def _list_executions(self, request: run_v2.ListExecutionsRequest, now: datetime) -> run_v2.ListExecutionsResponse:
        """List executions, newest first; `-` stands for all jobs of the place."""
        match = _match(JOB, request.parent)
        self.rules.check_region(match[2])
        self.rules.check_permission("run.executions.list", request.parent)
        jobs = [job for job in self.jobs.values() if job.name.startswith(request.parent.removesuffix("-"))]
        if match[3] != "-":
            jobs = [job for job in jobs if job.name == request.parent]
        found = [each for job in jobs for each in job.executions.values() if self._is_shown(each.created_at, now)]
        found.sort(key=lambda each: (each.created_at, each.name), reverse=True)
        shown, token = _page(found, request)
        return run_v2.ListExecutionsResponse(executions=[each.message(now) for each in shown], next_page_token=token)

    def _cancel_execution(self, request: run_v2.CancelExecutionRequest, now: datetime) -> operations_pb2.Operation:
        match = _match(EXECUTION, request.name)
        self.rules.check_permission("run.executions.cancel", request.name)
        self.rules.check_write(match[2], match[3], now)
        execution = self._execution(request.name, now)
        if not execution.cancel(now):
            raise CloudRunError("FAILED_PRECONDITION", f"Execution '{match[5]}' has completed and cannot be cancelled.")
        return self._operation(execution.message(now), execution.name)

    def _delete_execution(self, request: run_v2.DeleteExecutionRequest, now: datetime) -> operations_pb2.Operation:
        match = _match(EXECUTION, request.name)
        self.rules.check_permission("run.executions.delete", request.name)
        self.rules.check_write(match[2], match[3], now)
        execution = self._execution(request.name, now)
        execution.end(now, ENDINGS["deleted"])
        self.gone[execution.name] = self.jobs[execution.job].executions.pop(execution.name)
        return self._operation(execution.message(now), execution.name)

    # -- tasks and operations ----------------------------------------------------

    def _list_tasks(self, request: run_v2.ListTasksRequest, now: datetime) -> run_v2.ListTasksResponse:
        self.rules.check_permission("run.tasks.list", request.parent)
        shown, token = _page(self._execution(request.parent, now).tasks(now), request)
        return run_v2.ListTasksResponse(tasks=shown, next_page_token=token)

    def _get_task(self, request: run_v2.GetTaskRequest, now: datetime) -> run_v2.Task:
        self.rules.check_permission("run.tasks.get", request.name)
        execution = self._execution(request.name.partition("/tasks/")[0], now)
        for task in execution.tasks(now):
            if task.name == request.name:
                return task
        raise _unknown("TASK", request.name)

    def _get_operation(self, request: operations_pb2.GetOperationRequest, now: datetime) -> operations_pb2.Operation:
        if request.name not in self._operations:
            raise CloudRunError("NOT_FOUND", f"Operation {request.name} was not found.")
        return self._operations[request.name]

    def _operation(self, answer: Any, name: str) -> operations_pb2.Operation:
        number = len(self._operations) + 1
        place = "/".join(name.split("/")[:4])
        operation = operations_pb2.Operation(name=f"{place}/operations/{number:08d}", done=True)
        packed = any_pb2.Any()
        packed.Pack(type(answer).pb(answer))
        operation.metadata.CopyFrom(packed)
        operation.response.CopyFrom(packed)
        self._operations[operation.name] = operation
        return operation

    # -- looking things up -------------------------------------------------------

    def _place(self, parent: str) -> tuple[str, str]:
        match = _match(PARENT, parent)
        self.rules.check_region(match[2])
        return match[1], match[2]

    def _is_shown(self, created_at: datetime, now: datetime) -> bool:
        return now >= created_at + timedelta(seconds=self.visibility_delay_seconds)

    def _job(self, name: str, now: datetime) -> Job:
        self.rules.check_region(_match(JOB, name)[2])
        job = self.jobs.get(name)
        if job is None or not self._is_shown(job.created_at, now):
            raise _unknown("JOB", name)
        return job

    def _execution(self, name: str, now: datetime) -> Execution:
        match = _match(EXECUTION, name)
        self.rules.check_region(match[3])
        job = self.jobs.get(match[1])
        execution = job.executions.get(name) if job is not None else None
        if execution is None or not self._is_shown(execution.created_at, now):
            raise _unknown("EXECUTION", name)
        return execution

    # -- what checks and tests ask ------------------------------------------------

    def executions(self) -> list[Execution]:
        """Return every execution that was created, those of deleted jobs too."""
        with self.lock:
            return [*self.gone.values(), *(each for job in self.jobs.values() for each in job.executions.values())]

    def runs(self, job_id: str) -> int:
        """Return how often the user's container was started under a job's name; a platform's own retry counts."""
        now = self.now()
        return sum(len(each.begun(now)) for each in self.executions() if each.job.rpartition("/")[2] == job_id)

    def running(self) -> list[str]:
        """Return the executions that have not completed: those that still cost."""
        now = self.now()
        return [each.name for each in self.executions() if each.over_at(now) is None]

    def end(self, execution: str, ending: Ending) -> bool:
        """End an execution now; False when it has completed.

        Raises:
            LookupError: There is no such execution.
        """
        with self.lock:
            for each in self.executions():
                if each.name == execution:
                    return each.end(self.now(), ending)
        raise LookupError(f"no execution {execution}")

    def add_job(self, parent: str, job_id: str, **fields: Any) -> None:
        """Make a job that somebody else has made, without an execution."""
        spec = run_v2.Job(template={"template": {"containers": [{"image": "someone/else:1"}]}}, **fields)
        check_labels(spec.labels)
        name = f"{parent}/jobs/{job_id}"
        with self.lock:
            self.jobs[name] = Job(name, spec, self.now(), JobPlan())

    def lines(self, project: str, job_id: str, execution_id: str) -> list[Line]:
        """Return what an execution has written so far; deleted jobs keep their lines."""
        now = self.now()
        suffix = f"/jobs/{job_id}/executions/{execution_id}"
        mine = [each for each in self.executions() if each.name.endswith(suffix)]
        return [line for each in mine if each.name.startswith(f"projects/{project}/") for line in each.lines(now)]


def _match(pattern: re.Pattern[str], name: str) -> re.Match[str]:
    match = pattern.fullmatch(name)
    if match is None:
        raise CloudRunError("INVALID_ARGUMENT", f"Name '{name}' is not of the form {pattern.pattern}.")
    return match


def _unknown(kind: str, name: str) -> CloudRunError:
    parts = name.split("/")
    return CloudRunError(
        "NOT_FOUND",
        f"Resource '{parts[-1]}' of kind '{kind}' in region '{parts[3]}' in project '{parts[1]}' does not exist.",
    )


def _page(found: Sequence[Any], request: Any) -> tuple[Sequence[Any], str]:
    start = int(request.page_token or 0)
    size = min(request.page_size or PAGE, PAGE)
    following = start + size
    return found[start:following], str(following) if following < len(found) else ""


def _reference(execution: Execution, now: datetime) -> Any:
    over, ending = execution.over_at(now), execution.ending
    status = Status.EXECUTION_RUNNING if execution.begun(now) else Status.EXECUTION_PENDING
    if over is not None:
        good = Status.EXECUTION_SUCCEEDED if ending.is_good else Status.EXECUTION_FAILED
        status = Status.EXECUTION_CANCELLED if ending.is_cancelled else good
    fields: dict[str, Any] = {"name": execution.name.rpartition("/")[2], "create_time": execution.created_at}
    if over is not None:
        fields["completion_time"] = over
    return run_v2.ExecutionReference(**fields, completion_status=status)
