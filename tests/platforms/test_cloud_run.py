"""The Cloud Run platform: what it sends, what it makes of every answer, and what it never does."""

from __future__ import annotations

import copy
import json
import threading
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest
from google.cloud import run_v2

from push_pools.credentials import gcp_sessions
from push_pools.credentials.aws import AwsCredentials
from push_pools.credentials.gcp import GcpCredentials
from push_pools.domain.errors import (
    InvalidJobVariables,
    JobRejected,
    PlatformError,
    PlatformUnavailable,
    StoreUnavailable,
    SubmissionUncertain,
)
from push_pools.domain.failure_rows import MISSING
from push_pools.domain.jobs import BaseJobConfiguration
from push_pools.domain.pools import full_pool_type
from push_pools.domain.runs import job_key
from push_pools.domain.states import JobStatus
from push_pools.platforms import cloud_run, cloud_run_jobs
from push_pools.platforms.cloud_run_pace import pace_of_creates
from push_pools.platforms.cloud_run_request import complete_body
from push_pools.platforms.registry import EntryPointPlatforms
from push_pools.ports import HasPaces, PlatformContext
from push_pools.testing.clocks import ManualClock as Clock
from push_pools.testing.cloud_run_double import CloudRunDouble, Fault, Hold, JobPlan, ManualClock, PerMinute, Project
from push_pools.testing.contracts.platforms import NoteBook

from .cloud_run_world import PLACE, RUN, TEMPLATE, CloudRunWorld, job_of, rendered

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def world() -> Iterator[CloudRunWorld]:
    with CloudRunDouble(clock=(clock := ManualClock())) as double:
        yield CloudRunWorld(double, clock)
        gcp_sessions.close_all()


def test_it_is_found_by_its_name_and_by_its_alias() -> None:
    """And keeps the flags of the family of the simulation's clouds that it belongs to."""
    clock = Clock()
    platforms = EntryPointPlatforms(PlatformContext(lambda _: None, {}, clock, clock))
    platform = platforms("cloud-run")
    assert full_pool_type("cloud-run") == platform.type == "cloud-run-v2:push"
    assert platforms("cloud-run-v2:push") is platform
    assert platform.needs_cleanup
    assert not any((platform.key_is_used_up, platform.forgets_keys, platform.closes_before_repeat))


# -- what is sent


def test_the_request(world: CloudRunWorld) -> None:
    """The whole of it: names and labels of ours, the code's own command, no retries, a time-out after our own."""
    world.platform.submit(*world.prepared(run=RUN, command="python -m report --fast", env={"A": "1", "B": None}))
    key = job_key(RUN, 1, 1)
    labels = {
        "push-pools-run-id": str(RUN),
        "push-pools-run-name": "curious-crab",
        "push-pools-attempt": "1",
        "push-pools-deployment": "monthly-report-hourly",
        "push-pools-flow": "monthly-report-",
        "push-pools-work-pool": "nightly",
        "name": "curious-crab",
    }
    env = {
        "A": "1",
        "PUSH_POOLS_ATTEMPT": "1",
        "PUSH_POOLS_DEPLOYMENT": "Monthly report!/hourly",
        "PUSH_POOLS_PARAMETERS": '{"n":1}',
        "PUSH_POOLS_RUN_ID": str(RUN),
        "PUSH_POOLS_SCHEDULED_TIME": "2030-01-01T00:00:00Z",
    }
    assert world.bodies("CreateJob") == [
        {
            "parent": PLACE,
            "jobId": key,
            "job": {
                "client": "push-pools",
                "labels": {**labels, "push-pools-key": key},
                "launchStage": "GA",
                "startExecutionToken": "a",
                "template": {
                    "labels": labels,
                    "template": {
                        "containers": [
                            {
                                "image": "acme/report:7",
                                "args": ["python", "-m", "report", "--fast"],
                                "env": [{"name": name, "value": value} for name, value in env.items()],
                                "resources": {"limits": {"cpu": "1000m", "memory": "512Mi"}},
                            }
                        ],
                        "maxRetries": 0,
                        "timeout": "86400s",
                    },
                },
            },
        }
    ]
    assert len(key) + len("a") < 63


