"""Fill in the generated tables of `docs/azure.md`: the variables, and the failures. A test compares them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from push_pools.domain.failures_aci import ACI_ROWS
from push_pools.domain.jobs import default_base_job_template
from push_pools.platforms.aci_config import AciJobConfiguration, AciVariables

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = Path(__file__).resolve().parent.parent / "docs" / "azure.md"
PLACE = re.compile(r"(<!-- made by scripts/make_aci_docs\.py: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def variables() -> Iterator[str]:
    """Yield a row for every variable of the base job template."""
    yield "| variable | type | default | what it is |"
    yield "| --- | --- | --- | --- |"
    template = default_base_job_template(AciJobConfiguration, AciVariables)["variables"]
    for name, schema in template["properties"].items():
        yield f"| `{name}` | {_type(schema)} | {_default(schema)} | {_cell(schema.get('description', ''))} |"


def failures() -> Iterator[str]:
    """Yield a row for every failure that the rows of Azure explain."""
    yield "| class | tried again | cause | what to do |"
    yield "| --- | --- | --- | --- |"
    for row in ACI_ROWS:
        again = "yes" if row.is_retried else "no"
        yield f"| `{row.failure_class}` | {again} | {_cell(row.cause)} | {_cell(row.suggestion)} |"


def _type(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_type(each) for each in schema["anyOf"] if each.get("type") != "null"))
    if "$ref" in schema or "allOf" in schema:
        return "block" if "Credentials" in str(schema) else "object"
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    kind = str(schema.get("type", "any"))
    return {"string": "text", "boolean": "true or false"}.get(kind, kind)


def _default(schema: dict[str, Any]) -> str:
    default = schema.get("default")
    return "none" if default in (None, {}, []) or isinstance(default, dict) else f"`{default}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


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
