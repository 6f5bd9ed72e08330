"""Reads `plan_pools.json`: what the modules of pools, deployments and triggers send (`make terraform-plan`)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

FILE: Final = Path(__file__).with_name("plan_pools.json")

Request = dict[str, Any]


@dataclass(frozen=True)
class Applied:
    """What one run of a module's tests has sent."""

    folder: str
    run: str
    records: tuple[Request, ...]
    """The inputs of `aws_lambda_invocation`, in the order in which they need each other."""
    events: tuple[str, ...]
    named: dict[str, dict[str, Any]]
    """Names and permissions, by the addresses of resources."""

    def __str__(self) -> str:
        return f"{self.folder} {self.run[3:]}"

    def record(self, kind: str, name: str) -> Request:
        """Return the input for one record."""
        return next(each for each in self.records if (each["kind"], each["name"]) == (kind, name))


def applied(folder: str | None = None) -> list[Applied]:
    """Return what was sent in every run, or in those of a folder, in their order."""
    plan = json.loads(FILE.read_text(encoding="utf-8"))
    return [
        Applied(name, run, tuple(kept["records"]), tuple(kept["events"]), kept["named"])
        for name, runs in plan.items()
        for run, kept in runs.items()
        if folder in (None, name)
    ]


def as_sent(request: Request, action: str, before: Request | None = None) -> Request:
    """Return an input with what the provider adds to it, when it creates, updates or deletes the resource.

    On deletion `prev_input` is the input itself (`getInputChange` of the provider's `invocation.go`).
    """
    prev = {"create": None, "update": before or request, "delete": request}[action]
    return {**request, "tf": {"action": action, "prev_input": prev}}
