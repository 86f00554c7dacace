"""Secrets: values that scripts read by name and nobody reads back, encrypted at rest.

What is sealed is bound to what it is for, such as one secret with its name: who can write to the database, and moves a
sealed value to another row or renames its row, has something that cannot be opened.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID, uuid4

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic import BaseModel, Field, SecretStr
from sqlalchemy import func
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from ciphers import NONCE_BYTES, derive
from db.database import Connection, Database
from db.paging import Page, Position, newest_first
from db.tables import ScheduledTask, Secret
from db.uniqueness import unique
from db.views import Versioned
from domain.errors import InUse, NotFound, SecretUnreadable
from domain.secrets import NewSecret, SecretChange
from domain.versions import ANY_VERSION, Expected

_PURPOSE: Final = b"justiam secrets at rest v1"
"""A key of its own for this purpose, so that no other use of the same text can stand in for it."""
_VERSION: Final = b"\x01"
_KEY_ID_BYTES: Final = 8
_HEADER_BYTES: Final = len(_VERSION) + _KEY_ID_BYTES
_ROTATED_AT_ONCE: Final = 100
_NAME_TAKEN: Final = {"uq_secrets_name": "Another secret has this name."}


class SecretVault:
    """Encrypts and decrypts what nobody may read, with AES-256-GCM under keys derived by HKDF (RFC 5869).

    The first of `encryption_keys` encrypts, all of them decrypt. Without any, the key is derived from the secret key of
    the service, which decrypts in any case: whoever sets keys of their own later finds what was sealed until then.

    What is sealed begins with a version and the id of its key, so that `header` tells what a rotation has still to do.
    """

    def __init__(self, secret_key: SecretStr, encryption_keys: Sequence[SecretStr] = ()) -> None:
        self._ciphers: dict[bytes, AESGCM] = {}
        for key in (*encryption_keys, secret_key):
            key_id, cipher = derive(key.get_secret_value(), _PURPOSE)
            self._ciphers.setdefault(_VERSION + key_id, cipher)
        self.header = next(iter(self._ciphers))
        """What everything begins with that is sealed now."""

    def seal(self, purpose_id: str, plain: str, /) -> bytes:
        """`plain`, to be opened for the same purpose only.

        Args:
            purpose_id: what it is for, such as `integration:<id>`; never two things by the same.
            plain: what nobody may read.
        """
        nonce = secrets.token_bytes(NONCE_BYTES)
        return (
            self.header
            + nonce
            + self._ciphers[self.header].encrypt(nonce, plain.encode(), _bound_to(self.header, purpose_id))
        )

    def open(self, purpose_id: str, sealed: bytes, /) -> str:
        """What was sealed for this purpose.

        Raises:
            SecretUnreadable: it was sealed under a key that is not set, or for something else.
        """
        header, rest = sealed[:_HEADER_BYTES], sealed[_HEADER_BYTES:]
        cipher = self._ciphers.get(header)
        if cipher is None:
            raise SecretUnreadable(
                f"{purpose_id} was encrypted under a key that is not among JUSTIAM_ENCRYPTION_KEYS, or under another "
                "JUSTIAM_SECRET_KEY. Set that key again, or set the value anew."
            )
        try:
            return cipher.decrypt(rest[:NONCE_BYTES], rest[NONCE_BYTES:], _bound_to(header, purpose_id)).decode()
        except (InvalidTag, ValueError):
            # Not chained: a decoding error would quote what it could not decode.
            raise SecretUnreadable(
                f"{purpose_id} was not encrypted for this: the stored value is damaged, or was moved here. Set it anew."
            ) from None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self._ciphers)} keys)"


def _bound_to(header: bytes, purpose_id: str) -> bytes:
    return header + purpose_id.encode()


class SecretView(Versioned):
    """A secret without its value. Times are UTC."""

    # `updated_at` changes with the value, which no answer shows.
    VERSIONED = frozenset({"name", "description", "updated_at"})

    name: str = Field(description="What scripts read it by.")
    description: str = Field(description="What it is for.")
    created_at: datetime
    updated_at: datetime = Field(description="When its value or description was last set.")


class Rotation(BaseModel):
    """What came of encrypting everything anew."""

    secrets: int = 0
    """Secrets that were encrypted anew."""
    integrations: int = 0
    """Integrations whose sealed values were encrypted anew."""
    unreadable: list[str] = Field(default_factory=list)
    """Why some stayed as they were: none of the keys opens them."""


async def list_secrets(db: Database, position: Position) -> Page[SecretView]:
    """All secrets without their values, newest first."""
    query = newest_first(select(Secret), position, col(Secret.created_at), col(Secret.id))
    async with db.session() as session:
        views = [_view(secret) for secret in await session.exec(query)]
    return Page.dated(views, position, lambda view: (view.created_at, view.id))


async def get(db: Database, secret_id: UUID) -> SecretView:
    """One secret without its value.

    Raises:
        NotFound: there is none with this id.
    """
    async with db.session() as session:
        secret = await session.get(Secret, secret_id)
    if secret is None:
        raise _unknown()
    return _view(secret)


async def create(db: Database, vault: SecretVault, values: NewSecret) -> SecretView:
    """Make a secret.

    Raises:
        InUse: another one has the name.
    """
    secret_id = uuid4()
    with unique(_NAME_TAKEN):
        async with db.session() as session:
            secret = Secret(
                id=secret_id,
                name=values.name,
                description=values.description,
                sealed=vault.seal(_purpose(secret_id, values.name), values.value.get_secret_value()),
            )
            session.add(secret)
            await session.flush()
            await session.refresh(secret)
            return _view(secret)


async def change(
    db: Database, vault: SecretVault, secret_id: UUID, values: SecretChange, expected: Expected = ANY_VERSION
) -> SecretView:
    """Set a secret's value, its description, or both; runs that start from then on read the new value.

    Raises:
        NotFound: there is none with this id.
        ChangedMeanwhile: it is not in an expected version.
    """
    async with db.session() as session:
        secret = await _locked(session, secret_id, expected)
        if values.value is not None:
            secret.sealed = vault.seal(_purpose(secret_id, secret.name), values.value.get_secret_value())
        if values.description is not None:
            secret.description = values.description
        secret.sqlmodel_update({"updated_at": func.now()})
        await session.flush()
        await session.refresh(secret)
        return _view(secret)


async def delete(db: Database, secret_id: UUID, expected: Expected = ANY_VERSION) -> None:
    """Delete a secret that no task reads.

    Raises:
        NotFound: there is none with this id.
        ChangedMeanwhile: it is not in an expected version.
        InUse: tasks read it; the detail names them.
    """
    async with db.session() as session:
        # Whoever has a task read it holds a lock that this one waits for, so that the task is seen below.
        secret = await _locked(session, secret_id, expected)
        reading = select(col(ScheduledTask.name)).where(col(ScheduledTask.secret_names).contains([secret.name]))
        if names := (await session.exec(reading.order_by(col(ScheduledTask.name)))).all():
            quoted = ", ".join(f"“{name}”" for name in names)
            raise InUse(f"Scheduled tasks read it: {quoted}. Change or delete them first.")
        await session.delete(secret)


async def reveal(connection: Connection, vault: SecretVault, names: Sequence[str]) -> dict[str, str]:
    """The values of secrets, by name: for scripts alone, never for people.

    Raises:
        NotFound: some do not exist; the detail names them.
        SecretUnreadable: none of the keys opens one of them.
    """
    if not names:
        return {}
    rows = await connection.execute("SELECT id, name, sealed FROM secrets WHERE name = ANY(%s)", [list(names)])
    stored = {row["name"]: row for row in await rows.fetchall()}
    if missing := [name for name in names if name not in stored]:
        raise NotFound(f"There is no secret {', '.join(missing)}.")
    return {name: vault.open(_purpose(stored[name]["id"], name), stored[name]["sealed"]) for name in names}


async def rotate(db: Database, vault: SecretVault) -> Rotation:
    """Encrypt with the first key whatever is encrypted with another; interrupted, it goes on where it was."""
    rotation = Rotation()
    rotation.secrets = await _rotate(db, vault, "secrets", "'secret:' || name || ':' || id", rotation.unreadable)
    rotation.integrations = await _rotate(db, vault, "integrations", "'integration:' || id", rotation.unreadable)
    return rotation


async def _rotate(db: Database, vault: SecretVault, table: str, purpose: str, unreadable: list[str]) -> int:
    """Encrypt anew what `table` has in `sealed`, in short transactions.

    Args:
        db: the record.
        vault: the keys.
        table: one with an `id` and `sealed`.
        purpose: what a row was sealed for, as an SQL expression.
        unreadable: gets the reasons why rows stay as they are.
    """
    changed, last = 0, UUID(int=0)
    while True:
        async with db.administration() as connection:
            # Table and expression are those written above.
            rows = await connection.execute(
                f"""
                SELECT id, {purpose} AS purpose, sealed FROM {table}
                WHERE id > %s AND substring(sealed FROM 1 FOR %s) <> %s ORDER BY id LIMIT %s FOR UPDATE
                """,
                [last, _HEADER_BYTES, vault.header, _ROTATED_AT_ONCE],
            )
            found = await rows.fetchall()
            for row in found:
                last = row["id"]
                try:
                    plain = vault.open(row["purpose"], row["sealed"])
                except SecretUnreadable as error:
                    unreadable.append(error.detail)
                    continue
                await connection.execute(
                    f"UPDATE {table} SET sealed = %s WHERE id = %s", [vault.seal(row["purpose"], plain), last]
                )
                changed += 1
        if len(found) < _ROTATED_AT_ONCE:
            return changed


async def _locked(session: AsyncSession, secret_id: UUID, expected: Expected) -> Secret:
    secret = (await session.exec(select(Secret).where(Secret.id == secret_id).with_for_update())).one_or_none()
    if secret is None:
        raise _unknown()
    expected.check(_view(secret).version)
    return secret


def _purpose(secret_id: UUID, name: str) -> str:
    return f"secret:{name}:{secret_id}"


def _view(secret: Secret) -> SecretView:
    return SecretView.model_construct(**secret.model_dump(exclude={"sealed"}))


def _unknown() -> NotFound:
    return NotFound("There is no secret with this id.")
