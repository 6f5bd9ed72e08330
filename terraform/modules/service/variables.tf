variable "name" {
  description = "What the names of everything begin with. Two installations in one account have two names."
  type        = string
  default     = "push-pools"
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,30}[a-z0-9]$", var.name))
    error_message = "name is 3 to 32 lower-case letters, digits and hyphens, beginning with a letter and not ending with a hyphen; shorten or rename it."
  }
}

variable "region" {
  description = "The region that everything is to be in. It only checks the provider's, so that an installation is not made in another region by mistake."
  type        = string
  default     = null
}

variable "platforms" {
  description = "The clouds to install functions and queues for, as infra/functions.json names them: its functions submit_NAME and poll_NAME. Clouds other than ecs need a bundle of `python infra/package.py --set all`."
  type        = set(string)
  default     = ["ecs"]
  nullable    = false

  validation {
    condition     = length(var.platforms) > 0 && length(setsubtract(var.platforms, local.known_platforms)) == 0
    error_message = "platforms names what this release has no functions for; known are ${join(", ", local.known_platforms)}."
  }
}

variable "package" {
  description = "The zip of the functions, from one of three places: a local path (with the base64 SHA-256 of its content, if it is not there yet when planning), an object in S3, or an https URL with the hexadecimal SHA-256 of what is there. `python infra/package.py` makes a zip and prints both; no build runs in an apply."
  type = object({
    path          = optional(string)
    sha256_base64 = optional(string)
    url           = optional(string)
    sha256        = optional(string)
    s3 = optional(object({
      bucket         = string
      key            = string
      object_version = optional(string)
    }))
  })
  nullable = false

  validation {
    condition     = length([for each in [var.package.path, var.package.url, try(var.package.s3.bucket, null)] : each if each != null]) == 1
    error_message = "package is a path, a url or an s3 object; give one of them, and not two."
  }
  validation {
    condition     = var.package.path == null || var.package.sha256_base64 != null || try(fileexists(var.package.path), false)
    error_message = "package.path ${try(coalesce(var.package.path), "")} is not there; make it with python infra/package.py, or give sha256_base64 of what will be."
  }
  validation {
    condition     = var.package.s3 == null || var.package.sha256_base64 != null || try(var.package.s3.object_version, null) != null
    error_message = "package in S3 needs sha256_base64 or s3.object_version, or a new zip under the same key would never be installed; package.py prints the first."
  }
  validation {
    condition     = var.package.url == null || (can(regex("^https://", var.package.url)) && can(regex("^[0-9a-f]{64}$", var.package.sha256)))
    error_message = "package.url is an https address, and needs sha256, 64 hexadecimal digits in lower case: nothing else shows that it is the zip you mean; package.py prints it."
  }
  validation {
    condition     = var.package.sha256_base64 == null || can(regex("^[A-Za-z0-9+/]{43}=$", var.package.sha256_base64))
    error_message = "package.sha256_base64 is not a SHA-256 in base64, 44 characters that end with =; package.py prints it."
  }
}

variable "ecs" {
  description = "What the functions may use of ECS. By default what modules/ecs_pool makes under the same name: clusters NAME-…, roles NAME-job-…."
  type = object({
    cluster_arn            = optional(string)
    execution_role_arn     = optional(string)
    task_role_arn          = optional(string)
    task_definition_prefix = optional(string, "")
    log_group_arn          = optional(string)
  })
  default  = {}
  nullable = false

  validation {
    condition     = var.ecs.cluster_arn == null || can(regex("^arn:[^:]+:ecs:[^:]+:[^:]+:cluster/.+$", var.ecs.cluster_arn))
    error_message = "ecs.cluster_arn is not the ARN of a cluster; write it as arn:aws:ecs:REGION:ACCOUNT:cluster/NAME, where NAME may end with *."
  }
  validation {
    condition     = alltrue([for each in [var.ecs.execution_role_arn, var.ecs.task_role_arn] : each == null || can(regex("^arn:[^:]+:iam::[^:]+:role/.+$", each))])
    error_message = "ecs.execution_role_arn and ecs.task_role_arn are ARNs of roles; write them as arn:aws:iam::ACCOUNT:role/NAME, where NAME may end with *."
  }
  validation {
    condition     = var.ecs.log_group_arn == null || can(regex("^arn:[^:]+:logs:[^:]+:[^:]+:log-group:.+[^:*]$|^arn:[^:]+:logs:[^:]+:[^:]+:log-group:.+/\\*$", var.ecs.log_group_arn))
    error_message = "ecs.log_group_arn is not the ARN of a log group; write it as arn:aws:logs:REGION:ACCOUNT:log-group:NAME, without :* at its end."
  }
}

variable "webhook" {
  description = "Whether events are taken by HTTP, and from whom: the name of a `secret` block that senders share, or an OIDC issuer."
  type = object({
    enabled  = optional(bool, false)
    secret   = optional(string)
    issuer   = optional(string)
    audience = optional(string)
    subjects = optional(list(string), [])
  })
  default  = {}
  nullable = false

  validation {
    condition     = !var.webhook.enabled || var.webhook.secret != null || var.webhook.issuer != null
    error_message = "webhook is enabled without any proof of who sends; set webhook.secret, or webhook.issuer, audience and subjects."
  }
  validation {
    condition     = var.webhook.issuer == null || (var.webhook.audience != null && length(var.webhook.subjects) > 0)
    error_message = "webhook.issuer alone would take the tokens of everybody; set webhook.audience and webhook.subjects too."
  }
}

