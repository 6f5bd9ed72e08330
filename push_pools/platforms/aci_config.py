"""The job configuration of Azure Container Instances, and the variables of its base job template."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final, Self

from pydantic import BaseModel, Field, field_validator, model_validator
from pydantic.json_schema import SkipJsonSchema

from push_pools.credentials.azure import AzureContainerInstanceCredentials
from push_pools.credentials.registry_auth import DockerRegistryCredentials
from push_pools.domain.errors import InvalidJobVariables
from push_pools.domain.jobs import BaseJobConfiguration, BaseVariables
from push_pools.domain.secrets import find_secret_refs
from push_pools.domain.templates import block_ref
from push_pools.platforms import aci_group

CONTAINER_GROUP: Final[dict[str, Any]] = {
    "location": "{{ location }}",
    "properties": {"containers": [{"name": "job", "properties": {"image": "{{ image }}"}}]},
}
"""The body of the PUT, as far as the template says it. Everything that Azure takes may be written here."""

IGNORED: Final = {
    "stream_output": "no process waits beside the job; `push-pools flow-run logs` reads its output from Azure",
    "task_watch_poll_interval": "no process waits beside the job; sweeps bring its status back",
}
"""Variables that are accepted, so that Prefect's job variables can be used, and why they do nothing."""
PROVISIONING_SECONDS: Final = 1800.0
"""After which Azure itself says that a group could not be provisioned ("Container group provisioning states")."""


class ACRManagedIdentity(BaseModel):
    """An identity that pulls images from a registry of Azure."""

    registry_url: str
    """The registry, such as `acme.azurecr.io`."""
    identity: str
    """Resource id of the user-assigned identity; it needs the role AcrPull at the registry."""


class AciVariables(BaseVariables):
    """Variables of the base job template, named as in Prefect."""

    image: str | None = Field(default=None, description="The image of the job.")
    resource_group_name: str | None = Field(
        default=None, description="The resource group that container groups are made in."
    )
    subscription_id: str | None = Field(
        default=None, title="Subscription ID", description="The Azure subscription that container groups are made in."
    )
    location: str | None = Field(
        default=None, description="The region that container groups run in; by default that of the resource group."
    )
    aci_credentials: AzureContainerInstanceCredentials = Field(
        default_factory=AzureContainerInstanceCredentials,
        title="ACI Credentials",
        description="The identity that makes container groups. If left out, it is the service's own.",
    )
    identities: list[str] = Field(
        default_factory=list, description="Resource ids of user-assigned identities that the job's own calls may use."
    )
    entrypoint: str | list[str] | None = Field(
        default=None,
        description="Words that come before `command`. Azure takes one command line, which replaces the image's "
        "ENTRYPOINT and CMD together, so that `command` alone is the whole of it.",
    )
    image_registry: DockerRegistryCredentials | ACRManagedIdentity | None = Field(
        default=None,
        description="The login of a private registry: a block of type docker-registry-credentials, or an identity "
        "that may pull (`registry_url` and `identity`).",
    )
    cpu: float | None = Field(default=None, gt=0, title="CPU", description="Processor cores of the job; by default 1.")
    memory: float | None = Field(default=None, gt=0, description="Memory in GB; by default 1.")
    gpu_count: int | None = Field(default=None, ge=1, title="GPU Count", description="How many GPUs the job gets.")
    gpu_sku: str | None = Field(default=None, title="GPU SKU", description="Their kind, such as V100.")
    subnet_ids: list[str] = Field(
        default_factory=list,
        title="Subnet IDs",
        description="Resource ids of subnets, delegated to container groups; by default groups are in no network.",
    )
    dns_servers: list[str] = Field(
        default_factory=list, title="DNS Servers", description="DNS servers of a group that is in a subnet."
    )
    task_start_timeout_seconds: float | None = Field(
        default=None,
        gt=0,
        description="How long a container may take to begin to run; by default 600. One that takes longer is deleted.",
    )
    timeout: float | None = Field(
        default=None, ge=0, description="How many seconds a job may run; by default 24 hours, and 0 sets no limit."
    )
    grace_seconds: float | None = Field(
        default=None, ge=0, description="0 deletes a group that is stopped at once; else it is kept for its output."
    )
    keep_container_group: bool = Field(
        default=False,
        description="Whether container groups stay after the end of their jobs. They count to the quota of the region.",
    )
    stream_output: bool | None = Field(
        default=None, description=f"Accepted, and without effect: {IGNORED['stream_output']}."
    )
    task_watch_poll_interval: float | None = Field(
        default=None, description=f"Accepted, and without effect: {IGNORED['task_watch_poll_interval']}."
    )


