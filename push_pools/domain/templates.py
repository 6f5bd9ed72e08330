"""Templates: finding placeholders, and filling them with values, blocks and variables.

The rules are those that Prefect 3 was seen to follow, so that a template works in both. `docs/templates.md` lists
the few deliberate differences. The main one: a string is read once, from left to right, and what is put into it is
never read again, so that a value can neither smuggle in a placeholder nor depend on the order of a set.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from uuid import UUID

from push_pools.domain.errors import InvalidTemplate
from push_pools.domain.secrets import SecretRef, find_secret_refs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    LoadBlock = Callable[[str | None, str], Mapping[str, Any]]
    LoadVariable = Callable[[str], Any]

BLOCK_ID_KEY: Final = "$block_document_id"
"""The key under which `load_block` may add the block's id to its data; it is never part of a result."""

_PLACEHOLDER = re.compile(r"\{\{\s*([\w.\-\[\]$]+)\s*\}\}")
_BLOCK_PREFIXES = ("prefect.blocks.", "blocks.")
_VARIABLE_PREFIXES = ("prefect.variables.", "variables.")
_SCALARS = (str, int, float, bool, type(None))


class NotSet:
    """The type of `NOT_SET`."""

    def __repr__(self) -> str:
        """Return the name of the only instance."""
        return "NOT_SET"


NOT_SET: Final = NotSet()
"""What a whole-string placeholder without a value becomes; the key or item that held it is left out."""


class PlaceholderType(StrEnum):
    """Where the value of a placeholder comes from."""

    STANDARD = "standard"
    BLOCK = "block"
    VARIABLE = "variable"
    ENV = "env"


class Placeholder(NamedTuple):
    """One `{{ name }}` in a template."""

    full_match: str
    name: str
    type: PlaceholderType


# -- finding -------------------------------------------------------------------


def find_placeholders(template: Any) -> set[Placeholder]:
    """Return every placeholder in a template of dictionaries, lists and scalars; keys are not read.

    Raises:
        InvalidTemplate: The template holds something that JSON does not have.
    """
    if isinstance(template, str):
        return {_placeholder(match) for match in _PLACEHOLDER.finditer(template)}
    if isinstance(template, dict):
        return _union(template.values())
    if isinstance(template, list):
        return _union(template)
    if isinstance(template, (*_SCALARS, SecretRef)):
        return set()
    raise _not_json(template)


def whole_placeholder(text: object) -> Placeholder | None:
    """Return the placeholder that makes up the whole string, without a blank around it, if one does."""
    match = _PLACEHOLDER.fullmatch(text) if isinstance(text, str) else None
    return _placeholder(match) if match else None


def replace_placeholders(text: str, replace: Callable[[Placeholder], str]) -> str:
    """Return the text with each placeholder replaced, from left to right; what is put in is not read again."""
    return _PLACEHOLDER.sub(lambda match: replace(_placeholder(match)), text)


def placeholder_type(name: str) -> PlaceholderType:
    """Return the type that a placeholder's name says it has."""
    if name.startswith(_BLOCK_PREFIXES):
        return PlaceholderType.BLOCK
    if name.startswith(_VARIABLE_PREFIXES):
        return PlaceholderType.VARIABLE
    return PlaceholderType.ENV if name.startswith("$") else PlaceholderType.STANDARD


def get_path(values: Any, path: str, default: Any = NOT_SET) -> Any:
    """Return what a key path such as `a.b[0]` or `a.-1` leads to, or the default where it leads nowhere.

    A part that reads as an integer is an index, never a key, as in Prefect.
    """
    value = values
    for part in path.replace("[", ".").replace("]", "").split("."):
        try:
            value = value[_key(part)]
        except (TypeError, KeyError, IndexError):
            return default
    return value


def _key(part: str) -> str | int:
    try:
        return int(part)
    except ValueError:
        return part


def _placeholder(match: re.Match[str]) -> Placeholder:
    return Placeholder(match[0], match[1], placeholder_type(match[1]))


def _union(items: Iterable[Any]) -> set[Placeholder]:
    return set[Placeholder]().union(*map(find_placeholders, items))


def _not_json(value: object) -> InvalidTemplate:
    return InvalidTemplate(
        f"a template holds text, numbers, booleans, null, lists and objects only; "
        f"write the {type(value).__name__} as one of these"
    )


# -- values --------------------------------------------------------------------


