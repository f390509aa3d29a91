"""The commands: `python -m launch.<name> --flagfile=…`. Flags live here and nowhere below."""

import sys
import time

from launch.terminal import output

output.hold_missing()  # before anything else opens a file
sys.excepthook = output.tell_of_uncaught  # while a command is still being imported
BEGAN = time.perf_counter()  # as near to the process's start as our code gets
