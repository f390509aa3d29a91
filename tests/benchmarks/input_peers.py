"""The arms of the input benchmark that run without TensorFlow, in an environment of their own.

PyTorch's DataLoader and Grain, both with Pillow. The crop is that of torchvision's
RandomResizedCrop, written out (`random_box`): its build for CPU is not on PyPI.
"""

import io
import math
import pathlib
import random
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from tests.benchmarks.input_data import IMAGES, array_record_paths, image_path, random_box

BATCH, SIDE, WORKERS = 64, 224, 2
ENDLESS = 10_000_000 * BATCH

Batches = Iterator[tuple[Any, Any]]


def torch_shipped(data: pathlib.Path) -> Batches:
    """A DataLoader with two workers and nothing else said."""
    return _torch(_Folder(data, crop_then_resize))


def torch_tuned(data: pathlib.Path) -> Batches:
    """More batches ahead; Pillow crops and resizes at once, from a JPEG decoded at a fitting size.

    Workers that persist would help at an epoch's end, and there is none here.
    """
    return _torch(_Folder(data, crop_while_resizing), prefetch_factor=4)


def _torch(folder: "_Folder", **options: Any) -> Batches:
    from torch.utils.data import DataLoader, RandomSampler

    # More samples than images: one permutation after the other, and no pause between them.
    sampler = RandomSampler(folder, num_samples=ENDLESS)
    return iter(DataLoader(folder, BATCH, sampler=sampler, num_workers=WORKERS, **options))


class _Folder:
    """What torchvision's ImageFolder does, as a map-style dataset."""

    def __init__(self, data: pathlib.Path, crop: Any) -> None:
        self._paths = [str(image_path(data, number)) for number in range(IMAGES)]
        self._crop = crop

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, number: int) -> tuple[Any, int]:
        import torch

        with Image.open(self._paths[number]) as image:
            return torch.from_numpy(self._crop(image, random.uniform)), number


def grain_shipped(data: pathlib.Path) -> Batches:
    """Grain's DataLoader as shipped: 16 threads that read, no worker processes."""
    import grain

    class Load(grain.transforms.RandomMap):
        def random_map(
            self, record: bytes, rng: np.random.Generator
        ) -> tuple[np.ndarray, np.int64]:
            return _load(record, rng)

    source = grain.sources.ArrayRecordDataSource(array_record_paths(data))
    sampler = grain.samplers.IndexSampler(num_records=len(source), shuffle=True, seed=0)
    operations = [Load(), grain.transforms.Batch(BATCH, drop_remainder=True)]
    return iter(grain.DataLoader(data_source=source, sampler=sampler, operations=operations))


def grain_tuned(data: pathlib.Path) -> Batches:
    """Grain's Dataset by its guides: two processes, one thread each that reads ahead."""
    import grain

    source = grain.sources.ArrayRecordDataSource(array_record_paths(data))
    images = grain.MapDataset.source(source).seed(0).shuffle().repeat()
    images = images.random_map(_load_at_once).batch(BATCH, drop_remainder=True)
    stream = images.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=2))
    options = grain.multiprocessing.MultiprocessingOptions(WORKERS, per_worker_buffer_size=2)
    return iter(stream.mp_prefetch(options))


def _load(record: bytes, rng: np.random.Generator) -> tuple[np.ndarray, np.int64]:
    with Image.open(io.BytesIO(record[8:])) as image:
        return crop_then_resize(image, rng.uniform), np.int64(struct.unpack("<q", record[:8])[0])


def _load_at_once(record: bytes, rng: np.random.Generator) -> tuple[np.ndarray, np.int64]:
    with Image.open(io.BytesIO(record[8:])) as image:
        return crop_while_resizing(image, rng.uniform), np.int64(struct.unpack("<q", record[:8])[0])


def crop_then_resize(image: Image.Image, uniform: Any) -> np.ndarray:
    """As torchvision does it: uint8 [224, 224, 3]."""
    window, mirrored = random_box(image.size, uniform), uniform(0, 1) < 0.5
    image = image.convert("RGB").crop(window).resize((SIDE, SIDE), Image.BILINEAR)
    return np.array(image.transpose(Image.FLIP_LEFT_RIGHT) if mirrored else image)


def crop_while_resizing(image: Image.Image, uniform: Any) -> np.ndarray:
    """As Pillow's documentation advises: the JPEG scaled in decoding, no copy of the window."""
    width, height = image.size
    left, top, right, bottom = random_box((width, height), uniform)
    mirrored = uniform(0, 1) < 0.5
    enough = SIDE / min(right - left, bottom - top)
    image.draft("RGB", (math.ceil(width * enough), math.ceil(height * enough)))
    x, y = image.width / width, image.height / height
    box = (left * x, top * y, right * x, bottom * y)
    image = image.resize((SIDE, SIDE), Image.BILINEAR, box=box)
    return np.array(image.transpose(Image.FLIP_LEFT_RIGHT) if mirrored else image)
