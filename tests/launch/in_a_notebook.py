"""What a person does in a notebook, in one process: python -m tests.launch.in_a_notebook FOLDER

Prints what came of it as JSON. An interrupt comes in the main thread, between two blocks.
"""

import hashlib
import json
import os
import signal
import sys
import unittest.mock
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from input_pipeline.sources import Source
from launch.notebook import Trained, train
from trainer.actions.control import Control

SETTINGS = {
    "train_for": "12st",
    "global_batch": 16,
    "replicas": 1,
    "device": "cpu",
    "threads": 1,
    "steps_per_loop": 1,
    "log_every": "1st",
    "eval_every": "4st",
    "learning_rate": 0.05,
    "lr_scaling": "none",
    "deterministic": True,
}
INTERRUPTED_AT = 5
RANDOM = np.random.default_rng(0)
X = RANDOM.integers(0, 256, (60, 4, 4), "uint8")
Y = (X.mean((1, 2)) > 128).astype(int)
DATA = (X[:40], Y[:40], X[40:], Y[40:])


def build(spec: Any) -> Any:
    """Keras counts the names of its layers, in every model of a process anew."""
    import keras

    images = keras.Input(spec.shape, dtype=spec.dtype)
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(images))
    x = keras.layers.Dropout(0.2)(keras.layers.Dense(8, "relu")(x))
    return keras.Model(images, keras.layers.Dense(spec.outputs)(x))


def nested() -> Callable[..., Any]:
    def build_here(spec: Any) -> Any:
        return build(spec)

    return build_here


MISTAKES: dict[str, dict[str, Any]] = {
    "lambda": {"model": lambda spec: build(spec)},
    "nested": {"model": nested()},
    "no function": {"model": 3},
    "lengths": {"data": (X[:40], Y[:39], X[40:], Y[40:])},
    "three": {"data": DATA[:3]},
    "named": {"data": {"x_train": X, "y_train": Y, "x_test": X, "y_test": Y}},
    "ragged": {"data": ([[[1, 2], [3]]], [0], X[40:], Y[40:])},
    "floats": {"data": (X[:40] / 255, Y[:40], X[40:] / 255, Y[40:])},
    "unknown": {"lerning_rate": 0.1},
    "value": {"learning_rate": "fast"},
    "negative": {"global_batch": -16},
    "two data": {"dataset": "digits"},
}


def own(split: str, wrong: str, count: int, fails: bool = False, label: int = 0) -> Source:
    """A dataset whose length nobody knows; in the split `wrong` as given, else of ten."""
    faulty = split == wrong

    def examples() -> Iterator[tuple[np.ndarray, int]]:
        for number in range(count if faulty else 10):
            if faulty and fails and number == 7:
                raise OSError("the disk is gone")
            yield X[number, ..., None], label if faulty else number % 2

    def dataset() -> Any:
        import tensorflow as tf

        image = tf.TensorSpec([4, 4, 1], tf.uint8)
        spec = image, tf.TensorSpec([], tf.int64)
        return tf.data.Dataset.from_generator(examples, output_signature=spec)

    return Source(f"mine/{split}", 10, 2, (4, 4, 1), encoded=False, read=None, dataset=dataset)


def shorter(split: str) -> Source:
    return own(split, "train", 9)


def longer(split: str) -> Source:
    return own(split, "train", 12)


def shorter_to_evaluate(split: str) -> Source:
    return own(split, "eval", 9)


def longer_to_evaluate(split: str) -> Source:
    return own(split, "eval", 11)


def failing(split: str) -> Source:
    return own(split, "train", 10, fails=True)


def failing_to_evaluate(split: str) -> Source:
    return own(split, "eval", 10, fails=True)


def wrong_label(split: str) -> Source:
    return own(split, "train", 10, label=2)


FAILURES = (
    shorter,
    longer,
    shorter_to_evaluate,
    longer_to_evaluate,
    failing,
    failing_to_evaluate,
    wrong_label,
)


def failure(data: Callable[[str], Source]) -> str:
    """What is said where the data fail while they are read."""
    try:
        train(model="mlp", data=data, run_dir=data.__name__, **SETTINGS | {"global_batch": 5})
    except RuntimeError as error:
        return str(error)
    return "nothing"


def weights(trained: Trained) -> str:
    """A digest of the trained model's weights."""
    digest = hashlib.blake2b()
    for array in trained.model.get_weights():
        digest.update(array.tobytes())
    return digest.hexdigest()


def interrupt(control: Control, step: int) -> None:
    """In place of `Control.take_up`: Ctrl-C after a step."""
    if step == INTERRUPTED_AT:
        signal.raise_signal(signal.SIGINT)


def mistake(**changed: Any) -> str:
    """What is said of a mistake."""
    arguments = {"model": build, "data": DATA, "run_dir": "wrong"} | changed
    try:
        train(**arguments, **{n: v for n, v in SETTINGS.items() if n not in changed})
    except ValueError as error:
        return str(error)
    return "nothing"


def main() -> None:
    """Trains undisturbed, and interrupted and again, and makes mistakes."""
    os.chdir(sys.argv[1])
    told = {name: mistake(**changed) for name, changed in MISTAKES.items()}
    failed = {data.__name__: failure(data) for data in FAILURES}
    whole = train(model=build, data=DATA, run_dir="whole", **SETTINGS)
    before = signal.getsignal(signal.SIGINT)
    with unittest.mock.patch.object(Control, "take_up", interrupt):
        stopped = train(model=build, data=DATA, run_dir="stopped", **SETTINGS)
    same_handler, steps = (
        signal.getsignal(signal.SIGINT) is before,
        stopped.history("train/loss")[0],
    )
    again = train(model=build, data=DATA, run_dir="stopped", **SETTINGS)
    print(
        json.dumps(
            {
                "mistakes": told,
                "failures": failed,
                "finished": [whole.finished, stopped.finished, again.finished],
                "same handler": same_handler,
                "steps": [whole.history("train/loss")[0], steps, again.history("train/loss")[0]],
                "losses": [whole.history("eval/loss"), again.history("eval/loss")],
                "rows": [row for row in again.rows if "eval/loss" in row],
                "weights": [weights(whole), weights(again)],
                "shape": list(whole.model.predict(X[:2, ..., None], verbose=0).shape),
                "best": float(np.abs(whole.best.get_weights()[0]).sum()),
            }
        )
    )


if __name__ == "__main__":
    main()
