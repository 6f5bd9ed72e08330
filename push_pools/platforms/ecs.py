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

from push_pools.credentials.aws import AwsCredentials
from push_pools.domain.errors import (
    JobRejected,
    NothingStarted,
    PlatformError,
    PlatformUnavailable,
    PushPoolsError,
    SubmissionUncertain,
)
from push_pools.domain.runs import JobHandle
from push_pools.platforms.ecs_config import EcsJobConfiguration, EcsVariables
from push_pools.platforms.ecs_definition import build_definition, main_container
from push_pools.platforms.ecs_errors import (
    TYPE,
    nothing_started,
    ours_from,
    prepare_error,
    resource_ids,
    submit_error,
)
from push_pools.platforms.ecs_jobs import EcsJobs
from push_pools.platforms.ecs_network import Networks
from push_pools.platforms.ecs_observe import run_of
from push_pools.platforms.ecs_register import Definitions, ProcessMemo, memo_key, register
from push_pools.platforms.ecs_request import build_request, given_definition, given_network

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mypy_boto3_ecs import ECSClient
    from pydantic import JsonValue

    from push_pools.domain.jobs import BaseJobConfiguration, BaseVariables
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
        self._context = context
        self._definitions, self._networks = Definitions(), Networks()
        self._jobs = EcsJobs(self._client, context.clock)
        self._memo: Memo = ProcessMemo()

    # -- before the call

    def handle(self, job: BaseJobConfiguration, key: str) -> JobHandle:
        """Return the handle, without a pid, of the job that `submit` would start."""
        config = _ours(job)
        run = run_of(config.started_by)
        place = {
            "region": config.region,
            "cluster": _cluster(config),
            "container": main_container(config),
            **config.log_place,
        }
        return JobHandle(
            key=key,
            platform=TYPE,
            place={name: value for name, value in place.items() if value},
            credential_block_id=config.credential_block_id,
            run_id=UUID(run[0]) if run else None,
            attempt=run[1] if run else 1,
        )

    def prepare(self, job: BaseJobConfiguration, memo: Memo) -> EcsJobConfiguration:
        """Register the job's task definition, if its content is new, and return the job with its final request.

        The task definition that `submit` finds deregistered meanwhile is forgotten in the memo, and registered anew.

        Raises:
            InvalidJobVariables: ECS would refuse the job.
            JobRejected: AWS refused the definition.
            PlatformUnavailable: AWS could not be asked.
        """
        config = _ours(job)
        if config.is_complete:
            return config
        self._memo = memo
        with ours_from(prepare_error):
            credentials = self._credentials(config.credential_block_id)
            region = credentials.region()
            if region is None:
                raise JobRejected(TYPE, "no AWS region is set; give the credentials a region_name", codes=["NoRegion"])
            if name := given_definition(config):
                return self._with_given(config, name, region)
            return self._with_registered(config, region)

    def _with_given(self, job: EcsJobConfiguration, name: str, region: str) -> EcsJobConfiguration:
        scope, ecs = self._scope(job, region), self._client(job.credential_block_id, region, "ecs", retries=True)
        found = self._definitions.describe(name, job.container_name, scope, region, ecs)
        network = self._network(job, found.network_mode, region)
        request = build_request(job, definition=found.arn, container=found.container, network=network)
        return _complete(job, region, request, container_name=found.container, log_place=found.log_place)

    def _with_registered(self, job: EcsJobConfiguration, region: str) -> EcsJobConfiguration:
        built = build_definition(job, region)
        network = self._network(job, built.network_mode, region)
        # Built before anything is registered: what cannot be run is not registered either.
        request = build_request(job, definition="", container=built.container, network=network)
        ecs = self._client(job.credential_block_id, region, "ecs", retries=True)
        request["taskDefinition"] = self._definitions.ensure(
            memo_key(self._scope(job, region), built.hash), self._memo, lambda: _register(ecs, built.request)
        )
        return _complete(
            job,
            region,
            request,
            container_name=built.container,
            log_place=built.log_place,
            task_definition=built.request,
            definition_hash=built.hash,
        )

    def _network(self, job: EcsJobConfiguration, mode: str | None, region: str) -> dict[str, Any] | None:
        if mode != "awsvpc":
            return None
        scope = self._scope(job, region)
        return given_network(job) or self._networks.of_vpc(
            scope, job.vpc_id, lambda: self._client(job.credential_block_id, region, "ec2", retries=True)
        )

    def preview(self, job: BaseJobConfiguration) -> dict[str, JsonValue]:
        """Return the requests of `prepare` and `submit`; what only AWS knows is described in angle brackets.

        Raises:
            InvalidJobVariables: ECS would refuse the job.
        """
        config = _ours(job)
        if config.is_complete:
            definition: JsonValue = dict(config.task_definition) if config.definition_hash else None
            request = dict(config.task_run_request)
        else:
            definition, request = self._previewed(config)
        shown: dict[str, JsonValue] = {
            "register_task_definition": definition,
            "run_task": {"startedBy": "pp/<run id>/<attempt>", **request, "clientToken": "<job key>"},
        }
        notes: list[JsonValue] = list(config.notes)
        return {**shown, "notes": notes} if notes else shown

    def _previewed(self, job: EcsJobConfiguration) -> tuple[JsonValue, dict[str, JsonValue]]:
        if name := given_definition(job):
            network = given_network(job)
            return None, build_request(job, definition=name, container=main_container(job), network=network)
        region = job.region or self._region_or_words(job)
        built = build_definition(job, region)
        vpc = f"VPC {job.vpc_id}" if job.vpc_id else "the default VPC"
        found: dict[str, Any] = {"awsvpcConfiguration": {"subnets": [f"<those of {vpc}>"], "assignPublicIp": "ENABLED"}}
        network = (given_network(job) or found) if built.network_mode == "awsvpc" else None
        arn = f"<the ARN of {built.request['family']}, with its revision>"
        return dict(built.request), build_request(job, definition=arn, container=built.container, network=network)

    def _region_or_words(self, job: EcsJobConfiguration) -> str:
        try:
            with ours_from(prepare_error):
                return self._credentials(job.credential_block_id).region() or "<region>"
        except PlatformError:
            return "<region>"

    # -- the call

    def submit(self, job: BaseJobConfiguration, key: str) -> JobHandle:
        """Start the task, or find that the key has started it already, and return its handle.

        Sends one RunTask request, and another only if ECS refused the first because somebody deregistered our task
        definition. The second has the same clientToken, so that both together start at most one task.

        Raises:
            JobRejected: As `ports.Platform.submit`, and so the others.
        """
        began, config = time.monotonic(), _ours(job)
        request = config.run_task_request(key)
        self._credentials(config.credential_block_id).check(TYPE)
        with ours_from(submit_error):
            ecs = self._client(config.credential_block_id, config.region, "ecs", retries=False)
            if time.monotonic() - began > BEFORE_CALL_SECONDS:
                raise PlatformUnavailable(TYPE, "AWS took too long to give credentials", codes=["NoCredentials"])
            try:
                arn = self._run(ecs, request, began)
            except JobRejected as error:
                if config.definition_hash is None or not STALE.intersection(error.codes):
                    raise
                renewed = self._renewed(config, ecs)
                if time.monotonic() - began > BEFORE_CALL_SECONDS:
                    raise PlatformUnavailable(
                        TYPE, f"{error.reason}; it is registered anew", codes=error.codes
                    ) from error
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

    def _renewed(self, job: EcsJobConfiguration, ecs: ECSClient) -> str:
        """Register the job's task definition anew, for all later jobs too, and return the new ARN."""
        key = memo_key(self._scope(job, str(job.region)), str(job.definition_hash))
        stale = str(job.task_run_request.get("taskDefinition"))
        return self._definitions.ensure(key, self._memo, lambda: _register(ecs, job.task_definition), instead_of=stale)

    # -- after the call

    def find(self, handle: JobHandle) -> JobHandle | None:
        """Return the handle of a task of this attempt, whichever launch started it; `None` if there is none."""
        return self._jobs.find(handle)

    def observe(self, handles: Sequence[JobHandle]) -> Sequence[Observation]:
        """Return what ECS says of these tasks, in their order."""
        return self._jobs.observe(handles)

    def stop(self, handle: JobHandle, grace_seconds: float) -> None:
        """Ask ECS to stop the task. How long it has is `stopTimeout` of its container, and cannot be said here."""
        self._jobs.stop(handle)

    def cleanup(self, handle: JobHandle) -> None:
        """Do nothing: a stopped task costs nothing, and task definitions are shared."""

    def logs(self, handle: JobHandle, cursor: str | None) -> LogPage:
        """Return the next lines of the main container's output from CloudWatch."""
        return self._jobs.logs(handle, cursor)

    # -- clients

    def _credentials(self, block_id: str | None) -> AwsCredentials:
        try:
            opened = self._context.credentials(block_id)
        except PlatformError:
            raise
        except PushPoolsError as error:
            raise PlatformUnavailable(TYPE, str(error), codes=["NoCredentials"]) from error
        if opened is None:
            return AwsCredentials()
        if not isinstance(opened, AwsCredentials):
            reason = f"the credentials block is of another type ({type(opened).__name__})"
            raise JobRejected(TYPE, reason, codes=["ProfileNotFound"], variable="aws_credentials")
        return opened

    def _client(self, block_id: str | None, region: str | None, service: Any, *, retries: bool) -> Any:
        return self._credentials(block_id).client(service, retries=retries, region=region)

    def _scope(self, job: EcsJobConfiguration, region: str) -> str:
        identity = self._credentials(job.credential_block_id).identity()
        return f"{job.credential_block_id or 'service'}-{identity}/{region}"


def _register(ecs: ECSClient, body: dict[str, Any]) -> str:
    with ours_from(prepare_error):
        return register(ecs, body)


def _complete(
    job: EcsJobConfiguration, region: str, request: dict[str, JsonValue], **resolved: Any
) -> EcsJobConfiguration:
    """Return the job with its final request; what went into the request is not kept twice."""
    spent: dict[str, Any] = {"env": {}, "labels": {}, "command": None, "network_configuration": {}, "vpc_id": None}
    final = {"task_run_request": request, "task_definition": {}, "region": region, "is_complete": True}
    return job.model_copy(update=spent | final | resolved)


def _cluster(job: EcsJobConfiguration) -> str:
    return str(job.task_run_request.get("cluster") or job.cluster or DEFAULT_CLUSTER)


def _ours(job: BaseJobConfiguration) -> EcsJobConfiguration:
    if not isinstance(job, EcsJobConfiguration):
        raise JobRejected(TYPE, f"{type(job).__name__} is not a job of ECS", codes=["NotPrepared"])
    return job
