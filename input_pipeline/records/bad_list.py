"""The list of bad records that `launch.prepare --verify` leaves for training, which omits them."""

import dataclasses
import json
import pathlib
from collections.abc import Sequence

import numpy as np

from input_pipeline.records.open_files import keep, kept_paths

_NAME = ".lockstep-bad-{}.json"


@dataclasses.dataclass(frozen=True)
class BadRecord:
    """A record that cannot be trained on: its number in the files, where it lies, and why."""

    number: int
    where: str
    why: str


@dataclasses.dataclass(frozen=True)
class BadList:
    """A kept list of bad records of a set of files.

    Attributes:
      places: where it may lie; the first that can be written is taken.
      stamp: tells the state of the files: a list of another state does not count.
    """

    places: tuple[pathlib.Path, ...]
    stamp: str

    def load(self) -> list[BadRecord]:
        """The bad records, none where there is no list for these files as they are.

        Raises:
          ValueError: the list is damaged.
        """
        for place in self.places:
            try:
                kept = json.loads(place.read_text(encoding="utf-8"))
                if kept["stamp"] == self.stamp:
                    return [BadRecord(**record) for record in kept["bad"]]
            except OSError:
                continue
            except (ValueError, TypeError, KeyError):
                raise ValueError(
                    f"the list of bad records {place} is damaged; remove it and run "
                    "python -m launch.prepare with the same flags and --verify again."
                ) from None
        return []

    def update(self, verified: np.ndarray, bad: Sequence[BadRecord]) -> pathlib.Path | None:
        """Writes what is known after these records, int64 [n], were looked at.

        Returns:
          Where the list lies; None where it cannot be written at all.
        """
        # What is known of other records of the same files, of another slice, still holds.
        records = [record for record in self.load() if record.number not in verified]
        records = sorted([*records, *bad], key=lambda record: record.number)
        kept = {"stamp": self.stamp, "bad": [dataclasses.asdict(record) for record in records]}
        text = json.dumps(kept, indent=1, ensure_ascii=False) + "\n"
        return keep(self.places, lambda path: path.write_text(text, encoding="utf-8"))


def bad_list_of(paths: Sequence[str], stamp: str) -> BadList:
    """The list of bad records of these files in the state that the stamp tells."""
    return BadList(tuple(kept_paths(paths, _NAME)), stamp)
