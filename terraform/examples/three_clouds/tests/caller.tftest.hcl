mock_provider "aws" {
  source = "../mocks/aws"
}

mock_provider "google" {
  source = "../mocks/google"
}

mock_provider "azurerm" {
  source = "../mocks/azurerm"
}

run "with_resources_that_are_not_there_yet" {
  command = plan
  module {
    source = "./tests/caller"
  }
}