variable "settings" {
  description = "More settings of the functions, by their names in docs/settings.md, such as PUSH_POOLS_ECS_RUN_TASK_PER_SECOND."
  type        = map(string)
  default     = {}
  nullable    = false

  validation {
    condition     = alltrue([for name in keys(var.settings) : startswith(name, "PUSH_POOLS_") && !startswith(name, "PUSH_POOLS_AWS_")])
    error_message = "settings takes names that begin with PUSH_POOLS_, and not with PUSH_POOLS_AWS_: those the module sets itself."
  }
}

variable "reserved_concurrency" {
  description = "Concurrency to reserve, by function. By default none is."
  type        = map(number)
  default     = {}
  nullable    = false

  validation {
    condition     = length(setsubtract(keys(var.reserved_concurrency), keys(local.table.functions))) == 0
    error_message = "reserved_concurrency names a function that is not there; known are ${join(", ", keys(local.table.functions))}."
  }
  validation {
    condition = alltrue([for name, number in var.reserved_concurrency :
      number >= try(local.table.functions[name].trigger.maximum_concurrency, 1)
    ])
    error_message = "reserved_concurrency is below the maximum concurrency of the function's queue, so messages would be throttled and end as dead letters; reserve at least ${join(", ", [for name, entry in local.table.functions : "${entry.trigger.maximum_concurrency} for ${name}" if try(entry.trigger.maximum_concurrency, null) != null])}."
  }
}

variable "kms_key_arn" {
  description = "A KMS key of yours for the secrets of blocks. By default the module makes one."
  type        = string
  default     = null

  validation {
    condition     = var.kms_key_arn == null || can(regex("^arn:[^:]+:kms:[^:]+:[^:]+:key/.+$", var.kms_key_arn))
    error_message = "kms_key_arn is not the ARN of a key; write it as arn:aws:kms:REGION:ACCOUNT:key/ID."
  }
}

variable "permissions_boundary" {
  description = "ARN of a policy that bounds every role that is made."
  type        = string
  default     = null

  validation {
    condition     = var.permissions_boundary == null || can(regex("^arn:[^:]+:iam::[^:]+:policy/.+$", var.permissions_boundary))
    error_message = "permissions_boundary is not the ARN of a policy; write it as arn:aws:iam::ACCOUNT:policy/NAME."
  }
}

variable "vpc_config" {
  description = "Subnets and security groups for the functions. By default they are in no VPC, and need no NAT. In one they need a way to the public endpoints of AWS."
  type = object({
    subnet_ids         = list(string)
    security_group_ids = list(string)
  })
  default = null

  validation {
    condition     = var.vpc_config == null || try(length(var.vpc_config.subnet_ids) > 0 && length(var.vpc_config.security_group_ids) > 0, false)
    error_message = "vpc_config needs at least one subnet and one security group; leave it out for functions in no VPC."
  }
}

variable "deletion_protection" {
  description = "Whether the ledger is protected from deletion. It holds every run and record."
  type        = bool
  default     = true
  nullable    = false
}

variable "log_retention_days" {
  description = "How long the functions' logs are kept."
  type        = number
  default     = 30
  nullable    = false

  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653], var.log_retention_days)
    error_message = "log_retention_days is not one that CloudWatch knows; use 7, 14, 30, 60, 90, 180 or 365."
  }
}

variable "log_level" {
  description = "The level of the functions' logs."
  type        = string
  default     = "INFO"
  nullable    = false

  validation {
    condition     = contains(["DEBUG", "INFO", "WARNING", "ERROR"], var.log_level)
    error_message = "log_level is DEBUG, INFO, WARNING or ERROR."
  }
}

variable "alarm_actions" {
  description = "ARNs of what alarms call, such as an SNS topic. Without any, alarms are only shown."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for each in var.alarm_actions : can(regex("^arn:[^:]+:[^:]+:", each))])
    error_message = "alarm_actions takes ARNs, such as arn:aws:sns:REGION:ACCOUNT:TOPIC."
  }
}

variable "oldest_message_seconds" {
  description = "How old a message may become before an alarm."
  type        = number
  default     = 900
  nullable    = false

  validation {
    condition     = var.oldest_message_seconds >= 60
    error_message = "oldest_message_seconds is below a minute, in which messages ordinarily wait; use at least 60."
  }
}

variable "failed_runs" {
  description = "From how many failed or crashed runs in an hour on there is an alarm. 0 makes none."
  type        = number
  default     = 0
  nullable    = false

  validation {
    condition     = var.failed_runs >= 0 && floor(var.failed_runs) == var.failed_runs
    error_message = "failed_runs is a number of runs, 0 or more."
  }
}

variable "tags" {
  description = "Tags of everything that can have some."
  type        = map(string)
  default     = {}
  nullable    = false
}
