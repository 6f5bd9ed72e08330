variable "admin_function_name" {
  description = "The function that writes records: output `admin_function_name` of modules/service."
  type        = string
}

variable "name" {
  description = "Name of the pool, by which deployments and the command line call it."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9-]{0,39}$", var.name))
    error_message = "name has 1 to 40 lower-case letters, digits and dashes, and begins with a letter or digit; it also names the pool's parts in its cloud."
  }
}

variable "type" {
  description = "Pool type. `process` is not among them: a function has no machine on which a job could stay."
  type        = string

  validation {
    condition     = contains(["ecs:push", "cloud-run-v2:push", "azure-container-instance:push"], var.type)
    error_message = "type is no pool type that functions serve; write ecs:push, cloud-run-v2:push or azure-container-instance:push."
  }
}

variable "description" {
  description = "What the pool is for; shown by the command line."
  type        = string
  default     = ""
  nullable    = false
}

variable "concurrency_limit" {
  description = "Most runs active at once; null sets no limit, 0 holds every run."
  type        = number
  default     = null

  validation {
    condition     = var.concurrency_limit == null || try(var.concurrency_limit >= 0 && floor(var.concurrency_limit) == var.concurrency_limit, false)
    error_message = "concurrency_limit is a whole number, 0 or more; leave it out for no limit, and write 0 to hold every run."
  }
}

variable "is_paused" {
  description = "Whether its runs are held; null leaves it as it is."
  type        = bool
  default     = null
}

variable "work_queues" {
  description = "Lanes of the pool, in the order in which they are served unless `priority` says otherwise (1 first). The queue `default` is always there, last if it is not named."
  type = list(object({
    name              = string
    priority          = optional(number)
    concurrency_limit = optional(number)
    description       = optional(string)
    is_paused         = optional(bool)
  }))
  default  = []
  nullable = false

  validation {
    condition     = alltrue([for queue in var.work_queues : can(regex("^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$", queue.name))])
    error_message = "work_queues: a name has 1 to 128 letters, digits, dashes, underscores and dots, and begins with a letter or digit."
  }
  validation {
    condition     = length(distinct(var.work_queues[*].name)) == length(var.work_queues)
    error_message = "work_queues names a queue twice; rename or remove one."
  }
  validation {
    condition = alltrue([for queue in var.work_queues :
      queue.priority == null || try(queue.priority >= 1 && floor(queue.priority) == queue.priority, false)
    ])
    error_message = "work_queues: priority is a whole number, and 1 is served first."
  }
  validation {
    condition = alltrue([for queue in var.work_queues :
      queue.concurrency_limit == null || try(queue.concurrency_limit >= 0 && floor(queue.concurrency_limit) == queue.concurrency_limit, false)
    ])
    error_message = "work_queues: concurrency_limit is a whole number, 0 or more; leave it out for no limit, and write 0 to hold every run."
  }
}

variable "variables" {
  description = "New defaults for variables of the pool's template."
  type        = any
  default     = {}

  validation {
    condition     = can(keys(var.variables))
    error_message = "job variables are an object of names and values, such as { cpu = 512 }."
  }
}

variable "base_job_template" {
  description = "The pool's template, whole, such as jsondecode(file(\"template.json\")); by default the type's own. A value that is written in its job_configuration cannot be overridden."
  type        = any
  default     = null

  validation {
    condition     = var.base_job_template == null || can(keys(var.base_job_template.job_configuration)) && can(keys(var.base_job_template.variables))
    error_message = "base_job_template has an object under job_configuration and one under variables; `push-pools work-pool get-default-base-job-template` prints one to begin with."
  }
}

variable "block" {
  description = "The identity that starts jobs: the type of its block, its data, which is no secret, and the variable of the template that takes it."
  type = object({
    type     = string
    variable = string
    data     = any
  })
  default = null
}

variable "module_address" {
  description = "Where the module is called, such as module.nightly. The command line names it to whoever tries to change what it made."
  type        = string
  default     = null
}

variable "again" {
  description = "Raise it to have the records sent once more, after a write that failed for a reason outside of this configuration."
  type        = number
  default     = 0
}
