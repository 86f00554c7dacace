"""Calls to a service that is slow, busy, away or something else: a scripted server answers."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from cli.dev.program import free_port
from cli.people import client
from cli.people.client import Service
from cli.people.credentials import Credentials
from cli.people.documents import Page
from cli.people.errors import CommandError, NotSignedIn, Refused, Unavailable
from tests.tokens.issuer import QuietServer

TOKEN = "justiam_hush-hush"
Answer = tuple[int, dict[str, Any], dict[str, str]]

BUSY: Answer = (
    503,
    {"code": "record_unavailable", "detail": "The database is away."},
    {"Retry-After": "0"},
)
DROPPED: Answer = (0, {}, {})


class Script:
    """What the server answers, one after the other, and what it was asked."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.asked: list[tuple[str, str, str | None]] = []
        self.url = ""


@pytest.fixture
def script() -> Iterator[Script]:
    script = Script()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            self.rfile.read(length)
            script.asked.append((self.command, self.path, self.headers.get("Idempotency-Key")))
            assert self.headers["Authorization"] == f"Bearer {TOKEN}"
            status, body, headers = script.answers.pop(0)
            if status == 0:
                self.close_connection = True
                return
            kind = "application/problem+json" if status >= 400 else "application/json"
            self.send_response(status)
            for name, value in {"Content-Type": kind, **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        do_POST = do_GET  # noqa: N815 - the name that the server looks for

        def log_message(self, *_: object) -> None: ...

    server = QuietServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    script.url = f"http://127.0.0.1:{server.server_port}"
    yield script
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def service(script: Script, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    monkeypatch.setattr(client, "_USUAL_WAIT_SECS", 0.01)
    with Service(Credentials(script.url, TOKEN, "a test"), patience_secs=5) as service:
        yield service


def refused(service: Service) -> CommandError:
    with pytest.raises(CommandError) as error:
        service.get("/users/me")
    assert "\n" not in str(error.value)
    assert TOKEN not in repr(error.value)
    return error.value


def test_reading_is_repeated_until_the_service_is_there_again(service: Service, script: Script) -> None:
    script.answers = [BUSY, (429, {}, {"Retry-After": "0"}), DROPPED, (200, {"email": "alice"}, {})]
    assert service.get("/users/me") == {"email": "alice"}
    assert len(script.asked) == 4


def test_a_decision_is_repeated_under_the_same_key(service: Service, script: Script) -> None:
    script.answers = [BUSY, BUSY, (200, {}, {})]
    key = str(uuid4())
    service.post("/access-requests/1/approve", {}, key=key)
    assert script.asked == [("POST", "/api/v1/access-requests/1/approve", key)] * 3


@pytest.mark.parametrize("answer", [BUSY, DROPPED])
def test_a_message_is_never_sent_twice(service: Service, script: Script, answer: Answer) -> None:
    script.answers = [answer, (201, {}, {})]
    with pytest.raises(Unavailable, match="may have been carried out"):
        service.post("/access-requests/1/messages", {"body": "hello"})
    assert len(script.asked) == 1


@pytest.mark.parametrize("wait", ["3600", "Wed, 21 Oct 2099 07:28:00 GMT"])
def test_nobody_waits_longer_than_is_bearable(service: Service, script: Script, wait: str) -> None:
    script.answers = [(503, BUSY[1], {"Retry-After": wait})]
    assert str(refused(service)) == "record_unavailable: The database is away. Try again later."


@pytest.mark.parametrize(
    "wait", ["soon", "-1", "nan", "Wed, 21 Oct 2015 07:28:00 GMT", "Mon, 01 Jan 99999999999 00:00:00 GMT"]
)
def test_a_strange_retry_after_is_survived(service: Service, script: Script, wait: str) -> None:
    script.answers = [(503, BUSY[1], {"Retry-After": wait}), (200, {}, {})]
    assert service.get("/users/me") == {}


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        ((200, {}, {"Content-Type": "text/html"}), Unavailable, "does not answer like JustIAM"),
        ((404, {}, {"Content-Type": "text/html"}), Unavailable, "answered 404, and not like JustIAM"),
        ((301, {}, {"Location": "https://elsewhere"}), Unavailable, "sends us on to https://elsewhere"),
        ((500, {"code": "internal_error", "detail": "It was logged."}, {}), Unavailable, "internal_error: It was"),
        (
            (401, {"code": "unauthenticated", "detail": "Unknown."}, {}),
            NotSignedIn,
            "Get a new one with `justiam login`",
        ),
        ((403, {"code": "forbidden", "detail": "No."}, {}), Refused, "forbidden: No."),
        ((403, {"detail": "No code."}, {}), Unavailable, "answered 403, and not like JustIAM"),
    ],
)
def test_each_answer_has_its_words(
    service: Service, script: Script, answer: Answer, kind: type[CommandError], words: str
) -> None:
    script.answers = [answer]
    error = refused(service)
    assert isinstance(error, kind)
    assert words in str(error)


def test_a_service_that_is_away_is_named_at_once() -> None:
    with Service(Credentials(f"http://127.0.0.1:{free_port()}", TOKEN, "a test")) as service:
        assert "Connection refused; is the service running?" in str(refused(service))


@pytest.fixture
def impostor(tmp_path: Path) -> Iterator[str]:
    """A server whose certificate nobody vouches for."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file = tmp_path / "impostor.pem"
    file.write_bytes(private + certificate.public_bytes(Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)

    def serve() -> None:
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError), context.wrap_socket(connection, server_side=True) as secured:
            received.append(secured.recv(1))

    received: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"https://localhost:{listener.getsockname()[1]}"
        thread.join()
    assert not received, "it was sent something"


def test_a_service_that_cannot_prove_who_it_is_gets_no_token(impostor: str) -> None:
    with Service(Credentials(impostor, TOKEN, "a test")) as service:
        message = str(refused(service))
    assert f"The certificate of {impostor} cannot be trusted: self-signed certificate" in message
    assert "SSL_CERT_FILE" in message


def test_a_service_that_does_not_answer_is_not_waited_for() -> None:
    # The system takes the connection; nobody ever reads from it.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        credentials = Credentials(f"http://127.0.0.1:{silent.getsockname()[1]}", TOKEN, "a test")
        with Service(credentials, timeout=httpx.Timeout(0.2)) as service:
            assert "did not answer in time" in str(refused(service))


def test_a_list_is_gathered_up_to_its_limit_with_the_cursor_behind_the_last(script: Script, service: Service) -> None:
    script.answers = [
        (200, {"items": [1, 2, 3, 4], "next_cursor": "after 4"}, {}),
        (200, {"items": [5, 6, 7, 8], "next_cursor": None}, {}),
        (200, {"items": [5, 6], "next_cursor": "after 6"}, {}),
    ]
    page: Page[int] = service.gather("/things", 3, lambda item: item % 2 == 0)
    assert page == {"items": [2, 4, 6], "next_cursor": "after 6"}
    assert [path for _, path, _ in script.asked] == [
        "/api/v1/things?limit=200",
        "/api/v1/things?limit=200&cursor=after+4",
        "/api/v1/things?limit=2&cursor=after+4",
    ]
