"""Answers for pictures: `python -m launch.predict RUN_DIR PICTURES`, PICTURES files and folders."""

import contextlib
import dataclasses
import os
import pathlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import tqdm
from absl import flags as absl_flags

from input_pipeline.bad_records import Faults
from input_pipeline.class_names import CLASSES, read_names
from input_pipeline.images.listed_files import image_paths, source_of
from input_pipeline.layout import Layout
from input_pipeline.sources import Source
from input_pipeline.targets import IGNORED
from launch.flags.command import parse
from launch.flags.group import Group
from launch.flags.parsing import check_file
from launch.process import cli
from launch.terminal import output
from launch.terminal.csv_text import csv_text
from launch.terminal.drawn_text import printable
from launch.terminal.image_grid import shortened
from launch.training.predicted_masks import SHARES, places, predicted, write_shares
from launch.training.trained import (
    MODEL,
    Trained,
    check_task,
    command_in,
    define_checkpoint_flag,
    devices_for,
    open_trained,
    plan_for,
    restored_model,
)
from trainer.files.whole_files import read_file, write_text
from trainer.tasks.classification_report import softmax

if TYPE_CHECKING:
    import keras

# Outputs, float32 [n, …], of pictures, and which of these are good, bool [n]: batch by batch.
Answers = Iterable[tuple[np.ndarray, np.ndarray]]
_BATCH = 32
_PATH, _NAME = 36, 30  # columns
SKIPPED = 1  # exit code: pictures were left out
_EXAMPLE = "python -m launch.predict RUN_DIR PICTURE.jpg"


@dataclasses.dataclass(frozen=True)
class Opened:
    """A model and how its pictures are made.

    Attributes:
      trained: of a run; None of a `.keras` file alone.
      path: of the file.
      class_names: by label, where they are known.
      resized: whether the middle of a picture is cut out and resized, as in the run's evaluation.
    """

    trained: Trained | None
    path: pathlib.Path
    class_names: tuple[str, ...]
    resized: bool
    task: str = "classification"


def define_predict_flags() -> absl_flags.FlagValues:
    """The flags of this command."""
    values = absl_flags.FlagValues()
    add = Group(values, "predict")
    define_checkpoint_flag(add)
    add.integer("top", 3, 1, "The likeliest classes to tell of each picture.")
    add.text(
        "out",
        "",
        "A CSV file to write; of masks a folder.\n"
        "Default: a table on the terminal, and no masks are written.",
    )
    add.integer("verbosity", 0, 0, "TensorFlow's own messages.\n0: none, 2: everything.")
    return values


def carry_out(argv: Sequence[str], values: absl_flags.FlagValues) -> int:
    """Carries the command out and returns its exit code."""
    with cli.wrong_command():
        model_path, *pictures = parse(values, argv) or [""]
        if not model_path or not pictures:
            raise ValueError(f"give a run's folder or a model and pictures: {_EXAMPLE}.")
        opened = open_model(pathlib.Path(model_path), values.checkpoint)
        paths = image_paths(given_paths(pictures))
        if not paths:
            raise ValueError("no picture is named in the input; give a path a line.")
        if opened.task != "segmentation":
            check_file("out", values.out, begins=b"path,")
    cli.import_tensorflow(values.verbosity)
    with cli.wrong_command():
        model = load(opened)
        opened = with_task(opened, model)
        shape, names = image_shape(opened, model), names_of(opened, model)
        masked = opened.task == "segmentation"
        masks = places(paths, pathlib.Path(values.out)) if masked and values.out else {}
    for note in opened.trained.notes if opened.trained else ():
        print(f"note: {cli.presentable(note)}", file=sys.stderr)
    source = source_of(paths, shape, opened.resized, whole=masked)
    faults = Faults(source, source.length, shown=source.length)
    answered = answers(model, source, shape, opened.resized, faults)
    # On what is damaged TensorFlow's decoders have words of their own.
    aside = output.stderr_held_aside() if not values.verbosity else contextlib.nullcontext()
    with cli.wrong_command(), aside:
        if masked:
            lines = tell_masks(answered, paths, names, masks, values)
        else:
            lines = tell(opened.task, answered, paths, names, values)
    print("\n".join(lines), flush=True)
    for fault in faults.shown:
        print(f"left out: {cli.presentable(fault)}", file=sys.stderr)
    return SKIPPED if faults.count else cli.FINISHED


