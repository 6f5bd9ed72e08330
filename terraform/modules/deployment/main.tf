# The record of a deployment, with its schedules.

locals {
  key = "${coalesce(var.flow_name, var.name)}/${var.name}"

  schedules = [for schedule in var.schedules : { for key, value in merge(schedule, {
    parameters    = try(jsondecode(schedule.parameters), null)
    job_variables = try(jsondecode(schedule.job_variables), null)
  }) : key => value if value != null }]
}

module "deployment" {
  source = "../record"

  admin_function_name = var.service.admin_function_name
  kind                = "deployment"
  name                = local.key
  managed_by          = "terraform:${coalesce(var.module_address, "the module of deployment ${local.key}")}"
  again               = var.again
  spec = { for key, value in {
    description = var.description
    command     = var.command
    parameters  = var.parameters
    work_pool = {
      name               = var.work_pool
      work_queue_name    = var.work_queue
      job_variables      = var.job_variables
      open_job_variables = sort(var.open_job_variables)
    }
    schedules             = local.schedules
    retries               = var.retries == null ? null : { for key, value in var.retries : key => value if value != null }
    concurrency_limit     = var.concurrency_limit
    start_timeout_seconds = var.start_timeout_seconds
    timeout_seconds       = var.timeout_seconds
    max_wait_seconds      = var.max_wait_seconds
    tags                  = var.tags
    is_paused             = var.is_paused
  } : key => value if value != null }
}
