"""Templates: placeholders, values, blocks and variables. What Prefect does is compared in `tests/prefect`."""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from push_pools.domain.errors import InvalidTemplate, NotFound
from push_pools.domain.secrets import SecretRef, find_secret_refs, secrets_as_json
from push_pools.domain.templates import (
    BLOCK_ID_KEY,
    NOT_SET,
    Placeholder,
    PlaceholderType,
    apply_values,
    block_ref,
    copy_json,
    find_placeholders,
    resolve_block_references,
    resolve_references,
    resolve_variables,
)

SECRET = SecretRef("b1", "value")

# -- strategies ----------------------------------------------------------------

names = st.sampled_from(["a", "b", "c", "ctx.x", "$A", "blocks.t.n", "variables.v"])
spelled = st.builds("{{{{ {} }}}}".format, names)
words = st.text("xy {}", max_size=4)
pieces = st.lists(spelled | words, max_size=4).map("".join)
scalars = st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False) | words


def nested(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3), max_leaves=8
    )


templates = nested(pieces | scalars)
plain_values = st.dictionaries(st.sampled_from(["a", "b", "c"]), nested(scalars), max_size=3)
tricky_values = st.dictionaries(st.sampled_from(["a", "b", "c"]), nested(pieces | scalars), max_size=3)


def blocks(documents: dict[str, Any]) -> Any:
    def load(type_slug: str | None, name: str) -> dict[str, Any]:
        key = f"{type_slug}/{name}" if type_slug else name
        if key not in documents:
            raise NotFound("block", key)
        found: dict[str, Any] = documents[key]
        return found

    return load


# -- finding -------------------------------------------------------------------


def test_each_kind_of_placeholder_is_told_by_its_prefix() -> None:
    text = "{{ a.b }}{{ $A }}{{ prefect.blocks.t.n }}{{ blocks.t.n }}{{ prefect.variables.v }}{{variables.v}}"
    assert find_placeholders(text) == {
        Placeholder("{{ a.b }}", "a.b", PlaceholderType.STANDARD),
        Placeholder("{{ $A }}", "$A", PlaceholderType.ENV),
        Placeholder("{{ prefect.blocks.t.n }}", "prefect.blocks.t.n", PlaceholderType.BLOCK),
        Placeholder("{{ blocks.t.n }}", "blocks.t.n", PlaceholderType.BLOCK),
        Placeholder("{{ prefect.variables.v }}", "prefect.variables.v", PlaceholderType.VARIABLE),
        Placeholder("{{variables.v}}", "variables.v", PlaceholderType.VARIABLE),
    }


def test_the_types_have_the_documented_names() -> None:
    assert [str(each) for each in PlaceholderType] == ["standard", "block", "variable", "env"]


def test_keys_are_not_read_and_secrets_hold_no_placeholder() -> None:
    assert find_placeholders({"{{ a }}": [SECRET, 1, None, True, 2.5]}) == set()


@pytest.mark.parametrize("value", [("{{ a }}",), {"{{ a }}"}, b"{{ a }}", datetime(2026, 1, 1, tzinfo=UTC), object()])
def test_what_is_not_json_is_refused_by_name(value: object) -> None:
    with pytest.raises(InvalidTemplate, match=f"write the {type(value).__name__} as"):
        find_placeholders([value])
    with pytest.raises(InvalidTemplate, match=f"write the {type(value).__name__} as"):
        apply_values({"k": [value]}, {})


# -- values --------------------------------------------------------------------


def test_the_environment_is_only_what_is_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool's editor must not be able to read the credentials of the function that renders."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary")
    template = {"k": "{{ $AWS_SECRET_ACCESS_KEY }}", "l": "x{{ $ALLOWED }}"}
    assert apply_values(template, {}) == {"k": "", "l": "x"}
    assert apply_values(template, {}, environ={"ALLOWED": "1"}) == {"k": "", "l": "x1"}


