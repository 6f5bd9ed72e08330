"""Secrets are planted, used, misused and looked at in every way; afterwards they are nowhere in clear."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

import pytest

from push_pools.bootstrap import embedded
from push_pools.domain.config import DeploymentSpec
from push_pools.domain.errors import PushPoolsError
from push_pools.ports import RunFilter
from push_pools.server.embedded import EmbeddedServer
from push_pools.services.blocks import create_block, inspect_block
from push_pools.services.catalogue import create_work_pool
from push_pools.services.deploy import put_deployment
from push_pools.services.explain import explain_run
from push_pools.services.preview import preview_deployment
from push_pools.services.runs import run_deployment
from push_pools.settings import Settings
from push_pools.testing.ecs_double import EcsDouble, Fault

if TYPE_CHECKING:
    from pathlib import Path

    from push_pools.bootstrap import Embedded

KEY, VALUE, REGISTRY = "CANARY-aws-secret-key", "CANARY-secret-value", "CANARY-registry-password"


@pytest.fixture
def everything_logged(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG)
    return caplog


def test_no_secret_is_anywhere_in_clear(
    tmp_path: Path, everything_logged: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ledger, logs, job directories, requests to the cloud, previews, stories, errors and listings."""
    shown: list[str] = []
    with EcsDouble() as ecs, embedded(Settings(home=tmp_path, sweep_seconds=0.2)) as opened:
        monkeypatch.setenv("AWS_ENDPOINT_URL_ECS", ecs.endpoint)
        plant(opened)
        ecs.faults.add("RunTask", Fault.access_denied())
        server = EmbeddedServer(opened)
        server.start()
        for name in ("clean", "clean", "leaks", "embeds", "local"):
            run_deployment(opened.app, name)
        assert server.run_until_idle(30)
        server.stop()
        shown += looked_at(opened)
        shown.append(json.dumps([str(call) for call in ecs.log]))
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "vault.key"]
    shown += [path.read_bytes().decode("latin-1") for path in files]
    shown += [str(record.__dict__) for record in everything_logged.records]
    text = "\n".join(shown)
    assert "SecretStr" not in text or "**********" in text
    assert "AKIDCANARY" in text  # What is no secret is there, so the search looks in the right places.
    for canary in (KEY, VALUE, REGISTRY):
        assert canary not in text


def plant(opened: Embedded) -> None:
    app = opened.app
    keys = {"aws_access_key_id": "AKIDCANARY", "aws_secret_access_key": KEY, "region_name": "eu-west-1"}
    create_block(app, "aws-credentials", "prod", keys)
    create_block(app, "secret", "token", {"value": VALUE})
    create_block(
        app, "docker-registry-credentials", "hub", {"username": "u", "password": REGISTRY, "registry_url": "r.example"}
    )
    variables = {
        "image": "acme/report:1",
        "aws_credentials": "{{ blocks.aws-credentials.prod }}",
        "execution_role_arn": "arn:aws:iam::123456789012:role/run",
        "network_configuration": {"awsvpcConfiguration": {"subnets": ["subnet-1"]}},
    }
    create_work_pool(app, "ecs", "ecs:push", variables=variables)
    create_work_pool(app, "local", "process")
    for name, pool, command, env in (
        ("clean", "ecs", "true", {}),
        ("leaks", "ecs", "true", {"TOKEN": "{{ blocks.secret.token }}"}),
        ("embeds", "ecs", "echo {{ blocks.docker-registry-credentials.hub.password }}", {}),
        ("local", "local", "env", {"TOKEN": "{{ blocks.secret.token.value }}"}),
    ):
        spec = {"name": name, "command": command, "work_pool": {"name": pool, "job_variables": {"env": env}}}
        put_deployment(app, DeploymentSpec.model_validate(spec))


def looked_at(opened: Embedded) -> list[str]:
    """Return what a user can have shown."""
    app = opened.app
    shown = [json.dumps(inspect_block(app, ref)) for ref in ("aws-credentials/prod", "secret/token")]
    runs = app.store.runs(RunFilter()).runs
    assert {run.deployment: run.state.name for run in runs}["leaks/leaks"] == "Crashed"
    for run in runs:
        shown += [run.model_dump_json(), json.dumps(run.as_listed(), default=str), repr(run)]
        shown += [str(explain_run(run, app.clock.now()))]
    for name in ("clean", "leaks", "embeds", "local"):
        try:
            shown.append(str(preview_deployment(app, name)))
        except PushPoolsError as error:
            shown += [str(error), repr(error)]
    return shown
