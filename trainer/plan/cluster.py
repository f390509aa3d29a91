"""The workers of a run on several machines, and which of them this process is."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The workers that train together, each a process; the first one is the chief.

    The chief alone writes to the run's folder. All of them do the same work otherwise, each on its
    own devices and its own share of the data.
    """

    addresses: tuple[str, ...]  # HOST:PORT of each
    index: int  # of this process
    because: str  # what has told so

    @property
    def chief(self) -> bool:
        """Whether this process is the first worker."""
        return self.index == 0

    def name(self, index: int) -> str:
        """A worker as messages call it."""
        return f"worker {index} ({self.addresses[index]})"
