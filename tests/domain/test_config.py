"""The config file: what it may say, and that every problem is found at its line and column."""

from __future__ import annotations

import json
import re
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from push_pools.domain.config import Config, DeploymentSpec, InvalidConfigFile, Place, RetriesSpec, WorkPoolSpec
from push_pools.domain.runs import RetryPolicy
from push_pools.domain.schedules import ScheduleSpec
from push_pools.domain.states import FailureClass
from push_pools.services.config_file import MAX_CHARACTERS, parse_config, parse_yaml

if TYPE_CHECKING:
    from pydantic import BaseModel

DOCUMENTED = """
work_pools:
  - name: nightly
    type: ecs:push
    concurrency_limit: 10
    work_queues: [{name: urgent, priority: 1}, {name: default, priority: 2, concurrency_limit: 4}]
    variables: {cluster: jobs, image: "acme/report:7"}
deployments:
  - name: hourly
    flow_name: report
    command: python -m report
    parameters: {region: eu}
    work_pool: {name: nightly, work_queue_name: default, job_variables: {cpu: 512}}
    schedules: [{cron: "0 * * * *", timezone: Europe/Vienna, catchup: latest, overlap: skip}]
    retries: {attempts: 3}
    concurrency_limit: 1
    start_timeout_seconds: 600
    timeout_seconds: 3600
    tags: [finance]
"""


def parse(text: str, path: str = "push-pools.yaml", **options: Any) -> Config:
    return parse_config(textwrap.dedent(text).lstrip("\n"), path, **options)


def problems(text: str, path: str = "push-pools.yaml", **options: Any) -> list[str]:
    with pytest.raises(InvalidConfigFile) as caught:
        parse(text, path, **options)
    assert str(caught.value).splitlines() == [str(each) for each in caught.value.problems]
    first = caught.value.problems[0]
    assert (caught.value.line, caught.value.column) == (first.line, first.column)
    return [str(each).removeprefix(f"{path}:") for each in caught.value.problems]


# -- what it may say


def test_the_documented_file_is_read() -> None:
    config = parse(DOCUMENTED)
    (pool,), (deployment,) = config.work_pools, config.deployments
    assert (pool.name, pool.type, pool.concurrency_limit) == ("nightly", "ecs:push", 10)
    assert pool.variables == {"cluster": "jobs", "image": "acme/report:7"}
    assert pool.priorities() == {"urgent": 1, "default": 2}
    assert deployment.key == "report/hourly"
    assert deployment.command == "python -m report"
    assert deployment.work_pool.job_variables == {"cpu": 512}
    assert deployment.schedules[0].describe() == "cron '0 * * * *' Europe/Vienna"
    assert deployment.retries.policy() == RetryPolicy(attempts=3)
    assert (deployment.start_timeout_seconds, deployment.timeout_seconds) == (600, 3600)
    assert config.owner == "push-pools.yaml"


def test_what_is_left_out_has_defaults() -> None:
    config = parse("project: reports\ndeployments: [{name: a, work_pool: {name: p}, schedules: null}]")
    (deployment,) = config.deployments
    assert (deployment.key, deployment.work_pool.work_queue_name, deployment.schedules) == ("a/a", "default", ())
    assert (deployment.is_paused, deployment.timeout_seconds, deployment.command) == (None, None, None)
    assert config.owner == "reports"


def test_aliases_of_pool_types_become_full_names() -> None:
    assert parse("work_pools: [{name: a, type: aci}]").work_pools[0].type == "azure-container-instance:push"


@pytest.mark.parametrize(
    ("queues", "priorities"),
    [
        ("[]", {"default": 1}),
        ("[{name: a}, {name: b}]", {"a": 1, "b": 2, "default": 3}),
        ("[{name: a, priority: 7}]", {"a": 7, "default": 8}),
        ("[{name: default, priority: 7}, {name: b}]", {"default": 7, "b": 2}),
    ],
)
def test_queues_are_served_in_the_order_of_the_list(queues: str, priorities: dict[str, int]) -> None:
    pool = parse(f"work_pools: [{{name: a, type: process, work_queues: {queues}}}]").work_pools[0]
    assert pool.priorities() == priorities


