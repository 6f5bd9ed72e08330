"""`push_pools.functions.submit_ecs` with shorter times."""

from tests.aws.shrunk import shrink

shrink()

from push_pools.functions.submit_ecs import handler  # noqa: E402 - after the times are set

__all__ = ["handler"]
