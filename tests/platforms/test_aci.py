"""The platform of Azure Container Instances: what it sends, how it submits once, and what it makes of a group."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from push_pools.credentials.azure import AzureContainerInstanceCredentials
from push_pools.credentials.registry_auth import DockerRegistryCredentials
from push_pools.domain.errors import InvalidJobVariables, JobRejected, PlatformUnavailable, SubmissionUncertain
from push_pools.domain.jobs import default_base_job_template
from push_pools.domain.runs import JobHandle
from push_pools.domain.states import JobStatus
from push_pools.platforms import aci, aci_logs
from push_pools.platforms.aci_config import AciJobConfiguration, AciVariables
from push_pools.platforms.aci_group import KEY_TAG
from push_pools.platforms.aci_pace import Paces
from push_pools.testing import aci_faults
from push_pools.testing.aci_double import AciDouble, Fault, GroupPlan, GroupTimes, Hold, ManualClock, Subscription
from push_pools.testing.contracts.platforms import NoteBook

from .aci_world import GROUP, RUN, SUBSCRIPTION, TEMPLATE, AciWorld, job_of, rendered

if TYPE_CHECKING:
    from collections.abc import Iterator

IDENTITY = "/subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/jobs"
SUBNET = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/virtualNetworks/v/subnets/jobs"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def double(clock: ManualClock) -> Iterator[AciDouble]:
    with AciDouble(clock=clock, times=GroupTimes(1, 2, 1, 1), default_seconds=10) as double:
        yield double


@pytest.fixture
def world(double: AciDouble, clock: ManualClock) -> AciWorld:
    return AciWorld(double, clock)


def body_of(world: AciWorld, **values: Any) -> Any:
    return world.platform.prepare(job_of(**values), world.memo).container_group


def container_of(body: Any) -> Any:
    (container,) = body["properties"]["containers"]
    return container["properties"]


# -- the request


def test_the_body_of_a_usual_job(world: AciWorld) -> None:
    body = body_of(world, command="python report.py --fast", env={"B": "2", "A": "1"}, labels={"team": "x"})

    service = {
        "PUSH_POOLS_ATTEMPT": "1",
        "PUSH_POOLS_DEPLOYMENT": "Monthly report!/hourly",
        "PUSH_POOLS_PARAMETERS": '{"n":1}',
        "PUSH_POOLS_RUN_ID": str(RUN),
        "PUSH_POOLS_SCHEDULED_TIME": "2030-01-01T00:00:00Z",
    }
    assert body == {
        "location": "westeurope",
        "tags": {
            "name": "curious-crab",
            "team": "x",
            "push-pools-run-id": str(RUN),
            "push-pools-run-name": "curious-crab",
            "push-pools-attempt": "1",
            "push-pools-deployment": "Monthly report!/hourly",
            "push-pools-flow": "Monthly report!",
            "push-pools-work-pool": "nightly",
        },
        "properties": {
            "osType": "Linux",
            "restartPolicy": "Never",
            "containers": [
                {
                    "name": "job",
                    "properties": {
                        "image": "acme/report:7",
                        "command": ["python", "report.py", "--fast"],
                        "environmentVariables": [
                            {"name": name, "value": value}
                            for name, value in sorted({"A": "1", "B": "2", **service}.items())
                        ],
                        "resources": {"requests": {"cpu": 1.0, "memoryInGB": 1.0}},
                    },
                }
            ],
        },
    }


def test_all_variables_find_their_place(world: AciWorld) -> None:
    body = body_of(
        world,
        location="eastus",
        identities=[IDENTITY],
        entrypoint="/bin/tini --",
        command=["run"],
        cpu=2.5,
        memory=7,
        gpu_count=1,
        gpu_sku="V100",
        subnet_ids=[SUBNET],
        dns_servers=["10.0.0.4"],
        image_registry={"registry_url": "https://acme.azurecr.io/", "identity": IDENTITY + "2"},
    )

    container = container_of(body)
    assert body["location"] == "eastus"
    assert container["command"] == ["/bin/tini", "--", "run"]
    assert container["resources"]["requests"] == {"cpu": 2.5, "memoryInGB": 7.0, "gpu": {"count": 1, "sku": "V100"}}
    assert body["identity"] == {"type": "UserAssigned", "userAssignedIdentities": {IDENTITY: {}, IDENTITY + "2": {}}}
    assert body["properties"]["subnetIds"] == [{"id": SUBNET}]
    assert body["properties"]["dnsConfig"] == {"nameServers": ["10.0.0.4"]}
    login = {"server": "acme.azurecr.io", "identity": IDENTITY + "2"}
    assert body["properties"]["imageRegistryCredentials"] == [login]


def test_the_template_names_every_variable_of_prefect() -> None:
    """So that job variables can be taken over as they are."""
    prefect = {
        "image", "resource_group_name", "subscription_id", "identities", "entrypoint", "image_registry", "cpu",
        "gpu_count", "gpu_sku", "memory", "subnet_ids", "dns_servers", "aci_credentials", "stream_output",
        "task_start_timeout_seconds", "task_watch_poll_interval", "keep_container_group", "name", "env", "labels",
        "command",
    }  # fmt: skip
    assert prefect <= set(TEMPLATE["variables"]["properties"])
    assert {"location"} <= set(TEMPLATE["variables"]["properties"])


def test_whatever_azure_takes_may_be_written_into_the_template(world: AciWorld) -> None:
    """What the template says literally cannot be overridden, and nothing of it is lost."""
    template = default_base_job_template(AciJobConfiguration, AciVariables)
    template["job_configuration"]["container_group"] = {
        "zones": ["1"],
        "tags": {"cost": "42", KEY_TAG: "no"},
        "identity": {"type": "SystemAssigned"},
        "properties": {
            "priority": "Spot",
            "sku": "Standard",
            "initContainers": [{"name": "first", "properties": {"image": "busybox"}}],
            "containers": [
                {
                    "name": "main",
                    "properties": {
                        "image": "fixed:1",
                        "command": ["fixed"],
                        "environmentVariables": [{"name": "A", "value": "literal"}],
                        "resources": {"requests": {"cpu": 4}, "limits": {"cpu": 4}},
                        "livenessProbe": {"exec": {"command": ["true"]}},
                    },
                },
                {"name": "side", "properties": {"image": "side:1"}},
            ],
        },
    }

    job = world.platform.prepare(job_of(template=template, env={"A": "1"}, identities=[IDENTITY]), world.memo)

    body: Any = job.container_group
    main, side = body["properties"]["containers"]
    assert (body["zones"], body["properties"]["priority"], side["name"]) == (["1"], "Spot", "side")
    assert body["properties"]["initContainers"][0]["name"] == "first"
    assert (main["name"], main["properties"]["image"], main["properties"]["command"]) == ("main", "fixed:1", ["fixed"])
    assert {"name": "A", "value": "literal"} in main["properties"]["environmentVariables"]
    assert main["properties"]["resources"] == {"requests": {"cpu": 4, "memoryInGB": 1.0}, "limits": {"cpu": 4}}
    assert main["properties"]["livenessProbe"] == {"exec": {"command": ["true"]}}
    assert body["identity"] == {"type": "SystemAssigned, UserAssigned", "userAssignedIdentities": {IDENTITY: {}}}
    assert body["tags"]["cost"] == "42"
    assert KEY_TAG not in body["tags"]
    assert world.platform.handle(job, "k").details["container"] == "main"


def test_the_preview_is_what_is_sent(world: AciWorld) -> None:
    """Before it is prepared only the region is not known."""
    job, key = world.prepared(command="true", run=RUN)
    world.platform.submit(job, key)
    (call,) = world.puts()
    assert call.body is not None

    shown = world.platform.preview(job)

    url = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}/providers/Microsoft.ContainerInstance/containerGroups"
    assert shown["put"] == f"{url}/<job key>?api-version=2023-05-01"
    assert call.path == f"{url}/{key}?api-version=2023-05-01"
    assert shown["container_group"] == {**call.body, "tags": {**call.body["tags"], KEY_TAG: "<job key>"}}
    unprepared: Any = world.platform.preview(job_of(command="true"))["container_group"]
    assert unprepared == {**shown["container_group"], "location": "<location of the resource group>"}


def test_what_has_no_effect_is_said(world: AciWorld) -> None:
    notes: Any = world.platform.preview(job_of(stream_output=True, task_start_timeout_seconds=3600))["notes"]

    assert "stream_output has no effect" in notes[0]
    assert "Azure itself gives up after 1800 s" in notes[1]
    assert "notes" not in world.platform.preview(job_of())


def test_the_region_of_the_resource_group_is_asked_for_once(double: AciDouble, world: AciWorld) -> None:
    """And kept in the ledger, for other processes."""
    double.rules.resource_groups = {GROUP: "northeurope"}
    for _ in range(2):
        assert body_of(world)["location"] == "northeurope"
    world.platform = world.another()
    assert body_of(world)["location"] == "northeurope"
    assert double.calls["group"] == 1

    assert body_of(world, location="eastus")["location"] == "eastus"


# -- secrets


def test_secrets_are_references_until_the_call(world: AciWorld) -> None:
    """In what is stored and shown; Azure gets the value in a field that it never shows."""
    login = DockerRegistryCredentials(username="u", password="hidden-1", registry_url="https://index.docker.io/v1/")
    world.blocks |= {"login": login, "vault": {"value": {"deep": "hidden-2"}}}
    job = rendered(image_registry={"$ref": {"block_document_id": "login"}}, env={"A": "1"})
    job = job.model_copy(update={"secret_env": {"TOKEN": {"$secret": "vault/value.deep"}}})
    job = world.platform.prepare(job, world.memo)
    stored = AciJobConfiguration.model_validate_json(job.model_dump_json())
    assert "hidden" not in job.model_dump_json() + str(world.platform.preview(stored))

    world.platform.submit(stored, "pp-x")

    sent: Any = world.puts()[0].body
    assert {"name": "TOKEN", "secureValue": "hidden-2"} in container_of(sent)["environmentVariables"]
    assert sent["properties"]["imageRegistryCredentials"] == [
        {"server": "index.docker.io", "username": "u", "password": "hidden-1"}
    ]


@pytest.mark.parametrize(
    ("block", "field", "say"),
    [({"value": 1}, "value", "no secret field 'value'"), ({}, "gone", "no secret field 'gone'")],
)
def test_a_secret_that_is_gone_is_said(world: AciWorld, block: Any, field: str, say: str) -> None:
    world.blocks["vault"] = block
    job = rendered().model_copy(update={"secret_env": {"T": {"$secret": f"vault/{field}"}}})
    with pytest.raises(JobRejected, match=say):
        world.platform.submit(world.platform.prepare(job, world.memo), "pp-x")
    assert not world.puts()


def test_a_block_that_is_no_login_is_refused(world: AciWorld) -> None:
    world.blocks["other"] = AzureContainerInstanceCredentials()
    job = world.platform.prepare(rendered(image_registry={"$ref": {"block_document_id": "other"}}), world.memo)
    with pytest.raises(JobRejected, match="docker-registry-credentials block") as caught:
        world.platform.submit(job, "pp-x")
    assert caught.value.variable == "image_registry"


def test_a_secret_is_refused_where_azure_would_show_it(world: AciWorld) -> None:
    template = default_base_job_template(AciJobConfiguration, AciVariables)
    group = template["job_configuration"]["container_group"]
    group["tags"] = {"t": {"$secret": "block/value"}}
    with pytest.raises(InvalidJobVariables, match=r"container_group\.tags\.t: Azure would show this secret"):
        job_of(template=template)


# -- submit


def test_a_put_is_never_sent_over_a_group(world: AciWorld, clock: ManualClock, double: AciDouble) -> None:
    """Not while it starts, runs, has ended, was stopped or is being deleted."""
    job, key = world.prepared()
    first = world.platform.submit(job, key)
    for seconds in (1, 3, 100):
        clock.advance(seconds)
        assert world.platform.submit(job, key) == first
    double.model.group(key).deleted_at = clock.now()
    assert world.another().submit(job, key) == first
    assert len(world.puts()) == 1
    assert double.starts() == {key: 1}


def test_the_put_is_sent_once_whatever_is_answered(world: AciWorld, double: AciDouble) -> None:
    """azure-core would repeat it on 503, and a quick job would run twice."""
    double.model.times, double.model.default_seconds = GroupTimes(), 0.0
    double.faults.add("put", aci_faults.unavailable(effect=True))
    job, key = world.prepared()
    with pytest.raises(SubmissionUncertain):
        world.platform.submit(job, key)
    assert len(world.puts()) == 1
    assert world.puts()[0].headers["if-none-match"] == "*"
    assert world.platform.find(world.platform.handle(job, key)) is not None


@pytest.mark.parametrize("body", ["{}", '{"name": "x", "tags": null}'])
def test_a_put_that_was_accepted_is_no_refusal_whatever_its_answer_shows(
    world: AciWorld, double: AciDouble, body: str
) -> None:
    """The group is there and runs: the answer to our own PUT does not have to prove that it is ours."""
    double.faults.add("put", Fault.malformed(body))
    job, key = world.prepared()
    assert world.platform.submit(job, key) == world.platform.find(world.platform.handle(job, key))
    assert double.starts() == {key: 1}


def test_of_two_puts_at_once_the_later_adopts_the_group(world: AciWorld, double: AciDouble) -> None:
    hold = Hold()
    double.faults.add("put", Fault.hang(hold))
    job, key = world.prepared()
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(world.platform.submit, job, key)
        assert hold.reached.wait(10)
        quick = world.another().submit(job, key)
        hold.release()
        assert slow.result() == quick
    assert double.starts() == {key: 1}


def test_a_name_that_is_taken_and_cannot_be_seen_is_uncertain(world: AciWorld, double: AciDouble) -> None:
    double.faults.add("put", aci_faults.transitioning())
    with pytest.raises(SubmissionUncertain, match="the name is taken"):
        world.platform.submit(*world.prepared())


def test_a_name_that_is_taken_and_cannot_be_asked_for_is_uncertain(world: AciWorld, double: AciDouble) -> None:
    """That a question failed says nothing about the PUT before it: the group may be there."""
    double.faults.add("put", aci_faults.transitioning())
    double.faults.add("get", Fault())
    double.faults.add("get", aci_faults.server_error())
    with pytest.raises(SubmissionUncertain, match="the name is taken"):
        world.platform.submit(*world.prepared())
    assert len(world.puts()) == 1


def test_a_precondition_that_azure_heeds_is_the_same_group(clock: ManualClock) -> None:
    with AciDouble(clock=clock, honours_if_none_match=True, visibility_delay_seconds=0, default_seconds=60) as double:
        world = AciWorld(double, clock)
        job, key = world.prepared()
        first = world.platform.submit(job, key)
        double.faults.add("get", Fault.answer("ResourceNotFound", "not yet", status=404))
        assert world.platform.submit(job, key) == first
        assert [call.outcome for call in world.puts()] == ["ok", "PreconditionFailed"]


def test_without_time_for_the_put_nothing_is_sent(world: AciWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aci, "BEFORE_CALL_SECONDS", -1.0)
    with pytest.raises(PlatformUnavailable, match="took too long"):
        world.platform.submit(*world.prepared())
    assert not world.puts()


def test_a_get_that_fails_sends_no_put(world: AciWorld, double: AciDouble) -> None:
    for fault in (Fault.drop_before(), aci_faults.server_error(), Fault.malformed()):
        double.faults.add("get", fault)
        with pytest.raises(PlatformUnavailable):
            world.platform.submit(*world.prepared())
    assert not world.puts()


def test_a_job_that_was_not_prepared_is_refused(world: AciWorld) -> None:
    with pytest.raises(JobRejected, match="not prepared"):
        world.platform.submit(job_of(), "pp-x")
    with pytest.raises(JobRejected, match="not a job of Azure"):
        world.platform.preview(object())  # type: ignore[arg-type]


def test_threads_share_a_client(world: AciWorld, double: AciDouble) -> None:
    jobs = [world.prepared() for _ in range(20)]
    with ThreadPoolExecutor(10) as pool:
        handles = list(pool.map(lambda each: world.platform.submit(*each), jobs))
    assert {handle.key for handle in handles} == set(double.starts())


# -- what a group means


def seen_at(world: AciWorld, clock: ManualClock, plan: GroupPlan, seconds: float) -> Any:
    world.double.model.plan = lambda _: plan
    handle = world.submitted()
    clock.advance(seconds)
    return world.observed(handle)


@pytest.mark.parametrize(
    ("plan", "seconds", "status", "codes"),
    [
        (GroupPlan(), 0, "starting", ()),
        (GroupPlan(), 2, "starting", ()),
        (GroupPlan(), 4, "running", ()),
        (GroupPlan(), 60, "succeeded", ()),
        (GroupPlan(exit_code=3), 60, "failed", ()),
        (GroupPlan("oom"), 60, "failed", ("OOMKilled",)),
        (GroupPlan("killed"), 60, "failed", ()),
        (GroupPlan("null_exit"), 60, "failed", ("NoExitCode",)),
        (GroupPlan("waiting"), 60, "starting", ("CrashLoopBackOff",)),
        (GroupPlan("image"), 60, "starting", ("ImagePullBackOff",)),
        (GroupPlan("provision_failed"), 60, "starting", ("ProvisioningFailed",)),
        (GroupPlan("unhealthy"), 60, "starting", ("ProvisioningUnhealthy",)),
        (GroupPlan("waiting"), 7200, "starting", ("CrashLoopBackOff", "ProvisioningFailed")),
    ],
    ids=lambda value: value if isinstance(value, str) else getattr(value, "outcome", ""),
)
def test_the_containers_own_state_decides(
    world: AciWorld, clock: ManualClock, plan: GroupPlan, seconds: float, status: str, codes: tuple[str, ...]
) -> None:
    """Provisioning "Succeeded" is no success, and "Failed" is not the end of a group that goes on trying."""
    seen = seen_at(world, clock, plan, seconds)
    assert str(seen.status) == status
    assert seen.codes == codes


def test_the_end_is_told_with_its_facts(world: AciWorld, clock: ManualClock) -> None:
    seen = seen_at(world, clock, GroupPlan(exit_code=3, output=("one", "two")), 60)

    assert (seen.exit_code, seen.stopped) == (3, None)
    assert seen.ended_at - seen.started_at == timedelta(seconds=10)
    assert seen.details["output"] == ["one", "two"]
    assert "Pulling" in seen.details["events"][0]


def test_a_bad_state_of_the_resource_does_not_hide_an_exit_code(world: AciWorld, clock: ManualClock) -> None:
    handle = world.submitted(command="exit 3")
    clock.advance(60)
    world.double.model.group(handle.key).provisioning_state = lambda now: "Unhealthy"  # type: ignore[method-assign]

    seen = world.observed(handle)

    assert (seen.status, seen.exit_code, seen.codes) == (JobStatus.FAILED, 3, ())


def test_a_stopped_group_was_stopped(world: AciWorld, clock: ManualClock) -> None:
    """Also if its container ended with 0 on SIGTERM."""
    world.double.model.plan = lambda _: GroupPlan(seconds=600, stop_exit_code=0)
    handle = world.submitted()
    clock.advance(10)
    world.platform.stop(handle, 30)
    clock.advance(10)

    seen = world.observed(handle)

    assert (seen.status, seen.stopped, seen.codes, seen.exit_code) == (JobStatus.FAILED, True, ("Stopped",), 0)


def test_a_failure_in_the_middle_leaves_the_rest_unknown(world: AciWorld, double: AciDouble) -> None:
    handles = [world.submitted() for _ in range(3)]
    double.faults.add("get", Fault())
    double.faults.add("get", aci_faults.throttle())
    seen = world.platform.observe(handles)
    assert [str(each.status) for each in seen] == ["starting", "unknown", "unknown"]
    assert [each.key for each in seen] == [handle.key for handle in handles]
    double.faults.add("get", aci_faults.throttle())
    with pytest.raises(PlatformUnavailable):
        world.platform.observe(handles)


def test_one_group_that_azure_never_shows_does_not_hide_those_after_it(world: AciWorld, double: AciDouble) -> None:
    """Sweeps ask in the same order each time: the others' ends would never be seen."""
    handles = [world.submitted() for _ in range(8)]
    double.faults.add("get", aci_faults.server_error())
    seen = world.platform.observe(handles)
    assert [str(each.status) for each in seen] == ["unknown", *["starting"] * 7]
    assert [each.key for each in seen] == [handle.key for handle in handles]
    double.faults.add("get", aci_faults.server_error(), times=8)
    double.calls.clear()
    with pytest.raises(PlatformUnavailable):
        world.platform.observe(handles)
    assert double.calls["get"] == 3  # An outage is not asked about for as long as there are groups.


