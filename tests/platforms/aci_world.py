"""A platform that talks, through the unmodified Azure client, to the double of Azure Container Instances."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from push_pools.domain.errors import NotFound
from push_pools.domain.jobs import DeploymentInfo, FlowInfo, FlowRunInfo, WorkPoolInfo, default_base_job_template
from push_pools.domain.runs import JobHandle, job_key
from push_pools.platforms.aci import AciPlatform
from push_pools.platforms.aci_config import AciJobConfiguration, AciVariables
from push_pools.ports import PlatformContext
from push_pools.testing.contracts.platforms import NoteBook

if TYPE_CHECKING:
    from push_pools.domain.states import Observation
    from push_pools.testing.aci_double import AciDouble, Call, ManualClock

SUBSCRIPTION, GROUP = "11111111-2222-3333-4444-555555555555", "jobs"
USUAL: dict[str, Any] = {
    "image": "acme/report:7",
    "resource_group_name": GROUP,
    "subscription_id": SUBSCRIPTION,
}
TEMPLATE = default_base_job_template(AciJobConfiguration, AciVariables)
DEPLOYMENT = DeploymentInfo(id=UUID(int=7), name="hourly", flow_name="Monthly report!")
RUN = UUID(int=1)


class Clock:
    """The double's clock, as a platform reads it."""

    speed = 1.0

    def __init__(self, clock: ManualClock) -> None:
        self.now = clock.now


def rendered(template: dict[str, Any] | None = None, **values: Any) -> AciJobConfiguration:
    """Return the job of a template with these job variables, as it is before `prepare_for_flow_run`."""
    return AciJobConfiguration.from_template_and_values(template or TEMPLATE, {**USUAL, **values})


def job_of(
    run: UUID = RUN, attempt: int = 1, template: dict[str, Any] | None = None, **values: Any
) -> AciJobConfiguration:
    """Return the job of a run, as it is before `AciPlatform.prepare`."""
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
        WorkPoolInfo(name="nightly", type="azure-container-instance:push"),
    )
    return job


class AciWorld:
    """A platform, its double, and the clock of both."""

    def __init__(self, double: AciDouble, clock: ManualClock, **settings: str) -> None:
        self.double, self.clock, self.memo = double, clock, NoteBook()
        self.settings = {"azure_endpoint": double.endpoint, **settings}
        self.blocks: dict[str | None, Any] = {None: None}
        self.platform = self.another()

    def another(self) -> AciPlatform:
        """Return a platform as another process would build it."""
        clock = Clock(self.clock)
        return AciPlatform(PlatformContext(self._block, self.settings, clock, clock))

    def _block(self, block_id: str | None) -> Any:
        if block_id not in self.blocks:
            raise NotFound("block", str(block_id))
        return self.blocks[block_id]

    def prepared(self, *, run: UUID | None = None, **options: Any) -> tuple[AciJobConfiguration, str]:
        """Return a job as the ledger gives it back, and its key."""
        run = run or uuid4()
        job = self.platform.prepare(job_of(run, **options), self.memo)
        stored = AciJobConfiguration.model_validate(job.model_dump(mode="json"))
        return stored, job_key(run, options.get("attempt", 1), 1)

    def submitted(self, **options: Any) -> JobHandle:
        """Start a job and return its handle, read back from JSON."""
        handle = self.platform.submit(*self.prepared(**options))
        return JobHandle.model_validate_json(handle.model_dump_json())

    def observed(self, handle: JobHandle) -> Observation:
        """Look at one job."""
        (seen,) = self.platform.observe([handle])
        return seen

    def puts(self) -> list[Call]:
        """Return the PUTs that the double got, in order."""
        return self.double.sent("put")
