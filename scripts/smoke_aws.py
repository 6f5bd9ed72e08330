"""Try the AWS hosting on a real account: a few runs, what is not known for sure about ECS, and a report.

    python scripts/smoke_aws.py --cluster jobs --subnets subnet-1,subnet-2 --execution-role-arn arn:aws:iam::…:role/run

Credentials and region come from the environment, as for every boto3 program. It makes a table, queues and a bus with a
random name, runs the handlers in this process on them, starts a handful of the smallest Fargate tasks, and deletes what
it made, also when it fails: tasks that still run and the task definition too. It also asks once for more vCPUs than a
new account may run; where they are given, that task is stopped at once. Costs are a few cents. Everything is real but
Lambda itself. Not yet run on a real account.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from push_pools.bootstrap import open_aws
from push_pools.domain.config import DeploymentSpec
from push_pools.domain.errors import PushPoolsError
from push_pools.ports import RunFilter
from push_pools.services.catalogue import create_work_pool
from push_pools.services.deploy import put_deployment
from push_pools.services.runs import run_deployment
from push_pools.services.stop import cancel_run
from push_pools.settings import Settings
from push_pools.stores.dynamodb_table import create_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from push_pools.domain.runs import FlowRun
    from push_pools.ports import App

FUNCTION_SECONDS = 60.0
QUEUES = ("submit-ecs", "poll-ecs", "seen", "dead-letters")
TOO_MUCH = {"cpu": "16384", "memory": "32768"}
"""The largest task of Fargate: 16 vCPUs, where a new account may run 6."""


@dataclass
class Report:
    """What was found, printed at the end."""

    checks: list[tuple[str, bool, str]] = field(default_factory=list)
    answers: list[tuple[str, str]] = field(default_factory=list)

    def check(self, what: str, is_good: bool, facts: str = "") -> None:
        """Note whether something holds."""
        self.checks.append((what, is_good, facts))
        print(f"{'ok     ' if is_good else 'FAILED '} {what}{': ' + facts if facts else ''}", flush=True)

    def answer(self, question: str, found: str) -> None:
        """Note what was found about something that was not known."""
        self.answers.append((question, found))
        print(f"answer  {question}: {found}", flush=True)

    @property
    def is_good(self) -> bool:
        """Whether everything holds."""
        return bool(self.checks) and all(good for _, good, _ in self.checks)


class Context:
    """A Lambda context."""

    memory_limit_in_mb = 512
    invoked_function_arn = "arn:aws:lambda:smoke"

    def __init__(self, name: str) -> None:
        self.function_name, self.aws_request_id = name, secrets.token_hex(8)
        self._end = time.monotonic() + FUNCTION_SECONDS

    def get_remaining_time_in_millis(self) -> int:
        """Return how long the invocation may still take."""
        return int((self._end - time.monotonic()) * 1000)


class Smoke:
    """One installation, for as long as the trial lasts."""

    def __init__(self, options: argparse.Namespace, report: Report) -> None:
        self.options, self.report = options, report
        self.name = f"push-pools-smoke-{secrets.token_hex(3)}"
        self.sqs, self.events, self.ecs = boto3.client("sqs"), boto3.client("events"), boto3.client("ecs")
        self.urls: dict[str, str] = {}
        self.arns: dict[str, str] = {}
        self.app: App
        self._ticked = 0.0
        self.told: list[tuple[float, dict[str, Any]]] = []
        """When each event of ECS arrived, and what it says."""

    # -- making and deleting

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Make the installation, and delete it afterwards, however it went."""
        with contextlib.ExitStack() as undo:
            dynamodb = boto3.client("dynamodb")
            undo.callback(self._undone, "table", lambda: dynamodb.delete_table(TableName=self.name))
            create_table(dynamodb, self.name)
            for name in QUEUES:
                self._make_queue(name, undo)
            undo.callback(self._undone, "bus", lambda: self.events.delete_event_bus(Name=self.name))
            self.events.create_event_bus(Name=self.name)
            self._rule("published", self.name, {"source": ["push-pools"]}, "seen", undo)
            pattern = {"source": ["aws.ecs"], "detail": {"startedBy": [{"prefix": "pp/"}]}}
            self._rule("tasks", "default", pattern, "poll-ecs", undo)
            os.environ |= {
                "PUSH_POOLS_AWS_TABLE": self.name,
                "PUSH_POOLS_AWS_QUEUE_PREFIX": f"{self.name}-",
                "PUSH_POOLS_AWS_BUS": self.name,
            }
            self.app = open_aws(Settings.from_environ(os.environ))
            undo.callback(self._undone, "task definition", self._delete_definitions)
            undo.callback(self._undone, "tasks", self._stop_tasks)
            print(f"made    {self.name}", flush=True)
            yield

    def _make_queue(self, name: str, undo: contextlib.ExitStack) -> None:
        full = f"{self.name}-{name}"
        url = self.sqs.create_queue(QueueName=full, Attributes={"VisibilityTimeout": "120"})["QueueUrl"]
        undo.callback(self._undone, f"queue {name}", lambda: self.sqs.delete_queue(QueueUrl=url))
        answer = self.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
        arn = answer["Attributes"]["QueueArn"]
        policy = {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Principal": {"Service": "events.amazonaws.com"},
                    "Action": "sqs:SendMessage",
                    "Resource": arn,
                }
            ],
        }
        self.sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": json.dumps(policy)})
        self.urls[name], self.arns[name] = url, arn

    def _rule(self, name: str, bus: str, pattern: Any, queue: str, undo: contextlib.ExitStack) -> None:
        full = f"{self.name}-{name}"

        def remove() -> None:
            self.events.remove_targets(Rule=full, EventBusName=bus, Ids=["1"])
            self.events.delete_rule(Name=full, EventBusName=bus)

        self.events.put_rule(Name=full, EventBusName=bus, EventPattern=json.dumps(pattern))
        undo.callback(self._undone, f"rule {name}", remove)
        self.events.put_targets(Rule=full, EventBusName=bus, Targets=[{"Id": "1", "Arn": self.arns[queue]}])

    def _stop_tasks(self) -> None:
        """Stop what still runs, which is nothing unless the trial was broken off."""
        marks = {self.name}
        for run in self.app.store.runs(RunFilter()).runs:
            marks |= {f"pp/{run.id}/{attempt}" for attempt in range(1, run.attempt + 1)}
        for mark in sorted(marks):
            for arn in self.ecs.list_tasks(cluster=self.options.cluster, startedBy=mark)["taskArns"]:
                self._stop_task(arn)

    def _stop_task(self, arn: str) -> None:
        self.ecs.stop_task(cluster=self.options.cluster, task=arn, reason="push-pools smoke")

    def _delete_definitions(self) -> None:
        families = self.ecs.list_task_definition_families(familyPrefix=self.name, status="ACTIVE")["families"]
        for family in families:
            for arn in self.ecs.list_task_definitions(familyPrefix=family)["taskDefinitionArns"]:
                self.ecs.deregister_task_definition(taskDefinition=arn)
                self.ecs.delete_task_definitions(taskDefinitions=[arn])

    def _undone(self, what: str, undo: Callable[[], object]) -> None:
        try:
            undo()
        except (ClientError, BotoCoreError) as error:
            self.report.check(f"the {what} of {self.name} is gone", False, f"{error}; remove it by hand")

    # -- the functions

    def work(self) -> None:
        """Feed what is on the queues to the handlers, once; tick when it is time."""
        from push_pools.functions import poll_ecs, schedule, submit_ecs

        self._feed("submit-ecs", submit_ecs.handler)
        self._feed("poll-ecs", poll_ecs.handler)
        if time.monotonic() - self._ticked > self.options.tick_seconds:
            self._ticked = time.monotonic()
            schedule.handler({}, Context("schedule"))

    def _feed(self, queue: str, handler: Callable[..., Any]) -> None:
        answer = self.sqs.receive_message(
            QueueUrl=self.urls[queue],
            MaxNumberOfMessages=10,
            WaitTimeSeconds=1,
            MessageSystemAttributeNames=["All"],
            MessageAttributeNames=["All"],
        )
        messages = answer.get("Messages", [])
        if not messages:
            return
        for message in messages:
            with contextlib.suppress(ValueError):
                value = json.loads(message["Body"])
                if isinstance(value, dict) and value.get("source") == "aws.ecs":
                    self.told.append((time.time(), value))
        records = [
            {
                "messageId": message["MessageId"],
                "receiptHandle": message["ReceiptHandle"],
                "body": message["Body"],
                "attributes": message["Attributes"],
                "messageAttributes": {},
                "eventSource": "aws:sqs",
                "eventSourceARN": self.arns[queue],
            }
            for message in messages
        ]
        failed = handler({"Records": records}, Context(queue.replace("-", "_")))["batchItemFailures"]
        back = {each["itemIdentifier"] for each in failed}
        for message in messages:
            if message["MessageId"] not in back:
                self.sqs.delete_message(QueueUrl=self.urls[queue], ReceiptHandle=message["ReceiptHandle"])

    def until(self, run: FlowRun, is_there: Callable[[FlowRun], bool]) -> FlowRun:
        """Work until the run is there, or the time is over; return it as it is then."""
        end = time.monotonic() + self.options.seconds
        while time.monotonic() < end:
            run = self.app.store.get_run(run.id)
            if is_there(run) or run.is_final:
                break
            self.work()
        return self.app.store.get_run(run.id)

    # -- the runs

    def deploy(self) -> None:
        """Make a pool on the given cluster, and three deployments."""
        network = {"subnets": self.options.subnets.split(","), "assignPublicIp": self.options.public_ip}
        variables = {
            "image": self.options.image,
            "family": self.name,
            "cluster": self.options.cluster,
            "cpu": 256,
            "memory": 512,
            "execution_role_arn": self.options.execution_role_arn,
            "network_configuration": {"awsvpcConfiguration": network},
        }
        create_work_pool(self.app, "smoke", "ecs:push", variables=variables)
        commands = {"good": ["true"], "bad": ["sh", "-c", "exit 3"], "long": ["sleep", "600"]}
        for name, command in commands.items():
            spec = {"name": name, "command": command, "work_pool": {"name": "smoke"}, "retries": {"attempts": 1}}
            put_deployment(self.app, DeploymentSpec.model_validate(spec))

    def tasks_of(self, run: FlowRun, **options: Any) -> list[str]:
        """Return the tasks that ECS lists for a run's first attempt."""
        answer = self.ecs.list_tasks(cluster=self.options.cluster, startedBy=_mark(run), **options)
        return list(answer["taskArns"])

    def one_run(self) -> None:
        """A run, to its end."""
        began = time.time()
        run = self.until(run_deployment(self.app, "good").run, lambda run: run.infrastructure_pid is not None)
        if run.infrastructure_pid is not None:
            self.visible_after(run)
        run = self.until(run, lambda run: run.is_final)
        self.report.check(
            "one run completes", run.state.name == "Completed", f"{_told(run)}, {time.time() - began:.0f} s"
        )
        self.stopped_listing(run)

    def duplicates(self) -> None:
        """One event three times."""
        event = '{"version":1,"type":"scheduled-run","deployment":"good","idempotency_key":"smoke"}'
        for _ in range(3):
            self.app.queue.send(event)
        again = run_deployment(self.app, "good", idempotency_key="smoke").run
        run = self.until(again, lambda run: run.infrastructure_pid is not None)
        tasks = set(self.tasks_of(run))
        run = self.until(run, lambda run: run.is_final)
        with contextlib.suppress(ClientError):  # Whether ECS takes both filters is one of the questions.
            tasks |= set(self.tasks_of(run, desiredStatus="STOPPED"))
        tasks |= {
            event["detail"]["taskArn"] for _, event in self.told if event["detail"].get("startedBy") == _mark(run)
        }
        is_one = run.state.name == "Completed" and len(tasks) == 1 and run.attempt == 1
        self.report.check("one event sent three times is one task", is_one, f"{len(tasks)} found, {_told(run)}")

    def cancelled(self) -> None:
        """A run that is cancelled while its task runs."""
        run = self.until(run_deployment(self.app, "long").run, lambda run: run.state.name == "Running")
        if run.state.name == "Running":
            cancel_run(run.id, self.app, by="smoke")
            run = self.until(run, lambda run: run.is_final)
        self.report.check("a cancelled run's task is stopped", run.state.name == "Cancelled", _told(run))

    def crashed(self) -> None:
        """A run whose command fails."""
        run = self.until(run_deployment(self.app, "bad").run, lambda run: run.is_final)
        is_told = run.state.name == "Failed" and run.state.exit_code == 3
        self.report.check("a command that exits 3 is Failed with its exit code", is_told, _told(run))

    # -- what is not known for sure

    def visible_after(self, run: FlowRun) -> None:
        """How soon ListTasks shows a task that RunTask has answered."""
        began = time.monotonic()
        while not self.tasks_of(run) and not self.tasks_of(run, desiredStatus="STOPPED"):
            if time.monotonic() - began > 60:
                self.report.answer("ListTasks(startedBy) shows a new task after", "more than 60 s")
                return
            time.sleep(0.2)
        self.report.answer("ListTasks(startedBy) shows a new task after", f"{time.monotonic() - began:.1f} s")

    def stopped_listing(self, run: FlowRun) -> None:
        """Whether ListTasks takes startedBy together with desiredStatus."""
        try:
            listed = self.tasks_of(run, desiredStatus="STOPPED")
        except ClientError as error:
            found = f"refused: {error}"
        else:
            found = f"accepted, {len(listed)} task(s) listed"
        self.report.answer("ListTasks(startedBy, desiredStatus=STOPPED) is", found)

    def events_told(self) -> None:
        """How late, and how often twice, ECS tells of a change."""
        versions = Counter((each["detail"]["taskArn"], each["detail"].get("version")) for _, each in self.told)
        twice = sum(count - 1 for count in versions.values())
        late = sorted(at - _seconds(each["time"]) for at, each in self.told)
        found = f"{len(late)} events, {twice} of them again"
        if late:
            found += f"; the middle one {late[len(late) // 2]:.1f} s, the last {late[-1]:.1f} s after its time"
        self.report.answer("ECS task events through EventBridge come", found)

    def refused_twice(self) -> None:
        """Whether `failures[]` of Fargate are kept under their clientToken.

        The same request twice does not tell: it may be refused again for itself. So the token comes a third time with
        a task that the account can run. A token that is bound answers ConflictException; one that is not starts it.
        """
        usable = next((run.job for run in self.app.store.runs(RunFilter()).runs if run.job), None)
        asked: dict[str, Any] = {}
        if usable is not None and isinstance(stored := usable.request.get("task_run_request"), dict):
            asked |= stored
        asked |= {"startedBy": self.name, "clientToken": secrets.token_hex(16)}
        too_much = {**asked, "overrides": {**asked.get("overrides", {}), **TOO_MUCH}}
        answers = [self._asked(request) for request in (too_much, too_much, asked)]
        first, again, other = answers
        if first[0] != "failures":
            found = "not answered, because 16 vCPUs were not refused by failures[]"
        elif "ConflictException" in other[1]:
            found = "bound" + (", and the same come again" if first == again else ", but another answer comes")
        else:
            found = "not bound" if other[0] == "task" else "not answered"
        told = " | ".join(f"{kind} {text}" for kind, text in answers)
        self.report.answer("failures[] and the clientToken of their RunTask are", f"{found} ({told})")

    def _asked(self, request: dict[str, Any]) -> tuple[str, str]:
        """Ask for a task, stop it if there is one, and return what kind of answer came, and its text."""
        try:
            answer = self.ecs.run_task(**request)
        except (ClientError, BotoCoreError) as error:
            return "error", str(error)
        if not answer["tasks"]:
            return "failures", ", ".join(str(each.get("reason")) for each in answer["failures"])
        for task in answer["tasks"]:
            self._stop_task(task["taskArn"])
        return "task", answer["tasks"][0]["taskArn"]

    def published(self) -> None:
        """What arrived on the bus."""
        names: Counter[str] = Counter()
        for _ in range(20):
            answer = self.sqs.receive_message(QueueUrl=self.urls["seen"], MaxNumberOfMessages=10, WaitTimeSeconds=1)
            messages = answer.get("Messages", [])
            for message in messages:
                names[json.loads(message["Body"])["detail"]["to"]["name"]] += 1
                self.sqs.delete_message(QueueUrl=self.urls["seen"], ReceiptHandle=message["ReceiptHandle"])
            if not messages:
                break
        ends = sum(names[name] for name in ("Completed", "Cancelled", "Failed", "Crashed"))
        self.report.check("every end is published", ends >= 4, json.dumps(names))


