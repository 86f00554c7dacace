"""The rules, with nothing running."""
