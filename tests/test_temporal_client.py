"""How the programs reach Temporal: over TLS, with what it asks to be shown."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from pydantic import ValidationError

import temporal_client
from settings import ScriptWorkerSettings
from tests.servers import TestingTemporal


class Authority:
    """Issues certificates, as files."""

    def __init__(self, directory: Path, name: str) -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        self.file = directory / f"{name}.pem"
        self.file.write_bytes(self._sign(self._name, self._key, is_authority=True).public_bytes(Encoding.PEM))

    def issue(self, name: str) -> tuple[Path, Path]:
        """A certificate for 127.0.0.1, and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        certificate, key_file = self._directory / f"{name}.crt", self._directory / f"{name}.key"
        certificate.write_bytes(self._sign(subject, key, is_authority=False).public_bytes(Encoding.PEM))
        key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return certificate, key_file

    def _sign(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, is_authority: bool) -> x509.Certificate:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
            .sign(self._key, hashes.SHA256())
        )


@asynccontextmanager
async def tls_before(address: str, certificate: tuple[Path, Path], clients_of: Path | None) -> AsyncIterator[str]:
    """An address that speaks TLS, asks clients for a certificate where told to, and passes all on to `address`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    context.set_alpn_protocols(["h2"])
    if clients_of is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(clients_of)
    host, port = address.split(":")

    async def pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65_536):
                target.write(data)
                await target.drain()
        target.close()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(host, port)
        await asyncio.gather(pump(reader, back), pump(there, writer))

    server = await asyncio.start_server(relay, "127.0.0.1", 0, ssl=context)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def reaches(**settings: object) -> bool:
    client = await temporal_client.connect(ScriptWorkerSettings.model_validate(settings))
    return await client.service_client.check_health()


async def test_a_certificate_is_shown_and_the_server_is_held_to_its_authority(
    temporal: TestingTemporal, tmp_path: Path
) -> None:
    ours, others = Authority(tmp_path, "ours"), Authority(tmp_path, "others")
    server, (certificate, key) = ours.issue("server"), ours.issue("client")
    shown = {"temporal_tls_certificate": certificate, "temporal_tls_key": key}
    async with tls_before(temporal.address, server, ours.file) as address:
        assert await reaches(temporal_address=address, temporal_tls_ca=ours.file, **shown)
        with pytest.raises(RuntimeError):
            await reaches(temporal_address=address, temporal_tls_ca=others.file, **shown)
        with pytest.raises(RuntimeError):
            await reaches(temporal_address=address, temporal_tls_ca=ours.file)
        with pytest.raises(RuntimeError):
            await reaches(temporal_address=address)


async def test_an_api_key_goes_over_tls_only(temporal: TestingTemporal, tmp_path: Path) -> None:
    ours = Authority(tmp_path, "ours")
    async with tls_before(temporal.address, ours.issue("server"), None) as address:
        assert await reaches(temporal_address=address, temporal_tls_ca=ours.file, temporal_api_key="hush-hush")
    with pytest.raises(RuntimeError):
        await reaches(temporal_address=temporal.address, temporal_api_key="hush-hush")


def test_a_certificate_needs_its_key() -> None:
    with pytest.raises(ValidationError, match="set together"):
        ScriptWorkerSettings.model_validate({"temporal_tls_certificate": "/a"})
