"""The rule of --plateau against PyTorch's, written down here, and against Keras's own callback."""

import math
from collections.abc import Sequence
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from trainer.learning_rate.plateau import judge, parse_plateau

ACCURACY = "eval/accuracy"


def cuts(text: str, values: Sequence[float]) -> list[int]:
    """The evaluations, counted from 0, after which the rate is cut."""
    settings, state, found = parse_plateau(text), {}, []
    for number, value in enumerate(values):
        state, cut = judge(settings, state, value, settings.metric == "eval/loss")
        found += [number] if cut else []
    return found


def pytorch(
    values: Sequence[float], *, higher: bool, patience: int, threshold: float, cooldown: int
) -> list[int]:
    """The same by `ReduceLROnPlateau.step` of torch/optim/lr_scheduler.py, threshold_mode="rel"."""
    best, bad, counter, found = -math.inf if higher else math.inf, 0, 0, []
    for number, current in enumerate(values):
        if current > best * (1 + threshold) if higher else current < best * (1 - threshold):
            best, bad = current, 0
        else:
            bad += 1
        if counter > 0:
            counter -= 1
            bad = 0
        if bad > patience:
            found.append(number)
            counter, bad = cooldown, 0
    return found


def keras_own(values: Sequence[float], patience: int, cooldown: int) -> list[int]:
    """The same by Keras's callback, with a threshold of 0."""
    callback = keras.callbacks.ReduceLROnPlateau(
        "loss", factor=0.5, patience=patience, cooldown=cooldown, min_delta=0.0
    )
    optimizer, found = keras.optimizers.SGD(1.0), []
    callback.set_model(SimpleNamespace(optimizer=optimizer))
    callback.on_train_begin()
    for number, value in enumerate(values):
        before = float(optimizer.learning_rate)
        callback.on_epoch_end(number, {"loss": value})
        found += [number] if float(optimizer.learning_rate) < before else []
    return found


def curve(seed: int) -> list[float]:
    """Values that fall, rest and rise, with ties and small gains, and a few that are not finite."""
    random = np.random.default_rng(seed)
    falling = 1 + np.exp(-np.arange(60) / 15) + 0.05 * random.integers(-2, 3, 60)
    values = np.round(falling, 2)
    values[random.integers(0, 60, 3)] = random.choice([np.nan, np.inf], 3)
    return values.tolist()


@pytest.mark.parametrize("patience", [0, 1, 3])
@pytest.mark.parametrize("cooldown", [0, 1, 4])
@pytest.mark.parametrize("threshold", [0.0, 1e-4, 0.03])
def test_the_rule_is_that_of_pytorch(patience: int, cooldown: int, threshold: float) -> None:
    given = f"patience={patience},cooldown={cooldown},threshold={threshold}"
    rules = {"patience": patience, "cooldown": cooldown, "threshold": threshold}
    some = 0
    for seed in range(20):
        losses = curve(seed)
        found = cuts(f"reduce(0.5,{given})", losses)
        assert found == pytorch(losses, higher=False, **rules)
        accuracies = [1 / loss if math.isfinite(loss) else math.nan for loss in losses]
        rising = cuts(f"reduce(0.5,{given},metric={ACCURACY})", accuracies)
        assert rising == pytorch(accuracies, higher=True, **rules)
        some += len(found)
    assert some > 20


@pytest.mark.parametrize("patience", [0, 1, 3])
@pytest.mark.parametrize("cooldown", [0, 1, 4])
def test_keras_counts_one_evaluation_less_of_both(patience: int, cooldown: int) -> None:
    differ = 0
    for seed in range(3):
        losses = [value for value in curve(seed) if math.isfinite(value)]
        found = cuts(f"reduce(0.5,patience={patience},cooldown={cooldown},threshold=0)", losses)
        assert found == keras_own(losses, patience + 1, cooldown + 1)
        differ += found != keras_own(losses, patience, cooldown)
    assert differ or patience == cooldown == 0


def test_infinite_values_never_become_the_best() -> None:
    for metric, never in (("eval/loss", -math.inf), (ACCURACY, math.inf), (ACCURACY, math.nan)):
        settings, lower = parse_plateau(f"reduce(0.5,metric={metric})"), metric == "eval/loss"
        state, _ = judge(settings, {}, never, lower)
        assert "best" not in state
        state, _ = judge(settings, state, 0.5, lower)
        better = 0.4 if metric == "eval/loss" else 0.6
        state, _ = judge(settings, state, never, lower)
        assert judge(settings, state, better, lower)[0]["bad"] == 0
