"""Tasks: their losses and right answers."""