def test_retries_have_both_names_of_backoff() -> None:
    for name in ("backoff", "backoff_seconds"):
        text = f"deployments: [{{name: a, work_pool: {{name: p}}, retries: {{attempts: 2, on: [exit], {name}: 2s}}}}]"
        policy = parse(text).deployments[0].retries.policy()
        assert policy == RetryPolicy(attempts=2, on=(FailureClass.EXIT,), backoff_seconds=2)


def test_words_are_those_of_yaml_1_2() -> None:
    tree, _ = parse_yaml("{on: yes, off: no, at: 1:30, day: 2026-01-01, oct: 0o17, hex: 0x1F, zero: 010, x: 1_0}", "f")
    assert tree == {
        "on": "yes",
        "off": "no",
        "at": "1:30",
        "day": "2026-01-01",
        "oct": 15,
        "hex": 31,
        "zero": 10,
        "x": "1_0",
    }


def test_aliases_and_merges_are_read() -> None:
    text = "base: &base {a: 1, b: 2}\nuse: {<<: *base, b: 3}\nmany: {<<: [{c: 1}, {c: 2, d: 4}]}\n"
    assert parse_yaml(text, "f")[0] == {"base": {"a": 1, "b": 2}, "use": {"b": 3, "a": 1}, "many": {"c": 1, "d": 4}}


# -- templates in files

TEMPLATE = {"job_configuration": {}, "variables": {"type": "object"}}
WITH_FILE = "work_pools:\n  - name: a\n    type: process\n    base_job_template: pool.json\n"


@pytest.mark.parametrize(("name", "text"), [("t.json", json.dumps(TEMPLATE)), ("t.yaml", yaml.safe_dump(TEMPLATE))])
def test_a_template_is_read_from_its_file(name: str, text: str) -> None:
    config = parse(WITH_FILE.replace("pool.json", name), read_text={name: text}.__getitem__)
    assert config.work_pools[0].base_job_template == TEMPLATE


def test_a_template_may_be_inline() -> None:
    text = f"work_pools: [{{name: a, type: process, base_job_template: {json.dumps(TEMPLATE)}}}]"
    assert parse(text).work_pools[0].base_job_template == TEMPLATE


def missing(name: str) -> str:
    raise FileNotFoundError(2, "No such file or directory", name)


@pytest.mark.parametrize(
    ("read", "sentence"),
    [
        (None, "no file can be read here; write the template itself"),
        (missing, "the file 'pool.json' cannot be read: No such file or directory; correct the name"),
        (lambda _: "{", "the file 'pool.json' is not JSON: Expecting property name"),
        (lambda _: "[]", "the file 'pool.json' holds no object; a template has job_configuration and variables"),
        (lambda _: b"\xff".decode(), "the file 'pool.json' cannot be read: it is not UTF-8 text"),
    ],
)
def test_a_template_that_cannot_be_read_is_refused(read: Any, sentence: str) -> None:
    (problem,) = problems(WITH_FILE, read_text=read)
    assert problem.startswith(f"4:24: work_pools[0].base_job_template: {sentence}")


def test_a_template_in_yaml_has_places_of_its_own() -> None:
    (problem,) = problems(WITH_FILE.replace("pool.json", "pool.yaml"), read_text=lambda _: "a: 1\na: 2\n")
    assert (
        problem
        == "4:24: work_pools[0].base_job_template: pool.yaml:2:1: a: the key is there already at line 1; keep one"
    )


# -- refusals


