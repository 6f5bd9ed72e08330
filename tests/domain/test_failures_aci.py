"""Every row of the failures of Azure Container Instances speaks for what it is meant for."""

from __future__ import annotations

import pytest

from push_pools.domain.failures import ROWS, explain, row_of

ACI = "azure-container-instance:push"
QUOTA = "container group quota 'StandardCores' exceeded in region 'westeurope'. Limit: '{}', Usage: '{}' Requested: '1'"
CASES: list[tuple[str, str, bool, tuple[str, ...], str, int | None]] = [
    # How a group ended, or why it does not begin.
    ("aci/stopped-by-others", "killed", True, ("Stopped",), "", 143),
    ("aci/out-of-memory", "oom", False, ("OOMKilled",), "", 137),
    ("aci/image-unreachable", "image", True, ("ImagePullBackOff",), "Failed to pull image: i/o timeout", None),
    ("aci/image-pull", "image", False, ("ImagePullBackOff",), "Failed to pull image: manifest unknown", None),
    ("aci/start-command", "configuration", False, ("CrashLoopBackOff",), "exec: no such file", None),
    ("aci/provisioning", "platform", True, ("ProvisioningFailed",), "provisioning Failed", None),
    ("aci/provisioning", "platform", True, ("ProvisioningUnhealthy",), "provisioning Unhealthy", None),
    ("aci/null-exit-code", "platform", True, ("NoExitCode",), "", None),
    ("exit", "exit", False, (), "", 3),
    ("killed-exit-code", "killed", True, (), "", 137),
    # What is tried again.
    ("aci/throttled", "quota", True, ("TooManyRequests",), "being throttled", None),
    ("aci/transitioning", "platform", True, ("ContainerGroupTransitioning",), "still transitioning", None),
    ("aci/capacity", "capacity", True, ("CapacityUnavailable", "ServiceUnavailable"), "not available", None),
    ("aci/quota", "quota", True, ("ContainerGroupQuotaReached",), QUOTA.format(10, 10), None),
    ("aci/registry", "image", True, ("RegistryErrorResponse",), "docker registry", None),
    ("aci/server", "platform", True, ("InternalServerError",), "An error occurred", None),
    ("aci/server", "platform", True, ("Http502",), "HTTP 502 without a reason", None),
    ("credentials-expired", "permission", False, ("CredentialsExpired",), "token expired", None),
    ("no-credentials", "permission", False, ("NoCredentials",), "no managed identity is here", None),
    ("connection", "network", True, ("ConnectFailed",), "Azure could not be reached", None),
    ("no-answer", "network", True, ("NoAnswer",), "the connection broke", None),
    # What would be refused again.
    ("aci/quota-zero", "quota", False, ("QuotaZero", "ContainerGroupQuotaReached"), QUOTA.format(0, 0), None),
    ("aci/image", "image", False, ("InaccessibleImage",), "not accessible", None),
    ("aci/assign-identity", "permission", False, ("LinkedAuthorizationFailed",), "userAssignedIdentities/x", None),
    ("aci/join-subnet", "permission", False, ("LinkedAuthorizationFailed",), "subnets/join/action", None),
    ("aci/permission", "permission", False, ("AuthorizationFailed",), "does not have authorization", None),
    ("aci/policy", "configuration", False, ("RequestDisallowedByPolicy",), "disallowed by policy", None),
    ("aci/client-secret", "permission", False, ("ClientSecretExpired", "AADSTS7000222"), "expired", None),
    ("aci/client-secret", "permission", False, ("BadClientSecret", "AADSTS7000215"), "invalid", None),
    ("aci/application", "configuration", False, ("ClientNotFound",), "not found in the directory", None),
    ("aci/application", "configuration", False, ("TenantNotFound",), "tenant", None),
    ("aci/not-trusted", "permission", False, ("FederationNotTrusted",), "no matching federated identity", None),
    ("aci/federation-disabled", "configuration", False, ("FederationDisabled",), "not enabled", None),
    ("aci/assertion-denied", "permission", False, ("AssertionDenied",), "sts:GetWebIdentityToken", None),
    ("aci/credentials", "permission", False, ("BadCredentials",), "malformed", None),
    ("aci/identity", "configuration", False, ("FailedIdentityOperation",), "was not found", None),
    ("aci/resource-group", "configuration", False, ("ResourceGroupNotFound",), "could not be found", None),
    ("aci/not-registered", "configuration", False, ("MissingSubscriptionRegistration",), "not registered", None),
    ("aci/subscription", "configuration", False, ("SubscriptionNotFound",), "could not be found", None),
    ("aci/location", "configuration", False, ("LocationNotAvailable",), "not available", None),
    ("aci/name", "configuration", False, ("NameCollision",), "there already", None),
    ("aci/size", "configuration", False, ("ResourceRequestsInvalid",), "cpu 99", None),
    ("aci/secret", "configuration", False, ("BadSecret",), "no secret field", None),
    ("aci/endpoint", "configuration", False, ("BadEndpoint",), "plain http", None),
    ("aci/configuration", "configuration", False, ("InvalidOsType",), "osType", None),
    ("aci/configuration", "configuration", False, ("Http400",), "bad", None),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{'-'.join(case[3])}")
def test_a_row_speaks_for_what_it_is_meant_for(
    case: tuple[str, str, bool, tuple[str, ...], str, int | None],
) -> None:
    row, class_, retry, codes, reason, exit_code = case

    failure = explain(ACI, codes=codes, reason=reason, exit_code=exit_code)

    assert row_of(ACI, codes=codes, reason=reason, exit_code=exit_code).name == row
    assert (str(failure.failure_class), failure.retry) == (class_, retry)
    assert failure.suggestion
    assert "{" not in failure.cause


def test_every_row_has_a_case() -> None:
    assert {row.name for row in ROWS if row.name.startswith("aci/")} == {
        case[0] for case in CASES if case[0].startswith("aci/")
    }


def test_the_rows_say_nothing_of_other_platforms() -> None:
    assert row_of("ecs:push", codes=["OOMKilled"]).name == "unknown-code"
