"""Pictures of an evaluation: confusion, calibration, the worst mistakes; and the worst masks."""

import io
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from input_pipeline.sources import Source
from input_pipeline.targets import IGNORED
from launch.terminal.drawn_text import drawn, printable
from launch.terminal.image_grid import class_name, shortened, show
from launch.terminal.mask_picture import Worst, grey, overlaid, palette
from launch.terminal.picture import BLUE, GREY, RED, picture
from trainer.files.whole_files import write_bytes
from trainer.tasks.classification_report import NO_ANSWER, Report
from trainer.tasks.segmentation_report import MaskReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# More classes have no names beside the matrix; with fewer, its cells have numbers.
_NAMED, _NUMBERED, _NAME = 40, 15, 18
_COLUMNS, _CELL = 6, 1.6
# Of masks: pictures in a row, each with its mask and the answer; names of classes below.
_PICTURES, _NAMED_MASKS = 3, 24


def save_confusion(
    of: Report | MaskReport,
    class_names: Sequence[str],
    heading: str,
    path: pathlib.Path,
    what: str = "examples",
) -> None:
    """Draws the confusion matrix: of what each class has, examples, the shares of the answers.

    Raises:
      OSError: the file cannot be written.
    """
    classes = len(class_names)
    names = [shortened(printable(name), _NAME) for name in class_names]
    matrix = np.zeros([classes, classes])
    answered = of.pairs[:, 1] != NO_ANSWER
    matrix[tuple(of.pairs[answered].T)] = of.counts[answered]
    support = of.per_class.support[:, None]
    shares = np.divide(matrix, support, out=np.zeros_like(matrix), where=support > 0)
    with picture(path, [heading, *names], 7.6) as (figure, text):
        axes = figure.add_subplot()
        # Above the grid that charts with curves have.
        image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest", zorder=3)
        figure.colorbar(image, label=f"share of the {what} of the class", shrink=0.8)
        axes.set_title(text(heading), fontsize=11, loc="left")
        axes.set(xlabel="answer", ylabel="class")
        if classes <= _NAMED:
            shown, size = [text(name) for name in names], 9 if classes <= _NUMBERED else 6.5
            axes.set_xticks(range(classes), shown, rotation=90, fontsize=size)
            axes.set_yticks(range(classes), shown, fontsize=size)
        if classes <= _NUMBERED:
            _number(axes, matrix, shares)


def _number(axes: "Axes", matrix: np.ndarray, shares: np.ndarray) -> None:
    for (row, column), count in np.ndenumerate(matrix):
        if count:
            color = "white" if shares[row, column] > 0.5 else "#222222"
            where = {"ha": "center", "va": "center", "zorder": 4}
            axes.text(column, row, short(count), color=color, size=8, **where)


def short(count: float) -> str:
    """A count in a few characters: 9999, 12k, 669k, 1.2M."""
    if count < 9_999.5:
        return f"{count:.4g}"
    size, unit = next(of for of in ((1e9, "G"), (1e6, "M"), (1e3, "k")) if count >= of[0])
    return f"{count / size:.{count < 9.95 * size:d}f}{unit}"


def save_calibration(of: Report, heading: str, path: pathlib.Path) -> None:
    """Draws how often the model is right over how sure it is, and how often it is so sure.

    Raises:
      OSError: the file cannot be written.
    """
    found = of.calibration
    width, middle = np.diff(found.edges), (found.edges[:-1] + found.edges[1:]) / 2
    with picture(path, [heading], 5.2) as (figure, text):
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
        upper.bar(middle, np.nan_to_num(found.accuracy), width * 0.94, color=BLUE)
        upper.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1)
        upper.plot(found.confidence, found.accuracy, "o", color=RED, markersize=4)
        upper.set(ylabel="share that is right", ylim=(0, 1.02), xlim=(0, 1))
        title = f"{text(heading)}\nexpected calibration error {found.error:.4f}"
        upper.set_title(title, fontsize=11, loc="left")
        lower.bar(middle, found.weight, width * 0.94, color=GREY)
        lower.set(xlabel="largest probability", ylabel="examples")


