"""Doubles of the clouds in this process, taken for the real ones by `push-pools demo` and `dev --doubles`."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from push_pools.testing.ecs_double import EcsDouble, TaskPlan

JOB_SECONDS: Final = 3.0
"""How long a job on a double takes whose command does not say."""


@contextlib.contextmanager
def doubles() -> Iterator[None]:
    """Let this process take doubles for the clouds for a while; what is not installed has none."""
    with ecs_double(seconds=JOB_SECONDS):
        yield


@contextlib.contextmanager
def ecs_double(
    *, seconds: float, plan: Callable[[dict[str, Any]], TaskPlan | None] | None = None
) -> Iterator[EcsDouble]:
    """Run a double of ECS, in which every cluster is there, and let this process take it for AWS for a while."""
    from push_pools.testing.ec2_double import Ec2Double
    from push_pools.testing.ecs_double import Account, EcsDouble

    with (
        EcsDouble(plan=plan, default_seconds=seconds, rules=Account(has_every_cluster=True)) as ecs,
        Ec2Double() as ec2,
        _environment({"AWS_ENDPOINT_URL_EC2": ec2.endpoint, **_aws(ecs)}, without="AWS_"),
    ):
        yield ecs


def _aws(ecs: EcsDouble) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL_ECS": ecs.endpoint,
        "AWS_ACCESS_KEY_ID": "double",
        "AWS_SECRET_ACCESS_KEY": "double",
        "AWS_DEFAULT_REGION": ecs.region,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }


@contextlib.contextmanager
def _environment(values: dict[str, str], *, without: str) -> Iterator[None]:
    """Set environment variables for a while; others that begin with `without` are unset."""
    before = dict(os.environ)
    for name in before:
        if name.startswith(without):
            del os.environ[name]
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
