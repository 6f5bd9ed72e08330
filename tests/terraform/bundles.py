"""Bundles made by `infra/package.py`, kept between runs of the tests as long as nothing they are made of changes."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
PACKAGE: Final = ROOT / "infra" / "package.py"
KEPT: Final = ROOT / "build" / "tests"
HOST: Final = (
    "x86_64" if platform.machine() == "x86_64" else "arm64",
    f"{sys.version_info.major}.{sys.version_info.minor}",
)
"""Processor and Python of this machine."""


@dataclass(frozen=True)
class Bundle:
    """A zip, and what `package.py` said of it."""

    path: Path
    said: dict[str, Any]


def make(arch: str, python: str, out: Path) -> Bundle:
    """Make a bundle; its wheels are fetched once per set of requirements.

    Raises:
        AssertionError: It could not be made; the text says why.
    """
    digest = hashlib.sha256(b"".join((ROOT / name).read_bytes() for name in ("pyproject.toml", "constraints.txt")))
    wheels = KEPT / f"wheels-{arch}-{python}-{digest.hexdigest()[:16]}"
    command = [sys.executable, str(PACKAGE), "--arch", arch, "--python", python, "--out", str(out)]
    done = subprocess.run([*command, "--wheels", str(wheels)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return Bundle(out, json.loads(done.stdout))
