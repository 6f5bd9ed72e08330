# What a pool needs at Azure: a resource group, an identity that may make container groups in it and nothing else, and the
# trust in the functions of AWS which makes a secret unnecessary. docs/azure.md tells what each permission is for.

data "azurerm_subscription" "current" {}

data "azurerm_resource_group" "yours" {
  count = var.resource_group == null ? 0 : 1
  name  = var.resource_group.name
}

locals {
  name  = "${var.service.name}-${var.name}"
  group = var.resource_group == null ? one(azurerm_resource_group.this[*]) : one(data.azurerm_resource_group.yours[*])
  trusted = merge(
    { for name in ["submit_aci", "poll_aci"] : replace(name, "_", "-") => var.service.function_role_arns[name] },
    var.trusted_role_arns,
  )

  job_variables = merge(
    {
      subscription_id     = data.azurerm_subscription.current.subscription_id
      resource_group_name = local.group.name
      location            = var.location
    },
    var.image == null ? {} : { image = var.image },
    length(var.subnet_ids) == 0 ? {} : { subnet_ids = var.subnet_ids },
    length(var.identity_ids) == 0 ? {} : { identities = var.identity_ids },
    var.job_variables,
  )
}

resource "azurerm_resource_group" "this" {
  count = var.resource_group == null ? 1 : 0

  name     = local.name
  location = var.location
  tags     = var.tags
}

# -- who makes container groups

resource "azurerm_user_assigned_identity" "starter" {
  name                = "${local.name}-starter"
  resource_group_name = local.group.name
  location            = var.location
  tags                = var.tags
}

resource "azurerm_role_definition" "starter" {
  name              = "push_pools ${local.name} of ${data.azurerm_subscription.current.subscription_id}" # Unique in the whole tenant.
  scope             = local.group.id
  description       = "Makes, watches, stops and deletes container groups, and reads their output"
  assignable_scopes = [local.group.id]

  permissions {
    actions = [
      "Microsoft.ContainerInstance/containerGroups/containers/logs/read",
      "Microsoft.ContainerInstance/containerGroups/delete",
      "Microsoft.ContainerInstance/containerGroups/read",
      "Microsoft.ContainerInstance/containerGroups/stop/action",
      "Microsoft.ContainerInstance/containerGroups/write",
      "Microsoft.Resources/subscriptions/resourceGroups/read",
    ]
  }
}

resource "azurerm_role_assignment" "starter" {
  scope              = local.group.id
  role_definition_id = azurerm_role_definition.starter.role_definition_resource_id
  principal_id       = azurerm_user_assigned_identity.starter.principal_id
  principal_type     = "ServicePrincipal"
}

# -- what jobs may be joined to, and the identities that they may have

resource "azurerm_role_definition" "join" {
  count = length(var.subnet_ids) > 0 ? 1 : 0

  name              = "push_pools ${local.name} subnets of ${data.azurerm_subscription.current.subscription_id}"
  scope             = data.azurerm_subscription.current.id
  description       = "Puts container groups into subnets"
  assignable_scopes = [data.azurerm_subscription.current.id]

  permissions {
    actions = ["Microsoft.Network/virtualNetworks/subnets/join/action", "Microsoft.Network/virtualNetworks/subnets/read"]
  }
}

resource "azurerm_role_assignment" "join" {
  count = length(var.subnet_ids)

  scope              = var.subnet_ids[count.index]
  role_definition_id = azurerm_role_definition.join[0].role_definition_resource_id
  principal_id       = azurerm_user_assigned_identity.starter.principal_id
  principal_type     = "ServicePrincipal"
}

resource "azurerm_role_assignment" "assign" {
  count = length(var.identity_ids)

  scope                = var.identity_ids[count.index]
  role_definition_name = "Managed Identity Operator"
  principal_id         = azurerm_user_assigned_identity.starter.principal_id
  principal_type       = "ServicePrincipal"
}

# -- the functions are it, by their roles at AWS

resource "azurerm_federated_identity_credential" "aws" {
  for_each = local.trusted

  name                = each.key
  resource_group_name = local.group.name
  parent_id           = azurerm_user_assigned_identity.starter.id
  issuer              = var.aws_issuer_url
  subject             = each.value
  audience            = ["api://AzureADTokenExchange"]
}

# -- the records

module "pool" {
  source = "../pool"

  admin_function_name = var.service.admin_function_name
  name                = var.name
  type                = "azure-container-instance:push"
  description         = var.description
  concurrency_limit   = var.concurrency_limit
  is_paused           = var.is_paused
  work_queues         = var.work_queues
  base_job_template   = var.base_job_template
  variables           = local.job_variables
  module_address      = var.module_address
  again               = var.again
  block = {
    type     = "azure-container-instance-credentials"
    variable = "aci_credentials"
    data = { # No secret: the functions prove themselves by a token of AWS.
      client_id = azurerm_user_assigned_identity.starter.client_id
      tenant_id = azurerm_user_assigned_identity.starter.tenant_id
      federated = true
    }
  }

  # Runs may start as soon as the pool is there.
  depends_on = [
    azurerm_role_assignment.starter,
    azurerm_role_assignment.join,
    azurerm_role_assignment.assign,
    azurerm_federated_identity_credential.aws,
  ]
}
