"""Who is signed in to the pages: a random token in a cookie, its hash in the record."""

from __future__ import annotations

import secrets
from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from db.database import Connection, Database
from db.people import PERSON_COLUMNS, person, still_counts
from db.tokens import digest
from domain.deciding import Person
from domain.errors import Unauthenticated

LIFETIME: Final = timedelta(hours=12)
"""A working day; signing in again is one click where the issuer still knows who it is."""
_RANDOM_BYTES: Final = 32
_COUNTS: Final = f"s.expires_at > now() AND {still_counts('s.created_at')}"
"""Whether a session `s` of a user `u` still counts."""


async def begin(db: Database, user_id: UUID, issuer: str | None, *, since: datetime | None = None) -> str:
    """Sign somebody in; forgets sessions that have run out.

    Args:
        db: the record.
        user_id: who.
        issuer: who vouched for them.
        since: when the sign-in began; None: now. The session counts as issued then: a deactivation during the sign-in
            ends it.

    Returns:
        The token for the cookie, which is not kept.

    Raises:
        Unauthenticated: the account is deactivated, or was since the sign-in began.
    """
    token = secrets.token_urlsafe(_RANDOM_BYTES)
    async with db.connection() as connection:
        await connection.execute("DELETE FROM web_sessions WHERE expires_at <= now()")
        begun = await connection.execute(
            f"""
            INSERT INTO web_sessions (token_hash, user_id, issuer, created_at, expires_at)
            SELECT %(hash)s, u.id, %(issuer)s, least(%(since)s, now()), now() + %(lifetime)s
            FROM users u WHERE u.id = %(user_id)s AND {still_counts("least(%(since)s, now())")}
            FOR SHARE OF u
            """,
            {"hash": digest(token), "issuer": issuer, "since": since, "lifetime": LIFETIME, "user_id": user_id},
        )
    if begun.rowcount == 0:
        raise Unauthenticated("Your account was deactivated since you began to sign in. Start again.")
    return token


async def holder(db: Database, token: str) -> Person | None:
    """The active person who is signed in with this token."""
    async with db.connection() as connection:
        rows = await connection.execute(
            f"""
            SELECT {PERSON_COLUMNS} FROM web_sessions s JOIN users u ON u.id = s.user_id
            WHERE s.token_hash = %s AND {_COUNTS}
            """,
            [digest(token)],
        )
        row = await rows.fetchone()
    return None if row is None else person(row)


async def holders(connection: Connection, tokens: Collection[str]) -> dict[str, Person]:
    """Return the active people who are signed in with these tokens, by token. Tokens that do not count are left out."""
    by_digest = {digest(token): token for token in tokens}
    rows = await connection.execute(
        f"""
        SELECT s.token_hash, {PERSON_COLUMNS} FROM web_sessions s JOIN users u ON u.id = s.user_id
        WHERE s.token_hash = ANY(%s) AND {_COUNTS}
        """,
        [list(by_digest)],
    )
    return {by_digest[bytes(row["token_hash"])]: person(row) for row in await rows.fetchall()}


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
