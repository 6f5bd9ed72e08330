"""The image and the unit of the embedded service name what is there, and give it no rights that it does not need."""

from __future__ import annotations

import ast
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from configparser import RawConfigParser
from typing import TYPE_CHECKING, Final

import pytest

from push_pools.settings import Settings
from tests.terraform.bundles import ROOT

if TYPE_CHECKING:
    from pathlib import Path

UNIT: Final = ROOT / "infra" / "systemd" / "push-pools.service"
IMAGE: Final = (ROOT / "infra" / "images" / "Containerfile").read_text(encoding="utf-8")
PROJECT: Final = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def instructions(name: str) -> list[str]:
    """Return what is given to an instruction of the image, each with its lines joined."""
    return [each.strip() for each in re.findall(rf"(?m)^{name} (.*)$", IMAGE.replace("\\\n", ""))]


def is_understood(command: list[str], home: Path) -> None:
    """Run a command of the service, of which only the ending is another: it stops when there is nothing to do."""
    program, *words = command
    assert program.rpartition("/")[2] in PROJECT["scripts"]
    run = [sys.executable, "-m", "push_pools.cli.main", *words, "--until-idle", "--for", "60s"]
    environ = {"PUSH_POOLS_HOME": str(home), "PATH": "/usr/bin:/bin"}
    run[run.index("--port") + 1] = "0"  # Whatever else listens on this machine.
    done = subprocess.run(run, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_command_of_the_image_is_one(tmp_path: Path) -> None:
    (entrypoint,), (command,) = instructions("ENTRYPOINT"), instructions("CMD")[-1:]
    is_understood([*json.loads(entrypoint), *json.loads(command)], tmp_path)


def test_the_image_copies_what_is_there_and_installs_an_extra_that_is_there() -> None:
    for words in (shlex.split(each) for each in instructions("COPY")):
        if not words[0].startswith("--from="):
            assert all((ROOT / name).exists() for name in words[:-1]), words
    (extra,) = re.findall(r"\.\[(\w+)\]", IMAGE)
    assert extra in PROJECT["optional-dependencies"]


def test_the_image_is_pinned_by_tag_and_runs_as_nobody_special() -> None:
    for base in (each.partition(" AS ")[0] for each in instructions("FROM")):
        version = re.search(r"/python:3\.(\d+)-slim$", base)
        assert version is not None, base
        assert f"Programming Language :: Python :: 3.{version[1]}" in PROJECT["classifiers"]
    assert instructions("USER") == ["10001"]
    home = dict(each.split("=", 1) for line in instructions("ENV") for each in shlex.split(line))["PUSH_POOLS_HOME"]
    assert instructions("VOLUME") == [home]


def test_the_health_that_the_image_asks_for_is_served() -> None:
    check = json.loads(instructions("HEALTHCHECK")[0].partition("CMD ")[2])
    ast.parse(check[-1])
    port = json.loads(instructions("CMD")[-1])[-1]
    assert f"http://127.0.0.1:{port}/health" in check[-1]


@pytest.fixture(scope="module")
def unit() -> RawConfigParser:
    parser = RawConfigParser(strict=True)
    parser.optionxform = str  # type: ignore[assignment,method-assign] # The documented way to keep the case of names.
    parser.read(UNIT, encoding="utf-8")
    return parser


def test_the_command_of_the_unit_is_one(unit: RawConfigParser, tmp_path: Path) -> None:
    is_understood(shlex.split(unit["Service"]["ExecStart"]), tmp_path)


def test_the_unit_has_a_home_of_its_own_and_settings_that_are_known(unit: RawConfigParser) -> None:
    service = unit["Service"]
    name, _, home = service["Environment"].partition("=")
    assert str(Settings.from_environ({name: home}).home) == home == f"/var/lib/{service['StateDirectory']}"
    assert service["StateDirectoryMode"] == "0700"  # Its key file and ledger are nobody else's.
    assert service["KillMode"] == "process"  # Local jobs outlive a restart.


def test_the_unit_has_no_rights_but_a_user_s(unit: RawConfigParser) -> None:
    service = unit["Service"]
    assert service["User"] not in ("", "root")
    assert service["CapabilityBoundingSet"] == ""  # Its port needs none.
    assert service["NoNewPrivileges"] == service["PrivateDevices"] == service["ProtectKernelModules"] == "yes"
    assert (service["ProtectSystem"], service["UMask"]) == ("strict", "0077")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    """Its program is not installed here, so another one stands in its place."""
    program = shlex.split(UNIT.read_text().partition("ExecStart=")[2].partition("\n")[0])[0]
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace(program, "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", str(copy)], capture_output=True, text=True, check=False)
    assert UNIT.name not in done.stderr, done.stderr
