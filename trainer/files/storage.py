"""Storage that fails, told once: training goes on without what it did not take."""

import contextlib
from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")


class Storage:
    """Around what is written on the way and can be missed.

        with storage.attempt("control/status.json"):
            write_json(…)  # an OSError is told, not raised

    Args:
      say: tells a person.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._failing = ""

    @contextlib.contextmanager
    def attempt(self, what: str) -> Iterator[None]:
        """Tells of a fault, once until the next thing could be written."""
        try:
            yield
        except OSError as error:
            reason = error.strerror or str(error)
            if reason != self._failing:
                self._say(f"warning: {what} cannot be written ({reason}); training goes on")
            self._failing = reason
        else:
            self._failing = ""

    def around(self, what: str, call: Callable[[T], object]) -> Callable[[T], None]:
        """The function `call`, but that a fault is told and not raised."""

        def attempt(argument: T) -> None:
            with self.attempt(what):
                call(argument)

        return attempt
