"""Deliveries and runs are found by when they were over, so that old ones can be forgotten without reading all of them.

Revision ID: 0011
Revises: 0010
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_TABLES = ("deliveries", "task_runs")


def upgrade() -> None:
    for table in _TABLES:
        op.create_index(
            f"ix_{table}_finished", table, ["finished_at"], postgresql_where=sa.text("finished_at IS NOT NULL")
        )


def downgrade() -> None:
    for table in _TABLES:
        op.drop_index(f"ix_{table}_finished", table_name=table)
