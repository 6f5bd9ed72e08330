mock_provider "aws" {
  mock_resource "aws_lambda_invocation" {
    defaults = { result = "{\"id\": \"8f2c\", \"version\": 1}" }
  }
}

mock_provider "google" {
  mock_data "google_project" {
    defaults = { id = "projects/acme", number = "42" }
  }
  mock_resource "google_service_account" {
    defaults = { email = "jobs-nightly@acme.iam.gserviceaccount.com", name = "projects/acme/serviceAccounts/jobs-nightly@acme.iam.gserviceaccount.com" }
  }
  mock_resource "google_project_iam_custom_role" {
    defaults = { id = "projects/acme/roles/jobs_nightly" }
  }
  mock_resource "google_iam_workload_identity_pool" {
    defaults = { name = "projects/42/locations/global/workloadIdentityPools/jobs-nightly" }
  }
  mock_resource "google_iam_workload_identity_pool_provider" {
    defaults = { name = "projects/42/locations/global/workloadIdentityPools/jobs-nightly/providers/aws-123456789012" }
  }
}

variables {
  service = {
    name                = "jobs"
    admin_function_name = "jobs-admin"
    function_role_arns = {
      submit_cloud_run = "arn:aws:iam::123456789012:role/jobs-fn-submit_cloud_run"
      poll_cloud_run   = "arn:aws:iam::123456789012:role/some/path/jobs-fn-poll_cloud_run"
    }
  }
  name   = "nightly"
  region = "europe-west1"
}

run "by_default" {
  command = apply

  assert {
    condition     = google_iam_workload_identity_pool_provider.aws.attribute_condition == "attribute.aws_role in [\"arn:aws:sts::123456789012:assumed-role/jobs-fn-submit_cloud_run\",\"arn:aws:sts::123456789012:assumed-role/jobs-fn-poll_cloud_run\"]"
    error_message = "Only the two functions are taken, by the names that their sessions have."
  }
  assert {
    condition     = google_iam_workload_identity_pool_provider.aws.aws[0].account_id == "123456789012"
    error_message = "They are of the account that the functions are in."
  }
  assert {
    condition     = google_service_account_iam_member.federated[1].member == "principalSet://iam.googleapis.com/projects/42/locations/global/workloadIdentityPools/jobs-nightly/attribute.aws_role/arn:aws:sts::123456789012:assumed-role/jobs-fn-poll_cloud_run"
    error_message = "Each function is bound by itself."
  }
  assert {
    condition     = google_project_iam_member.starter.role == "projects/acme/roles/jobs_nightly" && google_service_account_iam_member.act_as.role == "roles/iam.serviceAccountUser"
    error_message = "It has the role of the pool, and may give jobs their service account."
  }
  assert {
    condition     = endswith(google_service_account_iam_member.act_as.service_account_id, "/serviceAccounts/${google_service_account.job[0].email}")
    error_message = "It may give them no other one."
  }
  assert {
    condition     = output.job_variables.region == "europe-west1" && output.job_variables.service_account_name == google_service_account.job[0].email
    error_message = "Jobs run in the region, as their service account."
  }
  assert {
    condition     = output.name == "nightly" && output.block == "gcp-credentials/nightly"
    error_message = "The records are there."
  }
  assert {
    condition     = alltrue([for each in google_project_service.this : !each.disable_on_destroy])
    error_message = "An API that others may use is never disabled."
  }
}

run "with_what_is_there_already" {
  command = apply
  variables {
    service_account   = { email = "report@other.iam.gserviceaccount.com" }
    trusted_role_arns = ["arn:aws:iam::123456789012:role/people"]
    enable_apis       = false
    image             = "europe-west1-docker.pkg.dev/acme/jobs/report:7"
    job_variables     = { memory = "2Gi" }
  }

  assert {
    condition     = length(google_service_account.job) == 0 && output.job_variables.service_account_name == var.service_account.email
    error_message = "Your service account is used, and none is made."
  }
  assert {
    condition     = google_service_account_iam_member.act_as.service_account_id == "projects/other/serviceAccounts/report@other.iam.gserviceaccount.com"
    error_message = "It may give jobs that service account, in its own project."
  }
  assert {
    condition     = length(google_service_account_iam_member.federated) == 3 && length(google_project_service.this) == 0
    error_message = "Your role is trusted too; no API is enabled."
  }
  assert {
    condition     = output.job_variables.memory == "2Gi" && output.job_variables.image == var.image
    error_message = "Your job variables are defaults of the pool."
  }
}

# -- bad input is refused before anything is made

run "an_installation_without_cloud_run" {
  command = plan
  variables {
    service = { name = "jobs", admin_function_name = "jobs-admin", function_role_arns = {} }
  }
  expect_failures = [var.service]
}

run "a_name_that_is_too_long" {
  command = plan
  variables {
    name = "a-pool-with-quite-a-long-name"
  }
  expect_failures = [var.name]
}

run "what_cannot_be" {
  command = plan
  variables {
    region                    = "Frankfurt"
    service_account           = { email = "me@example.com" }
    trusted_role_arns         = ["people"]
    workload_identity_pool_id = "gcp-jobs"
    job_variables             = "x"
  }
  expect_failures = [var.region, var.service_account, var.trusted_role_arns, var.workload_identity_pool_id, var.job_variables]
}
