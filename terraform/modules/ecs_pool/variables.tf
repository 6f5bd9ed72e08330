variable "service" {
  description = "The installation that serves the pool: `service = module.service`."
  type = object({
    name                = string
    admin_function_name = string
  })
}

variable "name" {
  description = "Name of the pool, by which deployments and the command line call it. Its cluster is called NAME-POOL, NAME being that of the installation."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9-]{0,39}$", var.name)) && length("${var.service.name}${var.name}") <= 53
    error_message = "name has 1 to 40 lower-case letters, digits and dashes, begins with a letter or digit, and has at most 53 characters together with the installation's, or the names of roles would be too long."
  }
}

# -- what it needs on AWS

variable "vpc_id" {
  description = "The VPC of the subnets; for the security group that the module makes."
  type        = string
  default     = null

  validation {
    condition     = (var.vpc_id != null) != (length(var.security_group_ids) > 0)
    error_message = "give vpc_id, for a security group to be made, or security_group_ids of your own; one of them, and not both."
  }
}

variable "subnet_ids" {
  description = "Subnets that jobs run in. They need a way to the image's registry: a NAT gateway, endpoints, or public addresses."
  type        = list(string)

  validation {
    condition     = length(var.subnet_ids) >= 1 && length(var.subnet_ids) <= 16
    error_message = "subnet_ids has 1 to 16 subnets, as many as ECS takes."
  }
}

variable "security_group_ids" {
  description = "Security groups of jobs. By default one is made: jobs may call, and nobody may call them."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = length(var.security_group_ids) <= 5
    error_message = "security_group_ids has at most 5 groups, as many as ECS takes."
  }
}

variable "assign_public_ip" {
  description = "Whether jobs get public addresses: the way out of public subnets, without a NAT gateway."
  type        = bool
  default     = false
}

variable "cluster" {
  description = "A cluster of yours, by its ARN; by default one is made. Then tell modules/service too: its `ecs.cluster_arn` says what the functions may use."
  type        = object({ arn = string }) # An object, because whether it is there has to be known when planning.
  default     = null

  validation {
    condition     = var.cluster == null || can(regex("^arn:[^:]+:ecs:[^:]+:[^:]+:cluster/[^*]+$", var.cluster.arn))
    error_message = "cluster.arn is not the ARN of a cluster; write it as arn:aws:ecs:REGION:ACCOUNT:cluster/NAME."
  }
}

variable "container_insights" {
  description = "Whether the cluster that is made has Container Insights, which CloudWatch charges for."
  type        = bool
  default     = false
}

variable "repository_arns" {
  description = "Repositories of ECR that images may be pulled from; by default all of the account's, in this region."
  type        = list(string)
  default     = null
}

variable "secret_arns" {
  description = "Secrets of Secrets Manager and parameters of Systems Manager that the job variable `secrets` may name."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for arn in var.secret_arns : can(regex("^arn:[^:]+:(secretsmanager:[^:]+:[^:]+:secret:|ssm:[^:]+:[^:]+:parameter/).+$", arn))])
    error_message = "secret_arns: one is no ARN of a secret or parameter; write arn:aws:secretsmanager:REGION:ACCOUNT:secret:NAME or arn:aws:ssm:REGION:ACCOUNT:parameter/NAME."
  }
}

variable "task_policy_arns" {
  description = "Policies that jobs have, by a name of yours. By default their calls to AWS are all denied."
  type        = map(string)
  default     = {}
  nullable    = false
}

variable "permissions_boundary" {
  description = "ARN of a policy that bounds every role that is made."
  type        = string
  default     = null
}

variable "log_retention_days" {
  description = "How long the output of jobs is kept."
  type        = number
  default     = 30

  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653], var.log_retention_days)
    error_message = "log_retention_days is not one that CloudWatch knows; use 7, 14, 30, 60, 90, 180 or 365."
  }
}

variable "log_kms_key_arn" {
  description = "A KMS key of yours for the output of jobs; its policy has to allow CloudWatch Logs. By default CloudWatch's own is used."
  type        = string
  default     = null
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
  description = "More defaults of job variables, by their names in docs/ecs.md; they win over those that the module sets."
  type        = any
  default     = {}

  validation {
    condition     = can(keys(var.job_variables))
    error_message = "job_variables is an object of names and values, such as { cpu = 512, memory = 1024 }."
  }
}

variable "base_job_template" {
  description = "The pool's template, whole; by default that of ECS pools. A value that is written in its job_configuration cannot be overridden."
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
