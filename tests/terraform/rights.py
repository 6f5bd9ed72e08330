"""What calls of AWS need to be allowed, and whether policies allow it: as much of IAM as these policies use."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

REGION: Final = "eu-west-1"
BY_LAMBDA: Final = frozenset(
    {
        *("logs:CreateLogStream", "logs:PutLogEvents"),
        *("sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"),
    }
)
"""What Lambda itself does with the role of a function: it writes its log, and reads its queue."""


@dataclass(frozen=True)
class Asked:
    """One action on one resource; `context` are the condition keys that AWS would know."""

    action: str
    resource: str
    context: dict[str, str] = field(default_factory=dict)


def asked(call: dict[str, Any], account: str, key: str) -> Iterator[Asked]:
    """Return what a recorded call needs to be allowed, by the service authorization reference.

    `key` is the ARN of the key that sealed what is opened; KMS finds it in what it is given.

    Raises:
        AssertionError: It is a call of which this does not know what it needs.
    """
    service, operation, params = call["service"], call["operation"], call["params"]

    def arn(kind: str, name: str, of: str = service) -> str:
        return name if name.startswith("arn:") else f"arn:aws:{of}:{REGION}:{account}:{kind}{name}"

    match service, operation:
        case "dynamodb", "TransactWriteItems":
            for part in params["TransactItems"]:
                ((kind, one),) = part.items()
                action = {"ConditionCheck": "ConditionCheckItem"}.get(kind, f"{kind}Item")
                yield Asked(f"dynamodb:{action}", arn("table/", one["TableName"]))
        case "dynamodb", "BatchGetItem":
            for table in params["RequestItems"]:
                yield Asked("dynamodb:BatchGetItem", arn("table/", table))
        case "dynamodb", _:
            index = f"/index/{params['IndexName']}" if "IndexName" in params else ""
            yield Asked(f"dynamodb:{operation}", arn("table/", params["TableName"]) + index)
        case "sqs", _:
            queue = params.get("QueueName") or params["QueueUrl"].rpartition("/")[2]
            yield Asked(f"sqs:{operation.removesuffix('Batch')}", arn("", queue))
        case "events", "PutEvents":
            for entry in params["Entries"]:
                yield Asked("events:PutEvents", arn("event-bus/", entry["EventBusName"]))
        case "kms", "Decrypt" | "GenerateDataKey":
            context = {f"kms:EncryptionContext:{name}": value for name, value in params["EncryptionContext"].items()}
            yield Asked(f"kms:{operation}", params.get("KeyId", key), context)
        case "logs", "GetLogEvents":
            stream = f"{params['logGroupName']}:log-stream:{params['logStreamName']}"
            yield Asked("logs:GetLogEvents", arn("log-group:", stream))
        case "ecs", _:
            yield from _asked_of_ecs(operation, params, arn)
        case "ec2", "DescribeSubnets" | "DescribeVpcs":
            yield Asked(f"ec2:{operation}", "*")
        case "sts", "GetWebIdentityToken":
            (audience,) = params["Audience"]
            yield Asked("sts:GetWebIdentityToken", "*", {"sts:IdentityTokenAudience": audience})
        case _:
            raise AssertionError(f"what does {service}:{operation} need?")


def _asked_of_ecs(operation: str, params: dict[str, Any], arn: Any) -> Iterator[Asked]:
    cluster = {"ecs:cluster": arn("cluster/", params["cluster"])} if "cluster" in params else {}
    name = str(params.get("cluster", "")).rpartition("/")[2]
    match operation:
        case "RunTask":
            yield Asked("ecs:RunTask", arn("task-definition/", params["taskDefinition"]), cluster)
            if params.get("tags"):
                yield Asked("ecs:TagResource", arn(f"task/{name}/", "new"), {"ecs:CreateAction": "RunTask"})
            yield from _asked_to_pass(params.get("overrides", {}))
        case "RegisterTaskDefinition":
            yield Asked("ecs:RegisterTaskDefinition", "*")
            if params.get("tags"):
                context = {"ecs:CreateAction": "RegisterTaskDefinition"}
                yield Asked("ecs:TagResource", arn("task-definition/", f"{params['family']}:1"), context)
            yield from _asked_to_pass(params)
        case "DescribeTaskDefinition":
            yield Asked("ecs:DescribeTaskDefinition", "*")
        case "ListTasks":
            yield Asked("ecs:ListTasks", "*", cluster)
        case "DescribeTasks":
            for task in params["tasks"]:
                yield Asked("ecs:DescribeTasks", arn(f"task/{name}/", task), cluster)
        case "StopTask":
            yield Asked("ecs:StopTask", arn(f"task/{name}/", params["task"]), cluster)
        case _:
            raise AssertionError(f"what does ecs:{operation} need?")


def _asked_to_pass(roles: dict[str, Any]) -> Iterator[Asked]:
    for each in ("executionRoleArn", "taskRoleArn"):
        if roles.get(each):
            yield Asked("iam:PassRole", roles[each], {"iam:PassedToService": "ecs-tasks.amazonaws.com"})


def is_allowed(one: Asked, statements: Iterable[dict[str, Any]]) -> bool:
    """Whether some statement allows it."""
    return any(
        statement["Effect"] == "Allow"
        and one.action in statement["Action"]
        and any(_fits(pattern, one.resource) for pattern in statement["Resource"])
        and all(_holds(test, keys, one.context) for test, keys in statement.get("Condition", {}).items())
        for statement in statements
    )


def granted(statements: Iterable[dict[str, Any]]) -> set[str]:
    """Return the actions that statements allow, on whatever."""
    return {action for statement in statements for action in statement["Action"]}


def _fits(pattern: str, text: str) -> bool:
    return re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), text) is not None


def _holds(test: str, keys: dict[str, Any], context: dict[str, str]) -> bool:
    operator = test.removeprefix("ForAllValues:")
    assert operator in ("StringEquals", "ArnEquals"), f"what is {test}?"
    for key, wanted in keys.items():
        if key not in context:
            if test == operator:  # ForAllValues holds where there is no value.
                return False
            continue
        values = wanted if isinstance(wanted, list) else [wanted]
        fits = _fits if operator == "ArnEquals" else str.__eq__
        if not any(fits(value, context[key]) for value in values):
            return False
    return True
