"""A process's own time: what a shared machine does meanwhile does not move a moment in it."""

import os
import time
from collections.abc import Callable

_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """The processor time that all threads of a process have used; 0 if it is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS


def wait_cpu(pid: int, seconds: float, ended: Callable[[], bool]) -> float:
    """Waits until a process has used so much processor time, or has ended; the most it was seen."""
    most = 0.0
    while not ended() and most < seconds:
        most = max(most, cpu_seconds(pid))
        time.sleep(0.01)
    return most
