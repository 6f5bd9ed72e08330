"""Scan `terraform/` with checkov, as `terraform/.checkov.yaml` says; a file that it cannot read is a failure too.

Needs the environment of `scripts/make_env.py checkov`, and nothing but the standard library otherwise.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
FOLDER: Final = ROOT / "terraform"
SCANNER: Final = ROOT / ".venvs" / "checkov" / "bin" / "checkov"
SECONDS: Final = 300.0
"""A scan that takes longer hangs."""


def main() -> int:
    """Scan, print what was found, and return the exit code."""
    if not SCANNER.exists():
        print(f"{SCANNER} is missing: run `python scripts/make_env.py checkov`", file=sys.stderr)
        return 2
    reports = scan(FOLDER)
    found = [problem for report in reports for problem in problems(report)]
    print("\n".join(found))
    passed = sum(report["summary"]["passed"] for report in reports)
    print(f"checkov: {passed} checks passed, {len(found)} problems")
    return int(bool(found) or not passed)


def scan(folder: Path) -> list[dict[str, Any]]:
    """Return checkov's reports on a folder that has a `.checkov.yaml`.

    Raises:
        SystemExit: It did not run; the text is what it said.
    """
    command = [str(SCANNER), "-d", ".", "--config-file", ".checkov.yaml", "-o", "json"]
    environ = {**os.environ, "LOG_LEVEL": "WARNING"}
    done = subprocess.run(
        command, cwd=folder, env=environ, capture_output=True, text=True, check=False, timeout=SECONDS
    )
    try:
        reports = json.loads(done.stdout)
    except ValueError:
        raise SystemExit(f"checkov did not run:\n{done.stdout}{done.stderr}") from None
    reports = reports if isinstance(reports, list) else [reports]
    return [report for report in reports if "summary" in report]


def problems(report: dict[str, Any]) -> list[str]:
    """Return what a report complains of, a line each."""
    results = report["results"]
    failed = [
        f"terraform{each['file_path']}:{each['file_line_range'][0]}: {each['check_id']} {each['check_name']}"
        for each in results["failed_checks"]
    ]
    return failed + [f"{each} cannot be read by checkov" for each in results.get("parsing_errors", [])]


if __name__ == "__main__":
    sys.exit(main())
