"""`folder:DIR`: image files, in `DIR/train/CLASS/` to train and `DIR/test/CLASS/` to evaluate.

To evaluate, the first of test, val, validation and eval is taken. A class is a folder, however deep
the images lie in it; its label is its place among the names of the training classes, sorted.
"""

import os
from collections.abc import Iterator
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
    if not here:
        raise ValueError(f"{folder} holds no folder: put one in for each class, with its images.")
    for name in here:
        if name not in classes:
            raise ValueError(
                f"the folder {folder / name} is a class that there is nothing of to train on: "
                f"remove it, or give images of it for training; the classes are {_some(classes)}."
            )
    files = {name: list(_images(folder / name)) for name in here}
    for name, images in files.items():
        if not images:
            raise ValueError(
                f"the class {name!r} is empty, {folder / name} holds no image "
                f"({', '.join(_SUFFIXES)}): put some there or remove the folder."
            )
    # A million paths as Python's strings would take 150 MB: only the part below the class is kept,
    # in an array of bytes.
    below = np.array([image for images in files.values() for image in images])
    labels = np.repeat([classes.index(name) for name in here], [len(x) for x in files.values()])
    folders = tuple(os.fsencode(folder / name) for name in classes)
    images = FolderImages(folders, below, labels.astype(np.int64))
    name = f"{root.resolve().name}/{split}"
    # Replacing, adding or removing an image changes its folder's time; so a list of bad ones holds
    # until one is overwritten in its place.
    stamp = digest([(name, os.stat(folder / name).st_mtime_ns, len(files[name])) for name in here])
    return Source(
        name=name,
        length=len(labels),
        num_classes=len(classes),
        image_shape=look_at_shapes(images.image, len(labels), str(folder)),
        encoded=True,
        read=images.read,
        class_names=tuple(classes),
        describe=images.path,
        bad_list=bad_list_of([str(folder / "*")], stamp),
    )


@dataclass(frozen=True)
class FolderImages:
    """The images of a folder by their number.

    Attributes:
        folders: the folder of each class, by label.
        below: bytes [n], the path of each image below its class's folder.
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


def _images(folder: Path) -> Iterator[bytes]:
    """The paths of the images below a folder, relative to it, sorted."""
    found = []
    for place, _, names in os.walk(folder, followlinks=True):
        relative = os.path.relpath(place, folder)
        for name in names:
            if name.lower().endswith(_SUFFIXES) and not name.startswith("."):
                found.append(os.fsencode(os.path.normpath(os.path.join(relative, name))))
    return iter(sorted(found))


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:10]) or "no folder"
    return shown + (f" and {len(names) - 10} more" if len(names) > 10 else "")
