"""What would be sent: the exact request of a deployment's next run, and where each value comes from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from push_pools.domain.events import ScheduledRun
from push_pools.domain.job_variables import explain_job_variables
from push_pools.services.catalogue import find_deployment, get_work_pool
from push_pools.services.render import policy_of, render_run
from push_pools.services.schedule import new_run

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import JsonValue

    from push_pools.domain.runs import Policy
    from push_pools.ports import App

PREVIEW_ID = UUID(int=0)
"""Stands for the run's id, which only a real run has."""


@dataclass(frozen=True)
class Preview:
    """A request that was not sent."""

    deployment: str
    work_pool: str
    platform: str
    request: dict[str, JsonValue]
    origins: dict[str, str]
    """Job variable → the layer its value came from."""
    policy: Policy


def preview_deployment(
    app: App,
    ref: str,
    *,
    parameters: Mapping[str, JsonValue] | None = None,
    job_variables: Mapping[str, Any] | None = None,
) -> Preview:
    """Return the request that a run of a deployment would send now. Nothing is written, and nothing is called.

    Raises:
        NotFound: The deployment, its pool, or what its template names does not exist.
        InvalidInput: Something does not fit; the sentence names it.
    """
    deployment = find_deployment(app, ref)
    pool = get_work_pool(app, deployment.work_pool)
    event = ScheduledRun(deployment=ref, parameters=dict(parameters or {}), job_variables=dict(job_variables or {}))
    run = new_run(event, app, PREVIEW_ID, deployment, pool, deployment.work_queue, app.clock.now())
    job = render_run(run, app)
    platform = app.platforms(pool.type)
    layers = [("deployment", deployment.layer()), ("run", dict(run.job_variables))]
    return Preview(
        deployment=deployment.key,
        work_pool=pool.name,
        platform=pool.type,
        request=platform.preview(job),
        origins=explain_job_variables(pool.base_job_template, layers),
        policy=policy_of(run, job, platform, app),
    )
