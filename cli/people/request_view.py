"""How requests look: one with everything about it, several as a table."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from cli.people import rendering
from cli.people.documents import Request
from domain import durations


def facts(request: Request, *, briefly: bool = False) -> Table:
    """Everything that somebody who decides needs; `briefly` without what does not matter before the decision."""
    requester = f"{request['requester']['name']} <{request['requester']['email']}>"
    rows: list[tuple[str, str | Text]] = [
        ("Request", request["id"]),
        ("Status", rendering.status(request)),
        ("Template", rendering.template_name(request)),
        ("Requester", rendering.plain(requester, lines=False)),
        ("Application", rendering.plain(request["app_name"], lines=False)),
        ("Grants", rendering.claims(request) or "no claims"),
        ("For", durations.spell(request["requested_duration_mins"])),
        ("Justification", rendering.plain(request["justification"])),
        *rendering.answers(request),
        ("Submitted", f"{rendering.local(request['created_at'])}, {rendering.ahead_or_ago(request['created_at'])}"),
    ]
    if request["status"] == "pending":
        rows.append(("Waits for", rendering.waiting_for(request)))
        if request["escalates_at"]:
            escalates = f"{rendering.local(request['escalates_at'])}, {rendering.ahead_or_ago(request['escalates_at'])}"
            rows.append(("Escalates", escalates))
    if not briefly:
        notified = [rendering.plain(each["email"], lines=False) for each in request["notified_approvers"]]
        rows.append(("Notified", ", ".join(notified)))
    rows += [
        ("Decision", rendering.decision(request)),
        ("Comment", rendering.plain(request["decision_comment"] or "")),
        ("Ends" if request["status"] == "approved" else "Ended", rendering.ends(request)),
    ]
    return rendering.facts(rows)


def table(requests: Sequence[Request], *, waiting: bool, with_requester: bool) -> Table:
    """One line for each request.

    Args:
        requests: in the order in which they are shown.
        waiting: show what matters to whoever decides.
        with_requester: show whose they are.
    """
    headings = ["Request", "Template", "For", "Status", "Decision", "Submitted", "Ends"]
    if waiting:
        headings = ["Request", "Requester", "Template", "For", "Justification", "Waiting"]
    elif with_requester:
        headings.insert(1, "Requester")
    rows = []
    for each in requests:
        cells: dict[str, str | Text] = {
            "Request": rendering.short(each["id"]),
            "Requester": rendering.plain(each["requester"]["email"], lines=False),
            "Template": rendering.template_name(each),
            "For": durations.spell(each["requested_duration_mins"]),
            "Status": rendering.status(each),
            "Decision": rendering.decision(each),
            "Justification": rendering.excerpt(each["justification"]),
            "Submitted": rendering.ahead_or_ago(each["created_at"]),
            "Waiting": durations.spell_seconds(-rendering.seconds_until(each["created_at"])),
            "Ends": rendering.ahead_or_ago(each["expires_at"] or "") if each["status"] == "approved" else "",
        }
        rows.append([cells[heading] for heading in headings])
    return rendering.table(headings, rows)
