"""`folder:DIR`: image files, in `DIR/train/CLASS/` to train and `DIR/test/CLASS/` to evaluate.

To evaluate, the first of test, val, validation and so on is taken. Where there is none, as where
the classes lie in DIR itself, a part of each class is held out: see `sources.holdout`. A class is a
folder, however deep the images lie in it; its label is its place among the names of the training
classes, sorted. Pictures with masks are those of `sources.folder_masks`.
"""

import os
import pathlib

import numpy as np

from input_pipeline.records.bad_list import bad_list_of
from input_pipeline.records.open_files import digest, kept_paths
from input_pipeline.settings import DataSettings
from input_pipeline.sources import folder_masks
from input_pipeline.sources.image_files import ImageFiles, contents_of, order_of
from input_pipeline.sources.image_shape import HEADERS, look_at_files
from input_pipeline.sources.source import Source
from input_pipeline.sources.split_names import USUAL, usual
from input_pipeline.sources.walk import IMAGES, Walk, check_apart, find_files, keep_images


def open_split(rest: str, settings: DataSettings, split: str) -> Source:
    """Opens a split.

    Raises:
      ValueError: a folder is missing, a class is empty or unknown, an image would be of two
        classes or of both splits, or nothing is an image.
    """
    root = pathlib.Path(rest).expanduser()
    if _of_masks(root, settings):
        return folder_masks.open_split(root, settings, split)
    if settings.num_classes:
        raise ValueError(
            f"--num_classes={settings.num_classes} is for masks, and the classes of {root} are its "
            "folders; leave it out."
        )
    train = _train_folder(root, settings.train_split)
    folder = train if split == "train" else _evaluation_folder(root, settings.eval_split)
    classes = _folders(train)
    here = _folders(folder)
    _check_classes(folder, here, classes)
    walk = find_files(folder, here)
    if split == "eval":
        check_apart(find_files(train, classes), walk)
    keep_images(walk, kept_paths([str(folder / "*")], IMAGES))
    notes = walk.notes()
    _check_empty(folder, walk)
    labels = [classes.index(label) for label in here]
    found = [(os.fsencode(label), path) for label, paths in walk.files.items() for path in paths]
    images = ImageFiles(
        top=os.fsencode(folder),
        below=np.array([os.path.join(*parts) for parts in found]),
        labels=np.repeat(np.array(labels, np.int64), [len(f) for f in walk.files.values()]),
    )
    # Replacing, adding or removing an image changes its folder's time; so a list of bad ones holds
    # until one is overwritten in its place.
    stamp = digest([here, walk.times, len(images.labels)])
    count, places = len(images.labels), kept_paths([str(folder / "*")], HEADERS)
    headers = look_at_files(images.path, count, str(folder), places, stamp)
    return Source(
        name=f"{root.resolve().name}/{split}",
        length=count,
        num_classes=len(classes),
        image_shape=headers.shape,
        encoded=True,
        read=images.read,
        labels=images.labels,
        class_names=tuple(classes),
        describe=images.path,
        bad_list=bad_list_of([str(folder / "*")], stamp),
        notes=(
            *(f"{folder.name}: {note}" for note in (*headers.notes(), *notes)),
            *(_not_used(root, train, settings) if split == "train" else ()),
        ),
        # Without the classes' names, which are kept themselves.
        order=order_of(images.labels, np.array([path for _, path in found])),
        contents=contents_of(images.path, len(images.labels)),
    )


def has_evaluation(rest: str, settings: DataSettings) -> bool:
    """Whether there are images to evaluate on beside those to train on."""
    root = pathlib.Path(rest).expanduser()
    if _of_masks(root, settings):
        return folder_masks.has_evaluation(root, settings)
    return bool(settings.eval_split) or usual("eval", _folders(root)) is not None


def _of_masks(root: pathlib.Path, settings: DataSettings) -> bool:
    """Whether masks are asked for or, where nothing is, whether they are there."""
    return settings.targets == "masks" or (not settings.targets and folder_masks.holds_masks(root))


def _train_folder(root: pathlib.Path, given: str) -> pathlib.Path:
    """The folder of the classes to train on: the one asked for, the usual one, or DIR itself."""
    if not root.is_dir():
        raise ValueError(
            f"the folder {root} does not exist; give the one that holds train/CLASS, or CLASS."
        )
    folders = _folders(root)
    name = given or usual("train", folders)
    # What is called `test` is no class: the folder to train on has another name.
    if name or usual("eval", folders):
        return _folder(root, name, "train")
    if len(folders) == 1:
        raise ValueError(
            f"{root} holds the folder {folders[0]} alone, and one class is nothing to tell apart; "
            f"if the classes lie in it, give folder:{root / folders[0]}."
        )
    return root


def _evaluation_folder(root: pathlib.Path, given: str) -> pathlib.Path:
    return _folder(root, given or usual("eval", _folders(root)), "eval")


def _folder(root: pathlib.Path, name: str | None, split: str) -> pathlib.Path:
    if name and (root / name).is_dir():
        return root / name
    raise ValueError(
        f"{root} holds no folder {name or ' or '.join(USUAL[split])}, but "
        f"{_some(_folders(root))}; put the folders of the classes into {root / 'train'} and "
        f"{root / 'test'}, or name another folder in it with --{split}_split."
    )


def _not_used(root: pathlib.Path, train: pathlib.Path, settings: DataSettings) -> tuple[str, ...]:
    """A sentence on the folders beside those of the splits."""
    folders = _folders(root)
    taken = [settings.train_split or usual("train", folders)]
    taken += [] if settings.holdout else [settings.eval_split or usual("eval", folders)]
    # A split may be a folder in a folder.
    others = sorted(
        set(folders) - {top for name in taken if name for top in pathlib.Path(name).parts[:1]}
    )
    if train == root or not others:
        return ()
    which = "a folder is" if len(others) == 1 else f"{len(others):,} folders are"
    return (f"{which} not used: {_some(others)}",)


def _folders(folder: pathlib.Path) -> list[str]:
    if not folder.is_dir():
        return []
    return sorted(x.name for x in os.scandir(folder) if x.is_dir() and not x.name.startswith("."))


def _check_classes(folder: pathlib.Path, here: list[str], classes: list[str]) -> None:
    if not here:
        raise ValueError(f"{folder} holds no folder; put one in for each class, with its images.")
    for label in here:
        if label not in classes:
            raise ValueError(
                f"the folder {folder / label} is a class that there is nothing of to train on; "
                f"remove it, or give images of it for training; the classes are {_some(classes)}."
            )


def _check_empty(folder: pathlib.Path, walk: Walk) -> None:
    """Sees that each class has an image."""
    for label, files in walk.files.items():
        if not files:
            said = "".join(f" ({note})" for note in walk.notes())
            raise ValueError(
                f"the class {label!r} is empty, {folder / label} holds no image{said}; put some "
                "there or remove the folder."
            )


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:10]) or "no folder"
    return shown + (f" and {len(names) - 10} more" if len(names) > 10 else "")
