"""Amazon ECS: each attempt of a run is one task, on Fargate or on the cluster's own hosts.

Exactly once rests on `clientToken`, which is the job key: ECS answers a repeated RunTask with the task that it
started already ("Ensuring idempotency", API reference). A refusal is bound to the token too, and a token is
forgotten some time after its task ended; `startedBy` finds the task of an attempt without it.
"""

from __future__ import annotations

import builtins  # noqa: TC003 - `type` is also a class variable
import time
from typing import TYPE_CHECKING, Any, ClassVar, Final
from uuid import UUID

from push_pools.domain.errors import (
    JobRejected,
    NothingStarted,
    PlatformUnavailable,
    SubmissionUncertain,
)
from push_pools.domain.runs import JobHandle
from push_pools.platforms.ecs_clients import Clients
from push_pools.platforms.ecs_config import EcsJobConfiguration, EcsVariables
from push_pools.platforms.ecs_definition import main_container
from push_pools.platforms.ecs_errors import (
    TYPE,
    naming_role,
    nothing_started,
    ours_from,
    resource_ids,
    submit_error,
)
from push_pools.platforms.ecs_jobs import EcsJobs
from push_pools.platforms.ecs_observe import run_of
from push_pools.platforms.ecs_pace import Paces, account_of
from push_pools.platforms.ecs_prepare import Preparation
from push_pools.ports import ReportedJob

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mypy_boto3_ecs import ECSClient
    from pydantic import JsonValue

    from push_pools.domain.jobs import BaseJobConfiguration, BaseVariables
    from push_pools.domain.pace import Pace
    from push_pools.domain.states import Observation
    from push_pools.ports import LogPage, Memo, PlatformContext

BEFORE_CALL_SECONDS: Final = 5.0
"""RunTask is sent only this long after `submit` began, so that its own 23 s end within `Timing.call_seconds`."""
STALE: Final = frozenset({"TaskDefinitionInactive", "TaskDefinitionNotFound"})
DEFAULT_CLUSTER: Final = "default"


