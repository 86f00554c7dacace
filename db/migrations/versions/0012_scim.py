"""What SCIM clients say of people and groups, and when an account was deactivated.

Revision ID: 0012
Revises: 0011
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("users", sa.Column("deactivated_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("users", sa.Column("user_name", sa.Text(), nullable=True))
    op.add_column("users", sa.Column("external_id", sa.Text(), nullable=True))
    op.add_column("users", sa.Column("profile", JSONB(), nullable=True))
    op.add_column("users", sa.Column("left_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("groups", sa.Column("external_id", sa.Text(), nullable=True))
    # An account without a name of its own is known by its address, and nobody may have that as a name.
    op.create_index("uq_users_user_name", "users", [sa.text("lower(coalesce(user_name, email))")], unique=True)
    op.create_index("uq_users_external_id", "users", ["external_id"], unique=True)
    op.create_index("uq_groups_external_id", "groups", ["external_id"], unique=True)


def downgrade() -> None:
    op.drop_index("uq_groups_external_id", table_name="groups")
    op.drop_index("uq_users_external_id", table_name="users")
    op.drop_index("uq_users_user_name", table_name="users")
    op.drop_column("groups", "external_id")
    op.drop_column("users", "left_at")
    op.drop_column("users", "profile")
    op.drop_column("users", "external_id")
    op.drop_column("users", "user_name")
    op.drop_column("users", "deactivated_at")
