"""Exports a trained model, and proves it: `python -m launch.export RUN_DIR --format=onnx`."""

import contextlib
import dataclasses
import io
import os
import pathlib
import shutil
import signal
import tempfile
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from absl import flags as absl_flags

from input_pipeline.class_names import names_text
from input_pipeline.images.image_format import HEAD, image_format
from input_pipeline.images.image_header import image_header
from input_pipeline.sources import Source
from launch.flags.command import parse
from launch.flags.group import Group
from launch.flags.parsing import one_of, one_run_folder
from launch.process import cli
from launch.terminal import output
from launch.terminal.table import table, whole
from launch.training.evaluated_data import define_evaluated_data_flags, open_evaluated, seen
from launch.training.trained import (
    Trained,
    check_task,
    define_checkpoint_flag,
    devices_for,
    open_trained,
    plan_for,
    restored_model,
)
from trainer.exported import FILES, answers_of, missing
from trainer.run_folder.run_folder import is_locked

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

_EXAMPLES, _MASKS = 64, 8  # that the answers are compared on
# Of the largest logit, or of 1 where it is less: other kernels add in other orders.
TOLERANCE = 1e-4


@dataclasses.dataclass(frozen=True)
class Compared:
    """How the answers of an exported model compare with the model's.

    Attributes:
      largest: the largest difference of a logit.
      allowed: how large it may be.
      equal: how many answers are the same class.
      examples: how many were compared.
    """

    largest: float
    allowed: float
    equal: int
    examples: int

    @property
    def good(self) -> bool:
        """Whether it is the same model: a NaN is none."""
        return self.largest <= self.allowed

    def __str__(self) -> str:
        return (
            f"{self.equal:,} of {self.examples:,} answers equal, the largest difference of a logit "
            f"{self.largest:.2g} ({self.allowed:.2g} allowed)"
        )


def define_export_flags() -> absl_flags.FlagValues:
    """The flags of this command."""
    values = absl_flags.FlagValues()
    add = Group(values, "export")
    add.text("format", "saved_model", f"One of {', '.join(FILES)}.")
    define_checkpoint_flag(add)
    define_evaluated_data_flags(add)
    add.text("out", "", "A new folder for it.\nDefault: RUN_DIR/export/FORMAT-step-STEP.")
    add.integer("verbosity", 0, 0, "TensorFlow's own messages.\n0: none, 2: everything.")
    return values


def carry_out(argv: Sequence[str], values: absl_flags.FlagValues) -> int:
    """Carries the command out and returns its exit code."""
    with cli.wrong_command():
        run_dir = one_run_folder(parse(values, argv), "launch.export RUN_DIR --format=onnx")
        form = one_of("format", values.format, FILES)
        check_installed(form)
        trained = open_trained(run_dir, values.checkpoint)
        check_task(trained, "launch.export", ("classification", "segmentation"))
        trained = in_float32(trained) if form != "keras" else trained
        with cli.own_code(values.verbosity):
            source, data = open_evaluated(trained, values.dataset, values.data_dir, values.split)
        out = open_out(trained, form, values.out)
    cli.import_tensorflow(values.verbosity)
    writing = pathlib.Path(tempfile.mkdtemp(prefix=".writing-", dir=out.parent))
    interrupt = Interrupt()
    try:
        with cli.wrong_command():
            model = restored_model(trained, plan_for(trained, devices_for(trained, "cpu", 1, 0)))
        resized = bool(trained.command.data.image_size)
        export(model, form, writing / "model", trained, resized)
        interrupt.check()
        compared = compare(model, form, writing / "model", source, data.image_size, resized)
        interrupt.check()
        bad = [f"{name}: {text}" for name, text in compared.items() if not text.good]
        if not bad:
            os.rename(writing / "model", out)
    except RuntimeError as error:
        interrupt.check()
        print(f"error: what was exported as {form} cannot be used: {error}")
        return cli.FAILED
    finally:
        shutil.rmtree(writing, ignore_errors=True)
    if bad:
        print(f"error: what was exported answers otherwise than the model: {'; '.join(bad)}")
        return cli.FAILED
    print(done_text(trained, form, out, compared))
    return cli.FINISHED


class Interrupt:
    """Ctrl-C, which is remembered: its exception can be lost in a converter or a destructor."""

    def __init__(self) -> None:
        self._came = False
        signal.signal(signal.SIGINT, self)

    def __call__(self, *signal_and_frame: object) -> None:
        """Called by the signal."""
        self._came = True
        raise KeyboardInterrupt

    def check(self) -> None:
        """Raises it again, if it came."""
        if self._came:
            raise KeyboardInterrupt


def check_installed(form: str) -> None:
    """Sees that what the format takes is installed.

    Raises:
      ValueError: it is not.
    """
    lacking = missing(form)
    if lacking:
        raise ValueError(
            f"--format={form} takes {' and '.join(lacking)}, which is not installed; install it, "
            f"pip install 'lockstep[{form}]', or use {', '.join(n for n in FILES if n != form)}."
        )


