"""Which memberships and accounts an OpenID Connect issuer made, and by how new a token of it groups went.

Revision ID: 0009
Revises: 0008
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("group_members", sa.Column("issuer", sa.Text(), nullable=True))
    op.add_column(
        "user_identities", sa.Column("created_user", sa.Boolean(), server_default=sa.text("false"), nullable=False)
    )
    op.add_column("user_identities", sa.Column("groups_said_at", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    op.drop_column("user_identities", "groups_said_at")
    op.drop_column("user_identities", "created_user")
    op.drop_column("group_members", "issuer")
