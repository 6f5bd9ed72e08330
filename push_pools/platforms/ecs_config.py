"""The job configuration of Amazon ECS, and the variables of its base job template."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, Field, JsonValue, PositiveInt, field_validator, model_validator
from pydantic.json_schema import SkipJsonSchema

from push_pools.credentials.aws import AwsCredentials
from push_pools.domain.errors import InvalidJobVariables
from push_pools.domain.jobs import (
    BaseJobConfiguration,
    BaseVariables,
    DeploymentInfo,
    FlowInfo,
    FlowRunInfo,
    WorkPoolInfo,
)
from push_pools.domain.secrets import find_secret_refs
from push_pools.domain.templates import block_ref
from push_pools.platforms import ecs_request
from push_pools.platforms.ecs_definition import family_name

LaunchType = Literal["FARGATE", "EC2", "EXTERNAL", "FARGATE_SPOT", "MANAGED_INSTANCES"]

TASK_DEFINITION: dict[str, Any] = {
    "family": "{{ family }}",
    "containerDefinitions": [
        {
            "name": "{{ container_name }}",
            "image": "{{ image }}",
            "entryPoint": "{{ entrypoint }}",
            "secrets": "{{ secrets }}",
            "stopTimeout": "{{ stop_timeout }}",
            "repositoryCredentials": {"credentialsParameter": "{{ repository_credentials }}"},
            "mountPoints": "{{ mount_points }}",
            "ulimits": "{{ ulimits }}",
            "linuxParameters": "{{ linux_parameters }}",
            "readonlyRootFilesystem": "{{ readonly_root_filesystem }}",
        }
    ],
    "volumes": "{{ volumes }}",
    "executionRoleArn": "{{ execution_role_arn }}",
    "taskRoleArn": "{{ task_role_arn }}",
    "runtimePlatform": {
        "cpuArchitecture": "{{ cpu_architecture }}",
        "operatingSystemFamily": "{{ operating_system_family }}",
    },
}
"""What is registered once per content. All else is overridden per run, so that runs share a definition."""

TASK_RUN_REQUEST: dict[str, Any] = {
    "cluster": "{{ cluster }}",
    "launchType": "{{ launch_type }}",
    "capacityProviderStrategy": "{{ capacity_provider_strategy }}",
    "taskDefinition": "{{ task_definition_arn }}",
    "overrides": {
        "cpu": "{{ cpu }}",
        "memory": "{{ memory }}",
        "ephemeralStorage": {"sizeInGiB": "{{ ephemeral_storage }}"},
        "containerOverrides": [
            {
                "name": "{{ container_name }}",
                "command": "{{ command }}",
                "environment": "{{ env }}",
                "environmentFiles": "{{ environment_files }}",
                "resourceRequirements": "{{ resource_requirements }}",
            }
        ],
    },
    "tags": "{{ tags }}",
    "platformVersion": "{{ platform_version }}",
    "propagateTags": "{{ propagate_tags }}",
    "enableECSManagedTags": "{{ enable_ecs_managed_tags }}",
    "enableExecuteCommand": "{{ enable_execute_command }}",
    "group": "{{ group }}",
    "placementConstraints": "{{ placement_constraints }}",
    "placementStrategy": "{{ placement_strategy }}",
    "volumeConfigurations": "{{ volume_configurations }}",
}

IGNORED = {
    "auto_deregister_task_definition": "definitions are shared by runs, and are never deregistered by one",
    "match_latest_revision_in_family": "a definition is found by the hash of its content",
    "stream_output": "no process waits beside the job; `push-pools flow-run logs` reads its output from CloudWatch",
    "task_watch_poll_interval": "no process waits beside the job; sweeps and events bring its status back",
}
"""Variables that are accepted, so that Prefect's job variables can be used, and why they do nothing."""


class CapacityProvider(BaseModel):
    """One capacity provider of a strategy."""

    capacityProvider: str
    weight: int = Field(default=0, ge=0, le=1000)
    base: int = Field(default=0, ge=0, le=100_000)


