"""The double of Azure Container Instances, driven by the unmodified client: it keeps what Azure's pages promise."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import pytest
from azure.core.exceptions import (
    AzureError,
    HttpResponseError,
    ResourceExistsError,
    ResourceNotFoundError,
    ServiceResponseError,
)
from azure.core.pipeline.policies import SansIOHTTPPolicy
from azure.mgmt.containerinstance import ContainerInstanceManagementClient

from push_pools.testing import aci_faults
from push_pools.testing.aci_double import (
    AciDouble,
    Fault,
    GroupPlan,
    GroupTimes,
    Hold,
    ManualClock,
    Subscription,
    operation_of,
)
from push_pools.testing.aci_groups import plan_from_json, plan_of

if TYPE_CHECKING:
    from collections.abc import Iterator

RG, NAME = "jobs", "pp-one"


class NoToken:
    """A credential that is never asked: the policy of the clients below sends no token."""

    def get_token(self, *scopes: str, **options: Any) -> Any:
        raise AssertionError("asked for a token")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def aci(clock: ManualClock) -> Iterator[AciDouble]:
    with AciDouble(clock=clock, times=GroupTimes(1, 2, 1, 1), default_seconds=10.0) as double:
        yield double


@pytest.fixture
def client(aci: AciDouble) -> Iterator[ContainerInstanceManagementClient]:
    with opened(aci) as client:
        yield client


def opened(aci: AciDouble) -> ContainerInstanceManagementClient:
    return ContainerInstanceManagementClient(
        NoToken(), "sub", base_url=aci.endpoint, authentication_policy=SansIOHTTPPolicy(), retry_total=0
    )


def body(*, command: list[str] | None = None, location: str = "westeurope", **properties: Any) -> bytes:
    container = {
        "image": "acme/report:7",
        "command": command or ["true"],
        "environmentVariables": [{"name": "A", "value": "1"}, {"name": "S", "secureValue": "hidden"}],
        "resources": {"requests": {"cpu": 1.0, "memoryInGB": 1.0}},
    }
    group = {
        "location": location,
        "tags": {"a": "b"},
        "properties": {
            "containers": [{"name": "job", "properties": container}],
            "osType": "Linux",
            "restartPolicy": "Never",
            **properties,
        },
    }
    return json.dumps(group).encode()


def put(client: ContainerInstanceManagementClient, name: str = NAME, **options: Any) -> Any:
    group: Any = body(**options)
    return client.container_groups.begin_create_or_update(RG, name, group, polling=False)


def get(client: ContainerInstanceManagementClient, name: str = NAME) -> Any:
    return client.container_groups.get(RG, name)


def state(group: Any) -> str:
    return str(group.containers[0].instance_view.current_state.state)


# -- a group's life


def test_a_group_goes_through_its_states(client: Any, clock: ManualClock) -> None:
    """The resource's state says Succeeded as soon as the container runs; the container's own state says how it ends."""
    put(client)
    assert (get(client).provisioning_state, get(client).containers[0].instance_view) == ("Pending", None)

    clock.advance(1)
    group = get(client)
    assert (group.provisioning_state, state(group)) == ("Creating", "Waiting")
    assert [event.name for event in group.containers[0].instance_view.events] == ["Pulling"]

    clock.advance(2)
    group = get(client)
    assert (group.provisioning_state, group.instance_view.state, state(group)) == ("Succeeded", "Running", "Running")

    clock.advance(10)
    group = get(client)
    current = group.containers[0].instance_view.current_state
    assert (group.provisioning_state, group.instance_view.state) == ("Succeeded", "Succeeded")
    assert (current.state, current.exit_code, current.detail_status) == ("Terminated", 0, "Completed")
    assert (current.finish_time - current.start_time).total_seconds() == 10


@pytest.mark.parametrize(
    ("plan", "ending"),
    [
        (GroupPlan(exit_code=3), (3, "Error")),
        (GroupPlan("oom"), (137, "OOMKilled")),
        (GroupPlan("killed"), (137, "Error")),
        (GroupPlan("null_exit"), (None, "Error")),
    ],
    ids=lambda value: getattr(value, "outcome", ""),
)
def test_how_a_container_ends_is_told(
    client: Any, aci: AciDouble, clock: ManualClock, plan: GroupPlan, ending: tuple[int | None, str]
) -> None:
    aci.model.plan = lambda _: plan
    put(client)
    clock.advance(100)

    current = get(client).containers[0].instance_view.current_state

    assert (current.exit_code, current.detail_status) == ending
    assert get(client).instance_view.state == "Failed"


@pytest.mark.parametrize(
    ("outcome", "states"),
    [
        ("waiting", ("Creating", "Failed")),
        ("image", ("Creating", "Failed")),
        ("provision_failed", ("Failed", "Failed")),
        ("unhealthy", ("Unhealthy", "Failed")),
    ],
)
def test_a_group_that_never_runs_goes_on_trying(
    client: Any, aci: AciDouble, clock: ManualClock, outcome: Any, states: tuple[str, str]
) -> None:
    """Until it is deleted, whatever its provisioning state says; it still costs."""
    aci.model.plan = lambda _: GroupPlan(outcome)
    put(client)
    clock.advance(60)
    assert (get(client).provisioning_state, state(get(client))) == (states[0], "Waiting")

    clock.advance(3600)

    assert (get(client).provisioning_state, state(get(client))) == (states[1], "Waiting")
    assert aci.alive() == [NAME]
    client.container_groups.begin_delete(RG, NAME, polling=False)
    clock.advance(1)
    assert aci.alive() == []


def test_the_poller_of_the_client_waits_for_the_end_of_the_operation(client: Any, clock: ManualClock) -> None:
    """By Azure-AsyncOperation and Retry-After."""
    group: Any = body()
    poller = client.container_groups.begin_create_or_update(RG, NAME, group)
    assert not poller.done()

    clock.advance(3)

    assert poller.result(timeout=60).provisioning_state == "Succeeded"


# -- a second PUT


def test_a_put_over_a_finished_group_runs_it_again(client: Any, aci: AciDouble, clock: ManualClock) -> None:
    put(client)
    clock.advance(60)

    put(client)

    assert aci.starts() == {NAME: 2}
    assert aci.started[-1].cause == "put over a finished group"


def test_a_put_over_a_running_group_does_nothing_unless_something_changed(
    client: Any, aci: AciDouble, clock: ManualClock
) -> None:
    put(client)
    clock.advance(5)

    put(client)
    assert aci.starts() == {NAME: 1}

    put(client, command=["false"])
    assert aci.starts() == {NAME: 2}


def test_a_group_in_transition_answers_conflict(client: Any, aci: AciDouble, clock: ManualClock) -> None:
    put(client)

    with pytest.raises(ResourceExistsError, match="still transitioning"):
        put(client)
    with pytest.raises(HttpResponseError, match="still transitioning"):
        client.container_groups.stop(RG, NAME)
    assert aci.starts() == {NAME: 1}


def test_a_started_group_runs_again(client: Any, aci: AciDouble, clock: ManualClock) -> None:
    put(client)
    clock.advance(60)

    client.container_groups.begin_start(RG, NAME, polling=False)

    assert aci.starts() == {NAME: 2}


@pytest.mark.parametrize(("honours", "starts"), [(False, 2), (True, 1)])
def test_if_none_match_is_honoured_when_told(clock: ManualClock, honours: bool, starts: int) -> None:
    with AciDouble(clock=clock, honours_if_none_match=honours) as aci, opened(aci) as client:
        put(client)
        group: Any = body()
        refusal = pytest.raises(HttpResponseError, match="PreconditionFailed") if honours else nullcontext()
        with refusal:
            client.container_groups.begin_create_or_update(
                RG, NAME, group, polling=False, headers={"If-None-Match": "*"}
            )
        assert aci.starts() == {NAME: starts}


# -- stop, delete, list, logs


def test_a_stopped_group_says_so_and_a_finished_one_stays_as_it_is(client: Any, clock: ManualClock) -> None:
    put(client, command=["sleep", "600"])
    clock.advance(10)
    client.container_groups.stop(RG, NAME)
    assert get(client).instance_view.state == "Running"
    clock.advance(1)

    group = get(client)
    assert (group.instance_view.state, group.containers[0].instance_view.current_state.exit_code) == ("Stopped", 143)

    put(client, "pp-two")
    clock.advance(60)
    client.container_groups.stop(RG, "pp-two")
    clock.advance(60)
    assert get(client, "pp-two").instance_view.state == "Succeeded"


def test_a_deletion_takes_its_time_and_can_be_repeated(client: Any, clock: ManualClock) -> None:
    put(client)
    client.container_groups.begin_delete(RG, NAME, polling=False)
    assert get(client).provisioning_state == "Deleting"
    with pytest.raises(ResourceExistsError, match="transitioning"):
        put(client)
    clock.advance(1)

    with pytest.raises(ResourceNotFoundError, match="ResourceNotFound"):
        get(client)
    client.container_groups.begin_delete(RG, NAME, polling=False)


def test_a_list_has_no_instance_view(client: Any, clock: ManualClock) -> None:
    put(client)
    put(client, "pp-two")
    clock.advance(10)

    listed = list(client.container_groups.list_by_resource_group(RG))

    assert [group.name for group in listed] == [NAME, "pp-two"]
    assert [group.instance_view for group in listed] == [None, None]


def test_secrets_are_not_shown(client: Any) -> None:
    login = {"server": "acme.azurecr.io", "username": "u", "password": "hidden"}
    put(client, imageRegistryCredentials=[login])

    group = get(client)

    assert group.image_registry_credentials[0].password is None
    assert [each.secure_value for each in group.containers[0].environment_variables] == [None, None]
    assert "hidden" not in str(group.serialize(keep_readonly=True))


def test_tags_are_patched_without_a_start(client: Any, aci: AciDouble) -> None:
    put(client)

    client.container_groups.update(RG, NAME, {"tags": {"x": "y"}})

    assert get(client).tags == {"x": "y"}
    assert aci.starts() == {NAME: 1}


def test_output_is_cut_once_the_container_is_over(client: Any, aci: AciDouble, clock: ManualClock) -> None:
    lines = tuple(f"{number:04d} {'x' * 94}" for number in range(400))
    aci.model.plan = lambda _: GroupPlan(output=lines, seconds=10)
    put(client)
    assert client.containers.list_logs(RG, NAME, "job").content == ""
    clock.advance(5)
    assert len(client.containers.list_logs(RG, NAME, "job").content.splitlines()) == 400
    assert client.containers.list_logs(RG, NAME, "job", tail=1).content.startswith("0399")
    clock.advance(60)

    kept = client.containers.list_logs(RG, NAME, "job").content

    assert len(kept) <= 16 * 1024
    assert kept.splitlines()[-1].startswith("0399")
    stamped = client.containers.list_logs(RG, NAME, "job", tail=1, timestamps=True).content
    assert stamped.startswith("2030-01-01T00:00:03")
    with pytest.raises(ResourceNotFoundError):
        client.containers.list_logs(RG, NAME, "other")


# -- what is refused


@pytest.mark.parametrize(
    ("rules", "options", "code"),
    [
        (Subscription(resource_groups={}), {}, "ResourceGroupNotFound"),
        (Subscription(regions={"eastus"}), {}, "LocationNotAvailableForResourceType"),
        (Subscription(), {"location": ""}, "LocationRequired"),
        (Subscription(images={"acme/report:7": "missing"}), {}, "InaccessibleImage"),
        (Subscription(images={"acme/report:7": "registry"}), {}, "RegistryErrorResponse"),
        (Subscription(cores=0), {}, "ContainerGroupQuotaReached"),
        (Subscription(no_capacity=True), {}, "ServiceUnavailable"),
        (Subscription(max_cpu=0.5), {}, "ResourceRequestsInvalid"),
        (Subscription(denied={"write"}), {}, "AuthorizationFailed"),
        (Subscription(token="t"), {}, "InvalidAuthenticationToken"),
        (Subscription(), {"osType": "Plan9"}, "InvalidOsType"),
        (Subscription(), {"containers": []}, "MissingContainers"),
        (Subscription(), {"containers": [{"name": "UP"}]}, "InvalidContainerName"),
        (Subscription(), {"containers": [{"name": "up"}]}, "MissingImage"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_azure_refuses_is_refused(
    clock: ManualClock, rules: Subscription, options: dict[str, Any], code: str
) -> None:
    with AciDouble(clock=clock, rules=rules) as aci, opened(aci) as client:
        with pytest.raises(HttpResponseError) as caught:
            put(client, **options)
        assert caught.value.error is not None
        assert caught.value.error.code == code
        assert not aci.started


def test_creates_are_limited_by_the_hour_and_by_five_minutes(clock: ManualClock) -> None:
    with AciDouble(clock=clock, rules=Subscription(creates_per_hour=5, creates_per_five_minutes=3)) as aci:
        client = opened(aci)
        for number in range(3):
            put(client, f"pp-{number}")
        with pytest.raises(HttpResponseError) as caught:
            put(client, "pp-x")
        assert caught.value.status_code == 429
        wait = int(caught.value.response.headers["Retry-After"])  # type: ignore[union-attr]
        assert wait <= 301
        clock.advance(wait)
        put(client, "pp-3")
        put(client, "pp-4")
        clock.advance(600)
        with pytest.raises(HttpResponseError):
            put(client, "pp-5")
        clock.advance(3600)
        put(client, "pp-5")
        client.close()


def test_unknown_paths_and_versions_are_refused(aci: AciDouble) -> None:
    for path, code in (("/nowhere?api-version=1", "InvalidRequestUri"), ("/subscriptions/s", "MissingApiVersion")):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(aci.endpoint + path)
        assert code in caught.value.read().decode()
        caught.value.close()


# -- faults


@pytest.mark.parametrize(
    ("fault", "starts", "error"),
    [
        (Fault.accept_then_drop(), 1, ServiceResponseError),
        (Fault.drop_before(), 0, ServiceResponseError),
        (Fault.cut_answer(), 1, AzureError),
        (Fault.malformed(), 1, AzureError),
        (aci_faults.server_error(), 0, HttpResponseError),
        (aci_faults.server_error(effect=True), 1, HttpResponseError),
        (aci_faults.unavailable(effect=True), 1, HttpResponseError),
        (aci_faults.throttle(), 0, HttpResponseError),
        (aci_faults.capacity(), 0, HttpResponseError),
        (aci_faults.quota(), 0, HttpResponseError),
        (aci_faults.registry_error(), 0, HttpResponseError),
        (aci_faults.transitioning(), 0, HttpResponseError),
        (aci_faults.access_denied(), 0, HttpResponseError),
        (aci_faults.expired_token(), 0, HttpResponseError),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_each_fault_does_what_it_says(client: Any, aci: AciDouble, fault: Fault, starts: int, error: Any) -> None:
    aci.faults.add("put", fault)

    with pytest.raises(error):
        put(client)

    assert len(aci.started) == starts
    assert aci.sent("put")[-1].outcome == fault.name
    assert aci.faults.pending() == 0


def test_the_client_repeats_a_put_by_itself_unless_told_not_to(aci: AciDouble, clock: ManualClock) -> None:
    """This is why the adapter turns its retries off: a container that is quick is then run twice."""
    aci.model.times, aci.model.default_seconds = GroupTimes(), 0.0
    aci.faults.add("put", aci_faults.unavailable(effect=True))
    with ContainerInstanceManagementClient(
        NoToken(), "sub", base_url=aci.endpoint, authentication_policy=SansIOHTTPPolicy(), retry_backoff_factor=0
    ) as client:
        put(client)

    assert aci.starts() == {NAME: 2}


def test_a_put_that_hangs_lands_late(client: Any, aci: AciDouble) -> None:
    hold = Hold()
    aci.faults.add("put", Fault.hang(hold))
    thread = threading.Thread(target=put, args=(client,))
    thread.start()
    assert hold.reached.wait(10)
    assert not aci.started

    hold.release()
    thread.join()

    assert aci.starts() == {NAME: 1}


def test_a_new_group_may_show_late(clock: ManualClock) -> None:
    with AciDouble(clock=clock, visibility_delay_seconds=5, default_seconds=60) as aci, opened(aci) as client:
        put(client)
        with pytest.raises(ResourceNotFoundError):
            get(client)
        clock.advance(5)
        assert get(client).name == NAME


def test_what_happens_from_outside(client: Any, aci: AciDouble, clock: ManualClock) -> None:
    for name, end, code in (("pp-a", aci.finish, 0), ("pp-b", aci.kill, 137), ("pp-c", aci.oom, 137)):
        put(client, name, command=["sleep", "600"])
        assert not end(name)
        clock.advance(10)
        assert end(name)
        assert get(client, name).containers[0].instance_view.current_state.exit_code == code
    with pytest.raises(LookupError):
        aci.kill("nobody")


def test_a_plan_that_fails_is_answered(client: Any, aci: AciDouble) -> None:
    aci.model.plan = lambda body: plan_from_json(body["nothing"])
    with pytest.raises(HttpResponseError, match="DoubleFailed"):
        put(client)


# -- plans


@pytest.mark.parametrize(
    ("command", "plan"),
    [
        (["true"], GroupPlan()),
        (["false"], GroupPlan(exit_code=1)),
        (["sh", "-c", "echo a; sleep 3 && exit 4"], GroupPlan(exit_code=4, seconds=3, output=("a",))),
        (["python", "x.py"], GroupPlan()),
    ],
)
def test_simple_commands_are_understood(command: list[str], plan: GroupPlan) -> None:
    assert plan_of({"properties": {"containers": [{"properties": {"command": command}}]}}) == plan


def test_a_plan_can_be_written_as_json() -> None:
    text = '{"outcome": "oom", "seconds": 3, "output": ["a"], "times": {"creating_seconds": 2}}'
    assert plan_from_json(text) == GroupPlan("oom", seconds=3, output=("a",), times=GroupTimes(creating_seconds=2))
    with pytest.raises(ValueError, match="JSON object with any of"):
        plan_from_json('{"colour": "red"}')
    with pytest.raises(ValueError, match="unknown outcome"):
        plan_from_json('{"outcome": "odd"}')


def test_operations_have_names() -> None:
    base = "/subscriptions/s/resourceGroups/g"
    group = f"{base}/providers/Microsoft.ContainerInstance/containerGroups"
    assert operation_of("GET", f"{base}?api-version=1") == "group"
    assert operation_of("GET", f"{group}?api-version=1") == "list"
    assert operation_of("PUT", f"{group}/x?api-version=1") == "put"
    assert operation_of("POST", f"{group}/x/stop?api-version=1") == "stop"
    assert operation_of("GET", f"{group}/x/containers/c/logs?api-version=1") == "logs"


# -- standalone


def test_one_for_other_processes() -> None:
    """Its first line is its endpoint, and the control API moves its clock and its faults."""
    command = [sys.executable, "-m", "push_pools.testing.aci_double", "--control", "--exit-with-stdin"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        endpoint = process.stdout.readline().strip()

        def tell(verb: str, **facts: Any) -> dict[str, Any]:
            request = urllib.request.Request(f"{endpoint}/_control/{verb}", json.dumps(facts).encode(), method="POST")
            with urllib.request.urlopen(request) as answer:
                told: dict[str, Any] = json.loads(answer.read())
                return told

        with ContainerInstanceManagementClient(
            NoToken(), "s", base_url=endpoint, authentication_policy=SansIOHTTPPolicy(), retry_total=0
        ) as client:
            tell("fault", fault="throttle", operation="put")
            with pytest.raises(HttpResponseError):
                put(client)
            tell("fault", fault="hang", operation="stop", probability=1.0, times=1)
            tell("clear_faults")
            put(client, command=["sleep", "900"])
            assert tell("kill", group=NAME) == {"ended": True}
            assert tell("oom", group=NAME) == tell("finish", group=NAME) == {"ended": False}
            assert "now" in tell("advance", seconds=60)
            assert tell("calls")["started"] == len(tell("started")["started"]) == 1
            assert tell("release") == {}
            with pytest.raises(urllib.error.HTTPError) as caught:
                tell("nonsense")
            caught.value.close()
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(30) == 0
