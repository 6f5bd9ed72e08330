# A job of Cloud Scheduler that asks for a run, by a POST to the webhook with a token that says who sends it. Its body is
# the same each time; the webhook takes the time that it fires for, and so the name of the run, from the headers.

locals {
  event = { for key, value in {
    version       = 1
    type          = "scheduled-run"
    deployment    = var.deployment
    work_pool     = var.work_pool
    work_queue    = var.work_queue
    parameters    = length(keys(var.parameters)) == 0 ? null : var.parameters
    job_variables = length(keys(var.job_variables)) == 0 ? null : var.job_variables
    tags          = length(var.tags) == 0 ? null : var.tags
  } : key => value if value != null }
}

resource "google_cloud_scheduler_job" "this" {
  name             = var.name
  project          = var.project
  region           = var.region
  description      = "Runs of ${coalesce(var.deployment, var.work_pool)}"
  schedule         = var.schedule
  time_zone        = var.timezone
  paused           = !var.enabled
  attempt_deadline = "60s"

  retry_config {
    retry_count        = 5 # The same firing again is the same run.
    max_retry_duration = "3600s"
  }

  http_target {
    http_method = "POST"
    uri         = var.webhook_url
    headers     = { "Content-Type" = "application/json" }
    body        = base64encode(jsonencode(local.event))

    oidc_token {
      service_account_email = var.service_account_email
      audience              = var.audience
    }
  }
}