class EcsVariables(BaseVariables, defer_build=True):  # Templates are made of it, and no job.
    """Variables of the base job template, named as in Prefect."""

    task_definition_arn: str | None = Field(
        default=None,
        title="Task Definition ARN",
        description="A task definition to run, with or without a revision. If it is given, none is registered, and "
        "what belongs to a definition (image, secrets, roles, logs, entrypoint) is its own.",
    )
    aws_credentials: AwsCredentials = Field(
        default_factory=AwsCredentials,
        title="AWS Credentials",
        description="The identity that starts tasks. If left out, it is the service's own role.",
    )
    cluster: str | None = Field(
        default=None, description="The cluster, by name or ARN; by default the one that is called `default`."
    )
    family: str | None = Field(
        default=None,
        description="The family of registered task definitions, to which a hash is added; by default the flow's name.",
    )
    launch_type: LaunchType = Field(
        default="FARGATE",
        description="What tasks run on. FARGATE_SPOT is cheaper, and tasks may be interrupted.",
    )
    capacity_provider_strategy: list[CapacityProvider] = Field(
        default_factory=list, description="Capacity providers to use in place of a launch type."
    )
    image: str | None = Field(default=None, description="The image of the job. A tag that moves is pulled anew.")
    entrypoint: str | list[str] | None = Field(
        default=None, description="Replaces the image's ENTRYPOINT: a list of words, or text that is split into words."
    )
    cpu: int | None = Field(
        default=None, title="CPU", description="CPU units, 1024 to a vCPU. By default 1024, or what goes with `memory`."
    )
    memory: int | None = Field(
        default=None, description="Memory in MiB. By default 2048, or what goes with `cpu`; Fargate has certain pairs."
    )
    ephemeral_storage: int | None = Field(
        default=None, ge=21, le=200, description="Disk space in GiB, on Fargate; by default Fargate's own, 20."
    )
    cpu_architecture: Literal["X86_64", "ARM64"] | None = Field(
        default=None, title="CPU Architecture", description="What the image is built for; by default X86_64."
    )
    operating_system_family: str | None = Field(
        default=None,
        description="The operating system of the task, such as WINDOWS_SERVER_2022_CORE; by default LINUX.",
    )
    resource_requirements: dict[str, str] = Field(
        default_factory=dict,
        description="What else the container needs of its host: `GPU` to a number. Not on Fargate.",
    )
    container_name: str | None = Field(
        default=None, description="The container that the job runs in, and whose exit decides. By default `flow`."
    )
    secrets: dict[str, str] = Field(
        default_factory=dict,
        description="Environment variables whose values ECS reads at the start: name to the ARN of a secret of "
        "Secrets Manager or of a parameter of Systems Manager. Needs `execution_role_arn`.",
    )
    environment_files: list[str] = Field(
        default_factory=list,
        max_length=10,
        description="ARNs of `.env` files in S3 that ECS adds to the environment, up to 10: a way around the limit of "
        "8,192 characters. Read with `execution_role_arn`.",
    )
    repository_credentials: str | None = Field(
        default=None,
        description="ARN of a secret with the login of a private registry that is not ECR, read with "
        "`execution_role_arn`.",
    )
    prefect_api_key_secret_arn: str | None = Field(
        default=None,
        title="Prefect API Key Secret ARN",
        description="ARN of a secret that becomes PREFECT_API_KEY, in place of an entry of `env`; for Prefect's flows.",
    )
    prefect_api_auth_string_secret_arn: str | None = Field(
        default=None,
        title="Prefect API Auth String Secret ARN",
        description="ARN of a secret that becomes PREFECT_API_AUTH_STRING, likewise.",
    )
    task_role_arn: str | None = Field(
        default=None, title="Task Role ARN", description="The role that the job's own calls to AWS have."
    )
    execution_role_arn: str | None = Field(
        default=None,
        title="Execution Role ARN",
        description="The role that ECS pulls the image, reads secrets and writes logs with.",
    )
    vpc_id: str | None = Field(
        default=None,
        title="VPC ID",
        description="The VPC in whose subnets tasks run, unless `network_configuration` names some; by default the "
        "default VPC.",
    )
    network_configuration: dict[str, Any] = Field(
        default_factory=dict,
        description="`subnets`, `securityGroups` and `assignPublicIp` of ECS's awsvpcConfiguration.",
    )
    configure_cloudwatch_logs: bool | None = Field(
        default=None,
        title="Configure CloudWatch Logs",
        description="Whether the container's output is sent to CloudWatch. Needs `execution_role_arn`.",
    )
    cloudwatch_logs_options: dict[str, str] = Field(
        default_factory=dict,
        title="CloudWatch Logs Options",
        description="Options of the awslogs driver, such as `awslogs-group` (by default push-pools).",
    )
    cloudwatch_logs_prefix: str | None = Field(
        default=None,
        title="CloudWatch Logs Prefix",
        description="Prefix of the log streams; by default push-pools.",
    )
    stop_timeout: PositiveInt | None = Field(
        default=None,
        le=120,
        description="Seconds between SIGTERM and SIGKILL when a job is stopped; ECS's default is 30.",
    )
    volumes: list[dict[str, Any]] = Field(
        default_factory=list, description="Volumes of the task, as in a task definition (EFS, bind mounts)."
    )
    mount_points: list[dict[str, Any]] = Field(
        default_factory=list, description="Where the container has them: `sourceVolume`, `containerPath`, `readOnly`."
    )
    volume_configurations: list[dict[str, Any]] = Field(
        default_factory=list, description="EBS volumes that are made for each task, as RunTask takes them."
    )
    ulimits: list[dict[str, Any]] = Field(
        default_factory=list, description="Limits of the container: `name`, `softLimit` and `hardLimit`."
    )
    linux_parameters: dict[str, Any] = Field(
        default_factory=dict, description="`initProcessEnabled`, `capabilities` and so on, as in a task definition."
    )
    readonly_root_filesystem: bool | None = Field(
        default=None, description="Whether the container may not write but to its volumes."
    )
    tags: dict[str, str] = Field(default_factory=dict, description="Tags of the task, beside its labels.")
    propagate_tags: Literal["TASK_DEFINITION", "NONE"] | None = Field(
        default=None, description="Whether tags of the definition are copied to the task."
    )
    enable_ecs_managed_tags: bool | None = Field(
        default=None, title="Enable ECS Managed Tags", description="Whether ECS tags the task with its cluster's name."
    )
    enable_execute_command: bool | None = Field(
        default=None,
        description="Whether `aws ecs execute-command` may open a shell in the job. Needs `task_role_arn`.",
    )
    platform_version: str | None = Field(
        default=None, description="The platform version of Fargate; by default the latest."
    )
    group: str | None = Field(default=None, description="The task group, which placement and events can go by.")
    placement_constraints: list[dict[str, Any]] = Field(
        default_factory=list, max_length=10, description="Which hosts may be used. Not on Fargate."
    )
    placement_strategy: list[dict[str, Any]] = Field(
        default_factory=list, max_length=5, description="Which of these are preferred. Not on Fargate."
    )
    task_start_timeout_seconds: float | None = Field(
        default=None, gt=0, description="How long a task may take to begin to run; by default 600."
    )
    timeout: float | None = Field(
        default=None, ge=0, description="How many seconds a job may run; by default 24 hours, and 0 sets no limit."
    )
    grace_seconds: float | None = Field(
        default=None, ge=0, description="How long a job may go on after it was asked to stop; see `stop_timeout`."
    )
    auto_deregister_task_definition: bool = Field(
        default=False, description=f"Accepted, and without effect: {IGNORED['auto_deregister_task_definition']}."
    )
    match_latest_revision_in_family: bool = Field(
        default=False, description=f"Accepted, and without effect: {IGNORED['match_latest_revision_in_family']}."
    )
    stream_output: bool | None = Field(
        default=None, description=f"Accepted, and without effect: {IGNORED['stream_output']}."
    )
    task_watch_poll_interval: float | None = Field(
        default=None, description=f"Accepted, and without effect: {IGNORED['task_watch_poll_interval']}."
    )


