"""Every answer of AWS becomes the one error that says what to do next."""

from __future__ import annotations

from typing import Any

import pytest
from botocore import exceptions as boto
from botocore.parsers import ResponseParserError

from push_pools.domain.errors import (
    JobRejected,
    NotFound,
    NothingStarted,
    PlatformError,
    PlatformUnavailable,
    SubmissionUncertain,
)
from push_pools.domain.failures import explain_error
from push_pools.platforms.ecs_errors import (
    RULES,
    asking_error,
    nothing_started,
    ours_from,
    prepare_error,
    submit_error,
)

LATER, REJECTED, UNCERTAIN = PlatformUnavailable, JobRejected, SubmissionUncertain


def answer(
    code: str,
    text: str = "",
    *,
    status: int = 400,
    operation: str = "RunTask",
    headers: dict[str, str] | None = None,
) -> boto.ClientError:
    metadata: Any = {"HTTPStatusCode": status, "HTTPHeaders": headers or {}}
    return boto.ClientError({"Error": {"Code": code, "Message": text}, "ResponseMetadata": metadata}, operation)


def client(text: str) -> boto.ClientError:
    return answer("ClientException", text)


def invalid(text: str) -> boto.ClientError:
    return answer("InvalidParameterException", text)


URL: dict[str, Any] = {"endpoint_url": "https://ecs"}
CASES: list[tuple[Exception, type[PlatformError], str, str | None, str]] = [
    # error, what the submission becomes, first code, job variable, class of the failure
    (answer("ThrottlingException", "Rate exceeded"), LATER, "ThrottlingException", None, "quota"),
    (answer("RequestLimitExceeded", "slow", status=503), LATER, "ThrottlingException", None, "quota"),
    (answer("TooManyRequestsException"), LATER, "ThrottlingException", None, "quota"),
    (
        invalid("Error retrieving subnet: Rate exceeded (ErrorCode: Throttling)"),
        LATER,
        "ThrottlingException",
        None,
        "quota",
    ),
    (
        invalid(
            "Error retrieving security group information for [sg-1]: Request limit exceeded. "
            "(ErrorCode: RequestLimitExceeded)"
        ),
        LATER,
        "ThrottlingException",
        None,
        "quota",
    ),
    (
        invalid("Error retrieving subnet information for [subnet-1]: An error. (ErrorCode: InternalError)"),
        LATER,
        "ServiceUnavailable",
        None,
        "platform",
    ),
    (client("The requested CPU configuration is above your limit"), LATER, "QuotaReached", None, "quota"),
    (
        client("Too many concurrent attempts to create a new revision of the specified family."),
        LATER,
        "ConcurrentRevisions",
        None,
        "quota",
    ),
    (
        client("You've reached the limit on the number of vCPUs you can run concurrently"),
        LATER,
        "QuotaReached",
        None,
        "quota",
    ),
    (client("Tasks in the PROVISIONING state exceed the quota"), LATER, "QuotaReached", None, "quota"),
    (answer("LimitExceededException", "too many"), LATER, "LimitExceededException", None, "quota"),
    (answer("Brandnew", status=429), LATER, "Brandnew", None, "platform"),
    (invalid("No Container Instances were found in your cluster."), LATER, "NoContainerInstances", None, "capacity"),
    (client("Capacity is unavailable at this time."), LATER, "CapacityUnavailable", None, "capacity"),
    (answer("ExpiredTokenException", "expired"), LATER, "CredentialsExpired", None, "permission"),
    (answer("RequestExpired", "clock"), LATER, "CredentialsExpired", None, "permission"),
    (boto.NoCredentialsError(), LATER, "NoCredentials", None, "permission"),
    (boto.CredentialRetrievalError(provider="x", error_msg="y"), LATER, "NoCredentials", None, "permission"),
    (boto.TokenRetrievalError(provider="sso", error_msg="y"), LATER, "NoCredentials", None, "permission"),
    (boto.ConnectTimeoutError(**URL), LATER, "ConnectFailed", None, "network"),
    (boto.EndpointConnectionError(**URL), LATER, "ConnectFailed", None, "network"),
    (boto.ProxyConnectionError(proxy_url="http://p"), LATER, "ConnectFailed", None, "network"),
    (answer("AccessDeniedException", "User is not authorized"), REJECTED, "AccessDeniedException", None, "permission"),
    (answer("BlockedException", "Your account is blocked"), REJECTED, "BlockedException", None, "permission"),
    (
        answer("UnrecognizedClientException", "The security token is invalid"),
        REJECTED,
        "UnrecognizedClientException",
        "aws_credentials",
        "permission",
    ),
    (
        answer("AccessDenied", "no", operation="AssumeRole"),
        REJECTED,
        "AssumeRoleDenied",
        "aws_credentials",
        "permission",
    ),
    (answer("Throttling", "no", operation="AssumeRole"), LATER, "NoCredentials", None, "quota"),
    (boto.ProfileNotFound(profile="p"), REJECTED, "ProfileNotFound", "aws_credentials", "configuration"),
    (boto.NoRegionError(), REJECTED, "NoRegion", None, "configuration"),
    (boto.InvalidRegionError(region_name="?"), REJECTED, "NoRegion", None, "configuration"),
    (
        answer("ClusterNotFoundException", "Cluster not found."),
        REJECTED,
        "ClusterNotFoundException",
        "cluster",
        "configuration",
    ),
    (invalid("The referenced cluster was inactive."), REJECTED, "ClusterInactive", "cluster", "configuration"),
    (client("TaskDefinition is inactive"), REJECTED, "TaskDefinitionInactive", "task_definition_arn", "configuration"),
    (client("TaskDefinition not found."), REJECTED, "TaskDefinitionNotFound", "task_definition_arn", "configuration"),
    (
        client("Unable to describe task definition."),
        REJECTED,
        "TaskDefinitionNotFound",
        "task_definition_arn",
        "configuration",
    ),
    (
        invalid("Identifier is for 111111111111. Your accountId is 222222222222"),
        REJECTED,
        "TaskDefinitionNotFound",
        "task_definition_arn",
        "configuration",
    ),
    (
        invalid("Container Overrides length must be at most 8192"),
        REJECTED,
        "InvalidParameterException",
        "env",
        "configuration",
    ),
    (
        invalid("Override for container named x is not a container in the TaskDefinition."),
        REJECTED,
        "InvalidParameterException",
        "container_name",
        "configuration",
    ),
    (
        client("No Fargate configuration exists for given values: 1 CPU"),
        REJECTED,
        "ClientException",
        "cpu",
        "configuration",
    ),
    (
        client("Fargate requires task definition to have execution role ARN"),
        REJECTED,
        "ClientException",
        "execution_role_arn",
        "configuration",
    ),
    (client("ECS was unable to assume the role 'arn:x'"), REJECTED, "ClientException", "task_role_arn", "permission"),
    (
        invalid("The specified capacity provider was not found"),
        REJECTED,
        "InvalidParameterException",
        "capacity_provider_strategy",
        "configuration",
    ),
    (
        invalid("Error retrieving subnet information for [subnet-1]: none (ErrorCode: InvalidSubnetID.NotFound)"),
        REJECTED,
        "InvalidParameterException",
        "network_configuration",
        "configuration",
    ),
    (
        invalid("The subnet ID 'subnet-1' does not exist"),
        REJECTED,
        "InvalidParameterException",
        "network_configuration",
        "configuration",
    ),
    (
        invalid("Task definition does not support launch_type FARGATE."),
        REJECTED,
        "InvalidParameterException",
        "launch_type",
        "configuration",
    ),
    (client("Container.image should not be null or empty."), REJECTED, "ClientException", "image", "configuration"),
    (client("Family contains invalid characters"), REJECTED, "ClientException", "family", "configuration"),
    (
        invalid("Tags can not have more than 50 elements."),
        REJECTED,
        "InvalidParameterException",
        "labels",
        "configuration",
    ),
    (answer("PlatformUnknownException"), REJECTED, "PlatformUnknownException", None, "configuration"),
    (
        answer("PlatformTaskDefinitionIncompatibilityException"),
        REJECTED,
        "PlatformTaskDefinitionIncompatibilityException",
        None,
        "configuration",
    ),
    (answer("UnsupportedFeatureException"), REJECTED, "UnsupportedFeatureException", None, "configuration"),
    (client("something else"), REJECTED, "ClientException", None, "configuration"),
    (answer("Brandnew"), REJECTED, "Brandnew", None, "platform"),
    (boto.ParamValidationError(report="Unknown parameter"), REJECTED, "ParamValidation", None, "configuration"),
    (answer("ServerException", "try again", status=500), UNCERTAIN, "ServerException", None, "platform"),
    (answer("ServiceUnavailable", status=503), UNCERTAIN, "ServiceUnavailable", None, "platform"),
    (answer("InternalFailure", status=500), UNCERTAIN, "InternalFailure", None, "platform"),
    (answer("Brandnew", status=502), UNCERTAIN, "Brandnew", None, "platform"),
    (answer("RequestTimeout", status=400), UNCERTAIN, "NoAnswer", None, "network"),
    (answer("Brandnew", status=408), UNCERTAIN, "Brandnew", None, "platform"),
    (boto.ReadTimeoutError(**URL), UNCERTAIN, "NoAnswer", None, "network"),
    (boto.ConnectionClosedError(**URL), UNCERTAIN, "NoAnswer", None, "network"),
    (boto.SSLError(**URL, error=OSError("EOF")), UNCERTAIN, "NoAnswer", None, "network"),
    (boto.HTTPClientError(error="?"), UNCERTAIN, "NoAnswer", None, "network"),
    (ResponseParserError("not JSON"), UNCERTAIN, "NoAnswer", None, "network"),
]
IDS = [f"{i}-{type(case[0]).__name__}-{case[2]}" for i, case in enumerate(CASES)]


