"""What a browser keeps for us: signed, out of reach of scripts, and not sent along by other sites' forms."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from itsdangerous import BadSignature, Signer, URLSafeTimedSerializer
from starlette.responses import Response

from settings import Settings

_SESSION: Final = "justiam_session"
_FLASH: Final = "justiam_flash"
_FLASH_SECS: Final = 60


class Cookies:
    """Writes and reads the cookies of the pages."""

    def __init__(self, settings: Settings) -> None:
        key = settings.secret_key.get_secret_value()
        self._sessions = Signer(key, salt="web session", digest_method=hashlib.sha256)
        self._forms = Signer(key, salt="web form", digest_method=hashlib.sha256)
        self._notes = URLSafeTimedSerializer(key)
        self._secure = urlsplit(settings.token_issuer).scheme == "https"
        # A browser takes a cookie with this prefix from a secure page of this very host alone, never of a sibling.
        self._prefix = "__Host-" if self._secure else ""

    def session(self, sent: Mapping[str, str]) -> str | None:
        """The session's token; None where there is none that was signed here. Costs no look into the record."""
        value = sent.get(self._prefix + _SESSION)
        if value is None:
            return None
        try:
            return self._sessions.unsign(value).decode()
        except (BadSignature, UnicodeError):
            return None

    def start_session(self, response: Response, token: str, seconds: int) -> None:
        """Have the browser keep the session's token."""
        self._set(response, _SESSION, self._sessions.sign(token).decode(), seconds)

    def end_session(self, response: Response) -> None:
        """Have the browser forget the session."""
        self._delete(response, _SESSION)

    def form_token(self, session: str) -> str:
        """What every form of this session carries, and no other site can know."""
        return self._forms.get_signature(session).decode()

    def is_form_token(self, session: str, token: str) -> bool:
        """Whether a form was made for this session."""
        return self._forms.verify_signature(session.encode(), token)

    def leave_note(self, response: Response, name: str, content: Any, seconds: int) -> None:  # noqa: ANN401 - any JSON
        """Have the browser keep something for the next page. Signed, not secret."""
        # Salted with its name: what was left under one counts under no other.
        self._set(response, name, str(self._notes.dumps(content, salt=_salt(name))), seconds)

    def note(self, sent: Mapping[str, str], name: str, seconds: int) -> Any:  # noqa: ANN401 - any JSON
        """What was left under this name, None where nothing was, or too long ago."""
        value = sent.get(self._prefix + name)
        if value is None:
            return None
        try:
            return self._notes.loads(value, max_age=seconds, salt=_salt(name))
        except (BadSignature, json.JSONDecodeError, UnicodeError):
            return None

    def drop_note(self, response: Response, name: str) -> None:
        """Have the browser forget it."""
        self._delete(response, name)

    def flash(self, response: Response, text: str, kind: str = "done") -> Response:
        """Say something on the next page, once.

        Args:
            response: leads to that page.
            text: what to say.
            kind: `done`, or `problem`.
        """
        self.leave_note(response, _FLASH, [kind, text[:2000]], _FLASH_SECS)
        return response

    def flashed(self, sent: Mapping[str, str]) -> tuple[str, str] | None:
        """Kind and text of what is to be said."""
        left = self.note(sent, _FLASH, _FLASH_SECS)
        return (left[0], left[1]) if left else None

    def forget_flash(self, response: Response) -> None:
        """It was said."""
        self._delete(response, _FLASH)

    def _set(self, response: Response, name: str, value: str, seconds: int) -> None:
        response.set_cookie(
            self._prefix + name,
            value,
            max_age=seconds,
            path="/",
            secure=self._secure,
            httponly=True,
            # Not `strict`: a link in a mail or a chat has to find people signed in.
            samesite="lax",
        )

    def _delete(self, response: Response, name: str) -> None:
        response.delete_cookie(self._prefix + name, path="/", secure=self._secure, httponly=True, samesite="lax")


def _salt(name: str) -> str:
    return f"web note {name}"
