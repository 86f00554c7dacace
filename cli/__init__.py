"""The `justiam` command."""