def apply_values(
    template: Any,
    values: Mapping[str, Any],
    *,
    remove_notset: bool = True,
    environ: Mapping[str, str] | None = None,
    skip_prefixes: Iterable[str] = (),
) -> Any:
    """Return a copy of a template with its standard and environment placeholders filled.

    A string that is one standard placeholder becomes the value, with its type; without a value, the key or item is
    left out (with `remove_notset=False` a key keeps its text; a list drops the item all the same). Inside other text
    a placeholder becomes `str()` of its value, or nothing. `environ` holds the names that `{{ $NAME }}` may read;
    no other environment is ever read. Placeholders whose names start with one of `skip_prefixes`, and those of blocks
    and variables, stay as they are. A template that is itself one placeholder without a value becomes `NOT_SET`.

    Raises:
        InvalidTemplate: The template is not JSON, or a secret would be put inside text.
    """
    return _Filler(values, environ or {}, tuple(skip_prefixes), remove_notset=remove_notset).fill(template)


class _Filler:
    def __init__(
        self, values: Mapping[str, Any], environ: Mapping[str, str], skip: tuple[str, ...], *, remove_notset: bool
    ) -> None:
        self.values, self.environ, self.skip, self.remove_notset = values, environ, skip, remove_notset

    def fill(self, template: Any) -> Any:
        if isinstance(template, str):
            return self._fill_text(template)
        if isinstance(template, dict):
            filled = {key: self._fill_entry(value) for key, value in template.items()}
            return {key: value for key, value in filled.items() if value is not NOT_SET}
        if isinstance(template, list):
            return [value for value in map(self.fill, template) if value is not NOT_SET]
        if isinstance(template, (*_SCALARS, SecretRef, NotSet)):
            return template
        raise _not_json(template)

    def _fill_entry(self, template: Any) -> Any:
        value = self.fill(template)
        return template if value is NOT_SET and not self.remove_notset else value

    def _fill_text(self, text: str) -> Any:
        whole = whole_placeholder(text)
        if whole and whole.type is PlaceholderType.STANDARD and not self._skips(whole):
            return copy_json(get_path(self.values, whole.name))
        return replace_placeholders(text, self._substitute)

    def _substitute(self, placeholder: Placeholder) -> str:
        if placeholder.type in (PlaceholderType.BLOCK, PlaceholderType.VARIABLE) or self._skips(placeholder):
            return placeholder.full_match
        value = self._value(placeholder)
        if value is NOT_SET:
            return "" if self.remove_notset else placeholder.full_match
        return as_text(value, placeholder)

    def _value(self, placeholder: Placeholder) -> Any:
        if placeholder.type is PlaceholderType.ENV:
            return self.environ.get(placeholder.name.lstrip("$"), NOT_SET)
        return get_path(self.values, placeholder.name)

    def _skips(self, placeholder: Placeholder) -> bool:
        return placeholder.name.startswith(self.skip)


def as_text(value: object, placeholder: Placeholder) -> str:
    """Return a value as it reads inside text, `str()` of it.

    Raises:
        InvalidTemplate: The value is, or holds, a secret.
    """
    if find_secret_refs(value):
        raise InvalidTemplate(
            f"{placeholder.full_match} is a secret, and a secret cannot be put inside text; "
            f"make it the whole value of a field that takes secrets"
        )
    return str(value)