def tell(
    task: str,
    answered: Answers,
    paths: Sequence[str],
    names: Sequence[str],
    values: absl_flags.FlagValues,
) -> Iterable[str]:
    """What to print of classes, labels or values; a table goes into the file asked for.

    Raises:
      OSError: it cannot be written.
    """
    logits, good = map(np.concatenate, zip(*answered, strict=True))
    told, ordered = _TELLS[task](logits), task == "regression"
    top = len(names) if ordered else values.top
    rows = likeliest(paths, told, good, names, top, ordered)
    if not values.out:
        return table_lines(rows, ".6g" if ordered else ".2%")
    text = table_text(rows, min(top, len(names)), "value" if ordered else "probability")
    write_text(pathlib.Path(values.out), text)
    return [f"{len(rows):,} picture{'s' * (len(rows) != 1)}: {values.out}"]


def tell_masks(
    answered: Answers,
    paths: Sequence[str],
    names: Sequence[str],
    masks: Mapping[str, pathlib.Path],
    values: absl_flags.FlagValues,
) -> Iterable[str]:
    """What to print of masks, the share of each class; they go into the folder asked for.

    Raises:
      OSError: they cannot be written.
    """
    found, number = [], 0
    if values.out:  # of a prediction before: the list is the last to be written
        (pathlib.Path(values.out) / SHARES).unlink(missing_ok=True)
    for outputs, good in answered:
        told = outputs.argmax(axis=-1).astype(np.uint8)
        told[np.isnan(outputs).any(axis=-1)] = IGNORED
        for mask, usable in zip(told, good, strict=True):
            path, number = paths[number], number + 1
            if usable:
                found.append(predicted(path, mask, len(names), masks.get(path)))
    if values.out:
        write_shares(found, names, pathlib.Path(values.out))
        return [f"{len(found):,} masks, and {SHARES}: {values.out}"]
    of = [row.path for row in found]
    each = np.array([row.shares for row in found]).reshape(-1, len(names))
    return table_lines(likeliest(of, each, np.ones(len(of), bool), names, values.top))


def given_paths(given: Sequence[str]) -> Iterable[str]:
    """The paths given; in place of a `-`, those that stand in the input, one a line."""
    for path in given:
        if path == "-":
            if sys.stdin is None:
                raise ValueError("there is no input to read paths from; give them as arguments.")
            lines = [os.fsdecode(line) for line in sys.stdin.buffer.read().split(b"\n")]
            yield from filter(None, (line.rstrip("\r") for line in lines))
        else:
            yield path


def open_model(path: pathlib.Path, checkpoint: str) -> Opened:
    """Finds the model: of a run's folder, or a `.keras` file.

    Of a file in a run's folder the run's flags tell how its pictures are made; with any other, a
    picture of another size than the model's is resized as a whole.

    Raises:
      ValueError: there is none.
      OSError: it cannot be read.
    """
    if path.suffix != ".keras":
        trained = open_trained(path, checkpoint)
        task = check_task(trained, "launch.predict", (*_TELLS, "segmentation"))
        resized = bool(trained.command.data.image_size)
        return Opened(trained, trained.weights, trained.class_names(), resized, task)
    if not path.is_file():
        raise ValueError(f"{path} does not exist; give a run's folder, or a {MODEL}.")
    lists = [path.parent / name for name in (CLASSES, "labels.txt")]  # that of an export
    beside = next((file for file in lists if file.exists()), None)
    names = read_names(read_file(beside).decode("utf-8", "replace")) if beside else ()
    for folder in path.absolute().parents[:3]:  # an export lies two below its run's
        if (folder / "flags.txt").exists():
            return Opened(None, path, names, bool(command_in(folder).data.image_size))
    print(
        f"note: no run's flags.txt is near {cli.presentable(str(path))}: pictures of another size "
        "than the model's are resized as a whole",
        file=sys.stderr,
    )
    return Opened(None, path, names, False)


def load(opened: Opened) -> "keras.Model":
    """The model with its weights.

    Raises:
      ValueError: it cannot be read.
    """
    from trainer.models.saved import read_model

    if opened.trained is not None:
        plan = plan_for(opened.trained, devices_for(opened.trained, "cpu", 1, 0))
        return restored_model(opened.trained, plan)
    try:
        return read_model(opened.path)
    except Exception as error:  # zipfile's, h5py's and Keras's own
        why = str(error).strip().split("\n")[0].rstrip(".") or type(error).__name__
        raise ValueError(f"{opened.path} cannot be loaded ({why}); give another.") from error


def with_task(opened: Opened, model: "keras.Model") -> Opened:
    """The same; of a file alone its model's outputs tell whether masks are told."""
    outputs = getattr(model, "outputs", None) or []
    masked = opened.trained is None and len(outputs) == 1 and len(outputs[0].shape) == 4
    return dataclasses.replace(opened, task="segmentation") if masked else opened


