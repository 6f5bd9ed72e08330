"""The table of rules: cases on which Prefect and push_pools must agree, and those on which they differ on purpose."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Case:
    """One question that both are asked; `rule` says what it is about."""

    rule: str
    op: str
    args: dict[str, Any] = field(default_factory=dict)
    why: str = ""
    """For a difference: why it is one."""

    def as_json(self) -> dict[str, Any]:
        """Return the question as `oracle.py` reads it."""
        return {"op": self.op, **self.args}


def case(rule: str, op: str, template: Any = None, *, why: str = "", **args: Any) -> Case:
    """Return a case whose template may be left out."""
    return Case(rule, op, args if template is None else {"template": template, **args}, why)


def base(configuration: dict[str, Any], *, required: list[str] | None = None, **defaults: Any) -> dict[str, Any]:
    """Return a base job template whose variables have these defaults."""
    properties = {name: {"default": value} for name, value in defaults.items()}
    return {"job_configuration": configuration, "variables": {"properties": properties, "required": required or []}}


# -- where both agree ----------------------------------------------------------

FIND = [
    case("a standard placeholder", "find", "{{ a }}"),
    case("no blanks are needed", "find", "{{a}}"),
    case("blanks may be tabs and newlines", "find", "{{\t\n a \n}}"),
    case("two spellings are two placeholders", "find", "{{ a }}{{a}}"),
    case("the same spelling twice is one", "find", "{{ a }}{{ a }}"),
    case("dots, brackets and dashes are part of a name", "find", "{{ a.b-c[0] }}"),
    case("letters of any script are part of a name", "find", "{{ größe }} {{ 名 }}"),
    case("a blank inside is text", "find", "{{ a b }}"),
    case("a filter is text", "find", "{{ a|upper }}"),
    case("a slash is text", "find", "{{ a/b }}"),
    case("nothing inside is text", "find", "{{ }}{{}}"),
    case("a statement is text", "find", "{% a %}"),
    case("single braces are text", "find", "{ a }"),
    case("a third brace is text around the placeholder", "find", "{{{ a }}}"),
    case("the environment", "find", "{{ $HOME }}"),
    case("a dollar inside a name is standard", "find", "{{ a$b }}"),
    case("a block", "find", "{{ prefect.blocks.secret.token }}"),
    case("a variable", "find", "{{ prefect.variables.region }}"),
    case("prefect.blocks alone is standard", "find", "{{ prefect.blocks }}"),
    case("prefect.other is standard", "find", "{{ prefect.other.a }}"),
    case("ctx is standard", "find", "{{ ctx.flow_run.id }}"),
    case("values of dictionaries and lists are read, keys are not", "find", {"{{ k }}": ["{{ a }}", {"x": "{{ b }}"}]}),
    case("numbers, booleans and null hold none", "find", [1, 2.5, True, None, ""]),
    case("a tuple is refused", "find", python="('{{ a }}',)"),
    case("a set is refused", "find", python="{'{{ a }}'}"),
    case("bytes are refused", "find", python="b'{{ a }}'"),
]

TYPES: list[Any] = [1, 0, -1, 2.5, True, False, None, "", "text", [], [1, "b"], {}, {"k": {"l": [None]}}]

APPLY = [
    *(
        case(f"a whole placeholder keeps the type of {value!r}", "apply", "{{ a }}", values={"a": value})
        for value in TYPES
    ),
    *(case(f"inside text {value!r} is str()", "apply", "x{{ a }}y", values={"a": value}) for value in TYPES),
    case("a leading blank makes it text", "apply", " {{ a }}", values={"a": 1}),
    case("a trailing blank makes it text", "apply", "{{ a }} ", values={"a": True}),
    case("a trailing newline makes it text", "apply", "{{ a }}\n", values={"a": 1}),
    case("a repeated placeholder makes it text", "apply", "{{ a }}{{ a }}", values={"a": None}),
    case("two spellings make it text", "apply", "{{ a }}{{a}}", values={"a": [1]}),
    case("a backslash does not escape", "apply", "\\{{ a }}", values={"a": 1}),
    case("a dollar does not escape", "apply", "${{ a }}", values={"a": 1}),
    case("three braces keep one each side", "apply", "{{{ a }}}", values={"a": 1}),
    case("four braces keep two each side", "apply", "{{{{ a }}}}", values={"a": 1}),
    case("what is no placeholder stays", "apply", "{{ a b }} {{ a|upper }} {{ }} {% a %}", values={"a": 1}),
    case("missing as the whole template", "apply", "{{ a }}"),
    case("missing as a value removes the key", "apply", {"k": "{{ a }}", "l": 1}),
    case("missing as an item removes the item", "apply", ["{{ a }}", 1]),
    case("missing inside text is empty", "apply", "x{{ a }}y"),
    case("containers that become empty stay", "apply", {"k": {"l": "{{ a }}"}, "m": ["{{ a }}"]}),
    case("text may become empty", "apply", {"k": "{{ a }}{{ b }}"}),
    case("kept: missing as a value", "apply", {"k": "{{ a }}"}, remove_notset=False),
    case("kept: missing as an item is removed all the same", "apply", ["{{ a }}", 1], remove_notset=False),
    case("kept: missing inside text", "apply", "x{{ a }}{{ b }}", values={"b": 1}, remove_notset=False),
    case("kept: missing as the whole template", "apply", "{{ a }}", remove_notset=False),
    case("null is a value", "apply", {"k": "{{ a }}"}, values={"a": None}),
    case("a key path", "apply", "{{ a.b.c }}", values={"a": {"b": {"c": 1}}}),
    case("an index in brackets", "apply", "{{ a[1] }}", values={"a": [1, 2]}),
    case("an index behind a dot", "apply", "{{ a.1 }}", values={"a": [1, 2]}),
    case("a negative index", "apply", "{{ a.-1 }}", values={"a": [1, 2]}),
    case("a key in brackets", "apply", "{{ a[b] }}", values={"a": {"b": 1}}),
    case("an index and a key", "apply", "{{ a[0].b }}", values={"a": [{"b": 1}]}),
    case("an index out of range is missing", "apply", ["{{ a.5 }}"], values={"a": [1]}),
    case("a path through a number is missing", "apply", ["{{ a.b }}"], values={"a": 1}),
    case("a path through null is missing", "apply", ["{{ a.b }}"], values={"a": None}),
    case("a path into text by key is missing", "apply", ["{{ a.b }}"], values={"a": "text"}),
    case("a path into text by index is a letter", "apply", ["{{ a.0 }}"], values={"a": "text"}),
    case("a key with a dot is never matched", "apply", ["{{ a.b }}"], values={"a.b": 1}),
    case("a key of digits is an index, so missing", "apply", ["{{ a.0 }}", "{{ 0 }}"], values={"a": {"0": 1}, "0": 2}),
    case("an underscore in digits", "apply", ["{{ a.1_0 }}"], values={"a": {"1_0": 1}}),
    case("a trailing dot is missing", "apply", ["{{ a. }}"], values={"a": {"b": 1}}),
    case("keys of dictionaries are not filled", "apply", {"{{ a }}": "{{ a }}"}, values={"a": 1}),
    case("what is put in is not read again", "apply", ["{{ a }}", "x{{ a }}"], values={"a": "{{ b }}", "b": 1}),
    case(
        "blocks and variables stay",
        "apply",
        "{{ prefect.blocks.a.b }}{{ prefect.variables.c }}{{ d }}",
        values={"d": 1},
    ),
    case("a whole block placeholder stays", "apply", ["{{ prefect.blocks.a.b }}"], values={"prefect": {}}),
    case("ctx is a value like any other", "apply", "{{ ctx.a }}", values={"ctx": {"a": 1}}),
    case("a prefix to skip: whole", "apply", ["{{ ctx.a }}"], values={"ctx": {"a": 1}}, skip_prefixes=["ctx."]),
    case("a prefix to skip: in text", "apply", "{{ ctx.a }}{{ b }}", values={"b": 1}, skip_prefixes=["ctx."]),
    case("the environment: set", "apply", ["{{ $A }}"], environ={"A": "1"}),
    case("the environment: in text", "apply", "x{{ $A }}", environ={"A": "1"}),
    case("the environment: missing is empty and the key stays", "apply", {"k": "{{ $A }}"}, environ={}),
    case("the environment: kept", "apply", {"k": "{{ $A }}"}, environ={}, remove_notset=False),
    case("the environment: more dollars", "apply", ["{{ $$A }}"], environ={"A": "1"}),
    case(
        "the environment: values of that name do not count", "apply", ["{{ $A }}"], values={"$A": 1, "A": 2}, environ={}
    ),
    case("the environment: no key path", "apply", ["{{ $A.b }}"], environ={"A": "1"}),
    case("numbers and booleans stay", "apply", [1, 2.5, True, None, ""]),
    case("deep nesting", "apply", {"a": [{"b": [{"c": "{{ x }}{{ y }}"}]}]}, values={"x": 1, "y": 2}),
    case("a tuple is refused", "apply", python="{'k': ('{{ a }}',)}"),
    case("a set is refused", "apply", python="[{'{{ a }}'}]"),
]

_BLOCKS = {
    "secret/token": {"value": "s3"},
    "json/config": {"value": {"k": {"nested-key": 1}, "list": [{"l": 2}, 3], "values": 4}},
    "aws/prod": {"region": "eu", "keys": ["a", "b"], "value": "v", "none": None},
    "plain/empty": {},
    "json/none": {"value": None},
    "text/odd": {"value": "{{ prefect.blocks.secret.token }}"},
    "id-1": {"region": "eu", "k": {"l": 1}},
}


def block(rule: str, template: Any, **args: Any) -> Case:
    """Return a case about blocks."""
    return case(rule, "blocks", template, blocks=_BLOCKS, **args)


BLOCKS = [
    block("a block of a single value is that value", "{{ prefect.blocks.secret.token }}"),
    block("a block of several values is an object", "{{ prefect.blocks.aws.prod }}"),
    block("an empty block", "{{ prefect.blocks.plain.empty }}"),
    block("a single value of null", ["{{ prefect.blocks.json.none }}"]),
    block("a single object", "{{ prefect.blocks.json.config }}"),
    block("a path in an object", "{{ prefect.blocks.aws.prod.region }}"),
    block("a path to null", ["{{ prefect.blocks.aws.prod.none }}"]),
    block("a path to an item", "{{ prefect.blocks.aws.prod.keys[1] }}"),
    block("a path from value", "{{ prefect.blocks.json.config.value.k.nested-key }}"),
    block("a path to value itself", "{{ prefect.blocks.json.config.value }}"),
    block("a path inside the single value", "{{ prefect.blocks.json.config.k }}"),
    block("a path to a key that starts like value", "{{ prefect.blocks.json.config.values }}"),
    block("value among others is a plain key", "{{ prefect.blocks.aws.prod.value }}"),
    block("a path into a list of objects", "{{ prefect.blocks.json.config.value.list[0].l }}"),
    block("a path into a list, bracket first", "{{ prefect.blocks.json.config.list[1] }}"),
    block("a path to nowhere", "{{ prefect.blocks.aws.prod.nope }}"),
    block("a path through a scalar", "{{ prefect.blocks.secret.token.nope }}"),
    block("a block that does not exist", "{{ prefect.blocks.aws.nope }}"),
    block("no name", "{{ prefect.blocks.aws }}"),
    block("inside text", "{{ prefect.blocks.secret.token }}/image"),
    block("two inside text", "{{ prefect.blocks.secret.token }}{{ prefect.blocks.aws.prod.region }}"),
    block("null inside text", "x{{ prefect.blocks.json.none }}"),
    block("an object inside text", "x{{ prefect.blocks.aws.prod }}"),
    block("a list inside text", "x{{ prefect.blocks.aws.prod.keys }}"),
    block("other placeholders stay", "{{ a }}{{ prefect.blocks.secret.token }}{{ prefect.variables.b }}{{ $C }}"),
    block("whole placeholders of other kinds stay", ["{{ a }}", "{{ prefect.variables.b }}", "{{ $C }}"]),
    block("data is not read again", "{{ prefect.blocks.text.odd }}"),
    block("nested", {"a": [{"b": "{{ prefect.blocks.secret.token }}"}], "{{ prefect.blocks.secret.token }}": 1}),
    block("a reference by id", {"a": {"$ref": {"block_document_id": "id-1"}}}),
    block("a reference by id drops what is beside it", {"a": {"$ref": {"block_document_id": "id-1"}, "b": 1}}),
    block(
        "a reference by id, twice", [{"$ref": {"block_document_id": "id-1"}}, {"$ref": {"block_document_id": "id-1"}}]
    ),
    block("a reference by id to nothing", {"a": {"$ref": {"block_document_id": "id-2"}}}),
    block("a reference by slug stays", {"a": {"$ref": {"block_document_slug": "x"}}}),
    block("a reference that is text", {"a": {"$ref": "#/definitions/X"}}),
    block("a reference that is null", {"a": {"$ref": None}}),
    block("a reference that is a list", {"a": {"$ref": ["id-1"]}}),
    block("numbers and null stay", [1, None, True]),
]

_VARIABLES = {
    "region": "eu",
    "n": 3,
    "off": False,
    "config": {"k": [1]},
    "odd": "{{ prefect.variables.n }}",
    "A": "upper",
}


def variable(rule: str, template: Any) -> Case:
    """Return a case about variables."""
    return case(rule, "variables", template, variables=_VARIABLES)


VARIABLES = [
    variable("text", "{{ prefect.variables.region }}"),
    variable("a number keeps its type", "{{ prefect.variables.n }}"),
    variable("false keeps its type", ["{{ prefect.variables.off }}"]),
    variable("an object", "{{ prefect.variables.config }}"),
    variable("inside text", "x-{{ prefect.variables.region }}-{{ prefect.variables.n }}"),
    variable("an object inside text is str()", "x{{ prefect.variables.config }}"),
    variable("missing is empty, and the key stays", {"k": "{{ prefect.variables.nope }}"}),
    variable("missing inside text", "x{{ prefect.variables.nope }}y"),
    variable("no key path", ["{{ prefect.variables.config.k }}"]),
    variable("case counts", ["{{ prefect.variables.a }}", "{{ prefect.variables.A }}"]),
    variable("not recursive", "{{ prefect.variables.odd }}"),
    variable("other placeholders stay", "{{ a }}{{ prefect.variables.n }}{{ prefect.blocks.a.b }}{{ $C }}"),
    variable("nested", {"a": [{"b": "{{ prefect.variables.n }}"}], "{{ prefect.variables.n }}": None}),
]

_PLAIN = {"a": "{{ a }}", "b": "{{ b }}", "env": "{{ env }}", "labels": "{{ labels }}", "command": "{{ command }}"}


def configure(rule: str, template: dict[str, Any], values: dict[str, Any], *, pair: str = "loose", **args: Any) -> Case:
    """Return a case about a whole configuration."""
    return case(rule, "configure", template, pair=pair, values=values, blocks=_BLOCKS, variables=_VARIABLES, **args)


CONFIGURE = [
    configure("defaults", base(_PLAIN, a=1, b=[2]), {}),
    configure("a value over a default", base(_PLAIN, a=1, b=[2]), {"a": 9}),
    configure("a default of null is none", base(_PLAIN, a=None), {}),
    configure("null over a default", base(_PLAIN, a=1), {"a": None}),
    configure("a literal cannot be overridden", base({"a": "fixed"}, a=1), {"a": 9}),
    configure("an unknown name is ignored here", base(_PLAIN), {"zzz": 9}),
    configure("an object replaces an object", base(_PLAIN, a={"x": 1, "y": 2}), {"a": {"x": 3}}),
    configure("env: over the default, name by name", base(_PLAIN, env={"X": "1", "Y": "2"}), {"env": {"X": "3"}}),
    configure("env: without a default", base(_PLAIN), {"env": {"X": "3"}}),
    configure("env: no env anywhere", base(_PLAIN), {}),
    configure("env: over a literal, name by name", base({"env": {"L": "1", "X": "0"}}), {"env": {"X": "3"}}),
    configure("env: default over a literal", base({"env": {"L": "1", "X": "0"}}, env={"X": "5"}), {"env": {"Y": "3"}}),
    configure("env: not in the configuration, no default", base({"a": "{{ a }}"}), {"env": {"X": "3"}}),
    configure("env: not in the configuration, a default", base({"a": "{{ a }}"}, env={"D": "1"}), {"env": {"X": "3"}}),
    configure("env: a literal from another variable", base({"env": {"X": "{{ a }}"}}, a=1), {"a": 2}),
    configure("env: a missing value leaves", base({"env": {"X": "{{ a }}", "Y": "1"}}), {}),
    configure("env: values become text", base(_PLAIN), {"env": {"A": 1, "B": True, "C": 1.5, "D": None, "E": "x"}}),
    configure("env: containers become text", base(_PLAIN), {"env": {"A": [1], "B": {"k": "v"}}}),
    configure("env: empty over a default", base(_PLAIN, env={"X": "1"}), {"env": {}}),
    configure("env: null over a default", base(_PLAIN, env={"X": "1"}), {"env": None}),
    configure("env: text is refused", base(_PLAIN), {"env": "X=1"}),
    configure("env: text over a default is refused", base(_PLAIN, env={"X": "1"}), {"env": "X=1"}),
    configure(
        "env: elsewhere only the override is seen", base({"a": "{{ env }}"}, env={"X": "1"}), {"env": {"Y": "2"}}
    ),
    configure("env: a default is filled", base(_PLAIN, a=1, env={"X": "v{{ a }}"}), {}),
    configure(
        "env: an override is filled over a default", base(_PLAIN, a=1, env={"X": "1"}), {"env": {"Y": "v{{ a }}"}}
    ),
    configure("env: an override alone is not filled", base(_PLAIN, a=1), {"env": {"Y": "v{{ a }}"}}),
    configure("dotted: env", base(_PLAIN, env={"X": "1"}), {"env.Y": "2"}),
    configure("dotted: env over a name", base(_PLAIN, env={"X": "1"}), {"env.X": "2"}),
    configure("dotted: the nested form wins", base(_PLAIN), {"env.X": "1", "env": {"X": "2"}}),
    configure(
        "dotted: the nested form wins, written first", base(_PLAIN), {"env": {"X": "2"}, "env.X": "1", "env.Y": "3"}
    ),
    configure("dotted: another object", base(_PLAIN, a={"k": 1}), {"a.l": 2}),
    configure("dotted: deep", base(_PLAIN), {"a.b.c": 1, "a.b.d": 2, "a.e": 3}),
    configure("dotted: deep and nested", base(_PLAIN), {"a.b.c": 1, "a": {"b": {"d": 2}, "e": {"f": 3}}}),
    configure("dotted: text over dotted", base(_PLAIN), {"a.b": 1, "a": "text"}),
    configure("dotted: through text is refused", base(_PLAIN), {"a.b": 1, "a.b.c": 2}),
    configure("dotted: brackets", base(_PLAIN), {"a.b[c]": 1}),
    configure("standard placeholders in values stay", base(_PLAIN, b=1), {"a": "x{{ b }}"}),
    configure("the environment in values stays", base(_PLAIN), {"a": "{{ $A }}"}, environ={"A": "1"}),
    configure("the environment in the configuration", base({"a": "{{ $A }}"}), {}, environ={"A": "1"}),
    configure("blocks in values are read", base(_PLAIN), {"a": "{{ prefect.blocks.aws.prod }}"}),
    configure("blocks in defaults are read", base(_PLAIN, a={"$ref": {"block_document_id": "id-1"}}), {}),
    configure("blocks in the configuration", base({"a": "x{{ prefect.blocks.secret.token }}"}), {}),
    configure("variables in values are read", base(_PLAIN), {"a": "{{ prefect.variables.config }}"}),
    configure("variables in text", base({"a": "x{{ a }}"}), {"a": "{{ prefect.variables.region }}"}),
    configure(
        "all kinds in one text",
        base({"a": "{{ a }}-{{ prefect.blocks.secret.token }}-{{ prefect.variables.n }}"}),
        {"a": 1},
    ),
    configure("a missing variable", base(_PLAIN), {"a": "{{ prefect.variables.nope }}"}),
    configure("a missing block", base(_PLAIN), {"a": "{{ prefect.blocks.aws.nope }}"}),
    configure("an empty command is none", base(_PLAIN), {"command": ""}),
    configure("a command", base(_PLAIN), {"command": "python -m report"}),
    configure("labels must be text", base(_PLAIN), {"labels": {"a": 1}}),
    configure("labels replace", base(_PLAIN, labels={"a": "1"}), {"labels": {"b": "2"}}),
    configure("unknown keys in the configuration are ignored", base({"zzz": 1}), {}),
    configure("a mistyped field", base({"cpu": "{{ cpu }}"}), {"cpu": "lots"}, pair="guide"),
    configure("a number written as text", base({"cpu": "{{ cpu }}"}), {"cpu": "512"}, pair="guide"),
    configure(
        "the guide: units", base({"memory": "{{ memory_request }}Mi"}, memory_request=1024), {}, pair="guide_template"
    ),
    configure("the guide: units, missing", base({"memory": "{{ memory_request }}Mi"}), {}, pair="guide_template"),
    configure("the guide: missing takes the field's default", base({"memory": "{{ memory }}"}), {}, pair="guide"),
    configure("a nested model", base({"registry": {"url": "{{ u }}"}}), {"u": "r.io"}, pair="rich"),
    configure("a nested model, wrong", base({"registry": {"url": "x", "kind": "odd"}}), {}, pair="rich"),
    configure("an extra field where none is allowed", base({"zzz": 1}), {}, pair="rich"),
    configure("an alias", base({"otherName": "{{ n }}"}), {"n": 3}, pair="rich"),
]


def layers(rule: str, deployment: dict[str, Any], run: dict[str, Any], *, why: str = "", **defaults: Any) -> Case:
    """Return a case about a deployment's variables and a run's."""
    template = base(_PLAIN, **defaults)
    return case(rule, "layers", template, pair="loose", deployment=deployment, run=run, blocks={}, why=why)


LAYERS = [
    layers("a run over a deployment", {"a": 1, "b": 1}, {"a": 2}),
    layers("objects are replaced", {"a": {"x": 1}}, {"a": {"y": 2}}),
    layers("env is merged", {"env": {"X": "1", "Y": "1"}}, {"env": {"Y": "2"}}),
    layers("env is merged over a default", {"env": {"X": "1"}}, {"env": {"Y": "2"}}, env={"Z": "3"}),
    layers("only the run has env", {"a": 1}, {"env": {"Y": "2"}}),
    layers("only the deployment has env", {"env": {"X": "1"}}, {"a": 2}),
    layers("a run unsets a name", {"env": {"X": "1"}}, {"env": {"X": None}}),
    layers("a dotted name in the run", {"env": {"X": "1"}}, {"env.Y": "2"}),
]


def prepare(rule: str, configuration: dict[str, Any], values: dict[str, Any], *, why: str = "") -> Case:
    """Return a case about what preparing does to the user's own values."""
    return case(rule, "prepare", base(configuration), pair="loose", values=values, blocks={}, why=why)


