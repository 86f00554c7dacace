"""Mails, through a mail server that nobody here wrote: what they say, and that nobody writes headers into them."""

from __future__ import annotations

import asyncio
import email
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.header import decode_header, make_header
from email.message import EmailMessage
from email.policy import default
from email.utils import formataddr, parseaddr
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import SecretStr

from deliveries import send, slack
from deliveries.mail import Mail, compose
from domain import deliveries
from domain.deliveries import Attempt, Contact, Outbound, Smtp
from domain.events import Event
from domain.integrations import REMINDER, Role, Target
from tests.deliveries.conftest import DELIVERY_ID, REQUEST_ID, MakeEnvelope

SENDER = "JustIAM <access@example.com>"
LOOK_ALIKE = "=?utf-8?q?Reply-To?= =?utf-8?q?=0AReply-To:_a=40b.example=0A=0Atext?="
HEADERS = [
    "From",
    "To",
    "Subject",
    "Date",
    "Message-ID",
    "References",
    "In-Reply-To",
    "Auto-Submitted",
    "MIME-Version",
    "Content-Type",
]
"""All that a message has, in their order; Content-Type is that of its two parts together."""


@dataclass
class Server:
    """What a mail server got, and what it answers."""

    port: int = 0
    answers: dict[str, str] = field(default_factory=dict)
    """By the step: RCPT, DATA."""
    received: list[Envelope] = field(default_factory=list)

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self, _: SMTP, __: Session, envelope: Envelope, address: str, ___: list[str]
    ) -> str:
        if "RCPT" in self.answers:
            return self.answers["RCPT"]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _: SMTP, __: Session, envelope: Envelope) -> str:  # noqa: N802
        if "DATA" in self.answers:
            return self.answers["DATA"]
        self.received.append(envelope)
        return "250 kept as 42"

    def message(self) -> EmailMessage:
        """The only one."""
        [envelope] = self.received
        content = envelope.content
        assert isinstance(content, bytes)
        message = email.message_from_bytes(content, policy=default)
        assert isinstance(message, EmailMessage)
        return message


def _check(_: SMTP, __: Session, ___: Envelope, ____: str, given: Any) -> AuthResult:
    right = isinstance(given, LoginPassword) and (given.login, given.password) == (b"justiam", b"hush-hush")
    return AuthResult(success=right, handled=False)


@asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[Server]:
    server = Server()
    loop = asyncio.get_running_loop()
    listening = await loop.create_server(
        lambda: SMTP(server, loop=loop, enable_SMTPUTF8=True, hostname="mail.test", **options), "127.0.0.1", 0
    )
    server.port = listening.sockets[0].getsockname()[1]
    async with listening:
        yield server


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serving() as server:
        yield server


def policy(server: Server, **smtp: Any) -> Outbound:
    values = {"host": "127.0.0.1", "port": server.port, "tls": "none", "sender": SENDER, **smtp}
    return Outbound(smtp=Smtp.model_validate(values), timeout_secs=5)


async def deliver(server: Server, envelope: Any, to: str = "bob@example.com", role: Role = Role.APPROVER) -> Attempt:
    return await send(Target.EMAIL, {}, {}, envelope, recipient=to, role=role, policy=policy(server))


def _titled(template: str) -> Any:
    """An event whose mail to the requester has `template` in its subject, and quotes it."""
    return deliveries.Envelope(
        delivery_id=DELIVERY_ID,
        event=Event.SUBMITTED,
        at=datetime(2026, 3, 1, tzinfo=UTC),
        payload={},
        request=deliveries.RequestFacts(
            id=REQUEST_ID,
            template_name=template,
            app_name="Internal DB",
            requester=deliveries.Contact(email="alice@example.com", name="Alice"),
            requested_duration_mins=480,
            justification=template,
            approvers=[],
            status="pending",
        ),
    )


def read(mail: Mail) -> EmailMessage:
    message = email.message_from_bytes(mail.content, policy=default)
    assert isinstance(message, EmailMessage)
    return message


