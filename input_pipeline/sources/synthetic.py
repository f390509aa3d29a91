"""`synthetic:HxWxC[xCLASSES]`: images made on the fly."""

import re

from input_pipeline.images.synthetic import synthetic_images
from input_pipeline.settings import DataSettings
from input_pipeline.sources.source import Source

_FORM = re.compile(r"([1-9]\d{0,6})x([1-9]\d{0,6})x([1-9]\d{0,6})(?:x([1-9]\d{0,6}))?")
_MOST = 1 << 27  # bytes of an image, and of the classes' patterns
_LENGTH = {"train": 10_000, "eval": 1_000}


def open_split(rest: str, settings: DataSettings, split: str) -> Source:
    """Opens a split.

    Raises:
      ValueError: the shape is not valid.
    """
    match = _FORM.fullmatch(rest)
    if not match:
        raise ValueError(
            f"the dataset {settings.dataset!r} has no valid shape; use synthetic:HxWxC[xCLASSES] "
            "with positive whole numbers below 10 million, for example synthetic:224x224x3 or "
            "synthetic:32x32x3x100."
        )
    height, width, channels, classes = (int(number or 10) for number in match.groups())
    if max(height * width * channels, classes * (height + width * channels)) > _MOST:
        raise ValueError(
            f"the dataset {settings.dataset!r} has images or patterns of more than {_MOST:,} "
            "bytes; use smaller ones, or fewer classes."
        )
    first = _LENGTH["train"] if split == "eval" else 0
    images = synthetic_images((height, width, channels), classes=classes, first=first)
    return Source(
        name=f"synthetic/{split}",
        length=_LENGTH[split],
        num_classes=classes,
        image_shape=images.shape,
        encoded=False,
        read=images.read,
    )
