mock_provider "aws" {
  mock_resource "aws_lambda_invocation" {
    defaults = { result = "{\"id\": \"8f2c\", \"version\": 1}" }
  }
}

variables {
  admin_function_name = "jobs-admin"
  kind                = "variable"
  name                = "region"
  managed_by          = "terraform:module.region"
  spec                = { value = "eu" }
}

run "what_is_sent" {
  command = apply

  assert {
    condition     = aws_lambda_invocation.this.lifecycle_scope == "CRUD"
    error_message = "The record is changed and deleted with its resource."
  }
  assert {
    condition     = aws_lambda_invocation.this.triggers == tomap({ record = "variable region" })
    error_message = "Under another name it is replaced: the old record is deleted, whatever becomes of the new one."
  }
  assert {
    condition = { for key, value in jsondecode(aws_lambda_invocation.this.input) : key => value if key != "token" } == {
      version = 1, kind = "variable", name = "region", managed_by = "terraform:module.region", spec = { value = "eu" }
    }
    error_message = "The request says what the record is to be, and whose it is."
  }
  assert {
    condition     = output.id == "8f2c" && output.name == "region"
    error_message = "The answer's id is an output."
  }
}

run "sent_once_more" {
  command = apply
  variables {
    again = 1
  }

  assert {
    condition     = jsondecode(aws_lambda_invocation.this.input).token != run.what_is_sent.token
    error_message = "Another `again` is another request."
  }
}

run "a_secret" {
  command = plan
  variables {
    spec = { value = "eu", tags = [sensitive("token")] }
  }
  expect_failures = [var.spec]
}

run "a_kind_that_there_is_not" {
  command = plan
  variables {
    kind = "flow"
  }
  expect_failures = [var.kind]
}

run "a_name_with_illegal_characters" {
  command = plan
  variables {
    name = "our region"
  }
  expect_failures = [var.name]
}

run "nobody_s_record" {
  command = plan
  variables {
    managed_by = "me"
  }
  expect_failures = [var.managed_by]
}

run "no_function" {
  command = plan
  variables {
    admin_function_name = "https://example.com"
  }
  expect_failures = [var.admin_function_name]
}
