terraform {
  required_version = ">= 1.9" # Validations that look at other variables.
  required_providers {
    google = {
      source  = "hashicorp/google"
      version = ">= 6.0, < 8.0"
    }
  }
}