def parts(message: EmailMessage) -> tuple[str, str]:
    plain, html = message.get_body(("plain",)), message.get_body(("html",))
    assert plain is not None
    assert html is not None
    return plain.get_content(), html.get_content()


async def test_asks_an_approver(server: Server, envelope: MakeEnvelope) -> None:
    attempt = await deliver(server, envelope())
    assert (attempt.delivered, attempt.response_status, attempt.error) == (True, 250, None)
    assert "kept as 42" in (attempt.response_head or "")
    message = server.message()
    assert server.received[0].rcpt_tos == ["bob@example.com"]
    assert (message["From"], message["To"]) == (SENDER, "bob@example.com")
    assert message["Subject"] == "Alice Ardent asks for Database read-only access"
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["Date"] is not None
    for text in parts(message):
        assert "Alice Ardent (alice@example.com) asks for Database read-only access for 8 hours." in text
        assert "An incident: customers cannot pay" in text
        assert "Bob Brown, Carol Castle" in text
        assert f"https://access.example.com/requests/{REQUEST_ID}" in text


@pytest.mark.parametrize(
    ("event", "role", "facts", "subject", "words"),
    [
        (
            Event.ESCALATED,
            Role.APPROVER,
            {},
            "Still undecided: Alice Ardent asks for Database read-only access",
            "Nobody has decided yet, so you are asked as well.",
        ),
        (
            Event.APPROVED,
            Role.REQUESTER,
            {"expires_at": "2026-03-01T20:30:00Z"},
            "Approved: Database read-only access",
            "bob@example.com approved your request. You have access until 01 March 2026, 20:30 UTC.",
        ),
        (
            Event.APPROVED,
            Role.REQUESTER,
            {"decided_by": "system:auto", "expires_at": "2026-03-01T20:30:00Z"},
            "Approved: Database read-only access",
            "The service approved your request.",
        ),
        (
            Event.DENIED,
            Role.REQUESTER,
            {"decision_comment": "Ask Carol first"},
            "Denied: Database read-only access",
            "Ask Carol first",
        ),
        (
            Event.REVOKED,
            Role.REQUESTER,
            {"ended_by": "carol@example.com", "expires_at": "2026-03-01T20:30:00Z"},
            "Access revoked: Database read-only access",
            "carol@example.com ended your access to Database read-only access.",
        ),
        (
            Event.REVOKED,
            Role.REQUESTER,
            {"ended_by": "system:deactivated"},
            "Request cancelled: Database read-only access",
            "The service cancelled your request for Database read-only access.",
        ),
        (
            Event.EXPIRED,
            Role.REQUESTER,
            {},
            "Your access has ended: Database read-only access",
            "The time is up.",
        ),
        (
            Event.APPROVED,
            Role.HANDLED,
            {},
            "Approved: Alice Ardent and Database read-only access",
            "bob@example.com approved Database read-only access for Alice Ardent (alice@example.com). There is nothing",
        ),
        (
            Event.REVOKED,
            Role.HANDLED,
            {"ended_by": "alice@example.com"},
            "Cancelled: Alice Ardent and Database read-only access",
            "alice@example.com cancelled the request of Alice Ardent (alice@example.com)",
        ),
        (
            REMINDER,
            Role.REMINDER,
            {"expires_at": "2026-03-01T20:30:00Z"},
            "Your access ends soon: Database read-only access",
            "Your access to Database read-only access ends at 01 March 2026, 20:30 UTC.",
        ),
    ],
    ids=["escalated", "approved", "by itself", "denied", "revoked", "deactivated", "over", "decided", "gone", "ending"],
)
async def test_tells_each_role_what_it_needs_to_know(  # noqa: PLR0917 - a row of the table
    server: Server, envelope: MakeEnvelope, event: str, role: Role, facts: dict[str, Any], subject: str, words: str
) -> None:
    assert (await deliver(server, envelope(event, **facts), role=role)).delivered
    assert server.message()["Subject"] == subject
    for text in parts(server.message()):
        assert words in " ".join(text.split())


