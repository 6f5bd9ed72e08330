"""Deploying: the plan is whole and checked before anything is written, and doing it again changes nothing."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from push_pools.domain.config import Config, DeploymentPoolSpec, DeploymentSpec, InvalidConfigFile, WorkPoolSpec
from push_pools.domain.deployments import Deployment
from push_pools.domain.errors import InUse, InvalidInput, NotFound, StoreUnavailable
from push_pools.domain.pools import WorkPool, WorkQueue
from push_pools.domain.schedules import parse_schedule
from push_pools.platforms.registry import EntryPointPlatforms
from push_pools.ports import PlatformContext
from push_pools.services import catalogue
from push_pools.services.config_file import parse_config
from push_pools.services.deploy import Action, DeployPlan, FieldChange, apply, owner_of, plan_deploy, put_deployment
from push_pools.services.deploy import put_work_pool as put_pool
from push_pools.services.records import MAX_TRIES
from push_pools.sqlite_file import open_home
from push_pools.stores.memory import MemoryStore
from push_pools.stores.sqlite import SqliteStore
from push_pools.testing.clocks import ManualClock

from .catalogue_app import make_app, put_run, sent

if TYPE_CHECKING:
    from push_pools.domain.pools import CatalogueRecord
    from push_pools.ports import App, Limit, RecordT

FILE = "push-pools.yaml"
CANARY = "canary-77aa"
TEXT = """
work_pools:
  - name: nightly
    type: fake
    concurrency_limit: 10
    work_queues: [{name: urgent, concurrency_limit: 2}]
    variables: {exit_code: 0, seconds: 5}
deployments:
  - name: hourly
    flow_name: report
    command: python -m report
    parameters: {region: eu, ratio: 1.0}
    work_pool: {name: nightly, work_queue_name: urgent, job_variables: {exit_code: 3}}
    schedules:
      - {cron: "0 * * * *", timezone: Europe/Vienna, overlap: skip}
      - {interval: 15m, anchor_date: "2026-01-01T00:07", timezone: Europe/Vienna, jitter: 10}
    retries: {attempts: 3, on: [killed, spot], backoff: 2s}
    concurrency_limit: 1
    timeout_seconds: 1h
    tags: [finance]
  - name: daily
    command: [python, -m, report]
    work_pool: {name: nightly}