def test_every_problem_is_listed_in_the_order_of_the_file() -> None:
    found = problems("""
        work_pools:
          - nam: nightly
            type: ecs
            concurrency_limit: -1
            is_paused: yes please
          - name: a
            type: process
            work_queues: [{name: q}, {name: q}]
          - name: a
            type: process
        deployments:
          - name: x
            command: 5
            work_pool: {nme: a}
            schedules:
              - cron: "61 * * * *"
              - crn: 5
              - {cron: "@daily", slug: s}
              - {cron: "@daily", slug: s}
            retries: {attempts: 0, on: [exot], backof: 1}
            timeout_seconds: soon
            tags: a
          - work_pool: a
            name: x
            is_paused: yes
          - 5
    """)
    assert [": ".join(each.split(": ")[:2]) for each in found] == [
        "2:5: work_pools[0].name",
        "2:5: work_pools[0].nam",
        "4:24: work_pools[0].concurrency_limit",
        "5:16: work_pools[0].is_paused",
        "8:37: work_pools[1].work_queues[1].name",
        "9:11: work_pools[2].name",
        "13:14: deployments[0].command",
        "14:16: deployments[0].work_pool.name",
        "14:17: deployments[0].work_pool.nme",
        "16:15: deployments[0].schedules[0].cron",
        "17:9: deployments[0].schedules[1].crn",
        "19:32: deployments[0].schedules[3].slug",
        "20:25: deployments[0].retries.attempts",
        "20:33: deployments[0].retries.on[0]",
        "20:40: deployments[0].retries.backof",
        "21:22: deployments[0].timeout_seconds",
        "22:11: deployments[0].tags",
        "23:16: deployments[1].work_pool",
        "24:11: deployments[1].name",
        "25:16: deployments[1].is_paused",
        "26:5: deployments[2]",
    ]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", " the file is empty; write work_pools: and deployments:"),
        ("- 1", "1:1: it is a list; write an object of names and values"),
        ("work_pool: []", "1:1: work_pool: there is no such key; did you mean 'work_pools'?"),
        ("variables: {}", "1:1: variables: there is no such key; known: deployments, project, work_pools"),
        ("work_pools: 5", "1:13: work_pools: it is 5; write a list"),
        ("work_pools:\n- name: a", "2:3: work_pools[0].type: it is missing; add it"),
        (
            "work_pools: [{name: a, type: process, variables: [1]}]",
            "1:50: work_pools[0].variables: it is a list; write an",
        ),
        ("work_pools: [{name: a/b, type: process}]", "1:21: work_pools[0].name: a name has 1 to 128 letters, digits"),
        ("work_pools: [{name: 5, type: process}]", "1:21: work_pools[0].name: it is 5; write text, in quotes"),
        ("work_pools: [{name: a, type: ''}]", "1:30: work_pools[0].type: it is ''; write at least one character"),
        (
            "work_pools: [{name: a, type: b, base_job_template: 5}]",
            "it is the name of a JSON or YAML file, or the template",
        ),
        ("work_pools: [{name: a, type: b, is_paused: 1}]", "is_paused: it is 1; write true or false"),
        (
            "work_pools: [{name: a, type: b, concurrency_limit: '3'}]",
            "concurrency_limit: it is '3'; write a whole number",
        ),
        (
            "work_pools: [{name: a, type: b, concurrency_limit: true}]",
            "concurrency_limit: it is true; write a whole number",
        ),
        (
            "work_pools: [{name: a, type: b, work_queues: [{name: q, priority: 0}]}]",
            "priority: it is 0; write at least 1",
        ),
        ("deployments: [{name: a}]", "deployments[0].work_pool: it is missing; add it"),
        ("deployments: [{name: a, work_pool: {name: p}, command: []}]", "command: it is text, or a list of words"),
        (
            "deployments: [{name: a, work_pool: {name: p}, command: [sleep, 60]}]",
            "command: it is text, or a list of words",
        ),
        ("deployments: [{name: a, work_pool: {name: p}, start_timeout_seconds: 0}]", "it is 0; write more than 0"),
        ("deployments: [{name: a, work_pool: {name: p}, retries: {attempts: 101}}]", "it is 101; write at most 100"),
        ("deployments: [{name: a, work_pool: {name: p}, retries: {on: [exot]}}]", "it is 'exot'; write 'exit', 'oom'"),
        (
            "deployments: [{name: a, work_pool: {name: p}, retries: {backoff: 0}}]",
            "retries.backoff: it is 0; write more",
        ),
        (
            "deployments: [{name: a, work_pool: {name: p}, tags: ['']}]",
            "it is a list of texts of at most 128 characters",
        ),
        (
            "a: b: c",
            '1:5: the file is not YAML: mapping values are not allowed here; put quotes around text that holds ": "',
        ),
        ("a: [1", "1:6: the file is not YAML: expected ',' or ']'"),
        ("a:\n\tb: 1", "2:1: the file is not YAML: found character '\\t' that cannot start any token"),
        ("a: 1\n---\nb: 2", "2:1: the file is not YAML: but found another document"),
        ("a: *b", "1:4: the file is not YAML: found undefined alias 'b'; define it with & further up"),
        ("a: &x [*x]", "1:4: the alias stands for something that holds itself; write it out"),
        ("a: {{ x }}", "1:5: a: a name is text; put quotes around text that begins with { or ["),
        ("a: !!python/object:os.system ls", "1:4: a: 'ls' cannot be kept as python/object:os.system; put it in quotes"),
        ("a: 1e999", "1:4: a: '1e999' cannot be kept as float; put it in quotes"),
        ("a: {<<: 5}", "1:9: a: <<: takes an object of names and values; write an alias of one"),
        ("a:\n  b: 1\n  c: 2\n  b: 3", "4:3: a.b: the key is there already at line 2; keep one"),
        ("a: 1\nb: \x00", "2:1: there is a control character; remove it"),
        ("[" * 5000, "the file is nested too deeply; make it flatter"),
        (
            "#" * (MAX_CHARACTERS + 1),
            f"the file has {MAX_CHARACTERS + 1} characters; at most {MAX_CHARACTERS} are taken",
        ),
        (
            "a: &a [1,1,1,1,1,1,1,1,1,1]\nb: &b [" + "*a," * 200 + "]\nc: &c [" + "*b," * 200 + "]",
            "more than 100000 values",
        ),
    ],
)
def test_a_refusal_names_the_place_and_the_fix(text: str, sentence: str) -> None:
    assert sentence in problems(text)[0]


