"""The figures of the AWS handlers: what a cold start costs, and how many runs a second of CPU submits."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
ROUNDS = 31
RUNS = 300
IDENTITY = {
    "AWS_REGION": "eu-west-1",
    "AWS_DEFAULT_REGION": "eu-west-1",
    "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "not-a-secret",
    "AWS_LAMBDA_FUNCTION_NAME": "bench",
}
TOY = """
import boto3
from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.utilities.batch import BasePartialBatchProcessor, EventType, process_partial_response
from pydantic import BaseModel
class Message(BaseModel):
    run_id: str
log, metrics = Logger(service="toy"), Metrics(namespace="toy", service="toy")
clients = [boto3.client(name) for name in ("dynamodb", "sqs", "ecs")]
"""
OURS = """
import push_pools.functions.messages  # First, as in every handler: powertools loads more where pydantic is already.
import push_pools.queues.eventbridge, push_pools.stores.dynamodb, push_pools.vault.kms
from push_pools.credentials.aws import AwsCredentials
identity = AwsCredentials()
clients = [identity.client(name, retries=name != "dynamodb") for name in ("dynamodb", "sqs", "ecs")]
import push_pools.functions.submit_ecs  # Last, as in Lambda, where it opens the rest while it is loaded.
"""
FIRST = "import time\ntime.process_time()\n"
LAST = "\nprint(time.process_time())"

Row = tuple[str, str, str, bool]


def cold_start() -> Iterator[Row]:
    """The CPU that loading `submit_ecs` takes, against a handler that does nothing with the same libraries."""
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"} | IDENTITY
    took: dict[str, list[float]] = {TOY: [], OURS: []}
    for number in range(ROUNDS + 1):
        for code, seconds in took.items():
            ran = subprocess.run(
                [sys.executable, "-c", FIRST + code + LAST], env=environ, cwd=ROOT, capture_output=True, check=True
            )
            if number:  # The first round writes the bytecode, which a bundle brings along.
                seconds.append(float(ran.stdout))
    # Each start against the one beside it: the machine's own pace drifts by more than what is measured.
    ratio = statistics.median(ours / toy for ours, toy in zip(took[OURS], took[TOY], strict=True))
    yield "init CPU of submit_ecs ÷ a toy with the same libraries and clients", f"{ratio:.2f}", "≤ 1.15", ratio <= 1.15


def submit_rate() -> Iterator[Row]:
    """Runs that one environment of `submit_ecs` submits per second of its CPU; DynamoDB, SQS and ECS are stand-ins."""
    sys.path.insert(0, str(ROOT))
    from push_pools.bootstrap import open_aws
    from push_pools.domain.config import DeploymentSpec
    from push_pools.services.catalogue import create_work_pool
    from push_pools.services.deploy import put_deployment
    from push_pools.testing.ecs_double import EcsDouble
    from tests.aws.event_source import Mapping
    from tests.aws.installation import ECS_VARIABLES, install
    from tests.aws.ministack import Ministack
    from tests.aws.runtime_api import Environment

    with Ministack() as ministack, EcsDouble(default_seconds=3600) as ecs:
        at = install(ministack, ecs, visibility_seconds=120)
        os.environ |= at.environ
        app = open_aws(at.settings)
        create_work_pool(app, "ecs", "ecs:push", variables=ECS_VARIABLES)
        spec = {"name": "task", "command": "true", "work_pool": {"name": "ecs"}}
        put_deployment(app, DeploymentSpec.model_validate(spec))
        event = '{"version":1,"type":"scheduled-run","deployment":"task","idempotency_key":"%s"}'
        with Environment("push_pools.functions.submit_ecs.handler", at.environ, timeout_seconds=60.0) as submit:
            feed = Mapping(at.sqs, at.urls["submit-ecs"], at.arns["submit-ecs"], [submit])
            for first, count in ((0, 20), (20, RUNS)):  # The first batches load what is loaded once.
                for number in range(first, first + count):
                    at.sqs.send_message(QueueUrl=at.urls["submit-ecs"], MessageBody=event % number)
                spent, end = submit.cpu_seconds(), time.monotonic() + 300
                while len(ecs.started) < first + count and time.monotonic() < end:
                    feed.once(submit, wait_seconds=0)
            rate = RUNS / (submit.cpu_seconds() - spent)
        good = len(ecs.started) == ecs.calls["RunTask"] == RUNS + 20
    yield "runs submitted per second of CPU of submit_ecs", f"{rate:.0f}", "stated", good
