"""`folder:DIR` of pictures and masks: `DIR/train/images/NAME.jpg`, `DIR/train/masks/NAME.png`.

The split may stand below as well, `DIR/images/train` and `DIR/masks/train`. Where there is none,
but `DIR/images` and `DIR/masks`, a part is held out: see `sources.holdout`. A mask is found by the
path of its picture, but for the suffix. `DIR/classes.txt` names the classes, the first is 0.
"""

import os
import pathlib
from typing import NamedTuple

import numpy as np

from input_pipeline.records.bad_list import bad_list_of
from input_pipeline.records.open_files import digest, kept_paths
from input_pipeline.settings import DataSettings
from input_pipeline.sources.image_files import ImageFiles
from input_pipeline.sources.image_shape import HEADERS, look_at_files
from input_pipeline.sources.mask_files import MaskedFiles, classes_of
from input_pipeline.sources.source import Source
from input_pipeline.sources.split_names import usual
from input_pipeline.sources.walk import (
    IMAGES,
    Walk,
    check_apart,
    find_files,
    keep_images,
    printable,
)

# What the folders are called, whatever their capitals; the first is what is advised.
_PICTURES, _MASKS = ("images", "image"), ("masks", "mask", "labels", "annotations")


class Pair(NamedTuple):
    """The folder of the pictures, and that of their masks."""

    pictures: pathlib.Path
    masks: pathlib.Path


def holds_masks(root: pathlib.Path) -> bool:
    """Whether a folder holds pictures and masks, and not classes."""
    return _pair(root) is not None or any(_pair(root / name) for name in _folders(root))


def has_evaluation(root: pathlib.Path, settings: DataSettings) -> bool:
    """Whether there are masks to evaluate on beside those to train on."""
    return bool(settings.eval_split) or _usual_pair(root, "eval") is not None


def open_split(root: pathlib.Path, settings: DataSettings, split: str) -> Source:
    """Opens a split.

    Raises:
      ValueError: a folder is missing, a picture has no mask or two, a file would be in both splits,
        or no classes can be told.
    """
    pairs = {"train": _split_pair(root, settings, "train")}
    if split == "eval":
        pairs["eval"] = _split_pair(root, settings, "eval")
    walks = {name: _walk(pair.pictures) for name, pair in pairs.items()}
    if split == "eval":
        check_apart(walks["train"], walks["eval"])
    of_masks = {name: _walk(pair.masks) for name, pair in pairs.items()}
    files = {name: _matched(pair, walks[name], of_masks[name]) for name, pair in pairs.items()}
    classes = classes_of(files["train"], root, settings.num_classes)
    pair, own, walk = pairs[split], files[split], walks[split]
    count, listed = len(own.masks.labels), _beside(pair.pictures)
    stamp = digest([walk.times, of_masks[split].times, count])
    places = kept_paths(listed, HEADERS)
    headers = look_at_files(own.pictures.path, count, str(pair.pictures), places, stamp)
    unused = len(of_masks[split].files[pair.masks.name]) - count
    said = (*headers.notes(), *walk.notes(), *_not_used(unused))
    return Source(
        name=f"{root.resolve().name}/{split}",
        length=count,
        num_classes=classes.count,
        image_shape=headers.shape,
        encoded=True,
        read=own.read,
        class_names=classes.names,
        describe=own.pictures.path,
        bad_list=bad_list_of(listed, stamp),
        notes=(
            *(f"{split}: {note}" for note in said),
            *(classes.notes if split == "train" else ()),
        ),
        order=own.order(),
        contents=own.contents(),
        targets="masks",
        whole=True,
    )


def _split_pair(root: pathlib.Path, settings: DataSettings, split: str) -> Pair:
    """The folders of a split: the one asked for, a usual one, or those in DIR itself.

    Raises:
      ValueError: there are none.
    """
    if not root.is_dir():
        raise ValueError(
            f"the folder {root} does not exist; give the one that holds images and masks."
        )
    given = settings.train_split if split == "train" else settings.eval_split
    found = _pair_of(root, given) if given else _usual_pair(root, split)
    whole = _pair(root)
    if found is None and not given and split == "train" and whole:
        # What is called `test` is no part to train on.
        found = whole if usual("eval", _folders(whole.pictures)) is None else None
    if found is None:
        name = given or split.replace("eval", "test")
        there = ", ".join(_folders(whole.pictures if whole else root)[:10]) or "no folder"
        raise ValueError(
            f"{root} holds no pictures and masks of the split {name}, but {there}; put the "
            f"pictures into {root / name / 'images'} and the mask of each under its name, as PNG, "
            f"into {root / name / 'masks'}, or name another split with --{split}_split."
        )
    return found


