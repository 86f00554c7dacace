"""Mails: one message for each recipient, as text and as HTML.

Each repetition has the `Message-ID` of the first, so that a mailbox that got it already can drop it; the mails about
one request make one conversation. A link shows the request and does nothing else: programs that look into mails follow
links.

Header lines are written here. `EmailMessage` decodes what looks like an encoded word (RFC 2047) in the values that it
is given, so that a name such as `=?utf-8?q?X=0AReply-To:_…?=` becomes another text, or on some versions of Python a
header of its own. It makes only the body, with the headers that describe it.
"""

from __future__ import annotations

import re
import ssl
import time
from dataclasses import dataclass
from email.header import Header
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate, parseaddr
from functools import lru_cache
from html import escape
from typing import Final

import aiosmtplib
import httpx

from deliveries import words
from deliveries.words import Message
from domain.addresses import mailbox
from domain.deliveries import Attempt, Envelope, Outbound, Smtp
from domain.integrations import Role
from domain.text import made_storable

_LONGEST_SUBJECT: Final = 200
_LONGEST_REPLY: Final = 1000
_LONGEST_LINE: Final = 76
"""Characters of a line of a header that has encoded words (RFC 2047, section 2)."""
_TRANSIENT: Final = range(400, 500)
_BODY: Final = SMTP.clone(cte_type="7bit")
"""Every server takes it, and none of them changes it on the way."""
_BREAKS: Final = re.compile("\\r\\n|[\\x00-\\x1f\\x7f-\\x9f\\u2028\\u2029]")
_ATOMS: Final = re.compile(r"[A-Za-z0-9!#$%&'*+\-/=?^_`{|}~ ]+")
"""What a display name may consist of without quotation marks (RFC 5322, section 3.2.3)."""
_FOOTER: Final = "You get this because you take part in an access request."


@dataclass(frozen=True)
class Mail:
    """One message, and the two addresses of its envelope."""

    sender: str
    recipient: str
    content: bytes

    @property
    def needs_utf8(self) -> bool:
        """Whether a server has to take letters beyond ASCII in addresses (RFC 6531)."""
        return not (self.sender + self.recipient).isascii()


async def send(recipient: str, role: Role, envelope: Envelope, policy: Outbound) -> Attempt:
    """Make one attempt."""
    if policy.smtp is None:
        return Attempt(delivered=False, error="No mail server is set: JUSTIAM_SMTP_HOST and JUSTIAM_SMTP_FROM.")
    try:
        mail = compose(recipient, role, envelope, policy.smtp.sender)
    except ValueError:
        return Attempt(delivered=False, error="The recipient's address cannot be written to.")
    began = time.monotonic()
    attempt = await _hand_over(mail, policy.smtp, policy.timeout_secs)
    return attempt.model_copy(update={"latency_ms": round((time.monotonic() - began) * 1000)})


def compose(recipient: str, role: Role, envelope: Envelope, sender: str) -> Mail:
    """Return the message.

    Raises:
        ValueError: the recipient or the sender is no address.
    """
    told = words.for_person(envelope, role)
    name, address = parseaddr(sender)
    local, domain = mailbox(address)
    from_address = f"{local}@{domain}"
    to_address = "@".join(mailbox(recipient))
    headers = {
        "From": f"{_phrase(name)} <{from_address}>" if name else from_address,
        "To": to_address,
        "Subject": _unstructured("Subject", _subject(told.title)),
        "Date": formatdate(usegmt=True),
        "Message-ID": f"<{envelope.delivery_id}@{domain}>",
        "References": f"<request-{envelope.request.id}@{domain}>",
        "In-Reply-To": f"<request-{envelope.request.id}@{domain}>",
        # So that no out-of-office note answers it (RFC 3834).
        "Auto-Submitted": "auto-generated",
    }
    body = EmailMessage(_BODY)
    body.set_content(_text(told, envelope.request.link))
    body.add_alternative(_html(told, envelope.request.link), subtype="html")
    head = "".join(f"{header}: {value}\r\n" for header, value in headers.items())
    return Mail(from_address, to_address, head.encode() + body.as_bytes())


async def _hand_over(mail: Mail, smtp: Smtp, timeout_secs: float) -> Attempt:
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
            _, reply = await client.sendmail(
                mail.sender,
                mail.recipient,
                mail.content,
                mail_options=["SMTPUTF8"] if mail.needs_utf8 else [],
            )
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
        f'<tr><td style="padding:2px 16px 2px 0;color:#666">{escape(name)}</td><td dir="auto">{escape(value)}</td></tr>'
        for name, value in told.facts
    )
    quotes = "".join(
        f'<p style="margin:16px 0 4px;color:#666">{escape(name)}</p>'
        '<blockquote dir="auto" style="margin:0;padding:0 0 0 12px;border-left:3px solid #ccc;white-space:pre-wrap">'
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


def _subject(text: str) -> str:
    line = _BREAKS.sub(" ", text)
    return line if len(line) <= _LONGEST_SUBJECT else line[: _LONGEST_SUBJECT - 1] + "…"


def _unstructured(header: str, text: str) -> str:
    """Return the value of a header that reads as `text`, folded."""
    plain = text.isascii() and "=?" not in text and text == text.strip()
    if plain and len(header) + len(text) + 2 <= _LONGEST_LINE:
        return text
    return _encoded(header, text)


def _phrase(name: str) -> str:
    """Return a display name as it stands before an address."""
    if _ATOMS.fullmatch(name) and "=?" not in name:
        return name
    if name.isascii() and "=?" not in name:
        return '"' + re.sub(r'(["\\\\])', r"\\\1", name) + '"'
    return _encoded("From", name)


def _encoded(header: str, text: str) -> str:
    return Header(text, "utf-8", maxlinelen=_LONGEST_LINE, header_name=header).encode(linesep="\r\n")


def _shown(reply: str) -> str:
    return made_storable(reply)[:_LONGEST_REPLY]
