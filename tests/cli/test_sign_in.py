"""Signing in with a browser at an OpenID Connect issuer, staying signed in, and signing out."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import httpx
import jwt
import pytest
from typer.testing import Result

from cli.dev.program import free_port
from cli.people import credentials, oidc
from cli.people.client import Service
from cli.people.errors import NotSignedIn
from db import identities
from settings import OidcIssuer
from tests.api.house import House, Somebody, settings
from tests.cli.authority import Authority, serve_authority
from tests.cli.conftest import PATIENCE_SECS, Desk, served
from tests.cli.scene import Scene
from tests.tokens.issuer import AUDIENCE, DISCOVERY

CLIENT: Final = "justiam-cli"
_PROVIDER: Final = Path(__file__).with_name("provider.py")
_HOSTILE: Final = "<script>alert(1)</script>\x1b[31m\x07 \u202egnihton"


@pytest.fixture(scope="module")
def provider() -> Iterator[str]:
    """An OpenID provider that nobody here wrote, in a process of its own."""
    port = free_port()
    command = [sys.executable, str(_PROVIDER), "--port", str(port)]
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(400):
            try:
                httpx.get(url + DISCOVERY, trust_env=False).raise_for_status()
                break
            except httpx.HTTPError:
                assert process.poll() is None, "the provider ended"
                time.sleep(0.02)
        yield url
    finally:
        process.terminate()
        process.wait(60)


@pytest.fixture(scope="module")
def standing_authority() -> Iterator[Authority]:
    with serve_authority() as authority:
        yield authority


@pytest.fixture
def authority(standing_authority: Authority) -> Authority:
    standing_authority.reset()
    return standing_authority


@pytest.fixture(scope="module")
def address(house: House, provider: str, standing_authority: Authority) -> Iterator[str]:
    """The service, for people who sign in at either: at the one with an ID token, at the other with an access token."""
    issuers = (
        OidcIssuer(issuer=provider, audience=CLIENT, client_id=CLIENT),
        OidcIssuer(issuer=standing_authority.url, audience=AUDIENCE, client_id=CLIENT, scope="openid db"),
        OidcIssuer(issuer="https://silent.example.com", audience=AUDIENCE),
    )
    with served(settings(house.url).model_copy(update={"oidc_issuers": issuers})) as url:
        yield url


@pytest.fixture
async def alice(house: House, authority: Authority) -> Somebody:
    """Somebody whom the authority knows."""
    alice = (await Scene(house).set()).alice
    await identities.link(house.db, alice.email, authority.url, authority.subject)
    return alice


class Browser:
    """Follows wherever it is sent."""

    def __init__(self) -> None:
        self.pages: list[httpx.Response] = []
        self._threads: list[threading.Thread] = []

    def open(self, address: str) -> None:
        self._threads.append(threading.Thread(target=self._visit, args=(address,)))
        self._threads[-1].start()

    def _visit(self, address: str) -> None:
        self.pages.append(httpx.get(address, follow_redirects=True, trust_env=False))

    def close(self) -> None:
        for thread in self._threads:
            thread.join()


@pytest.fixture
def browser(monkeypatch: pytest.MonkeyPatch) -> Iterator[Browser]:
    browser = Browser()
    monkeypatch.setattr(oidc, "open_browser", browser.open)
    yield browser
    browser.close()


def kept(desk: Desk) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(file_of(desk).read_text())
    return content


def file_of(desk: Desk) -> Path:
    return desk.home / "justiam" / "credentials.json"


def let_end(desk: Desk, **changed: Any) -> None:
    """Have the time of the stored token be over."""
    content = kept(desk)
    content["sign_in"] |= {"expires_at": 0, **changed}
    file_of(desk).write_text(json.dumps(content))


async def login(desk: Desk, authority: Authority, *options: str) -> Result:
    done = await desk.justiam("login", "--server", desk.url, "--issuer", authority.url, *options)
    secrets = [
        *(
            sent[name]
            for sent in authority.redeemed
            for name in ("code", "code_verifier", "refresh_token")
            if name in sent
        )
    ]
    secrets += [kept(desk)["token"], *authority.valid] if done.exit_code == 0 else []
    assert not [secret for secret in secrets if secret in done.output], "a secret was printed"
    assert "\x1b" not in done.output
    return done


@asynccontextmanager
async def signing_in(
    desk: Desk, *options: str, **variables: str
) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """The command in a process of its own, and the address that it printed."""
    async with desk.beside("login", "--server", desk.url, *options, by=None, **variables) as process:
        assert process.stderr is not None
        while not (line := (await process.stderr.readline()).decode()).startswith("http"):
            assert line, "no address was printed"
        yield process, line.strip()


async def ended(process: asyncio.subprocess.Process) -> tuple[int | None, str, str]:
    out, told = await asyncio.wait_for(process.communicate(), PATIENCE_SECS)
    return process.returncode, out.decode(), told.decode()


class TestAProviderOfOthers:
    @pytest.fixture
    async def somebody(self, house: House, provider: str) -> Somebody:
        somebody = (await Scene(house).set()).alice
        await identities.link(house.db, somebody.email, provider, somebody.email)
        return somebody

    async def test_signs_in_who_opens_the_address(self, desk: Desk, provider: str, somebody: Somebody) -> None:
        async with (
            signing_in(desk, "--no-browser") as (process, address),
            httpx.AsyncClient(trust_env=False) as browser,
        ):
            assert address.startswith(f"{provider}/oauth2/authorize?")
            form = await browser.get(address)
            assert 'name="sub"' in form.text
            sent_back = await browser.post(address, data={"sub": somebody.email})
            back = sent_back.headers["location"]
            assert re.match(r"http://127\.0\.0\.1:\d+/callback\?", back)

            # Whoever sees the code gets nothing for it.
            [seen] = parse_qs(urlsplit(back).query)["code"]
            stolen = {"grant_type": "authorization_code", "code": seen, "client_id": CLIENT}
            stolen["redirect_uri"] = back.partition("?")[0]
            for verifier in ({}, {"code_verifier": "x" * 64}):
                refused = await browser.post(f"{provider}/oauth2/token", data=stolen | verifier)
                assert (refused.status_code, "token" in refused.json()) == (400, False)

            page = await browser.get(back)
            assert "go on in the terminal" in page.text
            code, out, told = await ended(process)
            assert (code, told.strip()) == (0, "")
            assert out.startswith(f"Signed in to {desk.url} as Alice")
        assert file_of(desk).stat().st_mode & 0o777 == 0o600
        done = await desk.justiam("whoami")
        assert somebody.email in done.stdout
        assert re.search(
            rf"Signed in +at {provider}, until \d{{4}}-\d\d-\d\d \d\d:\d\d CES?T, then renewed", done.stdout
        )

    async def test_signs_in_who_has_a_browser(self, desk: Desk, somebody: Somebody, tmp_path: Path) -> None:
        script = tmp_path / "browser"
        script.write_text(
            f"#!{sys.executable}\n"
            "import sys, urllib.parse, urllib.request\n"
            f"form = urllib.parse.urlencode({{'sub': {somebody.email!r}}}).encode()\n"
            "urllib.request.urlopen(sys.argv[1], form).read()\n"
        )
        script.chmod(0o700)
        async with signing_in(desk, "--json", BROWSER=str(script)) as (process, _):
            code, out, _ = await ended(process)
        assert (code, json.loads(out)["email"]) == (0, somebody.email)


class TestSigningIn:
    async def test_asks_for_what_the_service_says(
        self, desk: Desk, authority: Authority, alice: Somebody, browser: Browser
    ) -> None:
        done = await login(desk, authority)
        assert done.exit_code == 0, done.stderr
        assert alice.email in done.stdout
        [asked], [redeemed] = authority.authorized, authority.redeemed
        challenge = urlsafe_b64encode(hashlib.sha256(redeemed["code_verifier"].encode()).digest()).rstrip(b"=").decode()
        assert (asked["code_challenge"], asked["code_challenge_method"]) == (challenge, "S256")
        assert (asked["client_id"], asked["audience"], asked["scope"]) == (CLIENT, AUDIENCE, "openid db")
        assert (asked["tenant"], asked["response_type"]) == ("1", "code")
        assert len({asked["state"], asked["nonce"], redeemed["code_verifier"]}) == 3
        assert redeemed["redirect_uri"] == asked["redirect_uri"]
        assert jwt.decode(kept(desk)["token"], options={"verify_signature": False})["aud"] == AUDIENCE
        assert browser.pages[0].status_code == 200

    async def test_with_options_of_ones_own(
        self, desk: Desk, authority: Authority, alice: Somebody, browser: Browser
    ) -> None:
        port = str(free_port())
        done = await login(desk, authority, "--client-id", AUDIENCE, "--port", port)
        assert done.exit_code == 0, done.stderr
        [asked] = authority.authorized
        assert asked["scope"] == "openid email offline_access"
        assert "audience" not in asked
        assert asked["redirect_uri"] == f"http://127.0.0.1:{port}/callback"
        assert jwt.decode(kept(desk)["token"], options={"verify_signature": False})["nonce"] == asked["nonce"]
        assert (await desk.json("whoami"))["email"] == alice.email
        assert browser.pages

    async def test_without_an_account_says_who_can_help(
        self, desk: Desk, authority: Authority, browser: Browser
    ) -> None:
        done = await login(desk, authority)
        assert (done.exit_code, done.stderr.count("justiam identity link")) == (3, 1)
        assert f"{authority.url} {authority.subject}" in done.stderr
        assert not desk.home.exists()
        assert browser.pages

    async def test_an_api_token_still_does(self, desk: Desk, alice: Somebody) -> None:
        done = await desk.justiam("login", "--server", desk.url, "--token-stdin", typed=alice.token)
        assert done.exit_code == 0, done.stderr
        assert "with a token that was given" in (await desk.justiam("whoami")).stdout
        done = await desk.justiam("login", "--server", desk.url, JUSTIAM_TOKEN=alice.token)
        assert done.exit_code == 0, done.stderr

    async def test_not_both_ways_at_once(self, desk: Desk, authority: Authority) -> None:
        done = await login(desk, authority, "--token-stdin")
        assert (done.exit_code, "leave out --token-stdin" in done.stderr) == (2, True)


class TestWhatGoesWrong:
    async def refused(self, desk: Desk, authority: Authority, *options: str) -> tuple[int, str]:
        done = await login(desk, authority, *options)
        assert not desk.home.exists(), "something was stored"
        *_, line = done.stderr.splitlines()
        return done.exit_code, line

    @pytest.mark.parametrize(
        ("sent_back", "code", "line"),
        [
            ({"state": "guessed"}, 3, "answer to another sign-in, so it was refused.*run: justiam login"),
            ({"state": ...}, 3, "answer to another sign-in, so it was refused.*run: justiam login"),
            ({"iss": "https://evil.example.com"}, 3, "answer was not from .*refused.*run: justiam login"),
            ({"code": "of-another"}, 3, r"gave no token \(invalid_grant\).*run: justiam login"),
            ({"code": ..., "error": "access_denied"}, 1, r"declined at .* \(access_denied\).*run: justiam login"),
            ({"code": ..., "error": "server_error", "error_description": _HOSTILE}, 3, "could not sign you in"),
        ],
        ids=str,
    )
    async def test_on_the_way_back(
        self, desk: Desk, authority: Authority, browser: Browser, sent_back: dict[str, Any], code: int, line: str
    ) -> None:
        authority.sent_back = sent_back
        exit_code, told = await self.refused(desk, authority)
        assert (exit_code, bool(re.search(line, told))) == (code, True), told
        assert not re.search(r"[\x00-\x1f\u202e]", told)
        browser.close()
        assert not re.search(r"script|gnihton|\x1b", browser.pages[0].text)

    @pytest.mark.parametrize(
        "id_claims",
        [
            {"nonce": "of-another"},
            {"nonce": ...},
            {"aud": "another-client"},
            {"aud": [CLIENT, "another"], "azp": "another"},
            {"iss": "https://evil.example.com"},
            {"sub": ...},
        ],
        ids=str,
    )
    @pytest.mark.usefixtures("alice")
    async def test_in_the_id_token(
        self, desk: Desk, authority: Authority, browser: Browser, id_claims: dict[str, Any]
    ) -> None:
        authority.id_claims = id_claims
        code, line = await self.refused(desk, authority)
        assert (code, "no ID token for this sign-in" in line) == (3, True), line
        assert browser.pages

    @pytest.mark.parametrize(
        "given", [{"id_token": ...}, {"id_token": "x.y.z"}, {"access_token": ...}, {"token_type": "DPoP"}], ids=str
    )
    async def test_in_the_answer(
        self, desk: Desk, authority: Authority, browser: Browser, given: dict[str, Any]
    ) -> None:
        authority.given = given
        code, line = await self.refused(desk, authority)
        assert (code, "run: justiam login" in line) == (3, True), line
        assert browser.pages

    @pytest.mark.parametrize(
        ("changed", "line"),
        [
            ({"issuer": "https://evil.example.com"}, "discovery document of .* is of https://evil.example.com"),
            ({"token_endpoint": "http://evil.example.com/token"}, "token_endpoint that does not begin with https://"),
            ({"authorization_endpoint": "file:///etc/passwd"}, "authorization_endpoint that does not begin with"),
            ({"authorization_endpoint": None}, "has no authorization_endpoint"),
        ],
        ids=str,
    )
    async def test_in_the_discovery_document(
        self, desk: Desk, authority: Authority, browser: Browser, changed: dict[str, Any], line: str
    ) -> None:
        authority.documents[DISCOVERY] |= changed
        code, told = await self.refused(desk, authority)
        assert (code, bool(re.search(line, told))) == (2, True), told
        assert not authority.redeemed
        browser.close()

    async def test_an_issuer_that_is_away_or_none(self, desk: Desk, authority: Authority) -> None:
        authority.documents.pop(DISCOVERY)
        code, line = await self.refused(desk, authority)
        assert (code, line) == (4, f"{authority.url} answers 503. Try again later.")
        nobody = f"http://127.0.0.1:{free_port()}"
        code, line = await self.refused(desk, authority, "--issuer", nobody, "--client-id", "x")
        assert (code, line.startswith(f"Cannot reach {nobody}: ")) == (4, True)
        code, line = await self.refused(desk, authority, "--issuer", desk.url, "--client-id", "x")
        assert (code, "is no discovery document" in line) == (2, True)
        code, line = await self.refused(desk, authority, "--issuer", "http://evil.example.com", "--client-id", "x")
        assert (code, "begins with https://" in line) == (2, True)
        code, line = await self.refused(desk, authority, "--issuer", "https://silent.example.com")
        assert (code, "give both --issuer and --client-id" in line) == (2, True)

    async def test_a_port_that_is_taken(self, desk: Desk, authority: Authority) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            code, line = await self.refused(desk, authority, "--port", str(taken.getsockname()[1]))
        assert (code, "Choose another with --port." in line) == (2, True)

    async def test_ctrl_c_ends_the_wait_without_a_traceback(self, desk: Desk, authority: Authority) -> None:
        async with signing_in(desk, "--issuer", authority.url, "--no-browser") as (process, _):
            process.send_signal(signal.SIGINT)
            code, out, told = await ended(process)
        assert (code, out, told.strip()) == (130, "", "")

    async def test_nobody_comes(self, desk: Desk, authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(oidc, "_PATIENCE_SECS", 0.0)
        code, line = await self.refused(desk, authority, "--no-browser")
        assert (code, line) == (3, "Nobody signed in within 0 minutes. To try again, run: justiam login")


@pytest.mark.usefixtures("browser")
class TestStayingSignedIn:
    @pytest.mark.parametrize("client", [CLIENT, AUDIENCE])
    async def test_a_token_that_has_ended_is_renewed_in_silence(
        self, desk: Desk, authority: Authority, alice: Somebody, client: str
    ) -> None:
        await login(desk, authority, *(("--client-id", client) if client == AUDIENCE else ()))
        before = kept(desk)
        for _ in range(2):
            let_end(desk)
            done = await desk.justiam("whoami")
            assert (done.exit_code, done.stderr) == (0, "")
            assert alice.email in done.stdout
        after = kept(desk)
        assert after["token"] != before["token"]
        assert after["sign_in"]["refresh_token"] in authority.valid
        assert len(authority.redeemed) == 3
        assert file_of(desk).stat().st_mode & 0o777 == 0o600

    async def test_a_refresh_token_that_is_not_replaced_is_kept(
        self, desk: Desk, authority: Authority, alice: Somebody
    ) -> None:
        await login(desk, authority)
        authority.given = {"refresh_token": ...}
        let_end(desk)
        before = kept(desk)["sign_in"]["refresh_token"]
        assert (await desk.json("whoami"))["email"] == alice.email
        assert kept(desk)["sign_in"]["refresh_token"] == before

    async def test_two_commands_at_once_renew_it_once(self, desk: Desk, authority: Authority, alice: Somebody) -> None:
        await login(desk, authority)
        let_end(desk)
        async with desk.beside("whoami") as one, desk.beside("whoami") as other:
            for process in (one, other):
                code, out, told = await ended(process)
                assert (code, alice.email in out) == (0, True), told
        assert [sent["grant_type"] for sent in authority.redeemed] == ["authorization_code", "refresh_token"]

    async def test_a_command_that_lasts_stays_signed_in(
        self, desk: Desk, authority: Authority, alice: Somebody, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await login(desk, authority)
        monkeypatch.setenv("XDG_CONFIG_HOME", str(desk.home))
        stored = credentials.stored()
        assert stored is not None
        assert stored.sign_in is not None
        ended = replace(stored, sign_in=replace(stored.sign_in, expires_at=0))
        with Service(ended) as service:
            me = await asyncio.to_thread(service.me)
            assert me["email"] == alice.email
            assert len(authority.redeemed) == 1, "another command had renewed it"
            service.credentials = ended
            let_end(desk)
            assert await asyncio.to_thread(service.me) == me
            assert len(authority.redeemed) == 2
            service.credentials = ended
            file_of(desk).unlink()
            with pytest.raises(NotSignedIn, match="You signed out"):
                await asyncio.to_thread(service.me)

    @pytest.mark.parametrize("given", [{"access_token": ...}, {"token_type": "mac"}, {"id_token": "somebody"}], ids=str)
    @pytest.mark.usefixtures("alice")
    async def test_what_is_of_no_use_is_not_kept(self, desk: Desk, authority: Authority, given: dict[str, Any]) -> None:
        await login(desk, authority)
        if given.get("id_token") == "somebody":
            given = {"id_token": authority.token(sub="somebody", aud=CLIENT)}
        authority.given = given
        let_end(desk)
        before = kept(desk)
        done = await desk.justiam("whoami")
        assert (done.exit_code, done.stderr.count("\n")) == (3, 1)
        assert done.stderr.endswith("run: justiam login\n")
        assert kept(desk) == before

    @pytest.mark.parametrize("refresh_token", [None, "used-up"])
    @pytest.mark.usefixtures("alice")
    async def test_what_cannot_be_renewed_is_said_in_one_line(
        self, desk: Desk, authority: Authority, refresh_token: str | None
    ) -> None:
        await login(desk, authority)
        let_end(desk, refresh_token=refresh_token)
        done = await desk.justiam("whoami")
        assert (done.exit_code, done.stderr.count("\n"), done.stdout) == (3, 1, "")
        assert done.stderr.startswith("Your sign-in has ended. ")
        assert done.stderr.endswith("run: justiam login\n")

    async def test_an_issuer_that_is_away_ends_nothing(self, desk: Desk, authority: Authority, alice: Somebody) -> None:
        await login(desk, authority)
        let_end(desk)
        authority.down = True
        done = await desk.justiam("whoami")
        assert (done.exit_code, "run: justiam login" in done.stderr) == (4, True)
        authority.down = False
        assert (await desk.json("whoami"))["email"] == alice.email


@pytest.mark.usefixtures("alice", "browser")
class TestSigningOut:
    async def test_the_issuer_is_told(self, desk: Desk, authority: Authority) -> None:
        await login(desk, authority)
        refresh_token = kept(desk)["sign_in"]["refresh_token"]
        done = await desk.justiam("logout")
        assert (done.exit_code, done.stdout, done.stderr) == (0, f"Signed out of {desk.url}.\n", "")
        assert authority.revoked == [{"token": refresh_token, "token_type_hint": "refresh_token", "client_id": CLIENT}]
        assert not file_of(desk).exists()

    async def test_without_a_refresh_token_the_access_token_is_ended(self, desk: Desk, authority: Authority) -> None:
        authority.given = {"refresh_token": ...}
        await login(desk, authority)
        token = kept(desk)["token"]
        assert "then renewed" not in (await desk.justiam("whoami")).stdout
        await desk.justiam("logout")
        assert [sent["token"] for sent in authority.revoked] == [token]

    async def test_what_is_here_is_forgotten_whatever_the_issuer_does(self, desk: Desk, authority: Authority) -> None:
        await login(desk, authority)
        authority.down = True
        done = await desk.justiam("logout")
        assert (done.exit_code, done.stderr.count("\n")) == (0, 1)
        assert done.stderr.startswith("Note: here you are signed out, but the issuer did not end it. ")
        assert not file_of(desk).exists()

    async def test_an_issuer_without_revocation_is_not_told(self, desk: Desk, authority: Authority) -> None:
        del authority.documents[DISCOVERY]["revocation_endpoint"]
        await login(desk, authority)
        done = await desk.justiam("logout")
        assert (done.exit_code, done.stderr, authority.revoked) == (0, "", [])


async def test_the_service_says_where_people_sign_in(desk: Desk, provider: str, authority: Authority) -> None:
    async with httpx.AsyncClient(trust_env=False) as anybody:
        about = (await anybody.get(desk.url + oidc.METADATA_PATH)).json()
    assert about[oidc.METADATA_MEMBER] == [
        {"issuer": provider, "audience": CLIENT, "client_id": CLIENT},
        {"issuer": authority.url, "audience": AUDIENCE, "client_id": CLIENT, "scope": "openid db"},
    ]


def test_a_browser_is_opened_by_no_program_of_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, planted, browser = tmp_path / "opened", tmp_path / "planted", tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {opened}.new && mv {opened}.new {opened}\n')
    browser.chmod(0o755)
    (tmp_path / "webbrowser.py").write_text(f"open({str(planted)!r}, 'w')\nopen({str(opened)!r}, 'w')\n")
    monkeypatch.setenv("BROWSER", f"{browser} %s")
    monkeypatch.chdir(tmp_path)
    oidc.open_browser("https://issuer.example.com/authorize")
    for _ in range(400):
        if opened.exists():
            break
        time.sleep(0.05)
    assert not planted.exists()
    assert opened.read_text() == "https://issuer.example.com/authorize\n"
