"""Runs the script of a task in a process of its own. Knows neither the record nor Temporal."""
