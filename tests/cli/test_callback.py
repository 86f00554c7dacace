"""The address that a browser comes back to: what it takes, once, and what it does not."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import httpx
import pytest

from cli.people.callback import Answer, Callback
from cli.people.errors import Misused, NotSignedIn
from tests.cli.conftest import PATIENCE_SECS

STATE = "the-state-of-this-sign-in"


@pytest.fixture
def callback() -> Iterator[Callback]:
    with Callback(STATE) as callback:
        yield callback


@pytest.fixture
def browser() -> Iterator[httpx.Client]:
    with httpx.Client(trust_env=False) as browser:
        yield browser


def test_an_answer_is_taken_and_the_person_sent_on(callback: Callback, browser: httpx.Client) -> None:
    assert callback.url.startswith("http://127.0.0.1:")
    page = browser.get(callback.url, params={"state": STATE, "code": "c0de", "iss": "https://login.example.com"})
    assert (page.status_code, "go on in the terminal" in page.text) == (200, True)
    assert callback.wait(PATIENCE_SECS) == Answer("c0de", None, "", "https://login.example.com")
    assert "c0de" not in page.text
    assert page.headers["referrer-policy"] == "no-referrer"
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
    assert "Python" not in page.headers["server"]


@pytest.mark.parametrize("second", [{"state": STATE, "code": "of-another"}, {"state": STATE, "error": "x"}, {}])
def test_a_second_answer_is_refused(callback: Callback, browser: httpx.Client, second: dict[str, str]) -> None:
    browser.get(callback.url, params={"state": STATE, "code": "first"})
    assert browser.get(callback.url, params=second).status_code == 410
    assert callback.wait(PATIENCE_SECS).code == "first"
    with pytest.raises(NotSignedIn):
        callback.wait(0)


def test_of_many_at_once_one_is_taken(callback: Callback) -> None:
    statuses: list[int] = []
    begin = threading.Barrier(8)

    def come(number: int) -> None:
        begin.wait()
        params = {"state": STATE, "code": str(number)}
        statuses.append(httpx.get(callback.url, params=params, trust_env=False).status_code)

    threads = [threading.Thread(target=come, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200] + [410] * 7


def test_nobody_listens_afterwards(browser: httpx.Client) -> None:
    with Callback(STATE) as callback:
        browser.get(callback.url, params={"state": STATE, "code": "first"})
    with pytest.raises(httpx.ConnectError):
        browser.get(callback.url, params={"state": STATE, "code": "second"})


@pytest.mark.parametrize(
    "query",
    [
        "code=c",
        "code=c&state=",
        "code=c&state=guessed",
        f"code=c&state={STATE}x",
        f"code=c&state={STATE}&state=guessed",
        f"code=c&code=d&state={STATE}",
        f"code=c&error=access_denied&state={STATE}",
        f"state={STATE}",
        f"code=&state={STATE}",
        f"code=c&state={STATE}%FF",
        "code=c&state=%C3%A9",
        "&".join(f"x{number}=1" for number in range(100)),
    ],
)
def test_what_is_no_answer_to_this_sign_in_ends_it(callback: Callback, browser: httpx.Client, query: str) -> None:
    page = browser.get(f"{callback.url}?{query}")
    assert (page.status_code, "guessed" in page.text) == (400, False)
    with pytest.raises(NotSignedIn, match=r"another sign-in, so it was refused.*run: justiam login"):
        callback.wait(PATIENCE_SECS)


@pytest.mark.parametrize("method", ["POST", "PUT", "HEAD", "DELETE", "OPTIONS", "BREW"])
def test_what_is_no_get_is_refused_and_changes_nothing(callback: Callback, method: str) -> None:
    refused = httpx.request(method, callback.url, params={"state": STATE, "code": "c"}, trust_env=False)
    assert refused.status_code == 405
    assert "access-control-allow-origin" not in refused.headers
    with pytest.raises(NotSignedIn):
        callback.wait(0)


@pytest.mark.parametrize("path", ["/", "/favicon.ico", "/callback/", "/callback/x", "/Callback"])
def test_another_path_is_refused_and_changes_nothing(callback: Callback, browser: httpx.Client, path: str) -> None:
    elsewhere = callback.url.removesuffix("/callback") + path
    assert browser.get(elsewhere, params={"state": STATE, "code": "c"}).status_code == 404
    browser.get(callback.url, params={"state": STATE, "code": "first"})
    assert callback.wait(PATIENCE_SECS).code == "first"


@pytest.mark.parametrize("host", ["evil.example.com", "localhost", "127.0.0.1", ""])
def test_another_name_for_this_machine_is_refused(callback: Callback, browser: httpx.Client, host: str) -> None:
    params = {"state": STATE, "code": "c"}
    assert browser.get(callback.url, params=params, headers={"Host": host}).status_code == 404
    with pytest.raises(NotSignedIn):
        callback.wait(0)


def test_an_error_is_told_without_repeating_it(callback: Callback, browser: httpx.Client) -> None:
    hostile = "<script>alert(1)</script>\x1b[31m"
    page = browser.get(
        callback.url, params={"state": STATE, "error": "access_denied", "error_description": hostile, "x": "<b>"}
    )
    assert (page.status_code, "You are not signed in" in page.text) == (200, True)
    assert "script" not in page.text
    assert "\x1b" not in page.text
    assert callback.wait(PATIENCE_SECS) == Answer(None, "access_denied", hostile, None)


@pytest.mark.parametrize(
    "noise", [b"", b"\x16\x03\x01\x02\x00\x01", b"GET\r\n\r\n", b"GET /callback?<script> x\r\n\r\n"]
)
def test_noise_on_the_port_is_survived(callback: Callback, browser: httpx.Client, noise: bytes) -> None:
    port = httpx.URL(callback.url).port
    assert port is not None
    with socket.create_connection(("127.0.0.1", port)) as idle, socket.create_connection(("127.0.0.1", port)) as noisy:
        noisy.sendall(noise)
        noisy.shutdown(socket.SHUT_WR)
        assert b"script" not in noisy.recv(4096)
        browser.get(callback.url, params={"state": STATE, "code": "first"})
        assert callback.wait(PATIENCE_SECS).code == "first"
        assert idle.fileno() > 0, "an idle connection keeps nobody waiting"


def test_a_port_that_is_taken_is_named_with_the_option() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Misused, match=f"port {port}: .*--port"):
            Callback(STATE, port=port)


def test_nobody_is_waited_for_without_end(callback: Callback) -> None:
    with pytest.raises(NotSignedIn, match=r"Nobody signed in within 0 minutes.*run: justiam login"):
        callback.wait(0)