async def test_has_the_same_id_in_each_attempt_and_one_conversation_for_a_request(
    server: Server, envelope: MakeEnvelope
) -> None:
    message, again = (read(compose("bob@example.com", Role.APPROVER, envelope(), SENDER)) for _ in range(2))
    assert message["Message-ID"] == again["Message-ID"] == f"<{DELIVERY_ID}@example.com>"
    assert message["References"] == f"<request-{REQUEST_ID}@example.com>"
    await deliver(server, envelope())
    assert server.message()["Message-ID"] == message["Message-ID"]


async def test_links_nowhere_but_to_the_page_of_the_request(server: Server, envelope: MakeEnvelope) -> None:
    await deliver(server, envelope(justification='<a href="https://evil.test/">Approve</a><img src=x onerror=y>'))
    _, html = parts(server.message())
    assert re.findall(r'(?:href|src)="([^"]*)"', html) == [f"https://access.example.com/requests/{REQUEST_ID}"]
    assert "<img" not in html
    assert "&lt;img src=x onerror=y&gt;" in html


def test_old_text_turns_nothing_in_a_mail_nor_in_slack(envelope: MakeEnvelope) -> None:
    old = "\u202egpj.exe"
    made = envelope(
        template_name=old, app_name=old, justification=old, requester=Contact(email="a@example.com", name=old)
    )
    sent = read(compose("bob@example.com", Role.APPROVER, made, SENDER))
    parts = "".join(part.get_content() for part in sent.iter_parts())
    shown = json.dumps(slack.message(made), ensure_ascii=False) + parts + str(sent["Subject"])
    assert "\u202e" not in shown
    assert shown.count("\ufffdgpj.exe") >= 9


async def test_does_without_a_link(server: Server, envelope: MakeEnvelope) -> None:
    await deliver(server, envelope(link=None))
    assert not any("http" in text for text in parts(server.message()))


