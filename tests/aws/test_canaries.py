"""Secrets are planted in an installation on AWS, used, misused and looked at; afterwards they are nowhere in clear.

Looked through are: every item of the table with its body unpacked, every request that this process sent to any service
of AWS with its headers, every message and every published event, what the handlers log on the real runtime client, and
what a user can have shown.
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any, cast

import pytest
from botocore.httpsession import URLLib3Session

from push_pools.domain.config import DeploymentSpec
from push_pools.domain.errors import PushPoolsError
from push_pools.functions import admin
from push_pools.ports import RunFilter
from push_pools.services.blocks import inspect_block
from push_pools.services.catalogue import create_work_pool
from push_pools.services.deploy import put_deployment
from push_pools.services.explain import explain_run
from push_pools.services.preview import preview_deployment
from push_pools.services.runs import run_deployment
from push_pools.stores.dynamodb_items import unpack
from push_pools.testing.ecs_double import EcsDouble, Fault
from tests.aws.event_source import Mapping
from tests.aws.installation import ECS_VARIABLES, Installation, install
from tests.aws.runtime_api import Environment
from tests.functions.context import Context
from tests.functions.hosts import use
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from push_pools.ports import App
    from tests.aws.ministack import Ministack

KEY, SESSION, VALUE = "CANARY-aws-secret-key", "CANARY-session-token", "CANARY-secret-value"
NAMES = ("clean", "denied", "leaks", "embeds")


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return what this process sends to AWS from here on: addresses, headers and bodies."""
    sent: list[str] = []
    send = URLLib3Session.send

    def noted(session: Any, request: Any) -> Any:
        body = request.body
        text = body.decode("latin-1") if isinstance(body, bytes | bytearray) else str(body)
        sent.append(f"{request.url} {dict(request.headers)} {text}")
        return send(session, request)

    monkeypatch.setattr(URLLib3Session, "send", noted)
    return sent


@pytest.fixture
def ecs() -> Iterator[EcsDouble]:
    with EcsDouble() as double:
        yield double


