"""Digits whose reads a test holds: `--dataset=python:held_digits:make`.

As long as there is a file `hold-train` or `hold-eval` in the current folder, the reads of that
split wait from the one on whose number the file holds; `held-train` or `held-eval` tells that one
waits.
"""

import dataclasses
import itertools
import pathlib
import time

import numpy as np

from input_pipeline.settings import DataSettings
from input_pipeline.sources import Source, open_source


def make(split: str) -> Source:
    """The split of digits."""
    source, numbers = open_source(DataSettings("digits"), split), itertools.count()
    hold, held = pathlib.Path(f"hold-{split}").absolute(), pathlib.Path(f"held-{split}").absolute()

    def read(records: np.ndarray) -> tuple[np.ndarray, ...]:
        number = next(numbers)
        while hold.exists() and number >= int(hold.read_text() or 0):
            held.touch()
            time.sleep(0.01)
        return source.read(records)

    return dataclasses.replace(source, read=read)
