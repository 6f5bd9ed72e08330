"""Everything that `make test` checks, stage by stage, each with its time. Needs nothing but the standard library."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = ROOT / ".venv" / "bin"

CHECKS: dict[str, list[str | Path]] = {
    "ruff": [BIN / "ruff", "check", "."],
    "format": [BIN / "ruff", "format", "--check", "."],
    "mypy": [BIN / "mypy"],
    "terraform": [BIN / "python", ROOT / "scripts" / "terraform.py"],
    "checkov": [BIN / "python", ROOT / "scripts" / "scan.py"],
}
PYTEST = ["-m", "pytest", "-q", "-n", "2", "--dist", "worksteal", "tests"]
TESTS: list[str | Path] = [BIN / "python", *PYTEST, "-m", "not prove"]


def main() -> int:
    """Run every stage; return how many failed."""
    started = time.monotonic()
    make_env: list[str | Path] = [
        sys.executable,
        ROOT / "scripts" / "make_env.py",
        "main",
        "prefect",
        "ministack",
        "checkov",
    ]
    if stage("environments", make_env, show=True):
        return 1
    with ThreadPoolExecutor(1) as beside:
        checks = beside.submit(lambda: [stage(name, command) for name, command in CHECKS.items()])
        tests = stage("tests", TESTS, show=True)
        failed = sum(checks.result()) + tests
    print(f"total: {time.monotonic() - started:.1f} s, {'all passed' if not failed else f'{failed} stages failed'}")
    return failed


def stage(name: str, command: list[str | Path], *, show: bool = False) -> int:
    """Run one stage and print its time; return 1 if it failed."""
    started = time.monotonic()
    out = None if show else subprocess.PIPE
    done = subprocess.run(
        [str(part) for part in command], cwd=ROOT, env=_environ(), stdout=out, stderr=subprocess.STDOUT, check=False
    )
    said = (done.stdout or b"").decode()
    skipped = [line for line in said.splitlines() if line.startswith("SKIPPED")]
    verdict = "ok" if done.returncode == 0 else f"FAILED (exit {done.returncode})"
    if done.returncode:
        sys.stdout.write(said)
    print("; ".join((f"{name}: {verdict}, {time.monotonic() - started:.1f} s", *skipped)), flush=True)
    return int(done.returncode != 0)


def _environ() -> dict[str, str]:
    """Return this environment without settings of the project's own, so that a developer's do not leak into tests."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PUSH_POOLS_")}


if __name__ == "__main__":
    sys.exit(main())