def test_no_secret_is_anywhere_in_clear(
    ministack: Ministack,
    ecs: EcsDouble,
    sent: list[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A pool uses a block with keys; other deployments put a secret where it may not go; one call is refused."""
    caplog.set_level(logging.DEBUG)
    at = install(ministack, ecs)
    app = at.open(monkeypatch)
    plant(app, monkeypatch)
    shown = run_all(app, at, ecs)
    shown += looked_at(app)
    shown += items(ministack, at)
    shown += [json.dumps(at.published()), *messages(at)]
    shown += [str(call) for call in ecs.log]
    shown += [str(record.__dict__) for record in caplog.records]
    shown += capsys.readouterr()
    text = "\n".join([*shown, *sent])
    # What is no secret is there, so the search looks in the right places.
    for visible in ("AKIDCANARY", "job_submitted", "admin_refused", "RunTask", "kms.", "ppk1."):
        assert visible in text, visible
    for canary in (KEY, VALUE):
        assert canary not in text
    # ECS is called with the token, which is a header of each request; it is nowhere else.
    assert SESSION not in "\n".join(shown)


def plant(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make blocks by the function that Terraform calls, wrong ones too, and pools and deployments that use them."""
    use(monkeypatch, admin, app)
    keys = {"aws_access_key_id": "AKIDCANARY", "aws_secret_access_key": KEY, "aws_session_token": SESSION}
    assert "version" in put_block("aws-credentials/prod", {**keys, "region_name": "eu-west-1"})
    assert "version" in put_block("secret/token", {"value": VALUE})
    assert "error" in put_block("aws-credentials/bad", {**keys, "region_name": ["eu-west-1"]})
    assert "error" in put_block("secret/bad", {"value": [VALUE]})
    assert "error" in put_block("secret/bad", {"valeu": VALUE})
    variables = {**ECS_VARIABLES, "aws_credentials": "{{ blocks.aws-credentials.prod }}"}
    create_work_pool(app, "ecs", "ecs:push", variables=variables)
    for name, command, env in (
        ("clean", "true", {}),
        ("denied", "true", {}),
        ("leaks", "true", {"TOKEN": "{{ blocks.secret.token }}"}),
        ("embeds", "echo {{ blocks.secret.token.value }}", {}),
    ):
        pool = {"name": "ecs", "job_variables": {"env": env}}
        spec = {"name": name, "command": command, "work_pool": pool, "retries": {"attempts": 1}}
        put_deployment(app, DeploymentSpec.model_validate(spec))


def put_block(name: str, spec: dict[str, Any]) -> dict[str, Any]:
    request = {"version": 1, "action": "put", "kind": "block", "name": name, "spec": spec}
    return admin.handler(request, cast("Any", Context(function_name="admin")))


def run_all(app: App, at: Installation, ecs: EcsDouble) -> list[str]:
    """Run every deployment to its end on the real runtime client, and return its log."""
    log: list[str] = []
    environ = {**at.environ, "POWERTOOLS_LOG_LEVEL": "DEBUG"}
    with (
        Environment("push_pools.functions.submit_ecs.handler", environ, timeout_seconds=60.0) as submit,
        Environment("push_pools.functions.poll_ecs.handler", environ, timeout_seconds=60.0) as poll,
        Environment("push_pools.functions.schedule.handler", environ, timeout_seconds=60.0) as schedule,
    ):
        feeds = [
            (Mapping(at.sqs, at.urls[name], at.arns[name], [environment]), environment)
            for name, environment in (("submit-ecs", submit), ("poll-ecs", poll))
        ]

        def over() -> bool:
            log.extend(schedule.invoke({}).log)
            for feed, environment in feeds:
                while (result := feed.once(environment, wait_seconds=0)) is not None:
                    log.extend(result.log)
            return all(run.is_final for run in app.store.runs(RunFilter()).runs)

        for name in NAMES:
            if name == "denied":
                ecs.faults.add("RunTask", Fault.access_denied())
            run_deployment(app, name)
            until(over)
    states = {str(run.deployment): run.state.name for run in app.store.runs(RunFilter()).runs}
    assert states == {
        "clean/clean": "Completed",
        "denied/denied": "Crashed",
        "leaks/leaks": "Crashed",
        "embeds/embeds": "Crashed",
    }
    return log


def looked_at(app: App) -> list[str]:
    """Return what a user can have shown."""
    shown = [json.dumps(inspect_block(app, ref)) for ref in ("aws-credentials/prod", "secret/token")]
    for run in app.store.runs(RunFilter()).runs:
        shown += [run.model_dump_json(), json.dumps(run.as_listed(), default=str), repr(run)]
        shown.append(str(explain_run(run, app.clock.now())))
    for name in NAMES:
        try:
            shown.append(str(preview_deployment(app, name)))
        except PushPoolsError as error:
            shown += [str(error), repr(error)]
    return shown


def items(ministack: Ministack, at: Installation) -> list[str]:
    """Return every item of the table, its body unpacked."""
    client = ministack.client("dynamodb")
    try:
        found = client.scan(TableName=at.environ["PUSH_POOLS_AWS_TABLE"])
        assert "LastEvaluatedKey" not in found
    finally:
        client.close()
    texts = [str(item) for item in found["Items"]]
    texts += [unpack(item["body"]["B"]) for item in found["Items"] if "body" in item]
    return texts


def messages(at: Installation) -> list[str]:
    """Return what is left in the queues, the dead letters among it."""
    return [
        json.dumps(message, default=str)
        for url in at.urls.values()
        for message in at.sqs.receive_message(
            QueueUrl=url, MaxNumberOfMessages=10, MessageAttributeNames=["All"], MessageSystemAttributeNames=["All"]
        ).get("Messages", [])
    ]
