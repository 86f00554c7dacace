"""Tasks: secrets, scheduled tasks and their runs, integrations and their deliveries.

Revision ID: 0003
Revises: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "scheduled_tasks",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("task_type", sa.Text(), nullable=False),
        sa.Column("language", sa.Text(), nullable=False),
        sa.Column("language_given", sa.Boolean(), nullable=False),
        sa.Column("script", sa.Text(), nullable=False),
        sa.Column("schedule_type", sa.Text(), nullable=False),
        sa.Column("interval_seconds", sa.Integer(), nullable=True),
        sa.Column("cron", sa.Text(), nullable=True),
        sa.Column("time_zone", sa.Text(), nullable=False),
        sa.Column("max_retries", sa.Integer(), nullable=False),
        sa.Column("timeout_seconds", sa.Integer(), nullable=False),
        sa.Column("secret_names", postgresql.ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("network", sa.Boolean(), nullable=False),
        sa.Column("paused", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("language IN ('python', 'go')", name=op.f("ck_scheduled_tasks_language_known")),
        sa.CheckConstraint(
            "schedule_type IN ('once', 'interval', 'cron')", name=op.f("ck_scheduled_tasks_schedule_type_known")
        ),
        sa.CheckConstraint("task_type IN ('script')", name=op.f("ck_scheduled_tasks_task_type_known")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_scheduled_tasks")),
        sa.UniqueConstraint("name", name=op.f("uq_scheduled_tasks_name")),
    )
    op.create_index(
        "ix_scheduled_tasks_created",
        "scheduled_tasks",
        [sa.literal_column("created_at DESC"), sa.literal_column("id DESC")],
        unique=False,
    )
    op.create_table(
        "secrets",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_secrets")),
        sa.UniqueConstraint("name", name=op.f("uq_secrets_name")),
    )
    op.create_table(
        "integrations",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("events", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("template_id", sa.Uuid(), nullable=True),
        sa.Column("app_id", sa.Uuid(), nullable=True),
        sa.Column("task_id", sa.Uuid(), nullable=True),
        sa.Column("settings", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("(target = 'task') = (task_id IS NOT NULL)", name=op.f("ck_integrations_task_where_target")),
        sa.CheckConstraint(
            "target IN ('task', 'webhook', 'slack', 'email')", name=op.f("ck_integrations_target_known")
        ),
        sa.ForeignKeyConstraint(
            ["app_id"], ["applications.id"], name=op.f("fk_integrations_app_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["task_id"], ["scheduled_tasks.id"], name=op.f("fk_integrations_task_id"), ondelete="RESTRICT"
        ),
        sa.ForeignKeyConstraint(
            ["template_id"],
            ["access_request_templates.id"],
            name=op.f("fk_integrations_template_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_integrations")),
        sa.UniqueConstraint("name", name=op.f("uq_integrations_name")),
    )
    op.create_index(op.f("ix_integrations_app_id"), "integrations", ["app_id"], unique=False)
    op.create_index(
        "ix_integrations_created",
        "integrations",
        [sa.literal_column("created_at DESC"), sa.literal_column("id DESC")],
        unique=False,
    )
    op.create_index(op.f("ix_integrations_task_id"), "integrations", ["task_id"], unique=False)
    op.create_index(op.f("ix_integrations_template_id"), "integrations", ["template_id"], unique=False)
    op.create_table(
        "deliveries",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("integration_id", sa.Uuid(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("payload", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("request_id", sa.Uuid(), nullable=False),
        sa.Column("timeline_id", sa.BigInteger(), nullable=True),
        sa.Column("recipient", sa.Text(), nullable=True),
        sa.Column("role", sa.Text(), nullable=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("not_before", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("last_attempt_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("latency_ms", sa.Integer(), nullable=True),
        sa.Column("response_status", sa.Integer(), nullable=True),
        sa.Column("response_head", sa.Text(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("dispatch_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "status IN ('pending', 'delivered', 'parked', 'dropped')", name=op.f("ck_deliveries_status_known")
        ),
        sa.CheckConstraint("target IN ('task', 'webhook', 'slack', 'email')", name=op.f("ck_deliveries_target_known")),
        sa.ForeignKeyConstraint(
            ["integration_id"], ["integrations.id"], name=op.f("fk_deliveries_integration_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["request_id"], ["access_requests.id"], name=op.f("fk_deliveries_request_id"), ondelete="RESTRICT"
        ),
        sa.ForeignKeyConstraint(
            ["timeline_id"], ["access_request_timeline.id"], name=op.f("fk_deliveries_timeline_id"), ondelete="RESTRICT"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deliveries")),
    )
    op.create_index(
        "ix_deliveries_dispatch",
        "deliveries",
        ["dispatch_at"],
        unique=False,
        postgresql_where=sa.text("dispatch_at IS NOT NULL"),
    )
    op.create_index(
        "ix_deliveries_integration",
        "deliveries",
        ["integration_id", sa.literal_column("created_at DESC"), sa.literal_column("id DESC")],
        unique=False,
    )
    op.create_index(
        "ix_deliveries_request",
        "deliveries",
        ["request_id", sa.literal_column("created_at DESC"), sa.literal_column("id DESC")],
        unique=False,
    )
    op.create_index(
        "ix_deliveries_timeline",
        "deliveries",
        ["timeline_id"],
        unique=False,
        postgresql_where=sa.text("timeline_id IS NOT NULL"),
    )
    op.create_table(
        "task_runs",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("task_id", sa.Uuid(), nullable=True),
        sa.Column("task_name", sa.Text(), nullable=False),
        sa.Column("cause", sa.Text(), nullable=False),
        sa.Column("event", sa.Text(), nullable=True),
        sa.Column("request_id", sa.Uuid(), nullable=True),
        sa.Column("timeline_id", sa.BigInteger(), nullable=True),
        sa.Column("integration_id", sa.Uuid(), nullable=True),
        sa.Column("started_by", sa.Text(), nullable=True),
        sa.Column("failure_mode", sa.Text(), nullable=False),
        sa.Column("config", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("holder", sa.Text(), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("exit_code", sa.Integer(), nullable=True),
        sa.Column("duration_ms", sa.Integer(), nullable=True),
        sa.Column("output", sa.Text(), nullable=False),
        sa.Column("output_truncated", sa.Boolean(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("isolation", sa.Text(), nullable=True),
        sa.Column("ticket_hash", sa.LargeBinary(), nullable=True),
        sa.Column("ticket_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("dispatch_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "cause IN ('trigger', 'integration', 'schedule', 'manual')", name=op.f("ck_task_runs_cause_known")
        ),
        sa.CheckConstraint(
            "failure_mode IN ('ignore', 'retry', 'block')", name=op.f("ck_task_runs_failure_mode_known")
        ),
        sa.CheckConstraint(
            "status IN ('queued', 'running', 'succeeded', 'failed', 'timed_out', 'lost', 'cancelled')",
            name=op.f("ck_task_runs_status_known"),
        ),
        sa.ForeignKeyConstraint(
            ["integration_id"], ["integrations.id"], name=op.f("fk_task_runs_integration_id"), ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(
            ["request_id"], ["access_requests.id"], name=op.f("fk_task_runs_request_id"), ondelete="RESTRICT"
        ),
        sa.ForeignKeyConstraint(
            ["task_id"], ["scheduled_tasks.id"], name=op.f("fk_task_runs_task_id"), ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(
            ["timeline_id"], ["access_request_timeline.id"], name=op.f("fk_task_runs_timeline_id"), ondelete="RESTRICT"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_task_runs")),
    )
    op.create_index(
        "ix_task_runs_dispatch",
        "task_runs",
        ["dispatch_at"],
        unique=False,
        postgresql_where=sa.text("dispatch_at IS NOT NULL"),
    )
    op.create_index(
        "ix_task_runs_integration",
        "task_runs",
        ["integration_id"],
        unique=False,
        postgresql_where=sa.text("integration_id IS NOT NULL"),
    )
    op.create_index(
        "ix_task_runs_request",
        "task_runs",
        ["request_id", sa.literal_column("created_at DESC"), sa.literal_column("id DESC")],
        unique=False,
        postgresql_where=sa.text("request_id IS NOT NULL"),
    )
    op.create_index(
        "ix_task_runs_task",
        "task_runs",
        ["task_id", sa.literal_column("created_at DESC"), sa.literal_column("id DESC")],
        unique=False,
    )
    op.create_index(
        "ix_task_runs_timeline",
        "task_runs",
        ["timeline_id"],
        unique=False,
        postgresql_where=sa.text("timeline_id IS NOT NULL"),
    )
    op.create_index(
        "uq_task_runs_ticket",
        "task_runs",
        ["ticket_hash"],
        unique=True,
        postgresql_where=sa.text("ticket_hash IS NOT NULL"),
    )
    op.create_index(
        op.f("ix_access_request_templates_trigger_task_id"),
        "access_request_templates",
        ["trigger_task_id"],
        unique=False,
    )
    op.create_foreign_key(
        op.f("fk_access_request_templates_trigger_task_id"),
        "access_request_templates",
        "scheduled_tasks",
        ["trigger_task_id"],
        ["id"],
        ondelete="RESTRICT",
    )


def downgrade() -> None:
    op.drop_constraint(
        op.f("fk_access_request_templates_trigger_task_id"), "access_request_templates", type_="foreignkey"
    )
    op.drop_index(op.f("ix_access_request_templates_trigger_task_id"), table_name="access_request_templates")
    op.drop_index("uq_task_runs_ticket", table_name="task_runs", postgresql_where=sa.text("ticket_hash IS NOT NULL"))
    op.drop_index("ix_task_runs_timeline", table_name="task_runs", postgresql_where=sa.text("timeline_id IS NOT NULL"))
    op.drop_index("ix_task_runs_task", table_name="task_runs")
    op.drop_index("ix_task_runs_request", table_name="task_runs", postgresql_where=sa.text("request_id IS NOT NULL"))
    op.drop_index(
        "ix_task_runs_integration", table_name="task_runs", postgresql_where=sa.text("integration_id IS NOT NULL")
    )
    op.drop_index("ix_task_runs_dispatch", table_name="task_runs", postgresql_where=sa.text("dispatch_at IS NOT NULL"))
    op.drop_table("task_runs")
    op.drop_index(
        "ix_deliveries_timeline", table_name="deliveries", postgresql_where=sa.text("timeline_id IS NOT NULL")
    )
    op.drop_index("ix_deliveries_request", table_name="deliveries")
    op.drop_index("ix_deliveries_integration", table_name="deliveries")
    op.drop_index(
        "ix_deliveries_dispatch", table_name="deliveries", postgresql_where=sa.text("dispatch_at IS NOT NULL")
    )
    op.drop_table("deliveries")
    op.drop_index(op.f("ix_integrations_template_id"), table_name="integrations")
    op.drop_index(op.f("ix_integrations_task_id"), table_name="integrations")
    op.drop_index("ix_integrations_created", table_name="integrations")
    op.drop_index(op.f("ix_integrations_app_id"), table_name="integrations")
    op.drop_table("integrations")
    op.drop_table("secrets")
    op.drop_index("ix_scheduled_tasks_created", table_name="scheduled_tasks")
    op.drop_table("scheduled_tasks")
