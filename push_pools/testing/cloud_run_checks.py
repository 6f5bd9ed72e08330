"""What Cloud Run checks of a job before it takes it ("Job" and "TaskTemplate", API reference v2)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from push_pools.testing.cloud_run_account import CloudRunError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from google.cloud import run_v2

JOB_ID: Final = re.compile(r"[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?")
LABEL_KEY: Final = re.compile(r"[a-z][a-z0-9_-]{0,62}")
LABEL_VALUE: Final = re.compile(r"[a-z0-9_-]{0,63}")
MAX_LABELS: Final = 64
MAX_RETRIES: Final = 10
MAX_SECONDS: Final = 604_800
MAX_ENV: Final = 32_768
NAME_AND_TOKEN: Final = 63
"""The sum of the lengths of a job's name and its token has to be less."""


def invalid(message: str) -> CloudRunError:
    """Return what the service answers to a request it does not take."""
    return CloudRunError("INVALID_ARGUMENT", message)


def check_job_id(job_id: str, token: str) -> None:
    """Check the name that a job is to have, and its token."""
    if not JOB_ID.fullmatch(job_id):
        raise invalid(f"Violation in CreateJobRequest.job_id: '{job_id}' is not a valid name.")
    if token and not re.fullmatch(r"[a-z0-9-]+", token):
        raise invalid(f"Violation in Job.start_execution_token: '{token}' is not a valid suffix of a name.")
    if token and len(job_id) + len(token) >= NAME_AND_TOKEN:
        raise invalid("The sum of the lengths of the job's name and the token must be less than 63.")


def check_job(job: run_v2.Job) -> None:
    """Check what a job is to be."""
    check_labels(job.labels)
    check_labels(job.template.labels)
    template = job.template.template
    if not template.containers:
        raise invalid("Violation in Job.template.template.containers: at least one container is needed.")
    for container in template.containers:
        if not container.image:
            raise invalid("Violation in Job.template.template.containers[0].image: an image is needed.")
        _check_env(container.env)
    if template.max_retries > MAX_RETRIES or template.max_retries < 0:
        raise invalid("Violation in Job.template.template.max_retries: it must be from 0 to 10.")
    timeout: Any = template.timeout
    if timeout and timeout.total_seconds() > MAX_SECONDS:
        raise invalid("Violation in Job.template.template.timeout: it must be at most 604800 seconds.")


def check_labels(labels: Mapping[str, str]) -> None:
    """Check labels ("Requirements for labels", Resource Manager)."""
    if len(labels) > MAX_LABELS:
        raise invalid(f"Violation in labels: there are more than {MAX_LABELS}.")
    for key, value in labels.items():
        if not LABEL_KEY.fullmatch(key) or not LABEL_VALUE.fullmatch(value):
            raise invalid(f"Violation in labels: '{key}: {value}' is not a valid label.")


def _check_env(env: Any) -> None:
    names = [variable.name for variable in env]
    if twice := [name for name in names if names.count(name) > 1]:
        raise invalid(f"Violation in env: '{twice[0]}' is there more than once.")
    for variable in env:
        if len(variable.value) > MAX_ENV:
            raise invalid(f"Violation in env: the value of '{variable.name}' is longer than 32768 characters.")
