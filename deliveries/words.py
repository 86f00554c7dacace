"""What messages to people say: the same words in Slack and in mails."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from domain.deliveries import Contact, Envelope, RequestFacts
from domain.events import Event
from domain.integrations import REMINDER, Role
from domain.text import made_harmless

_SHOWN_APPROVERS = 10


@dataclass(frozen=True)
class Message:
    """A message before it is formatted."""

    title: str
    """The subject, or the headline."""
    opening: str
    """A sentence or two."""
    facts: list[tuple[str, str]]
    quotes: list[tuple[str, str]]
    """What people wrote, by what it is."""
    call: str
    """What the link is for."""


def for_channel(envelope: Envelope) -> Message:
    """For a channel that anybody may read."""
    request = envelope.request
    who, what = _named(request.requester), request.template_name
    match envelope.event:
        case Event.SUBMITTED:
            title, opening = "Access requested", f"{who} asks for {what}."
        case Event.APPROVED:
            title, opening = "Access approved", f"{_by(envelope)} approved {what} for {who}."
        case Event.DENIED:
            title, opening = "Access denied", f"{_by(envelope)} denied {what} to {who}."
        case Event.REVOKED:
            title, opening = _revoked(request, who)
        case Event.EXPIRED:
            title, opening = "Access ended", f"The time is up: {who} no longer has {what}."
        case Event.ESCALATED:
            title, opening = "Access request escalated", f"Nobody has decided yet: {who} asks for {what}."
        case _:
            title, opening = "Access request", f"{envelope.event}: {who}, {what}."
    return _message(title, opening, _facts(envelope, with_approvers=True), _quotes(envelope), "Open the request")


def for_person(envelope: Envelope, role: Role) -> Message:
    """For somebody who has to know, by why they are written to."""
    request = envelope.request
    who, what = _named(request.requester), request.template_name
    match role:
        case Role.APPROVER:
            title = f"{request.requester.name} asks for {what}"
            opening = f"{who} asks for {what} for {duration(request.requested_duration_mins)}. You can decide it."
            if envelope.event == Event.ESCALATED:
                title = f"Still undecided: {title}"
                opening = f"Nobody has decided yet, so you are asked as well. {opening}"
            call = "Look at it, then approve or deny"
        case Role.REMINDER:
            title = f"Your access ends soon: {what}"
            opening = f"Your access to {what} ends {_until(request)}. If you still need it then, ask again in time."
            call = "Open the request"
        case Role.HANDLED:
            done = _done(envelope)
            title = f"{done.capitalize()}: {request.requester.name} and {what}"
            opening = f"{_handled(envelope)} There is nothing left for you to do."
            call = "Open the request"
        case _:
            title, opening = _outcome(envelope)
            call = "Open the request"
    return _message(title, opening, _facts(envelope, with_approvers=role is Role.APPROVER), _quotes(envelope), call)


def _message(
    title: str, opening: str, facts: list[tuple[str, str]], quotes: list[tuple[str, str]], call: str
) -> Message:
    """Return a message in which nothing that people wrote turns the direction of the text around it."""
    return Message(
        made_harmless(title),
        made_harmless(opening),
        [(name, made_harmless(value)) for name, value in facts],
        [(name, made_harmless(text)) for name, text in quotes],
        call,
    )


def duration(minutes: int) -> str:
    """`minutes` as people say them."""
    days, rest = divmod(minutes, 24 * 60)
    hours, mins = divmod(rest, 60)
    parts = [
        f"{number} {word if number == 1 else word + 's'}"
        for number, word in ((days, "day"), (hours, "hour"), (mins, "minute"))
        if number
    ]
    return " ".join(parts) or "0 minutes"


def moment(at: datetime) -> str:
    """`at` as people read it."""
    return f"{at.astimezone(UTC):%d %B %Y, %H:%M} UTC"


def _outcome(envelope: Envelope) -> tuple[str, str]:
    request = envelope.request
    what = request.template_name
    match envelope.event:
        case Event.APPROVED:
            title = f"Approved: {what}"
            opening = f"{_by(envelope)} approved your request. You have access until {_expiry(request)}."
        case Event.DENIED:
            title, opening = f"Denied: {what}", f"{_by(envelope)} denied your request."
        case Event.REVOKED:
            title, opening = _revoked(request, None)
            title = f"{title}: {what}"
        case Event.EXPIRED:
            title = f"Your access has ended: {what}"
            opening = "The time is up. If you need it again, make another request."
        case _:
            title, opening = f"Your request: {what}", "Your request has changed."
    return title, opening


def _handled(envelope: Envelope) -> str:
    request = envelope.request
    who, what = _named(request.requester), request.template_name
    match envelope.event:
        case Event.APPROVED:
            return f"{_by(envelope)} approved {what} for {who}."
        case Event.DENIED:
            return f"{_by(envelope)} denied {what} to {who}."
    return _revoked(request, who)[1]


def _revoked(request: RequestFacts, who: str | None) -> tuple[str, str]:
    """Headline and sentence; `who` is None in words to the requester."""
    by, what = request.ended_by or "Somebody", request.template_name
    by = "The service" if by.startswith("system:") else by
    # Without an end of its own it was never granted.
    if request.expires_at is None:
        whose = f"the request of {who}" if who else "your request"
        return "Request cancelled", f"{by} cancelled {whose} for {what}."
    whose = f"the access of {who}" if who else "your access"
    return "Access revoked", f"{by} ended {whose} to {what}."


def _done(envelope: Envelope) -> str:
    match envelope.event:
        case Event.APPROVED:
            return "approved"
        case Event.DENIED:
            return "denied"
    return "cancelled" if envelope.request.expires_at is None else "revoked"


def _by(envelope: Envelope) -> str:
    by = envelope.payload.get("decided_by") or envelope.request.decided_by or "Somebody"
    return "The service" if str(by).startswith("system:") else str(by)


def _expiry(request: RequestFacts) -> str:
    return moment(request.expires_at) if request.expires_at else "its time is up"


def _until(request: RequestFacts) -> str:
    return f"at {moment(request.expires_at)}" if request.expires_at else "soon"


def _named(contact: Contact) -> str:
    return f"{contact.name} ({contact.email})"


def _facts(envelope: Envelope, *, with_approvers: bool) -> list[tuple[str, str]]:
    request = envelope.request
    facts = [
        ("Template", request.template_name),
        ("Application", request.app_name),
        ("Requester", _named(request.requester)),
        ("Duration", duration(request.requested_duration_mins)),
    ]
    if request.mappings:
        facts.append(("Grants", ", ".join(request.mappings)))
    if with_approvers and request.approvers:
        shown = [approver.name for approver in request.approvers[:_SHOWN_APPROVERS]]
        more = len(request.approvers) - len(shown)
        facts.append(("Approvers", ", ".join(shown) + (f" and {more} more" if more else "")))
    if envelope.event in {Event.APPROVED, Event.DENIED}:
        facts.append(("Decided by", _by(envelope)))
    if envelope.event in {Event.APPROVED, REMINDER} and request.expires_at:
        facts.append(("Ends", moment(request.expires_at)))
    return facts


def _quotes(envelope: Envelope) -> list[tuple[str, str]]:
    request = envelope.request
    comment = request.decision_comment if envelope.event in {Event.APPROVED, Event.DENIED, Event.REVOKED} else None
    quotes = [("Justification", request.justification), ("Comment", comment or "")]
    return [(name, text.strip()) for name, text in quotes if text.strip()]