"""


@pytest.fixture
def app() -> App:
    return make_app()


def config(text: str = TEXT, path: str = FILE) -> Config:
    return parse_config(textwrap.dedent(text), path)


def deploy(app: App, text: str = TEXT, **options: Any) -> DeployPlan:
    return apply(app, plan_deploy(app, config(text, options.pop("path", FILE)), **options))


def actions(plan: DeployPlan) -> dict[str, str]:
    return {f"{change.kind} {change.key}": str(change.action) for change in plan.changes}


def contents(app: App) -> list[CatalogueRecord]:
    return [record for kind in (WorkPool, WorkQueue, Deployment) for record in app.store.list(kind)]


def problems(app: App, text: str, **options: Any) -> list[str]:
    before = contents(app)
    with pytest.raises(InvalidConfigFile) as caught:
        deploy(app, text, **options)
    assert contents(app) == before, "a bad file writes nothing"
    return str(caught.value).splitlines()


# -- writing what the file says


def test_a_first_deploy_creates_everything(app: App) -> None:
    assert actions(deploy(app)) == {
        "work queue nightly/urgent": "create",
        "work queue nightly/default": "create",
        "work pool nightly": "create",
        "deployment report/hourly": "create",
        "deployment daily/daily": "create",
    }
    pool, deployment = catalogue.get_work_pool(app, "nightly"), catalogue.find_deployment(app, "hourly")
    assert pool.base_job_template["variables"]["properties"]["seconds"]["default"] == 5
    assert (deployment.work_queue, deployment.job_variables) == ("urgent", {"exit_code": 3})
    assert (deployment.retries.attempts, deployment.retries.backoff_seconds) == (3, 2)
    assert deployment.timeout_seconds == 3600
    assert [each.describe() for each in deployment.schedules] == ["cron '0 * * * *' Europe/Vienna", "every 15m"]
    assert app.store.slots("POOL#nightly")[0] == 10
    assert app.store.slots("QUEUE#nightly/urgent")[0] == 2
    assert app.store.slots(f"DEP#{deployment.id}")[0] == 1


def test_a_plan_writes_nothing(app: App) -> None:
    plan = plan_deploy(app, config())
    assert not plan.is_empty
    assert contents(app) == []
    assert sent(app) == []


def test_a_second_deploy_changes_nothing(app: App) -> None:
    deploy(app)
    # As a store that writes to disk gives the records back.
    store = app.store
    assert isinstance(store, MemoryStore)
    for name, record in list(store._catalogue.items()):
        store._catalogue[name] = type(record).model_validate_json(record.model_dump_json())
    before = contents(app)
    sent(app)
    clock = app.clock
    assert isinstance(clock, ManualClock)
    clock.advance(60)
    plan = deploy(app)
    assert plan.is_empty
    assert set(actions(plan).values()) == {"unchanged"}
    assert contents(app) == before
    assert sent(app) == []


def test_a_second_deploy_changes_nothing_on_disk_either(tmp_path: Path) -> None:
    file = open_home(tmp_path)
    try:
        app = make_app(store=SqliteStore(file))
        deploy(app)
        before = contents(app)
        assert deploy(app).is_empty
        assert contents(app) == before
        assert set(actions(deploy(app, "deployments: []", prune=True)).values()) == {"delete"}
        assert contents(app) == []
    finally:
        file.close()


def test_a_change_keeps_ids_and_the_versions_of_other_schedules(app: App) -> None:
    deploy(app)
    before = catalogue.find_deployment(app, "hourly")
    plan = deploy(app, TEXT.replace("0 * * * *", "5 * * * *").replace("exit_code: 3", "exit_code: 4"))
    (change,) = [change for change in plan.changes if change.action is Action.UPDATE]
    assert change.diff == (
        FieldChange("job_variables.exit_code", 3, 4),
        FieldChange("schedules[0].cron", "0 * * * *", "5 * * * *"),
    )
    after = catalogue.find_deployment(app, "hourly")
    assert after.id == before.id
    assert [each.id for each in after.schedules] == [each.id for each in before.schedules]
    assert [each.version for each in after.schedules] == [2, 1]


def test_variables_that_are_not_named_return_to_the_template(app: App) -> None:
    deploy(app)
    (change, *others) = [c for c in deploy(app, TEXT.replace(", seconds: 5", "")).changes if c.action is Action.UPDATE]
    assert others == []
    assert change.diff == (FieldChange("base_job_template.variables.properties.seconds.default", 5, None),)


def test_a_changed_default_needs_no_other_deployment(app: App) -> None:
    """Deployments hold what they say themselves, and nothing of the pool."""
    deploy(app)
    plan = deploy(app, TEXT.replace("seconds: 5", "seconds: 6"))
    assert [change.key for change in plan.changes if change.action is Action.UPDATE] == ["nightly"]
    assert "seconds" not in catalogue.find_deployment(app, "hourly").job_variables


def test_some_deployments_are_picked_by_name(app: App) -> None:
    text = TEXT + "  - {name: other, work_pool: {name: else}}\n"
    text = text.replace("deployments:", "  - {name: else, type: fake}\ndeployments:")
    plan = deploy(app, text, names=["hourly"])
    assert "deployment daily/daily" not in actions(plan)
    assert "work pool else" not in actions(plan)
    assert actions(plan)["deployment report/hourly"] == "create"
    assert [each.key for each in catalogue.list_deployments(app)] == ["report/hourly"]
    with pytest.raises(NotFound, match="deployment 'hurly' does not exist; known: report/hourly"):
        plan_deploy(app, config(), names=["hurly"])


def test_a_pool_may_be_there_already(app: App) -> None:
    catalogue.create_work_pool(app, "shared", "fake")
    deploy(app, "deployments: [{name: a, work_pool: {name: shared}}]")
    assert catalogue.find_deployment(app, "a").work_pool == "shared"


def test_admitting_is_asked_for_once(app: App) -> None:
    deploy(app)
    kinds = [json.loads(body)["type"] for body in sent(app)]
    assert kinds.count("admit") == 3
    deploy(app, TEXT.replace("concurrency_limit: 10", "concurrency_limit: 11"))
    assert [json.loads(body)["type"] for body in sent(app)] == ["admit"]


def test_pausing_by_hand_outlives_a_deploy(app: App) -> None:
    deploy(app)
    catalogue.pause_deployment(app, "hourly", note="month end")
    assert deploy(app).is_empty
    assert catalogue.find_deployment(app, "hourly").pause_note == "month end"
    deploy(app, TEXT.replace("flow_name: report", "flow_name: report\n    is_paused: false"))
    resumed = catalogue.find_deployment(app, "hourly")
    assert (resumed.is_paused, resumed.pause_note) == (False, "")
    deploy(app, TEXT.replace("flow_name: report", "flow_name: report\n    is_paused: true"))
    assert catalogue.find_deployment(app, "hourly").is_paused


def test_pools_and_queues_are_paused_by_the_file(app: App) -> None:
    """Left out, they stay as they are; resumed, those who wait are admitted; another priority asks for it too."""
    text = "work_pools: [{name: p, type: fake, work_queues: [{name: q}, {name: default}]}]"
    deploy(app, text)
    deploy(
        app, text.replace("type: fake", "type: fake, is_paused: true").replace("name: q", "name: q, is_paused: true")
    )
    assert catalogue.get_work_pool(app, "p").is_paused
    assert catalogue.get_work_queue(app, "p", "q").is_paused
    assert not catalogue.get_work_queue(app, "p", "default").is_paused
    assert deploy(app, text).is_empty
    assert sent(app) == []
    opened = text.replace("type: fake", "type: fake, is_paused: false").replace("name: q", "name: q, is_paused: false")
    deploy(app, opened)
    assert not catalogue.get_work_pool(app, "p").is_paused
    assert not catalogue.get_work_queue(app, "p", "q").is_paused
    assert [json.loads(body)["type"] for body in sent(app)] == ["admit", "tick", "admit", "tick"]
    deploy(app, opened.replace("name: q", "name: q, priority: 7"))
    assert [json.loads(body)["type"] for body in sent(app)] == ["admit"]


def test_a_limit_that_a_deploy_sets_where_there_was_none_is_counted(app: App) -> None:
    text = "work_pools: [{name: p, type: fake}]\ndeployments: [{name: a, work_pool: {name: p}}]"
    deploy(app, text)
    plan = deploy(
        app,
        text.replace("{name: p, type", "{concurrency_limit: 2, name: p, type").replace(
            "{name: a,", "{name: a, concurrency_limit: 1,"
        ),
    )
    assert {field.path for change in plan.changes for field in change.diff} == {"concurrency_limit"}
    assert (catalogue.get_work_pool(app, "p").limit_epoch, catalogue.find_deployment(app, "a").limit_epoch) == (1, 1)
    limit = app.store.limit_of("POOL#p")
    assert (limit.slots, limit.is_counting) == (2, True)


def test_what_a_newer_release_added_is_kept(app: App) -> None:
    deploy(app)
    deployment = catalogue.find_deployment(app, "hourly")
    app.store.put(Deployment.model_validate({**deployment.model_dump(), "hue": "red"}))
    deploy(app, TEXT.replace("exit_code: 3", "exit_code: 4"))
    assert (catalogue.find_deployment(app, "hourly").model_extra or {})["hue"] == "red"


# -- refusals


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ("type: fake", "type: fak", "4:11: work_pools[0].type: pool type 'fak' does not exist; did you mean 'fake'"),
        (
            "seconds: 5",
            "secnds: 5",
            "7:31: work_pools[0].variables.secnds: there is no such variable; did you mean 'seconds'?",
        ),
        ("seconds: 5", "seconds: five", "7:40: work_pools[0].variables.seconds: 'five' is not of type 'number'"),
        (
            "exit_code: 3}",
            "exitcode: 3}",
            "13:73: deployments[0].work_pool.job_variables.exitcode: there is no such variable; did you mean",
        ),
        (
            "exit_code: 3}",
            "env: {A: [1]}}",
            "13:82: deployments[0].work_pool.job_variables.env.A: the value, which is not shown, breaks 'type'",
        ),
        ("python -m report", "python -m 'report", "11:14: deployments[0].command: No closing quotation"),
        (
            "overlap: skip}",
            "job_variables: {exit_code: x}}",
            "15:81: deployments[0].schedules[0].job_variables.exit_code: 'x' is not of type 'integer'",
        ),
        (
            "{name: nightly, work",
            "{name: nightli, work",
            "13:23: deployments[0].work_pool.name: work pool 'nightli' does not exist; known: nightly; name",
        ),
        (
            "work_queue_name: urgent",
            "work_queue_name: urgnt",
            "13:49: deployments[0].work_pool.work_queue_name: work queue 'nightly/urgnt' does not exist; known: ur",
        ),
    ],
)
def test_what_cannot_be_is_found_at_its_place(app: App, old: str, new: str, found: str) -> None:
    assert old in TEXT
    (problem,) = problems(app, TEXT.replace(old, new, 1))
    assert found in problem
    assert problem.startswith(f"{FILE}:")


def test_every_problem_is_found_at_once(app: App) -> None:
    text = TEXT.replace("exit_code: 3", "exitcode: 3, secons: 1").replace("{name: nightly}", "{name: nope}")
    found = problems(app, text)
    assert [line.split(": ")[1] for line in found] == [
        "deployments[0].work_pool.job_variables.exitcode",
        "deployments[0].work_pool.job_variables.secons",
        "deployments[1].work_pool.name",
    ]


def test_a_wrong_template_is_found_at_its_place(app: App) -> None:
    text = "work_pools:\n  - name: a\n    type: fake\n    base_job_template: {variables: {}}\n"
    (problem,) = problems(app, text)
    assert "4:24: work_pools[0].base_job_template: a base job template needs an object under" in problem
    ref = "{job_configuration: {}, variables: {properties: {a: {$ref: '#/nope', default: 1}}}}"
    (problem,) = problems(app, text.replace("{variables: {}}", ref))
    assert "a $ref that leads nowhere" in problem


def test_a_pool_keeps_its_type(app: App) -> None:
    deploy(app)
    pool = catalogue.get_work_pool(app, "nightly")
    app.store.put(pool.model_copy(update={"type": "other"}))
    (problem,) = problems(app, TEXT)
    assert "4:11: work_pools[0].type: the work pool 'nightly' has the type other, which never changes" in problem


def test_what_others_manage_is_refused(app: App) -> None:
    deploy(app, managed_by="terraform:m")
    assert deploy(app, managed_by="terraform:m").is_empty
    found = problems(app, TEXT)
    assert "3:11: work_pools[0].name: work pool 'nightly' is managed by terraform:m; change it there" in found[0]
    assert "9:11: deployments[0].name: deployment 'report/hourly' is managed by terraform:m" in found[1]


def test_a_managed_queue_of_a_free_pool_is_refused(app: App) -> None:
    catalogue.create_work_pool(app, "nightly", "fake")
    catalogue.create_work_queue(app, "nightly", "urgent", managed_by="terraform:m")
    assert "work queue 'nightly/urgent' is managed by terraform:m" in problems(app, TEXT)[0]


# -- secrets


def test_what_may_be_a_secret_is_not_in_a_diff(app: App) -> None:
    deploy(app)
    text = TEXT.replace("seconds: 5", f"seconds: 5, env: {{TOKEN: {CANARY}-1}}")
    text = text.replace("exit_code: 3}", f"exit_code: 3, env: {{PLAIN: {CANARY}-2}}}}")
    text = text.replace("region: eu", f"region: eu, api_key: {CANARY}-3, nested: {{password: {CANARY}-4}}")
    text = text.replace("overlap: skip", f"overlap: skip, job_variables: {{env: {{A: {CANARY}-5}}}}")
    for now, planned in ((TEXT, text), (text, TEXT), (text, text.replace(CANARY, f"{CANARY}-x"))):
        deploy(app, now)
        plan = plan_deploy(app, config(planned))
        shown = [change for each in plan.changes for change in each.diff]
        assert len([change for change in shown if "********" in str(change)]) >= 3
        assert CANARY not in str(shown)
        assert CANARY not in repr(plan)
    # What is plain stays readable.
    plan = plan_deploy(app, config(text.replace("region: eu", "region: us")))
    assert FieldChange("parameters.region", "eu", "us") in [c for each in plan.changes for c in each.diff]


def test_a_variable_that_its_schema_marks_is_not_in_a_diff(app: App) -> None:
    template = {
        "job_configuration": {},
        "variables": {"properties": {"pin": {"type": "string", "format": "password"}, "size": {"type": "integer"}}},
    }

    def text(pin: str, size: int) -> str:
        pool = {"name": "a", "type": "fake", "base_job_template": template, "variables": {"pin": pin, "size": size}}
        return json.dumps({"work_pools": [pool]})

    deploy(app, text(f"{CANARY}-1", 1))
    plan = plan_deploy(app, config(text(f"{CANARY}-2", 2)))
    where = "base_job_template.variables.properties"
    assert [c for each in plan.changes for c in each.diff] == [
        FieldChange(f"{where}.pin.default", "********", "********"),
        FieldChange(f"{where}.size.default", 1, 2),
    ]


# -- pruning

ONLY_POOL = TEXT[: TEXT.index("deployments:")]


def test_nothing_is_deleted_without_prune(app: App) -> None:
    deploy(app)
    deploy(app, "deployments: []")
    assert len(catalogue.list_deployments(app)) == 2


def test_prune_deletes_what_the_file_made_and_no_longer_names(app: App) -> None:
    deploy(app)
    plan = deploy(app, "deployments: []", prune=True)
    assert actions(plan) == {
        "deployment daily/daily": "delete",
        "deployment report/hourly": "delete",
        "work pool nightly": "delete",
    }
    assert contents(app) == []
    assert app.store.slots("POOL#nightly")[0] is None
    assert app.store.slots("QUEUE#nightly/urgent")[0] is None


def test_prune_leaves_what_others_made(app: App) -> None:
    catalogue.create_work_pool(app, "by-hand", "fake")
    catalogue.create_work_pool(app, "theirs", "fake", managed_by="terraform:m")
    deploy(app, TEXT.replace("nightly", "weekly").replace("hourly", "h").replace("daily", "d"), path="other.yaml")
    deploy(app)
    catalogue.create_work_queue(app, "nightly", "by-hand")
    spec = DeploymentSpec(name="by-hand", work_pool=DeploymentPoolSpec(name="by-hand"))
    put_deployment(app, spec)
    plan = deploy(app, ONLY_POOL, prune=True)
    assert [change.key for change in plan.changes if change.action is Action.DELETE] == ["daily/daily", "report/hourly"]
    assert [pool.name for pool in catalogue.list_work_pools(app)] == ["by-hand", "nightly", "theirs", "weekly"]
    assert "by-hand" in [queue.name for queue in catalogue.list_work_queues(app, "nightly")]
    assert [each.name for each in catalogue.list_deployments(app)] == ["by-hand", "d", "h"]


def test_a_project_owns_what_its_file_made_wherever_it_is(app: App) -> None:
    deploy(app, "project: reports\n" + TEXT, path="/one/push-pools.yaml")
    plan = deploy(app, "project: reports\n", path="/two/push-pools.yaml", prune=True)
    assert set(actions(plan).values()) == {"delete"}


def test_an_edit_by_hand_does_not_change_who_owns_it(app: App) -> None:
    deploy(app)
    put_pool(app, WorkPoolSpec(name="nightly", type="fake"))
    catalogue.set_job_variables(app, "hourly", {"seconds": 1})
    assert owner_of(catalogue.get_work_pool(app, "nightly")) == FILE
    assert owner_of(catalogue.find_deployment(app, "hourly")) == FILE


def test_prune_deletes_queues_of_a_pool_that_stays(app: App) -> None:
    deploy(app)
    text = TEXT.replace("    work_queues: [{name: urgent, concurrency_limit: 2}]\n", "")
    text = text.replace("work_queue_name: urgent, ", "")
    plan = deploy(app, text, prune=True)
    assert actions(plan)["work queue nightly/urgent"] == "delete"
    assert [queue.name for queue in catalogue.list_work_queues(app, "nightly")] == ["default"]
    assert app.store.slots("QUEUE#nightly/urgent")[0] is None
    assert catalogue.find_deployment(app, "hourly").work_queue == "default"


def test_a_queue_that_is_still_used_is_not_pruned(app: App) -> None:
    deploy(app)
    before = contents(app)
    with pytest.raises(InUse, match="work queue 'nightly/urgent' is used by deployment report/hourly"):
        deploy(app, TEXT.replace("    work_queues: [{name: urgent, concurrency_limit: 2}]\n", ""), prune=True)
    assert contents(app) == before


def test_a_pool_that_is_still_used_is_not_pruned(app: App) -> None:
    deploy(app)
    put_run(app, "nightly")
    before = contents(app)
    with pytest.raises(InUse, match="work pool 'nightly' is used by 1 unfinished run"):
        deploy(app, "deployments: []", prune=True)
    spec = DeploymentSpec(name="by-hand", work_pool=DeploymentPoolSpec(name="nightly"))
    put_deployment(app, spec)
    with pytest.raises(InUse, match="is used by deployment by-hand/by-hand, 1 unfinished run"):
        deploy(app, "deployments: []", prune=True)
    assert contents(app)[: len(before) - 2] == before[: len(before) - 2]


def test_prune_goes_with_the_whole_file(app: App) -> None:
    with pytest.raises(InvalidInput, match="--prune goes with the whole file"):
        plan_deploy(app, config(), names=["hourly"], prune=True)


# -- cut short, or at once


class CutShort(MemoryStore):
    """The process dies at a certain write."""

    left = 1 << 30

    def _count(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt

    def put(self, record: RecordT) -> RecordT:
        self._count()
        return super().put(record)

    def delete(self, record: CatalogueRecord) -> None:
        self._count()
        super().delete(record)

    def put_limit(self, limit: Limit) -> Limit:
        self._count()
        return super().put_limit(limit)


def final(app: App) -> list[dict[str, Any]]:
    hidden = {"id", "version", "schedules"}
    records = [record.model_dump(exclude=hidden) for record in contents(app)]
    limits = {pool: app.store.slots(pool)[0] for pool in ("POOL#nightly", "QUEUE#nightly/urgent")}
    return [*records, limits]


@pytest.mark.parametrize("writes", range(9))
@pytest.mark.parametrize("text", [TEXT, "deployments: []"])
def test_a_deploy_that_was_cut_short_is_made_good_by_the_next(writes: int, text: str) -> None:
    whole, store = make_app(), CutShort()
    app = make_app(store=store)
    for each in (whole, app):
        if text != TEXT:
            deploy(each)
    deploy(whole, text, prune=True)
    store.left = writes
    try:
        deploy(app, text, prune=True)
    except KeyboardInterrupt:
        for pool in catalogue.list_work_pools(app):
            # A pool that is there has its queue.
            assert catalogue.get_work_queue(app, pool.name, "default").work_pool == pool.name
    store.left = 1 << 30
    deploy(app, text, prune=True)
    if text == TEXT:
        assert final(app) == final(whole)
        (deployment,) = [each for each in catalogue.list_deployments(app) if each.name == "hourly"]
        assert app.store.slots(f"DEP#{deployment.id}")[0] == 1
    else:
        # Queues that a deleted pool left behind go when a pool of that name is added, or are taken over.
        assert not catalogue.list_work_pools(app)
        assert not catalogue.list_deployments(app)


class Busy(MemoryStore):
    """Another writer is faster, so many times."""

    conflicts = 0

    def put(self, record: RecordT) -> RecordT:
        if self.conflicts and isinstance(record, Deployment) and record.version:
            self.conflicts -= 1
            stored = self.get(type(record), record.key)
            assert stored is not None
            super().put(stored.model_copy(update={"description": f"theirs {self.conflicts}", "is_paused": True}))
        return super().put(record)


def test_what_others_write_meanwhile_is_planned_again() -> None:
    store = Busy()
    app = make_app(store=store)
    deploy(app)
    store.conflicts = 2
    plan = deploy(app, TEXT.replace("exit_code: 3", "exit_code: 4").replace("seconds: 5", "seconds: 6"))
    assert [change.key for change in plan.changes if change.action is Action.UPDATE] == ["nightly", "report/hourly"]
    deployment = catalogue.find_deployment(app, "hourly")
    assert (deployment.job_variables, deployment.description, deployment.is_paused) == ({"exit_code": 4}, "", True)


def test_a_deploy_gives_up_in_the_end() -> None:
    store = Busy()
    app = make_app(store=store)
    deploy(app)
    store.conflicts = MAX_TRIES
    with pytest.raises(StoreUnavailable, match="somebody else writes what is deployed at the same time; deploy again"):
        deploy(app, TEXT.replace("exit_code: 3", "exit_code: 4"))


# -- one thing at a time


def test_one_deployment_is_put_without_a_file(app: App) -> None:
    put_pool(app, WorkPoolSpec(name="p", type="fake", concurrency_limit=1), managed_by="terraform:m")
    spec = DeploymentSpec(
        name="a", work_pool=DeploymentPoolSpec(name="p"), schedules=(parse_schedule({"cron": "@daily"}),)
    )
    first = put_deployment(app, spec)
    assert put_deployment(app, spec) == first
    assert owner_of(first) is None
    assert catalogue.get_work_pool(app, "p").managed_by == "terraform:m"
    wrong = DeploymentSpec(name="a", work_pool=DeploymentPoolSpec(name="p", job_variables={"x": 1}))
    with pytest.raises(
        InvalidConfigFile, match=r"deployment a/a: deployments\[0\].work_pool.job_variables.x: there is no"
    ):
        put_deployment(app, wrong)


class Vanishing(MemoryStore):
    """Whatever is written is gone at once."""

    def put(self, record: RecordT) -> RecordT:
        written = super().put(record)
        if isinstance(record, Deployment | WorkPool):
            self.delete(written)
        return written


def test_what_is_deleted_as_it_is_written_is_said() -> None:
    app = make_app(store=Vanishing())
    with pytest.raises(StoreUnavailable, match="work pool 'p' was deleted as it was written; try again"):
        put_pool(app, WorkPoolSpec(name="p", type="fake"))
    other = make_app()
    catalogue.create_work_pool(other, "p", "fake")
    object.__setattr__(other.store, "put", lambda record: record)
    with pytest.raises(StoreUnavailable, match="deployment 'a/a' was deleted as it was written; try again"):
        put_deployment(other, DeploymentSpec(name="a", work_pool=DeploymentPoolSpec(name="p")))


# -- the example


def test_the_example_deploys_twice() -> None:
    """On the real platforms; nothing is called for it."""
    clock = ManualClock()
    context = PlatformContext(lambda _: None, {"home": "."}, clock, clock)
    app = make_app(platforms=EntryPointPlatforms(context))
    path = Path(__file__).resolve().parents[2] / "examples" / "quickstart.yaml"
    text = path.read_text(encoding="utf-8")
    plan = deploy(app, text, path=str(path))
    assert len([change for change in plan.changes if change.kind == "deployment"]) == 6
    assert deploy(app, text, path=str(path)).is_empty
