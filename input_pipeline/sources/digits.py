"""`digits`: the images of handwritten digits that come with the package."""

from pathlib import Path

from input_pipeline.settings import DataSettings
from input_pipeline.sources.source import ExampleFeatures, Source
from input_pipeline.tfrecord_index import open_index
from input_pipeline.tfrecord_reader import TFRecordReader

FOLDER = Path(__file__).parents[1] / "digits"


def open_split(rest: str, settings: DataSettings, split: str) -> Source:
    """Opens a split."""
    # Not kept: the walk takes milliseconds, and the package's folder is not ours to write to.
    paths = [str(path) for path in sorted(FOLDER.glob(f"{split}-*.tfrecord"))]
    index = open_index(paths, kept=False)
    return Source(
        name=f"digits/{split}",
        length=len(index),
        num_classes=10,
        image_shape=(8, 8, 1),
        encoded=True,
        read=TFRecordReader(index).read,
        features=ExampleFeatures(),
        class_names=tuple("0123456789"),
    )
