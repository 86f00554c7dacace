"""The commands for people: clients of the HTTP API, never of the database."""