def test_duplicates_name_both_lines() -> None:
    text = "deployments:\n  - {name: a, work_pool: {name: p}}\n  - {name: a, flow_name: a, work_pool: {name: p}}\n"
    assert problems(text) == [
        "3:12: deployments[1].name: the deployment 'a/a' is there already at line 2; rename or remove one"
    ]
    assert parse(text.replace("flow_name: a", "flow_name: b")).deployments[1].key == "b/a"


# -- a prefect.yaml

PREFECT = """
name: acme
prefect-version: 3.6.0
build: null
push: []
pull:
definitions: {tags: &tags [finance]}
deployments:
- name: hourly
  version: "1"
  tags: *tags
  description: null
  entrypoint: flows/report.py:make_report
  command: python -m report
  parameters: {region: eu}
  concurrency_limit: {limit: 3, collision_strategy: ENQUEUE}
  work_pool: {name: nightly, work_queue_name: null, job_variables: {cpu: 512}}
  schedules:
  - {interval: 3600, anchor_date: "2025-01-01T00:00:00+00:00", timezone: UTC, active: true, max_scheduled_runs: 5}
  paused: true
"""


def test_the_deployments_of_a_prefect_file_are_read() -> None:
    config = parse(PREFECT)
    (deployment,) = config.deployments
    assert (deployment.key, deployment.tags) == ("make-report/hourly", ("finance",))
    assert (deployment.concurrency_limit, deployment.is_paused) == (3, True)
    assert deployment.work_pool.work_queue_name == "default"
    assert deployment.schedules[0].describe() == "every 1h"
    assert config.notes == (
        "push-pools.yaml:9:3: version is left out; it means nothing here",
        "push-pools.yaml:12:3: entrypoint is left out, as there is a command",
        "push-pools.yaml:18:93: max_scheduled_runs is left out; it means nothing here",
    )


def test_a_prefect_file_is_known_by_its_name_too() -> None:
    text = "deployments: [{name: a, command: x, version: 1, schedule: {cron: '@daily'}, work_pool: {name: p}}]"
    assert parse(text, "sub/prefect.yaml").deployments[0].schedules[0].cron == "0 0 * * *"
    assert "there is no such key" in problems(text)[0]


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        (
            "build: null",
            "build:\n- prefect_docker.deployments.steps.build_docker_image: {}",
            "3:1: build: push_pools runs no",
        ),
        ("pull:", "pull:\n- git_clone: {}", "5:1: pull: push_pools runs no build, push or pull steps"),
        (
            "  command: python -m report\n",
            "",
            "12:3: deployments[0].entrypoint: running a Prefect flow needs the Prefect bridge",
        ),
        ("  paused: true", "  triggers: [{}]", "19:3: deployments[0].triggers: triggers need a Prefect server"),
        ("  paused: true", "  sla: [{}]", "19:3: deployments[0].sla: SLAs need a Prefect server"),
        ("  paused: true", "  push: [{a: {}}]", "19:3: deployments[0].push: push_pools runs no build"),
        ("  paused: true", "  schedule: {cron: '@daily'}", "there is schedule and schedules; keep schedules"),
        ("ENQUEUE", "CANCEL_NEW", "15:3: deployments[0].concurrency_limit: runs over the limit wait here"),
        ("interval: 3600", "interval: never", "schedules[0].interval: it is not a duration"),
    ],
)
def test_what_a_prefect_file_needs_and_we_do_not_do_is_refused_by_line(old: str, new: str, sentence: str) -> None:
    assert old in PREFECT
    assert sentence in problems(PREFECT.replace(old, new))[0]


