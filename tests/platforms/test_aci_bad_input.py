"""What users get wrong on Azure: each mistake has a class, a cause and a suggestion, and nothing is started."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from pydantic import ValidationError

from push_pools.credentials.aws import AwsCredentials
from push_pools.credentials.azure import AzureContainerInstanceCredentials
from push_pools.credentials.registry_auth import DockerRegistryCredentials
from push_pools.domain.errors import InvalidJobVariables, JobRejected, PlatformError, PlatformUnavailable
from push_pools.domain.failures import explain_error
from push_pools.domain.jobs import default_base_job_template
from push_pools.platforms.aci import AciPlatform
from push_pools.platforms.aci_config import AciJobConfiguration, AciVariables
from push_pools.ports import PlatformContext
from push_pools.testing import aci_faults
from push_pools.testing.aci_double import AciDouble, Fault, ManualClock, Subscription

from .aci_world import GROUP, AciWorld, Clock, job_of, rendered

if TYPE_CHECKING:
    from collections.abc import Iterator

IDENTITY = "/subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/none"


@pytest.fixture
def double() -> Iterator[AciDouble]:
    with AciDouble(clock=ManualClock(), default_seconds=10) as double:
        yield double


@pytest.fixture
def world(double: AciDouble) -> AciWorld:
    return AciWorld(double, double.clock)  # type: ignore[arg-type]


MISTAKES: list[tuple[str, Subscription, dict[str, Any], str | None, str, str, bool]] = [
    (
        "wrong region",
        Subscription(regions={"eastus"}),
        {"location": "mars"},
        "location",
        "configuration",
        "mars",
        False,
    ),
    (
        "unknown identity",
        Subscription(identities=set()),
        {"identities": [IDENTITY]},
        "identities",
        "configuration",
        "was not found",
        False,
    ),
    ("image not found", Subscription(images={"x:1": "missing"}), {"image": "x:1"}, "image", "image", "x:1", False),
    ("denied pull", Subscription(images={"x:1": "denied"}), {"image": "x:1"}, "image", "image", "x:1", False),
    ("registry down", Subscription(images={"x:1": "registry"}), {"image": "x:1"}, None, "image", "registry", True),
    ("quota zero", Subscription(cores=0), {}, "location", "quota", "no quota", False),
    ("quota used up", Subscription(cores=0.5), {}, None, "quota", "used up", True),
    ("no room", Subscription(no_capacity=True), {}, None, "capacity", "no room", True),
    ("too many creates", Subscription(creates_per_hour=0), {"location": "x"}, None, "quota", "how often", True),
    ("too large", Subscription(), {"cpu": 99}, "cpu", "configuration", "no such size", False),
    ("may not create", Subscription(denied={"write"}), {}, None, "permission", "does not allow", False),
    ("may not look", Subscription(denied={"read"}), {}, None, "permission", "does not allow", False),
    (
        "may not give the identity",
        Subscription(denied={"assign"}),
        {"identities": [IDENTITY]},
        "identities",
        "permission",
        "assign",
        False,
    ),
    (
        "no resource group",
        Subscription(resource_groups={}),
        {"location": "x"},
        "resource_group_name",
        "configuration",
        "does not exist",
        False,
    ),
]


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda each: each[0])
def test_a_mistake_is_explained(double: AciDouble, world: AciWorld, mistake: Any) -> None:
    _, rules, variables, variable, class_, say, retried = mistake
    if "max_cpu" not in variables and rules.creates_per_hour == 0:
        rules = Subscription(creates_per_five_minutes=0, creates_per_hour=10)
        rules._created.append(double.model.now())
    double.model.rules = rules

    with pytest.raises(PlatformError) as caught:
        world.submitted(**variables)

    failure = explain_error(caught.value)
    assert (str(failure.failure_class), failure.retry) == (class_, retried)
    assert say in failure.cause
    assert failure.suggestion
    assert getattr(caught.value, "variable", None) == variable
    assert isinstance(caught.value, JobRejected) is not retried
    assert not double.started


@pytest.mark.parametrize(
    ("variables", "say"),
    [
        ({"image": None}, "image: name the image"),
        ({"resource_group_name": None}, "resource_group_name: name the resource group"),
        ({"subscription_id": ""}, "subscription_id: give the id"),
    ],
)
def test_what_is_missing_is_named(world: AciWorld, variables: dict[str, Any], say: str) -> None:
    job = job_of(**variables)
    for ask in (world.platform.preview, lambda job: world.platform.prepare(job, world.memo)):
        with pytest.raises(InvalidJobVariables, match=say):
            ask(job)


@pytest.mark.parametrize(
    ("variables", "say"),
    [
        ({"cpu": 0}, "cpu: give a number above 0"),
        ({"memory": -1}, "memory: give a number above 0"),
        ({"gpu_sku": "V100"}, "gpu_sku: give a gpu_count"),
        ({"gpu_count": 1}, "gpu_count: give a gpu_sku"),
        ({"dns_servers": ["1.1.1.1"]}, "dns_servers: give subnet_ids"),
        ({"identities": ["jobs"]}, "identities: 'jobs' is no resource id"),
        ({"subnet_ids": ["jobs"]}, "subnet_ids: 'jobs' is no resource id"),
        ({"resource_group_name": "a/b"}, "no name of a resource group"),
        ({"image_registry": {"registry_url": "x", "password": "hidden"}}, "passwords are not written into a template"),
        ({"aci_credentials": {"client_id": "x"}}, "credentials are not written into a template"),
        ({"task_start_timeout_seconds": 0}, "task_start_timeout_seconds"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_values_that_cannot_be_are_refused_before_anything_is_asked(variables: dict[str, Any], say: str) -> None:
    with pytest.raises(InvalidJobVariables, match=say) as caught:
        rendered(**variables)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    ("properties", "say"),
    [
        ({"restartPolicy": "Always"}, "with any but Never a job would run again"),
        ({"containers": [{"name": "UPPER"}]}, "container name 'UPPER'"),
    ],
)
def test_templates_that_would_break_the_promise_are_refused(properties: dict[str, Any], say: str) -> None:
    template = default_base_job_template(AciJobConfiguration, AciVariables)
    template["job_configuration"]["container_group"] = {"properties": properties}
    with pytest.raises(InvalidJobVariables, match=say):
        rendered(template)


def test_too_many_tags_are_counted(world: AciWorld) -> None:
    with pytest.raises(InvalidJobVariables, match="takes 50 tags, and these are 5"):
        world.platform.prepare(job_of(labels={f"l{n}": "x" for n in range(45)}), world.memo)


def test_a_limit_of_azure_is_warned_of_and_not_forbidden(world: AciWorld) -> None:
    notes: Any = world.platform.preview(job_of(task_start_timeout_seconds=7200))["notes"]
    assert notes == ["task_start_timeout_seconds is 7200, and Azure itself gives up after 1800 s"]
    assert world.submitted(task_start_timeout_seconds=7200).pid


def test_a_name_collision_is_explained(double: AciDouble, world: AciWorld) -> None:
    job, key = world.prepared()
    world.platform.submit(job, key)
    double.model.group(key).tags = {"owner": "somebody"}

    with pytest.raises(JobRejected) as caught:
        world.platform.submit(job, key)

    failure = explain_error(caught.value)
    assert str(failure.failure_class) == "configuration"
    assert "resource group of its own" in failure.suggestion
    assert double.starts() == {key: 1}


# -- private registries

PRIVATE = "acme.azurecr.io/report:7"
PULLS = IDENTITY.replace("/none", "/pulls")


@pytest.mark.parametrize(
    ("needed", "registry"),
    [
        ("let me in", {"$ref": {"block_document_id": "login"}}),
        (PULLS, {"registry_url": "https://acme.azurecr.io/", "identity": PULLS}),
    ],
    ids=["login", "identity"],
)
def test_a_private_image_is_pulled_with_a_login_or_an_identity(
    double: AciDouble, world: AciWorld, needed: str, registry: dict[str, Any]
) -> None:
    """Without one, or with another, Azure does not say more than that it cannot be pulled."""
    world.blocks["login"] = DockerRegistryCredentials(
        username="u", password="let me in", registry_url="acme.azurecr.io"
    )
    double.rules.registries = {"acme.azurecr.io": needed}
    with pytest.raises(JobRejected) as caught:
        world.submitted(image=PRIVATE)
    failure = explain_error(caught.value)
    assert (str(failure.failure_class), caught.value.variable) == ("image", "image")
    assert "`image_registry`" in failure.suggestion
    double.rules.registries = {"acme.azurecr.io": "another"}
    with pytest.raises(JobRejected):
        world.submitted(image=PRIVATE, image_registry=registry)
    assert not double.started
    double.rules.registries = {"acme.azurecr.io": needed}

    handle = world.submitted(image=PRIVATE, image_registry=registry)

    assert double.starts() == {handle.key: 1}
    double.rules.denied = {"assign"}
    if needed is PULLS:
        with pytest.raises(JobRejected) as caught:
            world.submitted(image=PRIVATE, image_registry=registry)
        assert "Managed Identity Operator" in explain_error(caught.value).suggestion


# -- credentials


def test_an_expired_token_is_tried_again(double: AciDouble, world: AciWorld) -> None:
    double.faults.add("put", aci_faults.expired_token())
    with pytest.raises(PlatformUnavailable) as caught:
        world.submitted()
    assert caught.value.codes[0] == "CredentialsExpired"


def test_a_token_that_azure_does_not_take_is_refused(double: AciDouble, world: AciWorld) -> None:
    double.rules.token = "other"
    with pytest.raises(JobRejected) as caught:
        world.submitted(location="westeurope")
    assert (caught.value.codes[0], caught.value.variable) == ("BadCredentials", "aci_credentials")


@pytest.mark.parametrize(
    ("fields", "say"),
    [
        ({"client_secret": "hidden"}, "client_secret needs client_id and tenant_id"),
        ({"client_secret": "hidden", "client_id": "x"}, "client_secret needs client_id and tenant_id"),
        ({"tenant_id": "x"}, "tenant_id needs client_id"),
        ({"federated": True, "client_id": "x"}, "federated needs client_id and tenant_id"),
        ({"federated": True, "client_id": "x", "tenant_id": "y", "client_secret": "hidden"}, "give one of them"),
        ({"managed_identity_client_id": "x", "client_id": "x", "tenant_id": "y"}, "has no tenant_id to choose"),
    ],
)
def test_a_block_that_is_not_whole_is_refused(fields: dict[str, Any], say: str) -> None:
    with pytest.raises(ValidationError, match=say):
        AzureContainerInstanceCredentials.model_validate(fields)


def test_a_block_of_another_type_is_refused(world: AciWorld) -> None:
    world.blocks["aws"] = AwsCredentials()
    with pytest.raises(JobRejected, match="of another type") as caught:
        world.submitted(aci_credentials={"$ref": {"block_document_id": "aws"}}, location="x")
    assert caught.value.variable == "aci_credentials"


def test_a_block_that_is_gone_is_tried_again(world: AciWorld) -> None:
    with pytest.raises(PlatformUnavailable, match="does not exist"):
        world.submitted(aci_credentials={"$ref": {"block_document_id": "none"}}, location="x")


def test_malformed_credentials_are_refused_without_a_request(double: AciDouble) -> None:
    """A tenant id with a slash; azure-identity says so before it asks anybody."""
    block = AzureContainerInstanceCredentials.model_validate(
        {"client_id": "x", "tenant_id": "a/b", "client_secret": "hidden"}
    )
    platform = at("https://127.0.0.1:1", block)
    with pytest.raises(JobRejected, match="malformed") as caught:
        block.check(AciPlatform.type, "scope")
    assert caught.value.codes == ("BadCredentials",)
    assert "hidden" not in str(caught.value)
    assert platform.type == AciPlatform.type


# -- the endpoint


def at(endpoint: str, block: Any = None) -> AciPlatform:
    clock = Clock(ManualClock())
    return AciPlatform(PlatformContext(lambda _: block, {"azure_endpoint": endpoint}, clock, clock))


@pytest.mark.parametrize(
    ("endpoint", "say"),
    [
        ("http://management.azure.com", "is taken for this machine"),
        ("http://10.0.0.1:80", "is taken for this machine"),
        ("management.azure.com", "write a URL"),
        ("https://user@host", "write a URL"),
        ("ftp://host", "write a URL"),
    ],
)
def test_an_endpoint_that_would_show_tokens_is_refused(endpoint: str, say: str) -> None:
    with pytest.raises(JobRejected, match=say) as caught:
        at(endpoint).find(handle())
    assert "PUSH_POOLS_AZURE_ENDPOINT" in str(caught.value)
    assert explain_error(caught.value).suggestion.startswith("correct PUSH_POOLS_AZURE_ENDPOINT")


def handle() -> Any:
    platform = at("http://127.0.0.1:1")
    return platform.handle(job_of(run=uuid4()), "pp-x")


def test_an_endpoint_where_nobody_listens_is_unreachable() -> None:
    """Surely without effect: no connection was made."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    platform = at(f"http://127.0.0.1:{port}")
    job = platform.prepare(job_of(location="x"), AciWorld.__new__(AciWorld))  # type: ignore[arg-type]
    with pytest.raises(PlatformUnavailable, match="could not be reached") as caught:
        platform.submit(job, "pp-x")
    assert caught.value.codes[0] == "ConnectFailed"


def test_the_region_of_a_group_that_does_not_exist_is_refused(double: AciDouble, world: AciWorld) -> None:
    double.rules.resource_groups = {"other": "x"}
    with pytest.raises(JobRejected, match=f"'{GROUP}' could not be found") as caught:
        world.prepared()
    assert caught.value.variable == "resource_group_name"
    double.rules.resource_groups = {GROUP: ""}
    with pytest.raises(InvalidJobVariables, match="location: Azure does not tell"):
        world.prepared()
    double.faults.add("group", Fault.drop_before())
    with pytest.raises(PlatformUnavailable):
        world.prepared()
