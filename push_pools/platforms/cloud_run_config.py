"""The job configuration of Cloud Run jobs, and the variables of its base job template."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator, model_validator
from pydantic.json_schema import SkipJsonSchema

from push_pools.credentials.gcp import GcpCredentials
from push_pools.domain.errors import InvalidJobVariables
from push_pools.domain.jobs import (
    BaseJobConfiguration,
    BaseVariables,
)
from push_pools.domain.secrets import find_secret_refs
from push_pools.domain.templates import block_ref
from push_pools.platforms import cloud_run_request

DEFAULT_REGION: Final = "us-central1"
LaunchStage = Literal["ALPHA", "BETA", "GA", "DEPRECATED", "EARLY_ACCESS", "PRELAUNCH", "UNIMPLEMENTED"]

JOB_BODY: Final[dict[str, Any]] = {
    "launchStage": "{{ launch_stage }}",
    "template": {
        "template": {
            "serviceAccount": "{{ service_account_name }}",
            "maxRetries": "{{ max_retries }}",
            "executionEnvironment": "{{ execution_environment }}",
            "encryptionKey": "{{ encryption_key }}",
            "vpcAccess": {
                "connector": "{{ vpc_connector_name }}",
                "networkInterfaces": "{{ network_interfaces }}",
                "egress": "{{ vpc_egress }}",
            },
            "containers": [
                {
                    "image": "{{ image }}",
                    "command": "{{ entrypoint }}",
                    "args": "{{ args }}",
                    "env": [],
                    "resources": {"limits": {"cpu": "{{ cpu }}", "memory": "{{ memory }}"}},
                    "volumeMounts": "{{ volume_mounts }}",
                    "workingDir": "{{ working_dir }}",
                }
            ],
            "volumes": "{{ volumes }}",
        }
    },
}
"""The job as the API's JSON has it. Environment, labels, secrets and the time-out are put in when it is completed."""


class SecretKeySelector(BaseModel):
    """A secret of Secret Manager, and which of its versions."""

    model_config = ConfigDict(extra="forbid")

    secret: str
    """Its name, or `projects/PROJECT/secrets/NAME` for one of another project."""
    version: str = "latest"


class CloudRunVariables(BaseVariables):
    """Variables of the base job template, named as in Prefect."""

    credentials: GcpCredentials = Field(
        default_factory=GcpCredentials,
        title="GCP Credentials",
        description="The identity that starts jobs, and their project. If left out, it is the machine's own.",
    )
    region: str = Field(default=DEFAULT_REGION, description="The region that jobs run in.")
    image: str | None = Field(default=None, description="The image of the job.")
    args: str | list[str] | None = Field(
        default=None, description="Replaces the image's CMD, as `command` does, and wins over it."
    )
    entrypoint: str | list[str] | None = Field(
        default=None, description="Replaces the image's ENTRYPOINT: a list of words, or text that is split into words."
    )
    env_from_secrets: dict[str, SecretKeySelector] = Field(
        default_factory=dict,
        title="Environment Variables from Secrets",
        description="Environment variables whose values Cloud Run reads from Secret Manager at the start: name to "
        "`secret` and `version`. The job's service account has to be allowed to read them.",
    )
    prefect_api_key_secret: SecretKeySelector | None = Field(
        default=None,
        title="Prefect API Key Secret",
        description="A secret that becomes PREFECT_API_KEY, in place of an entry of `env`; for Prefect's flows.",
    )
    prefect_api_auth_string_secret: SecretKeySelector | None = Field(
        default=None,
        title="Prefect API Auth String Secret",
        description="A secret that becomes PREFECT_API_AUTH_STRING, likewise.",
    )
    cloudsql_instances: list[str] = Field(
        default_factory=list,
        title="Cloud SQL Instances",
        description="Instances of Cloud SQL to connect to, as `project:region:instance`; they are below /cloudsql.",
    )
    keep_job: bool = Field(
        default=False,
        title="Keep Job After Completion",
        description="Whether the job stays at Cloud Run after its end. It counts to the 1,000 jobs of a region.",
    )
    launch_stage: LaunchStage = Field(
        default="GA", description="The stage of the features that the job may use; BETA for those in preview."
    )
    max_retries: int = Field(
        default=0,
        ge=0,
        le=10,
        description="How often Cloud Run itself runs a failing task again. Above 0, an attempt may run your code more "
        "than once, which is outside the guarantee; `retries` of the deployment start new attempts instead.",
    )
    cpu: str = Field(default="1000m", title="CPU", description="CPU of the job: `1000m` or `1` is one.")
    memory: str = Field(default="512Mi", description="Memory of the job, as `512Mi` or `2Gi`.")
    timeout: float | None = Field(
        default=None,
        ge=0,
        description="How many seconds a job may run; by default 24 hours, and 0 sets no limit but Cloud Run's own, "
        "7 days.",
    )
    vpc_connector_name: str | None = Field(
        default=None, title="VPC Connector Name", description="The connector through which the job reaches a VPC."
    )
    network_interfaces: list[dict[str, Any]] = Field(
        default_factory=list,
        description="Direct VPC egress in place of a connector: `network`, `subnetwork` and `tags`.",
    )
    vpc_egress: Literal["ALL_TRAFFIC", "PRIVATE_RANGES_ONLY"] | None = Field(
        default=None, title="VPC Egress", description="Which traffic goes through the VPC."
    )
    service_account_name: str | None = Field(
        default=None,
        description="The service account that the job's own calls have; by default the project's Compute Engine one.",
    )
    execution_environment: Literal["EXECUTION_ENVIRONMENT_GEN1", "EXECUTION_ENVIRONMENT_GEN2"] | None = Field(
        default=None, description="The sandbox of the job; by default the second generation."
    )
    encryption_key: str | None = Field(
        default=None, description="A key of Cloud KMS that encrypts the image while it is kept."
    )
    volumes: list[dict[str, Any]] = Field(
        default_factory=list, description="Volumes of the job, as the API takes them (secrets, Cloud Storage, NFS)."
    )
    volume_mounts: list[dict[str, Any]] = Field(
        default_factory=list, description="Where the container has them: `name` and `mountPath`."
    )
    working_dir: str | None = Field(default=None, description="The container's working directory.")
    task_start_timeout_seconds: float | None = Field(
        default=None, gt=0, description="How long a job may take to begin to run; by default 300."
    )
    grace_seconds: float | None = Field(
        default=None, ge=0, description="Accepted; Cloud Run gives a cancelled job its own 10 seconds."
    )


