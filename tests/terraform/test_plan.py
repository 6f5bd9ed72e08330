"""What Terraform makes is what the code needs: names, sizes, keys and wires of the plan are those of the code."""

from __future__ import annotations

import importlib
import json
import re
import runpy
from typing import TYPE_CHECKING, Any, Final

import pytest

from push_pools.domain.records import Timing
from push_pools.functions import counted
from push_pools.queues.eventbridge import SOURCE
from push_pools.queues.sqs import route_of
from push_pools.services.handle import MAX_TRIES
from push_pools.settings import Settings
from push_pools.stores.dynamodb_table import as_infra
from tests.terraform.bundles import ROOT
from tests.terraform.plan import FILE, Plan

if TYPE_CHECKING:
    from tests.terraform.terraform import Terraform

PLAN: Final = Plan.read()
INFRA: Final[dict[str, Any]] = json.loads((ROOT / "infra" / "functions.json").read_text())
NOT_OURS: Final = {"POWERTOOLS_LOG_LEVEL"}
"""What functions are told that is no setting of push_pools."""


def test_the_plan_is_what_terraform_makes_now(service: Terraform) -> None:
    made = runpy.run_path(str(ROOT / "scripts" / "make_plan.py"))["text"](service.copy)
    assert made == FILE.read_text(encoding="utf-8"), "run make terraform-plan, and look at what changed"


# -- functions


def test_every_function_is_installed_as_the_table_says() -> None:
    assert set(PLAN.functions) == set(INFRA["functions"])
    for name, entry in INFRA["functions"].items():
        planned = PLAN.functions[name]
        assert planned["handler"] == entry["handler"]
        assert (planned["memory_size"], planned["timeout"]) == (entry["memory_mb"], entry["timeout_seconds"])
        assert (planned["runtime"], planned["architectures"]) == (INFRA["runtime"], [INFRA["architecture"]])


@pytest.mark.parametrize("name", sorted(PLAN.functions))
def test_its_handler_is_there(name: str) -> None:
    module, _, function = PLAN.functions[name]["handler"].rpartition(".")
    assert callable(getattr(importlib.import_module(module), function))


@pytest.mark.parametrize("name", sorted(PLAN.functions))
def test_its_environment_is_understood_and_leads_to_what_is_made(name: str) -> None:
    environ = PLAN.environ(name)
    assert {each for each in environ if not each.startswith("PUSH_POOLS_")} == NOT_OURS
    settings = Settings.from_environ(environ)
    assert settings.aws_table == PLAN.one("aws_dynamodb_table.ledger")["name"]
    assert settings.aws_bus == PLAN.one("aws_cloudwatch_event_bus.published")["name"]
    assert settings.aws_kms_key == PLAN.outputs["kms_key_arn"]
    assert {each["name"] for each in PLAN.queues.values()} >= {
        settings.aws_queue_prefix + queue for queue in INFRA["queues"]
    }
    is_webhook = INFRA["functions"][name]["trigger"]["type"] == "function_url"
    assert bool(settings.webhook_secret and settings.webhook_issuer and settings.webhook_subjects) == is_webhook


def test_the_command_line_is_led_to_the_same() -> None:
    given = dict(re.findall(r"(?m)^export (\w+)='(.*)'$", PLAN.outputs["cli"]))
    assert given.pop("AWS_REGION") == PLAN.outputs["region"]
    assert Settings.from_environ(given) == Settings.from_environ(
        {name: value for name, value in PLAN.environ("admin").items() if name not in NOT_OURS}
    )


# -- queues


def test_every_function_that_reads_a_queue_is_mapped_to_it_and_takes_partial_answers() -> None:
    read = {name for name, entry in INFRA["functions"].items() if entry["trigger"]["type"] == "sqs"}
    assert set(PLAN.mappings) == read
    for name, mapping in PLAN.mappings.items():
        trigger = INFRA["functions"][name]["trigger"]
        assert PLAN.queues[mapping["event_source_arn"]]["name"].endswith(f"-{trigger['queue']}")
        assert mapping["function_response_types"] == ["ReportBatchItemFailures"]
        assert mapping["batch_size"] == trigger["batch_size"]
        assert mapping["scaling_config"] == [{"maximum_concurrency": trigger["maximum_concurrency"]}]


def test_what_is_sent_goes_where_it_is_read() -> None:
    """`submit_…` reads what asks it to act, `poll_…` what asks it to look."""
    for name, mapping in PLAN.mappings.items():
        kind, _, cloud = name.partition("_")
        platform = {"ecs": "ecs:push", "cloud_run": "cloud-run-v2:push", "aci": "azure-container-instance:push"}[cloud]
        message = {"version": 1, "platform": platform, "type": "sweep"}
        if kind == "submit":
            message |= {"type": "submit", "run_id": "x"}
        prefix = PLAN.environ(name)["PUSH_POOLS_AWS_QUEUE_PREFIX"]
        queue = PLAN.queues[mapping["event_source_arn"]]
        assert queue["name"] == prefix + route_of(json.dumps(message)).queue


