"""Requests for one application in the order in which lists show them.

Writing waits while the index is made: some seconds for a million requests.

Revision ID: 0007
Revises: 0006
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_index("ix_access_requests_app", table_name="access_requests")
    op.create_index(
        "ix_access_requests_app",
        "access_requests",
        ["app_id", sa.literal_column("created_at DESC"), sa.literal_column("id DESC")],
        unique=False,
    )


def downgrade() -> None:
    op.drop_index("ix_access_requests_app", table_name="access_requests")
    op.create_index("ix_access_requests_app", "access_requests", ["app_id"], unique=False)
