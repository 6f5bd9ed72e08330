"""Write `tests/terraform/plan_pools.json`: the records and events that the modules of pools send. A test compares it.

They come from the modules' own tests, run by `terraform test` with mocked providers, so that no cloud is asked and no
account is needed (see `scripts/terraform.py`). Of each run that applies something it keeps what the function `admin`
is sent, what triggers send, and the names and permissions that others have to agree with.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parent))

import terraform

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).resolve().parent.parent
FILE: Final = ROOT / "tests" / "terraform" / "plan_pools.json"
FOLDERS: Final = (
    "examples/minimal",
    "examples/three_clouds",
    "modules/aci_pool",
    "modules/cloud_run_pool",
    "modules/deployment",
    "modules/ecs_pool",
    "modules/google_trigger",
    "modules/pool",
    "modules/trigger",
)
KINDS: Final = ("block", "work-pool", "deployment")
"""In the order in which they need each other."""
KEPT: Final = {
    "aws_ecs_cluster": ("name",),
    "aws_iam_role": ("name",),
    "aws_cloudwatch_log_group": ("name",),
    "azurerm_role_definition": ("permissions",),
    "google_project_iam_custom_role": ("permissions",),
}
"""What tests compare with the service's policies and with the documentation."""


def main() -> int:
    """Write the file and return the exit code."""
    reason = terraform.why_not()
    if reason:
        print(f"the plan cannot be made: {reason}", file=sys.stderr)
        return 1
    with terraform.copied() as copy:
        try:
            for name in FOLDERS:
                terraform.init(copy, name)
            made = text(copy)
        except (terraform.Unreachable, terraform.Broken) as error:
            print(f"the plan cannot be made: {error}", file=sys.stderr)
            return 1
    FILE.write_text(made, encoding="utf-8")
    print(f"{FILE.relative_to(ROOT)}: {sum(map(len, json.loads(made).values()))} runs")
    return 0


def text(copy: Path) -> str:
    """Return what the file holds, from a copy of the tree in which the folders are initialised.

    Raises:
        Broken: A test fails.
    """
    return json.dumps({name: runs(copy, name) for name in FOLDERS}, indent=1, sort_keys=True) + "\n"


def runs(copy: Path, name: str) -> dict[str, Any]:
    """Return what is kept of each run of a folder's tests that applies something, in the order of the runs.

    Raises:
        Broken: A test fails.
    """
    command = ["terraform", f"-chdir={copy / 'terraform' / name}", "test", "-json", "-verbose"]
    done = subprocess.run(command, env=terraform.environ(), capture_output=True, text=True, check=False)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode:
        said = [line["diagnostic"].get("detail", "") for line in lines if line["type"] == "diagnostic"]
        raise terraform.Broken("\n".join(said) or done.stdout + done.stderr)
    states = [line for line in lines if line["type"] == "test_state"]
    return {f"{place:02} {line['@testrun']}": kept(line["test_state"]) for place, line in enumerate(states, start=1)}


def kept(state: dict[str, Any]) -> dict[str, Any]:
    """Return what is kept of what a run has made."""
    found: dict[str, Any] = {"records": [], "events": [], "named": {}}
    for each in sorted(_resources(state["root_module"]), key=lambda each: str(each["address"])):
        values = each["values"]
        match each["type"]:
            case "aws_lambda_invocation":
                found["records"].append(json.loads(values["input"]))
            case "aws_scheduler_schedule" if values["target"][0]["input"]:  # The tick sends nothing of its own.
                found["events"].append(values["target"][0]["input"])
            case "google_cloud_scheduler_job":
                found["events"].append(base64.b64decode(values["http_target"][0]["body"]).decode())
            case type_ if type_ in KEPT and "module.service" not in each["address"]:
                found["named"][each["address"]] = {name: values[name] for name in KEPT[type_]}
    found["records"].sort(key=lambda record: KINDS.index(record["kind"]))
    return found


def _resources(module: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from (each for each in module.get("resources", []) if each["mode"] == "managed")
    for child in module.get("child_modules", []):
        yield from _resources(child)


if __name__ == "__main__":
    sys.exit(main())