@pytest.mark.parametrize(("error", "kind", "code", "variable", "class_"), CASES, ids=IDS)
def test_an_error_of_run_task(
    error: Exception, kind: type[PlatformError], code: str, variable: str | None, class_: str
) -> None:
    ours = submit_error(error)

    assert type(ours) is kind
    assert ours.codes[0] == code
    assert getattr(ours, "variable", None) == variable
    assert str(explain_error(ours).failure_class) == class_


@pytest.mark.parametrize(("error", "kind"), [case[:2] for case in CASES], ids=IDS)
def test_a_call_that_starts_nothing_is_never_uncertain(error: Exception, kind: type[PlatformError]) -> None:
    assert type(prepare_error(error)) is (REJECTED if kind is REJECTED else LATER)
    assert type(asking_error(error)) is LATER
    assert asking_error(error).codes == submit_error(error).codes


def test_every_rule_has_a_case() -> None:
    met = set()
    for error, *_ in CASES:
        given = (getattr(error, "response", None) or {}).get("Error", {})
        code, text = given.get("Code", ""), given.get("Message", "")
        met |= {next((i for i, rule in enumerate(RULES) if rule.matches(code, text)), -1)}

    assert set(range(len(RULES))) <= met


def test_the_platforms_wish_to_wait_is_kept() -> None:
    error = submit_error(answer("ThrottlingException", "slow down", headers={"retry-after": "17"}))

    assert isinstance(error, PlatformUnavailable)
    assert error.retry_after_seconds == 17.0


