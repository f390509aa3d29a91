"""The targets in a CSV file's column: classes, labels or values; no TensorFlow."""

import math

import numpy as np

from input_pipeline.sources.csv_table import Table

# Between the labels of an image that has several; a bare one of these is no label at all.
_BETWEEN, _NO_LABEL = "|", "-"


def several_names(table: Table, train: np.ndarray) -> tuple[str, ...]:
    """The names of all labels that occur in rows to train on, sorted."""
    return tuple(sorted({name for row in train for name in _names(table, row)}))


def several_labels(table: Table, rows: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    """Whether each row has each label, 0 or 1, float32 [n, labels].

    Raises:
      ValueError: a row has a label that none to train on has.
    """
    places = {name: place for place, name in enumerate(names)}
    labels = np.zeros((len(rows), len(names)), np.float32)
    for at, row in enumerate(rows):
        for name in _names(table, row):
            if name not in places:
                raise ValueError(
                    f"{table.where(row)}: no row to train on has the label {name}; mend it, or "
                    "give rows that do."
                )
            labels[at, places[name]] = 1
    return labels


def values(table: Table, rows: np.ndarray) -> np.ndarray:
    """The numbers in the label's columns, float32 [n, columns].

    Raises:
      ValueError: one is no finite number.
    """
    return np.array([_row_of_values(table, row) for row in rows], np.float32)


def _names(table: Table, row: int) -> list[str]:
    text = table.labels[row]
    parts = [part.strip() for part in text.split(_BETWEEN)]
    return [part for part in parts if part not in ("", _NO_LABEL)]


def _row_of_values(table: Table, row: int) -> list[float]:
    found = []
    for text in table.labels[row].split("\t"):
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not abs(number) < 3e38:
            raise ValueError(
                f"{table.where(row)}: {text} is no finite number; mend it, or name the column of "
                "the values with --features=label=COLUMN, or label=COLUMN+COLUMN for several."
            )
        found.append(number)
    return found
