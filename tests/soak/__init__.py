"""What the endurance run stands on: its judgement, and a short run of it."""
