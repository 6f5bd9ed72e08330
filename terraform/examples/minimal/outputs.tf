output "cli" {
  description = "Settings for the command line: eval \"$(terraform output -raw cli)\""
  value       = module.service.cli
}

output "deployment" {
  description = "What to run: push-pools deployment run \"$(terraform output -raw deployment)\" --watch"
  value       = module.hello.name
}

output "operator_policy" {
  description = "What whoever uses the command line needs to be allowed, as a policy document."
  value       = module.service.operator_policy
}
