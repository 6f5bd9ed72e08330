# What Google answers, in the form that it gives it; for the tests of the examples.

mock_data "google_project" {
  defaults = { id = "projects/acme", number = "42" }
}

mock_resource "google_service_account" {
  defaults = {
    email     = "push-pools@acme.iam.gserviceaccount.com"
    name      = "projects/acme/serviceAccounts/push-pools@acme.iam.gserviceaccount.com"
    unique_id = "100000000000000000001"
  }
}

mock_resource "google_project_iam_custom_role" {
  defaults = { id = "projects/acme/roles/push_pools_run" }
}

mock_resource "google_iam_workload_identity_pool" {
  defaults = { name = "projects/42/locations/global/workloadIdentityPools/push-pools-run" }
}

mock_resource "google_iam_workload_identity_pool_provider" {
  defaults = { name = "projects/42/locations/global/workloadIdentityPools/push-pools-run/providers/aws-123456789012" }
}
