"""Whether a machine can train: facts that are collected, and what they mean, as sentences."""
