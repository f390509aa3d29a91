"""The host's actions between two blocks of device steps: plain callables."""
