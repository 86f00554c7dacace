"""What docs/operating.md has operators do."""
