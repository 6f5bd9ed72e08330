"""Doubles of the clouds, taken for the real ones by `push-pools demo` and `push-pools dev --doubles`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from push_pools.cli.doubles import _environment, doubles

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from tests.cli.runner import Cli

CLUSTERS = """
work_pools:
  - {name: fargate, type: "ecs:push", variables: {image: a, cluster: of-mine}}
deployments:
  - {name: report, command: sleep 0.2, work_pool: {name: fargate}}
"""


def test_the_environment_is_as_it_was_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "mine")
    before = dict(os.environ)

    with _environment({"AWS_DEFAULT_REGION": "us-east-1"}, without=("AWS_",)):
        assert "AWS_PROFILE" not in os.environ
        assert os.environ["AWS_DEFAULT_REGION"] == "us-east-1"
    assert dict(os.environ) == before

    with doubles():
        assert os.environ["AWS_ENDPOINT_URL_ECS"].startswith("http://127.0.0.1:")
    assert dict(os.environ) == before


def test_dev_sends_the_jobs_of_clouds_to_doubles(cli: Cli, tmp_path: Path) -> None:
    """Any cluster a pool names is there."""
    (tmp_path / "push-pools.yaml").write_text(CLUSTERS)
    cli.ok("deploy", str(tmp_path / "push-pools.yaml"))
    cli.ok("deployment", "run", "report", "--flow-run-name", "first")

    cli.ok("dev", "--doubles", "--until-idle", "--for", "60s")

    assert "Completed" in cli.ok("flow-run", "ls").out


def test_simulated_time_needs_no_doubles(cli: Cli) -> None:
    ran = cli("dev", "--doubles", "--speed", "3600")

    assert ran.code == 2
    assert "--doubles goes with a server; in simulated time no job is sent anywhere" in ran.err
