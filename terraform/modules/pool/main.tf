# The record of a work pool, with its queues, and the block with the identity that starts its jobs.

locals {
  # Where it is called is not known to a module. The kind and name of what it makes lead there too.
  managed_by = "terraform:${coalesce(var.module_address, "the module of work pool ${var.name}")}"
  queues = [for queue in var.work_queues : {
    for key, value in queue : key => value if value != null
  }]
  block = var.block == null ? null : "{{ blocks.${var.block.type}.${var.name} }}"
}

module "block" {
  source = "../record"
  count  = var.block == null ? 0 : 1

  admin_function_name = var.admin_function_name
  kind                = "block"
  name                = "${var.block.type}/${var.name}"
  managed_by          = local.managed_by
  again               = var.again
  spec                = var.block.data
}

module "pool" {
  source = "../record"

  admin_function_name = var.admin_function_name
  kind                = "work-pool"
  name                = var.name
  managed_by          = local.managed_by
  again               = var.again
  spec = { for key, value in {
    type              = var.type
    description       = var.description
    concurrency_limit = var.concurrency_limit
    is_paused         = var.is_paused
    work_queues       = local.queues
    base_job_template = var.base_job_template
    variables         = merge(var.variables, var.block == null ? {} : { (var.block.variable) = local.block })
  } : key => value if value != null }

  depends_on = [module.block]
}
