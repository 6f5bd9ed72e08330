"""Lives in a plan: what it says is made on stand-ins of AWS, and its functions run from their bundle.

Tables, queues, buses and rules are made on ministack as they are planned; the functions run on Lambda's own runtime
client with the planned handler, environment and time-out, and see nothing but the bundle and what Lambda brings. A tick
invokes what the schedule names, and mappings feed the function that they name from the queue that they name.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import boto3

from push_pools.bootstrap import open_aws
from push_pools.settings import Settings
from tests.aws.event_source import Mapping
from tests.aws.runtime_api import Environment
from tests.terraform.plan import ACCOUNT, Plan

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    import pytest

    from push_pools.ports import App
    from tests.aws.ministack import Ministack
    from tests.aws.runtime_api import Result

BRINGS: Final = (
    *("boto3", "botocore", "s3transfer", "urllib3", "six.py", "jmespath", "dateutil"),
    *("awslambdaric", "snapshot_restore_py.py", "simplejson"),
)
"""What Lambda's Python has besides the bundle: its SDK and its runtime client."""
RECORDED: Final = Path(__file__).resolve().parents[1] / "aws" / "recorded.py"
_accounts = itertools.count(int(ACCOUNT) + 1)


def unpacked(bundle: Path, folder: Path) -> Path:
    """Unpack a bundle beside what Lambda brings; return the bundle's folder."""
    with zipfile.ZipFile(bundle) as archive:
        archive.extractall(folder / "task")
    brings = folder / "runtime"
    brings.mkdir()
    site = Path(boto3.__file__).parent.parent
    native = [path.name for path in site.glob("runtime_client.*.so")]
    for name in (*BRINGS, *native):
        (brings / name).symlink_to(site / name)
    return folder / "task"


def another_account() -> str:
    """Return the number of an account that nobody has used: what is in it is seen by nobody else."""
    return str(next(_accounts))


