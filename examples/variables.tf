variable "slack_webhook" {
  description = "The incoming webhook that the script posts to. Ephemeral: it is in no plan and no state."
  type        = string
  default     = "https://hooks.example.com/services/T000/B000/XXXX"
  ephemeral   = true
}

variable "slack_webhook_version" {
  description = "Count up when the webhook changes: nobody can see that a secret has."
  type        = number
  default     = 1
}