def _usual_pair(root: pathlib.Path, split: str) -> Pair | None:
    whole = _pair(root)
    name = usual(split, _folders(whole.pictures if whole else root))
    return _pair_of(root, name) if name else None


def _pair_of(root: pathlib.Path, name: str) -> Pair | None:
    """The folders of a split: within images and masks, or those that it holds."""
    whole = _pair(root)
    if whole is None:
        return _pair(root / name)
    within = Pair(whole.pictures / name, whole.masks / name)
    return within if all(folder.is_dir() for folder in within) else None


def _pair(folder: pathlib.Path) -> Pair | None:
    there = {name.lower(): name for name in reversed(_folders(folder))}
    pictures, masks = (
        next((there[name] for name in names if name in there), None)
        for names in (_PICTURES, _MASKS)
    )
    return Pair(folder / pictures, folder / masks) if pictures and masks else None


def _folders(folder: pathlib.Path) -> list[str]:
    if not folder.is_dir():
        return []
    return sorted(x.name for x in os.scandir(folder) if x.is_dir() and not x.name.startswith("."))


def _walk(folder: pathlib.Path) -> Walk:
    """The image files below a folder."""
    walk = find_files(folder.parent, [folder.name])
    del walk.left_out["beside the folders of the classes"]
    keep_images(walk, kept_paths(_beside(folder), IMAGES))
    return walk


def _beside(folder: pathlib.Path) -> list[str]:
    """The files of a folder, for `kept_paths`: what is kept of them must not change its time."""
    return [str(folder.parent / f"{folder.name}*")]


def _not_used(masks: int) -> tuple[str, ...]:
    which = "1 mask is" if masks == 1 else f"{masks:,} masks are"
    return (f"{which} not used, of which there is no picture",) if masks else ()


def _matched(pair: Pair, walk: Walk, of_masks: Walk) -> MaskedFiles:
    """The pictures, each with its mask.

    Raises:
      ValueError: there are none, one has no mask, or two, or shares one with another.
    """
    pictures, masks = walk.files[pair.pictures.name], of_masks.files[pair.masks.name]
    if not pictures:
        said = "".join(f" ({note})" for note in walk.notes())
        raise ValueError(f"{pair.pictures} holds no image{said}; put some there.")
    own, others = _by_stem(pair.pictures, pictures), _by_stem(pair.masks, masks)
    missing = [stem for stem in own if stem not in others]
    if missing:
        first = printable(os.path.join(os.fsencode(pair.pictures), own[missing[0]]))
        where = printable(os.path.join(os.fsencode(pair.masks), missing[0]))
        raise ValueError(
            f"{len(missing):,} of {len(own):,} pictures have no mask, the first {first}; put it "
            f"there as {where}.png, or take such pictures away."
        )
    return MaskedFiles(
        _files(pair.pictures, list(own.values())),
        _files(pair.masks, [others[stem] for stem in own]),
    )


def _files(folder: pathlib.Path, names: list[bytes]) -> ImageFiles:
    return ImageFiles(os.fsencode(folder), np.array(names), np.zeros(len(names), np.int64))


def _by_stem(folder: pathlib.Path, names: list[bytes]) -> dict[bytes, bytes]:
    """The names of files by themselves without a suffix.

    Raises:
      ValueError: two have the same.
    """
    found: dict[bytes, bytes] = {}
    for name in names:
        other = found.setdefault(os.path.splitext(name)[0], name)
        if other is not name:
            raise ValueError(
                f"{printable(name)} and {printable(other)} in {folder} have one name but for the "
                "suffix, by which a picture and its mask belong together; rename one."
            )
    return found
