"""Job variables: merging their layers, telling where each came from, and checking them against a pool's schema."""

from __future__ import annotations

import difflib
import json
import re
import shlex
from typing import TYPE_CHECKING, Any, Final

from push_pools.domain.errors import InvalidJobVariables, InvalidTemplate
from push_pools.domain.secrets import SECRET_KEY, secrets_as_json
from push_pools.domain.templates import PlaceholderType, block_ref, copy_json, find_placeholders, whole_placeholder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from jsonschema.exceptions import ValidationError

    from push_pools.domain.templates import Placeholder

CONTEXT_PREFIX: Final = "ctx."
PARAMETERS_PREFIX: Final = "ctx.parameters."
CONTEXT_PATHS: Final = (
    "ctx.flow_run.id",
    "ctx.flow_run.name",
    "ctx.flow_run.scheduled_time",
    "ctx.flow_run.attempt",
    "ctx.deployment.name",
    "ctx.flow.name",
    "ctx.work_pool.name",
)
"""What `{{ ctx.… }}` can name, beside `ctx.parameters.NAME`."""

TEMPLATE_DEFAULT: Final = "template default"
JOB_CONFIGURATION: Final = "job configuration"

_LONGEST_SCHEMA = 160
_LONGEST_REASON = 300


# -- layers --------------------------------------------------------------------


def template_sections(template: object) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the job configuration and the variables schema of a base job template.

    Raises:
        InvalidTemplate: One of them is missing.
    """
    sections = template if isinstance(template, dict) else {}
    for key in ("job_configuration", "variables"):
        if not isinstance(sections.get(key), dict):
            raise InvalidTemplate(f"a base job template needs an object under {key!r}; add it")
    return sections["job_configuration"], sections["variables"]


def template_defaults(base_job_template: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of the defaults that a template's variables have; a default of null is none."""
    properties = template_sections(base_job_template)[1].get("properties", {})
    defaults = {name: field.get("default") for name, field in properties.items() if isinstance(field, dict)}
    return {name: copy_json(default) for name, default in defaults.items() if default is not None}


