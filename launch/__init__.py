"""What a person runs: `python -m launch.<name> --flagfile=…`. Flags live here and nowhere below."""

import time

BEGAN = time.perf_counter()  # as near to the process's start as our code gets