def test_a_resource_group_that_is_gone_takes_its_groups_along(world: AciWorld, double: AciDouble) -> None:
    handle = world.submitted()
    double.rules.resource_groups = {}
    assert world.observed(handle).status is JobStatus.GONE
    assert world.platform.find(handle) is None
    world.platform.stop(handle, 5)
    world.platform.cleanup(handle)


def test_what_was_wrong_is_remembered_after_the_deletion(world: AciWorld, clock: ManualClock) -> None:
    world.double.model.plan = lambda _: GroupPlan("waiting")
    handle = world.submitted()
    clock.advance(10)
    world.platform.stop(handle, 30)
    clock.advance(10)

    seen = world.observed(handle)

    assert seen.status is JobStatus.GONE
    assert "no such file or directory" in seen.reason


# -- stop and cleanup


@pytest.mark.parametrize("outcome", ["waiting", "image", "provision_failed", "unhealthy"])
def test_a_group_that_does_not_run_is_deleted(world: AciWorld, clock: ManualClock, outcome: Any) -> None:
    world.double.model.plan = lambda _: GroupPlan(outcome)
    handle = world.submitted()
    clock.advance(10)

    world.platform.stop(handle, 30)

    assert world.double.left() == []
    assert world.double.calls["stop"] == 0


def test_without_grace_a_running_group_is_deleted(world: AciWorld, clock: ManualClock) -> None:
    handle = world.submitted(command="sleep 600")
    clock.advance(10)
    world.platform.stop(handle, 0)
    assert world.double.left() == []


