"""Checkpoints: whole or absent, written beside the training."""