_NAMED = {**_PLAIN, "name": "{{ name }}"}
PREPARE = [
    prepare("no name: the run's", _NAMED, {}),
    prepare("a name", _NAMED, {"name": "mine"}),
    prepare("ctx in a name", _NAMED, {"name": "{{ ctx.flow.name }}-{{ ctx.flow_run.name }}"}),
    prepare("ctx as a whole name", _NAMED, {"name": "{{ ctx.flow_run.name }}"}),
    prepare("the run's id in a name", _NAMED, {"name": "r-{{ ctx.flow_run.id }}"}),
    prepare("env of null is unset", _NAMED, {"env": {"A": None, "B": "1"}}),
    prepare("the user's own labels stay", _NAMED, {"labels": {"team": "x"}}),
]

GENERATE = [
    case("the guide's memory and cpu", "generate", pair="guide"),
    case("the guide's units, with variables", "generate", pair="guide_template"),
    case("the guide's units, without variables", "generate", pair="guide_template_no_variables"),
    case("nested models, aliases, templates", "generate", pair="rich"),
    case("the same, inferred", "generate", pair="rich_inferred"),
    case("the base classes", "generate", pair="base"),
    case("the base classes, inferred", "generate", pair="base_inferred"),
]

CHECK = [
    case("all declared", "check", base({"a": "{{ a }}"}, a=1)),
    case("one undeclared", "check", base({"a": "{{ b }}"}, a=1)),
    case("one undeclared, deep", "check", base({"a": [{"b": "x{{ b }}"}]}, a=1)),
    case("no variables", "check", {"job_configuration": {"a": 1}}),
    case("no job configuration", "check", {"variables": {"properties": {}}}),
    case("a literal", "check", base({"a": 1}, a=1)),
]

