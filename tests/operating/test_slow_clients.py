"""`justiam api` under clients that say nothing, or say it slowly: they are let go, and everybody else is served."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import httpx
import pytest

from tests.conftest import Databases
from tests.programs import Program, Programs

SILENT: Final = 500
PATIENCE_SECS: Final = 90.0
HEAD: Final = b"GET /healthz HTTP/1.1\r\nHost: here\r\nX-Slow: "
BODIES: Final = {
    "of the API": b"POST /api/v1/access-requests HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\n",
    "of a token endpoint": b"POST /oauth2/token HTTP/1.1\r\nHost: here\r\n"
    b"Content-Type: application/x-www-form-urlencoded\r\n",
}


@pytest.fixture
def api(new_database: Databases, tmp_path: Path) -> Iterator[Program]:
    # Without Temporal: it is not asked for anything.
    with new_database() as url, Programs(tmp_path, url, "127.0.0.1:1") as programs:
        program = programs.start("api")
        while not program.process.poll():
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{program.url}/healthz", trust_env=False).is_success:
                    break
            time.sleep(0.1)
        yield program


def connected(api: Program, said: bytes = b"") -> socket.socket:
    url = httpx.URL(api.url)
    connection = socket.create_connection((url.host, url.port or 0))
    connection.sendall(said)
    return connection


def test_they_are_let_go_and_everybody_else_is_served(api: Program) -> None:
    with contextlib.ExitStack() as held, httpx.Client(base_url=api.url, trust_env=False, timeout=20) as another:
        for _ in range(SILENT):
            held.enter_context(connected(api))
        slow = {"a head": held.enter_context(connected(api, HEAD))}
        for name, head in BODIES.items():
            slow[name] = held.enter_context(connected(api, head + b"Content-Length: 100000\r\n\r\n"))
        early = "a body that is answered before its end"
        slow[early] = held.enter_context(
            connected(api, b"POST /nowhere HTTP/1.1\r\nHost: here\r\nContent-Length: 100000\r\n\r\n")
        )
        endless = held.enter_context(connected(api, HEAD))
        with pytest.raises(OSError, match=r"reset|pipe"):  # noqa: PT012 - whichever of them
            for _ in range(1_000):
                endless.sendall(b"a" * 65_536)
        answers = dict.fromkeys(slow, b"")
        ended: set[str] = set()
        since = time.monotonic()
        while len(ended) < len(slow):
            assert time.monotonic() - since < PATIENCE_SECS, f"still waited for: {slow.keys() - ended}"
            assert another.get("/healthz").status_code == 200
            assert another.get("/api/v1/users/me").status_code == 401
            for name in slow.keys() - ended:
                slow[name].settimeout(0.1)
                try:
                    slow[name].sendall(b"a")
                    heard = slow[name].recv(4_096)
                    answers[name] += heard
                    if not heard:
                        ended.add(name)
                except TimeoutError:
                    pass
                except OSError:
                    ended.add(name)
            time.sleep(0.5)
        for name, answer in answers.items():
            assert answer.startswith(b"HTTP/1.1 404 " if name == early else b"HTTP/1.1 408 "), (name, answer)
            assert answer.count(b"HTTP/1.1") == 1
        assert another.get("/healthz").status_code == 200
    assert api.stop() == 0
    # Nothing of it is the service's failure.
    assert {line["level"] for line in api.logged()} <= {"info", "warning"}, api.log.read_text()
    refused = [line for line in api.logged() if line["event"] == "connection_refused"]
    assert sorted(line["status"] for line in refused) == [408] * len(slow) + [431]
    assert all(line["status"] < 500 for line in api.logged() if line["event"] == "call")
