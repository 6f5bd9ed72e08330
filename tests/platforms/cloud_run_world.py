"""A Cloud Run platform that talks, through the unmodified Google client, to the Cloud Run double."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from google.protobuf.json_format import MessageToDict

from push_pools.credentials.gcp import GcpCredentials
from push_pools.domain.jobs import DeploymentInfo, FlowInfo, FlowRunInfo, WorkPoolInfo, default_base_job_template
from push_pools.domain.runs import JobHandle, job_key
from push_pools.platforms.cloud_run import CloudRunPlatform
from push_pools.platforms.cloud_run_config import CloudRunJobConfiguration, CloudRunVariables
from push_pools.ports import PlatformContext
from push_pools.testing.contracts.platforms import NoteBook

if TYPE_CHECKING:
    from push_pools.domain.states import Observation
    from push_pools.testing.cloud_run_double import CloudRunDouble, ManualClock

USUAL: dict[str, Any] = {"image": "acme/report:7", "region": "europe-west1"}
TEMPLATE = default_base_job_template(CloudRunJobConfiguration, CloudRunVariables)
DEPLOYMENT = DeploymentInfo(id=UUID(int=7), name="hourly", flow_name="Monthly report!")
RUN = UUID(int=1)
PLACE = "projects/acme/locations/europe-west1"


class Clock:
    """The double's clock, as a platform reads it."""

    speed = 1.0

    def __init__(self, clock: ManualClock) -> None:
        self.now = clock.now


def rendered(template: dict[str, Any] | None = None, **values: Any) -> CloudRunJobConfiguration:
    """Return the job of a template with these job variables, as it is before `prepare_for_flow_run`."""
    return CloudRunJobConfiguration.from_template_and_values(template or TEMPLATE, {**USUAL, **values})


def job_of(
    run: UUID = RUN, attempt: int = 1, template: dict[str, Any] | None = None, **values: Any
) -> CloudRunJobConfiguration:
    """Return the job of a run, as it is before `CloudRunPlatform.prepare`."""
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
        WorkPoolInfo(name="nightly", type="cloud-run-v2:push"),
    )
    return job


class CloudRunWorld:
    """A platform, its double, and the clock of both."""

    def __init__(self, double: CloudRunDouble, clock: ManualClock) -> None:
        self.double, self.clock = double, clock
        self.settings = {"cloud_run_endpoint": double.endpoint}
        self.blocks: dict[str | None, Any] = {None: GcpCredentials(project="acme")}
        self.platform = self.another()

    def another(self) -> CloudRunPlatform:
        """Return a platform as another process would build it."""
        clock = Clock(self.clock)
        return CloudRunPlatform(PlatformContext(lambda id_: self.blocks[id_], self.settings, clock, clock))

    def prepared(self, *, run: UUID | None = None, **options: Any) -> tuple[CloudRunJobConfiguration, str]:
        """Return a job as the ledger gives it back, and its key."""
        run = run or uuid4()
        job = self.platform.prepare(job_of(run, **options), NoteBook())
        stored = CloudRunJobConfiguration.model_validate(job.model_dump(mode="json"))
        return stored, job_key(run, options.get("attempt", 1), 1)

    def submitted(self, **options: Any) -> JobHandle:
        """Start a job and return its handle, read back from JSON."""
        handle = self.platform.submit(*self.prepared(**options))
        return JobHandle.model_validate_json(handle.model_dump_json())

    def observed(self, handle: JobHandle) -> Observation:
        """Look at one job."""
        (seen,) = self.platform.observe([handle])
        return seen

    def bodies(self, method: str) -> list[dict[str, Any]]:
        """Return the requests that the double got, as JSON, in order."""
        return [MessageToDict(type(each).pb(each)) for each in self.double.requests(method)]