def copy_json(value: Any) -> Any:
    """Return a copy that shares no dictionary or list with the original."""
    if isinstance(value, dict):
        return {key: copy_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [copy_json(item) for item in value]
    return value


# -- blocks and variables ------------------------------------------------------


def resolve_block_references(template: Any, load_block: LoadBlock) -> Any:
    """Return a copy of a template with its references to blocks replaced by the blocks' data.

    A reference is `{{ prefect.blocks.TYPE.NAME }}` or `{{ blocks.TYPE.NAME }}`, with an optional key path behind it,
    or `{"$ref": {"block_document_id": ID}}`. `load_block(type_slug, name)`, or `load_block(None, id)`, returns a
    block's data and is called once per block; what it raises passes through. Data whose only key is `value` stands for
    that value. The data itself is not read for placeholders.

    Raises:
        InvalidTemplate: A reference is malformed, leads nowhere, or would put an object or a secret inside text.
    """
    return resolve_references(template, load_block=load_block)


def resolve_variables(template: Any, load_variable: LoadVariable) -> Any:
    """Return a copy of a template with `{{ prefect.variables.NAME }}` and `{{ variables.NAME }}` filled.

    A variable that does not exist (`load_variable` answers None) becomes empty text. The values are not read for
    placeholders.
    """
    return resolve_references(template, load_variable=load_variable)


def resolve_references(
    template: Any,
    *,
    load_block: LoadBlock | None = None,
    load_variable: LoadVariable | None = None,
) -> Any:
    """Return a copy of a template with blocks and variables filled in one pass; a loader left out leaves its kind.

    Raises:
        InvalidTemplate: As `resolve_block_references`.
    """
    return _Resolver(load_block, load_variable).resolve(template)


def block_ref(value: object) -> str | None:
    """Return the block's id from `{"$ref": {"block_document_id": ID}}`, or None for any other value.

    A `$ref` of another kind, such as by slug, is no reference to a block by id.

    Raises:
        InvalidTemplate: The value has a `$ref` that is not an object, or one without a usable id.
    """
    if not isinstance(value, dict) or "$ref" not in value:
        return None
    ref = value["$ref"]
    if isinstance(ref, dict) and "block_document_id" not in ref:
        return None
    id_ = ref["block_document_id"] if isinstance(ref, dict) else None
    if isinstance(id_, str | UUID) and str(id_):
        return str(id_)
    raise InvalidTemplate(
        'a "$ref" names a block by its id; write {"$ref": {"block_document_id": "<id>"}}, '
        'or "{{ blocks.<type>.<name> }}"'
    )


class _Resolver:
    def __init__(
        self,
        load_block: LoadBlock | None,
        load_variable: LoadVariable | None,
    ) -> None:
        self.load_block, self.load_variable = load_block, load_variable
        self.blocks: dict[tuple[str | None, str], dict[str, Any]] = {}
        self.variables: dict[str, Any] = {}

    def resolve(self, template: Any) -> Any:
        if isinstance(template, str):
            return self._resolve_text(template)
        if isinstance(template, list):
            return [self.resolve(item) for item in template]
        if isinstance(template, dict):
            return self._resolve_dict(template)
        return template

    def _resolve_dict(self, template: dict[str, Any]) -> Any:
        if self.load_block and (id_ := block_ref(template)):
            return copy_json(self._block(None, id_))
        return {key: self.resolve(value) for key, value in template.items()}

    def _resolve_text(self, text: str) -> Any:
        whole = whole_placeholder(text)
        if whole and self._resolves(whole):
            return copy_json(self._value(whole))
        return replace_placeholders(text, self._substitute)

    def _substitute(self, placeholder: Placeholder) -> str:
        if not self._resolves(placeholder):
            return placeholder.full_match
        value = self._value(placeholder)
        text = as_text(value, placeholder)
        if placeholder.type is PlaceholderType.BLOCK and isinstance(value, dict | list):
            raise InvalidTemplate(
                f"{placeholder.full_match} is an object or a list, and text can hold neither; "
                f"add the path of one of its fields"
            )
        return text

    def _resolves(self, placeholder: Placeholder) -> bool:
        loaders = {PlaceholderType.BLOCK: self.load_block, PlaceholderType.VARIABLE: self.load_variable}
        return loaders.get(placeholder.type) is not None

    def _value(self, placeholder: Placeholder) -> Any:
        if placeholder.type is PlaceholderType.VARIABLE:
            return self._variable(_without_prefix(placeholder.name, _VARIABLE_PREFIXES))
        type_slug, name, path = parse_block_name(placeholder)
        return _block_value(self._block(type_slug, name), path, placeholder)

    def _variable(self, name: str) -> Any:
        if name not in self.variables:
            value = self.load_variable(name) if self.load_variable else None
            self.variables[name] = "" if value is None else value
        return self.variables[name]

    def _block(self, type_slug: str | None, name: str) -> dict[str, Any]:
        if (type_slug, name) not in self.blocks and self.load_block:
            data = self.load_block(type_slug, name)
            self.blocks[type_slug, name] = {key: item for key, item in data.items() if key != BLOCK_ID_KEY}
        return self.blocks[type_slug, name]


def parse_block_name(placeholder: Placeholder) -> tuple[str, str, str | None]:
    """Return the type slug, the name and the key path that a block placeholder names.

    Raises:
        InvalidTemplate: It lacks a type or a name.
    """
    parts = _without_prefix(placeholder.name, _BLOCK_PREFIXES).split(".", 2)
    if len(parts) < 2 or not all(parts[:2]):
        raise InvalidTemplate(f"{placeholder.full_match} does not name a block; write {{{{ blocks.<type>.<name> }}}}")
    return parts[0], parts[1], parts[2] if len(parts) > 2 else None


def _block_value(data: dict[str, Any], path: str | None, placeholder: Placeholder) -> Any:
    unwrapped = data["value"] if data.keys() == {"value"} else data
    if path is None:
        return unwrapped
    # A path that itself starts at `value` counts from the data, any other from what the data stands for.
    from_data = path == "value" or path.startswith(("value.", "value["))
    value = get_path(data if from_data else unwrapped, path)
    if value is NOT_SET:
        raise InvalidTemplate(f"{placeholder.full_match}: the block has no {path!r}; name one of its fields")
    return value


def _without_prefix(name: str, prefixes: tuple[str, ...]) -> str:
    return next(name.removeprefix(prefix) for prefix in prefixes if name.startswith(prefix))
