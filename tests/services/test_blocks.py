"""Blocks: what is stored is encrypted, what is shown is redacted, and what is opened is typed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest
from pydantic import BaseModel, SecretStr

from push_pools.domain.config import DeploymentPoolSpec, DeploymentSpec
from push_pools.domain.errors import AlreadyExists, InUse, InvalidInput, NotAllowed, NotFound
from push_pools.domain.runs import Job, JobHandle, Phase
from push_pools.domain.schedules import parse_schedule
from push_pools.domain.secrets import SecretRef
from push_pools.services import blocks
from push_pools.services.catalogue import create_work_pool, delete_deployment
from push_pools.services.deploy import put_deployment
from push_pools.testing.clocks import ManualClock
from push_pools.vault.local import LocalVault

from .catalogue_app import make_app, put_run

if TYPE_CHECKING:
    from push_pools.domain.pools import BlockDocument
    from push_pools.ports import App

CANARY = "canary-5f1d"
KEYS = {"aws_access_key_id": "AKIAX", "aws_secret_access_key": CANARY, "region_name": "eu-west-1"}


class Nested(BaseModel):
    """A plug-in's type, with secrets inside."""

    login: str
    tokens: dict[str, SecretStr] = {}
    more: list[SecretStr] = []
    ttl: int = 60


def types(slug: str) -> type[BaseModel]:
    from push_pools.credentials import block_class

    return Nested if slug == "nested" else block_class(slug)


class CountingVault(LocalVault):
    """Counts how often it is opened."""

    opened = 0

    def decrypt(self, sealed: str, context: Any) -> bytes:
        self.opened += 1
        return super().decrypt(sealed, context)


@pytest.fixture
def vault() -> CountingVault:
    return CountingVault.from_key(bytes(32))


@pytest.fixture
def app(vault: CountingVault) -> App:
    return make_app(vault=vault, block_types=types)


def aws(app: App, name: str = "prod", **data: Any) -> BlockDocument:
    return blocks.create_block(app, "aws-credentials", name, {**KEYS, **data})


# -- what is stored and shown


def test_secret_fields_are_encrypted_and_others_are_not(app: App) -> None:
    block = aws(app)
    assert (block.data["aws_access_key_id"], block.data["region_name"]) == ("AKIAX", "eu-west-1")
    assert block.data["aws_secret_access_key"].keys() == {"$encrypted"}
    assert set(block.data) == set(KEYS)
    assert CANARY not in block.model_dump_json()


def test_nothing_that_is_written_or_shown_holds_a_secret(app: App) -> None:
    """The canaries are in no record, listing, inspection, reference or repr."""
    aws(app)
    nested = {"login": "me", "tokens": {"a": CANARY}, "more": [CANARY]}
    blocks.create_block(app, "nested", "deep", nested)
    load = blocks.load_block(app)
    shown = [
        *(record.model_dump_json() for record in blocks.list_blocks(app)),
        json.dumps(blocks.inspect_block(app, "aws-credentials/prod")),
        json.dumps(blocks.inspect_block(app, "nested/deep")),
        repr(load("aws-credentials", "prod")),
        repr(load("nested", "deep")),
        repr(blocks.open_block(app, str(blocks.find_block(app, "nested/deep").id))),
        repr(blocks.redact({"a": SecretStr(CANARY), "b": [SecretStr(CANARY)]})),
        repr(vars(app)),
    ]
    assert not [text for text in shown if CANARY in text]


def test_an_inspected_block_has_stars(app: App) -> None:
    block = aws(app)
    shown = blocks.inspect_block(app, "aws-credentials/prod")
    assert shown["data"] == {**KEYS, "aws_secret_access_key": "********"}
    assert shown["id"] == str(block.id)


def test_a_block_is_found_by_name_id_or_its_beginning(app: App) -> None:
    block = aws(app)
    for ref in ("aws-credentials/prod", str(block.id), str(block.id)[:8]):
        assert blocks.find_block(app, ref) == block
    with pytest.raises(NotFound, match="block 'aws-credentials/prd' does not exist; known: aws-credentials/prod"):
        blocks.find_block(app, "aws-credentials/prd")
    app.store.put(block.model_copy(update={"id": UUID(int=block.id.int ^ 1), "name": "other", "version": 0}))
    with pytest.raises(InvalidInput, match="write more of the id"):
        blocks.find_block(app, str(block.id)[:8])


