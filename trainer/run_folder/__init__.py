"""What a run leaves in its folder, and how a new process goes on from it."""
