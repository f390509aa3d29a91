"""Shows the data as the model will see it: `python -m launch.look --flagfile=digits`."""

import dataclasses
import hashlib
import pathlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import tqdm
from absl import flags as absl_flags

from input_pipeline.checks import check_data, check_mixing
from input_pipeline.faults import Faults
from input_pipeline.label_checks import check_labels
from input_pipeline.layout import Layout
from input_pipeline.pillow import decoded
from input_pipeline.sources import Source, open_sources
from launch import cli, flags, report
from launch.define import Group
from launch.drawn_text import drawn, printable
from launch.help import help_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Pairs of images in the grid: an even number, so that each has the partner it is mixed with.
_PAIRS = 24
_COLUMNS = 8
_RECORDS_AT_ONCE = 256
# Pixels of a side of a picture in the grid, more than are drawn.
_LONGEST = 400
_DUPLICATES_SHOWN = 3

Batch = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Contents:
    """What the records of a split hold.

    Attributes:
      labels: int64 [n], of the records looked at.
      first_record: the record that has an image's hash, the first of them.
      left_out: how many of the records looked at are bad.
    """

    labels: np.ndarray
    first_record: dict[bytes, int]
    left_out: int


def define_look_flags() -> absl_flags.FlagValues:
    """The flags of a training run and those of this command."""
    values = flags.define_training_flags()
    add = Group(values, "look")
    add.text("out", "grid.png", "Where the picture goes.")
    help_text = "Records of each split to count and compare.\n0: all of them."
    add.integer("look_at", 10_000, 0, help_text)
    return values


def main(argv: Sequence[str]) -> int:
    """Runs the command and returns its exit code."""
    values = define_look_flags()
    if {"--help", "-h", "--helpfull"} & set(argv):
        print(help_text(values, "launch.look", "--helpfull" in argv))
        return cli.FINISHED
    with cli.wrong_command():
        command = flags.read_command(argv, values)
        sources = open_sources(command.data)
        check_data(command.data, sources["train"], sources["eval"])
        said, wrong = look_at_labels(sources, command.data.max_bad_records)
        check_mixing(command.data.mixup, command.data.cutmix, _PAIRS)
        out = pathlib.Path(values.out)
        if not out.parent.is_dir() or out.is_dir():
            raise ValueError(f"--out={out} cannot be written; give a file in a folder that exists.")
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
    print(report.table([*rows, ("picture", report.whole(out))]))
    if wrong:
        raise cli.WrongCommandError(wrong)
    return cli.FINISHED


def look_at_labels(sources: dict[str, Source], max_bad_records: int) -> tuple[tuple[str, ...], str]:
    """What there is to say of the labels, and why training refuses them, if it does."""
    try:
        return check_labels(sources["train"], sources["eval"], max_bad_records), ""
    except ValueError as error:
        return (), str(error)


