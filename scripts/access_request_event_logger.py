"""Logs everything that a trigger task is told, so that you see what there is before you build on it."""

from justiam import config

KEYS = [
    "trigger_event",
    "request_id",
    "request_status",
    "previous_status",
    "template_id",
    "template_name",
    "app_id",
    "app_name",
    "requester_id",
    "requester_email",
    "requester_name",
    "justification",
    "run_id",
]


def run():
    lines = [f"access_request.{config.get('trigger_event')}"]
    lines += [f"  {key:<16} {config.get(key)}" for key in KEYS]
    return "\n".join(lines)