class TestHeaders:
    @pytest.mark.parametrize(
        "hostile",
        [
            "X\r\nBcc: mallory@evil.test",
            "X\nBcc: mallory@evil.test",
            "X\r\n\r\nbody",
            "X\u2028Bcc: m@evil.test",
            "\x00",
        ],
        ids=["crlf", "lf", "body", "separator", "nul"],
    )
    @pytest.mark.parametrize("place", ["template_name", "requester"])
    async def test_cannot_be_written_by_people(
        self, server: Server, envelope: MakeEnvelope, place: str, hostile: str
    ) -> None:
        value: Any = {"email": "alice@example.com", "name": hostile} if place == "requester" else hostile
        assert (await deliver(server, envelope(**{place: value}))).delivered
        message = server.message()
        assert message["Bcc"] is None
        assert server.received[0].rcpt_tos == ["bob@example.com"]
        assert message["Message-ID"] is not None
        assert not message.defects

    async def test_are_not_decoded_from_what_looks_like_an_encoded_word(
        self, server: Server, envelope: MakeEnvelope
    ) -> None:
        requester = {"email": "alice@example.com", "name": LOOK_ALIKE}
        assert (await deliver(server, envelope(requester=requester, template_name=LOOK_ALIKE))).delivered
        message = server.message()
        assert message.keys() == HEADERS
        assert message["Subject"] == f"{LOOK_ALIKE} asks for {LOOK_ALIKE}"
        for text in parts(message):
            assert f"{LOOK_ALIKE} (alice@example.com) asks for" in text
        content = server.received[0].content
        assert isinstance(content, bytes)
        head = content.partition(b"\r\n\r\n")[0]
        assert [line.partition(b":")[0].decode() for line in head.split(b"\r\n") if line[:1] != b" "] == HEADERS
        assert b"a@b.example" not in content

    @given(
        st.one_of(
            st.text(max_size=120),
            st.lists(
                st.sampled_from(
                    [
                        LOOK_ALIKE,
                        "=?utf-8?b?QQ==?=",
                        "=?",
                        "?=",
                        "\r\n",
                        "\n ",
                        " ",
                        "  ",
                        "é",
                        "🚑",
                        "x" * 90,
                        '"',
                        "\\",
                    ]
                ),
                max_size=6,
            ).map("".join),
        )
    )
    @example(" =?utf-8?q?x?= ")
    @example("a\tb  c\u3000")
    @example("🚑" * 60)
    @example("x" * 150)
    @example("a" * 75 + " b")
    def test_read_as_they_were_typed(self, typed: str) -> None:
        typed = typed.encode("utf-8", "replace").decode()
        mail = compose("bob@example.com", Role.REQUESTER, _titled(typed), SENDER)
        wanted = re.sub("\r\n|[\x00-\x1f\x7f-\x9f\u2028\u2029]", " ", f"Your request: {typed}")
        head = mail.content.partition(b"\r\n\r\n")[0].decode("ascii")
        lines = head.split("\r\n")
        assert [line.partition(":")[0] for line in lines if line[:1] != " "] == HEADERS
        assert not re.search(r"[\r\n]", head.replace("\r\n", ""))
        assert max(map(len, lines)) <= 78 or "boundary" in max(lines, key=len)
        message = read(mail)
        assert message.keys() == HEADERS
        assert not message.defects
        subject = message["Subject"]
        assert subject == wanted if len(wanted) <= 200 else subject == f"{wanted[:199]}…"
        assert message["To"] == "bob@example.com"
        # As an older reader decodes it.
        old = email.message_from_bytes(mail.content)["Subject"]
        assert str(make_header(decode_header(old))) == subject
        plain, html = parts(message)
        assert not typed.strip() or "".join(f"> {line}\n" for line in typed.strip().splitlines()) in plain.replace(
            "\r\n", "\n"
        )
        assert html.startswith("<!doctype html>")

    @pytest.mark.parametrize(
        "name", ["JustIAM", 'Access, "IAM" (x)', "Zugänge", LOOK_ALIKE.replace("?= =", "?=, ="), "a\\b", "é" * 60]
    )
    def test_name_the_sender(self, envelope: MakeEnvelope, name: str) -> None:
        sender = formataddr((name, "access@example.com"), "utf-8") if name.isascii() else f"{name} <access@example.com>"
        mail = compose("bob@example.com", Role.APPROVER, envelope(), sender)
        # Not by the policy "default", which puts a blank between two encoded words of a display name.
        shown, address = parseaddr(email.message_from_bytes(mail.content)["From"])
        assert (str(make_header(decode_header(shown))), address) == (name, "access@example.com")
        assert read(mail).keys() == HEADERS

    @pytest.mark.parametrize(
        ("recipient", "told"),
        [
            ("erika@straße.example", "erika@xn--strae-oqa.example"),
            ("erika@strasse.example", "erika@strasse.example"),
            ("erika@\uff33\uff34\uff32\uff21\uff33\uff33\uff25。example", "erika@strasse.example"),
            ("erika@σίσυφος.example", "erika@xn--kxa6ajbbmh.example"),
            ("erika@xn--strae-oqa.example", "erika@xn--strae-oqa.example"),
            ("bücher@straße.example", "bücher@xn--strae-oqa.example"),
        ],
    )
    async def test_have_the_domain_that_was_meant(
        self, server: Server, envelope: MakeEnvelope, recipient: str, told: str
    ) -> None:
        assert (await deliver(server, envelope(), recipient)).delivered
        assert server.received[0].rcpt_tos == [told]
        assert server.message()["To"] == told

    @pytest.mark.parametrize(
        "recipient", ["x@a\u200db.example", "x@⒈com.example", "x@a_ß.example", "=?utf-8?q?a=0Ab?=@"]
    )
    async def test_name_no_domain_that_there_cannot_be(
        self, server: Server, envelope: MakeEnvelope, recipient: str
    ) -> None:
        assert not (await deliver(server, envelope(), recipient)).delivered
        assert server.received == []

    @pytest.mark.parametrize(
        "recipient",
        ["bob@example.com\r\nBcc: mallory@evil.test", "bob@example.com, mallory@evil.test", "nobody", "", "a b@c.d"],
        ids=["crlf", "two", "no address", "empty", "space"],
    )
    async def test_have_one_recipient_that_is_an_address(
        self, server: Server, envelope: MakeEnvelope, recipient: str
    ) -> None:
        attempt = await deliver(server, envelope(), recipient)
        assert (attempt.delivered, attempt.retryable) == (False, False)
        assert attempt.error == "The recipient's address cannot be written to."
        assert server.received == []

    async def test_may_have_any_language(self, server: Server, envelope: MakeEnvelope) -> None:
        requester = {"email": "jürgen@bücher.example", "name": "Jürgen Größer 🚑"}
        attempt = await deliver(server, envelope(requester=requester, template_name="数据库"), "bücher@bücher.example")
        assert attempt.delivered, attempt
        assert server.message()["Subject"] == "Jürgen Größer 🚑 asks for 数据库"

    async def test_are_short(self, server: Server, envelope: MakeEnvelope) -> None:
        assert (await deliver(server, envelope(template_name="数" * 200))).delivered
        assert len(server.message()["Subject"]) <= 200


