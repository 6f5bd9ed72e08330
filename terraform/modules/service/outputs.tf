output "name" {
  description = "What all names begin with; for the modules of pools."
  value       = var.name
}

output "region" {
  description = "Where it is installed."
  value       = local.region
}

output "admin_function_name" {
  description = "The function that writes records; for the modules of pools and deployments."
  value       = aws_lambda_function.this["admin"].function_name
}

output "function_arns" {
  description = "ARNs of the functions, by name."
  value       = { for name, function in aws_lambda_function.this : name => function.arn }
}

output "function_role_arns" {
  description = "ARNs of the functions' roles, by function; trusted by the modules of other clouds."
  value       = { for name, role in aws_iam_role.function : name => role.arn }
}

output "queue_arns" {
  description = "ARNs of the queues, by name; events for modules/trigger go to a submit queue."
  value       = { for name, queue in aws_sqs_queue.this : name => queue.arn }
}

output "queue_urls" {
  description = "URLs of the queues, by name."
  value       = { for name, queue in aws_sqs_queue.this : name => queue.url }
}

output "bus_name" {
  description = "The bus on which every change of a run is published."
  value       = aws_cloudwatch_event_bus.published.name
}

output "kms_key_arn" {
  description = "The key of the secrets of blocks."
  value       = local.kms_key_arn
}

output "webhook_url" {
  description = "Where events are taken by HTTP; null when they are not."
  value       = try(one(values(aws_lambda_function_url.this)).function_url, null)
}

output "operator_policy" {
  description = "What whoever uses the command line needs to be allowed, as a policy document."
  value       = templatefile("${local.infra}/policies/operator.json", local.policy_values)
}

output "cli" {
  description = "Settings for the command line: eval \"$(terraform output -raw cli)\""
  value = join("\n", concat(
    [for name, value in local.environment : "export ${name}='${value}'"],
    ["export AWS_REGION='${local.region}'"],
  ))
}
