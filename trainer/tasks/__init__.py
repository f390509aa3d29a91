"""What is learned: losses and right answers."""
