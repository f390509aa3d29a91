"""The user's own decay, `--decay=python:module:function`: imported, made, called, drawn."""

import importlib
import re
import traceback
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from trainer.plan import curves
from trainer.plan.curves import LearningRatePlan


def own_decay(plan: LearningRatePlan) -> Callable[[Any], tf.Tensor] | None:
    """The user's schedule as a function of the updates since the warmup; None if the plan has none.

    It takes and returns a float64 [], for a schedule may take a single step only.

    Raises:
      ValueError: it cannot be imported, ends with an exception, returns no Keras schedule, or one
        that does not give a single number for a step.
    """
    if not plan.has_own_decay:
        return None
    _, module, function = plan.decay.split(":")
    try:
        make = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"--decay={plan.decay} cannot be imported ({error}); give a module on PYTHONPATH and a "
            "function in it."
        ) from None
    except Exception as error:
        raise ValueError(_fault(plan, error)) from error
    try:
        schedule = make(plan.peak, plan.decay_steps)
    except Exception as error:
        raise ValueError(_fault(plan, error)) from error
    if not isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule):
        raise ValueError(
            f"--decay={plan.decay} returned {type(schedule).__name__}; "
            "it must return a keras.optimizers.schedules.LearningRateSchedule."
        )

    # With AutoGraph, which the step goes without: a schedule may say `if step < 100`.
    @tf.function(input_signature=[tf.TensorSpec([], tf.float64)])
    def rate(step: tf.Tensor) -> tf.Tensor:
        return tf.cast(schedule(step), tf.float64)

    try:
        shape = rate.get_concrete_function().output_shapes
    except Exception as error:
        raise ValueError(_fault(plan, error)) from error
    if shape.as_list() != []:
        raise ValueError(
            f"--decay={plan.decay} gives {shape} numbers a step; it must give a single one."
        )
    return rate


def _fault(plan: LearningRatePlan, error: Exception) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    file, line, said = last.filename, last.lineno, str(error)
    # AutoGraph runs a copy of the code, and tells of the original in its message.
    originals = re.findall(r'File "(.+)", line (\d+)', said)
    if originals:
        (file, line), said = originals[-1], said.strip().splitlines()[-1].partition(": ")[2]
    return (
        f"--decay={plan.decay} ended with {type(error).__name__} ({' '.join(said.split())}) "
        f"in line {line} of {file}; mend it: it is called with (peak, steps), and what it returns "
        "with the step, a tensor."
    )


def drawn_rate(plan: LearningRatePlan, progress: np.ndarray) -> np.ndarray:
    """The planned rate at each progress, float64 [n], of any plan: also one with a user's schedule.

    Raises:
      ValueError: see `own_decay`.
    """
    decay = own_decay(plan)

    def one_by_one(updates: np.ndarray) -> np.ndarray:
        return np.asarray([float(decay(tf.constant(q, tf.float64))) for q in updates])

    return curves.rate(plan, progress, own_decay=one_by_one if decay else None)
