"""What ends a training where a device is found to be faulty."""

from typing import Any


class FaultyDeviceError(Exception):
    """A device or its memory is faulty; the message says which, where and what to do.

    Args:
      step: after which it was found.
      event: what metrics.jsonl is told of it.
    """

    def __init__(self, step: int, event: dict[str, Any], message: str) -> None:
        super().__init__(message)
        self.step, self.event = step, event
