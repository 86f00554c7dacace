terraform {
  # Values of secrets that stay out of plan and state need 1.11; OpenTofu has them since 1.11 as well.
  required_version = ">= 1.11"

  required_providers {
    justiam = {
      source  = "terraform.justiam.local/justiam/justiam"
      version = "~> 0.1"
    }
  }
}

# The address and the token are in JUSTIAM_ENDPOINT and JUSTIAM_TOKEN.
provider "justiam" {}
