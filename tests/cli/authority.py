"""An issuer that the test plays, at which people sign in: who comes is let in at once, as whom the test says."""

from __future__ import annotations

import hashlib
import json
import threading
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit
from uuid import uuid4

from tests.tokens.issuer import AUDIENCE, DISCOVERY, Issuer, QuietServer

Fields = dict[str, str]


class Authority(Issuer):
    """What it answers can be changed; what it was sent is kept."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self._published = self.documents
        self.reset()

    def reset(self) -> None:
        """Begin again, as somebody new."""
        self.documents = dict(self._published)
        self.documents[DISCOVERY] = self.documents[DISCOVERY] | {
            "authorization_endpoint": f"{self.url}/authorize?tenant=1",
            "token_endpoint": f"{self.url}/token",
            "revocation_endpoint": f"{self.url}/revoke",
            "scopes_supported": ["openid", "email", "offline_access"],
        }
        self.down = False
        self.subject = uuid4().hex
        self.sent_back: dict[str, Any] = {}
        """What the browser is sent back with, where it differs; `...` leaves a parameter out."""
        self.given: dict[str, Any] = {}
        """What comes with the tokens, where it differs."""
        self.id_claims: dict[str, Any] = {}
        self.authorized: list[Fields] = []
        self.redeemed: list[Fields] = []
        self.revoked: list[Fields] = []
        self.valid: set[str] = set()
        """The refresh tokens that count; each works once."""
        self._codes: dict[str, Fields] = {}

    def authorize(self, asked: Fields) -> str:
        """Where the browser is sent."""
        self.authorized.append(asked)
        code = uuid4().hex
        self._codes[code] = asked
        answer = {"code": code, "state": asked["state"], **self.sent_back}
        return asked["redirect_uri"] + "?" + urlencode({name: each for name, each in answer.items() if each is not ...})

    def redeem(self, sent: Fields) -> tuple[int, Any]:
        self.redeemed.append(sent)
        if sent["grant_type"] == "refresh_token":
            if sent["refresh_token"] not in self.valid:
                # It was used before: whoever has it, all that came of it is void.
                self.valid.clear()
                return 400, {"error": "invalid_grant"}
            self.valid.remove(sent["refresh_token"])
            return 200, self._tokens(sent["client_id"])
        asked = self._codes.pop(sent["code"], None)
        digest = hashlib.sha256(sent.get("code_verifier", "").encode()).digest()
        if (
            asked is None
            or any(sent[name] != asked[name] for name in ("redirect_uri", "client_id"))
            or asked["code_challenge"] != urlsafe_b64encode(digest).rstrip(b"=").decode()
        ):
            return 400, {"error": "invalid_grant"}
        return 200, self._tokens(sent["client_id"], nonce=asked["nonce"])

    def _tokens(self, client_id: str, **claims: Any) -> dict[str, Any]:
        refresh_token = f"refresh-{uuid4().hex}"
        self.valid.add(refresh_token)
        claims |= {"sub": self.subject, "jti": uuid4().hex}
        answer = {
            "token_type": "Bearer",
            "expires_in": 300,
            "access_token": self.token(**{**claims, "aud": AUDIENCE, "nonce": ...}),
            "id_token": self.token(**{**claims, "aud": client_id, **self.id_claims}),
            "refresh_token": refresh_token,
            **self.given,
        }
        return {name: value for name, value in answer.items() if value is not ...}


@contextmanager
def serve_authority() -> Iterator[Authority]:
    authority: Authority

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            if parts.path == "/authorize":
                self._answer(302, b"", Location=authority.authorize(dict(parse_qsl(parts.query))))
            else:
                self._answer(*authority.answer(self.path))

        def do_POST(self) -> None:
            sent = dict(parse_qsl(self.rfile.read(int(self.headers["Content-Length"])).decode()))
            if self.path == "/revoke":
                authority.revoked.append(sent)
                self._answer(200, b"")
            else:
                status, content = authority.redeem(sent)
                self._answer(status, json.dumps(content).encode())

        def _answer(self, status: int, body: bytes, **headers: str) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    with QuietServer(("127.0.0.1", 0), Handler) as server:
        authority = Authority(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield authority
        finally:
            server.shutdown()
            thread.join()
