"""`text:GLOB[,EVAL_GLOB]`: text files as one sequence of tokens, cut into rows of equal length.

A record is the row of tokens [r × L, r × L + L], of which the last is told from those before it:
rows overlap by one token, and every token but the first is told exactly once. Files come in the
order of their names, each ends with a token of its own. The last row is filled up with −1. So a row
is known by its number, as an image is: order, resuming and evaluation are exact. All tokens are
held in memory.
"""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Sequence

import numpy as np

from input_pipeline.records.open_files import digest_of, find_files, open_files, size_and_time
from input_pipeline.settings import DataSettings
from input_pipeline.sources.source import Source
from input_pipeline.sources.tfrecord import check_files_apart

_LENGTH = 256
_BYTES = 256
_END_OF_FILE = 0  # of bytes; no text file holds it


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    """What makes tokens of a file's bytes, in [0, size)."""

    size: int
    encode: Callable[[bytes], np.ndarray]


def open_split(rest: str, settings: DataSettings, split: str) -> Source:
    """Opens a split.

    Raises:
      ValueError: no file matches, one cannot be read, the tokenizer cannot be, or there is too
        little text.
    """
    train, _, evaluation = rest.partition(",")
    paths = find_files((train if split == "train" else evaluation).strip())
    if split == "eval":
        check_files_apart(find_files(train.strip()), paths)
    tokenizer, length = make_tokenizer(settings.tokenizer), settings.sequence_length or _LENGTH
    files = [_content(path) for path in paths]
    parts = [tokenizer.encode(content) for content in files]
    tokens, ends = np.concatenate(parts), np.cumsum([len(part) for part in parts])
    rows = -(-(len(tokens) - 1) // length)
    if rows < 1:
        raise ValueError(f"{rest}: the files of {split} hold no text; give files that do.")

    def read(records: np.ndarray) -> tuple[np.ndarray]:
        places = np.asarray(records)[:, None] * length + np.arange(length + 1)
        inside = places < len(tokens)
        # First of a type that has a −1: as bytes it would be a token, 255.
        found = tokens[np.where(inside, places, 0)].astype(np.int32)
        return (np.where(inside, found, np.int32(-1)),)

    def describe(record: int) -> str:
        file = int(np.searchsorted(ends, record * length, side="right"))
        begin = record * length - int(ends[file - 1] if file else 0)
        return f"{paths[file]}, token {begin:,}"

    top = os.path.commonpath([os.path.dirname(path) or "." for path in paths])
    below = "\n".join(os.path.relpath(path, top) for path in paths)
    return Source(
        name=f"{pathlib.PurePath(top).name or 'text'}/{split}",
        length=rows,
        num_classes=tokenizer.size,
        image_shape=(length + 1,),
        encoded=False,
        read=read,
        describe=describe,
        order=digest_of(below.encode(), ends, np.array([length, tokenizer.size])),
        contents=digest_of(tokens.tobytes()),
        targets="tokens",
        bytes_per_token=sum(len(content) + 1 for content in files) / len(tokens),
    )


def has_evaluation(rest: str, settings: DataSettings) -> bool:
    """Whether there are files to evaluate on."""
    return bool(rest.partition(",")[2].strip())


def make_tokenizer(text: str) -> Tokenizer:
    """The tokenizer of the SentencePiece model in a file; of none, each byte is a token.

    Raises:
      ValueError: the file is no such model, or the package for it is not installed.
    """
    if not text:
        ended = bytes([_END_OF_FILE])
        return Tokenizer(_BYTES, lambda content: np.frombuffer(content + ended, np.uint8))
    try:
        import sentencepiece
    except ImportError:
        raise ValueError(
            f"--tokenizer={text} takes the package sentencepiece; pip install sentencepiece, or "
            "leave it out for bytes."
        ) from None
    try:
        model = sentencepiece.SentencePieceProcessor(model_file=os.path.expanduser(text))
    except (OSError, RuntimeError, TypeError):
        raise ValueError(
            f"--tokenizer={text} is no SentencePiece model; give the path of a .model file, or "
            "leave it out for bytes."
        ) from None
    ended = [max(model.eos_id(), 0)]

    def encode(content: bytes) -> np.ndarray:
        pieces: Sequence[int] = model.encode(content.decode("utf-8", "replace"))
        return np.array([*pieces, *ended], np.int32)

    return Tokenizer(model.vocab_size(), encode)


def _content(path: str) -> bytes:
    size, _ = size_and_time(path)
    (file,) = open_files([path])
    try:
        return file.read_at(size, 0)
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error}); restore the file.") from None