@pytest.mark.parametrize(
    ("slug", "name", "data", "error", "sentence"),
    [
        ("aws-credential", "a", {}, NotFound, "block type 'aws-credential' does not exist; known: aws-credentials"),
        (
            "aws-credentials",
            "A",
            {},
            InvalidInput,
            "'A' cannot name a block; write lower-case letters, digits and dashes",
        ),
        ("aws-credentials", "a.b", {}, InvalidInput, "'a.b' cannot name a block"),
        (
            "aws-credentials",
            "a",
            {"region": "x"},
            InvalidInput,
            "there is no field 'region'; did you mean 'region_name'?",
        ),
        ("secret", "a", {}, InvalidInput, "secret.value: it is missing; add it"),
        (
            "secret",
            "a",
            {"value": [CANARY]},
            InvalidInput,
            "secret.value: the value, which is not shown, does not fit; write",
        ),
        (
            "nested",
            "a",
            {"login": {"x": CANARY}},
            InvalidInput,
            "nested.login: the value, which is not shown, does not fit",
        ),
        ("nested", "a", {"login": "x", "ttl": CANARY}, InvalidInput, "nested.ttl: the value, which is not shown"),
        (
            "nested",
            "a",
            {"login": "x", "tokens": {"a": [CANARY]}},
            InvalidInput,
            "nested.tokens.a: the value, which is",
        ),
    ],
)
def test_a_wrong_block_is_refused_without_its_values(
    app: App, slug: str, name: str, data: dict[str, Any], error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error) as caught:
        blocks.create_block(app, slug, name, data)
    assert sentence in str(caught.value)
    assert CANARY not in str(caught.value)
    assert caught.value.__cause__ is None
    assert blocks.list_blocks(app) == []


def test_a_name_is_taken_once(app: App) -> None:
    aws(app)
    with pytest.raises(
        AlreadyExists, match="block 'aws-credentials/prod' already exists; pick another name, or replace"
    ):
        aws(app)


def test_a_replaced_block_keeps_its_id(app: App) -> None:
    block = aws(app)
    replaced = blocks.replace_block(app, "aws-credentials/prod", {"region_name": "us-east-1"})
    assert (replaced.id, replaced.version, replaced.data) == (block.id, 2, {"region_name": "us-east-1"})
    with pytest.raises(InvalidInput, match="no field"):
        blocks.replace_block(app, "aws-credentials/prod", {"x": 1})
    with pytest.raises(NotFound):
        blocks.replace_block(app, "aws-credentials/nope", {})


def test_only_the_owner_writes(app: App) -> None:
    blocks.create_block(app, "secret", "a", {"value": "x"}, managed_by="terraform:m")
    with pytest.raises(NotAllowed, match="block 'secret/a' is managed by terraform:m; change it there"):
        blocks.replace_block(app, "secret/a", {"value": "y"})
    with pytest.raises(NotAllowed, match="managed by"):
        blocks.delete_block(app, "secret/a")
    blocks.delete_block(app, "secret/a", managed_by="terraform:m")


# -- while rendering


def test_templates_get_references(app: App) -> None:
    block = aws(app)
    load = blocks.load_block(app)
    expected = {
        **KEYS,
        "aws_secret_access_key": SecretRef(str(block.id), "aws_secret_access_key"),
        "$block_document_id": str(block.id),
    }
    assert load("aws-credentials", "prod") == load(None, str(block.id)) == expected


def test_secrets_inside_have_paths(app: App) -> None:
    block = blocks.create_block(app, "nested", "deep", {"login": "me", "tokens": {"a": "1"}, "more": ["2"]})
    data = blocks.load_block(app)("nested", "deep")
    assert data["tokens"] == {"a": SecretRef(str(block.id), "tokens.a")}
    assert data["more"] == [SecretRef(str(block.id), "more.0")]


@pytest.mark.parametrize(
    ("slug", "name", "sentence"),
    [
        ("aws-credentials", "prd", "block 'aws-credentials/prd' does not exist; known: aws-credentials/prod"),
        ("aws-credential", "prod", "block type 'aws-credential' does not exist; known: aws-credentials"),
        (None, str(UUID(int=0)), "block '00000000-0000-0000-0000-000000000000' does not exist; known: "),
        (None, "no-id", "block 'no-id' does not exist; known: "),
    ],
)
def test_an_unknown_block_names_the_nearest(app: App, slug: str | None, name: str, sentence: str) -> None:
    aws(app)
    with pytest.raises(NotFound) as caught:
        blocks.load_block(app)(slug, name)
    assert sentence in str(caught.value)


# -- opening


def test_an_opened_block_is_an_instance_of_its_type(app: App) -> None:
    opened = blocks.open_block(app, str(aws(app).id))
    assert isinstance(opened.aws_secret_access_key, SecretStr)
    assert opened.aws_secret_access_key.get_secret_value() == CANARY
    assert opened.region_name == "eu-west-1"
    assert blocks.open_block(app, None) is None


def test_secrets_inside_are_opened(app: App) -> None:
    block = blocks.create_block(app, "nested", "deep", {"login": "me", "tokens": {"a": "ä"}, "more": ["2"]})
    opened = blocks.open_block(app, str(block.id))
    assert opened.tokens["a"].get_secret_value() == "ä"
    assert opened.more[0].get_secret_value() == "2"


def test_an_opened_block_is_kept_for_five_minutes(app: App, vault: CountingVault) -> None:
    clock = app.real_clock
    assert isinstance(clock, ManualClock)
    id_ = str(aws(app).id)
    first = blocks.open_block(app, id_)
    clock.advance(299)
    assert blocks.open_block(app, id_) is first
    assert vault.opened == 1
    clock.advance(1)
    assert blocks.open_block(app, id_) == first
    assert vault.opened == 2


