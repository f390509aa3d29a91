"""A picture of examples in rows: as they are, and as the model sees them."""

import io
import pathlib
from typing import TYPE_CHECKING, Any

import numpy as np

from input_pipeline.images.pillow import decoded
from input_pipeline.sources import Source
from launch.terminal.drawn_text import drawn, printable
from launch.terminal.mask_picture import shares
from trainer.files.whole_files import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


# Pairs of images in the grid: an even number, so that each has the partner it is mixed with.
PAIRS = 24
_COLUMNS = 8
# Pixels of a side of a picture, more than are drawn.
_LONGEST = 400
Batch = dict[str, np.ndarray]


def save_grid(
    plain: dict[str, Any], seen: Batch, source: Source, heading: str, path: pathlib.Path
) -> None:
    """Draws the images in pairs, as they are above and as the model sees them below.

    Raises:
      OSError: the file cannot be written.
    """
    above = [label_text(plain, number, source) for number in range(PAIRS)]
    below = [label_text(seen, number, source) for number in range(PAIRS)]
    with drawn([heading, *above, *below]) as text:
        figure = _grid(text(heading), seen["image"].shape)
        for number in range(PAIRS):
            row, column = 3 * (number // _COLUMNS), number % _COLUMNS
            pairs = (
                ("as it is", plain["image"][number], above[number], "#222222"),
                ("as seen", seen["image"][number], below[number], "#1f6fb4"),
            )
            for place, (name, image, label, color) in enumerate(pairs):
                axes = figure.axes[(row // 3 * 2 + place) * _COLUMNS + column]
                show(axes, image, text(label), color)
                if column == 0:
                    axes.set_ylabel(name, fontsize=8, color=color)
        with io.BytesIO() as png:
            figure.savefig(png, dpi=110)
            write_bytes(path, png.getvalue())


def _grid(heading: str, shape: tuple[int, ...]) -> "Figure":
    """A figure with rows of axes in pairs, for images [n, height, width, channels]."""
    from matplotlib.figure import Figure  # without pyplot, whose import takes half a second more

    rows = PAIRS // _COLUMNS
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


def show(axes: "Axes", image: np.ndarray, text: str, color: str) -> None:
    """Draws a picture, uint8 [height, width, channels], with a line of text above."""
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
    if source.targets == "masks":
        return _largest(batch["label"][number], source)
    own = class_name(source, int(batch["label"][number]))
    if "mix" not in batch or batch["mix"][number] > 0.995:
        return own
    mix, other = batch["mix"][number], class_name(source, int(batch["label_b"][number]))
    return f"{shortened(own, 8)} {mix:.0%} + {shortened(other, 8)} {1 - mix:.0%}"


def _largest(mask: np.ndarray, source: Source) -> str:
    """The classes that most of a mask is of, but for class 0, with their shares."""
    found = shares(mask, source.num_classes)
    order = [label for label in np.argsort(-found, kind="stable").tolist() if found[label]]
    largest = [label for label in order if label][:2] or order[:1]
    return ", ".join(f"{class_name(source, label)} {found[label]:.0%}" for label in largest)


def class_name(source: Source, label: int) -> str:
    """A label's name where the source has names, no longer than fits, else its number."""
    names = source.class_names
    name = names[label] if label < len(names) else str(label)
    return shortened(printable(name), 14)


def shortened(text: str, most: int) -> str:
    """The text, of at most so many signs."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


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
