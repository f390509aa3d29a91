"""When a write that failed is to be tried again: after 1, 2, 4, … seconds, at most a minute."""

import dataclasses
import time

_LONGEST_PAUSE_SECONDS = 60.0


@dataclasses.dataclass
class Retry:
    """The failures in a row, and when to try once more."""

    failures: int = 0
    again: float = 0.0  # of time.monotonic

    def failed(self) -> None:
        """Counts a failure; the pause after it is twice the one before."""
        self.failures += 1
        pause = min(2.0 ** (self.failures - 1), _LONGEST_PAUSE_SECONDS)
        self.again = time.monotonic() + pause

    def succeeded(self) -> None:
        """Begins anew."""
        self.failures = 0

    def due(self) -> bool:
        """Whether something has failed, and it is time to try once more."""
        return bool(self.failures) and time.monotonic() >= self.again
