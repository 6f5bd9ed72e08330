"""Our templates beside real Prefect's: one table of rules and one generated batch, asked of both.

Prefect lives in its own environment (`requirements.txt`); one process of it answers every question at once.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from .prefect_cases import AGREED, DIFFERENT, GENERATE, Case
from .prefect_ours import answer

pytestmark = pytest.mark.prefect

HERE = Path(__file__).parent
VENV = Path(os.environ.get("PUSH_POOLS_PREFECT_VENV") or HERE.parents[1] / ".venvs" / "prefect")
BATCH = 300
VERSION: dict[str, Any] = {"op": "version"}
OUR_OWN_WORDS = ("name", "env", "labels", "command")


# -- the questions that Hypothesis makes up ------------------------------------

_NAMES = st.sampled_from(["a", "b", "c", "d.e", "d.f[0]", "d.f.-1", "d.f.9", "t.0", "nope", "prefect.blocks", "a.b"])
_LOADED = st.sampled_from(
    [
        *("$A", "$NOPE", "prefect.variables.v", "prefect.variables.no"),
        *("prefect.blocks.json.b", "prefect.blocks.text.s", "prefect.blocks.json.b.x", "prefect.blocks.json.b.z"),
        *("prefect.blocks.text.no", "prefect.blocks.text"),
    ]
)
# No placeholder can arise from these values: what is put in is read again by Prefect, in an order that varies.
_WORDS = st.text("vw -/{}$", max_size=4).filter(lambda text: "{{" not in text and "}}" not in text)
_SCALARS = st.none() | st.booleans() | st.integers(-9, 99) | st.sampled_from([0.5, -1.25]) | _WORDS
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["e", "f", "0"]), inner, max_size=2),
    max_leaves=4,
)
_FILLING = st.fixed_dictionaries(
    {},
    optional={
        "a": _VALUES,
        "b": _VALUES,
        "c": _SCALARS,
        "d": st.fixed_dictionaries({"e": _VALUES, "f": st.lists(_VALUES, max_size=2)}),
        "t": _WORDS,
    },
)


def _spelled(names: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    forms = st.sampled_from(["{{ %s }}", "{{%s}}", "{{\n%s\t}}"])
    return st.builds(lambda form, name: form % name, forms, names)


def _templates(names: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    pieces = st.lists(_spelled(names) | st.sampled_from(["x", "{", "}", " ", "\\", "$", "{{ a b }}", "é"]), max_size=4)
    leaves = _spelled(names) | pieces.map("".join) | _SCALARS
    return st.recursive(
        leaves,
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["k", "l", "{{ a }}"]), inner, max_size=3)
        ),
        max_leaves=6,
    )


_LOADABLE = {
    "blocks": {"json/b": {"x": [1], "y": None}, "text/s": {"value": "w"}},
    "variables": {"v": [1, {"k": "v"}]},
    "environ": {"A": "w v"},
}
_ENV = st.dictionaries(st.sampled_from(["X", "Y", "Z"]), _SCALARS | _spelled(_NAMES), max_size=3)
_CONFIGURATION = st.fixed_dictionaries(
    {}, optional={"a": _templates(_NAMES | _LOADED), "b": _templates(_NAMES), "env": _ENV | st.just("{{ env }}")}
)
_DEFAULTS = st.fixed_dictionaries({}, optional={"a": _VALUES, "d": _VALUES, "env": _ENV})
_OVERRIDES = st.fixed_dictionaries(
    {},
    optional={
        "a": _VALUES,
        "b": _spelled(_LOADED),
        "d.e": _VALUES,
        "env": _ENV | st.none(),
        "env.Y": _SCALARS,
        "d": _VALUES,
    },
)


def _configure(configuration: Any, defaults: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    properties = {name: {"default": value} for name, value in defaults.items()}
    template = {"job_configuration": configuration, "variables": {"properties": properties}}
    return {"op": "configure", "pair": "loose", "template": template, "values": values, **_LOADABLE}


_QUESTIONS = st.one_of(
    st.builds(lambda t: {"op": "find", "template": t}, _templates(_NAMES | _LOADED)),
    st.builds(
        lambda t, values, remove: {
            "op": "apply",
            "template": t,
            "values": values,
            "remove_notset": remove,
            **_LOADABLE,
        },
        _templates(_NAMES | _LOADED),
        _FILLING,
        st.booleans(),
    ),
    st.builds(
        lambda op, t: {"op": op, "template": t, **_LOADABLE},
        st.sampled_from(["blocks", "variables"]),
        _templates(_LOADED),
    ),
    st.builds(_configure, _CONFIGURATION, _DEFAULTS, _OVERRIDES),
    st.builds(_configure, _CONFIGURATION, _DEFAULTS, _OVERRIDES),
)


def generated_questions() -> list[dict[str, Any]]:
    """Return the same `BATCH` questions every time."""
    questions: list[dict[str, Any]] = []

    @settings(
        max_examples=BATCH,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(_QUESTIONS)
    def collect(question: dict[str, Any]) -> None:
        questions.append(question)

    collect()
    return questions


# -- asking Prefect, once ------------------------------------------------------


def prefect_python(venv: Path) -> Path:
    """Return the interpreter that has Prefect, or fail: these tests are never skipped."""
    python = venv / "bin" / "python"
    if not python.exists():
        pytest.fail(f"there is no Prefect to compare with in {venv}; run `make test`, which installs it", pytrace=False)
    return python


def ask_prefect(questions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return real Prefect's answers."""
    with tempfile.TemporaryDirectory() as home:
        done = subprocess.run(
            [prefect_python(VENV), "-B", HERE / "oracle.py"],
            input=json.dumps(questions),
            capture_output=True,
            text=True,
            timeout=150,
            check=False,
            env={"HOME": home, "PREFECT_HOME": home, "PATH": os.environ["PATH"], "PYTHONHASHSEED": "0"},
        )
    assert done.returncode == 0, (
        f"Prefect could not be asked; run `make test` to install it anew:\n{done.stderr[-2000:]}"
    )
    answers: list[dict[str, Any]] = json.loads(done.stdout)
    return answers


