# A schedule of EventBridge that asks for a run, by a message to a submit queue. Any of them takes any event.

data "aws_caller_identity" "current" {}

locals {
  name = "${var.service.name}-trigger-${var.name}"
  # The queue of ECS first, because it is there most often; the others forward what is not theirs.
  queues      = concat([for name, arn in var.service.queue_arns : arn if name == "submit-ecs"], [for name, arn in var.service.queue_arns : arn if startswith(name, "submit-")])
  undelivered = "${replace(local.queues[0], "/-submit-[a-z0-9-]+$/", "")}-undelivered"

  # Scheduler may fire more than once. What a firing is due for names its run; `<aws.scheduler.execution-id>` would not.
  time = "<aws.scheduler.scheduled-time>"
  event = { for key, value in {
    version         = 1
    type            = "scheduled-run"
    deployment      = var.deployment
    work_pool       = var.work_pool
    work_queue      = var.work_queue
    scheduled_time  = local.time
    idempotency_key = "${local.name}/${local.time}"
    parameters      = length(keys(var.parameters)) == 0 ? null : var.parameters
    job_variables   = length(keys(var.job_variables)) == 0 ? null : var.job_variables
    tags            = length(var.tags) == 0 ? null : var.tags
  } : key => value if value != null }
  # jsonencode writes < and > as escapes, in which Scheduler would not find its words.
  body = replace(replace(jsonencode(local.event), "\\u003c", "<"), "\\u003e", ">")
}

resource "aws_scheduler_schedule" "this" {
  #checkov:skip=CKV_AWS_297: The event holds no secret; `kms_key_arn` takes a key of yours.
  name                         = local.name
  group_name                   = var.group_name
  description                  = "Runs of ${coalesce(var.deployment, var.work_pool)}"
  schedule_expression          = var.schedule
  schedule_expression_timezone = var.timezone
  start_date                   = var.start_date
  end_date                     = var.end_date
  state                        = var.enabled ? "ENABLED" : "DISABLED"
  kms_key_arn                  = var.kms_key_arn

  flexible_time_window {
    mode                      = var.flexible_minutes == 0 ? "OFF" : "FLEXIBLE"
    maximum_window_in_minutes = var.flexible_minutes == 0 ? null : var.flexible_minutes
  }

  target {
    arn      = local.queues[0]
    role_arn = aws_iam_role.this.arn
    input    = local.body

    retry_policy {
      maximum_event_age_in_seconds = 3600
      maximum_retry_attempts       = 185
    }
    dead_letter_config {
      arn = local.undelivered
    }
  }
}

resource "aws_iam_role" "this" {
  name                 = local.name
  permissions_boundary = var.permissions_boundary
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "scheduler.amazonaws.com" }
      Action    = "sts:AssumeRole"
      Condition = { StringEquals = { "aws:SourceAccount" = data.aws_caller_identity.current.account_id } }
    }]
  })
  tags = var.tags_of_resources
}

resource "aws_iam_role_policy" "this" {
  name = "push-pools"
  role = aws_iam_role.this.name
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid      = "Send"
      Effect   = "Allow"
      Action   = ["sqs:SendMessage"]
      Resource = [local.queues[0], local.undelivered]
    }]
  })
}
