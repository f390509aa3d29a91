"""`csv:FILE`: a table of image files, with columns for the path, the label, a weight and the split.

Paths are relative to the table's folder. Labels are whole numbers, or names, whose label is their
place among those to train on, sorted. Where no row is to evaluate on, a part of each class is held
out: see `sources.holdout`. Where masks are to be told, a label is the path of one.
"""

import difflib
import math
import os
import pathlib
import stat
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from input_pipeline.records.bad_list import bad_list_of
from input_pipeline.records.open_files import digest, kept_paths, reason, size_and_time
from input_pipeline.settings import DataSettings
from input_pipeline.sources.csv_table import Table, read_table
from input_pipeline.sources.csv_targets import several_labels, several_names, values
from input_pipeline.sources.image_files import ImageFiles, contents_of, order_of
from input_pipeline.sources.image_shape import HEADERS, look_at_files
from input_pipeline.sources.mask_files import Classes, MaskedFiles, classes_of
from input_pipeline.sources.source import Source
from input_pipeline.sources.split_names import usual


def open_split(rest: str, settings: DataSettings, split: str) -> Source:
    """Opens a split.

    Raises:
      ValueError: the table cannot be read or lacks a column; a row's file is missing, its label,
        weight or split is none; or a file has two labels or is in both splits.
    """
    table = read_table(pathlib.Path(rest).expanduser(), settings.features)
    kind = settings.targets or ("masks" if table.of_masks else "class")
    if settings.num_classes and kind != "masks":
        raise ValueError(
            f"--num_classes={settings.num_classes} is for masks, and the table's labels tell its "
            "classes; leave it out."
        )
    train = _rows_of(table, settings, "train")
    rows = train if split == "train" else _rows_of(table, settings, "eval")
    names, count_of, labels = _targets(table, rows, train, kind)
    files = _identities(table, rows)
    if split == "eval":
        _check_apart(table, train, rows, files)
    once = _once(table, rows, files, labels)
    images = _files(table, table.images, rows[once], labels[once], _weights(table, rows[once]))
    masks = None
    if kind == "masks":
        masks = _masks(table, images, rows[once], train, settings.num_classes)
        names, count_of = masks.classes.names, masks.classes.count
    name = f"{table.path.stem}/{split}"
    listed = [str(table.path), f"{table.path}.{split}"]
    stamp = digest(size_and_time(str(table.path)))
    count, places = len(images.labels), kept_paths(listed, HEADERS)
    found = look_at_files(images.path, count, name, places, stamp)
    return Source(
        name=name,
        length=count,
        num_classes=count_of,
        image_shape=found.shape,
        encoded=True,
        read=masks.files.read if masks else images.read,
        weighted=images.weights is not None,
        labels=None if masks else images.labels,
        class_names=names,
        describe=images.path,
        bad_list=bad_list_of(listed, stamp),
        notes=(
            *found.notes(),
            *_notes(table, settings, split, len(rows) - len(once)),
            *(masks.classes.notes if masks and split == "train" else ()),
        ),
        order=masks.files.order() if masks else order_of(images.labels, images.below),
        contents=masks.files.contents()
        if masks
        else contents_of(images.path, len(images.labels), images.weights),
        targets=kind,
        whole=masks is not None,
    )


class _Masks(NamedTuple):
    files: MaskedFiles
    classes: Classes


def _files(
    table: Table,
    paths: Sequence[str],
    rows: np.ndarray,
    labels: np.ndarray,
    weights: np.ndarray | None = None,
) -> ImageFiles:
    below = np.array([os.fsencode(paths[row]) for row in rows])
    return ImageFiles(os.fsencode(table.path.parent), below, labels, weights)