# -- places

keys = st.text("abcdef", min_size=1, max_size=6)
scalars = st.integers(-99, 99) | st.booleans() | st.text("ghijkl: -#'\"{}[]ä\n", max_size=12) | st.none()
trees = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4), max_leaves=20
)


class Writer:
    """Writes a value with gaps of its own choice, and notes where each part of it begins."""

    def __init__(self, gaps: list[str]) -> None:
        self.text = ""
        self.gaps = gaps
        self.values: dict[tuple[str | int, ...], Place] = {}
        self.keys: dict[tuple[str | int, ...], Place] = {}

    def write(self, value: Any, path: tuple[str | int, ...] = ()) -> None:
        self._gap()
        self.values[path] = self._here()
        if isinstance(value, dict):
            self.text += "{"
            for number, (key, item) in enumerate(value.items()):
                self.text += "," if number else ""
                self._gap()
                self.keys[*path, key] = self._here()
                self.text += json.dumps(key) + ": "
                self.write(item, (*path, key))
            self.text += "}"
        elif isinstance(value, list):
            self.text += "["
            for number, item in enumerate(value):
                self.text += ", " if number else ""
                self.write(item, (*path, number))
            self.text += "]"
        else:
            self.text += json.dumps(value)

    def _gap(self) -> None:
        self.text += self.gaps[len(self.values) % len(self.gaps)]

    def _here(self) -> Place:
        before = self.text.split("\n")
        return Place(len(before), len(before[-1]) + 1)


@given(trees, st.lists(st.sampled_from(["", " ", "\n  ", " # a remark\n ", "\n\n   "]), min_size=1, max_size=5))
def test_places_are_where_things_stand(tree: Any, gaps: list[str]) -> None:
    writer = Writer(gaps)
    writer.write(tree)
    parsed, places = parse_yaml(writer.text, "f")
    assert parsed == tree
    assert (places.values, places.keys) == (writer.values, writer.keys)


@given(st.lists(st.tuples(keys, st.sampled_from(["x", "- 1", "5"])), min_size=1, max_size=6, unique_by=lambda t: t[0]))
def test_places_are_right_in_blocks_too(entries: list[tuple[str, str]]) -> None:
    text = "".join(f"{key}:\n  {value}\n" for key, value in entries)
    _, places = parse_yaml(text, "f")
    for number, (key, value) in enumerate(entries):
        assert places.keys[key,] == Place(2 * number + 1, 1)
        path = (key, 0) if value == "- 1" else (key,)
        assert places.values[path] == Place(2 * number + 2, 5 if value == "- 1" else 3)


@given(trees, st.data())
def test_a_problem_is_found_at_the_nearest_thing_there_is(tree: Any, data: st.DataObject) -> None:
    _, places = parse_yaml(json.dumps(tree), "f")
    path = data.draw(st.sampled_from(sorted(places.values, key=len)))
    assert places.find((*path, "missing", 3)) == places.values[path]
    assert isinstance(places.find(path, at_key=True), Place)


@given(st.text(max_size=200))
def test_no_text_raises_anything_else(text: str) -> None:
    try:
        parse_config(text, "f")
    except InvalidConfigFile as error:
        assert error.problems  # noqa: PT017 - Either way is right.


# -- the documentation

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "config-file.md"


def test_the_documented_file_is_read_from_the_documentation() -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    assert parse(text).deployments == parse(DOCUMENTED).deployments


@pytest.mark.parametrize("model", [WorkPoolSpec, DeploymentSpec, ScheduleSpec, RetriesSpec])
def test_every_key_is_documented(model: type[BaseModel]) -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert not [name for name in model.model_fields if f"`{name}`" not in text and f"`{name}:" not in text]
