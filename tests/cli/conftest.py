"""A home for each test, and the command on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cli.runner import Cli

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = """\
work_pools:
  - name: local
    type: process
    work_queues: [{name: urgent}, {name: default}]
deployments:
  - name: hello
    flow_name: greet
    command: [sh, -c, 'echo "hello $PUSH_POOLS_PARAMETERS"']
    parameters: {who: world}
    tags: [demo]
    work_pool: {name: local}
  - name: bad
    command: [sh, -c, "echo one; echo two; exit 3"]
    work_pool: {name: local}
  - name: slow
    command: sleep 30
    work_pool: {name: local, job_variables: {grace_seconds: 1}}
"""


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """The command on an empty home."""
    return Cli(tmp_path / "home")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A config file of three deployments in a local pool."""
    file = tmp_path / "push-pools.yaml"
    file.write_text(CONFIG)
    return file


@pytest.fixture
def deployed(cli: Cli, config: Path) -> Cli:
    """The command on a home with `greet/hello`, `bad/bad` and `slow/slow`."""
    cli.ok("deploy", config)
    return cli
