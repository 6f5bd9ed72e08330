"""Writes of the catalogue by programs: once however often they are sent, and by their owner only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from push_pools.domain.admin import read_request
from push_pools.domain.deployments import Deployment
from push_pools.domain.errors import InUse, InvalidInput, InvalidJobVariables, NotAllowed, NotFound
from push_pools.domain.pools import BlockDocument, Variable, WorkPool, WorkQueue
from push_pools.services.administer import administer
from push_pools.services.blocks import open_block
from push_pools.services.catalogue import (
    create_work_pool,
    create_work_queue,
    pool_template,
    set_job_variables,
    update_work_pool,
)
from tests.services.catalogue_app import make_app

if TYPE_CHECKING:
    from push_pools.ports import App

OWNER = "terraform:module.jobs"
SPECS: dict[str, tuple[str, dict[str, Any]]] = {
    "work-pool": ("nightly", {"type": "fake", "concurrency_limit": 3, "variables": {"seconds": 9}}),
    "work-queue": ("nightly/urgent", {"priority": 5, "concurrency_limit": 2, "description": "first"}),
    "block": ("secret/token", {"value": "s3cr3t"}),
    "deployment": ("etl/hourly", {"work_pool": {"name": "nightly"}, "parameters": {"n": 1}}),
    "variable": ("region", {"value": "eu", "tags": ["a"]}),
}
KINDS = {
    "work-pool": WorkPool,
    "work-queue": WorkQueue,
    "block": BlockDocument,
    "deployment": Deployment,
    "variable": Variable,
}


@pytest.fixture
def app() -> App:
    return make_app()


def put(app: App, kind: str, name: str, spec: dict[str, Any], **more: Any) -> Any:
    request = {"version": 1, "action": "put", "kind": kind, "name": name, "spec": spec, **more}
    return administer(read_request(request), app)


def delete(app: App, kind: str, name: str, **more: Any) -> Any:
    request = {"version": 1, "action": "delete", "kind": kind, "name": name, **more}
    return administer(read_request(request), app)


def put_all(app: App, **more: Any) -> dict[str, Any]:
    return {kind: put(app, kind, name, spec, **more) for kind, (name, spec) in SPECS.items()}


def stored(app: App, kind: str) -> Any:
    return app.store.get(KINDS[kind], SPECS[kind][0])


def test_every_kind_is_written_and_written_again(app: App) -> None:
    """The id stays; the version only where something changed, or a secret was sealed anew."""
    first, second = put_all(app, managed_by=OWNER), put_all(app, managed_by=OWNER)
    for kind, record in ((kind, stored(app, kind)) for kind in SPECS):
        assert second[kind].id == first[kind].id == (None if kind == "variable" else str(record.id))
        assert second[kind].version == record.version
        assert record.managed_by == OWNER
        if kind != "block":
            assert second[kind].version == first[kind].version
    assert stored(app, "work-pool").concurrency_limit == 3
    assert stored(app, "work-queue").priority == 5
    assert stored(app, "deployment").parameters == {"n": 1}
    assert stored(app, "variable").value == "eu"
    assert open_block(app, first["block"].id).value.get_secret_value() == "s3cr3t"


@pytest.mark.parametrize("kind", list(SPECS))
def test_another_owner_is_refused(app: App, kind: str) -> None:
    put_all(app, managed_by=OWNER)
    name, spec = SPECS[kind]
    for owner in (None, "terraform:module.other"):
        with pytest.raises((NotAllowed, InvalidInput), match=f"managed by {OWNER}"):
            put(app, kind, name, {**spec, "description": "x"} if kind == "work-pool" else spec, managed_by=owner)
        with pytest.raises(NotAllowed, match=f"managed by {OWNER}"):
            delete(app, kind, name, managed_by=owner)


def test_what_nobody_owns_can_be_taken(app: App) -> None:
    put_all(app)
    put_all(app, managed_by=OWNER)
    assert {kind: stored(app, kind).managed_by for kind in SPECS} == dict.fromkeys(SPECS, OWNER)


def test_the_command_line_cannot_change_what_terraform_owns(app: App) -> None:
    put_all(app, managed_by=OWNER)
    with pytest.raises(NotAllowed, match="change it there"):
        update_work_pool(app, "nightly", description="mine")


def test_what_is_deleted_is_gone_and_may_be_deleted_again(app: App) -> None:
    put_all(app, managed_by=OWNER)
    for _ in range(2):
        for kind in reversed(SPECS):
            assert delete(app, kind, SPECS[kind][0], managed_by=OWNER).id is None
    assert not any(stored(app, kind) for kind in SPECS)


def test_what_is_in_use_stays(app: App) -> None:
    put_all(app)
    with pytest.raises(InUse, match="deployment etl/hourly"):
        delete(app, "work-pool", "nightly")


def test_a_deployment_is_deleted_by_its_whole_name(app: App) -> None:
    """Not another one whose name or id begins like it."""
    put_all(app)
    assert delete(app, "deployment", "hourly").id is None
    assert stored(app, "deployment") is not None


# -- Terraform


def terraform(app: App, action: str, kind: str, name: str, spec: dict[str, Any], prev: Any = None) -> Any:
    tf = {"action": action, **({"prev_input": prev} if prev is not None else {})}
    request = {"version": 1, "kind": kind, "name": name, "spec": spec, "managed_by": OWNER, "tf": tf}
    return administer(read_request(request), app)


def test_terraform_creates_updates_and_deletes(app: App) -> None:
    before = {"version": 1, "kind": "variable", "name": "region", "spec": {"value": "eu"}, "managed_by": OWNER}
    terraform(app, "create", "variable", "region", {"value": "eu"})
    terraform(app, "update", "variable", "region", {"value": "us"}, before)
    assert stored(app, "variable").value == "us"
    terraform(app, "delete", "variable", "region", {"value": "us"})
    assert stored(app, "variable") is None


def test_a_new_name_in_terraform_takes_the_place_of_the_old_one(app: App) -> None:
    before = {"version": 1, "kind": "variable", "name": "old", "spec": {"value": 1}, "managed_by": OWNER}
    terraform(app, "create", "variable", "old", {"value": 1})
    for _ in range(2):
        terraform(app, "update", "variable", "new", {"value": 1}, before)
    assert app.store.get(Variable, "old") is None
    new = app.store.get(Variable, "new")
    assert new is not None
    assert new.managed_by == OWNER


def test_a_queue_that_terraform_no_longer_names_is_removed(app: App) -> None:
    spec = {"type": "fake", "work_queues": [{"name": "urgent"}, {"name": "slow"}]}
    before = {"version": 1, "kind": "work-pool", "name": "nightly", "spec": spec, "managed_by": OWNER}
    terraform(app, "create", "work-pool", "nightly", spec)
    terraform(app, "update", "work-pool", "nightly", {"type": "fake", "work_queues": [{"name": "slow"}]}, before)
    assert sorted(queue.name for queue in app.store.list(WorkQueue)) == ["default", "slow"]


def test_an_input_that_could_not_be_read_is_corrected(app: App) -> None:
    """Terraform keeps what was refused as the last input."""
    terraform(app, "update", "variable", "region", {"value": "eu"}, {"kind": "nonsense", "spec": 3})
    assert stored(app, "variable").value == "eu"


def test_a_queue_that_is_in_use_keeps_all_of_an_update_from_being_written(app: App) -> None:
    """Else the pool would be changed and the queue forgotten: Terraform takes the refused input for the last one."""
    spec = {"type": "fake", "work_queues": [{"name": "urgent"}]}
    before = {"version": 1, "kind": "work-pool", "name": "nightly", "spec": spec, "managed_by": OWNER}
    terraform(app, "create", "work-pool", "nightly", spec)
    place = {"name": "nightly", "work_queue_name": "urgent"}
    put(app, "deployment", "etl/hourly", {"work_pool": place})
    changed = {"type": "fake", "concurrency_limit": 7}
    with pytest.raises(InUse, match="deployment etl/hourly"):
        terraform(app, "update", "work-pool", "nightly", changed, before)
    assert stored(app, "work-pool").concurrency_limit is None
    delete(app, "deployment", "etl/hourly")
    terraform(app, "update", "work-pool", "nightly", changed, {**before, "spec": changed})
    assert [queue.name for queue in app.store.list(WorkQueue)] == ["default"]
    assert stored(app, "work-pool").concurrency_limit == 7


def test_queues_that_nobody_manages_stay_in_a_pool_of_terraform_s(app: App) -> None:
    terraform(app, "create", "work-pool", "nightly", {"type": "fake"})
    create_work_queue(app, "nightly", "by-hand")
    terraform(app, "update", "work-pool", "nightly", {"type": "fake", "description": "x"})
    assert [queue.name for queue in app.store.list(WorkQueue)] == ["by-hand", "default"]


@pytest.mark.parametrize("kind", list(SPECS))
def test_a_module_that_is_renamed_keeps_its_records(app: App, kind: str) -> None:
    put_all(app, managed_by=OWNER)
    name, spec = SPECS[kind]
    before = {"version": 1, "kind": kind, "name": name, "spec": spec, "managed_by": "terraform:module.stranger"}
    request = {"version": 1, "kind": kind, "name": name, "spec": spec, "managed_by": "terraform:module.renamed"}
    with pytest.raises((NotAllowed, InvalidInput), match=f"managed by {OWNER}"):
        administer(read_request({**request, "tf": {"action": "update", "prev_input": before}}), app)
    before["managed_by"] = OWNER
    for _ in range(2):
        administer(read_request({**request, "tf": {"action": "update", "prev_input": before}}), app)
    assert stored(app, kind).managed_by == "terraform:module.renamed"
    if kind == "work-pool":
        owners = {queue.name: queue.managed_by for queue in app.store.list(WorkQueue)}
        assert owners["default"] == "terraform:module.renamed"


# -- what is left to others


OPEN = {"work_pool": {"name": "nightly", "job_variables": {"seconds": 1}, "open_job_variables": ["seconds"]}}


def test_an_update_keeps_what_others_have_set(app: App) -> None:
    put(app, "work-pool", "nightly", {"type": "fake"}, managed_by=OWNER)
    put(app, "deployment", "etl/hourly", OPEN, managed_by=OWNER)
    assert stored(app, "deployment").job_variables == {"seconds": 1}
    set_job_variables(app, "etl/hourly", {"seconds": 5})
    changed = {
        **OPEN,
        "description": "x",
        "work_pool": {**OPEN["work_pool"], "job_variables": {"seconds": 2, "exit_code": 1}},
    }
    put(app, "deployment", "etl/hourly", changed, managed_by=OWNER)
    assert stored(app, "deployment").job_variables == {"seconds": 5, "exit_code": 1}
    put(
        app,
        "deployment",
        "etl/hourly",
        {"work_pool": {"name": "nightly", "job_variables": {"seconds": 3}}},
        managed_by=OWNER,
    )
    assert stored(app, "deployment").job_variables == {"seconds": 3}


def test_a_new_name_keeps_what_others_have_set(app: App) -> None:
    put(app, "work-pool", "nightly", {"type": "fake"}, managed_by=OWNER)
    before = {"version": 1, "kind": "deployment", "name": "etl/hourly", "spec": OPEN, "managed_by": OWNER}
    terraform(app, "create", "deployment", "etl/hourly", OPEN)
    set_job_variables(app, "etl/hourly", {"seconds": 5})
    for _ in range(2):
        terraform(app, "update", "deployment", "etl/daily", OPEN, before)
    (left,) = app.store.list(Deployment)
    assert (left.key, left.job_variables) == ("etl/daily", {"seconds": 5})


def test_only_what_is_left_to_others_may_be_set_by_others(app: App) -> None:
    put(app, "work-pool", "nightly", {"type": "fake"}, managed_by=OWNER)
    put(app, "deployment", "etl/hourly", OPEN, managed_by=OWNER)
    with pytest.raises(NotAllowed) as caught:
        set_job_variables(app, "etl/hourly", {"seconds": 5, "exit_code": 1})
    assert str(caught.value) == (
        f"deployment 'etl/hourly' is managed by {OWNER}; change it there: "
        "it leaves only seconds to others, not exit_code"
    )
    assert stored(app, "deployment").job_variables == {"seconds": 1}
    with pytest.raises(InvalidJobVariables):
        set_job_variables(app, "etl/hourly", {"seconds": "many"})


def test_a_value_that_others_set_is_checked_when_the_pool_changes(app: App) -> None:
    """The owner is told, since the deployment could not run."""
    put(app, "work-pool", "nightly", {"type": "fake"}, managed_by=OWNER)
    put(app, "deployment", "etl/hourly", OPEN, managed_by=OWNER)
    set_job_variables(app, "etl/hourly", {"seconds": 5})
    template = pool_template(app, "fake", None, {})
    template["variables"]["properties"]["seconds"] = {"type": "string"}
    put(app, "work-pool", "other", {"type": "fake", "base_job_template": template}, managed_by=OWNER)
    moved = {"work_pool": {"name": "other", "open_job_variables": ["seconds"]}}
    with pytest.raises(InvalidInput, match=r"job_variables\.seconds: 5 is not of type 'string'"):
        put(app, "deployment", "etl/hourly", moved, managed_by=OWNER)


# -- refusals


@pytest.mark.parametrize(
    ("request_", "say"),
    [
        ({}, "kind"),
        ({"kind": "pool", "name": "a", "action": "put"}, "kind"),
        ({"kind": "variable", "name": "a"}, 'add "action": "put" or "action": "delete"'),
        ({"kind": "variable", "name": "", "action": "put"}, "name"),
        ({"kind": "variable", "name": "a", "action": "put", "version": 2}, "version"),
        ({"kind": "variable", "name": "a", "action": "put", "extra": 1}, "extra"),
        ({"kind": "variable", "name": "a", "tf": {"action": "destroy"}}, "tf.action"),
    ],
)
def test_a_request_that_cannot_be_read_is_refused(request_: dict[str, Any], say: str) -> None:
    with pytest.raises(InvalidInput, match=say.replace("(", r"\(")):
        read_request(request_)


@pytest.mark.parametrize(
    ("kind", "name", "spec", "say"),
    [
        ("work-queue", "urgent", {}, "'urgent' does not address a work-queue; write pool/queue"),
        ("block", "secret", {}, "write type/name"),
        ("deployment", "a/b/c", {}, "write flow/name"),
        ("variable", "a", {}, "value is missing"),
        ("variable", "a", {"valu": 1}, "there is no 'valu'"),
        ("variable", "a", {"value": 1, "tags": "x"}, "tags: it is a list of texts"),
        ("work-pool", "a", {"type": "fake", "base_job_template": "x.json"}, "not the name of a file"),
        ("work-pool", "a", {"type": "fake", "name": "b"}, "the request names 'a'; leave it out here"),
        ("work-pool", "a", {}, "spec.type: it is missing"),
        ("work-pool", "a", {"type": "fake", "concurrency_limit": -1}, "spec.concurrency_limit"),
        ("deployment", "a", {"work_pool": {"name": "nope"}}, "work pool 'nope' does not exist"),
        (
            "deployment",
            "a",
            {"work_pool": {"name": "nightly", "open_job_variables": ["second"]}},
            "did you mean 'seconds'",
        ),
        ("deployment", "a", {"work_pool": {"name": "nightly", "open_job_variables": "image"}}, "it is a list of names"),
        ("block", "secret/token", {"value": 3}, "the value, which is not shown"),
        ("block", "secret/token", {"valu": "canary"}, "no field 'valu'"),
    ],
)
def test_a_wrong_write_is_refused_as_the_command_line_refuses_it(
    app: App, kind: str, name: str, spec: dict[str, Any], say: str
) -> None:
    create_work_pool(app, "nightly", "fake")
    with pytest.raises(InvalidInput, match=say) as caught:
        put(app, kind, name, spec)
    assert "canary" not in str(caught.value)


def test_a_pool_that_is_not_there_has_no_queues(app: App) -> None:
    with pytest.raises(NotFound, match="work pool 'nope' does not exist"):
        put(app, "work-queue", "nope/urgent", {})


def test_a_record_that_somebody_makes_at_the_same_time_is_updated(app: App) -> None:
    """The second of two creates that race finds the record there."""
    create_work_pool(app, "nightly", "fake")
    get = app.store.get
    missed: list[str] = []

    def miss_once(kind: Any, key: str) -> Any:
        if kind in (WorkQueue, BlockDocument) and key not in missed and "/" in key:
            missed.append(key)
            return None
        return get(kind, key)

    for kind in ("work-queue", "block"):
        put(app, kind, *SPECS[kind])
    app.store.get = miss_once  # type: ignore[method-assign]
    for kind in ("work-queue", "block"):
        put(app, kind, *SPECS[kind])
    assert missed == ["nightly/urgent", "secret/token"]
