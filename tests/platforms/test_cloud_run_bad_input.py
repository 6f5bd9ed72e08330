"""What users get wrong on Cloud Run: each mistake ends in a state that names it and its fix, or waits and says why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from push_pools.credentials.gcp import GcpCredentials
from push_pools.domain.errors import InvalidInput, NotFound, PlatformMissing
from push_pools.domain.runs import Phase, job_key
from push_pools.domain.states import StateType
from push_pools.platforms.cloud_run import CloudRunPlatform
from push_pools.platforms.registry import EntryPointPlatforms
from push_pools.ports import PlatformContext
from push_pools.services.explain import explain_run
from push_pools.settings import Settings
from push_pools.testing.clocks import ManualClock
from push_pools.testing.cloud_run_double import Fault, PerMinute, Project
from tests.credentials.test_gcp import a_key, federation

from .test_cloud_run_service import CloudRunServiceWorld, trigger

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def world() -> Iterator[CloudRunServiceWorld]:
    world = CloudRunServiceWorld(default_seconds=20.0)
    yield world
    world.close()


class Mistake(NamedTuple):
    """What is wrong, and what the run's final state has to say."""

    name: str
    rules: Project
    variables: dict[str, Any]
    class_: str
    cause: tuple[str, ...]
    suggestion: tuple[str, ...]


def mistake(
    name: str, class_: str, cause: tuple[str, ...], suggestion: tuple[str, ...], rules: Project | None = None, **v: Any
) -> Mistake:
    return Mistake(name, rules or Project(), v, class_, cause, suggestion)


MISTAKES = [
    mistake(
        "a region that there is not",
        "configuration",
        ("'region'", "locations/europe-west99"),
        ("`region`", "gcloud run regions list"),
        Project(regions={"europe-west1"}),
        region="europe-west99",
    ),
    mistake(
        "a service account that there is not",
        "permission",
        ("'service_account_name'", "nobody@acme"),
        ("`service_account_name`", "iam.serviceAccounts.actAs"),
        Project(service_accounts=set()),
        service_account_name="nobody@acme",
    ),
    mistake(
        "an image that there is not",
        "image",
        ("Image 'acme/rapport:7' not found",),
        ("`image`",),
        Project(images={"acme/report:7"}),
        image="acme/rapport:7",
    ),
    mistake(
        "an image that may not be pulled",
        "image",
        ("acme/secret:1", "permission to read"),
        ("Service Agent", "roles/artifactregistry.reader"),
        Project(private_images={"acme/secret:1"}),
        image="acme/secret:1",
    ),
    mistake(
        "no permission to create jobs",
        "permission",
        ("run.jobs.create",),
        ("docs/google-cloud.md",),
        Project(denied={"run.jobs.create"}),
    ),
    mistake("no image", "configuration", ("image: name the image",), ("flow-run retry",), image=None),
    mistake(
        "a parameter that is too long",
        "configuration",
        ("env.BIG has 40000 characters",),
        ("flow-run retry",),
        env={"BIG": "x" * 40_000},
    ),
]


@pytest.mark.parametrize("wrong", MISTAKES, ids=lambda wrong: wrong.name)
def test_a_mistake_ends_the_run_with_its_class_cause_and_suggestion(
    world: CloudRunServiceWorld, wrong: Mistake
) -> None:
    """At once, without a second attempt, without running anything, and without leaving a job."""
    world.double.model.rules = wrong.rules
    run = trigger(world, **wrong.variables)

    world.settle()

    state = world.get(run).state
    assert (state.type, state.failure_class) == (StateType.CRASHED, wrong.class_)
    for words in wrong.cause:
        assert words in state.message
    for words in wrong.suggestion:
        assert words in str(state.suggestion)
    assert world.get(run).attempt == 1
    assert not world.double.started
    assert world.double.calls["CreateJob"] <= 1
    assert not world.double.model.jobs
    assert str(state.suggestion) in explain_run(world.get(run), world.clock.now()).advice


