"""Shows the data as the model will see it: `python -m launch.look --flagfile=digits`."""

import dataclasses
import hashlib
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tqdm
from absl import flags as absl_flags

from input_pipeline.bad_records import Faults
from input_pipeline.checks import check_data, check_mixing, check_pictures
from input_pipeline.label_checks import check_labels
from input_pipeline.layout import Layout
from input_pipeline.sources import Source, open_sources
from input_pipeline.targets import IGNORED
from launch.flags.command import Command, read_command
from launch.flags.group import Group
from launch.flags.parsing import check_file, given
from launch.flags.run import define_training_flags
from launch.process import cli
from launch.terminal.image_grid import PAIRS, Batch, as_it_is, class_name, save_grid
from launch.terminal.mask_picture import overlaid
from launch.terminal.table import table, whole

_RECORDS_AT_ONCE = 256
_DUPLICATES_SHOWN = 3


@dataclasses.dataclass(frozen=True)
class Contents:
    """Labels, hashes and counts of the records of a split.

    Attributes:
      labels: int64 [n], of the records looked at; of masks how many pixels have each level, int64
        [n, 256].
      first_record: the record that has an image's hash, the first of them.
      left_out: how many of the records looked at are bad.
    """

    labels: np.ndarray
    first_record: dict[bytes, int]
    left_out: int


def define_look_flags() -> absl_flags.FlagValues:
    """The flags of a training run and those of this command."""
    values = define_training_flags()
    add = Group(values, "look")
    add.text("out", "grid.png", "Where the picture goes.")
    add.integer(
        "look_at", 10_000, 0, "Records of each split to count and compare.\n0: all of them."
    )
    return values


def carry_out(argv: Sequence[str], values: absl_flags.FlagValues) -> int:
    """Carries the command out and returns its exit code."""
    with cli.wrong_command():
        command = read_command(argv, values)
        with cli.own_code(command.values.verbosity):
            sources = open_sources(command.data)
        check_data(command.data, sources["train"], sources["eval"])
        check_pictures(sources["train"], "launch.look shows", ("class", "masks"))
        said, wrong = look_at_labels(sources, command.data.max_bad_records)
        check_mixing(command.data.mixup, command.data.cutmix, PAIRS)
        out = pathlib.Path(values.out)
        check_file("out", values.out, begins=b"\x89PNG")
        if out.suffix != ".png":
            raise ValueError(f"{given('out', values.out)} is no name of a picture; end it in .png.")
    cli.import_tensorflow(values.verbosity)
    # Bad records are what a person looks for: they end a training, but not this.
    faults = {split: Faults(source, source.length) for split, source in sources.items()}
    plain, seen = first_examples(command, sources["train"], faults["train"])
    contents = {
        split: look_through(source, values.look_at, faults[split])
        for split, source in sources.items()
    }
    with cli.wrong_command():
        save_grid(plain, seen, sources["train"], title(command), out)
    print(summary_text(sources, contents))
    shown = [fault for split in faults.values() for fault in split.shown]
    rows = [*(("labels", note) for note in said), *(("bad", fault) for fault in shown)]
    print(table([*rows, ("picture", whole(out))]))
    if wrong:
        raise cli.WrongCommandError(wrong)
    return cli.FINISHED


def look_at_labels(sources: dict[str, Source], max_bad_records: int) -> tuple[tuple[str, ...], str]:
    """Notes on the labels, and the reason why training refuses them; "" if it does not."""
    try:
        return check_labels(sources["train"], sources["eval"], max_bad_records), ""
    except ValueError as error:
        return (), str(error)


def first_examples(
    command: Command, source: Source, faults: Faults
) -> tuple[dict[str, Any], Batch]:
    """The first examples of a training run's own stream: as they are, and as the model sees them.

    As they are comes from Pillow alone, whose code has nothing to do with what decodes for the
    model, so that a person sees where the two differ.
    """
    from input_pipeline.streams import training_stream

    data = command.data
    stream = training_stream(
        source,
        layout=Layout(PAIRS),
        seed=command.settings.run.seed,
        augment=data.augment,
        shuffle_block=data.shuffle_block,
        image_size=data.image_size,
        mixup=data.mixup,
        cutmix=data.cutmix,
        faults=faults,
    )
    seen = next(stream.take(1).as_numpy_iterator())
    names = ("label", "weight", "record")
    images = [as_it_is(source, record) for record in seen["record"]]
    plain = {"image": images, **{name: seen[name] for name in names}}
    if source.targets == "masks":
        plain["image"] = [
            _with_mask(source, *each) for each in zip(images, seen["record"], strict=True)
        ]
        pairs = zip(seen["image"], seen["label"], strict=True)
        seen = {**seen, "image": np.stack([overlaid(*pair) for pair in pairs])}
    return plain, seen


def _with_mask(source: Source, picture: np.ndarray, record: int) -> np.ndarray:
    """A record's picture under its mask as that is in its file."""
    try:
        _, (mask,), *_ = source.read(np.array([record]))
    except ValueError:
        return picture
    return overlaid(picture, mask)


