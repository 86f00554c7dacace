"""Nobody who manages integrations reaches what is inside: server-side request forgery, in all its spellings."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpcore
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID

from deliveries import posting
from deliveries.addresses import Address, Refused, check_address, place_of
from domain.deliveries import Attempt, Outbound
from tests.deliveries.receiver import Receiver, receiving, response

NOBODY = Outbound(timeout_secs=5)
INTERNAL = [
    "127.0.0.1",
    "127.8.8.8",
    "0.0.0.0",  # noqa: S104 - an attack, not an address to listen on
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "100.100.100.200",
    "168.63.129.16",
    "169.254.169.254",
    "172.16.0.1",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:0:127.0.0.1",
    "64:ff9b::127.0.0.1",
    "64:ff9b::169.254.169.254",
    "64:ff9b:1::8.8.8.8",
    "100::1",
    "2001::1",
    "2001:0:7f00:1::",
    "2001:db8::1",
    "2002:7f00:1::",
    "3fff::1",
    "2002:a9fe:a9fe::",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fec0::1",
    "ff02::1",
]
PUBLIC = ["8.8.8.8", "93.184.216.34", "2606:4700:4700::1111", "64:ff9b::8.8.8.8", "::ffff:8.8.8.8"]


def answers(*rounds: list[str]) -> posting.Resolve:
    """A resolver that answers differently each time; the last answer stays."""
    left = list(rounds)

    async def resolve(_: str, __: int) -> list[Address]:
        addresses = left.pop(0) if len(left) > 1 else left[0]
        return [ip_address(address) for address in addresses]

    return resolve


async def post(url: str, policy: Outbound = NOBODY, resolve: posting.Resolve = posting.resolve) -> Attempt:
    return await posting.post(url, b"{}", {}, policy, resolve_host=resolve)


class TestAddresses:
    @pytest.mark.parametrize("address", INTERNAL)
    def test_inside_are_refused(self, address: str) -> None:
        with pytest.raises(Refused, match="JUSTIAM_ALLOWED_INTERNAL_HOSTS"):
            check_address(ip_address(address))

    @pytest.mark.parametrize("address", PUBLIC)
    def test_of_the_public_internet_are_not(self, address: str) -> None:
        check_address(ip_address(address))

    @pytest.mark.parametrize("address", INTERNAL)
    async def test_inside_are_not_connected_to_whatever_their_name(
        self, address: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        connected = _forbid_connections(monkeypatch)
        attempt = await post("https://hooks.example.com/", resolve=answers([address]))
        assert (attempt.delivered, attempt.retryable, connected) == (False, False, [])
        assert "not on the public internet" in (attempt.error or "")

    async def test_inside_among_public_ones_are_reason_enough(self, monkeypatch: pytest.MonkeyPatch) -> None:
        connected = _forbid_connections(monkeypatch)
        attempt = await post("https://hooks.example.com/", resolve=answers(["8.8.8.8", "127.0.0.1"]))
        assert (attempt.delivered, attempt.retryable, connected) == (False, False, [])


class TestUrls:
    @pytest.mark.parametrize(
        "url",
        [
            "https://127.0.0.1/",
            "https://127.1/",
            "https://2130706433/",
            "https://0x7f000001/",
            "https://0x7f.1/",
            "https://0177.0.0.1/",
            "https://017700000001/",
            "https://0/",
            "https://[::1]/",
            "https://[::ffff:127.0.0.1]/",
            "https://[::ffff:7f00:1]/",
            "https://[0:0:0:0:0:0:0:1]/",
            "https://localhost/",
            "https://LOCALHOST./",
            "https://①②⑦.⓪.⓪.①/",
            "https://127。0。0。1/",
            "https://example.com@127.0.0.1/",
            "https://127.0.0.1:443@example.com/",
            "https://user:password@example.com/",
            "https://example.com\\@127.0.0.1/",
            "https://example.com%00.evil.test/",
            "https://exa mple.com/",
            "https://[fe80::1%25lo]/",
            "https://[::1",
            "https:///hooks",
            "https://",
            "//127.0.0.1/",
            "127.0.0.1",
            "",
            "http://example.com/",
            "ftp://example.com/",
            "file:///etc/passwd",
            "gopher://127.0.0.1:6379/_FLUSHALL",
            "unix:///var/run/docker.sock",
            "https://example.com/#fragment",
            "https://example.com:0/",
            "https://example.com:99999/",
            "https://" + "a" * 64 + ".example.com/",
            "https://example.com/\r\nHost: 127.0.0.1",
        ],
    )
    async def test_that_lead_inside_or_nowhere_are_refused(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        connected = _forbid_connections(monkeypatch)
        attempt = await post(url, resolve=_numbers_only)
        assert (attempt.delivered, attempt.response_status, connected) == (False, None, [])
        assert attempt.error is not None

    @pytest.mark.parametrize(
        ("url", "allowed"),
        [
            ("http://hooks.corp.example/x", True),
            ("http://HOOKS.corp.example:80/x", True),
            ("http://hooks.corp.example:8080/x", True),
            ("https://10.0.0.7:8443/x", True),
            ("https://10.0.0.7/x", False),
            ("https://[fd00::7]:8080/x", True),
            ("https://other.corp.example/x", False),
            ("https://a.hooks.corp.example/x", False),
            ("https://hooks.corp.example.evil.test/x", False),
        ],
    )
    def test_of_allowed_hosts_are_allowed_as_they_are_written(self, url: str, allowed: bool) -> None:
        hosts = frozenset({"hooks.corp.example", "10.0.0.7:8443", "[fd00::7]:8080"})
        if url.startswith("https://10.0.0.7/"):
            with pytest.raises(Refused):
                place_of(url, hosts)
        else:
            assert place_of(url, hosts).allowed is allowed


class TestRebinding:
    async def test_changes_nothing_once_an_address_was_judged(self, monkeypatch: pytest.MonkeyPatch) -> None:
        connected = _forbid_connections(monkeypatch)
        attempt = await post("https://rebind.example.com/", resolve=answers(["93.184.216.34"], ["127.0.0.1"]))
        assert connected == ["93.184.216.34"]
        assert (attempt.delivered, attempt.retryable) == (False, True)

    async def test_is_judged_anew_in_each_attempt(self, monkeypatch: pytest.MonkeyPatch) -> None:
        connected = _forbid_connections(monkeypatch)
        resolve = answers(["93.184.216.34"], ["127.0.0.1"])
        await post("https://rebind.example.com/", resolve=resolve)
        attempt = await post("https://rebind.example.com/", resolve=resolve)
        assert (connected, attempt.retryable) == (["93.184.216.34"], False)

    async def test_of_the_systems_resolver_is_seen(self, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
        """The whole way, with the name resolved as it is in production."""

        def resolve(*_: Any, **__: Any) -> list[Any]:
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", receiver.port))]

        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        attempt = await post(f"https://inside.example.com:{receiver.port}/")
        assert (attempt.delivered, attempt.retryable, receiver.connections) == (False, False, 0)


class TestRedirects:
    async def test_are_not_followed(self, receiver: Receiver, policy: Outbound) -> None:
        async with receiving() as inside:
            receiver.answer = response(302, b"", f"Location: http://127.0.0.1:{inside.port}/latest/meta-data/")
            attempt = await post(receiver.url, policy)
            assert (attempt.delivered, attempt.response_status, attempt.retryable) == (False, 302, False)
            assert (len(receiver.received), inside.connections) == (1, 0)


class TestProxies:
    @pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"])
    async def test_of_the_environment_are_not_asked(
        self, receiver: Receiver, policy: Outbound, monkeypatch: pytest.MonkeyPatch, variable: str
    ) -> None:
        async with receiving() as proxy:
            monkeypatch.setenv(variable, f"http://127.0.0.1:{proxy.port}")
            attempt = await post(receiver.url, policy)
            assert (attempt.delivered, proxy.connections) == (True, 0)


class TestFailures:
    async def test_to_resolve_a_name_are_repeated(self) -> None:
        async def resolve(_: str, __: int) -> list[Address]:
            raise socket.gaierror(socket.EAI_AGAIN, "try again")

        attempt = await post("https://hooks.example.com/", resolve=resolve)
        assert (attempt.retryable, attempt.error) == (True, "Its name could not be resolved.")

    async def test_to_connect_are_repeated(self) -> None:
        async with receiving() as gone:
            authority = gone.authority
        allowed = Outbound(allowed_internal_hosts=frozenset({authority}), timeout_secs=5)
        attempt = await post(f"http://{authority}/", allowed)
        assert (attempt.retryable, attempt.error) == (True, "It could not be connected to.")

    async def test_to_connect_leave_the_other_addresses(self, receiver: Receiver) -> None:
        allowed = Outbound(allowed_internal_hosts=frozenset({"hooks.corp.example"}), timeout_secs=5)
        url = f"http://hooks.corp.example:{receiver.port}/"
        attempt = await post(url, allowed, answers(["::1", "127.0.0.1"]))
        assert attempt.delivered
        assert receiver.received[0].headers["host"] == f"hooks.corp.example:{receiver.port}"


class TestTls:
    async def test_is_with_the_host_of_the_url_at_the_address_that_was_judged(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        server, trust = _certificate(tmp_path, "hooks.corp.example")
        monkeypatch.setattr(posting, "_tls", trust)
        async with receiving(server) as receiver:
            allowed = Outbound(
                allowed_internal_hosts=frozenset({"hooks.corp.example", "other.corp.example"}), timeout_secs=5
            )
            right = await post(f"https://hooks.corp.example:{receiver.port}/", allowed, answers(["127.0.0.1"]))
            wrong = await post(f"https://other.corp.example:{receiver.port}/", allowed, answers(["127.0.0.1"]))
        assert right.delivered
        assert (wrong.delivered, wrong.retryable) == (False, True)
        assert "certificate" in (wrong.error or "")


async def _numbers_only(host: str, port: int) -> list[Address]:
    """What the system makes of a number, in all its spellings; every name is somebody's on the public internet."""
    if host[:1].isdigit() or ":" in host or host.rstrip(".") == "localhost":
        return await posting.resolve(host, port)
    return [ip_address("93.184.216.34")]


def _forbid_connections(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is connected to; nothing is."""
    connected: list[str] = []

    async def connect_tcp(_: Any, host: str, *__: Any) -> Any:
        connected.append(host)
        raise httpcore.ConnectError("not in a test")

    monkeypatch.setattr(httpcore.AnyIOBackend, "connect_tcp", connect_tcp)
    return connected


def _certificate(folder: Path, host: str) -> tuple[ssl.SSLContext, Callable[[], ssl.SSLContext]]:
    """A server that shows a certificate for `host`, and a client that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, SHA256())
    )
    path = folder / "server.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(path)
    trust = ssl.create_default_context(cadata=certificate.public_bytes(serialization.Encoding.PEM).decode())
    return server, lambda: trust
