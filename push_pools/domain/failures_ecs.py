"""The failures of Amazon ECS: what RunTask refuses with, and what a stopped task shows.

From the ECS API reference (RunTask, "Common Errors") and the developer guide's pages "Amazon ECS stopped
tasks error messages" and "API failure reasons"; `docs/design.md` says which of them are tried again.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from push_pools.domain.failure_rows import Row
from push_pools.domain.states import FailureClass

_DENIED = r"access ?denied|not authori[sz]ed|unauthori[sz]ed|forbidden|\bdenied\b|no basic auth|\b40[13]\b"
_NOT_FOUND = (
    r"not found|manifest unknown|does not exist|no such (image|host manifest)|name unknown|invalid reference|"
    r"repository .* (is )?missing"
)
_TIMEOUT = (
    r"i/o timeout|timed? ?out|tls handshake|connection (refused|reset)|dial tcp|deadline exceeded|no such host|"
    r"(request|context) cancell?ed|connection issue|unexpected eof|temporary failure|service unavailable|\b50[0234]\b"
)
_THROTTLED = r"throttl|rate exceeded|request ?limit ?exceeded|too ?many ?requests|rate limit|\b429\b"
_FAILED = r"(TaskFailedToStart: )?"  # Before the reason of a task that a capacity provider could not place.
_ROLE = "look at the permissions of the execution role, and of the network path to the service it names"
_COMMAND = "correct `command` or `entrypoint`: it has to exist in the image and be executable"
_HOSTS = "look at placement constraints, launch type, network mode and the attributes of the cluster's hosts"
_PULL = ("CannotPullContainerError", "CannotPullImageManifestError", "CannotPullECRContainerError")
_INIT = ("ResourceInitializationError",)

_REFUSED = frozenset({"AccessDeniedException", "AccessDenied", "UnauthorizedException", "UnauthorizedOperation"})

_CLASS = FailureClass

STOP_ROWS: Final = (
    Row(
        "spot",
        _CLASS.SPOT,
        "the Spot capacity under the job was taken back",
        "it is tried again; use FARGATE in place of FARGATE_SPOT for jobs that must not be interrupted",
        codes={"SpotInterruption"},
    ),
    Row(
        "termination-notice",
        _CLASS.KILLED,
        "AWS stopped the job for maintenance of its host: {reason}",
        "it is tried again",
        codes={"TerminationNotice", "ServiceSchedulerInitiated"},
    ),
    Row(
        "host",
        _CLASS.PLATFORM,
        "the host under the job failed: {reason}",
        "it is tried again",
        codes={"InfrastructureHealth"},
    ),
    Row(
        "stopped-by-others",
        _CLASS.KILLED,
        "somebody stopped the task at ECS: {reason}",
        "CloudTrail tells who called StopTask; cancel runs with `flow-run cancel` in place of that",
        codes={"UserInitiated"},
    ),
    Row(
        "out-of-memory",
        _CLASS.OOM,
        "the container ran out of memory",
        "give the job more memory (`memory`), or make it need less",
        codes={"OutOfMemoryError", "OutOfMemory"},
    ),
)

PULL_ROWS: Final = (
    Row(
        "image-rate-limit",
        _CLASS.IMAGE,
        "the registry limits how often the image is pulled: {reason}",
        "it is tried again; log in to the registry, or copy the image to Amazon ECR",
        codes=_PULL,
        reason=_THROTTLED,
        retry=True,
    ),
    Row(
        "image-platform",
        _CLASS.IMAGE,
        "the image is not built for the job's processor architecture: {reason}",
        "build it for that architecture, or set `cpu_architecture`",
        codes=_PULL,
        reason=r"descriptor matching platform|no match(ing)? .*(platform|manifest)|exec format",
    ),
    Row(
        "image-denied",
        _CLASS.IMAGE,
        "the registry refused to give the image: {reason}",
        "let the execution role pull it (ecr:BatchGetImage and so on), or give credentials of the registry",
        codes=_PULL,
        reason=_DENIED,
    ),
    Row(
        "image-unreachable",
        _CLASS.IMAGE,
        "the registry could not be reached: {reason}",
        "it is tried again; the subnet needs a public IP, a NAT gateway or VPC endpoints to reach a registry",
        codes=_PULL,
        reason=_TIMEOUT,
        retry=True,
    ),
    Row(
        "image-not-found",
        _CLASS.IMAGE,
        "the image was not found: {reason}",
        "correct `image`, or push it; a digest or tag that was removed has to be pushed again",
        codes=_PULL,
        reason=_NOT_FOUND,
    ),
    Row(
        "image-space",
        _CLASS.CONFIGURATION,
        "there is no space for the image: {reason}",
        "raise `ephemeral_storage`, or make the image smaller",
        codes=_PULL,
        reason=r"no space left|disk",
    ),
    Row(
        "image",
        _CLASS.IMAGE,
        "the image could not be pulled: {reason}",
        "pull it by hand with the same name to see why",
        codes=_PULL,
    ),
)

START_ROWS: Final = (
    Row(
        "network-interface",
        _CLASS.NETWORK,
        "ECS could not give the task a network interface: {reason}",
        "it is tried again; look at the subnets' free addresses if it happens often",
        reason=r"waiting for network interface|network interface provisioning|create network interface",
    ),
    Row(
        "storage-provisioning",
        _CLASS.CAPACITY,
        "ECS could not provide storage in time: {reason}",
        "it is tried again",
        reason=r"waiting for EphemeralStorage|EphemeralStorage provisioning",
    ),
    Row(
        "start-executable",
        _CLASS.CONFIGURATION,
        "the container's command could not be started: {reason}",
        _COMMAND,
        # Fargate names a failure of the container's runtime after the start's resources, too.
        codes={"CannotStartContainerError", "CannotCreateContainerError", *_INIT},
        reason=r"exec: .*(not found|no such file|permission denied)|executable file not found|exec format error",
    ),
    Row(
        "init-throttled",
        _CLASS.QUOTA,
        "a service that the job's start needs limits its calls: {reason}",
        "it is tried again; start fewer jobs at once (a pool's concurrency limit)",
        codes=_INIT,
        reason=_THROTTLED,
    ),
    Row(
        "init-denied",
        _CLASS.PERMISSION,
        "the execution role may not read what the job's start needs: {reason}",
        _ROLE,
        codes=_INIT,
        reason=_DENIED,
    ),
    Row(
        "init-missing",
        _CLASS.CONFIGURATION,
        "something that the job's start needs does not exist: {reason}",
        "correct `secrets` or the log group (`cloudwatch_logs_options`)",
        codes=_INIT,
        reason=r"ResourceNotFound|can't find|not exist|not found|invalid ssm parameters|validate logger args",
    ),
    Row(
        "init-network",
        _CLASS.NETWORK,
        "the job's start could not reach a service it needs: {reason}",
        "it is tried again; the subnet needs a public IP, a NAT gateway or VPC endpoints to reach AWS services",
        codes=_INIT,
        reason=_TIMEOUT,
    ),
    Row(
        "init",
        _CLASS.PLATFORM,
        "ECS could not prepare the job's start: {reason}",
        _ROLE,
        codes=_INIT,
    ),
    Row(
        "start-command",
        _CLASS.CONFIGURATION,
        "the container's command could not be started: {reason}",
        _COMMAND,
        codes={"CannotStartContainerError", "CannotCreateContainerError"},
        reason=r"no such file|not found in|permission denied|exec format|starting container",
    ),
    Row(
        "runtime",
        _CLASS.PLATFORM,
        "the container runtime failed: {reason}",
        "it is tried again",
        codes={
            "CannotStartContainerError",
            "CannotCreateContainerError",
            "CannotInspectContainerError",
            "CannotStopContainerError",
            "CannotCreateVolumeError",
            "ContainerRuntimeError",
            "ContainerRuntimeTimeoutError",
            "DockerTimeoutError",
            "DockerStateError",
            "InternalError",
            "TaskExecutionError",
        },
    ),
)

REFUSED_ROWS: Final = (
    Row(
        "throttled",
        _CLASS.QUOTA,
        "AWS limits how often its API is called: {reason}",
        "it is tried again; ask AWS for a higher rate if it happens often",
        codes={"Throttling", "ThrottlingException", "ConcurrentRevisions", "TooManyRequestsException"},
    ),
    Row(
        "quota",
        _CLASS.QUOTA,
        "a quota of the AWS account is used up: {reason}",
        "it is tried again; raise the quota, or give the pool a concurrency limit",
        codes={"LimitExceededException", "QuotaReached"},
    ),
    Row(
        "attribute",
        _CLASS.CONFIGURATION,
        "no host of the cluster has what the job asks for: {reason}",
        _HOSTS,
        codes={"ATTRIBUTE", "LOCATION", "UNSUPPORTED"},
    ),
    Row(
        "placement",
        _CLASS.CONFIGURATION,
        "no host of the cluster has what the job asks for: {reason}",
        _HOSTS,
        reason=rf"^{_FAILED}(ATTRIBUTE|LOCATION)\b|placement constraint",
    ),
    Row(
        "capacity",
        _CLASS.CAPACITY,
        "there is no capacity for the job now: {reason}",
        "it is tried again; more subnets in other zones, or other sizes, help",
        codes={"RESOURCE*", "AGENT", "CapacityUnavailable", "NoContainerInstances", "TaskPlacementFailed"},
    ),
    Row(
        "capacity-reason",
        _CLASS.CAPACITY,
        "there is no capacity for the job now: {reason}",
        "it is tried again; more subnets in other zones, or other sizes, help",
        reason=r"capacity is unavailable|insufficient (cpu|memory|capacity)|unable to place a task|"
        rf"^{_FAILED}(RESOURCE:|AGENT\b|EMPTY CAPACITY PROVIDER|NO ACTIVE INSTANCES)",
    ),
    Row(
        "pass-role",
        _CLASS.PERMISSION,
        "the service may not give the job its role: {reason}",
        "allow iam:PassRole on that role, with iam:PassedToService ecs-tasks.amazonaws.com",
        codes=_REFUSED,
        reason=r"iam:PassRole",
    ),
    Row(
        "register-denied",
        _CLASS.PERMISSION,
        "the service may not register task definitions: {reason}",
        "allow ecs:RegisterTaskDefinition, or name a definition that there is (`task_definition_arn`)",
        codes=_REFUSED,
        reason=r"ecs:RegisterTaskDefinition",
    ),
    Row(
        "blocked",
        _CLASS.PERMISSION,
        "AWS has blocked the account: {reason}",
        "ask AWS Support",
        codes={"BlockedException"},
    ),
    Row(
        "assume-role",
        _CLASS.PERMISSION,
        "the role of the credentials block may not be assumed: {reason}",
        "allow the service's own identity sts:AssumeRole on the role, and let the role trust it (with the ExternalId "
        "of `assume_role_kwargs`, if it asks for one)",
        codes={"AssumeRoleDenied"},
    ),
    Row(
        "key",
        _CLASS.PERMISSION,
        "AWS does not take the key of the credentials: {reason}",
        "write a key that is active into the credentials block, or better a role (`assume_role_arn`)",
        codes={
            "InvalidClientTokenId",
            "UnrecognizedClientException",
            "SignatureDoesNotMatch",
            "InvalidSignatureException",
            "AuthFailure",
            "IncompleteSignature",
            "MissingAuthenticationToken",
            "InvalidAccessKeyId",
        },
    ),
    Row(
        "permission",
        _CLASS.PERMISSION,
        "AWS does not allow it: {reason}",
        "let the service's role, or the credentials block, do this on the cluster and pass the task's roles",
        codes={
            "AccessDeniedException",
            "AccessDenied",
            "UnauthorizedException",
            "UnauthorizedOperation",
        },
    ),
    Row(
        "cluster",
        _CLASS.CONFIGURATION,
        "the cluster does not exist, or is inactive: {reason}",
        "correct `cluster`; it has to be in the account and region of the credentials",
        codes={"ClusterNotFoundException", "ClusterInactive"},
    ),
    Row(
        "task-definition",
        _CLASS.CONFIGURATION,
        "the task definition cannot be used: {reason}",
        "correct `task_definition_arn`, or leave it out and let a definition be registered",
        codes={"TaskDefinitionInactive", "TaskDefinitionNotFound"},
    ),
    Row(
        "role",
        _CLASS.PERMISSION,
        "ECS may not use a role of the job: {reason}",
        "correct `task_role_arn` and `execution_role_arn`; both have to trust ecs-tasks.amazonaws.com",
        codes={"InvalidParameterException", "ClientException"},
        reason=r"assume the role|\brole\b.* (is not valid|does not exist)|PassRole",
    ),
    Row(
        "network",
        _CLASS.CONFIGURATION,
        "the job's network cannot be used: {reason}",
        "correct `network_configuration` or `vpc_id`",
        codes={"InvalidParameterException", "ClientException", "NetworkConfiguration"},
        reason=r"subnet|security ?group|network ?configuration|awsvpc|\bvpc\b",
    ),
    Row(
        "size",
        _CLASS.CONFIGURATION,
        "Fargate has no such size: {reason}",
        "correct `cpu` and `memory`; only certain pairs exist",
        codes={"ClientException", "InvalidParameterException"},
        reason=r"No Fargate configuration|invalid 'cpu'|invalid 'memory'|cpu.* memory",
    ),
    Row(
        "configuration",
        _CLASS.CONFIGURATION,
        "ECS refused the job: {reason}",
        "correct the job variable or the pool's template that the reason is about",
        codes={
            "ClientException",
            "InvalidParameterException",
            "InvalidParameter",
            "PlatformUnknownException",
            "PlatformTaskDefinitionIncompatibilityException",
            "UnsupportedFeatureException",
            "ValidationException",
            "ParamValidation",
            "NoRegion",
            "ProfileNotFound",
            "NotPrepared",
        },
    ),
    Row(
        "conflict",
        _CLASS.PLATFORM,
        "ECS holds another request under the same token: {reason}",
        "it is tried again under a new token",
        codes={"ConflictException"},
    ),
    Row(
        "server",
        _CLASS.PLATFORM,
        "ECS failed: {reason}",
        "it is tried again",
        codes={"ServerException", "ServiceUnavailable", "ServiceUnavailableException", "InternalFailure"},
    ),
)

LAST_ROWS: Final = (
    Row(
        "start-unknown",
        _CLASS.PLATFORM,
        "the task could not be started: {reason}",
        "it is tried again; look at the stopped task in the ECS console",
        codes={"TaskFailedToStart"},
    ),
    Row(
        "null-exit-code",
        _CLASS.PLATFORM,
        "the container ended without an exit code: {reason}",
        "it is tried again; look at the stopped task in the ECS console",
        codes={"EssentialContainerExited", "TaskStopped"},
        has_exit_code=False,
    ),
)

ECS_ROWS: Final[tuple[Row, ...]] = tuple(
    replace(row, name=f"ecs/{row.name}", platform="ecs:push")
    for row in (*STOP_ROWS, *PULL_ROWS, *START_ROWS, *REFUSED_ROWS, *LAST_ROWS)
)
