"""Reading the text of a config file, with the line and column of everything in it."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

import yaml

from push_pools.domain.config import Config, InvalidConfigFile, Place, Places, invalid_file, read_config
from push_pools.domain.errors import InvalidConfig, InvalidInput
from push_pools.domain.problems import Path, Problem, clip

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAX_CHARACTERS: Final = 1024 * 1024
MAX_VALUES: Final = 100_000
"""Most values in a file, those that aliases repeat included."""


def parse_config(text: str, path: str, *, read_text: Callable[[str], str] | None = None) -> Config:
    """Return what the text of a config file asks for.

    `path` names the file in errors. `read_text` reads a file that the config names, such as a base job template,
    relative to it, and raises `OSError` where it cannot.

    Raises:
        InvalidConfigFile: With every problem and its place.
    """
    tree, places = parse_yaml(text, path)
    config = read_config(tree, places, path)
    return _with_templates(config, read_text)


def parse_yaml(text: str, path: str) -> tuple[Any, Places]:
    """Return the JSON value of a YAML text, and where its parts stand.

    The words are those of YAML 1.2: `yes`, `on` and `1:30` are text. Keys are text, and none is there twice.

    Raises:
        InvalidConfigFile: The text is not YAML, or holds what JSON does not have.
    """
    if len(text) > MAX_CHARACTERS:
        raise _invalid(path, f"the file has {len(text)} characters; at most {MAX_CHARACTERS} are taken, so split it")
    builder = _Builder(path)
    try:
        root = yaml.compose(text, Loader=_Loader)
        tree = None if root is None else builder.build(root, ())
    except yaml.MarkedYAMLError as error:
        raise _malformed(path, error) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise _invalid(path, "there is a control character; remove it", Place(line, 1)) from None
    except RecursionError:
        raise _invalid(path, "the file is nested too deeply; make it flatter") from None
    if builder.problems:
        raise InvalidConfigFile(sorted(builder.problems, key=lambda each: (each.line or 0, each.column or 0)))
    return tree, Places(builder.values, builder.keys)


def _with_templates(config: Config, read_text: Callable[[str], str] | None) -> Config:
    problems: list[Problem] = []
    pools = []
    for number, pool in enumerate(config.work_pools):
        template = pool.base_job_template
        if isinstance(template, str):
            try:
                pool = pool.model_copy(update={"base_job_template": _read_template(template, read_text)})
            except ValueError as error:
                problems.append(Problem(("work_pools", number, "base_job_template"), str(error)))
        pools.append(pool)
    if problems:
        raise config.invalid(problems)
    return Config(**{**vars(config), "work_pools": tuple(pools)})


def _read_template(name: str, read_text: Callable[[str], str] | None) -> dict[str, Any]:
    if read_text is None:
        raise ValueError("no file can be read here; write the template itself")
    try:
        text = read_text(name)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ValueError(f"the file {clip(name)!r} cannot be read: {reason or error}; correct the name") from None
    template = _parse_template(name, text)
    if not isinstance(template, dict):
        raise ValueError(f"the file {clip(name)!r} holds no object; a template has job_configuration and variables")
    return template


def _parse_template(name: str, text: str) -> Any:
    if name.endswith((".yaml", ".yml")):
        try:
            return parse_yaml(text, name)[0]
        except InvalidInput as error:
            raise ValueError(str(error)) from None
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the file {clip(name)!r} is not JSON: {clip(error, 80)}; correct it") from None


# -- YAML ----------------------------------------------------------------------


class _Loader(yaml.SafeLoader):
    """Reads plain words as YAML 1.2 does."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's own way.


_TAG: Final = "tag:yaml.org,2002:"
for _name, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("merge", r"<<", "<"),
):
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(f"^(?:{_pattern})$"), list(_first))


