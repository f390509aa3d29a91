"""An evaluation counts every example exactly once, whatever the batch and the replica count."""

import dataclasses
import functools
import itertools
import json
import math
import operator
import pathlib
from collections.abc import Callable, Iterator

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import Run, call, evaluate_in_keras, train, worst_difference

from launch.flags.command import read_command
from launch.training.job import plan_command
from trainer.actions.evaluate import Evaluate
from trainer.evaluation import Evaluation, evaluate_in_pieces
from trainer.files.storage import Storage
from trainer.learning_rate.plateau import parse_plateau
from trainer.run_folder.history import History
from trainer.run_folder.journal import Journal
from trainer.run_folder.metrics_writer import MetricsWriter
from trainer.tasks.classification import ACCURACY, classification

EXAMPLES = 360
# With a learning rate of 0 all of them evaluate the same weights. None of these batches divides the
# 360 images; of the last, three replicas take all, and the fourth has nothing.
BATCHES = {"1": 100, "2": 96, "4": 600}


COMMON = "--device=cpu --model=mlp --train_for=1st --warmup=0 --learning_rate=0 --seed=3"
STORIES = {
    replicas: functools.partial(
        train, name="run", command=f"{COMMON} --replicas={replicas} --global_batch={batch}"
    )
    for replicas, batch in BATCHES.items()
}

STORIES["averages"] = functools.partial(
    train,
    name="run",
    command="--device=cpu --model=cnn --train_for=4st --ema=0.5 --replicas=2 --global_batch=64",
)


@pytest.mark.parametrize("replicas", BATCHES)
def test_loss_and_accuracy_are_those_of_plain_keras_over_all_images(
    stories: dict[str, Run], replicas: str
) -> None:
    run = stories[replicas]
    loss, correct = evaluate_in_keras(run.folder / "model.keras")
    (row,) = run.rows("eval/")
    assert 0 < correct < EXAMPLES
    assert row["eval/accuracy"] * EXAMPLES == pytest.approx(correct, abs=1e-9)
    assert row["eval/loss"] == pytest.approx(loss, rel=1e-5)


def test_batch_and_replica_count_do_not_matter(stories: dict[str, Run]) -> None:
    first, *others = (stories[replicas] for replicas in BATCHES)
    (expected,) = first.rows("eval/")
    for run in others:
        difference, name = worst_difference(
            first.variables(1), {**run.variables(1), **of_the_training_batch(first)}
        )
        assert difference == 0, name
        (row,) = run.rows("eval/")
        assert row["eval/accuracy"] == expected["eval/accuracy"]
        assert row["eval/loss"] == pytest.approx(expected["eval/loss"], rel=1e-6)


def test_averages_and_weights_have_the_bits_of_any_number_of_replicas(
    stories: dict[str, Run], tmp_path: pathlib.Path
) -> None:
    """Two passes over a batch in one graph would be rewritten by what they have in common."""
    run, json_file = stories["averages"], tmp_path / "found.json"
    flags = f"{run.folder} --replicas=3 --out=none --json={json_file}"
    assert call(flags, tmp_path, module="launch.evaluate").code == 0
    found, (logged,) = json.loads(json_file.read_text()), run.rows("eval/")
    names = [f"eval/{name}{of}" for name in ("loss", "accuracy") for of in ("", "_raw")]
    assert [found[name] for name in names] == [logged[name] for name in names]
    assert len({logged[name] for name in names}) >= 3


def of_the_training_batch(run: Run) -> dict[str, object]:
    """The momenta and the gradient-noise averages: of the batch, even where nothing is learned."""
    prefixes = ("optimizer/", "learning_rate/gradient_noise")
    return {n: v for n, v in run.variables(1).items() if n.startswith(prefixes)}


