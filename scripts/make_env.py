"""Make the environments that the project's commands need, in parallel, and only when what they need has changed.

    python scripts/make_env.py main            .venv: the package, its tests and its checks
    python scripts/make_env.py demo            .venv: the package alone
    python scripts/make_env.py prefect         .venvs/prefect: a real, pinned Prefect to compare with
    python scripts/make_env.py ministack       .venvs/ministack: a local, pinned stand-in for AWS services
    python scripts/make_env.py checkov         .venvs/checkov: a pinned scanner of terraform/

Uses `uv` where it is installed, else `python3 -m venv` and pip. Needs nothing but the standard library.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS = ROOT / "constraints.txt"
PINS = {
    "prefect": ROOT / "tests" / "prefect" / "requirements.txt",
    "ministack": ROOT / "tests" / "aws" / "requirements.txt",
    "checkov": ROOT / "tests" / "terraform" / "requirements.txt",
}


def main(names: list[str]) -> int:
    """Make the environments of these names; return the exit code."""
    started = time.monotonic()
    with ThreadPoolExecutor() as pool:
        list(pool.map(make, names))
    print(f"environments {', '.join(names)}: {time.monotonic() - started:.1f} s", flush=True)
    return 0


def make(name: str) -> None:
    """Make one environment unless it is there, made from the same requirements."""
    target = ROOT / ".venv" if name in ("main", "demo") else ROOT / ".venvs" / name
    arguments = _arguments(name)
    stamp = target / f".made-{name}"
    if stamp.exists() and stamp.read_text() == _digest(arguments):
        return
    if (
        name == "demo"
        and (target / ".made-main").exists()
        and (target / ".made-main").read_text() == _digest(_arguments("main"))
    ):
        return
    _install(target, arguments)
    stamp.write_text(_digest(arguments))


def _arguments(name: str) -> list[str]:
    if name in PINS:
        return ["-r", str(PINS[name])]
    editable = ["-e", str(ROOT), "-c", str(CONSTRAINTS)]
    return editable if name == "demo" else [*editable, "-r", str(ROOT / "requirements-dev.txt")]


def _digest(arguments: list[str]) -> str:
    files = [ROOT / "pyproject.toml", *(Path(a) for a in arguments if a.endswith(".txt"))]
    text = "\0".join([sys.version, *arguments, *(file.read_text() for file in files)])
    return hashlib.sha256(text.encode()).hexdigest()


def _install(target: Path, arguments: list[str]) -> None:
    uv = shutil.which("uv")
    if uv:
        _run([uv, "venv", "-q", "--clear", "--python", sys.executable, str(target)])
        _run([uv, "pip", "install", "-q", "--python", str(_python(target)), *arguments])
    else:
        _run([sys.executable, "-m", "venv", "--clear", str(target)])
        _run([str(_python(target)), "-m", "pip", "install", "-q", "--disable-pip-version-check", *arguments])


def _python(target: Path) -> Path:
    return target / "bin" / "python"


def _run(command: list[str]) -> None:
    """Run a command; what it prints is shown only when it fails.

    Raises:
        SystemExit: It failed.
    """
    clean = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")}
    done = subprocess.run(command, env=clean, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
