"""The loss scale doubles after 2,000 finite steps in a row, halves at each other, from 1 up."""

import tensorflow as tf

from trainer.optimizer.loss_scale import GROWTH_STEPS, LEAST, MOST, START, LossScale


def after(scale: LossScale, finite: bool, times: int = 1) -> tuple[float, int]:
    update = tf.function(scale.update)
    for _ in range(times):
        update(tf.constant(finite))
    return float(scale.scale), int(scale.finite_steps)


def test_it_grows_after_finite_steps_in_a_row_and_shrinks_at_once() -> None:
    scale = LossScale(tf.distribute.get_strategy())
    assert (float(scale.scale), START) == (2.0**15, 2.0**15)
    assert after(scale, True, GROWTH_STEPS - 1) == (2.0**15, 1999)
    assert after(scale, False) == (2.0**14, 0)
    assert after(scale, True, GROWTH_STEPS - 1) == (2.0**14, 1999)
    assert after(scale, True) == (2.0**15, 0)


def test_it_stays_between_its_least_and_its_most() -> None:
    scale = LossScale(tf.distribute.get_strategy())
    scale.scale.assign(LEAST)
    assert after(scale, False) == (LEAST, 0)
    scale.scale.assign(MOST)
    scale.finite_steps.assign(GROWTH_STEPS - 1)
    assert after(scale, True) == (MOST, 0)
    assert tf.math.is_finite(tf.constant(MOST)) and tf.constant(1.0) / tf.constant(MOST) > 0