def test_everything_that_can_be_asked_for(world: CloudRunWorld) -> None:
    job = world.prepared(
        entrypoint="/bin/tini --",
        args=["run", "it"],
        env_from_secrets={"KEY": {"secret": "key"}, "OLD": {"secret": "old", "version": "3"}},
        prefect_api_key_secret={"secret": "prefect", "version": "1"},
        cloudsql_instances=["acme:europe-west1:db"],
        launch_stage="BETA",
        max_retries=2,
        cpu="2",
        memory="4Gi",
        timeout=3600,
        vpc_connector_name="projects/acme/locations/europe-west1/connectors/c",
        vpc_egress="ALL_TRAFFIC",
        service_account_name="robot@acme.iam.gserviceaccount.com",
        execution_environment="EXECUTION_ENVIRONMENT_GEN2",
        encryption_key="projects/acme/locations/l/keyRings/r/cryptoKeys/k",
        volumes=[{"name": "data", "gcs": {"bucket": "b"}}, {"name": "scratch", "emptyDir": {}}],
        volume_mounts=[{"name": "data", "mountPath": "/data"}],
        working_dir="/work",
        env={"PREFECT_API_KEY": "shown"},
        labels={"Team A": "Über"},
    )
    world.platform.submit(*job)
    (body,) = world.bodies("CreateJob")
    task = body["job"]["template"]["template"]
    (container,) = task["containers"]
    env = {each["name"]: each for each in container["env"]}
    assert (container["command"], container["args"]) == (["/bin/tini", "--"], ["run", "it"])
    assert env["KEY"]["valueSource"] == {"secretKeyRef": {"secret": "key", "version": "latest"}}
    assert env["OLD"]["valueSource"]["secretKeyRef"]["version"] == "3"
    assert env["PREFECT_API_KEY"] == {
        "name": "PREFECT_API_KEY",
        "valueSource": {"secretKeyRef": {"secret": "prefect", "version": "1"}},
    }
    assert {each["mountPath"] for each in container["volumeMounts"]} == {"/cloudsql", "/data"}
    assert {each["name"] for each in task["volumes"]} == {"cloudsql", "data", "scratch"}
    assert {"name": "scratch", "emptyDir": {}} in task["volumes"]
    assert (task["timeout"], task["maxRetries"]) == ("3660s", 2)
    assert task["vpcAccess"]["egress"] == "ALL_TRAFFIC"
    assert task["serviceAccount"] == "robot@acme.iam.gserviceaccount.com"
    assert container["resources"]["limits"] == {"cpu": "2", "memory": "4Gi"}
    assert body["job"]["labels"]["team-a"] == "-ber"


def test_a_template_of_prefects_means_what_it_means_there(world: CloudRunWorld) -> None:
    """Its `command` is the entrypoint, and is not also the arguments; what it says literally stands."""
    template = {
        "job_configuration": {
            "command": "{{ command }}",
            "env": "{{ env }}",
            "region": "{{ region }}",
            "timeout": "{{ timeout }}",
            "job_body": {
                "client": "prefect",
                "launchStage": "{{ launch_stage }}",
                "template": {
                    "template": {
                        "maxRetries": "{{ max_retries }}",
                        "timeout": "{{ timeout }}",
                        "vpcAccess": {"connector": "{{ vpc_connector_name }}"},
                        "containers": [
                            {
                                "env": [{"name": "SET", "value": "here"}],
                                "image": "{{ image }}",
                                "command": "{{ command }}",
                                "args": "{{ args }}",
                                "resources": {"limits": {"cpu": "{{ cpu }}", "memory": "{{ memory }}"}},
                            }
                        ],
                    }
                },
            },
        },
        "variables": {
            "properties": {
                "command": {"type": "string"},
                "env": {"type": "object"},
                "region": {"default": "us-central1"},
                "image": {"default": "prefecthq/prefect:3-latest"},
                "args": {},
                "timeout": {"default": 600},
                "max_retries": {"default": 0},
                "cpu": {"default": "1000m"},
                "memory": {"default": "512Mi"},
                "launch_stage": {"default": "BETA"},
                "vpc_connector_name": {},
            }
        },
    }
    world.platform.submit(
        *world.prepared(template=template, command="prefect flow-run execute", env={"SET": "there", "N": 1})
    )
    (body,) = world.bodies("CreateJob")
    (container,) = body["job"]["template"]["template"]["containers"]
    env = {each["name"]: each.get("value") for each in container["env"]}
    assert (container["command"], "args" in container) == (["prefect", "flow-run", "execute"], False)
    assert (env["SET"], env["N"]) == ("here", "1")
    assert (body["job"]["client"], body["job"]["template"]["template"]["timeout"]) == ("prefect", "660s")


@pytest.mark.parametrize(
    ("timeout", "seconds"),
    [(None, 86_400), (60, 120), (86_390, 86_400), (86_400, 86_400), (86_401, 86_461), (10**6, 604_800), (0, 604_800)],
)
def test_cloud_runs_own_timeout_comes_after_ours_and_within_its_limit(timeout: float | None, seconds: int) -> None:
    body: Any = complete_body(job_of(timeout=timeout))
    assert body["template"]["template"]["timeout"] == f"{seconds}s"


