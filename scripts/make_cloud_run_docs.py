"""Fill in the generated tables of `docs/google-cloud.md`: the variables, and the failures. A test compares them."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from push_pools.domain.failures_cloud_run import CLOUD_RUN_LAST_ROWS, CLOUD_RUN_ROWS
from push_pools.domain.jobs import default_base_job_template
from push_pools.platforms.cloud_run_config import CloudRunJobConfiguration, CloudRunVariables

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = Path(__file__).resolve().parent.parent / "docs" / "google-cloud.md"
PLACE = re.compile(r"(<!-- made by scripts/make_cloud_run_docs\.py: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
ECS = runpy.run_path(str(Path(__file__).with_name("make_ecs_docs.py")))
"""Tables of both pages look alike."""


def variables() -> Iterator[str]:
    """Yield a row for every variable of the base job template."""
    yield "| variable | type | default | what it is |"
    yield "| --- | --- | --- | --- |"
    template = default_base_job_template(CloudRunJobConfiguration, CloudRunVariables)["variables"]
    for name, schema in template["properties"].items():
        kind = "block" if "GcpCredentials" in str(schema) else ECS["_type"](schema)
        description = ECS["_cell"](schema.get("description", ""))
        yield f"| `{name}` | {kind} | {_default(schema)} | {description} |"


def _default(schema: dict[str, Any]) -> str:
    return str(ECS["_default"](schema))


def failures() -> Iterator[str]:
    """Yield a row for every failure that Cloud Run's own rows explain."""
    yield "| class | tried again | cause | what to do |"
    yield "| --- | --- | --- | --- |"
    for row in (*CLOUD_RUN_ROWS, *CLOUD_RUN_LAST_ROWS):
        again = "yes" if row.is_retried else "no"
        yield f"| `{row.failure_class}` | {again} | {ECS['_cell'](row.cause)} | {ECS['_cell'](row.suggestion)} |"


def page(text: str) -> str:
    """Return the page with its tables as they are in the code."""
    made = {"variables": variables, "failures": failures}

    def filled(match: re.Match[str]) -> str:
        return match[1] + "\n".join(made[match[2]]()) + "\n" + match[3]

    return PLACE.sub(filled, text)


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