def image_shape(opened: Opened, model: "keras.Model") -> tuple[int, int, int]:
    """The (height, width, channels) of the images that a model takes.

    Raises:
      ValueError: it takes something else.
    """
    if opened.trained is not None:
        return opened.trained.facts.image_shape
    shapes, path = [tuple(tensor.shape[1:]) for tensor in model.inputs], opened.path
    if len(shapes) != 1 or len(shapes[0]) != 3 or None in shapes[0] or shapes[0][2] not in (1, 3):
        raise ValueError(f"the model {path} takes {shapes}, and not one picture; give another.")
    return shapes[0]


def names_of(opened: Opened, model: "keras.Model") -> tuple[str, ...]:
    """The classes' names, or numbers, as many as the model tells.

    Raises:
      ValueError: there are others.
    """
    if opened.trained is not None:
        return opened.class_names
    count = model.outputs[0].shape[-1]
    names = opened.class_names or tuple(map(str, range(count)))
    if len(names) != count:
        raise ValueError(
            f"{opened.path} gives {count:,} numbers and {CLASSES} beside it has {len(names):,} "
            f"names; put the {CLASSES} there that belongs to it."
        )
    return names


def answers(
    model: "keras.Model",
    source: Source,
    shape: tuple[int, int, int],
    resized: bool,
    faults: Faults,
) -> Answers:
    """The model's outputs, float32 [n, …], and which pictures are good, bool [n]: by batches."""
    import tensorflow as tf

    from input_pipeline.streams import evaluation_stream

    layout = Layout(min(_BATCH, source.length))
    size = shape[0] if resized else 0
    stream = evaluation_stream(source, layout=layout, image_size=size, faults=faults)
    answer = tf.function(lambda image: model(image, training=False), autograph=False)
    left = source.length
    with tqdm.tqdm(
        total=source.length, unit=" pictures", leave=False, delay=1, disable=None
    ) as bar:
        for batch in stream:
            outputs = answer(batch["image"]).numpy().astype(np.float32)
            yield outputs[:left], (batch["weight"].numpy() > 0)[:left]
            left -= layout.global_batch
            bar.update(layout.global_batch)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """The probability of each label, float64, of logits [n, labels]."""
    return 0.5 * (1 + np.tanh(0.5 * logits.astype(np.float64)))


# By task, what is told of what the model gives.
_TELLS = {"classification": softmax, "multi_label": sigmoid, "regression": np.asarray}


@dataclasses.dataclass(frozen=True)
class Row:
    """A picture, and its likeliest classes with their probabilities; or its values by name."""

    path: str
    likeliest: tuple[tuple[str, float], ...]


def likeliest(
    paths: Sequence[str],
    probabilities: np.ndarray,
    good: np.ndarray,
    names: Sequence[str],
    top: int,
    ordered: bool = False,
) -> list[Row]:
    """The `top` likeliest classes of each good picture; of equals the lower label comes first.

    With `ordered` they come as they are: values are not one likelier than another.
    """
    rows = []
    for number in np.flatnonzero(good).tolist():
        row = probabilities[number]
        order = (range(len(row)) if ordered else np.argsort(-row, kind="stable").tolist())[:top]
        pairs = tuple((names[label], float(probabilities[number, label])) for label in order)
        rows.append(Row(paths[number], pairs))
    return rows


def table_lines(rows: Sequence[Row], form: str = ".2%") -> Iterable[str]:
    """A table within 80 columns, a line for each class."""
    for row in rows:
        path = printable(row.path)
        path = path if len(path) <= _PATH else f"…{path[1 - _PATH :]}"
        for name, probability in row.likeliest:
            shown = shortened(printable(name), _NAME)
            yield f"{path:{_PATH}}  {shown:{_NAME}}  {format(probability, form):>8}"
            path = ""


def table_text(rows: Sequence[Row], top: int, what: str = "probability") -> str:
    """A table with a row for each picture: its path, then class and probability, by turns."""
    columns = [f"{name}_{place}" for place in range(1, top + 1) for name in ("class", what)]
    lines: list[Sequence[str]] = [["path", *columns]]
    for row in rows:
        pairs = ((name, f"{probability:.6g}") for name, probability in row.likeliest)
        lines.append([row.path, *(cell for pair in pairs for cell in pair)])
    return csv_text(lines)


main = cli.entry_point("launch.predict RUN_DIR PICTURES", define_predict_flags, carry_out)

if __name__ == "__main__":
    cli.exit_with(main)