def _key(question: dict[str, Any]) -> str:
    return json.dumps(question, sort_keys=True)


@pytest.fixture(scope="session")
def prefects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Prefect's answers by question; workers that run side by side share one process of it."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    answers = shared / "prefect-answers.json"
    with (shared / "prefect-answers.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not answers.exists():
            questions = [VERSION, *(case.as_json() for case in (*AGREED, *DIFFERENT)), *generated_questions()]
            answers.write_text(json.dumps(dict(zip(map(_key, questions), ask_prefect(questions), strict=True))))
    found: dict[str, dict[str, Any]] = json.loads(answers.read_text())
    return found


def same(theirs: dict[str, Any], ours: dict[str, Any], *, in_order: bool = False) -> bool:
    """Whether two answers mean the same: the same result, or both an error, each in its own words."""
    if "error" in theirs or "error" in ours:
        return "error" in theirs and "error" in ours
    return json.dumps(theirs, sort_keys=not in_order) == json.dumps(ours, sort_keys=not in_order)


def _ids(cases: list[Case]) -> list[str]:
    return [f"{case.op}: {case.rule}" for case in cases]


# -- the comparison ------------------------------------------------------------

COMPARED = [case for case in AGREED if case not in GENERATE]


@pytest.mark.parametrize("case", COMPARED, ids=_ids(COMPARED))
def test_agrees_with_prefect(case: Case, prefects: dict[str, dict[str, Any]]) -> None:
    theirs, ours = prefects[_key(case.as_json())], answer(case.as_json())
    assert same(theirs, ours, in_order=case.op == "apply"), f"Prefect: {theirs}\nours: {ours}"


@pytest.mark.parametrize("case", DIFFERENT, ids=_ids(DIFFERENT))
def test_differs_from_prefect_on_purpose(case: Case, prefects: dict[str, dict[str, Any]]) -> None:
    theirs, ours = prefects[_key(case.as_json())], answer(case.as_json())
    assert case.why, "a difference has a reason"
    assert not same(theirs, ours), f"no longer different: {ours}"


def test_agrees_with_prefect_on_a_generated_batch(prefects: dict[str, dict[str, Any]]) -> None:
    questions = generated_questions()
    apart = [
        (question, prefects[_key(question)], answer(question))
        for question in questions
        if not same(prefects[_key(question)], answer(question))
    ]
    assert not apart, f"{len(apart)} of {len(questions)}, the first: {apart[0]}"


def test_the_generated_batch_asks_of_everything(prefects: dict[str, dict[str, Any]]) -> None:
    questions = generated_questions()
    results = [prefects[_key(question)] for question in questions]
    assert len(questions) == BATCH
    assert {question["op"] for question in questions} == {"find", "apply", "blocks", "variables", "configure"}
    assert sum("error" in each for each in results) >= 10
    assert sum("result" in each for each in results) >= 200


@pytest.mark.parametrize("case", GENERATE, ids=_ids(GENERATE))
def test_generates_the_template_that_prefect_generates(case: Case, prefects: dict[str, dict[str, Any]]) -> None:
    """Order included. In the four fields that all platforms share, descriptions are ours and `command` takes lists."""
    theirs, ours = prefects[_key(case.as_json())], answer(case.as_json())
    shared, own = theirs["result"]["variables"]["properties"], ours["result"]["variables"]["properties"]
    assert {"type": "array", "items": {"type": "string"}} in own["command"]["anyOf"]
    own["command"]["anyOf"] = [each for each in own["command"]["anyOf"] if each["type"] != "array"]
    for name in OUR_OWN_WORDS:
        own[name]["description"] = shared[name]["description"]
    assert json.dumps(ours) == json.dumps(theirs)


def test_the_prefect_that_answers_is_the_pinned_one(prefects: dict[str, dict[str, Any]]) -> None:
    pins = (HERE / "requirements.txt").read_text().splitlines()
    assert f"prefect=={prefects[_key(VERSION)]['result']}" in pins


def test_the_table_is_large_and_names_every_rule_once() -> None:
    rules = [(case.op, case.rule) for case in (*AGREED, *DIFFERENT)]
    assert len(AGREED) >= 80
    assert len(set(rules)) == len(rules)


def test_without_prefect_the_comparison_fails_and_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(pytest.fail.Exception, match="run `make test`"):
        prefect_python(tmp_path / "nowhere")