def test_a_changed_block_is_opened_anew(app: App) -> None:
    id_ = str(aws(app).id)
    blocks.open_block(app, id_)
    blocks.replace_block(app, id_, {"aws_access_key_id": "AKIAY", "aws_secret_access_key": "fresh"})
    assert blocks.open_block(app, id_).aws_secret_access_key.get_secret_value() == "fresh"
    blocks.delete_block(app, id_)
    with pytest.raises(NotFound):
        blocks.open_block(app, id_)


def test_two_ledgers_do_not_share_what_is_opened(app: App) -> None:
    block = blocks.create_block(app, "secret", "a", {"value": "one"})
    other = make_app(vault=app.vault)
    other.store.put(block.model_copy(update={"version": 0, "data": {"value": "two"}}))
    assert blocks.open_block(app, str(block.id)).value.get_secret_value() == "one"
    assert blocks.open_block(other, str(block.id)).value.get_secret_value() == "two"


def test_few_blocks_are_kept(app: App) -> None:
    for number in range(blocks.MAX_CACHED + 5):
        blocks.open_block(app, str(blocks.create_block(app, "secret", f"s-{number}", {"value": "x"}).id))
    assert len(blocks._opened._kept) <= blocks.MAX_CACHED


def test_a_secret_of_another_block_is_refused(app: App) -> None:
    first, second = aws(app), aws(app, "other")
    stolen = {**second.data, "aws_secret_access_key": first.data["aws_secret_access_key"]}
    app.store.put(second.model_copy(update={"data": stolen}))
    with pytest.raises(NotAllowed, match="changed, or was copied from another block"):
        blocks.open_block(app, str(second.id))


def test_a_secret_of_another_field_of_the_block_is_refused(app: App) -> None:
    block = blocks.create_block(app, "nested", "deep", {"login": "me", "tokens": {"a": "1", "b": "2"}})
    tokens = block.data["tokens"]
    app.store.put(block.model_copy(update={"data": {**block.data, "tokens": {"a": tokens["b"], "b": tokens["a"]}}}))
    with pytest.raises(NotAllowed, match="changed, or was copied"):
        blocks.open_block(app, str(block.id))


def test_data_that_does_not_fit_any_more_is_refused_without_values(app: App) -> None:
    block = blocks.create_block(app, "nested", "deep", {"login": "me"})
    app.store.put(block.model_copy(update={"data": {"login": [CANARY]}}))
    with pytest.raises(InvalidInput, match="block 'nested/deep' does not fit its type any more: login: ") as caught:
        blocks.open_block(app, str(block.id))
    assert CANARY not in str(caught.value)


# -- deleting


def deployment(app: App, **fields: Any) -> None:
    spec = DeploymentSpec(name="hourly", work_pool=DeploymentPoolSpec(name="p", **fields.pop("pool", {})), **fields)
    put_deployment(app, spec)


@pytest.mark.parametrize("how", ["pool by name", "deployment by name", "deployment by id", "schedule"])
def test_a_block_that_is_named_is_not_deleted(app: App, how: str) -> None:
    block = aws(app)
    by_name, by_id = "{{ blocks.aws-credentials.prod.region_name }}", {"$ref": {"block_document_id": str(block.id)}}
    create_work_pool(app, "p", "fake", variables={"name": by_name} if how == "pool by name" else {})
    if how == "deployment by name":
        deployment(app, pool={"job_variables": {"env": {"R": f"x {by_name}"}}})
    if how == "deployment by id":
        deployment(app, pool={"job_variables": {"name": by_id}})
    if how == "schedule":
        deployment(app, schedules=[parse_schedule({"cron": "@daily", "job_variables": {"name": by_name}})])
    user = "work pool p" if how == "pool by name" else "deployment hourly/hourly"
    with pytest.raises(InUse) as caught:
        blocks.delete_block(app, "aws-credentials/prod")
    assert caught.value.users == (user,)


def test_a_block_that_a_running_job_needs_is_not_deleted(app: App) -> None:
    block = aws(app)
    now = app.clock.now()
    handle = JobHandle(key="k", platform="fake", credential_block_id=str(block.id))
    run = put_run(app, "p", job=Job(handle=handle, request={}, intent_at=now, call_until=now))
    app.store.save(run, run.evolve(phase=Phase.STARTED))
    with pytest.raises(InUse, match=f"active flow run {run.id}"):
        blocks.delete_block(app, "aws-credentials/prod")


def test_an_unused_block_is_deleted(app: App) -> None:
    block = aws(app)
    aws(app, "prod-2")
    create_work_pool(app, "p", "fake", variables={"name": "{{ blocks.aws-credentials.prod-2.region_name }}"})
    deployment(app, pool={"job_variables": {"name": {"$ref": {"block_document_id": str(uuid4())}}}})
    blocks.delete_block(app, str(block.id))
    delete_deployment(app, "hourly")
    assert [each.name for each in blocks.list_blocks(app)] == ["prod-2"]
