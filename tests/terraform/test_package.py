"""The bundle has the same bytes whenever it is made, is small enough, and holds what the functions import."""

from __future__ import annotations

import hashlib
import json
import os
import runpy
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import boto3
import pytest

from tests.terraform.bundles import HOST, PACKAGE, ROOT, Bundle, make

if TYPE_CHECKING:
    from collections.abc import Callable

MODULE: Final = runpy.run_path(str(PACKAGE))
FUNCTIONS: Final[dict[str, Any]] = json.loads((ROOT / "infra" / "functions.json").read_text())["functions"]


def test_made_twice_it_has_the_same_bytes(host_bundle: Bundle, tmp_path: Path) -> None:
    again = make(*HOST, tmp_path / "again.zip")
    assert again.path.read_bytes() == host_bundle.path.read_bytes()
    assert again.said["sha256"] == hashlib.sha256(host_bundle.path.read_bytes()).hexdigest()
    assert again.said["bytes"] == host_bundle.path.stat().st_size
    assert again.said["bytecode"]


def test_the_bundle_for_lambda_is_of_its_processor_and_within_the_limit(tmp_path: Path) -> None:
    bundle = make("arm64", "3.13", tmp_path / "lambda.zip")
    assert bundle.said["runtime"] == "python3.13"
    with zipfile.ZipFile(bundle.path) as archive:
        names = archive.namelist()
    native = [name for name in names if name.endswith(".so")]
    assert any("cpython-313-aarch64" in name for name in native)
    assert not [name for name in native if "x86_64" in name]
    if not bundle.said["bytecode"]:
        assert bundle.said["bytes"] <= MODULE["MOST_BYTES"]["ecs"]
        assert not [name for name in names if name.endswith(".pyc")]


def test_it_holds_what_the_functions_need_and_not_what_lambda_brings(host_bundle: Bundle) -> None:
    with zipfile.ZipFile(host_bundle.path) as archive:
        names = archive.namelist()
        assert {entry.date_time for entry in archive.infolist()} == {MODULE["WHEN"]}
    tops = {name.partition("/")[0] for name in names}
    assert {"push_pools", "pydantic", "aws_lambda_powertools"} <= tops
    assert not tops & {"boto3", "botocore", "s3transfer", "typer", "rich", "yaml", "bin", "tests"}
    assert not [name for name in names if name.startswith(("push_pools/cli/", "push_pools/testing/"))]
    assert [name for name in names if name.startswith("push_pools/functions/") and name.endswith(".pyc")]


def test_its_handlers_are_imported_from_it_alone(host_bundle: Bundle, tmp_path: Path) -> None:
    """Beside what Lambda brings, which here comes last on the path; nothing of the source tree is seen."""
    with zipfile.ZipFile(host_bundle.path) as archive:
        archive.extractall(tmp_path / "task")
    # Those of other clouds need what only a bundle of `--set all` has.
    here = [entry for name, entry in FUNCTIONS.items() if not name.endswith(("_cloud_run", "_aci"))]
    modules = sorted(entry["handler"].rpartition(".")[0] for entry in here)
    lambda_brings = tmp_path / "runtime"
    lambda_brings.mkdir()
    site = Path(boto3.__file__).parent.parent
    for name in ("boto3", "botocore", "s3transfer", "urllib3", "six.py"):
        (lambda_brings / name).symlink_to(site / name)
    text = "\n".join(f"import {module}" for module in modules) + "\nprint(push_pools.__file__)"
    text += "\nfrom push_pools.platforms.registry import hosted_platforms; print([e.name for e in hosted_platforms()])"
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path / "task"), str(lambda_brings)])}
    done = subprocess.run(
        [sys.executable, "-S", "-c", text], env=environ, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    where, platforms = done.stdout.splitlines()
    assert where == str(tmp_path / "task" / "push_pools" / "__init__.py")
    assert "ecs:push" in platforms


def test_a_bundle_that_is_too_large_is_refused(
    host_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run: Callable[[list[str]], int] = MODULE["main"]
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    (wheels / "kept").touch()
    names = run.__globals__
    monkeypatch.setitem(names, "MOST_BYTES", {"ecs": 1})
    monkeypatch.setitem(names, "MOST_BYTECODE", {"ecs": 0})
    assert run(["--out", str(tmp_path / "x.zip"), "--wheels", str(wheels)]) == 1
    assert "the bundle is larger than 1 bytes" in capsys.readouterr().err


@pytest.mark.parametrize("version", ["3", "13", "3.13.1", "python3.13"])
def test_a_python_that_is_no_version_is_refused(version: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        MODULE["main"](["--python", version])
    assert "is not a version; write it as 3.13" in capsys.readouterr().err


def test_a_wheel_that_names_a_file_outside_itself_is_refused(tmp_path: Path) -> None:
    wheel = tmp_path / "bad-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("../evil.py", "")
    with pytest.raises(SystemExit, match=r"names a file outside itself: \.\./evil\.py"):
        MODULE["unpack"](wheel, tmp_path / "bundle")
