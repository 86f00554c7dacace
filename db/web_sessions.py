"""Who is signed in to the pages: a random token in a cookie, its hash in the record."""

from __future__ import annotations

import secrets
from datetime import timedelta
from typing import Final
from uuid import UUID

from db.database import Database
from db.people import PERSON_COLUMNS, person
from db.tokens import digest
from domain.deciding import Person

LIFETIME: Final = timedelta(hours=12)
"""A working day; signing in again is one click where the issuer still knows who it is."""
_RANDOM_BYTES: Final = 32


async def begin(db: Database, user_id: UUID, issuer: str | None) -> str:
    """Sign somebody in; forgets sessions that have run out.

    Args:
        db: the record.
        user_id: who.
        issuer: who vouched for them.

    Returns:
        The token for the cookie, which is not kept.
    """
    token = secrets.token_urlsafe(_RANDOM_BYTES)
    async with db.connection() as connection:
        await connection.execute("DELETE FROM web_sessions WHERE expires_at <= now()")
        await connection.execute(
            "INSERT INTO web_sessions (token_hash, user_id, issuer, expires_at) VALUES (%s, %s, %s, now() + %s)",
            [digest(token), user_id, issuer, LIFETIME],
        )
    return token


async def holder(db: Database, token: str) -> Person | None:
    """The active person who is signed in with this token."""
    async with db.connection() as connection:
        rows = await connection.execute(
            f"""
            SELECT {PERSON_COLUMNS} FROM web_sessions s JOIN users u ON u.id = s.user_id AND u.active
            WHERE s.token_hash = %s AND s.expires_at > now()
            """,
            [digest(token)],
        )
        row = await rows.fetchone()
    return None if row is None else person(row)


async def end(db: Database, token: str) -> str | None:
    """Sign out.

    Returns:
        The issuer that vouched for the session, None where there was none.
    """
    async with db.connection() as connection:
        rows = await connection.execute(
            "DELETE FROM web_sessions WHERE token_hash = %s RETURNING issuer", [digest(token)]
        )
        row = await rows.fetchone()
    return None if row is None else row["issuer"]
