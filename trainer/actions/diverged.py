"""The error that ends a training which diverges."""


class DivergedError(Exception):
    """The training diverged at a step; the message says what happened, where, and what to try."""

    def __init__(self, step: int, message: str, onset: int) -> None:
        super().__init__(message)
        self.step = step  # at which it was certain
        self.onset = onset  # the first that showed it
