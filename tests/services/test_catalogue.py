"""Pools, queues, deployments and variables: every check, by whoever writes."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from push_pools.domain.config import DeploymentPoolSpec, DeploymentSpec
from push_pools.domain.errors import (
    AlreadyExists,
    InUse,
    InvalidInput,
    InvalidJobVariables,
    InvalidTemplate,
    NotAllowed,
    NotFound,
    StoreUnavailable,
    VersionConflict,
)
from push_pools.domain.pools import WorkPool, WorkQueue
from push_pools.domain.schedules import parse_schedule
from push_pools.ports import RunFilter
from push_pools.services import catalogue
from push_pools.services.deploy import put_deployment
from push_pools.services.records import KEEP, MAX_TRIES
from push_pools.stores.memory import MemoryStore

from .catalogue_app import make_app, put_run, sent

if TYPE_CHECKING:
    from collections.abc import Callable

    from push_pools.domain.deployments import Deployment
    from push_pools.ports import App, RecordT

TEMPLATE: dict[str, Any] = {
    "job_configuration": {"command": "{{ command }}", "size": "{{ size }}"},
    "variables": {
        "type": "object",
        "properties": {"command": {"type": "string"}, "size": {"type": "integer", "default": 1, "minimum": 1}},
    },
}


@pytest.fixture
def app() -> App:
    return make_app()


def a_pool(app: App, name: str = "nightly", **options: Any) -> WorkPool:
    return catalogue.create_work_pool(app, name, "fake", **options)


def a_deployment(app: App, name: str = "hourly", **fields: Any) -> Deployment:
    pool = DeploymentPoolSpec(name=fields.pop("pool", "nightly"), work_queue_name=fields.pop("queue", "default"))
    return put_deployment(app, DeploymentSpec(name=name, flow_name="report", work_pool=pool, **fields))


# -- work pools


def test_a_pool_comes_with_its_queue_and_limit(app: App) -> None:
    pool = a_pool(app, description="nights", concurrency_limit=3)
    assert catalogue.get_work_pool(app, "nightly") == pool
    assert (pool.type, pool.description, pool.version) == ("fake", "nights", 1)
    assert [queue.key for queue in catalogue.list_work_queues(app, "nightly")] == ["nightly/default"]
    assert app.store.slots("POOL#nightly")[0] == 3
    assert [json.loads(body)["work_pool"] for body in sent(app)] == ["nightly"]


def test_an_unlimited_pool_wakes_nobody(app: App) -> None:
    a_pool(app)
    assert app.store.slots("POOL#nightly")[0] is None
    assert sent(app) == []


def test_the_template_is_the_platforms_with_new_defaults(app: App) -> None:
    pool = a_pool(app, variables={"exit_code": 3, "env": {"A": "1"}})
    properties = pool.base_job_template["variables"]["properties"]
    assert (properties["exit_code"]["default"], properties["env"]["default"]) == (3, {"A": "1"})
    assert properties["seconds"]["default"] is None
    other = a_pool(app, "other")
    assert other.base_job_template["variables"]["properties"]["exit_code"]["default"] == 0


def test_a_template_may_be_given(app: App) -> None:
    pool = a_pool(app, base_job_template=TEMPLATE, variables={"size": 2})
    assert pool.base_job_template["variables"]["properties"]["size"]["default"] == 2
    assert TEMPLATE["variables"]["properties"]["size"]["default"] == 1


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({"name": "a/b"}, InvalidInput, "'a/b' cannot name a work pool: a name has 1 to 128 letters"),
        ({"name": ""}, InvalidInput, "'' cannot name a work pool"),
        ({"name": "-a"}, InvalidInput, "'-a' cannot name a work pool"),
        ({"name": "x" * 129}, InvalidInput, "begins with a letter or digit"),
        ({"type_": "fak"}, NotFound, "pool type 'fak' does not exist; did you mean 'fake'"),
        ({"concurrency_limit": -1}, InvalidInput, "a concurrency limit of -1 is out of range; write 0 to"),
        (
            {"variables": {"exitcode": 1}},
            InvalidJobVariables,
            "exitcode: there is no such variable; did you mean 'exit_code'?",
        ),
        ({"variables": {"exit_code": "three"}}, InvalidJobVariables, "exit_code: 'three' is not of type 'integer'"),
        ({"base_job_template": {}}, InvalidTemplate, "a base job template needs an object under 'job_configuration'"),
        (
            {"base_job_template": {**TEMPLATE, "job_configuration": {"a": "{{ b }}"}}},
            InvalidTemplate,
            "{{ b }} in the job configuration is not declared under variables.properties",
        ),
        (
            {
                "base_job_template": {
                    "job_configuration": {},
                    "variables": {"properties": {"size": {"type": "integer", "default": "big"}}},
                }
            },
            InvalidJobVariables,
            "size: 'big' is not of type 'integer'",
        ),
    ],
)
def test_a_wrong_pool_is_refused(app: App, options: dict[str, Any], error: type[Exception], sentence: str) -> None:
    with pytest.raises(error) as caught:
        catalogue.create_work_pool(app, **{"name": "nightly", "type_": "fake", **options})
    assert sentence in str(caught.value)
    assert catalogue.list_work_pools(app) == []
    assert catalogue.list_work_queues(app) == []


def test_a_name_is_taken_once(app: App) -> None:
    a_pool(app)
    with pytest.raises(AlreadyExists, match="work pool 'nightly' already exists; pick another name, or update it"):
        a_pool(app)


def test_an_unknown_pool_names_the_nearest(app: App) -> None:
    for name in ("nightly", "daily", "zebra"):
        a_pool(app, name)
    with pytest.raises(NotFound) as caught:
        catalogue.get_work_pool(app, "nightli")
    assert caught.value.known[0] == "nightly"


def test_a_pool_is_changed_in_part(app: App) -> None:
    a_pool(app, variables={"exit_code": 3}, concurrency_limit=3)
    sent(app)
    pool = catalogue.update_work_pool(app, "nightly", variables={"seconds": 9}, description="x")
    properties = pool.base_job_template["variables"]["properties"]
    assert (properties["exit_code"]["default"], properties["seconds"]["default"]) == (3, 9)
    assert (pool.concurrency_limit, pool.version) == (3, 2)
    assert sent(app) == []
    pool = catalogue.update_work_pool(app, "nightly", concurrency_limit=None)
    assert app.store.slots("POOL#nightly")[0] is None
    assert len(sent(app)) == 1
    assert catalogue.update_work_pool(app, "nightly") == pool
    with pytest.raises(InvalidInput, match="out of range"):
        catalogue.update_work_pool(app, "nightly", concurrency_limit=-2)
    with pytest.raises(InvalidTemplate):
        catalogue.update_work_pool(app, "nightly", base_job_template={})


def test_a_limit_that_was_not_set_is_made_good(app: App) -> None:
    """The process died between the record and the limit."""
    a_pool(app, concurrency_limit=3)
    app.store.put_limit(replace(app.store.limit_of("POOL#nightly"), slots=None))
    catalogue.update_work_pool(app, "nightly", concurrency_limit=3)
    assert app.store.slots("POOL#nightly")[0] == 3


def test_a_pool_in_use_is_not_deleted(app: App) -> None:
    a_pool(app)
    a_deployment(app)
    put_run(app, "nightly")
    put_run(app, "nightly", "Completed")
    with pytest.raises(InUse) as caught:
        catalogue.delete_work_pool(app, "nightly")
    assert caught.value.users == ("deployment report/hourly", "1 unfinished run")


def test_a_deleted_pool_leaves_nothing(app: App) -> None:
    a_pool(app, concurrency_limit=1)
    catalogue.create_work_queue(app, "nightly", "urgent", concurrency_limit=1)
    put_run(app, "nightly", "Completed")
    catalogue.delete_work_pool(app, "nightly")
    assert catalogue.list_work_queues(app) == []
    assert app.store.slots("POOL#nightly")[0] is None
    assert app.store.slots("QUEUE#nightly/urgent")[0] is None
    with pytest.raises(NotFound):
        catalogue.delete_work_pool(app, "nightly")


def test_a_new_pool_has_none_of_an_old_ones_queues(app: App) -> None:
    """The process died between deleting a pool and deleting its queues."""
    pool = a_pool(app)
    catalogue.create_work_queue(app, "nightly", "urgent", concurrency_limit=1)
    app.store.delete(pool)
    a_pool(app)
    assert [queue.name for queue in catalogue.list_work_queues(app, "nightly")] == ["default"]
    assert app.store.slots("QUEUE#nightly/urgent")[0] is None


# -- work queues


def test_a_queue_without_a_priority_comes_last(app: App) -> None:
    a_pool(app)
    catalogue.create_work_queue(app, "nightly", "urgent", priority=5)
    catalogue.create_work_queue(app, "nightly", "later", concurrency_limit=2)
    assert [(q.name, q.priority) for q in catalogue.list_work_queues(app, "nightly")] == [
        ("default", 1),
        ("urgent", 5),
        ("later", 6),
    ]
    assert app.store.slots("QUEUE#nightly/later")[0] == 2


def test_a_queue_is_changed_in_part(app: App) -> None:
    a_pool(app)
    catalogue.create_work_queue(app, "nightly", "urgent", concurrency_limit=2)
    queue = catalogue.update_work_queue(app, "nightly", "urgent", priority=1, description="first")
    assert (queue.priority, queue.concurrency_limit, queue.description) == (1, 2, "first")
    queue = catalogue.update_work_queue(app, "nightly", "urgent", concurrency_limit=0)
    assert app.store.slots("QUEUE#nightly/urgent")[0] == queue.concurrency_limit == 0


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (
            lambda app: catalogue.create_work_queue(app, "nope", "q"),
            NotFound,
            "work pool 'nope' does not exist; known: n",
        ),
        (
            lambda app: catalogue.create_work_queue(app, "nightly", "default"),
            AlreadyExists,
            "work queue 'nightly/default'",
        ),
        (
            lambda app: catalogue.create_work_queue(app, "nightly", "a b"),
            InvalidInput,
            "'a b' cannot name a work queue",
        ),
        (
            lambda app: catalogue.create_work_queue(app, "nightly", "q", priority=0),
            InvalidInput,
            "a priority of 0 is out",
        ),
        (
            lambda app: catalogue.create_work_queue(app, "nightly", "q", concurrency_limit=-1),
            InvalidInput,
            "limit of -1",
        ),
        (
            lambda app: catalogue.update_work_queue(app, "nightly", "default", priority=-3),
            InvalidInput,
            "priority of -3",
        ),
        (lambda app: catalogue.get_work_queue(app, "nightly", "defalt"), NotFound, "known: nightly/default"),
        (lambda app: catalogue.get_work_queue(app, "nope", "default"), NotFound, "work pool 'nope' does not exist"),
        (lambda app: catalogue.delete_work_queue(app, "nightly", "default"), NotAllowed, "the queue 'default' stays"),
        (lambda app: catalogue.delete_work_queue(app, "nightly", "nope"), NotFound, "work queue 'nightly/nope'"),
    ],
)
def test_a_wrong_queue_is_refused(
    app: App, call: Callable[[App], object], error: type[Exception], sentence: str
) -> None:
    a_pool(app)
    with pytest.raises(error) as caught:
        call(app)
    assert sentence in str(caught.value)


def test_a_queue_in_use_is_not_deleted(app: App) -> None:
    a_pool(app)
    catalogue.create_work_queue(app, "nightly", "urgent")
    a_deployment(app, queue="urgent")
    with pytest.raises(InUse, match=r"work queue 'nightly/urgent' is used by deployment report/hourly; delete or move"):
        catalogue.delete_work_queue(app, "nightly", "urgent")
    catalogue.delete_deployment(app, "report/hourly")
    for number in range(250):
        put_run(app, "nightly", work_queue="default", tags=(str(number),))
    # The oldest comes last, on a page of its own.
    put_run(app, "nightly", work_queue="urgent", scheduled_time=app.clock.now() - timedelta(days=1))
    with pytest.raises(InUse, match="unfinished runs"):
        catalogue.delete_work_queue(app, "nightly", "urgent")


def test_an_unused_queue_is_deleted_with_its_limit(app: App) -> None:
    a_pool(app)
    catalogue.create_work_queue(app, "nightly", "urgent", concurrency_limit=1)
    put_run(app, "nightly", work_queue="default")
    catalogue.delete_work_queue(app, "nightly", "urgent")
    assert app.store.slots("QUEUE#nightly/urgent")[0] is None


# -- deployments


def test_a_deployment_is_found_by_every_name(app: App) -> None:
    a_pool(app)
    deployment = a_deployment(app)
    for ref in ("report/hourly", "hourly", str(deployment.id), str(deployment.id)[:6], deployment.id.hex[:12].upper()):
        assert catalogue.find_deployment(app, ref) == deployment


def test_an_ambiguous_name_lists_what_it_may_be(app: App) -> None:
    a_pool(app)
    first = a_deployment(app)
    second = put_deployment(
        app, DeploymentSpec(name="hourly", flow_name="other", work_pool=DeploymentPoolSpec(name="nightly"))
    )
    with pytest.raises(InvalidInput) as caught:
        catalogue.find_deployment(app, "hourly")
    assert str(caught.value) == (
        f"deployment 'hourly' may be other/hourly ({second.id}), report/hourly ({first.id}); "
        f"write flow/name, or more of the id"
    )


@pytest.mark.parametrize("ref", ["report/hourli", "hourlyy", "", "00000000-0000-0000-0000-000000000000", "zz"])
def test_an_unknown_deployment_names_the_nearest(app: App, ref: str) -> None:
    a_pool(app)
    a_deployment(app)
    with pytest.raises(NotFound, match="known: report/hourly"):
        catalogue.find_deployment(app, ref)


def test_a_deployment_is_paused_with_a_note_and_resumed(app: App) -> None:
    a_pool(app)
    a_deployment(app, schedules=[parse_schedule({"cron": "* * * * *"})])
    sent(app)
    paused = catalogue.pause_deployment(app, "hourly", note="month end")
    assert (paused.is_paused, paused.pause_note) == (True, "month end")
    assert sent(app) == []
    resumed = catalogue.resume_deployment(app, "hourly")
    assert (resumed.is_paused, resumed.pause_note) == (False, "")
    planned = app.store.runs(RunFilter(deployment_id=resumed.id)).runs
    assert [run.scheduled_time > app.clock.now() for run in planned] == [True] * 5


def test_nothing_is_planned_where_no_schedule_is_active(app: App) -> None:
    a_pool(app)
    a_deployment(app, schedules=[parse_schedule({"cron": "@hourly", "active": False})])
    catalogue.resume_deployment(app, "hourly")
    assert sent(app) == []


def test_job_variables_are_set_beside_the_others(app: App) -> None:
    a_pool(app)
    a_deployment(app)
    catalogue.set_job_variables(app, "hourly", {"exit_code": 1})
    assert catalogue.set_job_variables(app, "hourly", {"seconds": 2}).job_variables == {"exit_code": 1, "seconds": 2}
    with pytest.raises(InvalidJobVariables, match="second: there is no such variable; did you mean 'seconds'"):
        catalogue.set_job_variables(app, "hourly", {"second": 2})
    with pytest.raises(InvalidJobVariables, match="exit_code: 300 is greater than the maximum of 255"):
        catalogue.set_job_variables(app, "hourly", {"exit_code": 300})


def test_a_deleted_deployment_leaves_no_limit(app: App) -> None:
    a_pool(app)
    deployment = a_deployment(app, concurrency_limit=1)
    assert app.store.slots(f"DEP#{deployment.id}")[0] == 1
    catalogue.delete_deployment(app, "hourly")
    assert app.store.slots(f"DEP#{deployment.id}")[0] is None
    with pytest.raises(NotFound):
        catalogue.delete_deployment(app, "hourly")


# -- variables


def test_variables_are_set_read_and_unset(app: App) -> None:
    catalogue.set_variable(app, "region", "eu", tags=["a"])
    assert catalogue.set_variable(app, "region", {"name": "us"}).version == 2
    assert catalogue.get_variable(app, "region").value == {"name": "us"}
    assert [variable.name for variable in catalogue.list_variables(app)] == ["region"]
    catalogue.unset_variable(app, "region")
    with pytest.raises(NotFound):
        catalogue.get_variable(app, "region")
    with pytest.raises(NotFound):
        catalogue.unset_variable(app, "region")


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("Region", 1, "'Region' cannot name a variable; write 1 to 255 lower-case letters"),
        ("a.b", 1, "cannot name a variable"),
        ("", 1, "cannot name a variable"),
        ("a", float("nan"), "the value of variable 'a' is not JSON; write text"),
        ("a", {1}, "the value of variable 'a' is not JSON"),
        ("a", "x" * 4999, "has 5001 characters as JSON; at most 5000 are kept"),
    ],
)
def test_a_wrong_variable_is_refused(app: App, name: str, value: Any, sentence: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        catalogue.set_variable(app, name, value)
    assert sentence in str(caught.value)


def test_a_variable_may_not_be_overwritten(app: App) -> None:
    catalogue.set_variable(app, "a", 1, overwrite=False)
    with pytest.raises(AlreadyExists, match="overwrite it"):
        catalogue.set_variable(app, "a", 2, overwrite=False)


# -- owners


@pytest.mark.parametrize(
    "write",
    [
        lambda app, by: catalogue.update_work_pool(app, "nightly", description="x", managed_by=by),
        lambda app, by: catalogue.update_work_queue(app, "nightly", "urgent", description="x", managed_by=by),
        lambda app, by: catalogue.pause_deployment(app, "hourly", managed_by=by),
        lambda app, by: catalogue.resume_deployment(app, "hourly", managed_by=by),
        lambda app, by: catalogue.set_job_variables(app, "hourly", {"seconds": 1}, managed_by=by),
        lambda app, by: catalogue.set_variable(app, "v", 2, managed_by=by),
        lambda app, by: catalogue.unset_variable(app, "v", managed_by=by),
        lambda app, by: catalogue.delete_work_queue(app, "nightly", "urgent", managed_by=by),
        lambda app, by: catalogue.delete_deployment(app, "hourly", managed_by=by),
        lambda app, by: catalogue.delete_work_pool(app, "empty", managed_by=by),
        lambda app, by: put_deployment(
            app,
            DeploymentSpec(name="hourly", flow_name="report", work_pool=DeploymentPoolSpec(name="nightly")),
            managed_by=by,
        ),
    ],
)
def test_only_the_owner_writes(app: App, write: Callable[[App, str | None], object]) -> None:
    owner = "terraform:module.pools"
    a_pool(app, managed_by=owner)
    a_pool(app, "empty", managed_by=owner)
    catalogue.create_work_queue(app, "nightly", "urgent", managed_by=owner)
    put_deployment(
        app,
        DeploymentSpec(name="hourly", flow_name="report", work_pool=DeploymentPoolSpec(name="nightly")),
        managed_by=owner,
    )
    catalogue.set_variable(app, "v", 1, managed_by=owner)
    for other in (None, "terraform:module.other"):
        with pytest.raises((NotAllowed, InvalidInput), match=r"is managed by terraform:module.pools; change it there"):
            write(app, other)
    write(app, owner)


# -- somebody else writes


class BusyStore(MemoryStore):
    """Another writer is faster, so many times."""

    conflicts = 0

    def put(self, record: RecordT) -> RecordT:
        if self.conflicts and record.version:
            self.conflicts -= 1
            stored = self.get(type(record), record.key)
            assert stored is not None
            super().put(stored.model_copy(update={"description": f"theirs {self.conflicts}"}))
        return super().put(record)


@pytest.mark.parametrize("conflicts", [1, MAX_TRIES - 1])
def test_a_change_is_made_anew_on_what_others_wrote(conflicts: int) -> None:
    store = BusyStore()
    app = make_app(store=store)
    a_pool(app)
    store.conflicts = conflicts
    pool = catalogue.update_work_pool(app, "nightly", concurrency_limit=4)
    assert (pool.concurrency_limit, pool.description) == (4, "theirs 0")


def test_a_change_gives_up_in_the_end() -> None:
    store = BusyStore()
    app = make_app(store=store)
    a_pool(app)
    store.conflicts = MAX_TRIES
    with pytest.raises(StoreUnavailable, match="work pool 'nightly' is written to by too many at once; try again"):
        catalogue.update_work_pool(app, "nightly", concurrency_limit=4)


class SlyStore(MemoryStore):
    """Another writer changes every record just before it is deleted."""

    def delete(self, record: Any) -> None:
        super().put(record.model_copy(update={"description": "theirs"}))
        super().delete(record)


def test_a_deletion_gives_up_in_the_end() -> None:
    app = make_app(store=SlyStore())
    a_pool(app)
    with pytest.raises(StoreUnavailable, match="too many at once"):
        catalogue.delete_work_pool(app, "nightly")


class RacingStore(MemoryStore):
    """Somebody else adds the same record between the look and the write."""

    def put(self, record: RecordT) -> RecordT:
        if isinstance(record, WorkPool | WorkQueue) and record.version == 0:
            raise VersionConflict("there is one")
        return super().put(record)


def test_two_creations_at_once_leave_one() -> None:
    with pytest.raises(AlreadyExists):
        a_pool(make_app(store=RacingStore()))


def test_keep_is_not_none() -> None:
    assert KEEP is not None
