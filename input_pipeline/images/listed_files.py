"""Image files by their paths as a source without labels, as a prediction reads them."""

import os
import pathlib
from collections.abc import Iterable, Sequence

import numpy as np

from input_pipeline.images.image_format import DECODED, HEAD, image_format
from input_pipeline.images.image_header import image_header
from input_pipeline.images.pillow import decoded
from input_pipeline.records.open_files import reason
from input_pipeline.sources.source import Source
from input_pipeline.sources.walk import SUFFIXES

_OTHERS = (".heic", ".heif", ".avif", ".ico")  # of which some cannot be decoded


def image_paths(given: Iterable[str]) -> list[str]:
    """The files given and, of folders, the image files anywhere in them, sorted.

    In a folder what is hidden, or is no image by its first bytes nor by its name, is passed over.

    Raises:
      ValueError: a path is not there, or a folder holds no image or cannot be read.
    """
    found: list[str] = []
    for path in given:
        if os.path.isdir(path):
            inside = sorted(_images_below(path))
            if not inside:
                raise ValueError(f"the folder {path} holds no image; give one that does.")
            found += inside
        elif os.path.exists(path):
            found.append(path)
        else:
            raise ValueError(f"{path} does not exist; give image files, or folders of them.")
    return found


def _images_below(top: str) -> Iterable[str]:
    for where, folders, files in os.walk(top, onerror=_tell):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            path = os.path.join(where, name)
            named = os.path.splitext(name)[1].lower() in (*SUFFIXES, *_OTHERS)
            if not name.startswith(".") and (_is_image(path) or named):
                yield path


def _tell(error: OSError) -> None:
    raise ValueError(
        f"the folder {error.filename} cannot be read ({error.strerror}); give others, or allow it."
    )


def _is_image(path: str) -> bool:
    """Whether its first bytes are an image's; one that cannot be opened is left to be told of."""
    if not os.path.isfile(path):
        return False
    try:
        with open(path, "rb") as file:
            return image_format(file.read(HEAD)) in DECODED
    except OSError:
        return True


def source_of(
    paths: Sequence[str], shape: tuple[int, int, int], resized: bool, whole: bool = False
) -> Source:
    """A source of these files, of label 0.

    Args:
      shape: (height, width, channels) of the images that a model takes.
      resized: whether they are cut and resized as those of an evaluation are. Else they come in the
        shape: one of another size is resized as a whole.
      whole: whether all of them is resized, and not their middle, see `Source`.
    """

    def content(record: int) -> bytes:
        path = pathlib.Path(paths[record])
        try:
            if not path.is_file():
                raise ValueError(f"{path} is no file.")
            read = path.read_bytes()
        except OSError as error:
            raise ValueError(f"{path} cannot be read ({reason(error)}).") from None
        return read if resized else _in_shape(read, shape)

    def read(records: np.ndarray) -> tuple[np.ndarray, ...]:
        images = np.array([content(int(record)) for record in records], dtype=object)
        return images, np.zeros(len(records), np.int64)

    return Source(
        name="the pictures",
        length=len(paths),
        num_classes=1,
        image_shape=(None, None, shape[2]) if resized else shape,
        encoded=True,
        read=read,
        describe=lambda record: str(paths[record]),
        whole=whole,
    )


def _in_shape(content: bytes, shape: tuple[int, int, int]) -> bytes:
    """A file of a picture of this shape; what cannot be decoded comes back as it is."""
    import tensorflow as tf

    from input_pipeline.images.encoded import whole

    header = image_header(content)
    if header is None or (header.height, header.width) == shape[:2]:
        return content
    try:
        picture = np.asarray(decoded(content, shape[2]))
    except ValueError:
        return content
    with tf.device("CPU"):
        return tf.io.encode_png(whole(np.atleast_3d(picture), shape)).numpy()
