"""Administering integrations.

What nobody may read, a Slack URL or a signing secret, is sealed for the integration's own row: who copies the database,
or moves the value to another row, has nothing.
"""

from __future__ import annotations

import base64
import json
import secrets
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID, uuid4

from pydantic import BaseModel, Field
from sqlmodel import SQLModel, col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from db.database import Database
from db.paging import Page, Position, newest_first
from db.secrets import SecretVault
from db.tables import Application, Integration, ScheduledTask, Template
from db.uniqueness import unique
from db.views import Versioned
from domain.errors import Invalid, NotFound
from domain.events import Event
from domain.integrations import IntegrationFields, IntegrationReplacement, IntegrationValues, Role, Target
from domain.versions import ANY_VERSION, Expected

SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - what all of them start with
"""What Standard Webhooks has signing secrets start with."""
OVERLAP: Final = timedelta(hours=24)
"""How long both secrets sign after a rotation."""

_SECRET_BYTES: Final = 32
_NAME_TAKEN: Final = {"uq_integrations_name": "Another integration has this name."}
_REFERENCES: Final[tuple[tuple[str, type[SQLModel], str], ...]] = (
    ("template_id", Template, "template"),
    ("app_id", Application, "application"),
    ("task_id", ScheduledTask, "scheduled task"),
)


class IntegrationView(IntegrationFields, Versioned):
    """A binding from lifecycle events to somebody who is told of them, without its secrets."""

    # `updated_at` changes with the secrets, which no answer shows.
    VERSIONED = frozenset({*IntegrationFields.model_fields, "updated_at"})

    enabled: bool = Field(description="False: nothing is made for it, and what waits to be sent is dropped.")
    created_at: datetime
    updated_at: datetime


class NewIntegration(IntegrationView):
    """An integration as it is shown once, when it is made."""

    signing_secret: str | None = Field(
        description="`webhook`: what to verify signatures with (Standard Webhooks). Keep it like a password; it is not "
        "shown again."
    )


class NewSigningSecret(BaseModel):
    """A signing secret as it is shown once, when it is made."""

    signing_secret: str = Field(description="Keep it like a password; it is not shown again.")
    previous_valid_until: datetime = Field(description="Until then, messages are signed with the one before as well.")


async def list_integrations(db: Database, position: Position) -> Page[IntegrationView]:
    """All integrations, newest first."""
    query = newest_first(select(Integration), position, col(Integration.created_at), col(Integration.id))
    async with db.session() as session:
        views = [_view(integration) for integration in await session.exec(query)]
    return Page.dated(views, position, lambda view: (view.created_at, view.id))


async def get(db: Database, integration_id: UUID) -> IntegrationView:
    """One integration.

    Raises:
        NotFound: there is none with this id.
    """
    async with db.session() as session:
        integration = await session.get(Integration, integration_id)
    if integration is None:
        raise _unknown()
    return _view(integration)


async def create(db: Database, vault: SecretVault, values: IntegrationValues) -> NewIntegration:
    """Make an integration; a webhook gets a signing secret.

    Raises:
        Invalid: what it names is unknown, or the Slack URL is missing.
        InUse: another one has the name.
    """
    signing_secret = None
    sealed: dict[str, str] | None = None
    if values.target is Target.WEBHOOK:
        signing_secret = _new_secret()
        sealed = {"signing_secret": signing_secret}
    elif values.target is Target.SLACK:
        if values.slack_url is None:
            raise Invalid(("slack_url", "is required with target slack"))
        sealed = {"url": values.slack_url.get_secret_value()}
    integration_id = uuid4()
    with unique(_NAME_TAKEN):
        async with db.session() as session:
            await _check_references(session, values)
            integration = Integration(
                id=integration_id,
                sealed=None if sealed is None else _seal(vault, integration_id, sealed),
                **_columns(values, enabled=values.enabled),
            )
            session.add(integration)
            await session.flush()
            await session.refresh(integration)
            view = _view(integration)
    return NewIntegration.model_construct(**dict(view), signing_secret=signing_secret)


async def replace(
    db: Database,
    vault: SecretVault,
    integration_id: UUID,
    values: IntegrationReplacement,
    expected: Expected = ANY_VERSION,
) -> IntegrationView:
    """Set every value of an integration; its secrets stay, but for a Slack URL that is given.

    Where `enabled` is not given it stays, so that what was disabled is enabled only where somebody says so.

    Raises:
        NotFound: there is none with this id.
        ChangedMeanwhile: it is not in an expected version.
        Invalid: what it names is unknown, or the target would change.
        InUse: another one has the name.
    """
    with unique(_NAME_TAKEN):
        async with db.session() as session:
            integration = await _locked(session, integration_id)
            expected.check(_view(integration).version)
            if values.target != integration.target:
                raise Invalid(("target", "cannot be changed; make another integration"))
            await _check_references(session, values)
            integration.sqlmodel_update(
                {**_columns(values, enabled=integration.enabled), "updated_at": datetime.now(UTC)}
            )
            if values.slack_url is not None:
                integration.sealed = _seal(vault, integration_id, {"url": values.slack_url.get_secret_value()})
            await session.flush()
            return _view(integration)


