"""`tfrecord:GLOB,EVAL_GLOB`: TFRecord files of tf.train.Examples, local or remote.

The names of the classes are the lines of a `classes.txt` beside the files, as `launch.prepare
--to_tfrecord` writes it; without one, `--num_classes` says how many there are.
"""

import contextlib
import functools
import os
from collections.abc import Callable, Iterator

import numpy as np

from input_pipeline.class_names import CLASSES, read_names
from input_pipeline.images.image_header import Header, header_of_part
from input_pipeline.records.bad_list import bad_list_of
from input_pipeline.records.open_files import (
    digest,
    find_files,
    is_remote,
    kept_paths,
    open_files,
    size_and_time,
)
from input_pipeline.records.tf_example import (
    ExampleFeatures,
    describe_features,
    place_of_bytes,
    read_example,
)
from input_pipeline.records.tfrecord_index import FOOTER, HEADER, TFRecordIndex, open_index
from input_pipeline.records.tfrecord_reader import TFRecordReader
from input_pipeline.settings import DataSettings
from input_pipeline.sources.image_shape import HEADERS, Found, look_at_headers
from input_pipeline.sources.source import Source

# So many records are looked at for an advice on the number of classes.
_LABELS_LOOKED_AT = 1000
# So much of a record is read for its image's header, and so many records where each is a question
# to a remote store.
_HEAD, _REMOTE_LOOKED_AT = 16 * 1024, 1000
# So many of the first records are tried to find one that can be read.
_TRIED = 100

Records = Callable[[np.ndarray], Iterator[bytes]]


def open_split(rest: str, settings: DataSettings, split: str) -> Source:
    """Opens a split; its index is built where there is none.

    Raises:
      ValueError: no file matches, a file is truncated or corrupt, the records do not hold the
        features, or nothing tells the number of classes.
    """
    train, _, evaluation = rest.partition(",")
    paths = find_files((train if split == "train" else evaluation).strip())
    if split == "eval":
        check_files_apart(find_files(train.strip()), paths)
    index = open_index(paths)
    name = f"{os.path.basename(os.path.dirname(paths[0])) or 'tfrecord'}/{split}"
    if not len(index):
        raise ValueError(f"{paths[0]} holds no records; give files that do.")
    records = TFRecordReader(index, settings.shuffle_block).records
    features = ExampleFeatures(**parse_features(settings.features))
    _check_features(records, features, index)
    names = _class_names(find_files(train.strip())[0])
    read = functools.partial(features.read, records, index.describe)
    num_classes = settings.num_classes or len(names) or _unknown(read, len(index))
    found = _look(index, features.image, name)
    return Source(
        name=name,
        length=len(index),
        num_classes=num_classes,
        image_shape=found.shape,
        encoded=True,
        read=read,
        weighted=bool(features.weight),
        class_names=names if settings.num_classes in (0, len(names)) else (),
        describe=index.describe,
        bad_list=bad_list_of(paths, index.stamp),
        index=index,
        order=index.order(),
        notes=tuple(f"{name.rpartition('/')[2]}: {note}" for note in found.notes()),
    )


def _look(index: TFRecordIndex, feature: str, name: str) -> Found:
    """Looks at the headers of the images, without reading all of any record."""
    files = open_files(index.paths)

    def header(record: int) -> Header | None:
        (file,), (start,), (length,) = (part.tolist() for part in index.place(np.array([record])))
        size = length - HEADER - FOOTER
        head = b""

        def read(at: int, count: int) -> bytes:
            if at + count <= len(head):
                return head[at : at + count]
            return files[file].read_at(min(count, size - at), start + HEADER + at)

        try:
            head = read(0, _HEAD)
            first, count = place_of_bytes(read, size, feature)
            return header_of_part(lambda at, n: read(first + at, min(n, count - at)), count)
        except (OSError, ValueError):
            return None

    length = len(index)
    some = min(length, _REMOTE_LOOKED_AT) if any(map(is_remote, index.paths)) else length
    records = np.unique(np.linspace(0, length - 1, some).astype(np.int64))
    places = kept_paths(index.paths, HEADERS)
    stamp = digest([index.stamp, feature])
    return look_at_headers(header, records, length, name, places, stamp)


