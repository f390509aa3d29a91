"""What a person runs: `python -m launch.<name> --flagfile=…`. Flags live here and nowhere below."""

import sys
import time

from launch import terminal

terminal.hold_missing()  # before anything else opens a file
sys.excepthook = terminal.tell_of_uncaught  # while a command is still being imported
BEGAN = time.perf_counter()  # as near to the process's start as our code gets
