output "name" {
  description = "Name of the pool, once it is there; for modules/deployment."
  value       = module.pool.name
}

output "job_variables" {
  description = "The defaults that its jobs have."
  value       = local.job_variables
}

output "block" {
  description = "The block with its identity, as `type/name`. It holds no secret."
  value       = module.pool.block
}

output "job_service_account_email" {
  description = "The service account of jobs, for roles of your own."
  value       = local.job
}

output "starter_service_account_email" {
  description = "The service account that starts jobs."
  value       = google_service_account.starter.email
}
