"""The pages: over HTTP for what they say and refuse, in a real browser for what people see and do."""

from __future__ import annotations

import html
import os
import re
import shutil
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final
from urllib.parse import urlencode

import httpx
import pytest
import uvicorn
from axe_playwright_python.async_playwright import Axe  # type: ignore[import-untyped]
from playwright.async_api import Browser, BrowserContext, Page, async_playwright

import worker
from activities import setup
from api.orchestrator import Orchestrator
from db import web_sessions
from tests.api.house import House, Somebody, open_house, settings
from tests.conftest import Databases
from tests.servers import TestingTemporal
from web.app import create_app
from web.cookies import Cookies

ORIGIN: Final = "http://service.test"
_PATIENCE_SECS: Final = 60.0
_CHROMIUM: Final = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
"""As root, and without looking for servers of its own."""
_WCAG: Final = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}


@dataclass
class Visitor:
    """Somebody with a browser that runs no scripts."""

    house: House
    session: str
    cookies: dict[str, str] = field(default_factory=dict)

    async def get(self, path: str, **headers: str) -> httpx.Response:
        """A page."""
        return await self._send("GET", path, headers=headers)

    async def post(self, path: str, form: dict[str, Any] | None = None, **headers: str) -> httpx.Response:
        """A form of a page of ours; values that are lists are sent several times."""
        jar: Cookies = self.house.app.state.cookies
        fields = {"form_token": jar.form_token(self.session), **(form or {})}
        return await self._send(
            "POST",
            path,
            content=urlencode(fields, doseq=True),
            headers={"Content-Type": "application/x-www-form-urlencoded", "Origin": ORIGIN, **headers},
        )

    async def follow(self, answer: httpx.Response) -> httpx.Response:
        """The page that a form leads to."""
        assert answer.status_code == 303, f"{answer.status_code}: {shown(answer)}"
        return await self.get(answer.headers["location"])

    async def _send(
        self, method: str, path: str, headers: dict[str, str], content: str | None = None
    ) -> httpx.Response:
        cookie = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        answer = await self.house.client.request(method, path, headers={"Cookie": cookie, **headers}, content=content)
        for name, value in answer.cookies.items():
            self.cookies[name] = value
        for gone in re.findall(r'(\w+)=""', " ".join(answer.headers.get_list("set-cookie"))):
            self.cookies.pop(gone, None)
        # What one person's cookies are is nobody else's business.
        self.house.client.cookies.clear()
        return answer


def shown(answer: httpx.Response) -> str:
    """What a page says: its main part, without markup, in one line."""
    main = re.search(r"<main[^>]*>(.*)</main>", answer.text, re.DOTALL)
    text = re.sub(r"<[^>]+>", " ", main.group(1) if main else answer.text)
    return " ".join(html.unescape(text).split())


async def visitor(house: House, who: Somebody) -> Visitor:
    """`who`, signed in."""
    token = await web_sessions.begin(house.db, who.id, None)
    jar: Cookies = house.app.state.cookies
    return Visitor(house, token, {"justiam_session": jar._sessions.sign(token).decode()})


@asynccontextmanager
async def open_pages(url: str, **chosen: Any) -> AsyncIterator[House]:
    """The API with the pages, on an empty database, without Temporal."""
    app = create_app(settings(url).model_copy(update={"public_url": ORIGIN, **chosen}))
    async with app.router.lifespan_context(app), open_house(url, app) as house:
        yield house


@pytest.fixture(scope="module")
async def house(new_database: Databases) -> AsyncIterator[House]:
    """The pages on a database that the tests of a module share."""
    with new_database() as url:
        async with open_pages(url) as house:
            yield house


@pytest.fixture(scope="module")
async def root(house: House) -> Visitor:
    """An administrator with all permissions, signed in."""
    return await visitor(house, house.admin)


@dataclass
class Stage:
    """The whole service with its pages, at an address that a browser can open."""

    house: House
    url: str
    browser: Browser

    @asynccontextmanager
    async def person(self, who: Somebody | None, **options: Any) -> AsyncIterator[Page]:
        """A browser of somebody's own, at the first page."""
        options = {"locale": "en-GB", "timezone_id": "Europe/Berlin", **options}
        context = await self.browser.new_context(base_url=self.url, **options)
        context.set_default_timeout(_PATIENCE_SECS * 1000)
        try:
            page = await context.new_page()
            wrong: list[str] = []
            page.on("pageerror", lambda error: wrong.append(str(error)))
            page.on("console", lambda said: wrong.append(said.text) if "Content Security Policy" in said.text else None)
            if who is not None:
                await self._sign_in(context, who)
                await page.goto("/")
            yield page
            assert not wrong, wrong
        finally:
            await context.close()

    async def _sign_in(self, context: BrowserContext, who: Somebody) -> None:
        jar: Cookies = self.house.app.state.cookies
        signed = jar._sessions.sign(await web_sessions.begin(self.house.db, who.id, None)).decode()
        await context.add_cookies([{"name": "justiam_session", "value": signed, "url": self.url, "httpOnly": True}])


async def violations(page: Page, *, colours_only: bool = False) -> list[str]:
    """What axe finds wrong with a page; `colours_only` where it was looked at in other colours already."""
    found = await Axe().run(page, options={"runOnly": ["color-contrast"]} if colours_only else _WCAG)
    return [
        f"{each['id']}: {each['help']}: {[node['html'] for node in each['nodes']]}"
        for each in found.response["violations"]
    ]


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    """Debian's Chromium, without a window."""
    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if path is None and os.environ.get("CI"):
        pytest.fail("CI has no browser, so that the pages were not tried: apt-get install chromium")
    if path is None:
        pytest.skip("There is no browser: install Debian's chromium, or name one with CHROMIUM=/path/to/it")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=list(_CHROMIUM))
        yield browser
        await browser.close()


@pytest.fixture(scope="module")
async def stage(temporal: TestingTemporal, new_database: Databases, browser: Browser) -> AsyncIterator[Stage]:
    """The whole service: pages and API on a port, worker, Temporal, PostgreSQL; shared by the tests of a module."""
    with new_database() as url, socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        chosen = settings(url).model_copy(
            update={"temporal_address": temporal.address, "public_url": address, "dev_sign_in": True}
        )
        async with AsyncExitStack() as stack:
            stores = await stack.enter_async_context(worker.connected(chosen, wait=False))
            await setup.ensure(stores.client, timedelta(minutes=5))
            await stack.enter_async_context(worker.worker(stores, chosen))
            app = create_app(chosen)
            house = await stack.enter_async_context(open_house(url, create_app(chosen)))
            house.app.state.orchestrator = await stack.enter_async_context(Orchestrator(chosen))
            with _served(app, listener):
                yield Stage(house, address, browser)


@contextmanager
def _served(app: Any, listener: socket.socket) -> Iterator[None]:
    """In a thread of its own, as the browser and the test's loop wait for each other."""
    server = uvicorn.Server(uvicorn.Config(app, log_config=None))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        deadline = time.monotonic() + _PATIENCE_SECS
        while not server.started:
            assert thread.is_alive()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield
    finally:
        app.state.changes.close()
        server.should_exit = True
        thread.join()
