"""Trains from Python, a script or a notebook: `from launch.notebook import train`.

    trained = train(model=build, data=(x_train, y_train, x_test, y_test), run_dir="runs/mine",
                    train_for="5ep", learning_rate=0.05, optimizer="adamw")
    trained.model.predict(x_test)

It is `launch.train` with the same flags, as keyword arguments: the run folder is the same, and goes
on from the command line as well.
"""

import dataclasses
import functools
import importlib
import json
import operator
import pathlib
import signal
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import flags as absl_flags

from input_pipeline.bad_records import BadRecordError
from launch.flags.command import SEE_HELP
from launch.flags.run import define_training_flags
from launch.process import cli
from launch.process.stop import StopRequests
from launch.train import train_command
from trainer.plan.call_syntax import did_you_mean

if TYPE_CHECKING:
    import keras

_ARRAYS = ("x_train", "y_train", "x_test", "y_test")


@dataclasses.dataclass(frozen=True)
class Trained:
    """What a training has come to.

    Attributes:
      folder: the run's.
      finished: whether it came to its end; else it was interrupted, and the same call goes on.
    """

    folder: pathlib.Path
    finished: bool

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows of the log, with their `step`, as metrics.jsonl has them."""
        lines = (self.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]

    def history(self, name: str) -> tuple[list[int], list[float]]:
        """The steps and the values of a column, such as `eval/loss` or `learning_rate`."""
        found = [(row["step"], row[name]) for row in self.rows if row.get(name) is not None]
        return [step for step, _ in found], [value for _, value in found]

    @functools.cached_property
    def model(self) -> "keras.Model":
        """The trained model; with --ema with its averaged weights."""
        return self._load(self.folder)

    @functools.cached_property
    def best(self) -> "keras.Model":
        """The model of the best evaluation."""
        return self._load(self.folder / "best")

    @staticmethod
    def _load(folder: pathlib.Path) -> "keras.Model":
        from trainer.models.saved import read_model

        return read_model(folder / "model.keras")


def train(
    *,
    run_dir: str,
    data: Sequence[np.ndarray] | Callable[..., Any] | None = None,
    model: str | Callable[..., "keras.Model"] | None = None,
    task: str | Callable[..., Any] | None = None,
    **flags: Any,
) -> Trained:
    """Trains, or goes on with the run in the folder, until its end or an interrupt.

    Functions have to stand at the top level of a module or of the notebook.

    Args:
      run_dir: the run's folder.
      data: (x_train, y_train, x_test, y_test), uint8 images and their targets, which are kept in
        the run's folder; or a function that returns a Source for `train` and for `eval`. Left out,
        `dataset` says what to train on.
      model: a name, as --model takes it, or a function that makes one.
      task: likewise.
      flags: any flag of launch.train.

    Raises:
      ValueError: a mistake, as a sentence.
      RuntimeError: the training failed or diverged; what was printed says how.
    """
    folder = pathlib.Path(run_dir)
    flags = {"run_dir": run_dir, "model": model, "task": task, "cluster": "none"} | flags
    try:
        if data is not None and flags.get("dataset") is not None:
            raise ValueError("data and dataset are both given; give one of them.")
        if callable(data):
            flags["dataset"] = data
        elif data is not None:
            flags["dataset"] = f"arrays:{_kept(data, folder)}"
        argv = [_argument(name, value) for name, value in flags.items() if value is not None]
        values = define_training_flags()
        _check_names(flags, values)
        code = _carry_out(argv, values)
    except cli.WrongCommandError as error:
        raise ValueError(str(error).removesuffix(SEE_HELP)) from None
    except (cli.FailedError, BadRecordError) as error:
        raise RuntimeError(str(error)) from None
    if code not in (cli.FINISHED, cli.STOPPED):
        raise RuntimeError(f"the run in {folder} ended with code {code}; see what it has printed.")
    return Trained(folder, finished=code == cli.FINISHED)


def _check_names(given: Iterable[str], values: absl_flags.FlagValues) -> None:
    for name in given:
        if name not in values:
            meant = did_you_mean(name, list(values))
            raise ValueError(
                f"{name} is no flag of launch.train{meant}; launch.train --helpfull lists them."
            )


def _carry_out(argv: Sequence[str], values: absl_flags.FlagValues) -> int:
    """Trains; the first interrupt stops after the step in hand, the second as Python does."""
    stop, before = StopRequests(), signal.getsignal(signal.SIGINT)
    began = time.perf_counter()

    def interrupted(*_: Any) -> None:
        signal.signal(signal.SIGINT, before)
        stop.ask("Ctrl-C")

    if "keras" in sys.modules:  # which counts its names in a process: a run's are the first
        sys.modules["keras"].utils.clear_session()
    try:
        signal.signal(signal.SIGINT, interrupted)
        cli.import_tensorflow(0, charts=True)  # a notebook may go on to draw them
        return train_command(argv, values, stop, began)
    except RuntimeError as error:
        if "initialized" not in str(error):
            raise
        raise ValueError(
            "TensorFlow has begun with other devices or threads than this run takes, and cannot "
            "change them; restart the kernel, and train before anything else of TensorFlow's."
        ) from None
    finally:
        signal.signal(signal.SIGINT, before)


def _argument(name: str, value: Any) -> str:
    if callable(value):
        value = _name_of(name, value)
    return f"--{name}={str(value).lower() if isinstance(value, bool) else value}"


def _name_of(argument: str, function: Callable[..., Any]) -> str:
    """`python:module:function`, by which the function is found again.

    Raises:
      ValueError: it is not.
    """
    module, name = function.__module__, getattr(function, "__qualname__", "")
    try:
        found = operator.attrgetter(name)(importlib.import_module(module))
    except (ImportError, AttributeError):
        found = None
    if found is not function:
        raise ValueError(
            f"{argument}={name or type(function).__name__} is not at the top level of a module or "
            "of the notebook, where a restart would find it; define it there, with def."
        )
    return f"python:{module}:{name}"


def _kept(arrays: Sequence[np.ndarray], folder: pathlib.Path) -> pathlib.Path:
    """The file that holds the arrays, written where it does not yet."""
    wanted = ", ".join(_ARRAYS)
    if isinstance(arrays, str | bytes | Mapping | np.ndarray) or not isinstance(arrays, Sequence):
        raise ValueError(f"data is a {type(arrays).__name__}; give a tuple of {wanted}.")
    if len(arrays) != len(_ARRAYS):
        raise ValueError(f"data has {len(arrays)} arrays; give {wanted}.")
    named = {name: _array(name, each) for name, each in zip(_ARRAYS, arrays, strict=True)}
    path = folder / "data.npz"
    if path.exists():
        with np.load(path) as kept:
            if all(np.array_equal(kept[name], array) for name, array in named.items()):
                return path
    folder.mkdir(parents=True, exist_ok=True)
    beside = folder / "writing-data.npz"
    np.savez(beside, **named)
    beside.replace(path)
    return path


def _array(name: str, given: Any) -> np.ndarray:
    try:
        array = np.asarray(given)
    except ValueError:  # rows of different lengths
        array = np.array(None)
    if array.dtype.kind == "O":
        raise ValueError(f"{name} is no array of numbers; give rows that are equally long.")
    return array
