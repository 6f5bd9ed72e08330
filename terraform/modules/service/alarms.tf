locals {
  # A dead letter is looked at by somebody; a message that waits long says that a function does not work.
  depth_alarms = { dead_letters = aws_sqs_queue.dead_letters.name, undelivered = aws_sqs_queue.undelivered.name }
  counted      = { namespace = "push-pools", dimensions = { service = aws_dynamodb_table.ledger.name } }
}

resource "aws_cloudwatch_metric_alarm" "depth" {
  for_each = local.depth_alarms

  alarm_name          = "${var.name}-${replace(each.key, "_", "-")}"
  alarm_description   = "Messages are in ${each.value}. See docs/operations.md."
  namespace           = "AWS/SQS"
  metric_name         = "ApproximateNumberOfMessagesVisible"
  dimensions          = { QueueName = each.value }
  statistic           = "Maximum"
  period              = 300
  evaluation_periods  = 1
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_actions
  ok_actions          = var.alarm_actions
  tags                = var.tags
}

resource "aws_cloudwatch_metric_alarm" "oldest" {
  for_each = local.queues

  alarm_name          = "${var.name}-${each.key}-oldest"
  alarm_description   = "A message has been in ${var.name}-${each.key} for more than ${var.oldest_message_seconds} s: its function fails, or is throttled."
  namespace           = "AWS/SQS"
  metric_name         = "ApproximateAgeOfOldestMessage"
  dimensions          = { QueueName = aws_sqs_queue.this[each.key].name }
  statistic           = "Maximum"
  period              = 60
  evaluation_periods  = 3
  comparison_operator = "GreaterThanThreshold"
  threshold           = var.oldest_message_seconds
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_actions
  ok_actions          = var.alarm_actions
  tags                = var.tags
}

resource "aws_cloudwatch_metric_alarm" "ticks" {
  for_each = local.ticks

  alarm_name          = "${var.name}-${each.key}-missed"
  alarm_description   = "No tick in ten minutes: nothing is planned, and overdue runs are not noticed."
  namespace           = "AWS/Lambda"
  metric_name         = "Invocations"
  dimensions          = { FunctionName = aws_lambda_function.this[each.key].function_name }
  statistic           = "Sum"
  period              = 300
  evaluation_periods  = 2
  comparison_operator = "LessThanThreshold"
  threshold           = 1
  treat_missing_data  = "breaching"
  alarm_actions       = var.alarm_actions
  ok_actions          = var.alarm_actions
  tags                = var.tags
}

resource "aws_cloudwatch_metric_alarm" "errors" {
  for_each = local.functions

  alarm_name          = "${var.name}-${each.key}-errors"
  alarm_description   = "${var.name}-${each.key} ended with an error three times in a row of five minutes."
  namespace           = "AWS/Lambda"
  metric_name         = "Errors"
  dimensions          = { FunctionName = aws_lambda_function.this[each.key].function_name }
  statistic           = "Sum"
  period              = 300
  evaluation_periods  = 3
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_actions
  ok_actions          = var.alarm_actions
  tags                = var.tags
}

# -- what the functions count themselves (push_pools/functions/counted.py); told apart by the ledger's name

resource "aws_cloudwatch_metric_alarm" "failed" {
  count = var.failed_runs > 0 ? 1 : 0

  alarm_name          = "${var.name}-failed-runs"
  alarm_description   = "${var.failed_runs} or more runs failed or crashed in an hour."
  namespace           = local.counted.namespace
  metric_name         = "RunsFailed"
  dimensions          = local.counted.dimensions
  statistic           = "Sum"
  period              = 3600
  evaluation_periods  = 1
  comparison_operator = "GreaterThanOrEqualToThreshold"
  threshold           = var.failed_runs
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_actions
  ok_actions          = var.alarm_actions
  tags                = var.tags
}

resource "aws_cloudwatch_metric_alarm" "logged" {
  alarm_name          = "${var.name}-errors-logged"
  alarm_description   = "The log has an error: a job that is doubled, orphaned or unseen, or a chore that is overdue. See docs/operations.md."
  namespace           = local.counted.namespace
  metric_name         = "ErrorsLogged"
  dimensions          = local.counted.dimensions
  statistic           = "Sum"
  period              = 300
  evaluation_periods  = 1
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_actions
  ok_actions          = var.alarm_actions
  tags                = var.tags
}

# -- one dashboard

locals {
  widgets = [
    {
      title   = "Runs that failed, and errors in the log"
      metrics = [for name in ["RunsFailed", "ErrorsLogged"] : [local.counted.namespace, name, "service", aws_dynamodb_table.ledger.name]]
      stat    = "Sum"
    },
    {
      title   = "Messages done, given back and buried"
      metrics = [for name in ["MessagesDone", "MessagesGivenBack", "MessagesDead"] : [local.counted.namespace, name, "service", aws_dynamodb_table.ledger.name]]
      stat    = "Sum"
    },
    {
      title   = "Messages waiting"
      metrics = [for queue in aws_sqs_queue.this : ["AWS/SQS", "ApproximateNumberOfMessagesVisible", "QueueName", queue.name]]
      stat    = "Maximum"
    },
    {
      title   = "Age of the oldest message (s)"
      metrics = [for queue in aws_sqs_queue.this : ["AWS/SQS", "ApproximateAgeOfOldestMessage", "QueueName", queue.name]]
      stat    = "Maximum"
    },
    {
      title   = "Dead letters, and what was not delivered"
      metrics = [for name in values(local.depth_alarms) : ["AWS/SQS", "ApproximateNumberOfMessagesVisible", "QueueName", name]]
      stat    = "Maximum"
    },
    {
      title   = "Errors of functions"
      metrics = [for function in aws_lambda_function.this : ["AWS/Lambda", "Errors", "FunctionName", function.function_name]]
      stat    = "Sum"
    },
    {
      title   = "Duration of functions (ms)"
      metrics = [for function in aws_lambda_function.this : ["AWS/Lambda", "Duration", "FunctionName", function.function_name]]
      stat    = "p95"
    },
    {
      title   = "Ledger: throttled requests"
      metrics = [["AWS/DynamoDB", "ReadThrottleEvents", "TableName", aws_dynamodb_table.ledger.name], ["AWS/DynamoDB", "WriteThrottleEvents", "TableName", aws_dynamodb_table.ledger.name]]
      stat    = "Sum"
    },
  ]
}

resource "aws_cloudwatch_dashboard" "this" {
  dashboard_name = var.name
  dashboard_body = jsonencode({
    widgets = [for place, widget in local.widgets : {
      type   = "metric"
      x      = 12 * (place % 2)
      y      = 6 * floor(place / 2)
      width  = 12
      height = 6
      properties = {
        title   = widget.title
        metrics = widget.metrics
        stat    = widget.stat
        period  = 60
        region  = local.region
        view    = "timeSeries"
      }
    }]
  })
}
