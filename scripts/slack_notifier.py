"""Tells a Slack channel what happened to a request. Needs the secret SLACK_WEBHOOK: the URL of an incoming webhook.

As a trigger task it tells of every change, as the task of an integration of the events that this is bound to.
"""

import json
import urllib.request

from justiam import config, idp, secrets

TIMEOUT_SECONDS = 10


def escaped(text):
    """Slack's own escapes: what people write must not become a link or a mention."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def run():
    event = config.get("trigger_event") or "submitted"
    approvers = [approver.email for approver in idp.get_access_request_approvers(config.get("request_id"))]
    text = f"*{escaped(config.get('template_name'))}*: {event}, requested by {escaped(config.get('requester_email'))}"
    if approvers:
        text += f" (asked: {escaped(', '.join(approvers))})"
    request = urllib.request.Request(
        secrets.get("SLACK_WEBHOOK"),
        data=json.dumps({"text": text}).encode(),
        headers={"Content-Type": "application/json"},
    )
    # Raises where Slack does not take it, so that the run fails and may be repeated.
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
        return f"Slack answered {answer.status}"
