"""The audit log: every administrative change, chained, written by the database itself.

By triggers, so that no way to change something forgets it. They are deferred to the commit: appending to a chain has
everybody wait for everybody, which must not happen while other locks are still to be taken.

Revision ID: 0008
Revises: 0007
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

# Table: its key, columns that are bookkeeping and count as no change, columns that nobody may read.
AUDITED = {
    "users": (["id"], [], []),
    "user_identities": (["issuer", "subject"], ["groups_said_at"], []),
    "api_tokens": (["id"], ["last_used_at"], ["token_hash"]),
    "groups": (["id"], [], []),
    "group_members": (["group_id", "user_id"], [], []),
    "applications": (["id"], [], ["client_secret_hash"]),
    "app_mappings": (["id"], [], []),
    "app_mapping_groups": (["mapping_id", "group_id"], [], []),
    "signing_keys": (["kid"], [], ["private_key"]),
    "access_request_templates": (["id"], ["served_group_id", "served_joined", "updated_at"], []),
    "scheduled_tasks": (["id"], ["updated_at"], []),
    "integrations": (["id"], ["updated_at"], ["sealed"]),
    "secrets": (["id"], ["updated_at"], ["sealed"]),
}

_APPEND_ONLY = """
CREATE FUNCTION audit_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit log is append-only' USING ERRCODE = 'integrity_constraint_violation';
END $$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION audit_append_only();
"""

AUDIT_CHANGE = """
CREATE OR REPLACE FUNCTION audit_change() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    keys text[] := TG_ARGV[0];
    ignored text[] := TG_ARGV[1];
    hidden text[] := TG_ARGV[2];
    old_row jsonb;
    new_row jsonb;
    secret text;
    last record;
    entry text;
    made_at timestamptz;
    said_by text;
    object text;
BEGIN
    -- What grants do to their temporary groups is in the timelines of their requests.
    IF TG_TABLE_NAME IN ('group_members', 'app_mapping_groups') THEN
        IF TG_OP = 'DELETE' THEN
            PERFORM FROM groups WHERE id = OLD.group_id AND NOT system;
        ELSE
            PERFORM FROM groups WHERE id = NEW.group_id AND NOT system;
        END IF;
        IF NOT FOUND THEN
            RETURN NULL;
        END IF;
    END IF;
    IF TG_OP <> 'INSERT' THEN
        old_row := to_jsonb(OLD);
    END IF;
    IF TG_OP <> 'DELETE' THEN
        new_row := to_jsonb(NEW);
    END IF;
    IF TG_TABLE_NAME = 'groups' AND (coalesce(new_row, old_row) ->> 'system')::boolean THEN
        RETURN NULL;
    END IF;
    old_row := old_row - ignored;
    new_row := new_row - ignored;
    IF TG_OP = 'UPDATE' AND old_row = new_row THEN
        RETURN NULL;
    END IF;
    FOREACH secret IN ARRAY hidden LOOP
        IF new_row -> secret <> 'null' THEN
            new_row := jsonb_set(new_row, ARRAY[secret], to_jsonb(
                CASE WHEN old_row -> secret IS DISTINCT FROM new_row -> secret AND TG_OP = 'UPDATE'
                     THEN '(hidden, changed)' ELSE '(hidden)' END));
        END IF;
        IF old_row -> secret <> 'null' THEN
            old_row := jsonb_set(old_row, ARRAY[secret], '"(hidden)"');
        END IF;
    END LOOP;
    said_by := coalesce(nullif(current_setting('justiam.actor', true), ''), 'database:' || session_user);
    SELECT string_agg(coalesce(new_row, old_row) ->> key, '/' ORDER BY place) INTO object
    FROM unnest(keys) WITH ORDINALITY AS k (key, place);
    -- From here on one transaction after the other. The statement below sees what the one before has committed.
    PERFORM pg_advisory_xact_lock(7251903);
    SELECT id, hash INTO last FROM audit_log ORDER BY id DESC LIMIT 1;
    made_at := clock_timestamp();
    entry := jsonb_build_object(
        'id', coalesce(last.id, 0) + 1,
        'at', to_char(made_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
        'actor', said_by,
        'request_id', nullif(current_setting('justiam.request_id', true), ''),
        'action', lower(TG_OP),
        'kind', TG_TABLE_NAME,
        'object_id', object,
        'before', old_row,
        'after', new_row)::text;
    INSERT INTO audit_log (id, at, actor, action, kind, object_id, entry, hash)
    VALUES (coalesce(last.id, 0) + 1, made_at, said_by, lower(TG_OP), TG_TABLE_NAME, object, entry,
            sha256(coalesce(last.hash, ''::bytea) || convert_to(entry, 'UTF8')));
    RETURN NULL;
END $$;
"""


def upgrade() -> None:
    op.create_table(
        "audit_log",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("object_id", sa.Text(), nullable=False),
        sa.Column("entry", sa.Text(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_log")),
    )
    op.create_index("ix_audit_log_kind", "audit_log", ["kind", sa.literal_column("id DESC")])
    op.create_index("ix_audit_log_actor", "audit_log", ["actor", "kind", sa.literal_column("id DESC")])
    op.create_index("ix_audit_log_object", "audit_log", ["object_id", "kind", sa.literal_column("id DESC")])
    op.create_index("ix_audit_log_at", "audit_log", ["at"])
    op.execute(_APPEND_ONLY)
    op.execute(AUDIT_CHANGE)
    for table, (keys, ignored, hidden) in AUDITED.items():
        arguments = ", ".join("'{" + ",".join(each) + "}'" for each in (keys, ignored, hidden))
        op.execute(
            f"CREATE CONSTRAINT TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON {table} "
            f"DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION audit_change({arguments})"
        )


def downgrade() -> None:
    for table in AUDITED:
        op.execute(f"DROP TRIGGER audit ON {table}")
    op.execute("DROP FUNCTION audit_change()")
    op.drop_table("audit_log")
    op.execute("DROP FUNCTION audit_append_only()")
