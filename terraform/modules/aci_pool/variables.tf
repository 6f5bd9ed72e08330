variable "service" {
  description = "The installation that serves the pool: `service = module.service`. Its `platforms` include aci."
  type = object({
    name                = string
    admin_function_name = string
    function_role_arns  = map(string)
  })

  validation {
    condition     = alltrue([for name in ["submit_aci", "poll_aci"] : can(regex("^arn:[^:]+:iam::[0-9]{12}:role/.+$", var.service.function_role_arns[name]))])
    error_message = "The installation has no functions for Azure Container Instances; add \"aci\" to platforms of modules/service."
  }
}

variable "name" {
  description = "Name of the pool, by which deployments and the command line call it. Its resource group is called NAME-POOL, NAME being that of the installation."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$", var.name))
    error_message = "name has 1 to 40 lower-case letters, digits and dashes, and begins and ends with a letter or digit."
  }
}

# -- what it needs at Azure

variable "location" {
  description = "The region that jobs run in, such as westeurope."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9]+$", var.location))
    error_message = "location is written as Azure's short name, such as westeurope."
  }
}

variable "aws_issuer_url" {
  description = "The issuer of the AWS account's tokens: `aws iam enable-outbound-web-identity-federation` prints it, once an account."
  type        = string

  validation {
    condition     = can(regex("^https://[^/]+[^/]$", var.aws_issuer_url))
    error_message = "aws_issuer_url is an https address without a path, such as https://ID.tokens.sts.global.api.aws; `aws iam enable-outbound-web-identity-federation` prints it."
  }
}

variable "resource_group" {
  description = "A resource group of yours that jobs run in, by its name; by default one is made."
  type        = object({ name = string }) # An object, because whether it is there has to be known when planning.
  default     = null
}

variable "subnet_ids" {
  description = "Resource ids of subnets, delegated to container groups, that jobs run in; by default in none."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for id in var.subnet_ids : can(regex("^/subscriptions/[^/]+/resourceGroups/[^/]+/providers/Microsoft.Network/virtualNetworks/[^/]+/subnets/[^/]+$", id))])
    error_message = "subnet_ids: one is no resource id of a subnet; write /subscriptions/…/virtualNetworks/NAME/subnets/NAME."
  }
}

variable "identity_ids" {
  description = "Resource ids of user-assigned identities that jobs have, for their own calls or to pull their image."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for id in var.identity_ids : can(regex("^/subscriptions/[^/]+/resource[gG]roups/[^/]+/providers/Microsoft.ManagedIdentity/userAssignedIdentities/[^/]+$", id))])
    error_message = "identity_ids: one is no resource id of a user-assigned identity; write /subscriptions/…/userAssignedIdentities/NAME."
  }
}

variable "trusted_role_arns" {
  description = "More roles at AWS that may act as the pool's identity, by a name of yours: those of people who read the output of jobs with the command line."
  type        = map(string)
  default     = {}
  nullable    = false

  validation {
    condition     = alltrue([for name, arn in var.trusted_role_arns : can(regex("^[A-Za-z0-9][A-Za-z0-9_-]{2,119}$", name)) && can(regex("^arn:[^:]+:iam::[0-9]{12}:role/.+$", arn))])
    error_message = "trusted_role_arns: one is no ARN of a role, or its name has not 3 to 120 letters, digits, dashes and underscores; write { people = \"arn:aws:iam::ACCOUNT:role/NAME\" }."
  }
}

variable "tags" {
  description = "Tags of everything that can have some."
  type        = map(string)
  default     = {}
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
  description = "More defaults of job variables, by their names in docs/azure.md; they win over those that the module sets."
  type        = any
  default     = {}

  validation {
    condition     = can(keys(var.job_variables))
    error_message = "job_variables is an object of names and values, such as { cpu = 1, memory = 2 }."
  }
}

variable "base_job_template" {
  description = "The pool's template, whole; by default that of ACI pools. A value that is written in its job_configuration cannot be overridden."
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
