"""What a person runs: `python -m launch.<name> --flagfile=…`. Flags live here and nowhere below."""
