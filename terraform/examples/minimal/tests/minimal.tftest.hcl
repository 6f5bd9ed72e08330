mock_provider "aws" {
  source = "../mocks/aws"
}

variables {
  package_sha256_base64 = "AM/yvikli74jU3sIG7kJ0Mq+DIYzM9nL0QZPXOl4vnU="
}

run "a_first_run_is_near" {
  command = apply

  assert {
    condition     = output.deployment == "hello/hello"
    error_message = "There is something to run."
  }
  assert {
    condition     = strcontains(output.cli, "export PUSH_POOLS_AWS_TABLE='push-pools'") && strcontains(output.cli, "export AWS_REGION='eu-west-1'")
    error_message = "The output cli leads the command line to the installation."
  }
  assert {
    condition     = jsonencode(module.pool.job_variables.network_configuration) == jsonencode({ subnets = ["subnet-1", "subnet-2"], securityGroups = ["sg-1"], assignPublicIp = "ENABLED" })
    error_message = "Jobs are in the default VPC, with a way to the registry."
  }
  assert {
    condition     = can(jsondecode(output.operator_policy).Statement)
    error_message = "The policy for operators is an output."
  }
}

run "in_a_vpc_of_yours" {
  command = apply
  variables {
    vpc_id     = "vpc-ours"
    subnet_ids = ["subnet-ours"]
    schedule   = "0 7 * * *"
  }

  assert {
    condition     = jsonencode(module.pool.job_variables.network_configuration) == jsonencode({ subnets = ["subnet-ours"], securityGroups = ["sg-1"], assignPublicIp = "DISABLED" })
    error_message = "Jobs are in your subnets."
  }
}

run "subnets_without_a_vpc" {
  command = plan
  variables {
    subnet_ids = ["subnet-ours"]
  }
  expect_failures = [var.subnet_ids]
}
