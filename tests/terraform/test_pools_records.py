"""The records that the Terraform modules send are taken, changed, refused and deleted by the real function `admin`."""

from __future__ import annotations

import json
import runpy
from typing import TYPE_CHECKING, Any, cast

import pytest

from push_pools.credentials import block_class, is_long_lived, secret_fields
from push_pools.domain.deployments import Deployment
from push_pools.domain.errors import NotAllowed
from push_pools.domain.pools import BlockDocument, WorkPool, WorkQueue
from push_pools.functions import admin
from push_pools.platforms.registry import EntryPointPlatforms, hosted_platforms
from push_pools.ports import PlatformContext
from push_pools.services.catalogue import set_job_variables, update_work_pool
from push_pools.services.preview import preview_deployment
from push_pools.testing.clocks import ManualClock
from tests.functions.context import Context
from tests.functions.hosts import use
from tests.services.catalogue_app import make_app
from tests.terraform.bundles import ROOT
from tests.terraform.pools import FILE, Applied, Request, applied, as_sent
from tests.terraform.terraform import prepared

if TYPE_CHECKING:
    from push_pools.ports import App

KINDS = (BlockDocument, WorkPool, WorkQueue, Deployment)
POOLED = [each for each in applied() if each.records]
ONE_RECORD = [(each, record) for each in POOLED for record in each.records]


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> App:
    """A ledger in memory with the real pool types of the functions, behind `admin`."""
    clock = ManualClock()
    context = PlatformContext(lambda _: None, {}, clock, clock)
    app = make_app(platforms=EntryPointPlatforms(context, found=hosted_platforms()), clock=clock, real_clock=clock)
    use(monkeypatch, admin, app)
    return app


def ask(request: Request) -> Any:
    """Invoke the function with JSON, as Lambda does."""
    return admin.handler(json.loads(json.dumps(request)), cast("Any", Context(function_name="admin")))


def needed(run: Applied, app: App) -> None:
    """Make what a deployment's own module does not: its pool."""
    if run.folder == "modules/deployment":
        pool = applied("modules/ecs_pool")[0]
        for record in pool.records:
            ask(as_sent(record, "create"))


def everything(app: App) -> list[dict[str, Any]]:
    return [record.model_dump(mode="json") for kind in KINDS for record in app.store.list(kind)]


# -- what is right


@pytest.mark.parametrize("run", POOLED, ids=str)
def test_records_are_created_once_and_deleted(run: Applied, app: App) -> None:
    """However often each write comes: Terraform sends it again when its answer was lost."""
    needed(run, app)
    before = len(everything(app))
    for record in run.records:
        answers = [ask(as_sent(record, "create")) for _ in range(2)]
        assert [each["token"] for each in answers] == [record["token"]] * 2
        assert answers[0]["id"] == answers[1]["id"] is not None
    assert len(everything(app)) > before
    owners = {each["managed_by"] for each in everything(app)[before:]}
    assert all(owner.startswith("terraform:") for owner in owners)
    for record in reversed(run.records):
        for _ in range(2):
            assert ask(as_sent(record, "delete"))["token"] == record["token"]
    assert len(everything(app)) == before


@pytest.mark.parametrize("folder", sorted({run.folder for run in POOLED}))
def test_the_runs_of_a_module_follow_each_other_as_updates(folder: str, app: App) -> None:
    """As in the module's own test: each run changes what the one before has made."""
    first, *others = [run for run in POOLED if run.folder == folder]
    needed(first, app)
    for record in first.records:
        ask(as_sent(record, "create"))
    state = {(each["kind"], each["name"]): each for each in first.records}
    for run in others:
        wanted = {(each["kind"], each["name"]): each for each in run.records}
        for key in reversed(list(state)):
            if key not in wanted:  # Another name is another record: `triggers` has it replaced.
                ask(as_sent(state[key], "delete"))
        for key, record in wanted.items():
            action = "update" if key in state else "create"
            for _ in range(2):
                assert ask(as_sent(record, action, state.get(key)))["token"] == record["token"]
        state = wanted
    made = {each.key: each for kind in KINDS for each in app.store.list(kind)}
    for _, name in state:
        assert name in made
    again = everything(app)
    for record in state.values():
        ask(as_sent(record, "update"))
    assert [each["id"] for each in everything(app)] == [each["id"] for each in again]


