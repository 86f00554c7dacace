"""Where the browser of somebody who signs in comes back to: one address on this machine, good for one answer.

RFC 8252, section 7.3. Everything that reaches the address is hostile until its `state` is the one that was sent: any
page in the browser, and any program of this machine, can call it. Nothing that comes in is shown in the browser.
"""

from __future__ import annotations

import hmac
import queue
import socketserver
import threading
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Self
from urllib.parse import parse_qs

from cli.people.errors import Misused, NotSignedIn

_HOST: Final = "127.0.0.1"
_PATH: Final = "/callback"
_POLL_SECS: Final = 0.05
"""How soon the server notices that it is to stop: nobody should wait for it once they are signed in."""
_MOST_PARAMETERS: Final = 50
_ONCE: Final = ("state", "code", "error", "error_description", "iss")
"""RFC 6749, section 3.1: a parameter comes once. Of two, another reader could take the other."""

_PAGE: Final = """\
<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>JustIAM</title>
<style>
:root {{ color-scheme: light dark }}
body {{ font: 1.1rem/1.5 system-ui, sans-serif; max-width: 32rem; margin: 20vh auto 0; padding: 0 1.5rem }}
</style></head>
<body><h1>{heading}</h1><p>{text}</p></body></html>
"""
_HEADERS: Final = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    # The address of the page holds the code.
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True)
class Answer:
    """What the issuer sent the browser back with; either `code` or `error` is there."""

    code: str | None
    error: str | None
    description: str
    issuer: str | None
    """RFC 9207: who answers, where the issuer says so."""


class Callback:
    """The address, from `with` on."""

    def __init__(self, state: str, *, port: int = 0) -> None:
        """Listen; nothing is answered before `with`.

        Args:
            state: what the answer has to repeat.
            port: 0 for any that is free.

        Raises:
            Misused: the port cannot be had.
        """
        try:
            self._server = _Server((_HOST, port), _Handler)
        except OSError as error:
            raise Misused(f"Cannot listen on port {port}: {error.strerror}. Choose another with --port.") from None
        self._server.state = state
        self._thread = threading.Thread(target=self._server.serve_forever, args=(_POLL_SECS,), daemon=True)

    @property
    def url(self) -> str:
        """The `redirect_uri`."""
        return f"http://{_HOST}:{self._server.server_address[1]}{_PATH}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def wait(self, patience_secs: float) -> Answer:
        """The answer.

        Raises:
            NotSignedIn: none came in time, or one that does not belong to this sign-in.
        """
        try:
            answer = self._server.answers.get(timeout=patience_secs)
        except queue.Empty:
            raise NotSignedIn(
                f"Nobody signed in within {patience_secs / 60:g} minutes. To try again, run: justiam login"
            ) from None
        if answer is None:
            raise NotSignedIn(
                "The browser came back with an answer to another sign-in, so it was refused. "
                "Close the old tabs, and run: justiam login"
            )
        return answer


class _Server(ThreadingHTTPServer):
    # Threads, because browsers open connections ahead and leave them idle.

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self.state = ""
        self.answers: queue.SimpleQueue[Answer | None] = queue.SimpleQueue()
        self._taken = threading.Lock()
        super().__init__(address, handler)

    def server_bind(self) -> None:
        # HTTPServer's own asks the name service who we are, which can take seconds.
        socketserver.TCPServer.server_bind(self)

    def take(self) -> bool:
        """Whether this is the first answer."""
        return self._taken.acquire(blocking=False)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - as socketserver declares them
        """Say nothing: a browser that went away is no concern of the person at the terminal."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    server_version = "justiam"
    sys_version = ""
    timeout = 10

    def do_GET(self) -> None:
        """Take the answer, once."""
        # Another Host is another site's name for this machine (DNS rebinding).
        port = self.server.server_address[1]
        path, _, query = self.path.partition("?")
        if path != _PATH or self.headers.get_all("Host") != [f"{_HOST}:{port}"]:
            self.send_error(HTTPStatus.NOT_FOUND)
        elif not self.server.take():
            self.send_error(HTTPStatus.GONE)
        else:
            answer = _read(query, self.server.state)
            if answer is None:
                self.send_error(HTTPStatus.BAD_REQUEST)
            elif answer.error is not None:
                self._show(HTTPStatus.OK, "You are not signed in", "The terminal tells why. You can close this tab.")
            else:
                self._show(HTTPStatus.OK, "Thank you", "You can close this tab, and go on in the terminal.")
            # After the page, which would be lost with the process.
            self.server.answers.put(answer)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Refuse, without a word of what came in."""
        del message, explain
        status = HTTPStatus.METHOD_NOT_ALLOWED if code == HTTPStatus.NOT_IMPLEMENTED else HTTPStatus(code)
        self._show(status, status.phrase, "To sign in, run <code>justiam login</code> in a terminal.")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002, ANN401 - as BaseHTTPRequestHandler declares it
        """Nothing: the address holds the code."""

    def _show(self, status: HTTPStatus, heading: str, text: str) -> None:
        body = _PAGE.format(heading=heading, text=text).encode()
        self.send_response(status)
        for name, value in {**_HEADERS, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def _read(query: str, state: str) -> Answer | None:
    """The answer in a query; None where it is not one to the question with this `state`."""
    try:
        given = parse_qs(query, keep_blank_values=True, max_num_fields=_MOST_PARAMETERS, errors="strict")
    except ValueError:
        return None
    if any(len(given.get(name, [])) > 1 for name in _ONCE):
        return None
    values = {name: given[name][0] for name in _ONCE if name in given}
    code, error = values.get("code"), values.get("error")
    if not hmac.compare_digest(values.get("state", "").encode(), state.encode()) or bool(code) == bool(error):
        return None
    return Answer(code or None, error or None, values.get("error_description", ""), values.get("iss"))