class _Builder:
    """Makes JSON values of YAML nodes and notes their places."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.values: dict[Path, Place] = {}
        self.keys: dict[Path, Place] = {}
        self.problems: list[InvalidConfig] = []
        self.open: set[int] = set()
        """Nodes around the one that is being built: one that holds itself never ends."""

    def build(self, node: yaml.Node, path: Path) -> Any:
        if len(self.values) >= MAX_VALUES:
            raise _invalid(self.path, f"the file holds more than {MAX_VALUES} values; split it", _place(node))
        self.values[path] = _place(node)
        if id(node) in self.open:
            raise _invalid(self.path, "the alias stands for something that holds itself; write it out", _place(node))
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        self.open.add(id(node))
        try:
            if isinstance(node, yaml.SequenceNode):
                return [self.build(item, (*path, number)) for number, item in enumerate(node.value)]
            return self._mapping(node, path)
        finally:
            self.open.discard(id(node))

    def _mapping(self, node: yaml.Node, path: Path) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value_node, is_merged in self._entries(node, path, depth=0):
            name = self._key(key, path)
            if name is None or (is_merged and name in found):
                continue
            if name in found:
                first = self.keys[*path, name]
                self._refuse((*path, name), key, f"the key is there already at line {first.line}; keep one")
                continue
            self.keys[*path, name] = _place(key)
            found[name] = self.build(value_node, (*path, name))
        return found

    def _entries(self, node: yaml.Node, path: Path, depth: int) -> Iterator[tuple[yaml.Node, yaml.Node, bool]]:
        """Yield a mapping's own entries, then those that `<<` merges into it."""
        merged: list[yaml.Node] = []
        for key, value in node.value:
            if key.tag == _TAG + "merge":
                merged += value.value if isinstance(value, yaml.SequenceNode) else [value]
            else:
                yield key, value, depth > 0
        for source in merged:
            if not isinstance(source, yaml.MappingNode) or depth > 20:
                self._refuse(path, source, "<<: takes an object of names and values; write an alias of one")
                continue
            yield from self._entries(source, path, depth + 1)

    def _key(self, node: yaml.Node, path: Path) -> str | None:
        if isinstance(node, yaml.ScalarNode):
            return str(node.value)
        self._refuse(path, node, "a name is text; put quotes around text that begins with { or [")
        return None

    def _scalar(self, node: yaml.ScalarNode, path: Path) -> Any:
        kind = node.tag.removeprefix(_TAG)
        text: str = node.value
        try:
            match kind:
                case "str":
                    return text
                case "null":
                    return None
                case "bool":
                    return text.lower() == "true"
                case "int":
                    return int(text, 0 if text[:2] in ("0o", "0x") else 10)
                case "float" if abs(number := float(text)) != float("inf"):
                    return number
        except ValueError:
            pass
        self._refuse(path, node, f"{clip(text)!r} cannot be kept as {clip(kind)}; put it in quotes")
        return None

    def _refuse(self, path: Path, node: yaml.Node, problem: str) -> None:
        place = _place(node)
        sentence = str(Problem(path, problem))
        self.problems.append(InvalidConfig(self.path, sentence, line=place.line, column=place.column))


def _place(node: yaml.Node) -> Place:
    return Place(node.start_mark.line + 1, node.start_mark.column + 1)


def _malformed(path: str, error: yaml.MarkedYAMLError) -> Exception:
    mark = error.problem_mark or error.context_mark
    place = Place(mark.line + 1, mark.column + 1) if mark else None
    problem = " ".join(filter(None, (error.problem, error.context))) or "it is malformed"
    hint = next((hint for part, hint in _HINTS.items() if part in problem), "correct it")
    return _invalid(path, f"the file is not YAML: {clip(problem, 100)}; {hint}", place)


_HINTS: Final = {
    "mapping values are not allowed": 'put quotes around text that holds ": "',
    "'\\t'": "indent with spaces, not tabs",
    "but found another document": "write one document, without ---",
    "undefined alias": "define it with & further up",
    "cannot start any token": "put quotes around the text",
}


def _invalid(path: str, problem: str, place: Place | None = None) -> Exception:
    return invalid_file(path, [Problem((), problem)], Places({(): place} if place else {}))
