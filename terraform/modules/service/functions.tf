# A zip at a URL is fetched when planning, and refused unless its SHA-256 is the one that was given.
data "external" "package" {
  count = var.package.url == null ? 0 : 1

  program = ["python3", "${local.infra}/fetch.py"]
  query   = { url = var.package.url, sha256 = var.package.sha256, folder = "${path.root}/.terraform/push-pools" }
}

locals {
  package = {
    path = var.package.url == null ? var.package.path : data.external.package[0].result.path
    sha256_base64 = (
      var.package.url != null ? data.external.package[0].result.sha256_base64 :
      var.package.sha256_base64 != null || var.package.path == null ? var.package.sha256_base64 :
      filebase64sha256(var.package.path)
    )
  }
}

resource "aws_cloudwatch_log_group" "this" {
  for_each = local.functions

  name              = "/aws/lambda/${var.name}-${each.key}"
  retention_in_days = var.log_retention_days
  tags              = var.tags
}

resource "aws_iam_role" "function" {
  for_each = local.functions

  name                 = "${var.name}-fn-${each.key}"
  permissions_boundary = var.permissions_boundary
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "lambda.amazonaws.com" }
      Action    = "sts:AssumeRole"
    }]
  })
  tags = var.tags
}

resource "aws_iam_role_policy" "function" {
  for_each = local.functions

  name = "push-pools"
  role = aws_iam_role.function[each.key].name
  policy = templatefile("${local.infra}/${each.value.policy}", merge(local.policy_values, {
    log_group_arn = aws_cloudwatch_log_group.this[each.key].arn
  }))
}

resource "aws_iam_role_policy_attachment" "vpc" {
  for_each = var.vpc_config == null ? {} : local.functions

  role       = aws_iam_role.function[each.key].name
  policy_arn = "${local.aws}:iam::aws:policy/service-role/AWSLambdaENIManagementAccess"
}

resource "aws_lambda_function" "this" {
  for_each = local.functions

  function_name                  = "${var.name}-${each.key}"
  description                    = "push_pools: ${each.key}"
  role                           = aws_iam_role.function[each.key].arn
  handler                        = each.value.handler
  runtime                        = local.table.runtime
  architectures                  = [local.table.architecture]
  memory_size                    = each.value.memory_mb
  timeout                        = each.value.timeout_seconds
  reserved_concurrent_executions = try(var.reserved_concurrency[each.key], null)
  filename                       = local.package.path
  source_code_hash               = local.package.sha256_base64
  s3_bucket                      = try(var.package.s3.bucket, null)
  s3_key                         = try(var.package.s3.key, null)
  s3_object_version              = try(var.package.s3.object_version, null)
  tags                           = var.tags

  environment {
    variables = merge(
      local.environment,
      { POWERTOOLS_LOG_LEVEL = var.log_level },
      each.value.trigger.type == "function_url" ? local.webhook_environment : {},
    )
  }

  logging_config {
    log_format = "Text" # The functions write JSON themselves.
    log_group  = aws_cloudwatch_log_group.this[each.key].name
  }

  dynamic "vpc_config" {
    for_each = var.vpc_config[*]
    content {
      subnet_ids         = vpc_config.value.subnet_ids
      security_group_ids = vpc_config.value.security_group_ids
    }
  }

  lifecycle {
    precondition {
      condition     = length(setsubtract(var.platforms, ["ecs"])) == 0 || !anytrue([for each in [var.package.path, var.package.url, try(var.package.s3.key, null)] : can(regex("push-pools-ecs-", each))])
      error_message = "package is a bundle for ECS alone, whose functions for the other clouds in platforms would not load; make one for all with python infra/package.py --set all."
    }
  }

  # A function that starts without its rights fails its first messages.
  depends_on = [aws_iam_role_policy.function, aws_iam_role_policy_attachment.vpc]
}

resource "aws_lambda_event_source_mapping" "this" {
  for_each = local.mapped

  event_source_arn        = aws_sqs_queue.this[each.value.queue].arn
  function_name           = aws_lambda_function.this[each.key].arn
  batch_size              = each.value.batch_size
  function_response_types = ["ReportBatchItemFailures"] # Else one message that fails brings its whole batch back.
  tags                    = var.tags

  scaling_config {
    maximum_concurrency = each.value.maximum_concurrency
  }
}

# -- the tick

resource "aws_iam_role" "scheduler" {
  name                 = "${var.name}-fn-scheduler"
  permissions_boundary = var.permissions_boundary
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "scheduler.amazonaws.com" }
      Action    = "sts:AssumeRole"
      Condition = { StringEquals = { "aws:SourceAccount" = local.account } }
    }]
  })
  tags = var.tags
}

resource "aws_iam_role_policy" "scheduler" {
  name = "push-pools"
  role = aws_iam_role.scheduler.name
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid      = "Tick"
        Effect   = "Allow"
        Action   = ["lambda:InvokeFunction"]
        Resource = [for name in keys(local.ticks) : aws_lambda_function.this[name].arn]
      },
      {
        Sid      = "Undelivered"
        Effect   = "Allow"
        Action   = ["sqs:SendMessage"]
        Resource = [aws_sqs_queue.undelivered.arn]
      },
    ]
  })
}

resource "aws_scheduler_schedule" "tick" {
  for_each = local.ticks

  name                = "${var.name}-${each.key}"
  description         = "The clock of ${var.name}"
  schedule_expression = each.value.expression

  flexible_time_window {
    mode = "OFF"
  }

  target {
    arn      = aws_lambda_function.this[each.key].arn
    role_arn = aws_iam_role.scheduler.arn

    retry_policy {
      maximum_retry_attempts = 0 # The next tick does what a missed one would have done.
    }
    dead_letter_config {
      arn = aws_sqs_queue.undelivered.arn
    }
  }
}

resource "aws_lambda_function_event_invoke_config" "tick" {
  for_each = local.ticks

  function_name                = aws_lambda_function.this[each.key].function_name
  maximum_retry_attempts       = 0
  maximum_event_age_in_seconds = 60
}

# -- events by HTTP

resource "aws_lambda_function_url" "this" {
  for_each = local.urls

  function_name      = aws_lambda_function.this[each.key].function_name
  authorization_type = local.functions[each.key].trigger.authorization # The function checks who sends, and logs no proof.
}

resource "aws_lambda_permission" "url" {
  for_each = local.urls

  statement_id           = "url"
  action                 = "lambda:InvokeFunctionUrl"
  function_name          = aws_lambda_function.this[each.key].function_name
  principal              = "*"
  function_url_auth_type = local.functions[each.key].trigger.authorization
}

# New URLs need this permission too. It is made by CloudFormation, because only later releases of the provider than the
# ones admitted here can say that a permission holds for calls by URL; without that, it would hold for everything.
resource "aws_cloudformation_stack" "url" {
  for_each = local.urls

  name = "${var.name}-${each.key}-url"
  template_body = jsonencode({
    Resources = {
      InvokedByUrl = {
        Type = "AWS::Lambda::Permission"
        Properties = {
          Action                = "lambda:InvokeFunction"
          FunctionName          = aws_lambda_function.this[each.key].function_name
          Principal             = "*"
          InvokedViaFunctionUrl = true
        }
      }
    }
  })
  tags = var.tags
}
