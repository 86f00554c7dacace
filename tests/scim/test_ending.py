"""What an identity provider takes back ends at once: with the API, a worker and a Temporal server as in production."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from db import tokens
from tests.api.house import House, Somebody
from tests.scim.provider import Provider, user
from tests.scim.test_users import WAYS
from tests.workflows.world import eventually


async def _request(house: House, request_id: str) -> dict[str, Any]:
    answer = await house.call("GET", f"/access-requests/{request_id}", house.admin)
    request: dict[str, Any] = answer.json()
    return request


async def _asked(house: House, by: Somebody, *, approved: bool) -> str:
    template = await house.template()
    sent = {"template_id": str(template.id), "requested_duration_mins": 60, "justification": "an incident"}
    request_id: str = (await house.call("POST", "/access-requests", by, json=sent)).json()["id"]
    if approved:
        answer = await house.call("POST", f"/access-requests/{request_id}/approve", house.admin)
        assert answer.json()["status"] == "approved", answer.text
    return request_id


@WAYS
async def test_a_grant_and_a_pending_request_end(stack: House, end: Any, request: pytest.FixtureRequest) -> None:
    provider = await Provider.of(stack)
    name = f"dana.{request.node.callspec.id.lower()}"
    dana = await stack.person(name)
    granted, pending = [await _asked(stack, dana, approved=approved) for approved in (True, False)]
    await end(provider, str(dana.id))

    async def ended() -> bool:
        # Told by the API at once: nobody looks for marked requests here.
        statuses = {str((await _request(stack, each))["status"]) for each in (granted, pending)}
        return statuses == {"revoked"}

    await eventually(ended)
    for request_id in (granted, pending):
        closed = await _request(stack, request_id)
        assert (closed["status"], closed["ended_by"] or closed["decided_by"]) == ("revoked", "system:deactivated")
    assert (await _request(stack, granted))["temporary_group"] is None


async def test_no_grant_comes_back_with_somebody_who_is_active_again_at_once(stack: House) -> None:
    provider = await Provider.of(stack)
    dana = await stack.person("dana.again")
    granted = await _asked(stack, dana, approved=True)
    for active in (False, True):
        answer = await provider.send("PUT", f"/Users/{dana.id}", user("dana.again", active=active))
        assert answer.json()["active"] is active, answer.text

    async def ended() -> bool:
        return str((await _request(stack, granted))["status"]) == "revoked"

    await eventually(ended)
    token = await tokens.create_token(stack.db, dana.id, "again", timedelta(days=1))
    again = await _asked(stack, replace(dana, token=token.token), approved=True)
    assert (await _request(stack, again))["status"] == "approved"