class AciJobConfiguration(BaseJobConfiguration):
    """One container group: the body of its PUT, and what is needed to complete it.

    A job that `AciPlatform.prepare` returned is complete (`is_complete`); its `container_group` is then, but for the
    tag with the job key and the values of secrets, what is sent, the same at every repeat.
    """

    block_fields: ClassVar[frozenset[str]] = frozenset({"aci_credentials", "image_registry"})
    secret_paths_allowed: ClassVar[frozenset[str]] = frozenset({"env"})

    aci_credentials: dict[str, Any] | None = Field(default=None, title="ACI Credentials")
    container_group: dict[str, Any] = Field(default_factory=dict, json_schema_extra={"template": CONTAINER_GROUP})
    image: str | None = None
    resource_group_name: str | None = None
    subscription_id: str | None = Field(default=None, title="Subscription ID")
    location: str | None = None
    identities: list[str] = Field(default_factory=list)
    entrypoint: str | list[str] | None = None
    image_registry: dict[str, Any] | None = None
    cpu: float | None = Field(default=None, title="CPU")
    memory: float | None = None
    gpu_count: int | None = Field(default=None, title="GPU Count")
    gpu_sku: str | None = Field(default=None, title="GPU SKU")
    subnet_ids: list[str] = Field(default_factory=list, title="Subnet IDs")
    dns_servers: list[str] = Field(default_factory=list, title="DNS Servers")
    task_start_timeout_seconds: float | None = Field(default=None, gt=0)
    timeout: float | None = Field(default=None, ge=0)
    grace_seconds: float | None = Field(default=None, ge=0)
    keep_container_group: bool = False
    stream_output: bool | None = None
    task_watch_poll_interval: float | None = None

    is_complete: Annotated[bool, SkipJsonSchema()] = False

    @field_validator("aci_credentials")
    @classmethod
    def _is_a_reference(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        if value and block_ref(value) is None:
            raise ValueError("name a credentials block; credentials are not written into a template")
        return value or None

    @field_validator("image_registry")
    @classmethod
    def _is_a_login(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        if not value or block_ref(value) is not None:
            return value or None
        if not (isinstance(value.get("registry_url"), str) and isinstance(value.get("identity"), str)):
            raise ValueError(
                "name a docker-registry-credentials block, or give registry_url and identity; "
                "passwords are not written into a template"
            )
        return {name: value[name] for name in ("registry_url", "identity")}

    @field_validator("container_group", mode="before")
    @classmethod
    def _none_is_empty(cls, value: object) -> object:
        return {} if value is None else value

    @field_validator("identities", "subnet_ids", "dns_servers", mode="before")
    @classmethod
    def _none_is_no_item(cls, value: object) -> object:
        return [] if value is None else value

    @field_validator("keep_container_group", mode="before")
    @classmethod
    def _none_is_false(cls, value: object) -> object:
        return False if value is None else value

    @field_validator("entrypoint", "location", "image", "resource_group_name", "subscription_id", "gpu_sku")
    @classmethod
    def _empty_is_not_given(cls, value: Any) -> Any:
        return value or None

    @model_validator(mode="after")
    def _can_be_asked_for(self) -> Self:
        self._refuse_shown()
        if not self.is_complete:
            aci_group.check(self)
        return self

    def _refuse_shown(self) -> None:
        """Refuse secrets where Azure would show them to whoever may read the group."""
        for path, _ in find_secret_refs(self.container_group):
            if path and path[-1] not in aci_group.SECRET_FIELDS:
                where = ".".join(map(str, path))
                raise InvalidJobVariables([f"container_group.{where}: Azure would show this secret; put it into `env`"])

    @property
    def credential_block_id(self) -> str | None:
        """The block that the clients are opened with; `None` for the service's own identity."""
        return block_ref(self.aci_credentials) if self.aci_credentials else None

    @property
    def notes(self) -> list[str]:
        """Sentences about what was asked for and is not done, or goes beyond what Azure does."""
        ignored = [f"{name} has no effect: {why}" for name, why in IGNORED.items() if getattr(self, name)]
        if (self.task_start_timeout_seconds or 0) > PROVISIONING_SECONDS:
            ignored.append(
                f"task_start_timeout_seconds is {self.task_start_timeout_seconds:g}, and Azure itself gives up after "
                f"{PROVISIONING_SECONDS:g} s"
            )
        return ignored