def test_a_job_is_completed_once_and_stored_as_it_is_sent(world: CloudRunWorld) -> None:
    job = world.platform.prepare(job_of(), NoteBook())
    assert job.is_complete
    assert world.platform.prepare(job, NoteBook()) == job
    assert job.create_job_request("k") == type(job).model_validate(job.model_dump(mode="json")).create_job_request("k")
    with pytest.raises(JobRejected, match="was not prepared"):
        job_of().create_job_request("k")
    with pytest.raises(JobRejected, match="is not a job of Cloud Run"):
        world.platform.prepare(BaseJobConfiguration(), NoteBook())


def test_the_handle_says_all_that_is_needed_later(world: CloudRunWorld) -> None:
    handle = world.submitted(run=RUN, attempt=2, keep_job=True)
    assert handle.pid == f"{PLACE}/jobs/{handle.key}/executions/{handle.key}-a"
    assert (handle.run_id, handle.attempt) == (RUN, 2)
    assert handle.place == {"project": "acme", "region": "europe-west1"}
    assert world.platform.find(handle.model_copy(update={"pid": None})) == handle


# -- previews


def test_preview_shows_the_request_and_what_is_not_promised(world: CloudRunWorld) -> None:
    shown: Any = world.platform.preview(job_of(max_retries=3, timeout=700_000, keep_job=True))
    assert shown["create_job"]["jobId"] == "<job key>"
    notes = " ".join(shown["notes"])
    assert "max_retries is 3: Cloud Run may run your code more than once" in notes
    assert "ends a task after 604800 s, 7 days" in notes
    assert "keep_job" in notes
    assert "notes" not in world.platform.preview(job_of())
    assert "long time-outs" in str(world.platform.preview(job_of(timeout=100_000))["notes"])
    world.blocks[None] = GcpCredentials()
    assert "<the project of" in str(world.platform.preview(job_of()))
    assert not world.double.log


# -- what cannot be a job


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"image": None}, "image: name the image"),
        ({"region": "Europe West"}, "is not the name of a region"),
        ({"cloudsql_instances": ["db"]}, "is not project:region:instance"),
        ({"env": {"BIG": "x" * 32_769}}, "env.BIG has 32769 characters, and Cloud Run takes 32768"),
        ({"labels": {f"l{n}": "" for n in range(70)}}, "labels: a job takes 63"),
        ({"volumes": [{"name": "x", "floppy": {"disk": 1}}]}, 'no field named "floppy"'),
        ({"command": 'a "b'}, "quot"),
    ],
)
def test_what_cloud_run_would_refuse_is_refused_before(
    world: CloudRunWorld, values: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidJobVariables, match=words):
        world.platform.prepare(job_of(**values), NoteBook())
    assert not world.double.log


def test_a_body_that_is_none_is_refused(world: CloudRunWorld) -> None:
    bodies: list[dict[str, Any]] = [{"template": "x"}, {"template": {"template": []}}]
    for body in bodies:
        job = rendered().model_copy(update={"job_body": body})
        with pytest.raises(InvalidJobVariables):
            world.platform.prepare(job, NoteBook())
    job = rendered()
    job.job_body["template"]["template"]["maxRetries"] = "many"
    with pytest.raises(InvalidJobVariables, match="max_retries: 'many'"):
        world.platform.prepare(job, NoteBook())


@pytest.mark.parametrize("entry", [{"value": "x"}, {"name": None, "value": "x"}])
def test_a_variable_without_a_name_is_refused(world: CloudRunWorld, entry: dict[str, Any]) -> None:
    body = copy.deepcopy(TEMPLATE)
    body["job_configuration"]["job_body"]["template"]["template"]["containers"][0]["env"] = [entry]
    with pytest.raises(InvalidJobVariables, match="env: give each variable a name"):
        world.platform.prepare(job_of(template=body), NoteBook())


def test_a_secret_would_be_shown() -> None:
    reference = {"$secret": "block/field"}
    with pytest.raises(InvalidJobVariables, match="env_from_secrets"):
        rendered(env={"KEY": reference})
    with pytest.raises(InvalidJobVariables, match="Cloud Run would show this secret; use `env_from_secrets`"):
        rendered(working_dir=reference)


# -- the call