class CloudRunJobConfiguration(BaseJobConfiguration):
    """One Cloud Run job: its body, and what is needed to complete it.

    A job that `CloudRunPlatform.prepare` returned is complete (`is_complete`); its `job_body` is then, but for its
    name and its token, what is sent, the same at every repeat.
    """

    block_fields: ClassVar[frozenset[str]] = frozenset({"credentials"})

    credentials: dict[str, Any] | None = Field(default=None)
    job_body: dict[str, Any] = Field(default_factory=dict, json_schema_extra={"template": JOB_BODY})
    region: str = DEFAULT_REGION
    env_from_secrets: dict[str, SecretKeySelector] = Field(default_factory=dict)
    prefect_api_key_secret: SecretKeySelector | None = None
    prefect_api_auth_string_secret: SecretKeySelector | None = None
    cloudsql_instances: list[str] = Field(default_factory=list)
    keep_job: bool = False
    timeout: float | None = Field(default=None, ge=0)
    task_start_timeout_seconds: float | None = Field(default=None, gt=0)
    grace_seconds: float | None = Field(default=None, ge=0)

    project: Annotated[str | None, SkipJsonSchema()] = None
    """The project as it was when the job was completed."""
    is_complete: Annotated[bool, SkipJsonSchema()] = False

    @field_validator("env_from_secrets", "cloudsql_instances", "job_body", mode="before")
    @classmethod
    def _none_is_empty(cls, value: object, info: Any) -> object:
        return ([] if info.field_name == "cloudsql_instances" else {}) if value is None else value

    @field_validator("keep_job", mode="before")
    @classmethod
    def _none_is_false(cls, value: object) -> object:
        return False if value is None else value

    @field_validator("region", mode="before")
    @classmethod
    def _none_is_the_default(cls, value: object) -> object:
        return value or DEFAULT_REGION

    @field_validator("prefect_api_key_secret", "prefect_api_auth_string_secret", mode="before")
    @classmethod
    def _no_secret_is_none(cls, value: object) -> object:
        return value or None

    @model_validator(mode="after")
    def _can_be_asked_for(self) -> Self:
        if not self.is_complete:
            if found := find_secret_refs(self.job_body):
                path = ".".join(map(str, found[0][0]))
                raise InvalidJobVariables(
                    [f"job_body.{path}: Cloud Run would show this secret; use `env_from_secrets`, with its name there"]
                )
            cloud_run_request.check(self)
        return self

    @property
    def credential_block_id(self) -> str | None:
        """The block that the clients are opened with; `None` for the machine's own identity."""
        return block_ref(self.credentials) if self.credentials else None

    @property
    def secret_variables(self) -> dict[str, SecretKeySelector]:
        """Environment variables that Cloud Run reads from secrets."""
        named = {
            "PREFECT_API_KEY": self.prefect_api_key_secret,
            "PREFECT_API_AUTH_STRING": self.prefect_api_auth_string_secret,
        }
        return {**self.env_from_secrets, **{name: each for name, each in named.items() if each}}

    @property
    def risks(self) -> list[str]:
        """Sentences about what lets an attempt run its code more than once: Cloud Run's own retries."""
        return cloud_run_request.risks(self)

    @property
    def notes(self) -> list[str]:
        """Sentences about what was asked for and is not done, or not promised."""
        return cloud_run_request.notes(self)

    def create_job_request(self, key: str) -> dict[str, JsonValue]:
        """Return the body of CreateJob under a key; the same for the same job, whoever asks and whenever."""
        return cloud_run_request.create_job_request(self, key)
