"""`idx:DIR`: the format of MNIST: train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-….

Whether a file is compressed its first bytes say; one that is not is mapped into memory where it
lies. Where there are no images to evaluate on, a part of each class is held out.
"""

import dataclasses
import gzip
import pathlib
import re
import zlib
from collections import defaultdict
from typing import BinaryIO

import numpy as np

from input_pipeline.records.bad_list import bad_list_of
from input_pipeline.records.open_files import digest, digest_of, reason, size_and_time
from input_pipeline.settings import DataSettings
from input_pipeline.sources.source import Source
from input_pipeline.sources.split_names import usual

# EMNIST's names begin with that of its part; some servers write a point for the first hyphen.
_NAME = re.compile(
    r"(?:(.*)[-_.])?(train|t10k|test|val|valid|validation)[-_.](images|labels)[-_.]idx\d[-_.]\w+"
    r"(?:\.gz)?",
    re.IGNORECASE,
)
_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_LOOKED_AT = 32
_GZIP, _AT_ONCE = b"\x1f\x8b", 1 << 24


@dataclasses.dataclass(frozen=True)
class IdxFiles:
    """The files of a dataset: of each split, by its name in the files, its images and labels."""

    name: str
    splits: dict[str, dict[str, pathlib.Path]]

    def split(self, split: str) -> dict[str, pathlib.Path]:
        """The files of `train` or `eval`.

        Raises:
          ValueError: one is missing.
        """
        files = self.splits.get(usual(split, self.splits) or "", {})
        missing = [what for what in ("images", "labels") if what not in files]
        if missing:
            there = sorted(path.name for files in self.splits.values() for path in files.values())
            raise ValueError(
                f"{self.name} has no {' and '.join(missing)} to "
                f"{'train' if split == 'train' else 'evaluate'} on, but {', '.join(there)}; call "
                "the files train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-… and "
                "t10k-labels-…."
            )
        return files


