"""`make smoke-aws`, on stand-ins: it finds what is there, tells what fails, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from push_pools.testing.ecs_double import EcsDouble
from push_pools.testing.ecs_double import Fault as CloudFault

if TYPE_CHECKING:
    from tests.aws.ministack import Ministack

ROOT = Path(__file__).resolve().parents[2]


def smoke(ministack: Ministack, ecs: EcsDouble, *words: str) -> tuple[int, dict[str, Any], str]:
    """Run the script and return its code, its report and all that it printed."""
    role = "arn:aws:iam::123456789012:role/run"
    given = ["--cluster", "default", "--subnets", "subnet-1", "--execution-role-arn", role, "--tick-seconds", "0.5"]
    ran = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "smoke_aws.py"), *given, "--seconds", "60", *words],
        env={**os.environ, **ministack.environ, "AWS_ENDPOINT_URL_ECS": ecs.endpoint},
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    text = ran.stdout + ran.stderr
    assert "\n{\n" in ran.stdout, text
    return ran.returncode, json.loads("{\n" + ran.stdout.rpartition("\n{\n")[2]), text


def left(ministack: Ministack) -> list[str]:
    """What is there that has the trial's name."""
    queues = ministack.client("sqs").list_queues(QueueNamePrefix="push-pools-smoke").get("QueueUrls", [])
    tables = ministack.client("dynamodb").list_tables()["TableNames"]
    events = ministack.client("events")
    buses = [each["Name"] for each in events.list_event_buses()["EventBuses"]]
    rules = [each["Name"] for each in events.list_rules()["Rules"]]
    return [each for each in (*queues, *tables, *buses, *rules) if "smoke" in each]


def test_everything_holds_and_nothing_is_left(ministack: Ministack) -> None:
    with EcsDouble(default_seconds=0.2) as ecs:
        code, report, text = smoke(ministack, ecs)
        assert code == 0, text
        assert report["good"]
        assert len(report["checks"]) == 5
        assert len(report["answers"]) == 4
        ours = [task for task in ecs.started if str(task.started_by).startswith("pp/")]
        assert len(ours) == 4
        assert not ecs.running()
    assert not left(ministack)


def test_what_does_not_hold_is_told_and_nothing_is_left(ministack: Ministack) -> None:
    with EcsDouble(default_seconds=0.2) as ecs:
        ecs.faults.add("RunTask", CloudFault.access_denied(), times=100)
        code, report, text = smoke(ministack, ecs)
        assert code == 1, text
        assert not report["good"]
        bad = [facts for _, good, facts in report["checks"] if not good]
        assert sum("does not allow it" in facts for facts in bad) == 4, text
    assert not left(ministack)
