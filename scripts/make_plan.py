"""Write `tests/terraform/plan.json`: what Terraform makes of the service with everything in it. A test compares it.

The plan is one of `terraform test` with mocked providers, so it asks no cloud and needs no account: only terraform and
the schemas of the providers (see `scripts/terraform.py`). ARNs are given the form that AWS gives them, so that it shows
what is connected with what. Of every resource it keeps what the configuration sets, with JSON in strings read.
"""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parent))

import terraform

ROOT: Final = Path(__file__).resolve().parent.parent
FILE: Final = ROOT / "tests" / "terraform" / "plan.json"
MODULE: Final = "modules/service"
NAME: Final = "jobs"
REGION: Final = "eu-west-1"
ACCOUNT: Final = "123456789012"
FUNCTIONS: Final[dict[str, Any]] = json.loads((ROOT / "infra" / "functions.json").read_text(encoding="utf-8"))


def main() -> int:
    """Write the plan and return the exit code."""
    reason = terraform.why_not()
    if reason:
        print(f"the plan cannot be made: {reason}", file=sys.stderr)
        return 1
    with terraform.copied() as copy:
        try:
            terraform.init(copy, MODULE)
            made = text(copy)
        except (terraform.Unreachable, terraform.Broken) as error:
            print(f"the plan cannot be made: {error}", file=sys.stderr)
            return 1
    FILE.write_text(made, encoding="utf-8")
    print(f"{FILE.relative_to(ROOT)}: {len(json.loads(made)['resources'])} resources")
    return 0


def text(copy: Path) -> str:
    """Return what the file holds, from a copy of the tree in which the module is initialised.

    Raises:
        Broken: Terraform does not plan it, or something in the plan is not known.
    """
    folder = copy / "terraform" / MODULE / "plan"
    folder.mkdir(exist_ok=True)
    (folder / "plan.tftest.hcl").write_text(_test(), encoding="utf-8")
    command = ["terraform", f"-chdir={folder.parent}", "test", "-json", "-verbose", "-test-directory=plan"]
    done = subprocess.run(command, env=terraform.environ(), capture_output=True, text=True, check=False)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    plans = [line["test_plan"] for line in lines if line["type"] == "test_plan"]
    if done.returncode or len(plans) != 1:
        said = [line["diagnostic"].get("detail", "") for line in lines if line["type"] == "diagnostic"]
        raise terraform.Broken("\n".join(said) or done.stdout + done.stderr)
    return json.dumps(trimmed(plans[0], copy / "terraform" / MODULE), indent=1, sort_keys=True) + "\n"


def trimmed(plan: dict[str, Any], module: Path) -> dict[str, Any]:
    """Return resources by address, each with what the configuration sets, and the outputs."""
    is_set = _set_by(module)
    resources, unknown = {}, []
    for change in plan["resource_changes"]:
        if change["mode"] != "managed":
            continue
        after, kept = change["change"]["after"], is_set[change["type"], change["name"]]
        unknown += [
            f"{change['address']}.{name}" for name in kept if change["change"]["after_unknown"].get(name) is True
        ]
        resources[change["address"]] = {"type": change["type"], **_read({name: after.get(name) for name in kept})}
    outputs = {name: change.get("after") for name, change in plan["output_changes"].items()}
    unknown += [f"output {name}" for name, change in plan["output_changes"].items() if change["after_unknown"]]
    if unknown:
        raise terraform.Broken(f"the plan does not know {', '.join(unknown)}; give what they depend on in make_plan.py")
    return {"resources": resources, "outputs": {name: _value(value) for name, value in outputs.items()}}


def _set_by(module: Path) -> dict[tuple[str, str], list[str]]:
    """Return what each resource of a module sets, from its formatted text: what is two spaces in."""
    found: dict[tuple[str, str], list[str]] = {}
    for path in sorted(module.glob("*.tf")):
        for type_, name, body in re.findall(r'(?ms)^resource "(\w+)" "(\w+)" \{\n(.*?)^\}', path.read_text("utf-8")):
            names = re.findall(r'(?m)^  (?:dynamic "(\w+)" \{|(\w+)(?: +=| \{))', body)
            ours = {"for_each", "count", "lifecycle", "depends_on"}
            found[type_, name] = sorted({first or second for first, second in names} - ours)
    return found


