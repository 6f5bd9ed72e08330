"""Job configurations: from a pool's template and job variables to the typed request of one job.

A platform subclasses `BaseJobConfiguration`, and `BaseVariables` where its template's variables differ from the
fields of its configuration, as in Prefect's custom-worker guide; its base job template is generated from the two.
"""

from __future__ import annotations

import json
import shlex
from datetime import UTC
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal, Self
from uuid import UUID

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    PositiveInt,
    ValidationError,
    field_validator,
)
from pydantic.json_schema import GenerateJsonSchema, SkipJsonSchema

from push_pools.domain.errors import InvalidJobVariables, InvalidTemplate
from push_pools.domain.job_variables import (
    CONTEXT_PATHS,
    CONTEXT_PREFIX,
    PARAMETERS_PREFIX,
    expand_dotted,
    explain_job_variables,
    format_path,
    is_marked_secret,
    merge_job_variables,
    split_command,
    template_defaults,
    template_sections,
    unknown_context,
    validate_base_job_template,
    validate_job_variables,
)
from push_pools.domain.secrets import SecretRef, find_secret_refs, secrets_as_json
from push_pools.domain.templates import (
    BLOCK_ID_KEY,
    NOT_SET,
    PlaceholderType,
    apply_values,
    block_ref,
    copy_json,
    find_placeholders,
    get_path,
    parse_block_name,
    replace_placeholders,
    resolve_references,
    whole_placeholder,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from push_pools.domain.templates import LoadBlock, LoadVariable, Placeholder

__all__ = [
    "BaseJobConfiguration",
    "BaseVariables",
    "DeploymentInfo",
    "FlowInfo",
    "FlowRunInfo",
    "WorkPoolInfo",
    "default_base_job_template",
    "explain_job_variables",
    "merge_job_variables",
    "split_command",
    "validate_base_job_template",
    "validate_job_variables",
]

COMMAND_KEYS: Final = frozenset({"command", "args", "entrypoint"})
"""Keys whose text is a command line: it is split into words before `ctx` values are put in."""

NAME_MAPS: Final = frozenset({"env", "environment", "labels", "tags"})
"""Keys of objects whose own keys are names that the user chose."""

GUARDED_KEYS: Final = frozenset({"env", "environment", "command", "args", "entrypoint"})
"""Keys under which a cloud shows what it was given to whoever may read the job."""

SERVICE_ENV: Final = (
    "PUSH_POOLS_RUN_ID",
    "PUSH_POOLS_ATTEMPT",
    "PUSH_POOLS_PARAMETERS",
    "PUSH_POOLS_DEPLOYMENT",
    "PUSH_POOLS_SCHEDULED_TIME",
)
"""What every job finds in its environment; the last but one only if its run has a deployment."""

_NAME = "Name shown for the job. It may use {{ ctx.flow.name }}, {{ ctx.flow_run.name }} and the other ctx values."
_ENV = "Environment variables of the job. A value of null unsets the variable."
_LABELS = "Labels or tags of the job."
_COMMAND = (
    "Command of the job: a list of words, or text that is split as a shell would, though no shell is run. "
    "If left out, the image's own command runs."
)


# -- what a configuration is prepared with -------------------------------------


class _Info(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FlowRunInfo(_Info):
    """The run that a job is prepared for."""

    id: UUID
    name: str
    attempt: PositiveInt
    scheduled_time: AwareDatetime
    parameters: dict[str, JsonValue] = Field(default_factory=dict)

    @property
    def scheduled_time_text(self) -> str:
        """The scheduled time in UTC, by RFC 3339."""
        return self.scheduled_time.astimezone(UTC).isoformat().replace("+00:00", "Z")


class FlowInfo(_Info):
    """The flow of the run."""

    name: str


class DeploymentInfo(_Info):
    """The deployment of the run, if it has one."""

    id: UUID
    name: str
    flow_name: str

    @property
    def full_name(self) -> str:
        """The name by which the deployment is addressed, `flow/name`."""
        return f"{self.flow_name}/{self.name}"


class WorkPoolInfo(_Info):
    """The work pool that the run is in."""

    name: str
    type: str


# -- the configuration ---------------------------------------------------------


class BaseJobConfiguration(BaseModel):
    """What one job is made of; a platform adds its own fields.

    Text may hold `{{ ctx.… }}` placeholders until `prepare_for_flow_run` has filled them.
    """

    block_fields: ClassVar[frozenset[str]] = frozenset()
    """Fields that name a block and keep only its id, as `{"$ref": {"block_document_id": ID}}`."""
    secret_paths_allowed: ClassVar[frozenset[str]] = frozenset()
    """Keys of `GUARDED_KEYS` under which this platform can keep a secret out of sight."""

    command: str | list[str] | None = Field(default=None, description=_COMMAND)
    env: dict[str, str | None] = Field(default_factory=dict, title="Environment Variables", description=_ENV)
    labels: dict[str, str] = Field(default_factory=dict, description=_LABELS)
    name: str | None = Field(default=None, description=_NAME)
    secret_env: Annotated[dict[str, dict[Literal["$secret"], str]], SkipJsonSchema()] = Field(default_factory=dict)
    """The entries of `env` that are references to secrets, where the platform allows them."""

    @property
    def risks(self) -> list[str]:
        """Sentences about what lets an attempt run its code more than once, which `doctor` shows. A platform's own."""
        return []

    @field_validator("command")
    @classmethod
    def _empty_is_none(cls, command: str | list[str] | None) -> str | list[str] | None:
        return command or None

    @field_validator("env", mode="before")
    @classmethod
    def _values_are_text(cls, env: object) -> object:
        if not isinstance(env, dict):
            return env
        return {name: value if value is None else str(value) for name, value in env.items()}

    @classmethod
    def from_template_and_values(
        cls,
        base_job_template: Mapping[str, Any],
        values: Mapping[str, Any],
        *,
        load_block: LoadBlock | None = None,
        load_variable: LoadVariable | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> Self:
        """Return the configuration that a base job template gives with these job variables.

        The order is Prefect's: the template's defaults, over them `values`, `env` merged name by name, then
        blocks and variables, then this class's own types. `load_block`, `load_variable` and `environ` are as in
        `domain.templates`; a block's id may come with its data under `$block_document_id`.

        Raises:
            InvalidTemplate: The template, or a reference in it or in the values, is wrong.
            InvalidJobVariables: The result does not fit this class, or a secret would be shown.
        """
        filled = apply_values(
            *_template_and_values(base_job_template, values), environ=environ, skip_prefixes=(CONTEXT_PREFIX,)
        )
        loaders = _Loaders(load_block, load_variable)
        fields = {name: cls._resolve_field(name, value, loaders) for name, value in filled.items()}
        cls._refuse_shown_secrets(fields)
        return cls._validated(_with_secret_env(secrets_as_json(fields)))

    @classmethod
    def _resolve_field(cls, name: str, value: Any, loaders: _Loaders) -> Any:
        return loaders.keep_id(value) if name in cls.block_fields else loaders.resolve(value)

    @classmethod
    def _refuse_shown_secrets(cls, fields: Mapping[str, Any]) -> None:
        guarded = GUARDED_KEYS - cls.secret_paths_allowed
        problems = [
            f"{format_path(path)}: a secret would be shown here to whoever may read the job; "
            f"use `secrets` with valueFrom on ECS, or `env_from_secrets` on Cloud Run"
            for path, _ in find_secret_refs(fields)
            if guarded.intersection(path)
        ]
        if problems:
            raise InvalidJobVariables(problems)

    @classmethod
    def _validated(cls, fields: Mapping[str, Any]) -> Self:
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            raise InvalidJobVariables(_problems(cls, error)) from None

    @classmethod
    def json_template(cls) -> dict[str, Any]:
        """Return the `job_configuration` section of the generated template."""
        properties = cls.model_json_schema()["properties"]
        return {name: _template_of(name, field) for name, field in properties.items()}

    def command_list(self) -> list[str] | None:
        """Return the words of the command, or None for the image's own.

        Raises:
            InvalidJobVariables: The command is text with an unclosed quote.
        """
        words = split_command(self.command) if isinstance(self.command, str) else self.command
        return list(words) if words else None

    def prepare_for_flow_run(
        self,
        flow_run: FlowRunInfo,
        deployment: DeploymentInfo | None = None,
        flow: FlowInfo | None = None,
        work_pool: WorkPoolInfo | None = None,
    ) -> None:
        """Fill in what depends on the run: `ctx` placeholders, the service's environment and its labels.

        A platform may override this to add its own, and calls `super()` first. The service's names win over the
        user's in `env` and `labels`; names whose value is None leave `env`.

        Raises:
            InvalidTemplate: A `ctx` placeholder names nothing.
            InvalidJobVariables: The command is text with an unclosed quote.
        """
        if SERVICE_ENV[0] not in self.env:  # Not prepared before: what ctx puts in is never read again.
            self._render(_Context(self.flow_run_context(flow_run, deployment, flow, work_pool)))
        self.env = _set_names(self.env) | _service_env(flow_run, deployment)
        self.labels = self.labels | _service_labels(flow_run, deployment, flow, work_pool)
        self.name = self.name or flow_run.name
        self.command_list()

    def flow_run_context(
        self,
        flow_run: FlowRunInfo,
        deployment: DeploymentInfo | None = None,
        flow: FlowInfo | None = None,
        work_pool: WorkPoolInfo | None = None,
    ) -> dict[str, Any]:
        """Return what `{{ ctx.… }}` placeholders can read; a platform may add to it."""
        run = flow_run.model_dump(mode="json", include={"id", "name", "attempt"})
        return {
            "flow_run": run | {"scheduled_time": flow_run.scheduled_time_text},
            "deployment": {"name": deployment.name if deployment else None},
            "flow": {"name": flow.name if flow else None},
            "work_pool": {"name": work_pool.name if work_pool else None},
            "parameters": flow_run.parameters,
        }

    def _render(self, context: _Context) -> None:
        for name, value in _model_items(self):
            rendered = context.render(value, name)
            if rendered != value:
                setattr(self, name, _default(self, name) if rendered is NOT_SET else rendered)


def _template_and_values(
    template: Mapping[str, Any], values: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the job configuration and the variables that fill it, after `env` is merged as Prefect merges it."""
    configuration = copy_json(template_sections(template)[0])
    variables = template_defaults(template)
    if env := variables.get("env"):
        configuration["env"] = _merged_env(configuration.get("env"), env)
    variables |= expand_dotted(values)
    if isinstance(configuration.get("env"), dict) and (env := variables.get("env")):
        configuration["env"] = _merged_env(configuration["env"], env)
    return configuration, variables


def _merged_env(under: object, over: object) -> dict[str, Any]:
    if not isinstance(over, dict):
        raise InvalidJobVariables(["env: it is not an object of names and values; write it as one"])
    return {**under, **over} if isinstance(under, dict) else over


def _with_secret_env(fields: dict[str, Any]) -> dict[str, Any]:
    env = fields.get("env")
    if not isinstance(env, dict):
        return {name: value for name, value in fields.items() if name != "secret_env"}
    own = {name: value for name, value in env.items() if name not in SERVICE_ENV}
    secret = {name: value for name, value in own.items() if SecretRef.parse(value)}
    return fields | {"env": {name: own[name] for name in own if name not in secret}, "secret_env": secret}


class _Loaders:
    """Blocks and variables for one configuration, each read once."""

    def __init__(self, load_block: LoadBlock | None, load_variable: LoadVariable | None) -> None:
        self._load_block, self._load_variable = load_block, load_variable
        self._blocks: dict[tuple[str | None, str], Mapping[str, Any]] = {}
        self._variables: dict[str, Any] = {}

    def resolve(self, value: Any) -> Any:
        return resolve_references(value, load_block=self._block, load_variable=self._variable)

    def keep_id(self, value: Any) -> Any:
        """Return a reference by id for a value that names a whole block."""
        whole = whole_placeholder(value)
        if whole and whole.type is PlaceholderType.BLOCK:
            return _ref(self._id(whole))
        resolved = value if block_ref(value) else self.resolve(value)
        id_ = block_ref(resolved)
        return _ref(id_) if id_ else resolved

    def _id(self, placeholder: Placeholder) -> str:
        type_slug, name, path = parse_block_name(placeholder)
        id_ = None if path else self._block(type_slug, name).get(BLOCK_ID_KEY)
        if id_ is None:
            raise InvalidTemplate(f"{placeholder.full_match} is not a whole block; leave out what follows its name")
        return str(id_)

    def _block(self, type_slug: str | None, name: str) -> Mapping[str, Any]:
        if self._load_block is None:
            raise InvalidTemplate(f"block {name!r} is needed, and no blocks can be read here; leave out the reference")
        if (type_slug, name) not in self._blocks:
            self._blocks[type_slug, name] = self._load_block(type_slug, name)
        return self._blocks[type_slug, name]

    def _variable(self, name: str) -> Any:
        if self._load_variable is None:
            raise InvalidTemplate(
                f"variable {name!r} is needed, and no variables can be read here; leave out the placeholder"
            )
        if name not in self._variables:
            self._variables[name] = self._load_variable(name)
        return self._variables[name]


def _ref(block_id: str) -> dict[str, Any]:
    return {"$ref": {"block_document_id": block_id}}


def _problems(cls: type[BaseModel], error: ValidationError) -> list[str]:
    found = error.errors(include_url=False, include_input=False, include_context=False)
    return [f"{format_path(each['loc'])}: {_problem(cls, each['loc'], each['msg'])}" for each in found]


def _problem(cls: type[BaseModel], path: tuple[int | str, ...], message: str) -> str:
    field = cls.model_fields.get(str(path[0])) if path else None
    if field is not None and is_marked_secret(field.json_schema_extra):
        return "the value, which is not shown, does not fit"
    return message


# -- what preparing adds -------------------------------------------------------


def _set_names(env: Mapping[str, str | None]) -> dict[str, str | None]:
    return {name: value for name, value in env.items() if value is not None}


def _service_env(flow_run: FlowRunInfo, deployment: DeploymentInfo | None) -> dict[str, str | None]:
    env: dict[str, str | None] = {
        "PUSH_POOLS_RUN_ID": str(flow_run.id),
        "PUSH_POOLS_ATTEMPT": str(flow_run.attempt),
        "PUSH_POOLS_PARAMETERS": _compact(flow_run.parameters),
        "PUSH_POOLS_SCHEDULED_TIME": flow_run.scheduled_time_text,
    }
    return env | ({"PUSH_POOLS_DEPLOYMENT": deployment.full_name} if deployment else {})


def _service_labels(
    flow_run: FlowRunInfo, deployment: DeploymentInfo | None, flow: FlowInfo | None, work_pool: WorkPoolInfo | None
) -> dict[str, str]:
    labels = {
        "push-pools/run-id": str(flow_run.id),
        "push-pools/run-name": flow_run.name,
        "push-pools/attempt": str(flow_run.attempt),
        "push-pools/deployment": deployment.full_name if deployment else None,
        "push-pools/flow": flow.name if flow else None,
        "push-pools/work-pool": work_pool.name if work_pool else None,
    }
    return {name: value for name, value in labels.items() if value is not None}


def _compact(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


class _Context:
    """Fills `ctx` placeholders; what they become is always text, and null counts as missing."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values

    def render(self, value: Any, key: str | int | None = None) -> Any:
        if isinstance(value, str):
            return self._render_text(value, is_command=key in COMMAND_KEYS)
        if isinstance(value, dict):
            # A variable or label that happens to be called "command" is no command line.
            return _set_only(
                {name: self.render(item, None if key in NAME_MAPS else name) for name, item in value.items()}
            )
        if isinstance(value, list):
            return [item for item in map(self.render, value) if item is not NOT_SET]
        if isinstance(value, BaseModel):
            rendered = {name: self.render(item, name) for name, item in _model_items(value)}
            return value.model_copy(update=_with_defaults(value, rendered))
        return value

    def _render_text(self, text: str, *, is_command: bool) -> Any:
        if not any(map(_is_context, find_placeholders(text))):
            return text
        if is_command:
            return self._render_command(text)
        whole = whole_placeholder(text)
        if whole and self._value(whole) is None:
            return NOT_SET
        return replace_placeholders(text, self._substitute)

    def _render_command(self, text: str) -> str:
        # Split first: a value with a blank or a quote in it must stay one word.
        without_blanks = replace_placeholders(text, _without_blanks)
        words = (self._render_text(word, is_command=False) for word in split_command(without_blanks))
        return shlex.join(word for word in words if word is not NOT_SET)

    def _substitute(self, placeholder: Placeholder) -> str:
        if not _is_context(placeholder):
            return placeholder.full_match
        value = self._value(placeholder)
        return value if isinstance(value, str) else "" if value is None else _compact(value)

    def _value(self, placeholder: Placeholder) -> Any:
        value = get_path(self.values, placeholder.name.removeprefix(CONTEXT_PREFIX))
        is_known = placeholder.name in CONTEXT_PATHS or placeholder.name.startswith(PARAMETERS_PREFIX)
        if value is NOT_SET or (isinstance(value, dict) and not is_known):
            raise unknown_context(placeholder, self.values.get("parameters", {}))
        return value


def _without_blanks(placeholder: Placeholder) -> str:
    return f"{{{{{placeholder.name}}}}}" if _is_context(placeholder) else placeholder.full_match


def _is_context(placeholder: Placeholder) -> bool:
    return placeholder.name.startswith(CONTEXT_PREFIX)


def _set_only(values: dict[Any, Any]) -> dict[Any, Any]:
    return {name: value for name, value in values.items() if value is not NOT_SET}


def _model_items(model: BaseModel) -> Iterator[tuple[str, Any]]:
    return ((name, getattr(model, name)) for name in type(model).model_fields)


def _with_defaults(model: BaseModel, values: dict[str, Any]) -> dict[str, Any]:
    return {name: _default(model, name) if value is NOT_SET else value for name, value in values.items()}


def _default(model: BaseModel, name: str) -> Any:
    field = type(model).model_fields[name]
    if field.is_required():
        raise InvalidTemplate(f"{name!r} is needed, and its ctx placeholder has no value for this run; give it one")
    return field.get_default(call_default_factory=True, validated_data={})


# -- the variables, and the generated template ---------------------------------


class BaseVariables(BaseModel):
    """The variables that every base job template declares; a platform adds its own.

    The class is only ever read for its schema: whoever owns the pool has the last word on its variables.
    """

    name: str | None = Field(default=None, description=_NAME)
    env: dict[str, str | None] = Field(default_factory=dict, title="Environment Variables", description=_ENV)
    labels: dict[str, str] = Field(default_factory=dict, description=_LABELS)
    command: str | list[str] | None = Field(default=None, description=_COMMAND)

    @classmethod
    def model_json_schema(
        cls,
        by_alias: bool | None = True,
        ref_template: str = "#/definitions/{model}",
        schema_generator: type[GenerateJsonSchema] = GenerateJsonSchema,
        mode: Literal["validation", "serialization"] = "validation",
        **options: Any,
    ) -> dict[str, Any]:
        """Return the schema in the form that templates have: `definitions`, and no `additionalProperties` of models."""
        schema = super().model_json_schema(bool(by_alias), ref_template, schema_generator, mode, **options)
        if "$defs" in schema:
            schema["definitions"] = schema.pop("$defs")
        for model in (schema, *schema.get("definitions", {}).values()):
            model.pop("additionalProperties", None)
        return schema


def default_base_job_template(
    job_configuration: type[BaseJobConfiguration], variables: type[BaseModel] | None = None
) -> dict[str, Any]:
    """Return the base job template of a platform, generated from its classes as in the custom-worker guide.

    A field's `json_schema_extra={"template": …}` is its template, else `{{ field }}`. Without a class of variables
    these are the configuration's own fields.
    """
    schema = variables.model_json_schema() if variables else _variables_of(job_configuration)
    schema.pop("title", None)
    if variables is BaseVariables or job_configuration is BaseJobConfiguration:
        schema.pop("description", None)  # It speaks to whoever writes a platform, not to the owner of a pool.
    return {"job_configuration": job_configuration.json_template(), "variables": schema}


def _variables_of(job_configuration: type[BaseJobConfiguration]) -> dict[str, Any]:
    schema = job_configuration.model_json_schema()
    for field in schema["properties"].values():
        field.pop("template", None)
    return schema


def _template_of(name: str, field: Mapping[str, Any]) -> Any:
    return field.get("template") or f"{{{{ {name} }}}}"
