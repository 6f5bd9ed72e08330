"""Whatever Google's and Azure's own libraries can say of a job or a call has a row in the table of failures."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from azure.mgmt.containerinstance.models import ContainerGroup
from google.api_core import exceptions as google
from google.api_core.exceptions import from_grpc_status
from google.cloud import run_v2
from grpc import StatusCode

from push_pools.domain.errors import (
    JobRejected,
    NothingStarted,
    PlatformError,
    PlatformUnavailable,
    SubmissionUncertain,
)
from push_pools.domain.failures import explain_error, explain_observation, row_of
from push_pools.domain.runs import JobHandle
from push_pools.domain.states import JobStatus
from push_pools.platforms.aci_observe import observation
from push_pools.platforms.cloud_run_errors import submit_error
from push_pools.platforms.cloud_run_observe import ending, not_ready
from push_pools.testing.aci_double import AciDouble, Fault, ManualClock

from .aci_world import AciWorld

if TYPE_CHECKING:
    from collections.abc import Iterator

    from push_pools.domain.states import Failure

RUN, ACI = "cloud-run-v2:push", "azure-container-instance:push"
NOW = datetime(2030, 1, 1, tzinfo=UTC)
HANDLE = JobHandle(key="pp-x", platform=RUN, place={"project": "p", "region": "r"}, pid="x")
FAILED = run_v2.Condition.State.CONDITION_FAILED
Common: Any = run_v2.Condition.CommonReason  # An enum, of which the library gives no types.
Execution: Any = run_v2.Condition.ExecutionReason

# -- Cloud Run: why a job or an execution is not what it should be

JOB_REASONS = {
    "UNKNOWN": ("platform", True),
    "REVISION_FAILED": ("platform", True),
    "PROGRESS_DEADLINE_EXCEEDED": ("start-timeout", True),
    "CONTAINER_MISSING": ("image", False),
    "CONTAINER_PERMISSION_DENIED": ("image", False),
    "CONTAINER_IMAGE_UNAUTHORIZED": ("image", False),
    "CONTAINER_IMAGE_AUTHORIZATION_CHECK_FAILED": ("image", True),
    "ENCRYPTION_KEY_PERMISSION_DENIED": ("permission", False),
    "ENCRYPTION_KEY_CHECK_FAILED": ("configuration", False),
    "SECRETS_ACCESS_CHECK_FAILED": ("permission", False),
    "WAITING_FOR_OPERATION": ("platform", True),
    "IMMEDIATE_RETRY": ("platform", True),
    "POSTPONED_RETRY": ("platform", True),
    "INTERNAL": ("platform", True),
    "VPC_NETWORK_NOT_FOUND": ("configuration", False),
}
EXECUTION_REASONS = {
    "JOB_STATUS_SERVICE_POLLING_ERROR": ("platform", True),
    "NON_ZERO_EXIT_CODE": ("platform", True),  # Without an exit code, which comes from the task.
    "DELETED": ("killed", True),
    "DELAYED_START_PENDING": ("platform", True),
}


def told(failure: Failure) -> tuple[str, bool]:
    assert failure.suggestion
    assert "{" not in failure.cause
    return str(failure.failure_class), failure.retry


def is_known(codes: Any, platform: str = RUN, reason: str = "") -> bool:
    return not row_of(platform, codes=codes, reason=reason).name.startswith("unknown")


def test_the_tables_below_are_whole() -> None:
    """A newer library may know more reasons; then somebody has to decide what they mean."""
    defined = {each.name for each in Common if each.value} | {each.name for each in Execution if each.value}
    assert defined == JOB_REASONS.keys() | EXECUTION_REASONS.keys() | {"CANCELLED", "CANCELLING"}


@pytest.mark.parametrize("reason", JOB_REASONS)
def test_a_job_that_cannot_be_made_ready(reason: str) -> None:
    condition = run_v2.Condition(type_="Ready", state=FAILED, reason=Common[reason], message="why")

    seen = not_ready(run_v2.Job(terminal_condition=condition), HANDLE, NOW)

    assert (seen.status, seen.codes) == (JobStatus.FAILED, (reason,))
    assert told(explain_observation(RUN, seen)) == JOB_REASONS[reason]
    assert is_known(seen.codes)


@pytest.mark.parametrize("reason", EXECUTION_REASONS)
def test_an_execution_that_failed(reason: str) -> None:
    condition = run_v2.Condition(type_="Completed", state=FAILED, execution_reason=Execution[reason], message="why")

    seen = ending(run_v2.Execution(task_count=1, conditions=[condition]), [], HANDLE, NOW)

    assert seen.status is JobStatus.FAILED
    assert told(explain_observation(RUN, seen)) == EXECUTION_REASONS[reason]
    assert is_known(seen.codes)


@pytest.mark.parametrize("reason", ["CANCELLED", "CANCELLING"])
def test_an_execution_that_was_cancelled_is_no_failure(reason: str) -> None:
    condition = run_v2.Condition(type_="Completed", state=FAILED, execution_reason=Execution[reason])

    seen = ending(run_v2.Execution(task_count=1, conditions=[condition]), [], HANDLE, NOW)

    assert (seen.status, seen.stopped) == (JobStatus.CANCELLED, True)


# -- Cloud Run: what a call is refused with

STATUSES: dict[str, tuple[type[PlatformError], str]] = {
    "RESOURCE_EXHAUSTED": (PlatformUnavailable, "quota"),
    "UNAUTHENTICATED": (PlatformUnavailable, "permission"),
    "INTERNAL": (SubmissionUncertain, "platform"),
    "UNAVAILABLE": (SubmissionUncertain, "platform"),
    "DEADLINE_EXCEEDED": (SubmissionUncertain, "network"),
    "CANCELLED": (SubmissionUncertain, "network"),
    "ABORTED": (SubmissionUncertain, "platform"),
    "UNKNOWN": (SubmissionUncertain, "platform"),
    "DATA_LOSS": (SubmissionUncertain, "platform"),
    "INVALID_ARGUMENT": (JobRejected, "configuration"),
    "FAILED_PRECONDITION": (JobRejected, "configuration"),
    "OUT_OF_RANGE": (JobRejected, "configuration"),
    "UNIMPLEMENTED": (JobRejected, "configuration"),
    "NOT_FOUND": (JobRejected, "configuration"),
    "PERMISSION_DENIED": (JobRejected, "permission"),
    # The platform looks at the job that is there: it is a success, unless somebody else made that.
    "ALREADY_EXISTS": (SubmissionUncertain, "platform"),
}


@pytest.mark.parametrize("status", [each for each in StatusCode if each is not StatusCode.OK], ids=lambda s: s.name)
def test_every_status_of_a_call(status: StatusCode) -> None:
    """ABORTED and ALREADY_EXISTS are both a 409 of the library, and mean different things."""
    raised = from_grpc_status(status, "words that nobody has foreseen")
    assert isinstance(raised, google.GoogleAPICallError)

    ours = submit_error(raised)

    error, class_ = STATUSES[status.name]
    assert type(ours) is error
    assert told(explain_error(ours)) == (class_, error is not JobRejected and class_ != "permission")
    assert is_known(ours.codes)


# -- Azure: the state of a group, whatever its provisioning state says

PROVISIONING = ["Pending", "Creating", "Succeeded", "Failed", "Unhealthy", "Repairing", "Updating", "Accepted"]


def group(provisioning: str, state: dict[str, Any] | None, *, whole: str = "") -> ContainerGroup:
    view = {"currentState": state, "restartCount": 0} if state else None
    container = {"name": "job", "properties": {"image": "x", "resources": {}, "instanceView": view}}
    properties: dict[str, Any] = {"provisioningState": provisioning, "containers": [container], "osType": "Linux"}
    return ContainerGroup.deserialize({"properties": {**properties, "instanceView": {"state": whole}}})


@pytest.mark.parametrize("provisioning", PROVISIONING)
def test_no_provisioning_state_says_that_the_job_is_over(provisioning: str) -> None:
    """Above all not `Succeeded`, which says that the container was brought to run."""
    for state, status in (
        (None, JobStatus.STARTING),
        ({"state": "Waiting"}, JobStatus.STARTING),
        ({"state": "Running"}, JobStatus.RUNNING),
    ):
        seen = observation(group(provisioning, state), HANDLE, NOW)
        assert seen.status is status
        if provisioning in ("Failed", "Unhealthy", "Repairing") and status is JobStatus.STARTING:
            assert f"provisioning {provisioning}" in seen.reason, "it is told to whoever looks"
            assert is_known(seen.codes, ACI)


@pytest.mark.parametrize(
    ("state", "whole", "status", "expected"),
    [
        ({"state": "Terminated", "exitCode": 0}, "Succeeded", JobStatus.SUCCEEDED, None),
        ({"state": "Terminated", "exitCode": 3, "detailStatus": "Error"}, "Failed", JobStatus.FAILED, ("exit", False)),
        ({"state": "Terminated", "exitCode": 137, "detailStatus": "OOMKilled"}, "", JobStatus.FAILED, ("oom", False)),
        ({"state": "Terminated", "exitCode": 137, "detailStatus": "Error"}, "", JobStatus.FAILED, ("killed", True)),
        ({"state": "Terminated"}, "Failed", JobStatus.FAILED, ("platform", True)),
        ({"state": "Terminated", "exitCode": 143}, "Stopped", JobStatus.FAILED, ("killed", True)),
        ({"state": "Waiting"}, "Stopped", JobStatus.FAILED, ("killed", True)),
        ({"state": "Waiting", "detailStatus": "CrashLoopBackOff"}, "Pending", JobStatus.STARTING, None),
    ],
)
def test_the_containers_state_decides(
    state: dict[str, Any], whole: str, status: JobStatus, expected: tuple[str, bool] | None
) -> None:
    seen = observation(group("Succeeded", state, whole=whole), HANDLE, NOW)

    assert seen.status is status
    if expected is not None:
        assert told(explain_observation(ACI, seen)) == expected


# -- Azure: what a PUT is refused with, by status, whatever its code

HTTP: dict[int, tuple[type[PlatformError], str, bool]] = {
    400: (JobRejected, "configuration", False),
    401: (JobRejected, "permission", False),
    403: (JobRejected, "permission", False),
    404: (JobRejected, "configuration", False),
    408: (SubmissionUncertain, "platform", True),
    409: (SubmissionUncertain, "platform", True),
    429: (PlatformUnavailable, "quota", True),
    500: (SubmissionUncertain, "platform", True),
    502: (SubmissionUncertain, "platform", True),
    503: (SubmissionUncertain, "platform", True),
    504: (SubmissionUncertain, "platform", True),
}


@pytest.fixture
def world() -> Iterator[AciWorld]:
    clock = ManualClock()
    with AciDouble(clock=clock) as double:
        yield AciWorld(double, clock)


@pytest.mark.parametrize("status", HTTP)
def test_every_status_of_a_put_with_a_code_that_nobody_has_foreseen(world: AciWorld, status: int) -> None:
    world.double.faults.add("put", Fault.answer("Brandnew", "words that nobody has foreseen", status=status))

    with pytest.raises(PlatformError) as raised:
        world.submitted()

    error, class_, retry = HTTP[status]
    assert type(raised.value) is error
    assert told(explain_error(raised.value)) == (class_, retry)


def test_a_region_without_room_has_started_nothing(world: AciWorld) -> None:
    text = "The requested resource is not available in the location 'x' at this moment."
    world.double.faults.add("put", Fault.answer("ServiceUnavailable", text, status=409))

    with pytest.raises(NothingStarted) as raised:
        world.submitted()

    assert told(explain_error(raised.value)) == ("capacity", True)
