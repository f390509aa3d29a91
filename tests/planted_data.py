"""Data that take as long as they are told to, and no processor's time; see `planted`.

No TensorFlow, so that what only plans is as quick as with other data.
"""

import dataclasses
import os
import threading
import time
from collections.abc import Sequence

import numpy as np

from input_pipeline.settings import DataSettings
from input_pipeline.sources import Source, open_source

_ONE_AT_A_TIME = threading.Lock()


def seconds(name: str) -> float:
    """What the environment says."""
    return float(os.environ.get(name, "0")) / 1000


def digits(split: str) -> Source:
    """Digits, read slowly."""
    source = open_source(DataSettings("digits"), split)

    def read(records: np.ndarray) -> Sequence[np.ndarray]:
        with _ONE_AT_A_TIME:
            time.sleep(seconds("A_RECORD") * len(records))
        return source.read(records)

    return dataclasses.replace(source, name=f"planted/{split}", read=read)
