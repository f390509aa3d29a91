"""`parquet:GLOB`: Parquet files with the images inside, as the Hugging Face hub hands datasets out.

GLOB is a pattern of files, or a folder. A file's split is what its name begins with, such as train
in `train-00000-of-00002.parquet`, or the name of its folder, as of `train/0000.parquet`. The names
of the classes are those of a ClassLabel in the files' metadata, or the column's texts, sorted.
"""

import os
import re
from collections import defaultdict

import numpy as np

from input_pipeline.records.bad_list import bad_list_of
from input_pipeline.records.open_files import digest, find_files, is_remote, kept_paths
from input_pipeline.records.parquet_images import ParquetImages
from input_pipeline.settings import DataSettings
from input_pipeline.sources.image_shape import HEADERS, look_at_headers
from input_pipeline.sources.parquet_columns import find_columns, read_labels, read_weights
from input_pipeline.sources.source import Source
from input_pipeline.sources.split_names import usual
from input_pipeline.sources.tfrecord import check_files_apart
from input_pipeline.tuning import WINDOW_BLOCKS, host_memory

# Row groups are kept in so many bytes, or in an eighth of the host's memory.
_KEPT = 1 << 30
_NUMBERED = re.compile(r"(?:(.*?)[-_.])?\d+(?:-of-\d+)?(?:-[0-9a-f]{8,})?", re.IGNORECASE)


def open_split(rest: str, settings: DataSettings, split: str) -> Source:
    """Opens a split.

    Raises:
      ValueError: no file matches or one is damaged, the split or a column is missing, or a label
        is one that nothing is trained on.
    """
    train = _files_of(rest, settings, "train")
    paths = train if split == "train" else _files_of(rest, settings, "eval")
    if split == "eval":
        check_files_apart(train, paths)
    columns = find_columns(train[0], settings.features)
    names, classes, labels = read_labels(columns, train, paths)
    images = ParquetImages(paths, columns.image, min(_KEPT, host_memory() // 8))
    if settings.shuffle_block:
        images.keep_window(2 * WINDOW_BLOCKS, settings.shuffle_block)
    weights = read_weights(columns, paths)
    name = f"{_name(rest)}/{split}"

    def read(records: np.ndarray) -> tuple[np.ndarray, ...]:
        contents = np.empty(len(records), object)
        contents[:] = list(images.records(np.asarray(records)))
        parts = contents, labels[records]
        return parts if weights is None else (*parts, weights[records])

    places, stamp = kept_paths(paths, HEADERS), digest(images.facts)
    headers = look_at_headers(images.header, images.sample(), len(images), name, places, stamp)
    return Source(
        name=name,
        length=len(images),
        num_classes=classes,
        image_shape=headers.shape,
        encoded=True,
        read=read,
        weighted=weights is not None,
        labels=labels,
        class_names=names,
        describe=images.describe,
        bad_list=bad_list_of(paths, stamp),
        notes=(
            *(f"{split}: {note}" for note in headers.notes()),
            *(_slow(images, settings) if split == "train" else ()),
        ),
        order=images.order(),
    )


def has_evaluation(rest: str, settings: DataSettings) -> bool:
    """Whether there are files to evaluate on."""
    if settings.eval_split or rest.partition(",")[2].strip():
        return True
    return usual("eval", _splits(rest)) is not None


def _files_of(rest: str, settings: DataSettings, split: str) -> list[str]:
    """The files of a split: those of its pattern, of the split asked for, or of the usual one."""
    evaluation = rest.partition(",")[2].strip()
    given = settings.train_split if split == "train" else settings.eval_split
    if evaluation:
        if given:
            raise ValueError(
                f"the dataset {settings.dataset!r} has a pattern for each split; leave "
                f"--{split}_split={given} out."
            )
        return _found(evaluation if split == "eval" else rest.partition(",")[0].strip())
    splits = _splits(rest)
    name = given or usual(split, splits)
    if split == "train" and not name and len(splits) == 1 and not usual("eval", splits):
        (name,) = splits  # its name says nothing: it is all there is
    if name not in splits:
        raise ValueError(
            f"{rest} has no files of the split {name or split}, but of "
            f"{', '.join(filter(None, splits)) or 'none that can be told by their names'}; say "
            f"with --{split}_split which to take, or give a pattern for each, "
            "parquet:GLOB,EVAL_GLOB."
        )
    folders = sorted({os.path.dirname(path) for path in splits[name]})
    if len(folders) > 1:
        raise ValueError(
            f"{rest} has files of the split {name} in {', '.join(folders[:5])}"
            f"{' and more' if len(folders) > 5 else ''}, which may be several datasets; give the "
            "folder of one of them."
        )
    return splits[name]


def _splits(rest: str) -> dict[str, list[str]]:
    """The files by the names of their splits, "" where no name tells one."""
    splits = defaultdict(list)
    for path in _found(rest.partition(",")[0].strip()):
        stem = os.path.basename(path).rpartition(".")[0]
        numbered = _NUMBERED.fullmatch(stem)
        folder = os.path.basename(os.path.dirname(path))
        if numbered and not numbered[1]:
            name = folder if usual("train", [folder]) or usual("eval", [folder]) else ""
        else:
            name = numbered[1] if numbered else stem
        splits[name].append(path)
    return dict(splits)


def _found(pattern: str) -> list[str]:
    if is_remote(pattern):
        raise ValueError(f"{pattern} is remote; copy the Parquet files to a local folder.")
    folder = os.path.expanduser(pattern)
    return find_files(os.path.join(folder, "**/*.parquet") if os.path.isdir(folder) else pattern)


def _name(rest: str) -> str:
    """The dataset's name: that of its folder, unless that says nothing."""
    folder = os.path.abspath(os.path.expanduser(rest.partition(",")[0].strip()))
    while not os.path.isdir(folder) or os.path.basename(folder) in ("data", "default", "train"):
        folder = os.path.dirname(folder)
    return os.path.basename(folder) or "parquet"


def _slow(images: ParquetImages, settings: DataSettings) -> tuple[str, ...]:
    """A note on row groups that would be read again and again."""
    total = int(images.sizes.sum())
    if settings.shuffle_block or total <= images.capacity:
        return ()
    rows = int(np.diff(images.firsts).max())
    return (
        f"slow to read in any order: its {total / 1e9:.3g} GB lie in row groups of {rows:,} "
        f"records, of which {images.capacity / 1e9:.2g} GB are kept in memory; give "
        f"--shuffle_block={rows}, or rewrite it with launch.prepare --to_tfrecord",
    )