def open_split(rest: str, settings: DataSettings, split: str) -> Source:
    """Opens a split.

    Raises:
      ValueError: a file is missing, is no IDX file of images or labels, or is cut short.
    """
    found = _find(rest)
    train, files = found.split("train"), found.split(split)
    classes = _labels(train["labels"])
    images, labels = _images(files["images"]), _labels(files["labels"])
    if len(images) != len(labels):
        raise ValueError(
            f"{files['images']} holds {len(images):,} images and {files['labels']} {len(labels):,} "
            "labels; give files that belong together."
        )
    path = str(files["images"])
    facts = size_and_time(path)

    def read(records: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        # A file that is cut short under its mapping would end the process without a word.
        if isinstance(images, np.memmap) and size_and_time(path) != facts:
            raise ValueError(
                f"{path} changed while it was in use; restore the file and start again."
            )
        return np.asarray(images[records]), labels[records]

    return Source(
        name=f"{found.name}/{split}",
        length=len(images),
        num_classes=int(classes.max(initial=0)) + 1,
        image_shape=images.shape[1:],
        encoded=False,
        read=read,
        labels=labels,
        describe=lambda record: f"{path}, image {record}",
        bad_list=bad_list_of([path], digest(facts)),
        contents=_contents(images),
    )


def has_evaluation(rest: str, settings: DataSettings) -> bool:
    """Whether there are files to evaluate on."""
    return usual("eval", _find(rest).splits) is not None


def _find(rest: str) -> IdxFiles:
    """The files in a folder; where it holds several datasets, of that whose name follows it."""
    path = pathlib.Path(rest).expanduser()
    folder, part = (path, None) if path.is_dir() else (path.parent, path.name.rstrip("-_."))
    if not folder.is_dir():
        raise ValueError(f"the folder {path} does not exist; give the one that holds the files.")
    found: dict[str, dict[str, dict[str, pathlib.Path]]] = defaultdict(lambda: defaultdict(dict))
    # Backwards: of a file and its compressed copy the plain one is taken.
    for file in sorted(folder.iterdir(), reverse=True):
        match = _NAME.fullmatch(file.name)
        if match and file.is_file():
            dataset, split, what = (group.lower() for group in match.groups(default=""))
            found[dataset]["test" if split == "t10k" else split][what] = file
    if part is None and len(found) == 1:
        part = next(iter(found))
    if part is None or part.lower() not in found:
        raise _not_found(folder, part, sorted(found))
    return IdxFiles(part or folder.resolve().name, dict(found[part.lower()]))


def _not_found(folder: pathlib.Path, part: str | None, datasets: list[str]) -> ValueError:
    if datasets:
        forms = " or ".join(f"idx:{folder / (name or 'DIR')}" for name in datasets)
        which = "" if part is None else f" and none called {part}"
        return ValueError(
            f"{folder} holds the datasets {', '.join(datasets)}{which}; give {forms}."
        )
    deeper = [
        path.parent for depth in ("*/", "*/*/") for path in folder.glob(f"{depth}*idx*ubyte*")
    ]
    hint = f": some lie in {deeper[0]}, give idx:{deeper[0]}" if deeper else ""
    return ValueError(
        f"{folder / (part or '')} holds no files such as train-images-idx3-ubyte or "
        f"train-images-idx3-ubyte.gz{hint}."
    )


def _images(path: pathlib.Path) -> np.ndarray:
    images = _array(path)
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise ValueError(
            f"{path} holds {images.dtype.name} {list(images.shape)}: only images of unsigned bytes "
            "are understood, [n, height, width] or [n, height, width, channels]."
        )
    return images if images.ndim == 4 else images[..., None]


def _contents(images: np.ndarray) -> str:
    """A digest of some images, evenly spread: the files hold no checksum."""
    looked_at = np.linspace(0, max(len(images) - 1, 0), _LOOKED_AT).astype(np.int64)
    return digest_of(images[looked_at[: len(images)]].tobytes())


def _labels(path: pathlib.Path) -> np.ndarray:
    labels = _array(path)
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise ValueError(
            f"{path} holds {labels.dtype.name} {list(labels.shape)}: labels must be whole numbers, "
            "[n]."
        )
    return labels.astype(np.int64)


def _array(path: pathlib.Path) -> np.ndarray:
    """The array in an IDX file; mapped where it is not compressed.

    Raises:
      ValueError: it is none, or is shorter or longer than its header says.
    """
    try:
        with path.open("rb") as plain:
            packed = plain.read(2) == _GZIP
        with gzip.open(path) if packed else path.open("rb") as file:
            start = file.read(4)
            zeros, kind, dimensions = start[:2], *(start[2:4] or b"\0\0")
            sizes = file.read(4 * dimensions)
            if zeros != b"\0\0" or kind not in _DTYPES or len(sizes) != 4 * dimensions:
                raise ValueError(
                    f"{path} is no IDX file: it begins with {start.hex(' ') or 'nothing'}, not "
                    "with 00 00, its type and its number of dimensions."
                )
            shape = tuple(np.frombuffer(sizes, ">u4").tolist())
            dtype = np.dtype(_DTYPES[kind])
            header, length = 4 + len(sizes), int(np.prod(shape, dtype=object)) * dtype.itemsize
            data = _read(file, length) if packed else b""
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(
            f"{path} cannot be read ({reason(error)}); fetch the file again."
        ) from None
    there = len(data) if packed else path.stat().st_size - header
    if there != length:
        raise ValueError(
            f"{path} should hold {length:,} bytes, {' × '.join(map(str, shape))} of "
            f"{dtype.itemsize}, and holds {'more' if there > length else f'{there:,}'}; fetch the "
            "file again."
        )
    if packed or not length:
        return np.frombuffer(data, dtype).reshape(shape)
    return np.memmap(path, dtype, "r", header, shape)


def _read(file: BinaryIO, length: int) -> bytes:
    """So many bytes, or some more where there are more; never memory for what is not there."""
    parts: list[bytes] = []
    while sum(map(len, parts)) <= length and (part := file.read(_AT_ONCE)):
        parts.append(part)
    return b"".join(parts)
