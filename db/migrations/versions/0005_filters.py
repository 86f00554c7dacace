"""Requests of one template in one status, and of one person by what lists filter by.

Writing waits while the indexes are made: some five seconds for a million requests.

Revision ID: 0005
Revises: 0004
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_NEWEST: list[str | sa.ColumnElement[object]] = [sa.literal_column("created_at DESC"), sa.literal_column("id DESC")]


def upgrade() -> None:
    op.create_index(
        "ix_access_requests_template_status", "access_requests", ["template_id", "status", *_NEWEST], unique=False
    )
    op.drop_index("ix_access_requests_requester", table_name="access_requests")
    op.create_index(
        "ix_access_requests_requester",
        "access_requests",
        ["requester_id", *_NEWEST],
        unique=False,
        postgresql_include=["status", "template_id", "expires_at"],
    )


def downgrade() -> None:
    op.drop_index("ix_access_requests_requester", table_name="access_requests")
    op.create_index("ix_access_requests_requester", "access_requests", ["requester_id", *_NEWEST], unique=False)
    op.drop_index("ix_access_requests_template_status", table_name="access_requests")
