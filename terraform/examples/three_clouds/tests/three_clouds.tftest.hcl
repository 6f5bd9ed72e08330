mock_provider "aws" {
  source = "../mocks/aws"
}

mock_provider "google" {
  source = "../mocks/google"
}

mock_provider "azurerm" {
  source = "../mocks/azurerm"
}

variables {
  google_project        = "acme"
  azure_subscription_id = "00000000-0000-0000-0000-000000000000"
  aws_issuer_url        = "https://0a1b.tokens.sts.global.api.aws"
  package_sha256_base64 = "AM/yvikli74jU3sIG7kJ0Mq+DIYzM9nL0QZPXOl4vnU="
}

run "a_first_run_on_each_cloud_is_near" {
  command = apply

  assert {
    condition     = output.deployments == { ecs = "hello/ecs", cloud-run = "hello/cloud-run", aci = "hello/aci" }
    error_message = "There is something to run on each cloud."
  }
  assert {
    condition     = strcontains(output.cli, "export PUSH_POOLS_AWS_TABLE='push-pools'")
    error_message = "The output cli leads the command line to the installation."
  }
  assert {
    condition     = module.cloud_run.block == "gcp-credentials/run" && module.aci.block == "azure-container-instance-credentials/aci"
    error_message = "Each pool has its own identity."
  }
  assert {
    condition     = jsondecode(module.morning.event).deployment == "hello/ecs"
    error_message = "AWS asks for runs in the morning."
  }
}
