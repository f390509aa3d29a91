"""The loss of a global batch: Σ weight × loss / Σ weight, and every regularizer once."""

import contextlib
from collections.abc import Sequence

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.learning_rate.gradient_noise import GradientNoise
from trainer.plan.class_weights import class_weights
from trainer.plan.settings import Clipping, Communication
from trainer.replicas.all_reduce import Exchange
from trainer.replicas.sums import Sums
from trainer.step import TrainStep
from trainer.tasks.classification import (
    are_correct,
    classification,
    make_losses,
    mixed_losses,
    weigh_classes,
)

EXAMPLES, CLASSES, L2, SMOOTHING = 24, 3, 0.01, 0.1
OF_CLASSES = (1.0, 2.5, 0.25)
UNCLIPPED = Clipping()


def batch(masked: bool = False) -> dict[str, np.ndarray]:
    """Examples of unequal weights, whose sum is below 1; of the masked ones a third counts."""
    random = np.random.default_rng(0)
    weight = random.uniform(0, 0.05, EXAMPLES).astype(np.float32)
    weight[EXAMPLES // 3 :] *= not masked
    return {
        "image": random.normal(size=(EXAMPLES, 4)).astype(np.float32),
        "label": random.integers(0, CLASSES, EXAMPLES),
        "weight": weight,
    }


def make_step(of_classes: Sequence[float] = (), clipping: Clipping = UNCLIPPED) -> TrainStep:
    """A step that can sum and average, but not update, of a model whose kernel is penalized."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((4,))
    dense = keras.layers.Dense(
        CLASSES, use_bias=False, kernel_regularizer=keras.regularizers.L2(L2)
    )
    return TrainStep(
        strategy=tf.distribute.get_strategy(),
        task=classification(CLASSES, SMOOTHING, of_classes),
        model=keras.Model(inputs, dense(inputs)),
        optimizer=None,
        learning_rate=None,
        noise=GradientNoise(EXAMPLES, micro_batches=1, largest_gain=1),
        loss_scale=None,
        averages=None,
        locator=None,
        audit=None,
        draws=lambda batch: contextlib.nullcontext(),
        global_batch=EXAMPLES,
        clipping=clipping,
        xla=False,
        alone=False,
        exchange=Exchange(1, "one", True, True, False, Communication()),
    )


def summed(step: TrainStep, whole: dict[str, np.ndarray], parts: int) -> Sums:
    """The sums over as many micro-batches."""
    pieces = [{name: np.split(a, parts)[n] for name, a in whole.items()} for n in range(parts)]
    batches = [{n: tf.constant(a) for n, a in part.items()} for part in pieces]
    return step.exchange.add_up([lambda b=b: step.forward_backward(b) for b in batches])


def expected(of_classes: Sequence[float], whole: dict[str, np.ndarray]) -> tuple[float, np.ndarray]:
    """The same in float64: the loss, and its gradient by the kernel."""
    keras.utils.set_random_seed(1)
    dense = keras.layers.Dense(CLASSES, use_bias=False)
    dense.build((None, 4))
    kernel = dense.kernel.numpy().astype(np.float64)
    weight = whole["weight"].astype(np.float64) * np.array(of_classes or (1,) * 3)[whole["label"]]
    targets = np.eye(CLASSES)[whole["label"]] * (1 - SMOOTHING) + SMOOTHING / CLASSES
    logits = whole["image"] @ kernel
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    losses = -(targets * np.log(shares)).sum(axis=1)
    loss = np.sum(weight * losses) / weight.sum() + L2 * np.sum(kernel**2)
    by_logits = weight[:, None] * (shares - targets) / weight.sum()
    return loss, whole["image"].T @ by_logits + 2 * L2 * kernel


@pytest.mark.parametrize("parts", [1, 4])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("of_classes", [(), OF_CLASSES])
def test_loss_and_gradient_are_those_of_the_formula_however_the_batch_is_divided(
    parts: int, masked: bool, of_classes: tuple[float, ...]
) -> None:
    whole = batch(masked)
    sums = summed(make_step(of_classes), whole, parts)
    loss, gradient = expected(of_classes, whole)
    assert 0 < float(sums.weight) < 1
    factor = EXAMPLES / float(sums.weight)
    assert float(sums.loss) * factor == pytest.approx(loss, rel=1e-5)
    (piece,) = sums.gradient
    assert piece.numpy().ravel() * factor == pytest.approx(gradient.ravel(), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("of_classes", [OF_CLASSES, (3.0,) * 3, (0.0, 2.5, 0.25)])
@pytest.mark.parametrize("smoothing", [0.0, SMOOTHING])
def test_in_a_mixed_example_each_classs_weight_multiplies_its_own_share(
    of_classes: tuple[float, ...], smoothing: float
) -> None:
    random = np.random.default_rng(2)
    share = np.concatenate([[0.0, 1.0], random.uniform(0, 1, EXAMPLES - 2)])
    whole = batch() | {"label_b": np.roll(batch()["label"], 1), "mix": share.astype(np.float32)}
    logits = random.normal(size=(EXAMPLES, CLASSES)).astype(np.float32)
    log_shares = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    rows, own = np.arange(EXAMPLES), np.float64(whole["weight"])
    # Σ_c w_c · p_c, by the classes' weights and shares of the mixed label.
    weighed = np.zeros((EXAMPLES, CLASSES))
    np.add.at(weighed, (rows, whole["label"]), share)
    np.add.at(weighed, (rows, whole["label_b"]), 1 - share)
    weighed *= of_classes
    of_label = -(log_shares * (1 - smoothing) + log_shares.mean(axis=1, keepdims=True) * smoothing)
    losses = own * (weighed * of_label).sum(axis=1)
    right = own * weighed[rows, logits.argmax(axis=1)]

    found = weigh_classes({name: tf.constant(array) for name, array in whole.items()}, of_classes)
    answer = mixed_losses(make_losses(smoothing), found, tf.constant(logits)) * found["weight"]
    assert answer.numpy() == pytest.approx(losses, rel=1e-5, abs=1e-7)
    assert found["weight"].numpy() == pytest.approx(own * weighed.sum(axis=1), rel=1e-5)
    correct = are_correct(found, tf.constant(logits)) * found["weight"]
    assert correct.numpy() == pytest.approx(right, rel=1e-5, abs=1e-7)


def test_without_class_weights_a_batch_comes_back_as_it_is() -> None:
    mixed = {"label": tf.constant([0]), "mix": tf.constant([0.25]), "weight": tf.constant([2.0])}
    assert weigh_classes(mixed, ()) is mixed


@pytest.mark.parametrize("clipping", [Clipping(), Clipping(norm=1.0), Clipping(adaptive=0.1)])
def test_a_batch_in_which_nothing_weighs_has_gradients_of_0_and_no_loss(clipping: Clipping) -> None:
    whole = batch() | {"weight": np.zeros(EXAMPLES, np.float32)}
    step = make_step(clipping=clipping)
    (gradient,), numbers = step.average_and_clip(summed(step, whole, 2))
    _, square, row = step.known(["accuracy"], numbers)
    assert not gradient.numpy().any() and bool(row["finite"])
    assert np.isnan(row["train/loss"]) and np.isnan(row["train/accuracy"])
    assert float(row["gradient_norm"]) == float(square) == 0
    _, numbers = step.average_and_clip(summed(step, batch(), 2))
    _, _, row = step.known(["accuracy"], numbers)
    assert np.isfinite([float(row["train/loss"]), float(row["train/accuracy"])]).all()


def test_class_weights_by_name_and_number_and_balanced() -> None:
    counts = np.array([6, 0, 2])
    names = ("cat", "dog", "cow")
    assert class_weights("cat=2, 2=0", names, 3, lambda: counts) == (2.0, 1.0, 0.0)
    assert class_weights("", names, 3, lambda: counts) == ()
    balanced = class_weights("balanced", names, 3, lambda: counts)
    assert balanced == pytest.approx((8 / 12, 1.0, 8 / 4))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("dot=1", r"the class 'dot' is unknown \(did you mean dog\?\); give a number from 0 to 2"),
        ("3=1", "or one of cat, dog, cow"),
        ("cat=-1", "'cat=-1' is not of the form CLASS=WEIGHT"),
        (
            "cat=1e300",
            "'cat=1e300' is not of the form CLASS=WEIGHT with a weight of 0, or of 1e-12",
        ),
        ("cat=1e-300", "'cat=1e-300' is not of the form CLASS=WEIGHT"),
        ("cat=nan", "'cat=nan' is not of the form CLASS=WEIGHT"),
        ("cat", "the class '' is unknown"),
        ("cat=1,0=2", "the class '0' is given twice"),
        ("0=0,1=0,2=0", "the weights of all classes are 0"),
    ],
)
def test_wrong_class_weights(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        class_weights(text, ("cat", "dog", "cow"), 3, lambda: np.zeros(3))
