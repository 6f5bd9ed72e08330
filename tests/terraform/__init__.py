"""Tests of what Terraform makes, and of the bundle that it installs."""
