"""Sources of examples: `open_source` finds the kind of dataset; each kind has a file here.

Nothing here imports TensorFlow for local files: the plan asks a source for its facts before
TensorFlow loads. Each kind is imported only when it is asked for.
"""

import dataclasses
import difflib
import importlib
from collections.abc import Sequence

from input_pipeline.settings import DataSettings
from input_pipeline.sources.holdout import hold_out
from input_pipeline.sources.source import Source, leave_out_bad
from input_pipeline.targets import TARGETS

__all__ = ["DATASETS", "Source", "open_source", "open_sources"]

_SPLITS = ("train", "eval")
# How each kind is written; the module of that name here has `open_split(rest, settings, split)`.
DATASETS = {
    "digits": "digits",
    "synthetic": "synthetic:HxWxC[xCLASSES]",
    "tfds": "tfds:NAME[/CONFIG][:VERSION]",
    "folder": "folder:DIR",
    "tfrecord": "tfrecord:GLOB,EVAL_GLOB",
    "arrays": "arrays:FILE.npz",
    "parquet": "parquet:GLOB",
    "csv": "csv:FILE",
    "idx": "idx:DIR",
    "text": "text:GLOB",
    "python": "python:module:function",
}
# Those that have something to evaluate on, always; the modules of the others say whether they have.
_WITH_EVALUATION = ("digits", "synthetic", "python")
# The kinds whose records can have these targets.
_WITH = {
    "class": tuple(kind for kind in DATASETS if kind != "text"),
    "labels": ("arrays", "csv", "python"),
    "values": ("arrays", "csv", "python"),
    "masks": ("folder", "csv", "arrays", "python"),
    "tokens": ("text", "python"),
}
# The settings that mean something to some kinds only.
_BELONG = {
    "data_dir": ("tfds",),
    "train_split": ("tfds", "folder", "parquet", "csv"),
    "eval_split": ("tfds", "folder", "parquet", "csv"),
    "features": ("tfds", "tfrecord", "parquet", "csv"),
    "num_classes": ("tfrecord", "folder", "csv"),
    "sequence_length": ("text",),
    "tokenizer": ("text",),
}


def open_sources(settings: DataSettings) -> dict[str, Source]:
    """Opens both splits; files to evaluate on are decoded to the channels of those to train on.

    Raises:
      ValueError: as open_source does.
    """
    train, evaluation = _opened(settings, _SPLITS, leave_out=True).values()
    if evaluation.encoded:
        shape = (*evaluation.image_shape[:2], train.image_shape[2])
        evaluation = dataclasses.replace(evaluation, image_shape=shape)
    return {"train": train, "eval": evaluation}


def open_source(settings: DataSettings, split: str, *, leave_out: bool = True) -> Source:
    """Opens one split, `train` or `eval`, of the dataset that the settings name.

    Args:
      settings: the dataset and how to read it.
      split: `train` or `eval`.
      leave_out: whether to leave out the records that `launch.prepare --verify` found bad.

    Raises:
      ValueError: the dataset or the split is unknown, missing or empty, or a file is truncated
        or corrupt.
    """
    if split not in _SPLITS:
        raise ValueError(f"the split {split!r} is unknown; use one of {', '.join(_SPLITS)}.")
    return _opened(settings, (split,), leave_out)[split]


def _opened(settings: DataSettings, splits: Sequence[str], leave_out: bool) -> dict[str, Source]:
    kind, rest = _kind(settings)
    module = importlib.import_module(f"input_pipeline.sources.{kind}")
    if settings.holdout and settings.eval_split:
        raise ValueError(
            f"--holdout={settings.holdout} and --eval_split={settings.eval_split} both say what to "
            "evaluate on; leave one out."
        )
    has_own = kind in _WITH_EVALUATION or module.has_evaluation(rest, settings)
    if settings.holdout or not has_own:
        whole = _not_empty(module.open_split(rest, settings, "train"))
        parts = hold_out(whole, settings.holdout, settings.seed, has_own)
    else:
        parts = {split: module.open_split(rest, settings, split) for split in splits}
    for split in splits:
        _check_targets(parts[split], settings)
    return {
        split: _not_empty(leave_out_bad(parts[split]) if leave_out else parts[split])
        for split in splits
    }


def _check_targets(source: Source, settings: DataSettings) -> None:
    """Sees that a source has the targets asked for."""
    wanted = settings.targets or source.targets
    if source.targets not in TARGETS:
        raise ValueError(
            f"{source.name} has targets {source.targets!r}, which are unknown; give it one of "
            f"{', '.join(TARGETS)}."
        )
    if source.targets != wanted:
        raise ValueError(
            f"the task is to tell {TARGETS[wanted].what}, and {source.name} has "
            f"{TARGETS[source.targets].what}; give another --task, or such a dataset, of the kind "
            f"{_and(_WITH[wanted])}."
        )


def _kind(settings: DataSettings) -> tuple[str, str]:
    """The kind of the dataset, and what follows the colon."""
    kind, colon, rest = settings.dataset.partition(":")
    if kind not in DATASETS or (colon and DATASETS[kind] == kind):
        nearest = difflib.get_close_matches(kind, DATASETS, n=1, cutoff=0.5)
        hint = f", the nearest valid one is {DATASETS[nearest[0]]}" if nearest else ""
        *forms, last = DATASETS.values()
        raise ValueError(
            f"the dataset {settings.dataset!r} is unknown{hint}; use {', '.join(forms)} or {last}, "
            "for example synthetic:224x224x3."
        )
    for name, kinds in _BELONG.items():
        value = str(getattr(settings, name) or "")
        if value and kind not in kinds:
            raise ValueError(
                f"--{name}={value if value.isprintable() else repr(value)} belongs to datasets of "
                f"the kind {_and(kinds)}, not to {settings.dataset!r}; leave it out."
            )
    if DATASETS[kind] != kind and not rest and kind != "synthetic":
        raise ValueError(f"the dataset {settings.dataset!r} is incomplete; use {DATASETS[kind]}.")
    return kind, rest


def _and(names: Sequence[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def _not_empty(source: Source) -> Source:
    if not source.length:
        lost = f" but {source.left_out} bad ones" if source.left_out else ""
        raise ValueError(
            f"{source.name} holds no records{lost}; give a dataset or split that does."
        )
    return source
