mock_provider "aws" {
  mock_data "aws_region" {
    defaults = { region = "eu-west-1" }
  }
  mock_data "aws_caller_identity" {
    defaults = { account_id = "123456789012" }
  }
  mock_data "aws_partition" {
    defaults = { partition = "aws" }
  }
  mock_resource "aws_dynamodb_table" {
    defaults = { arn = "arn:aws:dynamodb:eu-west-1:123456789012:table/jobs" }
  }
  mock_resource "aws_kms_key" {
    defaults = { arn = "arn:aws:kms:eu-west-1:123456789012:key/1", key_id = "1" }
  }
  mock_resource "aws_cloudwatch_event_bus" {
    defaults = { arn = "arn:aws:events:eu-west-1:123456789012:event-bus/jobs" }
  }
  mock_resource "aws_cloudwatch_event_rule" {
    defaults = { arn = "arn:aws:events:eu-west-1:123456789012:rule/jobs" }
  }
  mock_resource "aws_cloudwatch_log_group" {
    defaults = { arn = "arn:aws:logs:eu-west-1:123456789012:log-group:/aws/lambda/jobs" }
  }
  mock_resource "aws_sqs_queue" {
    defaults = {
      arn = "arn:aws:sqs:eu-west-1:123456789012:jobs"
      url = "https://sqs.eu-west-1.amazonaws.com/123456789012/jobs"
    }
  }
  mock_resource "aws_iam_role" {
    defaults = { arn = "arn:aws:iam::123456789012:role/jobs" }
  }
  mock_resource "aws_lambda_function" {
    defaults = { arn = "arn:aws:lambda:eu-west-1:123456789012:function:jobs" }
  }
}

variables {
  name    = "jobs"
  package = { s3 = { bucket = "releases", key = "functions.zip" }, sha256_base64 = "AM/yvikli74jU3sIG7kJ0Mq+DIYzM9nL0QZPXOl4vnU=" }
}

run "by_default" {
  command = apply

  assert {
    condition     = toset(keys(aws_lambda_function.this)) == toset(["admin", "schedule", "submit_ecs", "poll_ecs"])
    error_message = "By default the functions of ECS are installed, and no webhook."
  }
  assert {
    condition     = toset(keys(aws_sqs_queue.this)) == toset(["submit-ecs", "poll-ecs"])
    error_message = "There is a queue for each function of ECS, and none of other clouds."
  }
  assert {
    condition     = alltrue([for queue in aws_sqs_queue.this : jsondecode(queue.redrive_policy).deadLetterTargetArn == aws_sqs_queue.dead_letters.arn])
    error_message = "Every queue has the dead letters."
  }
  assert {
    condition     = alltrue([for mapping in aws_lambda_event_source_mapping.this : mapping.function_response_types == toset(["ReportBatchItemFailures"])])
    error_message = "Every mapping takes partial answers."
  }
  assert {
    condition     = alltrue([for function in aws_lambda_function.this : length(function.vpc_config) == 0])
    error_message = "No function is in a VPC."
  }
  assert {
    condition     = aws_dynamodb_table.ledger.deletion_protection_enabled && aws_dynamodb_table.ledger.point_in_time_recovery[0].enabled
    error_message = "The ledger is protected, and can be restored."
  }
  assert {
    condition     = strcontains(aws_iam_role_policy.function["submit_ecs"].policy, "arn:aws:ecs:eu-west-1:123456789012:cluster/jobs-*")
    error_message = "submit_ecs may use the clusters of this installation's pools, and no others."
  }
  assert {
    condition     = alltrue([for each in aws_iam_role_policy.function : !strcontains(each.policy, "$${")])
    error_message = "Every place of a policy is filled in."
  }
  assert {
    condition     = output.webhook_url == null
    error_message = "There is no URL."
  }
  assert {
    condition     = strcontains(output.cli, "export PUSH_POOLS_AWS_TABLE='jobs'")
    error_message = "The output cli leads the command line to the table."
  }
}

