"""Where a decay ends, on the host as on the device, and that one_cycle is PyTorch's OneCycleLR."""

import math

import numpy as np
import pytest
import tensorflow as tf
from keras import ops
from keras.optimizers import schedules

from trainer.plan import curves
from trainer.plan.curve_settings import parse_decay, parse_warmup
from trainer.plan.curves import DECAYS, LearningRatePlan
from trainer.plan.durations import parse_duration
from trainer.plan.learning_rate import phases, plan_learning_rate
from trainer.plan.settings import LearningRateSettings

PEAK, END, STEPS = 0.4, 0.05, 100


def planned(decay: str, warmup: str = "none", **given: float) -> LearningRatePlan:
    values = {"rate": PEAK, "end": 0.0, "steps": STEPS, **given}
    settings = LearningRateSettings(
        values["rate"], "none", 64, parse_warmup(warmup), parse_decay(decay), values["end"]
    )
    train_for = parse_duration(f"{values['steps']:.0f}st")
    return plan_learning_rate(settings, global_batch=64, examples=640, train_for=train_for)


def rates(plan: LearningRatePlan, progress: list[float]) -> np.ndarray:
    """What the device computes, which the plan has to show too."""
    found = curves.rate(plan, tf.constant(progress, tf.float64), ops).numpy()
    np.testing.assert_allclose(curves.rate(plan, progress), found, rtol=1e-9, atol=1e-18)
    return found


# A NumPy float64 makes Keras's schedules compute in float64 rather than float32.
TOP, LOW = np.float64(PEAK), np.float64(END)
OF_KERAS = {
    "cosine": schedules.CosineDecay(TOP, STEPS, LOW / TOP),
    "linear": schedules.PolynomialDecay(TOP, STEPS, LOW, 1.0),
    "polynomial(power=3)": schedules.PolynomialDecay(TOP, STEPS, LOW, 3.0),
    "exponential(15st,0.9)": schedules.ExponentialDecay(TOP, 15.0, 0.9),
    "exponential(15st,0.9,staircase=true)": schedules.ExponentialDecay(TOP, 15.0, 0.9, True),
    "inverse_time(50st,2)": schedules.InverseTimeDecay(TOP, 50.0, 2.0),
    "inverse_time(50st,2,staircase=true)": schedules.InverseTimeDecay(TOP, 50.0, 2.0, True),
    "step(20st:0.5,60st:0.5)": schedules.PiecewiseConstantDecay(
        [19.5, 59.5], [TOP, TOP / 2, TOP / 4]
    ),
}


@pytest.mark.parametrize("decay", OF_KERAS)
def test_a_rate_has_the_bits_of_the_schedule_of_keras(decay: str) -> None:
    progress = np.concatenate([np.arange(STEPS + 20), np.linspace(0, STEPS + 20, 1001)])
    wanted = OF_KERAS[decay](tf.constant(progress, tf.float64)).numpy()
    assert wanted.dtype == np.float64
    assert rates(planned(decay, end=END), progress).tolist() == wanted.tolist()


# The rate is `end_learning_rate` for the first time in the last update, or in the one after it.
AT_THE_LAST = {"one_cycle": "one_cycle(end=1e9)"}
AFTER_IT = {
    "cosine": "cosine",
    "linear": "linear",
    "polynomial": "polynomial(power=3)",
    "wsd": "wsd(cooldown=20%,shape=linear)",
    "wsd cosine": "wsd(cooldown=20%,shape=cosine)",
    "wsd sqrt": "wsd(cooldown=20%,shape=sqrt)",
}
# These are cut off at it, wherever they are then; or they begin anew.
OTHERS = {"exponential", "inverse_time", "step", "inverse_sqrt", "constant", "cosine_restarts"}


def test_every_decay_is_among_those_below() -> None:
    names = {name.split()[0] for name in (*AT_THE_LAST, *AFTER_IT)} | OTHERS
    assert names == set(DECAYS)


@pytest.mark.parametrize("warmup", ["none", "8st"])
@pytest.mark.parametrize("name", [*AT_THE_LAST, *AFTER_IT])
def test_the_end_is_reached_at_the_last_update_or_right_after_it(name: str, warmup: str) -> None:
    plan = planned((AT_THE_LAST | AFTER_IT)[name], warmup, end=END)
    before, last, after, beyond = rates(plan, [STEPS - 2, STEPS - 1, STEPS, STEPS + 50])
    assert after == beyond == pytest.approx(END, rel=1e-12)
    assert before > last
    assert (last == pytest.approx(END, rel=1e-12)) == (name in AT_THE_LAST)
    # And what the plan says of the last update is that.
    assert phases(plan)[-1].end == pytest.approx(last, rel=1e-12)


def test_the_last_update_is_a_step_short_of_an_end_of_0() -> None:
    assert rates(planned("linear"), [STEPS - 1]) == pytest.approx(0.004, rel=1e-9)


