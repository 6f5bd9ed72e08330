"""`make terraform` finds every folder, skips only where providers cannot be reached, and leaves nothing in the tree."""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.terraform.bundles import ROOT

if TYPE_CHECKING:
    from pathlib import Path

SCRIPT: Final = ROOT / "scripts" / "terraform.py"
MODULE: Final[dict[str, Any]] = runpy.run_path(str(SCRIPT))
TERRAFORM: Final = shutil.which("terraform")
needs_terraform = pytest.mark.skipif(bool(MODULE["why_not"]()), reason=MODULE["why_not"]() or "it is there")

NO_HOST: Final = """
Error: Failed to query available provider packages

Could not retrieve the list of available versions for provider hashicorp/aws:
could not connect to registry.terraform.io: failed to request discovery
document: Get "https://registry.terraform.io/.well-known/terraform.json":
dial tcp: lookup registry.terraform.io: no such host
"""
NO_RELEASE: Final = """
Error: Failed to query available provider packages

Could not retrieve the list of available versions for provider hashicorp/aws:
no available releases match the given constraints >= 99.0.0
"""
NO_PROVIDER: Final = """
Error: Failed to query available provider packages

Could not retrieve the list of available versions for provider
hashicorp/nonexist: provider registry.terraform.io/hashicorp/nonexist was not
found in any of the search locations

  - /opt/providers
"""
WRONG: Final = """
Error: Unclosed configuration block

  on main.tf line 1, in resource "x":
"""


@pytest.mark.parametrize(
    ("said", "offline", "is_unreachable"),
    [
        (NO_HOST, False, True),
        (NO_HOST + NO_HOST, False, True),
        (NO_RELEASE, False, False),
        (NO_PROVIDER, False, False),
        (NO_PROVIDER, True, True),
        (NO_HOST + NO_RELEASE, False, False),
        (WRONG, False, False),
        (WRONG + NO_HOST, False, False),
        ("", False, False),
    ],
)
def test_only_a_registry_that_does_not_answer_is_a_reason_to_skip(
    said: str, offline: bool, is_unreachable: bool
) -> None:
    reason = MODULE["why_unreachable"](said, offline=offline)
    assert bool(reason) is is_unreachable
    assert not reason or "\n" not in reason


def a_tree(tmp_path: Path, **files: str) -> Path:
    """Return a tree with the script in it, and a module for each name."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(SCRIPT, tmp_path / "scripts")
    for name, text in files.items():
        (tmp_path / "terraform" / name).mkdir(parents=True)
        (tmp_path / "terraform" / name / "main.tf").write_text(text)
    return tmp_path


def check(tree: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the script of a tree, without any provider to be had."""
    config = tree / "none.tfrc"
    config.write_text('provider_installation {\n  network_mirror {\n    url = "https://127.0.0.1:9/"\n  }\n}\n')
    return subprocess.run(
        [sys.executable, str(tree / "scripts" / "terraform.py")],
        env={**os.environ, "TF_CLI_CONFIG_FILE": str(config), **environ},
        capture_output=True,
        text=True,
        check=False,
    )


NEEDS: Final = 'terraform {\n  required_providers {\n    aws = {\n      source = "hashicorp/aws"\n    }\n  }\n}\n'


@needs_terraform
def test_without_providers_the_rest_is_skipped_and_said(tmp_path: Path) -> None:
    """What needs none is checked all the same."""
    plain = 'variable "size" {\n  type = number\n}\n'
    done = check(a_tree(tmp_path, one=NEEDS, plain=plain, two=NEEDS))
    assert done.returncode == 0, done.stdout
    assert "SKIPPED: validate and test of 2 folders: no provider can be reached: " in done.stdout
    assert "terraform/plain: validate" in done.stdout
    left = {
        path.relative_to(tmp_path / "terraform").as_posix()
        for path in (tmp_path / "terraform").rglob("*")
        if path.is_file()
    }
    assert left == {"one/main.tf", "plain/main.tf", "two/main.tf"}


@needs_terraform
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('resource "x" {\n', "Unclosed configuration block"),
        ('resource "x" {\n}\n', "Missing name for resource"),
        ('variable "a" {\n  type = number\n}\nvariable "a" {}\n', "Duplicate variable declaration"),
        ('variable   "a" {}\n', "run terraform fmt -recursive terraform"),
        ('variable "a" {\n  type    = number\n  default = "many"\n}\n', "Invalid default value for variable"),
    ],
)
def test_what_is_broken_fails_with_and_without_providers(tmp_path: Path, text: str, said: str) -> None:
    """The second folder comes after one whose providers could not be had."""
    done = check(a_tree(tmp_path, a_one=NEEDS, b_broken=text, c_broken=text + NEEDS))
    assert done.returncode == 1, done.stdout
    assert said in done.stdout
    assert "terraform/c_broken: FAILED" in done.stdout or "terraform fmt" in said


@needs_terraform
def test_a_failing_test_fails(tmp_path: Path) -> None:
    tree = a_tree(tmp_path, one='variable "a" {\n  type    = number\n  default = 1\n}\n')
    assertion = 'assert {\n    condition     = var.a == 2\n    error_message = "Not two."\n  }'
    run = f'run "r" {{\n  command = plan\n  {assertion}\n}}\n'
    (tree / "terraform" / "one" / "tests").mkdir()
    (tree / "terraform" / "one" / "tests" / "a.tftest.hcl").write_text(run)
    done = check(tree)
    assert done.returncode == 1
    assert "Not two." in done.stdout


def test_without_terraform_it_says_so(tmp_path: Path) -> None:
    done = check(a_tree(tmp_path, one=NEEDS), PATH=str(tmp_path))
    assert (done.returncode, done.stdout) == (0, "SKIPPED: terraform is not installed\n")


def test_an_old_terraform_is_said(tmp_path: Path) -> None:
    old = tmp_path / "bin" / "terraform"
    old.parent.mkdir()
    old.write_text("#!/bin/sh\necho Terraform v1.5.7\n")
    old.chmod(0o755)
    done = check(a_tree(tmp_path, one=NEEDS), PATH=f"{old.parent}:{os.environ['PATH']}")
    assert (done.returncode, done.stdout) == (0, "SKIPPED: Terraform v1.5.7 is older than 1.11\n")


@needs_terraform
def test_a_folder_that_is_not_there_is_refused() -> None:
    done = subprocess.run([sys.executable, str(SCRIPT), "nowhere"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "nowhere has no .tf files; known are " in done.stderr
    assert "modules/service" in done.stderr


def test_every_folder_of_configuration_is_found() -> None:
    assert "modules/service" in MODULE["folders"]()
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert {".terraform/", ".terraform.lock.hcl", "*.tfstate*"} <= set(ignored)
