"""`python:odd_digits:NAME`: digits from which little can be learned, or too much."""

import dataclasses

import numpy as np

from input_pipeline.settings import DataSettings
from input_pipeline.sources import Source, open_source

_FEW = 30


def shuffled(split: str) -> Source:
    """The labels are those of other examples."""
    source = open_source(DataSettings("digits"), split)
    labels = np.random.default_rng(0).permutation(source.labels)

    def read(records: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return source.read(records)[0], labels[records]

    return dataclasses.replace(source, name=f"shuffled/{split}", read=read, labels=labels)


def few(split: str) -> Source:
    """Thirty examples to train on."""
    source = open_source(DataSettings("digits"), split)
    if split == "eval":
        return source
    return dataclasses.replace(source, name="few/train", length=_FEW, labels=source.labels[:_FEW])
