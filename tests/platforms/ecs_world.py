"""An ECS platform that talks, through the unmodified boto3, to the ECS double."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from push_pools.credentials.aws import AwsCredentials
from push_pools.domain.jobs import DeploymentInfo, FlowInfo, FlowRunInfo, WorkPoolInfo, default_base_job_template
from push_pools.domain.runs import JobHandle, job_key
from push_pools.platforms.ecs import EcsPlatform
from push_pools.platforms.ecs_config import EcsJobConfiguration, EcsVariables
from push_pools.platforms.ecs_register import ProcessMemo
from push_pools.ports import PlatformContext

if TYPE_CHECKING:
    from push_pools.domain.states import Observation
    from push_pools.testing.ecs_double import EcsDouble, ManualClock

SUBNETS = {"subnets": ["subnet-1", "subnet-2"], "assignPublicIp": "ENABLED"}
USUAL: dict[str, Any] = {"image": "acme/report:7", "network_configuration": SUBNETS}
TEMPLATE = default_base_job_template(EcsJobConfiguration, EcsVariables)
DEPLOYMENT = DeploymentInfo(id=UUID(int=7), name="hourly", flow_name="Monthly report!")
RUN = UUID(int=1)


def environment(endpoint: str) -> dict[str, str]:
    """Return what boto3 needs to find the double and nothing else."""
    return {
        "AWS_ACCESS_KEY_ID": "AKIADOUBLE",
        "AWS_SECRET_ACCESS_KEY": "double",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/nonexistent",
        "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
        "AWS_ENDPOINT_URL": endpoint,
    }


class Clock:
    """The double's clock, as a platform reads it."""

    speed = 1.0

    def __init__(self, clock: ManualClock) -> None:
        self.now = clock.now


def rendered(template: dict[str, Any] | None = None, **values: Any) -> EcsJobConfiguration:
    """Return the job of a template with these job variables, as it is before `prepare_for_flow_run`."""
    return EcsJobConfiguration.from_template_and_values(template or TEMPLATE, {**USUAL, **values})


def job_of(
    run: UUID = RUN, attempt: int = 1, template: dict[str, Any] | None = None, **values: Any
) -> EcsJobConfiguration:
    """Return the job of a run, as it is before `EcsPlatform.prepare`."""
    job = rendered(template, **values)
    job.prepare_for_flow_run(
        FlowRunInfo(
            id=run,
            name="curious-crab",
            attempt=attempt,
            scheduled_time=datetime(2030, 1, 1, tzinfo=UTC),
            parameters={"n": 1},
        ),
        DEPLOYMENT,
        FlowInfo(name=DEPLOYMENT.flow_name),
        WorkPoolInfo(name="nightly", type="ecs:push"),
    )
    return job


class EcsWorld:
    """A platform, its double, and the clock of both."""

    def __init__(self, double: EcsDouble, clock: ManualClock) -> None:
        self.double, self.clock, self.memo = double, clock, ProcessMemo()
        self.blocks: dict[str | None, Any] = {None: None}
        self.platform = self.another()

    def another(self) -> EcsPlatform:
        """Return a platform as another process would build it."""
        clock = Clock(self.clock)
        return EcsPlatform(PlatformContext(lambda id_: self.blocks[id_], {}, clock, clock))

    def prepared(self, *, run: UUID | None = None, **options: Any) -> tuple[EcsJobConfiguration, str]:
        """Return a job as the ledger gives it back, and its key."""
        run = run or uuid4()
        job = self.platform.prepare(job_of(run, **options), self.memo)
        stored = EcsJobConfiguration.model_validate(job.model_dump(mode="json"))
        return stored, job_key(run, options.get("attempt", 1), 1)

    def submitted(self, **options: Any) -> JobHandle:
        """Start a job and return its handle, read back from JSON."""
        handle = self.platform.submit(*self.prepared(**options))
        return JobHandle.model_validate_json(handle.model_dump_json())

    def observed(self, handle: JobHandle) -> Observation:
        """Look at one job."""
        (seen,) = self.platform.observe([handle])
        return seen

    def bodies(self, operation: str) -> list[dict[str, Any]]:
        """Return the requests that the double got, in order."""
        return [call.body for call in self.double.log if call.operation == operation]


def static(endpoint: str | None = None, **fields: Any) -> AwsCredentials:
    """Return a block with keys."""
    return AwsCredentials.model_validate(
        {
            "aws_access_key_id": "AKIABLOCK",
            "aws_secret_access_key": "hidden",
            "region_name": "us-east-1",
            "aws_client_parameters": {"endpoint_url": endpoint},
            **fields,
        }
    )


def arn_of(handle: JobHandle) -> str:
    """Return the task's ARN of a pid."""
    return str(handle.pid).partition("::")[2]
