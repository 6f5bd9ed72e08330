"""`push-pools deploy`: what a config file says, as a plan first and then in the ledger."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from push_pools.cli.base import opened, verb
from push_pools.cli.inputs import read_text
from push_pools.cli.output import Format, Output, console, is_terminal, note, plain, print_data, say

if TYPE_CHECKING:
    from push_pools.domain.config import Config
    from push_pools.services.deploy import Change, DeployPlan

app = verb()

FILES: Final = ("push-pools.yaml", "push-pools.yml", "prefect.yaml")
"""What is read when no file is named, the first that is there."""
SIGNS: Final = {"create": ("+", "green"), "update": ("~", "yellow"), "delete": ("-", "red"), "unchanged": ("=", "dim")}
LONGEST_VALUE: Final = 60
STDIN: Final = "standard input"


@app.command()
def deploy(
    file: Annotated[
        str | None, typer.Argument(metavar="[FILE]", help="Config file; by default push-pools.yaml, or prefect.yaml.")
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option("--name", "-n", metavar="NAME", help="Only this deployment and its pool; may be repeated."),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All deployments of the file; the same as naming none.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would change, and change nothing.")] = False,
    prune: Annotated[
        bool, typer.Option("--prune", help="Also delete what the file once made and does not name any more.")
    ] = False,
    output: Output = Format.TABLE,
) -> None:
    """Make pools, queues and deployments what a file says.

    What changes is shown first: + is created, ~ updated, - deleted, = unchanged. Nothing is deleted without --prune.
    """
    from push_pools.services.deploy import apply, plan_deploy

    if name and every:
        raise typer.BadParameter("--name and --all contradict each other; give one")
    config = read_config(file)
    if prune and config.owner is None:
        raise typer.BadParameter("--prune needs a name for what the file owns; add project: NAME to it, or name a file")
    for sentence in config.notes:
        note(sentence)
    with opened() as home:
        plan = plan_deploy(home, config, names=name or None, prune=prune)
        if not dry_run:
            plan = apply(home, plan)
    if output is Format.TABLE:
        print_plan(plan, dry_run=dry_run)
    else:
        print_data(_data(plan, dry_run=dry_run), output)


def read_config(file: str | None) -> Config:
    """Return what a config file says; `None` takes the one in this directory.

    Raises:
        InvalidInput: There is none, or it cannot be read.
        InvalidConfigFile: With every problem and its place.
    """
    from push_pools.services.config_file import parse_config

    name = file or _default_file()
    shown = STDIN if name == "-" else name
    beside = Path.cwd() if name == "-" else Path(name).absolute().parent
    config = parse_config(read_text(name), shown, read_text=lambda other: (beside / other).read_text(encoding="utf-8"))
    if config.owner != shown:
        return config
    # A file without a project is known by its path, the same from wherever it is named; what is piped is by nothing.
    return dataclasses.replace(config, owner=None if name == "-" else str(Path(name).resolve()))


def _default_file() -> str:
    from push_pools.domain.errors import InvalidInput

    for name in FILES:
        if Path(name).is_file():
            return name
    raise InvalidInput(f"there is no {FILES[0]} in {Path.cwd()}; name a file: `push-pools deploy FILE`")


def print_plan(plan: DeployPlan, *, dry_run: bool) -> None:
    """Print what changes, or has changed, as a diff."""
    for change in plan.changes:
        sign, style = SIGNS[change.action]
        _line(f"{sign} {change.kind} {change.key}", style)
        for field in change.diff:
            _line(f"    {field.path}: {_value(field.old)} -> {_value(field.new)}", style)
    say(_summary(plan, dry_run=dry_run))


def _line(text: str, style: str) -> None:
    if is_terminal():
        console().print(plain(text), style=style, markup=False, soft_wrap=True)
    else:
        say(plain(text))


def _value(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 1] + "…"


def _summary(plan: DeployPlan, *, dry_run: bool) -> str:
    def count(action: str, done: str) -> str:
        number = sum(change.action == action for change in plan.changes)
        return f"{number} to {action}" if dry_run else f"{number} {done}"

    said = ", ".join((count("create", "created"), count("update", "updated"), count("delete", "deleted")))
    unchanged = sum(change.action == "unchanged" for change in plan.changes)
    ending = " Nothing was changed." if dry_run else ""
    return f"{'Plan' if dry_run else 'Deployed'}: {said}, {unchanged} unchanged.{ending}"


def _data(plan: DeployPlan, *, dry_run: bool) -> dict[str, Any]:
    return {"dry_run": dry_run, "changes": [_change(change) for change in plan.changes]}


def _change(change: Change) -> dict[str, Any]:
    return {
        "kind": change.kind,
        "key": change.key,
        "action": str(change.action),
        "diff": [{"path": field.path, "old": field.old, "new": field.new} for field in change.diff],
    }
