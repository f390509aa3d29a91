"""The last line of a terminal, which changes, and what is printed meanwhile, which comes above."""

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, TextIO

import tqdm

from launch.terminal import output

_LOOK_SECONDS = 1.0
# In a log file a phase is worth a line once it has taken so long.
_LONG_SECONDS = 20.0


@contextlib.contextmanager
def printed_above(bar: tqdm.tqdm, out: TextIO) -> Iterator[None]:
    """Has what anyone prints come above the bar, which is on this terminal."""
    # Both go one way, or they would overtake each other.
    above = _AboveBar(bar, out)
    with contextlib.ExitStack() as redirected:
        redirected.enter_context(contextlib.redirect_stdout(above))
        if sys.stderr.isatty():
            redirected.enter_context(contextlib.redirect_stderr(above))
        yield


class _AboveBar:
    """A stream whose lines come above the bar; everything else is that of the bar's stream."""

    def __init__(self, bar: tqdm.tqdm, stream: TextIO) -> None:
        self._bar, self._stream = bar, stream
        self._begun = ""

    def write(self, text: str) -> int:
        with self._bar.get_lock():
            lines, end, self._begun = (self._begun + text).rpartition("\n")
            if end:
                self._bar.clear(nolock=True)
                self._stream.write(lines + end)
                self._bar.refresh(nolock=True)
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Phases:
    """Says what a process does before its first step, to whoever waits for that.

    On a terminal it is the last line, with the seconds so far, which is gone in the end; in a log
    file it is a line for what takes long.
    """

    def __init__(self) -> None:
        self._out, self._doing, self._since = sys.stdout, "", 0.0
        self._bar: tqdm.tqdm | None = None
        self._shown = contextlib.ExitStack()
        self._ended = threading.Event()

    def begin(self, doing: str) -> None:
        """Says that this begins; nothing once it is closed."""
        if self._ended.is_set():
            return
        first, self._doing, self._since = not self._doing, doing, time.monotonic()
        if first:
            if self._out.isatty():
                self._bar = tqdm.tqdm(file=self._out, leave=False, bar_format="{desc}")
                self._shown.enter_context(printed_above(self._bar, self._out))
                output.before_leaving(self.close)
            threading.Thread(target=self._look, daemon=True, name="phases").start()
        if self._bar is not None:
            self._bar.set_description_str(f"{doing} …")

    def close(self) -> None:
        """Takes the line away, once."""
        bar, self._bar = self._bar, None
        self._ended.set()
        self._shown.close()
        if bar is not None:
            bar.close()

    def _look(self) -> None:
        told = ""
        while not self._ended.wait(_LOOK_SECONDS):
            doing, seconds, bar = self._doing, time.monotonic() - self._since, self._bar
            if bar is not None and seconds >= _LOOK_SECONDS:
                bar.set_description_str(f"{doing} … {seconds:.0f} s")
            elif seconds >= _LONG_SECONDS and doing != told:
                print(f"{doing}: {seconds:.0f} s so far")
                told = doing