def _mark(run: FlowRun) -> str:
    return f"pp/{run.id}/1"


def _told(run: FlowRun) -> str:
    return f"{run.state.name}{' (' + run.state.message + ')' if run.state.message else ''}"


def _seconds(text: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(text).timestamp()


def arguments(words: list[str] | None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cluster", required=True, help="an ECS cluster that may run Fargate tasks")
    parser.add_argument("--subnets", required=True, help="its subnets, separated by commas")
    parser.add_argument("--execution-role-arn", required=True, help="a role that may pull the image and write logs")
    parser.add_argument("--image", default="public.ecr.aws/docker/library/busybox:stable")
    parser.add_argument("--public-ip", choices=["ENABLED", "DISABLED"], default="ENABLED")
    parser.add_argument("--seconds", type=float, default=600.0, help="how long one step may take")
    parser.add_argument("--tick-seconds", type=float, default=20.0, help="how often it ticks, and looks at tasks")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> int:
    """Try everything, delete what was made, and print a report; return 0 if everything holds."""
    report = Report()
    smoke = Smoke(arguments(words), report)
    try:
        with smoke.installed():
            smoke.deploy()
            for step in (smoke.one_run, smoke.duplicates, smoke.cancelled, smoke.crashed):
                step()
            for step in (smoke.refused_twice, smoke.events_told, smoke.published):
                step()
    except (ClientError, BotoCoreError, PushPoolsError) as error:
        report.check("the trial goes to its end", False, f"{type(error).__name__}: {error}")
    print(json.dumps({"good": report.is_good, "checks": report.checks, "answers": report.answers}, indent=2))
    return 0 if report.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
