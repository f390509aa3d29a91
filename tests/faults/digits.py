"""Sources of a user's own: every read raises an audit event and is written down."""

import dataclasses
import json
import os
import pathlib
import sys
from collections.abc import Callable, Sequence

import numpy as np

from input_pipeline.settings import DataSettings
from input_pipeline.sources import Source, open_source
from input_pipeline.sources.source import select

READS = "LOCKSTEP_FAULTS_READS"  # the environment variable that names the file of what was read

# So few that a run of a hundred steps has several epochs; no multiple of the batch.
EXAMPLES = {"train": 500, "eval": 100}


def open_split(split: str) -> Source:
    """Some of the digits."""
    return _told(open_source(DataSettings("digits"), split), split)


def values(split: str) -> Source:
    """The digits with two numbers to be told, which follow from the class."""
    return _of_label(split, "values", lambda label: [label / 3, 5 - label])


def labels(split: str) -> Source:
    """The digits with three labels: odd, 5 or more, divisible by 3."""
    return _of_label(split, "labels", lambda label: [label % 2, label >= 5, label % 3 == 0])


def text(split: str) -> Source:
    """Rows of the bytes of this package's files."""
    glob = f"text:{pathlib.Path(__file__).parent}/*.py"
    return _told(open_source(DataSettings(glob, sequence_length=24), split), split)


def _of_label(
    split: str, targets: str, told: Callable[[np.ndarray], Sequence[np.ndarray]]
) -> Source:
    source = open_source(DataSettings("digits"), split)

    def made(label: np.ndarray) -> np.ndarray:
        return np.stack(told(label), axis=1).astype(np.float32)

    def read(records: np.ndarray) -> tuple[np.ndarray, ...]:
        images, label = source.read(records)
        return images, made(label)

    known = made(source.labels)
    of = dataclasses.replace(
        source, targets=targets, num_classes=known.shape[1], labels=known, class_names=(), read=read
    )
    return _told(of, split)


def _told(source: Source, split: str) -> Source:
    """Some of its records; every read raises `faults.read.SPLIT`, those of `train` are noted."""
    some = select(source, np.array([[0, min(source.length, EXAMPLES[split])]]))
    log = os.open(os.environ[READS], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def read(records: np.ndarray) -> tuple[np.ndarray, ...]:
        sys.audit(f"faults.read.{split}")
        if split == "train":
            # In one call, so that a kill leaves the whole line or nothing of it.
            os.write(log, f"{json.dumps(records.tolist())}\n".encode())
        return some.read(records)

    return dataclasses.replace(some, read=read)
