# One installation on AWS, and a pool on each of three clouds. Nothing here holds a key: the functions act at Google and Azure
# by their roles at AWS, and Google's Cloud Scheduler shows who it is by a token.

provider "aws" {
  region = var.region
}

provider "google" {
  project = var.google_project
  region  = var.google_region
}

provider "azurerm" {
  subscription_id = var.azure_subscription_id
  features {}
}

data "aws_vpc" "default" {
  default = true
}

data "aws_subnets" "default" {
  filter {
    name   = "vpc-id"
    values = [data.aws_vpc.default.id]
  }
  filter {
    name   = "default-for-az"
    values = ["true"]
  }
}

locals {
  audience = "push-pools"
}

# Who sends events from Google.
resource "google_service_account" "scheduler" {
  account_id   = "${var.name}-scheduler"
  display_name = "Asks ${var.name} for runs"
}

module "service" {
  source = "../../modules/service"

  name                = var.name
  region              = var.region
  platforms           = ["ecs", "cloud_run", "aci"]
  deletion_protection = var.deletion_protection
  package = {
    path          = coalesce(var.package_path, "${path.module}/../../../build/push-pools-all-arm64-py313.zip")
    sha256_base64 = var.package_sha256_base64
  }
  webhook = {
    enabled  = true
    issuer   = "https://accounts.google.com"
    audience = local.audience
    subjects = [google_service_account.scheduler.unique_id]
  }
}

# -- a pool on each cloud

module "ecs" {
  source = "../../modules/ecs_pool"

  service           = module.service
  name              = "ecs"
  module_address    = "module.ecs"
  vpc_id            = data.aws_vpc.default.id
  subnet_ids        = data.aws_subnets.default.ids
  assign_public_ip  = true
  concurrency_limit = 50
  work_queues       = [{ name = "urgent" }, { name = "default", concurrency_limit = 40 }]
  job_variables     = { cpu = 256, memory = 512, launch_type = "FARGATE_SPOT" }
}

module "cloud_run" {
  source = "../../modules/cloud_run_pool"

  service           = module.service
  name              = "run"
  module_address    = "module.cloud_run"
  region            = var.google_region
  concurrency_limit = 20
}

module "aci" {
  source = "../../modules/aci_pool"

  service           = module.service
  name              = "aci"
  module_address    = "module.aci"
  location          = var.azure_location
  aws_issuer_url    = var.aws_issuer_url
  concurrency_limit = 20
}

# -- the same job on each of them

module "hello" {
  source = "../../modules/deployment"
  for_each = {
    ecs       = module.ecs.name
    cloud-run = module.cloud_run.name
    aci       = module.aci.name
  }

  service            = module.service
  flow_name          = "hello"
  name               = each.key
  module_address     = "module.hello[\"${each.key}\"]"
  work_pool          = each.value
  command            = ["echo", "hello from ${each.key}"]
  job_variables      = { image = "docker.io/library/busybox:1.37" }
  open_job_variables = ["image"] # push-pools deployment set-job-variable hello/ecs image=… stays through every apply.
}

# The ledger's own schedules need nothing of these: see `schedules` of modules/deployment. Triggers are for whoever has schedules
# at AWS or Google already, or wants them to be there.

module "morning" {
  source = "../../modules/trigger"

  service    = module.service
  name       = "morning"
  schedule   = "cron(0 7 * * ? *)"
  deployment = module.hello["ecs"].name
  enabled    = var.triggers
}

module "evening" {
  source = "../../modules/google_trigger"

  webhook_url           = module.service.webhook_url
  audience              = local.audience
  service_account_email = google_service_account.scheduler.email
  region                = var.google_region
  name                  = "${var.name}-evening"
  schedule              = "0 19 * * *"
  deployment            = module.hello["cloud-run"].name
  enabled               = var.triggers
}