AGREED = [*FIND, *APPLY, *BLOCKS, *VARIABLES, *CONFIGURE, *LAYERS, *PREPARE, *GENERATE, *CHECK]

# -- where they differ on purpose ----------------------------------------------

_ORDER = "text is read once from left to right, so a value cannot smuggle in a placeholder"
_NO_RESCAN = "what a block or a variable holds is never read for placeholders"
_ALIAS = "the short names need no product's name"
_BAD_REF = "a reference that names nothing is a mistake, not an object to pass on"
_LATER = "a later layer wins, however it is spelled"
_CTX = "ctx works wherever it is written, so that any container can be told about its run"

DIFFERENT = [
    case(
        "a value that spells another placeholder",
        "apply",
        "{{ a }}{{ b }}{{ c }}",
        values={"a": "{{ b }}", "b": "{{ c }}", "c": "{{ a }}"},
        why=_ORDER,
    ),
    case("the alias of blocks is found", "find", "{{ blocks.secret.token }}", why=_ALIAS),
    case("the alias of variables is found", "find", "{{ variables.region }}", why=_ALIAS),
    case("the alias of blocks is no value", "apply", ["{{ blocks.secret.token }}"], why=_ALIAS),
    block("the alias of blocks", "{{ blocks.secret.token }}", why=_ALIAS),
    case("the alias of variables", "variables", "{{ variables.region }}", variables=_VARIABLES, why=_ALIAS),
    block("a reference without an id", {"a": {"$ref": {"block_document_id": ""}}}, why=_BAD_REF),
    block("a reference to null", {"a": {"$ref": {"block_document_id": None}}}, why=_BAD_REF),
    case(
        "a variable of null",
        "variables",
        "x{{ prefect.variables.none }}",
        variables={"none": None},
        why="a store that answers null cannot tell it from a variable that does not exist",
    ),
    case(
        "a block that spells a variable",
        "configure",
        base(_PLAIN),
        pair="loose",
        values={"a": "{{ prefect.blocks.text.v }}"},
        blocks={"text/v": {"value": "{{ prefect.variables.n }}"}},
        variables=_VARIABLES,
        why=_NO_RESCAN,
    ),
    configure("ctx written in the configuration", base({"a": "{{ ctx.flow_run.id }}"}), {}, why=_CTX),
    configure("ctx in text in the configuration", base({"a": "x{{ ctx.flow_run.id }}"}), {}, why=_CTX),
    prepare("ctx in env", _NAMED, {"env": {"A": "{{ ctx.flow_run.name }}"}}, why=_CTX),
    prepare("ctx written in the name", {"name": "n-{{ ctx.flow_run.name }}"}, {}, why=_CTX),
    prepare(
        "an unknown ctx path",
        _NAMED,
        {"name": "n-{{ ctx.flow_run.nope }}"},
        why="a misspelled path is told, not dropped",
    ),
    configure(
        "a command as a list",
        base(_PLAIN),
        {"command": ["a", "b c"]},
        why="a list needs no quoting, and is what every cloud takes",
    ),
    layers("a dotted name over the deployment's own", {"env": {"X": "1"}}, {"env.X": "2"}, why=_LATER),
    layers("a dotted part over a deployment's object", {"a": {"x": 1, "y": 1}}, {"a.x": 2}, why=_LATER),
    layers("null env in a run", {"env": {"X": "1"}}, {"env": None}, why="null says: nothing of the deployment's"),
    case(
        "a key path into a declared variable",
        "check",
        base({"a": "{{ a.b }}"}, a={}),
        why="a key path works when it is filled, so it may be written",
    ),
    case(
        "a block in the configuration",
        "check",
        base({"a": "{{ prefect.blocks.a.b }}"}, a=1),
        why="a block works when it is filled, so it may be written",
    ),
    case("ctx in the configuration", "check", base({"a": "{{ ctx.flow_run.id }}"}, a=1), why=_CTX),
    case("an empty template", "check", {}, why="a pool without a template can start nothing"),
    case(
        "an empty job configuration",
        "check",
        base({}, a=1),
        why="every field has a default, so nothing needs to be said",
    ),
]
