output "name" {
  description = "Name of the pool, once it is there; for modules/deployment."
  value       = module.pool.name
}

output "job_variables" {
  description = "The defaults that its jobs have."
  value       = local.job_variables
}

output "cluster_arn" {
  description = "The cluster that jobs run in."
  value       = local.cluster_arn
}

output "task_role_name" {
  description = "The role of jobs, for policies of your own."
  value       = aws_iam_role.task.name
}

output "execution_role_name" {
  description = "The role that ECS starts jobs with."
  value       = aws_iam_role.execution.name
}

output "log_group_name" {
  description = "Where jobs write their output."
  value       = aws_cloudwatch_log_group.this.name
}

output "security_group_id" {
  description = "The security group that was made; null if yours are used."
  value       = one(aws_security_group.this[*].id)
}
