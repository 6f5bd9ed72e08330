output "cli" {
  description = "Settings for the command line: eval \"$(terraform output -raw cli)\""
  value       = module.service.cli
}

output "deployments" {
  description = "What to run, by cloud: push-pools deployment run hello/aci --watch"
  value       = { for cloud, deployment in module.hello : cloud => deployment.name }
}

output "operator_policy" {
  description = "What whoever uses the command line needs to be allowed, as a policy document."
  value       = module.service.operator_policy
}
