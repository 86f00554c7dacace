"""Tokens: clients, signing keys, issued access tokens, identities at OpenID Connect issuers.

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # The default is computed for each row, also for those that are there: each application gets an id of its own.
    op.add_column(
        "applications",
        sa.Column("client_id", sa.Text(), server_default=sa.text("'app-' || gen_random_uuid()"), nullable=False),
    )
    op.create_unique_constraint(op.f("uq_applications_client_id"), "applications", ["client_id"])
    op.add_column("applications", sa.Column("client_secret_hash", sa.LargeBinary(), nullable=True))
    op.add_column("applications", sa.Column("client_secret_created_at", sa.DateTime(timezone=True), nullable=True))
    op.create_table(
        "user_identities",
        sa.Column("issuer", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_user_identities_user_id"), ondelete="RESTRICT"
        ),
        sa.PrimaryKeyConstraint("issuer", "subject", name=op.f("pk_user_identities")),
    )
    op.create_index("uq_user_identities_user", "user_identities", ["user_id", "issuer"], unique=True)
    op.create_table(
        "signing_keys",
        sa.Column("kid", sa.Text(), nullable=False),
        sa.Column("algorithm", sa.Text(), nullable=False),
        sa.Column("public_jwk", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("private_key", sa.LargeBinary(), nullable=False),
        sa.Column("signs_from", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("kid", name=op.f("pk_signing_keys")),
    )
    op.create_table(
        "access_tokens",
        sa.Column("jti", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("app_id", sa.Uuid(), nullable=False),
        sa.Column("group_ids", sa.ARRAY(sa.Uuid()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["app_id"], ["applications.id"], name=op.f("fk_access_tokens_app_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_access_tokens_user_id"), ondelete="RESTRICT"),
        sa.PrimaryKeyConstraint("jti", name=op.f("pk_access_tokens")),
    )
    op.create_index(op.f("ix_access_tokens_app_id"), "access_tokens", ["app_id"], unique=False)
    op.create_index("ix_access_tokens_expires", "access_tokens", ["expires_at"], unique=False)


def downgrade() -> None:
    op.drop_index("ix_access_tokens_expires", table_name="access_tokens")
    op.drop_index(op.f("ix_access_tokens_app_id"), table_name="access_tokens")
    op.drop_table("access_tokens")
    op.drop_table("signing_keys")
    op.drop_index("uq_user_identities_user", table_name="user_identities")
    op.drop_table("user_identities")
    op.drop_column("applications", "client_secret_created_at")
    op.drop_column("applications", "client_secret_hash")
    op.drop_constraint(op.f("uq_applications_client_id"), "applications", type_="unique")
    op.drop_column("applications", "client_id")
