"""API tokens: random, stored hashed, named, expiring, revocable (design, section 4)."""

from __future__ import annotations

import hashlib
from typing import Final

from db.database import Database
from db.people import PERSON_COLUMNS, person
from domain.deciding import Person

PREFIX: Final = "justiam_"
"""What every token starts with, so that scanners for leaked secrets recognise it."""


def digest(token: str) -> bytes:
    """What is stored of a token: 256 random bits need no slow hash."""
    return hashlib.sha256(token.encode(errors="replace")).digest()


async def authenticate(db: Database, token: str) -> Person | None:
    """The active person that a token stands for; None where it is unknown, expired or revoked.

    Notes that the token was used, at most once a minute: reading must not write each time.
    """
    async with db.connection() as connection:
        rows = await connection.execute(
            f"""
            SELECT {PERSON_COLUMNS}, t.id AS token_id,
                   t.last_used_at IS NULL OR t.last_used_at < now() - interval '1 minute' AS unnoted
            FROM api_tokens t JOIN users u ON u.id = t.user_id AND u.active
            WHERE t.token_hash = %s AND t.revoked_at IS NULL AND (t.expires_at IS NULL OR t.expires_at > now())
            """,
            [digest(token)],
        )
        row = await rows.fetchone()
        if row is None:
            return None
        if row["unnoted"]:
            await connection.execute(
                # Of many calls at once one writes it, and none waits for another.
                """
                UPDATE api_tokens SET last_used_at = now() WHERE id = (
                    SELECT id FROM api_tokens
                    WHERE id = %s AND (last_used_at IS NULL OR last_used_at < now() - interval '1 minute')
                    FOR UPDATE SKIP LOCKED
                )
                """,
                [row["token_id"]],
            )
    return person(row)
