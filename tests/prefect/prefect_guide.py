"""Job configurations as in the custom-worker guide, made once from Prefect's base classes and once from ours.

It is imported both by the tests and, in Prefect's own environment, by `oracle.py`: it must import neither.
"""

# mypy: disable-error-code="misc"
# The base classes are arguments, which a type checker cannot follow.

# No `from __future__ import annotations`: pydantic reads these annotations where they are.
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Registry(BaseModel):
    """Where images come from."""

    model_config = ConfigDict(extra="forbid")

    url: str
    kind: Literal["public", "private"] = "public"


def pairs(configuration: Any, variables: Any) -> dict[str, tuple[Any, Any]]:
    """Return, by name, pairs of a configuration class and a variables class or None."""

    class Guide(configuration):
        memory: int = Field(default=1024, description="Memory allocation for the execution environment.")
        cpu: int = Field(default=500, description="CPU allocation for the execution environment.")

    class GuideTemplate(configuration):
        memory: str = Field(
            default="1024Mi",
            description="Memory allocation for the execution environment.",
            json_schema_extra={"template": "{{ memory_request }}Mi"},
        )
        cpu: str = Field(
            default="500m",
            description="CPU allocation for the execution environment.",
            json_schema_extra={"template": "{{ cpu_request }}m"},
        )

    class GuideVariables(variables):
        memory_request: int = Field(default=1024, description="Memory allocation for the execution environment.")
        cpu_request: int = Field(default=500, description="CPU allocation for the execution environment.")

    class Rich(configuration):
        """One of everything."""

        model_config = ConfigDict(extra="forbid")

        registry: Registry | None = None
        renamed: int = Field(default=1, alias="otherName")
        hidden: str = Field(default="x", exclude=True)
        body: dict[str, Any] = Field(
            default_factory=dict, json_schema_extra={"template": {"image": "{{ image }}", "list": ["{{ cpu }}"]}}
        )
        falsy: str = Field(default="", json_schema_extra={"template": ""})

    class RichVariables(variables):
        """What the owner of a deployment may choose."""

        model_config = ConfigDict(extra="forbid")

        registry: Registry | None = None
        image: str
        cpu: float = Field(default=1.0, title="vCPU", ge=0.25)

    class Loose(configuration):
        a: Any = None
        b: Any = None
        c: Any = None

    return {
        "base": (configuration, variables),
        "base_inferred": (configuration, None),
        "guide": (Guide, None),
        "guide_template": (GuideTemplate, GuideVariables),
        "guide_template_no_variables": (GuideTemplate, None),
        "rich": (Rich, RichVariables),
        "rich_inferred": (Rich, None),
        "loose": (Loose, variables),
    }
