locals {
  # A dead letter is looked at by somebody; a message that waits long says that a function does not work.
  depth_alarms = { dead_letters = aws_sqs_queue.dead_letters.name, undelivered = aws_sqs_queue.undelivered.name }
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

# -- failed runs: their events are counted by a rule without a target of ours

resource "aws_cloudwatch_event_rule" "failed" {
  count = var.failed_runs > 0 ? 1 : 0

  name           = "${var.name}-failed-runs"
  description    = "Counts runs that failed or crashed, for an alarm"
  event_bus_name = aws_cloudwatch_event_bus.published.name
  event_pattern = jsonencode({
    source        = ["push-pools"]
    "detail-type" = ["RunStateChanged"]
    detail        = { to = { type = ["FAILED", "CRASHED"] } }
  })
  tags = var.tags
}

resource "aws_cloudwatch_metric_alarm" "failed" {
  count = var.failed_runs > 0 ? 1 : 0

  alarm_name          = "${var.name}-failed-runs"
  alarm_description   = "More than ${var.failed_runs} runs failed or crashed in an hour."
  namespace           = "AWS/Events"
  metric_name         = "MatchedEvents"
  dimensions          = { RuleName = aws_cloudwatch_event_rule.failed[0].name, EventBusName = aws_cloudwatch_event_bus.published.name }
  statistic           = "Sum"
  period              = 3600
  evaluation_periods  = 1
  comparison_operator = "GreaterThanThreshold"
  threshold           = var.failed_runs
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_actions
  ok_actions          = var.alarm_actions
  tags                = var.tags
}

# -- one dashboard

locals {
  widgets = [
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
