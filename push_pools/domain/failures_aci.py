"""The failures of Azure Container Instances: what a PUT is refused with, and what a container group shows.

From the pages "Troubleshoot common issues in Azure Container Instances", "Container group provisioning states" and
"Common Azure deployment errors", and "Microsoft Entra authentication and authorization error codes".
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from push_pools.domain.failure_rows import Row
from push_pools.domain.states import FailureClass

_CLASS = FailureClass
_TIMEOUT = (
    r"timed? ?out|timeout|connection (refused|reset)|dial tcp|tls handshake|temporary failure|no such host|\b50[0234]\b"
)
_APPLICATION = "correct `client_id` and `tenant_id` of the credentials block"

GROUP_ROWS: Final = (
    Row(
        "stopped-by-others",
        _CLASS.KILLED,
        "somebody stopped the container group at Azure",
        "the activity log of the resource group tells who; cancel runs with `flow-run cancel` in place of that",
        codes={"Stopped"},
    ),
    Row(
        "out-of-memory",
        _CLASS.OOM,
        "the container ran out of memory",
        "give the job more memory (`memory`), or make it need less",
        codes={"OOMKilled"},
    ),
    Row(
        "image-unreachable",
        _CLASS.IMAGE,
        "the registry could not be reached: {reason}",
        "it is tried again; in a subnet the registry needs a way out, such as a NAT gateway or a private endpoint",
        codes={"ImagePullBackOff", "ErrImagePull"},
        reason=_TIMEOUT,
        retry=True,
    ),
    Row(
        "image-pull",
        _CLASS.IMAGE,
        "the image could not be pulled: {reason}",
        "correct `image`, or give a login of its registry (`image_registry`)",
        codes={"ImagePullBackOff", "ErrImagePull"},
    ),
    Row(
        "start-command",
        _CLASS.CONFIGURATION,
        "the container could not be started: {reason}",
        "correct `command` or `entrypoint`: on Azure they are the whole command line, and no shell is run",
        codes={"CrashLoopBackOff"},
    ),
    Row(
        "provisioning",
        _CLASS.PLATFORM,
        "Azure could not provision the container group: {reason}",
        "it is tried again; another `location`, or a smaller size, helps where there is no room",
        codes={"ProvisioningFailed", "ProvisioningUnhealthy", "ProvisioningRepairing"},
    ),
    Row(
        "null-exit-code",
        _CLASS.PLATFORM,
        "the container ended without an exit code",
        "it is tried again; look at the group's events with `flow-run why`",
        codes={"NoExitCode"},
    ),
)

REFUSED_ROWS: Final = (
    Row(
        "throttled",
        _CLASS.QUOTA,
        "Azure limits how often container groups are made: {reason}",
        "it is tried again; lower PUSH_POOLS_ACI_CREATES_PER_HOUR if others make groups there too",
        codes={"TooManyRequests", "Http429"},
    ),
    Row(
        "transitioning",
        _CLASS.PLATFORM,
        "the container group is in transition: {reason}",
        "it is tried again",
        codes={"ContainerGroupTransitioning", "NameTaken"},
    ),
    Row(
        "capacity",
        _CLASS.CAPACITY,
        "the region has no room for the job now: {reason}",
        "it is tried again; another `location` or a smaller size (`cpu`, `memory`) helps",
        codes={"CapacityUnavailable"},
    ),
    Row(
        "quota-zero",
        _CLASS.QUOTA,
        "the subscription has no quota for this in the region: {reason}",
        "ask Azure for a quota, or take another `location`; if it was not 0 before, ask Azure Support",
        codes={"QuotaZero"},
        retry=False,
    ),
    Row(
        "quota",
        _CLASS.QUOTA,
        "a quota of the subscription is used up: {reason}",
        "it is tried again; raise the quota, give the pool a concurrency limit, and do not keep container groups",
        codes={"ContainerGroupQuotaReached"},
    ),
    Row(
        "registry",
        _CLASS.IMAGE,
        "the image's registry failed: {reason}",
        "it is tried again; copy the image to Azure Container Registry, or log in (`image_registry`)",
        codes={"RegistryErrorResponse"},
        retry=True,
    ),
    Row(
        "image",
        _CLASS.IMAGE,
        "the image was not found, or may not be pulled: {reason}",
        "correct `image`, or give a login of its registry (`image_registry`); Azure does not say which it is",
        codes={"InaccessibleImage", "ImageNotFound", "InvalidImage", "MissingImage"},
    ),
    Row(
        "assign-identity",
        _CLASS.PERMISSION,
        "the service may not give the job its identity: {reason}",
        "allow Microsoft.ManagedIdentity/userAssignedIdentities/assign/action on it (Managed Identity Operator)",
        codes={"LinkedAuthorizationFailed"},
        reason="userAssignedIdentities",
    ),
    Row(
        "join-subnet",
        _CLASS.PERMISSION,
        "the service may not use what the job names: {reason}",
        "allow Microsoft.Network/virtualNetworks/subnets/join/action on the subnet, or what the reason names",
        codes={"LinkedAuthorizationFailed"},
    ),
    Row(
        "policy",
        _CLASS.CONFIGURATION,
        "a policy of the subscription forbids it: {reason}",
        "change what the reason names, or ask whoever wrote the policy",
        codes={"RequestDisallowedByPolicy"},
    ),
    Row(
        "permission",
        _CLASS.PERMISSION,
        "Azure does not allow it: {reason}",
        "give the identity of the credentials block the role of docs/azure.md on the resource group",
        codes={"AuthorizationFailed", "Forbidden", "Http403"},
    ),
    Row(
        "client-secret",
        _CLASS.PERMISSION,
        "Entra ID does not take the client secret: {reason}",
        "write one that is valid into the credentials block, or better none: federation needs no secret",
        codes={"BadClientSecret", "ClientSecretExpired"},
    ),
    Row(
        "application",
        _CLASS.CONFIGURATION,
        "Entra ID does not know the application or tenant: {reason}",
        _APPLICATION,
        codes={"ClientNotFound", "TenantNotFound"},
    ),
    Row(
        "not-trusted",
        _CLASS.PERMISSION,
        "the application does not trust the service's identity at AWS: {reason}",
        "add a federated credential with the issuer and subject of that identity (docs/azure.md)",
        codes={"FederationNotTrusted"},
    ),
    Row(
        "federation-disabled",
        _CLASS.CONFIGURATION,
        "the AWS account gives out no identity tokens: {reason}",
        "enable outbound web identity federation in the AWS account (docs/azure.md)",
        codes={"FederationDisabled"},
    ),
    Row(
        "assertion-denied",
        _CLASS.PERMISSION,
        "the service's role may not have an identity token of AWS: {reason}",
        "allow it sts:GetWebIdentityToken",
        codes={"AssertionDenied"},
    ),
    Row(
        "credentials",
        _CLASS.PERMISSION,
        "Azure does not take the credentials: {reason}",
        "correct the credentials block",
        codes={"BadCredentials", "Http401"},
    ),
    Row(
        "identity",
        _CLASS.CONFIGURATION,
        "an identity of the job does not exist: {reason}",
        "correct `identities`, or `identity` of `image_registry`; they are resource ids of user-assigned identities",
        codes={"FailedIdentityOperation", "InvalidIdentity", "LinkedInvalidPropertyId"},
    ),
    Row(
        "resource-group",
        _CLASS.CONFIGURATION,
        "the resource group does not exist: {reason}",
        "correct `resource_group_name`, or make it; the service does not make resource groups",
        codes={"ResourceGroupNotFound", "ResourceGroupBeingDeleted", "InvalidResourceGroup"},
    ),
    Row(
        "not-registered",
        _CLASS.CONFIGURATION,
        "the subscription is not registered for container instances: {reason}",
        "run `az provider register --namespace Microsoft.ContainerInstance` once",
        codes={"MissingSubscriptionRegistration"},
    ),
    Row(
        "subscription",
        _CLASS.CONFIGURATION,
        "the subscription does not exist, or the credentials do not see it: {reason}",
        "correct `subscription_id`; it has to be in the tenant of the credentials",
        codes={"SubscriptionNotFound", "InvalidSubscriptionId", "MissingSubscription"},
    ),
    Row(
        "location",
        _CLASS.CONFIGURATION,
        "the region has no container instances: {reason}",
        "correct `location`",
        codes={"LocationNotAvailable"},
    ),
    Row(
        "name",
        _CLASS.CONFIGURATION,
        "the job's name is taken by something else: {reason}",
        "give the pool a resource group of its own (`resource_group_name`)",
        codes={"NameCollision"},
    ),
    Row(
        "size",
        _CLASS.CONFIGURATION,
        "the region has no such size: {reason}",
        "correct `cpu`, `memory` or the GPU; regions differ in what they have",
        codes={"ResourceRequestsInvalid", "ResourceRequestsNotSpecified", "InvalidResourceRequests"},
    ),
    Row(
        "secret",
        _CLASS.CONFIGURATION,
        "a secret of the job cannot be read: {reason}",
        "look at the block that the job names",
        codes={"BadSecret"},
    ),
    Row(
        "endpoint",
        _CLASS.CONFIGURATION,
        "the endpoint of Azure may not be used: {reason}",
        "correct PUSH_POOLS_AZURE_ENDPOINT, or leave it out",
        codes={"BadEndpoint"},
    ),
    Row(
        "configuration",
        _CLASS.CONFIGURATION,
        "Azure refused the job: {reason}",
        "correct the job variable or the pool's template that the reason is about",
        codes={"Invalid*", "Missing*", "Subnet*", "NetworkProfile*", "BadRequest", "Http400", "Http404", "NotPrepared"},
    ),
    Row(
        "server",
        _CLASS.PLATFORM,
        "Azure failed: {reason}",
        "it is tried again",
        codes={"InternalServerError", "ServerTimeout", "ServiceUnavailable", "Http5*"},
    ),
)

ACI_ROWS: Final[tuple[Row, ...]] = tuple(
    replace(row, name=f"aci/{row.name}", platform="azure-container-instance:push")
    for row in (*GROUP_ROWS, *REFUSED_ROWS)
)