def test_a_value_cannot_smuggle_in_a_placeholder() -> None:
    values = {"a": "{{ b }}", "b": "{{ $A }}", "c": "{{ a }}"}
    assert apply_values("{{ a }}{{ b }}{{ c }}", values, environ={"A": "s"}) == "{{ b }}{{ $A }}{{ a }}"


def test_text_that_becomes_a_placeholder_by_substitution_is_text() -> None:
    assert apply_values("{{ {{ a }} }}", {"a": "b", "b": "1"}) == "{{ b }}"


def test_a_secret_keeps_its_place_only_as_a_whole_value() -> None:
    assert apply_values({"k": ["{{ a }}"]}, {"a": SECRET}) == {"k": [SECRET]}


@pytest.mark.parametrize("value", [SECRET, SECRET.as_json(), {"k": [SECRET]}])
def test_a_secret_inside_text_is_refused(value: object) -> None:
    with pytest.raises(InvalidTemplate, match="a secret cannot be put inside text"):
        apply_values("token={{ a }}", {"a": value})


def test_a_skipped_prefix_stays_whole_and_in_text() -> None:
    template = {"k": "{{ ctx.x }}", "l": "{{ ctx.x }}{{ a }}{{ ctx }}"}
    assert apply_values(template, {"a": 1, "ctx": {"x": 2}}, skip_prefixes=("ctx.",)) == {
        "k": "{{ ctx.x }}",
        "l": "{{ ctx.x }}1{'x': 2}",
    }


def test_a_whole_template_without_a_value_is_not_set() -> None:
    assert apply_values("{{ a }}", {}) is NOT_SET
    assert repr(NOT_SET) == "NOT_SET"


def test_kept_keys_and_dropped_items() -> None:
    template = {"k": "{{ a }}", "l": ["{{ a }}"], "m": "x{{ a }}", "n": "{{ $A }}"}
    assert apply_values(template, {}, remove_notset=False) == template | {"l": []}
    assert apply_values(template, {}) == {"l": [], "m": "x", "n": ""}


def test_a_value_that_is_used_twice_is_copied_twice() -> None:
    values = {"a": {"k": [1]}}
    result = apply_values(["{{ a }}", "{{ a }}"], values)
    scribble(result[0])
    assert (result[1], values) == ({"k": [1]}, {"a": {"k": [1]}})


@given(templates, tricky_values, st.booleans())
def test_inputs_are_not_changed_and_the_result_shares_nothing(template: Any, values: Any, remove: bool) -> None:
    before = copy.deepcopy((template, values))
    result = apply_values(template, values, remove_notset=remove, environ={"A": "1"})
    scribble(result)
    assert (template, values) == before


def scribble(value: Any) -> None:
    """Change every container inside a value."""
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        scribble(item)
    if isinstance(value, dict):
        value["scribble"] = True
    if isinstance(value, list):
        value.append("scribble")


@given(templates, plain_values)
def test_filling_twice_is_filling_once(template: Any, values: Any) -> None:
    """With values that hold no placeholder: the second time finds nothing of its own left to fill."""
    once = apply_values(drop_odd_braces(template), values)
    assert apply_values(once, values) == once


def drop_odd_braces(value: Any) -> Any:
    """Return a template whose text is one piece, so that no placeholder can arise from two."""
    if isinstance(value, str):
        return value if len(find_placeholders(value)) <= 1 and value.count("{") in (0, 2) else "x"
    if isinstance(value, list):
        return [drop_odd_braces(item) for item in value]
    return {key: drop_odd_braces(item) for key, item in value.items()} if isinstance(value, dict) else value


@given(st.lists(st.sampled_from(["a", "b", "c"]), min_size=2, max_size=5), tricky_values)
def test_every_placeholder_of_a_text_is_replaced_by_its_own_value_in_order(order: list[str], values: Any) -> None:
    text = "|".join(f"{{{{ {name} }}}}" for name in order)
    assert apply_values(text, values) == "|".join(str(values[name]) if name in values else "" for name in order)


