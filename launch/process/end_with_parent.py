"""A child process that hears of its parent's end, however it comes."""

import ctypes
import signal

_PR_SET_PDEATHSIG = 1  # of <sys/prctl.h>
_libc = ctypes.CDLL(None)


def end_with_parent() -> None:
    """In a child, before it starts: SIGHUP once the parent has gone, also under nohup.

    It comes once for each of that process's threads, and no other signal is the same the second
    time (`launch.process.stop`).
    """
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGHUP)
