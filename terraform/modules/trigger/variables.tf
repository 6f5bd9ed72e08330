variable "service" {
  description = "The installation that takes the event: `service = module.service`."
  type = object({
    name       = string
    queue_arns = map(string)
  })

  validation {
    condition     = length([for name in keys(var.service.queue_arns) : name if startswith(name, "submit-")]) > 0
    error_message = "service has no submit queue; give module.service."
  }
}

variable "name" {
  description = "Name of the trigger. It is part of what names a run: two triggers that fire at the same time are two runs."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9-]{0,39}$", var.name)) && length("${var.service.name}${var.name}") <= 55
    error_message = "name has 1 to 40 lower-case letters, digits and dashes, begins with a letter or digit, and has at most 55 characters together with the installation's."
  }
}

variable "schedule" {
  description = "When it fires, as EventBridge Scheduler writes it: cron(0 7 * * ? *), rate(5 minutes) or at(2026-01-31T08:00:00)."
  type        = string

  validation {
    condition     = can(regex("^(cron\\(\\S+( \\S+){5}\\)|rate\\([1-9]\\d* (minute|minutes|hour|hours|day|days)\\)|at\\(\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\d\\))$", var.schedule))
    error_message = "schedule is none of EventBridge's; write cron(0 7 * * ? *), with six fields, rate(5 minutes) or at(2026-01-31T08:00:00)."
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

variable "flexible_minutes" {
  description = "Within how many minutes after its time it may fire; 0 is at its time."
  type        = number
  default     = 0

  validation {
    condition     = var.flexible_minutes >= 0 && var.flexible_minutes <= 1440 && floor(var.flexible_minutes) == var.flexible_minutes
    error_message = "flexible_minutes is a whole number from 0, for none, to 1440."
  }
}

variable "start_date" {
  description = "When it begins to fire, such as 2026-01-31T00:00:00Z; by default at once."
  type        = string
  default     = null
}

variable "end_date" {
  description = "When it ceases to."
  type        = string
  default     = null
}

variable "group_name" {
  description = "The group of schedules it is in; by default the account's `default`."
  type        = string
  default     = "default"
}

variable "kms_key_arn" {
  description = "A KMS key of yours for the event; by default AWS's own is used."
  type        = string
  default     = null
}

variable "permissions_boundary" {
  description = "ARN of a policy that bounds the role that is made."
  type        = string
  default     = null
}

variable "tags_of_resources" {
  description = "Tags of the role. Schedules have none."
  type        = map(string)
  default     = {}
}
