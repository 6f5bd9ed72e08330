"""What push_pools does with the cases that `oracle.py` puts to Prefect."""

from __future__ import annotations

import ast
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from push_pools.domain.errors import InvalidInput, NotFound
from push_pools.domain.jobs import (
    BaseJobConfiguration,
    BaseVariables,
    FlowInfo,
    FlowRunInfo,
    default_base_job_template,
    merge_job_variables,
    validate_base_job_template,
)
from push_pools.domain.templates import (
    NOT_SET,
    apply_values,
    find_placeholders,
    resolve_block_references,
    resolve_variables,
)

from . import prefect_guide

if TYPE_CHECKING:
    from collections.abc import Callable

PAIRS = prefect_guide.pairs(BaseJobConfiguration, BaseVariables)
RUN = FlowRunInfo(
    id=UUID("8d3e0f1a-6a4b-4d57-9b7e-1c2d3e4f5a6b"),
    name="keen-owl",
    attempt=1,
    scheduled_time=datetime(2026, 1, 2, tzinfo=UTC),
)


def answer(case: dict[str, Any]) -> dict[str, Any]:
    """Return our answer in the oracle's form; only errors that we raise on purpose are answers."""
    try:
        result = _OPERATIONS[case["op"]](case)
    except (InvalidInput, NotFound) as error:
        return {"error": type(error).__name__, "message": str(error)}
    return {"missing": True} if result is NOT_SET else {"result": result}


def _template(case: dict[str, Any]) -> Any:
    return ast.literal_eval(case["python"]) if "python" in case else case["template"]


def _find(case: dict[str, Any]) -> Any:
    return sorted([each.full_match, each.name, str(each.type)] for each in find_placeholders(_template(case)))


def _apply(case: dict[str, Any]) -> Any:
    options = {name: case[name] for name in ("remove_notset", "skip_prefixes", "environ") if name in case}
    return apply_values(_template(case), case.get("values", {}), **options)


def _load_block(case: dict[str, Any]) -> Callable[[str | None, str], dict[str, Any]]:
    def load(type_slug: str | None, name: str) -> dict[str, Any]:
        key = f"{type_slug}/{name}" if type_slug else name
        if key not in case["blocks"]:
            raise NotFound("block", key)
        data: dict[str, Any] = case["blocks"][key]
        return data

    return load


def _job(case: dict[str, Any], values: dict[str, Any]) -> BaseJobConfiguration:
    job: BaseJobConfiguration = PAIRS[case["pair"]][0].from_template_and_values(
        case["template"],
        values,
        load_block=_load_block(case),
        load_variable=case.get("variables", {}).get,
        environ=case.get("environ"),
    )
    return job


def _dump(job: BaseJobConfiguration) -> dict[str, Any]:
    return job.model_dump(mode="json", exclude={"secret_env"})


def _prepare(case: dict[str, Any]) -> Any:
    job = _job(case, case["values"])
    job.prepare_for_flow_run(RUN, flow=FlowInfo(name="report"))
    env = {name: value for name, value in job.env.items() if not name.startswith("PUSH_POOLS")}
    return {"name": job.name, "env": env, "labels": {k: v for k, v in job.labels.items() if "push-pools/" not in k}}


def _check(case: dict[str, Any]) -> str:
    validate_base_job_template(case["template"])
    return "accepted"


_OPERATIONS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "find": _find,
    "apply": _apply,
    "blocks": lambda case: resolve_block_references(case["template"], _load_block(case)),
    "variables": lambda case: resolve_variables(case["template"], case["variables"].get),
    "configure": lambda case: _dump(_job(case, case["values"])),
    "layers": lambda case: _dump(_job(case, merge_job_variables(case["deployment"], case["run"]))),
    "prepare": _prepare,
    "generate": lambda case: default_base_job_template(*PAIRS[case["pair"]]),
    "check": _check,
}