def test_a_period_of_cosine_restarts_would_end_in_the_update_with_which_the_next_begins() -> None:
    before, last, after = rates(planned("cosine_restarts(25st,longer=1)", end=END), [23, 24, 25])
    assert END < last < before < after == pytest.approx(PEAK, rel=1e-9)
    assert last == pytest.approx(END + (PEAK - END) * (1 + math.cos(math.pi * 24 / 25)) / 2)


@pytest.mark.parametrize("longer", [1, 1.5, 2])
@pytest.mark.parametrize("lower", [1.0, 0.5])
def test_restarts_follow_each_other(longer: float, lower: float) -> None:
    plan = planned(f"cosine_restarts(7st,longer={longer},lower={lower})", end=END)
    begin, length, height = 0.0, 7.0, 1.0
    for step, rate in enumerate(rates(plan, list(range(STEPS)))):
        if step >= begin + length:
            begin, length, height = begin + length, length * longer, height * lower
        cosine = (1 + math.cos(math.pi * (step - begin) / length)) / 2
        assert rate == pytest.approx(END + (PEAK - END) * height * cosine, rel=1e-8), step


def test_a_warmup_has_the_first_rate_of_the_decay_in_its_last_update() -> None:
    for decay in ("cosine", "one_cycle", "wsd"):
        for warmup in ("8st", "exponential(8st,start=0.001)"):
            plan = planned(decay, warmup)
            before, last, first = rates(plan, [6, 7, 8])
            assert before < last == pytest.approx(first, rel=1e-12)


@pytest.mark.parametrize("warmup", ["8st", "exponential(8st,start=0.001)"])
@pytest.mark.parametrize("decay", DECAYS)
def test_a_learning_rate_of_0_stays_0(decay: str, warmup: str) -> None:
    arguments = {"step": "(20st:0.1)", "exponential": "(15st,0.5)", "inverse_time": "(15st,0.5)"}
    arguments["cosine_restarts"] = "(25st)"
    plan = planned(decay + arguments.get(decay, ""), warmup, rate=0.0)
    assert rates(plan, [0, 4, 7, 8, 50, 99, 100]).tolist() == [0.0] * 7


def pytorch(
    step: int, total: int, share: float, first: float, top: float, last: float
) -> float | None:
    """The value of step 0, 1, … by PyTorch's OneCycleLR(total_steps=total, pct_start=share).

    As torch/optim/lr_scheduler.py has it, with anneal_strategy="cos" and three_phase=False; None
    where it divides by 0.
    """
    stages = [(float(share * total) - 1, first, top), (total - 1, top, last)]
    start = 0.0
    for number, (end, begin, target) in enumerate(stages):
        if step <= end or number == len(stages) - 1:
            if end == start:
                return None
            cosine = math.cos(math.pi * ((step - start) / (end - start))) + 1
            return target + (begin - target) / 2.0 * cosine
        start = end
    raise AssertionError


@pytest.mark.parametrize("total", [1, 2, 3, 4, 5, 7, 96, 100, 101])
@pytest.mark.parametrize("percent", [0, 1, 10, 25, 30, 50, 99, 100])
def test_one_cycle_is_that_of_pytorch(total: int, percent: int) -> None:
    plan = planned(f"one_cycle(rise={percent}%)", steps=total)
    share, steps = percent / 100, list(range(total))
    moved = curves.momentum(plan, tf.constant(steps, tf.float64), ops).numpy()
    np.testing.assert_allclose(curves.momentum(plan, steps), moved, rtol=1e-12)
    for step, rate, beta in zip(steps, rates(plan, steps), moved, strict=True):
        wanted = pytorch(step, total, share, PEAK / 25, PEAK, PEAK / 25 / 1e4)
        if wanted is not None:
            assert rate == pytest.approx(wanted, rel=1e-9), step
            assert beta == pytest.approx(pytorch(step, total, share, 0.95, 0.85, 0.95), rel=1e-9)
        else:  # a rise of a single update: that has the highest rate
            assert (rate, beta) == (PEAK, 0.85)


def test_one_cycle_ends_at_its_last_update_with_the_highest_rate_over_25_over_10000() -> None:
    plan = planned("one_cycle")
    first, top, last = rates(plan, [0, 29, STEPS - 1])
    assert (first, top) == (pytest.approx(PEAK / 25, rel=1e-12), PEAK)
    assert last == pytest.approx(1.6e-6, rel=1e-9)
    shown = [(phase.name, phase.start, phase.stop) for phase in phases(plan)]
    assert shown == [("rise", 0, 30), ("fall", 30, 100)]
    assert phases(plan)[0].end == PEAK
    assert phases(plan)[1].end == pytest.approx(1.6e-6, rel=1e-9)
