"""What survives when processes are killed at the worst moment."""
