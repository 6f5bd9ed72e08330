variable "service" {
  description = "The installation that serves the pool: `service = module.service`. Its `platforms` include cloud_run."
  type = object({
    name                = string
    admin_function_name = string
    function_role_arns  = map(string)
  })

  validation {
    condition     = alltrue([for name in ["submit_cloud_run", "poll_cloud_run"] : can(regex("^arn:[^:]+:iam::[0-9]{12}:role/.+$", var.service.function_role_arns[name]))])
    error_message = "The installation has no functions for Cloud Run; add \"cloud_run\" to platforms of modules/service."
  }
}

variable "name" {
  description = "Name of the pool, by which deployments and the command line call it. Its service accounts are called NAME-POOL and NAME-POOL-job, NAME being that of the installation."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9-]*[a-z0-9]$", var.name)) && length("${var.service.name}${var.name}") <= 25
    error_message = "name has lower-case letters, digits and dashes, begins and ends with a letter or digit, and has at most 25 characters together with the installation's: a service account's has 30."
  }
}

# -- what it needs at Google

variable "project" {
  description = "Id of the project that jobs run in; by default the provider's."
  type        = string
  default     = null
}

variable "region" {
  description = "The region that jobs run in, such as europe-west1."
  type        = string

  validation {
    condition     = can(regex("^[a-z]+-[a-z]+[0-9]+$", var.region))
    error_message = "region is none of Google's; write one such as europe-west1."
  }
}

variable "service_account" {
  description = "A service account of yours for the jobs' own calls, by its email; by default one is made, which may do nothing."
  type        = object({ email = string }) # An object, because whether it is there has to be known when planning.
  default     = null

  validation {
    condition     = var.service_account == null || can(regex("^[^@]+@[^@]+[.]gserviceaccount[.]com$", var.service_account.email))
    error_message = "service_account.email is no address of a service account; write NAME@PROJECT.iam.gserviceaccount.com."
  }
}

variable "trusted_role_arns" {
  description = "More roles at AWS, of the same account, that may act as the pool's identity: those of people who read the output of jobs with the command line."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for arn in var.trusted_role_arns : can(regex("^arn:[^:]+:iam::[0-9]{12}:role/.+$", arn))])
    error_message = "trusted_role_arns: one is no ARN of a role; write arn:aws:iam::ACCOUNT:role/NAME."
  }
}

variable "workload_identity_pool_id" {
  description = "Id of the workload identity pool that is made; by default NAME-POOL. Google keeps the id of a deleted one for 30 days: take another one to make it anew before."
  type        = string
  default     = null

  validation {
    condition     = var.workload_identity_pool_id == null || can(regex("^[a-z0-9-]{4,32}$", var.workload_identity_pool_id)) && !startswith(coalesce(var.workload_identity_pool_id, "-"), "gcp-")
    error_message = "workload_identity_pool_id has 4 to 32 lower-case letters, digits and dashes, and does not begin with gcp-."
  }
}

variable "enable_apis" {
  description = "Whether the APIs that are needed are enabled in the project. They are never disabled."
  type        = bool
  default     = true
}

# -- the pool; modules/pool checks these

variable "description" {
  description = "What the pool is for; shown by the command line."
  type        = string
  default     = ""
}

variable "concurrency_limit" {
  description = "Most runs active at once; null sets no limit, 0 holds every run."
  type        = number
  default     = null
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
  default = []
}

variable "image" {
  description = "The image of jobs, unless a deployment names its own."
  type        = string
  default     = null
}

variable "job_variables" {
  description = "More defaults of job variables, by their names in docs/google-cloud.md; they win over those that the module sets."
  type        = any
  default     = {}

  validation {
    condition     = can(keys(var.job_variables))
    error_message = "job_variables is an object of names and values, such as { cpu = \"2\", memory = \"4Gi\" }."
  }
}

variable "base_job_template" {
  description = "The pool's template, whole; by default that of Cloud Run pools. A value that is written in its job_configuration cannot be overridden."
  type        = any
  default     = null
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