@pytest.mark.parametrize(
    ("message", "class_", "suggestion"),
    [
        ("Cloud Run Admin API has not been used in project 1 before or it is disabled.", "configuration", "enable it"),
        ("This API method requires billing to be enabled.", "configuration", "connect one"),
    ],
)
def test_a_project_that_is_not_ready(world: CloudRunServiceWorld, message: str, class_: str, suggestion: str) -> None:
    world.double.faults.add("CreateJob", Fault.answer("PERMISSION_DENIED", message))
    run = trigger(world)
    world.settle()
    state = world.get(run).state
    assert (state.failure_class, message in state.message) == (class_, True)
    assert suggestion in str(state.suggestion)


def test_a_quota_of_nothing_waits_with_googles_words_and_ends_with_the_class_quota(world: CloudRunServiceWorld) -> None:
    """Nobody can know that it stays nothing; after an hour of asking it is said."""
    world.double.model.rules.writes = PerMinute(0)
    run = trigger(world)
    world.pass_time(60)
    held = world.get(run)
    assert (held.phase, held.state.type, held.state.failure_class) == (Phase.READY, StateType.SCHEDULED, None)
    assert "Write requests per minute per region" in held.state.message
    world.settle()
    state = world.get(run).state
    assert (state.type, state.failure_class) == (StateType.CRASHED, "quota")
    assert "PUSH_POOLS_CLOUD_RUN_WRITES_PER_MINUTE" in str(state.suggestion)
    assert not world.double.started


def test_a_region_that_is_full_of_jobs_waits_until_there_is_room(world: CloudRunServiceWorld) -> None:
    """As after an accident that left a thousand; ours are deleted, so they make room by themselves."""
    world.double.model.rules.max_jobs = 3
    runs = [trigger(world) for _ in range(9)]
    world.settle()
    assert [world.get(run).state.name for run in runs] == ["Completed"] * 9
    assert set(world.per_attempt().values()) == {1}
    assert not world.double.model.jobs


def test_a_name_that_somebody_else_has_taken(world: CloudRunServiceWorld) -> None:
    """It is said, and their job is neither run, nor stopped, nor deleted."""
    run = trigger(world)
    world.double.model.add_job("projects/acme/locations/europe-west1", job_key(run.id, 1, 1))
    world.settle()
    state = world.get(run).state
    assert (state.type, state.failure_class) == (StateType.CRASHED, "configuration")
    assert "somebody else has a job of that name" in state.message
    assert "delete that job" in str(state.suggestion)
    assert not world.double.started
    assert len(world.double.model.jobs) == 1
    assert world.double.calls["CancelExecution"] == 0