def test_a_message_stays_hidden_for_six_times_as_long_as_its_function_may_work() -> None:
    """AWS asks for it, so that throttled batches are not counted as receives."""
    for name, mapping in PLAN.mappings.items():
        queue = PLAN.queues[mapping["event_source_arn"]]
        assert queue["visibility_timeout_seconds"] >= 6 * PLAN.functions[name]["timeout"]
        assert queue["visibility_timeout_seconds"] >= Timing().claim_seconds


def test_what_cannot_be_handled_or_delivered_is_kept() -> None:
    """Every queue, rule and schedule has dead letters, and these are kept for longer than what is in the queue."""
    dead, undelivered = (PLAN.one(f"aws_sqs_queue.{name}") for name in ("dead_letters", "undelivered"))
    for arn, queue in PLAN.queues.items():
        if queue in (dead, undelivered):
            assert "redrive_policy" not in queue
            assert queue["message_retention_seconds"] == 14 * 24 * 3600
            continue
        assert PLAN.queues[queue["redrive_policy"]["deadLetterTargetArn"]] == dead
        assert queue["redrive_policy"]["maxReceiveCount"] > MAX_TRIES, arn
        assert queue["message_retention_seconds"] < dead["message_retention_seconds"]
    for target in PLAN.listed("aws_cloudwatch_event_target"):
        assert PLAN.queues[target["dead_letter_config"][0]["arn"]] == undelivered
    for schedule in PLAN.listed("aws_scheduler_schedule"):
        assert PLAN.queues[schedule["target"][0]["dead_letter_config"][0]["arn"]] == undelivered


def test_events_of_ecs_may_be_sent_to_the_queue_that_their_rule_names() -> None:
    rules, targets = PLAN.of_type("aws_cloudwatch_event_rule"), PLAN.of_type("aws_cloudwatch_event_target")
    policies = PLAN.of_type("aws_sqs_queue_policy")
    assert set(rules) == set(targets) == set(INFRA["rules"])
    for name, target in targets.items():
        assert target["rule"] == rules[name]["name"]
        assert rules[name]["event_pattern"] == INFRA["rules"][name]["pattern"]
        (statement,) = policies[name]["policy"]["Statement"]
        assert statement["Resource"] == target["arn"]
        assert policies[name]["queue_url"].endswith("/" + PLAN.queues[target["arn"]]["name"])
        assert statement["Condition"]["ArnEquals"]["aws:SourceArn"].endswith(f"rule/{target['rule']}")
        assert PLAN.function_of(PLAN.mappings["poll_ecs"]["function_name"]) == "poll_ecs"
        assert PLAN.mappings["poll_ecs"]["event_source_arn"] == target["arn"]


# -- the ledger


def test_the_table_is_that_of_the_store() -> None:
    wanted = as_infra()
    table, planned = wanted["table"], PLAN.one("aws_dynamodb_table.ledger")
    attributes = sorted((each["AttributeName"], each["AttributeType"]) for each in table["AttributeDefinitions"])
    assert sorted((each["name"], each["type"]) for each in planned["attribute"]) == attributes
    keys = {each["KeyType"]: each["AttributeName"] for each in table["KeySchema"]}
    assert (planned["hash_key"], planned["range_key"]) == (keys["HASH"], keys["RANGE"])
    indexes = {each["name"]: each for each in planned["global_secondary_index"]}
    assert set(indexes) == {each["IndexName"] for each in table["GlobalSecondaryIndexes"]}
    for each in table["GlobalSecondaryIndexes"]:
        index = indexes[each["IndexName"]]
        keys = {key["KeyType"]: key["AttributeName"] for key in each["KeySchema"]}
        assert (index["hash_key"], index["range_key"]) == (keys["HASH"], keys["RANGE"])
        assert index["projection_type"] == each["Projection"]["ProjectionType"]
        assert sorted(index.get("non_key_attributes", [])) == sorted(each["Projection"].get("NonKeyAttributes", []))
    ttl = wanted["time_to_live"]
    assert planned["ttl"] == [{"attribute_name": ttl["AttributeName"], "enabled": ttl["Enabled"]}]
    assert planned["billing_mode"] == table["BillingMode"]
    assert planned["deletion_protection_enabled"]
    assert planned["point_in_time_recovery"] == [{"enabled": True}]


# -- the clock, and who may do what


def test_the_clock_ticks_every_minute_and_may() -> None:
    (schedule,) = PLAN.listed("aws_scheduler_schedule")
    target = schedule["target"][0]
    assert schedule["schedule_expression"] == "rate(1 minute)"
    assert schedule["flexible_time_window"] == [{"mode": "OFF"}]
    assert PLAN.function_of(target["arn"]) == "schedule"
    role = PLAN.one("aws_iam_role.scheduler")
    assert target["role_arn"].endswith(f"role/{role['name']}")
    allowed = PLAN.one("aws_iam_role_policy.scheduler")
    assert allowed["role"] == role["name"]
    assert [(each["Action"], each["Resource"]) for each in allowed["policy"]["Statement"]] == [
        (["lambda:InvokeFunction"], [target["arn"]]),
        (["sqs:SendMessage"], [target["dead_letter_config"][0]["arn"]]),
    ]


