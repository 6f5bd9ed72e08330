mock_provider "aws" {
  mock_resource "aws_lambda_invocation" {
    defaults = { result = "{\"id\": \"8f2c\", \"version\": 1}" }
  }
  mock_data "aws_region" {
    defaults = { region = "eu-west-1" }
  }
  mock_data "aws_caller_identity" {
    defaults = { account_id = "123456789012" }
  }
  mock_data "aws_partition" {
    defaults = { partition = "aws" }
  }
  mock_resource "aws_ecs_cluster" {
    defaults = { arn = "arn:aws:ecs:eu-west-1:123456789012:cluster/jobs-nightly" }
  }
  mock_resource "aws_iam_role" {
    defaults = { arn = "arn:aws:iam::123456789012:role/jobs-job-nightly" }
  }
  mock_resource "aws_cloudwatch_log_group" {
    defaults = { arn = "arn:aws:logs:eu-west-1:123456789012:log-group:/jobs/nightly" }
  }
  mock_resource "aws_security_group" {
    defaults = { id = "sg-1" }
  }
}

variables {
  service    = { name = "jobs", admin_function_name = "jobs-admin" }
  name       = "nightly"
  vpc_id     = "vpc-1"
  subnet_ids = ["subnet-1", "subnet-2"]
}

run "by_default" {
  command = apply

  assert {
    condition     = aws_ecs_cluster.this[0].name == "jobs-nightly"
    error_message = "The cluster is called as the service's policies allow: NAME-…."
  }
  assert {
    condition     = alltrue([for role in [aws_iam_role.execution, aws_iam_role.task] : startswith(role.name, "jobs-job-") && role.path == null])
    error_message = "The roles are called as the service's policies allow: NAME-job-…."
  }
  assert {
    condition     = aws_cloudwatch_log_group.this.name == "/jobs/nightly"
    error_message = "The log group is called as the command line's policy allows: /NAME/…."
  }
  assert {
    condition     = length(aws_iam_role_policy_attachment.task) == 0
    error_message = "By default the calls of jobs are all denied."
  }
  assert {
    condition     = toset([for each in jsondecode(aws_iam_role_policy.execution.policy).Statement : each.Sid]) == toset(["LogIn", "Pull", "Output"])
    error_message = "By default ECS may pull, and write the output."
  }
  assert {
    condition     = alltrue([for each in jsondecode(aws_iam_role_policy.execution.policy).Statement : !contains(each.Resource, "*") || each.Sid == "LogIn"])
    error_message = "Nothing is allowed on everything but what AWS cannot narrow."
  }
  assert {
    condition     = jsonencode(output.job_variables.network_configuration) == jsonencode({ subnets = ["subnet-1", "subnet-2"], securityGroups = ["sg-1"], assignPublicIp = "DISABLED" })
    error_message = "Jobs run in the subnets, behind the group that was made, without public addresses."
  }
  assert {
    condition     = output.job_variables.cloudwatch_logs_options["awslogs-group"] == "/jobs/nightly" && output.job_variables.cluster == aws_ecs_cluster.this[0].arn
    error_message = "Jobs run in the cluster and write to the log group."
  }
  assert {
    condition     = output.name == "nightly"
    error_message = "The name leads deployments to it."
  }
}

run "with_what_is_there_already" {
  command = apply
  variables {
    vpc_id             = null
    cluster            = { arn = "arn:aws:ecs:eu-west-1:123456789012:cluster/shared" }
    security_group_ids = ["sg-ours"]
    assign_public_ip   = true
    repository_arns    = ["arn:aws:ecr:eu-west-1:123456789012:repository/report"]
    secret_arns = [
      "arn:aws:secretsmanager:eu-west-1:123456789012:secret:token",
      "arn:aws:ssm:eu-west-1:123456789012:parameter/token",
    ]
    task_policy_arns     = { bucket = "arn:aws:iam::123456789012:policy/bucket" }
    permissions_boundary = "arn:aws:iam::123456789012:policy/bound"
    image                = "acme/report:7"
    job_variables        = { cpu = 512, cloudwatch_logs_prefix = "ours" }
  }

  assert {
    condition     = length(aws_ecs_cluster.this) == 0 && output.job_variables.cluster == var.cluster.arn
    error_message = "Your cluster is used, and none is made."
  }
  assert {
    condition     = length(aws_security_group.this) == 0 && output.security_group_id == null && output.job_variables.network_configuration.securityGroups == ["sg-ours"]
    error_message = "Your security group is used, and none is made."
  }
  assert {
    condition     = output.job_variables.network_configuration.assignPublicIp == "ENABLED"
    error_message = "Jobs have public addresses."
  }
  assert {
    condition = jsonencode({ for each in jsondecode(aws_iam_role_policy.execution.policy).Statement : each.Sid => each.Resource if contains(["Pull", "Secrets", "Parameters"], each.Sid) }) == jsonencode({
      Pull = var.repository_arns, Secrets = [var.secret_arns[0]], Parameters = [var.secret_arns[1]]
    })
    error_message = "ECS may pull and read what is named, and nothing else."
  }
  assert {
    condition     = alltrue([for role in [aws_iam_role.execution, aws_iam_role.task] : role.permissions_boundary == var.permissions_boundary])
    error_message = "Every role is bounded."
  }
  assert {
    condition     = output.job_variables.cpu == 512 && output.job_variables.cloudwatch_logs_prefix == "ours" && output.job_variables.image == "acme/report:7"
    error_message = "Your job variables win over the module's."
  }
}

# -- bad input is refused before anything is made

run "an_illegal_name" {
  command = plan
  variables {
    name = "nightly_jobs"
  }
  expect_failures = [var.name]
}

run "names_that_are_too_long_together" {
  command = plan
  variables {
    service = { name = "an-installation-with-a-long-name", admin_function_name = "jobs-admin" }
    name    = "and-a-pool-with-a-long-name"
  }
  expect_failures = [var.name]
}

run "no_network" {
  command = plan
  variables {
    vpc_id     = null
    subnet_ids = []
  }
  expect_failures = [var.vpc_id, var.subnet_ids]
}

run "two_networks" {
  command = plan
  variables {
    security_group_ids = ["sg-ours"]
  }
  expect_failures = [var.vpc_id]
}

run "what_is_no_cluster_and_no_secret" {
  command = plan
  variables {
    cluster            = { arn = "jobs" }
    secret_arns        = ["token"]
    log_retention_days = 8
    job_variables      = "cpu=512"
  }
  expect_failures = [var.cluster, var.secret_arns, var.log_retention_days, var.job_variables]
}
