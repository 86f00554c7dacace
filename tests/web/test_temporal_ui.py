"""Temporal's own UI and command line show what is encrypted, to those whom the codec server lets see it."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from playwright.async_api import Browser, Route
from temporalio.client import Client

from cli.dev import TemporalDevServer
from domain.actors import Permission
from tests.api.house import House, Somebody, open_house, settings
from tests.cli.conftest import served
from tests.conftest import Databases
from tests.test_temporal_client import Authority
from tests.workflows.test_encryption import OLD, with_keys

SAID: Final = "Because the auditors come on Monday"
WORKFLOW: Final = "what-somebody-said"
_PATIENCE_MS: Final = 60_000


@dataclass
class Histories:
    """A Temporal server that holds one encrypted history, and the codec server, over TLS."""

    house: House
    temporal: TemporalDevServer
    codec: str
    authority: Path

    @property
    def ui(self) -> str:
        return f"http://127.0.0.1:{self.temporal.ui_port}"


@pytest.fixture(scope="module")
async def histories(new_database: Databases, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Histories]:
    directory = tmp_path_factory.mktemp("codec")
    authority = Authority(directory, "ours")
    certificate, key = authority.issue("server")
    async with AsyncExitStack() as stack:
        url = stack.enter_context(new_database())
        temporal = TemporalDevServer(log_file=directory / "temporal.log")
        await asyncio.to_thread(temporal.start)
        stack.callback(temporal.stop)
        client = with_keys(await Client.connect(temporal.address), OLD)
        await client.start_workflow("Said", {"comment": SAID}, id=WORKFLOW, task_queue="nobody")
        house = await stack.enter_async_context(open_house(url))
        chosen = settings(url).model_copy(
            update={"temporal_encryption_keys": (OLD,), "temporal_ui_url": f"http://127.0.0.1:{temporal.ui_port}"}
        )
        address = stack.enter_context(served(chosen, ssl_certfile=certificate, ssl_keyfile=key))
        yield Histories(house, temporal, f"{address}/api/v1/temporal-codec", authority.file)


async def in_the_ui(histories: Histories, browser: Browser, who: Somebody, *, awaited: str) -> str:
    """What the page of the workflow says to somebody who is signed in to the UI, once it says `awaited`."""
    context = await browser.new_context(ignore_https_errors=True)
    context.set_default_timeout(_PATIENCE_MS)
    try:
        page = await context.new_page()
        # The UI of the development server signs nobody in. One that does says so, and leaves what its issuer answered.
        await page.route(f"{histories.ui}/api/v1/settings*", _with_sign_in)
        user = base64.b64encode(json.dumps({"AccessToken": who.token, "IDToken": "an ID token"}).encode())
        await context.add_cookies([{"name": "user0", "value": user.decode(), "url": histories.ui}])
        chosen = {"endpoint": histories.codec, "passAccessToken": True, "overrideRemoteCodecConfiguration": True}
        for name, value in chosen.items():
            await context.add_init_script(f"localStorage.setItem({json.dumps(name)}, {json.dumps(json.dumps(value))})")
        await page.goto(f"{histories.ui}/namespaces/default/workflows/{WORKFLOW}")
        await page.get_by_text(awaited).locator("visible=true").first.wait_for()
        return await page.inner_text("body")
    finally:
        await context.close()


async def _with_sign_in(route: Route) -> None:
    answer = await route.fetch()
    settings = await answer.json()
    settings["Auth"] = {"Enabled": True, "Options": []}
    await route.fulfill(response=answer, json=settings)


async def test_the_ui_shows_them_to_an_administrator(histories: Histories, browser: Browser) -> None:
    admin = await histories.house.person("ui.admin", Permission.REQUESTS)
    assert "Codec Server could not connect" not in await in_the_ui(histories, browser, admin, awaited=SAID)


async def test_and_to_nobody_else(histories: Histories, browser: Browser) -> None:
    somebody = await histories.house.person("ui.somebody", Permission.TASKS)
    said = await in_the_ui(histories, browser, somebody, awaited="Codec Server could not connect")
    assert SAID not in said


async def on_the_command_line(histories: Histories, *options: str) -> str:
    """What `temporal workflow show` says with these options."""
    process = await asyncio.create_subprocess_exec(
        Path(sys.executable).parent / "temporal",
        *("workflow", "show", "--workflow-id", WORKFLOW, "--output", "json", "--address", histories.temporal.address),
        *options,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(histories.authority.parent),
            "SSL_CERT_FILE": str(histories.authority),
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    return said.decode()


async def test_so_does_the_command_line(histories: Histories) -> None:
    admin = await histories.house.person("cli.admin", Permission.REQUESTS)
    somebody = await histories.house.person("cli.somebody")
    endpoint = ("--codec-endpoint", histories.codec)
    # Payloads are in Base64 there, decoded or not.
    written = base64.b64encode(json.dumps({"comment": SAID}, separators=(",", ":")).encode()).decode()
    assert written in await on_the_command_line(histories, *endpoint, "--codec-auth", f"Bearer {admin.token}")
    for options in ((), endpoint, (*endpoint, "--codec-auth", f"Bearer {somebody.token}")):
        assert written not in await on_the_command_line(histories, *options)