@pytest.mark.parametrize("name", sorted(PLAN.functions))
def test_each_function_has_a_role_and_a_log_of_its_own(name: str) -> None:
    function = PLAN.functions[name]
    role, group = PLAN.of_type("aws_iam_role")[name], PLAN.of_type("aws_cloudwatch_log_group")[name]
    assert function["role"].endswith(f"role/{role['name']}")
    trusted = [each["Principal"] for each in role["assume_role_policy"]["Statement"]]
    assert trusted == [{"Service": "lambda.amazonaws.com"}]
    assert function["logging_config"] == [{"log_format": "Text", "log_group": group["name"]}]
    written = [each["Resource"] for each in PLAN.statements(name) if "logs:PutLogEvents" in each["Action"]]
    assert written == [[f"arn:aws:logs:eu-west-1:123456789012:log-group:{group['name']}:*"]]


def test_the_url_can_be_called_and_nothing_else_by_everybody() -> None:
    url = PLAN.of_type("aws_lambda_function_url")
    assert set(url) == {"webhook"}
    assert PLAN.outputs["webhook_url"].startswith("https://")
    permission = PLAN.of_type("aws_lambda_permission")["webhook"]
    assert permission["action"] == "lambda:InvokeFunctionUrl"
    stack = PLAN.of_type("aws_cloudformation_stack")["webhook"]["template_body"]["Resources"]["InvokedByUrl"]
    assert stack["Type"] == "AWS::Lambda::Permission"
    assert stack["Properties"]["Action"] == "lambda:InvokeFunction"
    assert stack["Properties"]["InvokedViaFunctionUrl"] is True
    assert (
        permission["function_name"] == stack["Properties"]["FunctionName"] == PLAN.functions["webhook"]["function_name"]
    )


# -- alarms


Metric = tuple[str, str, dict[str, str]]
"""A namespace, a name and dimensions."""


def alarmed() -> list[Metric]:
    alarms = PLAN.listed("aws_cloudwatch_metric_alarm")
    return [(each["namespace"], each["metric_name"], each["dimensions"]) for each in alarms]


def shown() -> list[Metric]:
    widgets = PLAN.one("aws_cloudwatch_dashboard.this")["dashboard_body"]["widgets"]
    listed = [metric for widget in widgets for metric in widget["properties"]["metrics"]]
    return [(space, name, dict(zip(rest[::2], rest[1::2], strict=True))) for space, name, *rest in listed]


def emitted() -> set[str]:
    """Return the names of what functions count."""
    source = "".join(path.read_text() for path in (ROOT / "push_pools" / "functions").glob("*.py"))
    return {*re.findall(r'\bcount\("(\w+)"', source), counted.RUNS_FAILED, counted.ERRORS_LOGGED}


def test_what_is_counted_is_documented() -> None:
    page = (ROOT / "docs" / "aws.md").read_text(encoding="utf-8")
    assert not [name for name in emitted() if f"`{name}`" not in page]


def test_alarms_and_dashboard_are_about_what_is_there() -> None:
    queues = {each["name"] for each in PLAN.queues.values()}
    functions = {each["function_name"] for each in PLAN.functions.values()}
    table = PLAN.one("aws_dynamodb_table.ledger")["name"]
    for namespace, name, dimensions in [*alarmed(), *shown()]:
        ((key, value),) = dimensions.items()
        match namespace:
            case "AWS/SQS":
                assert (key, value in queues) == ("QueueName", True)
            case "AWS/Lambda":
                assert (key, value in functions) == ("FunctionName", True)
            case "AWS/DynamoDB":
                assert (key, value) == ("TableName", table)
            case _:
                assert namespace == SOURCE
                assert name in emitted(), f"nothing counts {name}"
                assert (key, value) == ("service", PLAN.environ("submit_ecs")["PUSH_POOLS_AWS_TABLE"])


def test_what_should_wake_somebody_does() -> None:
    found = {(name, *dimensions.values()) for _, name, dimensions in alarmed()}
    dead, undelivered = (PLAN.one(f"aws_sqs_queue.{name}")["name"] for name in ("dead_letters", "undelivered"))
    assert {("ApproximateNumberOfMessagesVisible", name) for name in (dead, undelivered)} <= found
    read = {each["name"] for each in PLAN.queues.values()} - {dead, undelivered}
    assert {("ApproximateAgeOfOldestMessage", name) for name in read} <= found
    assert {("Errors", each["function_name"]) for each in PLAN.functions.values()} <= found
    table = PLAN.one("aws_dynamodb_table.ledger")["name"]
    assert {(counted.RUNS_FAILED, table), (counted.ERRORS_LOGGED, table)} <= found
    (tick,) = (each for each in PLAN.listed("aws_cloudwatch_metric_alarm") if each["metric_name"] == "Invocations")
    assert tick["dimensions"] == {"FunctionName": PLAN.functions["schedule"]["function_name"]}
    assert (tick["comparison_operator"], tick["treat_missing_data"]) == ("LessThanThreshold", "breaching")
