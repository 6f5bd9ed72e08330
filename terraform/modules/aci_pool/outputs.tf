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

output "resource_group_name" {
  description = "The resource group that jobs run in."
  value       = local.group.name
}

output "starter_principal_id" {
  description = "Whoever makes container groups, for roles of your own."
  value       = azurerm_user_assigned_identity.starter.principal_id
}