def in_float32(trained: Trained) -> Trained:
    """The same model with layers that compute in float32, as its variables are."""
    settings = trained.command.settings
    devices = dataclasses.replace(settings.devices, precision="float32")
    command = dataclasses.replace(
        trained.command, settings=dataclasses.replace(settings, devices=devices)
    )
    return dataclasses.replace(trained, command=command)


def open_out(trained: Trained, form: str, given: str) -> pathlib.Path:
    """The path of the new folder, whose parent is there.

    Raises:
      ValueError: something is in its place, or the run is training.
      OSError: it cannot be made.
    """
    out = pathlib.Path(given or trained.folder / f"export/{form}-step-{trained.step}")
    if os.path.lexists(out):
        raise ValueError(f"{out} is there already; remove it, or give a new folder, --out=DIR.")
    if not given and is_locked(trained.folder):
        raise ValueError(f"{trained.folder} is training; give a folder for it, --out=DIR.")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out.parent).close()
    except OSError as error:
        raise OSError(
            f"{out} cannot be made ({error.strerror}); give another folder, --out=DIR."
        ) from None
    return out


def export(
    model: "keras.Model", form: str, folder: pathlib.Path, trained: Trained, resized: bool
) -> None:
    """Writes the model.

    Raises:
      RuntimeError: it cannot be written in this format.
    """
    from input_pipeline.images.encoded import decode_encoded
    from trainer.export_model import export_model

    shape = trained.facts.image_shape

    def decode(file: "tf.Tensor") -> "tf.Tensor":
        return decode_encoded(file, shape, resized)

    # A mask is of a picture as it was given: whoever asks resizes both.
    of_files = decode if trained.facts.targets == "class" else None

    names = trained.class_names()
    try:
        with (
            output.stderr_held_aside(),
            contextlib.redirect_stdout(io.StringIO()),
            warnings.catch_warnings(action="ignore"),
        ):
            export_model(model, form, folder, names, names_text(names), of_files)
    except OSError:
        raise
    except Exception as error:  # a converter's own
        raise RuntimeError(str(error).strip().split("\n")[0] or type(error).__name__) from error


def compare(
    model: "keras.Model",
    form: str,
    folder: pathlib.Path,
    source: Source,
    image_size: int,
    resized: bool,
) -> dict[str, Compared]:
    """Compares the answers of what was exported, in its own interpreter, with the model's.

    The examples are evenly spread over the source. A SavedModel's second signature is given their
    files, if it decodes such.

    Raises:
      RuntimeError: it cannot be loaded, or gives no answers.
    """
    masked = source.targets == "masks"
    count = _MASKS if masked else _EXAMPLES
    records = np.unique(np.linspace(0, source.length - 1, count).astype(np.int64))
    batch = seen(source, records, image_size)
    images, good = batch["image"], batch["weight"] > 0
    good = good if good.any() else np.ones(len(records), bool)
    wanted = np.asarray(model(images[good], training=False), np.float32)
    usable, files = np.zeros(int(good.sum()), bool), []
    if form == "saved_model" and source.encoded and not masked:
        contents = source.read(records[good])[0]
        usable = np.array([decodable(file, source, resized) for file in contents], bool)
        files = [bytes(file) for file in contents[usable]]
    own, from_files = answers_of(form, folder / FILES[form], images[good], files)
    found = {form: compared(wanted, own)}
    if from_files is not None:
        found["from files"] = compared(wanted[usable], from_files)
    return found


def decodable(file: bytes, source: Source, resized: bool) -> bool:
    """Whether the graph decodes this file as training does, see `input_pipeline.images.encoded`."""
    header = image_header(file)
    kind = image_format(bytes(file[:HEAD]))
    if header is None or kind not in ("JPEG", "PNG", "WEBP") or header.inks:
        return False
    if kind == "WEBP" and (header.alpha or header.moving):
        return False
    turned = kind != "JPEG" and header.orientation != 1
    size = (header.height, header.width)
    return not turned and (resized or size == source.image_shape[:2])


def compared(wanted: np.ndarray, found: np.ndarray) -> Compared:
    """Compares logits, float32 [n, …, classes]; a mask is equal where each pixel's class is."""
    if found.shape != wanted.shape:
        raise RuntimeError(f"it gives {found.shape} in place of {wanted.shape}")
    largest = float(np.abs(found.astype(np.float64) - wanted).max())
    allowed = TOLERANCE * max(1.0, float(np.abs(wanted).max()))
    same = found.argmax(axis=-1) == wanted.argmax(axis=-1)
    equal = int(same.reshape(len(same), -1).all(axis=1).sum())
    return Compared(largest, allowed, equal, len(wanted))


def done_text(trained: Trained, form: str, out: pathlib.Path, compared: dict[str, Compared]) -> str:
    """What was written, and how it compares."""
    rows = [("model", f"{trained.what()} of {whole(trained.folder)}")]
    rows += [("", note) for note in trained.notes]
    rows += [(name, str(one)) for name, one in compared.items()]
    rows.append(("written", f"{whole(out / FILES[form])}, and labels.txt"))
    return table(rows)


main = cli.entry_point("launch.export RUN_DIR --format=onnx", define_export_flags, carry_out)

if __name__ == "__main__":
    cli.exit_with(main)
