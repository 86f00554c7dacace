"""The real command against the real API, served on a port of its own."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
import uvicorn
from typer.testing import CliRunner, Result

from api.app import create_app
from cli.main import app
from settings import Settings
from tests.api.house import House, Somebody, open_house, settings
from tests.conftest import Databases

JUSTIAM = Path(sys.executable).parent / "justiam"
PATIENCE_SECS = 60.0
_ZONE: Final = "Europe/Paris"


@contextmanager
def served(chosen: Settings, **options: Any) -> Iterator[str]:
    """The API in a thread of its own, at the address that is given; over TLS where uvicorn's options say so."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(lambda: create_app(chosen), factory=True, log_config=None, **options))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        deadline = time.monotonic() + PATIENCE_SECS
        while not server.started:
            assert thread.is_alive()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        scheme = "https" if "ssl_certfile" in options else "http"
        yield f"{scheme}://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


class Desk:
    """Where somebody sits and types."""

    def __init__(self, url: str, home: Path) -> None:
        self.url = url
        self.home = home

    def environment(self, by: Somebody | None = None, **variables: str | None) -> dict[str, str | None]:
        return {
            "XDG_CONFIG_HOME": str(self.home),
            "JUSTIAM_ENDPOINT": self.url if by else None,
            "JUSTIAM_TOKEN": by.token if by else None,
            "TZ": _ZONE,
            **variables,
        }

    async def justiam(
        self, *arguments: str, by: Somebody | None = None, typed: str = "", **variables: str | None
    ) -> Result:
        """Run the command in a thread: meanwhile the servers of this process have to answer."""
        environment = self.environment(by, **variables)
        done = await asyncio.to_thread(CliRunner().invoke, app, list(arguments), input=typed, env=environment)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        token = by.token if by else "justiam_"
        assert token not in done.output, "a token was printed"
        return done

    @asynccontextmanager
    async def beside(
        self, *arguments: str, by: Somebody | None = None, **variables: str
    ) -> AsyncIterator[asyncio.subprocess.Process]:
        """The command in a process of its own, while others run; ended where it has not ended itself."""
        environment = {name: value for name, value in self.environment(by, **variables).items() if value is not None}
        environment |= {"PATH": os.environ["PATH"], "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
        process = await asyncio.create_subprocess_exec(
            JUSTIAM, *arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
                await process.communicate()

    async def json(self, *arguments: str, by: Somebody | None = None) -> Any:
        done = await self.justiam(*arguments, "--json", by=by)
        assert done.exit_code == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture(scope="module")
async def house(new_database: Databases) -> AsyncIterator[House]:
    """The record behind the service, to be filled; shared by the tests of a module."""
    with new_database() as url:
        async with open_house(url) as house:
            yield house


@pytest.fixture(scope="module")
def address(house: House) -> Iterator[str]:
    with served(settings(house.url)) as url:
        yield url


@pytest.fixture
def desk(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    # Where no .justiam is.
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as here:
        here.setenv("TZ", _ZONE)
        time.tzset()
        yield Desk(address, tmp_path / "config")
    time.tzset()
