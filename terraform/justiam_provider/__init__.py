"""The Terraform provider of JustIAM: templates, tasks and the directory as code, over the HTTP API."""
