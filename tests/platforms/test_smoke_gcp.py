"""`make smoke-gcp`, on the double: it finds what is there, tells what fails, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from push_pools.testing.cloud_run_double import CloudRunDouble, Fault

ROOT = Path(__file__).resolve().parents[2]


def smoke(cloud: CloudRunDouble, *words: str) -> tuple[int, dict[str, Any], str]:
    """Run the script and return its code, its report and all that it printed."""
    given = ["--project", "acme", "--region", "europe-west1", "--pause", "0", "--seconds", "40"]
    hurry = ["--call-seconds", "2", "--settle-seconds", "1", "--service-usage", cloud.endpoint]
    ran = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "smoke_gcp.py"), *given, *hurry, *words],
        env={**os.environ, "PUSH_POOLS_CLOUD_RUN_ENDPOINT": cloud.endpoint},
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    text = ran.stdout + ran.stderr
    assert "\n{\n" in ran.stdout, text
    return ran.returncode, json.loads("{\n" + ran.stdout.rpartition("\n{\n")[2]), text


def test_everything_holds_and_nothing_is_left() -> None:
    with CloudRunDouble(default_seconds=0.2) as cloud:
        code, report, text = smoke(cloud)
        assert code == 0, text
        assert report["good"]
        assert len(report["checks"]) == 7
        answers = dict(report["answers"])
        assert len(answers) == 4
        updates = answers["two concurrent UpdateJob with different tokens"]
        assert "['taken', 'taken']; executions ['x', 'y']; each with the environment of its own update: True" in updates
        assert json.loads(answers["time-outs of a task"]) == {"1 h": "taken", "24 h": "taken", "168 h": "taken"}
        assert not cloud.model.jobs
        assert not cloud.running()


def test_what_does_not_hold_is_told_and_nothing_is_left() -> None:
    with CloudRunDouble(default_seconds=0.2) as cloud:
        cloud.faults.when(
            lambda method, request: (
                Fault.access_denied() if method == "CreateJob" and request.job_id[:3] == "pp-" else None
            )
        )
        code, report, text = smoke(cloud)
        assert code == 1, text
        assert not report["good"]
        assert any("does not allow it" in facts for _, good, facts in report["checks"] if not good), text
        assert not cloud.model.jobs
