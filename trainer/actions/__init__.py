"""What the host does between two blocks of device steps."""
