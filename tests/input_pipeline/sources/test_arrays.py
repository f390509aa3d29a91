"""`arrays:FILE.npz`: what is mapped, what is refused, how pixels that are no levels are told."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from input_pipeline.checks import check_data
from input_pipeline.settings import DataSettings
from input_pipeline.sources import Source, open_source, open_sources


def opened(dataset: str, split: str = "train") -> Source:
    return open_source(DataSettings(dataset), split)


ARRAYS = {
    "x_train": np.arange(5 * 2 * 3, dtype=np.uint8).reshape(5, 2, 3),
    "y_train": np.array([[0], [3], [1], [0], [2]], np.uint8),
    "x_test": np.arange(2 * 2 * 3, dtype=np.uint8).reshape(2, 2, 3),
    "y_test": np.array([1, 0]),
}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_as_keras_keeps_them(tmp_path: Path, save: object) -> None:
    save(tmp_path / "mine.npz", **ARRAYS)
    train, evaluation = (
        opened(f"arrays:{tmp_path}/mine.npz", split) for split in ("train", "eval")
    )
    assert (train.name, train.length, evaluation.length) == ("mine/train", 5, 2)
    assert (train.num_classes, train.image_shape, train.encoded) == (4, (2, 3, 1), False)
    images, labels = train.read(np.array([4, 1, 4]))
    assert np.array_equal(images[..., 0], ARRAYS["x_train"][[4, 1, 4]])
    assert images.dtype == np.uint8 and type(images) is np.ndarray
    assert labels.dtype == np.int64 and labels.tolist() == [2, 3, 2]
    assert np.array_equal(evaluation.read(np.arange(2))[0][..., 0], ARRAYS["x_test"])
    assert train.describe(4) == f"{tmp_path}/mine.npz, x_train[4]"


def test_arrays_are_mapped_and_not_loaded(tmp_path: Path) -> None:
    large = {**ARRAYS, "x_train": np.zeros([5, 4000, 4000, 3], np.uint8)}
    np.savez(tmp_path / "large.npz", **large)
    program = f"""
import numpy as np, psutil
from input_pipeline.settings import DataSettings
from input_pipeline.sources import open_source
open_source(DataSettings("digits"), "train")
before = psutil.Process().memory_info().rss
source = open_source(DataSettings("arrays:{tmp_path}/large.npz"), "train")
assert source.read(np.array([1]))[0].shape == (1, 4000, 4000, 3)
assert psutil.Process().memory_info().rss - before < 120e6  # of 240 MB
"""
    environment = {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)


def test_mapped_arrays_that_change_or_vanish_are_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", **ARRAYS)
    source = opened(f"arrays:{tmp_path}/mine.npz")
    os.truncate(tmp_path / "mine.npz", 100)  # a mapped page beyond the end is a SIGBUS
    with pytest.raises(ValueError, match=r"mine\.npz changed while it was in use; restore"):
        source.read(np.array([1]))
    (tmp_path / "mine.npz").unlink()
    with pytest.raises(ValueError, match=r"mine\.npz cannot be read \(No such file"):
        source.read(np.array([1]))


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"x_train": None}, "holds no array x_train, but y_train, x_test, y_test"),
        ({"x_train": np.zeros((5, 2, 3))}, "x_train in .* is float64 .5, 2, 3. .*; give uint8"),
        ({"x_train": np.zeros((5, 6), np.uint8)}, "x_train in .* is uint8 .5, 6.; give uint8"),
        ({"y_train": np.zeros(4, int)}, "y_train in .* holds 4 labels and x_train 5 images"),
        ({"y_train": np.zeros(5)}, r"y_train in .* is float64 .5.; give .*y\.astype"),
        ({"y_train": np.zeros(0, int)}, "y_train in .* is empty"),
        ({"y_train": np.eye(5)}, r"y_train in .* one-hot; .* y\.argmax"),
        ({"x_train": np.array(["a", 1], object)}, "x_train in .* holds Python.s objects"),
        ({"y_train": np.array(7)}, "give the number of a class for each example, .n"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(
    tmp_path: Path, changed: dict[str, np.ndarray | None], message: str
) -> None:
    arrays = {name: array for name, array in {**ARRAYS, **changed}.items() if array is not None}
    np.savez(tmp_path / "mine.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        opened(f"arrays:{tmp_path}/mine.npz")


ZEROS = np.zeros((5, 2, 3))


@pytest.mark.parametrize(
    "pixels, advice",
    [
        (ZEROS + 0.5, "values from 0.5 to 0.5; .* here .x_train . 255.0..round...astype.'uint8'"),
        ((ZEROS + 1).astype(np.uint8), "holds 0 and 1 alone, .* give x_train . 255"),
        ((ZEROS + 1).astype(bool), "values from 1 to 1; .*x_train . 255.0"),
        (ZEROS + 200, "x_train.clip.0, 255"),
        (ZEROS - 1, "brought to 0 to 255"),
        ((ZEROS + 60_000).astype(np.uint16), ".x_train >> 8"),
        (np.array([["a"] * 3] * 5), "give uint8"),
        (
            np.array([object()] * 5),
            "x_train in .* is no array that can be read|holds Python.s objects",
        ),
    ],
)
def test_pixels_that_are_no_levels_are_told_how_to_be_some(
    tmp_path: Path, pixels: np.ndarray, advice: str
) -> None:
    np.savez(tmp_path / "mine.npz", **{**ARRAYS, "x_train": pixels})
    with pytest.raises(ValueError, match=advice):
        opened(f"arrays:{tmp_path}/mine.npz")


def test_channels_first_is_told(tmp_path: Path) -> None:
    first = {
        "x_train": np.zeros((5, 3, 8, 9), np.uint8),
        "x_test": np.zeros((2, 3, 8, 9), np.uint8),
    }
    np.savez(tmp_path / "mine.npz", **{**ARRAYS, **first})
    settings = DataSettings(f"arrays:{tmp_path}/mine.npz")
    sources = open_sources(settings)
    with pytest.raises(ValueError, match="looks like channels first; give 8 × 9 × 3, in NumPy"):
        check_data(settings, sources["train"], sources["eval"])


@pytest.mark.parametrize("place", [30, 90, 150, 400, -60, -30])
def test_a_damaged_npz_is_a_sentence_or_what_it_was(tmp_path: Path, place: int) -> None:
    """Some of a zip's fields stand there twice, and nobody reads the second."""
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "mine.npz", **ARRAYS)
        content = bytearray((tmp_path / "mine.npz").read_bytes())
        content[place : place + 12] = b"\xff" * 12
        (tmp_path / "mine.npz").write_bytes(content)
        try:
            source = opened(f"arrays:{tmp_path}/mine.npz")
        except ValueError as error:
            assert re.match(rf"^.*{tmp_path}/mine\.npz .*; (write|give) .*\.$", str(error))
        else:
            images, labels = source.read(np.arange(5))
            assert np.array_equal(images, ARRAYS["x_train"][..., None])
            assert np.array_equal(labels, np.ravel(ARRAYS["y_train"]))


def test_a_file_that_is_no_npz_is_named(tmp_path: Path) -> None:
    (tmp_path / "mine.npz").write_bytes(b"no zip")
    with pytest.raises(ValueError, match=r"mine\.npz cannot be read \(File is not a zip file"):
        opened(f"arrays:{tmp_path}/mine.npz")
    with pytest.raises(ValueError, match=r"none\.npz cannot be read \(No such file"):
        opened(f"arrays:{tmp_path}/none.npz")