async def delete(db: Database, integration_id: UUID, expected: Expected = ANY_VERSION) -> None:
    """Delete an integration with its deliveries; what is on its way already arrives.

    Raises:
        NotFound: there is none with this id.
        ChangedMeanwhile: it is not in an expected version.
    """
    async with db.session() as session:
        integration = await _locked(session, integration_id)
        expected.check(_view(integration).version)
        await session.delete(integration)


async def rotate_secret(db: Database, vault: SecretVault, integration_id: UUID) -> NewSigningSecret:
    """Give a webhook a new signing secret; the one before signs for a day as well, any other no more.

    Raises:
        NotFound: there is none with this id.
        Invalid: it is no webhook.
    """
    secret = _new_secret()
    until = datetime.now(UTC) + OVERLAP
    async with db.session() as session:
        integration = await _locked(session, integration_id)
        if integration.target != Target.WEBHOOK or integration.sealed is None:
            raise Invalid(("target", "only a webhook has a signing secret"))
        kept = _open(vault, integration_id, integration.sealed)
        integration.sealed = _seal(
            vault,
            integration_id,
            {
                "signing_secret": secret,
                "previous_secret": kept["signing_secret"],
                "previous_valid_until": until.isoformat(),
            },
        )
        integration.updated_at = datetime.now(UTC)
    return NewSigningSecret(signing_secret=secret, previous_valid_until=until)


async def for_sending(
    db: Database, vault: SecretVault, integration_id: UUID
) -> tuple[IntegrationView, dict[str, Any], dict[str, Any]]:
    """An integration with the settings and the secrets that sending needs.

    Raises:
        NotFound: there is none with this id.
    """
    async with db.session() as session:
        integration = await session.get(Integration, integration_id)
    if integration is None:
        raise _unknown()
    return _view(integration), integration.settings, opened(vault, integration_id, integration.sealed)


def opened(vault: SecretVault, integration_id: UUID, sealed: bytes | None) -> dict[str, Any]:
    """The secrets of an integration, as sending needs them: `url`, or `signing_secrets`, the newest first."""
    if sealed is None:
        return {}
    plain = _open(vault, integration_id, sealed)
    if "signing_secret" not in plain:
        return dict(plain)
    valid = [plain["signing_secret"]]
    if "previous_secret" in plain and datetime.fromisoformat(plain["previous_valid_until"]) > datetime.now(UTC):
        valid.append(plain["previous_secret"])
    return {"signing_secrets": valid}


def _new_secret() -> str:
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def _seal(vault: SecretVault, integration_id: UUID, plain: dict[str, str]) -> bytes:
    return vault.seal(_purpose(integration_id), json.dumps(plain))


def _open(vault: SecretVault, integration_id: UUID, sealed: bytes) -> dict[str, str]:
    plain: dict[str, str] = json.loads(vault.open(_purpose(integration_id), sealed))
    return plain


def _purpose(integration_id: UUID) -> str:
    return f"integration:{integration_id}"


def _columns(values: IntegrationReplacement, *, enabled: bool) -> dict[str, Any]:
    return {
        "name": values.name,
        "target": values.target.value,
        "enabled": enabled if values.enabled is None else values.enabled,
        "events": [event.value for event in values.events],
        "template_id": values.template_id,
        "app_id": values.app_id,
        "task_id": values.task_id,
        "settings": values.settings,
    }


async def _check_references(session: AsyncSession, values: IntegrationReplacement) -> None:
    for field, table, word in _REFERENCES:
        wanted = getattr(values, field)
        # Locked, so that it is still there when the integration is.
        if (
            wanted is not None
            and await session.get(table, wanted, with_for_update={"key_share": True, "read": True}) is None
        ):
            raise Invalid((field, f"there is no {word} with this id"))


async def _locked(session: AsyncSession, integration_id: UUID) -> Integration:
    query = select(Integration).where(Integration.id == integration_id).with_for_update()
    integration = (await session.exec(query)).one_or_none()
    if integration is None:
        raise _unknown()
    return integration


def _view(integration: Integration) -> IntegrationView:
    roles = integration.settings.get("roles")
    return IntegrationView.model_construct(
        **integration.model_dump(exclude={"target", "events", "settings", "sealed"}),
        target=Target(integration.target),
        events=[Event(event) for event in integration.events],
        url=integration.settings.get("url"),
        roles=None if roles is None else [Role(role) for role in roles],
    )


def _unknown() -> NotFound:
    return NotFound("There is no integration with this id.")
