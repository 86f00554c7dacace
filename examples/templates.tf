resource "justiam_access_request_template" "warehouse_reader" {
  name        = "Read the data warehouse"
  description = "For questions that no report answers. Up to eight hours."
  app_id      = justiam_application.warehouse.id

  mapping_ids        = [justiam_app_mapping.warehouse_reader.id]
  allowed_durations  = [60, 240, 480]
  approver_group_ids = [justiam_group.database_owners.id]

  notification_policy = "round_robin"
  notification_count  = 2

  escalation_after_mins = 30
  escalation_group_id   = justiam_group.platform_managers.id

  custom_fields = jsonencode([
    { label = "Ticket", type = "text", required = true, placeholder = "DATA-1234" },
    { label = "Tables", type = "multi_select", options = ["customers", "orders", "payments"] },
  ])

  trigger_task_id           = justiam_scheduled_task.logger.id
  trigger_task_failure_mode = "retry"
}
