"""An installation of the AWS hosting on this machine: table, queues, bus and key on ministack, ECS as its double."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from push_pools.bootstrap import open_aws
from push_pools.settings import Settings
from push_pools.stores.dynamodb_table import create_table

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    import pytest

    from push_pools.ports import App
    from push_pools.testing.ecs_double import EcsDouble
    from tests.aws.ministack import Ministack

QUEUES: Final = ("submit-ecs", "poll-ecs")
ECS_VARIABLES: Final[dict[str, Any]] = {
    "image": "acme/report:1",
    "execution_role_arn": "arn:aws:iam::123456789012:role/run",
    "network_configuration": {"awsvpcConfiguration": {"subnets": ["subnet-1"]}},
}
_serial = itertools.count(1)


@dataclass
class Installation:
    """What was made, by name; `environ` leads processes and commands to it."""

    environ: Mapping[str, str]
    sqs: Any
    prefix: str
    urls: Mapping[str, str]
    arns: Mapping[str, str]
    seen: str
    """URL of a queue that gets what is published."""

    @property
    def settings(self) -> Settings:
        return Settings.from_environ(self.environ)

    def open(self, monkeypatch: pytest.MonkeyPatch, acting: Collection[str] = ()) -> App:
        """Open it in this process."""
        for name, value in self.environ.items():
            monkeypatch.setenv(name, value)
        return open_aws(self.settings, acting=acting)

    def published(self, limit: int = 1000) -> list[dict[str, Any]]:
        """Take what was published so far."""
        found: list[dict[str, Any]] = []
        while len(found) < limit:
            messages = self.sqs.receive_message(QueueUrl=self.seen, MaxNumberOfMessages=10).get("Messages", [])
            if not messages:
                break
            for message in messages:
                self.sqs.delete_message(QueueUrl=self.seen, ReceiptHandle=message["ReceiptHandle"])
                found.append(json.loads(message["Body"]))
        return found

    def depth(self, name: str) -> int:
        """How many messages a queue holds, visible or not."""
        attributes = self.sqs.get_queue_attributes(QueueUrl=self.urls[name], AttributeNames=["All"])["Attributes"]
        return sum(
            int(attributes.get(f"ApproximateNumberOfMessages{kind}", 0)) for kind in ("", "NotVisible", "Delayed")
        )


def install(
    ministack: Ministack,
    ecs: EcsDouble | None = None,
    *,
    visibility_seconds: int = 5,
    max_receives: int = 20,
    more_queues: Collection[str] = (),
) -> Installation:
    """Make an installation with names of its own."""
    number = next(_serial)
    prefix, table, bus = f"pp{number}-", f"ledger-{number}", f"bus-{number}"
    sqs, events, kms = ministack.client("sqs"), ministack.client("events"), ministack.client("kms")
    create_table(ministack.client("dynamodb"), table)
    urls, arns = {}, {}

    def make(name: str, **attributes: str) -> None:
        urls[name] = sqs.create_queue(QueueName=f"{prefix}{name}", Attributes=attributes)["QueueUrl"]
        answer = sqs.get_queue_attributes(QueueUrl=urls[name], AttributeNames=["QueueArn"])
        arns[name] = answer["Attributes"]["QueueArn"]

    make("dead-letters")
    redrive = json.dumps({"deadLetterTargetArn": arns["dead-letters"], "maxReceiveCount": max_receives})
    for name in (*QUEUES, *more_queues):
        make(name, VisibilityTimeout=str(visibility_seconds), RedrivePolicy=redrive)
    make("seen")
    events.create_event_bus(Name=bus)
    events.put_rule(Name="all", EventBusName=bus, EventPattern=json.dumps({"source": ["push-pools"]}))
    events.put_targets(Rule="all", EventBusName=bus, Targets=[{"Id": "1", "Arn": arns["seen"]}])
    key = kms.create_key()["KeyMetadata"]["KeyId"]
    environ = {
        **ministack.environ,
        "PUSH_POOLS_AWS_TABLE": table,
        "PUSH_POOLS_AWS_QUEUE_PREFIX": prefix,
        "PUSH_POOLS_AWS_BUS": bus,
        "PUSH_POOLS_AWS_KMS_KEY": key,
    }
    if ecs is not None:
        environ["AWS_ENDPOINT_URL_ECS"] = ecs.endpoint
    return Installation(environ, sqs, prefix, urls, arns, urls["seen"])
