# Calls the modules with what is made in the same apply: nothing of it is known when planning, and the plan has to be possible
# all the same.

terraform {
  required_version = ">= 1.9"
  required_providers {
    aws     = { source = "hashicorp/aws" }
    azurerm = { source = "hashicorp/azurerm" }
    google  = { source = "hashicorp/google" }
  }
}

resource "terraform_data" "later" {}

locals {
  later = terraform_data.later.id
}

module "service" {
  source = "../../../../modules/service"

  name      = "jobs"
  platforms = ["ecs", "cloud_run", "aci"]
  package   = { path = "x.zip", sha256_base64 = "AM/yvikli74jU3sIG7kJ0Mq+DIYzM9nL0QZPXOl4vnU=" }
}

module "in_your_cluster" {
  source = "../../../../modules/ecs_pool"

  service    = module.service
  name       = "in-your-cluster"
  vpc_id     = local.later
  subnet_ids = [local.later]
  cluster    = { arn = local.later }
  image      = local.later
}

module "in_your_network" {
  source = "../../../../modules/ecs_pool"

  service            = module.service
  name               = "in-your-network"
  security_group_ids = [local.later]
  subnet_ids         = [local.later]
  secret_arns        = [local.later]
  job_variables      = { task_role_arn = local.later }
}

module "as_your_service_account" {
  source = "../../../../modules/cloud_run_pool"

  service         = module.service
  name            = "google"
  region          = "europe-west1"
  service_account = { email = local.later }
}

module "in_your_resource_group" {
  source = "../../../../modules/aci_pool"

  service        = module.service
  name           = "azure"
  location       = "westeurope"
  aws_issuer_url = local.later
  resource_group = { name = local.later }
  subnet_ids     = [local.later]
  identity_ids   = [local.later]
}

module "deployment" {
  source = "../../../../modules/deployment"

  service       = module.service
  name          = "hourly"
  work_pool     = module.in_your_cluster.name
  job_variables = { image = local.later }
}

module "trigger" {
  source = "../../../../modules/trigger"

  service    = module.service
  name       = "morning"
  deployment = module.deployment.name
  schedule   = "rate(5 minutes)"
  parameters = { bucket = local.later }
}

module "google_trigger" {
  source = "../../../../modules/google_trigger"

  webhook_url           = local.later
  audience              = "push-pools"
  service_account_email = local.later
  region                = "europe-west1"
  name                  = "evening"
  schedule              = "0 19 * * *"
  deployment            = module.deployment.name
}