def test_values_of_a_request_are_not_shown() -> None:
    report = "Invalid type for parameter overrides.x, value: canary, type: <class 'str'>, valid types: <class 'int'>"

    ours = submit_error(boto.ParamValidationError(report=report))

    assert "canary" not in str(ours)
    assert "overrides.x" in str(ours)


@pytest.mark.parametrize(
    ("reason", "code", "class_", "retry"),
    [
        ("RESOURCE:MEMORY", "RESOURCE:MEMORY", "capacity", True),
        ("RESOURCE:CPU", "RESOURCE:CPU", "capacity", True),
        ("AGENT", "AGENT", "capacity", True),
        ("ATTRIBUTE", "ATTRIBUTE", "configuration", False),
        ("Capacity is unavailable at this time.", "CapacityUnavailable", "capacity", True),
        ("You've reached the limit on the number of vCPUs you can run concurrently", "QuotaReached", "quota", True),
        ("EMPTY CAPACITY PROVIDER", "CapacityUnavailable", "capacity", True),
        ("NO ACTIVE INSTANCES", "RunTaskFailure", "capacity", True),
        ("LOCATION", "LOCATION", "configuration", False),
        ("MemberOf placement constraint unsatisfied.", "RunTaskFailure", "configuration", False),
        ("something new", "RunTaskFailure", "platform", True),
    ],
)
def test_failures_say_that_nothing_was_started(reason: str, code: str, class_: str, retry: bool) -> None:
    ours = nothing_started([{"arn": "arn:x", "reason": reason, "detail": "more"}])

    assert ours.codes == (code,)
    assert ours.reason == f"{reason}: more"
    failure = explain_error(ours)
    assert (str(failure.failure_class), failure.retry) == (class_, retry)


def test_failures_without_a_reason_are_old_ones() -> None:
    assert "old request" in nothing_started([{}]).reason
    assert isinstance(nothing_started([]), NothingStarted)


def test_only_our_own_errors_pass_as_they_are(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(SubmissionUncertain, match="could not be read"), ours_from(submit_error):
        raise KeyError("canary")
    assert "ecs_unexpected_error" in caplog.text
    with pytest.raises(PlatformUnavailable), ours_from(asking_error):
        raise AttributeError
    with pytest.raises(NotFound), ours_from(submit_error):
        raise NotFound("block", "b")
    with pytest.raises(NothingStarted), ours_from(submit_error):
        raise NothingStarted("ecs:push", "x")
    with pytest.raises(SubmissionUncertain) as caught, ours_from(submit_error):
        raise boto.ReadTimeoutError(endpoint_url="https://ecs")
    assert caught.value.__suppress_context__
