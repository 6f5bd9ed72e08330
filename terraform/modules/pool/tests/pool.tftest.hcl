mock_provider "aws" {
  mock_resource "aws_lambda_invocation" {
    defaults = { result = "{\"id\": \"8f2c\", \"version\": 1}" }
  }
}

variables {
  admin_function_name = "jobs-admin"
  name                = "nightly"
  type                = "ecs:push"
}

run "the_smallest_pool" {
  command = apply

  assert {
    condition     = output.name == "nightly" && output.type == "ecs:push" && output.block == null
    error_message = "A pool needs a name and a type."
  }
}

run "a_pool_with_everything" {
  command = apply
  variables {
    description       = "what runs at night"
    concurrency_limit = 10
    is_paused         = false
    work_queues       = [{ name = "urgent", priority = 1, concurrency_limit = 0 }, { name = "default", description = "the rest" }]
    variables         = { cpu = 512, env = { LEVEL = "INFO" } }
    base_job_template = {
      job_configuration = { # Every job of the pool runs this image.
        aws_credentials = "{{ aws_credentials }}"
        env             = "{{ env }}"
        task_definition = { cpu = "{{ cpu }}", containerDefinitions = [{ name = "flow", image = "acme/golden:1" }] }
      }
      variables = {
        type       = "object"
        properties = { aws_credentials = {}, cpu = { type = "integer" }, env = { type = "object", default = null } }
      }
    }
    block          = { type = "aws-credentials", variable = "aws_credentials", data = {} }
    module_address = "module.nightly"
  }

  assert {
    condition     = output.block == "aws-credentials/nightly"
    error_message = "The block is called as the pool is."
  }
}

# -- bad input is refused before anything is made

run "a_type_that_functions_do_not_serve" {
  command = plan
  variables {
    type = "process"
  }
  expect_failures = [var.type]
}

run "an_illegal_name" {
  command = plan
  variables {
    name = "Nightly Jobs"
  }
  expect_failures = [var.name]
}

run "a_limit_below_zero" {
  command = plan
  variables {
    concurrency_limit = -1
  }
  expect_failures = [var.concurrency_limit]
}

run "half_a_slot" {
  command = plan
  variables {
    concurrency_limit = 1.5
  }
  expect_failures = [var.concurrency_limit]
}

run "queues_that_cannot_be" {
  command = plan
  variables {
    work_queues = [{ name = "not / a name", priority = 0, concurrency_limit = -3 }]
  }
  expect_failures = [var.work_queues]
}

run "a_queue_named_twice" {
  command = plan
  variables {
    work_queues = [{ name = "urgent" }, { name = "urgent" }]
  }
  expect_failures = [var.work_queues]
}

run "a_template_that_is_none" {
  command = plan
  variables {
    base_job_template = { image = "acme/report:7" }
  }
  expect_failures = [var.base_job_template]
}

run "variables_that_are_none" {
  command = plan
  variables {
    variables = "cpu=512"
  }
  expect_failures = [var.variables]
}
