"""An issuer that the test plays: it publishes what it is told to, and signs whatever it likes."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from tests.tokens.shop import signed

AUDIENCE: Final = "justiam"
DISCOVERY: Final = "/.well-known/openid-configuration"
KEYS: Final = "/keys"

# Made once: RSA keys take their time.
_KEY: Final = ec.generate_private_key(ec.SECP256R1())
_RSA_KEY: Final = rsa.generate_private_key(public_exponent=65537, key_size=2048)


class Issuer:
    """Its documents are attributes to be changed."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.key = _KEY
        self.rsa = _RSA_KEY
        self.documents: dict[str, Any] = {
            DISCOVERY: {"issuer": self.url, "jwks_uri": self.url + KEYS},
            KEYS: {"keys": [self.public("one"), self.public_rsa("two")]},
        }
        self.asked: list[str] = []
        self.down = False
        self.answers_after_secs = 0.0

    def public(self, kid: str | None, key: ec.EllipticCurvePrivateKey | None = None, **more: Any) -> dict[str, Any]:
        jwk: dict[str, Any] = json.loads(ECAlgorithm.to_jwk((key or self.key).public_key()))
        return {**jwk, **({} if kid is None else {"kid": kid}), **more}

    def public_rsa(self, kid: str, **more: Any) -> dict[str, Any]:
        jwk: dict[str, Any] = json.loads(RSAAlgorithm.to_jwk(self.rsa.public_key()))
        jwk.pop("key_ops", None)
        return {**jwk, "kid": kid, **more}

    @property
    def public_pem(self) -> bytes:
        return self.rsa.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def claims(self, **changed: Any) -> dict[str, Any]:
        """Those of a good token, but for what is changed; `...` leaves one out, a timedelta is a time from now."""
        now = int(time.time())
        claims = {"iss": self.url, "sub": "dana-1", "aud": AUDIENCE, "iat": now, "exp": now + 300, **changed}
        return {
            name: now + int(value.total_seconds()) if isinstance(value, timedelta) else value
            for name, value in claims.items()
            if value is not ...
        }

    def token(self, header: dict[str, Any] | None = None, /, **changed: Any) -> str:
        header = {"kid": "one", "typ": "JWT", **(header or {})}
        header = {name: value for name, value in header.items() if value is not ...}
        return signed(self.key, header, self.claims(**changed))

    def answer(self, path: str) -> tuple[int, bytes]:
        self.asked.append(path)
        time.sleep(self.answers_after_secs)
        document = self.documents.get(path)
        if self.down or document is None:
            return 503, b""
        return 200, document if isinstance(document, bytes) else json.dumps(document).encode()


class QuietServer(ThreadingHTTPServer):
    """Clients that hang up are what some tests are about; a traceback of that would stand in the output of others."""

    def handle_error(self, *_: Any) -> None:
        """Nothing."""


@contextmanager
def serve_issuer() -> Iterator[Issuer]:
    issuer: Issuer

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = issuer.answer(self.path)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    with QuietServer(("127.0.0.1", 0), Handler) as server:
        issuer = Issuer(server.server_address[1])
        # Looks often whether it is to stop, so that no test waits for it.
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield issuer
        finally:
            server.shutdown()
            thread.join()
