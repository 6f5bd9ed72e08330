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
    from uuid import UUID

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
    _validated(pool, values)
    job = app.platforms(pool.type).job_configuration.from_template_and_values(
        pool.base_job_template,
        values,
        load_block=load_block(app),
        load_variable=load_variable(app),
        environ=app.environ,
    )
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
    return job


_VALID: Final[OrderedDict[tuple[UUID, int, bytes], None]] = OrderedDict()
"""Digests of job variables that were found valid for a version of a pool.

Schemas are slow, and the runs of a deployment alike.
"""
_VALID_KEPT: Final = 1024


def _validated(pool: WorkPool, values: Mapping[str, Any]) -> None:
    text = json.dumps(values, sort_keys=True, default=str)
    key = (pool.id, pool.version, hashlib.sha256(text.encode()).digest())
    if key in _VALID:
        return
    validate_job_variables(pool.base_job_template, values)
    _VALID[key] = None
    while len(_VALID) > _VALID_KEPT:
        _VALID.popitem(last=False)


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