def look_through(source: Source, most: int, faults: Faults) -> Contents:
    """Reads the labels and images of the first records, `most` of them or, if it is 0, all."""
    labels, first_record = [], {}
    count = min(most or source.length, source.length)
    for record, image, label in records_of(source, count, faults):
        masked = source.targets == "masks"
        labels.append(np.bincount(label.ravel(), minlength=256) if masked else label)
        first_record.setdefault(hashlib.blake2b(image, digest_size=16).digest(), record)
    return Contents(np.array(labels, np.int64), first_record, count - len(labels))


def records_of(
    source: Source, count: int, faults: Faults
) -> Iterator[tuple[int, bytes, np.ndarray]]:
    """(record, image, label) of the first records, but for bad ones; images are not decoded."""
    from input_pipeline.loader import read_examples

    with tqdm.tqdm(total=count, desc=source.name, unit=" records", leave=False, delay=1) as bar:
        for start in range(0, count, _RECORDS_AT_ONCE):
            records = np.arange(start, min(start + _RECORDS_AT_ONCE, count))
            yield from read_examples(source, records, faults)
            bar.update(len(records))


def title(command: Command) -> str:
    """The picture's title: dataset, augmentation, seed."""
    data = command.data
    parts = [data.dataset, f"augment {data.augment}"]
    parts += [f"mixup {data.mixup:g}"] if data.mixup else []
    parts += [f"cutmix {data.cutmix:g}"] if data.cutmix else []
    return "  ·  ".join(parts)


def summary_text(sources: dict[str, Source], contents: dict[str, Contents]) -> str:
    """Records, classes and duplicates, a few lines each."""
    rows = []
    for split, source in sources.items():
        looked, counted = contents[split], len(contents[split].labels)
        text = f"{source.length:,} records"
        if counted + looked.left_out < source.length:
            text += f", {counted + looked.left_out:,} of them looked at; --look_at=0 for all"
        if looked.left_out:
            text += f"; {looked.left_out:,} are bad and left out"
        rows.append((split, text))
        rows.append(("", classes_text(source, looked.labels)))
        rows += [("", note) for note in source.notes]
    shared = contents["train"].first_record.keys() & contents["eval"].first_record.keys()
    rows.append(("duplicates", duplicates_text(sources, contents, shared)))
    return table(rows)


def classes_text(source: Source, labels: np.ndarray) -> str:
    """The number of records of each class, or its pixels; of many the fewest and the most."""
    if source.targets == "masks":
        return pixels_text(source, labels)
    counts = np.bincount(labels, minlength=source.num_classes)
    parts = [f"{class_name(source, label)}: {count:,}" for label, count in enumerate(counts)]
    return _classes_text(parts, counts, "record")


def pixels_text(source: Source, levels: np.ndarray) -> str:
    """The share of each class among the labelled pixels, and in how many pictures it is.

    Args:
      levels: int64 [n, 256], how many pixels of each mask have each level.
    """
    levels = levels.reshape(-1, 256)
    counts, pictures = levels.sum(axis=0), (levels > 0).sum(axis=0)
    ignored, total = counts[IGNORED], counts.sum()
    counts, pictures = counts[: source.num_classes], pictures[: source.num_classes]
    parts = [
        f"{class_name(source, label)}: {count / max(counts.sum(), 1):.1%} in {number:,}"
        for label, (count, number) in enumerate(zip(counts, pictures, strict=True))
    ]
    return f"{_classes_text(parts, counts, 'pixel')}; {ignored / max(total, 1):.1%} is not labelled"


def _classes_text(parts: Sequence[str], counts: np.ndarray, what: str) -> str:
    if len(parts) > 20:
        order = np.argsort(counts, kind="stable")
        few, many = ", ".join(parts[i] for i in order[:3]), ", ".join(parts[i] for i in order[-3:])
        return f"{len(parts):,} classes, the fewest {few}; the most {many}; " + _empty(counts, what)
    return f"{len(parts)} classes, {', '.join(parts)}; " + _empty(counts, what)


def _empty(counts: np.ndarray, what: str) -> str:
    empty = int((counts == 0).sum())
    return f"warning: {empty:,} without a {what}" if empty else "none is empty"


def duplicates_text(
    sources: dict[str, Source], contents: dict[str, Contents], shared: set[bytes]
) -> str:
    """A warning where images of one split are in the other too."""
    if not shared:
        return "no image looked at is in both splits"
    train, evaluation = contents["train"].first_record, contents["eval"].first_record
    pairs = sorted((evaluation[image], train[image]) for image in shared)
    shown = [
        f"{sources['eval'].describe(b)} = {sources['train'].describe(a)}"
        for b, a in pairs[:_DUPLICATES_SHOWN]
    ]
    more = f" and {len(pairs) - len(shown):,} more" if len(pairs) > len(shown) else ""
    count = "1 image is" if len(pairs) == 1 else f"{len(pairs):,} images are"
    return f"warning: {count} in both splits: {'; '.join(shown)}{more}"


main = cli.entry_point("launch.look", define_look_flags, carry_out)

if __name__ == "__main__":
    cli.exit_with(main)
