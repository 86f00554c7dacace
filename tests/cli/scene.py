"""Whom and what a test of the command line is about."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from db.templates import TemplateView
from domain.states import Action
from tests.api.house import House, Somebody

FIELDS = [
    {"label": "Ticket", "type": "text", "required": True},
    {"label": "Plan", "type": "textarea"},
    {"label": "Region", "type": "select", "options": ["eu-west", "eu-north"], "required": True},
    {"label": "Tables", "type": "multi_select", "options": ["users", "orders, old"]},
    {"label": "Careful", "type": "checkbox", "required": True},
]


class Scene:
    """People and a template of a test's own."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.mark = uuid4().hex[:8]
        self.alice: Somebody
        self.bob: Somebody
        self.template: TemplateView

    async def set(self, **values: Any) -> Scene:
        self.alice = await self.house.person(f"alice-{self.mark}")
        self.bob = await self.house.person(f"bob-{self.mark}")
        team = await self.house.group(f"dba_team {self.mark}", self.bob)
        app = await self.house.application(f"Internal DB {self.mark}")
        mapping = await self.house.mapping(app.id)
        defaults = {
            "name": f"Read {self.mark}",
            "app_id": app.id,
            "mapping_ids": [mapping.id],
            "approver_group_ids": [team.id],
            "allowed_durations": [60, 480],
        }
        self.template = await self.house.template(**defaults | values)
        return self

    @property
    def slug(self) -> str:
        return f"read-{self.mark}"

    async def request(self) -> UUID:
        return await self.house.request(self.template, self.alice)

    async def granted(self, *, at: datetime | None = None) -> UUID:
        request_id = await self.request()
        await self.house.decide(request_id, Action.APPROVE, self.bob, at=at)
        return request_id