def test_a_group_that_is_not_ours_is_left_alone(world: AciWorld, clock: ManualClock) -> None:
    """Neither found, nor stopped, nor deleted; and the job is refused."""
    job, key = world.prepared()
    handle = world.platform.submit(job, key)
    world.double.model.group(key).tags = {}
    unknown = handle.model_copy(update={"pid": None})

    assert world.platform.find(unknown) is None
    world.platform.stop(unknown, 0)
    world.platform.cleanup(unknown)
    with pytest.raises(JobRejected, match="it is not of this service"):
        world.platform.submit(job, key)
    assert world.double.left() == [key]

    world.platform.cleanup(handle)  # A job was recorded for it: somebody took its tags away.
    assert world.double.left() == []


def test_a_kept_group_is_not_deleted(world: AciWorld, clock: ManualClock) -> None:
    handle = world.submitted(keep_container_group=True)
    clock.advance(60)
    world.platform.cleanup(handle)
    assert world.double.left() == [handle.key]


def test_a_deletion_that_fails_is_asked_for_again(world: AciWorld, clock: ManualClock) -> None:
    handle = world.submitted()
    clock.advance(60)
    world.double.faults.add("delete", aci_faults.server_error())
    with pytest.raises(PlatformUnavailable):
        world.platform.cleanup(handle)
    world.double.faults.add("stop", aci_faults.server_error())
    other = world.submitted(command="sleep 600")
    clock.advance(10)
    with pytest.raises(PlatformUnavailable):
        world.platform.stop(other, 5)