@given(templates, tricky_values)
def test_keys_go_and_nothing_else_of_the_shape(template: Any, values: Any) -> None:
    """Filling never adds a key or an item, and drops only those that are one placeholder without a value."""
    compare_shape(template, apply_values(template, values), values)


def compare_shape(template: Any, result: Any, values: dict[str, Any]) -> None:
    if isinstance(template, dict):
        gone = {key for key, value in template.items() if is_missing(value, values)}
        assert result.keys() == template.keys() - gone
        for key in result:
            compare_shape(template[key], result[key], values)
    elif isinstance(template, list):
        kept = [value for value in template if not is_missing(value, values)]
        assert len(result) == len(kept)
        for one, other in zip(kept, result, strict=True):
            compare_shape(one, other, values)


def is_missing(value: Any, values: dict[str, Any]) -> bool:
    found = find_placeholders(value) if isinstance(value, str) else set()
    return len(found) == 1 and all(
        each.full_match == value and each.type is PlaceholderType.STANDARD and each.name not in values for each in found
    )


@given(templates)
def test_without_placeholders_nothing_changes(template: Any) -> None:
    if not find_placeholders(template):
        assert apply_values(template, {"a": 1}) == template
        assert resolve_references(template, load_block=blocks({}), load_variable=lambda _: None) == template


# -- blocks --------------------------------------------------------------------


def test_a_block_is_read_once_and_every_result_is_its_own() -> None:
    calls = []

    def load(type_slug: str | None, name: str) -> dict[str, Any]:
        calls.append((type_slug, name))
        return {"k": [1], "l": 2}

    result = resolve_block_references(["{{ blocks.t.n }}", "{{ prefect.blocks.t.n }}", "x{{ blocks.t.n.l }}"], load)
    scribble(result[0])
    assert result[1:] == [{"k": [1], "l": 2}, "x2"]
    assert calls == [("t", "n")]


def test_the_id_of_a_block_is_never_part_of_its_data() -> None:
    load = blocks({"t/n": {"k": 1, BLOCK_ID_KEY: "id"}, "t/one": {"value": 2, BLOCK_ID_KEY: "id"}})
    assert resolve_block_references(["{{ blocks.t.n }}", "{{ blocks.t.one }}"], load) == [{"k": 1}, 2]


def test_a_secret_field_stays_a_reference() -> None:
    load = blocks({"secret/token": {"value": SECRET}, "aws/prod": {"key": SECRET, "id": "x"}})
    template = ["{{ blocks.secret.token }}", "{{ blocks.aws.prod }}", "{{ blocks.aws.prod.key }}"]
    assert resolve_block_references(template, load) == [SECRET, {"key": SECRET, "id": "x"}, SECRET]


def test_a_secret_field_inside_text_is_refused() -> None:
    with pytest.raises(InvalidTemplate, match="a secret cannot be put inside text"):
        resolve_block_references("Bearer {{ blocks.secret.token }}", blocks({"secret/token": {"value": SECRET}}))


@pytest.mark.parametrize(
    ("template", "sentence"),
    [
        ("{{ blocks.aws }}", "does not name a block; write {{ blocks.<type>.<name> }}"),
        ("{{ blocks.aws. }}", "does not name a block"),
        ("{{ blocks.aws.prod.nope }}", "the block has no 'nope'; name one of its fields"),
        ("x{{ blocks.aws.prod }}", "is an object or a list, and text can hold neither"),
        ({"$ref": "id-1"}, 'a "\\$ref" names a block by its id; write'),
        ({"$ref": None}, 'a "\\$ref" names a block by its id; write'),
        ({"$ref": {"block_document_id": ""}}, 'a "\\$ref" names a block by its id; write'),
        ({"$ref": {"block_document_id": 7}}, 'a "\\$ref" names a block by its id; write'),
    ],
)
def test_a_bad_reference_says_what_to_write(template: Any, sentence: str) -> None:
    with pytest.raises(InvalidTemplate, match=sentence):
        resolve_block_references([template], blocks({"aws/prod": {"region": "eu", "k": 1}}))


