"""How results look: tables and colours for people, in local time; the API's own JSON for programs, in UTC."""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from cli.people.documents import Field, Message, Request, TimelineEntry
from domain import durations
from domain.actors import SystemActor
from domain.states import Status, verdict
from domain.text import made_harmless

SHORT_ID: Final = 8
"""Characters of an id that tables show, and that are enough to name a request."""
_UNLIMITED_WIDTH: Final = 10_000
_LONGEST_EXCERPT: Final = 60

STATUS_STYLES: Final = {
    "pending": "yellow",
    "approved": "green",
    "denied": "red",
    "revoked": "magenta",
    "expired": "dim",
}
_ACTORS: Final[Mapping[str, str]] = {
    SystemActor.AUTO: "auto-approval",
    SystemActor.OPERATOR: "an operator",
    SystemActor.DEACTIVATED: "the requester's deactivation",
    SystemActor.EXPIRY: "the end of its time",
    SystemActor.ESCALATION: "the escalation",
}


def console(*, stderr: bool = False) -> Console:
    """Standard output, or stderr; coloured at a terminal, unless NO_COLOR is set."""
    # Elsewhere a line of a table stays one line, for grep and its friends.
    width = None if (sys.stderr if stderr else sys.stdout).isatty() else _UNLIMITED_WIDTH
    return Console(stderr=stderr, highlight=False, markup=False, emoji=False, width=width)


def print_json(value: object) -> None:
    """Print the API's JSON. ASCII alone: no terminal and no locale can make anything else of it."""
    print(json.dumps(value, indent=2))  # noqa: T201


def print_json_line(value: object) -> None:
    """Print the API's JSON as one line of a stream, at once."""
    print(json.dumps(value), flush=True)  # noqa: T201


def plain(text: str, *, lines: bool = True) -> str:
    """`text`, which somebody else wrote, without what would steer a terminal or turn the reading direction around."""
    kept = "\n\t" if lines else ""
    text = made_harmless(text.replace("\r\n", "\n"))
    if not lines:
        text = " ".join(text.split())
    return "".join(char if char in kept or not _steers(char) else "\N{REPLACEMENT CHARACTER}" for char in text)


def excerpt(text: str) -> str:
    """The beginning of `text` on one line."""
    line = plain(text, lines=False)
    return line if len(line) <= _LONGEST_EXCERPT else f"{line[: _LONGEST_EXCERPT - 1].rstrip()}…"


def parsed(moment: str) -> datetime:
    """A time of the API."""
    return datetime.fromisoformat(moment)


def local(moment: str) -> str:
    """A time of the API for people: 2026-07-14 16:30 CEST."""
    return f"{parsed(moment).astimezone():%Y-%m-%d %H:%M %Z}"


def seconds_until(moment: str) -> float:
    """How far ahead a time of the API is; negative where it is past."""
    return (parsed(moment) - datetime.now(UTC)).total_seconds()


def ahead_or_ago(moment: str) -> str:
    """`in 7h 59m` or `5m ago`."""
    seconds = seconds_until(moment)
    return f"in {durations.spell_seconds(seconds)}" if seconds > 0 else f"{durations.spell_seconds(-seconds)} ago"


def short(identity: str) -> str:
    """The part of an id that is shown."""
    return identity[:SHORT_ID]


def actor(name: str) -> str:
    """Who acted: an email address as it is, the service by its reason."""
    return _ACTORS.get(name, plain(name, lines=False))