class Living:
    """An installation that was made from a plan; `task` is the folder of the unpacked bundle.

    `settings` are more of the functions' settings: those that `var.settings` would give.
    """

    def __init__(
        self,
        plan: Plan,
        ministack: Ministack,
        task: Path,
        *,
        account: str = ACCOUNT,
        settings: dict[str, str] | None = None,
        **endpoints: str,
    ) -> None:
        self._task, self._ministack, self.account = task, ministack, account
        self._endpoints = {f"AWS_ENDPOINT_URL_{name.upper()}": url for name, url in endpoints.items()}
        self._settings = settings or {}
        self._environments: dict[str, Environment] = {}
        self._calls = task.parent / f"calls-{account}"
        key = self.client("kms").create_key()["KeyMetadata"]["KeyId"]
        self.plan = plan.renamed(account=account, key=f"key/{key}")
        self.sqs = self.client("sqs")
        self.urls: dict[str, str] = {}

    def __enter__(self) -> Self:
        shutil.rmtree(self._calls, ignore_errors=True)
        self._calls.mkdir()
        self._make_table(self.plan.one("aws_dynamodb_table.ledger"))
        # Dead letters first: a queue names those that it has.
        for arn, queue in sorted(self.plan.queues.items(), key=lambda each: "redrive_policy" in each[1]):
            self.urls[arn] = self._make_queue(arn, queue)
        self._make_events()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for environment in self._environments.values():
            environment.close()

    def client(self, service: str) -> Any:
        """Return a client of whoever installs."""
        make: Callable[..., Any] = boto3.client
        return make(
            service,
            endpoint_url=self._ministack.endpoint,
            region_name="eu-west-1",
            aws_access_key_id=self.account,
            aws_secret_access_key="test",
        )

    # -- what is made

    def _make_table(self, planned: dict[str, Any]) -> None:
        indexes = [
            {
                "IndexName": each["name"],
                "KeySchema": _keys(each),
                "Projection": {
                    "ProjectionType": each["projection_type"],
                    **({"NonKeyAttributes": each["non_key_attributes"]} if "non_key_attributes" in each else {}),
                },
            }
            for each in planned["global_secondary_index"]
        ]
        self.client("dynamodb").create_table(
            TableName=planned["name"],
            BillingMode=planned["billing_mode"],
            AttributeDefinitions=[
                {"AttributeName": each["name"], "AttributeType": each["type"]} for each in planned["attribute"]
            ],
            KeySchema=_keys(planned),
            GlobalSecondaryIndexes=indexes,
        )

    def _make_queue(self, arn: str, planned: dict[str, Any]) -> str:
        attributes = {
            "VisibilityTimeout": str(planned.get("visibility_timeout_seconds", 30)),
            "MessageRetentionPeriod": str(planned["message_retention_seconds"]),
        }
        if "redrive_policy" in planned:
            attributes["RedrivePolicy"] = json.dumps(planned["redrive_policy"])
        url: str = self.sqs.create_queue(QueueName=planned["name"], Attributes=attributes)["QueueUrl"]
        found = self.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        assert found == arn, f"the plan takes {planned['name']} for {arn}, and it is {found}"
        return url

    def _make_events(self) -> None:
        events = self.client("events")
        for bus in self.plan.listed("aws_cloudwatch_event_bus"):
            events.create_event_bus(Name=bus["name"])
        for rule in self.plan.listed("aws_cloudwatch_event_rule"):
            events.put_rule(Name=rule["name"], EventPattern=json.dumps(rule["event_pattern"]))
        for target in self.plan.listed("aws_cloudwatch_event_target"):
            made = {"Id": target["target_id"], "Arn": target["arn"]}
            assert not events.put_targets(Rule=target["rule"], Targets=[made])["FailedEntryCount"]

    # -- what happens

    def function(self, name: str) -> Environment:
        """Return the environment of a function, started when it is first invoked."""
        if name not in self._environments:
            planned = self.plan.functions[name]
            environ = {
                **{each: value for each, value in os.environ.items() if not each.startswith(("AWS_", "PUSH_POOLS_"))},
                **self._identity(self.account),
                **self.plan.environ(name),
                **self._settings,
                "PYTHONPATH": os.pathsep.join([str(self._task), str(self._task.parent / "runtime")]),
                "CALLS_FILE": str(self._calls / name),
            }
            self._environments[name] = Environment(
                planned["handler"],
                environ,
                timeout_seconds=float(planned["timeout"]),
                name=planned["function_name"],
                root=self._task,
                command=(sys.executable, "-S", "-P", str(RECORDED)),
            )
        return self._environments[name]

    def tick(self) -> Result:
        """Invoke what the schedule names."""
        (schedule,) = self.plan.listed("aws_scheduler_schedule")
        return self.function(self.plan.function_of(schedule["target"][0]["arn"])).invoke({})

    def tell(self, event: dict[str, Any]) -> list[str]:
        """Deliver an event of AWS as the rules on the default bus have it; return the names of the queues it went to.

        The stand-in takes no events in AWS's own name, as AWS does not; it says which rules would let one through.
        """
        events, reached = self.client("events"), []
        for rule in events.list_rules()["Rules"]:
            pattern = rule["EventPattern"]
            if events.test_event_pattern(EventPattern=pattern, Event=json.dumps(event, default=str))["Result"]:
                for target in events.list_targets_by_rule(Rule=rule["Name"])["Targets"]:
                    body = json.dumps(event, default=str)
                    self.sqs.send_message(QueueUrl=self.urls[target["Arn"]], MessageBody=body)
                    reached.append(target["Arn"].rpartition(":")[2])
        return reached

    def feed(self, name: str, *, wait_seconds: int = 0) -> Result | None:
        """Give a function what its mapping's queue holds now; `None` when that is nothing."""
        mapping = self.plan.mappings[name]
        arn = mapping["event_source_arn"]
        environment = self.function(self.plan.function_of(mapping["function_name"]))
        source = Mapping(self.sqs, self.urls[arn], arn, [environment], batch=mapping["batch_size"])
        return source.once(environment, wait_seconds=wait_seconds)

    def depth(self, queue: str) -> int:
        """How many messages a queue holds, visible or not; it is called as the code calls it."""
        (url,) = (each for each in self.urls.values() if each.endswith(f"-{queue}"))
        found = self.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
        kinds = ("", "NotVisible", "Delayed")
        return sum(int(found.get(f"ApproximateNumberOfMessages{kind}", 0)) for kind in kinds)

    def calls(self, name: str) -> list[dict[str, Any]]:
        """Return what a function asked of AWS as itself, in order."""
        file = self._calls / name
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        return [call for call in map(json.loads, lines) if call["as"] == self.account]

    def open(self, monkeypatch: pytest.MonkeyPatch) -> App:
        """Open it as the command line would that was given the output `cli`."""
        lines = [line.removeprefix("export ").partition("=") for line in self.plan.outputs["cli"].splitlines()]
        given = {name: value.strip("'") for name, _, value in lines}
        for name, value in {**self._identity(self.account), **given}.items():
            monkeypatch.setenv(name, value)
        ours = {name: value for name, value in given.items() if name.startswith("PUSH_POOLS_")}
        return open_aws(Settings.from_environ(ours), acting=())

    def _identity(self, access_key: str) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self._ministack.endpoint,
            **self._endpoints,
            "AWS_ACCESS_KEY_ID": access_key,
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "eu-west-1",
            "AWS_DEFAULT_REGION": "eu-west-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }


def _keys(planned: dict[str, Any]) -> list[dict[str, str]]:
    return [
        {"AttributeName": planned["hash_key"], "KeyType": "HASH"},
        {"AttributeName": planned["range_key"], "KeyType": "RANGE"},
    ]