def _read(values: dict[str, Any]) -> dict[str, Any]:
    """Return values without those that are not set."""
    read = {name: _value(value) for name, value in values.items()}
    return {name: value for name, value in read.items() if value not in (None, [], {})}


def _value(value: Any) -> Any:
    if isinstance(value, dict):
        return _read(value)
    if isinstance(value, list):
        return [_value(each) for each in value]
    if isinstance(value, str) and value.startswith("{") and "${" not in value:
        return json.loads(value)
    return value


def _test() -> str:
    """Return the test that makes the plan."""
    provider = _mock("aws_region", region=REGION) + _mock("aws_caller_identity", account_id=ACCOUNT)
    provider += _mock("aws_partition", partition="aws")
    overrides = "".join(_override(target, values) for target, values in _given().items())
    clouds = sorted(name.removeprefix("submit_") for name in FUNCTIONS["functions"] if name.startswith("submit_"))
    variables = {
        "name": NAME,
        "platforms": clouds,
        "package": {
            "s3": {"bucket": "releases", "key": "functions.zip", "object_version": "1"},
            "sha256_base64": base64.b64encode(bytes(32)).decode(),
        },
        "webhook": {
            "enabled": True,
            "secret": "webhook",
            "issuer": "https://issuer.example",
            "audience": "push-pools",
            "subjects": ["repo:acme/jobs"],
        },
        "failed_runs": 1,
    }
    lines = "\n".join(f"    {name} = {json.dumps(value)}" for name, value in variables.items())
    run = f'run "plan" {{\n  command = plan\n  variables {{\n{lines}\n  }}\n}}\n'
    return f'mock_provider "aws" {{\n{provider}}}\nmock_provider "external" {{}}\n{overrides}{run}'


def _given() -> dict[str, dict[str, str]]:
    """Return what AWS would give to the resources that others depend on, by address."""

    def arn(service: str, rest: str) -> dict[str, str]:
        return {"arn": f"arn:aws:{service}:{REGION if service != 'iam' else ''}:{ACCOUNT}:{rest}"}

    def queue(name: str) -> dict[str, str]:
        return {**arn("sqs", f"{NAME}-{name}"), "url": f"https://sqs.{REGION}.amazonaws.com/{ACCOUNT}/{NAME}-{name}"}

    key = {**arn("kms", "key/blocks"), "key_id": "blocks"}
    given = {
        "aws_dynamodb_table.ledger": arn("dynamodb", f"table/{NAME}"),
        "aws_kms_key.blocks[0]": key,
        "aws_cloudwatch_event_bus.published": arn("events", f"event-bus/{NAME}"),
        "aws_iam_role.scheduler": arn("iam", f"role/{NAME}-fn-scheduler"),
        "aws_sqs_queue.dead_letters": queue("dead-letters"),
        "aws_sqs_queue.undelivered": queue("undelivered"),
    }
    for name in sorted(set(FUNCTIONS["queues"]) - {"dead-letters"}):
        given[f'aws_sqs_queue.this["{name}"]'] = queue(name)
    for name in FUNCTIONS["rules"]:
        given[f'aws_cloudwatch_event_rule.this["{name}"]'] = arn("events", f"rule/{NAME}-{name}")
    for name, function in FUNCTIONS["functions"].items():
        given[f'aws_lambda_function.this["{name}"]'] = arn("lambda", f"function:{NAME}-{name}")
        given[f'aws_iam_role.function["{name}"]'] = arn("iam", f"role/{NAME}-fn-{name}")
        group = arn("logs", f"log-group:/aws/lambda/{NAME}-{name}")
        given[f'aws_cloudwatch_log_group.this["{name}"]'] = group
        if function["trigger"]["type"] == "function_url":
            address = {"function_url": f"https://{name}.lambda-url.{REGION}.on.aws/"}
            given[f'aws_lambda_function_url.this["{name}"]'] = address
    return given


def _mock(data: str, **values: str) -> str:
    return f'  mock_data "{data}" {{\n    defaults = {json.dumps(values)}\n  }}\n'


def _override(target: str, values: dict[str, str]) -> str:
    body = f"  target          = {target}\n  override_during = plan\n  values          = {json.dumps(values)}\n"
    return f"override_resource {{\n{body}}}\n"


if __name__ == "__main__":
    sys.exit(main())
