"""Integrations, and what came of their deliveries."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID, uuid4

import structlog
from fastapi import APIRouter, Path, Response

from api.authentication import TasksManager
from api.problems import refusals
from api.reading import Paging, Reading
from api.resources import AppSettings, Db, Secrets
from api.versions import IfMatch, tagged
from db import deliveries, integrations
from db.deliveries import DeliveryView
from db.integrations import IntegrationView, NewIntegration, NewSigningSecret
from db.paging import Page
from deliveries.addresses import Refused, place_of
from deliveries.samples import role_of, sample
from deliveries.sending import send
from domain.deliveries import Attempt, Contact
from domain.errors import Invalid
from domain.integrations import IntegrationReplacement, IntegrationValues, Role, Target
from settings import Settings

_log = structlog.get_logger(__name__)

router = APIRouter(prefix="/integrations", tags=["Integrations"])

IntegrationId = Annotated[UUID, Path(description="Id of the integration.")]
DeliveryId = Annotated[UUID, Path(description="Id of one of its deliveries.")]


@router.get("", summary="List integrations", responses=refusals("forbidden"))
async def list_integrations(database: Db, _: TasksManager, position: Paging) -> Page[IntegrationView]:
    """Needs `tasks.manage`. All integrations, newest first."""
    return await integrations.list_integrations(database, position)


@router.get("/{integration_id}", summary="Get an integration", responses=refusals("forbidden", "not_found"))
async def get_integration(
    database: Db, _: TasksManager, integration_id: IntegrationId, response: Response
) -> IntegrationView:
    """Needs `tasks.manage`. One integration, without its secrets."""
    return tagged(response, await integrations.get(database, integration_id))


@router.post("", summary="Create an integration", status_code=201, responses=refusals("forbidden", "in_use"))
async def create_integration(
    database: Db,
    vault: Secrets,
    settings: AppSettings,
    caller: TasksManager,
    values: IntegrationValues,
    response: Response,
) -> NewIntegration:
    """Needs `tasks.manage`. A webhook gets a signing secret; the answer is the only time it is shown."""
    _check_urls(values, settings)
    made = await integrations.create(database, vault, values)
    _log.info("integration_created", integration_id=str(made.id), target=made.target.value, by=str(caller.id))
    response.headers["Location"] = f"/api/v1/integrations/{made.id}"
    return tagged(response, made)


@router.put(
    "/{integration_id}",
    summary="Update an integration",
    responses=refusals("forbidden", "not_found", "in_use", "changed_meanwhile"),
)
async def update_integration(  # noqa: PLR0917 - what FastAPI brings
    database: Db,
    vault: Secrets,
    settings: AppSettings,
    caller: TasksManager,
    integration_id: IntegrationId,
    values: IntegrationReplacement,
    expected: IfMatch,
    response: Response,
) -> IntegrationView:
    """Needs `tasks.manage`.

    Replaces all values. Secrets stay as they are, but for a `slack_url` that is given, and so does `enabled` where it
    is left out.
    """
    _check_urls(values, settings)
    view = await integrations.replace(database, vault, integration_id, values, expected)
    _log.info("integration_changed", integration_id=str(integration_id), by=str(caller.id))
    return tagged(response, view)


@router.delete(
    "/{integration_id}",
    summary="Delete an integration",
    status_code=204,
    responses=refusals("forbidden", "not_found", "changed_meanwhile"),
)
async def delete_integration(
    database: Db, caller: TasksManager, integration_id: IntegrationId, expected: IfMatch
) -> None:
    """Needs `tasks.manage`. Its deliveries go with it; disable it to keep them."""
    await integrations.delete(database, integration_id, expected)
    _log.info("integration_deleted", integration_id=str(integration_id), by=str(caller.id))


@router.post(
    "/{integration_id}/rotate-secret",
    summary="Make a new signing secret",
    status_code=201,
    responses=refusals("forbidden", "not_found", "secret_unreadable"),
)
async def rotate_integration_secret(
    database: Db, vault: Secrets, caller: TasksManager, integration_id: IntegrationId
) -> NewSigningSecret:
    """Needs `tasks.manage`; for webhooks. For 24 hours messages are signed with the secret before as well.

    The answer is the only time that the new one is shown.
    """
    made = await integrations.rotate_secret(database, vault, integration_id)
    _log.info("signing_secret_rotated", integration_id=str(integration_id), by=str(caller.id))
    return made


@router.post(
    "/{integration_id}/test",
    summary="Send a sample event",
    responses=refusals("forbidden", "not_found", "secret_unreadable"),
)
async def test_integration(
    database: Db, vault: Secrets, settings: AppSettings, caller: TasksManager, integration_id: IntegrationId
) -> Attempt:
    """Needs `tasks.manage`. Sends the first of its events, of a request that does not exist, once and at once.

    The answer says what came of it; nothing is recorded. A mail goes to the caller. A task is tried by running it.
    """
    view, chosen, secrets = await integrations.for_sending(database, vault, integration_id)
    if view.target is Target.TASK:
        raise Invalid(("target", "a task is tried by running it, not by sending something"))
    event = view.events[0]
    envelope = sample(event, uuid4(), datetime.now(UTC), Contact(email=caller.email, name=caller.name))
    return await send(
        view.target,
        chosen,
        secrets,
        envelope,
        recipient=caller.email,
        role=role_of(event, view.roles or list(Role)),
        policy=settings.outbound,
    )


@router.get("/{integration_id}/deliveries", summary="List deliveries", responses=refusals("forbidden", "not_found"))
async def list_deliveries(
    _: TasksManager, connection: Reading, integration_id: IntegrationId, position: Paging
) -> Page[DeliveryView]:
    """Needs `tasks.manage`. What was sent or is to be, newest first. A task has runs instead."""
    return await deliveries.list_deliveries(connection, integration_id, position)


@router.post(
    "/{integration_id}/deliveries/{delivery_id}/redeliver",
    summary="Deliver again",
    responses=refusals("forbidden", "not_found"),
)
async def redeliver(
    caller: TasksManager, connection: Reading, integration_id: IntegrationId, delivery_id: DeliveryId
) -> DeliveryView:
    """Needs `tasks.manage`. It is sent within seconds, with the id that it had, and repeated for a day as at first."""
    view = await deliveries.redeliver(connection, integration_id, delivery_id)
    _log.info("redelivery_demanded", delivery_id=str(delivery_id), by=str(caller.id))
    return view


def _check_urls(values: IntegrationReplacement, settings: Settings) -> None:
    """Say now what every attempt would say.

    Raises:
        Invalid: a message may not go there.
    """
    allowed = settings.outbound.allowed_internal_hosts
    slack_url = values.slack_url.get_secret_value() if values.slack_url else None
    for field, url in (("url", values.url), ("slack_url", slack_url)):
        if url is not None:
            try:
                place_of(url, allowed)
            except Refused as refused:
                raise Invalid((field, str(refused).removesuffix("."))) from None
