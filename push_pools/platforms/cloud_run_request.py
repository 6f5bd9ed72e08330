"""The CreateJob request of a job: its template's body, completed with what belongs to the run."""

from __future__ import annotations

import copy
import json
import math
import re
from typing import TYPE_CHECKING, Any, Final, cast

from push_pools.domain.errors import InvalidJobVariables, JobRejected
from push_pools.domain.job_variables import split_command
from push_pools.domain.jobs import SERVICE_ENV

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import JsonValue

    from push_pools.platforms.cloud_run_config import CloudRunJobConfiguration

TYPE: Final = "cloud-run-v2:push"
TOKEN: Final = "a"  # noqa: S105 - the suffix of an execution's name, not a secret.
"""The token of every job: it has one execution, `<job key>-a`."""
KEY_LABEL: Final = "push-pools-key"
"""The label by which a job is known to be ours; its value is the job key."""
DEFAULT_SECONDS: Final = 24 * 3600
LATER_SECONDS: Final = 60
"""Cloud Run's own time-out comes that much after ours, so that our verdict comes first."""
USUAL_SECONDS: Final = 24 * 3600
"""The longest time-out of a task that every region takes."""
MAX_SECONDS: Final = 7 * 24 * 3600
"""The longest that Cloud Run has ("Task timeout", Cloud Run documentation)."""
MAX_ENV: Final = 32_768
"""Most characters of one environment variable (EnvVar, API reference)."""
MAX_LABELS: Final = 64
_LONGEST_LABEL: Final = 63
_OURS: Final = ("name", "startExecutionToken", "runExecutionToken", "start_execution_token", "run_execution_token")


# -- checks --------------------------------------------------------------------


def check(job: CloudRunJobConfiguration) -> None:
    """Refuse what Cloud Run would refuse later, as far as it is known before a run.

    Raises:
        InvalidJobVariables: With a sentence for each problem.
    """
    problems = [
        f"cloudsql_instances: {each!r} is not project:region:instance"
        for each in job.cloudsql_instances
        if len(each.split(":")) < 3
    ]
    if not re.fullmatch(r"[a-z][a-z0-9-]*", job.region):
        problems.append(f"region: {job.region!r} is not the name of a region, such as europe-west1")
    if problems:
        raise InvalidJobVariables(problems)


def notes(job: CloudRunJobConfiguration) -> list[str]:
    """Return sentences about what was asked for and is not done, or not promised."""
    found = risks(job)
    if job.timeout is not None and job.timeout > MAX_SECONDS:
        found.append(f"timeout is {job.timeout:g} s, and Cloud Run ends a task after {MAX_SECONDS} s, 7 days")
    elif job.timeout is not None and (job.timeout > USUAL_SECONDS or job.timeout == 0):
        found.append(f"a task of more than {USUAL_SECONDS} s is refused where Cloud Run has no long time-outs")
    if job.keep_job:
        found.append("keep_job: jobs are not deleted, and a region has room for 1,000; delete them yourself")
    return found


def risks(job: CloudRunJobConfiguration) -> list[str]:
    """Return a sentence if Cloud Run may run the code of one attempt more than once."""
    retries = _task(job.job_body).get("maxRetries")
    if _number(retries) <= 0:
        return []
    return [
        f"max_retries is {retries}: Cloud Run may run your code more than once in an attempt, which is outside the "
        "guarantee; use the deployment's retries"
    ]


# -- completing -----------------------------------------------------------------


