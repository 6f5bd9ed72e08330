# What a pool needs at Google: a service account that starts jobs, one that jobs have, and the trust in the functions of AWS
# which makes a key unnecessary. docs/google-cloud.md tells what each permission is for.

data "google_project" "this" {
  project_id = var.project
}

locals {
  project = trimprefix(data.google_project.this.id, "projects/")
  name    = "${var.service.name}-${var.name}"
  trusted = concat(
    [for name in ["submit_cloud_run", "poll_cloud_run"] : var.service.function_role_arns[name]],
    var.trusted_role_arns,
  )
  # arn:aws:iam::ACCOUNT:role/PATH/NAME is arn:aws:sts::ACCOUNT:assumed-role/NAME for whoever has it.
  assumed = [for arn in local.trusted : replace(arn, "/^arn:([^:]+):iam::([0-9]+):role/(.*/)?([^/]+)$/", "arn:$1:sts::$2:assumed-role/$4")]
  account = split(":", local.trusted[0])[4]
  job     = var.service_account == null ? one(google_service_account.job[*].email) : var.service_account.email

  job_variables = merge(
    { region = var.region, service_account_name = local.job },
    var.image == null ? {} : { image = var.image },
    var.job_variables,
  )
}

resource "google_project_service" "this" {
  for_each = var.enable_apis ? toset(["run", "logging", "iam", "iamcredentials", "sts"]) : toset([])

  project            = local.project
  service            = "${each.value}.googleapis.com"
  disable_on_destroy = false # Others may use it.
}

# -- who starts jobs, and who they are

resource "google_service_account" "starter" {
  project      = local.project
  account_id   = local.name
  display_name = "push_pools: starts jobs of the pool ${var.name}"
}

resource "google_service_account" "job" {
  count = var.service_account == null ? 1 : 0

  project      = local.project
  account_id   = "${local.name}-job"
  display_name = "push_pools: jobs of the pool ${var.name}"
}

resource "google_project_iam_custom_role" "starter" {
  project     = local.project
  role_id     = replace(local.name, "-", "_")
  title       = "push_pools ${local.name}"
  description = "Starts, watches, stops and deletes jobs, and reads their output"
  permissions = [
    "logging.logEntries.list",
    "run.executions.cancel",
    "run.executions.get",
    "run.executions.list",
    "run.jobs.create",
    "run.jobs.delete",
    "run.jobs.get",
    "run.tasks.list",
  ]
}

resource "google_project_iam_member" "starter" {
  project = local.project
  role    = google_project_iam_custom_role.starter.id
  member  = "serviceAccount:${google_service_account.starter.email}"
}

# It may give jobs their service account, and no other.
resource "google_service_account_iam_member" "act_as" {
  # That of jobs may be of another project, which its address then names.
  service_account_id = "projects/${try(regex("@([^.]+)[.]iam[.]gserviceaccount[.]com$", local.job)[0], local.project)}/serviceAccounts/${local.job}"
  role               = "roles/iam.serviceAccountUser"
  member             = "serviceAccount:${google_service_account.starter.email}"
}

# -- the functions are it, by their roles at AWS

resource "google_iam_workload_identity_pool" "aws" {
  project                   = local.project
  workload_identity_pool_id = coalesce(var.workload_identity_pool_id, local.name)
  display_name              = substr("push_pools ${var.name}", 0, 32)
  description               = "Functions of ${var.service.name} on AWS, for the pool ${var.name}"

  depends_on = [google_project_service.this]
}

resource "google_iam_workload_identity_pool_provider" "aws" {
  #checkov:skip=CKV_GCP_125: It is about GitHub's tokens; here the condition names the roles of two functions of AWS.
  project                            = local.project
  workload_identity_pool_id          = google_iam_workload_identity_pool.aws.workload_identity_pool_id
  workload_identity_pool_provider_id = "aws-${local.account}"
  display_name                       = "AWS ${local.account}"
  attribute_mapping = {
    "google.subject"     = "assertion.arn"
    "attribute.aws_role" = "assertion.arn.contains('assumed-role') ? assertion.arn.extract('{account_arn}assumed-role/') + 'assumed-role/' + assertion.arn.extract('assumed-role/{role_name}/') : assertion.arn"
  }
  # Nobody else of the account is taken, whatever is bound later.
  attribute_condition = "attribute.aws_role in ${jsonencode(local.assumed)}"

  aws {
    account_id = local.account
  }
}

resource "google_service_account_iam_member" "federated" {
  count = length(local.assumed)

  service_account_id = google_service_account.starter.name
  role               = "roles/iam.workloadIdentityUser"
  member             = "principalSet://iam.googleapis.com/${google_iam_workload_identity_pool.aws.name}/attribute.aws_role/${local.assumed[count.index]}"
}

# -- the records

module "pool" {
  source = "../pool"

  admin_function_name = var.service.admin_function_name
  name                = var.name
  type                = "cloud-run-v2:push"
  description         = var.description
  concurrency_limit   = var.concurrency_limit
  is_paused           = var.is_paused
  work_queues         = var.work_queues
  base_job_template   = var.base_job_template
  variables           = local.job_variables
  module_address      = var.module_address
  again               = var.again
  block = {
    type     = "gcp-credentials"
    variable = "credentials"
    data = {
      project = local.project
      external_account = { # What `gcloud iam workload-identity-pools create-cred-config … --aws` writes; it holds no secret.
        type                              = "external_account"
        audience                          = "//iam.googleapis.com/${google_iam_workload_identity_pool_provider.aws.name}"
        subject_token_type                = "urn:ietf:params:aws:token-type:aws4_request"
        token_url                         = "https://sts.googleapis.com/v1/token"
        service_account_impersonation_url = "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/${google_service_account.starter.email}:generateAccessToken"
        credential_source = {
          environment_id                 = "aws1"
          regional_cred_verification_url = "https://sts.{region}.amazonaws.com?Action=GetCallerIdentity&Version=2011-06-15"
        }
      }
    }
  }

  # Runs may start as soon as the pool is there.
  depends_on = [
    google_project_iam_member.starter,
    google_service_account_iam_member.act_as,
    google_service_account_iam_member.federated,
    google_project_service.this,
  ]
}
