# What exists already, whoever made it, is found by name or id.

data "justiam_user" "dana" {
  email = justiam_user.dana.email
}

data "justiam_group" "database_owners" {
  name = justiam_group.database_owners.name
}

data "justiam_application" "warehouse" {
  name = justiam_application.warehouse.name
}

data "justiam_app_mapping" "warehouse_reader" {
  app_id = data.justiam_application.warehouse.id
  name   = justiam_app_mapping.warehouse_reader.name
}

data "justiam_scheduled_task" "logger" {
  name = justiam_scheduled_task.logger.name
}

data "justiam_access_request_template" "warehouse_reader" {
  id = justiam_access_request_template.warehouse_reader.id
}

output "ask_for" {
  description = "What to ask for, and who decides."
  value       = "${data.justiam_access_request_template.warehouse_reader.name}: ${data.justiam_group.database_owners.name}"
}
