"""What all tests share: an environment without the developer's own settings, and none of their credentials."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.aws.ministack import Ministack

settings.register_profile("untimed", deadline=None)  # How long an example takes says something of the machine only.
settings.load_profile("untimed")
DROPPED = ("PUSH_POOLS_", "AWS_", "XDG_", "NO_COLOR", "FORCE_COLOR")
KEPT = ("PUSH_POOLS_PREFECT_VENV", "PUSH_POOLS_MINISTACK_VENV")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(DROPPED) and name not in KEPT:
            monkeypatch.delenv(name)


@pytest.fixture
def aws_environ() -> dict[str, str]:
    """Return this environment with an identity that only a double accepts."""
    return {
        **os.environ,
        "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "not-a-secret",
        "AWS_REGION": "eu-west-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


@pytest.fixture(scope="session")
def ministack() -> Iterator[Ministack]:
    """Return a local stand-in for DynamoDB, SQS, EventBridge and KMS, the same for all tests of this process."""
    from tests.aws.ministack import Ministack

    with Ministack() as server:
        yield server
