mock_provider "aws" {
  mock_resource "aws_lambda_invocation" {
    defaults = { result = "{\"id\": \"8f2c\", \"version\": 1}" }
  }
}

variables {
  service   = { admin_function_name = "jobs-admin" }
  name      = "hourly"
  work_pool = "nightly"
}

run "the_smallest_deployment" {
  command = apply

  assert {
    condition     = output.name == "hourly/hourly" && output.id == "8f2c"
    error_message = "A deployment needs a name and a pool."
  }
}

run "schedules_of_every_kind" {
  command = apply
  variables {
    flow_name          = "etl"
    command            = ["python", "-m", "etl"]
    parameters         = { region = "eu", depth = 3 }
    job_variables      = { image = "acme/etl:1", cpu = 512 }
    open_job_variables = ["image"]
    retries            = { attempts = 5, on = ["spot"], backoff = "30s" }
    tags               = ["finance"]
    concurrency_limit  = 0
    schedules = [
      { cron = "*/15 7-19 * * MON-FRI", timezone = "Europe/Vienna", catchup = "within 2h", overlap = "skip", dst_gap = "skip" },
      { cron = "@daily", slug = "daily", parameters = jsonencode({ depth = 5 }) },
      { interval = "90s", jitter = "5s" },
      { interval = 3600 },
      { rrule = "FREQ=DAILY;BYHOUR=7" },
      { at = "2030-01-31T08:00:00" },
    ]
  }

  assert {
    condition     = output.name == "etl/hourly"
    error_message = "It is addressed by its flow and its name."
  }
}

# -- bad input is refused before anything is made

run "an_illegal_name" {
  command = plan
  variables {
    name = "every hour"
  }
  expect_failures = [var.name]
}

run "an_illegal_flow_name" {
  command = plan
  variables {
    flow_name = "e/t/l"
  }
  expect_failures = [var.flow_name]
}

run "no_schedule" {
  command = plan
  variables {
    schedules = [{ timezone = "UTC" }]
  }
  expect_failures = [var.schedules]
}

run "two_in_one" {
  command = plan
  variables {
    schedules = [{ cron = "@daily", interval = "1d" }]
  }
  expect_failures = [var.schedules]
}

run "a_cron_with_four_fields" {
  command = plan
  variables {
    schedules = [{ cron = "0 7 * *" }]
  }
  expect_failures = [var.schedules]
}

run "a_word_for_a_cron" {
  command = plan
  variables {
    schedules = [{ cron = "@noon" }]
  }
  expect_failures = [var.schedules]
}

run "an_interval_of_nothing" {
  command = plan
  variables {
    schedules = [{ interval = "0s" }]
  }
  expect_failures = [var.schedules]
}

run "an_interval_below_zero" {
  command = plan
  variables {
    schedules = [{ interval = "-5m" }]
  }
  expect_failures = [var.schedules]
}

run "an_interval_in_words" {
  command = plan
  variables {
    schedules = [{ interval = "often" }]
  }
  expect_failures = [var.schedules]
}

run "an_rrule_without_a_frequency" {
  command = plan
  variables {
    schedules = [{ rrule = "BYHOUR=7" }]
  }
  expect_failures = [var.schedules]
}

run "a_moment_that_is_none" {
  command = plan
  variables {
    schedules = [{ at = "tomorrow" }]
  }
  expect_failures = [var.schedules]
}

run "a_time_zone_that_is_none" {
  command = plan
  variables {
    schedules = [{ cron = "@daily", timezone = "CET +1" }]
  }
  expect_failures = [var.schedules]
}

run "an_overlap_that_there_is_not" {
  command = plan
  variables {
    schedules = [{ cron = "@daily", overlap = "queue" }]
  }
  expect_failures = [var.schedules]
}

run "a_catch_up_that_there_is_not" {
  command = plan
  variables {
    schedules = [{ cron = "@daily", catchup = "some" }]
  }
  expect_failures = [var.schedules]
}

run "parameters_that_are_no_json" {
  command = plan
  variables {
    schedules = [{ cron = "@daily", parameters = "depth=5" }]
  }
  expect_failures = [var.schedules]
}

run "a_slug_twice" {
  command = plan
  variables {
    schedules = [{ cron = "@daily", slug = "a" }, { cron = "@hourly", slug = "a" }]
  }
  expect_failures = [var.schedules]
}

run "limits_below_zero" {
  command = plan
  variables {
    concurrency_limit     = -1
    start_timeout_seconds = 0
    timeout_seconds       = -1
    max_wait_seconds      = -5
    retries               = { attempts = 0 }
  }
  expect_failures = [var.concurrency_limit, var.start_timeout_seconds, var.timeout_seconds, var.max_wait_seconds, var.retries]
}

run "what_is_no_object" {
  command = plan
  variables {
    parameters         = "depth=5"
    job_variables      = "cpu=1"
    command            = []
    open_job_variables = [""]
    tags               = [""]
  }
  expect_failures = [var.parameters, var.job_variables, var.command, var.open_job_variables, var.tags]
}
