"""Job configurations: generated templates, checked variables, and preparing a job for its run."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, SecretStr
from pydantic import ValidationError as PydanticError

from push_pools.domain.errors import InvalidJobVariables, InvalidTemplate, NotFound
from push_pools.domain.jobs import (
    SERVICE_ENV,
    BaseJobConfiguration,
    BaseVariables,
    DeploymentInfo,
    FlowInfo,
    FlowRunInfo,
    WorkPoolInfo,
    default_base_job_template,
    explain_job_variables,
    merge_job_variables,
    split_command,
    validate_base_job_template,
    validate_job_variables,
)
from push_pools.domain.secrets import SecretRef
from push_pools.domain.templates import BLOCK_ID_KEY

if TYPE_CHECKING:
    from collections.abc import Callable

SECRET = SecretRef("b1", "value")
CANARY = "canary-4711"
RUN = FlowRunInfo(
    id=UUID("8d3e0f1a-6a4b-4d57-9b7e-1c2d3e4f5a6b"),
    name="keen-owl",
    attempt=2,
    scheduled_time=datetime(2026, 1, 2, 4, 5, tzinfo=timezone(timedelta(hours=1))),
    parameters={"region": "eu", "n": 3, "note": "two words", "none": None, "deep": {"list": [True]}},
)
DEPLOYMENT = DeploymentInfo(id=UUID(int=7), name="hourly", flow_name="report")
FLOW = FlowInfo(name="report")
POOL = WorkPoolInfo(name="nightly", type="ecs:push")


class Limits(BaseModel):
    """Limits of the job."""

    memory: int = 512
    note: str = ""


class Job(BaseJobConfiguration):
    image: str = "acme:1"
    cpu: int | None = None
    args: list[str] | None = None
    limits: Limits | None = None
    request: dict[str, Any] = Field(default_factory=dict)


class Variables(BaseVariables):
    image: str = "acme:1"
    cpu: int | None = None
    args: list[str] | None = None
    limits: Limits | None = None
    request: dict[str, Any] = Field(default_factory=dict)


TEMPLATE = default_base_job_template(Job, Variables)


def template(configuration: dict[str, Any], **properties: Any) -> dict[str, Any]:
    return {"job_configuration": configuration, "variables": {"type": "object", "properties": properties}}


def job(values: dict[str, Any], base: dict[str, Any] = TEMPLATE, **options: Any) -> Job:
    return Job.from_template_and_values(base, values, **options)


def prepared(values: dict[str, Any], base: dict[str, Any] = TEMPLATE) -> Job:
    made = job(values, base)
    made.prepare_for_flow_run(RUN, DEPLOYMENT, FLOW, POOL)
    return made


def blocks(documents: dict[str, Any]) -> Callable[[str | None, str], dict[str, Any]]:
    def load(type_slug: str | None, name: str) -> dict[str, Any]:
        key = f"{type_slug}/{name}" if type_slug else name
        if key not in documents:
            raise NotFound("block", key)
        found: dict[str, Any] = documents[key]
        return found

    return load


def problems(call: Callable[[], object]) -> list[str]:
    with pytest.raises(InvalidJobVariables) as caught:
        call()
    return list(caught.value.problems)


# -- generated templates -------------------------------------------------------


def test_a_generated_template_renders_with_no_values_given() -> None:
    validate_base_job_template(TEMPLATE)
    validate_job_variables(TEMPLATE, {})
    made = job({})
    assert (made.image, made.cpu, made.command, made.env) == ("acme:1", None, None, {})


def test_the_guides_units_come_from_the_fields_template() -> None:
    class Units(BaseJobConfiguration):
        memory: str = Field(default="1024Mi", json_schema_extra={"template": "{{ memory_request }}Mi"})

    class UnitVariables(BaseVariables):
        memory_request: int = 1024

    generated = default_base_job_template(Units, UnitVariables)
    assert generated["job_configuration"]["memory"] == "{{ memory_request }}Mi"
    assert Units.from_template_and_values(generated, {"memory_request": 9}).memory == "9Mi"
    with pytest.raises(InvalidTemplate, match=r"{{ memory_request }} in the job configuration is not declared"):
        validate_base_job_template(default_base_job_template(Units))


def test_the_generated_template_is_a_copy() -> None:
    class Body(BaseJobConfiguration):
        body: dict[str, Any] = Field(default_factory=dict, json_schema_extra={"template": {"k": ["{{ name }}"]}})

    default_base_job_template(Body)["job_configuration"]["body"]["k"].append("changed")
    assert Body.json_template()["body"] == {"k": ["{{ name }}"]}


def test_the_entries_for_secrets_are_not_part_of_the_template() -> None:
    assert "secret_env" not in TEMPLATE["job_configuration"]
    assert "secret_env" not in default_base_job_template(Job)["variables"]["properties"]


def test_the_examples_of_the_documentation_work() -> None:
    text = (Path(__file__).parents[2] / "docs" / "templates.md").read_text()
    names: dict[str, Any] = {}
    exec(compile(text.split("```python\n")[1].split("```")[0], "templates.md", "exec", dont_inherit=True), names)
    validate_base_job_template(names["template"])
    made = names["MyJobConfiguration"].from_template_and_values(names["template"], {"memory_request": 9})
    made.prepare_for_flow_run(RUN)
    assert (made.memory, made.labels["my-label"]) == ("9Mi", "1")
    written = json.loads(text.split("```json\n")[1].split("```")[0])
    validate_base_job_template(written)
    validate_job_variables(written, {"image": "acme:1"})


# -- checking templates --------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        (None, "needs an object under 'job_configuration'"),
        ({"variables": {}}, "needs an object under 'job_configuration'"),
        ({"job_configuration": {}}, "needs an object under 'variables'"),
        ({"job_configuration": [], "variables": {}}, "needs an object under 'job_configuration'"),
        (template({"a": "{{ imge }}"}, image={}), "{{ imge }} .* not declared .*; did you mean 'image'"),
        (template({"a": ["x{{ zzz.k }}"]}, image={}), "{{ zzz.k }} .* not declared .*; declare it there"),
        (template({"a": "{{ ctx.flow_run.nope }}"}), "names nothing; there is ctx.flow_run.id, .*ctx.parameters.NAME"),
        (template({"a": "{{ ctx.parameters. }}"}), "names nothing"),
        (template({"a": {"$ref": "#/x"}}), '"\\$ref" names a block by its id'),
        (template({"a": [{"b": {"$ref": None}}]}), '"\\$ref" names a block by its id'),
        (template({}, a={"type": "nonsense"}), "variables.properties.a.type is not a JSON schema"),
        (template({}, a={"pattern": "("}), "variables.properties.a.pattern is not a JSON schema"),
        (template({}, a=7), "variables.properties.a is not a JSON schema"),
    ],
)
def test_a_bad_template_is_refused_with_the_fix(bad: Any, sentence: str) -> None:
    with pytest.raises(InvalidTemplate, match=sentence):
        validate_base_job_template(bad)


def test_what_a_template_may_name() -> None:
    validate_base_job_template(
        template(
            {
                "a": "{{ image }}{{ resources.cpu }}{{ list[0] }}{{ $HOME }}",
                "b": "{{ ctx.flow_run.id }}{{ ctx.parameters.anything }}{{ ctx.work_pool.name }}",
                "c": "{{ prefect.blocks.x }}{{ blocks.a.b }}{{ prefect.variables.v }}{{ variables.v }}",
                "d": {"$ref": {"block_document_id": "id"}},
            },
            image={},
            resources={},
            list={},
        )
    )


def test_a_template_without_its_sections_is_an_error_of_the_template_everywhere() -> None:
    for call in (
        lambda: job({}, {}),
        lambda: validate_job_variables({}, {}),
        lambda: explain_job_variables({"job_configuration": {}}, []),
    ):
        with pytest.raises(InvalidTemplate, match="a base job template needs an object"):
            call()


# -- checking values -----------------------------------------------------------

SCHEMA = template(
    {},
    image={"type": "string", "pattern": "^[a-z:0-9/.]+$"},
    cpu={"anyOf": [{"type": "integer"}, {"type": "null"}], "default": None},
    memory={"type": "integer", "minimum": 128, "default": 512},
    size={"type": "integer", "default": 3},
    kind={"anyOf": [{"type": "string", "enum": ["spot", "plain"]}, {"type": "integer"}]},
    region={"type": "string"},
    env={"type": "object", "additionalProperties": {"anyOf": [{"type": "string"}, {"type": "null"}]}},
    labels={"type": "object", "additionalProperties": {"type": "string"}},
    command={"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}, {"type": "null"}]},
    token={"type": "string", "format": "password", "maxLength": 3},
    hidden={"type": "integer", "writeOnly": True},
    marked={"type": "integer", "secret": True},
    registry={"anyOf": [{"$ref": "#/definitions/Registry"}, {"type": "null"}]},
    login={"$ref": "#/$defs/Login"},
    sealed={"$ref": "#/$defs/Indirect", "writeOnly": True},
    indirect={"$ref": "#/$defs/Indirect"},
    store={
        "anyOf": [
            {"type": "object", "required": ["port"], "properties": {"port": {"type": "integer"}}},
            {"type": "object", "required": ["host"], "properties": {"host": {"type": "string"}}},
        ]
    },
    volumes={
        "type": "array",
        "items": {"type": "object", "required": ["name"], "properties": {"size": {"type": "integer"}}},
    },
)
SCHEMA["variables"]["required"] = ["region", "memory"]
SCHEMA["variables"]["additionalProperties"] = False
SCHEMA["variables"]["definitions"] = {
    "Registry": {
        "type": "object",
        "required": ["url"],
        "additionalProperties": False,
        "properties": {
            "url": {"type": "string"},
            "port": {"type": "integer"},
            "password": {"type": "string", "format": "password"},
        },
    }
}
SCHEMA["variables"]["$defs"] = {
    "Indirect": {"$ref": "#/$defs/Number"},
    "Number": {"type": "integer"},
    "Login": {
        "type": "object",
        "secret_fields": ["key.*"],
        "properties": {"key": {"type": "object"}, "user": {"type": "string"}},
    },
}


def check(values: dict[str, Any], **options: Any) -> None:
    validate_job_variables(SCHEMA, values, **({"require": False} | options))


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"cpu": 4, "image": "acme:1", "kind": "spot"},
        {"cpu": None, "image": None, "registry": None},
        {"env": {"A": 1, "B": True, "C": None, "D": 1.5, "E": "x"}},
        {"env.A": 1, "labels.team": "x"},
        {"command": "a 'b c'"},
        {"command": ["a", "b"]},
        {"cpu": "{{ variables.cpu }}", "memory": "{{ prefect.blocks.sizes.big.memory }}"},
        {"cpu": "{{ ctx.parameters.cpu }}", "kind": "{{ blocks.a.b }}"},
        {"registry": {"$ref": {"block_document_id": "id"}}, "login": {"$ref": {"block_document_id": "id"}}},
        {"registry": "{{ blocks.docker.hub }}", "volumes": "{{ variables.volumes }}"},
        {"registry": {"url": "{{ variables.url }}", "password": "{{ blocks.secret.x }}"}},
        {"volumes": [{"name": "a", "size": "{{ variables.size }}"}]},
        {"store": {"port": "{{ variables.port }}"}},
        {"registry": {"url": "x", "port": "{{ variables.port }}"}},
        {"token": SECRET, "hidden": SECRET.as_json()},
    ],
)
def test_values_that_fit(values: dict[str, Any]) -> None:
    check(values)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"cpus": 1}, "cpus: there is no such variable; did you mean 'cpu'?"),
        ({"zzz.a": 1}, "zzz: there is no such variable; known: command, cpu, env, hidden, image, indirect"),
        ({"cpu": "lots"}, "cpu: 'lots' is not of type 'integer' (schema: {\"type\": \"integer\"})"),
        ({"cpu": "{{ a }}"}, "cpu: '{{ a }}' is not of type 'integer'"),
        ({"cpu": "{{ $A }}"}, "cpu: '{{ $A }}' is not of type 'integer'"),
        ({"cpu": "x{{ variables.a }}"}, "cpu: 'x{{ variables.a }}' is not of type 'integer'"),
        ({"memory": 1}, "memory: 1 is less than the minimum of 128"),
        ({"size": None}, "size: None is not of type 'integer'"),
        ({"memory": None}, "memory: None is not of type 'integer'"),
        ({"image": "A B"}, "image: 'A B' does not match"),
        ({"kind": "odd"}, "kind: 'odd' is not valid under any of the given schemas (schema: {\"anyOf\""),
        ({"labels": {"a": 1}}, "labels.a: 1 is not of type 'string'"),
        ({"labels": "x"}, "labels: 'x' is not of type 'object'"),
        ({"env": {"A": ["x"]}}, "env.A: the value, which is not shown, breaks 'type'"),
        ({"env": "x"}, "env: the value, which is not shown, breaks 'type'"),
        ({"volumes": [{"size": "big"}]}, "volumes[0]: 'name' is a required property"),
        ({"volumes": [{"name": "a", "size": "big"}]}, "volumes[0].size: 'big' is not of type 'integer'"),
        ({"volumes": {"a": 1}}, "volumes: the object breaks 'type'"),
        ({"image": ["a"]}, "image: the list breaks 'type'"),
        (
            {"registry": {"url": "x", "user": "y"}},
            "registry: Additional properties are not allowed ('user' was unexpected)",
        ),
        (
            {"command": "a 'b"},
            "command: No closing quotation; close the quote, or write the command as a list of words",
        ),
        ({"login": {"user": 1}}, "login.user: 1 is not of type 'string'"),
        ({"login": 5}, "login: 5 is not of type 'object'"),
        ({"indirect": "x"}, "indirect: 'x' is not of type 'integer'"),
        ({"registry": {"url": 5}}, "registry.url: 5 is not of type 'string'"),
        ({"store": {"port": "x"}}, "store: the object breaks 'anyOf'"),
        ({"command": [1]}, "command: the list breaks 'anyOf'"),
        ({"a.b": 1, "a.b.c": 2}, "a.b.c: 'b' is set to something that is not an object; set it only once"),
    ],
)
def test_a_value_that_does_not_fit_is_told_with_its_path(values: dict[str, Any], expected: str) -> None:
    found = problems(lambda: check(values))
    assert any(each.startswith(expected) for each in found), found


def test_every_problem_is_told_at_once() -> None:
    found = problems(lambda: check({"cpus": 1, "cpu": "lots", "image": 7, "command": "'"}, require=True))
    assert [each.split(":")[0] for each in found if "required" not in each] == ["cpus", "image", "cpu", "command"]
    assert "'region' is a required property; give it a value" in found


def test_a_default_counts_as_a_value_and_requiring_can_wait() -> None:
    check({"region": "eu"}, require=True)
    check({}, require=False)
    assert problems(lambda: check({}, require=True)) == ["'region' is a required property; give it a value"]


def test_a_value_whose_schema_cannot_be_followed_is_not_shown() -> None:
    base = template({}, a={"$ref": "#anchor"})
    base["variables"]["$defs"] = {"Odd": {"$anchor": "anchor", "type": "integer", "writeOnly": True}}
    [found] = problems(lambda: validate_job_variables(base, {"a": CANARY}))
    assert found.startswith("a: the value, which is not shown, breaks 'type'")


def test_unknown_names_pass_where_they_are_allowed() -> None:
    check({"cpus": 1}, allow_unknown=True)


def test_a_long_value_and_a_long_schema_are_cut() -> None:
    base = template({}, kind={"enum": ["x" * 400], "description": "y" * 400})
    [found] = problems(lambda: validate_job_variables(base, {"kind": "z" * 1000}))
    assert len(found) < 600
    assert "…" in found
    assert "yyy" not in found


@pytest.mark.parametrize(
    "values",
    [
        {"token": CANARY},
        {"hidden": CANARY},
        {"sealed": CANARY},
        {"marked": CANARY},
        {"registry": {"url": 1, "password": CANARY}},
        {"registry": {"url": "x", "password": [CANARY]}},
        {"registry": {"password": CANARY}},
        {"registry": [CANARY]},
        {"login": {"key": CANARY, "user": "u"}},
        {"login": {"key": {"a": CANARY}, "user": 1}},
        {"env": {"A": [CANARY]}},
        {"env": CANARY},
        {"volumes": [{"size": {"secret": CANARY}}]},
    ],
)
def test_a_secret_value_is_never_shown(values: dict[str, Any]) -> None:
    assert CANARY not in str(problems(lambda: check(values)))


@pytest.mark.parametrize("ref", ["#/definitions/Nope", "https://example.invalid/schema.json", "other.json"])
def test_a_schema_that_leads_nowhere_is_an_error_and_never_a_download(
    ref: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: pytest.fail("this is a download"))
    with pytest.raises(InvalidTemplate, match=r"has a \$ref that leads nowhere"):
        validate_job_variables(template({}, a={"$ref": ref}), {"a": 1})


@pytest.mark.parametrize("field", [{"pattern": "("}, {"type": "nonsense"}])
def test_a_schema_that_was_never_checked_is_an_error_of_the_template(field: dict[str, Any]) -> None:
    with pytest.raises(InvalidTemplate, match="has a pattern or a type that is none"):
        validate_job_variables(template({}, a=field), {"a": "x"})


def test_a_schema_that_refers_to_itself_is_an_error() -> None:
    base = template({}, a={"$ref": "#/properties/a"})
    with pytest.raises(InvalidTemplate, match=r"has a \$ref that leads nowhere"):
        validate_job_variables(base, {"a": 1})


def test_checking_does_not_change_what_is_checked() -> None:
    values = {"env": {"A": 1}, "token": SECRET, "env.B": 2}
    before = copy.deepcopy((SCHEMA, values))
    check(values)
    assert (SCHEMA, values) == before


# -- layers --------------------------------------------------------------------


def test_a_later_layer_wins_and_env_is_merged() -> None:
    merged = merge_job_variables(
        {"cpu": 1, "env": {"A": "1", "B": "1"}, "labels": {"x": "1"}},
        None,
        {"cpu": 2, "env": {"B": "2"}, "labels": {"y": "2"}},
    )
    assert merged == {"cpu": 2, "env": {"A": "1", "B": "2"}, "labels": {"y": "2"}}


def test_a_dotted_name_sets_only_what_it_names() -> None:
    merged = merge_job_variables(
        {"env": {"A": "1"}, "r": {"x": 1, "y": 1}, "t": "text"}, {"env.A": "2", "r.x": 2, "t.u": 3}
    )
    assert merged == {"env": {"A": "2"}, "r": {"x": 2, "y": 1}, "t": {"u": 3}}


def test_the_merged_variables_share_nothing_with_the_layers() -> None:
    one, two = {"r": {"x": [1]}, "env": {"A": "1"}}, {"s": {"x": [1]}, "t.u": [1]}
    before = copy.deepcopy((one, two))
    merged = merge_job_variables(one, two)
    for changed in (merged["r"]["x"], merged["s"]["x"], merged["t"]["u"]):
        changed.append(2)
    merged["env"]["B"] = "2"
    assert (one, two) == before


def test_null_env_drops_the_names_of_earlier_layers() -> None:
    assert merge_job_variables({"env": {"A": "1"}}, {"env": None}) == {}
    assert merge_job_variables({"env": {"A": "1"}}, {"env": None}, {"env": {"B": "2"}}) == {"env": {"B": "2"}}


layer = st.dictionaries(
    st.sampled_from(["cpu", "env.A", "env.B", "r.x"]), st.integers() | st.none(), max_size=3
) | st.fixed_dictionaries(
    {}, optional={"env": st.dictionaries(st.sampled_from("ABC"), st.integers() | st.none()), "r": st.just({"x": 1})}
)


@given(layer, layer, layer)
def test_merging_layers_laws(one: dict[str, Any], two: dict[str, Any], three: dict[str, Any]) -> None:
    before = copy.deepcopy((one, two, three))
    whole = merge_job_variables(one, two, three)
    assert merge_job_variables(merge_job_variables(one, two), three) == whole
    assert merge_job_variables(whole) == whole
    assert merge_job_variables({}, one, {}) == merge_job_variables(one)
    env = {
        name: value for each in (one, two, three) for name, value in merge_job_variables(each).get("env", {}).items()
    }
    assert whole.get("env", {}) == env
    assert (one, two, three) == before


@given(layer, layer)
def test_the_explanation_names_the_last_layer_that_gave_each_value(one: dict[str, Any], two: dict[str, Any]) -> None:
    base = template(
        {"env": {"L": "0", "A": "0"}},
        cpu={"default": 9},
        env={"default": {"D": "0", "B": "0"}},
        r={"default": {"z": 0}},
    )
    origins = explain_job_variables(base, [("deployment", one), ("run", two)])
    final = merge_job_variables(one, two)
    assert {path.removeprefix("env.") for path in origins if path.startswith("env.")} == {*"LADB"} | final.get(
        "env", {}
    ).keys()
    assert {path.split(".")[0] for path in origins} == {"env", "cpu", "r"}
    for name in final.get("env", {}):
        last = "run" if name in merge_job_variables(two).get("env", {}) else "deployment"
        assert origins[f"env.{name}"] == last
    assert origins["cpu"] == ("run" if "cpu" in two else "deployment" if "cpu" in one else "template default")


def test_the_explanation_of_every_kind_of_layer() -> None:
    base = template(
        {"env": {"L": "1", "X": "1"}},
        cpu={"default": 1},
        image={"default": "a"},
        none={"default": None},
        env={"default": {"X": "2"}},
    )
    layers: list[tuple[str, dict[str, Any]]] = [
        ("pool", {"image": "b"}),
        ("deployment", {"env": {"Y": "3", "Z": "3"}, "r": {"x": 1}}),
        ("run", {"env.Z": "4", "r.y": 2, "memory": 5}),
    ]
    assert explain_job_variables(base, layers) == {
        "cpu": "template default",
        "env.L": "job configuration",
        "env.X": "template default",
        "env.Y": "deployment",
        "env.Z": "run",
        "image": "pool",
        "memory": "run",
        "r": "deployment",
        "r.y": "run",
    }


def test_the_explanation_of_env_that_is_dropped_or_no_object() -> None:
    base = template({"env": "{{ env }}"})
    assert explain_job_variables(base, [("d", {"env": {"A": "1"}}), ("r", {"env": None})]) == {}
    assert explain_job_variables(base, [("d", {"env": {"A": "1"}}), ("r", {"env": "{{ variables.e }}"})]) == {
        "env": "r"
    }
    assert explain_job_variables(base, [("d", {"env": "{{ variables.e }}"}), ("r", {"env": {"A": "1"}})]) == {
        "env.A": "r"
    }
    assert explain_job_variables(base, [("d", {"a.b": 1}), ("r", {"a": 2})]) == {"a": "r"}


# -- rendering -----------------------------------------------------------------


def test_a_literal_enforces_a_value() -> None:
    base = template({"image": "golden:1", "cpu": "{{ cpu }}"}, image={"default": "acme:1"}, cpu={})
    assert job({"image": "mine:1", "cpu": 2}, base).image == "golden:1"


def test_rendering_changes_neither_the_template_nor_the_values() -> None:
    base = template(
        {"env": {"L": "1"}, "request": {"k": ["{{ cpu }}"]}}, env={"default": {"D": "1"}}, cpu={"default": [1]}
    )
    values = {"env": {"A": 1}, "r": {"s": 1}, "r.t": 2}
    before = copy.deepcopy((base, values))
    made = job(values, base)
    made.env["new"] = "1"
    made.request["k"][0].append(2)
    assert (base, values) == before


def test_what_does_not_fit_the_configuration_is_told_with_its_path() -> None:
    found = problems(lambda: job({"cpu": CANARY, "limits": {"memory": CANARY}, "labels": {"a": 1}}))
    assert {each.split(":")[0] for each in found} == {"cpu", "limits.memory", "labels.a"}
    assert CANARY not in str(found)


def test_a_field_that_is_marked_secret_is_not_even_described() -> None:
    class Marked(BaseJobConfiguration):
        token: Literal["a"] | None = Field(default=None, json_schema_extra={"secret": True})
        word: SecretStr | None = None

    base = template({"token": "{{ token }}", "word": "{{ word }}"}, token={}, word={})
    found = problems(lambda: Marked.from_template_and_values(base, {"token": CANARY, "word": [CANARY]}))
    assert found[0] == "token: the value, which is not shown, does not fit"
    assert CANARY not in str(found)


@pytest.mark.parametrize("env", ["A=1", ["A"], 7])
def test_env_that_is_no_object_is_refused(env: object) -> None:
    assert "env" in problems(lambda: job({"env": env}))[0]
    assert problems(lambda: job({"env": env}, template({"env": {"A": "1"}}, env={}))) == [
        "env: it is not an object of names and values; write it as one"
    ]


def test_blocks_and_variables_are_refused_where_none_can_be_read() -> None:
    with pytest.raises(InvalidTemplate, match="block 'b' is needed, and no blocks can be read here"):
        job({"image": "{{ blocks.a.b }}"})
    with pytest.raises(InvalidTemplate, match="variable 'v' is needed, and no variables can be read here"):
        job({"image": "{{ variables.v }}"})


def test_blocks_and_variables_are_read_once_for_a_job() -> None:
    calls = []

    def load_block(type_slug: str | None, name: str) -> dict[str, Any]:
        calls.append(name)
        return {"value": "x"}

    def load_variable(name: str) -> str:
        calls.append(name)
        return "y"

    values = {"image": "{{ blocks.a.b }}", "name": "{{ blocks.a.b }}{{ variables.v }}", "command": "{{ variables.v }}"}
    job(values, load_block=load_block, load_variable=load_variable)
    assert sorted(calls) == ["b", "v"]


def test_the_environment_in_the_configuration_is_the_allowed_one() -> None:
    base = template({"image": "{{ $REGISTRY }}/acme", "name": "{{ name }}"}, name={})
    made = job({"name": "{{ $REGISTRY }}"}, base, environ={"REGISTRY": "r.io"})
    assert (made.image, made.name) == ("r.io/acme", "{{ $REGISTRY }}")


# -- blocks that stay references -----------------------------------------------


class WithCredentials(BaseJobConfiguration):
    block_fields: ClassVar[frozenset[str]] = frozenset({"aws_credentials"})

    aws_credentials: dict[str, Any] | None = None
    data: Any = None


CREDENTIALS = template({"aws_credentials": "{{ aws_credentials }}", "data": "{{ data }}"}, aws_credentials={}, data={})
LOAD = blocks({"aws-credentials/prod": {"key": SECRET, "region": "eu", BLOCK_ID_KEY: "id-1"}, "id-1": {"region": "eu"}})


@pytest.mark.parametrize(
    "value",
    [
        {"$ref": {"block_document_id": "id-1"}},
        {"$ref": {"block_document_id": "id-1"}, "beside": 1},
        "{{ blocks.aws-credentials.prod }}",
        "{{ prefect.blocks.aws-credentials.prod }}",
        "{{ variables.credentials }}",
    ],
)
def test_a_field_of_a_block_keeps_only_the_id(value: Any) -> None:
    made = WithCredentials.from_template_and_values(
        CREDENTIALS,
        {"aws_credentials": value, "data": "{{ blocks.aws-credentials.prod.region }}"},
        load_block=LOAD,
        load_variable=lambda _: {"$ref": {"block_document_id": "id-1"}},
    )
    assert made.aws_credentials == {"$ref": {"block_document_id": "id-1"}}
    assert made.data == "eu"


def test_a_field_of_a_block_may_be_empty_or_hold_something_else() -> None:
    def credentials(value: Any) -> Any:
        values = {"aws_credentials": value}
        return WithCredentials.from_template_and_values(CREDENTIALS, values, load_block=LOAD).aws_credentials

    assert credentials(None) is None
    assert credentials({"identity": "x"}) == {"identity": "x"}


def test_a_field_of_a_block_takes_whole_blocks_only() -> None:
    with pytest.raises(InvalidTemplate, match="is not a whole block; leave out what follows its name"):
        WithCredentials.from_template_and_values(
            CREDENTIALS, {"aws_credentials": "{{ blocks.aws-credentials.prod.region }}"}, load_block=LOAD
        )


def test_elsewhere_a_reference_is_read() -> None:
    made = WithCredentials.from_template_and_values(
        CREDENTIALS, {"data": {"$ref": {"block_document_id": "id-1"}}}, load_block=LOAD
    )
    assert made.data == {"region": "eu"}


# -- secrets -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "path"),
    [
        ({"env": {"TOKEN": "{{ blocks.secret.token }}"}}, "env.TOKEN"),
        ({"env.TOKEN": SECRET.as_json()}, "env.TOKEN"),
        ({"env": {"TOKEN": SECRET}}, "env.TOKEN"),
        ({"command": ["a", "{{ blocks.secret.token }}"]}, "command[1]"),
        ({"args": ["{{ blocks.secret.token }}"]}, "args[0]"),
        (
            {"request": {"containers": [{"environment": [{"value": "{{ blocks.secret.token }}"}]}]}},
            "request.containers[0].environment[0].value",
        ),
    ],
)
def test_a_secret_where_it_would_be_shown_is_refused_with_the_ways_out(values: dict[str, Any], path: str) -> None:
    [found] = problems(lambda: job(values, load_block=blocks({"secret/token": {"value": SECRET}})))
    assert found.startswith(f"{path}: ")
    assert "`secrets` with valueFrom on ECS" in found
    assert "`env_from_secrets` on Cloud Run" in found


def test_a_secret_in_text_is_refused() -> None:
    with pytest.raises(InvalidTemplate, match="a secret cannot be put inside text"):
        job({"image": "x{{ blocks.secret.token }}"}, load_block=blocks({"secret/token": {"value": SECRET}}))


def test_a_secret_elsewhere_is_kept_as_a_reference() -> None:
    made = job(
        {"request": {"password": "{{ blocks.secret.token }}"}}, load_block=blocks({"secret/token": {"value": SECRET}})
    )
    assert made.request == {"password": {"$secret": "b1/value"}}


def test_a_platform_may_allow_secrets_in_env() -> None:
    class Secure(Job):
        secret_paths_allowed: ClassVar[frozenset[str]] = frozenset({"env"})

    made = Secure.from_template_and_values(
        TEMPLATE, {"env": {"TOKEN": SECRET, "PLAIN": "1", "PUSH_POOLS_RUN_ID": SECRET}}
    )
    made.prepare_for_flow_run(RUN)
    assert made.secret_env == {"TOKEN": {"$secret": "b1/value"}}
    assert made.env["PLAIN"] == "1"
    assert "TOKEN" not in made.env
    assert Secure.model_validate_json(made.model_dump_json()) == made
    with pytest.raises(InvalidJobVariables, match=r"command\[0\]"):
        Secure.from_template_and_values(TEMPLATE, {"command": [SECRET]})


def test_entries_for_secrets_cannot_be_set_from_outside() -> None:
    base = template({"secret_env": {"A": SECRET.as_json()}, "env": {}})
    assert job({}, base).secret_env == {}
    assert job({}, template({"secret_env": {"A": SECRET.as_json()}})).secret_env == {}


# -- preparing -----------------------------------------------------------------


def test_a_job_is_told_about_its_run() -> None:
    made = prepared({"env": {"MINE": "1"}, "labels": {"team": "x"}})
    assert made.env == {
        "MINE": "1",
        "PUSH_POOLS_RUN_ID": "8d3e0f1a-6a4b-4d57-9b7e-1c2d3e4f5a6b",
        "PUSH_POOLS_ATTEMPT": "2",
        "PUSH_POOLS_PARAMETERS": '{"deep":{"list":[true]},"n":3,"none":null,"note":"two words","region":"eu"}',
        "PUSH_POOLS_DEPLOYMENT": "report/hourly",
        "PUSH_POOLS_SCHEDULED_TIME": "2026-01-02T03:05:00Z",
    }
    assert made.labels == {
        "team": "x",
        "push-pools/run-id": "8d3e0f1a-6a4b-4d57-9b7e-1c2d3e4f5a6b",
        "push-pools/run-name": "keen-owl",
        "push-pools/attempt": "2",
        "push-pools/deployment": "report/hourly",
        "push-pools/flow": "report",
        "push-pools/work-pool": "nightly",
    }
    assert (made.name, made.command_list()) == ("keen-owl", None)


def test_the_services_own_names_win_and_null_unsets() -> None:
    own = dict.fromkeys(SERVICE_ENV, "mine")
    made = job({"env": own | {"GONE": None, "KEPT": ""}, "labels": {"push-pools/attempt": "9", "push-pools/own": "y"}})
    made.prepare_for_flow_run(RUN)
    assert "mine" not in made.env.values()
    assert "PUSH_POOLS_DEPLOYMENT" not in made.env
    assert "GONE" not in made.env
    assert made.env["KEPT"] == ""
    assert made.labels["push-pools/attempt"] == "2"
    assert made.labels["push-pools/own"] == "y"
    assert "push-pools/deployment" not in made.labels


CONTEXT = {
    "{{ ctx.flow_run.id }}": "8d3e0f1a-6a4b-4d57-9b7e-1c2d3e4f5a6b",
    "{{ ctx.flow_run.name }}": "keen-owl",
    "{{ ctx.flow_run.scheduled_time }}": "2026-01-02T03:05:00Z",
    "{{ ctx.flow_run.attempt }}": "2",
    "{{ ctx.deployment.name }}": "hourly",
    "{{ ctx.flow.name }}": "report",
    "{{ ctx.work_pool.name }}": "nightly",
    "{{ ctx.parameters.region }}": "eu",
    "{{ ctx.parameters.n }}": "3",
    "{{ ctx.parameters.deep }}": '{"list":[true]}',
    "{{ ctx.parameters.deep.list[0] }}": "true",
    "{{ctx.parameters.note}}": "two words",
}


@pytest.mark.parametrize("placeholder", CONTEXT)
@pytest.mark.parametrize("written_in", ["a value", "the configuration"])
def test_ctx_works_wherever_a_job_has_text(placeholder: str, written_in: str) -> None:
    """Written in a job variable or directly in the job configuration, whole or inside text."""
    expected = CONTEXT[placeholder]
    fields = {
        "name": placeholder,
        "image": f"r.io/{placeholder}",
        "env": {"A": placeholder, "B": f"x{placeholder}y"},
        "labels": {"a": placeholder},
        "command": ["run", f"--a={placeholder}", placeholder],
        "args": [placeholder],
        "limits": {"note": f"<{placeholder}>"},
        "request": {"family": placeholder, "tags": [{"value": f"t-{placeholder}"}]},
    }
    made = prepared(fields) if written_in == "a value" else prepared({}, template(fields))
    assert made.name == expected
    assert made.image == f"r.io/{expected}"
    assert (made.env["A"], made.env["B"]) == (expected, f"x{expected}y")
    assert made.labels["a"] == expected
    assert made.command_list() == ["run", f"--a={expected}", expected]
    assert made.args == [expected]
    assert made.limits == Limits(note=f"<{expected}>")
    assert made.request == {"family": expected, "tags": [{"value": f"t-{expected}"}]}


def test_a_value_put_into_a_command_stays_one_word() -> None:
    """Whoever triggers a run chooses a parameter, and never another argument."""
    command = "run --date {{ ctx.flow_run.scheduled_time }} '{{ ctx.parameters.note }}' --x={{ctx.parameters.evil}}"
    evil = "1 --admin 'q"
    made = job({"command": command, "request": {"overrides": [{"command": command}]}})
    made.prepare_for_flow_run(RUN.model_copy(update={"parameters": {"note": "two words", "evil": evil}}))
    expected = ["run", "--date", "2026-01-02T03:05:00Z", "two words", f"--x={evil}"]
    assert made.command_list() == expected
    assert split_command(made.request["overrides"][0]["command"]) == expected


@given(st.text(max_size=12), st.sampled_from(["{}", "'{}'", '"{}"', "a{}b"]))
def test_any_parameter_stays_one_word(value: str, form: str) -> None:
    made = job({"command": "run " + form.format("{{ ctx.parameters.p }}") + " end"})
    made.prepare_for_flow_run(RUN.model_copy(update={"parameters": {"p": value}}))
    assert made.command_list() == ["run", form.strip("'\"").format(value), "end"]


def test_a_variable_that_is_called_command_is_no_command_line() -> None:
    made = prepared(
        {"env": {"command": "it's {{ ctx.parameters.note }}"}, "labels": {"args": "{{ ctx.parameters.note }}"}}
    )
    assert made.env["command"] == "it's two words"
    assert made.labels["args"] == "two words"


def test_null_counts_as_missing() -> None:
    null = "{{ ctx.parameters.none }}"
    made = prepared(
        {
            "name": null,
            "image": null,
            "env": {"A": null, "B": f"x{null}"},
            "command": f"run {null} --a={null}",
            "args": [null, "x"],
            "limits": {"note": null},
            "request": {"k": null},
        }
    )
    assert (made.name, made.image) == ("keen-owl", "acme:1")
    assert "A" not in made.env
    assert made.env["B"] == "x"
    assert made.command_list() == ["run", "--a="]
    assert (made.args, made.limits, made.request) == (["x"], Limits(), {})


def test_null_for_what_is_needed_is_told() -> None:
    class Needy(BaseJobConfiguration):
        image: str

    made = Needy.from_template_and_values(template({"image": "{{ ctx.parameters.none }}"}), {})
    with pytest.raises(InvalidTemplate, match="'image' is needed, and its ctx placeholder has no value for this run"):
        made.prepare_for_flow_run(RUN)


def test_what_a_run_does_not_have_is_missing() -> None:
    names = "{{ ctx.deployment.name }}{{ ctx.flow.name }}{{ ctx.work_pool.name }}"
    made = job({"env": {"A": names, "B": "{{ ctx.deployment.name }}"}})
    made.prepare_for_flow_run(RUN)
    assert made.env["A"] == ""
    assert "B" not in made.env


@pytest.mark.parametrize(
    "path", ["ctx.flow_run.nope", "ctx.nope", "ctx.flow_run", "ctx.parameters.nope", "ctx.parameters"]
)
def test_an_unknown_ctx_path_is_told_with_those_that_exist(path: str) -> None:
    with pytest.raises(
        InvalidTemplate, match=f"{path} }}}} names nothing; there is ctx.flow_run.id, .*ctx.parameters.region"
    ):
        prepared({"env": {"A": f"x{{{{ {path} }}}}"}})


def test_what_ctx_puts_in_is_never_read_again_even_when_prepared_twice() -> None:
    evil = {"p": "{{ ctx.flow_run.id }}", "q": "{{ ctx.nope }}"}
    run = RUN.model_copy(update={"parameters": evil})
    made = job({"env": {"A": "{{ ctx.parameters.p }}"}, "command": ["{{ ctx.parameters.q }}"]})
    made.prepare_for_flow_run(run, DEPLOYMENT, FLOW, POOL)
    once = made.model_copy(deep=True)
    made.prepare_for_flow_run(run, DEPLOYMENT, FLOW, POOL)
    assert made == once
    assert made.env["A"] == "{{ ctx.flow_run.id }}"
    assert made.command_list() == ["{{ ctx.nope }}"]
    assert json.loads(made.env["PUSH_POOLS_PARAMETERS"] or "") == evil


def test_preparing_again_for_a_later_attempt_tells_the_later_one() -> None:
    made = prepared({})
    made.prepare_for_flow_run(RUN.model_copy(update={"attempt": 3}), DEPLOYMENT)
    assert (made.env["PUSH_POOLS_ATTEMPT"], made.labels["push-pools/attempt"]) == ("3", "3")


def test_other_placeholders_in_values_stay_as_they_are() -> None:
    made = prepared({"image": "{{ other }}/{{ ctx.flow.name }}", "command": "echo {{ other }} {{ ctx.flow.name }}"})
    assert made.image == "{{ other }}/report"
    assert made.command_list() == ["echo", "{{", "other", "}}", "report"]


def test_a_platform_overrides_preparing_and_its_context() -> None:
    class Mine(Job):
        def prepare_for_flow_run(
            self,
            flow_run: FlowRunInfo,
            deployment: DeploymentInfo | None = None,
            flow: FlowInfo | None = None,
            work_pool: WorkPoolInfo | None = None,
        ) -> None:
            super().prepare_for_flow_run(flow_run, deployment, flow, work_pool)
            self.labels["my-custom-label"] = "1"

        def flow_run_context(self, *args: Any) -> dict[str, Any]:
            return super().flow_run_context(*args) | {"cloud": {"region": "eu"}}

    made = Mine.from_template_and_values(TEMPLATE, {"env": {"R": "{{ ctx.cloud.region }}"}})
    made.prepare_for_flow_run(RUN, DEPLOYMENT)
    assert made.labels["my-custom-label"] == "1"
    assert made.labels["push-pools/attempt"] == "2"
    assert made.env["R"] == "eu"


# -- the command ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (None, None),
        ("", None),
        ("  ", None),
        ([], None),
        ("python -m report", ["python", "-m", "report"]),
        ("sh -c 'echo $HOME | cat'", ["sh", "-c", "echo $HOME | cat"]),
        (["sh", "-c", "a b"], ["sh", "-c", "a b"]),
    ],
)
def test_a_command_is_words_and_no_shell(command: Any, words: list[str] | None) -> None:
    assert job({"command": command}).command_list() == words


def test_an_unclosed_quote_is_told() -> None:
    made = job({"command": "a 'b"})
    assert problems(made.command_list) == [
        "command: No closing quotation; close the quote, or write the command as a list of words"
    ]
    assert problems(lambda: made.prepare_for_flow_run(RUN))
    assert problems(lambda: split_command("a \\", "entrypoint"))[0].startswith("entrypoint: No escaped character")


# -- the models ----------------------------------------------------------------


def test_what_a_job_is_prepared_with_is_frozen_and_checked() -> None:
    with pytest.raises(PydanticError):
        RUN.name = "other"  # type: ignore[misc]  # It is the point.
    with pytest.raises(PydanticError):
        FlowRunInfo(id=RUN.id, name="x", attempt=1, scheduled_time=datetime(2026, 1, 1))  # noqa: DTZ001  # It is the point.
    with pytest.raises(PydanticError):
        FlowRunInfo(id=RUN.id, name="x", attempt=0, scheduled_time=RUN.scheduled_time)
    assert FlowRunInfo(id=RUN.id, name="x", attempt=1, scheduled_time=datetime(2026, 1, 1, tzinfo=UTC)).parameters == {}


def test_importing_the_module_does_not_import_jsonschema() -> None:
    code = "import sys, push_pools.domain.jobs; sys.exit('jsonschema' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