def test_one_call_is_one_request_with_a_timeout(world: CloudRunWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library sets no time-out of its own, and repeats nothing."""
    monkeypatch.setattr(cloud_run, "CREATE_SECONDS", 0.3)
    hold = Hold()
    world.double.faults.add("CreateJob", Fault.hang(hold))
    with pytest.raises(SubmissionUncertain) as error:
        world.submitted()
    assert error.value.codes[0] == "NoAnswer"
    assert world.double.calls["CreateJob"] == 1
    hold.release()


@pytest.mark.parametrize(
    ("fault", "error", "codes"),
    [
        (Fault.throttle(), PlatformUnavailable, ("WriteQuota", "RESOURCE_EXHAUSTED")),
        (Fault.capacity(), PlatformUnavailable, ("CapacityUnavailable", "RESOURCE_EXHAUSTED")),
        (Fault.expired_credentials(), PlatformUnavailable, ("CredentialsExpired", "UNAUTHENTICATED")),
        (Fault.access_denied(), JobRejected, ("PERMISSION_DENIED",)),
        (Fault.answer("INVALID_ARGUMENT", "Violation"), JobRejected, ("INVALID_ARGUMENT",)),
        (Fault.answer("FAILED_PRECONDITION", "A policy"), JobRejected, ("FAILED_PRECONDITION",)),
        (Fault.answer("NOT_FOUND", "Project x"), JobRejected, ("NOT_FOUND",)),
        (Fault.server_error("INTERNAL"), SubmissionUncertain, ("INTERNAL",)),
        (Fault.server_error("UNAVAILABLE"), SubmissionUncertain, ("UNAVAILABLE",)),
        (Fault.server_error("UNKNOWN"), SubmissionUncertain, ("UNKNOWN",)),
        (Fault.server_error("ABORTED"), SubmissionUncertain, ("ABORTED",)),
        (Fault.server_error("DATA_LOSS"), SubmissionUncertain, ("DATA_LOSS",)),
        (Fault.server_error("DEADLINE_EXCEEDED"), SubmissionUncertain, ("NoAnswer", "DEADLINE_EXCEEDED")),
        (Fault.server_error("CANCELLED"), SubmissionUncertain, ("NoAnswer", "CANCELLED")),
        (Fault.drop_before(), SubmissionUncertain, ("UNAVAILABLE",)),
        (Fault.accept_then_drop(), SubmissionUncertain, ("UNAVAILABLE",)),
        (Fault.malformed(), SubmissionUncertain, ("INTERNAL",)),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_an_error_says_what_follows(
    world: CloudRunWorld, fault: Fault, error: type[PlatformError], codes: tuple[str, ...]
) -> None:
    world.double.faults.add("CreateJob", fault)
    with pytest.raises(error) as raised:
        world.submitted()
    assert type(raised.value) is error
    assert raised.value.codes == codes


@pytest.mark.parametrize(
    ("status", "text", "code", "variable"),
    [
        ("PERMISSION_DENIED", "Cloud Run Admin API has not been used in project 1 before", "ApiDisabled", None),
        ("FAILED_PRECONDITION", "Billing must be enabled", "BillingDisabled", None),
        ("PERMISSION_DENIED", "Permission denied on 'locations/x' (or it may not exist).", "RegionUnknown", "region"),
        ("INVALID_ARGUMENT", "Location x is not valid", "RegionUnknown", "region"),
        ("RESOURCE_EXHAUSTED", "Quota exceeded for total allowed count of jobs", "JobsQuota", None),
        ("INVALID_ARGUMENT", "cpu exceeds the quota of the project", "QuotaTooSmall", None),
        ("INVALID_ARGUMENT", "Invalid service account", "INVALID_ARGUMENT", "service_account_name"),
        ("INVALID_ARGUMENT", "timeout is too long", "INVALID_ARGUMENT", "timeout"),
        ("INVALID_ARGUMENT", "max_retries", "INVALID_ARGUMENT", "max_retries"),
        ("INVALID_ARGUMENT", "Expected an image path", "INVALID_ARGUMENT", "image"),
        ("INVALID_ARGUMENT", "Invalid value for memory", "INVALID_ARGUMENT", "memory"),
        ("INVALID_ARGUMENT", "Invalid value for cpu", "INVALID_ARGUMENT", "cpu"),
        ("INVALID_ARGUMENT", "VPC connector x does not exist", "INVALID_ARGUMENT", "vpc_connector_name"),
        ("INVALID_ARGUMENT", "Secret x was not found", "INVALID_ARGUMENT", "env_from_secrets"),
        ("INVALID_ARGUMENT", "The launch stage is wrong", "INVALID_ARGUMENT", "launch_stage"),
        ("INVALID_ARGUMENT", "Violation in labels", "INVALID_ARGUMENT", "labels"),
        ("INVALID_ARGUMENT", "Reserved env names", "INVALID_ARGUMENT", "env"),
    ],
)
def test_an_error_names_what_it_is_about(
    world: CloudRunWorld, status: str, text: str, code: str, variable: str | None
) -> None:
    world.double.faults.add("CreateJob", Fault.answer(status, text))
    with pytest.raises(PlatformError) as raised:
        world.submitted()
    assert raised.value.codes[0] == code
    assert getattr(raised.value, "variable", None) == variable


def test_where_nobody_listens_nothing_was_sent(world: CloudRunWorld) -> None:
    job = world.prepared()
    world.double.close()
    with pytest.raises(PlatformUnavailable) as error:
        world.platform.submit(*job)
    assert error.value.codes == ("ConnectFailed",)


def test_a_token_that_takes_too_long_is_not_used(world: CloudRunWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cloud_run, "BEFORE_CALL_SECONDS", -1.0)
    with pytest.raises(PlatformUnavailable, match="too long"):
        world.submitted()
    assert not world.double.calls["CreateJob"]


def test_the_token_of_the_block_is_sent(world: CloudRunWorld) -> None:
    world.double.model.rules.tokens = {"good"}
    world.blocks["b"] = GcpCredentials.model_validate({"access_token": "good", "project": "acme"})
    handle = world.submitted(credentials={"$ref": {"block_document_id": "b"}})
    assert handle.credential_block_id == "b"
    assert world.observed(handle).status is JobStatus.SUCCEEDED
    with pytest.raises(PlatformUnavailable) as error:
        world.submitted()
    assert error.value.codes[0] == "CredentialsExpired"


@pytest.mark.parametrize(
    ("raised", "error"),
    [
        (StoreUnavailable("the ledger is away"), PlatformUnavailable),
        (InvalidJobVariables(["bad"]), PlatformUnavailable),
        (PlatformUnavailable("x", "gone"), PlatformUnavailable),
    ],
)
def test_a_block_that_cannot_be_opened(world: CloudRunWorld, raised: Exception, error: type[Exception]) -> None:
    def opening(block_id: str | None) -> Any:
        raise raised

    clock = Clock()
    platform = cloud_run.CloudRunPlatform(PlatformContext(opening, world.settings, clock, clock))
    with pytest.raises(error):
        platform.prepare(job_of(), NoteBook())


def test_a_block_of_another_type_and_one_without_a_project(
    world: CloudRunWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GOOGLE_CLOUD_PROJECT", raising=False)
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    world.blocks[None] = AwsCredentials()
    with pytest.raises(JobRejected, match="of another type"):
        world.platform.prepare(job_of(), NoteBook())
    world.blocks[None] = None
    with pytest.raises(JobRejected, match="no project is named"):
        world.platform.prepare(job_of(), NoteBook())


# -- a name that is taken


def test_the_name_of_somebody_else_is_not_adopted(world: CloudRunWorld) -> None:
    """Neither by a submission nor by a look-up; and it is not stopped or called over."""
    job, key = world.prepared()
    for labels in ({}, {"push-pools-key": "pp-another"}):
        world.double.model.add_job(PLACE, key, labels=labels)
        with pytest.raises(JobRejected) as error:
            world.platform.submit(job, key)
        assert error.value.codes == ("NameTaken",)
        handle = world.platform.handle(job, key)
        assert world.platform.find(handle) is None
        assert world.observed(handle).status is JobStatus.UNKNOWN
        world.platform.stop(handle, 5)
    assert not world.double.started


def test_a_job_that_exists_and_is_not_shown_may_be_ours(world: CloudRunWorld) -> None:
    job, key = world.prepared()
    world.platform.submit(job, key)
    world.double.model.visibility_delay_seconds = 60
    with pytest.raises(SubmissionUncertain, match="does not show it"):
        world.platform.submit(job, key)
    world.double.model.visibility_delay_seconds = 0
    for fault in (Fault.access_denied(), Fault.throttle()):
        world.double.faults.add("GetJob", fault)
        with pytest.raises(SubmissionUncertain) as error:
            world.platform.submit(job, key)
        assert error.value.codes == ("ALREADY_EXISTS",)
    assert world.platform.submit(job, key).pid
    assert world.double.runs(key) == 1


# -- looking


def seen_of(world: CloudRunWorld, plan: JobPlan, **options: Any) -> Any:
    """Return what is observed of a job of that plan, a second later."""
    world.double.model.plan = lambda job: plan
    handle = world.submitted(**options)
    world.clock.advance(1)
    return world.observed(handle)


@pytest.mark.parametrize(
    ("plan", "status", "exit_code", "signal", "code"),
    [
        (JobPlan(), JobStatus.SUCCEEDED, 0, None, None),
        (JobPlan(exit_code=3), JobStatus.FAILED, 3, None, "NON_ZERO_EXIT_CODE"),
        (JobPlan("killed"), JobStatus.FAILED, None, 9, "task:ABORTED"),
        (JobPlan("oom"), JobStatus.FAILED, None, 9, "task:ABORTED"),
        (JobPlan("timeout"), JobStatus.FAILED, None, 9, "task:DEADLINE_EXCEEDED"),
        (JobPlan("internal"), JobStatus.FAILED, None, None, "INTERNAL"),
        (JobPlan("deleted"), JobStatus.FAILED, None, None, "DELETED"),
        (JobPlan("no_result"), JobStatus.FAILED, None, None, "task:UNKNOWN"),
        (JobPlan("image"), JobStatus.FAILED, None, None, "CONTAINER_MISSING"),
        (JobPlan("image_denied"), JobStatus.FAILED, None, None, "CONTAINER_PERMISSION_DENIED"),
        (JobPlan("stuck"), JobStatus.STARTING, None, None, None),
    ],
    ids=lambda value: value.outcome + str(value.exit_code or "") if isinstance(value, JobPlan) else None,
)
def test_an_end_is_what_it_was(
    world: CloudRunWorld, plan: JobPlan, status: JobStatus, exit_code: int | None, signal: int | None, code: str | None
) -> None:
    seen = seen_of(world, plan)
    assert (seen.status, seen.exit_code, seen.signal) == (status, exit_code, signal)
    assert code is None or seen.codes[0] == code
    assert seen.stopped is (None if status is JobStatus.STARTING else False)


def test_the_task_that_failed_may_be_on_a_later_page(world: CloudRunWorld) -> None:
    """Else code that exits with an error would be tried again as if the platform had failed."""
    body = copy.deepcopy(TEMPLATE)
    body["job_configuration"]["job_body"]["template"]["taskCount"] = 150
    seen = seen_of(world, JobPlan(exit_code=3, good_tasks=120), template=body)
    assert (seen.status, seen.exit_code) == (JobStatus.FAILED, 3)
    assert world.double.calls["ListTasks"] == 2


def test_one_execution_that_is_never_shown_does_not_hide_the_others(world: CloudRunWorld) -> None:
    """Sweeps ask about the same jobs together each time: no end of any of them would ever be seen."""
    handles = [world.submitted(command="exit 3") for _ in range(8)]
    world.clock.advance(1)
    broken = {handles[0].key}
    world.double.faults.when(
        lambda name, request: (
            Fault.server_error() if name == "ListTasks" and any(key in request.parent for key in broken) else None
        )
    )
    seen = world.platform.observe(handles)
    assert [each.status for each in seen] == [JobStatus.UNKNOWN, *[JobStatus.FAILED] * 7]
    assert [each.key for each in seen] == [handle.key for handle in handles]
    broken |= {each.key for each in handles[1:]}
    world.double.calls.clear()
    with pytest.raises(PlatformUnavailable):
        world.platform.observe(handles)
    assert world.double.calls["ListTasks"] == 3  # An outage is not asked about for as long as there are jobs.


def test_a_cancel_leaves_no_error_and_is_no_success(world: CloudRunWorld) -> None:
    handle = world.submitted(command="sleep 600")
    world.clock.advance(1)
    world.platform.stop(handle, 5)
    seen = world.observed(handle)
    assert (seen.status, seen.stopped, seen.exit_code) == (JobStatus.CANCELLED, True, None)


def test_many_are_listed_and_the_rest_are_asked_for(world: CloudRunWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others' executions do not hide ours for good, nor cost more than a few pages."""
    handles = [world.submitted(command=f"exit {code}") for code in range(5)]
    world.clock.advance(1)
    assert [seen.exit_code for seen in world.platform.observe(handles)] == [0, 1, 2, 3, 4]
    assert (world.double.calls["ListExecutions"], world.double.calls["GetExecution"]) == (1, 0)
    monkeypatch.setattr(cloud_run_jobs, "PAGE", 2)
    monkeypatch.setattr(cloud_run_jobs, "MAX_PAGES", 2)
    assert [seen.exit_code for seen in world.platform.observe(handles)] == [0, 1, 2, 3, 4]
    assert (world.double.calls["ListExecutions"], world.double.calls["GetExecution"]) == (3, 1)


def test_a_job_that_is_gone_after_it_was_there_is_gone(world: CloudRunWorld) -> None:
    handle = world.submitted()
    world.platform.cleanup(handle)
    assert world.observed(handle).status is JobStatus.GONE
    assert world.observed(handle.model_copy(update={"pid": None})).status is JobStatus.UNKNOWN


def test_an_execution_that_somebody_deleted_is_gone_although_its_job_is_there(world: CloudRunWorld) -> None:
    """Else its run would be shown as running until its time-out, and then could not be stopped."""
    handle = world.submitted(command="sleep 600")
    world.clock.advance(10)
    assert world.observed(handle).status is JobStatus.RUNNING
    world.double.model.call("DeleteExecution", run_v2.DeleteExecutionRequest(name=handle.pid))
    assert world.observed(handle).status is JobStatus.STARTING  # It may be that it is not shown yet.
    world.clock.advance(300)
    seen = world.observed(handle)
    assert (seen.status, seen.codes) == (JobStatus.GONE, (MISSING,))
    assert world.observed(handle.model_copy(update={"pid": None})).status is JobStatus.UNKNOWN
    world.platform.stop(handle, 5)
    world.platform.cleanup(handle)
    assert not world.double.model.jobs


def test_between_two_tries_of_the_platforms_own_a_job_has_not_gone_back(world: CloudRunWorld) -> None:
    world.double.model.plan = lambda job: JobPlan(exit_code=1, seconds=10)
    handle = world.submitted(max_retries=1)
    world.clock.advance(12)
    seen = world.observed(handle)
    assert (seen.status, seen.details) == (JobStatus.RUNNING, {"retried": 1})
    world.clock.advance(10)
    assert world.observed(handle).details == {"retried": 1}


def test_a_connection_that_is_gone_is_made_again_for_a_question(world: CloudRunWorld) -> None:
    """As after a function was frozen; a denial is not asked about twice."""
    handle = world.submitted()
    world.double.faults.add("GetExecution", Fault.drop_before())
    assert world.observed(handle).status is JobStatus.SUCCEEDED
    world.double.faults.add("GetExecution", Fault.access_denied())
    calls = world.double.calls["GetExecution"]
    with pytest.raises(PlatformUnavailable) as error:
        world.observed(handle)
    assert error.value.codes == ("PERMISSION_DENIED",)
    assert world.double.calls["GetExecution"] == calls + 1


# -- stopping, and what is left


def test_what_cannot_be_cancelled_yet_is_not_called_stopped(world: CloudRunWorld) -> None:
    """The job is there, its execution is not yet: somebody has to come again."""
    handle = world.submitted(command="sleep 600")
    world.double.faults.add("CancelExecution", Fault.answer("NOT_FOUND", "not there yet"))
    with pytest.raises(PlatformUnavailable, match="cannot be cancelled yet"):
        world.platform.stop(handle, 5)
    execution = world.double.model.jobs[f"{PLACE}/jobs/{handle.key}"].executions.popitem()
    with pytest.raises(PlatformUnavailable, match="cannot be cancelled yet"):
        world.platform.stop(handle, 5)
    world.double.model.jobs[f"{PLACE}/jobs/{handle.key}"].executions[execution[0]] = execution[1]
    world.platform.stop(handle, 5)
    assert world.observed(handle).status is JobStatus.CANCELLED


def test_a_job_that_will_never_start_needs_no_stop(world: CloudRunWorld) -> None:
    world.double.model.rules = Project(images=set())
    handle = world.submitted()
    world.platform.stop(handle, 5)
    assert world.observed(handle).status is JobStatus.FAILED


def test_stopping_keeps_the_job_and_how_it_ended(world: CloudRunWorld) -> None:
    handle = world.submitted(command="sleep 600")
    world.platform.stop(handle, 5)
    assert world.double.calls["DeleteJob"] == 0
    world.platform.cleanup(handle)
    world.platform.cleanup(handle)
    assert not world.double.model.jobs


def test_a_job_that_is_kept_is_not_deleted(world: CloudRunWorld) -> None:
    world.platform.cleanup(world.submitted(keep_job=True))
    assert len(world.double.model.jobs) == 1


# -- the pace


def test_the_pace_leaves_room_for_deletions(world: CloudRunWorld) -> None:
    """A run takes two writes: 5 at once and 25 a minute of a quota of 60. Project and region count, not the block."""
    assert isinstance(world.platform, HasPaces)
    ((scope, rate),) = world.platform.paces(world.prepared()[0])
    assert (scope, round(rate.per_second * 60), rate.burst) == ("cloud-run/CreateJob/acme/europe-west1", 25, 5)
    world.settings["cloud_run_writes_per_minute"] = "600"
    ((_, faster),) = world.another().paces(job_of())
    assert (round(faster.per_second * 60), faster.burst) == (250, 50)


def test_the_pace_keeps_below_the_quota() -> None:
    """Creating as fast as the pace allows, and deleting each a second later, is never refused."""
    writes, memo, clock = PerMinute(60), NoteBook(), ManualClock()
    rate = pace_of_creates({}, "x").rate
    todo: list[float] = []
    for second in range(600):
        while (memo.pace("x", rate, clock.now()) - clock.now()).total_seconds() <= 0:
            assert writes.take("x", clock.now())
            todo.append(second + 1)
        for due in [each for each in todo if each <= second]:
            todo.remove(due)
            assert writes.take("x", clock.now())
        clock.advance(1)


# -- output


def test_logs_come_in_pages_and_no_line_twice(world: CloudRunWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("push_pools.platforms.cloud_run_logs.LINES", 2)
    world.double.model.plan = lambda job: JobPlan(output=tuple(f"line {n}" for n in range(5)), seconds=5)
    lines: list[str] = []
    handle, cursor = world.submitted(), None
    for _ in range(60):
        page = world.platform.logs(handle, cursor)
        lines += page.lines
        cursor = page.cursor
        if page.is_last:
            break
        world.clock.advance(0.5)
    assert lines == [f"line {n}" for n in range(5)]
    assert page.is_last


def page_of(*ids: str, more: str = "") -> Fault:
    """Return a page of Cloud Logging with these entries of one moment."""
    at = "2030-01-01T00:00:00.000000Z"
    entries = [{"textPayload": each, "insertId": each, "timestamp": at} for each in ids]
    body = {"entries": entries} | ({"nextPageToken": more} if more else {})
    return Fault("page", body=json.dumps(body).encode())


def test_an_empty_page_of_logs_is_not_the_last_while_there_is_a_token(world: CloudRunWorld) -> None:
    """It says that the search has found nothing yet (`nextPageToken` of entries.list, API reference)."""
    handle = world.submitted(command="echo hello")
    world.clock.advance(60)
    world.double.faults.add("entries.list", page_of(more="0"), times=2)
    page = world.platform.logs(handle, None)
    assert (page.lines, page.is_last) == (("hello",), True)
    world.double.faults.add("entries.list", page_of(more="0"), times=5)
    first = world.platform.logs(handle, None)
    assert (first.lines, first.is_last) == ((), False)  # What takes long goes on in the next answer.
    second = world.platform.logs(handle, first.cursor)
    assert (second.lines, second.is_last) == (("hello",), True)


@pytest.mark.parametrize("last", [page_of(), page_of("c")], ids=["empty", "same moment"])
def test_lines_of_a_page_before_the_last_are_not_given_again(world: CloudRunWorld, last: Fault) -> None:
    """Of those that a later page, or a later question, has the same moment with."""
    handle = world.submitted(command="sleep 600")
    for page in (page_of("a", "b", more="2"), last, page_of("a", "b", "c", "d")):
        world.double.faults.add("entries.list", page)
    lines: list[str] = []
    cursor: str | None = None
    for _ in range(3):
        page_read = world.platform.logs(handle, cursor)
        lines += page_read.lines
        cursor = page_read.cursor
    assert lines == ["a", "b", "c", "d"]


def test_logs_outlive_the_job(world: CloudRunWorld) -> None:
    handle = world.submitted(command="echo hello")
    world.clock.advance(1)
    world.platform.cleanup(handle)
    page = world.platform.logs(handle, None)
    assert (page.lines, page.is_last) == (("hello",), True)


@pytest.mark.parametrize("fault", [Fault.access_denied(), Fault.throttle(), Fault.drop_before(), Fault.server_error()])
def test_logs_that_cannot_be_asked_for(world: CloudRunWorld, fault: Fault) -> None:
    handle = world.submitted()
    world.double.faults.add("entries.list", fault)
    with pytest.raises(PlatformUnavailable):
        world.platform.logs(handle, None)


def test_a_structured_entry_is_a_line_too() -> None:
    from push_pools.platforms.cloud_run_logs import _line

    assert _line({"jsonPayload": {"message": "hello", "severity": "INFO"}}) == "hello"
    assert _line({"jsonPayload": {"b": 1, "a": 2}}) == '{"a": 2, "b": 1}'
    assert _line({}) == ""


def test_eight_threads_share_a_channel(world: CloudRunWorld) -> None:
    handles: list[Any] = []

    def submit() -> None:
        handles.append(world.platform.submit(*world.prepared(run=uuid4())))

    threads = [threading.Thread(target=submit) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len({handle.pid for handle in handles}) == len(world.double.started) == 8
    assert all(isinstance(handle.run_id, UUID) for handle in handles)
