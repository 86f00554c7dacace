"""What somebody may ask for: templates with everything that a person choosing among them wants to know."""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

from pydantic import BaseModel, Field

from db.database import Connection
from db.folding import within
from db.requests import GroupRef
from domain.custom_fields import CustomField
from domain.deciding import Person, may_ask
from domain.templates import GrantedMapping
from domain.text import STORED

MOST: Final = 500
"""Templates that are looked at; a catalogue that is longer is searched."""


class Offer(BaseModel):
    """A template as a requester sees it."""

    id: UUID
    name: str
    description: str
    app_name: str
    mappings: list[GrantedMapping]
    allowed_durations: list[int]
    require_justification: bool
    auto_approve: bool
    custom_fields: list[CustomField]
    approver_groups: list[GroupRef] = Field(description="Empty: administrators decide.")
    escalation_after_mins: int | None
    escalation_group: str | None
    pending_request_id: UUID | None = Field(description="This person's request for it that waits for a decision.")
    active_request_id: UUID | None = Field(description="This person's grant of it that lasts.")


_OFFER: Final = """
    SELECT t.id, t.name, t.description, t.allowed_durations, t.require_justification, t.auto_approve, t.custom_fields,
           t.escalation_after_mins, t.allowed_group_ids, a.name AS app_name,
           (SELECT g.name FROM groups g WHERE g.id = t.escalation_group_id) AS escalation_group,
           (SELECT coalesce(json_agg(json_build_object('id', m.id, 'name', m.name, 'claim', m.claim, 'value', m.value)
                                     ORDER BY array_position(t.mapping_ids, m.id)), '[]')
            FROM app_mappings m WHERE m.id = ANY(t.mapping_ids)) AS mappings,
           (SELECT coalesce(json_agg(json_build_object('id', g.id, 'name', g.name)
                                     ORDER BY array_position(t.approver_group_ids, g.id)), '[]')
            FROM groups g WHERE g.id = ANY(t.approver_group_ids)) AS approver_groups,
           (SELECT r.id FROM access_requests r
            WHERE r.template_id = t.id AND r.requester_id = %(person_id)s AND r.status = 'pending')
               AS pending_request_id,
           (SELECT r.id FROM access_requests r
            WHERE r.template_id = t.id AND r.requester_id = %(person_id)s AND r.status = 'approved'
              AND r.expires_at > now() LIMIT 1) AS active_request_id
    FROM access_request_templates t JOIN applications a ON a.id = t.app_id
"""


async def list_offers(connection: Connection, person: Person, sought: str = "") -> list[Offer]:
    """What this person may ask for, by application and name.

    Args:
        connection: the record.
        person: who asks.
        sought: part of a template's or an application's name or of its description, in any case.
    """
    rows = await connection.execute(
        f"""
        {_OFFER}
        WHERE folded_name(concat_ws(' ', t.name, a.name, t.description)) LIKE folded_name(%(sought)s)
        ORDER BY folded_name(a.name), folded_name(t.name), t.id LIMIT {MOST}
        """,
        {"person_id": person.id, "sought": within(sought)},
    )
    return [Offer.model_validate(row, context=STORED) for row in await rows.fetchall() if _is_for(person, row)]


async def get_offer(connection: Connection, person: Person, template_id: UUID) -> Offer | None:
    """One of them; None where there is no such template, or it is for others."""
    rows = await connection.execute(f"{_OFFER} WHERE t.id = %(id)s", {"person_id": person.id, "id": template_id})
    row = await rows.fetchone()
    return Offer.model_validate(row, context=STORED) if row is not None and _is_for(person, row) else None


def _is_for(person: Person, row: dict[str, Any]) -> bool:
    return may_ask(person, frozenset(row["allowed_group_ids"]))