class EcsPlatform:
    """Runs each attempt of a flow run as one ECS task."""

    type: ClassVar[str] = TYPE
    description: ClassVar[str] = "Run each flow run as a task on Amazon ECS, on Fargate or on EC2. No worker is needed."
    documentation_url: ClassVar[str] = "https://docs.aws.amazon.com/AmazonECS/latest/developerguide/"
    logo_url: ClassVar[str] = ""
    job_configuration: ClassVar[builtins.type[BaseJobConfiguration]] = EcsJobConfiguration
    job_configuration_variables: ClassVar[builtins.type[BaseVariables] | None] = EcsVariables
    observe_batch: ClassVar[int] = 100
    start_timeout_seconds: ClassVar[float] = 600.0
    key_is_used_up: ClassVar[bool] = True
    forgets_keys: ClassVar[bool] = True
    closes_before_repeat: ClassVar[bool] = False
    needs_cleanup: ClassVar[bool] = False

    def __init__(self, context: PlatformContext) -> None:
        self._clients = Clients(context.credentials)
        self._paces = Paces(context.settings, context.real_clock)
        self._preparation = Preparation(self._clients, self._paces)
        self._jobs = EcsJobs(self._clients, context.clock)

    # -- before the call

    def handle(self, job: BaseJobConfiguration, key: str) -> JobHandle:
        """Return the handle, without a pid, of the job that `submit` would start."""
        config = _ours(job)
        run = run_of(config.started_by)
        place = {"region": config.region, "cluster": _cluster(config)}
        details = {"container": main_container(config), **config.log_place}
        return JobHandle(
            key=key,
            platform=TYPE,
            place={name: value for name, value in place.items() if value},
            details={name: value for name, value in details.items() if value},
            credential_block_id=config.credential_block_id,
            run_id=UUID(run[0]) if run else None,
            attempt=run[1] if run else 1,
        )

    def prepare(self, job: BaseJobConfiguration, memo: Memo) -> EcsJobConfiguration:
        """Register the job's task definition, if its content is new, and return the job with its final request.

        A definition that `submit` finds deregistered later is forgotten in the memo, and registered anew.

        Raises:
            InvalidJobVariables: ECS would refuse the job.
            JobRejected: AWS refused the definition.
            PlatformUnavailable: AWS could not be asked.
            Pacing: Too many definitions are registered at once; it is not this one's turn yet.
        """
        config = _ours(job)
        try:
            return self._preparation.complete(config, memo)
        except JobRejected as error:
            raise naming_role(error, config.roles) from error

    def preview(self, job: BaseJobConfiguration) -> dict[str, JsonValue]:
        """Return the requests of `prepare` and `submit`; what only AWS knows is described in angle brackets.

        Raises:
            InvalidJobVariables: ECS would refuse the job.
        """
        return self._preparation.preview(_ours(job))

    def paces(self, job: BaseJobConfiguration) -> Sequence[Pace]:
        """Return the rate of RunTask in the job's account and region."""
        config = _ours(job)
        account = account_of(config) or config.credential_block_id or "service"
        return [self._paces.of_run_task(f"{account}/{config.region}")]

    # -- the call

    def submit(self, job: BaseJobConfiguration, key: str) -> JobHandle:
        """Start the task, or find that the key has started it already, and return its handle.

        Sends one RunTask request, and another only if ECS refused the first because somebody deregistered our task
        definition. The second has the same clientToken, so that both together start at most one task.

        Raises:
            JobRejected: As `ports.Platform.submit`, and so the others.
        """
        config = _ours(job)
        try:
            return self._submit(config, key)
        except JobRejected as error:
            raise naming_role(error, config.roles) from error

    def _submit(self, config: EcsJobConfiguration, key: str) -> JobHandle:
        began = time.monotonic()
        request = config.run_task_request(key)
        self._clients.credentials(config.credential_block_id).check(TYPE)
        with ours_from(submit_error):
            ecs = self._clients(config.credential_block_id, config.region, "ecs", retries=False)
            if time.monotonic() - began > BEFORE_CALL_SECONDS:
                raise PlatformUnavailable(TYPE, "AWS took too long to give credentials", codes=["TooSlow"])
            try:
                arn = self._run(ecs, request, began)
            except JobRejected as error:
                if config.definition_hash is None or not STALE.intersection(error.codes):
                    raise
                later = PlatformUnavailable(TYPE, f"{error.reason}; it is registered anew", codes=error.codes)
                if time.monotonic() - began > BEFORE_CALL_SECONDS:
                    raise later from error
                renewed = self._preparation.renew(config, ecs)
                if time.monotonic() - began > BEFORE_CALL_SECONDS:
                    raise later from error
                arn = self._run(ecs, {**request, "taskDefinition": renewed}, began)
        pid = f"{_cluster(config)}::{arn}"
        return self.handle(config, key).model_copy(update={"pid": pid})

    def _run(self, ecs: ECSClient, request: dict[str, Any], began: float) -> str:
        with ours_from(submit_error):
            try:
                answer = ecs.run_task(**request)
            except ecs.exceptions.ConflictException as error:
                return self._adopted(ecs, request, resource_ids(error), began)
            if answer.get("tasks"):
                return answer["tasks"][0]["taskArn"]
            if answer.get("failures"):
                raise nothing_started([dict(each) for each in answer["failures"]])
        raise SubmissionUncertain(TYPE, "ECS answered RunTask with neither a task nor a failure", codes=["NoAnswer"])

    def _adopted(self, ecs: ECSClient, request: dict[str, Any], arns: list[str], began: float) -> str:
        """Return the task that the token has started before, with another request than this one."""
        if not arns:
            raise NothingStarted(TYPE, "the token is bound to a request that was refused", codes=["ConflictException"])
        if time.monotonic() - began > BEFORE_CALL_SECONDS:
            return arns[0]
        try:
            tasks = self._jobs.described(ecs, request.get("cluster", DEFAULT_CLUSTER), arns)
        except Exception:  # The token has started a task, whatever keeps us from looking at it.
            return arns[0]
        others = [task for task in tasks if task.get("startedBy") != request["startedBy"]]
        if others:
            arn = others[0].get("taskArn")
            raise SubmissionUncertain(
                TYPE, f"the token is bound to {arn}, which is not ours", codes=["ConflictException"]
            )
        return arns[0]

    # -- after the call

    def find(self, handle: JobHandle) -> JobHandle | None:
        """Return the handle of a task of this attempt, whichever launch started it; `None` if there is none."""
        return self._jobs.find(handle)

    def observe(self, handles: Sequence[JobHandle]) -> Sequence[Observation]:
        """Return what ECS says of these tasks, in their order."""
        return self._jobs.observe(handles)

    def reported(self, detail: Mapping[str, JsonValue]) -> ReportedJob | None:
        """Return the run and attempt that the task of an "ECS Task State Change" event was started for."""
        run = run_of(detail.get("startedBy"))
        return ReportedJob(UUID(run[0]), run[1]) if run else None

    def read_event(self, detail: Mapping[str, JsonValue], handle: JobHandle) -> tuple[JobHandle, Observation] | None:
        """Return the task's handle and what the event says of it.

        A task that is over without an exit code is looked at once more: the event may be older than that code.

        Raises:
            PlatformUnavailable: ECS could not be asked.
        """
        return self._jobs.read_event(detail, handle)

    def stop(self, handle: JobHandle, grace_seconds: float) -> None:
        """Ask ECS to stop the task. How long it has is `stopTimeout` of its container, and cannot be said here."""
        self._jobs.stop(handle)

    def cleanup(self, handle: JobHandle) -> None:
        """Do nothing: a stopped task costs nothing, and task definitions are shared."""

    def logs(self, handle: JobHandle, cursor: str | None) -> LogPage:
        """Return the next lines of the main container's output from CloudWatch."""
        return self._jobs.logs(handle, cursor)


def _cluster(job: EcsJobConfiguration) -> str:
    return str(job.task_run_request.get("cluster") or job.cluster or DEFAULT_CLUSTER)


def _ours(job: BaseJobConfiguration) -> EcsJobConfiguration:
    if not isinstance(job, EcsJobConfiguration):
        raise JobRejected(TYPE, f"{type(job).__name__} is not a job of ECS", codes=["NotPrepared"])
    return job