def expand_dotted(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy in which keys such as `env.NAME` are nested; what is written nested wins over a dotted key.

    Raises:
        InvalidJobVariables: A dotted key leads through something that is not an object.
    """
    expanded: dict[str, Any] = {}
    for key in filter(_is_dotted, values):
        _set_path(expanded, key, copy_json(values[key]))
    for key, value in values.items():
        if not _is_dotted(key):
            expanded[key] = _deep_merge(expanded.get(key), copy_json(value))
    return expanded


def merge_job_variables(*layers: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the job variables of several layers as one, a later layer over an earlier one.

    `env` is merged name by name, and a dotted key sets only what it names; any other value replaces the earlier one
    whole. An `env` of null drops the names of the earlier layers.

    Raises:
        InvalidJobVariables: A dotted key leads through something that is not an object.
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        _merge_layer(merged, layer or {})
    return merged


def _merge_layer(merged: dict[str, Any], layer: Mapping[str, Any]) -> None:
    for key, value in expand_dotted(layer).items():
        if key == "env" and value is None:
            merged.pop(key, None)
        elif key == "env" and isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = merged[key] | value
        else:
            merged[key] = value if key in layer else _deep_merge(merged.get(key), value)


def explain_job_variables(
    base_job_template: Mapping[str, Any], layers: Sequence[tuple[str, Mapping[str, Any] | None]]
) -> dict[str, str]:
    """Return, for each final job variable and each name in `env`, the layer that its value comes from.

    Paths are as in `cpu`, `env.NAME` and, for a dotted key that changed a part of a value, `resources.cpu`.
    `layers` are named by the caller, the later over the earlier; below them stand the template's defaults, and below
    those the `env` written in its job configuration.

    Raises:
        InvalidJobVariables: A dotted key leads through something that is not an object.
    """
    below = _env_origins(template_sections(base_job_template)[0].get("env"), JOB_CONFIGURATION)
    defaults = template_defaults(base_job_template)
    below |= _env_origins(defaults.pop("env", None), TEMPLATE_DEFAULT)
    origins = dict.fromkeys(defaults, TEMPLATE_DEFAULT)
    merged: dict[str, Any] = {}
    for name, layer in layers:
        _explain_layer(origins, name, layer or {}, merged)
        _merge_layer(merged, layer or {})
    return dict(sorted((below | origins).items()))


def _env_origins(env: object, origin: str) -> dict[str, str]:
    return {f"env.{name}": origin for name in env} if isinstance(env, dict) else {}


def _explain_layer(origins: dict[str, str], origin: str, layer: Mapping[str, Any], merged: Mapping[str, Any]) -> None:
    for key, value in expand_dotted(layer).items():
        if key == "env" and isinstance(value, dict):
            origins.pop(key, None)
            origins.update(_env_origins(value, origin))
        elif key not in layer and isinstance(merged.get(key), dict):
            origins.update({format_path(_key_path(path)): origin for path in layer if _key_path(path)[0] == key})
        else:
            _forget(origins, key)
            origins.update({} if key == "env" and value is None else {key: origin})


def _forget(origins: dict[str, str], key: str) -> None:
    for path in [path for path in origins if path == key or path.startswith(f"{key}.")]:
        del origins[path]


def _is_dotted(key: str) -> bool:
    return "." in key


def _key_path(key: str) -> list[str]:
    return key.replace("[", ".").replace("]", "").split(".")


def _set_path(target: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = _key_path(key)
    for part in parents:
        target = target.setdefault(part, {})
        if not isinstance(target, dict):
            raise InvalidJobVariables([f"{key}: {part!r} is set to something that is not an object; set it only once"])
    target[last] = value


def _deep_merge(under: Any, over: Any) -> Any:
    if not (isinstance(under, dict) and isinstance(over, dict)):
        return over
    return under | {key: _deep_merge(under.get(key), value) for key, value in over.items()}


# -- the template itself -------------------------------------------------------


def validate_base_job_template(template: object) -> None:
    """Check that a base job template can be used at all.

    Raises:
        InvalidTemplate: A section is missing, a placeholder is not declared under `variables`, a `ctx` path or a
            `$ref` is unknown, or `variables` is not a JSON schema.
    """
    configuration, variables = template_sections(template)
    _check_schema(variables)
    _check_refs(configuration)
    declared = set(variables.get("properties", {}))
    for placeholder in sorted(find_placeholders(configuration)):
        if placeholder.type is PlaceholderType.STANDARD:
            _check_declared(placeholder, declared)


def _check_refs(value: object) -> None:
    block_ref(value)
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _check_refs(item)


def _check_declared(placeholder: Placeholder, declared: set[str]) -> None:
    if placeholder.name.startswith(CONTEXT_PREFIX):
        return check_context_path(placeholder)
    name = placeholder.name.replace("[", ".").split(".")[0]
    if name not in declared:
        raise InvalidTemplate(
            f"{placeholder.full_match} in the job configuration is not declared under variables.properties; "
            f"{_did_you_mean(name, declared, otherwise='declare it there')}"
        )
    return None


def check_context_path(placeholder: Placeholder, parameters: Iterable[str] = ("NAME",)) -> None:
    """Check that a `ctx` placeholder names something that exists.

    Raises:
        InvalidTemplate: It does not; the sentence lists what does.
    """
    name = placeholder.name
    if name in CONTEXT_PATHS or (name.startswith(PARAMETERS_PREFIX) and name != PARAMETERS_PREFIX):
        return
    raise unknown_context(placeholder, parameters)


def unknown_context(placeholder: Placeholder, parameters: Iterable[str]) -> InvalidTemplate:
    """Return the error for a `ctx` placeholder that names nothing."""
    known = ", ".join((*CONTEXT_PATHS, *(PARAMETERS_PREFIX + name for name in sorted(parameters))))
    return InvalidTemplate(f"{placeholder.full_match} names nothing; there is {known}")


def _check_schema(variables: Mapping[str, Any]) -> None:
    from jsonschema import Draft202012Validator, SchemaError  # Slow to import, and seldom needed.

    try:
        Draft202012Validator.check_schema(variables, format_checker=Draft202012Validator.FORMAT_CHECKER)
    except SchemaError as error:
        where = format_path(("variables", *error.absolute_path))
        raise InvalidTemplate(f"{where} is not a JSON schema: {error.message}") from error


def _did_you_mean(name: str, known: Iterable[str], *, otherwise: str) -> str:
    close = difflib.get_close_matches(name, sorted(known), n=1)
    return f"did you mean {close[0]!r}?" if close else otherwise


def format_path(path: Iterable[str | int]) -> str:
    """Return a path into nested values as people write it, such as `volumes[0].name`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


# -- values against the schema -------------------------------------------------


def validate_job_variables(
    base_job_template: Mapping[str, Any],
    values: Mapping[str, Any],
    *,
    allow_unknown: bool = False,
    require: bool = True,
) -> None:
    """Check job variables against a template's variables schema.

    A value that a block, a variable or `ctx` will give is not checked until it is there. Names and values in `env`
    may be any scalar, which becomes text.

    Raises:
        InvalidJobVariables: With every problem: unknown names, values that break the schema, bad quoting in
            `command` and, with `require`, variables that have neither a value nor a default. Secrets are not shown.
        InvalidTemplate: The schema itself cannot be used.
    """
    expanded = secrets_as_json(expand_dotted(values))
    _, schema = template_sections(base_job_template)
    problems = [] if allow_unknown else _unknown(expanded, schema)
    problems += _breaking(expanded, schema, set(template_defaults(base_job_template)), require=require)
    problems += _bad_quoting(expanded.get("command"))
    if problems:
        raise InvalidJobVariables(problems)


def unknown_job_variables(base_job_template: Mapping[str, Any], names: Iterable[str]) -> list[str]:
    """Return a sentence for each name that a template has no variable for; of a dotted name the first part counts.

    Raises:
        InvalidTemplate: It has no variables section.
    """
    first_parts = {_key_path(name)[0] if _is_dotted(name) else name: None for name in names}
    return _unknown(first_parts, template_sections(base_job_template)[1])


def _unknown(values: Mapping[str, Any], schema: Mapping[str, Any]) -> list[str]:
    declared = set(schema.get("properties", {}))
    known = f"known: {', '.join(sorted(declared))}"
    return [
        f"{name}: there is no such variable; {_did_you_mean(name, declared, otherwise=known)}"
        for name in values
        if name not in declared
    ]


def split_command(command: str, variable: str = "command") -> list[str]:
    """Return the words of a command, quoted as in a shell; no shell is ever run.

    Raises:
        InvalidJobVariables: A quote is not closed, or a backslash ends the text.
    """
    try:
        return shlex.split(command)
    except ValueError as error:
        raise InvalidJobVariables(
            [f"{variable}: {error}; close the quote, or write the command as a list of words"]
        ) from error


def _bad_quoting(command: object) -> list[str]:
    try:
        split_command(command if isinstance(command, str) else "")
    except InvalidJobVariables as error:
        return list(error.problems)
    return []


def _breaking(values: Mapping[str, Any], schema: Mapping[str, Any], defaults: set[str], *, require: bool) -> list[str]:
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import UnknownType
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    required = set(schema.get("required", ()))
    # An empty registry: a `$ref` to another document is an error, never a download.
    validator = Draft202012Validator(
        _checked_schema(schema, sorted(required - defaults) if require else []), registry=Registry()
    )
    try:
        errors = list(validator.iter_errors(_checked_values(values, schema, required)))
    except (Unresolvable, RecursionError) as error:
        raise InvalidTemplate("the schema under variables has a $ref that leads nowhere; correct it") from error
    except (re.error, UnknownType) as error:
        raise InvalidTemplate("the schema under variables has a pattern or a type that is none; correct it") from error
    return [sentence for error in errors for sentence in _sentences(error, schema)]


def _checked_schema(schema: Mapping[str, Any], required: list[str]) -> dict[str, Any]:
    # Unknown names have their own sentence.
    without = {"additionalProperties", "unevaluatedProperties", "required"}
    return {**{key: value for key, value in schema.items() if key not in without}, "required": required}


def _checked_values(values: Mapping[str, Any], schema: Mapping[str, Any], required: set[str]) -> dict[str, Any]:
    fields = schema.get("properties", {})
    with_default = {name for name, field in fields.items() if isinstance(field, dict) and "default" in field}
    # As in Prefect: null stands for "not given" where the variable is optional and has no default.
    needs_value = required | with_default
    checked = {name: value for name, value in values.items() if value is not None or name in needs_value}
    if isinstance(env := checked.get("env"), dict) and SECRET_KEY not in env:
        checked["env"] = {name: _env_text(value) for name, value in env.items()}
    return checked


def _env_text(value: object) -> object:
    return str(value) if isinstance(value, bool | int | float) else value


# -- schema errors in words ----------------------------------------------------


def _sentences(error: ValidationError, root: Mapping[str, Any]) -> Iterator[str]:
    if not _stands(error):
        return
    branches = _branches(error)
    if len(branches) == 1:
        # `anyOf` with null is how an optional value is written; the null branch tells nobody anything.
        for nested in branches[0]:
            yield from _sentences(nested, root)
    else:
        yield _sentence(error, root)


def _stands(error: ValidationError) -> bool:
    """Whether an error is one now, and not about a value that is only known later."""
    if _comes_later(error.instance):
        return False
    branches = _branches(error, with_null=True)
    return not branches or all(any(map(_stands, branch)) for branch in branches)


def _comes_later(value: object) -> bool:
    if isinstance(value, dict):
        return value.keys() == {SECRET_KEY} or isinstance(value.get("$ref"), dict)
    whole = whole_placeholder(value)
    return whole is not None and (whole.type in _LATER or whole.name.startswith(CONTEXT_PREFIX))


_LATER = (PlaceholderType.BLOCK, PlaceholderType.VARIABLE)


def _branches(error: ValidationError, *, with_null: bool = False) -> list[list[ValidationError]]:
    branches: dict[Any, list[ValidationError]] = {}
    for nested in error.context or ():
        branches.setdefault(nested.schema_path[0], []).append(nested)
    return [branch for index, branch in branches.items() if with_null or not _is_null(error, index)]


def _is_null(error: ValidationError, index: Any) -> bool:
    branch = error.validator_value[index] if isinstance(error.validator_value, list) else {}
    return isinstance(branch, dict) and branch.get("type") == "null"


def _sentence(error: ValidationError, root: Mapping[str, Any]) -> str:
    where = format_path(error.absolute_path) or "job variables"
    if error.validator == "required" and not error.absolute_path:
        return f"{error.message}; give it a value"
    reason = _reason(error, hidden=_is_hidden(error, root))
    return f"{where}: {reason} (schema: {_schema_text(error.schema)})"


def _reason(error: ValidationError, *, hidden: bool) -> str:
    if error.validator in ("required", "additionalProperties", "dependentRequired"):
        return error.message  # Names only, no values.
    if hidden:
        return f"the value, which is not shown, breaks {error.validator!r}"
    if isinstance(error.instance, dict | list):
        return f"the {'object' if isinstance(error.instance, dict) else 'list'} breaks {error.validator!r}"
    return error.message[:_LONGEST_REASON]


def _schema_text(schema: Any) -> str:
    left_out = {"title", "description", "default", "examples"}
    shown = {key: value for key, value in schema.items() if key not in left_out} if isinstance(schema, dict) else schema
    text = json.dumps(shown, default=str)
    return text if len(text) <= _LONGEST_SCHEMA else text[:_LONGEST_SCHEMA] + "…"


def _is_hidden(error: ValidationError, root: Mapping[str, Any]) -> bool:
    """Whether the value is a secret by its schema, or sits in `env`, where secrets are often put."""
    path = list(error.absolute_path)
    if path[:1] == ["env"]:
        return True
    try:
        return any(is_marked_secret(schema, path) for schema in _schemas(root, error.absolute_schema_path))
    except (KeyError, IndexError, TypeError, AttributeError):
        return True  # A schema that cannot be followed may well be a secret's.


def _schemas(root: Mapping[str, Any], path: Iterable[str | int]) -> Iterator[Any]:
    """Yield every schema on the way to an error; its path leaves out each `$ref` that it went through."""
    schema: Any = root
    for part in path:
        while isinstance(schema, dict) and part not in schema and "$ref" in schema:
            yield schema
            schema = _target(root, schema["$ref"])
        yield schema
        schema = schema[part]


def _target(root: Mapping[str, Any], ref: str) -> Any:
    target: Any = root
    for name in ref.removeprefix("#/").split("/"):
        target = target[name]
    return target


def is_marked_secret(schema: object, path: Sequence[str | int] = ()) -> bool:
    """Whether a schema says that its value, or the value at a path inside it, is a secret."""
    if not isinstance(schema, dict):
        return False
    if schema.get("format") == "password" or schema.get("writeOnly") is True or schema.get("secret") is True:
        return True
    fields = {str(field).split(".")[0] for field in schema.get("secret_fields", ())}
    return not fields.isdisjoint(map(str, path))
