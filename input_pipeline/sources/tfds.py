"""`tfds:NAME[/CONFIG][:VERSION]`: what TensorFlow Datasets has prepared, without TensorFlow.

Its own code says which files a split such as `train[:90%]` lies in and what the features are; the
files, TFRecord or ArrayRecord, are read here.
"""

import dataclasses
import difflib
import functools
import os
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np

from input_pipeline.labels import hidden
from input_pipeline.records.array_record import ArrayRecordReader
from input_pipeline.records.bad_list import BadList, bad_list_of
from input_pipeline.records.open_files import digest
from input_pipeline.records.tf_example import ExampleFeatures
from input_pipeline.records.tfrecord_index import TFRecordIndex, open_index
from input_pipeline.records.tfrecord_reader import TFRecordReader
from input_pipeline.settings import DataSettings
from input_pipeline.sources.source import Source, select
from input_pipeline.sources.tfrecord import parse_features

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

_EVALUATION = ("test", "validation")


def open_split(rest: str, settings: DataSettings, split: str) -> Source:
    """Opens a split; the index of TFRecord files is built where there is none.

    Raises:
      ValueError: the dataset is not prepared, the split does not exist, a file is missing or
        damaged, or the dataset has no image and label.
    """
    info = _info(rest, settings.data_dir)
    features = _features(info, settings.features)
    image, label = info.features[features.image], info.features[features.label]
    spec = _split(info, settings, split)
    paths, lengths, ranges = _files(info, spec)
    if split == "eval":
        _check_apart(info, _split(info, settings, "train"), spec)
    files = _open_files(info, paths, lengths)
    reader = files
    if isinstance(files, TFRecordIndex):
        reader = TFRecordReader(files, settings.shuffle_block)
    source = Source(
        name=f"{info.full_name.rpartition('/')[0]}/{split}",
        length=sum(lengths),
        num_classes=label.num_classes,
        image_shape=tuple(image.shape),
        encoded=True,
        read=functools.partial(features.read, reader.records, files.describe),
        weighted=bool(features.weight),
        class_names=tuple(label.names or ()),
        describe=files.describe,
        bad_list=_bad_list(files),
        index=files if isinstance(files, TFRecordIndex) else None,
        order=files.order(),
    )
    source = select(source, ranges)
    if split == "eval" and not settings.eval_split and hidden(source):
        for other in _EVALUATION:
            if other in info.splits and other != spec:
                instead = open_split(rest, dataclasses.replace(settings, eval_split=other), split)
                note = f"the labels of {spec} are hidden (-1), so that {other} is evaluated on"
                return dataclasses.replace(instead, notes=(*instead.notes, note))
    return source


def _info(name: str, data_dir: str) -> "tfds.core.DatasetInfo":
    """The `DatasetInfo` of a prepared dataset, from its files alone."""
    # 0.8 s, but no TensorFlow.
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import constants, read_only_builder

    folder = os.path.expanduser(data_dir or constants.DATA_DIR)
    try:
        return read_only_builder.builder_from_files(name, data_dir=folder).info
    except tfds.core.DatasetNotFoundError:
        there = os.listdir(folder) if os.path.isdir(folder) else []
        near = difflib.get_close_matches(name.split(":")[0].split("/")[0], there, 1)
        hint = f" (there is {near[0]})" if near else ""
        raise ValueError(
            f"the dataset tfds:{name} is not in {folder}{hint}; prepare it with "
            'python -c "import tensorflow_datasets as tfds; '
            f"tfds.builder('{name}', data_dir='{folder}').download_and_prepare()\", "
            "or give the --data_dir that holds it."
        ) from None
    except Exception as error:  # of what TFDS makes of damaged files there is no list
        raise ValueError(
            f"the dataset tfds:{name} in {folder} cannot be read ({_first_line(error)}); "
            "prepare it again, or write it as tfds:NAME[/CONFIG][:VERSION]."
        ) from None


def has_evaluation(rest: str, settings: DataSettings) -> bool:
    """Whether the dataset has a split to evaluate on, or one was asked for."""
    return bool(settings.eval_split) or bool(_usual(_info(rest, settings.data_dir), "eval"))


def _usual(info: "tfds.core.DatasetInfo", split: str) -> str:
    names = ("train",) if split == "train" else _EVALUATION
    return next((name for name in names if name in info.splits), "")


def _split(info: "tfds.core.DatasetInfo", settings: DataSettings, split: str) -> str:
    """The split in TFDS's language: the one that was asked for, else the usual one."""
    given = settings.train_split if split == "train" else settings.eval_split
    usual = given or _usual(info, split)
    if not usual:
        first = next(iter(info.splits), "NAME")
        raise ValueError(
            f"{info.full_name} has no split train, but {', '.join(info.splits)}; say with "
            f"--train_split which to take, for example --train_split={first}."
        )
    return usual


def _check_apart(info: "tfds.core.DatasetInfo", train: str, evaluation: str) -> None:
    """Sees that no record is trained and evaluated on.

    Raises:
      ValueError: some are; the sentence says which.
    """
    trained = defaultdict(list)
    for name, begin, end in _spans(info, train):
        trained[name].append((begin, end))
    shared = [
        f"{name}[{max(begin, a)}:{min(end, b)}]"
        for name, begin, end in _spans(info, evaluation)
        for a, b in trained[name]
        if max(begin, a) < min(end, b)
    ]
    if shared:
        raise ValueError(
            f"{info.full_name} would be evaluated on what it is trained on: {', '.join(shared)} is "
            f"in {train}, to train on, and in {evaluation}, to evaluate on; give splits that share "
            "no record, such as --train_split='train[:90%]' --eval_split='train[90%:]', or leave "
            "--eval_split out and say --holdout=10%."
        )