# -- output


def test_output_is_read_in_pages_while_it_grows(world: AciWorld, clock: ManualClock) -> None:
    world.double.model.plan = lambda _: GroupPlan(output=("a", "b"), seconds=100)
    handle = world.submitted()
    assert world.platform.logs(handle, None).lines == ()
    clock.advance(10)
    first = world.platform.logs(handle, None)
    assert (first.lines, first.is_last) == (("a", "b"), False)
    assert world.platform.logs(handle, first.cursor).lines == ()
    clock.advance(200)
    assert world.platform.logs(handle, first.cursor).is_last


def test_output_of_a_container_that_is_not_there_is_none(world: AciWorld, clock: ManualClock) -> None:
    handle = world.submitted()
    clock.advance(5)
    other = handle.model_copy(update={"details": {**handle.details, "container": "other"}})
    assert world.platform.logs(other, None).lines == ()


STAMPED = "2030-01-01T00:00:0{}.5Z {}\n"


def test_a_cursor_holds_although_lines_are_dropped_from_the_beginning() -> None:
    content = "".join(STAMPED.format(n, f"line {n}") for n in range(5))
    lines, cursor = aci_logs.following(content, None)
    assert lines == tuple(f"line {n}" for n in range(5))
    later = "".join(STAMPED.format(n, f"line {n}") for n in range(3, 8))
    assert aci_logs.following(later, cursor)[0] == ("line 5", "line 6", "line 7")


