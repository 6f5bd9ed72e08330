output "name" {
  description = "How the record is addressed, once it is written."
  value       = var.name
  depends_on  = [aws_lambda_invocation.this]
}

output "id" {
  description = "Its id; null where the kind has none."
  value       = try(jsondecode(aws_lambda_invocation.this.result).id, null)
}

output "token" {
  description = "Names the request; another one when anything of it changes."
  value       = local.token
}
