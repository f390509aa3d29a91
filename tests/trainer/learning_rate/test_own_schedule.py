"""A schedule of the user's own may use Python's `if`, and its faults are sentences."""

import pathlib

import pytest
import tensorflow as tf

from trainer.learning_rate.own_schedule import drawn_rate, own_decay
from trainer.plan.curves import LearningRatePlan

PROGRAM = """
import keras

class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    def __init__(self, rate):
        self.rate = rate
    def __call__(self, step):
        return self.rate(step)

def halves(step):
    if step < 3:
        return 0.5
    return 0.25

def raises(step):
    raise RuntimeError("out of luck")

def with_if(peak, steps): return Schedule(halves)
def broken(peak, steps): return Schedule(raises)
def eager(peak, steps): return Schedule(lambda step: 0.1 if step.numpy() < 3 else 0.2)
def vector(peak, steps): return Schedule(lambda step: keras.ops.ones((3,)) * peak)
"""


@pytest.fixture
def module(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module with these schedules."""
    name = f"schedules_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(PROGRAM)
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


def plan_with(module: str, function: str) -> LearningRatePlan:
    return LearningRatePlan(0.8, 0.0, 6, "none", 0, 0.0, f"python:{module}:{function}")


def test_a_condition_on_the_step_is_followed_in_the_graph_and_in_the_drawing(module: str) -> None:
    plan = plan_with(module, "with_if")
    decay = own_decay(plan)

    @tf.function(autograph=False)  # as the step is traced
    def rates() -> tf.Tensor:
        return tf.map_fn(decay, tf.range(6, dtype=tf.float64))

    expected = [0.5, 0.5, 0.5, 0.25, 0.25, 0.25]
    assert rates().numpy().tolist() == expected
    assert drawn_rate(plan, tf.range(6, dtype=tf.float64).numpy()).tolist() == expected


@pytest.mark.parametrize(
    "function, message",
    [
        ("broken", r"ended with RuntimeError \(out of luck\) in line 16 of .*schedules_\d+\.py"),
        ("eager", r"ended with AttributeError \(.*numpy.*\) in line \d+ of .*; mend it"),
        ("vector", r"gives \(3,\) numbers a step; it must give a single one"),
    ],
)
def test_what_it_does_wrong_when_called_is_a_sentence(
    module: str, function: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        own_decay(plan_with(module, function))
