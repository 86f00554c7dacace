"""What a person at a terminal is asked."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import select
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.api.house import House, Somebody
from tests.cli.conftest import JUSTIAM, PATIENCE_SECS, Desk
from tests.cli.scene import FIELDS, Scene

_STYLING = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


class Terminal:
    """A pseudo-terminal with the command in it."""

    def __init__(self, command: Sequence[str | Path], environment: dict[str, str]) -> None:
        self._screen, inside = pty.openpty()
        self.shown = ""
        self._read_up_to = 0
        self._process = subprocess.Popen(
            command, stdin=inside, stdout=inside, stderr=inside, env=environment, start_new_session=True
        )
        os.close(inside)

    def answer(self, question: str, text: str) -> None:
        """Wait for a question and type the answer."""
        deadline = time.monotonic() + PATIENCE_SECS
        while (found := _STYLING.sub("", self.shown).find(question, self._read_up_to)) < 0:
            assert time.monotonic() < deadline, f"{question!r} was never asked:\n{self.shown}"
            assert self._read(), f"{question!r} was never asked:\n{self.shown}"
        self._read_up_to = found + len(question)
        os.write(self._screen, text.encode() + b"\n")

    def end(self) -> int:
        while self._read():
            pass
        os.close(self._screen)
        return self._process.wait(PATIENCE_SECS)

    def _read(self) -> bool:
        ready, _, _ = select.select([self._screen], [], [], PATIENCE_SECS)
        assert ready, f"nothing more came after:\n{self.shown}"
        try:
            chunk = os.read(self._screen, 4096)
        except OSError:
            # What Linux says when the other end is closed.
            return False
        self.shown += chunk.decode()
        return bool(chunk)


async def at_a_terminal(
    desk: Desk, by: Somebody | None, arguments: list[str], *conversation: tuple[str, str], **variables: str
) -> tuple[int, str]:
    """Run the command and hold a conversation with it; what it ended with, and everything it showed."""
    set_here: dict[str, Any] = desk.environment(by, TERM="xterm", COLUMNS="120", **variables)
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    environment |= {name: value for name, value in set_here.items() if value is not None}

    def converse() -> tuple[int, str]:
        terminal = Terminal([JUSTIAM, *arguments], environment)
        for question, text in conversation:
            terminal.answer(question, text)
        return terminal.end(), terminal.shown

    return await asyncio.to_thread(converse)


@pytest.fixture
async def scene(house: House) -> Scene:
    return await Scene(house).set(custom_fields=FIELDS)


async def test_a_whole_request_is_asked_for(desk: Desk, scene: Scene) -> None:
    status, shown = await at_a_terminal(
        desk,
        scene.alice,
        ["request", "submit"],
        ("Number or name: ", "nothing"),
        ("none of them", scene.slug),
        ("For how long (1h, 8h): ", "2h"),
        ("the template allows 1h, 8h", "60"),
        ("Why do you need it: ", "an incident"),
        ("Ticket: ", "INC-1"),
        ("Plan (an empty line ends it):", "first\nsecond\n"),
        ("2  eu-north\r\nNumber or name: ", "2"),
        ("Enter to skip); several with commas: ", "users, 2"),
        ("Careful [y/n]: ", "n"),
        ("cannot be submitted", "y"),
    )
    assert status == 0, shown
    request = (await desk.json("request", "list", by=scene.alice))["items"][0]
    assert (request["requested_duration_mins"], request["justification"]) == (60, "an incident")
    labels = {field["id"]: field["label"] for field in request["custom_fields"]}
    assert {labels[key]: value for key, value in request["custom_answers"].items()} == {
        "Ticket": "INC-1",
        "Plan": "first\nsecond",
        "Region": "eu-north",
        "Tables": ["users", "orders, old"],
        "Careful": True,
    }


async def test_only_what_is_missing_is_asked_for_and_options_can_be_skipped(desk: Desk, scene: Scene) -> None:
    given = [scene.slug, "-d", "1h", "-j", "an incident", "-a", "Ticket=INC-1", "-a", "Careful=yes"]
    status, shown = await at_a_terminal(
        desk,
        scene.alice,
        ["request", "submit", *given],
        ("Plan (an empty line ends it):", ""),
        ("Number or name: ", "eu-w"),
        ("several with commas: ", ""),
    )
    assert status == 0, shown
    assert "Why do you need it" not in shown
    request = (await desk.json("request", "list", by=scene.alice))["items"][0]
    assert sorted(map(str, request["custom_answers"].values())) == ["INC-1", "True", "eu-west"]


async def test_a_decision_is_confirmed_in_view_of_what_it_grants(desk: Desk, scene: Scene) -> None:
    house, alice, bob = scene.house, scene.alice, scene.bob
    plain = await house.template(name=f"Plain {scene.mark}", approver_group_ids=scene.template.approver_group_ids)
    request_id = str(await house.request(plain, alice))
    status, shown = await at_a_terminal(desk, bob, ["request", "approve", request_id[:8]], ("from now? [y/N]: ", "n"))
    assert status == 1
    assert "an incident" in shown
    assert "\x1b[33mpending" in shown
    assert "Nothing was changed." in shown
    status, shown = await at_a_terminal(
        desk, alice, ["request", "revoke", request_id[:8]], ("Cancel this request? [y/N]: ", ""), NO_COLOR="1"
    )
    assert status == 1
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", shown), "colours in spite of NO_COLOR"


@pytest.mark.parametrize("options", [[], ["--token-stdin"]], ids=["by itself", "on demand"])
async def test_a_token_is_asked_for_without_showing_it(desk: Desk, scene: Scene, options: list[str]) -> None:
    status, shown = await at_a_terminal(
        desk, None, ["login", "--server", desk.url, *options], (f"API token for {desk.url}: ", scene.alice.token)
    )
    assert status == 0, shown
    assert scene.alice.token not in shown
    assert "Signed in" in shown


async def test_a_message_is_asked_for(desk: Desk, scene: Scene) -> None:
    plain = await scene.house.template(name=f"Talk {scene.mark}")
    request_id = str(await scene.house.request(plain, scene.alice))
    status, shown = await at_a_terminal(
        desk, scene.alice, ["request", "message", request_id[:8]], ("Message: ", " Anybody there? ")
    )
    assert status == 0, shown
    page = await desk.json("request", "messages", request_id, by=scene.alice)
    assert [message["body"] for message in page["items"]] == ["Anybody there?"]