def table(headings: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> Table:
    """Columns under headings; the first one is never wrapped."""
    result = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for index, heading in enumerate(headings):
        result.add_column(heading, no_wrap=index == 0, overflow="fold")
    for row in rows:
        result.add_row(*row)
    return result


def facts(rows: Iterable[tuple[str, str | Text]]) -> Table:
    """Names with their values; what has no value is left out."""
    result = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    result.add_column(style="bold", no_wrap=True)
    result.add_column(overflow="fold")
    for name, value in rows:
        if value:
            result.add_row(name, value)
    return result


def status(request: Request) -> Text:
    """The status in its colour."""
    return Text(request["status"], style=STATUS_STYLES.get(request["status"], ""))


def decision(request: Request) -> str:
    """What was decided, by whom; a request that its requester took back was cancelled."""
    decided_by = request["decided_by"]
    said = verdict(Status(request["status"]), decided=decided_by is not None, granted=request["expires_at"] is not None)
    if said is None:
        return ""
    return said.value if decided_by is None else f"{said} by {actor(decided_by)}"


def template_name(request: Request) -> str:
    """The template that was asked for, as it was called then."""
    name = plain(request["template_name"], lines=False)
    return name if request["template_id"] else f"{name} (deleted template)"


def claims(request: Request) -> str:
    """What a grant adds to the requester's tokens."""
    return ", ".join(plain(f"{each['claim']}: {each['value']}", lines=False) for each in request["mappings"])


def ends(request: Request) -> str:
    """When the access ends, or when and why the request was over."""
    if request["status"] == "approved" and request["expires_at"]:
        return f"{local(request['expires_at'])}, {ahead_or_ago(request['expires_at'])}"
    if request["ended_at"] is None:
        return ""
    by = f" by {actor(request['ended_by'])}" if request["ended_by"] else ""
    return f"{local(request['ended_at'])}{by}"


def waiting_for(request: Request) -> str:
    """Who can decide a pending request."""
    asked = [plain(group["name"], lines=False) for group in request["approver_groups"]]
    if request["admins_decide"] or not asked:
        asked.append("administrators")
    return ", ".join(asked)


def answer(field: Field, value: object) -> str:
    """An answer to a custom field."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return " | ".join(plain(str(item), lines=False) for item in value)
    return plain(str(value)) if field["type"] == "textarea" else plain(str(value), lines=False)


def answers(request: Request) -> list[tuple[str, str]]:
    """The custom fields that were answered, by label."""
    given = request["custom_answers"]
    return [
        (plain(field["label"], lines=False), answer(field, given[field["id"]]))
        for field in request["custom_fields"]
        if field["id"] in given
    ]


def timeline_entry(entry: TimelineEntry) -> Text:
    """What happened, in one line."""
    detail, kind = entry["detail"], entry["kind"]
    line = Text.assemble((f"{local(entry['at'])}  ", "dim"))
    who = actor(entry["actor"]) + ("" if entry["verified"] else " (unverified)")
    if kind == "refused":
        line.append("refused", style="red")
        line.append(f": {who} wanted to {detail.get('action', 'act')}: {_text(detail.get('reason'))}")
        return line
    line.append(_happened(entry), style=STATUS_STYLES.get(kind, "bold"))
    if kind == "escalated":
        line.append(f": {_text(detail.get('asked')) or 'others'} may decide now")
    else:
        line.append(f" by {who}")
    if comment := _text(detail.get("comment")):
        line.append(f": “{comment}”")
    if until := detail.get("expires_at"):
        line.append(f", until {local(str(until))}")
    return line


def message(sent: Message) -> Table:
    """A line of the discussion."""
    result = Table.grid(padding=0)
    author = plain(f"{sent['author']['name']} <{sent['author']['email']}>", lines=False)
    head = Text.assemble((author, "bold"), (f"  {local(sent['created_at'])}", "dim"))
    result.add_row(head)
    result.add_row(Padding(Text(plain(sent["body"])), (0, 0, 0, 2)))
    return result


def _happened(entry: TimelineEntry) -> str:
    if entry["kind"] == "revoked" and "cancelled" in entry["detail"]:
        return "cancelled"
    return entry["kind"]


def _steers(char: str) -> bool:
    # Control characters and halves of characters.
    return unicodedata.category(char) in {"Cc", "Cs"}


def _text(value: Any) -> str:  # noqa: ANN401 - JSON
    return plain(str(value), lines=False) if value else ""
