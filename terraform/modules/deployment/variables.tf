variable "service" {
  description = "The installation that serves it: `service = module.service`."
  type = object({
    admin_function_name = string
  })
}

variable "name" {
  description = "Name of the deployment; it is addressed as FLOW/NAME."
  type        = string

  validation {
    condition     = can(regex("^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$", var.name))
    error_message = "name has 1 to 128 letters, digits, dashes, underscores and dots, and begins with a letter or digit."
  }
}

variable "flow_name" {
  description = "What it is a deployment of; by default it is called as the deployment is."
  type        = string
  default     = null

  validation {
    condition     = var.flow_name == null || can(regex("^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$", var.flow_name))
    error_message = "flow_name has 1 to 128 letters, digits, dashes, underscores and dots, and begins with a letter or digit."
  }
}

variable "work_pool" {
  description = "The pool that it runs in. Give the output `name` of the pool's module, so that the pool is there before."
  type        = string
}

variable "work_queue" {
  description = "The queue of the pool."
  type        = string
  default     = "default"
  nullable    = false
}

variable "description" {
  description = "What it does; shown by the command line."
  type        = string
  default     = ""
  nullable    = false
}

variable "command" {
  description = "The command of the job, word by word; by default the image's own. No shell is run."
  type        = list(string)
  default     = null

  validation {
    condition     = var.command == null || try(length(var.command) > 0, false)
    error_message = "command has no words; write some, such as [\"python\", \"-m\", \"report\"], or leave it out for the image's own."
  }
}

variable "parameters" {
  description = "What the job finds in PUSH_POOLS_PARAMETERS."
  type        = any
  default     = {}

  validation {
    condition     = can(keys(var.parameters))
    error_message = "parameters is an object of names and values, such as { region = \"eu\" }."
  }
}

variable "job_variables" {
  description = "Job variables over the pool's defaults, such as image, cpu and memory."
  type        = any
  default     = {}

  validation {
    condition     = can(keys(var.job_variables))
    error_message = "job_variables is an object of names and values, such as { image = \"acme/report:7\" }."
  }
}

variable "open_job_variables" {
  description = "Job variables that are left to others. With [\"image\"] a CI job sets the image: `push-pools deployment set-job-variable FLOW/NAME image=…`. What it has set stays through every apply; a value in job_variables only counts until then."
  type        = set(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for name in var.open_job_variables : trimspace(name) == name && name != ""])
    error_message = "open_job_variables has a name that is empty or begins or ends with a blank; write the names of job variables, such as [\"image\"]."
  }
}

