"""Mails: one message for each recipient, as text and as HTML.

Each repetition has the `Message-ID` of the first, so that a mailbox that got it already can drop it; the mails about
one request make one conversation. A link shows the request and does nothing else: programs that look into mails follow
links.
"""

from __future__ import annotations

import re
import ssl
import time
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import formatdate, parseaddr
from functools import lru_cache
from html import escape
from typing import Final

import aiosmtplib
import httpx

from deliveries import words
from deliveries.words import Message
from domain.deliveries import Attempt, Envelope, Outbound, Smtp
from domain.integrations import Role
from domain.text import made_storable

_LONGEST_SUBJECT: Final = 200
_LONGEST_REPLY: Final = 1000
_TRANSIENT: Final = range(400, 500)
_FOOTER: Final = "You get this because you take part in an access request."


async def send(recipient: str, role: Role, envelope: Envelope, policy: Outbound) -> Attempt:
    """Make one attempt."""
    if policy.smtp is None:
        return Attempt(delivered=False, error="No mail server is set: JUSTIAM_SMTP_HOST and JUSTIAM_SMTP_FROM.")
    try:
        message = compose(recipient, role, envelope, policy.smtp.sender)
    except (MessageError, ValueError, IndexError):
        return Attempt(delivered=False, error="The recipient's address cannot be written to.")
    began = time.monotonic()
    attempt = await _hand_over(message, policy.smtp, policy.timeout_secs)
    return attempt.model_copy(update={"latency_ms": round((time.monotonic() - began) * 1000)})


def compose(recipient: str, role: Role, envelope: Envelope, sender: str) -> EmailMessage:
    """The message.

    Raises:
        ValueError: the recipient is no address.
    """
    told = words.for_person(envelope, role)
    name, address = parseaddr(sender)
    from_address = Address(name, addr_spec=address)
    domain = from_address.domain
    message = EmailMessage()
    # Address objects, and text of one line: nothing that people wrote begins a header of its own.
    message["From"] = from_address
    message["To"] = _mailbox(recipient)
    message["Subject"] = _one_line(told.title)
    message["Date"] = formatdate(usegmt=True)
    message["Message-ID"] = f"<{envelope.delivery_id}@{domain}>"
    message["References"] = message["In-Reply-To"] = f"<request-{envelope.request.id}@{domain}>"
    # So that nobody's out-of-office note answers it (RFC 3834).
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(_text(told, envelope.request.link))
    message.add_alternative(_html(told, envelope.request.link), subtype="html")
    return message


def _mailbox(recipient: str) -> Address:
    """The recipient as an address, and only one.

    Raises:
        ValueError: it is none.
    """
    if recipient.isascii():
        return Address(addr_spec=recipient)
    local, _, domain = recipient.rpartition("@")
    # The parser takes no letters beyond ASCII, which mail servers do (RFC 6531); for the grammar they are like others.
    Address(addr_spec="".join(char if char.isascii() or not char.isalnum() else "x" for char in recipient))
    return Address(username=local, domain=domain.encode("idna").decode())


async def _hand_over(message: EmailMessage, smtp: Smtp, timeout_secs: float) -> Attempt:
    status: int | None = None
    reply: str | None = None
    try:
        async with aiosmtplib.SMTP(
            hostname=smtp.host,
            port=smtp.port,
            username=smtp.username,
            password=smtp.password.get_secret_value() if smtp.password else None,
            use_tls=smtp.tls == "tls",
            start_tls=smtp.tls == "starttls",
            tls_context=None if smtp.tls == "none" else _tls(),
            timeout=timeout_secs,
        ) as client:
            _, reply = await client.send_message(message)
        return Attempt(delivered=True, response_status=250, response_head=_shown(reply))
    except aiosmtplib.SMTPRecipientsRefused as refused:
        # One recipient a message, so one answer.
        status, reply = refused.recipients[0].code, refused.recipients[0].message
        error, retryable = "The mail server refused the recipient.", status in _TRANSIENT
    except aiosmtplib.SMTPAuthenticationError as refused:
        # For the operator to mend, in the meantime; the message is as good as before.
        status, reply = refused.code, refused.message
        error, retryable = "The mail server did not accept the user name and password.", True
    except aiosmtplib.SMTPResponseException as refused:
        status, reply = refused.code, refused.message
        error, retryable = "The mail server refused the message.", status in _TRANSIENT
    except (aiosmtplib.SMTPTimeoutError, TimeoutError):
        error, retryable = f"The mail server did not answer within {timeout_secs:g} seconds.", True
    except aiosmtplib.SMTPNotSupported as refused:
        error, retryable = f"The mail server cannot take the message: {_shown(str(refused))}", False
    except (aiosmtplib.SMTPException, OSError):
        error, retryable = "The mail server could not be reached.", True
    return Attempt(
        delivered=False,
        response_status=status,
        response_head=None if reply is None else _shown(reply),
        error=error,
        retryable=retryable,
    )


@lru_cache(maxsize=1)
def _tls() -> ssl.SSLContext:
    return httpx.create_ssl_context()


def _text(told: Message, link: str | None) -> str:
    lines = [told.opening, ""]
    lines += [f"{name}: {value}" for name, value in told.facts]
    for name, text in told.quotes:
        lines += ["", f"{name}:", *(f"> {line}" for line in text.splitlines())]
    if link is not None:
        lines += ["", f"{told.call}:", link]
    return "\n".join([*lines, "", "-- ", _FOOTER, ""])


def _html(told: Message, link: str | None) -> str:
    facts = "".join(
        f'<tr><td style="padding:2px 16px 2px 0;color:#666">{escape(name)}</td><td>{escape(value)}</td></tr>'
        for name, value in told.facts
    )
    quotes = "".join(
        f'<p style="margin:16px 0 4px;color:#666">{escape(name)}</p>'
        '<blockquote style="margin:0;padding:0 0 0 12px;border-left:3px solid #ccc;white-space:pre-wrap">'
        f"{escape(text)}</blockquote>"
        for name, text in told.quotes
    )
    button = (
        f'<p style="margin:24px 0"><a href="{escape(link)}" style="background:#1f5fbf;color:#fff;padding:10px 16px;'
        f'border-radius:4px;text-decoration:none">{escape(told.call)}</a></p>'
        if link is not None
        else ""
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"></head>'
        '<body style="font-family:system-ui,sans-serif;font-size:15px;line-height:1.5;color:#222">'
        f"<p>{escape(told.opening)}</p><table>{facts}</table>{quotes}{button}"
        f'<p style="color:#888;font-size:13px">{escape(_FOOTER)}</p></body></html>\n'
    )


def _one_line(text: str) -> str:
    line = " ".join(re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", " ", text).split())
    return line if len(line) <= _LONGEST_SUBJECT else line[: _LONGEST_SUBJECT - 1] + "…"


def _shown(reply: str) -> str:
    return made_storable(reply)[:_LONGEST_REPLY]
