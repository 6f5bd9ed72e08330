"""Each error of Azure, as its client raises it, is the error of ours by which the protocol acts rightly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from push_pools.domain.errors import (
    JobRejected,
    NothingStarted,
    PlatformError,
    PlatformUnavailable,
    SubmissionUncertain,
)
from push_pools.domain.failures import row_of
from push_pools.platforms.aci_errors import RULES, TYPE, asking_error, ours_from, prepare_error, submit_error
from push_pools.testing import aci_faults
from push_pools.testing.aci_double import AciDouble, Fault, ManualClock

from .aci_world import AciWorld

if TYPE_CHECKING:
    from collections.abc import Iterator

QUOTA = "quota 'StandardCores' exceeded in region 'x'. Limit: '{}', Usage: '0' Requested: '1'."
NO_ROOM = "The requested resource is not available in the location 'x' at this moment."


@pytest.fixture
def world() -> Iterator[AciWorld]:
    clock = ManualClock()
    with AciDouble(clock=clock, default_seconds=10) as double:
        yield AciWorld(double, clock)


def raised(world: AciWorld, fault: Fault) -> PlatformError:
    world.double.faults.add("put", fault)
    with pytest.raises(PlatformError) as caught:
        world.submitted()
    assert caught.value.platform == TYPE
    return caught.value


ANSWERS: list[tuple[int, str, str, type[PlatformError], str | None]] = [
    (429, "TooManyRequests", "slow down", PlatformUnavailable, None),
    (429, "SomethingNew", "slow down", PlatformUnavailable, None),
    (409, "SubscriptionRequestsThrottled", "slow down", PlatformUnavailable, None),
    (409, "RegistryErrorResponse", "retry", PlatformUnavailable, None),
    (409, "ServiceUnavailable", NO_ROOM, NothingStarted, None),
    (503, "ServiceUnavailable", NO_ROOM, NothingStarted, None),
    (503, "ServiceUnavailable", "try later", SubmissionUncertain, None),
    (409, "ContainerGroupQuotaReached", QUOTA.format(10), NothingStarted, None),
    (409, "ContainerGroupQuotaReached", QUOTA.format(100), NothingStarted, None),
    (409, "ContainerGroupQuotaReached", QUOTA.format(0), JobRejected, "location"),
    (409, "SomethingNew", "conflict", SubmissionUncertain, None),
    (408, "RequestTimeout", "slow", SubmissionUncertain, None),
    (500, "InternalServerError", "oh", SubmissionUncertain, None),
    (502, "", "", SubmissionUncertain, None),
    (504, "GatewayTimeout", "oh", SubmissionUncertain, None),
    (400, "InaccessibleImage", "not accessible", JobRejected, "image"),
    (401, "ExpiredAuthenticationToken", "expired", PlatformUnavailable, None),
    (401, "InvalidAuthenticationToken", "The access token has expired.", PlatformUnavailable, None),
    (401, "InvalidAuthenticationToken", "invalid", JobRejected, "aci_credentials"),
    (403, "AuthorizationFailed", "no", JobRejected, None),
    (403, "LinkedAuthorizationFailed", "on userAssignedIdentities/x", JobRejected, "identities"),
    (403, "LinkedAuthorizationFailed", "on subnets/x", JobRejected, "subnet_ids"),
    (403, "RequestDisallowedByPolicy", "by policy", JobRejected, None),
    (404, "ResourceGroupNotFound", "no", JobRejected, "resource_group_name"),
    (404, "SubscriptionNotFound", "no", JobRejected, "subscription_id"),
    (409, "MissingSubscriptionRegistration", "not registered", JobRejected, "subscription_id"),
    (400, "LocationNotAvailableForResourceType", "no", JobRejected, "location"),
    (409, "InvalidResourceLocation", "exists in location", JobRejected, "location"),
    (400, "FailedIdentityOperation", "no", JobRejected, "identities"),
    (400, "ResourceRequestsInvalid", "no", JobRejected, "cpu"),
    (400, "BadRequest", "The subnet is not delegated", JobRejected, "subnet_ids"),
    (400, "BadRequest", "memory is too large", JobRejected, "memory"),
    (400, "BadRequest", "the environment variable is wrong", JobRejected, "env"),
    (400, "BadRequest", "something else", JobRejected, None),
]


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda each: f"{each[0]}-{each[1]}-{each[2][:12]}")
def test_an_answer_is_the_right_error(world: AciWorld, answer: Any) -> None:
    status, code, text, class_, variable = answer

    error = raised(world, Fault.answer(code, text, status=status))

    assert type(error) is class_
    assert getattr(error, "variable", None) == variable
    assert error.codes
    assert not world.double.started
    assert not row_of(TYPE, codes=error.codes, reason=error.reason).name.startswith("unknown") or status in (408, 409)


def test_what_a_policy_forbids_is_not_taken_for_a_missing_permission(world: AciWorld) -> None:
    error = raised(world, Fault.answer("RequestDisallowedByPolicy", "disallowed by policy 'x'", status=403))

    assert row_of(TYPE, codes=error.codes, reason=error.reason).name == "aci/policy"


@pytest.mark.parametrize(
    "fault",
    [
        Fault.accept_then_drop(),
        Fault.drop_before(),
        Fault.cut_answer(),
        Fault.malformed(),
        aci_faults.server_error(effect=True),
        aci_faults.unavailable(effect=True),
    ],
    ids=lambda fault: fault.name,
)
def test_without_a_certain_answer_it_is_uncertain(world: AciWorld, fault: Fault) -> None:
    """The client calls a dropped connection a response error or a request error; both may have had an effect."""
    assert type(raised(world, fault)) is SubmissionUncertain


def test_a_throttle_tells_how_long_to_wait(world: AciWorld) -> None:
    error = raised(world, aci_faults.throttle())
    assert isinstance(error, PlatformUnavailable)
    assert error.retry_after_seconds == 2


def test_the_innermost_code_speaks(world: AciWorld) -> None:
    class Answered:
        status_code = 400
        headers: dict[str, str] = {}  # noqa: RUF012

        def text(self) -> str:
            inner = '{"code":"InaccessibleImage","message":"not accessible"}'
            return f'{{"error":{{"code":"DeploymentFailed","message":"see","details":[{inner}]}}}}'

    error = Exception("x")
    error.response = Answered()  # type: ignore[attr-defined]
    ours = submit_error(error)
    assert isinstance(ours, JobRejected)
    assert (ours.codes, ours.reason) == (("InaccessibleImage",), "not accessible")


def test_a_question_that_fails_is_asked_again_whatever_it_is() -> None:
    class Denied(Exception):
        class response:
            status_code = 403
            headers: dict[str, str] = {}  # noqa: RUF012

            @staticmethod
            def text() -> str:
                return '{"error":{"code":"AuthorizationFailed","message":"no"}}'

    assert isinstance(prepare_error(Denied()), JobRejected)
    assert type(asking_error(Denied())) is PlatformUnavailable
    assert asking_error(Denied()).codes == ("AuthorizationFailed", "Http403")


def test_whatever_else_is_raised_is_logged_and_ours(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(SubmissionUncertain, match="the answer could not be read"), ours_from(submit_error):
        raise KeyError("odd")
    assert "aci_unexpected_error" in caplog.text
    with pytest.raises(JobRejected, match="as it is"), ours_from(submit_error):
        raise JobRejected(TYPE, "as it is")


def test_a_broken_tls_connection_is_not_taken_for_a_request_that_was_not_sent() -> None:
    from azure.core.exceptions import ServiceRequestError
    from requests.exceptions import ConnectTimeout, SSLError
    from urllib3.exceptions import MaxRetryError, NewConnectionError

    tls = SSLError("bad record")
    assert type(submit_error(ServiceRequestError("x", error=tls))) is SubmissionUncertain
    new: Any = MaxRetryError(None, "/", NewConnectionError(None, "refused"))  # type: ignore[arg-type]
    assert type(submit_error(ServiceRequestError("x", error=Exception(new)))) is PlatformUnavailable
    assert type(submit_error(ServiceRequestError("x", error=ConnectTimeout()))) is PlatformUnavailable


def test_every_rule_has_an_answer_in_this_file() -> None:
    """So that none stands untried."""
    for rule in RULES:
        assert any(rule.matches(code, text, status) for status, code, text, *_ in ANSWERS) or rule.codes & {
            "ContainerGroupTransitioning",
            "ResourceGroupBeingDeleted",
            "SubnetNotFound",
        }, rule
