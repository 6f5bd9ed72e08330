"""What real Prefect does: reads cases as JSON on stdin, writes one answer for each on stdout.

It runs in Prefect's own environment (`requirements.txt`), never in ours.
"""

import ast
import asyncio
import json
import os
import sys
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock
from uuid import UUID

import prefect  # type: ignore[import-not-found]
import prefect_guide  # type: ignore[import-not-found]
from prefect.client.schemas.objects import Flow, FlowRun  # type: ignore[import-not-found]
from prefect.exceptions import ObjectNotFound  # type: ignore[import-not-found]
from prefect.server.schemas.actions import validate_base_job_template  # type: ignore[import-not-found]
from prefect.utilities import templating  # type: ignore[import-not-found]
from prefect.utilities.annotations import NotSet  # type: ignore[import-not-found]
from prefect.workers.base import BaseJobConfiguration, BaseVariables, BaseWorker  # type: ignore[import-not-found]

PAIRS = prefect_guide.pairs(BaseJobConfiguration, BaseVariables)
RUN_ID = UUID("8d3e0f1a-6a4b-4d57-9b7e-1c2d3e4f5a6b")


class Client:
    """The three calls that templating makes."""

    def __init__(self, case: dict[str, Any]) -> None:
        self.case = case

    async def read_block_document_by_name(self, name: str, block_type_slug: str) -> Any:
        return self._document(self.case.get("blocks", {}), f"{block_type_slug}/{name}")

    async def read_block_document(self, block_document_id: str) -> Any:
        return self._document(self.case.get("blocks", {}), block_document_id)

    async def read_variable_by_name(self, name: str) -> Any:
        variables = self.case.get("variables", {})
        return SimpleNamespace(value=variables[name]) if name in variables else None

    async def read_flow(self, _: Any) -> Any:
        return SimpleNamespace(name="report")

    def _document(self, documents: dict[str, Any], key: str) -> Any:
        if key not in documents:
            raise ObjectNotFound(http_exc=KeyError(key))
        return SimpleNamespace(data=documents[key])


def template_of(case: dict[str, Any]) -> Any:
    return ast.literal_eval(case["python"]) if "python" in case else case["template"]


async def find(case: dict[str, Any]) -> Any:
    kinds = {"block_document": "block", "env_var": "env"}
    found = templating.find_placeholders(template_of(case))
    return sorted([each.full_match, each.name, kinds.get(each.type.value, each.type.value)] for each in found)


async def apply(case: dict[str, Any]) -> Any:
    options = {name: case[name] for name in ("remove_notset", "skip_prefixes") if name in case}
    return templating.apply_values(template_of(case), case.get("values", {}), **options)


async def blocks(case: dict[str, Any]) -> Any:
    return await templating.resolve_block_document_references(case["template"], client=Client(case))


async def variables(case: dict[str, Any]) -> Any:
    return await templating.resolve_variables(case["template"], client=Client(case))


async def configure(case: dict[str, Any]) -> Any:
    configuration = PAIRS[case["pair"]][0]
    job = await configuration.from_template_and_values(case["template"], case["values"], client=Client(case))
    return job.model_dump(mode="json")


async def layers(case: dict[str, Any]) -> Any:
    class Unprepared(PAIRS[case["pair"]][0]):  # type: ignore[misc]
        def prepare_for_flow_run(self, **_: Any) -> None:
            pass

    job = await Unprepared.resolve_for_flow_run(
        SimpleNamespace(job_variables=case["run"], flow_id=None, deployment_id=None),
        client=Client(case),
        work_pool=SimpleNamespace(base_job_template=case["template"]),
        worker_name="oracle",
        deployment=SimpleNamespace(job_variables=case["deployment"]),
    )
    return job.model_dump(mode="json")


async def prepare(case: dict[str, Any]) -> Any:
    configuration = PAIRS[case["pair"]][0]
    job = await configuration.from_template_and_values(case["template"], case["values"], client=Client(case))
    job.prepare_for_flow_run(FlowRun(id=RUN_ID, flow_id=RUN_ID, name="keen-owl"), flow=Flow(id=RUN_ID, name="report"))
    env = {name: value for name, value in job.env.items() if not name.startswith("PREFECT")}
    return {"name": job.name, "env": env, "labels": {k: v for k, v in job.labels.items() if "prefect.io/" not in k}}


async def generate(case: dict[str, Any]) -> Any:
    configuration, variables = PAIRS[case["pair"]]
    worker: Any = type("Worker", (), {"job_configuration": configuration, "job_configuration_variables": variables})
    return BaseWorker.get_default_base_job_template.__func__(worker)


async def check(case: dict[str, Any]) -> Any:
    validate_base_job_template(case["template"])
    return "accepted"


async def version(_: dict[str, Any]) -> Any:
    return prefect.__version__


TEMPLATING = (find, apply, blocks, variables)
WORKERS = (configure, layers, prepare, generate, check, version)
OPERATIONS = {each.__name__: each for each in (*TEMPLATING, *WORKERS)}


@contextmanager
def environment(case: dict[str, Any]) -> Any:
    if "environ" not in case:
        yield
        return
    with mock.patch.dict(os.environ, case["environ"], clear=True):
        yield


async def answer(case: dict[str, Any]) -> dict[str, Any]:
    with environment(case):
        try:
            result = await OPERATIONS[case["op"]](case)
        except Exception as error:  # The answer is that it failed, however it did.
            return {"error": type(error).__name__, "message": str(error)}
    return {"missing": True} if result is NotSet else {"result": result}


async def answers(cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [await answer(case) for case in cases]


if __name__ == "__main__":
    json.dump(asyncio.run(answers(json.load(sys.stdin))), sys.stdout)