def save_mistakes(
    of: Report,
    examples: np.ndarray,
    images: Sequence[np.ndarray],
    class_names: Sequence[str],
    heading: str,
    path: pathlib.Path,
) -> None:
    """Draws wrongly answered examples with their class and the answer.

    Args:
      examples: int64 [k], of the report.
      images: uint8 [height, width, channels] each.

    Raises:
      OSError: the file cannot be written.
    """
    from matplotlib.figure import Figure  # without pyplot, whose import takes half a second more

    captions = [_caption(of, example, class_names) for example in examples.tolist()]
    rows = -(-len(captions) // _COLUMNS)
    size = (_CELL * _COLUMNS, (_CELL + 0.42) * rows + 0.6)
    with drawn([heading, *captions]) as text, io.BytesIO() as png:
        figure = Figure(figsize=size, layout="constrained")
        figure.suptitle(text(heading), fontsize=11, x=0.01, ha="left")
        for number, axes in enumerate(figure.subplots(rows, _COLUMNS, squeeze=False).flat):
            if number < len(captions):
                lines = captions[number].split("\n")
                show(axes, images[number], "\n".join(map(text, lines)), RED)
                axes.title.set_fontsize(7.5)
            else:
                axes.axis("off")
        figure.savefig(png, dpi=110)
        write_bytes(path, png.getvalue())


def _caption(of: Report, example: int, class_names: Sequence[str]) -> str:
    own = shortened(printable(class_names[int(of.labels[example])]), _NAME)
    answer = int(of.answers[example])
    if answer == NO_ANSWER:
        return f"{own}\nnot a number"
    given = shortened(printable(class_names[answer]), _NAME)
    return f"is {own}\ntaken for {given} {of.probabilities[example, answer]:.0%}"


def save_masks(of: Worst, source: Source, heading: str, path: pathlib.Path) -> None:
    """Draws pictures, each beside its mask and the answer over it; none: there is no file.

    Raises:
      OSError: the file cannot be written.
    """
    if not len(of.records):
        path.unlink(missing_ok=True)  # of an evaluation before
        return
    from matplotlib.figure import Figure  # without pyplot, whose import takes half a second more
    from matplotlib.patches import Patch

    there = np.unique(np.concatenate([of.masks.ravel(), of.answers.ravel()])).tolist()
    names = {n: class_name(source, n) for n in there if n < source.num_classes}
    named = dict(list(names.items())[:_NAMED_MASKS])
    rows = -(-len(of.records) // _PICTURES)
    size = (_CELL * 3 * _PICTURES, (_CELL + 0.3) * rows + 1.0)
    with drawn([heading, *named.values()]) as text, io.BytesIO() as png:
        figure = Figure(figsize=size, layout="constrained")
        figure.suptitle(text(heading), fontsize=11, x=0.01, ha="left")
        axes = figure.subplots(rows, 3 * _PICTURES, squeeze=False)
        for number, each in enumerate(axes.reshape(-1, 3)):
            if number >= len(of.records):
                for one in each:
                    one.axis("off")
                continue
            image, right = of.images[number], of.right[number]
            show(each[0], image, f"{right:.1%} right", GREY)
            show(each[1], overlaid(grey(image), of.masks[number]), "mask", GREY)
            show(each[2], overlaid(grey(image), of.answers[number]), "answer", RED)
        patches = [
            Patch(color=palette()[label] / 255, label=text(name)) for label, name in named.items()
        ]
        if len(names) > len(named):
            patches.append(Patch(color="none", label=f"… {len(names) - len(named)} more classes"))
        if IGNORED in there:
            patches.append(Patch(color=palette()[IGNORED] / 255, label="not labelled"))
        figure.legend(handles=patches, loc="outside lower left", ncols=6, fontsize=7)
        figure.savefig(png, dpi=110)
        write_bytes(path, png.getvalue())