run "what_platform_teams_ask_for" {
  command = apply
  variables {
    kms_key_arn          = "arn:aws:kms:eu-west-1:123456789012:key/ours"
    permissions_boundary = "arn:aws:iam::123456789012:policy/bound"
    vpc_config           = { subnet_ids = ["subnet-1"], security_group_ids = ["sg-1"] }
    webhook              = { enabled = true, issuer = "https://issuer.example", audience = "jobs", subjects = ["a", "b"] }
    region               = "eu-west-1"
    reserved_concurrency = { submit_ecs = 10 }
    alarm_actions        = ["arn:aws:sns:eu-west-1:123456789012:pager"]
    failed_runs          = 3
    deletion_protection  = false
  }

  assert {
    condition     = length(aws_kms_key.blocks) == 0 && aws_lambda_function.this["admin"].environment[0].variables.PUSH_POOLS_AWS_KMS_KEY == var.kms_key_arn
    error_message = "Your key is used, and none is made."
  }
  assert {
    condition     = alltrue([for role in aws_iam_role.function : role.permissions_boundary == var.permissions_boundary])
    error_message = "Every role is bounded."
  }
  assert {
    condition     = alltrue([for function in aws_lambda_function.this : one(function.vpc_config).subnet_ids == toset(["subnet-1"])])
    error_message = "Every function is in the VPC."
  }
  assert {
    condition     = aws_lambda_function.this["webhook"].environment[0].variables.PUSH_POOLS_WEBHOOK_SUBJECTS == "a,b" && output.webhook_url != null
    error_message = "The webhook knows whose tokens it takes."
  }
  assert {
    condition     = aws_lambda_function.this["submit_ecs"].reserved_concurrent_executions == 10
    error_message = "The concurrency is reserved."
  }
  assert {
    condition     = alltrue([for alarm in aws_cloudwatch_metric_alarm.oldest : alarm.alarm_actions == toset(var.alarm_actions)]) && length(aws_cloudwatch_metric_alarm.failed) == 1
    error_message = "Alarms call what they are told to."
  }
}

# -- bad input is refused before anything is made

run "a_name_with_illegal_characters" {
  command = plan
  variables {
    name = "Our Jobs"
  }
  expect_failures = [var.name]
}

run "a_cloud_that_is_not_there" {
  command = plan
  variables {
    platforms = ["ecs", "mainframe"]
  }
  expect_failures = [var.platforms]
}

run "two_packages" {
  command = plan
  variables {
    package = { path = "x.zip", s3 = { bucket = "b", key = "k", object_version = "1" } }
  }
  expect_failures = [var.package]
}

run "a_package_whose_changes_are_not_noticed" {
  command = plan
  variables {
    package = { s3 = { bucket = "b", key = "k" } }
  }
  expect_failures = [var.package]
}

run "another_region" {
  command = plan
  variables {
    region = "us-east-1"
  }
  expect_failures = [aws_dynamodb_table.ledger]
}

run "reserved_below_the_maximum" {
  command = plan
  variables {
    reserved_concurrency = { submit_ecs = 9 }
  }
  expect_failures = [var.reserved_concurrency]
}

run "a_webhook_for_everybody" {
  command = plan
  variables {
    webhook = { enabled = true }
  }
  expect_failures = [var.webhook]
}

run "tokens_of_everybody" {
  command = plan
  variables {
    webhook = { enabled = true, issuer = "https://issuer.example" }
  }
  expect_failures = [var.webhook]
}

run "a_setting_of_the_module" {
  command = plan
  variables {
    settings = { PUSH_POOLS_AWS_TABLE = "other" }
  }
  expect_failures = [var.settings]
}

run "odd_numbers" {
  command = plan
  variables {
    log_retention_days     = 8
    failed_runs            = -1
    oldest_message_seconds = 1
  }
  expect_failures = [var.log_retention_days, var.failed_runs, var.oldest_message_seconds]
}

run "no_key_no_cluster_no_subnet" {
  command = plan
  variables {
    kms_key_arn = "alias/ours"
    ecs         = { cluster_arn = "default" }
    vpc_config  = { subnet_ids = [], security_group_ids = [] }
    log_level   = "LOUD"
  }
  expect_failures = [var.kms_key_arn, var.ecs, var.vpc_config, var.log_level]
}
