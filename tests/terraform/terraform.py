"""Runs the real terraform on a copy of a module, with mocked providers: nothing is asked of a cloud."""

from __future__ import annotations

import json
import runpy
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.terraform.bundles import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SCRIPT: Final[dict[str, Any]] = runpy.run_path(str(ROOT / "scripts" / "terraform.py"))


@dataclass(frozen=True)
class Terraform:
    """A module that is initialised, in a copy of the tree."""

    copy: Path
    name: str

    def test(self, **files: str) -> list[dict[str, Any]]:
        """Run test files, by name, and no others; return what `terraform test -json` says, line by line."""
        folder = self.copy / "terraform" / self.name / "ours"
        folder.mkdir(exist_ok=True)
        for each in folder.iterdir():
            each.unlink()
        for name, text in files.items():
            (folder / f"{name}.tftest.hcl").write_text(text)
        chdir = f"-chdir={self.copy / 'terraform' / self.name}"
        done = subprocess.run(
            ["terraform", chdir, "test", "-json", "-verbose", "-test-directory=ours"],
            env=SCRIPT["environ"](),
            capture_output=True,
            text=True,
            check=False,
        )
        return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


@contextmanager
def prepared(name: str) -> Iterator[Terraform]:
    """Initialise a module; the test is skipped where terraform or its providers are not to be had."""
    reason = SCRIPT["why_not"]()
    if reason:
        pytest.skip(reason)
    with SCRIPT["copied"]() as copy:
        try:
            SCRIPT["init"](copy, name)
        except SCRIPT["Unreachable"] as error:
            pytest.skip(str(error))
        yield Terraform(copy, name)
