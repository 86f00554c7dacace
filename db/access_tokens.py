"""Access tokens that were issued for applications (design, section 4): recorded, looked up, revoked, forgotten."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import psycopg

from db.claims import HELD, OUTLASTS, get_effective_mapping_values
from db.database import Database
from db.people import still_counts
from db.signing_keys import SIGNING_KID

_FORGOTTEN_AT_ONCE: Final = 20_000
"""Rows that one clean-up deletes at most: a fraction of a second."""

_ISSUE: Final = f"""
    WITH app AS (SELECT id FROM applications WHERE client_id = %(client_id)s),
    -- Locked, as `people.still_counts` requires. After waiting for a deactivation, the lock reads the changed row.
    holder AS (SELECT u.id FROM users u WHERE u.id = %(user_id)s AND {still_counts("now()")} FOR SHARE OF u),
    held AS (
        {HELD} AND a.app_id = (SELECT id FROM app)
        -- `exp` is in whole seconds: in its last, unfinished one a grant gives nothing.
        AND (g.expires_at IS NULL OR date_trunc('second', g.expires_at) > now())
        AND (%(names)s::text[] IS NULL OR a.claim = ANY(%(names)s))
    ),
    validity AS (
        SELECT date_trunc('second', now()) AS issued_at,
               -- `least` passes over what is null: groups that do not end.
               least(date_trunc('second', now()) + %(lifetime)s, date_trunc('second', %(until)s::timestamptz),
                     (SELECT date_trunc('second', min(expires_at)) FROM held)) AS expires_at
    ),
    recorded AS (
        INSERT INTO access_tokens (jti, user_id, app_id, group_ids, issued_at, expires_at)
        SELECT %(jti)s, holder.id, app.id, ARRAY(SELECT DISTINCT group_id FROM held), now(), validity.expires_at
        FROM app, holder, validity
        WHERE (%(names)s::text[] IS NULL OR EXISTS (SELECT FROM held)) AND validity.expires_at > validity.issued_at
        RETURNING jti
    )
    SELECT validity.*,
           -- Without waiting for the disk: a token whose row a crash loses is refused at introspection, and asked for
           -- anew.
           set_config('synchronous_commit', 'off', true),
           EXISTS (SELECT FROM app) AS known, EXISTS (SELECT FROM recorded) AS issued,
           EXISTS (SELECT FROM holder) AND validity.expires_at > validity.issued_at AS lasts,
           ({SIGNING_KID}) AS kid,
           (SELECT coalesce(jsonb_object_agg(claim, listed ORDER BY claim), '{{}}')
            FROM (SELECT claim, jsonb_agg(DISTINCT value ORDER BY value) AS listed FROM held GROUP BY claim) AS c
           ) AS claims
    FROM validity
"""


class NoSuchAudience(Exception):
    """No application has this client id."""


class NothingInScope(Exception):
    """Of the claims that were asked for by name, the person holds none."""


class SubjectEnded(Exception):
    """The token that was to be exchanged ends at this moment, or its holder was deactivated at this moment."""


@dataclass(frozen=True)
class Recorded:
    """What a token that was just recorded may say."""

    claims: dict[str, list[str]]
    issued_at: datetime
    expires_at: datetime
    kid: str | None
    """The key to sign it with; None: there is none yet."""


@dataclass(frozen=True)
class Holder:
    """Whose token it is that still counts."""

    email: str
    values: dict[str, list[str]]
    """The claims that its holder has for the application now."""


async def record(
    db: Database,
    jti: UUID,
    user_id: UUID,
    client_id: str,
    lifetime: timedelta,
    names: Sequence[str] | None,
    *,
    until: datetime | None,
) -> Recorded:
    """Decide what a token says, and note that it was issued.

    Args:
        db: the record.
        jti: the token's id.
        user_id: whom it is for.
        client_id: the application it is for.
        lifetime: how long it is valid at most; it never outlasts a grant that it draws on.
        names: the claims it is to carry; None: all that the person holds.
        until: when the token that is exchanged ends, and with it the new one at the latest; None: never.

    Raises:
        NoSuchAudience: there is no such application.
        SubjectEnded: `until` has come, or the person was deactivated at this moment.
        NothingInScope: `names` has nothing that the person holds.
    """
    parameters = {
        "jti": jti,
        "user_id": user_id,
        "client_id": client_id,
        "lifetime": lifetime,
        "names": None if names is None else list(names),
        "until": until,
    }
    try:
        row = await _insert(db, parameters)
    except psycopg.errors.ForeignKeyViolation as error:
        # Deleted at this moment.
        raise NoSuchAudience from error
    if row is None or not row["known"]:
        raise NoSuchAudience
    if not row["lasts"]:
        raise SubjectEnded
    if not row["issued"]:
        raise NothingInScope
    return Recorded(row["claims"], row["issued_at"], row["expires_at"], row["kid"])


async def holder(db: Database, jti: UUID, app_id: UUID) -> Holder | None:
    """Whose token this is; None where it does not count any more, or was issued for another application.

    It counts until it expires or is revoked, its holder is deactivated, leaves one of the groups that it draws on, or
    one of these, a grant, ends. It does not count again after its holder is active again or joins the group again.
    """
    async with db.connection() as connection:
        rows = await connection.execute(
            f"""
            SELECT u.id, u.email
            FROM access_tokens t JOIN users u ON u.id = t.user_id
            WHERE t.jti = %(jti)s AND t.app_id = %(app_id)s AND t.expires_at > now()
              AND {still_counts("t.issued_at")} AND NOT EXISTS (
                SELECT FROM unnest(t.group_ids) AS drawn_on (group_id) WHERE NOT EXISTS (
                    SELECT FROM group_members m JOIN groups g ON g.id = m.group_id
                    WHERE m.group_id = drawn_on.group_id AND m.user_id = t.user_id AND m.created_at <= t.issued_at
                      AND {OUTLASTS}
                )
            )
            """,
            {"jti": jti, "app_id": app_id},
        )
        row = await rows.fetchone()
        if row is None:
            return None
        return Holder(row["email"], await get_effective_mapping_values(connection, row["id"], app_id))


async def revoke(db: Database, jti: UUID, app_id: UUID) -> bool:
    """End a token at once.

    Returns:
        Whether there was one.
    """
    async with db.connection() as connection:
        deleted = await connection.execute("DELETE FROM access_tokens WHERE jti = %s AND app_id = %s", [jti, app_id])
        return deleted.rowcount > 0


async def forget_expired(db: Database) -> int:
    """Delete the rows of tokens that have expired. Several may do it at once.

    Returns:
        How many there were.
    """
    async with db.connection() as connection:
        deleted = await connection.execute(
            """
            DELETE FROM access_tokens WHERE jti IN (
                SELECT jti FROM access_tokens WHERE expires_at <= now()
                ORDER BY expires_at LIMIT %s FOR UPDATE SKIP LOCKED
            )
            """,
            [_FORGOTTEN_AT_ONCE],
        )
        return deleted.rowcount


async def _insert(db: Database, parameters: dict[str, object]) -> dict[str, Any] | None:
    async with db.connection() as connection:
        return await (await connection.execute(_ISSUE, parameters)).fetchone()
