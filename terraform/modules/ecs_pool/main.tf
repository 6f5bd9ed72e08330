# What a pool needs on AWS: a cluster, the two roles of its tasks, where they write their output, and who they may talk to.
# All names begin as the policies of modules/service allow by default: clusters NAME-…, roles NAME-job-…, log groups /NAME/….

data "aws_region" "current" {}
data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}

locals {
  region       = data.aws_region.current.region
  aws          = "arn:${data.aws_partition.current.partition}"
  name         = "${var.service.name}-${var.name}"
  cluster_arn  = var.cluster == null ? one(aws_ecs_cluster.this[*].arn) : var.cluster.arn
  repositories = coalesce(var.repository_arns, ["${local.aws}:ecr:${local.region}:${data.aws_caller_identity.current.account_id}:repository/*"])
  secrets      = [for arn in var.secret_arns : arn if strcontains(arn, ":secretsmanager:")]
  parameters   = [for arn in var.secret_arns : arn if strcontains(arn, ":ssm:")]
  groups       = concat(aws_security_group.this[*].id, var.security_group_ids)

  job_variables = merge(
    {
      cluster                   = local.cluster_arn
      execution_role_arn        = aws_iam_role.execution.arn
      task_role_arn             = aws_iam_role.task.arn
      configure_cloudwatch_logs = true
      cloudwatch_logs_options = {
        awslogs-group  = aws_cloudwatch_log_group.this.name
        awslogs-region = local.region
      }
      cloudwatch_logs_prefix = var.name
      network_configuration = {
        subnets        = var.subnet_ids
        securityGroups = local.groups
        assignPublicIp = var.assign_public_ip ? "ENABLED" : "DISABLED"
      }
    },
    var.image == null ? {} : { image = var.image },
    var.job_variables,
  )
}

resource "aws_ecs_cluster" "this" {
  #checkov:skip=CKV_AWS_65: Container Insights costs; `container_insights` turns it on.
  count = var.cluster == null ? 1 : 0

  name = local.name
  tags = var.tags

  setting {
    name  = "containerInsights"
    value = var.container_insights ? "enabled" : "disabled"
  }
}

# A job variable may then ask for Spot: launch_type = "FARGATE_SPOT".
resource "aws_ecs_cluster_capacity_providers" "this" {
  count = var.cluster == null ? 1 : 0

  cluster_name       = aws_ecs_cluster.this[0].name
  capacity_providers = ["FARGATE", "FARGATE_SPOT"]
}

resource "aws_cloudwatch_log_group" "this" {
  #checkov:skip=CKV_AWS_158: CloudWatch encrypts with its own key; `log_kms_key_arn` takes one of yours.
  #checkov:skip=CKV_AWS_338: How long output is worth keeping is for `log_retention_days` to say; a month by default.
  name              = "/${var.service.name}/${var.name}"
  retention_in_days = var.log_retention_days
  kms_key_id        = var.log_kms_key_arn
  tags              = var.tags
}

# -- roles

locals {
  assumed_by_tasks = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "ecs-tasks.amazonaws.com" }
      Action    = "sts:AssumeRole"
      Condition = { StringEquals = { "aws:SourceAccount" = data.aws_caller_identity.current.account_id } }
    }]
  })
}

# What ECS itself uses: to pull the image, to read secrets, to write the output.
resource "aws_iam_role" "execution" {
  name                 = "${var.service.name}-job-${var.name}-start"
  description          = "ECS starts jobs of the pool ${var.name} with it"
  permissions_boundary = var.permissions_boundary
  assume_role_policy   = local.assumed_by_tasks
  tags                 = var.tags
}

resource "aws_iam_role_policy" "execution" {
  name = "push-pools"
  role = aws_iam_role.execution.name
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat(
      [
        {
          Sid      = "LogIn" # It cannot be narrowed.
          Effect   = "Allow"
          Action   = ["ecr:GetAuthorizationToken"]
          Resource = ["*"]
        },
        {
          Sid      = "Pull"
          Effect   = "Allow"
          Action   = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
          Resource = local.repositories
        },
        {
          Sid      = "Output"
          Effect   = "Allow"
          Action   = ["logs:CreateLogStream", "logs:PutLogEvents"]
          Resource = ["${aws_cloudwatch_log_group.this.arn}:*"]
        },
      ],
      [for each in [local.secrets] : {
        Sid      = "Secrets"
        Effect   = "Allow"
        Action   = ["secretsmanager:GetSecretValue"]
        Resource = each
      } if length(each) > 0],
      [for each in [local.parameters] : {
        Sid      = "Parameters"
        Effect   = "Allow"
        Action   = ["ssm:GetParameters"]
        Resource = each
      } if length(each) > 0],
    )
  })
}

# What the job's own calls to AWS have: nothing, until you attach a policy.
resource "aws_iam_role" "task" {
  name                 = "${var.service.name}-job-${var.name}-task"
  description          = "Jobs of the pool ${var.name} have it"
  permissions_boundary = var.permissions_boundary
  assume_role_policy   = local.assumed_by_tasks
  tags                 = var.tags
}

resource "aws_iam_role_policy_attachment" "task" {
  for_each = var.task_policy_arns

  role       = aws_iam_role.task.name
  policy_arn = each.value
}

# -- network

resource "aws_security_group" "this" {
  #checkov:skip=CKV2_AWS_5: RunTask attaches it to each job.
  count = length(var.security_group_ids) == 0 ? 1 : 0

  name        = local.name
  description = "Jobs of the pool ${var.name}: they may call, and nobody may call them"
  vpc_id      = var.vpc_id
  tags        = var.tags
}

resource "aws_vpc_security_group_egress_rule" "all" {
  count = length(var.security_group_ids) == 0 ? 1 : 0

  security_group_id = aws_security_group.this[0].id
  description       = "Registries, AWS, and whatever jobs call"
  ip_protocol       = "-1"
  cidr_ipv4         = "0.0.0.0/0"
  tags              = var.tags
}

# -- the records

module "pool" {
  source = "../pool"

  admin_function_name = var.service.admin_function_name
  name                = var.name
  type                = "ecs:push"
  description         = var.description
  concurrency_limit   = var.concurrency_limit
  is_paused           = var.is_paused
  work_queues         = var.work_queues
  base_job_template   = var.base_job_template
  variables           = local.job_variables
  module_address      = var.module_address
  again               = var.again
  block = {
    type     = "aws-credentials"
    variable = "aws_credentials"
    data     = { region_name = local.region } # No key: the functions' own roles.
  }

  # Runs may start as soon as the pool is there.
  depends_on = [
    aws_ecs_cluster_capacity_providers.this,
    aws_iam_role_policy.execution,
    aws_iam_role_policy_attachment.task,
    aws_vpc_security_group_egress_rule.all,
  ]
}