def test_the_requests_of_all_three_clouds_can_be_shown(app: App) -> None:
    """Templates, blocks, job variables and command fit together: nothing is left for the first run to find."""
    (run,) = applied("examples/three_clouds")
    for record in run.records:
        ask(as_sent(record, "create"))
    assert {pool.type for pool in app.store.list(WorkPool)} == set(app.platforms.types())
    names = ("ecs", "cloud-run", "aci")
    ecs, cloud_run, aci = (cast("Any", preview_deployment(app, f"hello/{name}").request) for name in names)
    assert ecs["run_task"]["cluster"].endswith(":cluster/push-pools-hello")
    assert "hello from ecs" in json.dumps(ecs)
    assert "hello from cloud-run" in json.dumps(cloud_run)
    assert "push-pools@acme.iam.gserviceaccount.com" in json.dumps(cloud_run)
    assert "hello from aci" in json.dumps(aci)


@pytest.mark.parametrize(("run", "record"), ONE_RECORD, ids=[f"{r} {x['kind']} {x['name']}" for r, x in ONE_RECORD])
def test_no_record_holds_a_secret(run: Applied, record: Request, app: App) -> None:
    """What Terraform sends is kept in its state, in clear."""
    assert set(record) == {"version", "kind", "name", "managed_by", "spec", "token"}
    if record["kind"] == "block":
        slug = record["name"].partition("/")[0]
        assert not set(secret_fields(block_class(slug))) & set(record["spec"])
        assert not is_long_lived(slug, record["spec"])


def test_the_owner_is_the_module(app: App) -> None:
    (run,) = applied("examples/three_clouds")
    owners = {(each["kind"], each["name"]): each["managed_by"] for each in run.records}
    assert owners["work-pool", "run"] == owners["block", "gcp-credentials/run"] == "terraform:module.cloud_run"
    assert owners["deployment", "hello/aci"] == 'terraform:module.hello["aci"]'


def test_the_command_line_leaves_them_alone_but_for_what_is_left_to_ci(app: App) -> None:
    (first, second) = applied("examples/minimal")
    for record in first.records:
        ask(as_sent(record, "create"))
    with pytest.raises(NotAllowed, match=r"work pool 'hello' is managed by terraform:module\.pool; change it there"):
        update_work_pool(app, "hello", description="mine")
    with pytest.raises(
        NotAllowed, match=r"managed by terraform:module\.hello; .* leaves only image to others, not cpu"
    ):
        set_job_variables(app, "hello/hello", {"cpu": 512})
    set_job_variables(app, "hello/hello", {"image": "acme/hello:2"})
    for before, record in zip(first.records, second.records, strict=True):
        ask(as_sent(record, "update", before))
    (deployment,) = app.store.list(Deployment)
    assert deployment.job_variables == {"image": "acme/hello:2"}
    assert [schedule.cron for schedule in deployment.schedules] == ["0 7 * * *"]


# -- what is wrong


def changed(record: Request, path: str, value: Any) -> Request:
    """Return an input with another value at a dotted path of its spec, or under a key of its own."""
    copy: Request = json.loads(json.dumps(record))
    *parents, last = path.split(".")
    place = copy
    for each in parents:
        place = place[each]
    place[last] = value
    return copy


