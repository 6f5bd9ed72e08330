"""What a task of ECS means: the named main container decides, and a null exit code is never success."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from push_pools.domain.failures import explain_observation
from push_pools.domain.runs import JobHandle
from push_pools.domain.states import JobStatus, Observation
from push_pools.platforms.ecs_observe import gone, main_of, moment, observation, run_of, stop_reason

NOW = datetime(2030, 1, 1, tzinfo=UTC)
RUN = UUID(int=5)
HANDLE = JobHandle(key="pp-key", platform="ecs:push", pid="c::arn", details={"container": "flow"}, run_id=RUN)
EXITED = "Essential container in task exited"


def flow(exit_code: int | None = None, reason: str | None = None, name: str = "flow") -> dict[str, Any]:
    container: dict[str, Any] = {"name": name, "lastStatus": "STOPPED"}
    if exit_code is not None:
        container["exitCode"] = exit_code
    if reason is not None:
        container["reason"] = reason
    return container


def stopped(code: str | None, reason: str, *containers: dict[str, Any]) -> dict[str, Any]:
    return {
        "taskArn": "arn",
        "lastStatus": "STOPPED",
        "stopCode": code,
        "stoppedReason": reason,
        "containers": list(containers),
        "startedAt": NOW - timedelta(minutes=1),
        "stoppedAt": NOW,
    }


def seen(task: dict[str, Any]) -> Observation:
    return observation(task, HANDLE, NOW)


OTHER = flow(1, name="proxy")
START = "TaskFailedToStart"
ENDS: list[tuple[str, dict[str, Any], str, str | None]] = [
    ("success", stopped("EssentialContainerExited", EXITED, flow(0)), "succeeded", None),
    (
        "success although a sidecar failed",
        stopped("EssentialContainerExited", EXITED, OTHER, flow(0)),
        "succeeded",
        None,
    ),
    ("success on Spot", stopped("SpotInterruption", "interrupted", flow(0)), "succeeded", None),
    ("exit", stopped("EssentialContainerExited", EXITED, flow(3), flow(0, name="proxy")), "failed", "exit"),
    ("null exit", stopped("EssentialContainerExited", EXITED, flow()), "failed", "platform"),
    ("null exit of main", stopped("EssentialContainerExited", EXITED, flow(), flow(0, name="x")), "failed", "platform"),
    (
        "main is not there",
        stopped("EssentialContainerExited", EXITED, flow(0, name="a"), flow(0, name="b")),
        "failed",
        "platform",
    ),
    ("oom", stopped("EssentialContainerExited", EXITED, flow(137, "OutOfMemoryError: killed")), "failed", "oom"),
    ("killed", stopped("EssentialContainerExited", EXITED, flow(137)), "failed", "killed"),
    ("terminated", stopped("EssentialContainerExited", EXITED, flow(143)), "failed", "killed"),
    ("spot", stopped("SpotInterruption", "Your Spot Task was interrupted.", flow(143)), "failed", "spot"),
    ("spot, exit 1", stopped("SpotInterruption", "Your Spot Task was interrupted.", flow(1)), "failed", "spot"),
    ("maintenance", stopped("TerminationNotice", "maintenance", flow(143)), "failed", "killed"),
    ("host", stopped("InfrastructureHealth", "Host EC2 terminated."), "failed", "platform"),
    ("scheduler", stopped("ServiceSchedulerInitiated", "", flow(137)), "failed", "killed"),
    ("others stopped it", stopped("UserInitiated", "Task stopped by user", flow(143)), "failed", "killed"),
    ("others stopped it, exit 0", stopped("UserInitiated", "Task stopped by user", flow(0)), "failed", "killed"),
    ("we stopped it", stopped("UserInitiated", stop_reason(HANDLE), flow(143)), "cancelled", None),
    ("we stopped it, exit 0", stopped("UserInitiated", stop_reason(HANDLE), flow(0)), "cancelled", None),
    ("we stopped it before it ran", stopped("UserInitiated", stop_reason(HANDLE)), "cancelled", None),
    (
        "no containers",
        stopped(START, "Timeout waiting for network interface provisioning to complete."),
        "failed",
        "network",
    ),
    (
        "image",
        stopped(START, "CannotPullContainerError: not found", flow(None, "CannotPullContainerError: x")),
        "failed",
        "image",
    ),
    ("init", stopped(START, "ResourceInitializationError: AccessDeniedException"), "failed", "permission"),
    ("capacity", stopped(START, "Capacity is unavailable at this time."), "failed", "capacity"),
    ("start", stopped(START, "Task failed to start"), "failed", "platform"),
    ("no stop code", stopped(None, "", flow()), "failed", "platform"),
    ("deleted", stopped("EssentialContainerExited", EXITED, flow(0)) | {"lastStatus": "DELETED"}, "succeeded", None),
]


@pytest.mark.parametrize(("task", "status", "class_"), [case[1:] for case in ENDS], ids=[case[0] for case in ENDS])
def test_how_a_task_ended(task: dict[str, Any], status: str, class_: str | None) -> None:
    got = seen(task)

    assert got.status == status
    assert got.key == HANDLE.key
    assert got.stopped is (status == "cancelled")
    if class_ is not None:
        assert str(explain_observation("ecs:push", got).failure_class) == class_


@pytest.mark.parametrize(
    ("last", "started", "status"),
    [
        ("PROVISIONING", False, JobStatus.STARTING),
        ("PENDING", False, JobStatus.STARTING),
        ("ACTIVATING", False, JobStatus.STARTING),
        ("RUNNING", True, JobStatus.RUNNING),
        ("RUNNING", False, JobStatus.RUNNING),
        ("DEACTIVATING", True, JobStatus.RUNNING),
        ("STOPPING", True, JobStatus.RUNNING),
        ("DEPROVISIONING", True, JobStatus.RUNNING),
        ("STOPPING", False, JobStatus.STARTING),
        ("DEPROVISIONING", False, JobStatus.STARTING),
        ("BRANDNEW", True, JobStatus.UNKNOWN),
    ],
)
def test_a_task_that_is_not_over(last: str, started: bool, status: JobStatus) -> None:
    task = {"lastStatus": last, "desiredStatus": "STOPPED"} | ({"startedAt": NOW} if started else {})

    got = seen(task)

    assert got.status is status
    assert got.stopped is None


def test_codes_times_and_reasons_are_kept() -> None:
    task = stopped("EssentialContainerExited", EXITED, flow(137, "OutOfMemoryError: killed"))
    got = seen(task | {"executionStoppedAt": NOW - timedelta(seconds=20)})

    assert got.codes == ("EssentialContainerExited", "OutOfMemoryError")
    assert got.reason == f"{EXITED}; OutOfMemoryError: killed"
    assert got.started_at == NOW - timedelta(minutes=1)
    assert got.ended_at == NOW - timedelta(seconds=20)
    assert got.details["exit_codes"] == {"flow": 137}


def test_an_event_reads_as_the_answer_does() -> None:
    task = stopped("EssentialContainerExited", EXITED, flow(0))
    event = task | {"startedAt": "2029-12-31T23:59:00.000Z", "stoppedAt": "2030-01-01T01:00:00+01:00"}

    assert seen(event) == seen(task)


def test_moments_are_in_utc() -> None:
    assert moment("2030-01-01T01:00:00+01:00") == NOW
    assert str(moment("2030-01-01T01:00:00+01:00")).endswith("+00:00")
    assert moment(None) is None
    assert moment("") is None


def test_the_only_container_is_the_main_one() -> None:
    assert main_of({"containers": [flow(0, name="other")]}, "flow") == flow(0, name="other")
    assert main_of({"containers": []}, "flow") is None
    assert main_of({}, None) is None


def test_a_run_is_read_off_started_by() -> None:
    assert run_of(f"pp/{RUN}/3") == (str(RUN), 3)
    assert run_of("pp/key/pp-x") is None
    assert run_of("ecs-svc/123") is None
    assert run_of(None) is None


def test_gone_is_lost() -> None:
    assert str(explain_observation("ecs:push", gone(HANDLE, NOW, "MISSING")).failure_class) == "lost"


def test_the_reason_of_a_stop_names_the_run() -> None:
    assert stop_reason(HANDLE) == f"push-pools stop run={RUN}"
    assert stop_reason(HANDLE.model_copy(update={"run_id": None})) == "push-pools stop run=pp-key"