@pytest.mark.parametrize(
    ("fields", "rules", "class_", "cause", "suggestion"),
    [
        (
            {"service_account_info": {"private_key": "-----BEGIN PRIVATE KEY-----\nno\n-----END PRIVATE KEY-----"}},
            Project(),
            "configuration",
            "the private key of the service account cannot be read",
            "as Google made it",
        ),
        (
            {"service_account_info": {}},
            Project(service_accounts=set()),
            "permission",
            "account not found",
            "write a key that is active into the block",
        ),
        ({"external_account": {}}, Project(denied={"sts.exchange"}), "permission", "attribute condition", "AWS role"),
        (
            {"external_account": {}},
            Project(denied={"iam.serviceAccounts.getAccessToken"}),
            "permission",
            "iam.serviceAccounts.getAccessToken",
            "roles/iam.workloadIdentityUser",
        ),
    ],
    ids=["malformed key", "account that is gone", "provider's condition", "impersonation"],
)
def test_credentials_that_google_does_not_take_end_the_run_with_what_to_correct(
    world: CloudRunServiceWorld,
    monkeypatch: pytest.MonkeyPatch,
    fields: dict[str, dict[str, Any]],
    rules: Project,
    class_: str,
    cause: str,
    suggestion: str,
) -> None:
    """The tokens are asked for at the double too; nothing is created, and no part of a key is told."""
    for name, value in {"AWS_ACCESS_KEY_ID": "AKIADOUBLE", "AWS_SECRET_ACCESS_KEY": "double"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    makers = {"service_account_info": a_key, "external_account": federation}
    ((kind, changes),) = fields.items()
    document = {kind: makers[kind](world.double, **changes)}
    world.use(block=GcpCredentials.model_validate({"project": "acme", **document}))
    world.double.model.rules = rules
    run = trigger(world)

    world.pass_time(10)

    state = world.get(run).state
    assert (state.type, state.failure_class) == (StateType.CRASHED, class_)
    assert cause in state.message
    assert "job variable 'credentials'" in state.message
    assert "BEGIN" not in state.message
    assert suggestion in str(state.suggestion)
    world.double.model.rules = Project()
    world.use()  # Whether something is left is looked at once somebody can.
    world.settle()
    assert not world.double.started
    assert not world.double.calls["CreateJob"]


def test_credentials_that_have_expired_are_waited_for_an_hour(world: CloudRunServiceWorld) -> None:
    """They may be renewed in the block; then the run goes on, else it ends with that reason."""
    world.double.model.rules.tokens = {"renewed"}
    run = trigger(world)
    world.pass_time(120)
    assert world.get(run).state.type is StateType.SCHEDULED
    world.pass_time(2 * 3600)
    state = world.get(run).state
    assert (state.type, state.failure_class) == (StateType.CRASHED, "permission")
    assert "credentials have expired" in state.message
    assert not world.double.started
    world.double.model.rules.tokens = None  # Whether something is left is looked at once somebody can.
    world.settle()


def test_renewed_credentials_let_the_run_go_on(world: CloudRunServiceWorld) -> None:
    world.double.model.rules.tokens = {"renewed"}
    run = trigger(world)
    world.pass_time(120)
    world.double.model.rules.tokens = None
    world.settle()
    assert world.get(run).state.type is StateType.COMPLETED


@pytest.mark.parametrize("timeout", [10**6, 0])
def test_a_timeout_above_the_limit_is_warned_of_and_not_forbidden(world: CloudRunServiceWorld, timeout: float) -> None:
    run = trigger(world, timeout=timeout)
    world.settle()
    assert world.get(run).state.type is StateType.COMPLETED
    (sent,) = world.double.requests("CreateJob")
    assert sent.job.template.template.timeout.total_seconds() == 604_800


def test_a_timeout_of_the_deployment_is_the_one_that_cloud_run_gets_too(world: CloudRunServiceWorld) -> None:
    """Else Cloud Run would end the job before our verdict."""
    world.deploy("long", timeout_seconds=90_000, job_variables={"image": "acme/report:7", "timeout": 60})
    run = world.trigger("report/long")
    world.settle()
    assert world.get(run).state.type is StateType.COMPLETED
    (sent,) = world.double.requests("CreateJob")
    assert sent.job.template.template.timeout.total_seconds() == 90_060


@pytest.mark.parametrize("url", ["http://run.example:80", "run.example", "https://run.example/v2"])
def test_an_endpoint_in_clear_text_elsewhere_is_refused(url: str) -> None:
    """When the settings are read, and by the platform itself."""
    with pytest.raises(InvalidInput, match=r"PUSH_POOLS_CLOUD_RUN_ENDPOINT=.* is not understood: (http|write)"):
        Settings.from_environ({"PUSH_POOLS_CLOUD_RUN_ENDPOINT": url})
    clock = ManualClock()
    context = PlatformContext(lambda _: GcpCredentials(), {"cloud_run_endpoint": url}, clock, clock)
    with pytest.raises(ValueError, match="write"):
        CloudRunPlatform(context)
    with pytest.raises(PlatformMissing, match="write"):
        EntryPointPlatforms(context)("cloud-run")


def test_without_its_library_the_extra_is_named() -> None:
    clock = ManualClock()
    platforms = EntryPointPlatforms(PlatformContext(lambda _: None, {}, clock, clock), found=())
    with pytest.raises(NotFound, match=r"pip install 'push-pools\[gcp\]'"):
        platforms("cloud-run")
