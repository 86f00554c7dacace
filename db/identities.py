"""Who somebody is to OpenID Connect issuers: issuer and subject name a person (OpenID Connect Core, section 5.7)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import psycopg
from pydantic import BaseModel

from db import people
from db.database import Connection, Database
from db.people import PERSON_COLUMNS, person
from db.requests import PersonView
from domain.deciding import Person
from domain.errors import InUse, NotFound


@dataclass(frozen=True)
class Identity:
    """What a valid token of an issuer says about who somebody is."""

    issuer: str
    subject: str
    linking_email: str | None = None
    """An address that the issuer has verified and that may link an account; None: none may."""


class IdentityView(BaseModel):
    """An account and one of its names at an issuer."""

    issuer: str
    subject: str
    user: PersonView
    created_at: datetime


async def authenticate(db: Database, identity: Identity) -> Person | None:
    """The active person with this identity.

    A subject that is not known yet is linked for good to the account with its verified address, where the issuer is
    trusted with that: a person's, active, and without another subject of the same issuer. So an address that passes to
    somebody else at the issuer does not take the account along, and a later change of the address changes nothing.
    """
    async with db.connection() as connection:
        found = await _person(connection, identity)
        if found is None and identity.linking_email is not None:
            await _link_by_email(connection, identity)
            # Also where another call for the same subject was faster.
            found = await _person(connection, identity)
    return found if found is not None and found.active else None


async def link(db: Database, user: str, issuer: str, subject: str) -> None:
    """Name an account by a subject of an issuer.

    Args:
        db: the record.
        user: id or email address of the account.
        issuer: as it stands in `iss`.
        subject: as it stands in `sub`.

    Raises:
        NotFound: there is no such account.
        InUse: the subject names another account, or the account has another subject of this issuer.
    """
    async with db.connection() as connection:
        account = await people.find(connection, user)
        if account is None:
            raise NotFound(f"There is no user {user}.")
        try:
            await connection.execute(
                "INSERT INTO user_identities (issuer, subject, user_id) VALUES (%s, %s, %s)",
                [issuer, subject, account.id],
            )
        except psycopg.errors.UniqueViolation as error:
            raise InUse(
                "The subject names an account already, or the account has a subject of this issuer. Unlink it first."
            ) from error


async def unlink(db: Database, issuer: str, subject: str) -> None:
    """Forget an identity.

    Raises:
        NotFound: it names no account.
    """
    async with db.connection() as connection:
        deleted = await connection.execute(
            "DELETE FROM user_identities WHERE issuer = %s AND subject = %s", [issuer, subject]
        )
    if not deleted.rowcount:
        raise NotFound("This subject of this issuer names no account.")


async def list_identities(db: Database, user: str) -> list[IdentityView]:
    """The identities of an account.

    Raises:
        NotFound: there is no such account.
    """
    async with db.connection() as connection:
        account = await people.find(connection, user)
        if account is None:
            raise NotFound(f"There is no user {user}.")
        rows = await connection.execute(
            "SELECT issuer, subject, created_at FROM user_identities WHERE user_id = %s ORDER BY issuer", [account.id]
        )
        view = PersonView(id=account.id, email=account.email, name=account.name)
        return [IdentityView(**row, user=view) for row in await rows.fetchall()]


async def _person(connection: Connection, identity: Identity) -> Person | None:
    rows = await connection.execute(
        f"""
        SELECT {PERSON_COLUMNS} FROM user_identities i JOIN users u ON u.id = i.user_id
        WHERE i.issuer = %s AND i.subject = %s
        """,
        [identity.issuer, identity.subject],
    )
    row = await rows.fetchone()
    return None if row is None else person(row)


async def _link_by_email(connection: Connection, identity: Identity) -> None:
    await connection.execute(
        """
        INSERT INTO user_identities (issuer, subject, user_id)
        SELECT %(issuer)s, %(subject)s, id FROM users
        WHERE lower(email) = lower(%(email)s) AND active AND owner_id IS NULL
          -- In any case, but of ASCII alone: the Kelvin sign is a k in lower case, and its mailbox somebody else's.
          AND lower(email COLLATE "C") = lower(%(email)s COLLATE "C")
        ON CONFLICT DO NOTHING
        """,
        {"issuer": identity.issuer, "subject": identity.subject, "email": identity.linking_email},
    )
