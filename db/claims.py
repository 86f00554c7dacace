"""What people hold at this moment: groups and claims (specification, Expiry Enforcement; design, section 4).

`expires_at > now()` and `active` are judged here, in SQL, so that a grant that is over is over even if every worker is
down.
"""

from __future__ import annotations

from typing import Final
from uuid import UUID

from db.database import Connection
from db.people import not_deactivated_since

_ASKED_FOR: Final = "(SELECT asked.created_at FROM access_requests asked WHERE asked.id = g.request_id)"
OUTLASTS: Final = f"""
    (g.expires_at IS NULL OR (g.expires_at > now() AND {not_deactivated_since(_ASKED_FOR)}))
"""
"""Whether a group `g` still brings something to its member `u`: a grant ends with its time, and with a deactivation,
also of somebody who is active again before the workflow has looked. What counts is when it was asked for: an approval
may have begun before the deactivation was committed, and be the later one all the same."""


async def get_groups(connection: Connection, user_id: UUID) -> list[dict[str, object]]:
    """The groups of a person, temporary ones included while they last: id, name, system, expires_at."""
    rows = await connection.execute(
        f"""
        SELECT g.id, g.name, g.system, g.expires_at
        FROM group_members m JOIN users u ON u.id = m.user_id AND u.active JOIN groups g ON g.id = m.group_id
        WHERE m.user_id = %s AND {OUTLASTS}
        ORDER BY g.name
        """,
        [user_id],
    )
    return await rows.fetchall()


HELD: Final = f"""
    SELECT a.claim, a.value, g.id AS group_id, g.expires_at
    FROM group_members m
    JOIN users u ON u.id = m.user_id AND u.active
    JOIN groups g ON g.id = m.group_id AND {OUTLASTS}
    JOIN app_mapping_groups l ON l.group_id = g.id
    JOIN app_mappings a ON a.id = l.mapping_id
    WHERE m.user_id = %(user_id)s
"""
"""What a person holds at this moment: each value of a claim with the group it comes from and that group's end. To be
narrowed to one application with `AND a.app_id = …`."""


async def get_effective_mapping_values(connection: Connection, user_id: UUID, app_id: UUID) -> dict[str, list[str]]:
    """The claims of a person for one application: each claim's values, sorted, each once."""
    rows = await connection.execute(
        f"""
        SELECT held.claim, array_agg(DISTINCT held.value ORDER BY held.value) AS values
        FROM ({HELD} AND a.app_id = %(app_id)s) AS held
        GROUP BY held.claim ORDER BY held.claim
        """,
        {"user_id": user_id, "app_id": app_id},
    )
    return {row["claim"]: row["values"] for row in await rows.fetchall()}
