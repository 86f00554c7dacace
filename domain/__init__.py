"""The rules of access requests, pure: no I/O, no clock, no framework."""
