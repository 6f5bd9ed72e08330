"""Every row of the table of failures speaks for what it is meant for, and the table is total."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from push_pools.domain.errors import JobRejected, NothingStarted, PlatformUnavailable
from push_pools.domain.failures import LONGEST_REASON, ROWS, explain, explain_error, explain_observation, row_of
from push_pools.domain.states import TRIED_AGAIN, FailureClass, JobStatus, Observation, State, StateType
from tests.domain.cloud_run_cases import CASES as CLOUD_RUN_CASES

ECS = "ecs:push"
EXITED = "Essential container in task exited"
NOW = datetime(2030, 1, 1, tzinfo=UTC)


class Case(NamedTuple):
    """Facts, and what has to be said of them."""

    row: str
    class_: str
    retry: bool
    codes: tuple[str, ...] = ()
    reason: str = ""
    exit_code: int | None = None
    signal: int | None = None
    platform: str = "process"


def ecs(row: str, class_: str, retry: bool, *codes: str, reason: str = "", exit_code: int | None = None) -> Case:
    return Case(f"ecs/{row}", class_, retry, codes, reason, exit_code, platform=ECS)


def pull(row: str, class_: str, retry: bool, reason: str) -> Case:
    return ecs(row, class_, retry, "TaskFailedToStart", reason=f"CannotPullContainerError: {reason}")


def init(row: str, class_: str, retry: bool, reason: str) -> Case:
    return ecs(row, class_, retry, "TaskFailedToStart", reason=f"ResourceInitializationError: {reason}")


EXITED_CODE = "EssentialContainerExited"
CASES = [
    # Any platform.
    Case("missing", "lost", False, ("MISSING",)),
    Case("missing", "lost", False, ("gone",), platform=ECS),
    Case("platform-missing", "configuration", False, ("PlatformMissing",), "pip install it"),
    Case("ledger", "platform", True, ("LedgerUnavailable",), "the table is away", platform=ECS),
    Case("too-slow", "platform", True, ("TooSlow",), "AWS took too long to give credentials", platform=ECS),
    Case("no-credentials", "permission", False, ("NoCredentials",), "Unable to locate credentials", platform=ECS),
    Case("credentials-expired", "permission", False, ("CredentialsExpired", "ExpiredTokenException"), platform=ECS),
    Case("connection", "network", True, ("ConnectFailed",), "refused", platform=ECS),
    Case("no-answer", "network", True, ("NoAnswer",), "read timeout", platform=ECS),
    Case("out-of-memory", "oom", False, (), "Container was OOM-killed", 137),
    Case("out-of-memory", "oom", False, (), "out of memory", None, 9),
    Case("not-executable", "exit", False, exit_code=126),
    Case("command-not-found", "exit", False, exit_code=127),
    Case("killed-exit-code", "killed", True, exit_code=137),
    Case("killed-exit-code", "killed", True, exit_code=143),
    Case("segmentation-fault-exit-code", "killed", True, exit_code=139),
    Case("killed", "killed", True, signal=9),
    Case("killed", "killed", True, signal=15),
    Case("segmentation-fault", "killed", True, signal=11),
    Case("time-limit", "timeout", False, signal=24),
    Case("other-signal", "exit", False, signal=6),
    Case("exit", "exit", False, exit_code=1),
    Case("exit", "exit", False, exit_code=255),
    Case("unknown-code", "platform", True, ("Brandnew",), "something else"),
    Case("unknown-reason", "platform", True, (), "something else"),
    Case("no-exit-code", "platform", True),
    Case("strange-exit-code", "platform", True, exit_code=0),
    # Local processes.
    Case("process/wrapper-died", "killed", True, ("wrapper-died",), "its wrapper was killed from outside"),
    Case("process/no-room", "capacity", True, ("EAGAIN",), "Resource temporarily unavailable"),
    Case("process/not-allowed", "permission", False, ("EACCES",), "Permission denied"),
    # ECS: how a task ended.
    ecs("spot", "spot", True, "SpotInterruption", reason="Your Spot Task was interrupted.", exit_code=143),
    ecs("termination-notice", "killed", True, "TerminationNotice", reason="maintenance", exit_code=143),
    ecs("termination-notice", "killed", True, "ServiceSchedulerInitiated"),
    ecs("host", "platform", True, "InfrastructureHealth", reason="Host EC2 (instance i-0) terminated."),
    ecs("stopped-by-others", "killed", True, "UserInitiated", reason="Stopped by hand", exit_code=143),
    ecs("out-of-memory", "oom", False, EXITED_CODE, reason="OutOfMemoryError: Container killed", exit_code=137),
    Case("killed-exit-code", "killed", True, (EXITED_CODE,), EXITED, 137, platform=ECS),
    Case("killed-exit-code", "killed", True, (EXITED_CODE,), EXITED, 143, platform=ECS),
    Case("segmentation-fault-exit-code", "killed", True, (EXITED_CODE,), EXITED, 139, platform=ECS),
    Case("exit", "exit", False, (EXITED_CODE,), EXITED, 2, platform=ECS),
    ecs("null-exit-code", "platform", True, EXITED_CODE, reason=EXITED),
    ecs("start-unknown", "platform", True, "TaskFailedToStart", reason="Task failed to start"),
    ecs("start-unknown", "platform", True, "TaskFailedToStart"),
    # ECS: the image.
    pull("image-not-found", "image", False, "failed to resolve ref docker.io/x:1: not found"),
    pull("image-not-found", "image", False, "manifest unknown: manifest unknown"),
    pull("image-denied", "image", False, "pull access denied, repository does not exist or may require authorization"),
    pull("image-denied", "image", False, "401 Unauthorized"),
    pull("image-unreachable", "image", True, "Head https://reg/v2: dial tcp 10.0.0.1:443: i/o timeout"),
    pull("image-unreachable", "image", True, "net/http: TLS handshake timeout"),
    pull("image-rate-limit", "image", True, "toomanyrequests: You have reached your pull rate limit"),
    pull("image-platform", "image", False, "image Manifest does not contain descriptor matching platform linux/arm64"),
    pull("image-space", "configuration", False, "write /var/lib: no space left on device"),
    pull("image", "image", False, "it went wrong"),
    # ECS: other failures to start.
    ecs(
        "network-interface",
        "network",
        True,
        "TaskFailedToStart",
        reason="Timeout waiting for network interface provisioning to complete.",
    ),
    ecs(
        "storage-provisioning",
        "capacity",
        True,
        "TaskFailedToStart",
        reason="Timeout waiting for EphemeralStorage provisioning to complete.",
    ),
    init("init-throttled", "quota", True, "failed to fetch secret: ThrottlingException: Rate exceeded"),
    init("init-throttled", "quota", True, "unable to attach: RequestLimitExceeded: Request limit exceeded."),
    init("init-denied", "permission", False, "AccessDeniedException: User is not authorized to perform secretsmanager"),
    init("init-missing", "configuration", False, "Secrets Manager can't find the specified secret."),
    init(
        "init-missing",
        "configuration",
        False,
        "failed to validate logger args: The specified log group does not exist.",
    ),
    init("init-network", "network", True, "RequestError: send request failed: dial tcp 1.2.3.4:443: i/o timeout"),
    init("init", "platform", True, "execution resource retrieval failed"),
    ecs(
        "start-executable",
        "configuration",
        False,
        "TaskFailedToStart",
        reason='CannotStartContainerError: exec: "serve": executable file not found in $PATH',
    ),
    # As Fargate says it: with both names.
    *(
        ecs(
            "start-executable",
            "configuration",
            False,
            "TaskFailedToStart",
            reason="CannotStartContainerError: ResourceInitializationError: failed to create new container runtime "
            f"task: {why}: unknown",
        )
        for why in (
            'OCI runtime create failed: starting container process caused: exec: "/run.sh": permission denied',
            'failed to create shim task: exec: "serve": executable file not found in $PATH',
        )
    ),
    ecs(
        "start-command",
        "configuration",
        False,
        "TaskFailedToStart",
        reason="CannotStartContainerError: API error (500): starting container process caused a failure",
    ),
    ecs(
        "network-interface",
        "network",
        True,
        "TaskFailedToStart",
        reason="Unexpected EC2 error while attempting to Create Network Interface with public IP assignment enabled in "
        "subnet 'subnet-1': InsufficientFreeAddressesInSubnet",
    ),
    pull("image-unreachable", "image", True, "context canceled"),
    init("init-network", "network", True, "There is a connection issue between the task and AWS Secrets Manager."),
    ecs("runtime", "platform", True, "TaskFailedToStart", reason="CannotStartContainerError: it went wrong"),
    ecs("runtime", "platform", True, "TaskFailedToStart", reason="DockerTimeoutError: Could not transition"),
    # ECS: what RunTask and RegisterTaskDefinition answer.
    ecs("throttled", "quota", True, "ThrottlingException", reason="Rate exceeded"),
    ecs("throttled", "quota", True, "Throttling", "InvalidParameterException", reason="subnet: Rate exceeded"),
    ecs("throttled", "quota", True, "ConcurrentRevisions", "ClientException", reason="Too many concurrent attempts"),
    ecs("quota", "quota", True, "LimitExceededException", reason="The limit for the resource was exceeded."),
    ecs("quota", "quota", True, "QuotaReached", "ClientException", reason="limit on the number of vCPUs"),
    ecs("attribute", "configuration", False, "ATTRIBUTE", reason="ATTRIBUTE"),
    ecs("capacity", "capacity", True, "RESOURCE:MEMORY", reason="RESOURCE:MEMORY"),
    ecs("capacity", "capacity", True, "AGENT", reason="AGENT"),
    ecs("capacity", "capacity", True, "CapacityUnavailable", reason="Capacity is unavailable at this time."),
    ecs(
        "capacity",
        "capacity",
        True,
        "NoContainerInstances",
        "InvalidParameterException",
        reason="No Container Instances",
    ),
    ecs(
        "capacity-reason",
        "capacity",
        True,
        "TaskFailedToStart",
        reason="Capacity is unavailable at this time. Please try again later or in a different availability zone",
    ),
    # A task that waited in PROVISIONING for a capacity provider ("API failure reasons", DescribeTasks).
    *(
        ecs("capacity-reason", "capacity", True, "TaskFailedToStart", reason=f"TaskFailedToStart: {reason}")
        for reason in ("RESOURCE:MEMORY", "AGENT", "EMPTY CAPACITY PROVIDER", "NO ACTIVE INSTANCES")
    ),
    *(
        ecs("placement", "configuration", False, "TaskFailedToStart", reason=f"TaskFailedToStart: {reason}")
        for reason in ("ATTRIBUTE", "LOCATION", "MemberOf placement constraint unsatisfied")
    ),
    ecs("permission", "permission", False, "AccessDeniedException", reason="not authorized to perform ecs:RunTask"),
    ecs("blocked", "permission", False, "BlockedException", reason="Your account is currently blocked."),
    ecs("assume-role", "permission", False, "AssumeRoleDenied", "AccessDenied", reason="to perform: sts:AssumeRole"),
    ecs("key", "permission", False, "InvalidClientTokenId", reason="The security token is invalid"),
    ecs("key", "permission", False, "SignatureDoesNotMatch"),
    ecs("pass-role", "permission", False, "AccessDeniedException", reason="not authorized to perform: iam:PassRole on"),
    ecs(
        "register-denied", "permission", False, "AccessDeniedException", reason="to perform: ecs:RegisterTaskDefinition"
    ),
    ecs("cluster", "configuration", False, "ClusterNotFoundException", reason="Cluster not found."),
    ecs("task-definition", "configuration", False, "TaskDefinitionInactive", "ClientException"),
    ecs("role", "permission", False, "ClientException", reason="ECS was unable to assume the role 'arn:x'"),
    ecs("role", "permission", False, "ClientException", reason="Role is not valid"),
    ecs(
        "network", "configuration", False, "InvalidParameterException", reason="The subnet ID 'subnet-1' does not exist"
    ),
    ecs("size", "configuration", False, "ClientException", reason="No Fargate configuration exists for given values"),
    ecs("configuration", "configuration", False, "InvalidParameterException", reason="something is wrong"),
    ecs("configuration", "configuration", False, "PlatformUnknownException"),
    ecs("configuration", "configuration", False, "PlatformTaskDefinitionIncompatibilityException"),
    ecs("configuration", "configuration", False, "UnsupportedFeatureException"),
    ecs("conflict", "platform", True, "ConflictException", reason="token in use"),
    ecs("server", "platform", True, "ServerException", reason="Service Unavailable"),
    *(Case(*each)._replace(platform="cloud-run-v2:push") for each in CLOUD_RUN_CASES),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.row}-{case.reason[:30]}")
def test_a_row_speaks_for_what_it_is_meant_for(case: Case) -> None:
    facts: dict[str, Any] = {
        "codes": case.codes,
        "reason": case.reason,
        "exit_code": case.exit_code,
        "signal": case.signal,
    }

    failure = explain(case.platform, **facts)

    assert row_of(case.platform, **facts).name == case.row
    assert (str(failure.failure_class), failure.retry) == (case.class_, case.retry)
    assert failure.suggestion
    assert "{" not in failure.cause
    assert (failure.exit_code, failure.signal) == (case.exit_code, case.signal)


def test_every_row_has_a_case() -> None:
    others = ("aci/",)  # They have files of their own.
    assert {row.name for row in ROWS if not row.name.startswith(others)} == {case.row for case in CASES}
    assert len({row.name for row in ROWS}) == len(ROWS)


RETRIED = {"killed", "capacity", "quota", "spot", "start-timeout", "network", "platform"}


def test_the_default_policy_is_that_of_the_design() -> None:
    differing = {row.name for row in ROWS if row.is_retried != (str(row.failure_class) in RETRIED)}

    assert differing == {
        "ecs/image-unreachable",
        "ecs/image-rate-limit",
        "cloud-run/image-policy-unknown",
        "cloud-run/quota-small",
        "aci/image-unreachable",
        "aci/registry",
        "aci/quota-zero",
    }


def test_a_row_that_promises_another_try_keeps_it_and_the_end_of_a_run_promises_none() -> None:
    """A run may end with a failure of any class: no attempts are left, its deadline is over, or its policy says no."""
    for row in ROWS:
        failure = explain(row.platform or "process").model_copy(update={"suggestion": row.suggestion})
        shown = State.failed(failure, NOW).without_promise().suggestion
        assert row.is_retried or TRIED_AGAIN not in row.suggestion, row.name
        assert shown, row.name
        assert TRIED_AGAIN not in shown
        if TRIED_AGAIN not in row.suggestion:
            assert shown == row.suggestion
    assert (
        State.failed(explain(ECS, codes=["SpotInterruption"]), NOW).without_promise().suggestion.startswith("use FARG")
    )
    host = explain(ECS, codes=["InfrastructureHealth"])
    assert State.failed(host, NOW).without_promise().suggestion == "run it again: `flow-run retry`"


def test_the_rows_of_ecs_say_nothing_of_other_platforms() -> None:
    assert explain("process", codes=["SpotInterruption"]).failure_class is FailureClass.PLATFORM


def test_an_unknown_code_is_shown_as_it_came() -> None:
    failure = explain("somewhere", codes=["E_STRANGE"], reason="it broke")

    assert failure.cause == "the platform says E_STRANGE: it broke"


def test_only_exit_and_timeout_are_failed_and_all_else_crashed() -> None:
    for case in CASES:
        failure = explain(
            case.platform, codes=case.codes, reason=case.reason, exit_code=case.exit_code, signal=case.signal
        )
        expected = StateType.FAILED if case.class_ in ("exit", "timeout") else StateType.CRASHED
        assert State.failed(failure, NOW).type is expected


def test_a_job_that_is_gone_is_lost() -> None:
    seen = Observation(key="k", status=JobStatus.GONE, observed_at=NOW, reason="whatever")

    assert explain_observation("process", seen).failure_class is FailureClass.LOST


def test_an_observation_is_explained_by_all_its_facts() -> None:
    seen = Observation(key="k", status=JobStatus.FAILED, observed_at=NOW, exit_code=5)

    failure = explain_observation(ECS, seen)

    assert (failure.failure_class, failure.exit_code) == (FailureClass.EXIT, 5)


def test_a_rejected_job_is_not_tried_again_and_names_the_variable() -> None:
    failure = explain_error(JobRejected(ECS, "what?", codes=["Brandnew"], variable="cluster"))

    assert not failure.retry
    assert failure.cause == "job variable 'cluster': the platform says Brandnew: what?"
    assert "flow-run retry" in failure.suggestion
    assert not explain_error(JobRejected(ECS, "x", codes=["ThrottlingException"])).retry


def test_a_refusal_for_now_keeps_its_class() -> None:
    failure = explain_error(PlatformUnavailable(ECS, "Rate exceeded", codes=["ThrottlingException"]))
    nothing = explain_error(NothingStarted(ECS, "RESOURCE:CPU", codes=["RESOURCE:CPU"]))

    assert (failure.failure_class, failure.retry) == (FailureClass.QUOTA, True)
    assert (nothing.failure_class, nothing.retry) == (FailureClass.CAPACITY, True)


def test_a_long_reason_is_cut() -> None:
    assert len(explain("process", reason="x" * 10_000).cause) < LONGEST_REASON + 50


def test_braces_in_a_reason_are_left_alone() -> None:
    assert explain("p", reason="{exit_code} {0} {code}").cause == "the platform says: {exit_code} {0} {code}"


WORDS = st.one_of(st.text(max_size=60), st.sampled_from(sorted({case.reason for case in CASES})))
CODES = st.one_of(st.text(max_size=20), st.sampled_from(sorted({code for case in CASES for code in case.codes})))


@given(
    platform=st.one_of(st.text(max_size=10), st.sampled_from([ECS, "process"])),
    codes=st.lists(CODES, max_size=4),
    reason=WORDS,
    exit_code=st.none() | st.integers(),
    signal=st.none() | st.integers(),
)
def test_whatever_happens_is_explained(
    platform: str, codes: list[str], reason: str, exit_code: int | None, signal: int | None
) -> None:
    failure = explain(platform, codes=codes, reason=reason, exit_code=exit_code, signal=signal)

    assert failure.cause
    assert failure.suggestion
    assert State.failed(failure, NOW).is_final
