# An installation on AWS, one pool of ECS on Fargate, and one deployment that says hello.

provider "aws" {
  region = var.region
}

# The account's default VPC: its subnets are public, so jobs with a public address reach the image's registry without a NAT.
data "aws_vpc" "default" {
  count   = var.vpc_id == null ? 1 : 0
  default = true
}

data "aws_subnets" "default" {
  count = var.vpc_id == null ? 1 : 0

  filter {
    name   = "vpc-id"
    values = [data.aws_vpc.default[0].id]
  }
  filter {
    name   = "default-for-az"
    values = ["true"]
  }
}

module "service" {
  source = "../../modules/service"

  name                = var.name
  region              = var.region
  deletion_protection = var.deletion_protection
  package = {
    path          = coalesce(var.package_path, "${path.module}/../../../build/push-pools-ecs-arm64-py313.zip")
    sha256_base64 = var.package_sha256_base64
  }
}

module "pool" {
  source = "../../modules/ecs_pool"

  service          = module.service
  name             = "hello"
  module_address   = "module.pool"
  vpc_id           = coalesce(var.vpc_id, try(data.aws_vpc.default[0].id, null))
  subnet_ids       = var.vpc_id == null ? data.aws_subnets.default[0].ids : var.subnet_ids
  assign_public_ip = var.vpc_id == null
  job_variables    = { cpu = 256, memory = 512 }
}

module "hello" {
  source = "../../modules/deployment"

  service            = module.service
  name               = "hello"
  module_address     = "module.hello"
  work_pool          = module.pool.name
  command            = ["echo", "hello"]
  job_variables      = { image = "docker.io/library/busybox:1.37" }
  open_job_variables = ["image"] # push-pools deployment set-job-variable hello/hello image=… stays through every apply.
  schedules          = var.schedule == null ? [] : [{ cron = var.schedule }]
}
