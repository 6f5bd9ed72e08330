variable "region" {
  description = "Where everything is made."
  type        = string
  default     = "eu-west-1"
}

variable "name" {
  description = "What the names of everything begin with."
  type        = string
  default     = "push-pools"
}

variable "vpc_id" {
  description = "A VPC for jobs; by default the account's default VPC."
  type        = string
  default     = null
}

variable "subnet_ids" {
  description = "Subnets of that VPC, with a way to the internet."
  type        = list(string)
  default     = []

  validation {
    condition     = (var.vpc_id == null) == (length(var.subnet_ids) == 0)
    error_message = "subnet_ids go with vpc_id; give both, or neither for the account's default VPC."
  }
}

variable "schedule" {
  description = "When it says hello, such as \"0 7 * * *\"; by default only when it is asked to."
  type        = string
  default     = null
}

variable "package_path" {
  description = "The zip of the functions; by default where `python infra/package.py` puts it."
  type        = string
  default     = null
}

variable "package_sha256_base64" {
  description = "Its SHA-256, where it is not there yet when planning; package.py prints it."
  type        = string
  default     = null
}

variable "deletion_protection" {
  description = "Whether the ledger is protected from deletion. It holds every run and record."
  type        = bool
  default     = true
}
