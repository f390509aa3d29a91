"""What a person runs: `python -m launch.<name> --flagfile=…`. Flags live here and nowhere below."""

import time

from launch.terminal import hold_missing

hold_missing()  # before anything else opens a file
BEGAN = time.perf_counter()  # as near to the process's start as our code gets
