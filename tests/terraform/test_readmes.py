"""The READMEs below `terraform/`: every module has one, their examples fit the modules, their links lead somewhere."""

from __future__ import annotations

import json
import re
from typing import Final

import pytest

from tests.terraform.bundles import ROOT

BASE: Final = ROOT / "terraform"
SERVICE: Final = BASE / "modules" / "service"
"""Described in `terraform/README.md` and docs/aws.md."""
FOLDERS: Final = sorted(
    {path.parent for path in BASE.rglob("*.tf") if not {".terraform", "tests"} & set(path.parts[len(BASE.parts) :])}
    - {SERVICE}
)
READMES: Final = sorted(BASE.rglob("README.md"))
CALL: Final = re.compile(r'^module "(\w+)" \{\n(.*?)^\}', re.DOTALL | re.MULTILINE)
OURS: Final = {"source", "for_each", "count", "providers", "depends_on", "version"}


def variables(module: str) -> dict[str, bool]:
    """Return the variables of a module, and whether each has to be given."""
    text = "".join(path.read_text(encoding="utf-8") for path in sorted((BASE / "modules" / module).glob("*.tf")))
    blocks = re.findall(r'^variable "(\w+)" \{\n(.*?)^\}', text, re.DOTALL | re.MULTILINE)
    return {name: not re.search(r"^  default +=", body, re.MULTILINE) for name, body in blocks}


def calls(text: str) -> list[tuple[str, set[str]]]:
    """Return the modules that a text calls, and what it gives them."""
    found = []
    for _, body in CALL.findall(text):
        source = re.search(r'source += "[./]*modules/(\w+)"', body)
        assert source, body
        found.append((source[1], set(re.findall(r"^  (\w+) +=", body, re.MULTILINE)) - OURS))
    return found


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda each: str(each.relative_to(BASE)))
def test_every_folder_says_what_it_is(folder: object) -> None:
    assert (BASE / str(folder) / "README.md").exists()


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda each: str(each.relative_to(BASE)))
def test_every_variable_and_output_says_what_it_is(folder: object) -> None:
    """And of which type a variable is."""
    text = "".join(path.read_text(encoding="utf-8") for path in sorted((BASE / str(folder)).glob("*.tf")))
    for kind, needed in (("variable", ("description", "type")), ("output", ("description", "value"))):
        for name, body in re.findall(rf'^{kind} "(\w+)" \{{\n(.*?)^\}}', text, re.DOTALL | re.MULTILINE):
            for each in needed:
                assert re.search(rf"^  {each} +=", body, re.MULTILINE), f"{kind} {name} has no {each}"


@pytest.mark.parametrize(
    "readme", [each for each in READMES if "```hcl" in each.read_text()], ids=lambda each: each.parent.name
)
def test_what_a_readme_shows_can_be_written(readme: object) -> None:
    """With variables that the modules have, and all that have to be given."""
    blocks = re.findall(r"```hcl\n(.*?)```", (BASE / str(readme)).read_text(encoding="utf-8"), re.DOTALL)
    shown = [call for block in blocks for call in calls(block)]
    assert shown
    for module, given in shown:
        known = variables(module)
        assert given <= set(known), module
        assert {name for name, needed in known.items() if needed} <= given, module


@pytest.mark.parametrize("readme", READMES, ids=lambda each: str(each.parent.relative_to(BASE)))
def test_links_lead_somewhere(readme: object) -> None:
    page = BASE / str(readme)
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(#[^)\s]*)?\)", page.read_text(encoding="utf-8")):
        if target.startswith("https:"):
            continue
        file = (page.parent / target).resolve() if target else page
        assert file.exists(), f"{page} links to {target}"
        if anchor:
            heads = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor[1:] in {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}


@pytest.mark.parametrize(("example", "set_"), [("minimal", "ecs"), ("three_clouds", "all")])
def test_an_example_finds_the_bundle_where_it_is_made(example: str, set_: str) -> None:
    """`python infra/package.py`, as the READMEs say it."""
    source = (ROOT / "infra" / "package.py").read_text(encoding="utf-8")
    assert """f"push-pools-{given.set}-{given.arch}-py{given.python.replace('.', '')}.zip\"""" in source
    functions = json.loads((ROOT / "infra" / "functions.json").read_text(encoding="utf-8"))
    python = functions["runtime"].removeprefix("python").replace(".", "")
    name = f"push-pools-{set_}-{functions['architecture']}-py{python}.zip"
    assert f"/build/{name}" in (BASE / "examples" / example / "main.tf").read_text(encoding="utf-8")
