"""An evaluation counts every example exactly once, whatever the batch and the replica count."""

import functools
import itertools
import operator
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import tensorflow as tf
from helpers import Run, evaluate_in_keras, train, worst_difference

from trainer.evaluation import evaluate_in_pieces

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
    first, *others = stories.values()
    (expected,) = first.rows("eval/")
    for run in others:
        difference, name = worst_difference(
            first.variables(1), {**run.variables(1), **of_the_training_batch(first)}
        )
        assert difference == 0, name
        (row,) = run.rows("eval/")
        assert row["eval/accuracy"] == expected["eval/accuracy"]
        assert row["eval/loss"] == pytest.approx(expected["eval/loss"], rel=1e-6)


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


def test_a_pass_is_left_before_the_next_piece() -> None:
    pieces: list[int] = []
    answers = iter([True, False])
    assert evaluate_in_pieces(adder(pieces), iter([1.0] * 9), 9, lambda: next(answers)) is None
    assert pieces == [1]
