"""The estimators of noise and signal are right, whatever the number of micro-batches."""

import numpy as np
import pytest
import tensorflow as tf

from trainer.learning_rate.gradient_noise import GradientNoise

BATCH, DIMENSIONS, NOISE = 64, 50, 3.0
SIGNAL = np.linspace(-1, 1, DIMENSIONS) * 0.3


def estimates(micro_batches: int, steps: int, largest_gain: float) -> tuple[GradientNoise, list]:
    """Feeds gradients of a known mean and variance; returns the estimator and its gains."""
    rng = np.random.default_rng(micro_batches)
    noise, gains = GradientNoise(BATCH, micro_batches, largest_gain), []
    for _ in range(steps):
        examples = SIGNAL + NOISE * rng.standard_normal((BATCH, DIMENSIONS))
        parts = examples.reshape(micro_batches, -1, DIMENSIONS).sum(axis=1) / BATCH
        micro_square, square = np.sum(parts**2), np.sum(parts.sum(axis=0) ** 2)
        noise.update(tf.constant(micro_square, tf.float32), tf.constant(square, tf.float32))
        gains.append(float(noise.gain()))
    return noise, gains


@pytest.mark.parametrize("micro_batches", [2, 4, 8, 64])
def test_the_expected_noise_scale_and_gain_do_not_depend_on_the_micro_batches(
    micro_batches: int,
) -> None:
    noise, gains = estimates(micro_batches, steps=800, largest_gain=16.0)
    variance, square = DIMENSIONS * NOISE**2, float(np.sum(SIGNAL**2))
    per_reference = variance / (BATCH / 16)
    expected = (per_reference + square) / (per_reference / 16 + square)
    assert np.mean(gains[200:]) == pytest.approx(expected, rel=0.1)
    # The running averages are noisy, the scale of two of them more so.
    found_noise, found_signal, weight = noise.averages.numpy()
    assert found_noise / weight == pytest.approx(variance, rel=0.25)
    assert float(noise.noise_scale()) == pytest.approx(found_noise / found_signal, rel=1e-5)


def test_the_gain_stays_within_its_bounds() -> None:
    for signal, noise, wanted in [(1.0, 0.0, 1.0), (0.0, 1.0, 8.0)]:
        estimator = GradientNoise(64, 2, 8.0)
        # Two micro-batches of gradients a and b: alike, or opposite.
        alike = signal > noise
        estimator.update(tf.constant(0.5), tf.constant(1.0 if alike else 1e-9))
        assert float(estimator.gain()) == pytest.approx(wanted, rel=1e-2)


@pytest.mark.parametrize("micro_square", [np.inf, np.nan])
@pytest.mark.parametrize("square", [1.0, np.inf, np.nan])
def test_the_gain_is_1_until_a_step_is_finite_and_then_what_the_finite_ones_say(
    micro_square: float, square: float
) -> None:
    noise, finite_only = GradientNoise(64, 2, 8.0), GradientNoise(64, 2, 8.0)
    assert float(noise.gain()) == 1.0
    overflow = tf.constant(micro_square), tf.constant(square), tf.constant(np.isfinite(square))
    noise.update(*overflow)
    assert float(noise.gain()) == 1.0
    for estimator in (noise, finite_only):
        estimator.update(tf.constant(0.75), tf.constant(1.0))
    noise.update(*overflow)
    assert 1.0 < float(noise.gain()) == float(finite_only.gain()) < 8.0
    assert noise.averages.numpy().tolist() == finite_only.averages.numpy().tolist()


def test_a_single_micro_batch_is_not_measured() -> None:
    assert not GradientNoise(64, 1, 1.0).measured
    assert GradientNoise(64, 2, 1.0).measured
