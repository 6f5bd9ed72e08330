"""Reading the `deployments:` of a `prefect.yaml`: what can be run here, what is left out, and what cannot be done."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from push_pools.domain.problems import Path, Problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from push_pools.domain.config import Place

_STEPS: Final = ("build", "push", "pull")
_NEEDS_SERVER: Final = {
    "triggers": "triggers need a Prefect server; send an event where the trigger would fire",
    "sla": "SLAs need a Prefect server; remove it",
}
_LEFT_OUT: Final = frozenset(
    {"version", "version_type", "enforce_parameter_schema", "parameter_openapi_schema", "path"}
)
_TOP_LEFT_OUT: Final = frozenset({"name", "prefect-version", "definitions"})
_SCHEDULE_LEFT_OUT: Final = frozenset({"max_scheduled_runs", "max_active_runs", "replaces"})


def from_prefect(tree: Any, place: Callable[[Path], Place | None]) -> tuple[dict[str, Any], list[Problem], list[str]]:
    """Return a `prefect.yaml` as a config file of ours, with what is wrong with it and what was left out of it.

    The paths of what is kept stay as they are, so that places still fit.
    """
    reader = _Reader(place)
    return reader.read(tree), reader.problems, reader.notes


class _Reader:
    def __init__(self, place: Callable[[Path], Place | None]) -> None:
        self.place = place
        self.problems: list[Problem] = []
        self.notes: list[str] = []

    def read(self, tree: Mapping[str, Any]) -> dict[str, Any]:
        kept = self._without_steps(tree, ())
        kept = self._leave_out(kept, (), _TOP_LEFT_OUT, quiet=True)
        deployments = kept.get("deployments")
        if isinstance(deployments, list):
            kept["deployments"] = [self._deployment(item, ("deployments", n)) for n, item in enumerate(deployments)]
        return kept

    def _without_steps(self, tree: Mapping[str, Any], path: Path) -> dict[str, Any]:
        for name in _STEPS:
            if tree.get(name):
                self._refuse(
                    (*path, name),
                    "push_pools runs no build, push or pull steps; build the image elsewhere and name it under "
                    "job_variables, then remove the steps",
                )
        return {key: value for key, value in tree.items() if key not in _STEPS}

    def _deployment(self, item: Any, path: Path) -> Any:
        if not isinstance(item, Mapping):
            return item
        kept = self._without_steps(item, path)
        for name, reason in _NEEDS_SERVER.items():
            if kept.pop(name, None):
                self._refuse((*path, name), reason)
        kept = self._leave_out(kept, path, _LEFT_OUT)
        self._entrypoint(kept, path)
        self._schedules(kept, path)
        self._limit(kept, path)
        if "paused" in kept:
            kept["is_paused"] = kept.pop("paused")
        return kept

    def _entrypoint(self, kept: dict[str, Any], path: Path) -> None:
        entrypoint = kept.pop("entrypoint", None)
        if entrypoint is None:
            return
        if kept.get("command") is None:
            self._refuse(
                (*path, "entrypoint"),
                "running a Prefect flow needs the Prefect bridge and a Prefect server; "
                "give a command instead, such as command: python -m report",
            )
            return
        self._note((*path, "entrypoint"), "entrypoint is left out, as there is a command")
        function = str(entrypoint).rpartition(":")[2].replace("_", "-")
        kept.setdefault("flow_name", function)

    def _schedules(self, kept: dict[str, Any], path: Path) -> None:
        single = kept.pop("schedule", None)
        if single and "schedules" in kept:
            self._refuse((*path, "schedule"), "there is schedule and schedules; keep schedules")
        elif single:
            # Its place is not that of an item of a list, but the nearest thing around it.
            kept["schedules"] = [single]
        schedules = kept.get("schedules")
        if isinstance(schedules, list):
            kept["schedules"] = [self._schedule(item, (*path, "schedules", n)) for n, item in enumerate(schedules)]

    def _schedule(self, item: Any, path: Path) -> Any:
        if not isinstance(item, Mapping):
            return item
        kept = self._leave_out(item, path, _SCHEDULE_LEFT_OUT)
        if isinstance(kept.get("catchup"), bool):
            kept["catchup"] = "all" if kept["catchup"] else "latest"
        return kept

    def _limit(self, kept: dict[str, Any], path: Path) -> None:
        limit = kept.get("concurrency_limit")
        if not isinstance(limit, Mapping):
            return
        if limit.get("collision_strategy", "ENQUEUE") != "ENQUEUE":
            self._refuse(
                (*path, "concurrency_limit"),
                "runs over the limit wait here; remove collision_strategy, or write overlap: skip in the schedule",
            )
        kept["concurrency_limit"] = limit.get("limit")

    def _leave_out(
        self, tree: Mapping[str, Any], path: Path, names: frozenset[str], *, quiet: bool = False
    ) -> dict[str, Any]:
        for name in () if quiet else sorted(names & tree.keys()):
            if tree[name] is not None:
                self._note((*path, name), f"{name} is left out; it means nothing here")
        return {key: value for key, value in tree.items() if key not in names}

    def _refuse(self, path: Path, reason: str) -> None:
        self.problems.append(Problem(path, reason, at_key=True))

    def _note(self, path: Path, text: str) -> None:
        place = self.place(path)
        self.notes.append(f"{place.line}:{place.column}: {text}" if place else f" {text}")
