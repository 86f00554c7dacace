"""One rule for the case of names, and one for that of addresses, whatever the locale of the database.

Names are folded in full (Unicode's C and F), in composed form: `STRASSE` is `straße`, `ΟΜΆΔΑΣ` is `ομάδας`. Addresses
are folded letter by letter (C and S): `straße.example` and `strasse.example` are two domains. Both rules are
PostgreSQL's own, by collations that are built in, so that indexes and queries agree on every machine.

Names and addresses that were two and are one by the new rule do not stop the upgrade: the newer one is given a number,
`name (2)` or `local+2@example.com`. The audit log has an entry for each, made by `migration:0013`. Programs of the
version before find people and groups without an index until they are replaced.

Revision ID: 0013
Revises: 0012
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_OLDEST_POSTGRESQL = 18
"""The first with `casefold`."""

_FUNCTIONS = (
    """
    CREATE FUNCTION folded_name(value text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN normalize(casefold(normalize(value, NFD) COLLATE pg_unicode_fast), NFC)
    """,
    """
    CREATE FUNCTION folded_address(value text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN casefold(value COLLATE pg_c_utf8)
    """,
)

_NUMBER_NAMES = """
DO $$
DECLARE
    twin record;
    number integer;
BEGIN
    FOR twin IN
        SELECT id, left(name, 190) AS name FROM (
            SELECT id, name, row_number() OVER (PARTITION BY {within} folded_name(name) ORDER BY created_at, id) AS nth
            FROM {table}
        ) named WHERE nth > 1
    LOOP
        number := 2;
        WHILE EXISTS (
            SELECT FROM {table} WHERE folded_name(name) = folded_name(format('%s (%s)', twin.name, number))
        ) LOOP
            number := number + 1;
        END LOOP;
        UPDATE {table} SET name = format('%s (%s)', twin.name, number) WHERE id = twin.id;
    END LOOP;
END $$
"""

_NUMBER_ADDRESSES = """
DO $$
DECLARE
    twin record;
    number integer;
    other text;
BEGIN
    FOR twin IN
        SELECT id, {value} AS value FROM (
            SELECT users.*, row_number() OVER (PARTITION BY folded_address({value}) ORDER BY created_at, id) AS nth
            FROM users
        ) users WHERE nth > 1
    LOOP
        number := 1;
        LOOP
            number := number + 1;
            other := regexp_replace(twin.value, '(@[^@]*)?$', '+' || number || '\\1');
            EXIT WHEN NOT EXISTS (
                SELECT FROM users
                WHERE folded_address(other) IN (folded_address(email), folded_address(coalesce(user_name, email)))
            );
        END LOOP;
        UPDATE users SET {column} = other WHERE id = twin.id;
    END LOOP;
END $$
"""

_INDEXES = (
    ("uq_groups_name", "groups", "", "{name}(name)"),
    ("uq_applications_name", "applications", "", "{name}(name)"),
    ("uq_app_mappings_name", "app_mappings", "app_id, ", "{name}(name)"),
    ("uq_users_email", "users", "", "{address}(email)"),
    ("uq_users_user_name", "users", "", "{address}(coalesce(user_name, email))"),
)


def upgrade() -> None:
    version = int(op.get_bind().exec_driver_sql("SHOW server_version_num").scalar_one()) // 10_000
    if version < _OLDEST_POSTGRESQL:
        raise RuntimeError(f"PostgreSQL {_OLDEST_POSTGRESQL} or newer is needed, for casefold(); this is {version}")
    for function in _FUNCTIONS:
        op.execute(function)
    _drop_indexes()
    op.execute("SELECT set_config('justiam.actor', 'migration:0013', true)")
    op.execute(_NUMBER_NAMES.format(table="groups", within=""))
    op.execute(_NUMBER_NAMES.format(table="applications", within=""))
    op.execute(_NUMBER_NAMES.format(table="app_mappings", within="app_id,"))
    op.execute(_NUMBER_ADDRESSES.format(value="email", column="email"))
    op.execute(_NUMBER_ADDRESSES.format(value="coalesce(user_name, email)", column="user_name"))
    # The triggers of the audit log, before the tables are altered.
    op.execute("SET CONSTRAINTS ALL IMMEDIATE")
    op.execute("SET CONSTRAINTS ALL DEFERRED")
    op.execute("SELECT set_config('justiam.actor', '', true)")
    _create_indexes("folded_name", "folded_address")


def downgrade() -> None:
    _drop_indexes()
    _create_indexes("lower", "lower")
    op.execute("DROP FUNCTION folded_name(text)")
    op.execute("DROP FUNCTION folded_address(text)")


def _drop_indexes() -> None:
    for index, table, _, _ in _INDEXES:
        op.drop_index(index, table_name=table)
    op.drop_index("ix_users_email_trgm", table_name="users")


def _create_indexes(name: str, address: str) -> None:
    for index, table, before, expression in _INDEXES:
        on = before + expression.format(name=name, address=address)
        op.execute(f"CREATE UNIQUE INDEX {index} ON {table} ({on})")
    op.create_index(
        "ix_users_email_trgm",
        "users",
        [sa.literal_column(f"{address}(email)").label("folded")],
        postgresql_using="gin",
        postgresql_ops={"folded": "gin_trgm_ops"},
    )
