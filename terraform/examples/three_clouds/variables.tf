variable "region" {
  description = "The region of AWS that the service is in, and its pool."
  type        = string
  default     = "eu-west-1"
}

variable "google_project" {
  description = "Id of the project of Google Cloud that jobs run in."
  type        = string
}

variable "google_region" {
  description = "The region of Cloud Run."
  type        = string
  default     = "europe-west1"
}

variable "azure_subscription_id" {
  description = "The subscription of Azure that jobs run in."
  type        = string
}

variable "azure_location" {
  description = "The region of Azure."
  type        = string
  default     = "westeurope"
}

variable "aws_issuer_url" {
  description = "The issuer of the AWS account's tokens: `aws iam enable-outbound-web-identity-federation` prints it, once an account."
  type        = string
}

variable "name" {
  description = "What the names of everything begin with."
  type        = string
  default     = "push-pools"
}

variable "triggers" {
  description = "Whether the two triggers fire."
  type        = bool
  default     = false
}

variable "package_path" {
  description = "The zip of the functions; by default where `python infra/package.py --set all` puts it."
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
