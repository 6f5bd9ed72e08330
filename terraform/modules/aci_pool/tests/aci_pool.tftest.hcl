mock_provider "aws" {
  mock_resource "aws_lambda_invocation" {
    defaults = { result = "{\"id\": \"8f2c\", \"version\": 1}" }
  }
}

mock_provider "azurerm" {
  mock_data "azurerm_subscription" {
    defaults = { id = "/subscriptions/0000", subscription_id = "0000" }
  }
  mock_data "azurerm_resource_group" {
    defaults = { id = "/subscriptions/0000/resourceGroups/ours" }
  }
  mock_resource "azurerm_resource_group" {
    defaults = { id = "/subscriptions/0000/resourceGroups/jobs-nightly" }
  }
  mock_resource "azurerm_user_assigned_identity" {
    defaults = {
      id           = "/subscriptions/0000/resourceGroups/jobs-nightly/providers/Microsoft.ManagedIdentity/userAssignedIdentities/jobs-nightly-starter"
      client_id    = "11111111-1111-1111-1111-111111111111"
      tenant_id    = "22222222-2222-2222-2222-222222222222"
      principal_id = "33333333-3333-3333-3333-333333333333"
    }
  }
  mock_resource "azurerm_role_definition" {
    defaults = { role_definition_resource_id = "/subscriptions/0000/providers/Microsoft.Authorization/roleDefinitions/4444" }
  }
}

variables {
  service = {
    name                = "jobs"
    admin_function_name = "jobs-admin"
    function_role_arns = {
      submit_aci = "arn:aws:iam::123456789012:role/jobs-fn-submit_aci"
      poll_aci   = "arn:aws:iam::123456789012:role/jobs-fn-poll_aci"
    }
  }
  name           = "nightly"
  location       = "westeurope"
  aws_issuer_url = "https://0a1b.tokens.sts.global.api.aws"
}

run "by_default" {
  command = apply

  assert {
    condition     = { for name, each in azurerm_federated_identity_credential.aws : name => each.subject } == { submit-aci = "arn:aws:iam::123456789012:role/jobs-fn-submit_aci", poll-aci = "arn:aws:iam::123456789012:role/jobs-fn-poll_aci" }
    error_message = "Each of the two functions is trusted, and nobody else."
  }
  assert {
    condition     = alltrue([for each in azurerm_federated_identity_credential.aws : each.issuer == var.aws_issuer_url && each.audience == tolist(["api://AzureADTokenExchange"])])
    error_message = "Their tokens are those of the AWS account, made for Entra ID."
  }
  assert {
    condition     = azurerm_role_assignment.starter.scope == azurerm_resource_group.this[0].id && azurerm_role_definition.starter.assignable_scopes == tolist([azurerm_resource_group.this[0].id])
    error_message = "It may act in the pool's resource group, and nowhere else."
  }
  assert {
    condition     = alltrue([for action in azurerm_role_definition.starter.permissions[0].actions : !strcontains(action, "*")])
    error_message = "Each action is named."
  }
  assert {
    condition     = output.job_variables == { subscription_id = "0000", resource_group_name = "jobs-nightly", location = "westeurope" }
    error_message = "Jobs run in the resource group."
  }
  assert {
    condition     = output.name == "nightly" && output.block == "azure-container-instance-credentials/nightly"
    error_message = "The records are there."
  }
  assert {
    condition     = length(azurerm_role_assignment.join) + length(azurerm_role_assignment.assign) + length(azurerm_role_definition.join) == 0
    error_message = "It may use no subnet and no identity."
  }
}

run "with_what_is_there_already" {
  command = apply
  variables {
    resource_group    = { name = "ours" }
    subnet_ids        = ["/subscriptions/0000/resourceGroups/net/providers/Microsoft.Network/virtualNetworks/net/subnets/jobs"]
    identity_ids      = ["/subscriptions/0000/resourceGroups/ids/providers/Microsoft.ManagedIdentity/userAssignedIdentities/pull"]
    trusted_role_arns = { people = "arn:aws:iam::123456789012:role/people" }
    image             = "acme.azurecr.io/report:7"
    job_variables     = { cpu = 1, memory = 2 }
  }

  assert {
    condition     = length(azurerm_resource_group.this) == 0 && output.resource_group_name == "ours" && azurerm_role_assignment.starter.scope == "/subscriptions/0000/resourceGroups/ours"
    error_message = "Your resource group is used, and none is made."
  }
  assert {
    condition     = azurerm_role_assignment.join[0].scope == var.subnet_ids[0] && azurerm_role_assignment.assign[0].scope == var.identity_ids[0]
    error_message = "It may use your subnet and your identity."
  }
  assert {
    condition     = azurerm_federated_identity_credential.aws["people"].subject == "arn:aws:iam::123456789012:role/people"
    error_message = "Your role is trusted too."
  }
  assert {
    condition     = output.job_variables.cpu == 1 && output.job_variables.identities == var.identity_ids && output.job_variables.subnet_ids == var.subnet_ids
    error_message = "Your job variables are defaults of the pool."
  }
}

# -- bad input is refused before anything is made

run "an_installation_without_aci" {
  command = plan
  variables {
    service = { name = "jobs", admin_function_name = "jobs-admin", function_role_arns = { submit_ecs = "arn:aws:iam::123456789012:role/x" } }
  }
  expect_failures = [var.service]
}

run "what_cannot_be" {
  command = plan
  variables {
    name              = "nightly-"
    location          = "West Europe"
    aws_issuer_url    = "http://example.com/"
    subnet_ids        = ["jobs"]
    identity_ids      = ["pull"]
    trusted_role_arns = { people = "people" }
    job_variables     = "x"
  }
  expect_failures = [var.name, var.location, var.aws_issuer_url, var.subnet_ids, var.identity_ids, var.trusted_role_arns, var.job_variables]
}