@pytest.mark.parametrize(
    ("kind", "name", "path", "value", "say"),
    [
        ("work-pool", "ecs", "spec.type", "cloud-run-v2:push", "has the type ecs:push, which never changes"),
        ("work-pool", "ecs", "spec.concurrency_limit", -1, "spec.concurrency_limit: it is -1; write at least 0"),
        ("work-pool", "ecs", "spec.variables.cpus", 2, "did you mean 'cpu'"),
        ("work-pool", "ecs", "spec.variables.cpu", "lots", "is not of type"),
        ("work-pool", "ecs", "spec.work_queues", [{"name": "a b"}], "spec.work_queues"),
        ("work-pool", "ecs", "name", "a b", "a name has"),
        ("block", "gcp-credentials/run", "spec.external_account.type", "authorized_user", "external_account"),
        ("block", "gcp-credentials/run", "spec.external_account.token_url", "https://evil.example", "token_url"),
        ("block", "azure-container-instance-credentials/aci", "spec.tenant_id", None, "give all three"),
        ("deployment", "hello/ecs", "spec.schedules", [{"cron": "61 * * * *"}], "schedules"),
        ("deployment", "hello/ecs", "spec.schedules", [{"at": "2020-01-01T00:00:00"}], "schedules"),
        ("deployment", "hello/ecs", "spec.work_pool.name", "nope", "work pool 'nope' does not exist"),
        ("deployment", "hello/ecs", "spec.work_pool.open_job_variables", ["imago"], "did you mean 'image'"),
        ("deployment", "hello/ecs", "spec.work_pool.job_variables", {"image": 3}, "image"),
    ],
)
def test_a_wrong_record_fails_the_apply_with_a_sentence(
    app: App, kind: str, name: str, path: str, value: Any, say: str
) -> None:
    """As an error of the function: the provider takes every answer for a success. Nothing is written."""
    (run,) = applied("examples/three_clouds")
    for record in run.records:
        ask(as_sent(record, "create"))
    before, right = everything(app), run.record(kind, name)
    wrong = changed(right, path, value)
    with pytest.raises(admin.Refused) as caught:
        ask(as_sent(wrong, "update", right) if path != "name" else as_sent(wrong, "create"))
    assert say in str(caught.value)
    assert everything(app) == before


@pytest.mark.parametrize("type_", ["process", "ecs:pull", "kubernetes"])
def test_a_pool_of_a_type_that_functions_do_not_serve_is_refused(app: App, type_: str) -> None:
    (run,) = applied("modules/pool")[:1]
    wrong = changed(run.record("work-pool", "nightly"), "spec.type", type_)
    with pytest.raises(admin.Refused, match=f"pool type '{type_}' does not exist"):
        ask(as_sent(wrong, "create"))
    assert everything(app) == []


def test_somebody_else_s_record_is_refused_and_names_its_module(app: App) -> None:
    (run,) = applied("examples/three_clouds")
    pool = run.record("work-pool", "run")
    for record in run.records:
        ask(as_sent(record, "create"))
    for action in ("create", "delete"):
        with pytest.raises(admin.Refused, match=r"work pool 'run' is managed by terraform:module\.cloud_run"):
            ask(as_sent({**pool, "managed_by": "terraform:module.other"}, action))


def test_a_pool_that_is_in_use_fails_the_destroy(app: App) -> None:
    (run,) = applied("examples/three_clouds")
    for record in run.records:
        ask(as_sent(record, "create"))
    with pytest.raises(admin.Refused, match="deployment hello/ecs"):
        ask(as_sent(run.record("work-pool", "ecs"), "delete"))


# -- the file


@pytest.mark.parametrize("folder", ["modules/deployment", "modules/ecs_pool", "modules/trigger"])
def test_the_file_is_what_terraform_makes_now(folder: str) -> None:
    """Of some folders, because each takes its time; `make terraform-plan` writes all."""
    with prepared(folder) as terraform:
        fresh = runpy.run_path(str(ROOT / "scripts" / "terraform_pools_plan.py"))["runs"](terraform.copy, folder)
    assert fresh == json.loads(FILE.read_text(encoding="utf-8"))[folder], "run `make terraform-plan`"
