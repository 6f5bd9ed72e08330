# The provider keeps the input of an update that failed, beside the answer to the write before.

mock_provider "aws" {
  mock_resource "aws_lambda_invocation" {
    defaults = { result = "{\"id\": \"8f2c\", \"version\": 1, \"token\": \"that of the write before\"}" }
  }
}

run "the_answer_of_another_write" {
  command = apply
  variables {
    admin_function_name = "jobs-admin"
    kind                = "variable"
    name                = "region"
    managed_by          = "terraform:module.region"
    spec                = { value = "eu" }
  }
  expect_failures = [aws_lambda_invocation.this]
}

run "no_answer_at_all" {
  command   = apply
  state_key = "another"
  variables {
    admin_function_name = "jobs-admin"
    kind                = "variable"
    name                = "region"
    managed_by          = "terraform:module.region"
    spec                = { value = "eu" }
  }
  override_resource {
    target = aws_lambda_invocation.this
    values = { result = "" }
  }
  expect_failures = [aws_lambda_invocation.this]
}