def first_examples(
    command: flags.Command, source: Source, faults: Faults
) -> tuple[dict[str, Any], Batch]:
    """The first examples of a training run's own stream: as they are, and as the model sees them.

    As they are comes from Pillow alone, whose code has nothing to do with what decodes for the
    model, so that a person sees where the two differ.
    """
    from input_pipeline.streams import training_stream

    data = command.data
    stream = training_stream(
        source,
        layout=Layout(_PAIRS),
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
    return {"image": images, **{name: seen[name] for name in names}}, seen


def as_it_is(source: Source, record: int) -> np.ndarray:
    """A record's picture as Pillow shows it, uint8 [height, width, channels]; black if it cannot.

    What is transparent stays so: the paper that it is drawn on is white.
    """
    try:
        image = source.read(np.array([record]))[0][0]
        if not source.encoded:
            return image
        picture = decoded(image, 4)
    except ValueError:
        return np.zeros([8, 8, 3], np.uint8)
    picture.thumbnail((_LONGEST, _LONGEST))
    return np.asarray(picture)


def look_through(source: Source, most: int, faults: Faults) -> Contents:
    """Reads the labels and images of the first records, `most` of them or, if it is 0, all."""
    labels, first_record = [], {}
    count = min(most or source.length, source.length)
    for record, image, label in records_of(source, count, faults):
        labels.append(label)
        first_record.setdefault(hashlib.blake2b(image, digest_size=16).digest(), record)
    return Contents(np.array(labels, np.int64), first_record, count - len(labels))


def records_of(source: Source, count: int, faults: Faults) -> Iterator[tuple[int, bytes, int]]:
    """(record, image, label) of the first records, but for bad ones; images are not decoded."""
    from input_pipeline.examples import read_examples

    with tqdm.tqdm(total=count, desc=source.name, unit=" records", leave=False, delay=1) as bar:
        for start in range(0, count, _RECORDS_AT_ONCE):
            records = np.arange(start, min(start + _RECORDS_AT_ONCE, count))
            yield from read_examples(source, records, faults)
            bar.update(len(records))


def title(command: flags.Command) -> str:
    """What the picture shows."""
    data = command.data
    parts = [data.dataset, f"augment {data.augment}"]
    parts += [f"mixup {data.mixup:g}"] if data.mixup else []
    parts += [f"cutmix {data.cutmix:g}"] if data.cutmix else []
    return "  ·  ".join(parts)


def save_grid(
    plain: dict[str, Any], seen: Batch, source: Source, heading: str, path: pathlib.Path
) -> None:
    """Draws the images in pairs, as they are above and as the model sees them below.

    Raises:
      OSError: the file cannot be written.
    """
    above = [label_text(plain, number, source) for number in range(_PAIRS)]
    below = [label_text(seen, number, source) for number in range(_PAIRS)]
    with drawn([heading, *above, *below]) as text:
        figure = _grid(text(heading), seen["image"].shape)
        for number in range(_PAIRS):
            row, column = 3 * (number // _COLUMNS), number % _COLUMNS
            pairs = (
                ("as it is", plain["image"][number], above[number], "#222222"),
                ("as seen", seen["image"][number], below[number], "#1f6fb4"),
            )
            for place, (name, image, label, color) in enumerate(pairs):
                axes = figure.axes[(row // 3 * 2 + place) * _COLUMNS + column]
                _show(axes, image, text(label), color)
                if column == 0:
                    axes.set_ylabel(name, fontsize=8, color=color)
        figure.savefig(path, dpi=110)


def _grid(heading: str, shape: tuple[int, ...]) -> "Figure":
    """A figure with rows of axes in pairs, for images [n, height, width, channels]."""
    from matplotlib.figure import Figure  # without pyplot, whose import takes half a second more

    rows = _PAIRS // _COLUMNS
    _, height, width, _ = shape
    # Each pair of rows is followed by a gap.
    ratios = [1, 1, 0.03] * rows
    cell = 1.35
    figure = Figure(figsize=(cell * _COLUMNS, cell * height / width * sum(ratios) * 1.16 + 0.6))
    figure.suptitle(heading, fontsize=11, x=0.04, ha="left")
    grid = figure.add_gridspec(
        len(ratios),
        _COLUMNS,
        height_ratios=ratios,
        hspace=0.24,
        wspace=0.06,
        left=0.04,
        right=0.99,
        bottom=0.01,
        top=1 - 0.55 / figure.get_figheight(),
    )
    for row in range(2 * rows):
        for column in range(_COLUMNS):
            figure.add_subplot(grid[row // 2 * 3 + row % 2, column])
    return figure


def _show(axes: "Axes", image: np.ndarray, text: str, color: str) -> None:
    height, width, channels = image.shape
    pixels = image[:, :, 0] if channels in (1, 2) else image[:, :, : 4 if channels == 4 else 3]
    interpolation = "nearest" if max(height, width) < 100 else "auto"
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation=interpolation)
    axes.set_title(text, fontsize=8 if len(text) <= 18 else 6.5, color=color, pad=2)
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(color=color, linewidth=0.8)


def label_text(batch: Batch, number: int, source: Source) -> str:
    """An example's label, or both of a mixed one with their shares."""
    if not batch["weight"][number]:
        known = source.labels is not None
        return f"bad: label {source.labels[batch['record'][number]]}" if known else "bad record"
    own = class_name(source, int(batch["label"][number]))
    if "mix" not in batch or batch["mix"][number] > 0.995:
        return own
    mix, other = batch["mix"][number], class_name(source, int(batch["label_b"][number]))
    return f"{_short(own, 8)} {mix:.0%} + {_short(other, 8)} {1 - mix:.0%}"


def class_name(source: Source, label: int) -> str:
    """A label's name where the source has names, no longer than fits, else its number."""
    names = source.class_names
    name = names[label] if label < len(names) else str(label)
    return _short(printable(name), 14)


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


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
    return report.table(rows)


def classes_text(source: Source, labels: np.ndarray) -> str:
    """How many records each class has; of many classes the fewest and the most."""
    counts = np.bincount(labels, minlength=source.num_classes)
    parts = [f"{class_name(source, label)}: {count:,}" for label, count in enumerate(counts)]
    if len(parts) > 20:
        order = np.argsort(counts, kind="stable")
        few, many = ", ".join(parts[i] for i in order[:3]), ", ".join(parts[i] for i in order[-3:])
        return f"{len(parts):,} classes, the fewest {few}; the most {many}; " + _empty(counts)
    return f"{len(parts)} classes, {', '.join(parts)}; " + _empty(counts)


def _empty(counts: np.ndarray) -> str:
    empty = int((counts == 0).sum())
    return f"warning: {empty:,} without a record" if empty else "none is empty"


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


if __name__ == "__main__":
    cli.exit_with(main)
