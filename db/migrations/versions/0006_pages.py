"""Sessions of the pages, and word of every change to a request.

Revision ID: 0006
Revises: 0005
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

# By statement: what is loaded in bulk says so a bounded number of times.
_TELL = """
CREATE FUNCTION access_request_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('justiam_requests', changed.request_id::text)
    FROM (SELECT DISTINCT request_id FROM written WHERE request_id IS NOT NULL LIMIT 100) changed;
    RETURN NULL;
END $$;
CREATE TRIGGER tell_of_change AFTER INSERT ON access_request_timeline
    REFERENCING NEW TABLE AS written FOR EACH STATEMENT EXECUTE FUNCTION access_request_changed();
CREATE TRIGGER tell_of_change AFTER INSERT ON access_request_messages
    REFERENCING NEW TABLE AS written FOR EACH STATEMENT EXECUTE FUNCTION access_request_changed();
CREATE TRIGGER tell_of_change AFTER UPDATE ON task_runs
    REFERENCING NEW TABLE AS written FOR EACH STATEMENT EXECUTE FUNCTION access_request_changed();
"""


def upgrade() -> None:
    op.create_table(
        "web_sessions",
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("issuer", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_web_sessions_user_id"), ondelete="RESTRICT"),
        sa.PrimaryKeyConstraint("token_hash", name=op.f("pk_web_sessions")),
    )
    op.create_index("ix_web_sessions_expires", "web_sessions", ["expires_at"], unique=False)
    op.create_index(op.f("ix_web_sessions_user_id"), "web_sessions", ["user_id"], unique=False)
    op.execute(_TELL)


def downgrade() -> None:
    for table in ("access_request_timeline", "access_request_messages", "task_runs"):
        op.execute(f"DROP TRIGGER tell_of_change ON {table}")
    op.execute("DROP FUNCTION access_request_changed()")
    op.drop_table("web_sessions")