def complete_body(job: CloudRunJobConfiguration) -> dict[str, JsonValue]:
    """Return the body of a job, but for its name and token.

    Raises:
        InvalidJobVariables: It has no image, or something that Cloud Run does not take.
    """
    body: dict[str, Any] = copy.deepcopy(job.job_body)
    body = {name: value for name, value in body.items() if name not in _OURS}
    template = body.setdefault("template", {})
    if not isinstance(template, dict) or not isinstance(template.setdefault("template", {}), dict):
        raise InvalidJobVariables(["job_body: template and template.template have to be objects"])
    task = template["template"]
    containers = [dict(each) for each in task.get("containers") or [{}] if isinstance(each, dict)] or [{}]
    containers[0] = _main(job, containers[0])
    task["containers"] = containers
    task["maxRetries"] = _number(task.get("maxRetries"))
    task["timeout"] = f"{task_seconds(job.timeout)}s"
    _connect_cloud_sql(job, task)
    labels = _labels(job, body.get("labels"))
    body["labels"], template["labels"] = labels, {**labels, **_clean(template.get("labels"))}
    body.setdefault("client", "push-pools")
    return cast("dict[str, JsonValue]", json.loads(json.dumps(_without_empty(body), sort_keys=True)))


def task_seconds(timeout: float | None) -> int:
    """Return Cloud Run's own time-out for a job that may run so long: a little later than ours."""
    if timeout == 0:
        return MAX_SECONDS
    asked = math.ceil(DEFAULT_SECONDS if timeout is None else timeout)
    return min(asked + LATER_SECONDS, MAX_SECONDS if asked > USUAL_SECONDS else USUAL_SECONDS)


def create_job_request(job: CloudRunJobConfiguration, key: str) -> dict[str, JsonValue]:
    """Return the request in the API's JSON. It is stored but for the key, so a repeat never differs.

    Raises:
        JobRejected: The job was not prepared.
    """
    if not job.is_complete:
        raise JobRejected(TYPE, "the job was not prepared", codes=["NotPrepared"])
    body: dict[str, Any] = dict(job.job_body)
    return {
        "parent": parent(str(job.project), job.region),
        "jobId": key,
        "job": {**body, "labels": {**body.get("labels", {}), KEY_LABEL: key}, "startExecutionToken": TOKEN},
    }


def parent(project: str, region: str) -> str:
    """Return the name of the place that jobs are in."""
    return f"projects/{project}/locations/{region}"


def parsed(request: Mapping[str, Any]) -> Any:
    """Return the library's own message of a request in JSON.

    Raises:
        InvalidJobVariables: The API has no such field, or not with such a value.
    """
    from google.cloud import run_v2
    from google.protobuf.json_format import ParseError

    try:
        return run_v2.CreateJobRequest.from_json(json.dumps(request))
    except ParseError as error:
        raise InvalidJobVariables([f"job_body: Cloud Run's API does not have it so: {_last(error)}"]) from None


def _last(error: BaseException) -> str:
    # Values are not repeated: the error may quote one.
    text = str(error)
    match = re.search(r'no field named "[^"]*"|at "?([\w.\[\]]+)"?', text)
    return match[0] if match else "a value does not fit its field"


def _task(body: Mapping[str, Any]) -> Mapping[str, Any]:
    template = body.get("template")
    task = template.get("template") if isinstance(template, dict) else None
    return task if isinstance(task, dict) else {}


def _main(job: CloudRunJobConfiguration, container: dict[str, Any]) -> dict[str, Any]:
    """Return the container that the job runs in. What the template says literally stands; the service's names win."""
    if not container.get("image"):
        raise InvalidJobVariables(["image: name the image of the job"])
    entrypoint, args, command = _words(container.get("command")), _words(container.get("args")), job.command_list()
    # A template of Prefect's has `command` itself in the place of the entrypoint; then it is not also the arguments.
    if not args and command and entrypoint != command:
        args = command
    return {**container, "command": entrypoint, "args": args, "env": _environment(job, container.get("env"))}


