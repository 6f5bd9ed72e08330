"""What an Azure subscription allows: its resource groups, regions, identities, images, quotas, and how many creates.

A subscription that nothing is said of allows everything but more creates than the documented limits.
Codes and texts follow the page "Troubleshoot common issues in Azure Container Instances" and answers seen in public
reports; code should not depend on their wording.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from push_pools.testing.aci_groups import Document, main_container

if TYPE_CHECKING:
    from collections.abc import Mapping

REGION = "westeurope"


class AciError(Exception):
    """An answer of Azure Resource Manager that is no success."""

    def __init__(self, code: str, message: str, *, status: int = 400, headers: Mapping[str, str] | None = None) -> None:
        self.code, self.message, self.status, self.headers = code, message, status, dict(headers or {})
        super().__init__(f"{code}: {message}")


@dataclass
class Subscription:
    """The rules of one subscription; they may be changed while the double serves."""

    resource_groups: dict[str, str] | None = None
    """Region of every resource group there is; None knows every one, all in one region."""
    regions: set[str] | None = None
    """Regions with container instances; None knows every region."""
    identities: set[str] | None = None
    """Resource ids of the user-assigned identities there are; None knows every one."""
    denied: set[str] = field(default_factory=set)
    """What the caller may not do: `read`, `write`, `delete`, `stop`, `logs`, `assign` (identities)."""
    images: dict[str, str] = field(default_factory=dict)
    """What is wrong with an image: `denied`, `missing` or `registry` (the registry fails)."""
    registries: dict[str, str] = field(default_factory=dict)
    """Private registries: server → the password, or the resource id of the identity, that may pull from it."""
    token: str | None = None
    """The bearer token that callers have to bring; None lets everybody in."""
    cores: float | None = None
    """How many cores may be used at once (quota `StandardCores`); None sets no limit."""
    no_capacity: bool = False
    """Whether the region has no room for more groups now."""
    max_cpu: float = 4.0
    max_memory_gb: float = 16.0
    creates_per_hour: int = 300
    creates_per_five_minutes: int = 100
    _created: deque[datetime] = field(default_factory=deque)

    def region_of(self, resource_group: str) -> str:
        """Return the region of a resource group.

        Raises:
            AciError: There is no such group.
        """
        if self.resource_groups is None:
            return REGION
        if resource_group not in self.resource_groups:
            message = f"Resource group '{resource_group}' could not be found."
            raise AciError("ResourceGroupNotFound", message, status=404)
        return self.resource_groups[resource_group]

    def check_token(self, headers: Mapping[str, str]) -> None:
        """Refuse a caller without the token."""
        if self.token is not None and headers.get("authorization") != f"Bearer {self.token}":
            raise AciError("InvalidAuthenticationToken", "The access token is invalid.", status=401)

    def check_allowed(self, action: str, resource: str) -> None:
        """Refuse an action that the caller may not do."""
        if action in self.denied:
            operation = f"Microsoft.ContainerInstance/containerGroups/{action}"
            message = (
                f"The client 'double' does not have authorization to perform action '{operation}' over scope "
                f"'{resource}' or the scope is invalid."
            )
            raise AciError("AuthorizationFailed", message, status=403)

    def count_create(self, now: datetime) -> None:
        """Count a PUT that makes a group, and refuse it above the limits of creates."""
        while self._created and now - self._created[0] >= timedelta(hours=1):
            self._created.popleft()
        recent = sum(now - at < timedelta(minutes=5) for at in self._created)
        wait = 0.0
        if len(self._created) >= self.creates_per_hour:
            wait = 3600 - (now - self._created[0]).total_seconds()
        elif recent >= self.creates_per_five_minutes:
            wait = 300 - (now - self._created[-recent]).total_seconds()
        if wait > 0:
            raise AciError(
                "TooManyRequests",
                "The request is being throttled: too many container groups were created.",
                status=429,
                headers={"Retry-After": str(int(wait) + 1)},
            )
        self._created.append(now)

    def check_group(self, body: Document, cores_in_use: float) -> None:
        """Refuse what Azure refuses at once."""
        self._check_place(body)
        self._check_shape(body)
        self._check_size(body, cores_in_use)
        self._check_image(str(main_container(body).get("properties", {}).get("image") or ""), body)
        if self.no_capacity:
            message = (
                f"The requested resource is not available in the location '{body.get('location')}' at this moment. "
                "Please retry with a different resource request or in another location."
            )
            raise AciError("ServiceUnavailable", message, status=409)

    def _check_place(self, body: Document) -> None:
        location = str(body.get("location") or "")
        if not location:
            raise AciError("LocationRequired", "The location property is required for this definition.")
        if self.regions is not None and location not in self.regions:
            message = (
                f"The provided location '{location}' is not available for resource type "
                f"'Microsoft.ContainerInstance/containerGroups'. List of available regions for the resource type is "
                f"'{','.join(sorted(self.regions))}'."
            )
            raise AciError("LocationNotAvailableForResourceType", message)
        asked = list(body.get("identity", {}).get("userAssignedIdentities") or ())
        for identity in asked:
            if self.identities is not None and identity not in self.identities:
                message = f"Resource '{identity}' was not found."
                raise AciError("FailedIdentityOperation", f"Identity operation failed: {message}")
            if "assign" in self.denied:
                message = (
                    "The client 'double' has permission to perform action on scope; however, it does not have "
                    f"permission to perform action 'Microsoft.ManagedIdentity/userAssignedIdentities/assign/action' "
                    f"on the linked scope '{identity}'."
                )
                raise AciError("LinkedAuthorizationFailed", message, status=403)

    def _check_shape(self, body: Document) -> None:
        properties = body.get("properties") or {}
        if not properties.get("containers"):
            raise AciError("MissingContainers", "The container group has no 'containers'.")
        if properties.get("osType") not in ("Linux", "Windows"):
            raise AciError("InvalidOsType", "The 'osType' for the container group is invalid.")
        for container in properties["containers"]:
            name = str(container.get("name") or "")
            if not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", name):
                raise AciError("InvalidContainerName", f"The container name '{name}' is invalid.")
            if not container.get("properties", {}).get("image"):
                raise AciError("MissingImage", f"The 'image' of container '{name}' is missing.")

    def _check_size(self, body: Document, cores_in_use: float) -> None:
        requests = main_container(body).get("properties", {}).get("resources", {}).get("requests", {})
        cpu, memory = float(requests.get("cpu") or 0), float(requests.get("memoryInGB") or 0)
        if not 0 < cpu <= self.max_cpu or not 0 < memory <= self.max_memory_gb:
            message = (
                f"The requested resource of container: cpu {cpu:g} and memory {memory:g} GB is not available in the "
                f"location; at most cpu {self.max_cpu:g} and memory {self.max_memory_gb:g} GB."
            )
            raise AciError("ResourceRequestsInvalid", message)
        if self.cores is not None and cores_in_use + cpu > self.cores:
            message = (
                f"Resource type 'Microsoft.ContainerInstance/containerGroups' container group quota 'StandardCores' "
                f"exceeded in region '{body.get('location')}'. Limit: '{self.cores:g}', Usage: '{cores_in_use:g}' "
                f"Requested: '{cpu:g}'."
            )
            raise AciError("ContainerGroupQuotaReached", message, status=409)

    def _check_image(self, image: str, body: Document) -> None:
        wrong = self.images.get(image)
        needed = self.registries.get(image.partition("/")[0])
        if needed is not None and not any(_is_login(each, image, needed, body) for each in _logins(body)):
            wrong = "denied"
        match wrong:
            case "denied" | "missing":
                message = f"The image '{image}' in container group is not accessible. Please check the image and "
                raise AciError("InaccessibleImage", message + "registry credential.")
            case "registry":
                message = "An error response is received from the docker registry 'index.docker.io'. Please retry "
                raise AciError("RegistryErrorResponse", message + "later.", status=409)


def _logins(body: Document) -> list[Document]:
    return list(body.get("properties", {}).get("imageRegistryCredentials") or ())


def _is_login(login: Document, image: str, needed: str, body: Document) -> bool:
    """Whether a login opens the image's registry; an identity has to be one of the group's too."""
    if login.get("server") != image.partition("/")[0]:
        return False
    its = (body.get("identity") or {}).get("userAssignedIdentities") or ()
    return login.get("password") == needed or (login.get("identity") == needed and needed in its)