class TestServer:
    @pytest.mark.parametrize("step", ["RCPT", "DATA"])
    @pytest.mark.parametrize(
        ("answer", "retryable"), [("451 later", True), ("550 no", False), ("421 busy", True)], ids=["451", "550", "421"]
    )
    async def test_says_whether_to_try_again(
        self, server: Server, envelope: MakeEnvelope, step: str, answer: str, retryable: bool
    ) -> None:
        server.answers[step] = answer
        attempt = await deliver(server, envelope())
        assert (attempt.delivered, attempt.retryable) == (False, retryable)
        assert attempt.response_status == int(answer[:3])
        assert attempt.response_head == answer[4:]

    async def test_that_is_not_there_is_tried_again(self, envelope: MakeEnvelope) -> None:
        async with serving() as server:
            pass
        attempt = await deliver(server, envelope())
        assert (attempt.delivered, attempt.retryable) == (False, True)
        assert attempt.error == "The mail server could not be reached."

    async def test_without_tls_gets_nothing_where_tls_is_asked_for(
        self, server: Server, envelope: MakeEnvelope
    ) -> None:
        attempt = await send(
            Target.EMAIL,
            {},
            {},
            envelope(),
            recipient="bob@example.com",
            role=Role.APPROVER,
            policy=policy(server, tls="starttls", username="justiam", password=SecretStr("hush-hush")),
        )
        assert not attempt.delivered
        assert server.received == []

    @pytest.mark.parametrize(("password", "delivered"), [("hush-hush", True), ("wrong", False)], ids=["right", "wrong"])
    async def test_may_want_a_password(self, envelope: MakeEnvelope, password: str, delivered: bool) -> None:
        async with serving(authenticator=_check, auth_require_tls=False) as server:
            attempt = await send(
                Target.EMAIL,
                {},
                {},
                envelope(),
                recipient="bob@example.com",
                role=Role.APPROVER,
                policy=policy(server, username="justiam", password=SecretStr(password)),
            )
        assert (attempt.delivered, attempt.retryable) == (delivered, not delivered)
        assert attempt.response_status == (250 if delivered else 535)
        assert password not in attempt.model_dump_json()

    async def test_has_to_be_set(self, envelope: MakeEnvelope) -> None:
        attempt = await send(
            Target.EMAIL, {}, {}, envelope(), recipient="bob@example.com", role=Role.APPROVER, policy=Outbound()
        )
        assert (attempt.delivered, attempt.retryable) == (False, False)
        assert "JUSTIAM_SMTP_HOST" in (attempt.error or "")


@pytest.mark.parametrize("target", [Target.TASK, Target.EMAIL])
async def test_what_cannot_be_sent_is_a_mistake(envelope: MakeEnvelope, target: Target) -> None:
    with pytest.raises(ValueError, match="Nothing can be sent"):
        await send(target, {}, {}, envelope(), recipient=None, role=None, policy=Outbound())