def test_lines_of_one_moment_and_lines_without_one_are_told_apart() -> None:
    content = "2030-01-01T00:00:00.123456789Z a\n2030-01-01T00:00:00.123456789Z b\n"
    lines, cursor = aci_logs.following(content, None)
    assert lines == ("a", "b")
    more = content + "2030-01-01T00:00:00.123456789Z c\n  wrapped\n2030-01-01T00:00:00.2Z d"
    assert aci_logs.following(more, cursor)[0] == ("c", "  wrapped", "d")
    assert aci_logs.following("", None) == ((), None)
    assert aci_logs.following("no stamp\n\n", None)[0] == ("no stamp", "")


def test_only_the_end_of_the_output_is_kept() -> None:
    content = "".join(STAMPED.format(n % 10, f"{n:05d}" + "x" * 95) for n in range(400))
    kept = aci_logs.kept(content)
    assert kept[-1].startswith("00399")
    assert sum(len(line) + 1 for line in kept) <= aci_logs.KEPT_BYTES
    assert aci_logs.kept("y" * 100_000) == ("y" * (aci_logs.KEPT_BYTES // 4),)


# -- pace

VARIANTS: list[dict[str, Any]] = [{}, {"location": "eastus"}, {"subscription_id": "other"}]


@pytest.mark.parametrize("per_hour", [1, 30, 300, 6000])
def test_a_burst_and_what_follows_keep_both_limits_of_azure(per_hour: float) -> None:
    """In every five minutes a third of the hour's number, and in every hour that number."""
    rate = Paces({"aci_creates_per_hour": str(per_hour)}).creates
    assert rate.burst + rate.per_second * 3600 <= max(per_hour, 2)
    assert rate.burst + rate.per_second * 300 <= max(per_hour / 3, 1.1)


def test_creates_share_a_pace_by_subscription_and_region(world: AciWorld) -> None:
    scopes = [
        world.platform.paces(world.platform.prepare(rendered(**values), NoteBook()))[0].scope for values in VARIANTS
    ]
    assert scopes == [
        f"aci/create/{SUBSCRIPTION}/westeurope",
        f"aci/create/{SUBSCRIPTION}/eastus",
        "aci/create/other/westeurope",
    ]


# -- clients


def test_a_static_token_is_sent_to_a_double_and_only_there(world: AciWorld, double: AciDouble) -> None:
    double.rules.token = "let me in"
    ref = {"$ref": {"block_document_id": "azure"}}
    world.blocks["azure"] = AzureContainerInstanceCredentials.model_validate({"token": "let me in"})
    assert world.submitted(aci_credentials=ref).credential_block_id == "azure"
    with pytest.raises(JobRejected, match="access token is invalid"):
        world.submitted(location="eastus")


def test_the_library_is_imported_only_when_a_client_is_opened() -> None:
    code = (
        "import sys\n"
        "from push_pools.platforms.aci import AciPlatform\n"
        "import push_pools.credentials.azure\n"
        "assert not [name for name in sys.modules if name.split('.')[0] in ('azure', 'msal', 'requests')]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_handle_is_enough_for_another_process(world: AciWorld) -> None:
    handle = world.submitted(run=uuid4())
    again = JobHandle.model_validate_json(handle.model_dump_json())
    assert world.another().find(again.model_copy(update={"pid": None})) == again
    assert threading.active_count() < 100


def test_the_rules_of_a_subscription_may_change(world: AciWorld, double: AciDouble) -> None:
    double.model.rules = Subscription(no_capacity=True)
    with pytest.raises(Exception, match="not available in the location"):
        world.submitted()
    double.model.rules = Subscription()
    assert world.submitted().pid
