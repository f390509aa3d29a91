"""Text as rows of tokens: every token but the first is told once, and a row is known by number."""

import pathlib
import sys

import numpy as np
import pytest

from input_pipeline.settings import DataSettings
from input_pipeline.sources import Source, open_source, open_sources

FILES = {"a.txt": "héllo".encode(), "b/empty.txt": b"", "b/z, odd.txt": bytes(range(1, 60))}
TOKENS = list(b"".join(content + b"\0" for content in FILES.values()))


@pytest.fixture(name="top")
def some_files(tmp_path: pathlib.Path) -> pathlib.Path:
    write(tmp_path / "text")
    return tmp_path / "text"


def write(top: pathlib.Path) -> None:
    for name, content in FILES.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(content)


def opened(top: pathlib.Path, length: int, **others: str) -> Source:
    pattern = f"text:{top}/**/*.txt,{top}/**/*.md"
    settings = DataSettings(pattern, sequence_length=length, **others)
    return open_source(settings, "train")


# Rows that end with the text, one before it, one behind it, and one that is longer than all.
@pytest.mark.parametrize("length", [1, 2, len(TOKENS) - 2, len(TOKENS) - 1, len(TOKENS), 500])
def test_every_token_but_the_first_is_told_once(top: pathlib.Path, length: int) -> None:
    source = opened(top, length)
    (rows,) = source.read(np.arange(source.length))
    assert rows.shape == (source.length, length + 1) and rows.dtype == np.int32
    assert source.image_shape == (length + 1,) and source.num_classes == 256
    told = rows[:, 1:].ravel()
    assert told[told >= 0].tolist() == TOKENS[1:]
    assert (told >= 0).argmin() in (0, len(TOKENS) - 1)  # what fills up comes last
    assert np.array_equal(rows[1:, 0], rows[:-1, -1])  # rows overlap by one
    (some,) = source.read(np.array([source.length - 1, 0]))
    assert np.array_equal(some, rows[[-1, 0]])


def test_a_row_is_named_by_its_file(top: pathlib.Path) -> None:
    source = opened(top, 4)
    assert source.describe(0).endswith("a.txt, token 0")
    assert source.describe(2).endswith("z, odd.txt, token 0")  # the empty file has one token


def test_the_digests_know_what_a_position_means(top: pathlib.Path) -> None:
    first = opened(top, 4)
    write(top.parent / "moved")
    moved = opened(top.parent / "moved", 4)
    assert (first.order, first.contents) == (moved.order, moved.contents)
    assert opened(top, 5).order != first.order
    (top / "a.txt").write_bytes(b"hallo!")  # as many bytes
    changed = opened(top, 4)
    assert changed.order == first.order and changed.contents != first.contents
    (top / "a.txt").rename(top / "c.txt")
    assert opened(top, 4).order != first.order


def test_rows_are_held_out_where_nothing_else_is_to_evaluate_on(top: pathlib.Path) -> None:
    sources = open_sources(DataSettings(f"text:{top}/**/*.txt", sequence_length=4, seed=3))
    both = [sources[split].read(np.arange(sources[split].length))[0] for split in sources]
    whole = opened(top, 4)
    assert len(both[1]) == round(0.1 * whole.length)
    parts = sorted(map(tuple, np.concatenate(both).tolist()))
    assert parts == sorted(map(tuple, whole.read(np.arange(whole.length))[0].tolist()))


@pytest.mark.parametrize(
    ("installed", "sentence"),
    [(False, "takes the package sentencepiece"), (True, "is no SentencePiece model")],
)
def test_a_tokenizer_that_cannot_be(
    top: pathlib.Path, monkeypatch: pytest.MonkeyPatch, installed: bool, sentence: str
) -> None:
    if installed:
        pytest.importorskip("sentencepiece", reason="the package sentencepiece is not installed")
    else:
        monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(ValueError, match=sentence):
        opened(top, 4, tokenizer=str(top / "a.txt"))
