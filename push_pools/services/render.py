"""From a run, its deployment and its pool to the job configuration that a platform is asked for."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

from push_pools.domain.deployments import Deployment
from push_pools.domain.errors import NotFound
from push_pools.domain.jobs import (
    BaseJobConfiguration,
    DeploymentInfo,
    FlowInfo,
    FlowRunInfo,
    WorkPoolInfo,
    merge_job_variables,
    validate_job_variables,
)
from push_pools.domain.pools import Variable, WorkPool
from push_pools.domain.runs import Policy, RetryPolicy
from push_pools.services.blocks import load_block

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from push_pools.domain.runs import FlowRun
    from push_pools.ports import App, Platform

DEFAULT_TIMEOUT_SECONDS = 24 * 3600.0
DEFAULT_GRACE_SECONDS = 30.0


def render_run(run: FlowRun, app: App) -> BaseJobConfiguration:
    """Return the job of a run as its pool, deployment and job variables say now.

    Raises:
        NotFound: The pool, or a block or variable that its template names, does not exist.
        InvalidInput: The template or a job variable is wrong; the sentence names it.
        PlatformMissing: The pool's platform is not installed.
    """
    pool = app.store.get(WorkPool, run.work_pool)
    if pool is None:
        raise NotFound("work pool", run.work_pool, fix="it was deleted after the run was put; create it again")
    deployment = deployment_of(run, app)
    values = merge_job_variables(deployment.layer() if deployment else {}, run.job_variables)
    job = filled_job(pool, values, app)
    job.prepare_for_flow_run(
        FlowRunInfo(
            id=run.id,
            name=run.name,
            attempt=run.attempt,
            scheduled_time=run.scheduled_time,
            parameters=run.parameters,
        ),
        DeploymentInfo(id=deployment.id, name=deployment.name, flow_name=deployment.flow_name) if deployment else None,
        FlowInfo(name=run.flow_name) if run.flow_name else None,
        WorkPoolInfo(name=pool.name, type=pool.type),
    )
    if deployment is not None and deployment.timeout_seconds is not None and "timeout" in type(job).model_fields:
        # A platform that ends jobs by itself (Cloud Run) has to know which time-out holds.
        setattr(job, "timeout", deployment.timeout_seconds)  # noqa: B010 - not every configuration has the field.
    return job


_FILLED: Final[OrderedDict[tuple[object, ...], BaseJobConfiguration | None]] = OrderedDict()
"""Filled templates by version of the pool and digest of the job variables; `None` where only the check can be kept.

Schemas and templates are slow, and the runs of a deployment alike.
"""
_FILLED_KEPT: Final = 1024


def filled_job(pool: WorkPool, values: Mapping[str, Any], app: App) -> BaseJobConfiguration:
    """Return the pool's template, filled with these job variables; what depends on a single run is not yet in it.

    Raises:
        NotFound: As `render_run`, and so the others.
    """
    text = json.dumps([values, dict(app.environ)], sort_keys=True, default=str)
    key = (pool.id, pool.version, hashlib.sha256(text.encode()).digest())
    kept = _FILLED.get(key, _NEVER)
    if isinstance(kept, BaseJobConfiguration):
        return kept.model_copy(deep=True)
    if kept is _NEVER:
        validate_job_variables(pool.base_job_template, values)
    loads = _Loads(app)
    job = app.platforms(pool.type).job_configuration.from_template_and_values(
        pool.base_job_template,
        values,
        load_block=loads.block,
        load_variable=loads.variable,
        environ=app.environ,
    )
    _FILLED[key] = None if loads.count else job.model_copy(deep=True)
    while len(_FILLED) > _FILLED_KEPT:
        _FILLED.popitem(last=False)
    return job


_NEVER: Final = object()


class _Loads:
    """Reads blocks and variables, which may be others the next time, and counts how often."""

    def __init__(self, app: App) -> None:
        self._block, self._variable, self.count = load_block(app), load_variable(app), 0

    def block(self, type_slug: str | None, name: str) -> Mapping[str, Any]:
        self.count += 1
        return self._block(type_slug, name)

    def variable(self, name: str) -> object:
        self.count += 1
        return self._variable(name)


def deployment_of(run: FlowRun, app: App) -> Deployment | None:
    """Return the run's deployment; `None` when it has none, or it was deleted since."""
    return app.store.find(Deployment, run.deployment_id) if run.deployment_id else None


def load_variable(app: App) -> Callable[[str], object]:
    """Return the function that templates read variables with."""

    def load(name: str) -> object:
        variable = app.store.get(Variable, name)
        return variable.value if variable else None

    return load


def policy_of(run: FlowRun, job: BaseJobConfiguration, platform: Platform, app: App) -> Policy:
    """Return the run's deadlines and retries: the deployment's, else its job variables', else the platform's."""
    if run.policy is not None and run.job is not None:
        return run.policy
    deployment = deployment_of(run, app)
    start, timeout = (
        (deployment.start_timeout_seconds, deployment.timeout_seconds) if deployment is not None else (None, None)
    )
    return Policy(
        start_timeout_seconds=_first(
            start, getattr(job, "task_start_timeout_seconds", None), platform.start_timeout_seconds
        ),
        timeout_seconds=_first(timeout, getattr(job, "timeout", None), DEFAULT_TIMEOUT_SECONDS),
        grace_seconds=_first(getattr(job, "grace_seconds", None), DEFAULT_GRACE_SECONDS),
        retries=deployment.retries if deployment is not None else RetryPolicy(),
    )


def _first(*values: float | None) -> float:
    return next(float(value) for value in values if value is not None)