def has_evaluation(rest: str, settings: DataSettings) -> bool:
    """Whether there are files to evaluate on."""
    return bool(rest.partition(",")[2].strip())


def parse_features(text: str) -> dict[str, str]:
    """The names in `image=NAME,label=NAME,weight=NAME` by what they are of; any may be left out.

    Raises:
      ValueError: it has another form.
    """
    pairs = [part.partition("=") for part in text.split(",")] if text else []
    names = {key.strip(): value.strip() for key, _, value in pairs}
    if (
        set(names) - {"image", "label", "weight"}
        or not all(names.values())
        or len(names) < len(pairs)
    ):
        raise ValueError(
            f"the features {text!r} are not valid; write image=NAME,label=NAME,weight=NAME, "
            "for example image=image/encoded,label=image/class/label."
        )
    return names


def check_files_apart(train: list[str], evaluation: list[str]) -> None:
    """Sees that no file is trained and evaluated on, by whatever name.

    Raises:
      ValueError: one is.
    """
    real = {path if is_remote(path) else os.path.realpath(path): path for path in train}
    for path in evaluation:
        other = real.get(path if is_remote(path) else os.path.realpath(path))
        if other:
            also = "" if other == path else f" is {other} and"
            raise ValueError(
                f"{path}{also} would be trained and evaluated on; give patterns that share no "
                "file, or leave EVAL_GLOB out and say --holdout=10%."
            )


def _check_features(records: Records, features: ExampleFeatures, index: TFRecordIndex) -> None:
    """Sees that the first record that can be read holds one image, one label and, if named, weight.

    Raises:
      ValueError: it does not, and the sentence lists what it holds; or none of the first few
        can be read.
    """
    record, data = _first_readable(records, len(index))
    where = index.describe(record)
    try:
        found, listed = read_example(data), describe_features(data)
    except ValueError:
        raise ValueError(
            f"{where}: this is no tf.train.Example, the only kind of record that is understood."
        ) from None
    roles = {"image": bytes, "label": int} | ({"weight": float} if features.weight else {})
    for role, kind in roles.items():
        values = found.get(getattr(features, role), [])
        if len(values) != 1 or not isinstance(values[0], kind):
            wanted = {bytes: "bytes", int: "int64", float: "float"}[kind]
            raise ValueError(
                f"{where}: there is no feature {getattr(features, role)!r} with one {wanted} value "
                f"for the {role}; the record holds {listed or 'nothing'}; say which it is with "
                f"--features={role}=NAME."
            )


def _first_readable(records: Records, length: int) -> tuple[int, bytes]:
    """A bad record must not keep its dataset from being opened, least of all by launch.prepare."""
    last = min(length, _TRIED) - 1
    for record in range(last):
        with contextlib.suppress(ValueError):
            return record, next(records(np.array([record])))
    return last, next(records(np.array([last])))


def _class_names(path: str) -> tuple[str, ...]:
    """The names in the file beside the training files, none where there is none.

    Raises:
      ValueError: it is no text.
    """
    place = os.path.join(os.path.dirname(path), CLASSES)
    try:
        size, _ = size_and_time(place)
        data = open_files([place])[0].read_at(size, 0)
    except ValueError:
        return ()
    try:
        return read_names(data.decode())
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{place} is no text in UTF-8 (byte {error.start:,}); write the names of the classes "
            "as UTF-8, one a line."
        ) from None


def _unknown(read: Callable[[np.ndarray], tuple[np.ndarray, ...]], length: int) -> int:
    labels = []
    for number in np.unique(np.linspace(0, length - 1, _LABELS_LOOKED_AT).astype(np.int64)):
        with contextlib.suppress(ValueError):  # a bad record
            labels += read(np.array([number]))[1].tolist()
    held = f"{len(labels):,} of the {length:,} records hold labels"
    if labels:
        held += f" from {min(labels)} to {max(labels)}"
    raise ValueError(f"the number of classes is not known; give --num_classes=N; {held}.")