def test_what_the_loader_raises_passes_through() -> None:
    with pytest.raises(NotFound):
        resolve_block_references("{{ blocks.aws.nope }}", blocks({}))


def test_a_reference_by_id_takes_a_uuid_too() -> None:
    id_ = UUID(int=1)
    assert block_ref({"$ref": {"block_document_id": id_}}) == str(id_)
    assert block_ref({"$ref": {"block_document_slug": "x"}}) is None
    assert block_ref("x") is None


# -- variables -----------------------------------------------------------------


def test_variables_keep_their_type_and_are_read_once() -> None:
    calls = []

    def load(name: str) -> Any:
        calls.append(name)
        return {"n": [1], "none": None}.get(name)

    template = ["{{ variables.n }}", "{{ prefect.variables.n }}", "x{{ variables.none }}", "{{ variables.none }}"]
    assert resolve_variables(template, load) == [[1], [1], "x", ""]
    assert calls == ["n", "none"]


def test_one_pass_over_blocks_and_variables_reads_neithers_text_again() -> None:
    load = blocks({"t/n": {"value": "{{ variables.v }}"}})
    template = ["{{ blocks.t.n }}", "{{ variables.v }}", "{{ blocks.t.n }}{{ variables.v }}"]
    assert resolve_references(template, load_block=load, load_variable=lambda _: "{{ blocks.t.n }}") == [
        "{{ variables.v }}",
        "{{ blocks.t.n }}",
        "{{ variables.v }}{{ blocks.t.n }}",
    ]


@given(templates)
def test_what_is_loaded_is_never_read_again(template: Any) -> None:
    """However the template looks, the only names that are asked for are those written in it."""
    asked = set()

    def load_block(type_slug: str | None, name: str) -> dict[str, Any]:
        asked.add(f"blocks.{type_slug}.{name}")
        return {"value": "{{ blocks.evil.one }}{{ variables.evil }}"}

    def load_variable(name: str) -> str:
        asked.add(f"variables.{name}")
        return "{{ blocks.evil.one }}{{ variables.evil }}"

    resolve_references(template, load_block=load_block, load_variable=load_variable)
    assert asked == {each.name for each in find_placeholders(template) if each.name[0] in "bv"} - {"b"}


# -- references to secrets -----------------------------------------------------


def test_a_reference_to_a_secret_survives_its_stored_form() -> None:
    stored = json.loads(json.dumps(SecretRef("0b9f", "service_account_info.key/x").as_json()))
    assert stored == {"$secret": "0b9f/service_account_info.key/x"}
    assert SecretRef.parse(stored) == SecretRef("0b9f", "service_account_info.key/x")


@pytest.mark.parametrize(
    "value",
    [
        None,
        "x/y",
        {},
        {"$secret": "x"},
        {"$secret": "/y"},
        {"$secret": "x/"},
        {"$secret": 1},
        {"$secret": "x/y", "a": 1},
    ],
)
def test_what_is_no_reference_parses_as_none(value: object) -> None:
    assert SecretRef.parse(value) is None


def test_references_are_found_with_their_paths() -> None:
    value = {"a": [1, SECRET], "b": {"c": SECRET.as_json()}, "d": ("x", SECRET)}
    assert find_secret_refs(value) == [(("a", 1), SECRET), (("b", "c"), SECRET), (("d", 1), SECRET)]
    assert find_secret_refs(SECRET) == [((), SECRET)]
    assert secrets_as_json(value) == {
        "a": [1, SECRET.as_json()],
        "b": {"c": SECRET.as_json()},
        "d": ["x", SECRET.as_json()],
    }
    assert copy_json(value) == value
