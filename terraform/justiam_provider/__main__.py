"""`python -m justiam_provider`: what `terraform-provider-justiam` runs."""

from justiam_provider.plugin import main

main()