def _spans(info: "tfds.core.DatasetInfo", spec: str) -> list[tuple[str, int, int]]:
    """The ranges of the dataset's own splits that a split consists of: name, begin, end."""
    firsts = {
        str(path): (name, int(first))
        for name, split in info.splits.items()
        for path, first in zip(split.filepaths, np.cumsum([0, *split.shard_lengths]), strict=False)
    }
    spans: list[tuple[str, int, int]] = []
    for part in _parts(info, spec):
        name, first = firsts[part.filename]
        begin, end = first + part.skip, first + part.skip + part.take
        if spans and spans[-1][0] == name and spans[-1][2] == begin:  # it goes on in the next file
            spans[-1] = (name, spans[-1][1], end)
        else:
            spans.append((name, begin, end))
    return spans


def _files(info: "tfds.core.DatasetInfo", spec: str) -> tuple[list[str], list[int], np.ndarray]:
    """The files of a split and all that it is a part of, their lengths, and its part of them.

    All slices of a split get the same files, so that they share one index.

    Returns:
      The paths, the number of records of each, and int64 [k, 2], the ranges of record numbers
      that the split consists of, counted over all these files.
    """
    parts = _parts(info, spec)
    needed = {part.filename for part in parts}
    paths, lengths = [], []
    for split in info.splits.values():
        files = list(map(str, split.filepaths))
        if needed.intersection(files):
            paths += files
            lengths += split.shard_lengths
    firsts = dict(zip(paths, np.cumsum([0, *lengths]).tolist(), strict=False))
    begins = [firsts[part.filename] + part.skip for part in parts]
    ends = [begin + part.take for begin, part in zip(begins, parts, strict=True)]
    return paths, lengths, np.array([begins, ends], np.int64).T


def _parts(info: "tfds.core.DatasetInfo", spec: str) -> list[Any]:
    """The files of a split with what is to be taken of each, as TFDS says it."""
    try:
        parts = info.splits[spec].file_instructions
    except Exception as error:  # TFDS raises whatever the text leads to
        raise ValueError(
            f"the split {spec!r} of {info.full_name} is not valid ({_first_line(error)}); use "
            f"{', '.join(info.splits)}, a slice such as train[:90%] or train[1000:], or a sum of "
            "them such as train+test."
        ) from None
    if not parts or min(part.take for part in parts) < 1:
        raise ValueError(f"the split {spec!r} of {info.full_name} is empty; give one with records.")
    return parts


def _open_files(
    info: "tfds.core.DatasetInfo", paths: list[str], lengths: list[int]
) -> TFRecordIndex | ArrayRecordReader:
    suffix = info.file_format.file_suffix
    if suffix == "array_record":
        return ArrayRecordReader(paths, lengths)
    if suffix != "tfrecord":
        raise ValueError(
            f"{info.full_name} is prepared as {suffix}, which has no random access here; prepare "
            "it with file_format='tfrecord' or 'array_record'."
        )
    index = open_index(paths)
    found = np.diff(np.searchsorted(index.starts[:-1], index.bounds))
    for path, length, expected in zip(paths, found, lengths, strict=True):
        if length != expected:
            raise ValueError(
                f"{path} holds {length:,} records and should hold {expected:,}; fetch it or "
                "prepare the dataset again."
            )
    return index


def _bad_list(files: TFRecordIndex | ArrayRecordReader) -> BadList:
    stamp = digest(files.facts) if isinstance(files, ArrayRecordReader) else files.stamp
    return bad_list_of(files.paths, stamp)


def _features(info: "tfds.core.DatasetInfo", text: str) -> ExampleFeatures:
    """The names of the image and the label: those asked for, else what TFDS calls the task's."""
    import tensorflow_datasets as tfds

    names, given, task = {}, parse_features(text), info.supervised_keys or ()
    kinds = {"image": tfds.features.Image, "label": tfds.features.ClassLabel}
    for role, kind in kinds.items():
        found = [name for name, feature in info.features.items() if type(feature) is kind]
        candidates = [given[role]] if role in given else [x for x in found if x in task] or found
        names[role] = candidates[0] if len(candidates) == 1 else ""
        if names[role] not in found:
            listed = [
                f"{name} ({type(feature).__name__})" for name, feature in info.features.items()
            ]
            wanted = f"named {names[role]!r} " if names[role] else ""
            raise ValueError(
                f"{info.full_name} has not one feature {wanted}that is an {kind.__name__} for the "
                f"{role}, but {', '.join(listed)}; say which it is with --features={role}=NAME."
            )
    if "weight" in given:
        names["weight"] = given["weight"]
        kind = getattr(dict(info.features.items()).get(given["weight"]), "np_dtype", None)
        if kind is None or kind.kind != "f":
            raise ValueError(
                f"{info.full_name} has no feature {given['weight']!r} of floats for the weight, "
                f"but {', '.join(info.features)}; say which it is with --features=weight=NAME."
            )
    image = info.features[names["image"]]
    if image.shape[2] is None or image.np_dtype.kind != "u":
        raise ValueError(
            f"the images of {info.full_name} are {image.np_dtype} {list(image.shape)}; only whole "
            "numbers and a known number of channels are understood: prepare it with uint8 images, "
            "those from 0 to 1 times 255."
        )
    return ExampleFeatures(**names)


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0].rstrip(".")
