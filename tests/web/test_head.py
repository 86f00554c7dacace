"""HEAD is answered wherever GET is, with the same headers and no body (RFC 9110, section 9.3.2)."""

from __future__ import annotations

import asyncio

import pytest

from tests.api.house import House
from tests.web.conftest import Visitor, visitor


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/sign-in", "/", "/decide", "/no-such-page"])
async def test_is_answered_as_get_is(house: House, path: str) -> None:
    admin = await visitor(house, house.admin)
    got, head = await admin.get(path), await admin._send("HEAD", path, {})
    assert head.status_code == got.status_code
    assert head.content == b""
    assert head.headers["content-length"] == got.headers["content-length"]
    assert head.headers["content-type"] == got.headers["content-type"]


async def test_of_the_api_too(house: House) -> None:
    got = await house.call("GET", "/groups", house.admin)
    head = await house.call("HEAD", "/groups", house.admin)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == got.headers["content-length"]
    assert (await house.call("HEAD", "/groups")).status_code == 401


async def test_of_a_path_without_get_is_not_allowed(house: House) -> None:
    answer = await house.call("HEAD", f"/access-requests/{house.admin.id}/approve", house.admin)
    assert (answer.status_code, answer.headers["allow"], answer.content) == (405, "POST", b"")
    admin = await visitor(house, house.admin)
    answer = await admin._send("DELETE", "/history", {})
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")


async def test_of_a_stream_without_an_end_ends(house: House) -> None:
    admin = await visitor(house, house.admin)
    async with asyncio.timeout(60):
        answer = await admin._send("HEAD", "/live", {"Sec-Fetch-Dest": "empty"})
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert not house.app.state.changes._lookers


async def test_of_who_is_signed_out_leads_where_get_leads(house: House) -> None:
    nobody = Visitor(house, "")
    answer = await nobody._send("HEAD", "/history", {})
    assert answer.status_code == (await nobody.get("/history")).status_code
