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
  mock_resource "aws_lambda_function_url" {
    defaults = { function_url = "https://jobs.lambda-url.eu-west-1.on.aws/" }
  }
  mock_resource "aws_lambda_function" {
    defaults = { arn = "arn:aws:lambda:eu-west-1:123456789012:function:jobs" }
  }
}

mock_provider "external" {
  mock_data "external" {
    defaults = { result = { path = ".terraform/push-pools/functions.zip", sha256_base64 = "AM/yvikli74jU3sIG7kJ0Mq+DIYzM9nL0QZPXOl4vnU=" } }
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
    condition = alltrue(concat(
      [for function in aws_lambda_function.this : startswith(function.function_name, "jobs-")],
      [for queue in aws_sqs_queue.this : startswith(queue.name, "jobs-")],
      [for role in aws_iam_role.function : startswith(role.name, "jobs-")],
      [for group in aws_cloudwatch_log_group.this : startswith(group.name, "/aws/lambda/jobs-")],
      [for alarm in aws_cloudwatch_metric_alarm.oldest : startswith(alarm.alarm_name, "jobs-")],
      [for schedule in aws_scheduler_schedule.tick : startswith(schedule.name, "jobs-")],
      [for rule in aws_cloudwatch_event_rule.this : startswith(rule.name, "jobs-")],
      [aws_dynamodb_table.ledger.name == "jobs", aws_cloudwatch_event_bus.published.name == "jobs", aws_kms_alias.blocks[0].name == "alias/jobs-blocks"],
    ))
    error_message = "Every name begins with the installation's, so that two of them stand side by side."
  }
  assert {
    condition     = length(aws_kms_key.blocks) == 1 && aws_kms_key.blocks[0].enable_key_rotation
    error_message = "A key is made, and rotated."
  }
  assert {
    condition     = alltrue([for role in aws_iam_role.function : role.permissions_boundary == null])
    error_message = "No boundary is invented."
  }
  assert {
    condition     = alltrue([for function in aws_lambda_function.this : function.s3_bucket == "releases" && function.filename == null && function.source_code_hash == var.package.sha256_base64])
    error_message = "The functions are installed from S3, and anew when the hash changes."
  }
  assert {
    condition = (
      toset(keys(aws_cloudwatch_metric_alarm.depth)) == toset(["dead_letters", "undelivered"])
      && toset(keys(aws_cloudwatch_metric_alarm.oldest)) == toset(["submit-ecs", "poll-ecs"])
      && toset(keys(aws_cloudwatch_metric_alarm.ticks)) == toset(["schedule"])
      && aws_cloudwatch_metric_alarm.ticks["schedule"].treat_missing_data == "breaching"
      && aws_cloudwatch_metric_alarm.logged.dimensions == tomap({ service = "jobs" })
      && length(aws_cloudwatch_metric_alarm.failed) == 0
    )
    error_message = "There are alarms for dead letters, old messages, missed ticks and logged errors; failed runs have one when a number is given."
  }
  assert {
    condition     = length(jsondecode(aws_cloudwatch_dashboard.this.dashboard_body).widgets) == 8
    error_message = "There is one dashboard."
  }
  assert {
    condition     = output.webhook_url == null && length(aws_lambda_function_url.this) == 0 && length(aws_cloudformation_stack.url) == 0
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
    platforms            = ["ecs", "cloud_run", "aci"]
    kms_key              = { arn = "arn:aws:kms:eu-west-1:123456789012:key/ours" }
    permissions_boundary = "arn:aws:iam::123456789012:policy/bound"
    vpc_config           = { subnet_ids = ["subnet-1"], security_group_ids = ["sg-1"] }
    webhook              = { enabled = true, issuer = "https://issuer.example", audience = "jobs", subjects = ["a", "b"] }
    region               = "eu-west-1"
    reserved_concurrency = { submit_ecs = 10 }
    alarm_actions        = ["arn:aws:sns:eu-west-1:123456789012:pager"]
    failed_runs          = 3
    deletion_protection  = false
    log_retention_days   = 90
    log_level            = "WARNING"
    settings             = { PUSH_POOLS_ECS_RUN_TASK_PER_SECOND = "5" }
    tags                 = { team = "data" }
    package              = { url = "https://releases.example/functions.zip", sha256 = "00cff2be29258bbe23537b081bb909d0cabe0c863333d9cbd1064f5ce978be75" }
    ecs = {
      cluster_arn            = "arn:aws:ecs:eu-west-1:123456789012:cluster/ours"
      execution_role_arn     = "arn:aws:iam::123456789012:role/pull"
      task_role_arn          = "arn:aws:iam::123456789012:role/work"
      task_definition_prefix = "pp-"
    }
  }

  assert {
    condition     = toset(keys(aws_sqs_queue.this)) == toset(["submit-ecs", "poll-ecs", "submit-cloud-run", "poll-cloud-run", "submit-aci", "poll-aci"])
    error_message = "Each cloud has its queues."
  }
  assert {
    condition     = length(aws_kms_key.blocks) == 0 && aws_lambda_function.this["admin"].environment[0].variables.PUSH_POOLS_AWS_KMS_KEY == var.kms_key.arn && output.kms_key_arn == var.kms_key.arn
    error_message = "Your key is used, and none is made."
  }
  assert {
    condition     = strcontains(aws_iam_role_policy.function["admin"].policy, var.kms_key.arn)
    error_message = "The policies name your key."
  }
  assert {
    condition     = alltrue([for role in concat(values(aws_iam_role.function), [aws_iam_role.scheduler]) : role.permissions_boundary == var.permissions_boundary])
    error_message = "Every role is bounded."
  }
  assert {
    condition     = alltrue([for function in aws_lambda_function.this : one(function.vpc_config).subnet_ids == toset(["subnet-1"])]) && toset(keys(aws_iam_role_policy_attachment.vpc)) == toset(keys(aws_lambda_function.this))
    error_message = "Every function is in the VPC, and may be."
  }
  assert {
    condition     = aws_lambda_function.this["webhook"].environment[0].variables.PUSH_POOLS_WEBHOOK_SUBJECTS == "a,b" && output.webhook_url == "https://jobs.lambda-url.eu-west-1.on.aws/"
    error_message = "The webhook knows whose tokens it takes."
  }
  assert {
    condition = (
      aws_lambda_permission.url["webhook"].action == "lambda:InvokeFunctionUrl"
      && jsondecode(aws_cloudformation_stack.url["webhook"].template_body).Resources.InvokedByUrl.Properties.InvokedViaFunctionUrl
    )
    error_message = "The URL can be called, and only the URL."
  }
  assert {
    condition     = !can(aws_lambda_function.this["admin"].environment[0].variables.PUSH_POOLS_WEBHOOK_SUBJECTS) && aws_lambda_function.this["admin"].environment[0].variables.POWERTOOLS_LOG_LEVEL == "WARNING" && aws_lambda_function.this["submit_ecs"].environment[0].variables.PUSH_POOLS_ECS_RUN_TASK_PER_SECOND == "5"
    error_message = "Settings are given to those who need them."
  }
  assert {
    condition     = aws_lambda_function.this["submit_ecs"].reserved_concurrent_executions == 10
    error_message = "The concurrency is reserved."
  }
  assert {
    condition     = aws_lambda_function.this["admin"].filename == ".terraform/push-pools/functions.zip" && aws_lambda_function.this["admin"].source_code_hash != null
    error_message = "What was fetched from the URL is installed."
  }
  assert {
    condition = alltrue([for alarm in concat(
      values(aws_cloudwatch_metric_alarm.oldest), values(aws_cloudwatch_metric_alarm.depth), values(aws_cloudwatch_metric_alarm.ticks),
      values(aws_cloudwatch_metric_alarm.errors), aws_cloudwatch_metric_alarm.failed, [aws_cloudwatch_metric_alarm.logged],
    ) : alarm.alarm_actions == toset(var.alarm_actions)])
    error_message = "Alarms call what they are told to."
  }
  assert {
    condition     = aws_cloudwatch_metric_alarm.failed[0].threshold == 3 && aws_cloudwatch_metric_alarm.failed[0].metric_name == "RunsFailed"
    error_message = "Three failed runs an hour are an alarm."
  }
  assert {
    condition     = !aws_dynamodb_table.ledger.deletion_protection_enabled && alltrue([for group in aws_cloudwatch_log_group.this : group.retention_in_days == 90])
    error_message = "The ledger can be given up, and logs are kept as long as asked."
  }
  assert {
    condition = alltrue([for tags in concat(
      values(aws_lambda_function.this)[*].tags, values(aws_sqs_queue.this)[*].tags, values(aws_iam_role.function)[*].tags, values(aws_cloudwatch_log_group.this)[*].tags,
      values(aws_lambda_event_source_mapping.this)[*].tags, values(aws_cloudwatch_metric_alarm.oldest)[*].tags, values(aws_cloudwatch_event_rule.this)[*].tags,
      [aws_dynamodb_table.ledger.tags, aws_cloudwatch_event_bus.published.tags, aws_sqs_queue.dead_letters.tags, aws_sqs_queue.undelivered.tags, aws_iam_role.scheduler.tags],
    ) : tags == tomap({ team = "data" })])
    error_message = "Everything that can be has the tags."
  }
  assert {
    condition = alltrue([for part in [
      "\"arn:aws:ecs:eu-west-1:123456789012:cluster/ours\"", "\"arn:aws:ecs:eu-west-1:123456789012:task/ours/*\"", "task-definition/pp-*", "role/pull", "role/work",
    ] : strcontains(aws_iam_role_policy.function["submit_ecs"].policy, part)]) && !strcontains(aws_iam_role_policy.function["submit_ecs"].policy, "jobs-job-")
    error_message = "submit_ecs may use the cluster, definitions and roles that are named, and no others."
  }
}