def _masks(
    table: Table, images: ImageFiles, rows: np.ndarray, train: np.ndarray, num_classes: int
) -> _Masks:
    """The masks of these rows.

    Raises:
      ValueError: one is missing, or no classes can be told.
    """
    _identities(table, rows, table.labels)
    _identities(table, train, table.labels)
    zeros = np.zeros(len(rows), np.int64)
    own = MaskedFiles(images, _files(table, table.labels, rows, zeros))
    zeros = np.zeros(len(train), np.int64)
    of_train = MaskedFiles(
        _files(table, table.images, train, zeros), _files(table, table.labels, train, zeros)
    )
    return _Masks(own, classes_of(of_train, table.path.parent, num_classes))


def has_evaluation(rest: str, settings: DataSettings) -> bool:
    """Whether there are rows to evaluate on."""
    if settings.eval_split:
        return True
    return (
        usual("eval", read_table(pathlib.Path(rest).expanduser(), settings.features).splits)
        is not None
    )


def _split_name(table: Table, settings: DataSettings, split: str) -> str | None:
    """The table's name for a split: as asked for, or a usual one."""
    given = settings.train_split if split == "train" else settings.eval_split
    there = sorted(set(table.splits))
    if not there and not given:
        return None
    name = given if given in there else None if given else usual(split, there)
    if name is None:
        held = f"the splits {', '.join(there)}" if there else "no column for the split"
        wanted = given or "train"
        near = difflib.get_close_matches(wanted, there, 1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise ValueError(
            f"{table.path} has no rows of the split {wanted}{hint}, but {held}; say which to take "
            f"with --{split}_split, or leave it out."
        )
    return name


def _rows_of(table: Table, settings: DataSettings, split: str) -> np.ndarray:
    """The numbers of a split's rows, int64 [n]."""
    name = _split_name(table, settings, split)
    if name is None:
        return np.arange(len(table.lines))
    return np.array([row for row, other in enumerate(table.splits) if other == name])


def _targets(
    table: Table, rows: np.ndarray, train: np.ndarray, kind: str
) -> tuple[tuple[str, ...], int, np.ndarray]:
    """The names of classes or labels, how many there are, and the targets of these rows."""
    if kind == "masks":  # each path a number, by which two masks of one image are seen
        _, numbers = np.unique([table.labels[row] for row in rows], return_inverse=True)
        return (), 0, numbers.astype(np.int64)
    if kind == "values":
        numbers = values(table, rows)
        return (), numbers.shape[1], numbers
    if kind == "labels":
        names = several_names(table, train)
        if not names:
            raise ValueError(f"{table.path} has no labels to train on; give some rows a label.")
        return names, len(names), several_labels(table, rows, names)
    names, classes = _classes(table, train)
    return names, max(classes.values()) + 1, _labels(table, rows, names, classes)


def _classes(table: Table, train: np.ndarray) -> tuple[tuple[str, ...], dict[str, int]]:
    """The classes' names, () where labels are numbers; and the label of each class by its text."""
    texts = {table.labels[row] for row in train}
    if all(map(_is_number, texts)):
        return (), {str(int(text)): int(text) for text in texts}
    names = tuple(sorted(texts))
    return names, {name: label for label, name in enumerate(names)}


def _is_number(text: str) -> bool:
    # Of more digits than that it is no label, but a name all the same.
    return text.removeprefix("-").isdecimal() and len(text) <= 18


def _labels(
    table: Table, rows: np.ndarray, names: tuple[str, ...], classes: dict[str, int]
) -> np.ndarray:
    """The labels of rows, int64 [n].

    Raises:
      ValueError: one is of no class, or cannot be a label.
    """
    labels = np.zeros(len(rows), np.int64)
    for at, row in enumerate(rows):
        text = table.labels[row]
        label = classes.get(text if names or not _is_number(text) else str(int(text)))
        if label is None:
            shown = sorted(classes, key=classes.__getitem__)
            more = f" and {len(shown) - 10:,} more" if len(shown) > 10 else ""
            raise ValueError(
                f"{table.where(row)}: there is nothing of the class {text} to train on; the "
                f"classes are {', '.join(shown[:10])}{more}; mend the label, or give rows of it "
                "for training."
            )
        if not 0 <= label < 2**31:
            raise ValueError(
                f"{table.where(row)}: the label {text} is out of range; give 0, 1, … or names."
            )
        labels[at] = label
    return labels


def _identities(
    table: Table, rows: np.ndarray, paths: Sequence[str] | None = None
) -> list[tuple[int, int]]:
    """The device and inode of each row's file: it may have several paths.

    Args:
      paths: of all rows; the images' if left out.

    Raises:
      ValueError: one is missing.
    """
    found, missing, paths = [], [], paths or table.images
    for row in rows.tolist():
        try:
            status = os.stat(os.path.join(table.path.parent, paths[row]))
        except (OSError, ValueError) as error:  # ValueError: a zero byte
            missing.append((row, reason(error)))
            continue
        if not stat.S_ISREG(status.st_mode):
            missing.append((row, "it is no file"))
        found.append((status.st_dev, status.st_ino))
    if missing:
        row, why = missing[0]
        count = f"{len(missing):,} of {len(rows):,} files cannot, " if len(missing) > 1 else ""
        raise ValueError(
            f"{table.where(row)}: {paths[row]} cannot be read ({count}{why}); mend the "
            f"path, which is relative to {os.path.abspath(table.path.parent)}"
            f"{', and write it with /' * (chr(92) in paths[row])}, or remove the line."
        )
    return found


def _once(
    table: Table, rows: np.ndarray, files: list[tuple[int, int]], labels: np.ndarray
) -> np.ndarray:
    """The first row of each file, int64 [k].

    Raises:
      ValueError: a file has two labels.
    """
    firsts: dict[tuple[int, int], int] = {}
    for at, file in enumerate(files):
        first = firsts.setdefault(file, at)
        if np.any(labels[first] != labels[at]):
            row, other = rows[at], rows[first]
            raise ValueError(
                f"{table.where(row)}: {table.images[row]} is {table.labels[row]}, but in line "
                f"{table.lines[other]:,} it is {table.labels[other]}: an image has one label."
            )
    return np.array(list(firsts.values()))


def _check_apart(
    table: Table,
    train: np.ndarray,
    rows: np.ndarray,
    files: list[tuple[int, int]],
) -> None:
    """Sees that no file is trained and evaluated on, by whatever path."""
    trained = dict(zip(_identities(table, train), train, strict=True))
    for row, file in zip(rows, files, strict=True):
        if file in trained:
            raise ValueError(
                f"{table.where(row)}: {table.images[row]} would be evaluated on, but line "
                f"{table.lines[trained[file]]:,} is to train on it; remove one of them."
            )


def _weights(table: Table, rows: np.ndarray) -> np.ndarray | None:
    """The examples' weights, float32 [n], if the table has some."""
    if not table.weights:
        return None
    weights = np.zeros(len(rows), np.float32)
    for at, row in enumerate(rows):
        try:
            weights[at] = float(table.weights[row])
        except ValueError:
            weights[at] = math.nan
        if not 0 <= weights[at] < math.inf:
            raise ValueError(
                f"{table.where(row)}: the weight is {table.weights[row]}: it must be a finite "
                "number of 0 or more."
            )
    return weights


def _notes(table: Table, settings: DataSettings, split: str, again: int) -> tuple[str, ...]:
    """Notes on the rows that are not taken."""
    said = []
    if again:
        rows = "1 row" if again == 1 else f"{again:,} rows"
        said.append(f"{split}: {rows} left out, of files that an earlier row names")
    taken = (
        {_split_name(table, settings, name) for name in ("train", "eval")}
        if split == "eval"
        else set(table.splits)
    )
    others = Counter(name for name in table.splits if name not in taken)
    if others:
        rows = (
            "1 row of another split is"
            if others.total() == 1
            else f"{others.total():,} rows of other splits are"
        )
        said.append(f"{rows} not used: {', '.join(sorted(others))}")
    return tuple(said)
