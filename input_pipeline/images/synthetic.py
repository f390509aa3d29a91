"""Images made on the fly: a pattern that tells the class, and noise; no TensorFlow."""

import dataclasses

import numpy as np

# Each pattern part, and the noise, stays below this: three of them fit into a uint8.
_LEVELS = 80
# How many different noise images there are; a slice of one long array is free, a draw is not.
_NOISES = 1 << 16


@dataclasses.dataclass(frozen=True)
class SyntheticImages:
    """A deterministic function from the record number to an image and its label.

    An image is rows[label] + columns[label] + noise: smooth waves whose frequency, phase and
    colour belong to the class, so that small networks learn it. The label is record % classes.

    Attributes:
      shape: (height, width, channels).
      first: added to record numbers to choose the noise, so that two splits share no image.
      rows: uint8 [classes, height, 1].
      columns: uint8 [classes, 1, width * channels].
      noise: uint8 [height * width * channels + 65536].
    """

    shape: tuple[int, int, int]
    first: int
    rows: np.ndarray
    columns: np.ndarray
    noise: np.ndarray

    def read(self, records: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The images and labels of these records.

        Args:
          records: int64 [n], record numbers.

        Returns:
          uint8 [n, height, width, channels] and int64 [n].
        """
        height, width, channels = self.shape
        labels = np.asarray(records, np.int64) % len(self.rows)
        # An odd multiplier visits every start once, and neighbouring records start far apart.
        starts = (np.asarray(records, np.int64) + self.first) * 40503 % _NOISES
        images = np.empty((len(labels), height, width * channels), np.uint8)
        for image, label, start in zip(images, labels, starts, strict=True):
            np.add(self.rows[label], self.columns[label], out=image)
            image += self.noise[start : start + image.size].reshape(image.shape)
        return images.reshape(-1, *self.shape), labels


def synthetic_images(
    shape: tuple[int, int, int], *, classes: int, first: int = 0
) -> SyntheticImages:
    """Makes the patterns of `classes` classes for images of this (height, width, channels)."""
    height, width, channels = shape
    random = np.random.RandomState(0)
    rows = _waves(random, classes, height, 1)
    columns = _waves(random, classes, width, channels).reshape(classes, 1, -1)
    noise = random.randint(_LEVELS, size=height * width * channels + _NOISES, dtype=np.uint8)
    return SyntheticImages(shape, first, rows, columns, noise)


def _waves(random: np.random.RandomState, classes: int, size: int, channels: int) -> np.ndarray:
    """uint8 [classes, size, channels], each a cosine of its own frequency and phase."""
    frequency = random.uniform(0.5, 2.0, (classes, 1, channels))
    phase = random.uniform(0, 2 * np.pi, (classes, 1, channels))
    along = np.linspace(0, 2 * np.pi, size)[None, :, None]
    return ((np.cos(frequency * along + phase) + 1) / 2 * (_LEVELS - 1)).astype(np.uint8)
