"""Secrets: listed newest first, and found by the tasks that read them.

Revision ID: 0004
Revises: 0003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(
        "ix_scheduled_tasks_secret_names", "scheduled_tasks", ["secret_names"], unique=False, postgresql_using="gin"
    )
    op.create_index(
        "ix_secrets_created",
        "secrets",
        [sa.literal_column("created_at DESC"), sa.literal_column("id DESC")],
        unique=False,
    )


def downgrade() -> None:
    op.drop_index("ix_secrets_created", table_name="secrets")
    op.drop_index("ix_scheduled_tasks_secret_names", table_name="scheduled_tasks", postgresql_using="gin")
