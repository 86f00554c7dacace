"""The audit log: nothing that goes unseen, nothing that grants pay for, and a list that reads only what it shows.

The id of a temporary group tells that it is one: it is a UUID of version 8 (RFC 9562, section 5.8), and no other
group's is. So the rows of its members and mappings tell it as well, even when the group itself is gone; they cannot
lie, and a trigger's WHEN clause sees it, without a query and without an event being queued. Programs of the version
before, which know nothing of this, are given such ids by a trigger. A later version removes that.

Revision ID: 0010
Revises: 0009
"""

from __future__ import annotations

import importlib

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_before = importlib.import_module("db.migrations.versions.0008_audit_log")

_VERSION = "substr({}::text, 15, 1)"
_IS_TEMPORARY = f"{_VERSION} = '8'"

_TEMPORARY_IDS = f"""
CREATE FUNCTION temporary_group_id() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.id := overlay(NEW.id::text PLACING '8' FROM 15)::uuid;
    RETURN NEW;
END $$;
CREATE TRIGGER temporary_id BEFORE INSERT ON groups FOR EACH ROW
    WHEN (NEW.system AND {_VERSION.format("NEW.id")} <> '8') EXECUTE FUNCTION temporary_group_id();

-- In one statement: foreign keys are checked at its end.
WITH temporary AS (
    SELECT id AS old_id, overlay(id::text PLACING '8' FROM 15)::uuid AS new_id FROM groups WHERE system
), changed_groups AS (
    UPDATE groups g SET id = t.new_id FROM temporary t WHERE g.id = t.old_id
), changed_members AS (
    UPDATE group_members m SET group_id = t.new_id FROM temporary t WHERE m.group_id = t.old_id
), changed_mappings AS (
    UPDATE app_mapping_groups l SET group_id = t.new_id FROM temporary t WHERE l.group_id = t.old_id
)
UPDATE access_tokens a SET group_ids = ARRAY(
    SELECT coalesce(t.new_id, drawn_on) FROM unnest(a.group_ids) WITH ORDINALITY AS d (drawn_on, place)
    LEFT JOIN temporary t ON t.old_id = drawn_on ORDER BY place)
WHERE a.group_ids && ARRAY(SELECT old_id FROM temporary);
"""

_FUNCTIONS = """
CREATE FUNCTION audit_refuse_truncate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'each row of % that goes has an entry in the audit log: delete them, do not truncate',
        TG_TABLE_NAME USING ERRCODE = 'integrity_constraint_violation';
END $$;

-- By names that mean the same to everybody: a temporary table called audit_log is not the log. Times in UTC, whatever
-- the session's time zone is.
CREATE OR REPLACE FUNCTION audit_change() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, {schema}, pg_temp SET timezone = 'UTC' AS $$
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
    IF TG_OP <> 'INSERT' THEN
        old_row := to_jsonb(OLD) - ignored;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        new_row := to_jsonb(NEW) - ignored;
    END IF;
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

# What grants do is in the timelines of their requests.
_OF_GRANTS = {
    "groups": "{row}.system",
    "group_members": _IS_TEMPORARY.format("{row}.group_id"),
    "app_mapping_groups": _IS_TEMPORARY.format("{row}.group_id"),
}
_ROWS = {"INSERT": ["NEW"], "UPDATE": ["OLD", "NEW"], "DELETE": ["OLD"]}
_SEARCHED_BY = {
    "kind": ["kind"],
    "actor": ["actor", "kind"],
    "object": ["object_id", "kind"],
    "actor_object": ["actor", "object_id", "kind"],
}


def upgrade() -> None:
    op.execute(_TEMPORARY_IDS)
    # What the statement above changed is told to triggers that are deferred, before the table is altered.
    op.execute("SET CONSTRAINTS ALL IMMEDIATE")
    op.execute("SET CONSTRAINTS ALL DEFERRED")
    op.create_check_constraint(op.f("ck_groups_system_by_id"), "groups", f"system = ({_IS_TEMPORARY.format('id')})")
    connection = op.get_bind()
    schema = connection.execute(sa.text("SELECT quote_ident(current_schema())")).scalar_one()
    op.execute(_FUNCTIONS.replace("{schema}", schema))
    for table in _before.AUDITED:
        op.execute(
            f"CREATE TRIGGER not_truncated BEFORE TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse_truncate()"
        )
    for table, of_a_grant in _OF_GRANTS.items():
        op.execute(f"DROP TRIGGER audit ON {table}")
        for change, rows in _ROWS.items():
            unseen = " AND ".join(of_a_grant.format(row=row) for row in rows)
            op.execute(
                f"CREATE CONSTRAINT TRIGGER audit_{change.lower()} AFTER {change} ON {table} "
                f"DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NOT ({unseen})) "
                f"EXECUTE FUNCTION audit_change({_arguments(table)})"
            )
    for name in ("kind", "actor", "object"):
        op.drop_index(f"ix_audit_log_{name}", "audit_log")
    for name, columns in _SEARCHED_BY.items():
        op.create_index(f"ix_audit_log_{name}", "audit_log", [*columns, "at", "id"])


def downgrade() -> None:
    for name in _SEARCHED_BY:
        op.drop_index(f"ix_audit_log_{name}", "audit_log")
    for name in ("kind", "actor", "object"):
        op.create_index(f"ix_audit_log_{name}", "audit_log", [*_SEARCHED_BY[name], sa.literal_column("id DESC")])
    for table in _OF_GRANTS:
        for change in _ROWS:
            op.execute(f"DROP TRIGGER audit_{change.lower()} ON {table}")
        op.execute(
            f"CREATE CONSTRAINT TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON {table} "
            f"DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION audit_change({_arguments(table)})"
        )
    for table in _before.AUDITED:
        op.execute(f"DROP TRIGGER not_truncated ON {table}")
    op.execute("DROP FUNCTION audit_refuse_truncate()")
    op.execute(_before.AUDIT_CHANGE)
    op.drop_constraint(op.f("ck_groups_system_by_id"), "groups")
    op.execute("DROP TRIGGER temporary_id ON groups")
    op.execute("DROP FUNCTION temporary_group_id()")


def _arguments(table: str) -> str:
    keys, ignored, hidden = _before.AUDITED[table]
    return ", ".join("'{" + ",".join(each) + "}'" for each in (keys, ignored, hidden))
