output "name" {
  description = "Name of the pool, once it is there; for modules/deployment."
  value       = module.pool.name
}

output "type" {
  description = "Its type."
  value       = var.type
}

output "block" {
  description = "Its block, as `type/name`; null if it has none."
  value       = one(module.block[*].name)
}
