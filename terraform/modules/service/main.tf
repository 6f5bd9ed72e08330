# What is installed is said once, in infra/functions.json, infra/policies and infra/table.json, which tests compare with the code.

data "aws_region" "current" {}
data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}

locals {
  infra  = "${path.module}/../../../infra"
  table  = jsondecode(file("${local.infra}/functions.json"))
  ledger = jsondecode(file("${local.infra}/table.json"))

  known_platforms = sort([for name in keys(local.table.functions) : trimprefix(name, "submit_") if startswith(name, "submit_")])
  other_platforms = setsubtract(local.known_platforms, var.platforms)
  left_out        = flatten([for each in local.other_platforms : ["submit_${each}", "poll_${each}"]])
  # A function of a cloud is named for it; all others are installed always, and the webhook when asked for.
  functions = {
    for name, entry in local.table.functions : name => entry
    if !contains(local.left_out, name) && (entry.trigger.type != "function_url" || var.webhook.enabled)
  }
  mapped = { for name, entry in local.functions : name => entry.trigger if entry.trigger.type == "sqs" }
  queues = { for name, queue in local.table.queues : name => queue if contains(values(local.mapped)[*].queue, name) }
  rules  = { for name, rule in local.table.rules : name => rule if contains(keys(local.queues), rule.queue) }
  ticks  = { for name, entry in local.functions : name => entry.trigger if entry.trigger.type == "scheduler" }
  urls   = toset([for name, entry in local.functions : name if entry.trigger.type == "function_url"])

  region  = data.aws_region.current.region
  account = data.aws_caller_identity.current.account_id
  aws     = "arn:${data.aws_partition.current.partition}"
  # Written out and not read from resources where a policy has to name what does not exist yet.
  queue_arn_prefix = "${local.aws}:sqs:${local.region}:${local.account}:${var.name}-"
  kms_key_arn      = var.kms_key_arn != null ? var.kms_key_arn : aws_kms_key.blocks[0].arn
  cluster_arn      = coalesce(var.ecs.cluster_arn, "${local.aws}:ecs:${local.region}:${local.account}:cluster/${var.name}-*")
  job_role_arn     = "${local.aws}:iam::${local.account}:role/${var.name}-job-*"

  policy_values = {
    table_arn                  = aws_dynamodb_table.ledger.arn
    queue_arn_prefix           = local.queue_arn_prefix
    bus_arn                    = aws_cloudwatch_event_bus.published.arn
    kms_key_arn                = local.kms_key_arn
    cluster_arn                = local.cluster_arn
    task_arn_prefix            = "${replace(local.cluster_arn, ":cluster/", ":task/")}/"
    task_definition_arn_prefix = "${local.aws}:ecs:${local.region}:${local.account}:task-definition/${var.ecs.task_definition_prefix}"
    execution_role_arn         = coalesce(var.ecs.execution_role_arn, local.job_role_arn)
    task_role_arn              = coalesce(var.ecs.task_role_arn, local.job_role_arn)
    task_log_group_arn         = coalesce(var.ecs.log_group_arn, "${local.aws}:logs:${local.region}:${local.account}:log-group:/${var.name}/*")
  }

  environment = merge(
    {
      PUSH_POOLS_AWS_TABLE        = aws_dynamodb_table.ledger.name
      PUSH_POOLS_AWS_QUEUE_PREFIX = "${var.name}-"
      PUSH_POOLS_AWS_BUS          = aws_cloudwatch_event_bus.published.name
      PUSH_POOLS_AWS_KMS_KEY      = local.kms_key_arn
    },
    var.settings,
  )
  webhook_environment = { for name, value in {
    PUSH_POOLS_WEBHOOK_SECRET   = var.webhook.secret
    PUSH_POOLS_WEBHOOK_ISSUER   = var.webhook.issuer
    PUSH_POOLS_WEBHOOK_AUDIENCE = var.webhook.audience
    PUSH_POOLS_WEBHOOK_SUBJECTS = length(var.webhook.subjects) > 0 ? join(",", var.webhook.subjects) : null
  } : name => value if value != null }
}

# -- the ledger

resource "aws_dynamodb_table" "ledger" {
  name                        = var.name
  billing_mode                = local.ledger.table.BillingMode
  hash_key                    = one([for key in local.ledger.table.KeySchema : key.AttributeName if key.KeyType == "HASH"])
  range_key                   = one([for key in local.ledger.table.KeySchema : key.AttributeName if key.KeyType == "RANGE"])
  deletion_protection_enabled = var.deletion_protection
  tags                        = var.tags

  dynamic "attribute" {
    for_each = local.ledger.table.AttributeDefinitions
    content {
      name = attribute.value.AttributeName
      type = attribute.value.AttributeType
    }
  }

  dynamic "global_secondary_index" {
    for_each = local.ledger.table.GlobalSecondaryIndexes
    content {
      name               = global_secondary_index.value.IndexName
      hash_key           = one([for key in global_secondary_index.value.KeySchema : key.AttributeName if key.KeyType == "HASH"])
      range_key          = one([for key in global_secondary_index.value.KeySchema : key.AttributeName if key.KeyType == "RANGE"])
      projection_type    = global_secondary_index.value.Projection.ProjectionType
      non_key_attributes = try(global_secondary_index.value.Projection.NonKeyAttributes, null)
    }
  }

  ttl {
    attribute_name = local.ledger.time_to_live.AttributeName
    enabled        = local.ledger.time_to_live.Enabled
  }

  point_in_time_recovery {
    enabled = true
  }

  server_side_encryption {
    enabled = true
  }

  lifecycle {
    precondition {
      condition     = var.region == null || var.region == local.region
      error_message = "region is ${coalesce(var.region, "unset")}, and the provider's is ${local.region}; change one of them."
    }
  }
}

# -- the key of blocks

resource "aws_kms_key" "blocks" {
  count = var.kms_key_arn == null ? 1 : 0

  description             = "Secrets of blocks of ${var.name}"
  enable_key_rotation     = true
  deletion_window_in_days = 30
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "IAM"
      Effect    = "Allow"
      Principal = { AWS = "${local.aws}:iam::${local.account}:root" }
      Action    = "kms:*"
      Resource  = "*"
    }]
  })
  tags = var.tags
}

resource "aws_kms_alias" "blocks" {
  count = var.kms_key_arn == null ? 1 : 0

  name          = "alias/${var.name}-blocks"
  target_key_id = aws_kms_key.blocks[0].key_id
}

# -- what is published

resource "aws_cloudwatch_event_bus" "published" {
  name = var.name
  tags = var.tags
}
