"""The project's handlers with shorter times: what takes a minute on AWS takes a second here.

A module of its own per function, as the handlers are: `tests.aws.shrunk_submit_ecs.handler` and so on.
"""

from __future__ import annotations

import functools
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from push_pools import bootstrap
from push_pools.domain import transitions
from push_pools.domain.records import Timing
from push_pools.functions import messages, runtime

if TYPE_CHECKING:
    from datetime import datetime

    from push_pools.domain.runs import FlowRun

TIMING: Final = Timing(
    function_seconds=4.0,
    call_seconds=1.5,
    claim_margin_seconds=1.0,
    spare_seconds=0.3,
    settle_seconds=1.0,
    overdue_seconds=1.0,
    call_backoff_seconds=0.3,
    list_lag_seconds=1.0,
)


def hinted(run: FlowRun, now: datetime) -> FlowRun:
    """Put the next hint off by seconds where the service does by minutes."""
    return run.evolve(hints=run.hints + 1, wake_at=now + timedelta(seconds=min(2 ** (run.hints + 1), 10)))


def shrink() -> None:
    """Make the handlers of this process work on these times."""
    vars(runtime)["open_aws"] = functools.partial(bootstrap.open_aws, timing=TIMING)
    vars(transitions)["hinted"] = hinted
    runtime.ANSWER_SECONDS = 0.3  # type: ignore[misc]
    messages.LEAST_SECONDS = 0.3  # type: ignore[misc]
