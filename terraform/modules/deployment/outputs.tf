output "name" {
  description = "How it is addressed, FLOW/NAME, once it is there; for modules/trigger and the command line."
  value       = module.deployment.name
}

output "id" {
  description = "Its id."
  value       = module.deployment.id
}