class EcsJobConfiguration(BaseJobConfiguration):
    """One ECS task: the sections of its requests, and what is needed to complete them.

    `ecs_request` completes them. A job that `EcsPlatform.prepare` returned is complete (`is_complete`); its
    `task_run_request` is then, but for the clientToken, what is sent, the same at every repeat.
    """

    block_fields: ClassVar[frozenset[str]] = frozenset({"aws_credentials"})

    aws_credentials: dict[str, Any] | None = Field(default=None)
    task_definition: dict[str, Any] = Field(default_factory=dict, json_schema_extra={"template": TASK_DEFINITION})
    task_run_request: dict[str, Any] = Field(default_factory=dict, json_schema_extra={"template": TASK_RUN_REQUEST})
    cluster: str | None = None
    container_name: str | None = None
    execution_role_arn: str | None = None
    vpc_id: str | None = Field(default=None, title="VPC ID")
    network_configuration: dict[str, Any] = Field(default_factory=dict)
    configure_cloudwatch_logs: bool | None = None
    cloudwatch_logs_options: dict[str, str] = Field(default_factory=dict)
    cloudwatch_logs_prefix: str | None = None
    prefect_api_key_secret_arn: str | None = Field(default=None, title="Prefect API Key Secret ARN")
    prefect_api_auth_string_secret_arn: str | None = Field(default=None, title="Prefect API Auth String Secret ARN")
    task_start_timeout_seconds: float | None = Field(default=None, gt=0)
    timeout: float | None = Field(default=None, ge=0)
    grace_seconds: float | None = Field(default=None, ge=0)
    auto_deregister_task_definition: bool = False
    match_latest_revision_in_family: bool = False
    stream_output: bool | None = None
    task_watch_poll_interval: float | None = None

    started_by: Annotated[str | None, SkipJsonSchema()] = None
    """`startedBy` of the task, by which the task of a run is found: `pp/<run id>/<attempt>`."""
    region: Annotated[str | None, SkipJsonSchema()] = None
    """The region as it was when the job was completed."""
    log_place: Annotated[dict[str, str], SkipJsonSchema()] = Field(default_factory=dict)
    """`log_group` and `log_prefix` of the container's output, if it is in CloudWatch."""
    definition_hash: Annotated[str | None, SkipJsonSchema()] = None
    """Hash of the task definition, if it is one that we registered."""
    is_complete: Annotated[bool, SkipJsonSchema()] = False

    @field_validator("aws_credentials")
    @classmethod
    def _is_a_reference(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        if value and block_ref(value) is None:
            raise ValueError("name a credentials block; credentials are not written into a template")
        return value or None

    @field_validator(
        "task_definition",
        "task_run_request",
        "network_configuration",
        "cloudwatch_logs_options",
        "log_place",
        mode="before",
    )
    @classmethod
    def _none_is_empty(cls, value: object) -> object:
        return {} if value is None else value

    @field_validator("auto_deregister_task_definition", "match_latest_revision_in_family", mode="before")
    @classmethod
    def _none_is_false(cls, value: object) -> object:
        return False if value is None else value

    @model_validator(mode="after")
    def _can_be_asked_for(self) -> Self:
        if not self.is_complete:
            self._refuse_secrets()
            ecs_request.check(self)
        return self

    def _refuse_secrets(self) -> None:
        sections = {"task_definition": self.task_definition, "task_run_request": self.task_run_request}
        if found := find_secret_refs(sections):
            path = ".".join(map(str, found[0][0]))
            raise InvalidJobVariables([f"{path}: ECS would show this secret; use `secrets`, with the ARN of a secret"])

    def prepare_for_flow_run(
        self,
        flow_run: FlowRunInfo,
        deployment: DeploymentInfo | None = None,
        flow: FlowInfo | None = None,
        work_pool: WorkPoolInfo | None = None,
    ) -> None:
        """Fill in what depends on the run, its `startedBy` and the family among it."""
        super().prepare_for_flow_run(flow_run, deployment, flow, work_pool)
        self.started_by = ecs_request.started_by(flow_run.id, flow_run.attempt)
        name = flow.name if flow else deployment.flow_name if deployment else None
        if name and not self.task_definition.get("family"):
            self.task_definition = {**self.task_definition, "family": family_name(name)}

    @property
    def credential_block_id(self) -> str | None:
        """The block that the clients are opened with; `None` for the service's own identity."""
        return block_ref(self.aws_credentials) if self.aws_credentials else None

    @property
    def secret_variables(self) -> dict[str, str]:
        """Environment variables that ECS reads from secrets, beside those of `secrets`; none in others' definitions."""
        if ecs_request.given_definition(self) and not self.definition_hash:
            return {}
        named = {
            "PREFECT_API_KEY": self.prefect_api_key_secret_arn,
            "PREFECT_API_AUTH_STRING": self.prefect_api_auth_string_secret_arn,
        }
        return {name: arn for name, arn in named.items() if arn}

    @property
    def roles(self) -> dict[str, object]:
        """The roles that the task is given, by the variables that name them."""
        overrides, definition = self.task_run_request.get("overrides") or {}, self.task_definition
        execution = definition.get("executionRoleArn") or overrides.get("executionRoleArn") or self.execution_role_arn
        task = definition.get("taskRoleArn") or overrides.get("taskRoleArn")
        return {"execution_role_arn": execution, "task_role_arn": task}

    @property
    def notes(self) -> list[str]:
        """Sentences about what was asked for and is not done."""
        return [f"{name} has no effect: {why}" for name, why in IGNORED.items() if getattr(self, name)]

    def run_task_request(self, key: str) -> dict[str, JsonValue]:
        """Return the body of RunTask under a key; the same for the same job, whoever asks and whenever."""
        return ecs_request.run_task_request(self, key)
