"""The commands that the README and the pages of docs/ show run as they stand, in order."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.aws.installation import install

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"```console\n(.*?)```", re.DOTALL)
FILE = re.compile(r"```yaml\n# (\S+\.yaml)\n(.*?)```", re.DOTALL)
"""A file that a page shows under its name."""
NOT_HERE = ("docs/testing.md",)
"""Pages whose commands start servers that run until they are stopped; their own tests run these."""
STAND_INS = {
    ". .venv/bin/activate": ":",  # These tests run in an environment of their own.
    "pass show acme/registry": """printf '{"username": "u", "password": "p", "registry_url": "r.example"}'""",
}
FILES = {"prod.json": '{"assume_role_arn": "arn:aws:iam::123456789012:role/jobs", "region_name": "eu-west-1"}'}


def commands(page: Path) -> list[str]:
    """Return the lines of a page that a reader would type."""
    return [
        line[2:] for block in BLOCK.findall(page.read_text()) for line in block.splitlines() if line.startswith("$ ")
    ]


@pytest.mark.parametrize("page", [p for p in PAGES if commands(p)], ids=lambda p: p.name)
def test_the_commands_of_a_page_run(page: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """In one shell, which ends at the first that fails; those of the AWS page on a stand-in of an installation."""
    if str(page.relative_to(ROOT)) in NOT_HERE:
        return
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    for name, text in FILE.findall(page.read_text()):
        (tmp_path / name).write_text(text)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    script = "\n".join(commands(page))
    for shown, stand_in in STAND_INS.items():
        script = script.replace(shown, stand_in)
    environ = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PUSH_POOLS_HOME": str(tmp_path / "home"),
        "TMPDIR": str(tmp_path),
    }
    if page.name == "aws.md":
        environ |= install(request.getfixturevalue("ministack")).environ
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


def test_the_readme_shows_commands() -> None:
    """So that the test above has something to run."""
    assert len(commands(ROOT / "README.md")) >= 8


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link names a file, and every anchor a heading of it."""
    for target in re.findall(r"\]\(([^)#\s]*)(#[^)\s]*)?\)", page.read_text()):
        path, anchor = target
        if path.startswith(("http:", "https:", "mailto:")):
            continue
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page.name} links to {path}"
        if anchor:
            heads = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}
            assert anchor[1:] in slugs, f"{page.name} links to {path}{anchor}"
