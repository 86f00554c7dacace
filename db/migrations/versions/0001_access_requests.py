"""Access requests.

Revision ID: 0001
Revises:
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


_APPEND_ONLY = """
CREATE FUNCTION access_request_timeline_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the timeline is append-only' USING ERRCODE = 'integrity_constraint_violation';
END
$$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON access_request_timeline
    FOR EACH STATEMENT EXECUTE FUNCTION access_request_timeline_append_only();
"""


def upgrade() -> None:
    # Partial matches on email addresses; a trusted extension, so the owner of the database may create it.
    op.execute("CREATE EXTENSION IF NOT EXISTS pg_trgm")
    op.create_table(
        "applications",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_applications")),
    )
    op.create_index(
        "ix_applications_created",
        "applications",
        [sa.literal_column("created_at DESC"), sa.literal_column("id DESC")],
        unique=False,
    )
    op.create_index("uq_applications_name", "applications", [sa.literal_column("lower(name)")], unique=True)
    op.create_table(
        "groups",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("permissions", sa.ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("system", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("request_id", sa.Uuid(), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("NOT system OR permissions = '{}'", name=op.f("ck_groups_system_without_permissions")),
        sa.CheckConstraint(
            "permissions <@ ARRAY['access_requests.manage', 'directory.manage', 'tasks.manage']::text[]",
            name=op.f("ck_groups_permissions_known"),
        ),
        sa.CheckConstraint("system = (expires_at IS NOT NULL)", name=op.f("ck_groups_system_expires")),
        sa.CheckConstraint("system = (request_id IS NOT NULL)", name=op.f("ck_groups_system_has_request")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_groups")),
        sa.UniqueConstraint("request_id", name=op.f("uq_groups_request_id")),
    )
    op.create_index(
        "ix_groups_created",
        "groups",
        [sa.literal_column("created_at DESC"), sa.literal_column("id DESC")],
        unique=False,
        postgresql_where=sa.text("NOT system"),
    )
    op.create_index(
        "ix_groups_permissions",
        "groups",
        ["permissions"],
        unique=False,
        postgresql_using="gin",
        postgresql_where=sa.text("NOT system"),
    )
    op.create_index("uq_groups_name", "groups", [sa.literal_column("lower(name)")], unique=True)
    op.create_table(
        "users",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("active", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("owner_id", sa.Uuid(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["owner_id"], ["users.id"], name=op.f("fk_users_owner_id"), ondelete="RESTRICT"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_users")),
    )
    op.create_index(
        "ix_users_created", "users", [sa.literal_column("created_at DESC"), sa.literal_column("id DESC")], unique=False
    )
    op.create_index(
        "ix_users_email_trgm",
        "users",
        [sa.literal_column("lower(email)").label("lowered")],
        unique=False,
        postgresql_using="gin",
        postgresql_ops={"lowered": "gin_trgm_ops"},
    )
    op.create_index(op.f("ix_users_owner_id"), "users", ["owner_id"], unique=False)
    op.create_index("uq_users_email", "users", [sa.literal_column("lower(email)")], unique=True)
    op.create_table(
        "access_request_templates",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("app_id", sa.Uuid(), nullable=False),
        sa.Column("mapping_ids", sa.ARRAY(sa.Uuid()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("allowed_durations", sa.ARRAY(sa.BigInteger()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("approver_group_ids", sa.ARRAY(sa.Uuid()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("allowed_group_ids", sa.ARRAY(sa.Uuid()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("prefer_requester_groups", sa.Boolean(), nullable=False),
        sa.Column("require_justification", sa.Boolean(), nullable=False),
        sa.Column("auto_approve", sa.Boolean(), nullable=False),
        sa.Column("notification_policy", sa.Text(), nullable=False),
        sa.Column("notification_count", sa.Integer(), nullable=False),
        sa.Column("escalation_after_mins", sa.Integer(), nullable=True),
        sa.Column("escalation_group_id", sa.Uuid(), nullable=True),
        sa.Column(
            "custom_fields", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'[]'"), nullable=False
        ),
        sa.Column("trigger_task_id", sa.Uuid(), nullable=True),
        sa.Column("trigger_task_failure_mode", sa.Text(), nullable=False),
        sa.Column("served_group_id", sa.Uuid(), nullable=True),
        sa.Column("served_joined", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "notification_policy IN ('all', 'first_n', 'random_n', 'round_robin')",
            name=op.f("ck_access_request_templates_notification_policy_known"),
        ),
        sa.CheckConstraint(
            "trigger_task_failure_mode IN ('ignore', 'retry', 'block')",
            name=op.f("ck_access_request_templates_trigger_task_failure_mode_known"),
        ),
        sa.CheckConstraint(
            "escalation_after_mins >= 1", name=op.f("ck_access_request_templates_escalation_after_mins_positive")
        ),
        sa.CheckConstraint(
            "notification_count >= 1", name=op.f("ck_access_request_templates_notification_count_positive")
        ),
        sa.ForeignKeyConstraint(
            ["app_id"], ["applications.id"], name=op.f("fk_access_request_templates_app_id"), ondelete="RESTRICT"
        ),
        sa.ForeignKeyConstraint(
            ["escalation_group_id"],
            ["groups.id"],
            name=op.f("fk_access_request_templates_escalation_group_id"),
            ondelete="SET NULL",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_access_request_templates")),
    )
    op.create_index(
        "ix_access_request_templates_allowed",
        "access_request_templates",
        ["allowed_group_ids"],
        unique=False,
        postgresql_using="gin",
    )
    op.create_index(op.f("ix_access_request_templates_app_id"), "access_request_templates", ["app_id"], unique=False)
    op.create_index(
        "ix_access_request_templates_approvers",
        "access_request_templates",
        ["approver_group_ids"],
        unique=False,
        postgresql_using="gin",
    )
    op.create_index(
        "ix_access_request_templates_created",
        "access_request_templates",
        [sa.literal_column("created_at DESC"), sa.literal_column("id DESC")],
        unique=False,
    )
    op.create_index(
        op.f("ix_access_request_templates_escalation_group_id"),
        "access_request_templates",
        ["escalation_group_id"],
        unique=False,
    )
    op.create_index(
        "ix_access_request_templates_mapping_ids",
        "access_request_templates",
        ["mapping_ids"],
        unique=False,
        postgresql_using="gin",
    )
    op.create_table(
        "api_tokens",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("hint", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_api_tokens_user_id"), ondelete="RESTRICT"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_tokens")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_api_tokens_token_hash")),
    )
    op.create_index(
        "ix_api_tokens_created",
        "api_tokens",
        [sa.literal_column("created_at DESC"), sa.literal_column("id DESC")],
        unique=False,
    )
    op.create_index(
        "ix_api_tokens_user",
        "api_tokens",
        ["user_id", sa.literal_column("created_at DESC"), sa.literal_column("id DESC")],
        unique=False,
    )
    op.create_table(
        "app_mappings",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("app_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("claim", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["app_id"], ["applications.id"], name=op.f("fk_app_mappings_app_id"), ondelete="RESTRICT"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_app_mappings")),
    )
    op.create_index(op.f("ix_app_mappings_app_id"), "app_mappings", ["app_id"], unique=False)
    op.create_index(
        "ix_app_mappings_created",
        "app_mappings",
        [sa.literal_column("created_at DESC"), sa.literal_column("id DESC")],
        unique=False,
    )
    op.create_index("uq_app_mappings_name", "app_mappings", ["app_id", sa.literal_column("lower(name)")], unique=True)
    op.create_table(
        "group_members",
        sa.Column("group_id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("joined", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["group_id"], ["groups.id"], name=op.f("fk_group_members_group_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_group_members_user_id"), ondelete="RESTRICT"),
        sa.PrimaryKeyConstraint("group_id", "user_id", name=op.f("pk_group_members")),
    )
    op.create_index(op.f("ix_group_members_user_id"), "group_members", ["user_id"], unique=False)
    op.create_table(
        "access_requests",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("template_id", sa.Uuid(), nullable=True),
        sa.Column("template_name", sa.Text(), nullable=False),
        sa.Column("app_id", sa.Uuid(), nullable=True),
        sa.Column("app_name", sa.Text(), nullable=False),
        sa.Column("requester_id", sa.Uuid(), nullable=False),
        sa.Column("requested_duration_mins", sa.Integer(), nullable=False),
        sa.Column("justification", sa.Text(), nullable=False),
        sa.Column(
            "custom_answers", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'"), nullable=False
        ),
        sa.Column("snapshot", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("mapping_ids", sa.ARRAY(sa.Uuid()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("approver_group_ids", sa.ARRAY(sa.Uuid()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("escalation_group_id", sa.Uuid(), nullable=True),
        sa.Column("admins_decide", sa.Boolean(), nullable=False),
        sa.Column("notified_ids", sa.ARRAY(sa.Uuid()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("escalates_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("escalated_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("decided_by", sa.Text(), nullable=True),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("decision_comment", sa.Text(), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_by", sa.Text(), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.Column("idempotency_digest", sa.LargeBinary(), nullable=True),
        sa.Column("attention_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "(status IN ('pending', 'approved')) = (ended_at IS NULL)",
            name=op.f("ck_access_requests_ended_when_closed"),
        ),
        sa.CheckConstraint(
            "status IN ('pending', 'approved', 'denied', 'revoked', 'expired')",
            name=op.f("ck_access_requests_status_known"),
        ),
        sa.CheckConstraint(
            "status NOT IN ('approved', 'expired') OR num_nulls(decided_by, decided_at, expires_at) = 0",
            name=op.f("ck_access_requests_grant_complete"),
        ),
        sa.CheckConstraint("requested_duration_mins >= 1", name=op.f("ck_access_requests_duration_positive")),
        sa.ForeignKeyConstraint(
            ["app_id"], ["applications.id"], name=op.f("fk_access_requests_app_id"), ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(
            ["requester_id"], ["users.id"], name=op.f("fk_access_requests_requester_id"), ondelete="RESTRICT"
        ),
        sa.ForeignKeyConstraint(
            ["template_id"],
            ["access_request_templates.id"],
            name=op.f("fk_access_requests_template_id"),
            ondelete="SET NULL",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_access_requests")),
    )
    op.create_index(
        "ix_access_requests_active",
        "access_requests",
        ["expires_at"],
        unique=False,
        postgresql_where=sa.text("status = 'approved'"),
    )
    op.create_index("ix_access_requests_app", "access_requests", ["app_id"], unique=False)
    op.create_index(
        "ix_access_requests_attention",
        "access_requests",
        ["attention_at"],
        unique=False,
        postgresql_where=sa.text("attention_at IS NOT NULL"),
    )
    op.create_index(
        "ix_access_requests_newest",
        "access_requests",
        [sa.literal_column("created_at DESC"), sa.literal_column("id DESC")],
        unique=False,
    )
    op.create_index(
        "ix_access_requests_open",
        "access_requests",
        ["id"],
        unique=False,
        postgresql_where=sa.text("status IN ('pending', 'approved')"),
    )
    op.create_index(
        "ix_access_requests_open_mappings",
        "access_requests",
        ["mapping_ids"],
        unique=False,
        postgresql_using="gin",
        postgresql_where=sa.text("status IN ('pending', 'approved')"),
    )
    op.create_index(
        "ix_access_requests_pending_admins",
        "access_requests",
        [sa.literal_column("created_at DESC"), sa.literal_column("id DESC")],
        unique=False,
        postgresql_where=sa.text("status = 'pending' AND admins_decide"),
    )
    op.create_index(
        "ix_access_requests_pending_approvers",
        "access_requests",
        ["approver_group_ids"],
        unique=False,
        postgresql_using="gin",
        postgresql_where=sa.text("status = 'pending'"),
    )
    op.create_index(
        "ix_access_requests_pending_escalation",
        "access_requests",
        ["escalation_group_id"],
        unique=False,
        postgresql_where=sa.text("status = 'pending'"),
    )
    op.create_index(
        "ix_access_requests_requester",
        "access_requests",
        ["requester_id", sa.literal_column("created_at DESC"), sa.literal_column("id DESC")],
        unique=False,
    )
    op.create_index(
        "ix_access_requests_status",
        "access_requests",
        ["status", sa.literal_column("created_at DESC"), sa.literal_column("id DESC")],
        unique=False,
    )
    op.create_index(
        "ix_access_requests_template",
        "access_requests",
        ["template_id", sa.literal_column("created_at DESC"), sa.literal_column("id DESC")],
        unique=False,
    )
    op.create_index(
        "uq_access_requests_idempotency",
        "access_requests",
        ["requester_id", "idempotency_key"],
        unique=True,
        postgresql_where=sa.text("idempotency_key IS NOT NULL"),
    )
    op.create_index(
        "uq_access_requests_one_pending",
        "access_requests",
        ["template_id", "requester_id"],
        unique=True,
        postgresql_where=sa.text("status = 'pending'"),
    )
    op.create_table(
        "app_mapping_groups",
        sa.Column("mapping_id", sa.Uuid(), nullable=False),
        sa.Column("group_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["group_id"], ["groups.id"], name=op.f("fk_app_mapping_groups_group_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["mapping_id"], ["app_mappings.id"], name=op.f("fk_app_mapping_groups_mapping_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("mapping_id", "group_id", name=op.f("pk_app_mapping_groups")),
    )
    op.create_index(op.f("ix_app_mapping_groups_group_id"), "app_mapping_groups", ["group_id"], unique=False)
    op.create_table(
        "access_request_messages",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("request_id", sa.Uuid(), nullable=False),
        sa.Column("author_id", sa.Uuid(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["author_id"], ["users.id"], name=op.f("fk_access_request_messages_author_id"), ondelete="RESTRICT"
        ),
        sa.ForeignKeyConstraint(
            ["request_id"],
            ["access_requests.id"],
            name=op.f("fk_access_request_messages_request_id"),
            ondelete="RESTRICT",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_access_request_messages")),
    )
    op.create_index(
        "ix_access_request_messages_request",
        "access_request_messages",
        ["request_id", sa.literal_column("created_at DESC"), sa.literal_column("id DESC")],
        unique=False,
    )
    op.create_table(
        "access_request_timeline",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("request_id", sa.Uuid(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("verified", sa.Boolean(), nullable=False),
        sa.Column("detail", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("event", sa.Text(), nullable=True),
        sa.Column("payload", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("transition_key", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "(event IS NULL) = (payload IS NULL)", name=op.f("ck_access_request_timeline_event_has_payload")
        ),
        sa.ForeignKeyConstraint(
            ["request_id"],
            ["access_requests.id"],
            name=op.f("fk_access_request_timeline_request_id"),
            ondelete="RESTRICT",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_access_request_timeline")),
        sa.UniqueConstraint("transition_key", name=op.f("uq_access_request_timeline_transition_key")),
    )
    op.create_index(
        "ix_access_request_timeline_request",
        "access_request_timeline",
        ["request_id", sa.literal_column("id DESC")],
        unique=False,
    )
    op.execute(_APPEND_ONLY)


def downgrade() -> None:
    op.drop_index("ix_access_request_timeline_request", table_name="access_request_timeline")
    op.drop_table("access_request_timeline")
    op.drop_index("ix_access_request_messages_request", table_name="access_request_messages")
    op.drop_table("access_request_messages")
    op.drop_index(op.f("ix_app_mapping_groups_group_id"), table_name="app_mapping_groups")
    op.drop_table("app_mapping_groups")
    op.drop_index(
        "uq_access_requests_one_pending", table_name="access_requests", postgresql_where=sa.text("status = 'pending'")
    )
    op.drop_index(
        "uq_access_requests_idempotency",
        table_name="access_requests",
        postgresql_where=sa.text("idempotency_key IS NOT NULL"),
    )
    op.drop_index("ix_access_requests_template", table_name="access_requests")
    op.drop_index("ix_access_requests_status", table_name="access_requests")
    op.drop_index("ix_access_requests_requester", table_name="access_requests")
    op.drop_index(
        "ix_access_requests_pending_escalation",
        table_name="access_requests",
        postgresql_where=sa.text("status = 'pending'"),
    )
    op.drop_index(
        "ix_access_requests_pending_approvers",
        table_name="access_requests",
        postgresql_using="gin",
        postgresql_where=sa.text("status = 'pending'"),
    )
    op.drop_index(
        "ix_access_requests_pending_admins",
        table_name="access_requests",
        postgresql_where=sa.text("status = 'pending' AND admins_decide"),
    )
    op.drop_index(
        "ix_access_requests_open_mappings",
        table_name="access_requests",
        postgresql_using="gin",
        postgresql_where=sa.text("status IN ('pending', 'approved')"),
    )
    op.drop_index(
        "ix_access_requests_open",
        table_name="access_requests",
        postgresql_where=sa.text("status IN ('pending', 'approved')"),
    )
    op.drop_index("ix_access_requests_newest", table_name="access_requests")
    op.drop_index(
        "ix_access_requests_attention",
        table_name="access_requests",
        postgresql_where=sa.text("attention_at IS NOT NULL"),
    )
    op.drop_index("ix_access_requests_app", table_name="access_requests")
    op.drop_index(
        "ix_access_requests_active", table_name="access_requests", postgresql_where=sa.text("status = 'approved'")
    )
    op.drop_table("access_requests")
    op.drop_index(op.f("ix_group_members_user_id"), table_name="group_members")
    op.drop_table("group_members")
    op.drop_index("uq_app_mappings_name", table_name="app_mappings")
    op.drop_index("ix_app_mappings_created", table_name="app_mappings")
    op.drop_index(op.f("ix_app_mappings_app_id"), table_name="app_mappings")
    op.drop_table("app_mappings")
    op.drop_index("ix_api_tokens_user", table_name="api_tokens")
    op.drop_index("ix_api_tokens_created", table_name="api_tokens")
    op.drop_table("api_tokens")
    op.drop_index(
        "ix_access_request_templates_mapping_ids", table_name="access_request_templates", postgresql_using="gin"
    )
    op.drop_index(op.f("ix_access_request_templates_escalation_group_id"), table_name="access_request_templates")
    op.drop_index("ix_access_request_templates_created", table_name="access_request_templates")
    op.drop_index(
        "ix_access_request_templates_approvers", table_name="access_request_templates", postgresql_using="gin"
    )
    op.drop_index(op.f("ix_access_request_templates_app_id"), table_name="access_request_templates")
    op.drop_index("ix_access_request_templates_allowed", table_name="access_request_templates", postgresql_using="gin")
    op.drop_table("access_request_templates")
    op.drop_index("uq_users_email", table_name="users")
    op.drop_index(op.f("ix_users_owner_id"), table_name="users")
    op.drop_index("ix_users_email_trgm", table_name="users", postgresql_using="gin")
    op.drop_index("ix_users_created", table_name="users")
    op.drop_table("users")
    op.drop_index("uq_groups_name", table_name="groups")
    op.drop_index(
        "ix_groups_permissions", table_name="groups", postgresql_using="gin", postgresql_where=sa.text("NOT system")
    )
    op.drop_index("ix_groups_created", table_name="groups", postgresql_where=sa.text("NOT system"))
    op.drop_table("groups")
    op.drop_index("uq_applications_name", table_name="applications")
    op.drop_index("ix_applications_created", table_name="applications")
    op.drop_table("applications")
    op.execute("DROP FUNCTION access_request_timeline_append_only")
    op.execute("DROP EXTENSION pg_trgm")
