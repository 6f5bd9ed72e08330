variable "webhook_url" {
  description = "Where the installation takes events: output `webhook_url` of modules/service."
  type        = string

  validation {
    condition     = can(regex("^https://", var.webhook_url))
    error_message = "webhook_url is no https address; enable `webhook` of modules/service, and give its output webhook_url."
  }
}

variable "audience" {
  description = "Whom its tokens are for: `webhook.audience` of modules/service."
  type        = string
}

variable "service_account_email" {
  description = "Who sends the event. Its numeric id (`unique_id`) has to be among `webhook.subjects` of modules/service, whose `webhook.issuer` is https://accounts.google.com."
  type        = string

  validation {
    condition     = can(regex("^[^@]+@[^@]+[.]gserviceaccount[.]com$", var.service_account_email))
    error_message = "service_account_email is no address of a service account; write NAME@PROJECT.iam.gserviceaccount.com."
  }
}

variable "project" {
  description = "The project of the job; by default the provider's."
  type        = string
  default     = null
}

variable "region" {
  description = "The region of the job, such as europe-west1."
  type        = string
}

variable "name" {
  description = "Name of the job. It is part of what names a run: two jobs that fire at the same time are two runs."
  type        = string

  validation {
    condition     = can(regex("^[A-Za-z0-9_-]{1,128}$", var.name))
    error_message = "name has 1 to 128 letters, digits, dashes and underscores."
  }
}

variable "schedule" {
  description = "When it fires, in the form of cron: minute, hour, day, month, weekday."
  type        = string

  validation {
    condition     = can(regex("^[0-9A-Za-z*/,-]+( [0-9A-Za-z*/,-]+){4}$", var.schedule))
    error_message = "schedule is no cron; write minute, hour, day, month and weekday, such as \"0 7 * * *\"."
  }
}

variable "timezone" {
  description = "The time zone of the schedule."
  type        = string
  default     = "UTC"
  nullable    = false

  validation {
    condition     = can(regex("^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*$", var.timezone))
    error_message = "timezone is a name of the IANA database, such as Europe/Vienna."
  }
}

variable "deployment" {
  description = "What runs: the output `name` of a deployment's module, or FLOW/NAME. Either this or work_pool."
  type        = string
  default     = null

  validation {
    condition     = (var.deployment == null) != (var.work_pool == null)
    error_message = "give a deployment or a work_pool to run in; one of them, and not both."
  }
}

variable "work_pool" {
  description = "A pool to run in without a deployment."
  type        = string
  default     = null
}

variable "work_queue" {
  description = "Queue of the pool, in place of the deployment's."
  type        = string
  default     = null
}

variable "parameters" {
  description = "Parameters over those of the deployment."
  type        = any
  default     = {}

  validation {
    condition     = can(keys(var.parameters))
    error_message = "parameters is an object of names and values, such as { region = \"eu\" }."
  }
}

variable "job_variables" {
  description = "Job variables over those of the deployment."
  type        = any
  default     = {}

  validation {
    condition     = can(keys(var.job_variables))
    error_message = "job_variables is an object of names and values, such as { cpu = 512 }."
  }
}

variable "tags" {
  description = "Tags of its runs, beside those of the deployment."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = length(var.tags) <= 50 && alltrue([for tag in var.tags : length(tag) >= 1 && length(tag) <= 128])
    error_message = "tags has a text that is empty or too long, or too many; write at most 50 texts of 1 to 128 characters."
  }
}

variable "enabled" {
  description = "Whether it fires."
  type        = bool
  default     = true
}
