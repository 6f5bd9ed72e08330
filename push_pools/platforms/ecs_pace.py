"""How fast ECS is asked: below the quotas of RunTask and RegisterTaskDefinition ("Service quotas", developer guide)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from push_pools.domain.errors import Pacing
from push_pools.domain.pace import Pace, Rate
from push_pools.platforms.ecs_errors import TYPE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from push_pools.platforms.ecs_config import EcsJobConfiguration
    from push_pools.ports import Clock, Memo

RUN_TASK_PER_SECOND: Final = 20.0
RUN_TASK_BURST: Final = 20
"""As AWS gives them for Fargate: 20 calls at once, and 20 a second."""
REGISTER_PER_SECOND: Final = 1.0
REGISTER_BURST: Final = 20
ONE_AT_A_TIME: Final = Rate(1.0)
"""How often the same definition is registered while nobody has remembered its ARN."""

_ARN: Final = re.compile(r"arn:[a-z0-9-]+:[a-z0-9-]+:[a-z0-9-]*:(\d{12}):")


class Paces:
    """The rates of an installation, from its settings."""

    def __init__(self, settings: Mapping[str, str], real_clock: Clock) -> None:
        run, register = settings.get("ecs_run_task_per_second"), settings.get("ecs_register_per_second")
        self._run = _rate(float(run or RUN_TASK_PER_SECOND), RUN_TASK_PER_SECOND, RUN_TASK_BURST)
        self._register = _rate(float(register or REGISTER_PER_SECOND), REGISTER_PER_SECOND, REGISTER_BURST)
        self._real_clock = real_clock

    def of_run_task(self, where: str) -> Pace:
        """Return the pace of RunTask in an account and region."""
        return Pace(f"ecs/RunTask/{where}", self._run)

    def registering(self, register: Callable[[], str], memo: Memo, where: str, definition: str) -> Callable[[], str]:
        """Return `register`, which first waits for nothing but raises `Pacing` while it is not its turn.

        Of processes that meet a new `definition` at once one registers it, and the others find it a second later:
        ECS would refuse most of them ("Too many concurrent attempts"), and give the others revisions that nobody uses.
        """

        def paced() -> str:
            now = self._real_clock.now()
            free_at = memo.pace(f"ecs/RegisterTaskDefinition/{definition}", ONE_AT_A_TIME, now)
            if free_at > now:
                raise Pacing(TYPE, "another process registers the task definition", free_at=free_at)
            free_at = memo.pace(f"ecs/RegisterTaskDefinition/{where}", self._register, now)
            if free_at > now:
                per_second = f"{self._register.per_second:g}"
                raise Pacing(TYPE, f"task definitions are registered at {per_second} a second", free_at=free_at)
            return register()

        return paced


def account_of(job: EcsJobConfiguration) -> str | None:
    """Return the account that a job names in some ARN; the quotas are the account's, whichever block is used."""
    definition, request = job.task_definition, job.task_run_request
    named: tuple[Any, ...] = (
        request.get("taskDefinition"),
        request.get("cluster"),
        job.cluster,
        definition.get("executionRoleArn"),
        job.execution_role_arn,
        definition.get("taskRoleArn"),
    )
    found = (_ARN.match(str(arn)) for arn in named if arn)
    return next((match[1] for match in found if match), None)


def _rate(per_second: float, usual: float, burst: int) -> Rate:
    # A bucket grows with the quota that fills it.
    return Rate(per_second, max(int(burst * per_second / usual), 1))
