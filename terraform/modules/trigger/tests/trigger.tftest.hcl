mock_provider "aws" {
  mock_data "aws_caller_identity" {
    defaults = { account_id = "123456789012" }
  }
  mock_resource "aws_iam_role" {
    defaults = { arn = "arn:aws:iam::123456789012:role/jobs-trigger-morning" }
  }
}

variables {
  service = {
    name = "jobs"
    queue_arns = {
      poll-ecs   = "arn:aws:sqs:eu-west-1:123456789012:jobs-poll-ecs"
      submit-aci = "arn:aws:sqs:eu-west-1:123456789012:jobs-submit-aci"
      submit-ecs = "arn:aws:sqs:eu-west-1:123456789012:jobs-submit-ecs"
    }
  }
  name       = "morning"
  schedule   = "cron(0 7 * * ? *)"
  deployment = "etl/hourly"
}

run "by_default" {
  command = apply

  assert {
    condition     = aws_scheduler_schedule.this.target[0].arn == "arn:aws:sqs:eu-west-1:123456789012:jobs-submit-ecs"
    error_message = "The event goes to a submit queue."
  }
  assert {
    condition     = aws_scheduler_schedule.this.target[0].dead_letter_config[0].arn == "arn:aws:sqs:eu-west-1:123456789012:jobs-undelivered"
    error_message = "What cannot be delivered goes to the queue that has an alarm."
  }
  assert {
    condition     = strcontains(output.event, "\"scheduled_time\":\"<aws.scheduler.scheduled-time>\"") && strcontains(output.event, "\"idempotency_key\":\"jobs-trigger-morning/<aws.scheduler.scheduled-time>\"")
    error_message = "The time that a firing is for names the run, in words that Scheduler finds."
  }
  assert {
    condition     = jsondecode(aws_iam_role_policy.this.policy).Statement[0].Resource == ["arn:aws:sqs:eu-west-1:123456789012:jobs-submit-ecs", "arn:aws:sqs:eu-west-1:123456789012:jobs-undelivered"]
    error_message = "It may send there, and nowhere else."
  }
  assert {
    condition     = aws_scheduler_schedule.this.state == "ENABLED" && aws_scheduler_schedule.this.flexible_time_window[0].mode == "OFF"
    error_message = "It fires at its time."
  }
}

run "without_ecs_and_a_deployment" {
  command = apply
  variables {
    service          = { name = "jobs", queue_arns = { submit-aci = "arn:aws:sqs:eu-west-1:123456789012:jobs-submit-aci" } }
    deployment       = null
    work_pool        = "nightly"
    parameters       = { region = "eu" }
    enabled          = false
    flexible_minutes = 15
  }

  assert {
    condition     = aws_scheduler_schedule.this.target[0].arn == "arn:aws:sqs:eu-west-1:123456789012:jobs-submit-aci" && aws_scheduler_schedule.this.target[0].dead_letter_config[0].arn == "arn:aws:sqs:eu-west-1:123456789012:jobs-undelivered"
    error_message = "Any submit queue takes any event."
  }
  assert {
    condition     = jsondecode(output.event).work_pool == "nightly" && !can(jsondecode(output.event).deployment) && jsondecode(output.event).parameters.region == "eu"
    error_message = "The event names a pool."
  }
  assert {
    condition     = aws_scheduler_schedule.this.state == "DISABLED" && aws_scheduler_schedule.this.flexible_time_window[0].maximum_window_in_minutes == 15
    error_message = "It does not fire, and would have a quarter of an hour to."
  }
}

# -- bad input is refused before anything is made

run "a_cron_of_another_kind" {
  command = plan
  variables {
    schedule = "0 7 * * *"
  }
  expect_failures = [var.schedule]
}

run "a_rate_of_nothing" {
  command = plan
  variables {
    schedule = "rate(0 minutes)"
  }
  expect_failures = [var.schedule]
}

run "nothing_to_run" {
  command = plan
  variables {
    deployment = null
  }
  expect_failures = [var.deployment]
}

run "two_things_to_run" {
  command = plan
  variables {
    work_pool = "nightly"
  }
  expect_failures = [var.deployment]
}

run "no_queue" {
  command = plan
  variables {
    service = { name = "jobs", queue_arns = {} }
  }
  expect_failures = [var.service]
}

run "what_cannot_be" {
  command = plan
  variables {
    name             = "Every Morning"
    timezone         = "CET +1"
    flexible_minutes = 2000
    parameters       = "x"
    job_variables    = "x"
    tags             = [""]
  }
  expect_failures = [var.name, var.timezone, var.flexible_minutes, var.parameters, var.job_variables, var.tags]
}