variable "schedules" {
  description = "When it runs. Each has one of `cron`, `interval` (seconds, or 15m), `rrule` and `at` (one moment); docs/config-file.md tells of the rest. `parameters` and `job_variables` are JSON: jsonencode({…})."
  type = list(object({
    cron          = optional(string)
    day_or        = optional(bool)
    interval      = optional(string)
    anchor_date   = optional(string)
    rrule         = optional(string)
    at            = optional(string)
    timezone      = optional(string)
    slug          = optional(string)
    active        = optional(bool)
    note          = optional(string)
    parameters    = optional(string)
    job_variables = optional(string)
    catchup       = optional(string)
    overlap       = optional(string)
    jitter        = optional(string)
    start_date    = optional(string)
    end_date      = optional(string)
    dst_gap       = optional(string)
    dst_fold      = optional(string)
  }))
  default  = []
  nullable = false

  validation {
    condition     = alltrue([for each in var.schedules : length([for value in [each.cron, each.interval, each.rrule, each.at] : value if value != null]) == 1])
    error_message = "schedules: each has exactly one of cron, interval, rrule and at; keep one, such as cron = \"0 7 * * *\"."
  }
  validation {
    condition     = alltrue([for each in var.schedules : each.cron == null || can(regex("^\\s*(@(hourly|daily|midnight|weekly|monthly|yearly|annually)|[0-9A-Za-z*/,#?-]+(\\s+[0-9A-Za-z*/,#?-]+){4})\\s*$", each.cron))])
    error_message = "schedules: a cron is no schedule; write minute, hour, day, month and weekday, such as \"0 7 * * *\", or @hourly, @daily, @weekly, @monthly or @yearly."
  }
  validation {
    condition = alltrue(flatten([for each in var.schedules : [
      each.interval == null || can(regex("^(\\d+(\\.\\d+)? ?[smhd]|\\d{1,12}(\\.\\d+)?)$", each.interval)) && !can(regex("^0*(\\.\\d+)? ?[smhd]?$", each.interval)),
      each.jitter == null || can(regex("^\\d{1,12}(\\.\\d+)? ?[smhd]?$", each.jitter)),
    ]]))
    error_message = "schedules: interval and jitter are seconds, such as 90, or a number and a unit, such as \"15m\", \"2h\" or \"1d\"; an interval is at least a second."
  }
  validation {
    condition     = alltrue([for each in var.schedules : each.rrule == null || can(regex("FREQ=(YEARLY|MONTHLY|WEEKLY|DAILY|HOURLY|MINUTELY|SECONDLY)", each.rrule))])
    error_message = "schedules: an rrule is no schedule; write one by RFC 5545, such as \"FREQ=DAILY;BYHOUR=7\"."
  }
  validation {
    condition = alltrue(flatten([for each in var.schedules : [for moment in [each.at, each.anchor_date, each.start_date, each.end_date] :
      moment == null || can(regex("^\\d{4}-\\d\\d-\\d\\d([T ]\\d\\d:\\d\\d(:\\d\\d(\\.\\d+)?)?(Z|[+-]\\d\\d:\\d\\d)?)?$", moment))
    ]]))
    error_message = "schedules: at, anchor_date, start_date and end_date are moments, such as \"2026-01-31T08:00:00\"; without an offset they are local to timezone."
  }
  validation {
    condition     = alltrue([for each in var.schedules : each.timezone == null || can(regex("^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*$", each.timezone))])
    error_message = "schedules: timezone is a name of the IANA database, such as Europe/Vienna."
  }
  validation {
    condition = alltrue(flatten([for each in var.schedules : [
      each.catchup == null || can(regex("^(all|latest|none|within .+)$", each.catchup)),
      each.overlap == null || try(contains(["allow", "skip", "buffer_one", "cancel_other"], each.overlap), false),
      each.dst_gap == null || try(contains(["shift", "skip"], each.dst_gap), false),
      each.dst_fold == null || try(contains(["once", "twice"], each.dst_fold), false),
    ]]))
    error_message = "schedules: catchup is all, latest, none or \"within 2h\"; overlap is allow, skip, buffer_one or cancel_other; dst_gap is shift or skip; dst_fold is once or twice."
  }
  validation {
    condition     = alltrue(flatten([for each in var.schedules : [for text in [each.parameters, each.job_variables] : text == null || can(keys(jsondecode(text)))]]))
    error_message = "schedules: parameters and job_variables are JSON objects; write jsonencode({ region = \"eu\" })."
  }
  validation {
    condition     = length(distinct(compact(var.schedules[*].slug))) == length(compact(var.schedules[*].slug))
    error_message = "schedules: two have the same slug; rename one."
  }
}

variable "retries" {
  description = "How often an attempt is made (`attempts`, the first included), after which failure classes (`on`), and how long to wait at first (`backoff`). By default 3, after failures of infrastructure, 10 s."
  type = object({
    attempts = optional(number)
    on       = optional(list(string))
    backoff  = optional(string)
  })
  default = null

  validation {
    condition     = try(var.retries.attempts, null) == null || try(var.retries.attempts >= 1 && var.retries.attempts <= 100 && floor(var.retries.attempts) == var.retries.attempts, false)
    error_message = "retries.attempts is a whole number from 1, which tries once, to 100."
  }
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

variable "start_timeout_seconds" {
  description = "How long a job may take to begin to run; by default the pool's, else the platform's."
  type        = number
  default     = null

  validation {
    condition     = var.start_timeout_seconds == null || try(var.start_timeout_seconds > 0, false)
    error_message = "start_timeout_seconds is more than 0; leave it out for the pool's."
  }
}

variable "timeout_seconds" {
  description = "How long a job may run; 0 sets no limit; by default the pool's, else a day."
  type        = number
  default     = null

  validation {
    condition     = var.timeout_seconds == null || try(var.timeout_seconds >= 0, false)
    error_message = "timeout_seconds is 0, for no limit, or more."
  }
}

variable "max_wait_seconds" {
  description = "How long a run may wait for a slot before it is skipped; by default for ever."
  type        = number
  default     = null

  validation {
    condition     = var.max_wait_seconds == null || try(var.max_wait_seconds > 0, false)
    error_message = "max_wait_seconds is more than 0; leave it out to wait for ever."
  }
}

variable "tags" {
  description = "Tags of its runs."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for tag in var.tags : length(tag) >= 1 && length(tag) <= 128])
    error_message = "tags has a text that is empty or too long; write texts of 1 to 128 characters."
  }
}

variable "is_paused" {
  description = "Whether new runs are refused; null leaves it as it is."
  type        = bool
  default     = null
}

variable "module_address" {
  description = "Where the module is called, such as module.hourly. The command line names it to whoever tries to change what it made."
  type        = string
  default     = null
}

variable "again" {
  description = "Raise it to have the record sent once more, after a write that failed for a reason outside of this configuration."
  type        = number
  default     = 0
}
