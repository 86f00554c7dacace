# Scripts that run when something happens, and what they may know.

resource "justiam_secret" "slack_webhook" {
  name          = "SLACK_WEBHOOK"
  value         = var.slack_webhook
  value_version = var.slack_webhook_version
  description   = "Where the notifier posts."
}

resource "justiam_scheduled_task" "notifier" {
  name         = "Slack notifier"
  script       = file("${path.module}/../scripts/slack_notifier.py")
  secret_names = [justiam_secret.slack_webhook.name]
}

resource "justiam_scheduled_task" "logger" {
  name    = "Request logger"
  script  = file("${path.module}/../scripts/access_request_event_logger.py")
  network = false
}

resource "justiam_scheduled_task" "morning" {
  name          = "Good morning"
  schedule_type = "cron"
  cron          = "0 6 * * 1-5"
  time_zone     = "Europe/Berlin"

  script = <<-PYTHON
    def run():
        return "awake"
  PYTHON
}

# Who is told of what.

resource "justiam_integration" "slack" {
  name        = "Tell the channel"
  target      = "task"
  events      = ["access_request.submitted"]
  task_id     = justiam_scheduled_task.notifier.id
  template_id = justiam_access_request_template.warehouse_reader.id
}

resource "justiam_integration" "mail" {
  name   = "Mail approvers and requesters"
  target = "email"
  events = ["access_request.submitted", "access_request.approved", "access_request.denied"]
  roles  = ["approver", "requester"]
}

resource "justiam_integration" "audit" {
  name   = "Audit log"
  target = "webhook"
  events = ["access_request.approved", "access_request.revoked", "access_request.expired"]
  url    = "https://audit.example.com/hooks/justiam"
}
