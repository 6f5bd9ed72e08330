"""Bundles made by `infra/package.py`, kept between runs of the tests as long as nothing they are made of changes."""

from __future__ import annotations

import fcntl
import hashlib
import json
import platform
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

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


def kept(arch: str, python: str) -> Bundle:
    """Return a bundle of what the tree holds now; it is made once, by whichever process of the tests needs it first.

    Raises:
        AssertionError: It could not be made; the text says why.
    """
    digest = hashlib.sha256()
    for path in (PACKAGE, *(ROOT / name for name in ("pyproject.toml", "constraints.txt")), *_sources()):
        digest.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    out = KEPT / f"functions-{arch}-{python}-{digest.hexdigest()[:16]}.zip"
    said = out.with_suffix(".json")
    with _alone(f"bundle-{arch}-{python}"):
        if not said.exists():
            for old in KEPT.glob(f"functions-{arch}-{python}-*"):
                old.unlink()
            said.write_text(json.dumps(make(arch, python, out).said))
    return Bundle(out, json.loads(said.read_text()))


def make(arch: str, python: str, out: Path) -> Bundle:
    """Make a bundle; its wheels are fetched once per set of requirements.

    Raises:
        AssertionError: It could not be made; the text says why.
    """
    digest = hashlib.sha256(b"".join((ROOT / name).read_bytes() for name in ("pyproject.toml", "constraints.txt")))
    wheels = KEPT / f"wheels-{arch}-{python}-{digest.hexdigest()[:16]}"
    command = [sys.executable, str(PACKAGE), "--arch", arch, "--python", python, "--out", str(out)]
    with _alone(wheels.name):  # Half of the wheels would look like all of them.
        done = subprocess.run([*command, "--wheels", str(wheels)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return Bundle(out, json.loads(done.stdout))


def _sources() -> list[Path]:
    listed = sorted((ROOT / "push_pools").rglob("*"))
    return [path for path in listed if path.is_file() and "__pycache__" not in path.parts]


@contextmanager
def _alone(name: str) -> Iterator[None]:
    """Hold a lock among the processes of the tests."""
    KEPT.mkdir(parents=True, exist_ok=True)
    with (KEPT / f"{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