@pytest.mark.parametrize("replicas", ["1", "2", "4"])
def test_a_trained_model_with_batch_normalization_is_evaluated_exactly(
    sgd_runs: dict[str, Run], replicas: str
) -> None:
    run = sgd_runs[replicas]
    loss, correct = evaluate_in_keras(run.folder / "model.keras")
    (row,) = run.rows("eval/")
    assert row["eval/accuracy"] * EXAMPLES == pytest.approx(correct, abs=1e-9)
    assert row["eval/loss"] == pytest.approx(loss, rel=1e-5)


def adder(pieces: list[int]) -> Callable[..., tf.Tensor]:
    """Adds batch by batch, as the device does, and keeps how many each call was given."""

    def evaluate(
        iterator: Iterator[float], batches: tf.Tensor, so_far: tf.Tensor | None
    ) -> tf.Tensor:
        pieces.append(int(batches))
        total = tf.zeros([1, 3], tf.float64) if so_far is None else so_far
        for _ in range(int(batches)):
            total += tf.constant([[next(iterator), 1.0, 2.0]], tf.float64)
        return total

    return evaluate


def test_pieces_add_up_to_the_bits_of_the_whole() -> None:
    values, pieces = np.random.default_rng(0).normal(size=50).tolist(), []
    rows = evaluate_in_pieces(adder(pieces), iter(values), len(values), lambda: True)
    # Rounded anew at every addition, as in one piece.
    assert rows.tolist() == [[functools.reduce(operator.add, values), 50.0, 100.0]]
    assert (sum(pieces), pieces[0]) == (50, 1)
    assert all(later <= 2 * before for before, later in itertools.pairwise(pieces))


def test_all_processes_take_the_pieces_that_are_agreed_on() -> None:
    values, pieces, asked = [1.0] * 9, [], []

    def agreed(done: int, batches: int) -> int:
        asked.append((done, bool(batches)))
        return {0: 4, 4: 5}.get(done, 0)

    rows = evaluate_in_pieces(adder(pieces), iter(values), 9, lambda: True, agreed)
    assert rows.tolist() == [[9.0, 9.0, 18.0]] and pieces == [4, 5]
    # One that is to stop says so, and all leave where the others do not agree to go on.
    assert evaluate_in_pieces(adder([]), iter(values), 9, lambda: False, agreed) is not None
    assert asked == [(0, True), (4, True), (0, False), (4, False)]
    left = evaluate_in_pieces(adder([]), iter(values), 9, lambda: True, lambda done, n: 0)
    assert left is None


def test_a_pass_is_left_before_the_next_piece() -> None:
    pieces: list[int] = []
    answers = iter([True, False])
    assert evaluate_in_pieces(adder(pieces), iter([1.0] * 9), 9, lambda: next(answers)) is None
    assert pieces == [1]


ANSWERS = {
    "right": ([1.0, 0.0, 0.0], 0),
    "wrong": ([0.0, 1.0, 0.0], 2),
    "nan": ([0.0, math.nan, 0.0], 0),
    "inf": ([math.inf, 0.0, 0.0], 0),
}


class Answers:
    """What `Evaluate` reads of a run: the model's answer to an image is the image itself."""

    averages = None

    def __init__(self) -> None:
        inputs = keras.Input((3,))
        self.model = keras.Model(inputs, keras.layers.Activation("linear")(inputs))
        self.task = classification(3)
        self.evaluate = Evaluation(tf.distribute.get_strategy(), self.model, self.task)
        self.learning_rate = self
        self.scale = tf.Variable(1.0)


