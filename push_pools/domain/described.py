"""JSON schemas with the docstrings of fields as their descriptions.

pydantic reads these docstrings itself where a class asks for it, but does so whenever the class is loaded, which takes
longer than all the rest. Here they are read when a schema is made.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from functools import cache
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel

if TYPE_CHECKING:
    from collections.abc import Iterator


def described_schema(model: type[BaseModel], **options: Any) -> dict[str, Any]:
    """Return the JSON schema of a model; `options` are those of `model_json_schema`."""
    schema = model.model_json_schema(**options)
    definitions = schema.get("$defs", {})
    for class_ in _models(model):
        part = schema if class_ is model else definitions.get(class_.__name__)
        if part is not None:
            _describe(part, class_)
    return schema


def _describe(schema: dict[str, Any], model: type[BaseModel]) -> None:
    docs = _docstrings(model)
    for name, field in model.model_fields.items():
        key = field.alias if field.alias in schema.get("properties", {}) else name
        place = schema.get("properties", {}).get(key)
        if place is not None and name in docs and field.description is None:
            schema["properties"][key] = dict(sorted({**place, "description": docs[name]}.items()))


def _models(model: type[BaseModel], seen: set[type[BaseModel]] | None = None) -> Iterator[type[BaseModel]]:
    """Yield a model and those that its fields hold, each once."""
    seen = set() if seen is None else seen
    if model in seen:
        return
    seen.add(model)
    yield model
    for field in model.model_fields.values():
        for inner in _classes(field.annotation):
            yield from _models(inner, seen)


def _classes(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _classes(argument)


@cache
def _docstrings(model: type[BaseModel]) -> dict[str, str]:
    """Return the text under each field of a class; a class's own wins over that of its bases."""
    found: dict[str, str] = {}
    for class_ in reversed(model.__mro__):
        if issubclass(class_, BaseModel) and class_ is not BaseModel:
            body = ast.parse(textwrap.dedent(inspect.getsource(class_))).body[0]
            assert isinstance(body, ast.ClassDef)
            for before, after in zip(body.body, body.body[1:], strict=False):
                if (
                    isinstance(before, ast.AnnAssign)
                    and isinstance(before.target, ast.Name)
                    and isinstance(after, ast.Expr)
                    and isinstance(after.value, ast.Constant)
                    and isinstance(after.value.value, str)
                ):
                    found[before.target.id] = inspect.cleandoc(after.value.value)
    return found
