variable "admin_function_name" {
  description = "The function that writes records: output `admin_function_name` of modules/service."
  type        = string

  validation {
    condition     = can(regex("^(arn:[^:]+:lambda:[^:]+:[^:]+:function:)?[A-Za-z0-9_-]{1,64}$", var.admin_function_name))
    error_message = "admin_function_name is not the name of a function; give the output admin_function_name of modules/service."
  }
}

variable "kind" {
  description = "What it is: `block`, `work-pool`, `work-queue`, `deployment` or `variable`."
  type        = string

  validation {
    condition     = contains(["block", "work-pool", "work-queue", "deployment", "variable"], var.kind)
    error_message = "kind is none that is kept in a ledger; write block, work-pool, work-queue, deployment or variable."
  }
}

variable "name" {
  description = "As it is addressed: `pool`, `pool/queue`, `type/block`, `flow/deployment`, `variable`."
  type        = string

  validation {
    condition     = can(regex("^[A-Za-z0-9][A-Za-z0-9._-]{0,127}(/[A-Za-z0-9][A-Za-z0-9._-]{0,127})?$", var.name))
    error_message = "name has letters, digits, dashes, underscores and dots, beginning with a letter or digit, and at most one slash; such as nightly, or etl/hourly."
  }
}

variable "spec" {
  description = "What it is to be: what docs/config-file.md says for it, a block's data, or a variable's `value` and `tags`. It is kept in the state: never write a secret here."
  type        = any

  validation {
    condition     = !issensitive(jsonencode(var.spec))
    error_message = "spec holds a sensitive value, which the state would keep in clear. Make a block with `push-pools block create`, and name that; if it is no secret, say so by nonsensitive()."
  }
}

variable "managed_by" {
  description = "What the command line names to whoever tries to change the record: `terraform:` and where its module is called."
  type        = string

  validation {
    condition     = can(regex("^terraform:[^\\s].{0,288}$", var.managed_by))
    error_message = "managed_by is `terraform:` and where the module is called, such as terraform:module.nightly."
  }
}

variable "again" {
  description = "Raise it to have the record sent once more, after a write that failed for a reason outside of this configuration."
  type        = number
  default     = 0
}
