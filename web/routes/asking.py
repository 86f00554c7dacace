"""For who asks: what there is, the form, their requests and their access."""

from __future__ import annotations

import re
from typing import Annotated, Final
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import ValidationError
from starlette.datastructures import FormData
from starlette.responses import Response

from api import lifecycle
from api.reading import Paging, Reading
from api.resources import AppSettings, Db, Temporal
from db import offers, requests, submission, web_sessions
from db.database import Connection
from db.offers import Offer
from db.paging import Position
from domain.custom_fields import FieldType
from domain.deciding import Person
from domain.errors import Invalid, NotFound, PendingRequestExists
from domain.states import Status
from domain.submission import Submission
from domain.text import FilterText
from web import reading
from web.authentication import Form
from web.rendering import by_field
from web.resources import Jar, Trusted, Visit
from web.routes.sign_in import farewell

router = APIRouter()

_MOST_GRANTS: Final = 50


@router.get("/")
async def catalogue(
    visit: Visit,
    connection: Reading,
    sought: Annotated[FilterText, Query(alias="q")] = "",
) -> Response:
    """What I have at this moment, and what I may ask for."""
    active = await requests.list_active(connection, visit.person, Position(_MOST_GRANTS))
    listed = await offers.list_offers(connection, visit.person, sought.strip())
    return await visit.show("catalogue.html", active=active.items, offers=listed, sought=sought.strip())


@router.get("/ask/{template_id}")
async def form(
    visit: Visit,
    connection: Reading,
    settings: AppSettings,
    template_id: UUID,
) -> Response:
    """The form for one template."""
    offer = await _offer(connection, visit.person, template_id)
    return await visit.show("ask.html", offer=offer, given={}, longest_mins=settings.max_duration_mins, made=None)


@router.post("/ask/{template_id}")
async def ask(
    visit: Visit,
    db: Db,
    temporal: Temporal,
    settings: AppSettings,
    sent: Form,
    template_id: UUID,
) -> Response:
    """Submit a request; a form that made one before says so instead."""
    key = reading.text(sent, "once") or None
    async with db.connection() as connection:
        offer = await _offer(connection, visit.person, template_id)
        made_id = await submission.made_with(connection, visit.person, key) if key else None
        made = (await lifecycle.readable(connection, made_id, visit.person))[0] if made_id else None
    if made is not None and made.status is Status.PENDING:
        return visit.back(
            f"/requests/{made.id}", "This form was sent before and made this request. Nothing was sent again."
        )
    if made is not None:
        # The form stays filled, for those who want to ask anew; it has another key.
        return await visit.show(
            "ask.html", status=409, offer=offer, given=sent, longest_mins=settings.max_duration_mins, made=made
        )
    try:
        view = await lifecycle.submit(
            db,
            temporal,
            visit.person,
            _submission(offer, sent),
            longest_mins=settings.max_duration_mins,
            idempotency_key=key,
        )
    except (Invalid, PendingRequestExists) as error:
        async with db.connection() as connection:
            offer = await _offer(connection, visit.person, template_id)
        invalid = isinstance(error, Invalid)
        return await visit.show(
            "ask.html",
            status=422 if invalid else 409,
            offer=offer,
            given=sent,
            longest_mins=settings.max_duration_mins,
            errors=by_field(error) if isinstance(error, Invalid) else {"": error.detail},
            made=None,
        )
    said = "Your request was granted automatically." if offer.auto_approve else "Your request was sent."
    return visit.back(f"/requests/{view.id}", said)


@router.get("/requests")
async def mine(visit: Visit, connection: Reading, position: Paging) -> Response:
    """My requests in every state."""
    listed = await requests.list_mine(connection, visit.person, position)
    return await visit.show("mine.html", requests=listed)


@router.post("/sign-out")
async def sign_out(visit: Visit, jar: Jar, db: Db, settings: AppSettings, issuers: Trusted, _: Form) -> Response:
    """End the session, here, in the record and at the issuer that vouched for it."""
    issuer = await web_sessions.end(db, visit.request.state.session)
    elsewhere = await farewell(issuers, settings, issuer)
    if elsewhere is None:
        response = visit.back("/sign-in", "You are signed out.")
    else:
        # A page, not a redirect: the policy of our pages lets no form lead elsewhere.
        response = visit.pages.leading_away(visit.request, "signed_out.html", elsewhere=elsewhere)
    jar.end_session(response)
    return response


async def _offer(connection: Connection, person: Person, template_id: UUID) -> Offer:
    offer = await offers.get_offer(connection, person, template_id)
    if offer is None:
        raise NotFound("There is no such template, or it is for members of groups that you are not in.")
    return offer


def _submission(offer: Offer, sent: FormData) -> Submission:
    try:
        return Submission.model_validate(
            {
                "template_id": offer.id,
                "requested_duration_mins": _minutes(sent),
                "justification": reading.content(sent, "justification"),
                "custom_answers": {
                    field.key: _answer(field.type, f"field.{field.key}", sent) for field in offer.custom_fields
                },
            }
        )
    except ValidationError as error:
        raise reading.invalid(error) from error


def _minutes(sent: FormData) -> int:
    """What was chosen; where any duration may be asked for, a number and its unit."""
    number, unit = reading.text(sent, "duration"), reading.text(sent, "unit") or "1"
    if not re.fullmatch("[0-9]{1,7}", number) or unit not in {"1", "60", "1440"}:
        raise Invalid(("requested_duration_mins", "choose how long you need it, as a whole number"))
    return int(number) * int(unit)


def _answer(kind: FieldType, name: str, sent: FormData) -> str | list[str] | bool | None:
    match kind:
        case FieldType.CHECKBOX:
            return name in sent
        case FieldType.MULTI_SELECT:
            return [value for value in sent.getlist(name) if isinstance(value, str)] or None
        case FieldType.TEXT | FieldType.TEXTAREA | FieldType.SELECT:
            return reading.content(sent, name) or None