run "another_cloud_alone" {
  command = plan
  variables {
    platforms = ["aci"]
    webhook   = { enabled = true, secret = "webhook" }
  }

  assert {
    condition     = toset(keys(aws_lambda_function.this)) == toset(["admin", "schedule", "submit_aci", "poll_aci", "webhook"]) && length(aws_cloudwatch_event_rule.this) == 0 && length(aws_sqs_queue_policy.undelivered) == 0
    error_message = "Nothing of ECS is installed."
  }
  assert {
    condition     = aws_lambda_function.this["webhook"].environment[0].variables.PUSH_POOLS_WEBHOOK_SECRET == "webhook"
    error_message = "The webhook knows the block of its secret."
  }
}

# -- bad input is refused before anything is made; tests/terraform/test_refusals.py reads the sentences

run "bad_input" {
  command = plan
  variables {
    name                   = "Our Jobs"
    platforms              = ["ecs", "mainframe"]
    package                = { s3 = { bucket = "b", key = "k" } }
    reserved_concurrency   = { submit_ecs = 9 }
    webhook                = { enabled = true }
    settings               = { PUSH_POOLS_AWS_TABLE = "other" }
    log_retention_days     = 8
    failed_runs            = -1
    oldest_message_seconds = 1
    kms_key                = { arn = "alias/ours" }
    permissions_boundary   = "bound"
    alarm_actions          = ["pager"]
    ecs                    = { cluster_arn = "default" }
    vpc_config             = { subnet_ids = [], security_group_ids = [] }
    log_level              = "LOUD"
  }
  expect_failures = [
    var.name, var.platforms, var.package, var.reserved_concurrency, var.webhook, var.settings, var.log_retention_days, var.failed_runs,
    var.oldest_message_seconds, var.kms_key, var.permissions_boundary, var.alarm_actions, var.ecs, var.vpc_config, var.log_level,
  ]
}

run "another_region" {
  command = plan
  variables {
    region = "us-east-1"
  }
  expect_failures = [aws_dynamodb_table.ledger]
}
