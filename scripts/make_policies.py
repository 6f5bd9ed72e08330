"""Write `infra/policies/`, and its table in `docs/aws.md`: what each function, and whoever types commands, may do.

`${…}` are for whoever deploys: ARNs of one installation. `${queue_arn_prefix}` is the ARN of its queues up to and with
their prefix. Tests compare what is written.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = Path(__file__).resolve().parent.parent / "docs" / "aws.md"
PLACE = re.compile(r"(<!-- made by scripts/make_policies\.py: rights -->\n).*?(<!-- end -->)", re.DOTALL)
COMMON = ("Log", "Ledger")
"""Statements that all functions have."""
SHOWN = {
    "${log_group_arn}:*": "its log group",
    "${table_arn}": "the table",
    "${table_arn}/index/*": "its indexes",
    "${bus_arn}": "the bus",
    "${kms_key_arn}": "the key",
    "${task_definition_arn_prefix}*": "your task definitions",
    "${task_arn_prefix}*": "the cluster's tasks",
    "${execution_role_arn}": "the execution role",
    "${task_role_arn}": "the task role",
    "${task_log_group_arn}:*": "the tasks' log group",
    "*": "`*`",
}
"""What stands for what, to people."""
FOLDER = Path(__file__).resolve().parent.parent / "infra" / "policies"
Statement = dict[str, Any]


def allow(sid: str, actions: list[str], resources: list[str], **conditions: dict[str, Any]) -> Statement:
    """Return a statement; conditions are by operator."""
    statement: Statement = {"Sid": sid, "Effect": "Allow", "Action": actions, "Resource": resources}
    return {**statement, "Condition": conditions} if conditions else statement


def ledger() -> Statement:
    return allow(
        "Ledger",
        [
            "dynamodb:BatchGetItem",
            "dynamodb:DeleteItem",
            "dynamodb:GetItem",
            "dynamodb:PutItem",
            "dynamodb:Query",
            "dynamodb:UpdateItem",
        ],
        ["${table_arn}", "${table_arn}/index/*"],
    )


def log() -> Statement:
    return allow("Log", ["logs:CreateLogStream", "logs:PutLogEvents"], ["${log_group_arn}:*"])


def send(*queues: str) -> Statement:
    return allow("Send", ["sqs:GetQueueUrl", "sqs:SendMessage"], [f"${{queue_arn_prefix}}{queue}" for queue in queues])


def receive(queue: str) -> Statement:
    # What Lambda needs to read a queue for a function (AWSLambdaSQSQueueExecutionRole), and no more.
    actions = ["sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:ReceiveMessage"]
    return allow("Receive", actions, [f"${{queue_arn_prefix}}{queue}"])


def publish() -> Statement:
    return allow("Publish", ["events:PutEvents"], ["${bus_arn}"])


def secrets(*actions: str) -> Statement:
    context = {"kms:EncryptionContext:push_pools": "block"}
    return allow("Secrets", [f"kms:{each}" for each in actions], ["${kms_key_arn}"], StringEquals=context)


def tasks(sid: str, *actions: str) -> Statement:
    cluster = {"ecs:cluster": "${cluster_arn}"}
    return allow(sid, [f"ecs:{each}" for each in actions], ["${task_arn_prefix}*"], ArnEquals=cluster)


def list_tasks() -> Statement:
    return allow("FindTasks", ["ecs:ListTasks"], ["*"], ArnEquals={"ecs:cluster": "${cluster_arn}"})


def submit_ecs() -> list[Statement]:
    return [
        log(),
        ledger(),
        receive("submit-ecs"),
        send("submit-*", "dead-letters"),
        publish(),
        secrets("Decrypt"),
        allow(
            "RunTask",
            ["ecs:RunTask"],
            ["${task_definition_arn_prefix}*"],
            ArnEquals={"ecs:cluster": "${cluster_arn}"},
        ),
        tasks("WatchAndStopTasks", "DescribeTasks", "StopTask"),
        list_tasks(),
        allow("TaskDefinitions", ["ecs:DescribeTaskDefinition", "ecs:RegisterTaskDefinition"], ["*"]),
        allow(
            "Tag",
            ["ecs:TagResource"],
            ["${task_arn_prefix}*", "${task_definition_arn_prefix}*"],
            StringEquals={"ecs:CreateAction": ["RunTask", "RegisterTaskDefinition"]},
        ),
        allow(
            "PassRoles",
            ["iam:PassRole"],
            ["${execution_role_arn}", "${task_role_arn}"],
            StringEquals={"iam:PassedToService": "ecs-tasks.amazonaws.com"},
        ),
        allow("DefaultNetwork", ["ec2:DescribeSubnets", "ec2:DescribeVpcs"], ["*"]),
    ]


def poll_ecs() -> list[Statement]:
    return [
        log(),
        ledger(),
        receive("poll-ecs"),
        send("submit-*", "dead-letters"),
        publish(),
        secrets("Decrypt"),
        tasks("WatchTasks", "DescribeTasks"),
    ]


def elsewhere(queue: str) -> list[Statement]:
    """What a function needs of AWS whose jobs run at another cloud, by the federation of its own role."""
    return [log(), ledger(), receive(queue), send("submit-*", "dead-letters"), publish(), secrets("Decrypt")]


def proven_to_azure(queue: str) -> list[Statement]:
    """The same, and a token of AWS that Entra ID trusts; AWS limits the call by whom the token is for."""
    audience = {"sts:IdentityTokenAudience": "api://AzureADTokenExchange"}
    prove = allow("ProveIdentity", ["sts:GetWebIdentityToken"], ["*"], **{"ForAllValues:StringEquals": audience})
    return [*elsewhere(queue), prove]


def operator() -> list[Statement]:
    """What the command line needs, for all of its commands."""
    return [
        ledger(),
        send("submit-*"),
        allow(
            "DeadLetters",
            ["sqs:ChangeMessageVisibility", "sqs:DeleteMessage", "sqs:GetQueueUrl", "sqs:ReceiveMessage"],
            ["${queue_arn_prefix}dead-letters"],
        ),
        allow("Replay", ["sqs:GetQueueUrl", "sqs:SendMessage"], ["${queue_arn_prefix}poll-*"]),
        publish(),
        secrets("Decrypt", "GenerateDataKey"),
        allow("Output", ["logs:GetLogEvents"], ["${task_log_group_arn}:*"]),
        tasks("LookAtTasks", "DescribeTasks"),
    ]


def policies() -> dict[str, str]:
    """Return the text of every policy by its file name."""
    statements = {
        "schedule": [log(), ledger(), send("submit-*", "poll-*"), publish()],
        "submit_ecs": submit_ecs(),
        "poll_ecs": poll_ecs(),
        "submit_aci": proven_to_azure("submit-aci"),
        "poll_aci": proven_to_azure("poll-aci"),
        "submit_cloud_run": elsewhere("submit-cloud-run"),
        "poll_cloud_run": elsewhere("poll-cloud-run"),
        "admin": [log(), ledger(), send("submit-*"), secrets("GenerateDataKey")],
        "webhook": [log(), ledger(), send("submit-*"), publish(), secrets("Decrypt")],
        "operator": operator(),
    }
    return {
        f"{name}.json": json.dumps({"Version": "2012-10-17", "Statement": listed}, indent=2) + "\n"
        for name, listed in statements.items()
    }


def rights() -> Iterator[str]:
    """Yield the rows of the table: every action of every policy, on what, and under which conditions."""
    statements = {name.removesuffix(".json"): json.loads(text)["Statement"] for name, text in policies().items()}
    yield "| who | may |"
    yield "| --- | --- |"
    common = [each for each in statements["schedule"] if each["Sid"] in COMMON]
    yield f"| all functions | {' · '.join(map(_told, common))} |"
    for name, listed in statements.items():
        who = "the command line (`operator.json`)" if name == "operator" else f"`{name}`"
        own = [each for each in listed if name == "operator" or each["Sid"] not in COMMON]
        yield f"| {who} | {' · '.join(map(_told, own))} |"


def _told(statement: Statement) -> str:
    actions = ", ".join(f"`{each}`" for each in statement["Action"])
    conditions = [
        f"`{key}` is {_listed(values)}"
        for each in statement.get("Condition", {}).values()
        for key, values in each.items()
    ]
    under = f", if {' and '.join(conditions)}" if conditions else ""
    return f"{actions} on {' and '.join(map(_resource, statement['Resource']))}{under}"


def _resource(text: str) -> str:
    queue = text.removeprefix("${queue_arn_prefix}")
    return SHOWN[text] if queue == text else f"queue{'s' if '*' in queue else ''} `{queue}`"


def _listed(values: Any) -> str:
    listed = values if isinstance(values, list) else [values]
    return " or ".join("the cluster" if each == "${cluster_arn}" else f"`{each}`" for each in listed)


def page(text: str) -> str:
    """Return the page with the table as the policies are."""
    return PLACE.sub(lambda found: found[1] + "\n".join(rights()) + "\n" + found[2], text)


def main() -> None:
    """Write the table and every policy, and remove those of functions that are gone."""
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    FOLDER.mkdir(parents=True, exist_ok=True)
    wanted = policies()
    for path in FOLDER.glob("*.json"):
        if path.name not in wanted:
            path.unlink()
    for name, text in wanted.items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