def _environment(job: CloudRunJobConfiguration, listed: object) -> list[dict[str, Any]]:
    secrets = job.secret_variables
    if isinstance(listed, list) and not all(each.get("name") for each in listed if isinstance(each, dict)):
        raise InvalidJobVariables(["job_body: env: give each variable a name"])
    literal = (
        {each["name"]: each for each in listed or () if isinstance(each, dict)} if isinstance(listed, list) else {}
    )
    if isinstance(listed, dict):
        literal = {name: {"name": name, "value": value} for name, value in listed.items()}
    service: dict[str, Any] = {name: job.env[name] for name in SERVICE_ENV if name in job.env}
    plain = {name: {"name": name, "value": value} for name, value in job.env.items() if value is not None}
    named = {name: {"name": name, "valueSource": {"secretKeyRef": each.model_dump()}} for name, each in secrets.items()}
    own = {name: {"name": name, "value": value} for name, value in service.items()}
    variables: dict[str, dict[str, Any]] = {**plain, **named, **literal, **own}
    for name, each in variables.items():
        if each.get("value") is not None:
            each["value"] = each["value"] if isinstance(each["value"], str) else json.dumps(each["value"])
            if len(each["value"]) > MAX_ENV:
                raise InvalidJobVariables(
                    [f"env.{name} has {len(each['value'])} characters, and Cloud Run takes {MAX_ENV}: keep it in Cloud "
                     "Storage or in the image, or name it in `env_from_secrets`"]
                )  # fmt: skip
    return [variables[name] for name in sorted(variables)]


def _connect_cloud_sql(job: CloudRunJobConfiguration, task: dict[str, Any]) -> None:
    if not job.cloudsql_instances:
        return
    volume = {"name": "cloudsql", "cloudSqlInstance": {"instances": list(job.cloudsql_instances)}}
    task["volumes"] = [*(task.get("volumes") or []), volume]
    main = task["containers"][0]
    main["volumeMounts"] = [*(main.get("volumeMounts") or []), {"name": "cloudsql", "mountPath": "/cloudsql"}]


def _labels(job: CloudRunJobConfiguration, literal: object) -> dict[str, str]:
    """Return the labels of a job. Ours, by which runs are found at the cloud, win."""
    name = {"name": job.name} if job.name else {}
    ours = _clean({key: value for key, value in job.labels.items() if key.startswith("push-pools/")})
    labels = {**_clean(name), **_clean(job.labels), **_clean(literal), **ours}
    if len(labels) > MAX_LABELS - 1:
        raise InvalidJobVariables([f"labels: a job takes {MAX_LABELS - 1} beside ours, and these are {len(labels)}"])
    return labels


def _clean(labels: object) -> dict[str, str]:
    """Return labels as Google takes them: lower case, other characters `-`, cut ("Requirements for labels")."""
    if not isinstance(labels, dict):
        return {}
    found = {}
    for key, value in labels.items():
        name = re.sub(r"[^a-z0-9_-]+", "-", str(key).lower()).lstrip("0123456789_-")[:_LONGEST_LABEL]
        if name and value is not None:
            text = value if isinstance(value, str) else json.dumps(value)
            found[name] = re.sub(r"[^a-z0-9_-]+", "-", text.lower())[:_LONGEST_LABEL]
    return found


def _words(value: object) -> list[str]:
    if isinstance(value, str):
        return split_command(value)
    return [str(each) for each in value] if isinstance(value, list) else []


def _number(value: object) -> int:
    try:
        return int(str(value)) if value is not None else 0
    except ValueError:
        raise InvalidJobVariables([f"max_retries: {value!r} is not a whole number"]) from None


def _without_empty(value: Any) -> Any:
    """Return a copy without nulls, empty dictionaries and empty lists; empty text, False and 0 stay.

    So do volumes as they are: one that is `emptyDir: {}` says all there is to say.
    """
    if isinstance(value, dict):
        kept = {name: item if name == "volumes" else _without_empty(item) for name, item in value.items()}
        return {name: item for name, item in kept.items() if item is not None and item not in ({}, [])}
    if isinstance(value, list):
        return [item for item in map(_without_empty, value) if item is not None and item not in ({}, [])]
    return value