class Evaluations:
    """A run's evaluations, each of the answers named, in batches of two, and what came of them."""

    def __init__(self, folder: pathlib.Path) -> None:
        plan, _, _ = plan_command(read_command(["--device=cpu", "--dataset=digits"]))
        self.facts = dataclasses.replace(plan.dataset, eval_examples=4)
        self.plan = dataclasses.replace(plan, dataset=self.facts, eval_batch=2)
        self.run, self.history, self.said = Answers(), History(), []
        self.metrics = MetricsWriter(folder, 0)
        self.folder, self.step = folder, 0

    def __call__(self, *names: str, weights: tuple[float, ...] = (1.0,) * 4) -> dict[str, float]:
        answers, labels = zip(*(ANSWERS[name] for name in names), strict=True)
        batch = {
            "image": np.float32(answers),
            "label": np.array(labels),
            "weight": np.float32(weights),
        }
        self.step += 1
        Evaluate(
            self.run,
            self.plan,
            self.history,
            Journal(self.metrics, self.plan, self.history, self.said.append),
            tf.data.Dataset.from_tensor_slices(batch).batch(2),
            self.folder / "best",
            "",
            parse_plateau("reduce(0.5,patience=1)"),
            Storage(self.said.append),
            lambda: True,
        ).evaluate(self.step)
        self.metrics.flush()
        lines = (self.folder / "metrics.jsonl").read_text().splitlines()
        return [row for row in map(json.loads, lines) if "eval/loss" in row][-1]


@pytest.fixture(name="evaluations")
def some_evaluations(tmp_path: pathlib.Path) -> Evaluations:
    return Evaluations(tmp_path)


def test_what_weighs_nothing_adds_nothing_and_a_nan_is_no_right_answer(
    evaluations: Evaluations,
) -> None:
    clean = evaluations("right", "wrong", "right", "right")
    for name in ("nan", "inf"):
        masked = evaluations("right", "wrong", "right", name, weights=(1.5, 1.5, 1.5, 0))
        assert masked["eval/accuracy"] == pytest.approx(2 / 3)
        shares = math.exp(1) + 2
        losses = [math.log(shares) - 1, math.log(shares), math.log(shares) - 1]
        assert masked["eval/loss"] == pytest.approx(sum(losses) / 3)
    poisoned = evaluations("right", "nan", "right", "right")
    assert (poisoned["eval/accuracy"], poisoned["eval/loss"]) == (0.75, None)
    assert clean["eval/accuracy"] == 0.75


@pytest.mark.parametrize("first", ["nan", "inf"])
def test_a_first_evaluation_that_is_not_finite_is_forgotten_by_all(
    evaluations: Evaluations, first: str
) -> None:
    history, best = evaluations.history, evaluations.folder / "best" / "metrics.json"
    evaluations("right", "right", "right", first)
    assert ACCURACY.score(history.evaluation) is history.best is None and not best.exists()
    assert history.plateau == {"bad": 1, "waiting": 0}
    evaluations("right", "wrong", "wrong", "wrong")
    assert (history.best, history.best_step) == (0.25, 2)
    evaluations("right", "right", "right", first)
    evaluations("right", "right", "wrong", "wrong")
    assert (history.best, history.best_step) == (0.5, 4)
    assert json.loads(best.read_text())["eval/accuracy"] == 0.5
    # Of what a checkpoint keeps, all is JSON.
    json.dumps(history.to_json(), allow_nan=False)
    assert evaluations.run.scale.numpy() == 1
    # And one that an older version was poisoned by recovers.
    history.best, history.plateau = math.nan, {"best": math.nan, "bad": 0, "waiting": 0}
    evaluations("right", "wrong", "wrong", "wrong")
    assert (history.best, history.best_step) == (0.25, 5) and history.plateau["best"] < 2


def test_weights_that_are_all_0_are_said_and_judge_nothing(evaluations: Evaluations) -> None:
    evaluations("right", "right", "wrong", "wrong")
    before = dict(evaluations.history.plateau)
    for _ in range(5):
        row = evaluations("right", "right", "right", "right", weights=(0.0,) * 4)
        assert row["eval/loss"] is row["eval/accuracy"] is None
    assert evaluations.said[-1].endswith(
        "nothing was evaluated: the weights of all 4 evaluation examples are 0"
    )
    assert (evaluations.history.best, evaluations.history.best_step) == (0.5, 1)
    assert evaluations.history.plateau == before and evaluations.run.scale.numpy() == 1
