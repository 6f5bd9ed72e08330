mock_provider "google" {}

variables {
  webhook_url           = "https://abc.lambda-url.eu-west-1.on.aws/"
  audience              = "push-pools"
  service_account_email = "scheduler@acme.iam.gserviceaccount.com"
  region                = "europe-west1"
  name                  = "morning"
  schedule              = "0 7 * * *"
  deployment            = "etl/hourly"
}

run "by_default" {
  command = apply

  assert {
    condition     = jsondecode(base64decode(google_cloud_scheduler_job.this.http_target[0].body)) == { version = 1, type = "scheduled-run", deployment = "etl/hourly" }
    error_message = "It asks for a run of the deployment."
  }
  assert {
    condition     = google_cloud_scheduler_job.this.http_target[0].oidc_token[0].audience == "push-pools" && google_cloud_scheduler_job.this.http_target[0].oidc_token[0].service_account_email == var.service_account_email
    error_message = "It says who sends, and for whom."
  }
  assert {
    condition     = google_cloud_scheduler_job.this.time_zone == "UTC" && !google_cloud_scheduler_job.this.paused
    error_message = "It fires by UTC."
  }
}

# -- bad input is refused before anything is made

run "a_schedule_of_another_kind" {
  command = plan
  variables {
    schedule = "rate(5 minutes)"
  }
  expect_failures = [var.schedule]
}

run "no_webhook" {
  command = plan
  variables {
    webhook_url = "http://example.com"
  }
  expect_failures = [var.webhook_url]
}

run "nobody" {
  command = plan
  variables {
    service_account_email = "me@example.com"
  }
  expect_failures = [var.service_account_email]
}

run "nothing_to_run" {
  command = plan
  variables {
    deployment = null
  }
  expect_failures = [var.deployment]
}

run "what_cannot_be" {
  command = plan
  variables {
    name          = "every morning"
    timezone      = "CET +1"
    parameters    = "x"
    job_variables = "x"
    tags          = [""]
  }
  expect_failures = [var.name, var.timezone, var.parameters, var.job_variables, var.tags]
}
