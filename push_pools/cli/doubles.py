"""Doubles of the clouds in this process, taken for the real ones by `push-pools demo` and `dev --doubles`."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from push_pools.testing.aci_double import AciDouble
    from push_pools.testing.cloud_run_double import CloudRunDouble
    from push_pools.testing.ecs_double import EcsDouble, TaskPlan

JOB_SECONDS: Final = 3.0
"""How long a job on a double takes whose command does not say."""
LOCAL: Final = {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}


class Doubles(NamedTuple):
    """The doubles that run; `None` stands for one whose library is not installed."""

    ecs: EcsDouble
    cloud_run: CloudRunDouble | None
    aci: AciDouble | None


@contextlib.contextmanager
def doubles(*, seconds: float = JOB_SECONDS) -> Iterator[Doubles]:
    """Let this process take doubles for the clouds for a while. A cloud whose library is not installed has none."""
    with contextlib.ExitStack() as stack:
        ecs = stack.enter_context(ecs_double(seconds=seconds))
        cloud_run = aci = None
        with contextlib.suppress(ModuleNotFoundError):
            cloud_run = stack.enter_context(_cloud_run_double(seconds))
        with contextlib.suppress(ModuleNotFoundError):
            aci = stack.enter_context(_aci_double(seconds))
        yield Doubles(ecs, cloud_run, aci)


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
        _environment({"AWS_ENDPOINT_URL_EC2": ec2.endpoint, **_aws(ecs)}, without=("AWS_",)),
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
        **LOCAL,
    }


@contextlib.contextmanager
def _cloud_run_double(seconds: float) -> Iterator[CloudRunDouble]:
    import push_pools.platforms.cloud_run  # noqa: F401 - it says what is missing
    from push_pools.testing.cloud_run_double import CloudRunDouble

    with CloudRunDouble(default_seconds=seconds) as cloud_run:
        values = {"PUSH_POOLS_CLOUD_RUN_ENDPOINT": cloud_run.endpoint, "GOOGLE_CLOUD_PROJECT": "double", **LOCAL}
        with _environment(values, without=("GOOGLE_",)):
            yield cloud_run


@contextlib.contextmanager
def _aci_double(seconds: float) -> Iterator[AciDouble]:
    import push_pools.platforms.aci  # noqa: F401 - it says what is missing
    from push_pools.testing.aci_double import AciDouble

    with AciDouble(default_seconds=seconds) as aci:
        values = {"PUSH_POOLS_AZURE_ENDPOINT": aci.endpoint, **LOCAL}
        with _environment(values, without=("AZURE_",)):
            yield aci


@contextlib.contextmanager
def _environment(values: dict[str, str], *, without: tuple[str, ...]) -> Iterator[None]:
    """Set environment variables for a while; others that begin so are unset, and all are put back."""
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
