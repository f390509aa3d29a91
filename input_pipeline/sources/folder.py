"""`folder:DIR`: image files, in `DIR/train/CLASS/` to train and `DIR/test/CLASS/` to evaluate.

To evaluate, the first of test, val, validation and eval is taken. A class is a folder, however deep
the images lie in it; its label is its place among the names of the training classes, sorted.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from input_pipeline.bad_records import bad_list_of
from input_pipeline.files import digest, reason
from input_pipeline.settings import DataSettings
from input_pipeline.sources.image_shape import look_at_shapes
from input_pipeline.sources.source import Source

_EVALUATION = ("test", "val", "validation", "eval")
_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp")


def open_split(rest: str, settings: DataSettings, split: str) -> Source:
    """Opens a split.

    Raises:
        ValueError: a folder is missing, a class is empty or unknown, or nothing is an image.
    """
    root = Path(rest).expanduser()
    classes = _folders(_split_folder(root, "train", settings.train_split))
    folder = _split_folder(root, split, getattr(settings, f"{split}_split"))
    here = _folders(folder)
    _check_classes(folder, here, classes)
    found = [_images_below(folder / label) for label in here]
    for label, (below, _) in zip(here, found, strict=True):
        if not below:
            raise ValueError(
                f"the class {label!r} is empty, {folder / label} holds no image "
                f"({', '.join(_SUFFIXES)}): put some there or remove the folder."
            )
    labels = [classes.index(label) for label in here]
    images = FolderImages(
        folders=tuple(os.fsencode(folder / label) for label in classes),
        below=np.array([path for below, _ in found for path in below]),
        labels=np.repeat(np.array(labels, np.int64), [len(below) for below, _ in found]),
    )
    # Replacing, adding or removing an image changes its folder's time; so a list of bad ones holds
    # until one is overwritten in its place.
    stamp = digest([here, [times for _, times in found]])
    return Source(
        name=f"{root.resolve().name}/{split}",
        length=len(images.labels),
        num_classes=len(classes),
        image_shape=look_at_shapes(images.image, len(images.labels), str(folder)),
        encoded=True,
        read=images.read,
        labels=images.labels,
        class_names=tuple(classes),
        describe=images.path,
        bad_list=bad_list_of([str(folder / "*")], stamp),
    )


@dataclass(frozen=True)
class FolderImages:
    """The images of a folder by their number.

    Attributes:
        folders: the folder of each class, by label.
        below: bytes [n], the path of each image below its class's folder: a million whole paths
            as Python's strings would take 150 MB.
        labels: int64 [n].
    """

    folders: tuple[bytes, ...]
    below: np.ndarray
    labels: np.ndarray

    def path(self, record: int) -> str:
        """The path of an image."""
        folder = self.folders[self.labels[record]]
        return os.fsdecode(os.path.join(folder, bytes(self.below[record])))

    def image(self, record: int) -> bytes:
        """The contents of an image's file.

        Raises:
            ValueError: it cannot be read.
        """
        path = self.path(record)
        try:
            with open(path, "rb", buffering=0) as file:
                return file.readall()
        except OSError as error:
            raise ValueError(
                f"{path} cannot be read ({reason(error)}): restore the file and start again."
            ) from None

    def read(self, records: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Dtype object [n], the files' contents as bytes, and int64 [n], the labels."""
        images = np.array([self.image(record) for record in records], dtype=object)
        return images, self.labels[records]


def _split_folder(root: Path, split: str, given: str) -> Path:
    """The folder of a split: the one that was asked for, else the first of the usual names."""
    if not root.is_dir():
        raise ValueError(f"the folder {root} does not exist: give the one that holds train/CLASS.")
    names = [given] if given else ["train"] if split == "train" else list(_EVALUATION)
    for name in names:
        if (root / name).is_dir():
            return root / name
    there = _folders(root)
    raise ValueError(
        f"{root} holds no folder {' or '.join(names)}, but {_some(there)}: put the folders of the "
        f"classes into {root / 'train'} and {root / 'test'}, or name another folder in it with "
        f"--{split}_split."
    )


def _folders(folder: Path) -> list[str]:
    return sorted(x.name for x in os.scandir(folder) if x.is_dir() and not x.name.startswith("."))


def _check_classes(folder: Path, here: list[str], classes: list[str]) -> None:
    if not here:
        raise ValueError(f"{folder} holds no folder: put one in for each class, with its images.")
    for label in here:
        if label not in classes:
            raise ValueError(
                f"the folder {folder / label} is a class that there is nothing of to train on: "
                f"remove it, or give images of it for training; the classes are {_some(classes)}."
            )


def _images_below(folder: Path) -> tuple[list[bytes], list[int]]:
    """The paths of the images below a folder, sorted, and the times of the folders they lie in."""
    found, times = [], []
    for place, folders, names in os.walk(folder, followlinks=True):
        folders.sort()
        times.append(os.stat(place).st_mtime_ns)
        relative = os.path.relpath(place, folder)
        prefix = "" if relative == os.curdir else relative + os.sep
        found += [
            os.fsencode(prefix + name)
            for name in names
            if name.lower().endswith(_SUFFIXES) and not name.startswith(".")
        ]
    return sorted(found), times


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:10]) or "no folder"
    return shown + (f" and {len(names) - 10} more" if len(names) > 10 else "")
