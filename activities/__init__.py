"""What workflows do to the world: each activity one effect, idempotent under a key."""
