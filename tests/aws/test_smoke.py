"""`make smoke-aws`, on stand-ins: it finds what is there, tells what fails, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from push_pools.testing.ecs_double import Account, EcsDouble
from push_pools.testing.ecs_double import Fault as CloudFault

if TYPE_CHECKING:
    from collections.abc import Iterator

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


def left(ministack: Ministack, ecs: EcsDouble) -> list[str]:
    """What is there that has the trial's name, and what still runs."""
    queues = ministack.client("sqs").list_queues(QueueNamePrefix="push-pools-smoke").get("QueueUrls", [])
    tables = ministack.client("dynamodb").list_tables()["TableNames"]
    events = ministack.client("events")
    buses = [each["Name"] for each in events.list_event_buses()["EventBuses"]]
    rules = [each["Name"] for each in events.list_rules()["Rules"]]
    families = ecs.model.definitions.families.values()
    definitions = [each["taskDefinitionArn"] for family in families for each in family if each["status"] == "ACTIVE"]
    running = [str(task) for task in ecs.running()]
    return [*(each for each in (*queues, *tables, *buses, *rules, *definitions) if "smoke" in each), *running]


@contextlib.contextmanager
def telling(ministack: Ministack, ecs: EcsDouble) -> Iterator[None]:
    """Be EventBridge meanwhile: nobody may put events of AWS's own on a bus. Each comes twice, as it may."""
    events, sqs, over = ministack.client("events"), ministack.client("sqs"), threading.Event()

    def tell() -> None:
        while not over.wait(0.1):
            rules = [each for each in events.list_rules()["Rules"] if each["Name"].startswith("push-pools-smoke")]
            for event in ecs.task_state_change_events(duplicate=1.0) if rules else ():
                text = json.dumps(event)
                assert events.test_event_pattern(EventPattern=rules[0]["EventPattern"], Event=text)["Result"]
                target = events.list_targets_by_rule(Rule=rules[0]["Name"])["Targets"][0]["Arn"]
                url = sqs.get_queue_url(QueueName=target.rpartition(":")[2])["QueueUrl"]
                sqs.send_message(QueueUrl=url, MessageBody=text)

    with ThreadPoolExecutor(1) as pool:
        told = pool.submit(tell)
        try:
            yield
        finally:
            over.set()
        told.result()


def answer_to(report: dict[str, Any], question: str) -> str:
    (found,) = (found for asked, found in report["answers"] if asked.startswith(question))
    return str(found)


REFUSED = "failures[] and the clientToken"


def test_everything_holds_and_nothing_is_left(ministack: Ministack) -> None:
    """In a new account, which may run 6 vCPUs."""
    with EcsDouble(default_seconds=0.2) as ecs:
        ecs.model.rules = Account(vcpus=6)
        with telling(ministack, ecs):
            code, report, text = smoke(ministack, ecs)
        assert code == 0, text
        assert report["good"]
        assert len(report["checks"]) == 5
        assert len(report["answers"]) == 4
        ours = [task for task in ecs.started if str(task.started_by).startswith("pp/")]
        assert len(ours) == len(ecs.started) == 4
        assert ecs.calls["RegisterTaskDefinition"] == 1
        assert answer_to(report, "ListTasks(startedBy) shows a new task after").endswith(" s")
        assert "accepted, 1 task(s) listed" in answer_to(report, "ListTasks(startedBy, desiredStatus=STOPPED)")
        assert answer_to(report, REFUSED).startswith(
            "bound, and the same come again (failures You've reached the limit"
        )
        told = re.match(r"(\d+) events, (\d+) of them again; the middle one -?\d", answer_to(report, "ECS task events"))
        assert told is not None, text
        assert 4 <= int(told[2]) < int(told[1])
        assert '"one event sent three times is one task",\n      true,\n      "1 found' in text
        assert not left(ministack, ecs)


def test_an_account_that_may_run_much_leaves_the_question_open_and_the_large_task_is_stopped(
    ministack: Ministack,
) -> None:
    """Ended before its end, too: what runs then is stopped, and told of."""
    with EcsDouble(default_seconds=600.0) as ecs:
        code, report, text = smoke(ministack, ecs, "--seconds", "4")
        assert code == 1, text
        assert answer_to(report, REFUSED).startswith("not answered, because 16 vCPUs were not refused")
        assert [task for task in ecs.started if str(task.started_by).startswith("push-pools-smoke-")]
        assert ecs.calls["StopTask"] > 1
        assert not left(ministack, ecs)


def test_what_does_not_hold_is_told_and_nothing_is_left(ministack: Ministack) -> None:
    with EcsDouble(default_seconds=0.2) as ecs:
        ecs.faults.add("RunTask", CloudFault.access_denied(), times=100)
        code, report, text = smoke(ministack, ecs)
        assert code == 1, text
        assert not report["good"]
        bad = [facts for _, good, facts in report["checks"] if not good]
        assert sum("does not allow it" in facts for facts in bad) == 4, text
        assert not left(ministack, ecs)


def test_what_cannot_be_removed_is_named(ministack: Ministack) -> None:
    with EcsDouble(default_seconds=0.2) as ecs:
        ecs.model.rules = Account(denied={"ecs:DeregisterTaskDefinition"})
        code, report, text = smoke(ministack, ecs)
        assert code == 1, text
        (bad,) = (check for check in report["checks"] if not check[1])
        assert bad[0].startswith("the task definition of push-pools-smoke-")
        assert "remove it by hand" in bad[2]
        assert not left(ministack, ecs)[1:]
