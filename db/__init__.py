"""The record: tables, migrations and every SQL statement of the service."""
